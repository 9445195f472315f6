"""Decoded copies: equal to the records, never stale, made whole or not at all."""

import dataclasses
import json
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from dig_jax.common.files import temporary, write_json
from dig_jax.data import records
from dig_jax.data.feed import decoded
from dig_jax.inputs.images import resize

SIZE = (16, 32)  # height, width of the records
OTHER = (24, 20)
COUNT = 7


def pair(index, salt=0):
    """Random images without masks, and index % 3 boxes."""
    rng = np.random.default_rng((salt, index))
    images = rng.integers(0, 256, (2, *SIZE, 3), np.uint8)
    boxes = [{"id": n, "box": [n, 2 * n, n + 5, 2 * n + 3]} for n in range(index % 3)]
    return records.Pair(*images, None, None, {"differences": boxes})


def write(folder, *, salt=0, shards=2):
    """A split of COUNT pairs; the paths of its shards."""
    folder.mkdir(exist_ok=True)
    paths = [folder / records.shard_name(n, shards) for n in range(shards)]
    entries = [
        records.write_shard(path, [records.encode(pair(int(i), salt)) for i in part], {})
        for path, part in zip(paths, np.array_split(np.arange(COUNT), shards), strict=True)
    ]
    manifest = {"complete": True, "shard_count": shards, "shards": entries}
    write_json(folder / records.MANIFEST, manifest)
    return paths


@pytest.fixture
def split(tmp_path):
    return write(tmp_path / "split")


def open_copies(shards, size=SIZE, pair_at=pair):
    return decoded.open_decoded(shards, SIZE, size, pair_at)


def never(index):
    raise AssertionError(f"pair {index} was decoded again")


def files(shards):
    return sorted(path for path in (shards[0].parent / decoded.FOLDER).rglob("*") if path.is_file())


def assert_holds(pairs, size=SIZE, salt=0):
    assert len(pairs) == COUNT
    for index in range(COUNT):
        images, boxes = pairs[index]
        want = pair(index, salt)
        expected = [resize(image, size) for image in (want.image_a, want.image_b)]
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(boxes, want.boxes_px)
        assert boxes.dtype == np.float32


@pytest.mark.parametrize("size", [SIZE, OTHER])
def test_copies_equal_the_records_at_every_size_and_are_made_once(split, size):
    assert_holds(open_copies(split, size), size)
    assert_holds(open_copies(split, size, never), size)


def test_the_pixels_are_raw_bytes_and_the_name_tells_shard_size_and_hash(split):
    open_copies(split)
    entry = json.loads((split[0].parent / records.MANIFEST).read_text())["shards"][0]
    name = f"{split[0].stem}-{entry['sha256'][:16]}.u8"
    raw = np.fromfile(split[0].parent / "decoded" / "32x16" / name, np.uint8)
    want = np.stack([[pair(i).image_a, pair(i).image_b] for i in range(4)])
    np.testing.assert_array_equal(raw.reshape(4, 2, *SIZE, 3), want)


def test_copies_of_two_sizes_live_side_by_side(split):
    open_copies(split)
    open_copies(split, OTHER)
    assert_holds(open_copies(split, pair_at=never))
    assert_holds(open_copies(split, OTHER, never), OTHER)


def test_a_copy_of_other_records_is_never_used_and_goes(split):
    open_copies(split)
    old = files(split)
    write(split[0].parent, salt=1)
    assert_holds(open_copies(split, pair_at=lambda index: pair(index, salt=1)), salt=1)
    assert len(files(split)) == len(old)
    assert not set(files(split)) & set(old)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def _grow(path):
    path.write_bytes(path.read_bytes() + b"x")


def _of(**changes):
    def change(path):
        facts = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps(facts | changes))

    return change


