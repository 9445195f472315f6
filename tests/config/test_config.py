"""The configuration tree: rules with remedies, typed overrides, text that comes back equal."""

import dataclasses
import json
from pathlib import Path

import pytest

from dig_jax import config
from dig_jax.common import typed
from dig_jax.config import (
    Config,
    CurriculumConfig,
    EvalConfig,
    GrpoConfig,
    MeshConfig,
    OptimConfig,
    Stage,
    commandline,
    config_hash,
    from_json,
    load_config,
    to_json,
)
from tests import ROOT

FILE = '''
"""A test run."""
from dig_jax.config import Config, RolloutConfig

def get_config(variant="full"):
    return Config(name=variant, rollout=RolloutConfig(group=4))
'''


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(FILE)
    return file


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.rat=1", r"unknown config field 'optim.rat'; nearest: rate"),
        ("optimizer.rate=1", r"unknown config field 'optimizer'; nearest: optim"),
        ("optim.rate.x=1", r"'optim.rate' is a single value; 'optim.rate.x' does not exist"),
        ("optim.rate=fast", r"optim.rate='fast' does not read as float"),
        ("grpo.epochs=1.5", r"grpo.epochs='1.5' does not read as int"),
        ("prompt.add_vision_id=maybe", r"prompt.add_vision_id='maybe' is not a truth value"),
        ("reward.think=never", r"reward.think='never' is not a choice; use one of 'none'"),
        ("rollout.temperature=0", r"rollout.temperature=0.0 is below 0.001; use 0.001 or more"),
        ("rollout.chunk=-1", r"rollout.chunk=-1 is below 0; use 0 or more"),
        ("rollout.compact=0.95", r"rollout.compact=0.95 is above 0.9; use 0.9 or less"),
        ("rollout.compact=0.05", r"rollout.compact=0.05 is neither 0 nor within \[0.1, 0.9\]; use"),
        ("rollout.group=1", r"rollout.group=1 is below 2; use 2 or more"),
        ("data.image_width=0", r"data.image_width=0 is below 1; use 1 or more"),
        ("data.workers=-1", r"data.workers=-1 is below 0; use 0 or more"),
        ("data.root=s3://b/paper", r"data.root='s3://b/paper' is neither a path nor gs://BUCKET/F"),
        ("data.root=gs://b", r"data.root='gs://b' is neither a path nor gs://BUCKET/FOLDER"),
        ("checkpoint.root=gs://b/", r"checkpoint.root='gs://b/' is neither a path nor gs://B"),
        ("run_dir=gs://b/run", r"run_dir='gs://b/run' is an address; .* checkpoint.root and"),
        ("data.cache=memory", r"data.cache='memory' is not a choice; use one of 'none', 'decoded'"),
        ("data.min_pixels=-1", r"data.min_pixels=-1 is below 0"),
        ("eval.decoding=beam", r"eval.decoding='beam' is not a choice; use one of 'policy'"),
        ("prompt.max_tokens=-1", r"prompt.max_tokens=-1 is below 0"),
        ("data.eval_split=dual", r"data.eval_split='dual' is also a training bucket"),
        ("data.buckets=single", r"stages.1.weights=\['dual'\] names a bucket that data lacks"),
        ("steps=61", r"stages.2.until=60 does not equal steps=61; .*stages.2.until=61"),
        ("curriculum.stages.1.until=20", r"stages until=\[20, 20, 60\] are not ascending"),
        ("curriculum.stages.7.until=1", r"curriculum.stages='7' is not an index; use 0 to 2"),
        ("grpo.accumulate=3", r"pairs_per_step=16 is not a multiple of .* = 3; use 15"),
        ("mesh.fsdp=3", r"mesh.tensor=3 does not divide the 16 pairs .* pairs_per_step=3"),
        ("eval.batch=5", r"eval.batch=5 is not a multiple of mesh.fsdp=2; use 4"),
        ("pairs_per_step=0", r"pairs_per_step=0 is below 1"),
        ("just-a-word", r"--set='just-a-word' has no value; write --set a.b=c"),
    ],
)
def test_a_wrong_setting_names_field_value_rule_and_remedy(path, setting, message):
    extra = ["mesh.fsdp=2"] if setting.startswith("eval.") else []
    with pytest.raises((KeyError, ValueError), match=message):
        load_config(path, [*extra, setting])


