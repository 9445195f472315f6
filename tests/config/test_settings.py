"""--set can give every field of every configuration each of its values."""

import dataclasses
import math
import typing
from typing import Any, Literal, get_args, get_origin

import pytest

from dig_jax.common import typed
from dig_jax.common.fields import CHECK, Range
from dig_jax.config import Config
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.presets import preset
from tests.config.test_ranges import parts

# Rules between fields that a value meets beside its own range -> what else to set; V is the value.
STAGES = "curriculum.stages=[{'until': V, 'weights': {'single': 1}}]"
ONE_STEP = ("steps=1", STAGES.replace("V", "1"))
COMPANIONS = {
    "steps": ("pairs_per_step=1", STAGES),
    "pairs_per_step": ONE_STEP,
    "data.min_pixels": ("data.max_pixels=0",),
    "data.buckets": (STAGES.replace("single", "1").replace("V", "60"),),
    "reward.overlong_buffer": ("rollout.max_tokens=1048576",),
    "grpo.minibatches": ("pairs_per_step=65536", *ONE_STEP),
    "grpo.accumulate": ("pairs_per_step=65536", *ONE_STEP),
    "grpo.answer_slices": ("rollout.group=1024",),
    "curriculum.stages.0.until": ("pairs_per_step=1", "steps=V", STAGES),
    "mesh.fsdp": ("pairs_per_step=65536", "eval.batch=65536", *ONE_STEP),
    "sft.pairs_weight": ("sft.questions_root=q", "sft.questions_per_step=4"),
    "sft.questions_per_step": ("sft.questions_root=q",),
    "mesh.tensor": ("pairs_per_step=65536", *ONE_STEP),
}
STRINGS = ("5", "1e-3", "-2", "none", "true", "x y", "a=b", "'quoted'", "[1]", " end ", "§")
WORDS = {  # strings that only certain words satisfy -> some of those
    "sft.questions": ("here", "pope", "refcoco_val*3,cvbench/Count*2,here"),
    "reward.function": ("dig", "vision_reasoner", "my_module:reward"),
    "checkpoint.best": ("", "f1", "sampled/reward"),
    "checkpoint.root": ("", "5", "gs://bucket/folder"),
}
PLACES = ("5", "runs/x=1", "a b", "gs:/x", "none")
TUPLES = {
    "eval.modes": (("greedy",), ("greedy", "sampled")),
    "log.trackers": ((), ("wandb",), ("wandb", "trackio")),
    "lora.targets": (("wq",), ("1", "-2", "none")),
    "data.buckets": (("1",), ("1", "a b", "none")),
    "checkpoint.accept": ((), ("data",), ("versions.jax", "source")),
}


def fields_of(tree: object, path: str = "") -> list[tuple[str, type, dataclasses.Field]]:
    """(dotted path, annotation, field) of every field that is not a section itself."""
    hints, found = typing.get_type_hints(type(tree)), []
    for field in dataclasses.fields(tree):
        here = f"{path}.{field.name}" if path else field.name
        value = getattr(tree, field.name)
        if dataclasses.is_dataclass(value):
            found += fields_of(value, here)
        else:
            found.append((here, hints[field.name], field))
            many = isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0])
            found += fields_of(value[0], f"{here}.0") if many else []
    return found


