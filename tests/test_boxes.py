"""Boxes: overlaps by hand, their symmetries, and the three frames."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dig_jax import boxes

UNIT = [0.0, 0.0, 1.0, 1.0]


@st.composite
def box_arrays(draw, count=3):
    """f64[count, 4] with sides of at least 1/64, in the unit frame."""
    rows = []
    for _ in range(count):
        x0, y0 = draw(st.integers(0, 62)), draw(st.integers(0, 62))
        x1, y1 = draw(st.integers(x0 + 1, 63)), draw(st.integers(y0 + 1, 63))
        rows.append([x0, y0, x1, y1])
    return np.array(rows, np.float64) / 64


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou", "l1"),
    [
        (UNIT, UNIT, 1.0, 1.0, 0.0),
        ([0, 0, 0.5, 1], UNIT, 0.5, 0.5, 0.5),  # half of it, hull = the larger
        ([0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], 0.0, -0.5, 2.0),  # touch in a corner
        ([0, 0, 0.25, 1], [0.75, 0, 1, 1], 0.0, -0.5, 1.5),  # apart: half the hull is empty
        ([0, 0, 0.5, 0.5], [0.25, 0.25, 0.75, 0.75], 1 / 7, 1 / 7 - 2 / 9, 1.0),
        ([0.2, 0.2, 0.2, 0.8], UNIT, 0.0, 0.0, 0.2 + 0.2 + 0.8 + 0.2),  # a line inside
        ([0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.3], 0.0, -1.0, 0.0),  # a point with itself
        ([0.8, 0.8, 0.2, 0.2], UNIT, 0.0, 0.0, 4 * 0.8),  # both corners swapped: no area
    ],
)
def test_overlaps_have_the_values_worked_out_by_hand(a, b, iou, giou, l1):
    a, b = np.array([a], np.float32), np.array([b], np.float32)
    for kernel, value in [
        (boxes.pairwise_iou, iou),
        (boxes.pairwise_giou, giou),
        (boxes.pairwise_l1, l1),
    ]:
        np.testing.assert_allclose(kernel(a, b), [[value]], atol=1e-6)
        np.testing.assert_allclose(jax.jit(kernel)(a, b), [[value]], atol=1e-6)


def test_numpy_in_gives_numpy_out_and_tracers_give_jax():
    a = np.array([UNIT])
    assert isinstance(boxes.pairwise_iou(a, a), np.ndarray)
    assert isinstance(boxes.pairwise_giou(a, jnp.asarray(a)), jax.Array)
    assert isinstance(boxes.pairwise_l1(jnp.asarray(a), a), jax.Array)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(box_arrays(3), box_arrays(2))
def test_overlaps_are_symmetric_and_bounded(a, b):
    for kernel, low, high in [
        (boxes.pairwise_iou, 0, 1),
        (boxes.pairwise_giou, -1, 1),
        (boxes.pairwise_l1, 0, 4),
    ]:
        ab = kernel(a, b)
        np.testing.assert_allclose(ab, kernel(b, a).T, atol=1e-12)
        assert (ab >= low - 1e-12).all()
        assert (ab <= high + 1e-12).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(box_arrays(3), box_arrays(2), st.floats(0.01, 100.0), st.floats(-10, 10))
def test_iou_and_giou_ignore_scale_and_translation(a, b, scale, shift):
    """So the frame does not matter to them; float64, 1e-9 covers the cancellation at shift 10."""
    for kernel in (boxes.pairwise_iou, boxes.pairwise_giou):
        moved = kernel(a * scale + shift * scale, b * scale + shift * scale)
        np.testing.assert_allclose(moved, kernel(a, b), atol=1e-9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(box_arrays(3), box_arrays(2))
def test_giou_never_exceeds_iou(a, b):
    assert (boxes.pairwise_giou(a, b) <= boxes.pairwise_iou(a, b) + 1e-12).all()


def test_degenerate_boxes_give_zero_and_finite_gradients():
    flat = jnp.zeros((2, 4))
    assert (boxes.pairwise_iou(flat, flat) == 0).all()
    grads = jax.jit(jax.grad(lambda x: boxes.pairwise_giou(x, flat).sum()))(flat)
    assert jnp.isfinite(grads).all()


def test_leading_axes_broadcast():
    pred, true = jnp.ones((5, 3, 7, 4)), jnp.ones((5, 1, 2, 4))
    assert boxes.pairwise_iou(pred, true).shape == (5, 3, 7, 2)


def test_pixels_to_unit_divides_by_the_right_side():
    got = boxes.unit_from_px([[64, 24, 128, 96]], width=128, height=96)
    np.testing.assert_array_equal(got, np.array([[0.5, 0.25, 1, 1]], np.float32))
    assert got.dtype == np.float32


def test_thousandths_round_trip_exactly():
    ints = np.stack([np.arange(1001)] * 4, axis=-1)
    np.testing.assert_array_equal(boxes.qwen_from_unit(boxes.unit_from_qwen(ints)), ints)


def test_thousandths_round_to_nearest_and_stay_in_the_image():
    got = boxes.qwen_from_unit([[-0.2, 0.12349, 0.12351, 1.7]])
    np.testing.assert_array_equal(got, [[0, 123, 124, 1000]])


def test_padding_keeps_order_and_marks_what_is_real():
    got = boxes.pad_boxes([np.array([UNIT]), [], np.zeros((2, 4))], 2)
    np.testing.assert_array_equal(got.valid, [[1, 0], [0, 0], [1, 1]])
    np.testing.assert_array_equal(got.boxes[0, 0], UNIT)
    assert (got.boxes.shape, got.boxes.dtype) == ((3, 2, 4), np.float32)


def test_padding_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match=r"rows\[1\] has 3 boxes, more than size=2"):
        boxes.pad_boxes([np.zeros((1, 4)), np.zeros((3, 4))], 2)
    boxes.pad_boxes([np.zeros((1, 4)), np.zeros((3, 4))], 3)
    with pytest.raises(ValueError, match=r"rows\[0\] has shape \(4,\)"):
        boxes.pad_boxes([np.zeros(4)], 2)
    boxes.pad_boxes([np.zeros((1, 4))], 2)
