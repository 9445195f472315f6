"""What the comparison of a GRPO step prints, from figures made up here."""

import numpy as np
import pytest

from scripts.bench.grpo import run_ours, table
from scripts.bench.grpo_task import Task, cheap_reward
from tests.tiny_model import ASSETS


def test_the_table_has_medians_and_the_ratio_of_each_rounds_two_sides():
    def side(step_s, rollout_s):
        return {"prompt": 75, "tokens": 1000, "step_s": step_s, "rollout_s": rollout_s}

    rounds = [
        {"ours": side(1.0, 0.5), "trl": side(4.0, 1.0)},
        {"ours": side(2.0, 0.5), "trl": side(6.0, 2.0)},
        {"ours": side(1.0, 0.5), "trl": side(5.0, 1.0)},
    ]
    task = Task("model", "images.npy", pairs=5, group=2, tokens=100, warm=1, steps=1)
    head, step, rollout, rates = table(task, rounds).splitlines()
    assert "tokens a step: ours 1000, TRL 1000 (3 rounds)" in head
    assert "ours    1.000   TRL    5.000   ratio 4.00 (3.00-5.00)" in step
    assert "ratio 2.00 (2.00-4.00)" in rollout
    assert "ours 2000   HF generate 1000" in rates


def test_the_shared_reward_is_the_share_of_digits():
    assert cheap_reward("a1b2") == 0.5
    assert cheap_reward("") == 0.0


@pytest.mark.slow
def test_our_side_writes_every_token_of_every_answer(tmp_path):
    """The script follows the learner's functions, and no answer ends early."""
    np.save(tmp_path / "images.npy", np.zeros((1, 2, 64, 96, 3), np.uint8))
    sizes = {"pairs": 1, "group": 2, "tokens": 3, "warm": 1, "steps": 1}
    found = run_ours(Task(str(ASSETS), str(tmp_path / "images.npy"), **sizes))
    assert found["tokens"] == 6
    assert found["step_s"] > found["rollout_s"] > 0
