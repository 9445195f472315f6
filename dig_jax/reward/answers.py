"""The reward of a batch of answers as a run has configured it: what training and evaluation call.

DiG's parts are always there. The total is DiG's, or the value of the function that the config
names, less what an overlong answer costs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from types import MappingProxyType

import jax
import numpy as np

from dig_jax.boxes import BoxSet
from dig_jax.config import Config
from dig_jax.reward.custom import call, find_function
from dig_jax.reward.parse import Parsed
from dig_jax.reward.reward import Reward, make_reward, score_texts
from dig_jax.reward.sample import Sample


def make_answer_reward(
    cfg: Config, *, split: str | None = None
) -> Callable[..., tuple[Reward, list[list[Parsed]]]]:
    """Bind the statics; returns reward_of(texts, ended, tokens, truth, pair_id, bucket).

    split  the bucket that `bucket` -1 stands for; data.eval_split unless given

    Raises ValueError where the config names a function that cannot be found. reward_of takes
    texts    [B][G] decoded answers
    ended    bool[B, G]    False where the token limit cut the answer off
    tokens   i32[B, G]     tokens of each answer, end token included; 0 where no model wrote it
    truth    BoxSet[B, M]  unit frame
    pair_id  i32[B]        record number within the split
    bucket   i32[B]        index into data.buckets, -1 for `split`
    ->       Reward on this process's device, and what was read: [B][G] Parsed

    With a function other than "dig", each further entry of its dict is a part named
    "<function>/<entry>". With reward.overlong_buffer, part "overlong" is what was added to the
    total, in [-overlong_weight, 0]; the whole weight for an answer that cannot be read. Every
    process calls it with the whole global batch. Raises `custom.RewardError` where the function
    fails.
    """
    kernel, name = make_reward(cfg.reward), cfg.reward.function
    function = None if name == "dig" else find_function(cfg.reward)
    short = name.rpartition(":")[2]

    def reward_of(texts, ended, tokens, truth: BoxSet, pair_id, bucket):
        reward, parsed = score_texts(texts, ended, truth, kernel, cfg.reward)
        total, parts, shape = None, {}, np.shape(ended)
        if function:
            metas = list(pair_metas(cfg, pair_id, bucket, split))
            samples = list(make_samples(texts, ended, tokens, truth, metas, parsed))
            total, entries = call(function, name, samples, group=shape[1])
            parts = {f"{short}/{key}": value.reshape(shape) for key, value in entries.items()}
            total = total.reshape(shape)
        if cfg.reward.overlong_buffer:
            readable = np.array([[one.readable for one in group] for group in parsed], bool)
            parts["overlong"] = overlong_penalty(cfg, tokens, readable)
            total = jax.device_get(reward.total) if total is None else total
            total = total + parts["overlong"]
        if total is None:
            return reward, parsed
        total, parts = jax.device_put((total, parts))
        return Reward(total=total, parts=reward.parts | parts), parsed

    return reward_of


def overlong_penalty(cfg: Config, tokens: np.ndarray, readable: np.ndarray) -> np.ndarray:
    """DAPO's soft punishment of long answers (arXiv 2503.14476, eq. 13), counted in tokens.

    tokens    i32[B, G]
    readable  bool[B, G]
    ->        f32[B, G]   0 up to rollout.max_tokens - overlong_buffer tokens, then in a straight
              line down to -overlong_weight at rollout.max_tokens

    What cannot be read costs the whole weight at any length: short garbage would else earn more
    than a long answer with a box.
    """
    buffer = cfg.reward.overlong_buffer
    over = np.asarray(tokens, np.float32) - (cfg.rollout.max_tokens - buffer)
    share = np.where(readable, np.clip(over / np.float32(buffer), 0, 1), np.float32(1))
    return np.float32(-cfg.reward.overlong_weight) * share


def pair_metas(
    cfg: Config, pair_id: np.ndarray, bucket: np.ndarray, split: str | None = None
) -> Iterator[MappingProxyType]:
    """`Sample.meta` of every pair of a batch."""
    names = (*cfg.data.buckets, split or cfg.data.eval_split)  # -1 is the last
    size = {"width": cfg.data.image_width, "height": cfg.data.image_height}
    for pair, number in zip(pair_id, bucket, strict=True):
        yield MappingProxyType({"pair_id": int(pair), "bucket": names[int(number)], **size})


def make_samples(
    texts: Sequence[Sequence[str]],
    ended: np.ndarray,
    tokens: np.ndarray,
    truth: BoxSet,
    metas: Iterable,
    parsed: Sequence[Sequence[Parsed]],
) -> Iterator[Sample]:
    """One `Sample` per answer of a batch, pair after pair; arrays as in `make_answer_reward`."""
    truth = jax.device_get(truth)
    rows = zip(texts, ended, tokens, truth.boxes, truth.valid, metas, parsed, strict=True)
    for answers, ends, lengths, boxes, valid, meta, readings in rows:
        true = _read_only(boxes[valid])
        for text, end, length, read in zip(answers, ends, lengths, readings, strict=True):
            read = Parsed(_read_only(read.boxes_unit), read.verdict, read.n_boxes)
            yield Sample(text, bool(end), read, true, int(length), meta)


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that a reward function cannot change for the answers after it."""
    view = array.view()
    view.flags.writeable = False
    return view
