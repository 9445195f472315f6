"""Checkpoints: bits, meshes, kills, and configurations that do not belong together."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dig_jax.common import typed
from dig_jax.config import CheckpointConfig, Config, MeshConfig, OptimConfig
from dig_jax.doctor import folder
from dig_jax.learner import optim
from dig_jax.mesh import sharding
from dig_jax.run import arrays, checkpoint, resume
from tests import ROOT


def config(tmp_path, *settings):
    cfg = Config(run_dir=str(tmp_path), checkpoint=CheckpointConfig(every=1, keep=2))
    return typed.override(cfg, list(settings))


def state(seed=0):
    """Parameters, real optimiser moments after one update, and the step."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {"wq": jax.random.normal(keys[0], (8, 16)), "norm": jax.random.normal(keys[1], (16,))}
    optimizer = optim.make_optimizer(OptimConfig(rate=0.1), 10, params)
    params, opt_state, _ = optimizer.update(params, optimizer.init(params), params, jnp.int32(0))
    return {"params": params, "opt_state": opt_state, "step": jnp.int32(7)}


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_state_comes_back_bit_for_bit(tmp_path):
    cfg = config(tmp_path)
    checkpoint.save(cfg, 7, state())
    back, step = checkpoint.restore(cfg, state(seed=1))
    assert step == 7
    assert_same_bits(back, state())
    assert checkpoint.saved_config(tmp_path) == cfg


def test_it_restores_onto_another_mesh(tmp_path):
    """Saved on 4 x 2 devices, restored on 2 x 4 and on one."""
    saved = place(state(), MeshConfig(fsdp=4, tensor=2), jax.devices())
    checkpoint.save(config(tmp_path, "mesh.fsdp=4", "mesh.tensor=2"), 3, saved)
    for mesh, devices in ((MeshConfig(2, 4), jax.devices()), (MeshConfig(), jax.devices()[3:4])):
        target = place(jax.tree.map(jnp.zeros_like, state()), mesh, devices)
        back, _ = checkpoint.restore(config(tmp_path), target)
        assert_same_bits(back, state())
        want = jax.tree.map(lambda a: a.sharding, target)
        assert jax.tree.map(lambda a: a.sharding, back) == want


def place(tree, cfg, devices):
    mesh = sharding.make_mesh(cfg, devices)
    split = NamedSharding(mesh, P("fsdp", "tensor"))
    whole = sharding.replicated(mesh)
    return jax.tree.map(lambda a: jax.device_put(a, split if a.ndim == 2 else whole), tree)


def test_saving_works_under_the_transfer_guard(tmp_path):
    made = state()
    with jax.transfer_guard("disallow"):
        checkpoint.save(config(tmp_path), 1, made)
    assert checkpoint.latest_step(tmp_path) == 1


def test_the_newest_are_kept_and_a_step_is_written_once(tmp_path):
    cfg = config(tmp_path)
    for step in (1, 2, 3):
        checkpoint.save(cfg, step, state(seed=step))
    checkpoint.save(cfg, 3, state(seed=99))
    assert checkpoint.saved_steps(tmp_path) == [2, 3]
    assert_same_bits(checkpoint.restore(cfg, state())[0], state(seed=3))
    assert_same_bits(checkpoint.restore(cfg, state(), step=2)[0], state(seed=2))


