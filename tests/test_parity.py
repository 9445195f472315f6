"""Our model computes what Hugging Face's Qwen3-VL computes, in float32 within 1e-4.

`tests/golden` (scripts/make_goldens.py) holds two random checkpoints, textured images of unequal
size and HF's answers. Two correct float32 implementations differ by 2e-5 on such logits
(standard deviation 1.6); the smallest mistake tried here moves them by ten times the tolerance.
"""

import dataclasses
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.model import attention, qwen3vl, rope, vision
from dig_jax.model.hf import load_params, read_model_config, save_hf
from dig_jax.prompt import prompt_of_ids

GOLDEN = Path(__file__).parent / "golden"
CASES = ("tied", "untied")
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@cache
def golden(name: str) -> SimpleNamespace:
    """A stored case: HF's arrays by name, and our config, params, prompt and images."""
    found = dict(np.load(GOLDEN / name / "golden.npz"))
    rows = sum(key.startswith("ids_") for key in found)
    images = [
        [found[key] for key in sorted(found) if key.startswith(f"image_{row}_")]
        for row in range(rows)
    ]
    return ours(GOLDEN / name, [found[f"ids_{row}"] for row in range(rows)], images, found)


def ours(folder: Path, ids: list, images: list, found: dict) -> SimpleNamespace:
    config = read_model_config(folder)
    sizes = [[image.shape[:2] for image in row] for row in images]
    prompt = prompt_of_ids(config, ids, sizes)
    return SimpleNamespace(
        **found,
        config=config,
        params=load_params(folder, config),
        prompt=prompt,
        images=on_canvas(images),
    )


def on_canvas(images: list[list[np.ndarray]]) -> np.ndarray:
    """u8[B, I, Y, X, 3], zero-padded at the bottom and right."""
    flat = [image for row in images for image in row]
    height, width = (max(image.shape[axis] for image in flat) for axis in (0, 1))
    out = np.zeros((len(images), max(map(len, images)), height, width, 3), np.uint8)
    for r, row in enumerate(images):
        for k, image in enumerate(row):
            out[r, k, : image.shape[0], : image.shape[1]] = image
    return out


def worst(case: SimpleNamespace, logits: np.ndarray) -> float:
    """Largest deviation from HF over all tokens that are not padding."""
    real = np.arange(logits.shape[1]) < case.length[:, None]
    return float(np.abs(np.asarray(logits) - case.logits)[real].max())


def compiled(function, config):
    """`function` with its config bound, compiled fast rather than well."""
    return jax.jit(
        partial(function, config=config),
        compiler_options={"xla_backend_optimization_level": 0},
    )


@cache
def forward_of(config):
    return compiled(qwen3vl.full_logits, config)


@cache
def encode_of(config):
    return compiled(qwen3vl.encode_prompt, config)


def logits_of(case: SimpleNamespace, forward=None, **changes) -> np.ndarray:
    given = {**vars(case), **changes}
    forward = forward or forward_of(case.config)
    return np.asarray(forward(given["params"], prompt=given["prompt"], images=given["images"]))


def decode_greedily(case: SimpleNamespace, steps: int, follow=None):
    """Tokens i32[B, steps] and logits f32[B, steps, V], from a group of two equal answers.

    follow  i32[B, steps]   read these tokens instead of the best ones
    """
    head = qwen3vl.unembed(case.params)
    prompt_cache = encode_of(case.config)(case.params, prompt=case.prompt, images=case.images)
    decode = compiled(qwen3vl.decode_token, case.config)
    answers = qwen3vl.empty_answers(case.config, prompt_cache, 2, steps)
    hidden = jnp.repeat(prompt_cache.hidden[:, None], 2, axis=1)
    tokens, logits = [], []
    for step in range(steps):
        logits.append(hidden @ head)
        best = logits[-1].argmax(-1)
        tokens.append(best if follow is None else jnp.repeat(follow[:, step, None], 2, axis=1))
        hidden, answers = decode(
            case.params,
            cache=prompt_cache,
            answers=answers,
            token=tokens[-1],
            step=jnp.int32(step),
        )
    tokens, logits = np.stack(tokens, 2), np.stack(logits, 2)
    np.testing.assert_array_equal(tokens[:, 0], tokens[:, 1])
    return tokens[:, 0], logits[:, 0]


