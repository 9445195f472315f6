"""The reward held against answers whose worth is known: true, half a box off, empty, prose.

They go through the parser and the reward function that a run is configured with, for real pairs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from dig_jax.boxes import QWEN_SIDE, boxes_text, pad_boxes, reading_order
from dig_jax.config import Config, RewardConfig
from dig_jax.doctor.findings import Finding
from dig_jax.reward.answers import make_answer_reward
from dig_jax.reward.custom import RewardError

THOUGHTS = {"none": "", "prefilled": "So.\n</think>\n\n", "full": "<think>\nSo.\n</think>\n\n"}
PROSE = "The cube on the left has changed its colour."
NAMES = ("true", "shifted", "empty", "prose")


class Probe(NamedTuple):
    """A real pair: its record number, its bucket's index in data.buckets, and f32[n, 4]."""

    pair_id: int
    bucket: int
    truth: np.ndarray


def check_reward(cfg: Config, probes: Sequence[Probe]) -> Finding:
    """Whether the configured reward orders the four answers to some real pairs.

    They are scored twice, the second time in the opposite order, and must earn the same to the bit.
    With "dig" every part has a known value or range. Of another function only this is asked: a
    finite value for every answer, no more for an empty list than for the truth, and no more for
    prose, in which nothing can be read, than for any of the others.
    """
    try:
        scores = scored(cfg, probes)
        again = scored(cfg, probes[::-1])
    except RewardError as error:
        remedy = "mend the function: it must take any answer; docs/rewards.md has its signature"
        return Finding(cfg.reward.function, rule=str(error), remedy=remedy)
    means = {name: scores["reward"][:, at].mean() for at, name in enumerate(NAMES)}
    text = (
        f"{cfg.reward.function} on {len(probes)} pairs: true {means['true']:.2f}, half a box off "
    )
    text += f"{means['shifted']:.2f}, empty {means['empty']:.2f}, prose {means['prose']:.2f}"
    for row, probe in enumerate(probes):
        for at, name in enumerate(NAMES):
            first, second = scores["reward"][row, at], again["reward"][len(probes) - 1 - row, at]
            if first != second:
                where = (
                    f"pair {probe.pair_id} of {cfg.data.buckets[probe.bucket]}: its {name} answer"
                )
                rule = f"{where} earns {first:g}, and {second:g} when all are scored again"
                remedy = (
                    "a reward must follow from the sample alone, or a resumed run is another: look "
                    "in reward.function for a counter, a cache, a clock, an unseeded generator"
                )
                return Finding(text, rule=rule, remedy=remedy)
        values = {name: part[row] for name, part in scores.items()}
        wrong = fault(cfg, probe, values)
        if wrong:
            where = f"pair {probe.pair_id} of {cfg.data.buckets[probe.bucket]}: "
            return Finding(text, rule=where + wrong[0], remedy=wrong[1])
    return Finding(text)


def scored(cfg: Config, probes: Sequence[Probe]) -> dict[str, np.ndarray]:
    """Total ("reward") and parts f32[pairs, 4] of the answers NAMES to each pair."""
    texts = [list(answers_to(cfg.reward, probe.truth).values()) for probe in probes]
    shape = (len(probes), len(NAMES))
    truth = pad_boxes([probe.truth for probe in probes], cfg.data.max_boxes)
    ids = np.array([(probe.pair_id, probe.bucket) for probe in probes], np.int32).T
    ended, tokens = np.ones(shape, bool), np.zeros(shape, np.int32)
    reward, _ = make_answer_reward(cfg)(texts, ended, tokens, truth, *ids)
    reward = jax.device_get(reward)
    return {**reward.parts, "reward": reward.total}


def answers_to(cfg: RewardConfig, truth: np.ndarray) -> dict[str, str]:
    """The four answers to a pair, with a thought before them where cfg.think wants one.

    truth  f32[n, 4], unit frame
    """
    answers = {
        "true": boxes_text(reading_order(truth)),
        "shifted": boxes_text(reading_order(half_off(truth))),
        "empty": boxes_text(truth[:0]),
        "prose": PROSE,
    }
    return {name: THOUGHTS[cfg.think] + answers[name] for name in NAMES}


def half_off(boxes: np.ndarray) -> np.ndarray:
    """Boxes f32[n, 4] moved by half their width, left where the right has no room, and cut there.

    The IoU with the box itself is 1/3, or up to 1/2 where it is cut.
    """
    half = (boxes[:, 2] - boxes[:, 0]) / 2
    step = np.where(boxes[:, 2] + half <= 1, half, -half)
    moved = boxes + step[:, None] * np.array([1, 0, 1, 0], np.float32)
    return np.clip(moved, 0, 1).astype(np.float32)


def fault(cfg: Config, probe: Probe, values: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """(rule, remedy) of the first thing that is wrong with the scores f32[4] of a pair."""
    true, shifted, empty, prose = values["reward"]
    found = _dig_fault(cfg.reward, probe, values) if cfg.reward.function == "dig" else None
    if not found and true < empty:
        rule = f"the true answer earns {true:.3g}, an empty list {empty:.3g}"
        found = rule, "pay for finding boxes: as it is, a policy learns to say nothing"
    least = min(true, shifted, empty)
    if not found and prose > least:
        rule = f"prose earns {prose:.3g}, an answer that can be read {least:.3g}"
        found = rule, "return the least that it can give where sample.readable is False"
    return found


def _dig_fault(cfg: RewardConfig, probe: Probe, values: Mapping) -> tuple[str, str] | None:
    """`fault` of the parts that DiG's reward has, each with its known value or range."""
    true, shifted, empty, prose = range(len(NAMES))
    form, f1, iou = (values[part] for part in ("format", "f1", "iou"))
    least, some = least_iou(probe.truth), len(probe.truth) > 0
    broken = "the reward itself is wrong: run the tests of tests/reward"
    rules = (
        (
            form[true] == 1,
            f"the true answer of {len(probe.truth)} boxes has format {form[true]:g}",
            f"raise reward.max_boxes={cfg.max_boxes}, or see reward.think={cfg.think}",
        ),
        (
            f1[true] == 1 and iou[true] >= least,
            f"the true answer in thousandths has F1 {f1[true]:.3g} and IoU {iou[true]:.3g}",
            f"lower reward.iou_threshold={cfg.iou_threshold:g} below {least:.2f}",
        ),
        (
            form[prose] == f1[prose] == iou[prose] == 0,
            f"prose has format {form[prose]:g}, F1 {f1[prose]:.3g} and IoU {iou[prose]:.3g}",
            broken,
        ),
        (
            not some or f1[empty] == iou[empty] == 0,
            f"an empty list has F1 {f1[empty]:.3g} and IoU {iou[empty]:.3g}",
            broken,
        ),
        (
            not some or 0 < iou[shifted] < iou[true],
            f"boxes that are half a width off have IoU {iou[shifted]:.3g}",
            broken,
        ),
    )
    return next(((rule, remedy) for holds, rule, remedy in rules if not holds), None)


def least_iou(truth: np.ndarray) -> float:
    """Of boxes f32[n, 4] with themselves in whole thousandths: each edge moves by half a one."""
    if not len(truth):
        return 1.0
    sides = truth[:, 2:] - truth[:, :2]
    shares = np.clip(sides - 1 / QWEN_SIDE, 0, None) / (sides + 1 / QWEN_SIDE)
    return float(np.prod(shares, axis=-1).min()) - 1e-5  # float32
