"""What a picture file shows is read whatever lies beside its pixels, or refused with the reason."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dig_jax.inputs import picture_files
from dig_jax.inputs.images import to_rgb


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_files_are_opened_upright_and_unreadable_ones_named(tmp_path):
    """EXIF orientation 6: stored lying, shown turned by 90 degrees."""
    lying = Image.fromarray(noise(8, 16))
    exif = lying.getexif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    upright = np.asarray(picture_files.open_image(tmp_path / "lying.png"))
    np.testing.assert_array_equal(upright, np.rot90(np.asarray(lying), -1))
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text.png is not a picture"):
        picture_files.open_image(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError, match=r"gone.png does not exist"):
        picture_files.open_image(tmp_path / "gone.png")


def chunk(kind, body):
    checksum = zlib.crc32(kind + body).to_bytes(4, "big")
    return len(body).to_bytes(4, "big") + kind + body + checksum


LARGE = zlib.compress(b"render settings " * 200_000)  # 3.2 MB once inflated; Pillow stops at 1 MB


@pytest.mark.parametrize("after_the_pixels", [False, True])
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"zTXt", b"note\0\0" + LARGE),
        (b"iCCP", b"profile\0\0" + LARGE),
        (b"iTXt", b"note\0\1\0\0\0" + LARGE),
    ],
)
def test_a_text_too_large_for_pillow_does_not_hide_the_pixels(kind, body, after_the_pixels):
    """As Blender writes them (Pillow 8363); the orientation beside it still counts (M11)."""
    pixels = noise(8, 16)
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = png(Image.fromarray(pixels), exif=exif)
    at = plain.index(b"IEND") - 4 if after_the_pixels else 33  # 33: after the header
    data = plain[:at] + chunk(kind, body) + plain[at:]
    with pytest.raises(ValueError, match="Decompressed data too large"):
        Image.open(io.BytesIO(data)).load()
    turned = np.rot90(pixels, -1)
    np.testing.assert_array_equal(np.asarray(picture_files.read_picture(data)), turned)
    assert picture_files.upright_size(data) == (8, 16)


def test_many_small_texts_do_not_either():
    info = PngImagePlugin.PngInfo()
    for number in range(80):
        info.add_text(f"t{number}", "x" * 1_000_000, zip=True)
    pixels = noise(4, 4)
    data = png(Image.fromarray(pixels), pnginfo=info)
    np.testing.assert_array_equal(np.asarray(picture_files.read_picture(data)), pixels)


@pytest.mark.parametrize("cut", [10, 60, 400])
def test_a_torn_file_is_a_value_error_with_a_reason(cut):
    with pytest.raises(ValueError, match=r"\w+"):
        picture_files.read_picture(png(Image.fromarray(noise(16, 16)))[:cut])


def test_pixels_deeper_than_a_byte_are_told_and_others_are_not():
    """Pillow would make the first all white and the second all black (Pillow 3011; M8)."""
    grey = np.linspace(300, 4095, 64).reshape(8, 8)
    deep = {
        "I;16": Image.fromarray(grey.astype(np.uint16)),
        "I": Image.fromarray(grey.astype(np.int32)),
        "F": Image.fromarray((grey / 4095).astype(np.float32)),
    }
    for mode, image in deep.items():
        assert image.mode == mode
        told = picture_files.depth_fault(image)
        assert f"(mode {mode})" in told
        assert "scale them to 0..255" in told
    assert "300..4095" in picture_files.depth_fault(deep["I;16"])
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"):
        assert picture_files.depth_fault(Image.fromarray(noise(4, 4)).convert(mode)) is None


def test_sixteen_bit_colour_keeps_its_upper_bits():
    """What `depth_fault` says of them: read as they should look, not refused."""
    rows = b"".join(b"\0" + bytes([value, 255] * 3) for value in (0, 127, 254))
    header = (1).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
    image = picture_files.read_picture(data + chunk(b"IEND", b""))
    assert to_rgb(image)[:, 0, 0].tolist() == [0, 127, 254]
    assert picture_files.depth_fault(image) is None
