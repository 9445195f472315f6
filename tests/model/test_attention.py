"""Every implementation of attention computes what the reference does, padding unread.

Logits are sums of H <= 72 products of order 1, so float32 loses up to 72 x 2^-24 = 4e-6 of them
and the softmax as much of its weights; a gradient multiplies that by values and cotangents of up
to 4. Hence 2e-5 on values and gradients. Dropping a mask moves them by more than 0.1.
"""

import itertools
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import Config, DataConfig, EvalConfig, MeshConfig, ModelSource
from dig_jax.learner.packing import Packing, make_plan
from dig_jax.mesh import sharding
from dig_jax.mesh.layout import Layout
from dig_jax.model import (
    attention,
    dot_attention,
    layers,
    plain_attention,
    qwen3vl,
    splash,
    text,
)
from dig_jax.model.inputs import PromptInputs
from dig_jax.model.params import param_shapes
from dig_jax.model.specs import model_specs
from dig_jax.run.session import Session, open_session
from tests import tiny_model

TOLERANCE = 2e-5
HERE = ("chunked", "dot", "splash_interpret")  # what runs on a CPU beside the reference
GROUP, TOKENS, PROMPT = 3, 100, 131  # in blocks of 128: some are skipped, none is aligned
LENGTHS = np.array([131, 61])
ROWS, COLUMNS = 12, 14  # patches of a canvas, and of the images on it
GRIDS = np.array([[12, 14], [9, 10], [12, 7]])


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Several chunks and several blocks at the sizes of a test."""
    monkeypatch.setattr(plain_attention, "ROWS", 16)
    monkeypatch.setattr(splash, "BLOCK", 128)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


@cache
def image_case(head_dim: int = 72):
    """q, k, v f32[3, 168, 2, H] and inside: padding lies between patches, not behind them."""
    row, column = np.divmod(np.arange(ROWS * COLUMNS), COLUMNS)
    inside = (row < GRIDS[:, :1]) & (column < GRIDS[:, 1:])
    arrays = tuple(noise(3, ROWS * COLUMNS, 2, head_dim, seed=s) for s in range(3))
    return arrays, (inside,)


@cache
def prompt_case():
    """Four query heads share two key heads; two groups, because rows are independent."""
    shapes = ((2, 2, PROMPT, 4, 64), (2, 2, PROMPT, 2, 64), (2, 2, PROMPT, 2, 64))
    return tuple(noise(*shape, seed=s) for s, shape in enumerate(shapes)), ()


@cache
def answer_case():
    """Three answers to each of two prompts of unequal length; grouped heads."""
    q, k, v = (noise(2, GROUP, TOKENS, heads, 16, seed=heads) for heads in (4, 2, 2))
    prompt_k, prompt_v = (noise(2, PROMPT, 2, 16, seed=s) for s in (5, 6))
    return (q, k, v, prompt_k, prompt_v), (np.arange(PROMPT) < LENGTHS[:, None],)


def answers(kind, q, k, v, prompt_k, prompt_v, valid):
    return attention.answers(kind, q, k, v, (prompt_k, prompt_v), valid)


LONGEST, BLOCK = 40, 16


@cache
def packing():
    """Two streams of two pairs' answers, and which token stands where: i32[E, N, S]."""
    shapes = Packing(1, 1, devices=2, pairs=2, group=GROUP, longest=LONGEST, block=BLOCK, blocks=18)
    lengths = np.array([[40, 1, 17], [3, 16, 40], [2, 39, 33], [25, 8, 31]])
    plan = make_plan(shapes, lengths)
    assert plan.turns == 1
    return plan.take[0, 0, 0], plan.order[0]


