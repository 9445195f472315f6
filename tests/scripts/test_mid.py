"""The mid-size model: its sizes, its configuration, and its whole chain shrunk onto a CPU."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from dig_jax.config import load_config
from dig_jax.data.__main__ import main as data
from dig_jax.inputs.prompt import load_processor, make_prompt
from dig_jax.model import attention
from dig_jax.model.coldinit import comparing_init
from dig_jax.model.params import count
from dig_jax.model.sizes import released
from dig_jax.model.specs import model_specs
from dig_jax.run.runlog import read_rows
from scripts.make import base
from tests import ROOT
from tests.model.test_coldinit import attention as attention_of
from tests.tiny_model import ASSETS

SCRIPT = ROOT / "scripts" / "train_mid.sh"
MID = base.shaped("mid", load_processor(ASSETS))
CONFIG = load_config(ROOT / "configs" / "mid_gpu.py")
SPLITS = {"base": (1, 2), "dev": (1, 2), "single": (1, 1), "dual": (2, 2), "mixed": (1, 2)}
SPLITS |= {"heldout": (1, 2)}
SHRUNK = """
    steps=3 curriculum.stages.0.until=1 curriculum.stages.1.until=2 curriculum.stages.2.until=3
    pairs_per_step=2 rollout.group=2 optim.warmup=1 data.image_width=96 data.image_height=64
    eval.pairs=2 eval.batch=2 eval.samples=1 eval.every=0 checkpoint.every=1 log.samples_every=0
    grpo.accumulate=1
"""


# ---- sizes


def test_the_mid_shape_has_50_to_100_million_parameters_and_cuts_256x192_into_cells():
    assert 50e6 < count(model_specs(MID)) < 100e6
    MID.check_image(CONFIG.data.image_height, CONFIG.data.image_width)
    with pytest.raises(ValueError, match="multiple of patch"):
        MID.check_image(192, 256 + 16)


def test_the_mid_shape_keeps_the_released_proportions():
    """The 2B's: heads as wide as the decoder, half as wide a tower, taps at the same depths."""
    ours, theirs = MID, released("2b")
    for tower, names in (("text", ("mlp",)), ("vision", ("mlp", "out"))):
        for name in names:
            a, b = (getattr(getattr(m, tower), name) / m.text.width for m in (ours, theirs))
            assert a == b, name
    for c in (ours.text, theirs.text):
        assert (c.heads * c.head_dim, c.heads // c.kv_heads) == (c.width, 2)
        shares = np.array(c.mrope_section) / sum(c.mrope_section)
        np.testing.assert_array_equal(shares, np.array((24, 20, 20)) / 64)
    assert ours.vision.head_dim == theirs.vision.head_dim
    assert (ours.text.layers, ours.vision.depth) == (14, 12)
    assert [2 * tap + 1 for tap in ours.vision.deepstack] == list(theirs.vision.deepstack)


def test_the_tiny_shape_is_the_shipped_models():
    shipped = base.weights.read_model_config(ASSETS)
    assert base.shaped("tiny", load_processor(ASSETS)) == shipped


def test_a_new_search_is_put_into_a_model_of_the_shape_alone():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"--trained=.* is no checkpoint of --shape"):
        base.trained(str(ASSETS), MID, key)
    config = base.shaped("tiny", load_processor(ASSETS))
    before, after = base.weights.load_params(ASSETS, config), base.trained(ASSETS, config, key)
    np.testing.assert_array_equal(before["head"], after["head"])
    moved = np.any(np.asarray(before["blocks"]["wq"] != after["blocks"]["wq"]), axis=(1, 2, 3))
    assert moved.tolist() == [False] * (config.text.layers - 1) + [True]


