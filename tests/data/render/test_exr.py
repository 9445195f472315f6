"""EXR files of another make are refused with what to write, and that is read."""

import struct

import numpy as np
import pytest

from dig_jax.data.render.exr import read_exr

WIDTH, HEIGHT, FLOAT, HALF = 3, 2, 2, 1


def attribute(name: str, kind: str, value: bytes) -> bytes:
    return f"{name}\0{kind}\0".encode() + struct.pack("<i", len(value)) + value


def exr(*, flags: int = 0, compression: int = 0, kind: int = FLOAT) -> bytes:
    """One channel "V" of 0, 1, ... by scan lines; other flags change nothing but the header."""
    channel = b"V\0" + struct.pack("<4i", kind, 0, 1, 1) + b"\0"
    header = struct.pack("<2i", 20000630, 2 | flags)
    header += attribute("channels", "chlist", channel)
    header += attribute("compression", "compression", bytes([compression]))
    header += attribute("dataWindow", "box2i", struct.pack("<4i", 0, 0, WIDTH - 1, HEIGHT - 1))
    header += b"\0"
    values = np.arange(WIDTH * HEIGHT, dtype="<f4").reshape(HEIGHT, WIDTH)
    lines = [struct.pack("<2i", y, 4 * WIDTH) + values[y].tobytes() for y in range(HEIGHT)]
    first = len(header) + 8 * HEIGHT
    offsets = [first + sum(map(len, lines[:y])) for y in range(HEIGHT)]
    return header + struct.pack(f"<{HEIGHT}Q", *offsets) + b"".join(lines)


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"flags": 0x200}, "tiled EXR is not read here; write a single-part scan-line"),
        ({"flags": 0x1000}, "multi-part EXR is not read here; write a single-part scan-line"),
        ({"compression": 3}, "EXR compression 3 is not read here; use codec NONE"),
        ({"kind": HALF}, "channel V is not full-size 32-bit; use color_depth 32"),
    ],
)
def test_a_file_of_another_make_is_refused_and_the_advised_one_is_read(wrong, advice, tmp_path):
    path = tmp_path / "a.exr"
    path.write_bytes(exr(**wrong))
    with pytest.raises(ValueError, match=advice):
        read_exr(path)
    path.write_bytes(exr())
    np.testing.assert_array_equal(read_exr(path)["V"], [[0, 1, 2], [3, 4, 5]])
