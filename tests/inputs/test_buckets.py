"""Pictures of any size run on a few compiled shapes, and the padding never leaks."""

import dataclasses
from functools import cache

import jax
import numpy as np
import pytest

from dig_jax.config import PromptConfig
from dig_jax.inputs.buckets import Bucket, choose_bucket, make_batcher
from dig_jax.inputs.images import ImageRules
from dig_jax.inputs.prompt import load_processor
from dig_jax.model import qwen3vl, vision
from tests import tiny_model

MODEL = tiny_model.small_base()  # the shipped tokenizer and special ids: patch 8, cells of 16 px
RULES = ImageRules(256, 128 * 128, 8, 2)
BUCKETS = [Bucket((48, 48), 80, 2), Bucket((128, 64), 112, 2), Bucket((128, 128), 192, 2)]
QUESTIONS = ["What?", "Where is it?", "Why", "Is 12 more?"]
ROWS = len(QUESTIONS)


@cache
def params():
    return tiny_model.make_tiny(jax.random.key(0), MODEL)


@cache
def batcher(padded: bool = True):
    processor = load_processor(tiny_model.ASSETS)
    buckets = BUCKETS if padded else []
    return make_batcher(PromptConfig(), processor, MODEL, RULES, buckets, answer=8)


def noise(rng, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def ask(pictures, *, padded: bool = True):
    names = [f"pair {n}" for n in range(len(pictures))]
    return batcher(padded)(pictures, QUESTIONS[: len(pictures)], names)


@cache
def counted():
    """encode_prompt under jit, encode_images under its own within, and how often each traced."""
    traces = {"images": 0, "prompt": 0}
    original = vision.encode_images

    @jax.jit
    def images(params, pixels, grids):
        traces["images"] += 1
        return original(params, MODEL, pixels, grids)

    def prompt(params, prompt, pixels):
        traces["prompt"] += 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vision, "encode_images", lambda p, _, *given: images(p, *given))
            return qwen3vl.encode_prompt(params, MODEL, prompt, pixels)

    return tiny_model.quick_jit(prompt), traces


def run(prompt, images) -> qwen3vl.PromptCache:
    return jax.device_get(counted()[0](params(), prompt, images))


def random_batches(count: int, seed: int = 0) -> list[list[list[np.ndarray]]]:
    """`count` batches of one row whose first image has a random size, some with a second."""
    rng = np.random.default_rng(seed)
    batches = []
    for n in range(count):
        first = noise(rng, *rng.integers(8, 129, 2))
        batches.append([[first] if n % 3 else [first, noise(rng, 20, 30)]])
    return batches


def test_fifty_image_sizes_compile_once_per_bucket():
    """Three traces of each function for 50 sizes; without buckets nearly one for every size."""
    batches = random_batches(50)
    assert len({pictures[0][0].shape for pictures in batches}) == 50
    traces = counted()[1]
    traces.update(images=0, prompt=0)
    for prompt, images in map(ask, batches):
        run(prompt, images)
    assert traces == {"images": 3, "prompt": 3}

    @jax.jit
    def control(prompt, images):
        traces["control"] = traces.get("control", 0) + 1
        return images

    for pictures in batches:
        control(*ask(pictures, padded=False))
    assert traces["control"] > 20


def mixed_rows() -> list[list[np.ndarray]]:
    """Two images, one, none, and two of other sizes: one batch."""
    rng = np.random.default_rng(7)
    return [
        [noise(rng, 48, 20), noise(rng, 30, 33)],
        [noise(rng, 16, 47)],
        [],
        [noise(rng, 40, 40), noise(rng, 17, 48)],
    ]


def test_a_mixed_batch_on_a_bucket_equals_each_row_on_its_exact_shape():
    """Text-only rows and missing images included. Float32 sums in another order: 2e-5."""
    rows = mixed_rows()
    prompt, images = ask(rows)
    assert images.shape == (ROWS, 2, 48, 48, 3)
    whole = run(prompt, images)
    for n in range(3):  # two images, one, none
        one, one_images = batcher(False)([rows[n]], QUESTIONS[n : n + 1], ["pair"])
        length = int(one.length[0])
        assert length == prompt.length[n] < prompt.tokens.shape[1]
        assert one_images.shape[1] == len(rows[n])
        alone = run(one, one_images)
        np.testing.assert_allclose(whole.hidden[n], alone.hidden[0], atol=2e-5)
        np.testing.assert_allclose(whole.k[:, n, :length], alone.k[:, 0], atol=2e-5)
        np.testing.assert_allclose(whole.v[:, n, :length], alone.v[:, 0], atol=2e-5)
        assert whole.next_position[n] == alone.next_position[0]
    assert np.abs(whole.hidden).max() > 0.5


def valid_parts(prompt, found) -> list[np.ndarray]:
    parts = [found.hidden]
    for n, length in enumerate(prompt.length):
        parts += [found.k[:, n, :length], found.v[:, n, :length]]
    return parts


