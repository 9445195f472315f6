"""The doctor's table: green on a sound run, and every red by its planted cause, with its remedy."""

import dataclasses
import functools
import inspect
import io
import math
import re
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.boxes import pairwise_iou
from dig_jax.common import commandline, typed
from dig_jax.config import (
    REWARD_FUNCTIONS,
    Config,
    GrpoConfig,
    MeshConfig,
    OptimConfig,
    RolloutConfig,
)
from dig_jax.data.feed.source import PairSource
from dig_jax.doctor import __main__ as doctor
from dig_jax.doctor import findings, pairs, selftest
from dig_jax.doctor.findings import Check, Finding, run_checks, table
from dig_jax.mesh import programs, sharding
from dig_jax.mesh.layout import Layout
from dig_jax.run import checkpoint, memory
from dig_jax.sampler.rollout import make_sampler
from tests import tiny_model
from tests.test_train import config_file, micro_config

GREEN = re.compile(r"^   ok  (\S.*?)  ", re.MULTILINE)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Config:
    """The configuration of the training tests, with room for whole answers."""
    cfg = micro_config(tmp_path_factory.mktemp("doctor"), tiny_model.small_base())
    return typed.override(cfg, ["rollout.max_tokens=80"])


@pytest.fixture
def diagnose(sound, tmp_path, capsys, monkeypatch):
    """diagnose("a.b=c", ...) -> (status, what is printed), of the sound run changed so."""
    one_device = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one_device)

    def run(*settings: str) -> tuple[int, str]:
        given = ["--config", config_file(sound, tmp_path)]
        for setting in settings:
            given += ["--set", setting]
        if not any(setting.startswith("run_dir=") for setting in settings):
            given += ["--run-dir", str(tmp_path / "run")]
        status = doctor.main(given)
        return status, capsys.readouterr().out

    return run


def lines_of(printed: str, name: str) -> str:
    """A row of the table and what is below it, wrapped lines joined."""
    rows = re.split(r"\n(?= {2,3}(?:ok|red|--) )", printed)
    [row] = [row for row in rows if re.match(rf" +(?:ok|red|--) +{re.escape(name)}  ", row)]
    return " ".join(row.split())


def test_a_sound_run_is_green_and_leaves_nothing(diagnose, tmp_path):
    status, printed = diagnose()
    assert status == 0, printed
    assert not re.search(r"^ +(red|--) ", printed, re.MULTILINE)
    assert len(GREEN.findall(printed)) == len(set(GREEN.findall(printed))) > 20
    assert max(map(len, printed.splitlines()[3:])) <= commandline.WIDTH
    assert not (tmp_path / "run").exists()


def test_a_root_of_checkpoints_is_tried_and_the_run_there_is_told(diagnose, tmp_path):
    """As tpu/README.md says to call it; it ended in `continuing() takes 1 positional argument`."""
    root = tmp_path / "kept"
    status, printed = diagnose(f"checkpoint.root={root}")
    assert status == 0, printed
    tried = lines_of(printed, "checkpoints")
    assert "a file was written, synced, read back and deleted" in tried
    assert "no run yet: a new one begins" in lines_of(printed, "earlier run")
    assert not root.exists()


def test_every_check_takes_what_the_checks_it_needs_have_found(sound):
    """With and without those that only some configurations have."""
    for settings in ([], ["checkpoint.root=kept"], ["eval.splits=test_novel"]):
        checks = doctor.checks_of(typed.override(sound, settings))
        names = [check.name for check in checks]
        for number, check in enumerate(checks):
            assert {*check.needs} <= {*names[:number]}, check.name
            inspect.signature(check.find).bind(*check.needs)


REDS = [  # settings, the row that turns red, what it says, its remedy, what is skipped for it
    (
        ["data.eval_split=absent"],
        "data absent",
        "holds no rendered pairs",
        "make them with `python -m dig_jax.data render",
        ["disjoint"],
    ),
    (["eval.pairs=9"], "data heldout", "holds 8", "--set eval.pairs=8", ["disjoint"]),
    (
        ["rollout.max_tokens=30"],
        "answers",
        "8 of the first 8 pairs of dual cannot be answered",
        "use --set rollout.max_tokens=",
        [],
    ),
    (
        ["reward.iou_threshold=1"],
        "reward",
        "the true answer in thousandths has F1 0",
        "lower reward.iou_threshold=1 below 0.9",
        [],
    ),
    (["reward.max_boxes=1"], "reward", "of 2 boxes has format 0", "raise reward.max_boxes=1", []),
    (
        ["mesh.fsdp=2", "grpo.minibatches=1"],
        "devices",
        "= 2 devices, but there are 1 (cpu)",
        "use --set mesh.fsdp=1",
        ["memory at rest", "memory rollout", "memory update"],
    ),
    (
        ["model.source=/nowhere"],
        "model",
        "/nowhere does not exist",
        "download or make it",
        ["weights", "images", "prompt", "answers", "memory at rest", "disk"],
    ),
    (["prompt.max_tokens=9"], "prompt", "more than prompt.max_tokens=9", "shorten", ["answers"]),
]