@cache
def stream_case():
    """Their queries, keys and values; prompts of unequal length; grouped heads."""
    take, _ = packing()
    streams, blocks = take.shape[:2]
    shape = (streams, blocks, BLOCK)
    q, k, v = (noise(*shape, heads, 16, seed=heads) for heads in (4, 2, 2))
    prompts = tuple(noise(streams, 2, PROMPT, 2, 16, seed=s) for s in (5, 6))
    valid = np.arange(PROMPT) < LENGTHS[:, None]
    owner = np.maximum(take[:, :, 0], 0) // (GROUP * LONGEST)
    reach = np.where(take < 0, 0, np.maximum(take % LONGEST - 1, 0))
    masks = (np.stack([valid, valid[::-1]]), np.int32(owner), np.int32(reach))
    return (q, k, v, *prompts), masks


def packed(kind, q, k, v, prompt_k, prompt_v, valid, owner, reach):
    return attention.packed(
        kind, q, k, v, (prompt_k, prompt_v), valid, owner=owner, reach=reach, longest=LONGEST
    )


PASSES = {
    "full": (attention.full, image_case),
    "causal": (attention.causal, prompt_case),
    "answers": (answers, answer_case),
    "packed": (packed, stream_case),
}
ALL = pytest.mark.parametrize("name", PASSES)
EACH = pytest.mark.parametrize("kind", HERE)


@cache
def compiled(name: str, kind: str):
    """(arrays, masks) -> output, and its gradients under a fixed random cotangent."""

    def value(arrays, masks):
        out = PASSES[name][0](kind, *arrays, *masks)
        return (out * noise(*out.shape, seed=9)).sum(), out

    return tiny_model.quick_jit(jax.value_and_grad(value, has_aux=True))


def run(name: str, kind: str, arrays=None, masks=None):
    """Output and gradients as numpy; the pass's own case unless given another."""
    own = PASSES[name][1]()
    (_, out), grads = compiled(name, kind)(arrays or own[0], masks or own[1])
    return np.asarray(out), jax.tree.map(np.asarray, grads)


