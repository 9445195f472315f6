"""The neighbours' rewards on answers scored by hand."""

import numpy as np
import pytest

from dig_jax.reward.neighbours import perception_r1, vision_reasoner, vlm_r1_weighted

A, B = [0, 0, 40, 40], [100, 100, 200, 200]
A_HALF = [0, 0, 20, 40]  # IoU 1/2 with A; corners off by 20 / 4 = 5 px
A_LOW = [0, 0, 10, 40]  # IoU 1/4, corners off by 7.5 px
B_OFF = [150, 100, 250, 200]  # IoU 1/3 with B, corners off by 25 px
FAR = [300, 300, 310, 310]
A_CLOSED = 21 * 41 / (41 * 41)  # IoU of A_HALF in VisionReasoner's closed pixels: > 0.5


@pytest.mark.parametrize(
    ("pred", "true", "perception", "vlm", "reasoner"),
    [
        ([A, B], [A, B], 1, 1, 2),
        ([B, A], [A, B], 1, 1, 2),
        ([A], [A, B], 1 / 2, 0.7 / 2 + 0.3 * (1 - 0.5 / 2), 2 / 2),
        ([A, FAR], [A], 1, 0.7 + 0.3 * (1 - 0.5 / 2), 2 / 2),
        ([A, A], [A], 1, 0.7 + 0.3 * (1 - 0.5 / 2), 2 / 2),
        ([A_HALF], [A], 1 / 2, 0.7 / 2 + 0.3, 2),
        ([A_LOW], [A], 1 / 4, 0, 1),  # close corners, little overlap
        ([B_OFF], [B], 1 / 3, 0, 0),
        ([A_LOW, B_OFF], [A, B], (1 / 4 + 1 / 3) / 2, 0, 1 / 2),
        ([FAR], [A], 0, 0, 0),
        ([], [A], 0, 0, 0),
        ([A], [], 0, 0, 0),
        ([], [], 1, 1, 0),
    ],
)
def test_neighbours_score_as_worked_out_by_hand(pred, true, perception, vlm, reasoner):
    assert perception_r1(pred, true) == pytest.approx(perception)
    assert vlm_r1_weighted(pred, true)["reward"] == pytest.approx(vlm)
    assert vision_reasoner(pred, true) == pytest.approx(reasoner)


def test_closed_pixels_are_what_lifts_the_half_box_over_the_threshold():
    assert A_CLOSED > 0.5
    assert vision_reasoner([[0, 0, 19, 40]], [A]) == 1  # 20 * 41 / 41^2 < 0.5: corner term only


def test_greedy_matching_loses_where_assignment_wins():
    """One prediction covers both truths best: greedy takes the better pair, then is stuck."""
    true = [[0, 0, 10, 10], [4, 0, 14, 10]]
    pred = [[3, 0, 13, 10], [5, 0, 15, 10]]
    iou = np.array([[7 / 13, 9 / 11], [5 / 15, 9 / 11]])
    assert perception_r1(pred, true) == pytest.approx((iou[0, 0] + iou[1, 1]) / 2)
    assert vlm_r1_weighted(pred, true)["reward"] == pytest.approx(0.7 * iou[0, 1] / 2 + 0.3 * 0.5)
