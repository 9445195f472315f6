"""The pixel-difference baseline on images whose differences are known exactly."""

import numpy as np
import pytest

from dig_jax.baseline import MIN_PX, THRESHOLD, pixel_difference

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