def gap(one, two) -> float:
    """Largest difference over the arrays of two trees."""
    return max(
        float(np.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    )


@ALL
@EACH
def test_an_implementation_equals_the_reference(name, kind):
    """Values and gradients of queries, keys and values; ragged prompts, ragged canvases."""
    assert gap(run(name, kind), run(name, "xla")) < TOLERANCE


def test_packed_answers_are_the_same_answers_one_by_one():
    """Against `answers`, whose rows are padded; the first token of an answer reads no answer."""
    (q, k, v, *prompts), (valid, *_) = stream_case()
    (take, _), count = packing(), 2 * GROUP * LONGEST
    real = take >= 0

    def alone(a):
        """[E, M x G x T, ...] of the pairs' padded answers, without their first tokens."""
        out = np.zeros((len(take), count, *a.shape[3:]), np.float32)
        for stream, at in enumerate(take):
            out[stream, at[at >= 0]] = a[stream][at >= 0]
        return out.reshape(4, GROUP, LONGEST, *a.shape[3:])[:, :, 1:]

    whole = [a.reshape(4, *a.shape[2:]) for a in (*prompts, valid)]
    expected = answers("xla", *map(alone, (q, k, v)), *whole)
    expected = np.pad(expected, [(0, 0), (0, 0), (1, 0), (0, 0), (0, 0)]).reshape(2, count, 4, 16)
    later = real & (take % LONGEST > 0)
    for stream, out in enumerate(run("packed", "xla")[0]):
        at = later[stream]
        assert gap(out[at], expected[stream, take[stream][at]]) < TOLERANCE


@pytest.mark.parametrize("kind", ["xla", *HERE])
@pytest.mark.parametrize("which", ["prompt's padding", "pair", "reach"])
def test_a_wrong_mask_of_packed_answers_is_seen(kind, which):
    """Another pair's prompt, a prompt's padding, or one token more than the own answer."""
    valid, owner, reach = stream_case()[1]
    wrong = {
        "prompt's padding": (np.ones_like(valid), owner, reach),
        "pair": (valid, 1 - owner, reach),
        "reach": (valid, owner, reach + (reach > 0) * (reach < LONGEST - 2)),
    }
    found = run("packed", kind, masks=wrong[which])[0]
    assert gap(found, run("packed", "xla")[0]) > 1000 * TOLERANCE


@pytest.mark.parametrize("name", ["full", "answers"])
@pytest.mark.parametrize("kind", ["xla", *HERE])
def test_a_dropped_mask_is_seen(name, kind):
    """The comparison has teeth: padding that is read moves the output far."""
    masks = tuple(np.ones_like(mask) for mask in PASSES[name][1]()[1])
    assert gap(run(name, kind, masks=masks)[0], run(name, "xla")[0]) > 1000 * TOLERANCE


@pytest.mark.parametrize(
    "wrong",
    [lambda own, first, t: own >= first, lambda own, first, t: own <= first + t],
    ids=["not causal", "other answers"],
)
def test_a_wrong_answers_mask_is_seen(wrong, monkeypatch):
    """The kernel's own mask: reading on, or reading the answers before one's own."""

    def mask_function(self, row, column):
        own = column - self.prompt
        return (own < 0) | wrong(own, row >> self._bits, row & ((1 << self._bits) - 1))

    monkeypatch.setattr(splash.AnswersMask, "mask_function", mask_function)
    monkeypatch.setattr(splash.AnswersMask, "__hash__", object.__hash__)  # JAX caches by mask
    arrays, masks = answer_case()
    out = tiny_model.quick_jit(partial(answers, "splash_interpret"))(*arrays, *masks)
    assert gap(out, run("answers", "xla")[0]) > 1000 * TOLERANCE


@pytest.mark.parametrize("name", ["full", "answers"])
@pytest.mark.parametrize("kind", ["xla", *HERE])
def test_padding_is_not_read(name, kind):
    """Other keys and values there: not one bit of the output moves, and they get no gradient."""
    arrays, (real,) = PASSES[name][1]()
    keys = (1, 2) if name == "full" else (3, 4)
    changed = list(arrays)
    for i in keys:
        changed[i] = np.where(real[..., None, None], arrays[i], 7.0)
    out, grads = run(name, kind)
    moved, _ = run(name, kind, arrays=tuple(changed))
    np.testing.assert_array_equal(moved, out)
    for i in keys:
        np.testing.assert_array_equal(grads[i][~real], 0)
        assert np.abs(grads[i][real]).min(-1).max() > 1e-3


@pytest.mark.parametrize("kind", ["xla", *HERE])
def test_an_empty_image_slot_is_finite(kind):
    """Nothing reads its output, but a NaN there would reach the gradient."""
    (inside,) = image_case()[1]
    out, grads = run("full", kind, masks=(inside & (np.arange(3) != 1)[:, None],))
    assert np.isfinite(out).all()
    assert all(np.isfinite(g).all() for g in grads)
    assert gap(out[[0, 2]], run("full", "xla")[0][[0, 2]]) < TOLERANCE


@ALL
def test_bfloat16_scores_are_summed_in_float32(name):
    """Inputs rounded to 8 bits, outputs too: 4 roundings of values up to 4 are 4 x 4 x 2^-9."""
    arrays, masks = PASSES[name][1]()
    low = tuple(jnp.bfloat16(a) for a in arrays)
    exact = run(name, "xla", arrays=tuple(np.asarray(a, np.float32) for a in low))[0]
    for kind in ("xla", "chunked", "splash_interpret"):
        out = tiny_model.quick_jit(partial(PASSES[name][0], kind))(*low, *masks)
        assert out.dtype == jnp.bfloat16
        assert gap(np.asarray(out, np.float32), exact) < 4 * 4 * 2**-9


def test_the_answers_mask_is_the_one_it_describes():
    """Against the sentence in its docstring, element by element, padding rows included."""
    mask = splash.AnswersMask(queries=32, keys=40, prompt=7, answer=5)
    found = mask[slice(0, 32), slice(0, 40)]
    for row in range(32):
        g, t = divmod(row, 5)
        for column in range(40):
            own = column - 7 - 5 * g
            assert found[row, column] == (column < 7 or 0 <= own <= t), (row, column)
    with pytest.raises(ValueError, match=r"do not fit the mask's 31 bits"):
        splash.AnswersMask(queries=2**20, keys=2**20, prompt=0, answer=2**15)


def test_a_streams_mask_is_the_one_it_describes():
    """By the numbers of its rows; of a block that one of them reads the host knows that it is
    neither open nor closed as a whole, so that the kernel asks."""
    rng, queries, keys, prompts, longest = np.random.default_rng(0), 64, 80, 16, 11
    mask = splash.StreamMask(queries, keys, prompts=prompts, longest=longest)
    reach = np.minimum(rng.integers(0, longest + 1, queries), np.arange(queries))
    found = mask.mask_function(mask.rows_of(reach)[:, None], np.arange(keys))
    for row in range(queries):
        for column in range(keys):
            own = column - prompts
            expected = own < 0 or row - reach[row] <= own <= row
            assert found[row, column] == expected, (row, column)
    widest = mask.mask_function(mask.q_sequence[:, None], np.arange(keys))
    for row, column in itertools.product(range(0, queries, 8), range(prompts, keys, 8)):
        block = (slice(row, row + 8), slice(column, column + 8))
        told = mask[block]
        assert not told.all()
        assert told.any() or not widest[block].any()
    with pytest.raises(ValueError, match=r"does not fit the mask's 31 bits"):
        splash.StreamMask(2**20, 2**20, prompts=0, longest=2**15)


def shapes_of(case, *, head_dim: int, batch: int | None = None, where=lambda a: None):
    """A case's shapes in bfloat16, with another head_dim and batch."""
    arrays, masks = case()
    resized = [jax.ShapeDtypeStruct((*a.shape[:-1], head_dim), jnp.bfloat16) for a in arrays]
    resized += [jax.ShapeDtypeStruct(m.shape, m.dtype) for m in masks]
    resized = [s.update(shape=(batch or s.shape[0], *s.shape[1:])) for s in resized]
    return [s.update(sharding=where(s)) for s in resized]


def gradient(name: str, kind: str):
    """The gradient of a pass with respect to its arrays, as a function of arrays and masks."""
    count = len(PASSES[name][1]()[0])

    def value(*arguments):
        return PASSES[name][0](kind, *arguments).astype(jnp.float32).sum()

    return jax.grad(value, argnums=tuple(range(count)))


@ALL
@pytest.mark.parametrize("head_dim", [64, 72, 128])
def test_splash_lowers_for_a_tpu_without_one(name, head_dim):
    """Mosaic accepts forward and backward kernels; compiling them takes libtpu."""
    traced = jax.jit(gradient(name, "splash")).trace(*shapes_of(PASSES[name][1], head_dim=head_dim))
    program = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert program.count("tpu_custom_call") == (3 if name in ("answers", "packed") else 2)


def layout_on(mesh) -> Layout:
    return Layout(cfg=None, mesh=mesh, model=None)


@cache
def mesh_of(fsdp: int, tensor: int):
    devices = jax.devices()[: fsdp * tensor]
    return sharding.make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor), devices=devices)


