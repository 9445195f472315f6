"""What cannot be made is refused before rendering, with a setting that can be."""

import argparse
import dataclasses
import re

import pytest

from dig_jax.common import typed
from dig_jax.data import __main__ as commands
from dig_jax.data import make
from dig_jax.data.corpus.feasible import check_feasible, probe
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.presets import PRESETS, preset

MIXED = SplitSpec(Draw("mixed", 0, 1, 4), pairs=1600)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_feasible(name):
    corpus = preset(name)
    for spec in corpus.splits:
        check_feasible(corpus.look, spec)  # raises where it is not
        assert probe(corpus.look, spec.draw).acceptance > 0.1


def test_the_acceptance_of_a_preset_leaves_no_index_without_a_scene():
    odds = probe(SceneConfig(), MIXED.draw)
    assert odds.accepted == 6
    assert odds.attempts_needed(1600) < SceneConfig().attempts


@pytest.mark.parametrize(
    "settings",
    [
        {"gap": 2.5},
        {"sizes": {"large": 1.6, "huge": 1.9}},
        {"half_width": 0.4},
        {"min_thing_px": 4000},
    ],
)
def test_an_impossible_density_is_refused_with_a_setting_that_works(settings):
    config = SceneConfig(**settings, attempts=60)
    with pytest.raises(
        ValueError, match=r"split mixed with 4 differences is not feasible"
    ) as caught:
        check_feasible(config, MIXED)
    text = str(caught.value)
    assert "dropped: " in text
    offered = re.findall(r"look\.(\w+)=(\{.*?\}|[\d.]+)(?:, or|$)", text.split(";")[1])
    assert offered
    for name, value in offered:
        fixed = typed.override(_Look(config), [f"look.{name}={value}"]).look
        check_feasible(dataclasses.replace(fixed), MIXED)


@dataclasses.dataclass(frozen=True)
class _Look:
    look: SceneConfig


def test_a_rare_scene_is_given_the_attempts_that_it_needs():
    config = SceneConfig(attempts=2)
    with pytest.raises(ValueError, match=r"look\.attempts=(\d+)") as caught:
        check_feasible(config, MIXED)
    needed = int(re.search(r"these work: look\.attempts=(\d+)", str(caught.value))[1])
    odds = probe(config, MIXED.draw)
    assert 1600 * (1 - odds.acceptance) ** needed <= 0.05 < 1600 * (1 - odds.acceptance) ** 2


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("look.shapes=cube,sphear", r"look.shapes='sphear' is unknown; use sphere"),
        ("look.colors=red,grean", r"look.colors='grean' is unknown; use green"),
        ("look.types=color,rotate", r"look.types='rotate' is unknown"),
        ("look.max_things=5", r"k=1..4 must be 0 <= k <= k_max <= 3.*look.max_things=6"),
        (
            "look.materials=metal",
            r"cannot change material: look.materials holds 1.*look.types=color",
        ),
        ("look.held_out=purple cone", r"look.held_out='purple cone' is no combination"),
        ("look.width=100", r"look.width=100 is not a multiple of 16.*use 96"),
        ("look.hight=96", r"unknown config field 'look.hight'; nearest: height"),
        ("look.sizes={'large': 9}", r"look.sizes.large=9.0 is outside 0.05..2 units; use 2.0"),
        ("splits.2.draw.k_high=0", r"draw.k_low=2 is above k_high=0; use 0 or less"),
        ("splits.0.draw.split=sinlge", r"split='sinlge' is unknown; the nearest is single"),
        ("splits.2.shard_pairs=0", r"dual.shard_pairs=0 is below 1"),
    ],
)
def test_a_bad_spec_is_refused_with_the_rule_and_the_remedy(tmp_path, capsys, setting, words):
    arguments = ["render", "--preset", "quickstart", "--root", str(tmp_path), "--set", setting]
    assert commands.main(arguments) == 1
    assert re.search(words, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--split", "single", "--pairs", "5", "--k", "6"], r"k=6..6 must be .*k_max=5 or use"),
        (["--split", "single"], r"--pairs=None is missing"),
        ([], r"--preset=None is missing; give --preset, --corpus or --split"),
        (["--preset", "papr"], r"preset='papr' is unknown; use tiny, fast, paper"),
        (["--preset", "tiny", "--splits", "singel"], r"'singel' is not a split of this corpus"),
        (["--preset", "tiny", "--shards", "3"], r"--shards='3' is not I/N"),
        (["--preset", "tiny", "--workers", "0"], r"--workers=0 is below 1"),
        (["--corpus", "nowhere.py"], r"no config file nowhere.py"),
    ],
)
def test_a_contradictory_command_is_refused(tmp_path, capsys, arguments, words):
    assert commands.main(["plan", "--root", str(tmp_path), *arguments]) == 1
    assert re.search(words, capsys.readouterr().err)


