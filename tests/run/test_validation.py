"""What a validation reports: by hand values, when it is due, and what it refuses."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from dig_jax.boxes import boxes_text, pad_boxes
from dig_jax.config import Config, DataConfig, EvalConfig, RewardConfig
from dig_jax.data.feed.batch import KINDS, Batch
from dig_jax.data.feed.checks import check_data
from dig_jax.data.feed.pipeline import eval_pairs
from dig_jax.reward.reward import make_reward, score_texts
from dig_jax.run import validation
from dig_jax.scoring.rows import answer_rows, found_boxes
from dig_jax.scoring.statistics import summarize, values_by_metric
from tests.test_train import HEIGHT, WIDTH, write_split

A, B = [0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8]
CFG = RewardConfig()


def boxes(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def scored(truths, answers, kinds):
    """Rows of pairs with these true boxes, types and G answers each (lists of boxes)."""
    count = len(truths)
    truth = pad_boxes([boxes(*t) for t in truths], 3)
    codes = [[KINDS.index(k) for k in row] + [-1] * (3 - len(row)) for row in kinds]
    batch = Batch(
        images=np.zeros((count, 2, 4, 4, 3), np.uint8),
        truth=truth,
        kind=np.array(codes, np.int32),
        pair_id=np.arange(count, dtype=np.int32),
        bucket=np.zeros(count, np.int32),
        real=np.ones(count, bool),
    )
    texts = [[a if isinstance(a, str) else boxes_text(boxes(*a)) for a in row] for row in answers]
    ended = np.ones((count, len(texts[0])), bool)
    reward, parsed = score_texts(texts, ended, truth, make_reward(CFG), CFG)
    return answer_rows(CFG, batch, texts, parsed, reward)


def test_recall_by_type_is_of_the_boxes_of_that_type():
    """Pair 0: A (color) found by both answers, B (add) by one; pair 1: A (color) by none."""
    rows = scored([[A, B], [A]], [[[A, B], [A]], [[B], []]], [["color", "add"], ["color"]])
    assert rows[0]["kinds"] == ["color", "add"]
    assert rows[0]["found"] == [1.0, 0.5]
    values = values_by_metric(rows)
    assert values["recall_color"] == [1.0, 0.0]
    assert values["recall_add"] == [0.5]
    assert "recall_size" not in values
    assert validation.split_means(rows)["recall_color"] == 0.5
    mean, low, high = summarize(rows, resamples=50)["recall_color"]
    assert low <= mean == 0.5 <= high


def test_the_found_boxes_add_up_to_the_recall():
    rng = np.random.default_rng(0)
    corner = np.sort(rng.uniform(0, 1, (40, 2, 2)), axis=1).reshape(40, 4).astype(np.float32)
    near = np.clip(corner + rng.normal(0, 0.03, corner.shape), 0, 1)
    truths = [corner[i : i + 2].tolist() for i in range(0, 40, 2)]
    answers = [[near[i : i + 2].tolist(), near[i : i + 1].tolist()] for i in range(0, 40, 2)]
    rows = scored(truths, answers, [["size", "shape"]] * 20)
    assert 0 < np.mean([row["recall"] for row in rows]) < 1
    for row in rows:
        assert np.mean(row["found"]) == pytest.approx(row["recall"], abs=1e-6)


def test_boxes_found_of_nothing_are_none():
    assert found_boxes(CFG, [boxes(A), boxes()], boxes()) == []
    assert found_boxes(CFG, [boxes()], boxes(A)) == [0.0]


def test_a_control_is_right_only_when_it_is_well_formed_and_empty():
    """[] is right; prose names no box either, but is not an answer; a box is wrong."""
    rows = scored([[]] * 3, [[[], []], [[], "no difference"], [[A], [A, B]]], [[]] * 3)
    assert [row["empty"] for row in rows] == [1.0, 0.5, 0.0]
    assert validation.control_means(rows) == pytest.approx({"empty": 0.5, "n_pred": 0.5})


@pytest.mark.parametrize(
    ("every", "at_start", "due"),
    [(2, True, [-1, 1, 3]), (2, False, [1, 3]), (0, True, []), (1, True, [-1, 0, 1, 2, 3, 4])],
)
def test_a_validation_is_due_after_every_so_many_steps(every, at_start, due):
    cfg = EvalConfig(every=every, at_start=at_start)
    assert [step for step in range(-1, 5) if validation.is_due(cfg, step)] == due


@pytest.fixture
def config(tmp_path) -> Config:
    for name, pairs, differences in (("single", 4, 1), ("heldout", 4, 2), ("same", 2, 0)):
        write_split(tmp_path, name, pairs, differences)
    data = DataConfig(
        root=str(tmp_path), image_width=WIDTH, image_height=HEIGHT, buckets=("single",)
    )
    stages = dataclasses.replace(Config().curriculum.stages[0], until=60)
    curriculum = dataclasses.replace(Config().curriculum, stages=(stages,))
    return Config(data=data, curriculum=curriculum, eval=EvalConfig(pairs=4, batch=4, every=1))


def with_eval(cfg, **fields):
    return dataclasses.replace(cfg, eval=dataclasses.replace(cfg.eval, **fields))


def test_a_missing_split_is_refused_with_the_command_that_makes_it(config):
    command = r"test_novel holds no rendered pairs; make them with `python -m dig_jax.data render"
    for fields in ({"splits": ("test_novel",)}, {"controls": "test_novel"}):
        with pytest.raises(FileNotFoundError, match=command):
            check_data(with_eval(config, **fields))
        check_data(with_eval(config, every=0, **fields))  # not read by such a run


def test_controls_with_differences_are_refused(config):
    assert check_data(with_eval(config, controls="same"))["same"] == 2
    write_split(Path(config.data.root), "other", 2, 1)
    with pytest.raises(ValueError, match=r"eval.controls='other', but pair 0 .* has 1 diff"):
        check_data(with_eval(config, controls="other"))


def test_batches_bear_the_types_of_their_differences(config):
    (batch,) = eval_pairs(config)
    assert [KINDS[k] for k in batch.kind[0][:2]] == ["add", "other"]
    assert (batch.kind[0][2:] == -1).all()
    assert (batch.kind >= 0).sum() == batch.truth.valid.sum()


def test_a_split_beside_the_main_one_may_hold_fewer_pairs(config):
    (batch,) = eval_pairs(config, "same", fewer=True)
    assert batch.real.tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"eval.pairs=4, but .*same holds 2"):
        eval_pairs(config, "same")