@pytest.mark.parametrize("name", ["sweep[lr=1e-4]", "a\\b", "what?", "all*"])
def test_a_path_that_orbax_could_not_read_back_is_refused_by_its_field(tmp_path, name):
    """Also where the brackets are in the working directory, of which the setting says nothing."""
    cfg = config(tmp_path, f"run_dir={tmp_path}/{name}")
    for check in (resume.check_start, folder.writing, lambda cfg: checkpoint.save(cfg, 1, state())):
        with pytest.raises(ValueError, match=r"run_dir='.* has .*; name a folder without"):
            check(cfg)
    elsewhere = typed.override(cfg, [f"checkpoint.root={tmp_path}/plain"])
    checkpoint.save(elsewhere, 1, state())
    assert_same_bits(checkpoint.restore(elsewhere, state(1))[0], state())
    rooted = config(tmp_path, f"checkpoint.root={tmp_path}/{name}")
    for check in (resume.check_start, folder.keeping):
        with pytest.raises(ValueError, match=r"checkpoint.root='.*; name a folder without"):
            check(rooted)
    with pytest.raises(ValueError, match="name a folder without"):
        arrays.save_params(tmp_path / name, {"w": jnp.ones(3)})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's own
def test_older_checkpoints_stay_until_the_new_one_has_been_opened(tmp_path, monkeypatch):
    """A writer whose arrays are lost on the way, as Orbax's were in a folder with brackets."""
    cfg = config(tmp_path, "checkpoint.keep=1")
    checkpoint.save(cfg, 1, state(seed=1))
    finished = ocp.CheckpointManager.wait_until_finished

    def lossy(manager):
        finished(manager)
        for path in (tmp_path / "checkpoints" / "2" / "state").rglob("d/*"):
            path.write_bytes(b"rotten")

    monkeypatch.setattr(ocp.CheckpointManager, "wait_until_finished", lossy)
    with pytest.raises(RuntimeError, match=r"checkpoints/2/state was written and cannot be opened"):
        checkpoint.save(cfg, 2, state(seed=2))
    assert checkpoint.saved_steps(tmp_path) == [1, 2]
    assert_same_bits(checkpoint.restore(cfg, state(), step=1)[0], state(seed=1))
    monkeypatch.undo()  # what the message advises
    shutil.move(tmp_path / "checkpoints" / "2", tmp_path / "away")
    checkpoint.save(cfg, 2, state(seed=2))
    assert_same_bits(checkpoint.restore(cfg, state())[0], state(seed=2))


def test_a_full_disk_is_told_with_both_figures_and_what_the_command_does_then(
    tmp_path, monkeypatch
):
    """Before anything is written, where the room is seen to lack; else by what Orbax has met."""
    cfg = config(tmp_path)
    told = (
        r"checkpoints: checkpoint {} takes 0.0 MB and the disk has .* MB left; free some: the same"
    )
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage("/")._replace(free=100)
        patch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(checkpoint.NoRoom, match=told.format(4) + " command begins again"):
            checkpoint.save(cfg, 4, state())
        assert checkpoint.saved_steps(tmp_path) == []
    checkpoint.save(cfg, 4, state())
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise ValueError("RESOURCE_EXHAUSTED: [Errno 28] No space left on device")

        patch.setattr(ocp.CheckpointManager, "save", full)
        with pytest.raises(checkpoint.NoRoom, match=told.format(5) + " command continues after st"):
            checkpoint.save(cfg, 5, state())
    checkpoint.save(cfg, 5, state())
    assert checkpoint.saved_steps(tmp_path) == [4, 5]


def test_a_checkpoint_that_is_not_written_is_an_error(tmp_path):
    """Orbax skips a step below its newest and says so by False alone."""
    checkpoint.save(config(tmp_path), 8, state())
    with pytest.raises(RuntimeError, match=r"checkpoint 4 was not written: .* holds \[8\]"):
        checkpoint.save(config(tmp_path), 4, state())
    checkpoint.save(config(tmp_path / "own"), 4, state())  # where no other run writes


def test_no_checkpoint_is_said_plainly(tmp_path):
    assert checkpoint.latest_step(tmp_path / "new") is None
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint; it holds none"):
        checkpoint.restore(config(tmp_path), state())
    checkpoint.save(config(tmp_path), 4, state())
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint 3; it holds \[4\]") as caught:
        checkpoint.restore(config(tmp_path), state(), step=3)
    held = int(re.search(r"holds \[(\d+)\]", str(caught.value))[1])
    assert checkpoint.restore(config(tmp_path), state(), step=held)[1] == 4


