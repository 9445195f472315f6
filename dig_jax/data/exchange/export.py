"""The verb export: splits as a folder that other trainers, and `datasets`, open as it is.

    OUT/README.md                                  the data set's card
    OUT/data/SPLIT-00000-of-0000N.parquet          pairs; OUT/masks/ the same for object ids
    OUT/easyr1_reward.py                           the reward, for EasyR1 and TRL
    OUT/SHA256SUMS                                 of all files; `sha256sum -c`
    OUT/jsonl/SPLIT.jsonl  OUT/coco/SPLIT.json     with OUT/images/SPLIT/*.png

The folder appears whole or not at all: it is written under a temporary name beside OUT.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from dig_jax.common import locks, typed
from dig_jax.common.commandline import path_of, within
from dig_jax.common.files import make_folder, telling_room, temporary
from dig_jax.common.progress import progress
from dig_jax.config import PromptConfig
from dig_jax.data import records
from dig_jax.data.exchange import example
from dig_jax.data.exchange.checksums import write_sums
from dig_jax.data.exchange.dataset_card import SplitFacts, card_text
from dig_jax.data.exchange.example import Example
from dig_jax.data.exchange.parquet import TableWriter

FORMATS = ("parquet", "jsonl", "coco")
REWARD_FILE = "easyr1_reward.py"
_HUB_SPLIT = re.compile(r"\w+(\.\w+)*")  # what `datasets` accepts as a split's name
_NO_LICENSE = "unknown"


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """Which splits, where to, in which formats."""
    parser.description = "Export splits as parquet, COCO and jsonl with a card and a reward."
    parser.add_argument("--root", type=path_of, required=True, help="folder that holds the splits")
    parser.add_argument("--out", type=path_of, required=True, help="folder to make")
    parser.add_argument("--splits", help="only these, separated by commas; default: all in root")
    parser.add_argument(
        "--formats", default="parquet", help=f"of {','.join(FORMATS)}; default: parquet"
    )
    parser.add_argument(
        "--masks",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also a table of object ids (parquet only); without it import is not lossless",
    )
    parser.add_argument(
        "--shard-mb",
        type=within(int, 1, 10**6),
        default=500,
        help="largest parquet file, about; default: 500",
    )
    parser.add_argument("--license", help="for the card; default: apache-2.0 for our own renders")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")


def run(args: argparse.Namespace, verb: str) -> int:
    """Export what the arguments name and say what was made."""
    formats = [name.strip() for name in args.formats.split(",") if name.strip()]
    facts = export(
        args.root,
        args.out,
        splits=args.splits.split(",") if args.splits else None,
        formats=formats,
        masks=args.masks,
        shard_bytes=args.shard_mb * 1_000_000,
        license_name=args.license,
        overwrite=args.overwrite,
    )
    for one in facts:
        print(f"{args.out}: {one.name}, {one.pairs} pairs, K {dict(sorted(one.k.items()))}")
    return 0


def export(
    root: str | Path,
    out: str | Path,
    *,
    splits: list[str] | None = None,
    formats: list[str] = ("parquet",),
    masks: bool = True,
    shard_bytes: int = 500_000_000,
    license_name: str | None = None,
    overwrite: bool = False,
) -> list[SplitFacts]:
    """Write `out` from the splits of `root`; returns what was counted, split by split.

    shard_bytes   a parquet file ends with the pair that reaches it

    Raises FileNotFoundError (no such split), FileExistsError (out is there), ValueError (a name,
    a corrupt shard, a record that would not come back), OSError (the disk); `out` is then as it
    was.
    """
    root, out = Path(root), Path(out)
    for name in formats:
        remedy = f"use some of {','.join(FORMATS)}"
        typed.require(name in FORMATS, "--formats", name, "is unknown", remedy)
    typed.require(bool(formats), "--formats", formats, "is empty", f"use {','.join(FORMATS)}")
    typed.require(shard_bytes > 0, "--shard-mb", shard_bytes, "is not positive", "use 500")
    names = _split_names(root, splits)
    _check_free(out, overwrite)
    opened = {name: records.open_split(root / name) for name in names}
    with locks.owned("--out", out.parent / f".{out.name}.lock"):
        tmp = temporary(out)
        make_folder(tmp)
        try:
            with telling_room(out):
                facts = _write(tmp, opened, formats, masks, shard_bytes, license_name)
            _put_in_place(tmp, out)
        except BaseException:  # an interrupt too leaves nothing behind
            shutil.rmtree(tmp, ignore_errors=True)
            raise
    return facts


def _write(
    out: Path,
    opened: dict[str, list[Path]],
    formats: list[str],
    masks: bool,
    shard_bytes: int,
    license_name: str | None,
) -> list[SplitFacts]:
    """All files of an export below a folder that is there."""
    question, facts = PromptConfig().question, []
    for name, shards in opened.items():
        with progress(name, "pairs") as report:
            facts.append(
                _export_split(out, name, shards, formats, masks, shard_bytes, question, report)
            )
    shutil.copyfile(Path(__file__).with_name(REWARD_FILE), out / REWARD_FILE)
    license_name = license_name or _license(facts)
    text = card_text(
        facts, formats=formats, masks=masks, license_name=license_name, question=question
    )
    (out / "README.md").write_text(text)
    write_sums(out)
    return facts


def _split_names(root: Path, wanted: list[str] | None) -> list[str]:
    found = sorted(path.parent.name for path in root.glob(f"*/{records.MANIFEST}"))
    names = found if wanted is None else [name.strip() for name in wanted]
    for name in names:
        if name not in found:
            raise FileNotFoundError(
                f"--splits={name} is not in {root}, which holds {', '.join(found) or 'no split'}"
            )
        rule = "is no split name that `datasets` opens (letters, digits, _ and inner dots)"
        ok = _HUB_SPLIT.fullmatch(name) is not None
        near = re.sub(r"\W+", "_", name).strip("_")
        typed.require(ok, "--splits", name, rule, f"rename the folder, for example {near}")
    if not names:
        raise FileNotFoundError(f"{root} holds no split; give --root the folder above the splits")
    return names


def _check_free(out: Path, overwrite: bool) -> None:
    """Refuse to write over what is there, and to delete what no export made."""
    if not out.exists():
        return
    is_export = all((out / name).is_file() for name in ("README.md", REWARD_FILE))
    if not is_export and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"--out={out} exists and is no earlier export (no {REWARD_FILE}); choose another"
        )
    if is_export and not overwrite:
        raise FileExistsError(f"--out={out} holds an export; add --overwrite or choose another")


def _put_in_place(tmp: Path, out: Path) -> None:
    old = out.with_name(f"{tmp.name}-old")
    if out.exists():
        os.replace(out, old)
    os.replace(tmp, out)
    shutil.rmtree(old, ignore_errors=True)


def _license(facts: list[SplitFacts]) -> str:
    return _NO_LICENSE if any(one.is_import for one in facts) else "apache-2.0"


def _export_split(
    out: Path,
    split: str,
    shards: list[Path],
    formats: list[str],
    masks: bool,
    shard_bytes: int,
    question: str,
    report: Callable[[int, int, str], None],
) -> SplitFacts:
    """One split in every format, in one pass, a shard of records in memory at a time."""
    manifest = records.read_manifest(shards[0].parent)
    facts = SplitFacts(split, manifest)
    sinks = []
    if "parquet" in formats:
        sidecars = _sidecars(shards)
        note = {"split": split, "manifest": manifest, "sidecars": sidecars}
        sinks.append(_Tables(out, split, note, masks, shard_bytes, question))
    if "jsonl" in formats:
        sinks.append(_Lines(out, split, question))
    if "coco" in formats:
        sinks.append(_Coco(out, split))
    if "jsonl" in formats or "coco" in formats:
        sinks.append(_Pictures(out, split))
    for done, one in enumerate(_examples(shards, split), 1):
        facts.count(one)
        for sink in sinks:
            sink.write(one)
        report(done, manifest.get("pairs", done), "")
    for sink in sinks:
        facts.files += sink.close()
    return facts


def _sidecars(shards: list[Path]) -> list[dict | None]:
    """Of all shards, or of none where a copy has only its shards; raises ValueError for others."""
    told = [records.read_sidecar(shard) for shard in shards]
    wrong = [records.sidecar(s) for s, one in zip(shards, told, strict=True) if one is None]
    if wrong and (any(told) or any(path.is_file() for path in wrong)):
        raise ValueError(records.sidecar_fault(wrong[0]))
    return told


def _examples(shards: list[Path], split: str) -> Iterator[Example]:
    index = itertools.count()
    for shard in shards:
        for number, record in enumerate(records.read_shard(shard)):
            try:
                one = example.read_example(record, split, next(index))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{shard} record {number}: {error}") from error
            yield one


class _Tables:
    """The pairs and, beside them, their object ids, cut into files at the same pairs."""

    def __init__(self, out, split, note, masks, shard_bytes, question):
        self._shard_bytes, self._question = shard_bytes, question
        self._pairs = TableWriter(out / "data", split, example.PAIRS, note)
        ids = TableWriter(out / "masks", split, example.MASKS, {"split": split})
        self._ids = ids if masks else None

    def write(self, one: Example) -> None:
        if self._pairs.file_bytes >= self._shard_bytes:
            self._pairs.cut()
            if self._ids:
                self._ids.cut()
        row = example.table_row(one, self._question)
        self._pairs.write(row, example.row_bytes(row))
        if self._ids:
            row = example.mask_row(one)
            self._ids.write(row, example.row_bytes(row))

    def close(self) -> list[str]:
        if self._ids:
            self._ids.close()
        return [f"data/{name}" for name in self._pairs.close()]


class _Lines:
    """jsonl/SPLIT.jsonl."""

    def __init__(self, out: Path, split: str, question: str):
        self._split, self._question = split, question
        (out / "jsonl").mkdir(exist_ok=True)
        self._file = (out / "jsonl" / f"{split}.jsonl").open("w")

    def write(self, one: Example) -> None:
        line = example.jsonl_line(one, self._split, self._question)
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> list[str]:
        self._file.close()
        return []


class _Coco:
    """coco/SPLIT.json, written as it comes: annotations wait in a file of their own."""

    def __init__(self, out: Path, split: str):
        self._split = split
        (out / "coco").mkdir(exist_ok=True)
        self._file = (out / "coco" / f"{split}.json").open("w")
        info = {"description": f"{split}: pairs of pictures, two COCO images per pair_id"}
        self._file.write(f'{{"info": {json.dumps(info)}, "images": [')
        self._rest = tempfile.TemporaryFile("w+")
        self._images = self._annotations = 0
        self._categories: dict[str, int] = {}

    def write(self, one: Example) -> None:
        images = example.coco_images(one, self._split, self._images + 1)
        for image in images:
            self._file.write(("," if self._images else "") + json.dumps(image))
            self._images += 1
        for annotation in example.coco_annotations(one, images[0]["id"]):
            kind = self._categories.setdefault(annotation["type"], len(self._categories) + 1)
            self._rest.write("," if self._annotations else "")
            self._annotations += 1
            ids = {"id": self._annotations, "category_id": kind}
            self._rest.write(json.dumps(ids | annotation))

    def close(self) -> list[str]:
        self._file.write('], "annotations": [')
        self._rest.seek(0)
        shutil.copyfileobj(self._rest, self._file)
        self._rest.close()
        categories = [{"id": number, "name": name} for name, number in self._categories.items()]
        self._file.write(f'], "categories": {json.dumps(categories)}}}\n')
        self._file.close()
        return []


class _Pictures:
    """images/SPLIT/*.png, the bytes of the records."""

    def __init__(self, out: Path, split: str):
        self._out, self._split = out, split
        (out / "images" / split).mkdir(parents=True)

    def write(self, one: Example) -> None:
        for side, path in example.picture_paths(one, self._split).items():
            (self._out / path).write_bytes(one.fields[f"image_{side}"])

    def close(self) -> list[str]:
        return []
