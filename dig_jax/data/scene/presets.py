"""Whole corpora by name: a look and the splits that go with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from dig_jax.common import typed
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig


@dataclass(frozen=True)
class Corpus:
    """What `make` makes: every split of it in one look."""

    look: SceneConfig
    splits: tuple[SplitSpec, ...]

    def __post_init__(self):
        typed.check_fields(self, "")
        names = [spec.split for spec in self.splits]
        ok = bool(names) and len(set(names)) == len(names)
        typed.require(ok, "splits", names, "is empty or repeats a split", "name each once")
        for spec in self.splits:
            self.look.check_draw(spec.draw)

    def only(self, names: list[str]) -> Corpus:
        """The corpus with just these of its splits; raises ValueError for any other name."""
        known = {spec.split: spec for spec in self.splits}
        for name in names:
            rule = "is not a split of this corpus"
            typed.require(name in known, "splits", name, rule, f"use {', '.join(known)}")
        return dataclasses.replace(self, splits=tuple(known[name] for name in names))


_CLEVR = SceneConfig(  # CLEVR's sizes, gaps and crowding at a lens of 35 mm
    width=320,
    height=240,
    lens=35.0,
    sizes={"large": 0.7, "small": 0.4},
    spare_high=6,
    max_things=10,
    half_width=3.0,
    gap=0.25,
    min_thing_px=200,
)
_TEST_JITTER = 0.1  # units on each axis, of a camera some 11 units away


def preset(name: str, seed: int = 0) -> Corpus:
    """A shipped corpus; raises ValueError naming the nearest for an unknown name.

    tiny         128x96, 16 samples: the paper's splits, small enough for a laptop
    fast         320x240, 8 samples: the same splits at half the paper's pixels
    paper        480x320, 8 samples: 1.6K single, 1.6K dual, 1.6K mixed, and test splits
    quickstart   96x64, 8 samples: what scripts/quickstart.sh trains and scores on
    base         96x64, 8 samples: what the shipped tiny model's cold start was trained on
    """
    typed.require(name in PRESETS, "preset", name, "is unknown", f"use {', '.join(PRESETS)}")
    return PRESETS[name](seed)


def _paper_splits(seed: int) -> tuple[SplitSpec, ...]:
    """The paper's three buckets, never showing held-out combinations, and seven test splits."""
    rows = [
        (Draw("single", seed, 1, 1, combos="seen"), 1600),
        (Draw("dual", seed, 2, 2, combos="seen"), 1600),
        (Draw("mixed", seed, 1, 4, combos="seen"), 1600),
        (Draw("test_single", seed, 1, 1, combos="seen"), 200),
        (Draw("test_dual", seed, 2, 2, combos="seen"), 200),
        (Draw("test_mixed", seed, 1, 4, combos="seen"), 200),
        (Draw("test_novel", seed, 1, 4, combos="novel"), 200),
        (Draw("test_same", seed, 0, 0, combos="seen"), 100),
        (Draw("test_noise", seed, 1, 4, combos="seen", noise="independent"), 200),
        (Draw("test_jitter", seed, 1, 4, combos="seen", camera_jitter_b=_TEST_JITTER), 200),
    ]
    return tuple(SplitSpec(draw, pairs) for draw, pairs in rows)


def _tiny(seed: int) -> Corpus:
    return Corpus(SceneConfig(width=128, height=96, samples=16), _paper_splits(seed))


def _fast(seed: int) -> Corpus:
    return Corpus(_CLEVR, _paper_splits(seed))


def _paper(seed: int) -> Corpus:
    return Corpus(dataclasses.replace(_CLEVR, width=480, height=320), _paper_splits(seed))


def _quickstart(seed: int) -> Corpus:
    """The last two splits are where subtracting the pictures fails."""
    rows = [
        ("heldout", 300, 1, 3),
        ("single", 256, 1, 1),
        ("dual", 256, 2, 2),
        ("mixed", 768, 1, 4),
    ]
    plain = _plain(seed, rows)
    apart = [
        (Draw("test_noise", seed, 1, 3, noise="independent"), 100),
        (Draw("test_jitter", seed, 1, 3, camera_jitter_b=_TEST_JITTER), 100),
    ]
    splits = (*plain.splits, *(SplitSpec(draw, pairs) for draw, pairs in apart))
    return dataclasses.replace(plain, splits=splits)


def _base(seed: int) -> Corpus:
    return _plain(seed, [("dev", 300, 1, 3), ("base", 3328, 1, 4)])


def _plain(seed: int, rows: list[tuple[str, int, int, int]]) -> Corpus:
    splits = [SplitSpec(Draw(split, seed, low, high), pairs) for split, pairs, low, high in rows]
    return Corpus(SceneConfig(), tuple(splits))


PRESETS = {
    "tiny": _tiny,
    "fast": _fast,
    "paper": _paper,
    "quickstart": _quickstart,
    "base": _base,
}
