"""Data workers: little shared memory is found or explained, and nothing outlives a killed run."""

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from dig_jax.boxes import BoxSet
from dig_jax.data.feed import pipeline, shared_memory
from dig_jax.data.feed.batch import Batch
from tests import ROOT
from tests.data.feed.test_pipeline import SIZES, config, pair, write_split
from tests.small_disk import needs_mounts, run_python

PAIR = 2 * 64 * 128 * 3  # bytes at the size below
OPEN = """
import json, os, shutil, sys
from pathlib import Path
from tests.data.feed.test_pipeline import config
from dig_jax.data.feed import pipeline, shared_memory
settings = ["data.workers=2", "data.prefetch={ahead}", "steps=40", "curriculum.stages.1.until=40"]
cfg = config(Path({root!r}), *settings)
size = (64, 128)
used = lambda: shutil.disk_usage("/dev/shm").used
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("splits")
    for split, size in SIZES.items():
        write_split(root, split, [pair(split, i) for i in range(size)])
    return root


def opening(root, ahead):
    return OPEN.format(root=str(root), ahead=ahead)


def test_a_batch_takes_a_page_or_more_per_field():
    truth = BoxSet(np.zeros((4, 3, 4), np.float32), np.zeros((4, 3), bool))
    ids = np.zeros(4, np.int32)
    images = np.zeros((4, 2, 64, 128, 3), np.uint8)
    batch = Batch(images, truth, np.zeros((4, 3), np.int32), ids, ids, np.ones(4, bool))
    arrays = [batch.images, truth.boxes, truth.valid, batch.kind, batch.pair_id, batch.bucket]
    pages = sum(-(-array.nbytes // 4096) for array in [*arrays, batch.real])
    assert shared_memory.batch_bytes(4, PAIR, 3) == pages * 4096


def test_too_little_shared_memory_is_found_before_a_worker_starts(root, monkeypatch, tmp_path):
    free = shutil.disk_usage(root)._replace(free=64 << 20)
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: free)
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    cfg = config(root, "data.workers=3", "data.prefetch=5")
    with pytest.raises(ValueError, match=r"=3 with data.prefetch=5 need up to 153.* has 67.1 MB"):
        pipeline.train_pairs(cfg, 0, size=(500, 333))
    fewer = config(root, "data.workers=0", "data.prefetch=5")  # "needs none"
    assert pipeline.train_pairs(fewer, 0, size=(500, 333))


@pytest.mark.slow
@needs_mounts
def test_the_bound_holds_on_a_disk_of_that_size_and_is_reached_within_two_batches(root):
    """Against 13 batches held where 8 were allowed for (R8)."""
    ahead, batch = 2, shared_memory.batch_bytes(4, PAIR, 3)
    need = shared_memory.needed_bytes(2, ahead, batch)
    full = 2 * (2 * ahead + 2) * batch
    code = (
        opening(root, ahead)
        + f"""
import itertools, time
batches, most = pipeline.train_pairs(cfg, 0, size=size), 0
seen = []
for step, one in enumerate(batches):
    seen.append(int(one.images.sum()))
    end = time.monotonic() + 60
    while step < 4 and used() < {full} and time.monotonic() < end:  # until every queue is full
        os.sched_yield()
    most = max(most, used())
straight = pipeline.train_pairs(config(Path({str(root)!r}), *settings[2:]), 0, size=size)
print(json.dumps([most, seen == [int(one.images.sum()) for one in straight], len(seen)]))
"""
    )
    done = run_python(code, shm_kilobytes=-(-need // 1024))
    assert done.returncode == 0, done.stderr[-2000:]
    most, same, count = json.loads(done.stdout.splitlines()[-1])
    assert (same, count) == (True, 40)
    assert full <= most <= need
    refused = run_python(
        opening(root, ahead) + "pipeline.train_pairs(cfg, 0, size=size)",
        shm_kilobytes=need // 1024 - 4,
    )
    assert "data.workers=2 with data.prefetch=2 need up to" in refused.stderr


@pytest.mark.slow
@needs_mounts
def test_a_worker_that_dies_by_sigbus_says_so_with_what_helps(root):
    """As where another program fills the shared memory that was free at the start."""
    batch = shared_memory.batch_bytes(4, PAIR, 3)
    code = (
        opening(root, 2)
        + """
