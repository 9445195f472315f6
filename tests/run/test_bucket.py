"""Checkpoints and pairs in a bucket, through the real clients, to a storage on this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import fsspec
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils.epath import backend

from dig_jax.common import locks, typed
from dig_jax.config import Config, MeshConfig, config_hash, to_json
from dig_jax.data import records
from dig_jax.data.feed import checks, fetch, pipeline
from dig_jax.doctor import folder
from dig_jax.run import best, checkpoint, resume
from dig_jax.run.trained import open_run
from tests import ROOT
from tests.common.test_locks import ELSEWHERE, holder, never
from tests.data.feed.test_pipeline import SIZES, config, identities, pair, write_split
from tests.google_storage import BUCKET, serve
from tests.mesh.test_distributed import ended, start
from tests.run.test_best import METRIC, offer, weights
from tests.run.test_checkpoint import CHILD, assert_same_bits, place, state

gcsfs = pytest.importorskip("gcsfs", reason="buckets need gcsfs: pip install -e '.[gcs]'")

RUN = f"gs://{BUCKET}/runs/one"
DATA = f"gs://{BUCKET}/data/pairs"
HELD = "runs/one/checkpoints"  # names of objects begin with it


@pytest.fixture(scope="module")
def served():
    """The storage, with this process's clients led to it; TensorStore asks for the way once."""
    with serve() as (storage, environment), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        # of the environment fsspec reads it when it is imported
        patch.setitem(fsspec.config.conf["gcs"], "token", environment["FSSPEC_GCS_TOKEN"])
        backend.fsspec_backend._get_filesystem.cache_clear()
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield storage
    backend.fsspec_backend._get_filesystem.cache_clear()
    gcsfs.GCSFileSystem.clear_instance_cache()


@pytest.fixture
def served_environment(served):
    """What leads another process to the storage."""
    return {name: os.environ[name] for name in ("STORAGE_EMULATOR_HOST", "FSSPEC_GCS_TOKEN")}


@pytest.fixture
def storage(served, tmp_path, monkeypatch):
    """Empty, and a working directory of one's own: copies are made below it."""
    monkeypatch.chdir(tmp_path)
    served.objects.clear()
    served.asked.clear()
    yield served
    served.refused.clear()


def run_config(tmp_path, *settings) -> Config:
    asked = [f"checkpoint.root={RUN}", "checkpoint.every=1", "checkpoint.keep=2", *settings]
    return typed.override(Config(run_dir=str(tmp_path / "run")), asked)


def steps_in(storage) -> set[str]:
    return {name.split("/")[3] for name in storage.under(HELD)}


@pytest.mark.slow
def test_a_sharded_state_goes_to_a_bucket_and_comes_back_on_another_mesh(storage, tmp_path):
    """Three saves of which two are kept; what is deleted leaves no object."""
    cfg = run_config(tmp_path, "mesh.fsdp=4", "mesh.tensor=2")
    for step in (1, 2, 3):
        saved = place(state(seed=step), MeshConfig(4, 2), jax.devices())
        checkpoint.save(cfg, step, saved)
    assert checkpoint.saved_steps(RUN) == [2, 3]
    assert steps_in(storage) == {"2", "3"}
    assert not (tmp_path / "run").exists()
    for mesh, devices in ((MeshConfig(2, 4), jax.devices()), (MeshConfig(), jax.devices()[:1])):
        target = place(jax.tree.map(jnp.zeros_like, state()), mesh, devices)
        back, step = checkpoint.restore(run_config(tmp_path), target)
        assert step == 3
        assert_same_bits(back, state(seed=3))
    like = place(jax.tree.map(jnp.zeros_like, state()["params"]), MeshConfig(), jax.devices()[:1])
    assert_same_bits(checkpoint.restore_params(cfg, like, step=2), state(seed=2)["params"])
    assert checkpoint.saved_config(RUN) == cfg


@pytest.mark.slow
def test_a_save_that_was_killed_is_no_checkpoint_and_is_made_again(storage, tmp_path):
    """In a bucket the folder has its name from the start: the last object tells that it is whole.

    What the other writer changes here is seen at once: gcsfs would keep an old listing.
    """
    cfg = run_config(tmp_path)
    for step in (1, 2):
        checkpoint.save(cfg, step, state(seed=step))
    del storage.objects[f"{HELD}/2/commit_success.txt"]
    assert checkpoint.latest_step(RUN) == 1
    assert checkpoint.restore(cfg, state())[1] == 1
    checkpoint.save(cfg, 2, state(seed=7))
    assert checkpoint.saved_steps(RUN) == [1, 2]
    assert_same_bits(checkpoint.restore(cfg, state())[0], state(seed=7))


