"""Trackers show the rows of metrics.jsonl once each, and none of them can stop a run."""

import importlib.machinery
import importlib.util
import struct
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from dig_jax.common import typed
from dig_jax.config import Config, LogConfig
from dig_jax.run import papers, runlog, trackers

PICTURE = np.zeros((4, 6, 3), np.uint8)


def config(tmp_path, *names):
    log = LogConfig(trackers=names, project="p")
    return Config(name="n", run_dir=str(tmp_path / "run"), log=log)


def write_steps(cfg, first, last):
    with runlog.RunLog(cfg, first) as log:
        if not first:
            log.write(-1, {"greedy/f1": 0.5}, kind="eval")
        for step in range(first, last):
            log.write(step, {"reward": 0.5 * step, "note": "text"}, stage=0)
            log.show(step, "samples", PICTURE)


def events(cfg):
    """Every event of the run's TensorBoard files, in the order they were written."""
    found = []
    for path in sorted((runlog.Path(cfg.run_dir) / trackers.FOLDER).iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):  # TFRecord: length, checksum, bytes, checksum
            (size,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += size + 16
    return found


def visible(cfg, tag):
    """[step, value] of a scalar as TensorBoard shows it: a start hides what it tells again."""
    points = []
    for event in events(cfg):
        if event.session_log.status == SessionLog.START:
            points = [point for point in points if point[0] < event.step]
        points += [[event.step, v.simple_value] for v in event.summary.value if v.tag == tag]
    return points


class Fake(ModuleType):
    """What wandb and trackio have in common, remembering what it is told."""

    Image = staticmethod(lambda picture: ("image", picture.shape))

    def __init__(self, name, fails=()):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.starts, self.told, self.finished, self.fails = [], [], 0, fails

    def init(self, **start):
        self._fail("init")
        self.starts.append(start)
        return self

    def log(self, values, step):
        self._fail("log")
        self.told.append((step, values))

    def finish(self):
        self._fail("finish")
        self.finished += 1

    def _fail(self, what):
        if what in self.fails:
            raise RuntimeError(f"no {what} today")

    def rewards(self):
        return [(step, row["train/reward"]) for step, row in self.told if "train/reward" in row]


@pytest.fixture(params=["wandb", "trackio"])
def online(request, monkeypatch):
    fake = Fake(request.param)
    monkeypatch.setitem(sys.modules, request.param, fake)
    return fake


def test_tensorboard_has_every_number_at_the_steps_done(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, 0, 3)
    assert visible(cfg, "train/reward") == [[1, 0.0], [2, 0.5], [3, 1.0]]
    assert visible(cfg, "eval/greedy/f1") == [[0, 0.5]]
    assert [step for step, _ in visible(cfg, "time/step")] == [1, 2, 3]
    images = [v for event in events(cfg) for v in event.summary.value if v.HasField("image")]
    assert {(v.image.height, v.image.width) for v in images} == {(4, 6)}
    tags = {v.tag for event in events(cfg) for v in event.summary.value}
    assert "train/note" not in tags


def test_a_resumed_run_shows_no_step_twice(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, 0, 5)
    write_steps(cfg, 3, 6)
    assert [step for step, _ in visible(cfg, "train/reward")] == [1, 2, 3, 4, 5, 6]
    write_steps(cfg, 0, 2)
    assert visible(cfg, "train/reward") == [[1, 0.0], [2, 0.5]]
    assert visible(cfg, "eval/greedy/f1") == [[0, 0.5]]


def test_every_row_is_on_disk_before_the_next_step(tmp_path):
    """What a killed run has told stays told: nothing waits in a queue."""
    cfg = config(tmp_path)
    with runlog.RunLog(cfg) as log:
        log.write(0, {"reward": 1.0})
        assert visible(cfg, "train/reward") == [[1, 1.0]]


def test_an_online_tracker_gets_the_rows_the_pictures_and_the_configuration(tmp_path, online):
    cfg = config(tmp_path, online.__name__)
    write_steps(cfg, 0, 2)
    (start,) = online.starts
    assert start["project"] == "p"
    assert start["config"] == typed.to_plain(cfg)
    assert online.rewards() == [(1, 0.0), (2, 0.5)]
    assert (1, {"samples": ("image", (4, 6, 3))}) in online.told
    assert online.finished == 1


def test_a_resumed_run_goes_on_in_the_same_tracked_run(tmp_path, online):
    """Rows of replaced steps are there already; the last may be not, so it is told again."""
    cfg = config(tmp_path, online.__name__)
    write_steps(cfg, 0, 5)
    online.told.clear()
    write_steps(cfg, 3, 7)
    names = [(start.get("id"), start["name"]) for start in online.starts]
    assert names[0] == names[1]
    assert [start["resume"] for start in online.starts] == ["allow", "allow"]
    assert [step for step, _ in online.rewards()] == [5, 6, 7]


def test_a_tracker_that_joins_later_is_told_what_it_missed(tmp_path, online):
    write_steps(config(tmp_path), 0, 4)
    write_steps(config(tmp_path, online.__name__), 3, 5)
    assert [step for step, _ in online.rewards()] == [1, 2, 3, 4, 5]
    assert (0, {"eval/greedy/f1": 0.5}) in [
        (step, {k: v for k, v in row.items() if "time" not in k}) for step, row in online.told
    ]


@pytest.mark.parametrize("what", ["init", "log", "finish"])
def test_a_tracker_that_raises_is_reported_once_and_the_run_goes_on(
    tmp_path, monkeypatch, capsys, what
):
    fake = Fake("wandb", fails=(what,))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    cfg = config(tmp_path, "wandb")
    write_steps(cfg, 0, 3)
    told = capsys.readouterr().err
    assert told.count("switched off") == 1
    assert f"RuntimeError: no {what} today" in told
    assert [row["step"] for row in runlog.read_rows(cfg.run_dir)] == [-1, 0, 1, 2]
    assert len(visible(cfg, "train/reward")) == 3


def test_a_missing_tracker_is_refused_with_its_command(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        trackers.importlib.util,
        "find_spec",
        lambda name: None if name == "trackio" else found(name),
    )
    with pytest.raises(ValueError, match=r"log.trackers names 'trackio'.*`pip install trackio`"):
        trackers.check_trackers(LogConfig(trackers=("trackio",)))
    trackers.check_trackers(LogConfig())


def test_no_tracker_is_imported_unless_it_is_asked_for():
    asked = "{'wandb', 'trackio', 'tensorboardX'}"
    code = f"import sys, dig_jax.run.trackers; print({asked} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "settings",
    [["log.trackers=wandb,wandb"], ["log.samples=0"], ["log.samples_every=-1"], ["log.project= "]],
)
def test_a_wrong_log_setting_is_refused_by_name(settings):
    with pytest.raises(ValueError, match=settings[0].partition("=")[0]):
        typed.override(Config(), settings)


