"""Pictures show what the rows say: the right boxes, in the right colour, at the right place."""

import numpy as np
import pytest
from PIL import Image

from dig_jax.pictures import contact, curves

X, Y = 96, 64
GREEN, RED = (24, 201, 100), (255, 45, 85)


def row(reward=2.0, *, pred=((0.5, 0.5, 0.75, 0.75),), true=((0.25, 0.25, 0.5, 0.5),), n_true=None):
    match = [0] * min(1, len(pred), len(true)) + [-1] * (len(pred) - min(1, len(true)))
    return {
        "pair_id": 7,
        "n_true": len(true) if n_true is None else n_true,
        "text": "[]",
        "verdict": "ok",
        "pred": [list(box) for box in pred],
        "true": [list(box) for box in true],
        "match": match,
        "match_iou": [0.5 if m >= 0 else 0.0 for m in match],
        "f1": 0.5,
        "iou": 0.25,
        "reward": reward,
    }


def gray(pairs):
    return np.full((pairs, 2, Y, X, 3), 128, np.uint8)


def is_color(picture, color):
    return (np.asarray(picture) == color).all(-1)


def test_choose_is_decided_by_reward_and_order_alone():
    rewards = [1.0, 3.0, 2.0, 3.0, 0.0, 2.0, 2.5, 0.5]
    assert contact.choose(rewards, 2) == {"best": [1, 3], "typical": [2, 5], "worst": [7, 4]}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 40])
def test_choose_shows_no_row_twice(count):
    rewards = np.random.default_rng(count).integers(0, 3, count).astype(float).tolist()
    chosen = [i for rows in contact.choose(rewards, 3).values() for i in rows]
    assert len(chosen) == len(set(chosen)) == min(count, 9)


def test_the_example_is_a_two_difference_pair_that_beats_three_quarters():
    two = ((0.1, 0.1, 0.2, 0.2),) * 2
    rows = [row(9.0), *(row(float(i), true=two) for i in (3, 1, 0, 2))]
    assert contact.example(rows) == 1
    assert contact.example([row(1.0)]) == 0


def test_boxes_are_drawn_where_they_are():
    """True boxes on both images, predicted ones on B only, corners within the line's width."""
    tile = contact.pair_tile(gray(1)[0], row())
    scale = 4
    left = tile.crop((0, contact.LINE, scale * X, tile.height))
    right = tile.crop((scale * X + contact.GAP, contact.LINE, tile.width, tile.height))
    assert not is_color(left, RED).any()
    # a label may reach above a predicted box, so its upper edge says nothing
    for picture in (left, right):
        ys, xs = np.nonzero(is_color(picture, GREEN))
        assert (xs.min(), ys.min()) == (scale * X // 4, scale * Y // 4)
        assert (xs.max(), ys.max()) == (scale * X // 2, scale * Y // 2)
    ys, xs = np.nonzero(is_color(right, RED))
    assert (xs.min(), xs.max(), ys.max()) == (
        scale * X // 2,
        scale * X * 3 // 4,
        scale * Y * 3 // 4,
    )


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 0), (1, 1, 1, 1), (0.9, 0.8, 0.1, 0.2), (-1, -1, 2, 2), (0, 0.98, 1, 1)]
)
def test_any_box_can_be_drawn(box):
    """Flat, swapped and outlying boxes are what a policy may write; a picture must not fail."""
    tile = contact.pair_tile(gray(1)[0], row(pred=(box,)))
    assert is_color(tile, RED).any()


def test_a_large_image_is_not_enlarged():
    tile = contact.pair_tile(np.zeros((2, 320, 480, 3), np.uint8), row())
    assert tile.size == (2 * 480 + contact.GAP, 320 + contact.LINE)


def test_the_contact_sheet_holds_every_chosen_pair(tmp_path):
    """Pair i is a flat gray of its own, so its pixels show whether it is on the sheet."""
    shades = np.arange(20, 120, 10, np.uint8)
    images = np.broadcast_to(shades[:, None, None, None, None], (10, 2, Y, X, 3))
    rows = [row(float(i)) for i in range(10)]
    contact.contact_sheet(tmp_path / "sheet.png", images, rows, title="t", count=2)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    area = [int((sheet == shade).all(-1).sum()) for shade in shades]
    shown = [i for i, pixels in enumerate(area) if pixels > 4 * X * 4 * Y]
    assert shown == [0, 1, 4, 5, 8, 9]


def test_images_that_do_not_belong_to_the_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="3 image pairs for 2 rows; evaluate and report must read"):
        contact.contact_sheet(tmp_path / "x.png", gray(3), [row(), row()], title="t")
    contact.contact_sheet(tmp_path / "x.png", gray(2), [row(), row()], title="t")


def log(**metrics):
    """Eight training steps in two stages; every metric rises by 0.01 per step."""
    rows = []
    for step in range(8):
        rising = {name: value + 0.01 * step for name, value in metrics.items()}
        rows.append({"kind": "train", "step": step, "stage": step // 4, **rising})
    return rows


def test_curves_draw_what_the_log_has(tmp_path):
    """A metric that was not finite stands in the log as text; a run may lack some metrics."""
    rows = [*log(reward=1.0, kl=0.0), {"kind": "eval", "step": 7, "reward": 2.0}]
    rows[3]["kl"] = "nan"
    path = tmp_path / "curves.png"
    curves.curves(path, rows, title="run", stages=("single", "dual"))
    assert Image.open(path).width > 800
    small = Image.open(path).height
    curves.curves(path, log(reward=1.0, kl=0.0, entropy=1.0, length=9.0), title="run")
    assert Image.open(path).height > small


def test_a_log_without_any_known_metric_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no training row has any of reward.*made a step\?"):
        curves.curves(tmp_path / "x.png", [{"kind": "train", "step": 0, "other": 1.0}], title="")
    curves.curves(tmp_path / "x.png", log(reward=1.0)[:1], title="")


def test_the_running_mean_is_over_the_last_steps():
    np.testing.assert_allclose(
        curves._running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1.0, 2.0, 4.0, 6.0]
    )
