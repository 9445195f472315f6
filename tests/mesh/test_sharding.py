"""Mesh, rules and global arrays, on eight virtual devices."""

import itertools
import re
import socket
import subprocess
import sys
import warnings
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dig_jax.config import MeshConfig
from dig_jax.mesh import sharding
from dig_jax.model import config, specs
from tests import ROOT


@dataclass(frozen=True)
class Row:
    shape: tuple[int, ...]
    axes: tuple[str, ...]


@pytest.fixture
def mesh():
    return sharding.make_mesh(MeshConfig(fsdp=4, tensor=2))


def test_every_logical_axis_of_the_model_has_a_rule():
    text = config.TextConfig(64, 16, 32, 2, 4, 2, 8, 1e4, (2, 1, 1), tied=False)
    vision = config.VisionConfig(16, 32, 3, 2, 16, 16, (1,))
    model = config.ModelConfig(text, vision, 1, 2, 3, 4, (5,), 0)
    rows = dict(specs.named_specs(specs.model_specs(model)))
    assert {axis for row in rows.values() for axis in row.axes} <= set(sharding.RULES)


WQ = Row((8, 1024, 16, 64), ("layer", "embed", "heads", "head_dim"))


def test_training_splits_the_same_dimension_once_more(mesh):
    """So that the way to the rollout is a gather along fsdp, and nothing moves between rows."""
    table = {"block": {"wq": WQ}}
    answering = sharding.param_shardings(table, mesh, "rollout")["block"]["wq"]
    training = sharding.param_shardings(table, mesh, "train")["block"]["wq"]
    assert answering.spec == P(None, None, "tensor", None)
    assert training.spec == P(None, None, ("tensor", "fsdp"), None)
    slices = training.devices_indices_map(WQ.shape)
    for device, wide in answering.devices_indices_map(WQ.shape).items():
        narrow = slices[device][2].indices(16)
        assert wide[2].indices(16)[0] <= narrow[0] < narrow[1] <= wide[2].indices(16)[1]


def test_heads_that_fsdp_cannot_share_leave_it_the_features():
    """4B on 64 chips: 32 heads go to 8 devices, not to 64."""
    mesh = jax.sharding.AbstractMesh((8, 8), sharding.MESH_AXES)
    spec = sharding.spec_for(("embed", "heads", "head_dim"), (2560, 32, 128), mesh, "train")
    assert spec == P("fsdp", "tensor", None)


def test_a_table_that_is_only_read_is_split_by_features(mesh):
    spec = sharding.spec_for(("token", "feature"), (1000, 1024), mesh, "train")
    assert spec == P(None, ("tensor", "fsdp"))


def test_an_unknown_logical_axis_is_an_error(mesh):
    with pytest.raises(KeyError, match=r"'depth'.*no sharding rule"):
        sharding.spec_for(("embed", "depth"), (8, 8), mesh, "train")
    added = {**sharding.RULES, "depth": None}
    assert sharding.spec_for(("embed", "depth"), (8, 8), mesh, "train", added)


def test_a_dimension_that_does_not_divide_is_named(mesh):
    table = {"text": {"w_up": Row((1024, 1023), ("embed", "mlp"))}}
    whole = {**sharding.RULES, "mlp": None}  # the second way that the message names
    assert sharding.param_shardings(table, mesh, rules=whole)
    one = sharding.make_mesh(MeshConfig(8, 1))  # the first
    assert sharding.param_shardings(table, one)
    with pytest.raises(ValueError, match=r"text/w_up .*mlp=1023 .*'tensor' of 2 devices"):
        sharding.param_shardings(table, mesh)


def test_few_key_value_heads_and_small_tables_are_held_whole(mesh):
    table = {
        "wk": Row((1024, 3, 128), ("embed", "kv_heads", "head_dim")),
        "small": Row((96, 3, 32), ("embed", "heads", "head_dim")),
    }
    tree = sharding.param_shardings(table, mesh, "rollout")
    assert tree["wk"].spec == tree["small"].spec == P(None, None, None)
    tree = sharding.param_shardings(table, mesh, "train")
    assert tree["wk"].spec == tree["small"].spec == P(("tensor", "fsdp"), None, None)


def test_a_mesh_of_the_wrong_size_names_both_numbers():
    with pytest.raises(ValueError, match=r"fsdp=3 x mesh.tensor=2 = 6 devices.*there are 8"):
        sharding.make_mesh(MeshConfig(fsdp=3, tensor=2))


def test_one_device_is_a_mesh_too():
    mesh = sharding.make_mesh(MeshConfig(), devices=jax.devices()[:1])
    assert mesh.shape == {"fsdp": 1, "tensor": 1}


def test_a_batch_is_split_by_rows_and_comes_back_in_order(mesh):
    rows = {"images": np.arange(8 * 6).reshape(8, 6).astype(np.uint8), "id": np.arange(8)}
    with jax.transfer_guard("disallow"):
        placed = sharding.shard_batch(rows, mesh)
        back = jax.device_get(placed)
    assert placed["images"].sharding.spec == P("fsdp")
    assert placed["images"].addressable_shards[0].data.shape == (2, 6)
    np.testing.assert_array_equal(back["images"], rows["images"])


def test_a_batch_that_does_not_divide_is_named(mesh):
    with pytest.raises(ValueError, match=r"\['id'\] has 6 rows.*mesh.fsdp=4"):
        sharding.shard_batch({"id": np.arange(6)}, mesh)


