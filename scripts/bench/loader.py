"""Pairs per second of one core: our loader beside `datasets` + torch DataLoader, on equal pairs.

    .venv-parity/bin/python -m scripts.bench.loader [--pairs 384] [--rounds 3]

Makes pairs of 480x320 px whose PNGs are about as large as Blender's, once as record shards and
once as a parquet with Hugging Face's image schema, and reads both in the same order into the same
batches u8[16,2,320,480,3] (their checksums are compared). Every row is a process of its own on the
same core; the table holds the best of the rounds, by CPU seconds of the process and its workers,
because other jobs only ever add to them. Opening files and starting processes is not counted.
Then, at 96x64 px: what the loader gives and what a GRPO step of configs/tiny_cpu.py takes.
Without torch, datasets or pyarrow (environment of scripts/parity.sh) their rows are left out.
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dig_jax.common import machine
from dig_jax.common.files import write_json
from dig_jax.config import Config, CurriculumConfig, DataConfig, Stage
from dig_jax.data import records

BATCH = 16
LARGE, TINY = (320, 480), (64, 96)  # height, width
SPLIT, PARQUET = "bench", "pairs.parquet"
ROW_GROUP = 32  # pairs
THEIRS = ("torch", "datasets", "pyarrow")
# name -> (side, workers, cache, epochs); with workers many, so that what is not counted is little
ROWS = {
    "ours, PNG records": ("ours", 0, "none", 1),
    "ours, PNG records, 1 worker": ("ours", 1, "none", 4),
    "ours, making decoded copies": ("make", 0, "decoded", 1),
    "ours, decoded copies": ("ours", 0, "decoded", 10),
    "ours, decoded copies, 1 worker": ("ours", 1, "decoded", 10),
    "datasets + DataLoader": ("theirs", 0, "none", 1),
    "datasets + DataLoader, 1 worker": ("theirs", 1, "none", 4),
}


def picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """u8[Y,X,3] like a path-traced desk: shaded blobs on a shaded ground, sparse faint noise."""
    rows, cols = np.mgrid[: size[0], : size[1]] / size[0]
    image = np.stack([0.3 + 0.2 * rows + 0.1 * cols * k for k in (1.0, 0.8, 0.6)], axis=-1)
    for _ in range(6):
        y, x, r = rng.uniform(0, 1), rng.uniform(0, size[1] / size[0]), rng.uniform(0.05, 0.2)
        inside = (rows - y) ** 2 + (cols - x) ** 2 < r**2
        shade = 1 - ((rows - y + r) / (2 * r)) * 0.6
        image[inside] = (rng.uniform(0.2, 1, 3) * shade[..., None])[inside]
    # a denoised render: most pixels repeat their neighbours' shade, some are a level off
    image = np.round(image * 255) + rng.integers(-1, 2, image.shape) * (
        rng.uniform(size=(*size, 1)) < 0.12
    )
    return np.clip(image, 0, 255).astype(np.uint8)


def make_pairs(root: Path, count: int, size: tuple[int, int]) -> float:
    """Shards of `count` pairs below root, and the parquet where pyarrow is; mean PNG bytes."""
    rng = np.random.default_rng(0)
    folder = root / SPLIT
    folder.mkdir(parents=True)
    box = {"box": [size[1] // 4, size[0] // 4, size[1] // 2, size[0] // 2]}
    pairs, entries = [], []
    for _ in range(count):
        first = picture(rng, size)
        second = first.copy()
        second[size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = 90
        pairs.append(
            records.encode(records.Pair(first, second, None, None, {"differences": [box]}))
        )
    shards = -(-count // 64)
    for number in range(shards):
        path = folder / records.shard_name(number, shards)
        entries.append(records.write_shard(path, pairs[number * 64 : number * 64 + 64], {}))
    manifest = {"complete": True, "shard_count": shards, "shards": entries, "k": {"1": count}}
    write_json(folder / records.MANIFEST, manifest)
    if importlib.util.find_spec("pyarrow"):
        write_parquet(folder / PARQUET, pairs)
    return sum(map(len, pairs)) / count / 2


def write_parquet(path: Path, pairs: list[bytes]) -> None:
    """The same PNG bytes as rows of struct<bytes, path>, as `datasets` writes images."""
    import msgpack
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [msgpack.unpackb(pair) for pair in pairs]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {
        name: pa.array([{"bytes": row[name], "path": None} for row in fields], image)
        for name in ("image_a", "image_b")
    }
    boxes = [[d["box"] for d in json.loads(row["meta"])["differences"]] for row in fields]
    columns["boxes"] = pa.array(boxes, pa.list_(pa.list_(pa.float32())))
    kinds = {name: {"_type": "Image"} for name in ("image_a", "image_b")}
    numbers = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    kinds["boxes"] = {"feature": numbers, "_type": "List"}
    told = {"huggingface": json.dumps({"info": {"features": kinds}})}
    table = pa.table(columns).replace_schema_metadata(told)
    pq.write_table(table, path, row_group_size=ROW_GROUP)


def config(root: Path, size, count: int, workers: int, cache: str, epochs: int) -> Config:
    """One curriculum stage over the one split, `epochs` times its pairs."""
    steps = count * epochs // BATCH
    return Config(
        steps=steps,
        pairs_per_step=BATCH,
        data=DataConfig(
            root=str(root), image_width=size[1], image_height=size[0], buckets=(SPLIT,),
            eval_split="none", workers=workers, cache=cache,
        ),
        curriculum=CurriculumConfig(stages=(Stage(until=steps, weights={SPLIT: 1.0}),)),
    )  # fmt: skip


def run_ours(cfg: Config) -> dict:
    from dig_jax.data.feed import pipeline

    batches = pipeline.train_pairs(cfg, 0)
    told = measured(((b.images, b.truth.boxes) for b in batches), cfg, ahead=cfg.data.prefetch + 2)
    if cfg.data.workers:
        batches.close()
    return told


def run_make(cfg: Config) -> dict:
    """Decoded copies from nothing: what the first run pays."""
    from dig_jax.data.feed import source

    folder = Path(cfg.data.root) / SPLIT / "decoded"
    for path in folder.rglob("pairs-*"):
        path.unlink()
    cpu, wall = time.process_time(), time.perf_counter()
    pairs = len(source.PairSource(cfg.data, SPLIT, cache="decoded"))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"pairs": pairs, "cpu_s": cpu, "wall_s": wall, "crc32": None}


def run_theirs(cfg: Config) -> dict:
    """As one writes it: the image columns decode to Pillow pictures, collate makes the arrays."""
    import datasets
    import torch

    from dig_jax.data.feed.curriculum import index_table

    torch.set_num_threads(1)
    folder = Path(cfg.data.root) / SPLIT
    rows = datasets.load_dataset(
        "parquet", data_files=str(folder / PARQUET), split="train", cache_dir=str(folder / "arrow")
    )

    order = index_table(cfg, {SPLIT: len(rows)}).offset.tolist()
    loader = torch.utils.data.DataLoader(
        rows,
        batch_size=BATCH,
        sampler=order,
        collate_fn=collate,
        num_workers=cfg.data.workers,
        prefetch_factor=cfg.data.prefetch if cfg.data.workers else None,
    )
    return measured(iter(loader), cfg, ahead=cfg.data.prefetch + 1)


def collate(rows: list[dict]):
    """torch u8[B,2,Y,X,3] and f32[B,1,4] of rows of the parquet, boxes in the unit frame."""
    import torch

    images = np.stack([[np.asarray(row[name]) for name in ("image_a", "image_b")] for row in rows])
    boxes = np.array([row["boxes"] for row in rows], np.float32)
    height, width = images.shape[2:4]
    boxes /= np.array([width, height, width, height], np.float32)
    return torch.from_numpy(images), torch.from_numpy(boxes)


def measured(batches: Iterator, cfg: Config, *, ahead: int) -> dict:
    """CPU and wall seconds of a loader's batches, its worker processes' included.

    With workers the clock starts at the first batch, and the `ahead` batches that they may have
    made by then are not counted.
    """
    crc = 0
    skipped = 1 + ahead if cfg.data.workers else 0
    if cfg.data.workers:
        images, _ = next(batches)
        crc = zlib.crc32(np.asarray(images))
    cpu, wall = cpu_seconds(), time.perf_counter()
    kept = []
    for number, (images, _) in enumerate(batches):
        if number < 2:
            kept.append(images)
        end = cpu_seconds(), time.perf_counter()  # while the workers are still there
    for images in kept[: 2 - bool(cfg.data.workers)]:
        crc = zlib.crc32(np.asarray(images), crc)
    pairs = (cfg.steps - skipped) * BATCH
    return {"pairs": pairs, "cpu_s": end[0] - cpu, "wall_s": end[1] - wall, "crc32": crc}


def cpu_seconds() -> float:
    """Of this process and its children that still run (Linux)."""
    children = Path("/proc/self/task").glob("*/children")
    pids = [pid for path in children for pid in path.read_text().split()]
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # user, system
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def in_process(row: str, root: Path, size, count: int, core: int) -> dict | None:
    """One row's measurement on one core; None where its packages are missing."""
    side, workers, cache, epochs = ROWS[row]
    if side == "theirs" and not all(map(importlib.util.find_spec, THEIRS)):
        return None
    told = json.dumps([side, str(root), size, count, workers, cache, epochs])
    command = [sys.executable, "-m", "scripts.bench.loader", "--side", told]
    one = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    env = os.environ | one | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    pinned = ["taskset", "-c", str(core), *command]
    done = subprocess.run(pinned, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{row}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_side(told: str) -> dict:
    side, root, size, count, workers, cache, epochs = json.loads(told)
    cfg = config(Path(root), size, count, workers, cache, epochs)
    return {"ours": run_ours, "make": run_make, "theirs": run_theirs}[side](cfg)


def table(root: Path, size, count: int, rounds: int, core: int, rows) -> dict[str, dict]:
    """Best of the rounds per row; the rounds take turns, so that a busy minute hits them all."""
    best: dict[str, dict] = {}
    for _, row in itertools.product(range(rounds), rows):
        told = in_process(row, root, size, count, core)
        if told and (row not in best or told["cpu_s"] < best[row]["cpu_s"]):
            best[row] = told
    sums = {told["crc32"] for told in best.values()} - {None}
    if len(sums) > 1:
        sys.exit(f"the loaders gave different batches: {best}")
    return best


def text(best: dict[str, dict]) -> list[str]:
    base = best.get("datasets + DataLoader")
    lines = ["| | pairs per CPU-second | pairs per second | ratio to datasets + DataLoader |"]
    lines.append("|---|---|---|---|")
    for row, told in best.items():
        rate, ratio = told["pairs"] / told["cpu_s"], "-"
        if base:
            ratio = f"{rate / (base['pairs'] / base['cpu_s']):.2f}"
        lines.append(f"| {row} | {rate:.0f} | {told['pairs'] / told['wall_s']:.0f} | {ratio} |")
    if not base:
        lines.append(f"datasets + DataLoader: left out, needs {', '.join(THEIRS)}")
    return lines


def learner_seconds(root: Path, steps: int) -> float:
    """Seconds of a GRPO step of configs/tiny_cpu.py on all cores: the fastest after two.

    The first two compile. Every split holds the same pairs; their content costs nothing.
    """
    for split in ("single", "dual", "mixed", "heldout"):
        (root / split).symlink_to(root / SPLIT)
    settings = {"data.root": root, "steps": steps, "eval.pairs": 16, "eval.batch": 16}
    settings |= {f"curriculum.stages.{n}.until": steps - 2 + n for n in range(3)}
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    run = [sys.executable, "-m", "dig_jax.train", "--config", "configs/tiny_cpu.py", *words]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    where = ["--run-dir", str(root / "run")]
    done = subprocess.run([*run, *where], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"learner: {done.stderr[-3000:]}")
    rows = map(json.loads, (root / "run" / "metrics.jsonl").read_text().splitlines())
    return min(row["time/step"] for row in rows if row["kind"] == "train" and row["step"] > 1)


def versions() -> str:
    found = []
    for name in ("grain", "array-record", "pillow", "numpy", "jax", *THEIRS):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} missing")
    return f"Python {platform.python_version()}, " + ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=384, help="of 480x320; a multiple of 16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core that every row runs on")
    parser.add_argument("--learner-steps", type=int, default=8, help="0 leaves the learner out")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(run_side(args.side)))
        return
    print(f"{machine.cpu_family()}, core {args.core}; {versions()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "large"
        png = make_pairs(root, args.pairs, LARGE)
        print(f"{args.pairs} pairs of 480x320 px, {png / 1e3:.0f} kB a PNG, batches of {BATCH}")
        best = table(root, LARGE, args.pairs, args.rounds, args.core, list(ROWS))
        print("\n".join(text(best)), flush=True)
        shutil.rmtree(root)
        root = Path(folder) / "tiny"
        make_pairs(root, args.pairs, TINY)
        tiny = table(
            root,
            TINY,
            args.pairs,
            args.rounds,
            args.core,
            ["ours, PNG records", "ours, decoded copies"],
        )
        step_s = learner_seconds(root, args.learner_steps) if args.learner_steps else None
    print("\npairs of 96x64 px")
    if step_s:
        print(f"  a GRPO step of configs/tiny_cpu.py: {step_s:.2f} s, {BATCH / step_s:.1f} pairs/s")
    for row, told in tiny.items():
        rate = told["pairs"] / told["cpu_s"]
        factor = f", {rate * step_s / BATCH:.0f} times the learner" if step_s else ""
        print(f"  {row}: {rate:.0f} pairs per CPU-second{factor}")


if __name__ == "__main__":
    main()