@pytest.mark.parametrize(("settings", "row", "rule", "remedy", "skipped"), REDS)
def test_a_planted_fault_is_red_with_its_remedy_and_all_else_is_checked(
    diagnose, settings, row, rule, remedy, skipped
):
    status, printed = diagnose(*settings)
    line = lines_of(printed, row)
    assert status == 1
    assert line.startswith("red ")
    assert rule in line
    assert remedy in line
    for name in skipped:
        assert "skipped: needs " in lines_of(printed, name)
    assert len(GREEN.findall(printed)) + printed.count("skipped: needs") >= 20


FOLLOWED = [  # settings, the row that turns red, how its remedy reads, the settings it amounts to
    (["eval.pairs=9"], "data heldout", r"--set (eval.pairs=\d+)", ["{0}"]),
    (["rollout.max_tokens=30"], "answers", r"--set (rollout.max_tokens=\d+)", ["{0}"]),
    (
        ["reward.iou_threshold=1"],
        "reward",
        r"lower reward.iou_threshold=1 below (\d.\d)",
        ["reward.iou_threshold={0}"],
    ),
    (["reward.max_boxes=1"], "reward", r"(raise) reward.max_boxes", ["reward.max_boxes=10"]),
    (
        ["mesh.fsdp=2", "grpo.minibatches=1"],
        "devices",
        r"--set (\S+) --set (\S+), or",
        ["{0}", "{1}", "grpo.minibatches=1"],
    ),
    (["prompt.max_tokens=9"], "prompt", r"or (raise) prompt.max_tokens", ["prompt.max_tokens=999"]),
]


@pytest.mark.parametrize(("settings", "row", "advice", "followed"), FOLLOWED)
def test_what_a_red_row_advises_makes_it_green(diagnose, settings, row, advice, followed):
    line = lines_of(diagnose(*settings)[1], row)
    assert line.startswith("red ")
    advised = re.search(advice, line)
    assert advised, line
    printed = diagnose(*(one.format(*advised.groups()) for one in followed))[1]
    assert lines_of(printed, row).startswith("ok "), lines_of(printed, row)


BROKEN = """
def nan(sample):
    return float("nan")

def lazy(sample):
    return 1.0 if not len(sample.boxes) else 0.5

SEEN = []

def stateful(sample):
    SEEN.append(sample.text)
    return 1.0 / len(SEEN)

def shy(sample):
    return 1.0 if len(sample.boxes) else -1.0 if sample.verdict == "ok" else 0.0

def fine(sample):
    return {"reward": float(len(sample.boxes))}
"""