@pytest.mark.slow
def test_kill_9_in_the_middle_of_saving_loses_no_reported_step(storage, tmp_path):
    """A second process writes; this one, which has listed the folder before, sees what it wrote."""
    assert checkpoint.latest_step(RUN) is None
    code = CHILD.replace("Config(run_dir=sys.argv[1])", "typed.override(Config(), sys.argv[1:])")
    code = "from dig_jax.common import typed\n" + code
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, f"checkpoint.root={RUN}"]
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        reported = [int(child.stdout.readline()) for _ in range(3)][-1]
        before = len(storage.asked)
        while not any(m == "POST" and f"/{reported + 1}/" in n for m, n in storage.asked[before:]):
            assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    like = {f"w{i}": jnp.zeros((64, 64)) for i in range(8)}
    back, step = checkpoint.restore(typed.override(Config(), [f"checkpoint.root={RUN}"]), like)
    assert step >= reported
    assert {float(leaf.min()) for leaf in back.values()} == {float(step)}
    assert {float(leaf.max()) for leaf in back.values()} == {float(step)}


TOGETHER = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from dig_jax.common import locks, typed
from dig_jax.mesh import distributed
from dig_jax.run import best, checkpoint, resume
from dig_jax.config import Config
cfg = typed.override(Config(), sys.argv[1:])
with distributed.joined():
    cfg = typed.override(cfg, [f"run_dir=run{jax.process_index()}"])
    resume.check_start(cfg)
    split = NamedSharding(Mesh(np.array(jax.devices()), "x"), P("x"))
    make = jax.jit(lambda step: {"w": jnp.arange(64.0) + step}, out_shardings=split)
    keeper = best.BestKeeper(cfg, 0)
    for step in (1, 2, 3):
        checkpoint.save(cfg, step, make(step))
        print("saved", step, checkpoint.saved_steps(checkpoint.root_of(cfg)))
        keeper.offer(step, {"sampled/f1": 1.0 / step}, make(step))
    back, step = checkpoint.restore(cfg, make(0))
    same = jax.jit(lambda a, b: jnp.array_equal(a["w"], b["w"]))(back, make(3))
    print("restored", step, bool(same), best.read_best(checkpoint.root_of(cfg))["step"])
