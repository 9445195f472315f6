"""Supervised updates: what the loss is, what it is not, and how it may be cut."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import OptimConfig, SftConfig
from dig_jax.learner import cells as labels
from dig_jax.learner.asked import Asked
from dig_jax.learner.cells import ROWS, UNKNOWN, Cells, cell_slots
from dig_jax.learner.optim import make_optimizer
from dig_jax.learner.sft import Lesson, Lessons, counted, make_lessons_loss, make_sft_update
from dig_jax.learner.state import TrainState
from dig_jax.learner.trainable import parameter_names, split
from dig_jax.sampler.scorer import make_scorer
from tests import tiny_model

# the labels of a real vocabulary, on a model of a few words more than there are labels
CONFIG = dataclasses.replace(
    tiny_model.CONFIG, text=dataclasses.replace(tiny_model.CONFIG.text, vocab=64 + ROWS)
)
CFG = SftConfig(changed_weight=0.7, things_weight=0.4, asked_weight=0.6, questions_weight=0.5,
                first_row=64, rank_layer=1, asked_layer=0, meant_layer=1, told_layer=1)  # fmt: skip
PAIRS, QUESTIONS, TOKENS = 4, 8, 5
OF_ASKED = ("words", "meant", "where", "named", "number", "letter", "told")
GRID = (2, 3)


@cache
def params():
    return tiny_model.make_tiny(jax.random.key(0), CONFIG)


@cache
def prompt(rows: int, seed: int):
    return tiny_model.pairs_of(rows, seed=seed) if seed else tiny_model.pairs_of(rows)


def slots():
    return cell_slots(prompt(1, 0)[0].slot[0])


def a_lesson(rows: int, seed: int, *, pairs: bool) -> Lesson:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, TOKENS + 1, rows)
    weight = rng.random((rows, TOKENS), np.float32) + 0.1
    asked, images = prompt(rows, 0)
    return Lesson(
        prompt=asked,
        images=images,
        tokens=rng.integers(6, 64, (rows, TOKENS)).astype(np.int32),
        weight=np.where(np.arange(TOKENS) < lengths[:, None], weight, 0).astype(np.float32),
        cells=some_cells(rows, rng) if pairs else None,
        asked=None if pairs else some_asked(rows, rng),
    )


def some_cells(rows: int, rng) -> Cells:
    shape = (rows, GRID[0] * GRID[1])
    changed = rng.integers(0, 2, shape)
    there = rng.integers(0, 2, shape)[..., None] > 0

    def kinds(count, known):
        return np.where(known, rng.integers(0, count, (*shape, 1)), UNKNOWN)

    bins = np.concatenate([kinds(labels.BINS, changed[..., None] > 0) for _ in range(4)], -1)
    things = [kinds(count, there) for count in labels.THINGS.values()]
    boxes = np.concatenate([kinds(labels.BINS, there) for _ in range(4)], -1)
    rank = kinds(labels.RANKS, changed[..., None] > 0)[..., 0]
    core = kinds(2, there)[..., 0]
    return Cells(changed, bins, rank, np.concatenate(things, -1), boxes, core)


def some_asked(rows: int, rng) -> Asked:
    """Every other question has each label, at three spots."""
    spots = 3

    def some(counts, *shape):
        known = rng.permutation(np.arange(rows) % 2).reshape(rows, *(1 for _ in shape)) > 0
        return np.where(known, rng.integers(0, counts, (rows, *shape)), UNKNOWN)

    looks, told = [*labels.THINGS.values()], [*labels.TOLD.values()]
    return Asked(
        places=rng.integers(1, prompt(rows, 0)[0].length.min(), (rows, spots)),
        words=some([*looks, *told], spots, 9),
        meant=some(looks, spots, 4),
        bins=some(labels.BINS, spots, 4),
        named=some(labels.NAMED, spots),
        number=some(labels.TOLD["number"], spots),
        letter=some(labels.RANKS, spots),
        told=some(told, spots, 5),
    )


def lessons() -> Lessons:
    return Lessons(
        pairs=a_lesson(PAIRS, 1, pairs=True), questions=a_lesson(QUESTIONS, 2, pairs=False)
    )


@cache
def program():
    """One for all that only reads the loss: programs take seconds to compile."""
    loss = make_lessons_loss(CFG, CONFIG, slots())

    def run(params, given):
        return jax.value_and_grad(loss, has_aux=True)(params, given, counted(given))

    return tiny_model.quick_jit(run)


def loss_of(given: Lessons):
    """(loss, metrics) and the gradient."""
    return program()(params(), given)


def with_pairs(given: Lessons, **changes) -> Lessons:
    return given.replace(pairs=given.pairs.replace(**changes))


def test_an_answers_loss_is_the_weighted_mean_of_its_tokens_surprise():
    """By the scorer that GRPO's parity rests on."""
    lesson = lessons().questions
    _, seen = loss_of(lessons())[0]
    score = tiny_model.quick_jit(make_scorer(CONFIG, temperature=1.0, chunk=64))
    logp, _ = score(params(), lesson.prompt, lesson.images, lesson.tokens[:, None])
    expected = -(logp[:, 0] * lesson.weight).sum() / lesson.weight.sum()
    np.testing.assert_allclose(seen["loss_questions"], expected, rtol=1e-5)