def test_the_configuration_is_for_one_gpu_and_three_stages():
    assert CONFIG.mesh.fsdp * CONFIG.mesh.tensor == 1
    assert [list(stage.weights) for stage in CONFIG.curriculum.stages] == [
        ["single"], ["single", "dual"], ["single", "dual", "mixed"]
    ]  # fmt: skip
    assert CONFIG.rollout.group == 8
    heads = (MID.text.head_dim, MID.vision.head_dim)
    chosen = attention.choose(
        CONFIG.model.attention, platform="gpu", dtype=CONFIG.model.compute_dtype, head_dims=heads
    )
    assert chosen == "xla"


@pytest.mark.slow
def test_the_mid_shape_starts_by_comparing_the_two_images():
    """All 48 cells of image B, shown a noise image twice, look at their twins in image A."""
    cells = (6, 8)
    params = comparing_init(MID, cells, key=jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    size = (CONFIG.data.image_height, CONFIG.data.image_width)
    prompt = make_prompt(CONFIG.prompt, load_processor(ASSETS), MID, [[size, size]])
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8).repeat(2, 0)
    seen = np.asarray(attention_of(MID, params, prompt, images))
    first, second = np.flatnonzero(prompt.slot[0] >= 0).reshape(2, 48)
    found = (seen[:, second].argmax(-1) == first).mean(-1)
    np.testing.assert_array_equal(found[:: MID.text.heads // MID.text.kv_heads], 1)


# ---- the script


def train_mid(*words, **variables) -> subprocess.Popen:
    """The script in a session of its own, on one CPU device."""
    free = {"XLA_FLAGS": "", "PYTHON": sys.executable, "SHAPE": "tiny", "SFT_STEPS": "4"}
    return subprocess.Popen(
        ["bash", str(SCRIPT), *map(str, words)],
        env={**os.environ, **free, "SFT_BATCH": "2", "SFT_EVERY": "2", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_missing_pairs_are_refused_with_the_commands_that_make_them(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "manifest.json").write_text("{}")
    process = train_mid(tmp_path, tmp_path / "out")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "lacks the splits dev single dual mixed heldout" in said
    assert "--preset base --set look.width=256 --set look.height=192" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [(["d"], "DATA and OUT are wanted, 1 folders"), (["d", "o", "--abl"], "argument --abl")],
)
def test_a_wrong_command_line_is_refused(words, message):
    process = train_mid(*words)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, message in said) == (2, True)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Every split the chain reads, by the ray tracer."""
    root = tmp_path_factory.mktemp("pairs")
    for split, (low, high) in SPLITS.items():
        words = f"render --root {root} --split {split} --pairs 4 --k {low} --k-max {high}"
        assert data([*words.split(), "--set", "look.renderer=numpy"]) == 0
    return root


@pytest.mark.slow
def test_the_chain_runs_on_a_cpu_and_goes_on_after_a_kill(pairs, tmp_path):
    """Cold start, GRPO, evaluation, report; killed in the cold start, then the same command."""
    out = tmp_path / "out"
    words = [pairs, out, *(w for field in SHRUNK.split() for w in ("--set", field))]
    process = train_mid(*words)
    saved, deadline = out / "cold_start" / "checkpoints" / "2", time.monotonic() + 300
    while not saved.is_dir() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    said = process.communicate()[0]
    assert saved.is_dir(), said
    assert not (out / "base").exists()

    process = train_mid(*words)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert [row["step"] for row in read_rows(out / "cold_start", kind="train")] == [0, 1, 2, 3]
    assert [row["step"] for row in read_rows(out / "cold_start", kind="eval")] == [1, 3]
    rows = read_rows(out / "grpo", kind="train")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert "cold start" in said
    assert (out / "grpo" / "report.md").is_file()
    packed = subprocess.run(
        ["tar", "tzf", str(out / "results.tar.gz")], capture_output=True, text=True, check=True
    ).stdout
    assert "./grpo/metrics.jsonl" in packed
    assert "./cold_start/metrics.jsonl" in packed
    assert not [name for name in packed.split() if "checkpoints" in name or "tokenizer" in name]

    again = train_mid(*words)
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0
    assert "== report" in said
    assert "== train" not in said