@ALL
def test_splash_on_a_mesh_lowers_only_where_it_sees_the_mesh(name):
    """XLA cannot partition a kernel; `Layout.jit` lets each device run its own rows."""
    layout = layout_on(mesh_of(2, 2))
    where = sharding.batch_sharding(layout.mesh)
    shapes = shapes_of(PASSES[name][1], head_dim=64, batch=4, where=lambda _: where)
    lower = {"lowering_platforms": ("tpu",)}
    function = gradient(name, "splash")
    with pytest.raises(NotImplementedError, match="cannot be automatically partitioned"):
        jax.jit(lambda *a: function(*a)).trace(*shapes).lower(**lower)
    program = layout.jit(function).trace(*shapes).lower(**lower).as_text()
    assert "tpu_custom_call" in program


@ALL
@pytest.mark.parametrize(
    ("fsdp", "tensor"),
    [(2, 4), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((3, 2), (2, 2)))],
)
def test_splash_on_a_mesh_equals_the_reference(name, fsdp, tensor):
    """Rows and heads split, too few key heads repeated, what does not divide whole."""
    mesh = mesh_of(fsdp, tensor)
    assert mesh.axis_names == (splash.BATCH_AXIS, splash.HEAD_AXIS)
    function = layout_on(mesh).traced(gradient(name, "splash_interpret"))
    arrays, masks = PASSES[name][1]()
    whole = sharding.replicate((arrays, masks), mesh)
    found = tiny_model.quick_jit(function)(*whole[0], *whole[1])
    expected = tiny_model.quick_jit(gradient(name, "xla"))(*arrays, *masks)
    assert gap(jax.device_get(found), expected) < TOLERANCE


