"""One draw of experience: answers to a batch of pairs, with their rewards.

Images and rollout stay on the devices for the update; texts, rewards and truth are on the host,
whole on every process. Groups without spread teach nothing, so they can be drawn again from
other pairs (dynamic sampling, DAPO, arXiv 2503.14476); a draw is a function of (step, attempt).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dig_jax.config import Config
from dig_jax.data.feed.batch import Batch
from dig_jax.learner.advantage import flat_groups
from dig_jax.mesh import distributed, programs, sharding
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import SeenImages
from dig_jax.reward.answers import make_answer_reward
from dig_jax.reward.parse import Parsed
from dig_jax.reward.reward import Reward
from dig_jax.run.session import Session
from dig_jax.sampler.rollout import Rollout


@dataclass(frozen=True)
class Experience:
    """G answers to each of B pairs.

    images   on the devices: u8[B, I, Y, X, 3], or SeenImages with a frozen vision tower
    rollout  on the devices
    host     the rollout in NumPy
    batch    the pairs without their images, all B
    texts    [B][G]
    reward   Reward in NumPy
    parsed   [B][G]
    """

    images: jax.Array | SeenImages
    rollout: Rollout
    host: Rollout
    batch: Batch
    texts: list[list[str]]
    reward: Reward
    parsed: list[list[Parsed]]


def learned_reward(cfg: Config, reward: Reward) -> np.ndarray:
    """What an update is given of rewards: f32[B, G], or of their parts f32[B, G, parts].

    reward  in NumPy
    """
    if cfg.grpo.advantage != "parts":
        return reward.total
    return np.stack([reward.parts[name] for name in cfg.reward.parts], axis=-1)


def make_draw(session: Session, timed: Callable) -> Callable[..., tuple[Experience, int]]:
    """Bind the statics; returns draw(params, prompt, batch, key, spare) -> (Experience, redraws).

    timed   context manager by phase name (`RunLog.timed`)

    draw's `spare` gives the Batch of attempt 1, 2, ... to draw flat groups again from. The copy
    of the weights that answers lives as long as the call: the update needs its room.
    """
    cfg = session.cfg
    reshard, once = programs.jit_reshard(session), _make_draw_once(session, timed)

    def draw(params: Params, prompt, batch: Batch, key: jax.Array, spare):
        with timed("rollout"):
            weights = reshard(params)
        return draw_until_spread(
            once(weights, prompt, batch, key),
            lambda n: once(weights, prompt, spare(n), jax.random.fold_in(key, n)),
            tries=cfg.grpo.resample,
            min_spread=cfg.grpo.min_spread,
        )

    return draw


def _make_draw_once(session: Session, timed: Callable) -> Callable[..., Experience]:
    """draw(weights, prompt, batch, key) -> Experience, with `programs.jit_reshard`'s weights."""
    cfg, mesh = session.cfg, session.mesh
    view, sample = programs.jit_viewer(session), programs.jit_sampler(session)
    reward_of = make_answer_reward(cfg)

    def draw(weights: Params, prompt, batch: Batch, key: jax.Array) -> Experience:
        with timed("data"):
            pixels = sharding.shard_batch(batch.images, mesh)
            # every process scores all answers, so each needs all truths
            known = fetch(sharding.shard_batch(batch.replace(images=()), mesh))
        with timed("rollout"):
            images = view(weights, prompt, pixels)
            rollout = sample(weights, prompt, images, key)
            host = fetch(rollout)
        with timed("reward"):
            texts = session.texts(host.tokens, host.valid.sum(-1))
            facts = (known.truth, known.pair_id, known.bucket)
            reward, parsed = reward_of(texts, host.ended, host.valid.sum(-1), *facts)
            reward = jax.device_get(reward)
            distributed.check_rewards(reward.total, known.pair_id)
        return Experience(images, rollout, host, known, texts, reward, parsed)

    return draw


def draw_until_spread(
    first: Experience, again: Callable[[int], Experience], *, tries: int, min_spread: float
) -> tuple[Experience, int]:
    """`first` with its flat groups replaced by other draws, and how many draws that took.

    again   attempt number from 1 -> another whole Experience; only its groups in the places of
            flat ones are used, so that no row moves between devices or processes

    After `tries` attempts what is still flat stays: its advantage is 0, the step goes on.
    """
    drawn = first
    for attempt in range(1, tries + 1):
        flat = flat_groups(drawn.reward.total, min_spread)
        if not flat.any():
            return drawn, attempt - 1
        drawn = choose(flat, again(attempt), drawn)
    return drawn, tries


def choose(where: np.ndarray, one: Experience, other: Experience) -> Experience:
    """Pair by pair: of `one` where bool[B] is true, else of `other`."""
    device = _choose(where, (one.images, one.rollout), (other.images, other.rollout))
    host = _choose_host(where, (one.host, one.batch, one.reward),
                        (other.host, other.batch, other.reward))  # fmt: skip
    texts, parsed = (
        [a if pick else b for pick, a, b in zip(where, *lists, strict=True)]
        for lists in ((one.texts, other.texts), (one.parsed, other.parsed))
    )
    images, rollout = device
    return Experience(images, rollout, host[0], host[1], texts, host[2], parsed)


def fetch(tree: Any) -> Any:
    """Host copies of sharded arrays, whole on every process: all of them score all answers."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    from jax.experimental.multihost_utils import process_allgather

    return process_allgather(tree, tiled=True)


@jax.jit
def _choose(where, one, other):
    def pick(a, b):
        return jnp.where(where.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, one, other)


def _choose_host(where, one, other):
    def pick(a, b):
        a, b = np.asarray(a), np.asarray(b)
        return np.where(where.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, one, other)
