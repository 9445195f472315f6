"""Every number of every configuration is finite and in a range that means something."""

import dataclasses
import math
import os
import pathlib
import typing
from typing import get_args, get_origin

import jax
import numpy as np
import pytest

from dig_jax.common import typed
from dig_jax.common.fields import CHECK, SEED, Range, expanded
from dig_jax.config import Config, Stage, config_hash, from_json, load_config, to_json
from dig_jax.data.feed.curriculum import index_table
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.presets import Corpus
from tests import ROOT
from tpu.cost import Work

HASHES = {  # of the shipped files, since there is a learner to choose
    "paper_8b": "ccf28844aa46",
    "easyr1_parity": "f0d25f0b53d6",
    "mid_gpu": "8c55a5c523f7",
    "pod_4b": "11dd53bec745",
    "pod_8b": "601d3bf017f8",
    "tiny_cpu": "573ef9c2fcac",
    "tiny_no_curriculum": "534cbf9dc66d",
    "tiny_no_kl": "b70057d24eb4",
    "mid_base": "3666cc35feea",
    "refcoco_4b": "58235f47209d",
    "tiny_base": "3da06a16f8fa",
    "tiny_base_end": "cc438880b67a",
    "tiny_base_polish": "90102bb1cc1d",
    "tiny_sft": "2d3b5aa8a1cf",
}
NOT_FINITE = (math.inf, -math.inf, math.nan)
PLACES = {"run_dir", "data.root", "checkpoint.root", "model.source"}


def sections(kind: type) -> list[type]:
    """A dataclass and all that its fields hold."""
    inner = [arg for hint in typing.get_type_hints(kind).values() for arg in parts(hint)]
    found = [kind]
    for one in inner:
        found += sections(one) if dataclasses.is_dataclass(one) else []
    return found


def parts(hint) -> list:
    """An annotation's leaves: `tuple[X, ...]` and `dict[str, X]` are of X."""
    if get_origin(hint) is tuple:
        return parts(get_args(hint)[0])
    return parts(get_args(hint)[1]) if get_origin(hint) is dict else [hint]


def numbers() -> list[tuple[type, dataclasses.Field, type]]:
    """Every field of numbers of every configuration there is: (section, field, int or float)."""
    kinds = dict.fromkeys([*sections(Config), *sections(Corpus), Work])
    found = []
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            leaves = [leaf for leaf in parts(hints[field.name]) if leaf in (int, float)]
            found += [(kind, field, leaves[0])] if leaves else []
    return found


CHECKED_BY_HAND = {(SceneConfig, "sizes")}  # each radius is named in its error


def named(case) -> str:
    return f"{case[0].__name__}.{case[1].name}"


@pytest.mark.parametrize("case", numbers(), ids=named)
def test_every_number_has_a_range_and_refuses_what_is_outside(case):
    kind, field, leaf = case
    if (kind, field.name) in CHECKED_BY_HAND:
        return
    allowed = field.metadata[CHECK]
    assert isinstance(allowed, Range)
    low = allowed.above if allowed.least is None else allowed.least
    assert low < allowed.most < math.inf
    outside = [low - 1, allowed.most * 2 + 1, *(NOT_FINITE if leaf is float else ())]
    for value in outside:
        with pytest.raises(ValueError, match=field.name):
            with_value(kind, field, leaf(value) if math.isfinite(value) else value)


def with_value(kind: type, field: dataclasses.Field, value):
    """A section with one field set, all others as they are."""
    if kind is Stage:
        given = {"until": 1, "weights": {"single": 1.0}}
        return Stage(**{**given, field.name: {"dual": value} if field.name == "weights" else value})
    if kind is Work:
        given = dict.fromkeys((f.name for f in dataclasses.fields(Work)), 1)
        return Work(**{**given, field.name: value})
    first = {Draw: ("single",), SplitSpec: (Draw("single"), 1)}.get(kind, ())
    return dataclasses.replace(kind(*first), **{field.name: value})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("curriculum.stages.0.weights.dual=inf", r"weights.dual=inf is not a finite number"),
        ("curriculum.stages.0.weights.dual=1e-300", r"has a share that no run draws"),
        ("optim.rate=inf", r"optim.rate=inf is not a finite number"),
        ("optim.rate=1e400", r"optim.rate=inf is not a finite number"),
        ("optim.rate=nan", r"optim.rate=nan is not a finite number"),
        ("optim.b2=0.99999999", r"optim.b2=0.99999999 is above 0.999999; use 0.999999 or less"),
        ("rollout.temperature=1e-45", r"rollout.temperature=1e-45 is below 0.001; use 0.001"),
        ("seed=1180591620717411303424", r"seed=1180591620717411303424 is above 4294967295; use"),
        ("seed=4294967296", r"seed=4294967296 is above 4294967295; use 4294967295 or less"),
        ("steps=1000001", r"steps=1000001 is above 1000000"),
    ],
)
def test_a_number_that_means_nothing_is_refused_by_name(setting, message):
    with pytest.raises(ValueError, match=message):
        typed.override(Config(), [setting])


