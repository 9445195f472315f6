"""The reader agrees with the safetensors package, and a damaged file is an error, not a tensor."""

import json

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from dig_jax.hf.safetensors_reader import MAX_HEADER, read_header, read_tensor

KINDS = (np.float32, np.float16, ml_dtypes.bfloat16)
names = st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def read_all(path) -> dict[str, np.ndarray]:
    header = read_header(path)
    with path.open("rb") as file:
        return {name: read_tensor(file, entry) for name, entry in header.items()}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return epath.Path(tmp_path_factory.mktemp("reader") / "x.safetensors")


def build(described: dict, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(KINDS[kind])
        for name, (shape, kind) in described.items()
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    described=st.dictionaries(names, st.tuples(shapes, st.integers(0, 2)), max_size=5),
    seed=st.integers(0, 2**16),
)
def test_what_the_package_writes_is_read_bit_for_bit(path, described, seed):
    """Any names, scalars, empty tensors, three dtypes in one file."""
    tensors = build(described, seed)
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    back = read_all(path)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        assert back[name].tobytes() == tensor.tobytes()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(at=st.integers(0, 10**6), new=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_refused_or_keeps_its_size(path, at, new, cut):
    """One byte changed or the end cut off: ValueError naming it, or as many bytes as before."""
    tensors = build({"a": ((3, 2), 0), "b": ((4,), 2)}, 0)
    whole = bytearray(save(tensors))
    at %= len(whole)
    path.write_bytes(bytes(whole[:at]) if cut else bytes([*whole[:at], new, *whole[at + 1 :]]))
    try:
        back = read_all(path)
    except ValueError as error:
        back, said = None, str(error)
    if back is None:
        assert str(path) in said
    else:
        assert not cut
        assert sum(tensor.nbytes for tensor in back.values()) == 32


def described(dtype="F32", shape=(2,), offsets=(0, 8)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def write(path, header, data: bytes) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"w": described()}, b"1234567", "cut short"),
        ({"w": described()}, b"123456789", "followed by other bytes"),
        ({"w": described("F8_E4M3", (8,))}, b"12345678", "tensor w has dtype 'F8_E4M3'"),
        ({"w": described(shape=(3,))}, b"12345678", "tensor w spans 8 bytes; its shape takes 12"),
        ({"w": described(shape=(-1, -2))}, b"12345678", "want counts"),
        ({"w": described(), "v": described(offsets=(4, 12))}, b"1" * 12, "tensor v overlaps"),
        ({"w": described(), "v": described(offsets=(12, 20))}, b"1" * 20, "tensor v leaves a gap"),
        ({"w": {"dtype": "F32"}}, b"", "tensor w is described by"),
        (b'{"w": 1, "w": 2}', b"", "a name occurs twice"),
        (b"[]", b"", "it is a list"),
        (b"\xff\xfe", b"", "no safetensors header"),
    ],
)
def test_a_header_that_lies_is_named(path, header, data, message):
    write(path, header, data)
    with pytest.raises(ValueError, match=message):
        read_header(path)
    write(path, {"w": described()}, b"12345678")  # as whoever made it should have
    assert read_all(path)["w"].shape == (2,)


def test_a_header_longer_than_the_file_is_not_read(path):
    path.write_bytes((10**12).to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match="fewer than its header; fetch it again"):
        read_header(path)
    path.write_bytes(save(build({"a": ((3,), 0)}, 0)))
    assert read_all(path)["a"].shape == (3,)


def test_a_header_of_more_bytes_than_any_has_is_asked_about(path):
    with path.open("wb") as file:
        file.write((MAX_HEADER + 1).to_bytes(8, "little"))
        file.truncate(MAX_HEADER + 9)
    with pytest.raises(ValueError, match=r"claims a header of \d+ bytes; is it safetensors"):
        read_header(path)
    path.write_bytes(save(build({"a": ((3,), 0)}, 0)))
    read_header(path)


def test_a_file_replaced_by_a_shorter_one_is_noticed(path):
    tensors = build({"a": ((64,), 0)}, 0)
    path.write_bytes(save(tensors))
    entry = read_header(path)["a"]
    path.write_bytes(save(tensors)[:-4])
    with path.open("rb") as file, pytest.raises(ValueError, match="ended 4 bytes early; was it"):
        read_tensor(file, entry)
    path.write_bytes(save(tensors))
    assert read_all(path)["a"].tobytes() == tensors["a"].tobytes()