@pytest.mark.parametrize("text", ["", '{"wandb": ', '{"wandb": "x", "seal": "0"}', "[]"])
def test_damaged_names_of_trackers_are_named_and_the_remedy_works(tmp_path, text):
    cfg = config(tmp_path)
    write_steps(cfg, 0, 1)
    path = tmp_path / "run" / trackers.IDS
    trackers.write_ids(path.parent, {"wandb": "a1"})
    assert trackers.read_ids(path.parent) == {"wandb": "a1"}
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"{path} .*; take its copy back, or move it away"):
        papers.check_papers(cfg)
    path.unlink()
    papers.check_papers(cfg)


def test_names_of_trackers_of_another_run_or_an_older_version_are_told_apart(tmp_path):
    cfg = config(tmp_path)
    write_steps(cfg, 0, 1)
    other = typed.override(cfg, [f"run_dir={tmp_path}/other"])
    write_steps(other, 0, 1)
    trackers.write_ids(other.run_dir, {"wandb": "b2"})
    path = tmp_path / "run" / trackers.IDS
    path.write_text((tmp_path / "other" / trackers.IDS).read_text())
    with pytest.raises(ValueError, match=rf"{path} is another run's"):
        papers.check_papers(cfg)
    path.write_text('{"wandb": "c3"}')  # as it was written before
    papers.check_papers(cfg)
    assert trackers.read_ids(path.parent) == {"wandb": "c3"}