def test_a_run_of_more_draws_than_a_table_holds_is_refused():
    stages = "curriculum.stages=[{'until': 100000, 'weights': {'single': 1}}]"
    with pytest.raises(ValueError, match=r"steps=100000 with pairs_per_step=65536 draws more th"):
        typed.override(Config(), ["steps=100000", stages, "pairs_per_step=65536"])


def test_an_integer_too_long_to_print_is_refused_by_name():
    with pytest.raises(ValueError, match=r"seed=\(a int too long to print\) is above 4294967295"):
        Config(seed=10**5000)
    with pytest.raises(ValueError, match=r"weights.single=\(a int too long .* is not a finite"):
        Stage(1, {"single": 10**5000})


def test_all_seeds_in_range_have_keys_of_their_own():
    """2**32 was 0 again; the order of the pairs and the keys differ up to the largest."""
    seeds = [0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 2, SEED]
    keys = {tuple(np.asarray(jax.random.key_data(jax.random.key(seed)))) for seed in seeds}
    assert len(keys) == len(seeds)
    sizes = {"single": 50, "dual": 50, "mixed": 50}
    orders = {bytes(index_table(Config(seed=seed), sizes).offset) for seed in seeds}
    assert len(orders) == len(seeds)
    spare = {bytes(index_table(Config(seed=s), sizes, a).offset) for s in seeds for a in (1, 2)}
    assert len(orders | spare) == 3 * len(seeds)
    with pytest.raises(ValueError, match=r"draw\.seed"):
        Draw("single", seed=SEED + 1)


def test_the_order_of_spare_pairs_is_what_it_was():
    """Of a run that drew again before: the attempt stands beyond 64 bits of the seed."""
    rng = np.random.default_rng((3 + (1 << 64), 0, 0))
    table = index_table(Config(seed=3), {"single": 50, "dual": 50, "mixed": 50}, 1)
    first = table.offset[table.bucket == 0][:50]
    assert first.tolist() == rng.permutation(50).tolist()


@pytest.mark.parametrize("name", HASHES)
def test_the_shipped_configs_have_the_hashes_that_they_had(name):
    cfg = load_config(ROOT / "configs" / f"{name}.py")
    assert config_hash(cfg) == HASHES[name]
    assert from_json(to_json(cfg)) == cfg


def test_every_place_is_known_and_has_the_home_folder_for_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = set()
    for path, value in typed.leaves(Config()):
        if isinstance(value, str) and ("/" in value or path == "checkpoint.root"):
            found.add(path)
            cfg = typed.override(Config(), [f"{path}=~/x"])
            assert dict(typed.leaves(cfg))[path] == str(tmp_path / "x")
            with pytest.raises(ValueError, match=rf"{path}='~no_such_user/x' names no user"):
                typed.override(Config(), [f"{path}=~no_such_user/x"])
            for wrong in (" x", "x ", "a\0b"):
                with pytest.raises(ValueError, match=rf"{path}=.* has a blank at an end or a NUL"):
                    typed.override(Config(), [f"{path}={wrong}"])
    assert found == PLACES
    assert expanded("./~x", "f") == "./~x"
    assert expanded(f"a{os.sep}~", "f") == f"a{os.sep}~"


@pytest.mark.parametrize("field", sorted(PLACES - {"checkpoint.root"}))
def test_an_empty_place_is_refused(field):
    """An empty run_dir was the working directory."""
    with pytest.raises(ValueError, match=rf"{field}='' is empty; name a folder"):
        typed.override(Config(), [f"{field}="])


def test_equal_numbers_have_equal_text():
    """NumPy's floats, -0.0, True for 1: none of them shows in the text of a configuration."""
    plain = Config()
    for settings in (
        {"optim": dataclasses.replace(plain.optim, rate=np.float64(1e-6), weight_decay=-0.0)},
        {"optim": dataclasses.replace(plain.optim, weight_decay=0)},
    ):
        cfg = dataclasses.replace(plain, **settings)
        assert type(cfg.optim.rate) is float
        assert math.copysign(1, cfg.optim.weight_decay) == 1
    with pytest.raises(ValueError, match=r"grpo.ddof=True is not a choice; use one of 0, 1"):
        dataclasses.replace(plain.grpo, ddof=True)
    with pytest.raises(ValueError, match=r"name='\\udcff' is not text that UTF-8 can hold"):
        dataclasses.replace(plain, name="\udcff")


def test_no_home_of_this_machine_is_in_the_shipped_configs():
    for path in pathlib.Path(ROOT / "configs").glob("*.py"):
        assert "~" not in path.read_text(), path.name