@pytest.mark.parametrize("name", CASES)
def test_tokens_and_positions_equal_hf(name):
    """Expansion of the placeholders and M-RoPE positions, exactly."""
    case = golden(name)
    real = np.arange(case.tokens.shape[1]) < case.length[:, None]
    np.testing.assert_array_equal(case.prompt.length, case.length)
    np.testing.assert_array_equal(case.prompt.tokens[real], case.tokens[real])
    np.testing.assert_array_equal(case.prompt.positions * real[:, None], case.positions)


@pytest.mark.parametrize("name", CASES)
def test_vision_features_equal_hf(name):
    """Tokens and every deepstack feature of unequal images on one canvas."""
    case = golden(name)
    rows, count = case.images.shape[:2]
    seen = compiled(vision.encode_images, case.config)(
        case.params["vision"],
        images=case.images.reshape(rows * count, *case.images.shape[2:]),
        grids=case.prompt.grids.reshape(rows * count, 2),
    )
    is_image = case.prompt.slot >= 0
    row = np.nonzero(is_image)[0]
    slot = case.prompt.slot[is_image]

    def placed(features):
        return np.asarray(features).reshape(rows, -1, features.shape[-1])[row, slot]

    np.testing.assert_allclose(placed(seen.tokens), case.vision, atol=TOLERANCE, rtol=0)
    assert len(seen.deepstack) == len(case.deepstack) == len(case.config.vision.deepstack)
    for feature, expected in zip(seen.deepstack, case.deepstack, strict=True):
        np.testing.assert_allclose(placed(feature), expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_hf(name):
    """Two images, one image and text only in one ragged batch; tied and untied heads."""
    case = golden(name)
    assert worst(case, logits_of(case)) < TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_greedy_decoding_equals_hf(name):
    """Prompt cache and one token at a time, against HF's generate on a left-padded batch."""
    case = golden(name)
    tokens, logits = decode_greedily(case, case.greedy.shape[1])
    np.testing.assert_array_equal(tokens, case.greedy)
    np.testing.assert_allclose(logits, case.greedy_logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_scoring_equals_hf(name):
    """Whole answers against the shared prompt cache; different answers do not see each other."""
    case = golden(name)
    other = np.roll(case.greedy, 1, axis=1)
    tokens = np.stack([other, case.greedy], axis=1)
    prompt_cache = encode_of(case.config)(case.params, prompt=case.prompt, images=case.images)
    score = compiled(qwen3vl.score_tokens, case.config)
    hidden = score(case.params, cache=prompt_cache, tokens=tokens)
    logits = hidden[:, 1] @ qwen3vl.unembed(case.params)
    np.testing.assert_allclose(logits, case.greedy_logits, atol=TOLERANCE, rtol=0)


def no_deepstack(case):
    """Mergers that say nothing."""
    mergers = case.params["vision"]["deepstack"]
    silent = mergers | {name: 0 * mergers[name] for name in ("w_down", "w_down_bias")}
    return {"params": case.params | {"vision": case.params["vision"] | {"deepstack": silent}}}


def flat_positions(case):
    line = np.broadcast_to(np.arange(case.tokens.shape[1]), case.prompt.positions.shape)
    return {"prompt": case.prompt.replace(positions=line.astype(np.int32))}


def swapped_axes(case):
    return {"prompt": case.prompt.replace(positions=case.prompt.positions[:, [0, 2, 1]])}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mistake", [no_deepstack, flat_positions, swapped_axes])
def test_wrong_data_breaks_parity(name, mistake):
    """The logit test has teeth: each of these is a bug that some port of this model has."""
    case = golden(name)
    assert worst(case, logits_of(case, **mistake(case))) > 1000 * TOLERANCE


def raster_positions(table, grids, rows, cols, merge):
    """The position table added in raster order although patches come block by block."""
    side = round(table.shape[0] ** 0.5)
    along_y = rope.axis_weights(rows, grids[:, 0], side)
    along_x = rope.axis_weights(cols, grids[:, 1], side)
    square = table.reshape(side, side, -1)
    grid = jnp.einsum("ers,ect,std->ercd", along_y, along_x, square)
    return grid.reshape(len(grids), rows * cols, -1)


def attend_to_canvas(kind, q, k, v, inside, full=attention.full):
    return full(kind, q, k, v, jnp.ones_like(inside))


def sections_without_lengths(section):
    """T H W to the end. Invisible at theta 5,000,000, hence the untied checkpoint's 10,000."""
    return np.arange(sum(section)) % 3


@pytest.mark.parametrize(
    ("module", "function", "mistake"),
    [
        (vision, "gelu_exact", partial(jax.nn.gelu, approximate=True)),
        (vision, "position_embedding", raster_positions),
        (attention, "full", attend_to_canvas),
        (rope, "mrope_axes", sections_without_lengths),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_code_breaks_parity(module, function, mistake, monkeypatch):
    """Tanh GELU in the mergers, a raster table, canvas padding attended to, section lengths."""
    case = golden("untied")
    monkeypatch.setattr(module, function, mistake)
    fresh = compiled(qwen3vl.full_logits, case.config)
    assert worst(case, logits_of(case, fresh)) > 5 * TOLERANCE


def live(case, folder: Path) -> SimpleNamespace:
    """Like `golden`, made now by torch; the checkpoint is written by HF itself."""
    from scripts import make_goldens

    model = make_goldens.build(case)
    images, ids = make_goldens.make_images(case), make_goldens.make_ids(case)
    found = make_goldens.answers_of(model, make_goldens.hf_inputs(case, ids, images))
    model.save_pretrained(folder)
    return ours(folder, ids, images, found)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["tied", "untied", "wide"])
def test_logits_equal_torch_live(name, tmp_path):
    """Fresh random checkpoints; `wide` has 48x48 positions and a vision head_dim of 72."""
    pytest.importorskip("torch")
    from scripts import make_goldens

    case = getattr(make_goldens, f"{name}_case")()
    case = live(dataclasses.replace(case, seed=case.seed + 50), tmp_path)
    assert worst(case, logits_of(case)) < TOLERANCE
    _, logits = decode_greedily(case, case.greedy.shape[1], follow=case.greedy)
    np.testing.assert_allclose(logits, case.greedy_logits, atol=TOLERANCE, rtol=0)


@pytest.mark.parity
@pytest.mark.parametrize("name", CASES)
def test_an_export_generates_the_same_tokens_in_transformers(name, tmp_path):
    """import -> export -> HF: greedy tokens as our own decoding, logits bit for bit HF's."""
    torch = pytest.importorskip("torch")
    from transformers import Qwen3VLForConditionalGeneration

    from scripts import make_goldens

    stored = golden(name)
    save_hf(tmp_path / "out", stored.params, stored.config, source_folder=GOLDEN / name)
    load = partial(
        Qwen3VLForConditionalGeneration.from_pretrained,
        dtype=torch.float32,
        attn_implementation="eager",
    )
    case = getattr(make_goldens, f"{name}_case")()
    inputs = make_goldens.hf_inputs(
        case, make_goldens.make_ids(case), make_goldens.make_images(case)
    )
    before, after = (
        make_goldens.answers_of(load(folder).eval(), inputs)
        for folder in (GOLDEN / name, tmp_path / "out")
    )
    np.testing.assert_array_equal(before["logits"], after["logits"])
    tokens, _ = decode_greedily(stored, stored.greedy.shape[1])
    np.testing.assert_array_equal(after["greedy"], tokens)