@pytest.mark.parametrize(
    "name", ["full", "causal", pytest.param("answers", marks=pytest.mark.slow)]
)
def test_chunked_memory_is_linear_in_the_sequence(name):
    """Four times the length: the reference's scores grow 16-fold, the chunks' 4-fold."""

    def grown(kind):
        sizes = []
        for length in (256, 1024):
            arrays, masks = PASSES[name][1]()
            axis = 2 if name == "causal" else 1
            shapes = [
                jax.ShapeDtypeStruct(stretched(a.shape, axis, length), a.dtype)
                for a in (*arrays, *masks)
            ]
            lowered = jax.jit(gradient(name, kind)).lower(*shapes)
            compiled = lowered.compile({"xla_backend_optimization_level": 0})
            sizes.append(compiled.memory_analysis().temp_size_in_bytes)
        return sizes[1] / sizes[0]

    def stretched(shape, axis, length):
        """The sequence lengthened; of the answers their own and the prompt's."""
        if name == "answers" and len(shape) == 5:
            axis = 2
        return (*shape[:axis], length, *shape[axis + 1 :])

    assert grown("chunked") < 6
    assert grown("xla") > 10


CHOICES = [
    ("auto", "cpu", "float32", "xla"),
    ("auto", "cpu", "bfloat16", "xla"),
    ("auto", "tpu", "bfloat16", "splash"),
    ("auto", "tpu", "float32", "splash"),
    ("auto", "gpu", "bfloat16", "cudnn"),
    ("auto", "gpu", "float32", "chunked"),
    ("xla", "tpu", "bfloat16", "xla"),
    ("chunked", "cpu", "float32", "chunked"),
    ("dot", "cpu", "float32", "dot"),
    ("cudnn", "gpu", "bfloat16", "cudnn"),
    ("splash", "tpu", "bfloat16", "splash"),
]


@pytest.mark.parametrize(("request_", "platform", "dtype", "expected"), CHOICES)
def test_the_choice_follows_request_and_machine(request_, platform, dtype, expected):
    chosen = attention.choose(request_, platform=platform, dtype=dtype, head_dims=(128, 72))
    assert chosen == expected


def test_auto_avoids_a_head_that_cudnn_does_not_take():
    assert (
        attention.choose("auto", platform="gpu", dtype="bfloat16", head_dims=(12, 64)) == "chunked"
    )


