"""Import at scale: host memory, shardings, and checkpoints that lie in a bucket."""

import dataclasses
import importlib
import sys
import tracemalloc

import jax
import numpy as np
import pytest
from etils.epath import backend
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from dig_jax.config import MeshConfig
from dig_jax.hf import files, safetensors_reader, weights
from dig_jax.inputs.prompt import load_processor
from dig_jax.mesh import sharding
from dig_jax.model.specs import model_specs, named_specs
from tests.tiny_model import ASSETS, CONFIG, make_tiny, small_base

SLACK = 2**20  # Python's own objects


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint of two shards and more, and what was written."""
    folder = tmp_path_factory.mktemp("import") / "tiny"
    params = make_tiny(jax.random.key(0))
    weights.save_hf(folder, params, CONFIG, source_folder=None, shard_bytes=40_000)
    return folder, params


def peak_of(function) -> int:
    """Most bytes of Python and NumPy memory held at once; device arrays are not among them."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def whole_stacks(folder, config) -> None:
    """How parameters were read before: each stack put together on the host."""
    found = files.find_weights(files.open_folder(folder))
    with files.open_weights(found) as read:
        for _, spec in named_specs(model_specs(config)):
            leaf = np.empty(spec.shape, np.float32)
            for key, part in zip(spec.keys, leaf if spec.stack else [leaf], strict=True):
                part[...] = spec.from_hf(read(key))


@pytest.mark.slow
def test_the_host_holds_a_few_tensors_never_a_stack(tmp_path):
    """Twenty layers: the bound of three largest tensors holds, and the old way breaks it."""
    text = dataclasses.replace(CONFIG.text, width=256, mlp=1024, layers=20)
    vision = dataclasses.replace(CONFIG.vision, out=256)
    config = dataclasses.replace(CONFIG, text=text, vision=vision)
    weights.save_hf(
        tmp_path / "deep", make_tiny(jax.random.key(0), config), config, source_folder=None
    )
    largest = 4 * 256 * 1024
    total = sum(4 * int(np.prod(spec.shape)) for _, spec in named_specs(model_specs(config)))
    assert total > 60 * largest
    where = sharding.param_shardings(
        model_specs(config), sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    )

    def load():
        return weights.load_params(tmp_path / "deep", config, shardings=where)

    load()  # tracing and compiling allocate too
    bound = 3 * largest + SLACK
    assert peak_of(load) <= bound
    assert peak_of(lambda: whole_stacks(tmp_path / "deep", config)) > 4 * bound


def test_a_stack_is_written_in_place():
    """Were the donation refused, every layer would copy the stack."""
    one = np.ones((4, 6), np.float16)
    made = weights._put_layer(None, jax.numpy.asarray(one), 0, (3, 4, 6), "float32", None)
    address = made.unsafe_buffer_pointer()
    made = weights._put_layer(made, jax.numpy.asarray(2 * one), 2, (3, 4, 6), "float32", None)
    assert made.unsafe_buffer_pointer() == address
    np.testing.assert_array_equal(made[:, 1, 1], [1, 0, 2])


@pytest.mark.parametrize("axes", [(8, 1), (4, 2), (1, 8)])
def test_arrays_land_sharded_and_equal_and_no_device_is_sent_more(tiny, axes, monkeypatch):
    """On (1, 8) the four key-value heads are held whole by every device."""
    folder, params = tiny
    specs = model_specs(CONFIG)
    where = sharding.param_shardings(specs, sharding.make_mesh(MeshConfig(*axes)))
    sent = []
    copy = weights._contiguous
    monkeypatch.setattr(weights, "_contiguous", lambda view: sent.append(view.shape) or copy(view))
    loaded = weights.load_params(folder, CONFIG, shardings=where)
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    shards = set()
    for (name, spec), array, target in zip(
        named_specs(specs), jax.tree.leaves(loaded), jax.tree.leaves(where), strict=True
    ):
        assert array.sharding == target, name
        shape = target.shard_shape(spec.shape)
        shards.add(shape[1:] if spec.stack else shape)
    assert set(sent) == shards


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_param_is_load_params_one_by_one(tiny, dtype):
    folder, _ = tiny
    whole = weights.load_params(folder, CONFIG, dtype=dtype)
    one_by_one = list(weights.each_param(folder, CONFIG, dtype=dtype))
    assert [name for name, _ in one_by_one] == [
        name for name, _ in named_specs(model_specs(CONFIG))
    ]
    for (_, array), leaf in zip(one_by_one, jax.tree.leaves(whole), strict=True):
        assert array.dtype == leaf.dtype == dtype
        np.testing.assert_array_equal(array, leaf)


