"""Records and shards keep what was put in; damage is found and named; runs can be killed."""

import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from dig_jax.data import records
from dig_jax.data.corpus.splits import render_split
from dig_jax.data.render import supervise
from dig_jax.data.render.produce import Request, make_pair
from dig_jax.data.render.supervise import RenderFailed, check_renderer, render_pairs
from dig_jax.data.scene.draws import Draw, SplitSpec
from dig_jax.data.scene.look import SceneConfig
from tests import FAKE_WORKER, ROOT
from tests.fake_worker import paint

CONFIG = SceneConfig(width=64, height=48)
DRAW = Draw("test", seed=0, k_low=1, k_high=3)
SPEC = SplitSpec(DRAW, pairs=7, shard_pairs=3)
FAKE = FAKE_WORKER


def quiet(done, total, note):
    pass


def render(root, spec=SPEC, workers=2, config=CONFIG):
    return render_split(root, spec, config, workers, quiet, FAKE)


def hashes(manifest):
    return [shard["sha256"] for shard in manifest["shards"]]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return root, render(root)


@pytest.fixture
def copy(rendered, tmp_path):
    shutil.copytree(rendered[0] / "test", tmp_path / "test")
    return tmp_path


def test_record_round_trip():
    pair, _ = make_pair(CONFIG, Request(Draw("test", 0, 2, 2), 0), lambda shot: paint(CONFIG, shot))
    data = records.encode(pair)
    again = records.decode(data)
    for name in ("image_a", "image_b", "mask_a", "mask_b"):
        np.testing.assert_array_equal(getattr(again, name), getattr(pair, name))
    assert again.meta == json.loads(json.dumps(pair.meta))
    assert again.boxes_px.shape == (2, 4)
    assert records.encode(pair) == data


def test_bytes_that_are_no_record_are_refused():
    with pytest.raises(ValueError, match="not a pair record"):
        records.decode(b"nonsense")


def test_split_holds_every_index_in_order(rendered):
    root, manifest = rendered
    paths = records.open_split(root / "test")
    pairs = [records.decode(data) for path in paths for data in records.read_shard(path)]
    assert [pair.meta["idx"] for pair in pairs] == list(range(7))
    assert [shard["count"] for shard in manifest["shards"]] == [3, 3, 1]
    assert sum(manifest["k"].values()) == manifest["pairs"] == 7
    assert sum(manifest["types"].values()) == sum(len(pair.boxes_px) for pair in pairs)


def test_pairs_do_not_depend_on_the_number_of_workers(rendered, tmp_path):
    assert hashes(render(tmp_path, workers=1)) == hashes(rendered[1])


def test_second_run_renders_nothing(copy):
    """An unstartable worker proves that none is started."""
    before = {path.name: path.stat().st_mtime_ns for path in (copy / "test").glob("*.arrayrecord")}
    manifest = render_split(copy, SPEC, CONFIG, 2, quiet, ("/nonexistent",))
    after = {path.name: path.stat().st_mtime_ns for path in (copy / "test").glob("*.arrayrecord")}
    assert manifest["complete"]
    assert after == before


def test_killed_run_continues_to_the_same_bytes(rendered, tmp_path):
    """kill -9 once the first shard is there; the second run must end with the same sha256."""
    code = (
        "import os, signal\n"
        "from tests.data import test_records as t\n"
        "def report(done, total, note):\n"
        "    if note: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"t.render_split({str(tmp_path)!r}, t.SPEC, t.CONFIG, 1, report, t.FAKE)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == -9
    with pytest.raises(FileNotFoundError, match="1 of 3 shards"):
        records.open_split(tmp_path / "test")
    assert len(records.open_split(tmp_path / "test", allow_partial=True)) == 1
    assert hashes(render(tmp_path)) == hashes(rendered[1])


def test_leftover_of_a_half_written_shard_is_not_taken_for_data(copy, rendered):
    folder = copy / "test"
    name = records.shard_name(1, 3)
    left = folder / f"{name}.tmp-0-{platform.node()}-{_dead_pid()}"
    (folder / name).rename(left)
    assert hashes(render(copy)) == hashes(rendered[1])
    assert not left.exists()


def _dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_missing_folder_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dig_jax.data render .*--preset quickstart"):
        records.open_split(tmp_path / "single")


def test_unclosed_shard_is_found(copy):
    """An ArrayRecord file that was never closed opens without error and has 0 records."""
    path = copy / "test" / records.shard_name(1, 3)
    path.unlink()
    writer = ArrayRecordWriter(str(path), "group_size:1")
    writer.write(b"x")
    shutil.copy(path, path.with_suffix(".open"))
    writer.close()
    shutil.move(path.with_suffix(".open"), path)
    with pytest.raises(ValueError, match=rf"{path.name}.*corrupt.*(0 records|cannot be opened)"):
        records.open_split(copy / "test")


@pytest.mark.parametrize("verify", [True, False])
def test_truncated_shard_is_found(copy, verify):
    path = copy / "test" / records.shard_name(0, 3)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=path.name):
        records.open_split(copy / "test", verify=verify)


