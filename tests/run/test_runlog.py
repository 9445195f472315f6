"""The run folder: rows, resume, timing apart from numbers, one line per step."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dig_jax.config import Config, config_hash, from_json
from dig_jax.run import runlog


def config(tmp_path):
    return Config(run_dir=str(tmp_path / "run"))


def write_steps(cfg, steps, first=0):
    with runlog.RunLog(cfg, first) as log:
        for step in steps:
            log.write(step, {"reward": jnp.float32(0.1 * step), "kl": 0.0}, stage=0)


def steps_of(cfg):
    return [row["step"] for row in runlog.read_rows(cfg.run_dir)]


def test_a_row_keeps_every_bit_of_a_number(tmp_path):
    cfg = config(tmp_path)
    value = np.float32(1) / np.float32(3)
    with runlog.RunLog(cfg) as log:
        log.write(0, {"loss": jnp.asarray(value), "count": np.int32(4), "note": "a"}, stage=1)
    (row,) = runlog.read_rows(cfg.run_dir)
    assert np.float32(row["loss"]) == value
    assert runlog.comparable(row) == {
        "kind": "train",
        "step": 0,
        "stage": 1,
        "loss": float(value),
        "count": 4,
        "note": "a",
    }


def test_time_stands_apart_from_what_must_repeat(tmp_path):
    cfg = config(tmp_path)
    with runlog.RunLog(cfg) as log:
        with log.timed("rollout"):
            sum(range(1000))
        with log.timed("rollout"):
            sum(range(1000))
        log.write(0, {"reward": 1.0, "time/tokens_per_s": 5.0})
        log.write(1, {"reward": 1.0})
    first, second = runlog.read_rows(cfg.run_dir)
    assert {"time/rollout", "time/step", "time/tokens_per_s"} <= set(first)
    assert "time/rollout" not in second
    assert set(runlog.comparable(first)) == {"kind", "step", "reward"}


def test_resuming_replaces_later_rows_and_loses_none(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, range(6))
    write_steps(cfg, [4, 5, 6], first=4)
    assert steps_of(cfg) == [0, 1, 2, 3, 4, 5, 6]
    replaced = (tmp_path / "run" / "metrics.replaced.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in replaced] == [4, 5]


def test_a_line_cut_off_by_a_kill_is_dropped_on_resume(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, range(3))
    with (tmp_path / "run" / runlog.METRICS).open("a") as file:
        file.write('{"kind": "train", "step": 3, "rew')
    assert steps_of(cfg) == [0, 1, 2]
    write_steps(cfg, [3], first=3)
    assert steps_of(cfg) == [0, 1, 2, 3]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, range(2))
    path = tmp_path / "run" / runlog.METRICS
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ValueError, match=r"line 1 is not a JSON row .*; move the file away to go"):
        write_steps(cfg, range(2, 4), first=2)
    path.rename(path.with_name("away"))
    write_steps(cfg, range(2, 4), first=2)
    assert steps_of(cfg) == [2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_not_finite_is_kept_and_stops_the_run(tmp_path, value):
    cfg = config(tmp_path)
    with (
        runlog.RunLog(cfg) as log,
        pytest.raises(FloatingPointError, match=r"step 3: grad_norm=(nan|inf)"),
    ):
        log.write(3, {"reward": 1.0, "grad_norm": jnp.float32(value)})
    assert runlog.read_rows(cfg.run_dir)[0]["grad_norm"] in ("nan", "inf")


def test_a_metric_with_a_shape_is_refused(tmp_path):
    with (
        runlog.RunLog(config(tmp_path)) as log,
        pytest.raises(ValueError, match=r"metric reward has shape \(2,\); reduce it"),
    ):
        log.write(0, {"reward": jnp.zeros(2)})
    with runlog.RunLog(config(tmp_path)) as log:
        log.write(0, {"reward": jnp.zeros(2).mean()})
    assert runlog.read_rows(config(tmp_path).run_dir)[0]["reward"] == 0.0


def test_writing_works_under_the_transfer_guard(tmp_path):
    cfg, value = config(tmp_path), jax.device_put(jnp.float32(2.0))
    with runlog.RunLog(cfg) as log, jax.transfer_guard("disallow"):
        log.write(0, {"reward": value})
    assert runlog.read_rows(cfg.run_dir)[0]["reward"] == 2.0


def test_the_console_line_tells_step_stage_numbers_and_time_left(tmp_path, capsys):
    with runlog.RunLog(config(tmp_path), shown=("reward",)) as log:
        log.write(29, {"reward": 1.25, "kl": 0.5}, stage=1)
        log.write(30, {"f1": 0.5, "reward": 2.0}, kind="eval")
    line, evaluation = capsys.readouterr().out.splitlines()
    assert line.startswith("[#####-----] step 30/60 stage 1  reward 1.25  (")
    assert line.endswith(" left)")
    assert evaluation == "eval after 31/60 steps  reward 2"


def test_the_line_of_a_validation_groups_its_scores(tmp_path, capsys):
    scores = {"greedy/f1": 0.5, "greedy/f1_n1": 0.5, "sampled/f1": 0.25, "greedy/controls/empty": 1}
    with runlog.RunLog(config(tmp_path), shown=("f1",)) as log:
        log.write(-1, scores, kind="eval")
    line = capsys.readouterr().out.strip()
    assert line == (
        "eval after 0/60 steps  greedy/controls: empty 1   greedy: f1 0.5   sampled: f1 0.25"
    )


def test_the_folder_tells_what_ran_and_every_start(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, [0])
    write_steps(cfg, [1], first=1)
    folder = tmp_path / "run"
    assert from_json((folder / "config.json").read_text()) == cfg
    starts = json.loads((folder / "manifest.json").read_text())["starts"]
    assert [start["first_step"] for start in starts] == [0, 1]
    assert starts[0]["config_hash"] == config_hash(cfg)
    assert starts[0]["versions"]["jax"] == jax.__version__
    assert str(tmp_path) not in json.dumps(starts)


def test_rows_can_be_read_by_kind(tmp_path):
    cfg = config(tmp_path)
    with runlog.RunLog(cfg) as log:
        log.write(0, {"f1": 0.1}, kind="eval")
        log.write(0, {"reward": 0.1})
    assert [row["kind"] for row in runlog.read_rows(cfg.run_dir)] == ["eval", "train"]
    assert len(runlog.read_rows(cfg.run_dir, kind="eval")) == 1


def test_progress_yields_every_item_and_says_nothing_when_quick(capsys):
    assert list(runlog.progress(range(5), "pairs")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("fault", ["digit", "lost"])
def test_a_changed_row_of_metrics_is_named_before_it_is_used(fault, tmp_path):
    cfg = config(tmp_path)
    with runlog.RunLog(cfg) as log:
        for step in range(3):
            log.write(step, {"loss": 1.0 + step})
    path = Path(cfg.run_dir) / runlog.METRICS
    lines = path.read_text().splitlines(keepends=True)
    if fault == "digit":
        lines[0] = lines[0].replace('"loss": 1.0', '"loss": 7.0')
    else:
        del lines[1]
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"metrics\.jsonl line [12]: it or a row before it"):
        runlog.read_rows(cfg.run_dir)
    path.rename(path.with_suffix(".damaged"))  # the remedy
    with runlog.RunLog(cfg, 3) as log:
        log.write(3, {"loss": 4.0})
    assert [row["step"] for row in runlog.read_rows(cfg.run_dir)] == [3]


def test_rows_that_do_not_reach_the_checkpoint_are_told(tmp_path, capsys):
    with runlog.RunLog(config(tmp_path)) as log:
        log.write(0, {"loss": 1.0})
    with runlog.RunLog(config(tmp_path), 3):
        pass
    assert "metrics.jsonl lacks the rows of steps 2 to 3" in capsys.readouterr().out


def test_ten_steps_that_teach_nothing_are_told_once_also_across_a_resume(tmp_path, capsys):
    """Flat with a KL that moves, or masked without; a step that teaches begins a new count."""
    cfg = config(tmp_path)
    idle = [{"flat_groups": 1.0, "moved": 1.0}, {"flat_groups": 0.0, "moved": 0.0}] * 10
    with runlog.RunLog(cfg) as log:
        log.write(0, {"flat_groups": 0.5, "moved": 1.0})
        for step in range(1, 8):
            log.write(step, idle[step])
    with runlog.RunLog(cfg, 8) as log:
        for step in range(8, 16):
            log.write(step, idle[step])
    rows = runlog.read_rows(cfg.run_dir)
    told = [row["step"] for row in rows if "warning" in row]
    assert told == [runlog.IDLE_STEPS]
    lines = capsys.readouterr().out.splitlines()
    printed = [line for line in lines if line.startswith("warning: ")]
    assert len(printed) == 1
    assert "no answer had an advantage in the last 10 steps: nothing is learned" in printed[0]
