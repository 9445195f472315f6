"""An exported folder is the checkpoint: same numbers, same tokenizer, and errors before harm."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import AutoTokenizer

from dig_jax.config import Config, DataConfig, LoraConfig, ModelSource
from dig_jax.convert import folders
from dig_jax.convert.__main__ import main
from dig_jax.hf import weights
from dig_jax.learner.state import TrainState
from dig_jax.model.params import Params, param_shapes
from dig_jax.model.specs import model_specs
from dig_jax.run import best, checkpoint
from dig_jax.run.session import with_adapters
from dig_jax.run.trained import open_run
from tests.tiny_model import ASSETS, small_base


def seeded(seed: int) -> Params:
    """Random parameters of `small_base`, by NumPy: nothing to compile."""
    rng = np.random.default_rng(seed)
    shapes = param_shapes(model_specs(small_base()))
    return jax.tree.map(lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype), shapes)


def save(cfg: Config, step: int, seed: int) -> None:
    """A checkpoint with moments and reference that are not the parameters."""
    moments = {"mu": seeded(seed + 100)}
    state = TrainState(seeded(seed), moments, seeded(seed + 200), jnp.int32(step))
    checkpoint.save(cfg, step, state)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A source folder, and a run of it with two checkpoints of different weights."""
    root = tmp_path_factory.mktemp("convert")
    weights.save_hf(root / "base", seeded(0), small_base(), source_folder=ASSETS)
    cfg = Config(
        name="fake",
        run_dir=str(root / "run"),
        model=ModelSource(source=str(root / "base")),
        data=DataConfig(image_width=32, image_height=32),
    )
    for step in (3, 5):
        save(cfg, step, seed=step)
    return root


