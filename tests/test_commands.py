"""Every command line of README, docs and tpu/ is understood, and executed as it is written.

A line's row says how. The arguments of all Python lines are read by the program's own parser, and
its configuration or corpus is made, here and in every run. What a row adds:

RUN      executed in one prepared folder, in the order of the table, by the second line of tests:
         the shipped configuration with the settings of SHORT, a model of two blocks in the place of
         assets/tiny_qwen3vl, pairs of the NumPy ray tracer
RECORD   a script whose Python calls are written down instead, and read by their parsers
CLOUD    a script of tpu/, executed with --dry-run in tests/tpu/test_tpu_readme.py
TESTED   executed by the test that is named, or by CI
READ     nothing: it needs a cloud, a cluster, a GPU, torch, or a package that is not installed
"""

import argparse
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from dig_jax.config import load_config
from dig_jax.data.make import corpus_from
from dig_jax.hf import weights
from tests import ROOT
from tests.documented import commands, normal, python_calls
from tests.tiny_model import ASSETS, make_tiny, small_base

# What is added to a line of RUN, by the program that it starts; README, docs and tpu/ do not
# say these, they are what makes minutes out of hours.
SHORT = " ".join(
    f"--set {setting}"
    for setting in """
    steps=3 curriculum.stages.0.until=1 curriculum.stages.1.until=2 curriculum.stages.2.until=3
    pairs_per_step=2 grpo.accumulate=1 rollout.group=2 rollout.max_tokens=78 optim.warmup=1
    eval.pairs=2 eval.batch=2 eval.samples=1 eval.every=3 checkpoint.every=3 log.samples_every=0
    """.split()
)
SHORT_SFT = " ".join(
    f"--set {setting}"
    for setting in """
    steps=3 curriculum.stages.0.until=3 pairs_per_step=2 optim.warmup=1 eval.pairs=2 eval.batch=2
    eval.samples=1 checkpoint.every=3 sft.changed_layer=0 sft.rank_layer=1 sft.things_layer=1
    sft.asked_layer=0 sft.meant_layer=1 sft.told_layer=1
    """.split()
)  # the base of `folder` has two blocks
NUMPY = "--set look.renderer=numpy --workers 1"
SHORTENED = {
    "dig_jax.train": SHORT,
    "dig_jax.sft": SHORT_SFT,
    "dig_jax.evaluate": SHORT,
    "dig_jax.doctor": SHORT,
    "scripts.study.compare_rewards": f"{SHORT} --group 2",
    "scripts.study.ablate": "--dry-run",
    "dig_jax.data render": f"--pairs 2 {NUMPY}",
    "dig_jax.data make": f"--pairs 2 {NUMPY}",
    "dig_jax.ask": "--max-tokens 4",
    "dig_jax.benchmark run": "--max-tokens 4 --limit 2 --rows 4 --fsdp 1",
    "dig_jax.benchmark score": "--partial",
}
# Before a line: what it needs and no line above it makes.
BEFORE = {
    "python -m dig_jax.train --config configs/tiny_cpu.py --set eval.every=10 --set "
    "eval.splits=test_novel --set eval.controls=test_same": [
        "python -m dig_jax.data render --root data/tiny --preset tiny --splits "
        "test_novel,test_same --set look.width=96 --set look.height=64"
    ]
}
RUN = """
python -m dig_jax.data render --root data/tiny --preset quickstart
python -m dig_jax.doctor --config configs/tiny_cpu.py
python -m dig_jax.train --config configs/tiny_cpu.py --dry-run 2
python -m dig_jax.train --config configs/tiny_cpu.py --set optim.rate=1e-4 --run-dir runs/mine
python -m dig_jax.sft --config configs/tiny_sft.py
python -m dig_jax.sft --config configs/tiny_sft.py --dry-run 2
python -m dig_jax.evaluate --config configs/tiny_cpu.py --run-dir runs/mine --name before
python -m dig_jax.evaluate --config configs/tiny_cpu.py --run-dir runs/mine --name after --from-run
python -m dig_jax.evaluate --config configs/tiny_cpu.py --run-dir runs/mine --name best --from-best
python -m dig_jax.report runs/mine
python -m dig_jax.convert export --run runs/mine --out runs/mine/hf --dtype bfloat16
python -m dig_jax.convert check runs/mine/hf --run runs/mine
python -m dig_jax.convert import --source FOLDER --out IMPORT --dtype bfloat16
python -m dig_jax.convert check IMPORT --source FOLDER
python -m dig_jax.ask --source FOLDER a.png b.jpg --question "What has changed?"
python -m dig_jax.train --config configs/tiny_cpu.py --set reward.function=vlm_r1_weighted --set grpo.advantage=group
python -m dig_jax.train --config configs/tiny_cpu.py --set eval.every=10 --set eval.splits=test_novel --set eval.controls=test_same
python -m scripts.study.compare_rewards --config configs/tiny_cpu.py
python -m scripts.study.ablate --root runs/ablations --seeds 0 1 2 --jobs 2 --results docs/results/ablations.md
python -m dig_jax.data make --preset tiny --root data/tiny128
python -m dig_jax.data show --root data/tiny128 --out sheet.html
python -m dig_jax.data export --root data/tiny128 --out hub
python -m dig_jax.data questions --root data/tiny128 --out data/questions
python -m dig_jax.data questions --check data/questions --apart data/tiny128
python -m dig_jax.benchmark list --root data/questions
python -m dig_jax.benchmark run --root data/questions --suite here --source FOLDER --out runs/suite/base
python -m dig_jax.benchmark run --root data/questions --suite here --run runs/mine --out runs/suite/mine
python -m dig_jax.benchmark compare runs/suite/base runs/suite/mine
python -m dig_jax.benchmark report runs/suite/base runs/suite/mine --root data/questions --out report.html
python -m dig_jax.benchmark questions --root data/questions --name pope --out q.jsonl
python -m dig_jax.benchmark score --root data/questions --name pope --answers runs/suite/base/pope/answers.jsonl --out result.json
python -m dig_jax.report runs/mine --html mine.html
python -m dig_jax.data import hub --root data/back --split mixed
python -m dig_jax.data
"""  # noqa: E501
RECORD = """
scripts/quickstart.sh
scripts/controls.sh
scripts/make_base.sh
"""
CLOUD = """
tpu/create.sh NAME --zone ZONE --type v5litepod-16
tpu/create.sh NAME --zone ZONE --type v5litepod-16 --spot
tpu/create.sh NAME --zone ZONE --type v5litepod-16 --now
tpu/watch.sh NAME --zone ZONE
tpu/watch.sh NAME --zone ZONE --state
tpu/watch.sh NAME --zone ZONE --mirror runs/pod_8b --to gs://BUCKET/runs/pod_8b
tpu/setup.sh NAME --zone ZONE
tpu/run.sh NAME --zone ZONE --stop
tpu/delete.sh NAME --zone ZONE
tpu/delete.sh NAME --zone ZONE --yes
"""
CLOUD_STARTS = (
    "tpu/run.sh NAME --zone ZONE --wait -- python ",
    "tpu/run.sh NAME --zone ZONE -- env ",
)
CLOUD_STARTS += ("tpu/run.sh NAME --zone ZONE --wait --worker 0 -- gcloud ",)
TESTED = {
    "scripts/env.sh": ".ci/run",
    "scripts/test.sh": ".ci/run",
    "scripts/test.sh --all": ".ci/run",
    "scripts/parity.sh": ".ci/run",
    "scripts/train_mid.sh": "tests/scripts/test_mid.py",
    "scripts/train_mid.sh data/mid runs/mid": "tests/scripts/test_mid.py",
    "scripts/train_mid.sh data/mid runs/mid --ablate": "tests/scripts/test_mid.py",
    "timeout 570 scripts/train_mid.sh ...": "tests/scripts/test_mid.py",
    "scripts/train_mid.sh --help": "tests/test_commands.py",
    "SFT_STEPS=100 scripts/train_mid.sh data/mid runs/trial --set steps=3 --set "
    "curriculum.stages.0.until=1 --set curriculum.stages.1.until=2 --set "
    "curriculum.stages.2.until=3 --set optim.warmup=1": "tests/scripts/test_mid.py",
    "tpu/complete.sh": "tests/tpu/test_tpu_scripts.py",
    "python -m tpu.cost --slice v5e-16 v5e-64 v5p-16 v6e-16 8xh100 --model 8B --pairs 4800 "
    "--group 8 --length 900": "tests/tpu/test_tpu_readme.py",
    "python3 -m scripts.bench.gpu --out OUT": "tests/scripts/test_bench_gpu.py",
    "python -m scripts.study.ablate": "tests/scripts/test_ablation.py",
    "python -m scripts.study.strengths --bases assets/tiny_strengths --at 2000 3400 3900 4400 "
    "--root runs/strengths --seeds 0 1 2 --jobs 2 --results docs/results/strengths.md": (
        "tests/scripts/test_strengths.py"
    ),
    "python -m scripts.study.kill": "tests/scripts/test_kill_campaign.py",
    "python -m scripts.study.fuzz_config": "tests/scripts/test_fuzz_config.py",
    "python -m dig_jax.evaluate": "tests/test_train.py",
    "python -m scripts.study.through_lmms_eval --lmms PYTHON --root data/questions --out "
    "runs/lmms": "tests/scripts/test_through_lmms_eval.py",
}
TESTED["python -m dig_jax.serve --source assets/tiny_qwen3vl"] = "tests/serve/test_command.py"
TESTED |= dict.fromkeys(
    (
        "python -m dig_jax.predict a.png b.jpg --source FOLDER --out boxes.png",
        "python -m dig_jax.predict shots --run runs/mine --from-best --out boxes --json",
    ),
    "tests/test_predict.py",
)
READ = """
python -m dig_jax.data questions --root data/base --splits base --allow-training --out data/base_questions
python -m dig_jax.data render --root data/mid --preset base --set look.width=256 --set look.height=192
python -m dig_jax.data render --root data/mid --preset quickstart --set look.width=256 --set look.height=192
python -m dig_jax.data make --preset paper --root data/paper
python -m dig_jax.data make --preset paper --root data/paper --shards "$SLURM_ARRAY_TASK_ID/64"
python -m dig_jax.data make --preset paper --root data/paper --shards "$JOB_COMPLETION_INDEX/64"
python -m dig_jax.serve --source FOLDER --bucket 1024x768:2048 --pictures 2 --batch 16 --max-tokens 8192
python -m dig_jax.serve --source FOLDER --host 0.0.0.0 --api-key-file key.txt
python -m dig_jax.serve --run runs/mine --from-best --port 8001
python -m dig_jax.serve --run runs/quickstart-1 --max-pixels 6144
python -m dig_jax.convert import --source models/Qwen3-VL-8B-Thinking --out models/8b --dtype bfloat16
python -m dig_jax.convert export --run gs://BUCKET/runs/pod_8b --out hf/pod_8b --dtype bfloat16
python -m dig_jax.convert export --run runs/mid/grpo --out runs/mid/hf --dtype bfloat16
python -m dig_jax.convert export --run runs/mine --out runs/mine/hf --from-best
python -m dig_jax.train --config configs/mine.py --run-dir /shared/runs/mine
python -m dig_jax.train --config configs/tiny_cpu.py --set log.trackers=wandb --set log.project=dig
python -m tpu.preflight --slice v5e-16 --model 8B --config configs/pod_8b.py
python -m tpu.preflight --slice v5e-16 --model 8B --config configs/pod_8b.py [--set A.B=C] [--fast]
python -m tpu.hlo_report D/v5e-16_update.txt
.venv-parity/bin/python -m scripts.study.compare_with_hf FOLDER
DIG_EXTRAS=tpu,dev scripts/env.sh && . .venv/bin/activate
DIG_EXTRAS=cuda,gcs scripts/env.sh && . .venv/bin/activate
DIG_COORDINATOR=10.0.0.1:8476 DIG_PROCESSES=2 DIG_PROCESS=0 python -m dig_jax.train ...
DIG_COORDINATOR=10.0.0.1:8476 DIG_PROCESSES=2 DIG_PROCESS=1 python -m dig_jax.train ...
srun python -m dig_jax.train ...
"""  # noqa: E501
READ_STARTS = (
    'gcloud compute tpus tpu-vm ssh NAME --worker=all --command="cd dig_jax && ',
    "srun tpu/complete.sh RUN_DIR 300 python -m dig_jax.train --config configs/pod_8b.py ",
    "XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 python -m dig_jax.train --config configs/pod_8b.py ",
    "xpk workload create --cluster CLUSTER --workload NAME --tpu-type v5litepod-16 ",
)
STANDS_FOR = {  # a page's word -> what it is here
    "...": "--config configs/tiny_cpu.py",
    "configs/mine.py": "configs/tiny_cpu.py",
    "FOLDER": "assets/tiny_qwen3vl",
    "IMPORT": "imported",
    "$SLURM_ARRAY_TASK_ID": "3",
    "$JOB_COMPLETION_INDEX": "3",
    "[--set A.B=C]": "",
    "[--fast]": "",
}
LINES = commands()


