"""Labels are the union of what is visible, and a certificate is refused for a reason."""

import dataclasses
import struct

import numpy as np
import pytest

from dig_jax.data.render.exr import read_exr
from dig_jax.data.render.produce import Exhausted, Request, make_pair
from dig_jax.data.scene.draws import Draw
from dig_jax.data.scene.labels import (
    Picture,
    box_iou,
    certify,
    grow,
    label_boxes,
    largest_blob,
    tight_box,
)
from dig_jax.data.scene.look import SceneConfig
from dig_jax.data.scene.scene import Rejected, plan_from_json
from dig_jax.data.scene.visibility import foresee
from tests.fake_worker import paint

CONFIG = SceneConfig()


def painted(idx):
    return make_pair(CONFIG, Request(Draw("test", 0, 1, 4), idx), lambda shot: paint(CONFIG, shot))[
        0
    ]


def certified(pair, **changed):
    """Certify a painted pair again, with some of its parts replaced."""
    plan = changed.pop("plan", plan_from_json(pair.meta))
    images = changed.get("images", (pair.image_a, pair.image_b))
    masks = changed.get("masks", (pair.mask_a, pair.mask_b))
    pictures = tuple(Picture(*both) for both in zip(images, masks, strict=True))
    return certify(CONFIG, plan, pictures, None, foresee(plan, CONFIG.width, CONFIG.height))


@pytest.fixture(scope="module")
def pairs():
    return [painted(idx) for idx in range(25)]


def test_label_is_the_union_of_both_visible_boxes(pairs):
    for pair in pairs:
        for difference in pair.meta["differences"]:
            seen = (pair.mask_a == difference["id"]) | (pair.mask_b == difference["id"])
            sides = [difference[f"box_{s}"] for s in "ab" if difference[f"box_{s}"]]
            union = [*np.min(sides, 0)[:2], *np.max(sides, 0)[2:]]
            assert difference["box"] == tight_box(seen) == union


def test_swapping_the_images_keeps_the_labels(pairs):
    for pair in pairs:
        plan = plan_from_json(pair.meta).swapped()
        labels, residual = certified(
            pair,
            plan=plan,
            images=(pair.image_b, pair.image_a),
            masks=(pair.mask_b, pair.mask_a),
        )
        assert residual == pair.meta["residual"]
        for new, old in zip(labels, pair.meta["differences"], strict=True):
            assert new["box"] == old["box"]
            assert (new["box_a"], new["box_b"]) == (old["box_b"], old["box_a"])
            assert (new["from"], new["to"]) == (old["to"], old["from"])


def test_boxes_are_half_open_pixels():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    assert tight_box(mask) == [2, 1, 5, 3]
    assert tight_box(np.zeros((5, 6), bool)) is None
    ids = mask.astype(np.uint8)
    np.testing.assert_array_equal(
        label_boxes(ids, ids.T[:5, :5].repeat(2, 1)[:, :6] * 0, (1,)), [[2, 1, 5, 3]]
    )


def test_iou_by_hand():
    """10x10 boxes shifted by half: 50 shared of 150; touching boxes share nothing."""
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10]])
    np.testing.assert_allclose(box_iou(boxes, boxes)[0], [1, 1 / 3, 0])


def test_blobs_are_8_connected_and_grow_is_square():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = mask[5, 5] = True
    assert largest_blob(mask) == 3
    assert largest_blob(np.zeros((3, 3), bool)) == 0
    single = np.zeros((7, 7), bool)
    single[3, 3] = True
    assert grow(single, 2).sum() == 25


def test_a_difference_nobody_can_see_is_refused(pairs):
    with pytest.raises(Rejected, match="faint"):
        certified(pairs[0], images=(pairs[0].image_a, pairs[0].image_a))


def test_a_renderer_that_disagrees_with_the_planner_is_refused(pairs):
    shifted = np.roll(pairs[0].mask_a, 2, axis=1)
    with pytest.raises(Rejected, match="mask_mismatch"):
        certified(pairs[0], masks=(shifted, pairs[0].mask_b))


def test_a_second_difference_outside_the_labels_is_refused():
    pair = painted(2)
    outside = ~grow(
        np.isin(pair.mask_a, plan_from_json(pair.meta).changed_ids)
        | np.isin(pair.mask_b, plan_from_json(pair.meta).changed_ids),
        2,
    )
    image = pair.image_b.copy()
    image[outside] = 255 - image[outside]
    with pytest.raises(Rejected, match="residual"):
        certified(pair, images=(pair.image_a, image))


def test_an_impossible_index_fails_with_its_reasons():
    """Nothing differs between two grey images: every attempt must end, none may loop for ever."""
    config = dataclasses.replace(CONFIG, attempts=4)

    def grey(shot):
        image, mask = paint(config, shot)
        return np.full_like(image, 120), mask

    with pytest.raises(Exhausted, match=r"none of 4 scenes .*faint_"):
        make_pair(config, Request(Draw("test"), 0), grey)


def exr_bytes(pixels, flags=2, compression=0, kind=2):
    """A single-channel scan-line EXR as Blender lays it out."""
    height, width = pixels.shape
    window = struct.pack("<4i", 0, 0, width - 1, height - 1)
    channel = b"L.Object Index.X\0" + struct.pack("<4i", kind, 0, 1, 1) + b"\0"
    header = struct.pack("<2i", 20000630, flags)
    for name, type_name, value in (
        (b"channels", b"chlist", channel),
        (b"compression", b"compression", bytes([compression])),
        (b"dataWindow", b"box2i", window),
    ):
        header += name + b"\0" + type_name + b"\0" + struct.pack("<i", len(value)) + value
    header += b"\0"
    row = 8 + 4 * width
    first = len(header) + 8 * height
    table = struct.pack(f"<{height}Q", *(first + y * row for y in range(height)))
    rows = b"".join(
        struct.pack("<2i", y, 4 * width) + pixels[y].astype("<f4").tobytes() for y in range(height)
    )
    return header + table + rows


def test_exr_reader_reads_floats_top_down(tmp_path):
    pixels = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
    (tmp_path / "a.exr").write_bytes(exr_bytes(pixels))
    np.testing.assert_array_equal(read_exr(tmp_path / "a.exr")["L.Object Index.X"], pixels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"compression": 3}, "compression 3.*codec NONE"),
        ({"flags": 2 | 0x1000}, "multi-part"),
        ({"flags": 2 | 0x200}, "tiled"),
        ({"kind": 1}, "not full-size 32-bit"),
    ],
)
def test_exr_reader_refuses_what_it_would_misread(tmp_path, change, words):
    path = tmp_path / "a.exr"
    path.write_bytes(exr_bytes(np.zeros((3, 4), np.float32), **change))
    with pytest.raises(ValueError, match=words):
        read_exr(path)


def test_exr_cut_short_or_foreign_is_refused(tmp_path):
    path = tmp_path / "a.exr"
    path.write_bytes(exr_bytes(np.zeros((3, 4), np.float32))[:-5])
    with pytest.raises(ValueError, match="cut short"):
        read_exr(path)
    path.write_bytes(b"\x89PNG....")
    with pytest.raises(ValueError, match="not an OpenEXR"):
        read_exr(path)