def test_gradient_slices_are_what_the_mesh_must_divide():
    """16 pairs in 4 slices leave 4 pairs: 4 devices can share them, 8 cannot."""
    grpo = GrpoConfig(minibatches=2, accumulate=2)
    assert Config(grpo=grpo, mesh=MeshConfig(fsdp=4)).pairs_per_step == 16
    for mesh in (MeshConfig(fsdp=8), MeshConfig(fsdp=4, tensor=2)):
        with pytest.raises(ValueError, match=r"tensor=8 does not divide the 4 pairs of one grad"):
            Config(grpo=grpo, mesh=mesh, eval=EvalConfig(batch=8))


def test_overrides_are_typed_by_the_annotation(path):
    cfg = load_config(
        path,
        [
            "rollout.group=16",
            "optim.rate=3",
            "optim.freeze=vision, text/embed",
            "prompt.add_vision_id=yes",
            "prompt.question=Which = differ?",
            "curriculum.stages.1.weights={'dual': 1}",
            "curriculum.stages.2.weights.mixed=0.25",
            "model.remat=full",
        ],
    )
    assert (cfg.rollout.group, cfg.optim.rate) == (16, 3.0)
    assert isinstance(cfg.optim.rate, float)
    assert cfg.optim.freeze == ("vision", "text/embed")
    assert cfg.prompt.add_vision_id is True
    assert cfg.prompt.question == "Which = differ?"
    assert cfg.curriculum.stages[1].weights == {"dual": 1.0}
    assert cfg.curriculum.stages[2].weights["mixed"] == 0.25
    assert load_config(path, ["optim.freeze="]).optim.freeze == ()


def test_settings_are_applied_together_before_the_rules():
    """Neither of these is valid without the other."""
    settings = ["steps=90", "curriculum.stages.2.until=90"]
    for order in (settings, settings[::-1]):
        assert typed.override(Config(), order).steps == 90


def test_optional_fields_read_none():
    @dataclasses.dataclass(frozen=True)
    class Node:
        limit: int | None = 3

    assert typed.override(Node(), ["limit=none"]).limit is None
    assert typed.override(Node(), ["limit=5"]).limit == 5
    typed.check_fields(Node(4), "node")
    typed.check_fields(Node(None), "node")
    with pytest.raises(TypeError, match=r"node.limit='x' is a str; give int"):
        typed.check_fields(Node("x"), "node")


def test_a_part_of_what_is_not_there_is_set_as_a_whole_first():
    @dataclasses.dataclass(frozen=True)
    class Node:
        lists: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    with pytest.raises(KeyError, match=r"'lists.a' does not exist yet; set it as a whole first"):
        typed.override(Node(), ["lists.a.0=2"])
    assert typed.override(Node(), ["lists.a=(1,)", "lists.a.0=2"]).lists == {"a": (2,)}


def test_wrong_types_in_a_config_file_are_named():
    with pytest.raises(TypeError, match=r"optim.rate='1e-6' is a str; give float"):
        OptimConfig(rate="1e-6")
    assert OptimConfig(rate=float("1e-6")).rate == 1e-6
    with pytest.raises(TypeError, match=r"grpo.epochs=True is a bool; give int"):
        GrpoConfig(epochs=True)


def test_equal_configurations_have_equal_text():
    """Lists become tuples and ints become floats, so writing style does not change the hash."""
    stages = [Stage(until=60, weights={"single": 1})]
    one = Config(curriculum=CurriculumConfig(stages=stages), optim=OptimConfig(rate=1))
    two = Config(
        curriculum=CurriculumConfig(stages=(Stage(60, {"single": 1.0}),)),
        optim=OptimConfig(rate=1.0),
    )
    assert one == two
    assert to_json(one) == to_json(two)


def test_json_comes_back_equal(path):
    cfg = load_config(path, ["optim.freeze=vision"])
    assert from_json(to_json(cfg)) == cfg
    assert json.loads(to_json(cfg))["rollout"]["group"] == 4


def test_json_with_an_unknown_field_is_refused():
    plain = json.loads(to_json(Config()))
    plain["rollout"]["groups"] = plain["rollout"].pop("group")
    with pytest.raises(KeyError, match=r"unknown config field 'rollout.groups'; nearest: group"):
        from_json(json.dumps(plain))


def test_the_hash_sees_every_field_but_where_the_run_is_written():
    base = Config()
    assert config_hash(dataclasses.replace(base, run_dir="elsewhere")) == config_hash(base)
    hashes = {config_hash(base)}
    for setting in ("seed=1", "optim.rate=2e-6", "curriculum.stages.0.weights.dual=0.1"):
        hashes.add(config_hash(typed.override(base, [setting])))
    assert len(hashes) == 4


def test_differences_name_dotted_paths():
    changed = typed.override(Config(), ["seed=1", "curriculum.stages.0.weights.dual=0.5"])
    assert typed.differences(Config(), changed) == {
        "seed": (0, 1),
        "curriculum.stages.0.weights.dual": (None, 0.5),
    }


