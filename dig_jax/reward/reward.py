"""DiG's reward: format, F1 and mean IoU after one-to-one matching, every convention spelled out.

    R = w_format * format + w_f1 * F1 + w_iou * mean_iou

The paper leaves most conventions open; here they are, with the `RewardConfig` field that sets them.

- *Frame.* Unit frame throughout, so costs do not depend on the image size.
- *Matching.* One Hungarian assignment serves both F1 and mean IoU. It minimises
  cost_l1 * L1 + cost_giou * (1 - GIoU) + cost_iou * (1 - IoU), L1 being the sum over the four
  corners (DETR's weights by default), and always matches min(n_pred, n_true) pairs. As that is
  not the IoU itself, a useless extra box can now and then shift the others to a better matching
  (0.1 % of random answers, by 0.03 at most); with cost_iou alone it never can.
- *n_pred.* Every box the answer names counts: duplicates, boxes without area, and the surplus
  beyond max_boxes, which takes no part in the matching (the first max_boxes in reading order do)
  and so is false positives only.
- *True positive.* A matched pair with IoU >= iou_threshold, in float32.
- *F1* = 2 TP / (n_pred + n_true).
- *Mean IoU* = summed IoU of the matched pairs (below the threshold too) / max(n_pred, n_true); or,
  by iou_denominator, / the number of matched pairs, which pays for leaving hard boxes out, or
  / n_true, which does not charge for surplus boxes.
- *Empty sets.* Nothing predicted and nothing true: F1 = mean IoU = 1 (0 without empty_is_perfect),
  precision and recall likewise. Only one of them empty: 0.
- *Unreadable never pays.* Nothing is predicted by an empty list in the form asked for alone. Any
  other answer without a box (prose, a list cut off before its first box, an endless thought) cannot
  be read and has 0 in every part, count_ok included.
- *Boxes without area* have IoU 0 with everything.
- *Format* is 1 for an answer that `parse` calls ok, else 0; the other parts are paid either way.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dig_jax.boxes import BoxSet, pairwise_giou, pairwise_iou, pairwise_l1
from dig_jax.config import RewardConfig
from dig_jax.reward import matching
from dig_jax.reward.parse import Parsed, Verdict
from dig_jax.reward.parse_batch import parse_batch


@struct.dataclass
class Reward:
    """What every answer earned.

    total  f32[B, G]
    parts  f32[B, G] each: format, f1, iou (mean IoU), precision, recall, count_ok (n_pred ==
           n_true) in [0, 1]; n_pred, true_positives as counts
    """

    total: jax.Array
    parts: dict[str, jax.Array]


def make_reward(cfg: RewardConfig) -> Callable[..., Reward]:
    """The jitted reward of a batch: `score_boxes` with cfg bound.

    -> reward(pred, truth, format_ok, surplus=0) -> Reward
    """
    return jax.jit(functools.partial(score_boxes, cfg))


def score_boxes(
    cfg: RewardConfig,
    pred: BoxSet,
    truth: BoxSet,
    format_ok: jax.Array,
    surplus: jax.Array | int = 0,
) -> Reward:
    """Reward of every answer against its pair's true boxes; composes under jit, vmap, shard_map.

    pred       BoxSet [B, G, Q]   unit frame
    truth      BoxSet [B, M]      unit frame, shared by the group
    format_ok  f32[B, G]          1 where the answer has the form asked for
    surplus    i32[B, G]          boxes the answer names beyond those in pred

    An answer is readable where it names a box or has the form: else every part is 0. A
    valid box with a NaN coordinate is never matched; `score_texts` lets none through.
    """
    true_boxes, true_valid = truth.boxes[..., None, :, :], truth.valid[..., None, :]
    iou = pairwise_iou(pred.boxes, true_boxes)
    cost = matching_cost(cfg, pred.boxes, true_boxes)
    cost = matching.price_padding(cost, pred.valid, true_valid)
    match = {"scipy": matching.assign, "xla": matching.assign_xla}[cfg.matching](cost)
    chosen = match[..., None] == jnp.arange(iou.shape[-1])
    matched_iou = jnp.where(chosen, iou, 0.0).sum(axis=-1)

    n_pred = pred.valid.sum(axis=-1) + surplus
    n_true = true_valid.sum(axis=-1) + jnp.zeros_like(n_pred)
    readable = (n_pred > 0) | (format_ok > 0)  # `Parsed.readable`
    n_matched = (match >= 0).sum(axis=-1)
    hits = ((match >= 0) & (matched_iou >= cfg.iou_threshold)).sum(axis=-1)
    whole = {"max": jnp.maximum(n_pred, n_true), "matched": n_matched, "true": n_true}

    def share(part, of):
        """part / of; an empty whole gives 0, two empty sets what the config says."""
        value = part / jnp.maximum(of, 1).astype(jnp.float32)
        return jnp.where(n_pred + n_true > 0, value, readable * float(cfg.empty_is_perfect))

    parts = {
        "format": format_ok,
        "f1": share(2 * hits, n_pred + n_true),
        "iou": share(matched_iou.sum(axis=-1), whole[cfg.iou_denominator]),
        "precision": share(hits, n_pred),
        "recall": share(hits, n_true),
        "count_ok": (n_pred == n_true) & readable,
        "n_pred": n_pred,
        "true_positives": hits,
    }
    parts = {name: jnp.asarray(value, jnp.float32) for name, value in parts.items()}
    total = cfg.w_format * parts["format"] + cfg.w_f1 * parts["f1"] + cfg.w_iou * parts["iou"]
    return Reward(total=total, parts=parts)


def matching_cost(cfg: RewardConfig, pred: jax.Array, true: jax.Array) -> jax.Array:
    """Price of matching each predicted with each true box, as a share of the dearest pair.

    pred   f32[..., Q, 4]   unit frame
    true   f32[..., M, 4]
    ->     f32[..., Q, M]   in [0, 1]; scaling all costs alike does not change the assignment
    """
    dearest = 4 * cfg.cost_l1 + 2 * cfg.cost_giou + cfg.cost_iou
    cost = cfg.cost_l1 * pairwise_l1(pred, true)
    cost += cfg.cost_giou * (1 - pairwise_giou(pred, true))
    cost += cfg.cost_iou * (1 - pairwise_iou(pred, true))
    return cost / dearest


def score_texts(
    texts: Sequence[Sequence[str]],
    ended: np.ndarray,
    truth: BoxSet,
    reward_fn: Callable[..., Reward],
    cfg: RewardConfig,
) -> tuple[Reward, list[list[Parsed]]]:
    """Parse a batch of answers on the host and score them: what the training loop calls.

    texts      [B][G] decoded answers
    ended      bool[B, G]   False where the token limit cut the answer off
    truth      BoxSet [B, M], unit frame; NumPy, the same on every process
    reward_fn  `make_reward(cfg)`
    ->         Reward on this process's device, and what was read: [B][G] Parsed

    Every process may call it with the whole global batch: it depends on its arguments only.
    """
    truth = jax.device_get(truth)
    _check_batch(texts, ended, truth)
    shape = np.shape(ended)
    flat = [text for answers in texts for text in answers]
    read = parse_batch(flat, np.ravel(ended), think=cfg.think, max_boxes=cfg.max_boxes)
    pred = BoxSet(
        boxes=read.boxes.reshape(*shape, cfg.max_boxes, 4),
        valid=read.valid.reshape(*shape, cfg.max_boxes),
    )
    format_ok = np.array([verdict is Verdict.OK for verdict in read.verdicts], np.float32)
    surplus = read.n_boxes - read.kept
    given = jax.device_put((pred, truth, format_ok.reshape(shape), surplus.reshape(shape)))
    parsed = read.parsed()
    groups = [parsed[at : at + shape[1]] for at in range(0, len(parsed), shape[1])]
    return reward_fn(*given), groups


def _check_batch(texts, ended, truth):
    shape = np.shape(ended)
    sizes = [len(answers) for answers in texts]
    if len(shape) != 2 or sizes != [shape[1]] * shape[0]:
        raise ValueError(
            f"texts hold {sizes} answers per pair but ended has shape {shape}; "
            f"give one text per entry of ended, [B][G]"
        )
    if truth.valid.shape[:-1] != shape[:1]:
        raise ValueError(
            f"truth holds {truth.valid.shape[:-1]} sets for {shape[0]} pairs; "
            f"give one set of true boxes per pair, [B, M]"
        )
    inside = ((truth.boxes >= 0) & (truth.boxes <= 1)).all(axis=-1)  # False for NaN
    if not inside[truth.valid].all():
        pair = int(np.argwhere(truth.valid & ~inside)[0][0])
        raise ValueError(
            f"truth of pair {pair} has a box outside the unit frame: {truth.boxes[pair].tolist()}; "
            f"divide pixel boxes by the image size (boxes.unit_from_px)"
        )