@pytest.mark.parametrize(
    ("request_", "platform", "dtype", "head_dims", "message"),
    [
        ("cudnn", "cpu", "bfloat16", (64,), r"='cudnn' needs a GPU, but this is a cpu; use auto"),
        ("cudnn", "gpu", "float32", (64,), r"needs model.compute_dtype=bfloat16, which is float32"),
        ("cudnn", "gpu", "bfloat16", (64, 12), r"head_dim a multiple of 8 .* this model has \[12"),
        ("splash", "cpu", "bfloat16", (64,), r"needs a TPU, but this is a cpu; .*\(here: xla\)"),
        ("splash", "gpu", "bfloat16", (64,), r"needs a TPU, .*\(here: cudnn\)"),
    ],
)
def test_a_choice_that_cannot_run_here_says_why(request_, platform, dtype, head_dims, message):
    with pytest.raises(ValueError, match=message):
        attention.choose(request_, platform=platform, dtype=dtype, head_dims=head_dims)
    auto = attention.choose("auto", platform=platform, dtype=dtype, head_dims=head_dims)
    same = attention.choose(auto, platform=platform, dtype=dtype, head_dims=head_dims)
    assert same == auto  # what "use auto (here: ...)" amounts to


def opened(**model) -> Session:
    """A session over the shipped model on the eight virtual devices, as far as data allow."""
    settings = {"source": str(tiny_model.ASSETS), **model}
    return open_session(
        Config(
            model=ModelSource(**settings),
            mesh=MeshConfig(fsdp=8),
            eval=EvalConfig(batch=16),
            data=DataConfig(root="nowhere"),
        )
    )


def test_a_session_refuses_before_it_looks_at_the_data():
    """What the machine cannot run is the first thing found; a choice it can run gets further."""
    with pytest.raises(ValueError, match=r"model.attention='cudnn' needs a GPU"):
        opened(attention="cudnn")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        opened(attention="auto", remat="qkvo", layers="one_scan")


KINDS = ("xla", *HERE)
REMATS = ("none", "full", "dots", "qkvo")
LAYERS = ("scan", "one_scan", "unroll")
# The three choices act on different code, so a few of the 48 triples say it, every choice among
# them. ALL_TRIPLES=1 compiles all, for minutes.
FEW = (
    ("splash_interpret", "qkvo", "one_scan"),
    ("splash_interpret", "full", "unroll"),
    ("chunked", "full", "scan"),
    ("dot", "dots", "unroll"),
    ("xla", "dots", "one_scan"),
)
SLOW = [pytest.param(*one, marks=pytest.mark.slow) for one in FEW[1:]]
if os.environ.get("ALL_TRIPLES"):
    TRIPLES = [*itertools.product(KINDS, REMATS, LAYERS)]
else:
    TRIPLES = [FEW[0], *SLOW]
SIZES = [[(16, 24), (8, 16)], [(16, 8), (16, 16)], [(8, 8)]]


def model_case() -> tuple[PromptInputs, np.ndarray, np.ndarray]:
    """Ragged prompts and images, and four answers of nine tokens to each."""
    tokens = np.random.default_rng(1).choice(tiny_model.WORDS, (len(SIZES), 4, 9)).astype(np.int32)
    return tiny_model.fake_prompt(SIZES, [2, 7, 4]), tiny_model.fake_images(SIZES), tokens


def outputs(config, params, prompt, images, tokens):
    """Logits of the prompts, hidden states of the answers, and a gradient through both."""

    def value(params):
        k, v, _, last = qwen3vl.prompt_states(params, config, prompt, images)
        logits = qwen3vl.final_norm(params, last, config) @ qwen3vl.unembed(params)
        cache = qwen3vl.cache_of(params, config, prompt, k, v, last)
        hidden = qwen3vl.score_tokens(params, config, cache, tokens)
        real = (jnp.arange(logits.shape[1]) < prompt.length[:, None])[..., None]
        logits = jnp.where(real, logits, 0)  # what padding predicts is nobody's business
        return jnp.sin(logits).sum() + jnp.sin(3 * hidden).sum(), (logits, hidden)

    (_, (logits, hidden)), grads = jax.value_and_grad(value, has_aux=True)(params)
    return {"logits": logits, "hidden": hidden, "gradient": grads}


@cache
def tiny():
    return tiny_model.make_tiny(jax.random.key(0))


