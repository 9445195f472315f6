"""The whole loop on a model that compiles in seconds: it runs, survives a kill, and repeats."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
import pytest

from dig_jax.common import locks
from dig_jax.common.files import write_json
from dig_jax.common.typed import override
from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    GrpoConfig,
    LogConfig,
    ModelSource,
    OptimConfig,
    RolloutConfig,
    Stage,
    to_json,
)
from dig_jax.data import records
from dig_jax.hf import weights
from dig_jax.model.config import ModelConfig
from dig_jax.run import resume
from dig_jax.run.best import read_best
from dig_jax.run.checkpoint import saved_steps
from dig_jax.run.runlog import comparable, read_rows
from tests import ROOT
from tests.google_storage import BUCKET, serve
from tests.tiny_model import ASSETS, make_tiny, small_base

WIDTH, HEIGHT, STEPS = 48, 32, 5


def write_split(root, name: str, pairs: int, differences: int) -> None:
    rng = np.random.default_rng(len(name))
    folder = root / name
    folder.mkdir(parents=True)
    rows = []
    for _ in range(pairs):
        a, b = rng.integers(0, 256, (2, HEIGHT, WIDTH, 3), np.uint8)
        boxes = [[4 + 20 * n, 5, 20 + 20 * n, 25] for n in range(differences)]
        found = [{"box": box, "type": kind} for box, kind in zip(boxes, ("add", "x"), strict=False)]
        meta = {"differences": found, "width": WIDTH, "height": HEIGHT}
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        rows.append(records.encode(records.Pair(a, b, mask, mask, meta)))
    entry = records.write_shard(folder / records.shard_name(0, 1), rows, {})
    manifest = {"complete": True, "shard_count": 1, "shards": [entry]}
    write_json(folder / records.MANIFEST, manifest)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    return micro_config(tmp_path_factory.mktemp("train"), small_base())


def micro_config(root: Path, model: ModelConfig) -> Config:
    """Two stages, KL, two minibatches of two slices: every branch of the update."""
    splits = (("single", 1), ("dual", 2), ("heldout", 1), ("novel", 2), ("same", 0))
    for name, differences in splits:
        write_split(root / "data", name, 8, differences)
    params = make_tiny(jax.random.key(0), model)
    weights.save_hf(root / "model", params, model, source_folder=ASSETS)
    return Config(
        steps=STEPS,
        pairs_per_step=4,
        run_dir=str(root / "straight"),
        model=ModelSource(source=str(root / "model")),
        data=DataConfig(
            root=str(root / "data"), image_width=WIDTH, image_height=HEIGHT,
            buckets=("single", "dual"),
        ),
        rollout=RolloutConfig(group=2, max_tokens=8),
        grpo=GrpoConfig(minibatches=2, accumulate=2, kl_coef=0.1, entropy_coef=1e-3, resample=1),
        optim=OptimConfig(rate=1e-3, warmup=2, schedule="linear"),
        curriculum=CurriculumConfig(
            stages=(Stage(3, {"single": 1.0}), Stage(STEPS, {"dual": 1.0})),
            reference="per_stage", optimizer="reset",
        ),
        eval=EvalConfig(pairs=6, batch=4, every=2, splits=("novel",), controls="same"),
        checkpoint=CheckpointConfig(every=2, keep=2, best="greedy/iou"),
        log=LogConfig(samples_every=2, samples=2),
    )  # fmt: skip


def config_file(config: Config, folder) -> str:
    """A file of the kind that --config takes."""
    saved = folder / "config.json"
    saved.write_text(to_json(config))
    file = folder / "config.py"
    file.write_text(
        "from dig_jax.config import from_json\n"
        f"def get_config():\n    return from_json(open({str(saved)!r}).read())\n"
    )
    return str(file)


def start(
    config: Config,
    run_dir: str,
    folder,
    module: str = "train",
    *more: str,
    cwd: Path | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.Popen:
    """`python -m dig_jax.train` (or another entry) in its own process, as a user starts it."""
    entry = [sys.executable, "-m", f"dig_jax.{module}", "--config", config_file(config, folder)]
    # one device, and half the compile time: what is compared are runs with equal flags
    flags = "--xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONUNBUFFERED": "1", "JAX_LOG_COMPILES": "1"}
    env |= {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(
        [*entry, "--run-dir", run_dir, *more],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed[-3000:]
    return printed


def signal_at(process: subprocess.Popen, pattern: str, number: signal.Signals) -> None:
    """Sends a signal when a line that matches is printed."""
    next(line for line in process.stdout if re.search(pattern, line))
    process.send_signal(number)


@pytest.fixture(scope="module")
def printed(config, tmp_path_factory) -> str:
    """What a run of all steps writes, JAX's log of compilations included."""
    return finish(start(config, config.run_dir, tmp_path_factory.mktemp("straight")))


