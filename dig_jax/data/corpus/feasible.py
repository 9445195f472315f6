"""Can a look hold the pairs that a split asks for? Asked before anything expensive starts."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dig_jax.data.render.produce import Exhausted, plan_pair
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig

_PROBES = 6  # indices of the hardest kind that are planned
_FAILURES_ALLOWED = 0.05  # expected number of indices of a split without any scene
_MOST_ATTEMPTS = 2000  # more would cost more than the rendering


@dataclass(frozen=True)
class Odds:
    """How scenes of one look and draw fared."""

    accepted: int
    dropped: Counter

    @property
    def acceptance(self) -> float:
        """Share of scenes that were accepted, in 0..1."""
        return self.accepted / max(self.accepted + self.dropped.total(), 1)

    def attempts_needed(self, pairs: int) -> float:
        """Attempts per index with which a split of `pairs` comes out whole; inf where none."""
        if self.acceptance in (0, 1):
            return 1.0 if self.acceptance else math.inf
        return math.log(_FAILURES_ALLOWED / pairs) / math.log(1 - self.acceptance)


def check_feasible(config: SceneConfig, spec: SplitSpec) -> None:
    """Raises ValueError, with the reason and settings near by that work, where a split would
    not come out whole: too many things for the ground, too small ones for the thresholds ...

    Plans the first _PROBES indices with the most differences, some ten milliseconds each.
    """
    config.check_draw(spec.draw)
    odds = probe(config, spec.draw)
    if odds.attempts_needed(spec.pairs) <= config.attempts:
        return
    reasons = ", ".join(f"{name} {count}" for name, count in odds.dropped.most_common(3))
    remedies = list(_remedies(config, spec, odds))
    raise ValueError(
        f"split {spec.split} with {spec.draw.k_high} differences is not feasible in this look: "
        f"{odds.accepted} of {odds.accepted + odds.dropped.total()} scenes were accepted "
        f"(dropped: {reasons}), and look.attempts={config.attempts} for {spec.pairs} pairs; "
        f"{'near by these work: ' + ', or '.join(remedies) if remedies else _NO_REMEDY}"
    )


_NO_REMEDY = "no single setting near by helps: start from a preset's look"


def probe(config: SceneConfig, draw: Draw) -> Odds:
    """Plan some pairs of the most differences that a draw can ask for."""
    hardest = dataclasses.replace(draw, k_low=draw.k_high)
    accepted, dropped = 0, Counter()
    for idx in range(_PROBES):
        try:
            dropped += plan_pair(config, hardest, idx).dropped
            accepted += 1
        except Exhausted as error:
            dropped += error.dropped
            if not accepted:
                break  # hopeless, or nearly so: the next ones would cost as much
    return Odds(accepted, dropped)


def _remedies(config: SceneConfig, spec: SplitSpec, odds: Odds) -> Iterator[str]:
    """Single settings that make the split feasible, each as near to the asked one as found."""
    needed = odds.attempts_needed(spec.pairs)
    if needed <= _MOST_ATTEMPTS:
        yield f"look.attempts={math.ceil(needed)}"
    for name, values in _ladders(config, odds.dropped):
        for value in values:
            try:
                changed = dataclasses.replace(config, **{name: value})
                changed.check_draw(spec.draw)
            except ValueError:
                continue
            if probe(changed, spec.draw).attempts_needed(spec.pairs) <= config.attempts:
                yield f"look.{name}={value}"
                break
    for k in range(spec.draw.k_high - 1, 0, -1):
        fewer = dataclasses.replace(spec.draw, k_low=min(spec.draw.k_low, k), k_high=k)
        if probe(config, fewer).attempts_needed(spec.pairs) <= config.attempts:
            yield f"k_max={k}"
            break


def _ladders(config: SceneConfig, dropped: Counter) -> Iterator[tuple[str, list]]:
    """Fields behind the most frequent reason, with values ever farther from the asked one."""
    smaller = [{n: round(r * s, 3) for n, r in config.sizes.items()} for s in (0.85, 0.7, 0.5)]
    larger = [{n: round(r * s, 3) for n, r in config.sizes.items()} for s in (1.2, 1.5, 2.0)]
    fewer = list(range(config.spare_high - 1, config.spare_low - 1, -1))
    ladders = {
        "spare_high": fewer,
        "gap": [round(config.gap * share, 3) for share in (0.75, 0.5, 0.25, 0.0)],
        "half_width": [round(config.half_width * share, 2) for share in (1.25, 1.5, 2.0, 3.0, 4.0)],
        "min_thing_px": [max(int(config.min_thing_px * s), 1) for s in (0.75, 0.5, 0.25)],
        "min_side_px": [max(int(config.min_side_px * s), 1) for s in (0.75, 0.5, 0.25)],
        "min_visible": [round(config.min_visible * share, 2) for share in (0.75, 0.5)],
    }
    reason = dropped.most_common(1)[0][0]
    for name in _FIELDS_BEHIND.get(reason, ()):
        if name == "sizes":
            yield name, smaller if reason == "placement" else larger
        else:
            yield name, ladders[name]


_FIELDS_BEHIND = {
    "placement": ("spare_high", "gap", "half_width", "sizes"),
    "thing_small": ("min_thing_px", "sizes"),
    "label_small": ("min_side_px", "sizes"),
    "change_hidden": ("min_visible", "spare_high", "gap"),
    "labels_overlap": ("gap", "spare_high"),
}
