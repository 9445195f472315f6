"""No room, no rights, no memory in a run: a clear stop, nothing lost, the same command goes on."""

import sys

import pytest

from dig_jax import report
from dig_jax.common.files import NoRoom
from dig_jax.convert.__main__ import main as convert
from dig_jax.run import arrays, best, checkpoint, manifest, resume, runlog, samples, trackers
from dig_jax.run.runlog import comparable, read_rows
from tests import ROOT
from tests.run.test_corruption import config, evaluate, going_on, make_hf, train
from tests.small_disk import fill, grow, leftovers, mounted, needs_mounts, run_program
from tests.test_train import config_file, micro_config, start
from tests.tiny_model import small_base

LEFT = r"disk has 0.0 MB left; (free|.* the same command)"
COMPARED = ("later", "final", "steps", "rows", "best")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run comes to."""
    return going_on(tmp_path_factory.mktemp("whole"))


def appended(name):
    def writes(path, *_):
        return path.name == name

    return writes


def any_call(*_):
    return True


WRITERS = {  # where the disk fills: module, function, of its calls which one, which count
    "rows": (runlog, "_append", appended(runlog.METRICS), 7),
    "samples": (runlog, "_append", appended(samples.ROWS), 3),
    "best weights": (arrays, "save_params", any_call, 2),
    "best facts": (arrays, "write_anywhere", lambda path, _: path.name == best.FACTS, 2),
    "checkpoint": (checkpoint, "save", any_call, 2),
    "half a checkpoint": (checkpoint, "_open", any_call, 2),
    "manifest": (manifest, "add_start", any_call, 1),
    "config": (manifest, "write_settings", any_call, 1),
    "trackers": (trackers, "write_ids", any_call, 1),
}


@needs_mounts
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_fills_up_stops_a_run_which_then_goes_on(name, whole, tmp_path, monkeypatch):
    module, function, is_one, count = WRITERS[name]
    real, calls = getattr(module, function), []
    with mounted(tmp_path / "disk", 16000) as disk:

        def filling(*args, **kwargs):
            calls.append(bool(is_one(*args)))
            if calls[-1] and sum(calls) == count:
                fill(disk)
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(module, function, filling)
            if name == "half a checkpoint":  # as where another program takes the room meanwhile
                patch.setattr(checkpoint, "_free", lambda root: 1e12)
            with pytest.raises(NoRoom, match=rf"{disk}/run.*") as caught:
                train(disk / "run")
        assert "MB left" in str(caught.value)
        assert "the same command" in str(caught.value)
        assert not [name for name in leftovers(disk) if "orbax" not in name]
        saved = checkpoint.saved_steps(disk / "run")
        (disk / "filler").unlink()
        assert resume.check_start(config(disk / "run")) == max(saved, default=None)
        got = going_on(disk)
        assert [n for n in COMPARED if got[n] != whole[n]] == []


@needs_mounts
def test_a_full_disk_is_told_before_anything_starts(whole, tmp_path):
    with mounted(tmp_path / "disk", 16000) as disk:
        (disk / "run").mkdir()
        fill(disk)
        with pytest.raises(NoRoom, match=rf"{disk}/run/owner.lock could not be written .* {LEFT}"):
            train(disk / "run")
        (disk / "filler").unlink()
        assert going_on(disk)["rows"] == whole["rows"]


@needs_mounts
def test_an_evaluation_and_a_report_without_room_leave_those_before(tmp_path, capsys):
    with mounted(tmp_path / "disk", 16000) as disk:
        run = disk / "run"
        train(run, 2)
        for name in ("before", "after"):
            evaluate(run, name)
        report.write_report(run)
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        fill(disk)
        with pytest.raises(NoRoom, match=rf"{run}/eval_after.json could not be written .* {LEFT}"):
            evaluate(run, "after")
        assert report.main([str(run)]) == 1
        assert f"report: {run}/report.md could not be written" in capsys.readouterr().err
        (disk / "filler").unlink()
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
        assert report.main([str(run)]) == 0


@needs_mounts
def test_an_import_without_room_leaves_the_one_before(tmp_path, capsys):
    make_hf(tmp_path / "hf")
    with mounted(tmp_path / "disk", 16000) as disk:
        words = ["import", "--source", str(tmp_path / "hf"), "--out", str(disk / "orbax")]
        assert convert(words) == 0
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        (disk / "room").write_bytes(bytes(200_000))  # for the lock and the first files
        fill(disk)
        (disk / "room").unlink()
        assert convert([*words, "--overwrite"]) == 1
        assert f"convert: {disk}/" in (said := capsys.readouterr().err)
        assert "could not be written" in said
        assert "MB left; free some space" in said
        (disk / "filler").unlink()
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
        assert convert([*words, "--overwrite"]) == 0


@needs_mounts
def test_an_export_without_room_leaves_the_one_before(tmp_path):
    with mounted(tmp_path / "disk", 16000) as disk:
        make_hf(disk / "hf")
        before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
        (disk / "room").write_bytes(bytes(100_000))
        fill(disk)
        (disk / "room").unlink()
        with pytest.raises(NoRoom, match=rf"{disk}/hf could not be written .* MB left; free some"):
            make_hf(disk / "hf", seed=1)
        (disk / "filler").unlink()
        assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
        make_hf(disk / "hf", seed=1)


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    return micro_config(tmp_path_factory.mktemp("micro"), small_base())


def command(cfg, folder, run, *more):
    words = [sys.executable, "-m", "dig_jax.train", "--config", config_file(cfg, folder)]
    return [*words, "--run-dir", str(run), *more]


LIMIT = """
import resource, sys
if "--multiprocessing-fork" in sys.orig_argv:
    resource.setrlimit(resource.RLIMIT_AS, (600_000_000, 600_000_000))
