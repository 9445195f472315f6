"""Cold start: teach the model the answer format and a first sense of the task.

Supervised cross-entropy on the true answers, with two documented helps without which a model
of a million parameters does not leave its plateau in hours of CPU:

- *place weights*: the first digit of a coordinate matters most, the last hardly;
- *dense cell labels*: image B's tokens, otherwise unsupervised, say which cells changed, where
  the box that covers them lies, and which place it has in the answer. They are read from early
  text layers through the ordinary head, by vocabulary rows that no answer uses, so there are no
  extra parameters. `dense_weight=0` is plain SFT.
"""

import json
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dig_jax.boxes import qwen_from_unit
from dig_jax.inputs.prompt import Processor, encode_answer
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.logprob import banned_tokens, token_logp
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import cache_of, final_norm, prompt_states, score_tokens, unembed

BINS = 20  # per coordinate
RANKS = 4


@dataclass(frozen=True)
class SftConfig:
    """Weights of the cold start's loss."""

    first_digit: float = 3.0  # of a coordinate
    second_digit: float = 1.5
    third_digit: float = 0.2
    stop: float = 2.0  # tokens that decide between another box and the end
    scaffold: float = 0.3  # everything else
    dense_weight: float = 1.0  # of the cell labels; 0 = plain SFT
    changed_layer: int = 1  # text block whose output says what changed, and where the box lies
    rank_layer: int = 2  # text block whose output says which box of the answer it is
    first_row: int = 128  # first vocabulary row used for cell labels: bytes that answers lack


@struct.dataclass
class Lesson:
    """A batch of pairs with their true answers.

    images   u8[B, 2, Y, X, 3]
    tokens   i32[B, T]     answer with EOS, padded
    weight   f32[B, T]     of each token in the loss; 0 at padding
    changed  f32[B, S]     1 where a true box covers the cell of image B
    bins     i32[B, S, 4]  coordinate bins of the covering box; valid where changed
    rank     i32[B, S]     place of that box in the answer; valid where changed
    """

    images: jax.Array
    tokens: jax.Array
    weight: jax.Array
    changed: jax.Array
    bins: jax.Array
    rank: jax.Array


def reading_order(boxes: np.ndarray) -> np.ndarray:
    """Boxes f32[n,4] sorted by top edge, then left: an order that a causal reader can know."""
    return boxes[np.lexsort((boxes[:, 0], boxes[:, 1]))]


def answer_text(boxes_unit: np.ndarray) -> str:
    """The true answer in the format that the reward reads."""
    return json.dumps([{"bbox_2d": qwen_from_unit(box).tolist()} for box in boxes_unit])