def test_an_unknown_verb_lists_the_known_ones(capsys):
    assert commands.main(["rendr"]) == 2
    assert "unknown verb 'rendr'; use one of make, plan, render" in capsys.readouterr().err
    for verb in ("make", "plan", "render"):
        with pytest.raises(SystemExit) as done:
            commands.main([verb, "--help"])
        assert done.value.code == 0


QUICK = "--preset quickstart"
FOLLOWED = [  # a command that is refused; how the remedy reads; the command that it amounts to
    (f"{QUICK} --set look.shapes=cube,sphear", r"use (sphere)",
     QUICK + " --set look.shapes=cube,{0}"),
    (f"{QUICK} --set look.types=color,rotate", r"use (material)",
     QUICK + " --set look.types=color,{0}"),
    (f"{QUICK} --set look.max_things=5", r"or use (look.max_things=\d+)", QUICK + " --set {0}"),
    ("--split single --pairs 5 --k 1 --set look.max_things=1", r"use (\d+) or more",
     "--split single --pairs 5 --k 1 --set look.max_things={0}"),
    (f"{QUICK} --set look.materials=metal", r"or use (look.types=\S+)",
     QUICK + " --set look.materials=metal --set {0}"),
    (f"{QUICK} --set look.materials=metal", r"(a second value)",
     QUICK + " --set look.materials=metal,rubber"),
    (f"{QUICK} --set look.colors=red,red", r"name (each once)", QUICK),
    ([*QUICK.split(), "--set", "look.held_out=purple cone"], r'example "(purple cube)"',
     [*QUICK.split(), "--set", "look.held_out={0}"]),
    (f"{QUICK} --set look.width=100", r"use (96)", QUICK + " --set look.width={0}"),
    (f"{QUICK} --set look.sizes={{}}", r"use (.*)$", [*QUICK.split(), "--set", "look.sizes={0}"]),
    (f"{QUICK} --set look.sizes.large=9", r"use (2.0)", QUICK + " --set look.sizes.large={0}"),
    (f"{QUICK} --set look.depth_low=90", r"(lower it) or raise", QUICK),
    (f"{QUICK} --set look.spare_low=9 --set look.spare_high=3", r"use (\S+)",
     QUICK + " --set look.spare_low=3 --set look.spare_high=3"),
    (f"{QUICK} --set splits.2.draw.k_high=0", r"use (0) or less",
     QUICK + " --set splits.2.draw.k_high=0 --set splits.2.draw.k_low={0}"),
    (f"{QUICK} --set splits.1.draw.split=sinlge", r"nearest is (single)",
     QUICK + " --set splits.1.draw.split={0}"),
    ("--split single --pairs 5 --k 6", r"ask for k_max=(5)", "--split single --pairs 5 --k {0}"),
    ("--split single --pairs 5 --k 6", r"or use (look.max_things=\d+)",
     "--split single --pairs 5 --k 6 --set {0}"),
    (f"{QUICK} --set splits.0.draw.combos=novel --set look.held_out=", r"use combos=(all)",
     QUICK + " --set splits.0.draw.combos={0} --set look.held_out="),
    ("", r"give --preset, --corpus or (--split)", "{0} single --pairs 5 --k 1"),
    ("--preset papr", r"use .*(paper)", "--preset {0}"),
    ("--preset tiny --splits singel", r"use (single)", "--preset tiny --splits {0}"),
    ("--preset tiny --splits single,single", r"name (each once)", "--preset tiny --splits single"),
]  # fmt: skip


def test_a_part_and_workers_as_advised_are_taken(tmp_path):
    with pytest.raises(ValueError, match=r"--shards='3' is not I/N; write (0/8) for the first"):
        make._part("3")
    assert make._part("0/8") == (0, 8)
    parts = ["--split", "single", "--pairs", "1", "--set", "look.renderer=numpy"]
    parts += ["--set", "look.width=64", "--set", "look.height=48", "--root", str(tmp_path)]
    assert commands.main(["plan", *parts, "--workers", "0"]) == 1
    assert commands.main(["plan", *parts, "--workers", "1"]) == 0


def given(words) -> make.Corpus:
    parser = argparse.ArgumentParser()
    make.add_arguments(parser, "render")
    words = words if isinstance(words, list) else words.split()
    corpus = make.corpus_from(parser.parse_args(["--root", "r", *words]))
    for spec in corpus.splits:
        corpus.look.check_draw(spec.draw)
    return corpus


@pytest.mark.parametrize(("refused", "advice", "followed"), FOLLOWED, ids=lambda v: str(v)[:40])
def test_what_a_refused_command_advises_is_accepted(refused, advice, followed):
    with pytest.raises((KeyError, ValueError)) as caught:
        given(refused)
    found = re.search(advice, str(caught.value.args[0]))
    assert found, caught.value
    many = isinstance(followed, list)
    assert given(
        [one.format(*found.groups()) for one in followed] if many else followed.format(found[1])
    )
