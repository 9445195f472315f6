"""From any picture to the pixels Qwen3-VL sees: RGB, a size of whole cells, bicubic on bytes.

Equal, bit for bit, to Hugging Face's `Qwen2VLImageProcessorPil`; the rest of that class
(normalising and cutting into patches) runs on the device, in `model.vision.patchify`.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dig_jax.common.json_files import Fields, read_json, shown

Size = tuple[int, int]  # height, width in pixels
Picture = Image.Image | np.ndarray  # in any mode, or RGB bytes u8[Y, X, 3]
MAX_RATIO = 200  # longer to shorter side, as HF's `smart_resize`
# What this file and `patchify` compute; a checkpoint that asks for anything else is refused.
_ONLY = {
    "do_convert_rgb": True,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 3,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "temporal_patch_size": 2,
}


@dataclass(frozen=True)
class ImageRules:
    """How large an image may reach the model.

    min_pixels, max_pixels   of the resized image, height x width; 1 <= min <= max
    patch                    pixels of a patch's side
    merge                    patches of a merged token's side
    """

    min_pixels: int
    max_pixels: int
    patch: int
    merge: int

    def __post_init__(self):
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise ValueError(
                f"images between min_pixels={self.min_pixels} and max_pixels={self.max_pixels} "
                f"do not exist; set data.min_pixels and data.max_pixels so that 1 <= min <= max"
            )

    @property
    def cell(self) -> int:
        """Pixels of one merged token's side."""
        return self.patch * self.merge


def read_rules(folder: str | Path, *, min_pixels: int = 0, max_pixels: int = 0) -> ImageRules:
    """The rules of a checkpoint folder, with other limits where they are not 0.

    Reads preprocessor_config.json and the image_processor within processor_config.json: of two,
    Transformers 5 follows the latter and 4.57 the former, so they must say the same. Raises
    FileNotFoundError, and ValueError naming file and setting where one is not computed here.
    """
    older, newer = (Path(folder) / f"{name}_config.json" for name in ("preprocessor", "processor"))
    found = [Fields(read_json(older), str(older))] if older.is_file() else []
    nested = Fields(read_json(newer, missing={}), str(newer))
    if nested.has("image_processor") or (newer.is_file() and not found):
        found.append(nested.section("image_processor"))
    if not found:
        raise FileNotFoundError(
            f"{folder} has no preprocessor_config.json; it says how images are resized: copy it "
            f"from the checkpoint that the weights came from"
        )
    said = [_rules_of(settings) for settings in found]
    for name in (field.name for field in dataclasses.fields(ImageRules)):
        values = [getattr(rules, name) for rules in said]
        if len(set(values)) > 1:
            raise ValueError(
                f"{found[0].where} gives {name}={values[0]}, {found[1].where} {values[1]}: "
                f"transformers 4.57 follows the first, 5 the second; make them equal, or remove "
                f"the one that the weights were not trained with"
            )
    changed = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    return dataclasses.replace(said[0], **{name: n for name, n in changed.items() if n})


def _rules_of(found: Fields) -> ImageRules:
    for name, only in _ONLY.items():
        found.only(name, only, default=only)
    if found.get("rescale_factor", 1 / 255) != 1 / 255:
        raise ValueError(
            f"{found.where}: rescale_factor={shown(found.get('rescale_factor'))}; only 1/255 is "
            f"implemented"
        )
    size = found.section("size", optional=True)
    least, most = ("shortest_edge", "min_pixels"), ("longest_edge", "max_pixels")
    places = {  # the older spelling goes first, as in HF
        "size.shortest_edge": ((found, "min_pixels"), *((size, name) for name in least)),
        "size.longest_edge": ((found, "max_pixels"), *((size, name) for name in most)),
        "patch_size": ((found, "patch_size"),),
        "merge_size": ((found, "merge_size"),),
    }
    given = {
        name: next((at.count(key) for at, key in spelled if at.has(key)), None)
        for name, spelled in places.items()
    }
    missing = [name for name, value in given.items() if value is None]
    if missing:  # HF would fall back to Qwen2-VL's numbers without a word
        raise ValueError(f"{found.where} does not give {', '.join(missing)}; is it a Qwen3-VL's?")
    try:
        return ImageRules(*given.values())
    except ValueError as error:
        raise ValueError(f"{found.where}: {error}") from error


def target_size(height: int, width: int, rules: ImageRules, name: str = "the image") -> Size:
    """The size at which an image reaches the model (HF `smart_resize`).

    Sides become whole cells, rounded half to even; where that leaves the limits, both sides
    shrink or grow by one factor. Raises ValueError naming the image where a side is 0 or one
    is more than 200 times the other.
    """
    if min(height, width) < 1 or max(height, width) > MAX_RATIO * min(height, width):
        raise ValueError(
            f"{name} is {width}x{height} px; its longer side may be at most {MAX_RATIO} times "
            f"its shorter one: crop it"
        )
    cell = rules.cell
    rows, cols = round(height / cell), round(width / cell)  # Python rounds half to even
    if rows * cols * cell**2 > rules.max_pixels:
        shrink = math.sqrt(height * width / rules.max_pixels)
        rows = max(1, math.floor(height / shrink / cell))
        cols = max(1, math.floor(width / shrink / cell))
    elif rows * cols * cell**2 < rules.min_pixels:
        grow = math.sqrt(rules.min_pixels / (height * width))
        rows, cols = (math.ceil(side * grow / cell) for side in (height, width))
    return rows * cell, cols * cell


def to_rgb(image: Image.Image) -> np.ndarray:
    """u8[Y, X, 3] of a picture in any mode; what is transparent becomes white, as in HF."""
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """u8[Y, X, 3] at another size: bicubic with antialiasing; the same array if it has it."""
    assert (image.dtype, image.shape[2:]) == (np.uint8, (3,)), (image.dtype, image.shape)
    if image.shape[:2] == tuple(size):
        return image
    return np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC))


def prepare(image: Picture, rules: ImageRules, name: str) -> np.ndarray:
    """A picture as the model will see it: u8[y, x, 3]; `name` is for messages."""
    rgb = image if isinstance(image, np.ndarray) else to_rgb(image)
    return resize(rgb, target_size(*rgb.shape[:2], rules, name))
