"""A dry run: real steps of a model cut to its first blocks, of which nothing is left."""

import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from dig_jax.common import typed
from dig_jax.config import MeshConfig
from dig_jax.hf import files, weights
from dig_jax.mesh import sharding
from dig_jax.model.config import ModelConfig, first_blocks
from dig_jax.model.params import placed_shapes
from dig_jax.model.sizes import released
from dig_jax.model.specs import model_specs, named_specs
from dig_jax.run import arrays, checkpoint, dryrun
from dig_jax.run.dryrun import dry_run
from tests.test_train import finish, micro_config, start
from tests.tiny_model import make_tiny, small_base


def three_blocks() -> ModelConfig:
    """Three text and three vision blocks, the last two tapped: a cut to two moves the taps."""
    base = small_base()
    text = dataclasses.replace(base.text, layers=3)
    vision = dataclasses.replace(base.vision, depth=3, deepstack=(1, 2))
    return dataclasses.replace(base, text=text, vision=vision)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    cfg = micro_config(tmp_path_factory.mktemp("dryrun"), three_blocks())
    plain = ["kl_coef=0", "minibatches=1", "accumulate=1", "entropy_coef=0", "resample=0"]
    return typed.override(cfg, ["rollout.max_tokens=16", *(f"grpo.{one}" for one in plain)])


def files_of(folder) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_dry_run_shows_prompt_answers_and_rewards_and_touches_no_run(config, tmp_path):
    """In a folder that holds a run of another configuration, which a dry run has no part in."""
    other = dataclasses.replace(config, seed=7, run_dir=str(tmp_path / "run"))
    checkpoint.save(other, 2, {"a": jax.numpy.ones(3)})
    before = files_of(other.run_dir)
    printed = finish(start(config, other.run_dir, tmp_path, "train", "--dry-run", "2"))
    assert files_of(other.run_dir) == before
    assert "cut to 2 of 3 text and 2 of 3 vision blocks\na step has 4 pairs x 2 answers" in printed
    prompt = " ".join(printed.partition("prompt:")[2].split())
    assert prompt.count("<|vision_start|><|image_pad|> x 20<|vision_end|>") == 2
    assert f"<|vision_end|>{config.prompt.question}<|im_end|> <|im_start|>assistant" in prompt
    for step in (1, 2):
        [shown] = re.findall(rf"^step {step}, pair \d of single:\n((?:  .*\n)+)", printed, re.M)
        names = re.findall(r"^  (\w+)  ", shown, re.M)
        assert names == ["answer", "form", "boxes", "truth", "reward", "parts"]
        assert re.search(r"parts +format \d.*f1 \d.*iou \d", shown)
    assert "step 3" not in printed
    assert re.search(r"^dry run: 2 steps, .*: fine$", printed, re.M)


@pytest.mark.parametrize("steps", [0, 5])
def test_a_dry_run_is_shorter_than_the_run(config, steps):
    with pytest.raises(SystemExit, match=f"--dry-run={steps} is not between 1 and steps=5"):
        dry_run(config, steps, train=None)


@pytest.mark.parametrize("whole", [5, 2, 1])
def test_the_length_that_a_refused_dry_run_advises_is_one(config, whole, monkeypatch):
    """Of a run of two steps it advised all of them, which is refused in turn."""
    stage = dataclasses.replace(config.curriculum.stages[0], until=whole)
    curriculum = dataclasses.replace(config.curriculum, stages=(stage,))
    constant = dataclasses.replace(config.optim, schedule="constant", warmup=0)
    short = dataclasses.replace(config, steps=whole, curriculum=curriculum, optim=constant)
    with pytest.raises(SystemExit) as caught:
        dry_run(short, whole, train=None)
    if whole == 1:
        assert "leave it out: one step is the whole run" in str(caught.value)
        return

    def opened(cfg, **_):
        raise ValueError("the next thing that is looked at")

    monkeypatch.setattr(dryrun, "open_session", opened)
    advised = int(re.search(r"; use (\d)$", str(caught.value))[1])
    with pytest.raises(SystemExit, match="the next thing"):
        dry_run(short, advised, train=None)


def test_a_cut_keeps_as_many_taps_as_blocks_are_left_to_tap_and_to_feed():
    cut = first_blocks(released("8b"), 2)
    assert (cut.text.layers, cut.vision.depth, cut.vision.deepstack) == (2, 2, (0, 1))
    assert first_blocks(released("8b"), 12).vision.deepstack == (9, 10, 11)
    assert first_blocks(released("2b"), 20) == dataclasses.replace(
        released("2b"),
        text=dataclasses.replace(released("2b").text, layers=20),
        vision=dataclasses.replace(released("2b").vision, depth=20),
    )
    one = first_blocks(released("8b"), 1)
    assert (one.text.layers, one.vision.depth, one.vision.deepstack) == (1, 1, (0,))
    assert first_blocks(small_base(), 2) == small_base()


def assert_first_blocks(cut, whole):
    """Every array is the beginning of its namesake, along the layers."""
    pairs = zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True)
    for some, all_of_them in pairs:
        assert some.shape[1:] == all_of_them.shape[1:]
        np.testing.assert_array_equal(some, all_of_them[: len(some)])


def test_a_cut_reads_the_tensors_of_its_blocks_and_no_others(config, monkeypatch):
    """And a folder with more blocks than config.json says is still refused without a cut."""
    folder, model = config.model.source, weights.read_model_config(config.model.source)
    cut, read = first_blocks(model, 2), []
    one_by_one = files.read_tensor
    monkeypatch.setattr(
        files, "read_tensor", lambda file, entry: read.append(entry) or one_by_one(file, entry)
    )
    params = weights.load_params(folder, cut, cut=True)
    assert len(read) == sum(len(spec.keys) for _, spec in named_specs(model_specs(cut)))
    assert_first_blocks(params, weights.load_params(folder, model))
    with pytest.raises(ValueError, match="unknown key"):
        weights.load_params(folder, cut)


def test_a_cut_of_an_import_reads_the_same(config, tmp_path):
    model = weights.read_model_config(config.model.source)
    cut, whole = first_blocks(model, 2), make_tiny(jax.random.key(0), model)
    arrays.save_params(tmp_path, whole)
    mesh = sharding.make_mesh(MeshConfig(), devices=jax.devices()[:1])
    like = placed_shapes(cut, sharding.param_shardings(model_specs(cut), mesh))
    assert_first_blocks(arrays.load_params(tmp_path, like, cut=True), whole)
