"""Supervised learning: cross-entropy on true answers, and on what cells of pictures show.

    loss = pairs_weight (answer + cells) + questions_weight (answer + asked)

`answer` is the mean of -log p over the true answers' tokens by their weights, `cells` and `asked`
the dense labels of a cold start (modules of these names). `SftConfig` has the weights.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dig_jax.config import SftConfig
from dig_jax.learner.asked import Asked, asked_totals, make_asked_loss
from dig_jax.learner.cells import Cells, label_rows, make_cell_loss, totals
from dig_jax.learner.optim import Optimizer
from dig_jax.learner.slices import pair_slices
from dig_jax.learner.state import TrainState
from dig_jax.learner.trainable import join, split
from dig_jax.model.config import ModelConfig
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.logprob import banned_tokens, token_logp
from dig_jax.model.params import Params
from dig_jax.model.qwen3vl import cache_of, final_norm, prompt_states, score_tokens, unembed


@struct.dataclass
class Lesson:
    """B rows with their true answers.

    prompt  PromptInputs of B rows
    images  u8[B, I, Y, X, 3]
    tokens  i32[B, T]   answer with EOS, padded
    weight  f32[B, T]   of each token in the loss; 0 at padding
    cells   Cells of difference pairs; None of questions
    asked   Asked of questions; None of difference pairs
    """

    prompt: PromptInputs
    images: jax.Array
    tokens: jax.Array
    weight: jax.Array
    cells: Cells | None = None
    asked: Asked | None = None


@struct.dataclass
class Lessons:
    """What a step learns from: pairs, questions, or both."""

    pairs: Lesson | None = None
    questions: Lesson | None = None


def make_sft_update(
    cfg: SftConfig,
    config: ModelConfig,
    optimizer: Optimizer,
    trained: frozenset[str],
    slots: Sequence[np.ndarray],
) -> Callable:
    """Bind the statics; returns update(state, lessons) -> (TrainState, metrics f32[] by name).

    trained  paths of the parameters that move (`trainable.trained_names`)
    slots    places of image A's cells in a pair's prompt, and of image B's (`cells.cell_slots`)

    One optimiser update, whose gradient is a sum over `cfg.accumulate` slices of rows. Where it or
    the loss is not finite nothing moves: `finite` is then 0.
    """
    loss = make_lessons_loss(cfg, config, slots)

    def update(state: TrainState, lessons: Lessons):
        part, frozen = split(state.params, trained)
        counts = counted(lessons)

        def gradient(some: Lessons):
            def of_part(part):
                return loss(join(part, frozen), some, counts)

            return jax.grad(of_part, has_aux=True)(part)

        grads, metrics = _added(gradient, lessons, part, cfg.accumulate)
        moved, moments, norm = optimizer.update(grads, state.opt_state, part, state.step)
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        keep = partial(jax.tree.map, lambda new, old: jnp.where(good, new, old))
        part, moments = keep(moved, part), keep(moments, state.opt_state)
        state = state.replace(params=join(part, frozen), opt_state=moments, step=state.step + 1)
        seen = {"grad_norm": norm, "finite": good.astype(jnp.float32)}
        return state, _with_f1(metrics) | seen

    return update


def make_lessons_loss(cfg: SftConfig, config: ModelConfig, slots: Sequence[np.ndarray]) -> Callable:
    """Bind the statics; returns loss(params, lessons, counts) -> (f32[], metrics f32[] by name).

    counts  `counted` of the whole batch: of its slices losses and metrics then are addends
    """
    banned, rows = banned_tokens(config), label_rows(cfg.first_row)
    of_cells, of_asked = make_cell_loss(cfg), make_asked_loss(cfg)

    def of_lesson(params: Params, lesson: Lesson, counts: dict):
        k, v, states, last = prompt_states(params, config, lesson.prompt, lesson.images)
        cache = cache_of(params, config, lesson.prompt, k, v, last)
        hidden = score_tokens(params, config, cache, lesson.tokens[:, None])[:, 0]
        head = unembed(params)
        logp, _ = token_logp(hidden, head, lesson.tokens, temperature=1.0, banned=banned)
        answer = -(logp * lesson.weight).sum() / counts["weight"]

        def read(x):
            return (final_norm(params, x, config) @ head[:, rows]).astype(jnp.float32)

        def cells_at(layer):
            return [states[layer][:, places] for places in slots]

        def spots_at(layer):
            return jnp.take_along_axis(states[layer], lesson.asked.places[..., None], axis=1)

        if lesson.cells is not None:
            return answer, *of_cells(read, cells_at, lesson.cells, counts["cells"])
        if lesson.asked is not None:
            return answer, *of_asked(read, spots_at, lesson.asked, counts["asked"])
        return answer, jnp.float32(0), {}

    def loss(params: Params, lessons: Lessons, counts: dict):
        total, metrics = jnp.float32(0), {}
        for name, weight in (("pairs", cfg.pairs_weight), ("questions", cfg.questions_weight)):
            lesson = getattr(lessons, name)
            if lesson is not None:
                answer, labels, seen = of_lesson(params, lesson, counts[name])
                total += weight * (answer + labels)
                metrics |= {f"loss_{name}": answer, **seen}
        return total, {"loss": total, **metrics}

    return loss


def counted(lessons: Lessons) -> dict:
    """What the losses of a batch are means over, f32[] each: token weights and labels."""
    found = {}
    for name, lesson in vars(lessons).items():
        if lesson is not None:
            found[name] = {"weight": lesson.weight.sum()}
            found[name] |= {"cells": totals(lesson.cells)} if lesson.cells else {}
            found[name] |= {"asked": asked_totals(lesson.asked)} if lesson.asked else {}
    return found


def _added(gradient: Callable, lessons: Lessons, part: Params, slices: int):
    """The sums of gradient(slice) over some slices of the rows."""
    if slices == 1:
        return gradient(lessons)

    def add(total, some):
        grads, metrics = gradient(some)
        return jax.tree.map(jnp.add, total, grads), metrics

    zeros = jax.tree.map(jnp.zeros_like, part)
    grads, metrics = jax.lax.scan(add, zeros, pair_slices(lessons, slices))
    return grads, jax.tree.map(lambda a: a.sum(0), metrics)


def _with_f1(metrics: dict) -> dict:
    """With the F1 of changed cells in place of the counts that it is made of."""
    if "cells_told" not in metrics:
        return metrics
    told, right = metrics.pop("cells_told"), metrics.pop("cells_right")
    return metrics | {"cell_f1": 2 * right / jnp.maximum(told, 1)}