"""


@pytest.mark.slow
def test_two_processes_write_one_checkpoint_without_a_folder_that_both_see(storage, tmp_path):
    """Each its shards; their run folders are different ones."""
    settings = (f"checkpoint.root={RUN}", "checkpoint.keep=2", "eval.every=1", "checkpoint.best=f1")
    ends = ended(start(TOGETHER, *settings, processes=2, devices=4, cwd=tmp_path))
    for status, printed in ends:
        assert status == 0, printed[-3000:]
        assert "saved 3 [2, 3]" in printed
        assert "restored 3 True 1" in printed
    arrays = {name.split("/")[5] for name in storage.under(f"{HELD}/3/state")}
    assert {"ocdbt.process_0", "ocdbt.process_1"} <= arrays
    assert checkpoint.saved_steps(RUN) == [2, 3]
    assert not [name for name in storage.objects if ".shared" in name or ".dig_jax" in name]


@pytest.mark.slow
def test_the_best_weights_are_kept_beside_the_checkpoints(storage, tmp_path):
    cfg = run_config(tmp_path, "eval.every=1", "checkpoint.best=f1")
    keeper = best.BestKeeper(cfg, 0)
    assert [offer(keeper, step, value) for step, value in ((1, 0.2), (2, 0.5), (3, 0.4))] == [
        True,
        True,
        False,
    ]
    assert {name.split("/")[3] for name in storage.under("runs/one/best")} == {"2"}
    assert best.read_best(RUN) == {"step": 2, "metric": METRIC, "value": 0.5}
    np.testing.assert_array_equal(best.load_best(RUN, weights(0))["wq"], np.full((4, 4), 2.0))
    assert json.loads(best.best_config(RUN)) == typed.to_plain(cfg)
    again = best.BestKeeper(cfg, 3)
    assert not offer(again, 4, 0.4)
    best.BestKeeper(cfg, 0)  # a run that begins anew
    assert not storage.under("runs/one/best")


def test_a_run_is_found_by_its_folder_and_by_the_address(storage, tmp_path):
    """As `convert export --run` opens it."""
    cfg = run_config(tmp_path)
    checkpoint.save(cfg, 4, state())
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(to_json(cfg))
    shutil.move(run, tmp_path / "moved")
    for name, where in ((tmp_path / "moved", tmp_path / "moved"), (RUN, run)):
        trained = open_run(name, source=str(ROOT / cfg.model.source))
        assert (trained.step, trained.cfg.checkpoint.root) == (4, RUN)
        assert trained.cfg.run_dir == str(where)
    with pytest.raises(FileNotFoundError, match=rf"{RUN}/checkpoints has no checkpoint 5; .*\[4\]"):
        open_run(RUN, step=5)


@pytest.mark.slow
def test_a_run_does_not_begin_anew_because_its_root_was_changed(storage, tmp_path):
    """Its rows would be moved away: the checkpoints that it has are elsewhere."""
    local = run_config(tmp_path, "checkpoint.root=")
    checkpoint.save(local, 2, {"a": jnp.ones(3)})
    (tmp_path / "run" / "config.json").write_text(to_json(local))
    cfg = run_config(tmp_path)
    message = rf"root='{RUN}' holds no .* steps \[2\] in {tmp_path}/run; .*storage rsync --rec"
    for check in (resume.check_start, folder.continuing):
        with pytest.raises(ValueError, match=message):
            check(cfg)
    resume.check_start(local)
    checkpoint.save(cfg, 2, {"a": jnp.ones(3)})
    resume.check_start(cfg)
    assert "goes on after step 2" in folder.continuing(cfg).text


def test_where_checkpoints_are_kept_has_no_say_in_the_numbers(tmp_path):
    cfg = run_config(tmp_path)
    assert config_hash(cfg) == config_hash(run_config(tmp_path, "checkpoint.root="))


def test_a_root_that_cannot_be_written_is_said_before_anything_starts(storage, tmp_path):
    cfg = run_config(tmp_path)
    resume.check_start(cfg)
    assert not storage.objects  # what was tried out is gone
    assert RUN in folder.keeping(cfg).text
    storage.refused = {"POST", "PUT"}
    rule = rf"(?s)checkpoint.root='{RUN}' cannot be reached or written .*may not do that"
    with pytest.raises(ValueError, match=rule):
        resume.check_start(cfg)
    other = run_config(tmp_path, "checkpoint.root=gs://nowhere/run")
    with pytest.raises(ValueError, match=r"root='gs://nowhere/run' cannot .*no such bucket\?"):
        resume.check_start(other)
    storage.refused = set()  # rights are given; and the bucket's right name
    resume.check_start(cfg)


def test_the_package_that_buckets_need_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    registry = sys.modules["fsspec.registry"]._registry
    for name in ("gcs", "gs"):
        monkeypatch.delitem(registry, name, raising=False)
    backend.fsspec_backend._get_filesystem.cache_clear()
    with pytest.raises(ValueError, match=rf"checkpoint.root='{RUN}' .* install dig_jax\[gcs\]"):
        resume.check_start(run_config(tmp_path))
    with pytest.raises(ValueError, match=rf"data.root='{DATA}' .* install dig_jax\[gcs\]"):
        fetch.local_split(DATA, "single")


@pytest.fixture
def uploaded(storage, tmp_path):
    """Three splits of two shards each in the bucket; the folder that they come from."""
    for split, size in SIZES.items():
        write_split(tmp_path / "made", split, [pair(split, i) for i in range(size)])
    upload(storage, tmp_path / "made")
    return tmp_path / "made"


def upload(storage, root: Path) -> None:
    for path in root.glob("*/*"):
        storage.put(f"data/pairs/{path.relative_to(root)}", path.read_bytes())


def fetched(storage) -> list[str]:
    """Shards read so far, and forget them."""
    names = [name for method, name in storage.asked if method == "GET" and "arrayrecord" in name]
    storage.asked.clear()
    return sorted({"/".join(name.split("/")[2:]) for name in names})


def test_pairs_of_a_bucket_are_copied_once_and_are_those_of_a_folder(storage, uploaded, tmp_path):
    near, far = (list(pipeline.train_pairs(config(r), 0)) for r in (uploaded, DATA))
    assert identities(near) == identities(far)
    for one, other in zip(near, far, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
    first = fetched(storage)
    assert len(first) == 4  # two shards of each bucket that is drawn from
    assert not [name for name in first if "heldout" in name]
    assert checks.check_data(config(DATA)) == SIZES
    assert {name.split("/")[0] for name in fetched(storage)} == {"heldout"}
    here = tmp_path / ".cache" / "data" / BUCKET / "data" / "pairs"
    assert fetch.copy_of(DATA, "single").resolve() == here / "single"
    list(pipeline.train_pairs(config(DATA + "/"), 0))
    assert fetched(storage) == []
    (here / "single" / records.shard_name(1, 2)).unlink()
    list(pipeline.train_pairs(config(DATA), 0))
    assert fetched(storage) == [f"single/{records.shard_name(1, 2)}"]


def test_decoded_copies_and_worker_processes_read_the_copy(storage, uploaded):
    wanted = list(pipeline.train_pairs(config(uploaded), 5))
    cfg = config(DATA, "data.workers=2", "data.cache=decoded")
    got = list(pipeline.train_pairs(cfg, 5))
    assert identities(got) == identities(wanted)
    assert (fetch.copy_of(DATA, "single") / "decoded").is_dir()


def test_a_damaged_or_replaced_shard_is_copied_again(storage, uploaded):
    """Here damaged on the disk; there rendered anew under the same names."""
    fetch.local_split(DATA, "single")
    told = fetch.digest_of(DATA, "single")
    (fetch.copy_of(DATA, "single") / records.MANIFEST).write_text("{")
    with pytest.raises(ValueError, match=r"; delete (\S+), and the split is copied") as caught:
        fetch.digest_of(DATA, "single")
    Path(re.search(r"delete (\S+),", str(caught.value))[1]).unlink()
    fetch.local_split(DATA, "single")
    assert fetch.digest_of(DATA, "single") == told
    fetched(storage)
    path = fetch.copy_of(DATA, "single") / records.shard_name(0, 2)
    path.write_bytes(path.read_bytes()[:-9] + b"otherwise")
    fetch.local_split(DATA, "single")
    assert fetched(storage) == [f"single/{path.name}"]
    shutil.rmtree(uploaded / "single")
    write_split(uploaded, "single", [pair("another", i) for i in range(5)])
    upload(storage, uploaded)
    fetch.local_split(DATA, "single")
    assert len(fetched(storage)) == 2
    for name in (path.name, records.MANIFEST):
        assert (path.parent / name).read_bytes() == (uploaded / "single" / name).read_bytes()


def test_what_is_wrong_in_the_bucket_is_named(storage, uploaded):
    name = f"data/pairs/single/{records.shard_name(1, 2)}"
    storage.put(name, storage.objects[name][1][:-1])
    with pytest.raises(ValueError, match=rf"{name} is corrupt: sha256 .* copy the split there"):
        fetch.local_split(DATA, "single")
    storage.put(f"data/pairs/single/{records.MANIFEST}", b"{")
    with pytest.raises(ValueError, match=r"manifest.json .*; copy the split there again, whole"):
        fetch.local_split(DATA, "single")
    upload(storage, uploaded)
    storage.put(name, storage.objects[name][1][:-1])
    with pytest.raises(ValueError, match=rf"{name} is corrupt"):
        fetch.local_split(DATA, "single")
    here = fetch.copy_of(DATA, "single")
    assert not (here / records.MANIFEST).exists()
    assert [path.name for path in here.glob("pairs*")] == [records.shard_name(0, 2)]
    del storage.objects[name]
    with pytest.raises(FileNotFoundError, match=records.shard_name(1, 2)):
        fetch.local_split(DATA, "single")
    manifest = json.loads((uploaded / "dual" / records.MANIFEST).read_text())
    manifest |= {"complete": False, "shard_count": 3}
    storage.put(f"data/pairs/dual/{records.MANIFEST}", json.dumps(manifest).encode())
    with pytest.raises(FileNotFoundError, match=rf"{DATA}/dual has 2 of 3 shards; finish"):
        fetch.local_split(DATA, "dual")
    with pytest.raises(FileNotFoundError, match=rf"{DATA}/none/manifest.json does not exist; copy"):
        fetch.local_split(DATA, "none")
    upload(storage, uploaded)  # what these three advise
    for split in ("single", "dual", "heldout"):
        fetch.local_split(DATA, split)
    few = rf"eval.pairs=9, but {DATA}/heldout holds 7; .* --root FOLDER --split heldout"
    with pytest.raises(ValueError, match=few):
        pipeline.eval_pairs(config(DATA, "eval.pairs=9"))
    storage.refused = {"GET"}
    with pytest.raises(ValueError, match=rf"(?s)data.root='{DATA}' cannot be reached .*may not do"):
        fetch.local_split(DATA, "heldout")


def test_a_copy_without_room_is_refused_with_both_figures(storage, uploaded, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"2 shards of .* MB, .* the disk has 0.0 MB left; free some"):
        fetch.local_split(DATA, "single")
    monkeypatch.undo()
    assert fetch.local_split(DATA, "single")


COPY = """
import hashlib, os, signal, sys
from dig_jax.data import records
from dig_jax.data.feed import fetch
if sys.argv[2] == "die":  # as kill -9 between two shards: the second has bytes but no name
    fetch._STREAMS, plain = 1, fetch._chunks
    def chunks(there, name):
        yield from plain(there, name)
        if "00001" in name:
            os.kill(os.getpid(), signal.SIGKILL)
    fetch._chunks = chunks