@pytest.mark.parametrize(
    ("function", "rule", "remedy"),
    [
        ("nan", "its value is nan, not a finite number", "mend the function"),
        ("lazy", "the true answer earns 0.5, an empty list 1", "learns to say nothing"),
        ("shy", "prose earns 0, an answer that can be read -1", "where sample.readable is False"),
        ("absent", "absent does not exist", "its functions: fine, lazy, nan, shy"),
        ("stateful", "when all are scored again", "look in reward.function for a counter"),
    ],
)
def test_a_reward_function_of_ones_own_is_tried_on_real_pairs(
    diagnose, tmp_path, monkeypatch, function, rule, remedy
):
    (tmp_path / "my_rewards.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    status, printed = diagnose(f"reward.function=my_rewards:{function}")
    line = lines_of(printed, "reward")
    assert status == 1
    assert line.startswith("red ")
    assert rule in line
    assert remedy in line
    mended = diagnose("reward.function=my_rewards:fine")[1]
    assert lines_of(mended, "reward").startswith("ok ")


def test_a_sound_function_of_ones_own_and_the_named_ones_are_green(sound, tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_rewards", raising=False)
    sources = [PairSource(sound.data, name) for name in ("single", "dual")]
    for function in ("my_rewards:fine", *REWARD_FUNCTIONS):
        found = pairs.reward(typed.override(sound, [f"reward.function={function}"]), *sources)
        assert not found.rule, (function, found)


def test_thoughts_are_written_as_the_reward_wants_them(sound):
    sources = [PairSource(sound.data, name) for name in ("single", "dual")]
    for think in ("none", "prefilled", "full"):
        found = pairs.reward(typed.override(sound, [f"reward.think={think}"]), *sources)
        assert not found.rule, (think, found)


@pytest.mark.parametrize("boxes", [[[0, 0, 1, 1]], [[0.5, 0.2, 1, 0.4]], [[0.1, 0, 0.9, 1]],
                                   [[0.2, 0.2, 0.25, 0.3], [0.6, 0.6, 0.9, 0.7]]])  # fmt: skip
def test_a_box_moved_by_half_its_width_overlaps_itself_by_a_third_to_a_half(boxes):
    boxes = np.array(boxes, np.float32)
    own = np.diagonal(pairwise_iou(selftest.half_off(boxes), boxes))
    assert (own > 1 / 3 - 1e-5).all()
    assert (own < 1 / 2 + 1e-5).all()


def test_a_folder_that_cannot_be_written_is_red(diagnose, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, printed = diagnose(f"run_dir={tmp_path}/file/run")
    line = lines_of(printed, "run folder")
    assert status == 1
    assert line.startswith("red ")
    assert "cannot be written" in line
    assert "make it writable, or name another folder with --run-dir" in line
    root = lines_of(diagnose(f"checkpoint.root={tmp_path}/file/root")[1], "checkpoints")
    assert "make it writable, or name another checkpoint.root" in root
    other = (f"run_dir={tmp_path}/other", f"checkpoint.root={tmp_path}/root")
    assert diagnose(*other)[0] == 0
    (tmp_path / "file").unlink()
    assert diagnose(f"run_dir={tmp_path}/file/run")[0] == 0


def test_a_run_of_another_configuration_may_not_be_continued(sound, diagnose, tmp_path):
    done = dataclasses.replace(sound, run_dir=str(tmp_path / "run"))
    checkpoint.save(done, 2, {"a": jnp.ones(3)})
    before = sorted(tmp_path.joinpath("run").rglob("*"))
    status, printed = diagnose()
    assert status == 0, printed
    assert "it goes on after step 2 of 5" in lines_of(printed, "earlier run")
    status, printed = diagnose("seed=7")
    line = lines_of(printed, "earlier run")
    assert status == 1
    assert line.startswith("red ")
    assert "seed: saved 0, now 7" in line
    assert "start a new one with another --run-dir" in line
    assert sorted(tmp_path.joinpath("run").rglob("*")) == before


def test_scored_pairs_that_were_trained_on_are_red(sound, diagnose, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(sound.data.root, root)
    shutil.rmtree(root / "heldout")
    shutil.copytree(root / "dual", root / "heldout")
    status, printed = diagnose(f"data.root={root}")
    line = lines_of(printed, "disjoint")
    assert status == 1
    assert "8 of 8 pairs of heldout share pictures with training pairs" in line
    assert "make heldout again with another --seed, or name another split" in line
    shutil.copytree(sound.data.root + "/heldout", root / "other")
    assert diagnose(f"data.root={root}", "data.eval_split=other")[0] == 0


def test_a_damaged_shard_is_named(sound, diagnose, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(sound.data.root, root)
    shard = next((root / "dual").glob("*.arrayrecord"))
    shard.write_bytes(shard.read_bytes()[:-1])
    status, printed = diagnose(f"data.root={root}")
    assert status == 1
    assert "is corrupt: sha256 differs" in lines_of(printed, "data dual")
    assert lines_of(printed, "data single").startswith("ok ")


def test_too_little_memory_and_too_little_disk_are_red(diagnose, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(memory, "device_limit", lambda device: 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    status, printed = diagnose()
    assert status == 1
    assert "before any activation" in lines_of(printed, "memory at rest")
    assert "grpo.reference=bfloat16" in lines_of(printed, "memory at rest")
    assert "lower checkpoint.keep" in lines_of(printed, "disk")
    assert "skipped: needs memory at rest" in lines_of(printed, "memory update")
    needed = re.search(r"([\d.]+) (MB|kB) needed", lines_of(printed, "disk"))
    scale = {"kB": 1e3, "MB": 1e6}[needed[2]]
    free = usage._replace(free=int(float(needed[1]) * scale) - 100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    assert lines_of(diagnose()[1], "disk").startswith("red ")
    assert lines_of(diagnose("checkpoint.keep=1")[1], "disk").startswith("ok ")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert lines_of(diagnose()[1], "disk").startswith("ok ")


@functools.cache
def eight() -> Layout:
    """A model on a 4 x 2 mesh, trained with a reference, its vision tower frozen."""
    cfg = Config(
        pairs_per_step=8,
        rollout=RolloutConfig(group=2, max_tokens=6),
        grpo=GrpoConfig(kl_coef=0.1),
        optim=OptimConfig(freeze=("vision",)),
        mesh=MeshConfig(fsdp=4, tensor=2),
    )
    return Layout(cfg, sharding.make_mesh(cfg.mesh), tiny_model.CONFIG)


def placed(shapes):
    """Zeros where the shapes say."""
    return jax.tree.map(lambda s: jax.device_put(np.zeros(s.shape, s.dtype), s.sharding), shapes)


def held(tree) -> int:
    """Bytes of the shards on the first device."""
    shards = [shard for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards]
    return sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])


def test_the_counted_bytes_are_those_of_placed_arrays():
    layout = eight()
    state = placed(programs.state_shapes(layout))
    assert memory.at_rest(layout) == {
        "parameters": held(state.params),
        "moments": held(state.opt_state),
        "reference": held(state.reference),
    }
    whole, weights = memory.state_bytes(layout)
    assert whole == sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert weights == sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    assert held(state.params) < weights / 4
    copy = placed(programs.rollout_shapes(layout))
    assert memory.rollout(layout, 1)["answering copy"] == held(copy)


def test_the_counted_caches_are_what_the_decoding_loop_carries():
    """Read from the program that XLA makes for the mesh: the loop that carries the tokens."""
    layout = eight()
    prompt, images = sharding.shard_global(tiny_model.pairs_of(8), layout.mesh)
    sampler = make_sampler(layout.rollout_model, group=2, max_tokens=6, temperature=1.0)
    given = (programs.rollout_shapes(layout), prompt, images, jax.random.key(0))
    text = tiny_model.quick_jit(layout.traced(sampler)).lower(*given).compile().as_text()
    carried = [line.partition(" while(")[0] for line in text.splitlines() if " while(" in line]
    [loop] = [shapes for shapes in carried if "s32[2,2,6]" in shapes]  # 8 pairs on 4 rows
    counted = memory.rollout(layout, prompt.tokens.shape[1])
    for name, dimensions in (("prompt cache", 5), ("answer cache", 6)):
        found = re.findall(rf"f32\[(\d+(?:,\d+){{{dimensions - 1}}})\]", loop)
        assert len(found) == 2, name
        assert counted[name] == sum(4 * math.prod(map(int, f.split(","))) for f in found), name


def test_a_run_that_cannot_fit_is_refused_with_the_bytes_and_what_would_fit():
    """Bounds around the floors of the run itself and of the run that keeps less."""
    layout, whole = eight(), 10**9
    floor = memory.floor(layout, 21)
    memory.check_fits(layout, 21, whole)
    memory.check_fits(layout, 21, floor)
    with pytest.raises(ValueError, match="does not fit") as caught:
        memory.check_fits(layout, 21, floor - 1)
    text = str(caught.value)
    assert memory.bytes_text(floor) in text
    change = re.search(r"nearest that may fit: (.*)", text)[1].replace("--set ", "").split()
    assert change[0].startswith("grpo.reference")
    smaller = Layout(typed.override(layout.cfg, change), layout.mesh, layout.model)
    assert memory.floor(smaller, 21) < floor
    with pytest.raises(ValueError, match="use more devices, or a smaller model"):
        memory.check_fits(layout, 21, 1000)


def test_a_device_that_does_not_tell_its_memory_is_not_asked():
    assert memory.check_fits(eight(), 10**6) is None


def test_a_check_that_crashes_hides_no_other_and_needs_are_told():
    def crash():
        raise RuntimeError("boom")

    rows = run_checks([
        Check("a", lambda: Finding("1", 1)),
        Check("b", crash),
        Check("c", lambda a, b: Finding(""), ("a", "b")),
        Check("d", lambda a: Finding(f"got {a}"), ("a",)),
    ])  # fmt: skip
    assert [row.state for row in rows] == ["ok", "red", "--", "ok"]
    assert rows[1].rule == "RuntimeError: boom"
    assert rows[2].text == "skipped: needs b"
    assert rows[3].text == "got 1"


def test_colours_are_for_terminals_without_no_color(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert findings.in_colour(Terminal())
    assert not findings.in_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not findings.in_colour(Terminal())
    rows = run_checks([Check("a", lambda: Finding("x" * 300)), Check("b", lambda: 1 / 0)])
    plain = re.sub(r"\x1b\[[0-9;]*m", "", table(rows, colour=True))
    assert plain == table(rows)
    assert plain != table(rows, colour=True)
    assert max(map(len, plain.splitlines())) <= commandline.WIDTH