@pytest.fixture(scope="module")
def straight(config, printed) -> list[dict]:
    return read_rows(config.run_dir, kind="train")


def test_the_loop_compiles_its_sampler_and_its_update_once(printed):
    """Five steps over two buckets and a stage change; 48x32 records, resized to 80x64."""
    assert "images: resized to 80x64 px" in printed
    compiled = re.findall(r"Compiling (?:jit\()?(\w+)", printed)
    assert compiled.count("sample") == compiled.count("update") == 1
    assert compiled.count("validate_greedy_answers") == 1  # three validations of three splits
    assert compiled.count("validate_sampled_answers") == 1


def test_every_step_leaves_a_row_with_its_stage_and_finite_metrics(straight):
    assert [row["step"] for row in straight] == list(range(STEPS))
    assert [row["stage"] for row in straight] == [0, 0, 0, 1, 1]
    for name in (
        "reward",
        "kl",
        "entropy",
        "grad_norm",
        "flat_groups",
        "truncated",
        "time/rollout",
    ):
        assert all(np.isfinite(row[name]) for row in straight), name


def test_the_sampler_and_the_learner_agree_before_each_first_update(straight):
    """Two minibatches: the first has the sampler's weights, the second has moved by one step."""
    assert straight[0]["sampler_gap"] < 0.5
    assert straight[0]["ratio_max"] < 2.0