"""
FLAGS = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "PYTHONUNBUFFERED": "1"}


@needs_mounts
@pytest.mark.slow
def test_a_real_run_whose_disk_fills_up_ends_in_one_line_and_goes_on(micro, tmp_path):
    undisturbed = run_program(command(micro, tmp_path, tmp_path / "whole"), environment=FLAGS)
    assert undisturbed.returncode == 0, undisturbed.stderr[-3000:]
    with mounted(tmp_path / "disk", 60000) as disk:
        process = start(micro, str(disk / "run"), tmp_path)
        said = []
        for line in process.stdout:
            said.append(line)
            if "step 3/5" in line:
                fill(disk)
        assert process.wait(240) == 1
        last = said[-1]
        assert last.startswith(f"error: {disk}/run/")
        assert "MB left; " in last
        assert "same command" in last
        assert not any("Traceback" in line for line in said)
        (disk / "filler").unlink()
        again = run_program(command(micro, tmp_path, disk / "run"), environment=FLAGS)
        assert again.returncode == 0, again.stderr[-3000:]
        rows = [list(map(comparable, read_rows(at))) for at in (disk / "run", tmp_path / "whole")]
        assert rows[0] == rows[1]


@needs_mounts
@pytest.mark.slow
def test_a_run_folder_without_rights_is_named_before_anything_starts(micro, tmp_path):
    with mounted(tmp_path / "disk", 60000) as disk:
        grow(disk, 60000, read_only=True)
        done = run_program(command(micro, tmp_path, disk / "run"), environment=FLAGS)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(f"error: run_dir='{disk}/run' cannot be")
        assert "make it writable, or name another folder" in done.stderr
        assert "Traceback" not in done.stderr


@needs_mounts
@pytest.mark.slow
def test_a_small_dev_shm_is_told_before_the_first_step(micro, tmp_path):
    words = command(micro, tmp_path, tmp_path / "run", "--set", "data.workers=2")
    done = run_program(words, shm_kilobytes=64, environment=FLAGS)
    assert done.returncode == 1
    assert "/dev/shm" in done.stderr.splitlines()[-1]
    assert "data.workers" in done.stderr.splitlines()[-1]
    assert "step 1/" not in done.stdout


@pytest.mark.slow
def test_a_data_worker_without_memory_is_told_with_what_helps(micro, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(LIMIT)
    settings = ("data.workers=1", "eval.every=0", "checkpoint.best=")
    more = [word for setting in settings for word in ("--set", setting)]
    words = command(micro, tmp_path, tmp_path / "run", *more)
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = run_program(words, environment=FLAGS | path)
    assert done.returncode == 1
    (told,) = [line for line in done.stderr.splitlines() if "RuntimeError: a data worker" in line]
    assert "found no memory" in told
    assert "--set data.workers=0; the same command continues" in told
    words[words.index("data.workers=1")] = "data.workers=0"  # the remedy
    assert run_program(words, environment=FLAGS).returncode == 0