def values_of(path: str, hint: Any, field: dataclasses.Field) -> list:
    """Values that the field may have: all of a Literal, both ends of a range, odd texts."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if hint is bool:
        return [True, False]
    if get_origin(hint) is tuple and path in TUPLES:
        return list(TUPLES[path])
    if get_origin(hint) is tuple and parts(hint)[0] is str:
        return [(), ("5",), ("-2", "none", "a b")]
    if hint is str:
        is_place = field.metadata.get(CHECK)
        return list(WORDS.get(path) or (PLACES if is_place else STRINGS))
    if hint in (int, float):
        return ends(field.metadata[CHECK], hint)
    return []


def ends(allowed: Range, kind: type) -> list:
    low = allowed.least if allowed.least is not None else math.nextafter(allowed.above, math.inf)
    return [kind(low), kind(allowed.most)]


def texts_of(value: Any) -> list[str]:
    """Ways to write a value after `=`."""
    if isinstance(value, tuple):
        plain = [",".join(value)] if all("," not in item for item in value) else []
        return [*plain, repr(value), repr(list(value))]
    if isinstance(value, bool):
        return [str(value), str(value).lower(), str(int(value)), "yes" if value else "no"]
    return [str(value), f" {value} "] if isinstance(value, int | float) else [str(value)]


FIELDS = fields_of(Config())
OTHERS = {"curriculum.stages", "curriculum.stages.0.weights"}  # tested below


@pytest.mark.parametrize(("path", "hint", "field"), FIELDS, ids=[path for path, *_ in FIELDS])
def test_every_field_takes_each_of_its_values_by_set(path, hint, field):
    values = values_of(path, hint, field)
    assert bool(values) != (path in OTHERS)
    for value in values:
        beside = [text.replace("V", str(value)) for text in COMPANIONS.get(path, ())]
        for text in texts_of(value):
            changed = typed.override(Config(), [*beside, f"{path}={text}"])
            assert reach(changed, path) == value
            assert type(reach(changed, path)) is type(value)


def reach(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree[int(name)] if name.isdecimal() else getattr(tree, name)
    return tree


def test_dicts_and_tuples_of_sections_are_set_whole_or_by_part():
    cfg = typed.override(Config(), ["curriculum.stages.1.weights={'single': 0, 'mixed': 2.5}"])
    assert cfg.curriculum.stages[1].weights == {"single": 0.0, "mixed": 2.5}
    stages = "({'until': 60, 'weights': {'single': 1}},)"
    cfg = typed.override(
        Config(), [f"curriculum.stages={stages}", "curriculum.stages.0.weights.dual=3"]
    )
    assert cfg.curriculum.stages[0].weights == {"single": 1.0, "dual": 3.0}


LOOK_FIELDS = fields_of(SceneConfig())


@pytest.mark.parametrize(("path", "hint", "field"), LOOK_FIELDS, ids=[p for p, *_ in LOOK_FIELDS])
def test_a_looks_choices_and_numbers_are_set_on_the_command_line(path, hint, field):
    """By `python -m dig_jax.data make --set look.X=...`; rules between fields may still refuse."""
    corpus = preset("quickstart")
    now = getattr(corpus.look, path)
    values = [now] if not isinstance(now, dict) else []
    values += values_of(path, hint, field) if get_origin(hint) is Literal else []
    for value in values:
        for text in texts_of(value):
            changed = typed.override(corpus, [f"look.{path}={text}"])
            assert getattr(changed.look, path) == value
    if isinstance(now, dict):
        changed = typed.override(corpus, [f"look.{path}.tiny=0.3", f"look.{path}.large=0.9"])
        assert changed.look.sizes == {"large": 0.9, "medium": 0.55, "tiny": 0.3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optim.freeze=(3)"], r"optim.freeze=3 is a int; give a tuple"),
        (["optim.freeze=('wq')"], r"optim.freeze='wq' is a str; give a tuple"),
        (["optim=3"], r"optim=3 is a int; give a dict"),
        (["optim={3: 4}"], r"optim.3 has a int for its name"),
        (["optim=none"], r"optim='none' does not read as OptimConfig"),
        (["optim=None", "optim.rate=1"], r"optim=None is a NoneType; give a dict"),
        (["curriculum.stages=5", "curriculum.stages.0.until=3"], r"stages.0=5 is a int; give a d"),
        (["curriculum.stages=[{'until': 60}]"], r"curriculum.stages.0.weights is missing; give it"),
        (["curriculum.stages.²=1"], r"curriculum.stages='²' is not an index; use 0 to 2"),
        (["curriculum.stages.0.weights.new.x=1"], r"weights.new' is a single value"),
        (["curriculum.stages.0.weights={1: 2}"], r"weights.1 has a int for its name"),
        (["curriculum.stages.0.weights={[]: 2}"], r"weights='{\[\]: 2}' does not read as dict"),
        (["curriculum.stages=" + "(" * 9999], r"curriculum.stages='\(\("),
        (["grpo.ddof=2"], r"grpo.ddof='2' is not a choice; use one of 0, 1"),
        (["=1"], r"--set='=1' has no value"),
        (["seed..x=1"], r"'seed' is a single value; 'seed..x' does not exist"),
    ],
)
def test_a_setting_that_fits_nowhere_is_refused_by_its_field(settings, message):
    with pytest.raises((KeyError, TypeError, ValueError), match=message):
        typed.override(Config(), settings)