def test_the_loss_is_the_sum_of_its_parts_by_their_weights():
    (whole, seen), _ = loss_of(lessons())
    dense = seen["loss_changed"] + 0.3 * (seen["loss_bins"] + seen["loss_rank"])
    things = sum(seen[f"loss_{name}"] for name in labels.THINGS) / len(labels.THINGS)
    things += 0.3 * seen["loss_thing_bins"] + seen["loss_core"]
    pairs = seen["loss_pairs"] + CFG.changed_weight * dense + CFG.things_weight * things
    asked = sum(seen[f"loss_{name}"] for name in ("words", "meant", "number", "told"))
    asked += 0.3 * (seen["loss_where"] + seen["loss_named"] + seen["loss_letter"])
    questions = seen["loss_questions"] + CFG.asked_weight * asked
    expected = CFG.pairs_weight * pairs + CFG.questions_weight * questions
    np.testing.assert_allclose(whole, expected, rtol=1e-5)


def test_tokens_beyond_an_answer_are_not_read():
    given = lessons()
    noise = np.random.default_rng(5).integers(6, 64, given.pairs.tokens.shape)
    tokens = np.where(given.pairs.weight > 0, given.pairs.tokens, noise).astype(np.int32)
    assert (tokens != given.pairs.tokens).any()
    found, expected = loss_of(with_pairs(given, tokens=tokens)), loss_of(given)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_labels_move_their_own_rows_of_the_head_and_unknown_ones_none():
    """Against a batch that differs from it in nothing but that its labels are not known."""
    given = lessons()
    unknown = partial(jax.tree.map, lambda a: np.full_like(a, UNKNOWN))
    blank = unknown(given.pairs.cells).replace(changed=given.pairs.cells.changed)
    asked = given.questions.asked
    silent = given.questions.replace(asked=unknown(asked).replace(places=asked.places))
    (_, seen), grads = loss_of(with_pairs(given.replace(questions=silent), cells=blank))
    for name in ("bins", "rank", "thing_bins", "core", *labels.THINGS, *OF_ASKED):
        assert seen[f"loss_{name}"] == 0
    moved = np.abs(np.asarray(loss_of(given)[1]["head"] - grads["head"])).max(0)
    rows = np.arange(CFG.first_row, CFG.first_row + ROWS)
    rows = np.delete(rows, labels.places_of(["changed", *labels.GAPS]))
    assert (moved[rows] > 1e-5).all()
    np.testing.assert_array_equal(np.delete(moved, rows), 0)


