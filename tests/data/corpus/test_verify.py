"""Planted faults are found and named, whatever file they are planted in."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dig_jax.common import typed
from dig_jax.common.sealed import sealed
from dig_jax.data import __main__ as commands
from dig_jax.data import records
from dig_jax.data.corpus import manifest
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.corpus.verify import verify_split
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from tests import FAKE_WORKER

CONFIG = SceneConfig(width=64, height=48)
SPEC = SplitSpec(Draw("test", 0, 1, 3), pairs=5, shard_pairs=3)
SAME = SplitSpec(Draw("test_same", 0, 0, 0), pairs=3, shard_pairs=3)
JITTER = SplitSpec(Draw("test_jitter", 0, 1, 2, camera_jitter_b=0.1), pairs=3, shard_pairs=3)
FAKE = FAKE_WORKER
IDX = 4  # the record that is tampered with: the second one of the second shard


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for spec in (SPEC, SAME, JITTER):
        render_split(root, spec, CONFIG, 1, lambda *_: None, FAKE)
    return root


@pytest.fixture
def copy(rendered, tmp_path):
    return Path(shutil.copytree(rendered, tmp_path / "data"))


def check(root, split="test", **kwargs):
    return verify_split(root / split, sample=0, seed=0, workers=1, **kwargs).found


def tamper(root, change):
    """Rewrite one record with everything around it in order: only certificates can tell."""
    folder = root / "test"
    path = folder / records.shard_name(1, SPEC.shard_count)
    read = records.read_shard(path)
    pair = records.decode(read[IDX % SPEC.shard_pairs])
    read[IDX % SPEC.shard_pairs] = records.encode(change(pair))
    facts = records.read_sidecar(path)
    records.write_shard(path, read, {k: v for k, v in facts.items() if k not in _OWN})
    manifest.write_manifest(folder, SPEC, CONFIG)


_OWN = ("file", "count", "sha256")


def with_meta(pair, edit):
    meta = json.loads(json.dumps(pair.meta))
    edit(meta)
    return dataclasses.replace(pair, meta=meta)


def rehashed(pair):
    """The pair with the hashes of its own pixels, as a careful forger would leave it."""
    return with_meta(pair, lambda meta: meta.update(pixels=records.pixel_hashes(pair)))


def test_what_was_rendered_is_found_sound(rendered):
    for split in ("test", "test_same", "test_jitter"):
        assert check(rendered, split) == []


@pytest.mark.parametrize("name", ["box", "box_a", "amodal_b", "visible_px_a", "changed_px"])
def test_a_corrupted_label_is_found(copy, name):
    def edit(meta):
        label = meta["differences"][0]
        old = label[name] if label[name] is not None else [1, 1, 9, 9]
        label[name] = [old[0], old[1], old[2] + 1, old[3]] if isinstance(old, list) else old + 1

    tamper(copy, lambda pair: with_meta(pair, edit))
    found = check(copy)
    assert any(line.startswith(f"idx {IDX}: label of thing") and name in line for line in found)


def test_a_corrupted_mask_is_found(copy):
    def flip(pair):
        mask = pair.mask_a.copy()
        mask[5, 5] ^= 1
        return dataclasses.replace(pair, mask_a=mask)

    tamper(copy, flip)
    (line,) = check(copy)
    assert line.startswith(f"idx {IDX}: mask_a was altered")


def test_a_mask_forged_together_with_its_hash_is_found(copy):
    """Erasing a labelled thing from the mask moves its boxes, and an id is missing."""

    def erase(pair):
        thing = pair.meta["differences"][0]["id"]
        masks = [np.where(m == thing, 0, m).astype(np.uint8) for m in (pair.mask_a, pair.mask_b)]
        return rehashed(dataclasses.replace(pair, mask_a=masks[0], mask_b=masks[1]))

    tamper(copy, erase)
    found = " ".join(check(copy))
    assert "planned are" in found
    assert "box is stored as" in found


@pytest.mark.parametrize("side", ["image_a", "image_b"])
def test_one_corrupted_pixel_is_found(copy, side):
    def touch(pair):
        image = getattr(pair, side).copy()
        image[0, 0, 0] ^= 1
        return dataclasses.replace(pair, **{side: image})

    tamper(copy, touch)
    (line,) = check(copy)
    assert line.startswith(f"idx {IDX}: {side} was altered")


def test_a_second_difference_forged_together_with_its_hash_is_found(copy):
    def paint(pair):
        image = pair.image_b.copy()
        image[:12, :12] = 255 - image[:12, :12]
        return rehashed(dataclasses.replace(pair, image_b=image))

    tamper(copy, paint)
    assert any("residual is stored as" in line for line in check(copy))


def test_a_changed_plan_is_found(copy):
    """One thing recoloured in the plan alone: images and labels no longer tell of it."""

    def edit(meta):
        kept = {t["id"] for t in meta["a"]} - {c["id"] for c in meta["changes"]}
        thing = next(t for t in meta["b"] if t["id"] in kept)
        thing["color"] = "gray" if thing["color"] != "gray" else "red"

    tamper(copy, lambda pair: with_meta(pair, edit))
    assert any("not what differs" in line for line in check(copy))


def test_a_dropped_label_is_found(copy):
    tamper(copy, lambda pair: with_meta(pair, lambda meta: meta["differences"].pop()))
    assert any("labels are stored" in line for line in check(copy))


def test_records_in_the_wrong_order_are_found(copy):
    path = copy / "test" / records.shard_name(0, SPEC.shard_count)
    facts = {k: v for k, v in records.read_sidecar(path).items() if k not in _OWN}
    records.write_shard(path, records.read_shard(path)[::-1], facts)
    manifest.write_manifest(copy / "test", SPEC, CONFIG)
    assert any("idx 0: the plan is of" in line for line in check(copy))


def test_bits_flipped_on_disk_are_found(copy):
    path = copy / "test" / records.shard_name(0, SPEC.shard_count)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    assert any("does not have the sha256" in line for line in check(copy))


def test_identical_pairs_that_differ_are_found(copy):
    """The pixel is forged with its hash and its residual: the rule still refuses it."""
    folder = copy / "test_same"
    path = folder / records.shard_name(0, 1)
    read = records.read_shard(path)
    pair = records.decode(read[0])
    image = pair.image_b.copy()
    image[0, 0] ^= 1
    pair = rehashed(dataclasses.replace(pair, image_b=image))
    read[0] = records.encode(with_meta(pair, lambda meta: meta["residual"].update(max=1)))
    facts = {k: v for k, v in records.read_sidecar(path).items() if k not in _OWN}
    records.write_shard(path, read, facts)
    manifest.write_manifest(folder, SAME, CONFIG)
    assert any("identical_pair_differs" in line for line in check(copy, "test_same"))


def test_a_release_refuses_what_must_not_be_published(copy):
    path = copy / "test" / records.MANIFEST
    told = json.loads(path.read_text())
    config = dataclasses.replace(CONFIG, renderer="numpy")
    told |= {"settings": typed.to_plain(config), "look": config.fingerprint()}
    path.write_text(json.dumps(sealed({**told, "complete": False})))
    found = check(copy, release=True)
    assert any("rendered by 'numpy'" in line for line in found)
    assert any("has 2 of 2 shards" in line for line in found)
    assert any("--sample 0" in line for line in found)


def test_the_command_names_the_pairs_and_fails(copy, capsys):
    arguments = ["verify", "--root", str(copy), "--sample", "0", "--workers", "1"]
    assert commands.main(arguments) == 0
    tamper(copy, lambda pair: with_meta(pair, lambda meta: meta["residual"].update(mean=9.0)))
    assert commands.main(arguments) == 1
    assert f"test idx {IDX}: residual is stored as" in capsys.readouterr().out


def test_a_root_without_splits_names_the_remedy(tmp_path, capsys):
    assert commands.main(["verify", "--root", str(tmp_path)]) == 1
    assert "dig_jax.data make --preset tiny" in capsys.readouterr().err