def lines(table: str) -> list[str]:
    return [normal(line) for line in table.splitlines() if line.strip()]


EXACT = {*lines(RUN), *lines(RECORD), *lines(CLOUD), *TESTED, *lines(READ)}
STARTS = (*CLOUD_STARTS, *READ_STARTS)


def filled(text: str) -> str:
    for word, meant in STANDS_FOR.items():
        text = text.replace(word, meant)
    return text


class Parsed(Exception):
    """The arguments as the program's own parser read them."""


def understood(call: list[str], patch: pytest.MonkeyPatch) -> argparse.Namespace | None:
    """What a program reads from its arguments, its configuration or corpus made; None without."""
    name, *words = call
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    read = argparse.ArgumentParser.parse_args

    def parse(self, *given):
        raise Parsed(read(self, *given))

    patch.setattr(sys, "argv", [name, *words])
    patch.setattr(argparse.ArgumentParser, "parse_args", parse)
    try:
        module.main()
    except Parsed as parsed:
        given = parsed.args[0]
    else:
        return None
    finally:
        patch.setattr(argparse.ArgumentParser, "parse_args", read)
    if getattr(given, "config", None):
        load_config(given.config, given.settings)
    if hasattr(given, "preset"):
        corpus_from(given)
    return given


def test_every_command_line_has_its_row_and_every_row_its_line():
    """A new command is entered in the table above, with how it is run."""
    texts = {line.text for line in LINES}
    assert len(texts) > 60
    new = [line for line in LINES if line.text not in EXACT and not line.text.startswith(STARTS)]
    assert not new, f"no row in tests/test_commands.py for {new}"
    assert not EXACT - texts, f"rows of lines that no page has: {sorted(EXACT - texts)}"
    for start in STARTS:
        assert any(text.startswith(start) for text in texts), start
    for test in TESTED.values():
        assert (ROOT / test).is_file(), test


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.page} {line.text[:70]}")
def test_a_command_line_is_understood_by_the_program_it_starts(line, monkeypatch, capsys):
    """Its parser, its configuration with every --set, its corpus; scripts of bash are parsed."""
    monkeypatch.chdir(ROOT)
    text = filled(line.text)
    for call in python_calls(text):
        assert importlib.util.find_spec(call[0])
        if line.text != f"python -m {call[0]}":  # a program's name alone asks for nothing
            understood(call, monkeypatch)
    for script in re.findall(r"(?<![\w/])(?:scripts|tpu)/\w+\.sh", text):
        done = subprocess.run(["bash", "-n", ROOT / script], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert os.access(ROOT / script, os.X_OK)


def test_a_wrong_command_line_would_be_found(monkeypatch):
    for wrong in (
        "python -m dig_jax.train --config configs/tiny_cpu.py --set optim.rat=1",
        "python -m dig_jax.convert export --run runs/mine",
        "python -m dig_jax.data make --preset tinny --root data/x",
    ):
        (call,) = python_calls(wrong)
        with pytest.raises((SystemExit, KeyError, ValueError)):
            understood(call, monkeypatch)


def test_the_help_of_train_mid_is_printed():
    done = subprocess.run([ROOT / "scripts/train_mid.sh", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "scripts/train_mid.sh DATA OUT" in done.stdout


RECORDER = """#!/bin/bash
[[ $1 == - ]] && exec {python} "$@"
printf '%q ' "$@" >>{log}
echo >>{log}
"""


@pytest.mark.parametrize("text", lines(RECORD))
def test_the_calls_of_a_script_are_understood(text, tmp_path, monkeypatch):
    """The script as it is, in a folder where python writes its arguments down."""
    log, python = tmp_path / "log", tmp_path / ".venv" / "bin" / "python"
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "scripts" / "env.sh").write_text("#!/bin/bash\n")
    for name in ("configs", "assets", "dig_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    python.parent.mkdir(parents=True)
    recorder = {"python": shlex.quote(sys.executable), "log": shlex.quote(str(log))}
    python.write_text(RECORDER.format(**recorder))
    python.chmod(0o755)
    words = [tmp_path / text.split()[0], *text.split()[1:]]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = [shlex.split(line)[1:] for line in log.read_text().splitlines()]
    assert len(calls) > 6
    monkeypatch.chdir(ROOT)
    for call in calls:
        understood(call, monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where a reader stands: configs/ and scripts/ as shipped, a model of two blocks."""
    root = tmp_path_factory.mktemp("reader")
    for name in ("configs", "scripts", "docs"):
        shutil.copytree(ROOT / name, root / name)
    model = small_base()
    params = make_tiny(jax.random.key(0), model)
    weights.save_hf(root / "assets" / "tiny_qwen3vl", params, model, source_folder=ASSETS)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(root / name)
    return root


def shortened(text: str) -> str:
    """The line with what SHORTENED adds for its program."""
    (call,) = python_calls(text)
    added = [more for name, more in SHORTENED.items() if " ".join(call[:2]).startswith(name)]
    return " ".join([filled(text), *added])


@pytest.mark.slow
@pytest.mark.timeout(3600)  # some forty programs
def test_the_command_lines_do_what_they_say(folder):
    """Each of RUN, in a process of its own, one after the other as a reader would."""
    flags = {"XLA_FLAGS": "--xla_backend_optimization_level=0", "PYTHONPATH": str(ROOT)}
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    for text in lines(RUN):
        if (
            " --run-dir" not in text
        ):  # it is another experiment: its reader empties the folder first
            shutil.rmtree(folder / "runs" / "tiny_cpu", ignore_errors=True)
        for line in (*BEFORE.get(text, ()), text):
            words = shlex.split(shortened(line))
            assert words[0] == "python"
            done = subprocess.run(
                [sys.executable, *words[1:]],
                cwd=folder,
                env={**os.environ, **flags, **quiet},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    for made in ("runs/mine/report.md", "runs/mine/hf/model.safetensors", "sheet.html"):
        assert (folder / made).is_file(), made