def beyond(prompt, images, fill: np.ndarray) -> np.ndarray:
    """`images` with whatever lies beyond each image's own size replaced by `fill`'s bytes."""
    rows, cols = np.mgrid[: images.shape[2], : images.shape[3]]
    own = prompt.grids * MODEL.vision.patch
    inside = (rows < own[..., 0, None, None]) & (cols < own[..., 1, None, None])
    return np.where(inside[..., None], images, fill)


def test_padding_of_canvas_and_prompt_changes_nothing_to_the_bit():
    prompt, images = ask(mixed_rows())
    rng = np.random.default_rng(1)
    dirty = beyond(prompt, images, rng.integers(0, 256, images.shape, np.uint8))
    assert (dirty != images).mean() > 0.3
    tokens, positions, slot = prompt.tokens.copy(), prompt.positions.copy(), prompt.slot.copy()
    for n, length in enumerate(prompt.length):
        tokens[n, length:] = rng.integers(0, 480, tokens.shape[1] - length)
        positions[n, :, length:] = rng.integers(0, 99, positions[n, :, length:].shape)
        slot[n, length:] = rng.integers(-1, 18, tokens.shape[1] - length)
    other = dataclasses.replace(prompt, tokens=tokens, positions=positions, slot=slot)
    clean, changed = run(prompt, images), run(other, dirty)
    assert (tokens != prompt.tokens).any()
    for a, b in zip(valid_parts(prompt, clean), valid_parts(prompt, changed), strict=True):
        np.testing.assert_array_equal(a.view(np.int32), b.view(np.int32))


@pytest.mark.parametrize(("row", "image"), [(0, 0), (0, 1), (1, 0), (3, 1)])
def test_the_last_real_pixel_of_an_image_changes_its_row_and_no_other(row, image):
    prompt, images = ask(mixed_rows())
    y, x = prompt.grids[row, image] * MODEL.vision.patch - 1
    other = images.copy()
    other[row, image, y, x] ^= 0xFF
    clean, changed = run(prompt, images), run(prompt, other)
    differs = (clean.hidden != changed.hidden).any(-1)
    assert differs.tolist() == [n == row for n in range(ROWS)]


def test_the_smallest_bucket_that_holds_a_batch_is_taken():
    small, tall, large = BUCKETS
    names = ["a", "b"]
    assert choose_bucket(BUCKETS, [[(48, 48)], []], [80, 10], names) == small
    assert choose_bucket(BUCKETS, [[(48, 48)], []], [81, 10], names) == tall
    assert choose_bucket(BUCKETS, [[(48, 64)], [(64, 16)]], [20, 20], names) == tall
    assert choose_bucket(BUCKETS, [[(48, 80)], []], [20, 20], names) == large


def test_what_fits_no_bucket_is_named_with_its_size():
    names = ["pair 3", "pair 4"]
    for sizes, lengths, message in (
        ([[], [(48, 48)]], [20, 193], "pair 4: a prompt of 193 tokens with 48x48 px fits no"),
        ([[(48, 144)], []], [20, 20], "pair 3: .* with 144x48 px fits no bucket .48x48 px, 80"),
        ([[], [(16, 16)] * 3], [20, 20], "pair 4: .* with 16x16 px, 16x16 px, 16x16 px fits no"),
        ([[(48, 128)], []], [20, 193], "pair 4: a prompt of 193 tokens with no images fits no"),
    ):
        with pytest.raises(ValueError, match=message):
            choose_bucket(BUCKETS, sizes, lengths, names)
        size = tuple(max(s[axis] for row in sizes for s in row or [(48, 48)]) for axis in (0, 1))
        larger = Bucket(size, max(lengths), max(map(len, sizes)))  # what the message advises
        assert choose_bucket([*BUCKETS, larger], sizes, lengths, names) == larger
        choose_bucket(
            BUCKETS, [[], [(48, 48)]], [20, 20], names
        )  # a smaller picture, a shorter text
    narrow = [Bucket((128, 64), 80, 1), Bucket((48, 128), 80, 1)]
    with pytest.raises(ValueError, match=r"holds pair 3, pair 4 together, though each one alone"):
        choose_bucket(narrow, [[(48, 128)], [(128, 16)]], [20, 20], names)
    for size in ((48, 128), (128, 16)):  # batched like with like
        choose_bucket(narrow, [[size]] * 2, [20, 20], names)
    wide = Bucket((128, 128), 80, 1)
    assert choose_bucket([*narrow, wide], [[(48, 128)], [(128, 16)]], [20, 20], names) == wide
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"pair 0, image 2 is 2x500 px; .* at most 200 times"):
        ask([[noise(rng, 32, 32), noise(rng, 500, 2)]])
    with pytest.raises(ValueError, match="50x48 is not a multiple"):
        make_batcher(
            PromptConfig(), None, MODEL, RULES, [Bucket((48, 50), 9, 1)], answer=0
        )  # fmt: skip
