"""The commands that `scripts.study.kill` kills, what they need, and what they leave."""

import hashlib
import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from dig_jax.run.runlog import comparable
from scripts.study.killing import trees

NAMES = ("render", "train", "evaluate", "import", "export")
BASE = "assets/tiny_qwen3vl"
PAIRS = {"single": (1, 12), "dual": (2, 12), "heldout": (1, 8)}  # split -> (differences, pairs)
STAGES = 'curriculum.stages=[{"until":3,"weights":{"single":1}},{"until":6,"weights":{"dual":1}}]'
# Two stages, a validation and two checkpoints in six steps of four pairs.
RUN = (
    "steps=6", "pairs_per_step=4", "rollout.group=4", "grpo.accumulate=4", "optim.warmup=1",
    "eval.pairs=8", "eval.batch=4", "eval.samples=2", "eval.every=3", "eval.splits=",
    "log.samples_every=2", "checkpoint.every=2", "data.workers=1",
)  # fmt: skip
# Fields that no rerun repeats: clocks, and checksums of what holds one.
CLOCKS = ("time", "cpu_s", "cpu_s_per_pair", "seconds", "crc", "seal", "run", "beside")
ARRAYS = "_METADATA"  # the file that Orbax writes into every folder of arrays


@dataclass(frozen=True)
class Job:
    """A command and where it writes."""

    name: str
    command: tuple[str, ...]
    out: Path


def prepare(name: str, work: Path) -> Job:
    """What a command needs, made once; the job of its undisturbed run, in an empty folder."""
    if name in ("train", "evaluate", "export"):
        _render_pairs(work / "data")
    if name in ("evaluate", "export") and not (work / "trained" / "done").is_file():
        trees.run(_train(work, work / "trained"))
        (work / "trained" / "done").touch()
    return fresh(name, work, "whole")


def fresh(name: str, work: Path, number: int | str) -> Job:
    """The job of one try, in an empty folder."""
    out = work / name / str(number)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    trained = work / "trained"
    convert = ("-m", "dig_jax.convert")
    command = {
        "render": _render(out, "single", 1, 12),
        "train": _train(work, out),
        "evaluate": _evaluate(work, out, trained),
        "import": (*convert, "import", "--source", BASE, "--out", str(out), "--overwrite"),
        "export": (*convert, "export", "--run", str(trained), "--out", str(out), "--overwrite"),
    }[name]
    return Job(name, command, out)


def remove(job: Job) -> None:
    shutil.rmtree(job.out, ignore_errors=True)


def differences(job: Job, whole: Path) -> list[str]:
    """Parts of the undisturbed run that this one lacks or has with another content."""
    mine, wanted = parts(job.out), parts(whole)
    missing = [f"{name} is missing" for name in sorted(wanted.keys() - mine.keys())]
    both = sorted(wanted.keys() & mine.keys())
    return missing + [f"{n} differs" for n in both if content(mine[n]) != content(wanted[n])]


def leftovers(job: Job, whole: Path) -> list[str]:
    """Parts that the undisturbed run has not, in the folder and beside it."""
    extra = parts(job.out).keys() - parts(whole).keys()
    beside = {p.name for p in job.out.parent.iterdir() if p.name.startswith(f".{job.out.name}")}
    # rows that a resume makes again are kept aside on purpose
    return sorted(name for name in extra if not name.endswith(".replaced.jsonl")) + sorted(beside)


def parts(root: Path) -> dict[str, Path]:
    """Name -> file, or folder of arrays by Orbax, of all that a rerun must repeat."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        above = (root / parent for parent in name.parents)
        inside = any((parent / ARRAYS).is_file() for parent in above)
        if (path.is_file() and not inside) or (path / ARRAYS).is_file():
            found[str(name)] = path
    return {name: path for name, path in found.items() if not _told_by_clocks(path)}


def content(path: Path) -> str:
    """What two parts must share: arrays, rows without clocks, JSON without clocks, else bytes."""
    if path.is_dir():
        leaves = jax.tree_util.tree_leaves_with_path(_restored(path))
        named = {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}
        return json.dumps({key: _sha256(leaf.tobytes()) for key, leaf in sorted(named.items())})
    if path.suffix == ".jsonl":
        rows = [_timeless(comparable(json.loads(line))) for line in path.read_text().splitlines()]
        return json.dumps(rows, sort_keys=True)
    if path.suffix == ".json":
        return json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True)
    return _sha256(path.read_bytes())


def _restored(folder: Path):
    with warnings.catch_warnings():  # that no shardings are given, once for every array
        warnings.simplefilter("ignore")
        return ocp.PyTreeCheckpointer().restore(folder)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _told_by_clocks(path: Path) -> bool:
    """Logs of when what was started, and Orbax's notes of when it wrote."""
    names = ("manifest.json", "config.json", "commit_success.txt")
    return (
        "tensorboard" in path.parts
        or path.name in names
        or path.name.startswith("_CHECKPOINT_METADATA")
        or path.name == "metadata"
    )


def _timeless(value):
    if isinstance(value, dict):
        return {key: _timeless(v) for key, v in value.items() if key not in CLOCKS}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _render(root: Path, split: str, k: int, pairs: int) -> tuple[str, ...]:
    sizes = ("--set", "look.width=96", "--set", "look.height=64", "--set", "look.samples=4")
    words = ("--root", str(root), "--split", split, "--pairs", str(pairs), "--k", str(k))
    return ("-m", "dig_jax.data", "render", *words, *sizes)


def _render_pairs(root: Path) -> None:
    for split, (k, pairs) in PAIRS.items():
        trees.run(_render(root, split, k, pairs))


def _settings(work: Path) -> list[str]:
    words = ["--config", "configs/tiny_cpu.py"]
    fields = [STAGES, f"data.root={work / 'data'}", *RUN]
    return words + [word for field in fields for word in ("--set", field)]


def _train(work: Path, out: Path) -> tuple[str, ...]:
    return ("-m", "dig_jax.train", *_settings(work), "--run-dir", str(out))


def _evaluate(work: Path, out: Path, trained: Path) -> tuple[str, ...]:
    where = ("--set", f"checkpoint.root={trained}", "--run-dir", str(out))
    return ("-m", "dig_jax.evaluate", *_settings(work), *where, "--name", "after", "--from-run")
