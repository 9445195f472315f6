"""The table of rewards over one file of generations."""

import json

import numpy as np
import pytest

from dig_jax.config import Config, RewardConfig
from scripts.study import compare_rewards

A, B = [0.0, 0.0, 0.25, 0.5], [0.5, 0.5, 1.0, 1.0]
TEXT_A, TEXT_B = (f'[{{"bbox_2d": {[round(1000 * x) for x in box]}}}]' for box in (A, B))


def pair(number, truth, *texts):
    answers = [{"text": text, "ended": True, "tokens": 9} for text in texts]
    size = {"width": 96, "height": 64}
    return {"pair_id": number, "bucket": "heldout", **size, "truth": truth, "answers": answers}


PAIRS = [pair(0, [A], TEXT_A, TEXT_B), pair(1, [A, B], TEXT_A, TEXT_B), pair(2, [B], TEXT_B)]


def table(**own):
    functions = compare_rewards.rewards(RewardConfig()) | own
    rows = compare_rewards.compare(functions, compare_rewards.groups_of(RewardConfig(), PAIRS))
    return rows[0], {name: dict(zip(rows[0][1:], row, strict=True)) for name, *row in rows[1:]}


def test_the_table_has_a_row_per_function_and_the_figures_of_the_answers():
    """DiG's rewards: 3, 1 | 1 + 2/3 + 1/2 twice | 3."""
    head, rows = table(tokens=lambda sample: float(sample.tokens), worse=lambda s: -len(s.text))
    want = ["dig", "dig format_only", "dig with_iou", "dig with_f1", "dig full", "perception_r1"]
    assert [*rows][:6] == want
    assert [*rows][6:] == ["vlm_r1_weighted", "vlm_r1_ap", "vision_reasoner", "tokens", "worse"]
    assert head[-2:] == ["mean, 1 true", "mean, 2 true"]
    scores = [3, 1, 2 + 1 / 6, 2 + 1 / 6, 3]
    assert rows["dig"] == {
        "mean": f"{np.mean(scores):.3f}", "std": f"{np.std(scores):.3f}", "flat groups": "0.667",
        "rank corr. with dig": "1.000", "mean, 1 true": "2.333", "mean, 2 true": "2.167",
    }  # fmt: skip
    assert rows["dig full"] == rows["dig"]
    assert (rows["tokens"]["rank corr. with dig"], rows["tokens"]["flat groups"]) == ("-", "1.000")
    assert rows["dig format_only"]["mean"] == "1.000"


def test_rank_correlation_is_spearmans():
    assert compare_rewards.rank_correlation(np.array([1, 2, 3]), np.array([1, 8, 9])) == 1
    assert compare_rewards.rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 0])) == -1
    assert np.isnan(compare_rewards.rank_correlation(np.ones(3), np.arange(3)))


def test_the_table_is_made_again_from_the_file_without_a_model(tmp_path, capsys):
    file = tmp_path / "answers.jsonl"
    compare_rewards.write_answers(file, PAIRS)
    assert compare_rewards.read_answers(file) == PAIRS
    compare_rewards.main(["--answers", str(file)])
    printed = capsys.readouterr().out
    assert "5 answers to 3 pairs" in printed
    assert "| dig | 2.267 |" in printed
    compare_rewards.main(["--answers", str(file), "--set", "reward.w_f1=0"])
    assert "| dig | 1.600 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "JSONDecodeError"),
        (json.dumps({"pair_id": 1}), "KeyError: 'answers'"),
        (json.dumps(pair(1, [A])), "no answers"),
        (json.dumps(pair(1, [[1, 2]], TEXT_A)), "ValueError"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, line, what):
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps(PAIRS[0]) + "\n" + line + "\n")
    with pytest.raises(SystemExit, match=rf"answers.jsonl line 2 is no pair with answers .*{what}"):
        compare_rewards.main(["--answers", str(file)])


def test_without_answers_a_config_is_needed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        compare_rewards.main(["--answers", str(tmp_path / "absent.jsonl")])
    assert "give --config" in capsys.readouterr().err


def test_rows_of_a_batch_keep_real_pairs_and_their_answers():
    from dig_jax.boxes import pad_boxes
    from dig_jax.data.feed.batch import Batch

    batch = Batch(
        images=np.zeros((2, 2, 4, 4, 3), np.uint8),
        truth=pad_boxes([[A], [A]], 3),
        kind=np.zeros((2, 3), np.int32),
        pair_id=np.array([5, 5]),
        bucket=np.array([-1, -1]),
        real=np.array([True, False]),
    )
    texts, ended, tokens = [["[]", "x"]] * 2, np.array([[True, False]] * 2), np.array([[2, 20]] * 2)
    (row,) = compare_rewards.batch_rows(Config(), batch, texts, ended, tokens)
    (samples,) = compare_rewards.groups_of(RewardConfig(), [row])
    assert [(s.text, s.ended, s.tokens) for s in samples] == [("[]", True, 2), ("x", False, 20)]
    assert samples[0].truth.tolist() == [A]
    assert samples[0].meta["pair_id"] == 5
