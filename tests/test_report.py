"""The report says what the evaluation files say, and refuses to compare what differs."""

import json

import numpy as np
import pytest

from dig_jax import report
from dig_jax.common import typed
from dig_jax.common.files import write_json
from dig_jax.config import Config, DataConfig, EvalConfig, to_json
from dig_jax.data import records
from dig_jax.scoring.metrics import METRICS

X, Y, PAIRS = 48, 32, 8
BOX = [0.25, 0.25, 0.5, 0.5]


def evaluation(name, reward, *, half=0.1, **protocol):
    """An eval_<name>.json in which every metric is reward / 3, give or take `half`."""
    share = reward / 3
    row = {"n_true": 1, "text": "", "verdict": "ok", "pred": [BOX], "true": [BOX]}
    row |= {"match": [0], "match_iou": [1.0], "f1": share, "iou": share, "reward": reward}
    names = (*METRICS, "f1_n1", "count_ok_n1", "n_pred_n1")
    summary = {metric: [share, share - half, share + half] for metric in names}
    summary["reward"] = [reward, reward - half, reward + half]
    protocol = {
        "split": "heldout",
        "pairs": PAIRS,
        "decode": "greedy",
        "iou_threshold": 0.5,
    } | protocol
    rows = [{"pair_id": i, **row} for i in range(PAIRS)]
    return {"name": name, "protocol": protocol, "summary": summary, "rows": rows}


def write(run, name, *args, **kwargs):
    (run / f"eval_{name}.json").write_text(json.dumps(evaluation(name, *args, **kwargs)))


@pytest.fixture
def run(tmp_path):
    """A run folder and its held-out pairs, as the other commands leave them."""
    run = tmp_path / "run"
    run.mkdir()
    data = DataConfig(root=str(tmp_path / "data"), image_width=X, image_height=Y)
    cfg = Config(name="fake", run_dir=str(run), data=data, eval=EvalConfig(pairs=3, batch=5))
    (run / "config.json").write_text(to_json(cfg))
    times = {"time/step": 2.0, "time/rollout": 0.5}
    rows = [{"kind": "train", "step": s, "stage": 0, "reward": 1.0, "tokens": 50} for s in range(4)]
    rows = [row | times for row in rows]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    start = {"first_step": 0, "commit": "abc123", "versions": {"jax": "1.2.3"}}
    (run / "manifest.json").write_text(json.dumps({"starts": [start]}))
    write_pairs(tmp_path / "data" / "heldout")
    for name, reward in (("before", 1.0), ("after", 1.5), ("pixel_diff", 2.0)):
        write(run, name, reward)
    return run


def write_pairs(folder):
    folder.mkdir(parents=True)
    images = np.zeros((2, Y, X, 3), np.uint8)
    mask = np.zeros((Y, X), np.uint8)
    pair = records.Pair(*images, mask, mask, {"differences": [{"id": 1, "box": [4, 4, 12, 12]}]})
    shard = folder / records.shard_name(0, 1)
    entry = records.write_shard(shard, [records.encode(pair)] * PAIRS, {})
    manifest = {"complete": True, "shard_count": 1, "shards": [entry]}
    write_json(folder / records.MANIFEST, manifest)


def test_the_report_is_complete(run):
    """All files, every metric of all three rows, the stated run."""
    printed = report.write_report(run)
    made = {path.name for path in run.glob("*.png")}
    assert made == {"curves.png", "contact_before.png", "contact_after.png", "pair.png"}
    text = (run / "report.md").read_text()
    assert "| before | 0.333 [0.233, 0.433] |" in text
    assert "| pixel difference | 0.667 [0.567, 0.767] |" in text
    for word in (
        "F1@0.5",
        "count accuracy, n = 1",
        "abc123",
        "jax 1.2.3",
        "| 100 |",
        "(curves.png)",
    ):
        assert word in text, word
    assert "left out" not in printed
    cells = "mean reward 1.000 [0.900, 1.100] 1.500 [1.400, 1.600] 2.000 [1.900, 2.100]"
    assert cells in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(("half", "apart"), [(0.1, True), (0.125, False), (0.4, False)])
