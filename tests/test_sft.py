"""The supervised loop: it learns, survives a kill, and is told apart from the other one."""

import dataclasses
import re
import shutil
import signal

import numpy as np
import pytest

from dig_jax.common.typed import override
from dig_jax.config import Config, GrpoConfig, OptimConfig, SftConfig
from dig_jax.run.runlog import comparable, read_rows
from tests.lessons.schools import ask
from tests.test_train import STEPS, finish, micro_config, signal_at, start
from tests.tiny_model import small_base

QUESTIONS = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """Two stages, pairs and questions, both cut in two, labels of cells; validated as in train."""
    root = tmp_path_factory.mktemp("sft")
    whole = micro_config(root, small_base())
    sft = SftConfig(
        questions_per_step=QUESTIONS,
        questions_root=str(ask(root / "asked")),
        shapes=1,
        accumulate=2,
        augment=True,
        changed_weight=1.0,
        things_weight=1.0,
        rank_layer=1,
    )
    optim = OptimConfig(rate=1e-2, warmup=2, schedule="wsd", decay=0.4)
    rollout = dataclasses.replace(whole.rollout, max_tokens=40)
    cfg = dataclasses.replace(whole, learner="sft", sft=sft, optim=optim, rollout=rollout)
    return dataclasses.replace(cfg, grpo=GrpoConfig(kl_coef=0.1))  # a reference nobody keeps


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> list[dict]:
    finish(start(config, config.run_dir, tmp_path_factory.mktemp("straight"), "sft"))
    return read_rows(config.run_dir, kind="train")


@pytest.mark.slow
def test_every_step_leaves_a_row_and_the_loss_falls(config, straight):
    assert [row["step"] for row in straight] == list(range(STEPS))
    names = ("loss", "loss_pairs", "loss_questions", "loss_color", "cell_f1", "grad_norm")
    assert all(np.isfinite(row[name]) for row in straight for name in names)
    assert straight[-1]["loss"] < straight[0]["loss"]
    assert [row["step"] for row in read_rows(config.run_dir, kind="eval")] == [-1, 1, 3]


@pytest.mark.slow
def test_a_killed_run_continues_bit_for_bit(config, straight, tmp_path):
    run_dir = str(tmp_path / "stopped")
    process = start(config, run_dir, tmp_path, "sft")
    signal_at(process, f"step 3/{STEPS}", signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    finish(start(config, run_dir, tmp_path, "sft"))
    resumed = map(comparable, read_rows(run_dir))
    assert list(resumed) == list(map(comparable, read_rows(config.run_dir)))


@pytest.mark.slow
def test_other_questions_are_another_run(config, straight, tmp_path):
    """What a run depends on is compared at a resume; where its folder lies is not."""
    shutil.copytree(config.sft.questions_root, tmp_path / "questions")
    (tmp_path / "questions" / "more.txt").write_text("another file")
    settings = [f"sft.questions_root={tmp_path / 'questions'}", "steps=6",
                "curriculum.stages.1.until=6"]  # fmt: skip
    told = refused(override(config, settings), tmp_path, "sft", run_dir=config.run_dir)
    assert re.search(r"  questions: saved '\d+ files \w+', now '\d+ files \w+'", told)


def test_each_command_runs_its_own_learner(config, tmp_path):
    told = refused(config, tmp_path, "train")
    assert "learner='sft' is not what dig_jax.train runs; use python -m dig_jax.sft" in told
    told = refused(override(config, ["learner=grpo"]), tmp_path, "sft")
    assert "learner='grpo' is not what dig_jax.sft runs; use python -m dig_jax.train" in told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sft.accumulate=3"], "pairs_per_step=4 is not a multiple of sft.accumulate x mesh.fsdp"),
        (["sft.questions_per_step=3"], "sft.questions_per_step=3 is not a multiple of"),
        (["data.workers=2"], "data.workers=2 decodes in processes"),
    ],
)
def test_rows_that_cannot_be_cut_are_refused(config, settings, message):
    with pytest.raises(ValueError, match=message):
        override(config, settings)


def test_a_label_of_a_block_that_the_model_lacks_is_refused(config, tmp_path):
    """Of pairs; and of questions, where no pairs are learned."""
    told = refused(override(config, ["sft.rank_layer=2"]), tmp_path, "sft")
    assert "sft.rank_layer=2 is no text block of a model of 2; use 0 to 1" in told
    alone = ["sft.pairs_weight=0", "sft.changed_weight=0", "sft.things_weight=0"]
    alone += ["sft.asked_weight=1", "sft.meant_layer=5"]
    told = refused(override(config, alone), tmp_path, "sft", run_dir=str(tmp_path / "other"))
    assert "sft.meant_layer=5 is no text block of a model of 2; use 0 to 1" in told


def test_a_folder_without_benchmarks_is_refused_before_anything_compiles(config, tmp_path):
    (tmp_path / "empty").mkdir()
    given = override(config, [f"sft.questions_root={tmp_path / 'empty'}"])
    assert "empty holds no benchmark" in refused(given, tmp_path, "sft")


def refused(config: Config, folder, module: str, *, run_dir: str = "") -> str:
    """What a command that ends at once says; a new run's unless it goes on with one."""
    process = start(config, run_dir or str(folder / "run"), folder, module)
    printed = process.communicate(timeout=200)[0]
    assert process.returncode == 1, printed
    assert "Traceback" not in printed
    return printed