def test_what_is_asked_is_said_by_the_tokens_at_its_spots():
    given, (_, seen) = lessons(), loss_of(lessons())[0]
    for spot in (0, 2):
        places = given.questions.asked.places.copy()
        places[:, spot] -= 1
        asked = given.questions.asked.replace(places=places)
        _, found = loss_of(given.replace(questions=given.questions.replace(asked=asked)))[0]
        assert all(found[f"loss_{name}"] != seen[f"loss_{name}"] for name in OF_ASKED)
        assert found["loss_pairs"] == seen["loss_pairs"]


def test_things_are_asked_of_image_a_and_changes_of_image_b():
    """Another image B changes no answer about image A, whose tokens come first."""
    first, second = slots()
    assert len(first) == len(second) == GRID[0] * GRID[1]
    assert first.max() < second.min()
    given, other = lessons(), np.array(lessons().pairs.images)
    other[:, 1] = 255 - other[:, 1]
    _, seen = loss_of(given)[0]
    _, found = loss_of(with_pairs(given, images=other))[0]
    of_a = [f"loss_{name}" for name in ("thing_bins", "core", *labels.THINGS)]
    assert [found[name] == seen[name] for name in of_a] == [True] * len(of_a)
    assert all(found[f"loss_{name}"] != seen[f"loss_{name}"] for name in ("changed", "bins"))


@cache
def updater(slices: int):
    """update(lessons) of fresh weights, with the vision tower frozen."""
    cfg = dataclasses.replace(CFG, accumulate=slices)
    names = (n for n in parameter_names(params()) if not n.startswith("vision"))
    trained = frozenset(names)
    optimizer = make_optimizer(OptimConfig(rate=1e-2, eps=1.0), 10, split(params(), trained)[0])
    state = TrainState.start(params(), optimizer, None, trained)
    update = make_sft_update(cfg, CONFIG, optimizer, trained, slots())
    return partial(tiny_model.quick_jit(update), state)


def test_an_update_moves_what_is_trained_alone():
    state, stats = updater(1)(lessons())
    jax.tree.map(np.testing.assert_array_equal, state.params["vision"], params()["vision"])
    assert (state.params["head"] != params()["head"]).any()
    assert (state.step, stats["finite"], state.reference) == (1, 1, None)


@pytest.mark.slow
def test_slices_of_a_batch_move_the_weights_as_the_whole_does():
    """They hold unequal weights and numbers of labels: sums, not means of means."""
    whole, stats = updater(1)(lessons())
    cut, seen = updater(2)(lessons())
    for name, value in seen.items():
        np.testing.assert_allclose(value, stats[name], rtol=2e-4, atol=1e-6, err_msg=name)
    close = partial(np.testing.assert_allclose, atol=1e-6)
    jax.tree.map(close, cut.params, whole.params)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_an_update_that_is_not_finite_moves_nothing(poison):
    given = lessons()
    weight = given.questions.weight.copy()
    weight[0, 0] = poison
    state, stats = updater(1)(given.replace(questions=given.questions.replace(weight=weight)))
    assert stats["finite"] == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, params())
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(state.opt_state))


def test_the_f1_of_changed_cells_is_that_of_its_answers():
    """From logits that say each label outright."""
    truth = np.array([[1, 1, 0, 0]])
    told = np.array([[1, 0, 1, 0]])
    logits = np.zeros((1, 4, ROWS), np.float32)
    logits[..., 0] = 2 * told - 1
    loss, seen = labels._changed(jnp.asarray(logits), jnp.asarray(truth))
    assert (seen["cells_right"], seen["cells_told"]) == (1, 4)
    sure, unsure = np.log1p(np.exp(-1)), np.log1p(np.exp(1))
    np.testing.assert_allclose(loss, 3 * (sure + unsure) + unsure + sure, rtol=1e-6)