def test_global_and_replicated_placement_agree(mesh):
    value = {"advantage": np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)}
    with jax.transfer_guard("disallow"):
        split, whole = sharding.shard_global(value, mesh), sharding.replicate(value, mesh)
    assert split["advantage"].sharding.spec == P("fsdp")
    assert whole["advantage"].is_fully_replicated
    np.testing.assert_array_equal(split["advantage"], whole["advantage"])


def slice_of(kind: str, platform: str, *bounds: int, slices: int = 1) -> list[SimpleNamespace]:
    """Devices as JAX lists those of a slice: four chips, 2 x 2, to a process."""
    places = [
        (z, y // 2, x // 2, y % 2, x % 2, part)
        for part, x, y, z in itertools.product(range(slices), *map(range, bounds))
    ]
    places.sort(key=lambda p: (p[5], *p[:5]))
    return [
        SimpleNamespace(
            id=i, process_index=i // 4, platform=platform, device_kind=kind, core_on_chip=0,
            coords=(2 * ox + x, 2 * oy + y, z), slice_index=part,
        )
        for i, (z, oy, ox, y, x, part) in enumerate(places)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "bounds"),
    [("TPU v5 lite", (4, 4, 1)), ("TPU v6 lite", (4, 4, 1)), ("TPU v5", (2, 2, 4))],
)
@pytest.mark.parametrize("shape", [(16, 1), (8, 2), (4, 4), (2, 8)])
def test_every_mesh_of_a_slice_gives_its_processes_the_whole_batch(
    monkeypatch, kind, bounds, shape
):
    """Ring orders spread a process's rows: v5e of 4 x 4 as 16 x 1 gives process 0 0, 1, 6, 15."""
    devices = slice_of(kind, "tpu", *bounds)
    placed = sharding.arrange(devices, shape)
    assert sorted(d.id for d in placed.flat) == list(range(16))
    shares = []
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        mesh = SimpleNamespace(devices=placed, shape={"fsdp": shape[0]})
        held, count = sharding.process_shares(mesh)
        assert count == shape[0]
        shares += held
    assert set(shares) == set(range(shape[0]))


def test_machines_of_gpus_make_one_mesh_and_slices_of_tpus_do_not():
    """JAX calls each machine of GPUs a slice, and its make_mesh takes one."""
    devices = slice_of("NVIDIA H100", "gpu", 2, 2, 1, slices=2)
    placed = sharding.arrange(devices[::-1], (4, 2))
    assert [d.id for d in placed.flat] == list(range(8))
    with pytest.raises(
        ValueError, match="2 TPU slices; a mesh is laid over one: start one run per"
    ):
        sharding.arrange(slice_of("TPU v5 lite", "tpu", 2, 2, 1, slices=2), (8, 1))
    sharding.arrange(slice_of("TPU v5 lite", "tpu", 2, 2, 1, slices=1), (4, 1))


@pytest.mark.parametrize("asked", [(3, 1), (16, 2), (1, 1)])
def test_a_mesh_of_another_number_of_devices_is_refused_with_one_that_works(asked):
    with pytest.raises(ValueError, match=r"but there are 8 \(cpu\); use --set") as caught:
        sharding.make_mesh(MeshConfig(*asked))
    advised = re.search(r"mesh.fsdp=(\d+) --set mesh.tensor=(\d+)", str(caught.value))
    assert sharding.make_mesh(MeshConfig(*map(int, advised.groups()))).size == 8
    sharding.make_mesh(MeshConfig(2, 4))  # "another product of 8"


def test_the_flag_that_a_warning_about_virtual_devices_advises_ends_it(monkeypatch):
    assert len(jax.devices()) == 8  # before the flags that make them are gone
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.warns(
        UserWarning, match="virtual CPU devices may deadlock; set XLA_FLAGS="
    ) as told:
        sharding.make_mesh(MeshConfig(8, 1))
    monkeypatch.setenv("XLA_FLAGS", str(told[0].message).partition("XLA_FLAGS=")[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sharding.make_mesh(MeshConfig(8, 1))


def test_a_batch_that_its_shares_do_not_divide_is_named_and_one_that_they_do_is_placed(mesh):
    with pytest.raises(ValueError, match=r"has 9 rows in shares .*; it must hold as many rows in"):
        sharding.shard_batch(np.zeros((9, 2)), mesh)
    assert sharding.shard_batch(np.zeros((8, 2)), mesh).shape == (8, 2)


CHILD = """
import sys, jax, numpy as np
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[1]))
from dig_jax.mesh import sharding
from dig_jax.config import MeshConfig
mesh = sharding.make_mesh(MeshConfig(fsdp=2, tensor=2))
shares, count = sharding.process_shares(mesh)
batch = sharding.shard_batch(np.arange(8).reshape(2, 4)[shares[0]], mesh)
total = jax.jit(lambda x: (x * 10).sum(), out_shardings=sharding.replicated(mesh))(batch)
print("slice", *shares, count, batch.shape, int(total))
"""


def test_two_processes_load_one_half_each(tmp_path):
    """Two children of two devices: the same global batch, each from its own rows."""
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    env |= {"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD]
    port = _free_port()
    children = [
        subprocess.Popen([*command, str(rank), port], env=env, stdout=-1, stderr=-1, text=True)
        for rank in range(2)
    ]
    try:
        outs = [child.communicate(timeout=120) for child in children]
    finally:
        for child in children:
            child.kill()
    lines = [line for out, _ in outs for line in out.splitlines() if line.startswith("slice")]
    assert lines == ["slice 0 2 (8,) 280", "slice 1 2 (8,) 280"], outs


def _free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])
