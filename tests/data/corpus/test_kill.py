"""Whatever is killed at whatever moment: the same command ends with the same bytes.

The moments are system calls, not seconds: a child process runs the render and kills itself
before or after its n-th rename, or when the n-th pair arrives.
"""

import os
import signal
import subprocess
import sys

import pytest

from dig_jax.common import machine
from dig_jax.data import records
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.render import supervise
from tests import ROOT
from tests.data.test_records import CONFIG, FAKE, SPEC, hashes, quiet

_CHILD = """
import os, signal, sys
from tests.data import test_records as t
from dig_jax.common import machine
from dig_jax.data import records
from dig_jax.data.render import supervise
kind, count = {kind!r}, {count}
seen = 0
def tick():
    global seen
    seen += 1
    if seen == count:
        os.kill(os.getpid(), signal.SIGKILL)
rename = os.replace
def replace(*paths):
    if kind == "before rename":
        tick()
    rename(*paths)
    if kind == "after rename":
        tick()
os.replace = replace
def report(done, total, note):
    if kind == "pair":
        tick()
t.render_split({root!r}, t.SPEC, t.CONFIG, 2, report, t.FAKE)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return hashes(render_split(tmp_path_factory.mktemp("whole"), SPEC, CONFIG, 2, quiet, FAKE))


def killed_render(root, kind, count):
    code = _CHILD.format(root=str(root), kind=kind, count=count)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], env=environment).returncode


# Renames: shard, sidecar, manifest for the first shard; then shard and sidecar for each; the
# manifest at the end.
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("pair", 6),
        ("after rename", 1),
        *(
            pytest.param(*moment, marks=pytest.mark.slow)
            for moment in (
                ("before rename", 1),
                ("before rename", 2),
                ("before rename", 8),
                ("after rename", 2),
            )
        ),
    ],
)
def test_kill_9_of_the_supervisor_changes_no_byte(uninterrupted, tmp_path, kind, count):
    assert killed_render(tmp_path, kind, count) == -signal.SIGKILL
    assert hashes(render_split(tmp_path, SPEC, CONFIG, 2, quiet, FAKE)) == uninterrupted
    left = [path.name for path in (tmp_path / "test").iterdir() if ".tmp-" in path.name]
    assert left == []


def test_a_kill_leaves_no_shard_that_passes_for_whole(tmp_path):
    """Renamed but not yet told of: the file is there, its sidecar is not."""
    assert killed_render(tmp_path, "after rename", 1) == -signal.SIGKILL
    (shard,) = (tmp_path / "test").glob("pairs-*.arrayrecord")
    assert not records.sidecar(shard).exists()
    with pytest.raises(FileNotFoundError, match="holds no rendered pairs"):
        records.open_split(tmp_path / "test")


def test_scratch_of_a_killed_supervisor_is_swept_by_the_next_one(tmp_path):
    assert killed_render(tmp_path, "pair", 3) == -signal.SIGKILL
    render_split(tmp_path, SPEC, CONFIG, 1, quiet, FAKE)
    scratch = [path.name for path in (supervise.scratch_root()).glob("dig_jax_*_*")]
    assert [name for name in scratch if not machine.is_running(int(name.split("_")[2]))] == []


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_loses_no_whole_shard(uninterrupted, tmp_path):
    """A limit on the size of files stands for the disk: the kernel refuses the bytes alike."""
    code = (
        "import resource, signal\n"
        "from tests.data import test_records as t\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def report(done, total, note):\n"
        "    if note: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"t.render_split({str(tmp_path)!r}, t.SPEC, t.CONFIG, 1, report, t.FAKE)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "whole shards are kept" in done.stderr
    assert [p.name for p in (tmp_path / "test").iterdir() if ".tmp-" in p.name] == []
    assert hashes(render_split(tmp_path, SPEC, CONFIG, 1, quiet, FAKE)) == uninterrupted


def test_a_disk_that_is_too_small_is_refused_before_rendering(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"7 pairs of 64x48 need about .* GB left; free some"):
        render_split(tmp_path, SPEC, CONFIG, 1, quiet, FAKE)


def test_shards_that_vanish_behind_our_back_fail_the_run(tmp_path):
    folder = tmp_path / "test"

    def remove_first(done, total, note):
        if done == total:
            (folder / records.shard_name(0, SPEC.shard_count)).unlink()

    with pytest.raises(RuntimeError, match=r"1 shards are missing: pairs-00000-of-00003"):
        render_split(tmp_path, SPEC, CONFIG, 1, remove_first, FAKE)


def test_workers_that_all_die_stop_the_run_at_once(tmp_path, monkeypatch):
    """A broken renderer must not be restarted twice for each of thousands of pairs."""
    monkeypatch.setenv("FAKE_DIE", "all")
    spec = type(SPEC)(SPEC.draw, pairs=1000, shard_pairs=100)
    with pytest.raises(RuntimeError, match=r"9 workers died and no pair got done.*fake death"):
        render_split(tmp_path, spec, CONFIG, 1, quiet, FAKE)
