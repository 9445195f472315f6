"""What cells show: which box or thing a cell belongs to, and what is said of it."""

import dataclasses

import numpy as np
import pytest

from dig_jax.config import SftConfig
from dig_jax.learner.cells import BINS, ROWS, UNKNOWN
from dig_jax.lessons import cells

RED_CUBE = {"id": 1, "shape": "cube", "color": "red", "material": "metal", "radius": 0.85}
BLUE_BALL = {"id": 2, "shape": "sphere", "color": "blue", "material": "rubber", "radius": 0.55}


def test_cells_belong_to_the_box_that_covers_them_most():
    """Two rows, three columns. Box 0 is the first cell exactly; box 1 the lower right corner and
    a fifth of the cells beside it; raster order."""
    boxes = np.float32([[0, 0, 1 / 3, 1 / 2], [0.6, 0.4, 1, 1]])
    changed, bins, rank = cells.difference_labels(boxes, (2, 3))
    np.testing.assert_array_equal(changed, [1, 0, 1, 0, 1, 1])
    np.testing.assert_array_equal(rank, [0, UNKNOWN, 1, UNKNOWN, 1, 1])
    np.testing.assert_array_equal(bins[0], [0, 0, 6, 10])
    np.testing.assert_array_equal(bins[5], [12, 8, 19, 19])
    np.testing.assert_array_equal(bins[1], UNKNOWN)


def test_a_cell_covered_by_an_eighth_is_changed_by_a_tenth_is_not():
    for side, expected in ((0.25, 1), (np.sqrt(1 / 8) / 2, 1), (np.sqrt(1 / 10) / 2, 0)):
        changed, _, _ = cells.difference_labels(np.float32([[0, 0, side, side]]), (2, 2))
        np.testing.assert_array_equal(changed, [expected, 0, 0, 0])


def test_late_boxes_share_the_last_rank_and_no_boxes_change_nothing():
    columns = [[x / 6, 0, (x + 1) / 6, 1] for x in range(6)]
    changed, _, rank = cells.difference_labels(np.float32(columns), (1, 6))
    np.testing.assert_array_equal(changed, 1)
    np.testing.assert_array_equal(rank, [0, 1, 2, 3, 3, 3])
    changed, bins, rank = cells.difference_labels(np.zeros((0, 4), np.float32), (2, 3))
    assert not changed.any()
    np.testing.assert_array_equal(bins, np.full((6, 4), UNKNOWN))
    np.testing.assert_array_equal(rank, UNKNOWN)


def test_a_cell_shows_the_thing_that_covers_it_most():
    """4 x 6 px in 2 x 3 cells: a cube in the first, a ball that shares the second with nothing."""
    mask = np.zeros((4, 6), np.uint8)
    mask[:2, :2], mask[:3, 2:3] = 1, 2
    things, bins, core = cells.thing_labels(mask, [RED_CUBE, BLUE_BALL], (2, 3))
    nothing = [3, UNKNOWN, UNKNOWN, UNKNOWN]
    ball = [1, 2, 0, 0]  # sphere, blue, rubber, not large
    np.testing.assert_array_equal(things, [[0, 1, 1, 1], ball, nothing, nothing, ball, nothing])
    np.testing.assert_array_equal(bins[0], [0, 0, BINS // 3, BINS // 2])
    np.testing.assert_array_equal(bins[1], bins[4])
    np.testing.assert_array_equal(bins[[2, 3, 5]], UNKNOWN)
    np.testing.assert_array_equal(core, [1, 1, 0, 0, 0, 0])


def test_one_cell_of_each_thing_that_is_seen_is_its_core():
    """However many cells a thing covers; 4 x 8 px in 2 x 4 cells, a ball behind a cube but for a
    pixel, which is no more of any cell than the cube is."""
    mask = np.zeros((4, 8), np.uint8)
    mask[:, 1:6], mask[0, 6:] = 1, 2
    core = cells.thing_labels(mask, [RED_CUBE, BLUE_BALL], (2, 4))[2]
    np.testing.assert_array_equal(core, [0, 1, 0, 1, 0, 0, 0, 0])
    mask[0, 6:], mask[0, 2] = 0, 2
    core = cells.thing_labels(mask, [RED_CUBE, BLUE_BALL], (2, 4))[2]
    assert core.sum() == 1


def test_cells_of_sizes_that_do_not_divide_the_mask_are_shares_of_it():
    mask = np.zeros((5, 7), np.uint8)
    mask[:, :4] = 1
    things, _, _ = cells.thing_labels(mask, [RED_CUBE], (2, 3))
    np.testing.assert_array_equal(things[:, 0], [0, 0, 3] * 2)


def test_labels_are_read_from_blocks_and_rows_that_the_model_has():
    """JAX would take the last one in place of one beyond, silently; unasked labels may be off."""
    asked = SftConfig(changed_weight=1.0, things_weight=1.0)
    cells.check_labels(asked, layers=3, vocab=94 + ROWS)
    with pytest.raises(ValueError, match=r"sft.rank_layer=2 is no text block .* use 0 to 1$"):
        cells.check_labels(asked, layers=2, vocab=94 + ROWS)
    cells.check_labels(dataclasses.replace(asked, rank_layer=1), layers=2, vocab=94 + ROWS)
    with pytest.raises(ValueError, match=r"sft.first_row=94 and the 143 rows .* that no text"):
        cells.check_labels(asked, layers=3, vocab=93 + ROWS)
    cells.check_labels(dataclasses.replace(asked, first_row=93), layers=3, vocab=93 + ROWS)
    cells.check_labels(SftConfig(), layers=1, vocab=10)
    with pytest.raises(ValueError, match=r"sft.meant_layer=2 is no text block"):
        cells.check_labels(SftConfig(asked_weight=1.0), layers=2, vocab=94 + ROWS)


def test_of_an_imported_picture_nothing_is_said():
    for labels in cells.unknown_things((2, 3)):
        assert (labels == UNKNOWN).all()