def computed(kind: str, remat: str, how: str):
    config = replace(tiny_model.CONFIG, attention=kind, remat=remat, layers=how)
    return jax.device_get(tiny_model.quick_jit(partial(outputs, config))(tiny(), *model_case()))


@cache
def plainly_computed():
    return computed("xla", "none", "one_scan")


@pytest.mark.parametrize(("kind", "remat", "how"), TRIPLES)
def test_the_model_does_not_depend_on_how_it_is_computed(kind, remat, how):
    """Logits near 5 lose up to 1e-5 (see test_model_cache), and so do hidden states.

    A gradient sums their errors over some 300 tokens, of either sign: sqrt(300) x 1e-6, hence
    2e-5 of each array's largest entry.
    """
    found, expected = computed(kind, remat, how), plainly_computed()
    assert gap(found["logits"], expected["logits"]) < 1e-5
    assert gap(found["hidden"], expected["hidden"]) < 1e-5
    for one, two in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert np.abs(one - two).max() < 2e-5 * max(1, np.abs(two).max())


def test_decoding_does_not_depend_on_how_layers_run():
    """Keys written before or after they are read; a cache per block, or one for all."""
    prompt, images, tokens = model_case()
    cache = tiny_model.quick_jit(qwen3vl.encode_prompt, static_argnums=1)(
        tiny(), tiny_model.CONFIG, prompt, images
    )
    decode = tiny_model.quick_jit(qwen3vl.decode_token, static_argnums=1)

    def second(how):
        config = replace(tiny_model.CONFIG, layers=how)
        answers = qwen3vl.empty_answers(config, cache, 4, 3)
        for step in range(2):
            token, number = tokens[..., step], jnp.int32(step)
            hidden, answers = decode(tiny(), config, cache, answers, token, number)
        return hidden, jnp.stack(answers.k) if how == "unroll" else answers.k

    for one, other in zip(second("unroll"), second("one_scan"), strict=True):
        assert gap(one, other) < 1e-5


@pytest.mark.slow
def test_text_alone_is_the_same_in_one_scan():
    """No images, no deepstack: a block's number must not be taken for a feature."""
    prompt = tiny_model.fake_prompt([[]], [6], seed=4)

    def logits(how):
        config, images = (
            replace(tiny_model.CONFIG, layers=how),
            np.zeros((1, 0, 16, 24, 3), np.uint8),
        )
        return tiny_model.quick_jit(partial(qwen3vl.full_logits, config=config))(
            tiny(), prompt=prompt, images=images
        )

    assert gap(logits("one_scan"), logits("scan")) < 1e-5


def prompt_temporaries(how: str) -> tuple[int, int]:
    """Bytes that encoding a prompt needs beside its inputs, and bytes of the text blocks."""
    text = replace(tiny_model.CONFIG.text, width=256, mlp=1024, layers=12)
    tower = replace(tiny_model.CONFIG.vision, out=256)
    config = replace(tiny_model.CONFIG, text=text, vision=tower, layers=how)
    shapes = param_shapes(model_specs(config))
    prompt, images, _ = model_case()
    encode = jax.jit(lambda params: qwen3vl.encode_prompt(params, config, prompt, images))
    used = encode.lower(shapes).compile().memory_analysis().temp_size_in_bytes
    return used, sum(4 * leaf.size for leaf in jax.tree.leaves(shapes["blocks"]))


@pytest.mark.slow
def test_the_default_holds_no_second_copy_of_the_weights():
    """Two scans over one stack cut it in two, and a cut is a copy: at the 2B's size 7.2 GB."""
    used, weights = prompt_temporaries(tiny_model.CONFIG.layers)
    assert used < 0.25 * weights
    copied, _ = prompt_temporaries("scan")
    assert copied > 0.75 * weights


