"""Any picture reaches the model as Hugging Face's own preprocessing would make it, to the bit."""

import json
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from dig_jax.inputs import images
from dig_jax.inputs.images import ImageRules, prepare, read_rules, target_size
from dig_jax.model.config import VisionConfig
from dig_jax.model.vision import normalise, patchify
from tests.tiny_model import ASSETS

RELEASED = {"shortest_edge": 65536, "longest_edge": 16777216}  # pixels; Qwen3-VL 2B to 32B
TINY = ImageRules(4096, 1048576, 8, 2)  # of assets/tiny_qwen3vl
LARGE = ImageRules(65536, 16777216, 16, 2)
VISION = dict(width=16, mlp=32, depth=1, heads=2, out=16, positions=16, deepstack=())
BYTES = np.arange(256, dtype=np.uint8)

# height, width: tiny, extreme, ties of rounding (48 and 80 are half cells of 32), over the limit
SIZES = [
    (1, 100), (100, 1), (5, 3), (32, 6400), (6400, 32), (48, 80), (80, 112), (192, 256),
    (480, 640), (333, 517), (2000, 1500), (1, 1),
    *(pytest.param(size, marks=pytest.mark.slow) for size in ((3000, 4000), (3700, 5000))),
]  # fmt: skip


@cache
def hf(rules: ImageRules) -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": rules.min_pixels, "longest_edge": rules.max_pixels},
        patch_size=rules.patch, merge_size=rules.merge, temporal_patch_size=2,
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip


@cache
def on_device(patch: int):
    return jax.jit(lambda pixels: patchify(pixels, VisionConfig(**VISION, patch=patch)))


def assert_as_hf(picture: Image.Image, rules: ImageRules) -> None:
    theirs = hf(rules)(images=picture, return_tensors="np")
    ours = prepare(picture, rules, "the picture")
    grid = (1, ours.shape[0] // rules.patch, ours.shape[1] // rules.patch)
    np.testing.assert_array_equal(theirs["image_grid_thw"], [grid])
    patches = np.asarray(on_device(rules.patch)(ours[None]))[0]
    assert patches.dtype == theirs["pixel_values"].dtype == np.float32
    np.testing.assert_array_equal(patches.view(np.int32), theirs["pixel_values"].view(np.int32))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels)[: 3 if channels > 1 else 2]
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_resizing_here_and_patching_on_the_device_equals_hf_bit_for_bit(size):
    """With the released limits, and where it stays small with those of the tiny base."""
    picture = Image.fromarray(noise(*size))
    assert_as_hf(picture, LARGE)
    if size[0] * size[1] < 1e6:
        assert_as_hf(picture, TINY)


def pictures() -> dict[str, Image.Image]:
    """One picture in every mode that a file may hold."""
    colour = Image.fromarray(noise(70, 90))
    clear = colour.convert("P")
    clear.info["transparency"] = 3
    modes = {mode: colour.convert(mode) for mode in ("L", "P", "1", "CMYK", "YCbCr")}
    return {
        **modes,
        "RGBA": Image.fromarray(noise(70, 90, 4)),
        "LA": Image.fromarray(noise(70, 90, 4)).convert("LA"),
        "P, one index transparent": clear,
    }


@pytest.mark.parametrize("mode", pictures())
def test_every_mode_becomes_the_rgb_that_hf_makes_of_it(mode):
    assert_as_hf(pictures()[mode], TINY)


def test_transparency_becomes_white_and_not_what_lies_under_it():
    """Dropping the alpha channel, as a bare `convert("RGB")` does, would show black."""
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    np.testing.assert_array_equal(images.to_rgb(clear), 255)
    assert not np.asarray(clear.convert("RGB")).any()


def test_all_256_bytes_are_normalised_to_hfs_bits_under_jit():
    theirs = (BYTES.astype(np.float64) * (1 / 255)).astype(np.float32)
    theirs = (theirs - np.float32(0.5)) / np.float32(0.5)
    for run in (normalise, jax.jit(normalise)):
        np.testing.assert_array_equal(np.asarray(run(BYTES)).view(np.int32), theirs.view(np.int32))
    constant = jax.jit(lambda: normalise(jnp.asarray(BYTES)))  # folded while compiling
    np.testing.assert_array_equal(np.asarray(constant()).view(np.int32), theirs.view(np.int32))


def test_float_steps_under_jit_would_miss_hfs_bits():
    """The ablation: the same formula written in float32 differs in most bytes (205 of 256)."""

    def in_floats(pixels):
        return (pixels.astype(jnp.float32) * jnp.float32(1 / 255) - 0.5) / 0.5

    differs = np.asarray(jax.jit(in_floats)(BYTES)) != np.asarray(normalise(BYTES))
    assert differs.sum() > 50


def test_sizes_round_half_to_even():
    """48 = 1.5 cells and 80 = 2.5 cells both become 2; rounding half up would give 2 and 3."""
    rules = ImageRules(1, 16777216, 16, 2)
    assert target_size(48, 80, rules) == (64, 64)
    assert target_size(112, 144, rules) == (128, 128)


def test_the_records_of_the_default_run_are_not_resized():
    """96x64 px lie within the tiny base's limits: the very array goes on."""
    assert read_rules(ASSETS) == TINY
    assert target_size(64, 96, TINY) == (64, 96)
    record = noise(64, 96)
    assert prepare(record, TINY, "record") is record


