"""An import is its source on any mesh, a check names what differs, and a kill leaves nothing."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dig_jax.config import Config, DataConfig, MeshConfig, ModelSource
from dig_jax.convert import folders
from dig_jax.hf import weights
from dig_jax.mesh.sharding import make_mesh
from dig_jax.run import arrays
from dig_jax.run.session import Session, load_weights
from tests.convert.test_convert import call, save, seeded
from tests.tiny_model import ASSETS, small_base

DEADLINE_S = 120


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A Hugging Face folder and its import."""
    root = tmp_path_factory.mktemp("import")
    weights.save_hf(root / "base", seeded(0), small_base(), source_folder=ASSETS)
    assert call("import", "--source", root / "base", "--out", root / "orbax") == 0
    return root


def loaded(source: Path, **mesh: int):
    """The weights as an entry point gets them from `model.source`."""
    cfg = Config(model=ModelSource(source=str(source)))
    devices = jax.devices()[: np.prod([1, *mesh.values()])]
    session = Session(
        cfg,
        make_mesh(MeshConfig(**mesh), devices),
        weights.read_model_config(source),
        processor=None,
        prompt=None,
        image_size=None,
        decoding=None,
        modes={},
    )
    return load_weights(session), session


@pytest.mark.parametrize("mesh", [{}, {"fsdp": 4}, {"fsdp": 2, "tensor": 1}])
def test_an_import_is_a_source_on_any_mesh(base, mesh):
    """Made on one device, read straight onto others, bit for bit."""
    params, session = loaded(base / "orbax", **mesh)
    assert session.model == small_base()
    jax.tree.map(np.testing.assert_array_equal, params, seeded(0))
    placed = jax.tree.map(lambda array, where: array.sharding == where, params, session.shardings)
    assert all(jax.tree.leaves(placed))


@pytest.mark.slow
def test_a_narrow_import_is_rounded_and_read_as_float32(base, tmp_path):
    out = tmp_path / "narrow"
    assert call("import", "--source", base / "base", "--out", out, "--dtype", "bfloat16") == 0
    params, _ = loaded(out)
    for ours, first in zip(jax.tree.leaves(params), jax.tree.leaves(seeded(0)), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_array_equal(ours, first.astype(jnp.bfloat16).astype(jnp.float32))
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_run_from_an_import_is_exported_with_its_files(base, tmp_path):
    cfg = Config(
        name="again",
        run_dir=str(tmp_path / "run"),
        model=ModelSource(source=str(base / "orbax")),
        data=DataConfig(image_width=32, image_height=32),
    )
    save(cfg, 1, seed=1)
    out = tmp_path / "hf"
    assert call("export", "--run", tmp_path / "run", "--out", out) == 0
    assert call("check", out, "--run", tmp_path / "run") == 0
    assert not (out / arrays.PARAMS).exists()
    assert json.loads((out / folders.ORIGIN).read_text())["run"] == "again"
    for file in ("tokenizer.json", "chat_template.jinja"):
        assert (out / file).read_bytes() == (ASSETS / file).read_bytes()


def test_an_import_is_compared_with_its_source(base, capsys):
    assert call("check", base / "orbax", "--source", base / "base") == 0
    assert call("check", base / "base", "--source", base / "orbax") == 0
    said = capsys.readouterr().out
    assert "in float32; logits on 3 prompts differ by at most 0 and agree on 100%" in said


def change_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["model.visual.merger.norm.weight"][3] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_theta(folder: Path) -> None:
    top = json.loads((folder / "config.json").read_text())
    for place in (top["text_config"], top["text_config"]["rope_parameters"]):
        place["rope_theta"] = 7.0
    (folder / "config.json").write_text(json.dumps(top))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_weight, "vision/merger/norm differs from .* in 1 of 16 numbers"),
        (change_theta, "text is TextConfig"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json differs"),
        (lambda f: (f / "chat_template.jinja").unlink(), "has no chat_template.jinja"),
        (lambda f: (f / "added_tokens.json").write_text("{}"), "has no added_tokens.json"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    ],
)
def test_the_first_difference_is_named(change, message, base, tmp_path, capsys):
    other = Path(shutil.copytree(base / "base", tmp_path / "other"))
    (other / "checksums.json").unlink()  # they would name the file first
    change(other)
    assert call("check", other, "--source", base / "base") == 1
    said = capsys.readouterr().err
    assert re.search(message, said)
    lacking = re.search(r"other has no (chat_template.jinja); copy it, the other side", said)
    if lacking:  # what the message advises
        shutil.copyfile(base / "base" / lacking[1], other / lacking[1])
        assert call("check", other, "--source", base / "base") == 0


