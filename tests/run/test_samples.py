"""Pictures of sampled answers: boxes and lines where they are, whatever a policy may write."""

import numpy as np
import pytest
from PIL import ImageColor

from dig_jax.pictures.drawing import GAP, MARGIN, PRED, TRUE
from dig_jax.pictures.sample_sheet import LINK, TEXT_PX, sample_sheet

X, Y, SCALE = 96, 64, 4
SCORES = {"reward": 1.5, "format": 1.0, "f1": 0.5, "iou": 0.25, "count_ok": 1.0, "n_pred": 1.0}


def row(pred=((0.6, 0.6, 0.9, 0.9),), true=((0.1, 0.1, 0.4, 0.4),), **fields):
    matched = min(len(pred), len(true))
    return {
        "step": 3,
        "bucket": "dual",
        "pair_id": 7,
        "text": "[]",
        "verdict": "ok",
        "pred": [list(box) for box in pred],
        "true": [list(box) for box in true],
        "match": [n if n < matched else -1 for n in range(len(pred))],
        "match_iou": [0.5 if n < matched else 0.0 for n in range(len(pred))],
        "kinds": ["color"] * len(true),
        "scores": SCORES,
        "group_rewards": [1.5, 0.0, 3.0],
    } | fields


def drawn(*rows):
    sheet = sample_sheet(np.full((len(rows), 2, Y, X, 3), 128, np.uint8), rows, title="t")
    return np.asarray(sheet)


def where(pixels, color):
    """Columns and rows of a colour among the two images of the first card."""
    left = np.argmax((pixels == 128).all(-1).any(0))
    top = np.argmax((pixels == 128).all(-1).any(1))
    images = pixels[top : top + SCALE * Y, left : left + 2 * SCALE * X + GAP]
    ys, xs = np.nonzero((images == ImageColor.getrgb(color)).all(-1))
    return xs, ys


def test_true_boxes_are_on_both_images_and_predictions_on_b_alone():
    pixels = drawn(row(pred=((0.6, 0.6, 0.9, 0.9),)))
    b = SCALE * X + GAP
    xs, ys = where(pixels, TRUE)
    assert (xs.min(), ys.max()) == (round(0.1 * SCALE * X), round(0.4 * SCALE * Y))
    assert xs.max() == b + round(0.4 * SCALE * X)
    xs, _ = where(pixels, PRED)
    assert xs.min() == b + round(0.6 * SCALE * X)


def test_a_line_joins_a_prediction_to_its_true_box_and_no_other():
    """From (0.75, 0.75) to (0.25, 0.25) of image B; a box without a partner has none."""
    xs, ys = where(drawn(row()), LINK)
    b = SCALE * X + GAP
    assert abs(xs.max() - (b + 0.75 * SCALE * X)) <= 4
    assert abs(xs.min() - (b + 0.25 * SCALE * X)) <= 4
    assert abs(ys.max() - 0.75 * SCALE * Y) <= 4
    assert not len(where(drawn(row(match=[-1], match_iou=[0.0])), LINK)[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"pred": ()},
        {"pred": (), "true": ()},
        {"pred": ((0, 0, 0, 0), (1, 1, 1, 1), (0.9, 0.8, 0.1, 0.2), (-1, -1, 2, 2))},
        {"text": "", "verdict": "not_closed"},
        {"text": "word " * 2000},
        {"text": "x" * 5000},
        {"text": "\x00\n\t\u6f22\U0001f600"},
        {"group_rewards": [-1.0, -2.0]},
        {"group_rewards": [0.0] * 300},
        {"scores": {"reward": -3.0, "overlong": -1.0}},
    ],
)
def test_whatever_a_policy_writes_can_be_drawn(fields):
    pixels = drawn(row(**fields), row())
    assert pixels.shape[1] == 2 * SCALE * X + GAP + 18 + TEXT_PX + 2 * MARGIN


def test_every_pair_has_a_card():
    one, three = drawn(row()), drawn(row(), row(), row())
    assert three.shape[0] - one.shape[0] > 2 * SCALE * Y
