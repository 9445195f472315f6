"""Picture files as pictures: upright, whatever their metadata, and no deeper than a byte.

What the pixels of a file mean is settled here; `images` takes them to the model.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
_ORIENTATION = 0x0112
_DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of more than 8 bits
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # PNG chunks that no pixel needs


def open_image(path: str | Path) -> Image.Image:
    """A picture file, turned upright by its EXIF mark; raises FileNotFoundError or ValueError."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"image {path} does not exist")
    try:
        return read_picture(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not a picture that Pillow can read ({error})") from error


def read_picture(data: bytes) -> Image.Image:
    """A picture from the bytes of a file, decoded and upright; raises ValueError."""
    return _tolerant(_upright, data)


def upright_size(data: bytes) -> tuple[int, int]:
    """(width, height) of `read_picture`, from the header where that tells; raises ValueError."""
    return _tolerant(_upright_size, data)


def file_header(data: bytes) -> tuple[str, int]:
    """(Pillow's name of a file's format, pixels that it holds), nothing decoded; ValueError."""
    return _tolerant(_header, data)


def depth_fault(image: Image.Image) -> str | None:
    """Why a picture has no bytes for pixels and what to do; None for one that has.

    Pillow, and so Hugging Face, cuts such values off at 255 or folds them: 12 bits of grey become
    white, 0..1 becomes black. 16-bit colour is not among them: it keeps its upper 8 bits.
    """
    if image.mode not in _DEEP:
        return None
    low, high = image.getextrema()
    return (
        f"its values are {low:g}..{high:g} (mode {image.mode}), not 8 bits, and nobody says which "
        "are black and white: scale them to 0..255 and store 8 bits"
    )


def _upright(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        return ImageOps.exif_transpose(image)


def _header(data: bytes) -> tuple[str, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.width * image.height


def _upright_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
        return image.size[::-1] if sideways else image.size


def _tolerant(read: Callable[[bytes], Any], data: bytes) -> Any:
    """`read(data)`; of a PNG whose texts are too large for Pillow, without them."""
    try:
        try:
            return read(data)
        except ValueError:  # "Decompressed data too large": a text of more than 1 MB, as Blender's
            return read(_without_texts(data))
    except MemoryError:
        raise  # says nothing about the file
    except UnidentifiedImageError as error:
        raise ValueError(f"{data[:8]!r}... begins no format that Pillow knows") from error
    except Exception as error:  # every codec of Pillow has its own exception types
        raise ValueError(str(error) or type(error).__name__) from error


def _without_texts(data: bytes) -> bytes:
    """A PNG without its texts and colour profile, anything else as it is."""
    if not data.startswith(_PNG):
        return data
    kept, at = [_PNG], len(_PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind, ..., checksum
        if data[at + 4 : at + 8] not in _TEXTS:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