shared_memory.check_room = lambda *_: None
for step, one in enumerate(pipeline.train_pairs(cfg, 0, size=size)):
    while step == 1:  # until the queues have filled the disk
        os.sched_yield()
        if used() > shutil.disk_usage("/dev/shm").total - {batch}:
            break
""".replace("{batch}", str(batch))
    )
    died = run_python(code, shm_kilobytes=(5 * batch) // 1024 + 200)
    assert died.returncode == 1
    last = died.stderr.strip().splitlines()
    (told,) = [line for line in last if line.startswith("RuntimeError: a data worker died")]
    assert "by SIGBUS" in told
    assert "--shm-size" in told
    assert "data.workers=0" in told
    alone = opening(root, 2).replace("data.workers=2", "data.workers=0") + ONE_BATCH
    assert run_python(alone, shm_kilobytes=(5 * batch) // 1024 + 200).returncode == 0


ONE_BATCH = """
assert len(next(iter(pipeline.train_pairs(cfg, 0, size=size))).images)
"""
KILLED = """
import multiprocessing, signal
if __name__ == "__main__":
    batches = pipeline.train_pairs(cfg, 0, size=size)
    next(batches)
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
    for _ in batches:
        pass
"""


@pytest.mark.slow
def test_a_worker_that_the_system_kills_says_so_and_without_workers_it_goes_on(root):
    path = {**os.environ, "PYTHONPATH": str(ROOT)}
    died, alone = (
        subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True)
        for code in (
            opening(root, 2) + KILLED,
            opening(root, 2).replace("data.workers=2", "data.workers=0") + ONE_BATCH,
        )
    )
    assert "a data worker was killed (SIGKILL)" in died.stderr
    assert "--set data.workers=0; the same command continues" in died.stderr
    assert alone.returncode == 0, alone.stderr


def test_a_killed_worker_and_any_other_error_are_told_apart():
    def told(code):
        return shared_memory.explain_death(RuntimeError(f"terminated with exit code {code}. See"))

    assert "SIGKILL" in str(told(-9))
    assert "ended by itself (exit code 1)" in str(told(1))
    assert "data.workers=0" in str(told(1))
    assert shared_memory.explain_death(RuntimeError("record 3 is no pair")) is None


RUN = """
import multiprocessing
from multiprocessing import resource_tracker
if __name__ == "__main__":
    batches = pipeline.train_pairs(cfg, 0, size=size)
    next(batches)
    pids = [child.pid for child in multiprocessing.active_children()]
    tracker = resource_tracker._resource_tracker._pid
    print(json.dumps([shared_memory.own_prefix(), pids, tracker]), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("whole_tree", [False, True])
def test_nothing_outlives_a_killed_run(root, whole_tree, monkeypatch):
    """Neither its workers nor, after the next start at the latest, their segments (R9)."""
    run = subprocess.Popen(
        [sys.executable, "-c", opening(root, 2) + RUN],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    prefix, pids, tracker = json.loads(run.stdout.readline())
    assert len(pids) == 2
    ends = [os.pidfd_open(pid) for pid in (*pids, tracker)]
    for pid in (run.pid, *((tracker, *pids) if whole_tree else ())):
        os.kill(pid, signal.SIGKILL)
    run.communicate()
    for end in ends:
        assert select.select([end], [], [], 60)[0], "a worker outlived its parent"
        os.close(end)
    left, locks = (
        list(shared_memory.FOLDER.glob(name)) for name in (f"{prefix}????", f"sem.{prefix}-*")
    )
    assert bool(left) == bool(locks) == whole_tree
    shared_memory.own_prefix.cache_clear()
    shared_memory.own_prefix()
    assert not list(shared_memory.FOLDER.glob(f"*{prefix}*"))


def test_segments_of_a_living_program_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)
    own, theirs = "sem.digaaaaa-x1", "sem.digbbbbb-x2"
    for name in ("digaaaaa0001", "digbbbbb0001", "psm_01234567", own, theirs):
        (tmp_path / name).touch()
    (tmp_path / "digbbbbb.lock").touch()
    with (tmp_path / "digaaaaa.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shared_memory._remove_abandoned()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "digaaaaa.lock", "digaaaaa0001", "psm_01234567", own,
    ]  # fmt: skip