def test_a_dtype_that_is_none_of_ours_is_set_to_one_of_those_named(base, tmp_path, capsys):
    other = Path(shutil.copytree(base / "base", tmp_path / "other"))
    (other / "checksums.json").unlink()
    config = other / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"dtype": "float8"}))
    assert call("check", other, "--source", base / "base") == 1
    said = capsys.readouterr().err
    advised = re.search(r"config.json says dtype='float8'; use one of (\w+)", said)
    config.write_text(json.dumps(told | {"dtype": advised[1]}))
    assert call("check", other, "--source", base / "base") == 0


def test_a_check_needs_something_to_compare_with(base):
    with pytest.raises(SystemExit):
        call("check", base / "base")
    assert call("check", base / "base", "--source", base / "orbax") == 0


def test_a_bad_import_leaves_nothing(base, tmp_path, capsys):
    broken = Path(shutil.copytree(base / "base", tmp_path / "broken"))
    (broken / "checksums.json").unlink()
    with (broken / "model.safetensors").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 4)
    assert call("import", "--source", broken, "--out", tmp_path / "out") == 1
    assert "cut short" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]
    assert call("import", "--source", broken, "--out", broken) == 1
    assert "name another --out" in capsys.readouterr().err
    shutil.copyfile(base / "base" / "model.safetensors", broken / "model.safetensors")
    assert call("import", "--source", broken, "--out", tmp_path / "another") == 0


def test_an_import_that_could_not_be_read_back_is_refused_by_its_argument(base, tmp_path):
    """Brackets: Orbax finds its own files by a pattern that begins with the whole path."""
    out = tmp_path / "imp[1]"
    with pytest.raises(ValueError, match=r"--out='.*imp\[1\]' has \[ in it"):
        folders.import_folder(str(base / "base"), out, dtype="float32", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_an_import_is_not_written_to_an_address(base, tmp_path):
    """A path would take it for a folder named "gs:" of this machine."""
    with pytest.raises(ValueError, match=r"--out gs://b/x is an address; .* `gcloud storage rsync"):
        folders.import_folder(str(base / "base"), "gs://b/x", dtype="float32", overwrite=True)
    folders.import_folder(str(base / "base"), tmp_path / "x", dtype="float32", overwrite=True)
    assert not Path("gs:").exists()


def kill_when(words: list, appears: Path) -> None:
    """Runs `convert` and kills it once a path exists."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dig_jax.convert", *map(str, words)],
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + DEADLINE_S
    while process.poll() is None and not list(appears.parent.glob(appears.name)):
        assert time.monotonic() < until, f"{appears} never appeared"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed") / "run"
    source = ModelSource(source=str(base / "base"))
    save(Config(name="killed", run_dir=str(folder), model=source), 1, seed=1)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("file", ["README.md", "model-00003-of-*"])
def test_a_killed_export_leaves_nothing_that_looks_finished(file, run, tmp_path):
    out = tmp_path / "hf"
    words = ["export", "--run", run, "--out", out, "--shard-gb", 0.00001]
    kill_when(words, tmp_path / ".hf.partial" / file)
    assert not out.exists()
    assert (tmp_path / ".hf.partial").is_dir()  # it was killed on the way
    assert call(*words) == 0
    assert call("check", out, "--run", run) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.slow
def test_an_export_killed_at_its_end_is_whole_or_absent(run, tmp_path):
    out = tmp_path / "hf"
    words = ["export", "--run", run, "--out", out, "--shard-gb", 0.00001]
    kill_when(words, tmp_path / ".hf.partial" / "model.safetensors.index.json")
    if not out.exists():
        assert call(*words) == 0
    assert call("check", out, "--run", run) == 0


@pytest.mark.slow
def test_a_killed_import_leaves_nothing_that_looks_finished(base, tmp_path):
    out = tmp_path / "orbax"
    words = ["import", "--source", base / "base", "--out", out]
    kill_when(words, tmp_path / ".orbax.partial" / "params*")
    assert not out.exists()
    assert call(*words) == 0
    assert call("check", out, "--source", base / "base") == 0