def test_flipped_bits_name_the_record(copy):
    path = copy / "test" / records.shard_name(0, 3)
    data = bytearray(path.read_bytes())
    data[3000] ^= 0xFF  # in the first record: three of several kB each
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"corrupt.*record 0 of 3 cannot"):
        records.open_split(copy / "test")


def test_corrupt_shard_is_made_again(copy, rendered):
    path = copy / "test" / records.shard_name(2, 3)
    path.write_bytes(b"rubbish")
    assert hashes(render(copy)) == hashes(rendered[1])


def test_two_kinds_of_pairs_never_mix(copy):
    with pytest.raises(FileExistsError, match=r"another request.*choose another --root"):
        render(copy, dataclasses.replace(SPEC, draw=dataclasses.replace(DRAW, seed=5)))
    with pytest.raises(FileExistsError, match="another request"):
        render(copy, config=dataclasses.replace(CONFIG, samples=99))


def test_dead_worker_is_replaced(rendered, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_DIE_ONCE", f"4:{tmp_path / 'died'}")
    assert hashes(render(tmp_path)) == hashes(rendered[1])
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_silent_worker_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_HANG_ONCE", f"1:{tmp_path / 'hung'}")
    requests = [Request(DRAW, idx) for idx in range(3)]
    made = list(render_pairs(CONFIG, requests, 1, FAKE, pair_limit_s=4.0))
    assert sorted(one.idx for one in made) == [0, 1, 2]
    assert (tmp_path / "hung").exists()


@pytest.mark.slow
def test_slow_start_is_tried_again(tmp_path, monkeypatch):
    """A base render died at 1629 pairs because one restart on a crowded machine took 180 s."""
    monkeypatch.setenv("FAKE_HANG_ONCE", f"start:{tmp_path / 'slow'}")
    made = list(render_pairs(CONFIG, [Request(DRAW, 0)], 1, FAKE, start_limit_s=6.0))
    assert [one.idx for one in made] == [0]
    assert (tmp_path / "slow").exists()


def test_time_asleep_is_not_held_against_a_worker():
    """A suspended machine must not look like hung workers when it wakes."""
    pool = supervise._Pool(CONFIG, FAKE, (60.0, 180.0), [], 1)
    worker = supervise._Worker(None, None, "", since=pool.last_turn)
    pool.workers.append(worker)
    pool.last_turn -= 1000.0
    worker.since -= 1000.0
    pool._forgive_sleep()
    assert time.monotonic() - worker.since < 10.0


def test_deadly_pair_fails_the_run_and_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_DIE", "4")
    with pytest.raises(RenderFailed, match=r"1 pairs.*\n.*idx 4: its worker died 2 times"):
        render(tmp_path)
    assert len(records.open_split(tmp_path / "test", allow_partial=True)) == 2


def test_worker_that_cannot_start_says_why(tmp_path):
    command = (sys.executable, "-c", "raise SystemExit('no module here')")
    with pytest.raises(RenderFailed, match=r"did not start.*no module here"):
        list(render_pairs(CONFIG, [Request(DRAW, 0)], 1, command))


def test_no_workers_is_refused_rather_than_waited_for():
    with pytest.raises(ValueError, match="workers=0"):
        list(render_pairs(CONFIG, [Request(DRAW, 0)], 0, FAKE))
    assert len(list(render_pairs(CONFIG, [Request(DRAW, 0)], 1, FAKE))) == 1


def test_python_without_blender_gets_the_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"bpy.*Python 3.13 and the \[render\] extra"):
        check_renderer(CONFIG)
