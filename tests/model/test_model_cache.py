"""One encoding, read three ways: scoring, decoding and the full forward agree on ragged batches.

In float32 the three sum the same terms in different orders. Logits are near 5 with sums of 32
terms in each of a dozen matmuls: they lose 3.5e-6 (measured).
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.inputs.prompt import prompt_of_ids
from dig_jax.model import qwen3vl
from tests import tiny_model

TIGHT = 1e-5
GROUP, TOKENS = 3, 5
SIZES = [[(16, 24), (8, 16)], [(16, 8), (16, 16)], [(8, 8)]]  # ragged: sizes, counts, lengths
WORDS = [2, 7, 4]

encode = tiny_model.quick_jit(qwen3vl.encode_prompt, static_argnums=1)
score = tiny_model.quick_jit(qwen3vl.score_tokens, static_argnums=1)
decode = tiny_model.quick_jit(qwen3vl.decode_token, static_argnums=1)
full = tiny_model.quick_jit(qwen3vl.full_logits, static_argnums=1)


@cache
def tiny():
    return tiny_model.make_tiny(jax.random.key(0))


@cache
def ragged():
    return tiny_model.fake_prompt(SIZES, WORDS), tiny_model.fake_images(SIZES)


@cache
def encoded():
    return encode(tiny(), tiny_model.CONFIG, *ragged())


@cache
def answers():
    rng = np.random.default_rng(1)
    return rng.choice(tiny_model.WORDS, (len(SIZES), GROUP, TOKENS)).astype(np.int32)


@cache
def scored():
    """Logits f32[B, G, T, V] of every answer token, by `score_tokens`."""
    return logits_of(score(tiny(), tiny_model.CONFIG, encoded(), answers()))


def logits_of(hidden):
    return np.asarray(hidden @ qwen3vl.unembed(tiny()))


def test_scoring_equals_the_full_forward_of_prompt_and_answer():
    """Each answer appended to its prompt as plain text, and nothing shared or cached."""
    prompt, images = ragged()
    rows = []
    for row, size in enumerate(SIZES):
        ids = prompt.tokens[row, : prompt.length[row]]
        # prompt_of_ids wants one placeholder per image: keep the first of each run
        first = (ids != tiny_model.IMAGE) | (np.roll(ids, 1) != tiny_model.IMAGE)
        rows += [(np.concatenate([ids[first], a]), size) for a in answers()[row]]
    joined = prompt_of_ids(
        tiny_model.CONFIG, *zip(*rows, strict=True), canvas=images.shape[2:4], tokens=None
    )
    logits = np.asarray(
        full(tiny(), tiny_model.CONFIG, joined, np.repeat(images, GROUP, axis=0))
    ).reshape(len(SIZES), GROUP, -1, tiny_model.CONFIG.text.vocab)
    assert np.std(scored()) > 1
    for row, length in enumerate(prompt.length):
        found = logits[row, :, length - 1 : length + TOKENS - 1]
        np.testing.assert_allclose(found, scored()[row], atol=TIGHT, rtol=0)


def test_decoding_token_by_token_equals_scoring():
    cached = encoded()
    state = qwen3vl.empty_answers(tiny_model.CONFIG, cached, GROUP, TOKENS)
    hidden = jnp.repeat(cached.hidden[:, None], GROUP, axis=1)
    for step in range(TOKENS):
        np.testing.assert_allclose(
            logits_of(hidden), scored()[:, :, step], atol=TIGHT, rtol=0, err_msg=f"step {step}"
        )
        token = jnp.asarray(answers()[..., step])
        hidden, state = decode(tiny(), tiny_model.CONFIG, cached, state, token, jnp.int32(step))


def test_answers_of_a_group_do_not_see_each_other():
    """One encoding for G answers equals encoding the prompt G times, for one answer each."""
    prompt, images = ragged()
    copies = jax.tree.map(lambda a: np.repeat(a, GROUP, axis=0), (prompt, images))
    alone = answers().reshape(-1, 1, TOKENS)
    hidden = score(tiny(), tiny_model.CONFIG, encode(tiny(), tiny_model.CONFIG, *copies), alone)
    found = logits_of(hidden).reshape(scored().shape)
    np.testing.assert_allclose(found, scored(), atol=TIGHT, rtol=0)


def test_what_stands_in_padding_is_never_read():
    """Garbage tokens, positions and pixels beyond a row's end and an image's grid: no bit moves."""
    prompt, images = ragged()
    rng = np.random.default_rng(2)
    outside = np.arange(prompt.tokens.shape[1]) >= prompt.length[:, None]
    assert outside.any()
    noisy = prompt.replace(
        tokens=np.where(outside, rng.choice(tiny_model.WORDS, outside.shape), prompt.tokens),
        positions=np.where(outside[:, None], 77, prompt.positions),
    )
    noise = rng.integers(0, 256, images.shape, np.uint8)
    for row, count in enumerate(SIZES):
        for k, (height, width) in enumerate(count):
            noise[row, k, :height, :width] = images[row, k, :height, :width]
    assert (noise != images).any()
    before, after = (e.replace(k=None, v=None) for e in (encoded(), encode_of(noisy, noise)))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    hidden = score(tiny(), tiny_model.CONFIG, encode_of(noisy, noise), answers())
    np.testing.assert_array_equal(logits_of(hidden), scored())


def encode_of(prompt, images):
    return encode(tiny(), tiny_model.CONFIG, prompt, images)


def test_what_stands_in_an_image_is_read():
    """The counterpart: one pixel inside the last cell of the second image moves its own row."""
    prompt, images = ragged()
    changed = images.copy()
    changed[0, 1, 7, 15] ^= 255
    moved = np.abs(np.asarray(encode_of(prompt, changed).hidden - encoded().hidden)).max(-1)
    assert moved[0] > 1e-4
    np.testing.assert_array_equal(moved[1:], 0)


@pytest.mark.parametrize("canvas", [(16, 40), (32, 24)])
def test_a_larger_canvas_or_more_padding_changes_nothing(canvas):
    prompt = tiny_model.fake_prompt(SIZES, WORDS, canvas=canvas, tokens=30)
    images = tiny_model.fake_images(SIZES, canvas=canvas)
    hidden = encode_of(prompt, images).hidden
    np.testing.assert_allclose(logits_of(hidden), logits_of(encoded().hidden), atol=TIGHT, rtol=0)


def test_a_prompt_without_images_is_text_alone():
    """I = 0 and an image slot that is empty read the same text."""
    sizes = [[]]
    text = tiny_model.fake_prompt(sizes, [6], seed=4)
    none = encode_of(text, np.zeros((1, 0, 16, 24, 3), np.uint8)).hidden
    empty = text.replace(grids=np.zeros((1, 1, 2), np.int32))
    blank = encode_of(empty, np.zeros((1, 1, 16, 24, 3), np.uint8)).hidden
    np.testing.assert_allclose(logits_of(blank), logits_of(none), atol=TIGHT, rtol=0)