DAMAGES = {
    "cut": _cut,
    "grown": _grow,
    "gone": lambda path: path.unlink(),
    "no facts": lambda path: path.with_suffix(".json").unlink(),
    "facts cut": lambda path: _cut(path.with_suffix(".json")) or _cut(path.with_suffix(".json")),
    "facts of a list": lambda path: path.with_suffix(".json").write_text("[]"),
    "other shard": _of(sha256="0" * 64),
    "records of another size": _of(record_size=[8, 8]),
    "another format": _of(format=0),
    "too few boxes": _of(boxes_px=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_copy_that_is_not_whole_or_not_of_this_shard_is_made_again(split, damage):
    open_copies(split)
    first = next(path for path in files(split) if path.suffix == ".u8")
    DAMAGES[damage](first)
    made = []
    assert_holds(open_copies(split, pair_at=lambda index: made.append(index) or pair(index)))
    assert sorted(made) == [0, 1, 2, 3]  # the other shard's copy was whole


def test_a_copy_resized_by_another_pillow_is_made_again_and_one_as_it_was_is_not(split):
    for size in (SIZE, OTHER):
        open_copies(split, size)
    real = decoded.importlib.metadata.version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded.importlib.metadata, "version", lambda name: real(name) + ".9")
        assert_holds(open_copies(split, pair_at=never))
        with pytest.raises(AssertionError, match="decoded again"):
            open_copies(split, OTHER, never)


def test_a_flipped_byte_is_found_at_its_first_read_and_healed_by_the_next_run(split):
    open_copies(split)
    first = next(path for path in files(split) if path.suffix == ".u8")
    data = bytearray(first.read_bytes())
    data[2 * 2 * 16 * 32 * 3 + 5] ^= 1  # in pair 2
    first.write_bytes(data)
    pairs = open_copies(split, pair_at=never)
    assert len(pairs[1][0]) == 2
    with pytest.raises(
        ValueError, match=r"is damaged \(another checksum\); run the same command again"
    ):
        pairs[2]
    assert len(pairs[3][0]) == 2  # another thread may be reading on: it failed on a removed file
    assert_holds(open_copies(split))


def test_a_full_disk_is_told_before_anything_is_decoded(split, monkeypatch):
    free = shutil.disk_usage(split[0].parent)._replace(free=20_000)
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        OSError, match=r"7 decoded pairs of 32x16 px need 0.0 MB .* has 0.0 MB left; .* data.cache"
    ):
        open_copies(split, pair_at=never)
    assert files(split) == []


def test_a_disk_that_fills_up_meanwhile_leaves_no_half_copy(split, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoded.os, "fsync", full)
    with pytest.raises(OSError, match=r"could not be written .*No space left.* data.cache=none"):
        open_copies(split)
    assert files(split) == []


def test_a_pair_that_cannot_be_decoded_leaves_no_half_copy(split):
    def pair_at(index):
        if index == 5:
            raise ValueError("shard 1 record 1: not a pair record")
        return pair(index)

    with pytest.raises(ValueError, match="shard 1 record 1"):
        open_copies(split, pair_at=pair_at)
    assert {path.name[:11] for path in files(split)} == {"pairs-00000"}
    assert_holds(open_copies(split))


def test_two_processes_that_make_the_same_copies_at_once_do_no_harm(split, monkeypatch):
    """The second starts, and ends, while the first makes either shard."""
    own = os.getpid()

    def pair_at(index):
        if index in (2, 6):
            with monkeypatch.context() as patch:
                patch.setattr(records.os, "getpid", lambda: own + 1)
                assert_holds(open_copies(split))
        return pair(index)

    assert_holds(open_copies(split, pair_at=pair_at))
    assert_holds(open_copies(split, pair_at=never))
    assert len(files(split)) == 4


def test_what_a_killed_process_left_is_cleared_away(split):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    open_copies(split)
    first = files(split)[0]
    left = temporary(first).name.rpartition("-")[0] + f"-{dead.pid}"
    first.with_name(left).write_bytes(b"half")
    first.unlink()
    assert_holds(open_copies(split))
    assert left not in [path.name for path in files(split)]


def test_it_pickles_without_pixels(split):
    pairs = open_copies(split)
    assert_holds(pairs)
    text = pickle.dumps(pairs)
    assert len(text) < 4000 < COUNT * 2 * 16 * 32 * 3
    assert_holds(pickle.loads(text))


def test_a_pair_is_a_view_of_the_file_that_cannot_be_written(split):
    images, _ = open_copies(split)[3]
    assert not images.flags.writeable
    assert not images.flags.owndata


def test_empty_shards_and_empty_splits_have_no_copies(tmp_path, split):
    shutil.rmtree(tmp_path / "split")
    shards = write(tmp_path / "split", shards=9)  # the last two are empty
    assert_holds(open_copies(shards))
    assert len(files(shards)) == 2 * COUNT
    assert len(open_copies([])) == 0


def test_a_record_decoded_without_masks_is_the_record_but_for_them():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 9, SIZE, np.uint8)
    full = dataclasses.replace(pair(2), mask_a=mask, mask_b=mask)
    got = records.decode_images(records.encode(full))
    np.testing.assert_array_equal([got.image_a, got.image_b], [full.image_a, full.image_b])
    assert (got.mask_a, got.mask_b, got.meta) == (None, None, full.meta)
    with pytest.raises(ValueError, match="not a pair record"):
        records.decode_images(b"nothing")