print(fetch.local_split(sys.argv[1], "single"))
"""


def copying(*more: str) -> subprocess.Popen:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COPY, DATA, *more]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def test_a_killed_copy_goes_on_and_processes_of_one_machine_take_turns(storage, uploaded):
    """Of two that start together one copies what the killed one lacks, and the other waits."""
    assert copying("die").wait() == -signal.SIGKILL
    here = fetch.copy_of(DATA, "single")
    left = [path.name for path in here.glob("pairs*")]
    assert len(left) == 2
    assert sum(name.endswith("arrayrecord") for name in left) == 1
    storage.asked.clear()
    both = [copying(""), copying("")]
    for child in both:
        assert child.communicate()[0].strip() == str(here)
    shard = f"data/pairs/single/{records.shard_name(1, 2)}"
    read = [name for method, name in storage.asked if "arrayrecord" in name]
    assert set(read) == {shard}
    assert not list(here.glob("*.tmp*"))
    assert records.open_split(here)


@pytest.mark.slow
def test_a_scheduler_learns_from_the_bucket_whether_a_run_is_done(storage, tmp_path):
    """tpu/complete.sh with the address in place of the run folder."""
    script = ROOT / "tpu" / "complete.sh"
    checkpoint.save(run_config(tmp_path), 3, {"a": jnp.ones(3)})
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    env["PYTHONPATH"] = str(ROOT)
    for step, status in (("3", 0), ("4", 143)):
        done = subprocess.run(["bash", script, RUN, step, "true"], env=env, capture_output=True)
        assert done.returncode == status, done.stderr


def test_a_folder_of_a_bucket_has_one_owner(storage, served_environment):
    """Two processes; then the first is killed; then an owner on another machine."""
    name = "runs/one/owner.lock"
    path = f"gs://{BUCKET}/{name}"
    with holder(path, served_environment) as child:
        refused = rf"checkpoint.root: {RUN} is in use by .*process {child.pid} on "
        with pytest.raises(locks.Taken, match=refused), locks.owned("checkpoint.root", path):
            pass
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert name in storage.objects
        with locks.owned("checkpoint.root", path, pause=never):
            assert json.loads(storage.objects[name][1])["pid"] == os.getpid()
    assert name not in storage.objects
    storage.put(name, ELSEWHERE.encode())

    def touched(seconds):
        gcsfs.GCSFileSystem.current().setxattrs(path, beat="1")

    with pytest.raises(locks.Taken, match="on elsewhere"):
        with locks.owned("checkpoint.root", path, pause=touched):
            pass
    storage.touched[name] -= locks.SILENCE_S + 1
    with locks.owned("checkpoint.root", path, pause=never):
        locks.check_ours(path)
        storage.put(name, ELSEWHERE.encode())
        with pytest.raises(locks.Taken, match="taken over by p"):
            locks.check_ours(path)
    assert name in storage.objects


def test_of_two_that_see_one_dead_lock_in_a_bucket_one_removes_it(storage):
    """The other's removal names the generation that it has seen."""
    name = "runs/one/owner.lock"
    storage.put(name, ELSEWHERE.encode())
    place = locks._Object(f"gs://{BUCKET}/{name}")
    place.make_folder("checkpoint.root")
    seen = place.read()
    place.remove(seen)
    assert place.create("the first")
    place.remove(seen)
    assert not place.create("the second")
    assert place.read().text == "the first"