def test_a_folder_that_is_no_checkpoint_is_moved_away_as_advised(tmp_path):
    checkpoint.save(config(tmp_path), 4, state())
    (tmp_path / "checkpoints" / "4" / "config" / "metadata").unlink()
    with pytest.raises(ValueError, match=r"metadata is missing; move \S+ away") as caught:
        resume.check_start(config(tmp_path))
    shutil.move(re.search(r"move (\S+) away", str(caught.value))[1], tmp_path / "away")
    assert resume.check_start(config(tmp_path)) is None


def test_arrays_that_cannot_be_restored_are_made_again(tmp_path):
    """Of an import or of the best weights; the damaged folder goes first."""
    whole = {"w": jnp.arange(8.0)}
    arrays.save_params(tmp_path / "one", whole)
    for path in (tmp_path / "one").rglob("d/*"):
        path.write_bytes(b"rotten")
    with pytest.raises(ValueError, match=r"one/params cannot be restored; delete .*/one:") as e:
        arrays.load_params(tmp_path / "one", whole)
    shutil.rmtree(re.search(r"delete (\S+):", str(e.value))[1])
    arrays.save_params(tmp_path / "one", whole)
    assert_same_bits(arrays.load_params(tmp_path / "one", whole), whole)


def test_an_unfinished_save_is_not_a_checkpoint(tmp_path):
    checkpoint.save(config(tmp_path), 4, state())
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.latest_step(tmp_path) == 4
    checkpoint.save(config(tmp_path), 5, state())
    assert checkpoint.saved_steps(tmp_path) == [4, 5]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's own
def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path):
    for step in (3, 4):
        checkpoint.save(config(tmp_path), step, state())
    for path in (tmp_path / "checkpoints" / "4" / "state").rglob("d/*"):
        path.write_bytes(b"rotten")
    with pytest.raises(ValueError, match=r"checkpoints/4 cannot be restored; move .*\(\[3\]\)"):
        checkpoint.restore(config(tmp_path), state())
    shutil.move(tmp_path / "checkpoints" / "4", tmp_path / "rotten")
    assert checkpoint.restore(config(tmp_path), state())[1] == 3


def test_a_state_of_another_shape_or_structure_names_the_arrays(tmp_path):
    checkpoint.save(config(tmp_path), 4, state())
    other = state()
    other["params"] = {"wq": jnp.zeros((8, 32)), "extra": jnp.zeros(3)}
    with pytest.raises(ValueError, match=r"(?s)holds another kind of state:") as caught:
        checkpoint.restore(config(tmp_path), other)
    text = str(caught.value)
    assert "params.wq: saved ((8, 16), 'float32'), wanted ((8, 32), 'float32')" in text
    assert "params.norm: saved ((16,), 'float32'), wanted None" in text
    assert "params.extra: saved None, wanted ((3,), 'float32')" in text


def test_differing_fields_are_all_named(tmp_path):
    checkpoint.save(config(tmp_path), 4, state())
    changed = config(tmp_path, "optim.rate=0.5", "rollout.group=4", "eval.pairs=3")
    with pytest.raises(
        ValueError, match=r"(?s)rollout.group: saved 8, now 4.*optim.rate"
    ) as caught:
        resume.check_config(changed, 4)
    assert "eval.pairs" not in str(caught.value)
    assert "--run-dir" in str(caught.value)
    resume.check_start(config(tmp_path, "eval.pairs=3"))  # set back
    resume.check_start(typed.override(changed, [f"run_dir={tmp_path}/new"]))  # or a new run