@pytest.mark.parametrize(("height", "width"), [(1, 201), (6401, 32), (0, 5)])
def test_an_impossible_shape_is_refused_by_name(height, width):
    with pytest.raises(ValueError, match=rf"pair 7, image B is {width}x{height} px; .* 200 times"):
        target_size(height, width, LARGE, "pair 7, image B")
    short = max(1, min(height, width))
    target_size(min(height, 200 * short) or 1, min(width, 200 * short), LARGE, "cropped")


def settings(folder, **change) -> None:
    found = json.loads((ASSETS / "preprocessor_config.json").read_text()) | change
    kept = {name: value for name, value in found.items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))


def test_limits_are_read_in_both_spellings_and_may_be_replaced(tmp_path):
    settings(tmp_path, size=RELEASED)
    assert read_rules(tmp_path) == ImageRules(65536, 16777216, 8, 2)
    settings(tmp_path, size=None, min_pixels=3136, max_pixels=12845056)
    assert read_rules(tmp_path) == ImageRules(3136, 12845056, 8, 2)
    assert read_rules(tmp_path, max_pixels=4000) == ImageRules(3136, 4000, 8, 2)
    with pytest.raises(ValueError, match=r"min_pixels=3136 and max_pixels=3000 .* 1 <= min <= max"):
        read_rules(tmp_path, max_pixels=3000)
    assert read_rules(tmp_path, min_pixels=1000, max_pixels=3000).min_pixels == 1000


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": RELEASED, "patch_size": 16},
        {"size": None, "min_pixels": 3136, "max_pixels": 9000},
        {"size": RELEASED, "min_pixels": 20000, "max_pixels": 30000},  # the older spelling wins
    ],
)
def test_hf_reads_the_same_rules_from_the_same_folder(tmp_path, change):
    settings(tmp_path, **change)
    theirs, rules = Qwen2VLImageProcessorPil.from_pretrained(tmp_path), read_rules(tmp_path)
    for size in ((30, 40), (64, 96), (333, 517)):
        picture = Image.fromarray(noise(*size))
        grid = theirs(images=picture, return_tensors="np")["image_grid_thw"][0].tolist()
        ours = prepare(picture, rules, "the picture").shape[:2]
        assert [1, *(side // rules.patch for side in ours)] == grid


def test_a_folder_of_transformers_5_keeps_its_rules_in_the_processors_file(tmp_path):
    inner = json.loads((ASSETS / "preprocessor_config.json").read_text())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    assert read_rules(tmp_path) == TINY


def both_files(folder, **change) -> None:
    """The tiny base's settings in the older file, and changed in the processor's."""
    settings(folder)
    inner = json.loads((ASSETS / "preprocessor_config.json").read_text()) | change
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": inner}))


@pytest.mark.parametrize(
    ("change", "name", "values"),
    [
        ({"size": RELEASED}, "min_pixels", "4096 65536"),
        ({"max_pixels": 9000}, "max_pixels", "1048576 9000"),
        ({"patch_size": 16}, "patch", "8 16"),
    ],
)
def test_two_files_with_other_rules_are_refused_and_equal_ones_read(tmp_path, change, name, values):
    """HF 5 takes the nested ones, as seen here, 4.57 the older file."""
    both_files(tmp_path, **change)
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    if name == "patch":
        assert theirs.patch_size == 16
    first, second = values.split()
    with pytest.raises(
        ValueError,
        match=rf"/preprocessor_config.json gives {name}={first}, .*/processor_config.json: "
        rf"image_processor {second}: transformers 4.57 follows the first, 5 the second",
    ):
        read_rules(tmp_path)
    (tmp_path / "processor_config.json").unlink()  # the second way; the first is to make them equal
    read_rules(tmp_path)
    both_files(tmp_path)
    assert read_rules(tmp_path) == TINY


def test_a_processors_file_without_an_image_processor_changes_nothing(tmp_path):
    """4.57 wrote such a file for the template alone."""
    settings(tmp_path)
    (tmp_path / "processor_config.json").write_text('{"processor_class": "Qwen3VLProcessor"}')
    assert read_rules(tmp_path) == TINY
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"processor_config.json has no image_processor"):
        read_rules(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_mean": [0.48, 0.46, 0.41]}, r"image_mean=\[0.48, 0.46, 0.41\]; only \[0.5, 0.5"),
        ({"do_resize": False}, "do_resize=False; only True"),
        ({"resample": 2}, "resample=2; only 3"),
        ({"rescale_factor": 1.0}, "rescale_factor=1.0; only 1/255"),
        ({"size": {}}, "does not give size.shortest_edge, size.longest_edge"),
        ({"patch_size": None}, "does not give patch_size"),
        ({"patch_size": "16"}, "patch_size='16' is not a whole number"),
        ({"merge_size": 0}, "merge_size=0 is not a whole number from 1"),
        ({"size": [1, 2]}, r"size=\[1, 2\] is not an object"),
        ({"min_pixels": 1e4}, "min_pixels=10000.0 is not a whole number"),
        ({"max_pixels": 9}, "json: images between min_pixels=4096 and max_pixels=9 do not exist"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path, change, message):
    settings(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        read_rules(tmp_path)
    settings(tmp_path)  # the one value that each message names, or a Qwen3-VL's
    assert read_rules(tmp_path) == TINY


def test_a_folder_without_rules_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config.json; .*: copy it"):
        read_rules(tmp_path)
    settings(tmp_path)
    assert read_rules(tmp_path) == TINY
