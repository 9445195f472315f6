"""Who may write to a run's folders, and what a start may go on from."""

import os
import subprocess
import sys

import pytest

from dig_jax.common import locks, typed
from dig_jax.config import CheckpointConfig, Config
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.doctor import folder
from dig_jax.hf.export import new_folder
from dig_jax.run import checkpoint, resume
from tests import ROOT
from tests.common.test_locks import holder
from tests.corpora import FAKE, LOOK
from tests.run.test_checkpoint import state


def config(tmp_path, *settings):
    cfg = Config(run_dir=str(tmp_path / "run"), checkpoint=CheckpointConfig(every=1, keep=2))
    return typed.override(cfg, list(settings))


OWN = """
import sys
from dig_jax.common import typed
from dig_jax.config import Config
from dig_jax.run import resume
with resume.owned(typed.override(Config(), sys.argv[1:])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("field", ["run_dir", "checkpoint.root"])
def test_a_second_run_in_one_folder_is_refused_by_field_host_and_process(tmp_path, field):
    """Their other folder is each its own."""
    settings = {name: f"{name}={tmp_path}/one/{name}" for name in ("run_dir", "checkpoint.root")}
    command = [sys.executable, "-c", OWN, *settings.values()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, **pipes)
    assert child.stdout.readline() == "held\n"
    others = {name: f"{name}={tmp_path}/two/{name}" for name in settings}
    cfg = typed.override(Config(), list((others | {field: settings[field]}).values()))
    refused = rf"{field}: {tmp_path}/one/{field} is in use by .*\(process {child.pid} on .*\); end"
    for enter in (resume.owned, doctored[field]):
        with pytest.raises(locks.Taken, match=refused), enter(cfg):
            pass
    child.communicate("")
    with resume.owned(cfg):
        assert (tmp_path / "one" / field / locks.NAME).is_file()
    assert not (tmp_path / "two").exists()


doctored = {"run_dir": folder.writing, "checkpoint.root": folder.keeping}


def test_one_folder_for_both_is_locked_once(tmp_path):
    cfg = config(tmp_path, f"checkpoint.root={tmp_path}/run/../run")
    with resume.owned(cfg):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [locks.NAME]


@pytest.mark.parametrize("field", ["run_dir", "checkpoint.root"])
def test_a_folder_that_cannot_be_written_is_named_before_anything_starts(tmp_path, field):
    (tmp_path / "file").write_text("")
    cfg = config(tmp_path, f"{field}={tmp_path}/file/x")
    with pytest.raises(OSError, match=rf"{field}='.*/file/x' cannot be written .*; make it"):
        with resume.owned(cfg):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_save_after_another_has_taken_the_folder_over_is_refused(tmp_path):
    """A machine that was suspended for longer than its silence is allowed."""
    cfg = config(tmp_path)
    with resume.owned(cfg):
        checkpoint.save(cfg, 1, state())
        (tmp_path / "run" / locks.NAME).write_text('{"pid": 7, "host": "h", "program": "p"}')
        with pytest.raises(locks.Taken, match=r"taken over by p \(process 7 on h\)"):
            checkpoint.save(cfg, 2, state())
    assert checkpoint.saved_steps(tmp_path / "run") == [1]


def test_two_renders_of_a_split_never_make_one_shard_at_once(tmp_path):
    """Different shards at once are welcome; a held one is refused before a scene is rendered."""
    spec = SplitSpec(Draw("single", 0), 8, 4)
    render = {"workers": 1, "report": lambda *_: None, "command": FAKE}
    with holder(tmp_path / "single" / "shard-00001.lock") as child:
        for shards in (None, [1]):
            with pytest.raises(locks.Taken, match=rf"--root: .*single is in use.*{child.pid}"):
                render_split(tmp_path, spec, LOOK, shards=shards, **render)
        assert not render_split(tmp_path, spec, LOOK, shards=[0], **render)["complete"]
    assert render_split(tmp_path, spec, LOOK, **render)["complete"]
    assert not list(tmp_path.rglob("*.lock"))


def test_two_exports_to_one_folder_are_not_made_at_once(tmp_path):
    (tmp_path / "hf").mkdir()
    with (
        holder(tmp_path / ".hf.lock") as child,
        pytest.raises(locks.Taken, match=rf"--out: .* in use by .*{child.pid}"),
        new_folder(tmp_path / "hf"),
    ):
        pass
    with new_folder(tmp_path / "hf") as partial:
        (partial / "new").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["hf", "new"]
