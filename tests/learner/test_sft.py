"""The cold start's labels: which token weighs what, which cell belongs to which box."""

import numpy as np
import pytest

from dig_jax.inputs.prompt import load_processor
from dig_jax.learner import sft
from scripts.make.tiny_tokenizer import write_tokenizer

CFG = sft.SftConfig()


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, seed=0)
    return load_processor(folder)


def weighed(processor, boxes, length=64) -> list[tuple[str, float]]:
    """(piece of text, weight) of every token with a weight."""
    tokens, weight = sft.answer_tokens(processor, np.float32(boxes).reshape(-1, 4), length, CFG)
    assert tokens.shape == weight.shape == (length,)
    end = int((weight > 0).sum())
    np.testing.assert_array_equal(tokens[end:], 0)
    np.testing.assert_array_equal(weight[end:], 0)
    texts = [processor.tokenizer.decode([t]) for t in tokens[:end]]
    return [(text, round(float(w), 3)) for text, w in zip(texts, weight, strict=False)]


def test_answers_are_written_in_qwens_frame_and_end_with_eos(processor):
    box = [[0.1, 0.25, 0.5, 1.0], [0.0, 0.0, 0.066, 0.5]]
    pieces = [text for text, _ in weighed(processor, box)]
    written = '[{"bbox_2d": [100, 250, 500, 1000]}, {"bbox_2d": [0, 0, 66, 500]}]'
    assert "".join(pieces) == written + "<|im_end|>"
    assert sft.answer_text(np.float32(box)) == written
    assert "".join(text for text, _ in weighed(processor, [])) == "[]<|im_end|>"


def test_digits_of_coordinates_weigh_by_their_place(processor):
    """The 2 of bbox_2d is no coordinate; a fourth digit counts as a third."""
    digits = [(t, w) for t, w in weighed(processor, [[0.123, 0.04, 0.5, 1.0]]) if t.isdigit()]
    assert digits[0] == ("2", CFG.scaffold)
    numbers = [("1", 3.0), ("2", 1.5), ("3", 0.2), ("4", 3.0), ("0", 1.5)]
    numbers += [("5", 3.0), ("0", 1.5), ("0", 0.2), ("1", 3.0), ("0", 1.5), ("0", 0.2), ("0", 0.2)]
    assert digits[1:] == numbers


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_another_box_and_the_end_of_the_list_weigh_the_same(processor, count):
    """Else the loss itself would favour short or long answers."""
    boxes = [[0.1, 0.1, 0.2, 0.2]] * count
    deciding = [text for text, w in weighed(processor, boxes) if w == CFG.stop]
    assert len(deciding) == max(count, 1)
    assert all(text.startswith("]") for text in deciding[: max(count - 1, 0)])


def test_an_answer_that_does_not_fit_is_an_error(processor):
    with pytest.raises(ValueError, match=r"of 3 boxes has \d+ tokens, more than 20.*max_tokens"):
        sft.answer_tokens(processor, np.full((3, 4), 0.5, np.float32), 20, CFG)
    sft.answer_tokens(processor, np.full((3, 4), 0.5, np.float32), 200, CFG)


def test_label_rows_are_tokens_that_no_answer_holds(processor):
    rng = np.random.default_rng(0)
    rows = sft._label_rows(CFG)
    assert len(rows) == 2 + 4 * sft.BINS + sft.RANKS
    for count in range(5):
        tokens, _ = sft.answer_tokens(processor, rng.random((count, 4)), 128, CFG)
        assert not np.isin(tokens, rows).any()


def test_boxes_are_read_from_the_top_then_from_the_left():
    boxes = np.float32([[0.5, 0.2, 1, 1], [0.1, 0.3, 1, 1], [0.2, 0.2, 1, 1]])
    np.testing.assert_array_equal(sft.reading_order(boxes), boxes[[2, 0, 1]])
    assert sft.reading_order(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_cells_belong_to_the_box_that_covers_them_most():
    """Two rows, three columns. Box 0 is the first cell exactly; box 1 the lower right corner and
    a fifth of the cells beside it; raster order."""
    boxes = np.float32([[0, 0, 1 / 3, 1 / 2], [0.6, 0.4, 1, 1]])
    changed, bins, rank = sft.cell_labels(boxes, 2, 3)
    np.testing.assert_array_equal(changed, [1, 0, 1, 0, 1, 1])
    np.testing.assert_array_equal(rank[changed > 0], [0, 1, 1, 1])
    np.testing.assert_array_equal(bins[0], [0, 0, 6, 10])
    np.testing.assert_array_equal(bins[5], [12, 8, 19, 19])


def test_a_cell_covered_by_an_eighth_is_changed_by_a_tenth_is_not():
    changed, _, _ = sft.cell_labels(np.float32([[0, 0, 0.25, 0.25]]), 2, 2)  # a quarter
    assert changed[0] == 1
    for side, expected in ((np.sqrt(1 / 8) / 2, 1), (np.sqrt(1 / 10) / 2, 0)):
        changed, _, _ = sft.cell_labels(np.float32([[0, 0, side, side]]), 2, 2)
        np.testing.assert_array_equal(changed, [expected, 0, 0, 0])


def test_late_boxes_share_the_last_rank_and_no_boxes_change_nothing():
    columns = [[x / 6, 0, (x + 1) / 6, 1] for x in range(6)]
    changed, _, rank = sft.cell_labels(np.float32(columns), 1, 6)
    np.testing.assert_array_equal(changed, 1)
    np.testing.assert_array_equal(rank, [0, 1, 2, 3, 3, 3])
    changed, bins, rank = sft.cell_labels(np.zeros((0, 4), np.float32), 2, 3)
    assert not changed.any()
    assert bins.shape == (6, 4)
    assert rank.shape == (6,)