def answer_tokens(
    processor: Processor, boxes_unit: np.ndarray, length: int, cfg: SftConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Ids i32[T] and loss weights f32[T] of one true answer.

    Raises ValueError if the answer is longer than `length`.
    """
    ids = encode_answer(processor, answer_text(boxes_unit))
    if len(ids) > length:
        raise ValueError(
            f"an answer of {len(boxes_unit)} boxes has {len(ids)} tokens, more than {length}; "
            f"raise rollout.max_tokens"
        )
    pieces = processor.tokenizer.convert_ids_to_tokens(ids)
    tokens, weight = np.zeros(length, np.int32), np.zeros(length, np.float32)
    tokens[: len(ids)] = ids
    inside = place = 0
    for at, piece in enumerate(pieces):
        if piece.isdigit() and inside:
            weight[at] = (cfg.first_digit, cfg.second_digit, cfg.third_digit)[min(place, 2)]
            place += 1
            continue
        weight[at] = cfg.stop if "]" in piece else cfg.scaffold
        # the 2 of "bbox_2d" is a digit token too: coordinates start at the inner bracket
        inside = ("[" in piece and "{" not in piece) or (inside and "]" not in piece)
        place = 0
    return tokens, weight


def cell_labels(boxes_unit: np.ndarray, rows: int, cols: int) -> tuple[np.ndarray, ...]:
    """Changed f32[S], bins i32[S,4] and rank i32[S] of a grid of cells.

    A cell is changed if a box covers more than 12 % of it; it belongs to the box that covers
    it most.
    """
    low = np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1).reshape(-1, 1, 2)
    size = np.array([cols, rows])
    corner = boxes_unit.reshape(1, -1, 2, 2) * size
    shared = np.minimum(corner[:, :, 1], low + 1) - np.maximum(corner[:, :, 0], low)
    cover = np.prod(np.clip(shared, 0, None), -1)
    if not len(boxes_unit):
        cover = np.zeros((rows * cols, 1))
        boxes_unit = np.zeros((1, 4))
    rank = cover.argmax(-1)
    bins = np.clip((boxes_unit[rank] * BINS).astype(np.int32), 0, BINS - 1)
    changed = cover.max(-1) > 0.12
    return changed.astype(np.float32), bins, np.minimum(rank, RANKS - 1).astype(np.int32)


def make_lesson_loss(config: ModelConfig, prompt: PromptInputs, cfg: SftConfig):
    """Bind the statics; returns loss(params, lesson) -> (f32[], metrics dict).

    prompt  one row, shared by all pairs: two images of one size and the question
    """
    banned = banned_tokens(config)
    slots = np.flatnonzero(np.asarray(prompt.slot[0]) >= 0)
    second = slots[len(slots) // 2 :]  # image B's tokens, in raster order

    def loss(params: Params, lesson: Lesson):
        pairs = len(lesson.tokens)
        rows = jax.tree.map(lambda a: jnp.repeat(jnp.asarray(a), pairs, axis=0), prompt)
        k, v, states, _ = prompt_states(params, config, rows, lesson.images)
        cache = cache_of(params, config, rows, k, v, states[-1])
        hidden = score_tokens(params, config, cache, lesson.tokens[:, None])[:, 0]
        head = unembed(params)
        logp, _ = token_logp(hidden, head, lesson.tokens, temperature=1.0, banned=banned)
        answer = -(logp * lesson.weight).sum() / lesson.weight.sum()
        metrics = {"loss/answer": answer}
        if not cfg.dense_weight:
            return answer, metrics
        early, late = (
            final_norm(params, states[i][:, second], config) @ head[:, _label_rows(cfg)]
            for i in (cfg.changed_layer, cfg.rank_layer)
        )
        dense, more = _dense_loss(early, late, lesson)
        return answer + cfg.dense_weight * dense, metrics | more

    return loss


def _label_rows(cfg: SftConfig) -> np.ndarray:
    """Vocabulary rows of: changed, unchanged, the four coordinates' bins, the ranks."""
    return cfg.first_row + np.arange(2 + 4 * BINS + RANKS)


def _dense_loss(early: jax.Array, late: jax.Array, lesson: Lesson):
    """Cell losses from label logits f32[B, S, labels] of two layers."""
    logit = early[..., 0] - early[..., 1]
    truth = lesson.changed
    # one cell in eight is changed: weigh the changed ones up
    changed = jnp.mean((1 + 2 * truth) * (jax.nn.softplus(logit) - truth * logit))
    count = jnp.maximum(truth.sum(), 1.0)

    def inside(logits, label):
        logp = jax.nn.log_softmax(logits)
        picked = jnp.take_along_axis(logp, label[..., None], -1)[..., 0]
        return -(picked * truth).sum() / count

    coordinates = early[..., 2 : 2 + 4 * BINS].reshape(*early.shape[:2], 4, BINS)
    bins = sum(inside(coordinates[:, :, i], lesson.bins[..., i]) for i in range(4)) / 4
    rank = inside(late[..., 2 + 4 * BINS :], lesson.rank)
    right = ((logit > 0) & (truth > 0)).sum()
    f1 = 2 * right / jnp.maximum((logit > 0).sum() + truth.sum(), 1)
    metrics = {"loss/changed": changed, "loss/bins": bins, "loss/rank": rank, "cell_f1": f1}
    return changed + 0.3 * bins + 0.3 * rank, metrics
