"""FLOPs by formula are those counted by hand, and those of the programs that run."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from dig_jax.mesh import flops
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.params import count, param_shapes
from dig_jax.model.qwen3vl import SeenImages, see_images
from dig_jax.model.sizes import released
from dig_jax.model.specs import is_spec, model_specs
from dig_jax.sampler.scorer import make_scorer

PROMPT, ANSWERS, LENGTH, CELLS = 403, 3, 96, 150  # two 480x320 images
MODEL = dataclasses.replace(released("4b"), attention="xla")


def shape(*sides: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sides, dtype)


def prompt_shapes() -> PromptInputs:
    row = [(1, PROMPT), (1, PROMPT), (1, 3, PROMPT), (1,), (1,), (1, 2, 2)]
    return PromptInputs(*(shape(*sides, dtype=jnp.int32) for sides in row))


def matrices(specs) -> int:
    """Numbers of the rows that are multiplied with: no norms, no biases."""
    leaves = jax.tree.leaves(specs, is_leaf=is_spec)
    return sum(count({"": one}) for one in leaves if one.init not in ("ones", "zeros"))


def test_one_answer_costs_what_one_sequence_does():
    """2 N S + 2 V D R + 2 L A S^2: with one answer nothing is shared."""
    width, mlp, head = 4096, 12288, 128
    block = width * (32 + 8 + 8) * head + 32 * head * width + 3 * width * mlp
    block += 2 * width + 2 * head  # norms; of queries and keys
    model, prompt, length = released("8b"), 1536, 900
    assert flops.block_parameters(model) == 36 * block
    whole = prompt + length
    by_hand = 2 * 36 * block * whole + 2 * 151936 * width * length + 2 * 36 * 4096 * whole**2
    assert flops.forward_flops(model, prompt=prompt, length=length, answers=1) == by_hand
    eight = flops.forward_flops(model, prompt=prompt, length=length, answers=8)
    saved = 7 * flops.forward_flops(model, prompt=prompt, length=0, answers=0)
    assert eight == 8 * by_hand - saved


def test_a_forward_pass_computes_the_formula_and_the_masked_half_of_attention():
    """To the last product: norms are no products, and an answer's last token is not read."""
    score = make_scorer(MODEL, temperature=1.0, chunk=MODEL.text.vocab)
    images = SeenImages(shape(1, 2 * CELLS, 2560), shape(1, 3, 2 * CELLS, 2560))
    given = (param_shapes(model_specs(MODEL)), prompt_shapes(), images)
    found = flops.traced_flops(score, *given, shape(1, ANSWERS, LENGTH, dtype=jnp.int32))
    c, read = MODEL.text, LENGTH - 1
    whole = PROMPT**2 + ANSWERS * read * (PROMPT + read)
    attention = 4 * c.layers * c.heads * c.head_dim * whole
    blocks = matrices(model_specs(MODEL)["blocks"])
    by_hand = 2 * blocks * (PROMPT + ANSWERS * read) + attention
    assert found == by_hand + 2 * c.vocab * c.width * ANSWERS * LENGTH
    half = 2 * c.layers * c.heads * c.head_dim * (PROMPT**2 + ANSWERS * read**2)
    size = {"prompt": PROMPT, "length": LENGTH, "answers": ANSWERS}
    unread = ANSWERS / (PROMPT + ANSWERS * LENGTH)  # one token of each answer
    assert flops.forward_flops(MODEL, **size) == pytest.approx(found - half, rel=unread)


def test_the_tower_computes_the_formula_but_for_the_resampled_position_table():
    images = shape(1, 2, 320, 480, 3, dtype=jnp.uint8)
    given = (param_shapes(model_specs(MODEL)), prompt_shapes(), images)
    found = flops.traced_flops(lambda p, q, i: see_images(p, MODEL, q, i), *given)
    rows, cols, side, width = 20, 30, 48, MODEL.vision.width
    table = 2 * 2 * rows * side * width * (side + cols)
    assert flops.tower_flops(MODEL, CELLS, 2) == pytest.approx(found - table, rel=1e-3)
    assert found - table < flops.tower_flops(MODEL, CELLS, 2)  # norms and biases: less than 1e-3


def test_loops_count_as_often_as_they_run_and_gradients_twice():
    matrix, product = shape(8, 8), 2 * 8**3

    def looped(a):
        return jax.lax.scan(lambda x, _: (x @ a, None), a, None, length=5)[0]

    assert flops.traced_flops(looped, matrix) == 5 * product
    again = jax.checkpoint(looped, policy=jax.checkpoint_policies.nothing_saveable)
    pull = jax.grad(lambda a, f: f(a).sum())
    plain = flops.traced_flops(lambda a: pull(a, looped), matrix)
    assert plain == 3 * 5 * product
    assert flops.traced_flops(lambda a: pull(a, again), matrix) == plain + 5 * product

    def either(yes, a):
        return jax.lax.cond(yes, lambda a: a @ a @ a, lambda a: a, a)

    assert flops.traced_flops(either, shape(dtype=jnp.bool_), matrix) == 2 * product


def test_a_loop_whose_end_is_not_known_is_refused():
    def endless(a):
        return jax.lax.while_loop(lambda x: x.sum() < 1, lambda x: x @ a, a)

    with pytest.raises(ValueError, match="FLOPs of 'while' are not known"):
        flops.traced_flops(endless, shape(8, 8))

    def counted(a):  # what has none
        return jax.lax.fori_loop(0, 3, lambda _, x: x @ a, a)

    assert flops.traced_flops(counted, shape(8, 8)) == 3 * 2 * 8**3