def test_a_rise_inside_the_intervals_is_not_called_one(half, apart):
    """Touching bounds, as with 0.125 around 1.25 and 1.5, do not count as apart."""
    pair = (evaluation("before", 1.25, half=half), evaluation("after", 1.5, half=half))
    assert (", outside the intervals" in report.verdict(*pair)) == apart
    assert ("NOT outside" in report.verdict(*pair)) != apart


def test_the_baseline_may_be_missing_but_not_the_policy(run):
    (run / "eval_pixel_diff.json").unlink()
    assert list(report.read_evaluations(run)) == ["before", "after"]
    (run / "eval_after.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"eval_after.json .* --name after --from-run"):
        report.read_evaluations(run)
    write(run, "after", 1.5)  # as that command does (see test_train)
    assert list(report.read_evaluations(run)) == ["before", "after"]


@pytest.mark.parametrize(
    ("field", "value"), [("split", "dev"), ("iou_threshold", 0.7), ("decode", "8 samples")]
)
def test_two_protocols_do_not_share_a_table(run, field, value):
    write(run, "after", 1.5, **{field: value})
    wrong = rf"eval_after.json has {field}={value!r}, .*; evaluate both again with one config"
    with pytest.raises(ValueError, match=wrong):
        report.read_evaluations(run)
    for name in report.NAMES:
        write(run, name, 1.5, **{field: value})
    assert len(report.read_evaluations(run)) == 3


def test_a_damaged_evaluation_is_deleted_and_made_again_as_advised(run):
    path = run / "eval_after.json"
    path.write_text('{"summary": ')
    with pytest.raises(ValueError, match=r"eval_after.json .*; delete it, and evaluate again"):
        report.read_evaluations(run)
    path.unlink()
    write(run, "after", 1.5)
    assert "after" in report.read_evaluations(run)


def test_a_baseline_needs_no_decoding_but_the_same_pairs(run):
    write(run, "pixel_diff", 2.0, decode="none")
    assert list(report.read_evaluations(run)) == ["before", "after", "pixel_diff"]
    other = evaluation("pixel_diff", 2.0)
    other["rows"][0]["pair_id"] = 99
    (run / "eval_pixel_diff.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="scored different pairs"):
        report.read_evaluations(run)


def test_a_run_folder_without_its_data_still_reports(run):
    """As after copying it from another machine: the table stands, the sheets are missing."""
    cfg = report.from_json((run / "config.json").read_text())
    moved = typed.override(cfg, ["data.root=elsewhere"])
    (run / "config.json").write_text(to_json(moved))
    printed = report.write_report(run)
    assert "left out: contact sheets: elsewhere/heldout holds no rendered pairs" in printed
    text = (run / "report.md").read_text()
    assert "contact_before.png" not in text
    assert "Left out: contact sheets" in text


def test_a_folder_that_is_no_run_is_named(run, tmp_path, capsys):
    assert report.main([str(tmp_path / "none")]) == 1
    told = capsys.readouterr().err
    assert (
        f"{tmp_path / 'none' / 'config.json'} does not exist; is {tmp_path / 'none'} a run" in told
    )
    assert report.main([str(run)]) == 0


def test_the_report_tells_what_the_numbers_depend_on_and_what_later_starts_changed(run):
    path = run / "manifest.json"
    first = {"first_step": 0, "depends": {"data.dual": "8 pairs 11"}, "commit": "abc123"}
    first |= {"stopped": {"step": 2, "why": "loss=nan"}}
    second = {"first_step": 2, "depends": {"data.dual": "8 pairs 22"}, "commit": "abc123"}
    second |= {"changed": {"optim.rate": [0.1, 0.01]}}
    second |= {"accepted": {"data.dual": ["8 pairs 11", "8 pairs 22"]}}
    path.write_text(json.dumps({"run": "1", "starts": [first, second]}))
    report.write_report(run)
    text = (run / "report.md").read_text()
    assert "| what | value |\n|---|---|\n| data.dual | 8 pairs 22 |" in text
    for row in (
        "| 2 | changed | optim.rate | 0.1 | 0.01 |",
        "| 2 | accepted | data.dual | 8 pairs 11 | 8 pairs 22 |",
        "| 2 | stopped | loss=nan |  |  |",
    ):
        assert row in text