def test_how_the_model_is_computed_may_change(tmp_path):
    """Also when the saved configuration is from before the fields were there."""
    checkpoint.save(config(tmp_path), 4, state())
    settings = ("model.attention=chunked", "model.remat=qkvo", "model.layers=scan")
    resume.check_config(config(tmp_path, *settings), 4)
    path = tmp_path / "checkpoints" / "4" / "config" / "metadata"
    saved = json.loads(path.read_text())
    del saved["model"]["layers"]
    path.write_text(json.dumps(saved | {"model": saved["model"] | {"attention": "xla"}}))
    shutil.rmtree(tmp_path / "checkpoints" / "4" / "record")  # it would tell that this was changed
    resume.check_config(config(tmp_path), 4)
    assert checkpoint.saved_config(tmp_path).model.layers == "one_scan"


def test_a_run_may_be_extended_but_its_past_may_not_change(tmp_path):
    checkpoint.save(config(tmp_path), 50, state())
    resume.check_config(config(tmp_path, "steps=90", "curriculum.stages.2.until=90"), 50)
    resume.check_config(config(tmp_path, "steps=55", "curriculum.stages.2.until=55"), 50)
    for setting in ("curriculum.stages.1.weights.dual=0.9", "curriculum.stages.0.until=21"):
        with pytest.raises(ValueError, match=r"another mixture before step 50"):
            resume.check_config(config(tmp_path, setting), 50)


def test_the_stored_configuration_is_readable_json(tmp_path):
    cfg = config(tmp_path)
    checkpoint.save(cfg, 2, state())
    text = (tmp_path / "checkpoints" / "2" / "config" / "metadata").read_text()
    assert json.loads(text) == typed.to_plain(cfg)


CHILD = """
import sys, jax.numpy as jnp
from dig_jax.run import checkpoint
from dig_jax.config import Config
cfg = Config(run_dir=sys.argv[1])
for step in range(1, 500):
    checkpoint.save(cfg, step, {f"w{i}": jnp.full((64, 64), float(step)) for i in range(8)})
    print(step, flush=True)
"""


def test_a_kill_in_the_middle_of_saving_loses_no_reported_step(tmp_path):
    """kill -9 while saving: the newest checkpoint is whole and at least the last one reported."""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        reported = [int(child.stdout.readline()) for _ in range(3)][-1]
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    like = {f"w{i}": jnp.zeros((64, 64)) for i in range(8)}
    back, step = checkpoint.restore(Config(run_dir=str(tmp_path)), like)
    assert step >= reported
    assert {float(leaf.min()) for leaf in back.values()} == {float(step)}
    assert {float(leaf.max()) for leaf in back.values()} == {float(step)}


def test_a_bit_that_turns_over_in_any_file_is_found_before_it_is_used(tmp_path):
    """TensorStore keeps no checksum of the numbers: without the digest some came back wrong."""
    cfg, whole, like = config(tmp_path), tmp_path / "checkpoints", state()
    checkpoint.save(cfg, 2, state(seed=1))
    files = sorted(
        p for p in (whole / "2" / "state").rglob("*") if p.is_file() and p.stat().st_size
    )
    found, rng = [], np.random.default_rng(0)
    for path in files:
        good = path.read_bytes()
        for _ in range(3):
            bad = bytearray(good)
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
            path.write_bytes(bad)
            try:
                assert_same_bits(checkpoint.restore(cfg, like)[0], state(seed=1))
            except ValueError as error:
                found.append(str(error))
        path.write_bytes(good)
    assert_same_bits(checkpoint.restore(cfg, like)[0], state(seed=1))
    assert found
    odd = [m for m in found if "cannot be restored; move " not in m]
    assert not odd


def test_a_checkpoint_of_a_version_without_digests_is_restored(tmp_path):
    cfg = config(tmp_path)
    checkpoint.save(cfg, 2, state(seed=1))
    for item in ("digest", "record"):
        shutil.rmtree(tmp_path / "checkpoints" / "2" / item)
    assert_same_bits(checkpoint.restore(cfg, state())[0], state(seed=1))