def test_a_field_that_came_later_is_no_difference_at_its_default():
    """Of a run that was saved before there was one: it goes on unless the field is set."""
    old = typed.to_plain(Config())
    del old["grpo"]["packed"], old["grpo"]["sapo_up"]
    assert typed.differences(old, Config(), lacking=Config()) == {}
    new = typed.override(Config(), ["grpo.sapo_up=2"])
    assert typed.differences(old, new, lacking=Config()) == {"grpo.sapo_up": (1.0, 2.0)}
    assert typed.differences(old, new)["grpo.packed"] == (None, True)


def test_the_tree_is_printed_with_every_section_and_field():
    text = config.config_text(Config())
    for field in dataclasses.fields(Config):
        assert any(line.startswith(field.name) for line in text.splitlines()), field.name
    assert "curriculum\n  stages\n    0\n      until = 20\n" in text
    assert "  group = 8" in text


def test_every_field_is_explained_beside_it():
    """The config files are the manual: each field carries a comment."""
    files = Path(config.__file__).parent.glob("*.py")
    source = [line for file in files for line in file.read_text().splitlines()]
    for kind in vars(config).values():
        if dataclasses.is_dataclass(kind) and kind is not Config:
            for field in dataclasses.fields(kind):
                lines = [line for line in source if line.startswith(f"    {field.name}: ")]
                assert lines, field.name
                assert all("#" in line for line in lines), field.name


def test_a_config_file_takes_arguments_and_must_return_a_config(path, tmp_path):
    assert load_config(path, variant="smoke").name == "smoke"
    for text, message in (("x = 1", "has no get_config"), ("get_config = dict", "returned dict")):
        other = tmp_path / "other.py"
        other.write_text(text)
        with pytest.raises(TypeError, match=message):
            load_config(other)
        other.write_text("from dig_jax.config import Config\ndef get_config(): return Config()")
        assert load_config(other) == Config()
    with pytest.raises(FileNotFoundError, match=r"no config file .*missing.py; configs/ holds"):
        load_config(tmp_path / "missing.py")
    assert load_config(ROOT / "configs" / "tiny_cpu.py")


def test_the_command_line_is_config_settings_and_run_dir(path):
    argv = ["--config", str(path), "--set", "seed=5", "--set", "eval.batch=10", "--run-dir", "r"]
    cfg = commandline.parse_config(argv)
    assert (cfg.seed, cfg.eval.batch, cfg.run_dir, cfg.name) == (5, 10, "r", "full")


def test_a_wrong_command_line_ends_with_the_message_not_a_traceback(path, capsys):
    with pytest.raises(SystemExit) as caught:
        commandline.parse_config(["--config", str(path), "--set", "rollout.grup=5"])
    assert caught.value.code == 2
    assert "unknown config field 'rollout.grup'; nearest: group" in capsys.readouterr().err


def test_the_reward_presets_are_the_ablation_rows():
    weights = {n: (p.w_format, p.w_f1, p.w_iou) for n, p in config.REWARD_PRESETS.items()}
    assert weights == {
        "format_only": (1, 0, 0),
        "with_iou": (1, 0, 1),
        "with_f1": (1, 1, 0),
        "full": (1, 1, 1),
    }


def test_the_papers_weights_are_shares_of_ours():
    """By hand; and any three of our weights are a multiple of what some of its make."""
    cfg = config.published_reward(alpha=0.25, lambda_f1=2.0, lambda_iou=4.0, think="full")
    assert (cfg.w_format, cfg.w_f1, cfg.w_iou, cfg.think) == (0.25, 1.5, 3.0, "full")
    ours = config.RewardConfig(w_format=1.0, w_f1=3.0, w_iou=2.0)
    theirs = config.published_reward(alpha=0.5, lambda_f1=3.0, lambda_iou=2.0)
    ratios = [getattr(theirs, n) / getattr(ours, n) for n in ("w_format", "w_f1", "w_iou")]
    assert ratios == [0.5] * 3
    with pytest.raises(ValueError, match=r"alpha=1.5 is outside \[0, 1\]"):
        config.published_reward(alpha=1.5, lambda_f1=1, lambda_iou=1)
    assert config.published_reward(alpha=1.0, lambda_f1=1, lambda_iou=1).w_f1 == 0


def test_image_limits_must_leave_a_size(path):
    limits = ["data.min_pixels=2000", "data.max_pixels=1000"]
    with pytest.raises(ValueError, match=r"data.min_pixels=2000 is above data.max_pixels=1000"):
        load_config(path, limits)
    assert load_config(path, limits[:1]).data.min_pixels == 2000
