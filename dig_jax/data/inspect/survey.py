"""What the pairs of a shard are like: counts and columns that add up over shards and splits.

One shard's pictures are decoded one pair after the other and only figures are kept. A pair that
was imported has what its meta tells: what nobody knows is left out of the columns.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dig_jax.data import records
from dig_jax.data.inspect import baseline

IOUS = (0.5, 0.75)  # at which the pixel-difference baseline is scored
UNKNOWN = "unknown"


@dataclass
class Survey:
    """Figures of any number of pairs.

    counts   name -> value -> how often: k, types, things, changed and shown (color shape),
             held_out (shown although held out), and for the baseline per type and IoU
             found@0.5, found@0.75
    columns  name -> one figure per difference (sides, shares) or per pair (residual, scores)
    keys     (index in the split, fingerprints of the scene and of the pictures) per pair
    """

    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    columns: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    keys: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def add(self, other: Survey) -> None:
        """Take the pairs of another survey too, after one's own."""
        for name, counter in other.counts.items():
            self.counts[name].update(counter)
        for name, values in other.columns.items():
            self.columns[name] += values
        self.keys += other.keys


def survey_shard(path: Path, first: int) -> Survey:
    """The figures of a shard whose first pair has index `first` where its meta names none."""
    survey = Survey()
    for number, record in enumerate(records.read_shard(path)):
        try:
            pair = records.decode(record)
            _survey_pair(survey, pair, first + number)
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path} record {number}: {error!r}; check it with `python -m dig_jax.data verify`"
            ) from error
    return survey


def fingerprints(pair: records.Pair) -> tuple[str, ...]:
    """Sixteen hex digits each of what may occur once in a corpus; swapped pairs are equal.

    The scene is the camera and the things of both images with their floats, where the pair
    tells them; the pictures are there always.
    """
    hashes = records.pixel_hashes(pair)
    keys = [_digest(sorted((hashes["image_a"], hashes["image_b"])))]
    if "camera" in pair.meta and "a" in pair.meta and "b" in pair.meta:
        sides = sorted(json.dumps(pair.meta[side], sort_keys=True) for side in "ab")
        keys.append(_digest([pair.meta["camera"], *sides]))
    return tuple(keys)


def type_of(difference: dict) -> str:
    return difference.get("type") or UNKNOWN


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _survey_pair(survey: Survey, pair: records.Pair, number: int) -> None:
    meta = pair.meta
    survey.keys.append((meta.get("idx", number), fingerprints(pair)))
    survey.counts["k"][len(meta["differences"])] += 1
    for difference in meta["differences"]:
        survey.counts["types"][type_of(difference)] += 1
        _survey_label(survey.columns, difference)
    for name in ("mean", "max", "share_over_level", "largest_blob"):
        if name in meta.get("residual", {}):
            survey.columns[f"residual_{name}"].append(meta["residual"][name])
    if "a" in meta and "b" in meta:
        _survey_things(survey.counts, meta)
    _survey_baseline(survey, pair)


def _survey_label(columns: dict[str, list[float]], difference: dict) -> None:
    x0, y0, x1, y1 = difference["box"]
    columns["short_side_px"].append(min(x1 - x0, y1 - y0))
    columns["long_side_px"].append(max(x1 - x0, y1 - y0))
    seen = [difference.get(f"visible_frac_{side}") for side in "ab"]
    if any(share is not None for share in seen):
        columns["visible_share"].append(min(share for share in seen if share is not None))
    if "changed_frac" in difference:
        columns["changed_share"].append(difference["changed_frac"])


def _survey_things(counts: dict[str, Counter], meta: dict) -> None:
    """Things per image and their "color shape", in both images and of what changed."""
    combos = [{t["id"]: f"{t['color']} {t['shape']}" for t in meta[side]} for side in "ab"]
    for side in combos:
        counts["things"][len(side)] += 1
        counts["shown"].update(side.values())
    before, after = combos
    for change in meta["differences"]:  # as in image A; what is added, as in B
        counts["changed"][before.get(change["id"]) or after[change["id"]]] += 1


def _survey_baseline(survey: Survey, pair: records.Pair) -> None:
    found = baseline.pixel_difference(pair.image_a, pair.image_b)
    types = [type_of(difference) for difference in pair.meta["differences"]]
    survey.columns["n_true"].append(len(types))
    survey.columns["n_pred"].append(len(found))
    for iou in IOUS:
        score = baseline.score(found, np.asarray(pair.boxes_px), iou)
        for name in ("precision", "recall", "f1", "hits", "is_exact"):
            survey.columns[f"{name}@{iou}"].append(getattr(score, name))
        hit = (kind for kind, ok in zip(types, score.found, strict=True) if ok)
        survey.counts[f"found@{iou}"].update(hit)