@pytest.fixture
def run(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def call(*words) -> int:
    return main([str(word) for word in words])


def test_the_newest_checkpoint_comes_back_bit_for_bit(made, tmp_path, capsys):
    out = tmp_path / "hf"
    assert call("export", "--run", made / "run", "--out", out) == 0
    model = small_base()
    assert weights.read_model_config(out) == model
    wanted = jax.tree.leaves(seeded(5))
    for a, b in zip(wanted, jax.tree.leaves(weights.load_params(out, model)), strict=True):
        np.testing.assert_array_equal(a, b)
    for file in ("tokenizer.json", "chat_template.jinja", "preprocessor_config.json"):
        assert (out / file).read_bytes() == (ASSETS / file).read_bytes()
    origin = json.loads((out / folders.ORIGIN).read_text())
    assert (origin["step"], origin["config"]["data"]["image_width"]) == (5, 32)
    assert "# fake, step 5" in (out / "README.md").read_text()  # not the source's card
    assert call("check", out, "--run", made / "run") == 0
    said = capsys.readouterr().out
    assert "parameters equal step 5 in float32" in said
    assert "differ by at most 0 and agree on 100%" in said


TEXT = "<|im_start|>user\nWhat is here? <|image_pad|> 1234 h\u00e9llo<|im_end|>"


def test_an_export_of_what_transformers_5_wrote_keeps_its_tokenizer_and_opens_in_457(
    run, tmp_path, capsys
):
    """4.57 knows no class TokenizersBackend, and takes a list of extra_special_tokens for a dict.

    `hf/test_hf_versions.py` opens such an export with the older release.
    """
    before = AutoTokenizer.from_pretrained(run / "base")
    before.save_pretrained(run / "base")
    written = json.loads((run / "base" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "TokenizersBackend"
    assert isinstance(written["extra_special_tokens"], list)
    out, source = tmp_path / "hf", run / "base"
    (source / "checksums.json").unlink(missing_ok=True)  # changed on purpose
    assert call("export", "--run", run / "run", "--source", source, "--out", out) == 0
    exported = json.loads((out / "tokenizer_config.json").read_text())
    assert exported["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in exported
    assert exported["additional_special_tokens"] == written["extra_special_tokens"]
    after = AutoTokenizer.from_pretrained(out)
    assert after(TEXT)["input_ids"] == before(TEXT)["input_ids"]
    assert after.all_special_tokens == before.all_special_tokens
    assert after.chat_template == before.chat_template
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert call("check", out, "--run", run / "run", "--source", source) == 0
    assert "parameters equal step 5" in capsys.readouterr().out


def test_the_weights_that_validated_best_are_exported_on_request(run, capsys):
    """Kept at step 4, of which there is no checkpoint."""
    call_best = ("export", "--run", run / "run", "--out", run / "hf", "--from-best")
    assert call(*call_best) == 1
    assert "holds no best weights" in capsys.readouterr().err
    cfg = checkpoint.saved_config(run / "run")
    cfg = dataclasses.replace(
        cfg, run_dir=str(run / "run"), eval=dataclasses.replace(cfg.eval, every=2)
    )
    best.BestKeeper(cfg, 3).offer(4, {"sampled/reward": 1.0}, seeded(9))
    assert call(*call_best) == 0
    found = weights.load_params(run / "hf", small_base())
    for a, b in zip(jax.tree.leaves(seeded(9)), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert json.loads((run / "hf" / folders.ORIGIN).read_text())["step"] == 4
    assert call("check", run / "hf", "--run", run / "run", "--from-best") == 0


def test_adapters_are_exported_merged_into_the_weights_they_adapt(made, tmp_path):
    cfg = dataclasses.replace(
        checkpoint.saved_config(made / "run"),
        run_dir=str(tmp_path / "run"),
        lora=LoraConfig(rank=2, alpha=3.0, targets=("wv", "w_up")),
    )
    model = with_adapters(cfg, small_base())
    rng = np.random.default_rng(4)
    rows = param_shapes(model_specs(model))["lora"]
    adapters = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), rows)
    params = seeded(5) | {"lora": adapters}
    state = TrainState(params, {"mu": {"lora": adapters}}, {"lora": adapters}, jnp.int32(6))
    checkpoint.save(cfg, 6, state)
    assert call("export", "--run", cfg.run_dir, "--out", tmp_path / "hf") == 0
    found = weights.load_params(tmp_path / "hf", small_base())
    for name, value in found["blocks"].items():
        wanted = np.asarray(seeded(5)["blocks"][name])
        if name in cfg.lora.targets:
            a, b = (np.asarray(adapters[name][side], np.float64) for side in "ab")
            flat = np.einsum("lir,lro->lio", a, b.reshape(*b.shape[:2], -1))
            wanted = wanted + 1.5 * flat.reshape(wanted.shape)  # alpha / rank
            assert np.abs(wanted - seeded(5)["blocks"][name]).max() > 0.1
        # float32 sums of numbers near 1
        np.testing.assert_allclose(value, wanted, atol=2e-6, err_msg=name)
    np.testing.assert_array_equal(found["embed"], seeded(5)["embed"])
    assert call("check", tmp_path / "hf", "--run", cfg.run_dir) == 0


@pytest.mark.slow
def test_bfloat16_is_the_rounded_checkpoint(made, tmp_path, capsys):
    out = tmp_path / "hf"
    assert call("export", "--run", made / "run", "--out", out, "--dtype", "bfloat16") == 0
    model = small_base()
    wanted = seeded(5)["embed"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(
        weights.load_params(out, model)["embed"], wanted.astype(jnp.float32)
    )
    assert call("check", out, "--run", made / "run") == 0
    assert "in bfloat16" in capsys.readouterr().out


@pytest.mark.slow
def test_another_steps_folder_does_not_pass_for_this_one(made, tmp_path, capsys):
    out = tmp_path / "hf"
    assert call("export", "--run", made / "run", "--out", out, "--step", 3) == 0
    assert call("check", out, "--run", made / "run", "--step", 3) == 0
    assert call("check", out, "--run", made / "run") == 1
    assert "differs from step 5" in capsys.readouterr().err
    assert call("export", "--run", made / "run", "--out", out, "--overwrite") == 0  # as it advises
    assert call("check", out, "--run", made / "run") == 0


def test_a_run_without_a_checkpoint_is_named(tmp_path, capsys):
    assert call("export", "--run", tmp_path / "none", "--out", tmp_path / "hf") == 1
    assert "has no checkpoint" in capsys.readouterr().err
    assert not (tmp_path / "hf").exists()


def test_a_missing_step_lists_those_there_are(made, tmp_path, capsys):
    assert call("export", "--run", made / "run", "--out", tmp_path / "hf", "--step", 4) == 1
    assert "has no checkpoint 4; it holds [3, 5]" in capsys.readouterr().err


def test_nothing_is_overwritten_unasked(made, tmp_path, capsys):
    """An export is replaced with --overwrite only; a folder of something else never is."""
    out = tmp_path / "hf"
    command = ("export", "--run", made / "run", "--out", out)
    assert call(*command, "--step", 3) == 0
    assert call(*command) == 1
    assert "add --overwrite" in capsys.readouterr().err
    assert call(*command, "--overwrite") == 0
    assert json.loads((out / folders.ORIGIN).read_text())["step"] == 5
    (tmp_path / "thesis").mkdir()
    text = tmp_path / "thesis" / "text"
    text.write_text("years of work")
    for other in (text.parent, text):  # --overwrite is not advised where it would be refused
        for more in ((), ("--overwrite",)):
            assert call(*command[:3], "--out", other, *more) == 1
            said = capsys.readouterr().err
            assert "holds something other than a checkpoint; name another --out" in said
    assert text.read_text() == "years of work"
    assert call(*command[:3], "--out", tmp_path / "another") == 0


def test_the_source_folder_is_never_the_target(run, capsys):
    cfg = checkpoint.saved_config(run / "run")
    before = (Path(cfg.model.source) / "model.safetensors").read_bytes()
    assert call("export", "--run", run / "run", "--out", cfg.model.source, "--overwrite") == 1
    assert "folder the run started from; name another --out" in capsys.readouterr().err
    assert (Path(cfg.model.source) / "model.safetensors").read_bytes() == before


def test_a_moved_source_can_be_given(run, tmp_path, capsys):
    """The checkpoint remembers where the run started; on another machine that may not exist."""
    trained = open_run(run / "run")
    moved = ModelSource(source="gone")
    save(dataclasses.replace(trained.cfg, model=moved, run_dir=str(run / "r2")), 1, seed=1)
    command = ("export", "--run", run / "r2", "--out", tmp_path / "hf")
    assert call(*command) == 1
    assert "give --source FOLDER" in capsys.readouterr().err
    assert call(*command, "--source", run / "base") == 0


def test_a_source_without_config_is_named(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = ("export", "--run", run / "run", "--out", tmp_path / "hf")
    assert call(*words, "--source", tmp_path / "empty") == 1
    assert "has no config.json" in capsys.readouterr().err