def test_a_run_killed_and_asked_to_end_continues_bit_for_bit(config, straight, tmp_path):
    """kill -9 after step 3, which is computed twice, then SIGTERM while it is: one step more."""
    run_dir = str(tmp_path / "stopped")
    process = start(config, run_dir, tmp_path)
    signal_at(process, f"step 3/{STEPS}", signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert len(read_rows(run_dir, kind="train")) == 3
    process = start(config, run_dir, tmp_path)
    signal_at(process, "Compiling.*sample", signal.SIGTERM)
    assert "asked to end: stopped after step 3" in finish(process)
    assert saved_steps(run_dir) == [2, 3]
    finish(start(config, run_dir, tmp_path))
    resumed = read_rows(run_dir)  # validations too
    assert len(resumed) == len(straight) + 3
    assert list(map(comparable, resumed)) == list(map(comparable, read_rows(config.run_dir)))
    assert read_best(run_dir) == read_best(config.run_dir)
    rows, picture = "samples.jsonl", "samples/step_000004.png"  # rows tell the number of their run
    assert read_rows(run_dir, name=rows) == read_rows(config.run_dir, name=rows)
    assert Path(run_dir, picture).read_bytes() == Path(config.run_dir, picture).read_bytes()


@pytest.mark.slow
def test_a_run_in_a_bucket_killed_and_continued_is_the_one_on_disk(config, straight, tmp_path):
    """Pairs, checkpoints, best weights in a bucket; kill -9 after step 3, then the evaluation."""
    pytest.importorskip("gcsfs", reason="buckets need gcsfs: pip install -e '.[gcs]'")
    here = tmp_path / "here"
    here.mkdir()
    root, data = (f"gs://{BUCKET}/{name}" for name in ("run", "data"))
    settings = [f"checkpoint.root={root}", f"data.root={data}"]
    remote = override(config, settings)
    with serve() as (storage, environment):
        for path in Path(config.data.root).rglob("*.*"):
            storage.put(f"data/{path.relative_to(config.data.root)}", path.read_bytes())
        place = {"cwd": here, "environment": environment}
        process = start(remote, str(here / "run"), tmp_path, **place)
        signal_at(process, f"step 3/{STEPS}", signal.SIGKILL)
        process.communicate()
        assert {name.split("/")[2] for name in storage.under("run/checkpoints")} == {"2"}
        storage.asked.clear()
        finish(start(remote, str(here / "run"), tmp_path, **place))
        assert not [name for method, name in storage.asked if "arrayrecord" in name]
        saved = {name.split("/")[2] for name in storage.under("run/checkpoints")}
        assert saved == {"4", str(STEPS)}
        best = ("evaluate", "--name", "best", "--from-best")
        finish(start(remote, str(here / "run"), tmp_path, *best, **place))
        kept = max(int(name.split("/")[2]) for name in storage.under("run/best"))
        facts = json.loads(storage.objects[f"run/best/{kept}/best.json"][1])
    assert {n: facts[n] for n in ("step", "metric", "value")} == read_best(config.run_dir)
    rows = map(comparable, read_rows(here / "run"))
    assert list(rows) == list(map(comparable, read_rows(config.run_dir)))
    assert not {"checkpoints", "best"} & {path.name for path in (here / "run").iterdir()}
    mean = json.loads((here / "run" / "eval_best.json").read_text())["summary"]["iou"][0]
    assert mean == pytest.approx(facts["value"], abs=1e-9)


@pytest.mark.slow
def test_a_notice_before_the_first_step_ends_the_run_there(config, straight, tmp_path):
    run_dir = str(tmp_path / "early")
    process = start(config, run_dir, tmp_path)
    signal_at(process, "Compiling.*validate", signal.SIGTERM)
    assert "asked to end: stopped after step 0" in finish(process)
    assert read_rows(run_dir) == []  # the validation was left between two batches
    assert saved_steps(run_dir) == []


@pytest.mark.slow
def test_a_notice_in_a_validation_is_served_between_batches_and_the_resume_makes_it_whole(
    config, straight, tmp_path
):
    """Of two batches of the first split the second is never asked."""
    run_dir = str(tmp_path / "validating")
    late = override(config, ["eval.at_start=false"])
    process = start(late, run_dir, tmp_path)
    signal_at(process, "Compiling.*validate", signal.SIGTERM)
    printed = finish(process)
    assert "asked to end: stopped after step 2" in printed
    assert "Compiling jit(validate_sampled" not in printed
    assert [(row["kind"], row["step"]) for row in read_rows(run_dir)] == [
        ("train", 0),
        ("train", 1),
    ]
    finish(start(late, run_dir, tmp_path))
    whole = [row for row in read_rows(config.run_dir) if row["step"] >= 0]
    assert list(map(comparable, read_rows(run_dir))) == list(map(comparable, whole))
    assert read_best(run_dir)["step"] in (2, 4)


def test_a_validation_scores_every_mode_and_split_before_training_and_as_often_as_asked(
    config, straight
):
    rows = read_rows(config.run_dir, kind="eval")
    assert [row["step"] for row in rows] == [-1, 1, 3]
    for mode in ("greedy", "sampled"):
        assert {
            f"{mode}/reward",
            f"{mode}/f1_n1",
            f"{mode}/recall_add",
            f"{mode}/novel/recall_other",
            f"{mode}/controls/empty",
            f"{mode}/controls/n_pred",
        } <= set(rows[0])
    best = max(rows, key=lambda row: row["greedy/iou"])  # of equals the first
    found = {"step": best["step"] + 1, "metric": "greedy/iou", "value": best["greedy/iou"]}
    assert read_best(config.run_dir) == found


def test_the_documented_metrics_are_those_that_a_run_writes(config, straight):
    """docs/watching.md names every metric of the rows, and none that no row has."""
    text = (ROOT / "docs" / "watching.md").read_text()
    tables = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    documented = {name for cell in tables for name in re.findall(r"`([^`]+)`", cell)}
    written = {general(name) for row in read_rows(config.run_dir) for name in row}
    assert documented == written


def general(name: str) -> str:
    """ "greedy/novel/f1_n2" -> "f1_nN", as the table of docs/watching.md has it."""
    head, _, last = name.rpartition("/")
    if head == "time":
        return name
    return re.sub(r"^recall_.*", "recall_TYPE", re.sub(r"_n\d+$", "_nN", last))


@pytest.mark.slow
def test_watching_a_run_changes_none_of_its_numbers(config, straight, tmp_path):
    """Without validations, pictures and best weights."""
    quiet = dataclasses.replace(
        config, eval=EvalConfig(pairs=6, batch=4), log=LogConfig(samples_every=0)
    )
    finish(start(quiet, str(tmp_path / "quiet"), tmp_path))
    rows = read_rows(tmp_path / "quiet")
    assert list(map(comparable, rows)) == list(map(comparable, straight))
    assert not (tmp_path / "quiet" / "best").exists()
    assert not (tmp_path / "quiet" / "samples").exists()


def test_the_pictures_of_a_run_show_its_first_pairs(config, straight):
    rows = read_rows(config.run_dir, name="samples.jsonl")
    assert [row["step"] for row in rows] == [0, 0, 1, 1, 3, 3]
    assert [len(row["group_rewards"]) for row in rows] == [config.rollout.group] * 6
    assert all(row["scores"]["reward"] == pytest.approx(row["group_rewards"][0], abs=1e-4)
               for row in rows)  # fmt: skip
    pictures = sorted(path.name for path in Path(config.run_dir, "samples").iterdir())
    assert pictures == ["step_000001.png", "step_000002.png", "step_000004.png"]


@pytest.mark.slow
def test_the_best_weights_can_be_evaluated(config, straight, tmp_path):
    """Greedy, over the same pairs: the score that made them the best."""
    finish(start(config, config.run_dir, tmp_path, "evaluate", "--name", "best", "--from-best"))
    with open(f"{config.run_dir}/eval_best.json") as file:
        mean = json.load(file)["summary"]["iou"][0]
    assert mean == pytest.approx(read_best(config.run_dir)["value"], abs=1e-9)


@pytest.mark.slow
def test_starting_a_finished_run_again_changes_nothing(config, straight, tmp_path):
    printed = finish(start(config, config.run_dir, tmp_path))
    assert f"nothing left to do: {config.run_dir} has its {STEPS} steps" in printed
    assert "Compiling jit(sample)" not in printed
    assert read_rows(config.run_dir, kind="train") == straight


def test_a_second_run_in_a_folder_that_is_in_use_ends_before_it_compiles(config, tmp_path):
    """This process is the first; the second leaves nothing but what it says."""
    run_dir = tmp_path / "shared"
    with resume.owned(dataclasses.replace(config, run_dir=str(run_dir))):
        printed = start(config, str(run_dir), tmp_path).communicate(timeout=300)[0]
        assert [path.name for path in run_dir.iterdir()] == [locks.NAME]
    assert f"error: run_dir: {run_dir} is in use by" in printed
    assert f"(process {os.getpid()} on " in printed
    assert "Compiling" not in printed
    assert "Traceback" not in printed


@pytest.mark.slow
def test_a_run_refuses_to_continue_under_another_configuration(config, straight, tmp_path):
    other = dataclasses.replace(config, seed=config.seed + 1)
    process = start(other, config.run_dir, tmp_path)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    assert "seed" in printed


@pytest.mark.slow
def test_evaluation_of_the_trained_run_covers_every_held_out_pair(config, straight, tmp_path):
    finish(start(config, config.run_dir, tmp_path, "evaluate", "--name", "after", "--from-run"))
    with open(f"{config.run_dir}/eval_after.json") as file:
        result = json.load(file)
    assert [row["pair_id"] for row in result["rows"]] == list(range(config.eval.pairs))
    protocol = result["protocol"]
    assert (protocol["decode"], protocol["image"], protocol["model_image"]) == (
        "greedy",
        [WIDTH, HEIGHT],
        [80, 64],
    )
    mean, low, high = result["summary"]["reward"]
    assert low <= mean <= high
