"""The pixel-difference baseline on images whose differences are known exactly."""

import itertools

import numpy as np
import pytest

from dig_jax.boxes import BoxSet, pad_boxes
from dig_jax.config import RewardConfig
from dig_jax.data.inspect.baseline import MIN_PX, THRESHOLD, pixel_difference, score
from dig_jax.data.scene.labels import box_iou
from dig_jax.reward.reward import score_boxes

Y, X = 96, 128


def pair(*changes, size=(Y, X), level=200):
    """A dark image and its copy with rectangles (x0, y0, x1, y1) set to `level` in one channel."""
    a = np.full((*size, 3), 10, np.uint8)
    b = a.copy()
    for x0, y0, x1, y1 in changes:
        b[y0:y1, x0:x1, 1] = level
    return a, b


def test_changed_rectangles_come_back_exactly():
    changes = [(3, 5, 20, 11), (60, 40, 100, 90)]
    np.testing.assert_array_equal(pixel_difference(*pair(*changes)), changes)


def test_equal_images_have_no_boxes():
    got = pixel_difference(*pair())
    assert got.shape == (0, 4)
    assert got.dtype == np.float32


def test_order_of_the_images_does_not_matter():
    """uint8 subtraction would wrap: 10 - 200 is 66, and 10 - 11 would be 255."""
    a, b = pair((3, 5, 20, 11))
    np.testing.assert_array_equal(pixel_difference(a, b), pixel_difference(b, a))
    a, b = pair((3, 5, 20, 11), level=11)
    assert len(pixel_difference(a, b)) == len(pixel_difference(b, a)) == 0


def test_threshold_is_exclusive():
    assert len(pixel_difference(*pair((0, 0, 9, 9), level=10 + THRESHOLD))) == 0
    assert len(pixel_difference(*pair((0, 0, 9, 9), level=11 + THRESHOLD))) == 1


def test_channels_are_not_averaged():
    """A colour change in one channel counts in full."""
    a, b = pair((0, 0, 9, 9), level=10 + 2 * THRESHOLD)
    assert (np.abs(a.astype(int) - b).mean(axis=-1) < THRESHOLD).all()
    assert len(pixel_difference(a, b)) == 1


def test_diagonal_neighbours_are_one_component():
    a, b = pair((10, 10, 14, 14), (14, 14, 18, 18))
    np.testing.assert_array_equal(pixel_difference(a, b), [[10, 10, 18, 18]])


@pytest.mark.parametrize(("size", "scale"), [((Y, X), 1), ((2 * Y, 2 * X), 4)])
def test_smallest_component_scales_with_the_area(size, scale):
    enough, short = MIN_PX * scale, MIN_PX * scale - 1
    assert len(pixel_difference(*pair((0, 0, enough, 1), size=size))) == 1
    assert len(pixel_difference(*pair((0, 0, short, 1), size=size))) == 0


def test_images_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="two uint8"):
        pixel_difference(pair()[0], pair(size=(48, 64))[0])


def naive_hits(pred, true, threshold):
    """The most pairs of disjoint boxes that reach the threshold, by trying every order."""
    pairs = box_iou(np.array(pred, float), np.array(true, float)) >= threshold
    small = pairs if len(pairs) <= pairs.shape[1] else pairs.T
    columns = itertools.permutations(range(small.shape[1]), len(small))
    return max(sum(small[i, j] for i, j in enumerate(order)) for order in columns)


def test_score_matches_as_many_boxes_as_any_order_does():
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(200):
        low = rng.integers(0, 8, (2, 4, 2))
        boxes = np.concatenate([low, low + rng.integers(4, 12, low.shape)], -1)
        pred, true = boxes[0, : rng.integers(1, 5)], boxes[1, : rng.integers(1, 5)]
        got = score(pred, true, 0.4)
        assert got.hits == naive_hits(pred, true, 0.4)
        several += got.hits > 1
    assert several > 20


def test_score_takes_the_lesser_box_where_both_then_find_one():
    """Greedy by IoU would give the middle box to its best partner and lose the other."""
    true = [(0, 0, 10, 10), (0, 0, 10, 14)]
    pred = [(0, 0, 10, 11), (0, 0, 10, 7)]
    assert score(pred, true, 0.6).found == (True, True)


def test_score_at_exactly_the_threshold_is_a_hit():
    true, pred = [(0, 0, 4, 4)], [(0, 0, 4, 3)]
    assert score(pred, true, 0.75).hits == 1
    assert score(pred, true, 0.76).hits == 0


def test_score_counts_a_box_once():
    got = score([(0, 0, 9, 9)] * 3, [(0, 0, 9, 9)], 0.5)
    assert (got.hits, got.precision, got.recall, got.f1) == (1, 1 / 3, 1.0, 0.5)
    assert not got.is_exact


@pytest.mark.parametrize(
    ("n_pred", "n_true", "value"), [(0, 0, 1.0), (2, 0, 0.0), (0, 2, 0.0), (2, 2, 1.0)]
)
def test_score_of_empty_sets_follows_the_reward(n_pred, n_true, value):
    boxes = [(0, 0, 5, 5), (20, 20, 30, 30)]
    got = score(boxes[:n_pred], boxes[:n_true], 0.5)
    assert got.f1 == got.precision == got.recall == value
    assert got.is_exact == bool(value)
    cfg = RewardConfig()
    sets = [pad_boxes([np.array(boxes[:n]) / 32], 4) for n in (n_pred, n_true)]
    pred = BoxSet(sets[0].boxes[None], sets[0].valid[None])
    parts = score_boxes(cfg, pred, sets[1], np.ones((1, 1), np.float32)).parts
    for name in ("f1", "precision", "recall"):
        assert float(parts[name][0, 0]) == value, name