class Bucket(MemoryFileSystem):
    """Google's storage in this process's memory, by its own addresses."""

    protocol = ("gcs", "gs")
    store: dict = {}  # noqa: RUF012 - the parent's would be shared with memory://
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).removeprefix("gs://").removeprefix("gcs://"))


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """`gs://` leads to a dict in memory, by the way on which epath goes to Google's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # fsspec.registry is also the name of a mapping in the package
    monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, "gcs", Bucket)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.store.clear()
    yield Bucket()
    backend.fsspec_backend._get_filesystem.cache_clear()


def upload(bucket: Bucket, folder, address: str) -> None:
    for file in folder.iterdir():
        bucket.pipe_file(f"{address}/{file.name}", file.read_bytes())


def test_a_bucket_is_read_by_ranges_and_equals_the_local_folder(tiny, bucket, monkeypatch):
    folder, params = tiny
    upload(bucket, folder, "gs://weights/tiny")
    config = weights.read_model_config("gs://weights/tiny")
    assert config == weights.read_model_config(folder)
    monkeypatch.setattr(safetensors_reader, "CHUNK", 512)
    sizes = []
    read = MemoryFile.read
    monkeypatch.setattr(MemoryFile, "read", lambda f, n=-1: sizes.append(n) or read(f, n), False)
    loaded = weights.load_params("gs://weights/tiny", config)
    jax.tree.map(np.testing.assert_array_equal, params, loaded)
    headers = [n for n in sizes if n > 512]
    shards = len(list(folder.glob("*.safetensors")))
    assert len(headers) == shards  # a header is read in one piece, a tensor never is
    assert len(sizes) > sum(1 for _, spec in named_specs(model_specs(config)) for _ in spec.keys)


def test_a_bucket_that_lacks_the_folder_is_named(bucket):
    with pytest.raises(FileNotFoundError, match=r"gs://weights/none does not exist"):
        weights.read_model_config("gs://weights/none")


def test_a_missing_package_for_buckets_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "gcs", False)
    backend.fsspec_backend._get_filesystem.cache_clear()
    with pytest.raises(ValueError, match=r"gs://weights/tiny .* install dig_jax\[gcs\]"):
        weights.read_model_config("gs://weights/tiny")


def test_companions_of_a_bucket_are_copied_once_and_again_when_they_change(bucket, tmp_path):
    """Tokenizers open local files only."""
    weights.save_hf(tmp_path / "base", make_tiny(jax.random.key(1), small_base()), small_base(),
               source_folder=ASSETS)  # fmt: skip
    upload(bucket, tmp_path / "base", "gs://weights/base")
    local = files.local_companions("gs://weights/base")
    assert load_processor(local).eos_token == load_processor(ASSETS).eos_token
    assert {file.suffix for file in local.iterdir()} & {".safetensors"} == set()
    stamp = (local / "tokenizer.json").stat().st_mtime_ns
    assert files.local_companions("gs://weights/base") == local
    assert (local / "tokenizer.json").stat().st_mtime_ns == stamp
    bucket.pipe_file("gs://weights/base/chat_template.jinja", b"another")
    other = files.local_companions("gs://weights/base")
    assert other != local
    assert (other / "chat_template.jinja").read_bytes() == b"another"
    assert files.local_companions(tmp_path / "base") == tmp_path / "base"