def products(remat: str) -> int:
    """Matrix products in the gradient of the text blocks: one less for each that is kept."""
    config = replace(tiny_model.CONFIG, remat=remat)
    x = jax.ShapeDtypeStruct((1, 5, 32), jnp.float32)
    positions = jax.ShapeDtypeStruct((1, 5, 3), jnp.int32)
    deepstack = jax.ShapeDtypeStruct((0, 1, 5, 32), jnp.float32)
    blocks = jax.eval_shape(tiny_model.make_tiny, jax.random.key(0))["blocks"]

    def value(blocks, x, positions, deepstack):
        return text.prompt_pass(blocks, x, positions, deepstack, config)[2][-1].sum()

    program = jax.make_jaxpr(jax.grad(value))(blocks, x, positions, deepstack)
    return str(program).count("dot_general")


def test_remat_keeps_what_its_name_says():
    """Recomputed in the backward pass: nothing, only attention's, all but q, k, v and o, all."""
    counts = {remat: products(remat) for remat in REMATS}
    assert counts["none"] < counts["dots"] < counts["qkvo"] < counts["full"], counts
    assert set(REMATS) == {"none", *layers._KEPT}


def test_unrolled_layers_are_a_loop_and_scanned_ones_are_not():
    def loops(how):
        stack = {"w": jnp.ones((3, 2, 2))}
        run = partial(layers.over_layers, lambda x, p: (x @ p["w"], x.sum()), layers=how)
        x, sums = run(jnp.ones((2, 2)), stack)
        assert sums.shape == (3,)
        assert float(x[0, 0]) == 8
        return str(jax.make_jaxpr(lambda x: run(x, stack))(jnp.ones((2, 2)))).count("scan[")

    assert (loops("scan"), loops("one_scan"), loops("unroll")) == (1, 1, 0)


@pytest.mark.slow
def test_an_odd_prompt_reaches_cudnn_with_an_even_length(monkeypatch):
    """JAX differentiates cuDNN's attention over even lengths alone."""
    plain, lengths = dot_attention._dot, []

    def spy(kind, q, k, v, **masks):
        lengths.extend(a.shape[1] for a in (q, k, v))
        return plain("dot", q, k, v, **masks)

    monkeypatch.setattr(dot_attention, "_dot", spy)
    arrays, _ = prompt_case()
    assert arrays[0].shape[2] == PROMPT == 131
    found = attention.causal("cudnn", *arrays)
    assert gap(found, attention.causal("xla", *arrays)) < TOLERANCE
    assert set(lengths) == {132}


NO_GPU = 77


@pytest.mark.skipif(not shutil.which("nvidia-smi"), reason="no NVIDIA GPU")
def test_cudnn_equals_the_reference_on_a_gpu():
    """In a process of its own: the tests' is bound to the CPU."""
    env = {k: v for k, v in os.environ.items() if k not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    done = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True)
    if done.returncode == NO_GPU:
        pytest.skip("this JAX has no CUDA")
    assert done.returncode == 0, done.stdout + done.stderr


def compare_on_gpu() -> None:
    """bfloat16 values within 4 roundings of values up to 4; gradients of sums of 168 terms."""
    if jax.default_backend() != "gpu":
        sys.exit(NO_GPU)
    for name in PASSES:
        arrays, masks = PASSES[name][1]()
        low = tuple(jnp.bfloat16(a) for a in arrays)
        results = [
            jax.device_get(jax.jit(lambda *a, f=f: f(*a))(*low, *masks))
            for kind in ("cudnn", "xla")
            for f in (partial(PASSES[name][0], kind), gradient(name, kind))
        ]
        wide = jax.tree.map(lambda a: np.asarray(a, np.float32), results)
        assert gap(wide[0], wide[2]) < 4 * 4 * 2**-9, (name, gap(wide[0], wide[2]))
        assert gap(wide[1], wide[3]) < 4 * 4 * 2**-7, (name, gap(wide[1], wide[3]))


if __name__ == "__main__":
    compare_on_gpu()
