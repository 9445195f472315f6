"""The cold start's first weights: image B looks at the same place of image A."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.model import text, vision
from dig_jax.model.coldinit import Codes, comparing_init, matching_init
from dig_jax.model.params import param_shapes
from dig_jax.model.rope import rotate
from dig_jax.model.specs import model_specs
from tests import tiny_model

ROWS, COLS = 3, 4
SIZE = (ROWS * tiny_model.CONFIG.vision.cell, COLS * tiny_model.CONFIG.vision.cell)
CELLS = ROWS * COLS
PROMPT = tiny_model.fake_prompt([[SIZE, SIZE]], [3])
TIED = replace(tiny_model.CONFIG, text=replace(tiny_model.CONFIG.text, tied=True))


def first_attention(config, params) -> np.ndarray:
    """Layer 0's attention f32[N, P, P] over a prompt that shows one noise image twice."""
    images = np.repeat(tiny_model.fake_images([[SIZE]])[0], 2, axis=0)
    return np.asarray(attention(config, params, PROMPT, images))


@partial(tiny_model.quick_jit, static_argnums=0)
def attention(config, params, prompt, images):
    c = config.text
    seen = vision.encode_images(params["vision"], config, images, prompt.grids[0])
    slot = prompt.slot[0]
    features = seen.tokens.reshape(-1, c.width)[slot]
    x = jnp.where(slot[:, None] >= 0, features, params["embed"][prompt.tokens[0]])
    p = jax.tree.map(lambda a: a[0], params["blocks"])
    h = text.rms_norm(x, p["attn_norm"], c.norm_eps)
    angles = text.angles_of(prompt.positions[0].T, config)
    q, k = (
        rotate(text.rms_norm(jnp.einsum("pd,dnh->pnh", h, p[w]), p[norm], c.norm_eps), angles)
        for w, norm in (("wq", "q_norm"), ("wk", "k_norm"))
    )
    k = jnp.repeat(k, c.heads // c.kv_heads, axis=1)
    logits = jnp.einsum("pnh,snh->nps", q, k) * c.head_dim**-0.5
    causal = np.tril(np.ones(logits.shape[1:], bool))
    return jax.nn.softmax(jnp.where(causal, logits, -jnp.inf))


def twins_found(attention: np.ndarray) -> np.ndarray:
    """Share of image B's tokens whose strongest key is their twin in image A; f32[N]."""
    first, second = np.flatnonzero(PROMPT.slot[0] >= 0).reshape(2, CELLS)
    return (attention[:, second].argmax(-1) == first).mean(-1)


@pytest.mark.parametrize("config", [tiny_model.CONFIG, TIED], ids=["untied", "tied"])
def test_every_token_of_image_b_looks_at_its_twin_in_image_a(config):
    """The twin's key is the query itself, turned back: no other key of that length fits better."""
    params = comparing_init(config, (ROWS, COLS), key=jax.random.key(0))
    group = config.text.heads // config.text.kv_heads
    found = twins_found(first_attention(config, params))
    np.testing.assert_array_equal(found[::group], 1)
    assert found[1::group].max() < 0.9  # the other heads are not built


def test_a_wrong_distance_between_the_images_finds_no_twins():
    """The ablation: without the right shift the same construction looks elsewhere."""
    params = comparing_init(tiny_model.CONFIG, (ROWS, COLS + 2), key=jax.random.key(0))
    group = tiny_model.CONFIG.text.heads // tiny_model.CONFIG.text.kv_heads
    assert twins_found(first_attention(tiny_model.CONFIG, params))[::group].max() < 0.7


@pytest.mark.parametrize("config", [tiny_model.CONFIG, TIED], ids=["untied", "tied"])
def test_the_tree_is_the_models_and_finite(config):
    params = comparing_init(config, (ROWS, COLS), key=jax.random.key(1))
    shapes = param_shapes(model_specs(config))
    assert jax.tree.map(lambda a: (a.shape, a.dtype), params) == jax.tree.map(
        lambda a: (a.shape, a.dtype), shapes
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    assert ("head" in params) == (not config.text.tied)


def test_the_same_key_gives_the_same_weights():
    one, two, other = (
        comparing_init(tiny_model.CONFIG, (ROWS, COLS), key=jax.random.key(seed))
        for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert (one["blocks"]["wq"] != other["blocks"]["wq"]).mean() > 0.9


ASKS = 40  # tokens after the cells that it reads: none of them is a place to look at
SHOWN, ASKED = np.arange(4, 8), np.arange(12, 16)
WANTED, RIGHT = np.array([16]), np.array([18])
CODES = Codes(rows=np.arange(20), shown=SHOWN, asked=ASKED, wanted=WANTED, right=RIGHT)


def searched(params, asked: np.ndarray, cells: np.ndarray, layer: int = 2) -> np.ndarray:
    """Attention f32[N, C + 1] of a layer from a token to C cells before it, and to itself."""
    c, p = CONFIG.text, jax.tree.map(lambda a: np.asarray(a[layer]), params["blocks"])
    x = np.concatenate([cells, asked[None]])
    positions = np.append(np.arange(len(cells)), len(cells) + ASKS)
    angles = text.angles_of(np.stack([positions] * 3, -1), CONFIG)
    q, k = (
        rotate(text.rms_norm(jnp.einsum("pd,dnh->pnh", x, p[w]), p[norm], c.norm_eps), angles)
        for w, norm in (("wq", "q_norm"), ("wk", "k_norm"))
    )
    k = jnp.repeat(k, c.heads // c.kv_heads, axis=1)
    logits = jnp.einsum("nh,snh->ns", q[-1], k) * c.head_dim**-0.5
    return np.asarray(jax.nn.softmax(logits))


CONFIG = replace(
    tiny_model.CONFIG,
    text=replace(tiny_model.CONFIG.text, width=128, head_dim=32, heads=8, kv_heads=4, layers=5,
                 mrope_section=(6, 5, 5), rope_theta=100.0),
    vision=replace(tiny_model.CONFIG.vision, out=128),
)  # fmt: skip


def states(params, rows, seed):
    """f32[n, D] of unit variance that say one code each, among other things."""
    code = np.asarray(params["head"])[:, rows].T
    noise = np.random.default_rng(seed).normal(size=code.shape)
    return 0.8 * code / np.sqrt(np.square(code).mean(-1, keepdims=True)) + 0.6 * noise


def test_what_asks_for_a_code_reads_the_cell_that_shows_it():
    """Two in three of twelve, by chance 2.4: keys have ten dimensions, cells say more than one."""
    group, right = CONFIG.text.heads // CONFIG.text.kv_heads, 0
    for seed in range(3):
        params = comparing_init(CONFIG, (ROWS, COLS), key=jax.random.key(seed), codes=CODES)
        cells = states(params, SHOWN, seed)
        for wanted in range(4):
            (asked,) = states(params, ASKED[[wanted]], 9 + seed)
            right += searched(params, asked, cells)[::group].mean(0).argmax() == wanted
    assert right >= 8


def test_what_wants_an_option_reads_the_one_that_is_right_and_not_itself():
    params = comparing_init(CONFIG, (ROWS, COLS), key=jax.random.key(0), codes=CODES)
    (wants,) = states(params, WANTED, 9)
    options = states(params, np.array([17, 18, 19, 1]), 0)
    read = searched(params, wants, options, layer=CONFIG.text.layers - 1)[::2]
    assert (read.argmax(-1) == 1).all()
    assert read[:, 1].min() > 0.5


def test_a_search_that_has_drifted_is_put_in_again_and_nothing_else_moves():
    fresh = comparing_init(CONFIG, (ROWS, COLS), key=jax.random.key(0), codes=CODES)
    last = CONFIG.text.layers - 1
    blocks = dict(fresh["blocks"])
    for name in ("wq", "wk"):
        noise = np.random.default_rng(3).normal(size=blocks[name].shape[1:])
        blocks[name] = blocks[name].at[last].set(noise / np.sqrt(CONFIG.text.width))
    drifted = {**fresh, "blocks": blocks}
    again = matching_init(drifted, CONFIG, CODES, key=jax.random.key(1))
    (wants,) = states(fresh, WANTED, 9)
    options = states(fresh, np.array([17, 18, 19, 1]), 0)
    drifted_read = searched(drifted, wants, options, layer=last)[::2]
    assert drifted_read[:, 1].mean() < 0.4  # of five tokens: .2 by chance
    assert searched(again, wants, options, layer=last)[::2][:, 1].min() > 0.5
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), drifted, again)
    heads = ("wq", "wk", "wv", "wo", "q_norm", "k_norm")
    assert not any(jax.tree.leaves({**moved, "blocks": without(moved["blocks"], heads)}))
    for name in heads:
        np.testing.assert_array_equal(again["blocks"][name][:last], blocks[name][:last])


def without(tree: dict, names) -> dict:
    return {name: one for name, one in tree.items() if name not in names}


def test_without_its_turn_a_search_finds_itself():
    """The ablation: a query that is the key reads the token that asks, which has no answer."""
    params = comparing_init(CONFIG, (ROWS, COLS), key=jax.random.key(0), codes=CODES)
    group = CONFIG.text.heads // CONFIG.text.kv_heads
    plain = {**params, "blocks": {**params["blocks"]}}
    wq = np.array(params["blocks"]["wq"])
    wq[2, :, ::group] = np.asarray(params["blocks"]["wk"])[2]
    plain["blocks"]["wq"] = wq
    (asked,) = states(params, ASKED[[1]], 9)
    found = searched(plain, asked, states(params, SHOWN, 0))[::group].mean(0)
    assert found.argmax() == 4
