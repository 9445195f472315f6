"""The verb import: parquet as a split that training reads like a rendered one.

Our own export comes back record by record, byte for byte; with its masks and under its own name
the shards and the manifest are those that were exported. Anybody else's pairs are checked row by
row, brought to one size and written with a manifest whose renderer is "import".
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dig_jax.common import locks, sealed, typed
from dig_jax.common.commandline import path_of, within
from dig_jax.common.files import make_folder, temporary, write_json
from dig_jax.common.progress import progress
from dig_jax.config import DataConfig
from dig_jax.data import records
from dig_jax.data.exchange import checksums, example, parquet
from dig_jax.data.exchange.bad_row import BadRow
from dig_jax.data.exchange.foreign import Columns, foreign_rows, one_size, pair_of
from dig_jax.data.exchange.foreign_boxes import FORMATS, FRAMES
from dig_jax.data.exchange.shard_writer import ShardWriter

_SHARD_PAIRS = 64
_FILE = re.compile(r"(.+)-\d{5}-of-(\d{5})")  # the stem of one of several files
_MASKS = ("mask_a", "mask_b")


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    """What to read, how, and where to."""
    parser.description = "Import pairs from parquet files: our own export, or anybody's."
    parser.add_argument("paths", type=path_of, nargs="+", help="parquet files, or a folder of them")
    parser.add_argument("--root", type=path_of, required=True, help="folder that holds the splits")
    parser.add_argument("--split", required=True, help="name of the split to make")
    parser.add_argument("--size", help="WxH that all pictures are resized to")
    parser.add_argument("--images", help="column with a list of two pictures; default: images")
    parser.add_argument("--image-a", help="instead: column with the first picture")
    parser.add_argument("--image-b", help="and column with the second one")
    parser.add_argument("--boxes", help="column with boxes; default: answer, in --frame qwen")
    parser.add_argument("--frame", help=f"of --boxes: {', '.join(FRAMES)} (0..1000)")
    parser.add_argument(
        "--format", choices=FORMATS, help="of --boxes: corners (default), COCO's, or YOLO's"
    )
    parser.add_argument(
        "--clip", action="store_true", help="cut boxes at the edge; by up to a pixel always"
    )
    parser.add_argument("--types", help="column with one text per box; default: labels of answer")
    parser.add_argument("--limit", type=within(int, 1, 10**9), help="rows to read; default: all")
    parser.add_argument(
        "--max-boxes",
        type=within(int, 1, 1024),
        default=DataConfig().max_boxes,
        help=f"boxes that a pair may have, as data.max_boxes; default: {DataConfig().max_boxes}",
    )
    parser.add_argument("--skip-bad", action="store_true", help="count bad rows, do not stop")


def run(args: argparse.Namespace, verb: str) -> int:
    """Import what the arguments name and say what was made."""
    columns = _columns(args)
    made = import_split(
        args.paths,
        args.root,
        args.split,
        columns=columns,
        size=args.size and _size(args.size),
        limit=args.limit,
        max_boxes=args.max_boxes,
        skip_bad=args.skip_bad,
    )
    dropped = sum(made["dropped"].values()) if made["renderer"] == "import" else 0
    left_out = f", {dropped} rows left out: {made['dropped']}" if dropped else ""
    cut = made.get("clipped_boxes", 0)
    left_out += f", {cut} boxes cut at their picture's edge" if cut else ""
    print(f"{args.root / args.split}: {made['pairs']} pairs, K {made['k']}{left_out}")
    width, height = (made["settings"][side] for side in ("width", "height"))
    print(f"train on it with data.image_width={width} data.image_height={height}")
    return 0


def _columns(args: argparse.Namespace) -> Columns | None:
    """None where nothing is said about columns: then an export of ours is read as such."""
    sides = (args.image_a, args.image_b)
    rule = "goes with --image-a and without --images"
    ok = None not in sides or sides == (None, None)
    typed.require(ok, "--image-b", args.image_b, rule, "name both columns")
    ok = args.images is None or args.image_a is None
    typed.require(ok, "--images", args.images, "excludes --image-a and --image-b", "name one way")
    ok = (args.boxes is None) == (args.frame is None)
    remedy = f"add --frame with one of {', '.join(FRAMES)}, or --boxes"
    typed.require(ok, "--boxes", args.boxes, "and --frame come together", remedy)
    ok = args.frame in (None, *FRAMES)
    typed.require(ok, "--frame", args.frame, "is unknown", f"use one of {', '.join(FRAMES)}")
    said = (args.images, *sides, args.boxes, args.types, args.format, args.clip or None)
    if said == (None,) * len(said):
        return None
    images = sides if args.image_a else (args.images or "images",)
    boxes, frame = args.boxes or "answer", args.frame or "qwen"
    return Columns(images, boxes, frame, args.types, args.format, args.clip)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    typed.require(bool(match), "--size", text, "is not WxH", "write 480x320")
    return int(match[1]), int(match[2])


def import_split(
    paths: Iterable[Path],
    root: str | Path,
    split: str,
    *,
    columns: Columns | None = None,
    size: tuple[int, int] | None = None,
    limit: int | None = None,
    max_boxes: int = DataConfig().max_boxes,
    skip_bad: bool = False,
) -> dict:
    """Make `<root>/<split>` from parquet files; returns its manifest.

    columns    where pictures and boxes stand; None: as our export has them
    size       (width, height) of all pictures; None: they must share one
    limit      rows to read
    skip_bad   count rows that are no pair instead of raising for the first one

    Raises FileNotFoundError, FileExistsError, ValueError (a column, a row, several sizes); the
    folder is then not there.
    """
    files, folder = find_files(paths, split), Path(root) / split
    ok = re.fullmatch(r"\w[\w.-]*", split) is not None
    typed.require(ok, "--split", split, "is no plain folder name", "use letters, digits, _ . -")
    typed.require(limit is None or limit > 0, "--limit", limit, "is below 1", "leave it out")
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another --split or --root, or delete it")
    for path in files:
        _check_whole(path)
    with locks.owned("--root", folder.parent / f".{folder.name}.lock"):
        tmp = temporary(folder)
        make_folder(tmp)
        try:
            if columns is None and size is None and all(map(_note, files)):
                made = _restore(files, tmp, split, limit)
            else:
                columns = columns or Columns()
                made = _import(files, tmp, split, columns, size, limit, max_boxes, skip_bad)
            write_json(tmp / records.MANIFEST, made)
            os.replace(tmp, folder)
        except BaseException:  # an interrupt too leaves nothing behind
            shutil.rmtree(tmp, ignore_errors=True)
            raise
    return made


def find_files(paths: Iterable[Path], split: str) -> list[Path]:
    """The parquet files that are meant: those given, and in a folder those of one split.

    That is the split of the wanted name or, where there is none, the only one. Masks of an
    export are found beside its pairs and not listed.
    """
    found = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(p for p in path.rglob("*.parquet") if p.parent.name != "masks")
        stems = [match[1] if (match := _FILE.fullmatch(p.stem)) else p.stem for p in inside]
        names = sorted(set(stems))
        gone = [name for name in checksums.names(path) if name.startswith(f"data/{split}-")]
        if split not in names and gone:  # another split in its place would be taken for it
            raise FileNotFoundError(f"{path / gone[0]} is gone; copy, download or export it again")
        chosen = split if split in names else names[0] if len(names) == 1 else None
        if chosen is None:
            raise FileNotFoundError(
                f"{path} holds parquet files of {', '.join(names) or 'no split'}, not of --split="
                f"{split}; use one of these names or give the files themselves"
            )
        mine = [p for p, stem in zip(inside, stems, strict=True) if stem == chosen]
        _check_all_there(path, mine)
        found += mine
    return found


def _check_all_there(folder: Path, files: list[Path]) -> None:
    """A folder's files say how many there are."""
    match = _FILE.fullmatch(files[0].stem)
    if match and int(match[2]) != len(files):
        raise FileNotFoundError(
            f"{folder} holds {len(files)} of the {int(match[2])} files of {match[1]}; copy, "
            "download or export the rest, or give the files themselves to import these alone"
        )


def _check_whole(path: Path) -> None:
    """Raises ValueError where a file of an export, or its masks, are not what was written."""
    out, ours = path.absolute().parent.parent, _note(path) is not None
    masks = out / "masks" / path.name
    if ours and masks.parent.is_dir() and not masks.is_file():
        raise FileNotFoundError(
            f"{masks} is gone; copy, download or export it again, or delete {masks.parent} to "
            "import the pairs without their masks"
        )
    if path.absolute().parent.name == "data":
        for file in filter(Path.is_file, (path.absolute(), masks)):
            checksums.check_file(file, out, ours=ours)


def _note(path: Path) -> dict | None:
    """What our export noted in a file, None for anybody else's."""
    note = parquet.read_note(path)
    return note if note and "manifest" in note else None


def _restore(files: list[Path], folder: Path, split: str, limit: int | None) -> dict:
    """Our own records; the original manifest where the very shards came back."""
    note, rows = _note(files[0]), sum(map(parquet.count_rows, files))
    whole = limit is None and rows == note["manifest"]["pairs"]
    originals = note["manifest"]["shards"]
    counts = [entry["count"] for entry in originals] if whole else itertools.repeat(_SHARD_PAIRS)
    sidecars = note["sidecars"] if whole else []
    shards = ShardWriter(folder, counts, sidecars, len(originals) if whole else 0)
    with progress(split, "pairs") as report:
        total = rows if limit is None else min(rows, limit)
        for done, record in enumerate(itertools.islice(_own_records(files), limit), 1):
            shards.add(record)
            report(done, total, "")
    entries = shards.close()
    same = [e["sha256"] for e in entries] == [e["sha256"] for e in originals]
    if whole and same and split == note["split"]:
        return note["manifest"]
    shards.forget_sidecars()
    request = {"from": note["manifest"].get("request")}
    return sealed.sealed(shards.manifest(split, files, request))


def _own_records(files: list[Path]) -> Iterator[bytes]:
    """The records of an export, with masks where masks/ lies beside data/."""
    for path in files:
        pairs = parquet.read_rows(path, ["pair_id", "images", "meta"])
        ids_path = path.parent.parent / "masks" / path.name
        ids = parquet.read_rows(ids_path) if ids_path.is_file() else itertools.repeat({})
        for row, masks in zip(pairs, ids, strict=False):
            if masks and masks["pair_id"] != row["pair_id"]:
                raise ValueError(
                    f"{ids_path} tells {masks['pair_id']} where {path.name} has {row['pair_id']}; "
                    "the two are not of one export: delete masks/ or export again"
                )
            images = zip(("image_a", "image_b"), row["images"], strict=True)
            fields = {name: image["bytes"] for name, image in images} | {"meta": row["meta"]}
            fields |= {name: masks[name]["bytes"] for name in _MASKS if masks.get(name)}
            yield example.pack(fields)


def _import(
    files: list[Path],
    folder: Path,
    split: str,
    columns: Columns,
    size: tuple[int, int] | None,
    limit: int | None,
    max_boxes: int,
    skip_bad: bool,
) -> dict:
    """Anybody's rows."""
    for path in files:
        columns.check(path)
    size = size or one_size(files, columns, limit)
    rows = sum(map(parquet.count_rows, files))
    total = rows if limit is None else min(rows, limit)
    shards = ShardWriter(folder, itertools.repeat(_SHARD_PAIRS), [], 0)
    dropped: Counter = Counter()
    clipped = 0
    with progress(split, "rows") as report:
        for done, (path, number, row) in enumerate(foreign_rows(files, columns, limit), 1):
            try:
                pair, cut = pair_of(row, path, columns=columns, size=size, max_boxes=max_boxes)
            except BadRow as error:
                if error.tells_of_all or not skip_bad:
                    rest = "" if error.tells_of_all else "; --skip-bad leaves such rows out"
                    raise ValueError(f"{path} row {number}: {error}{rest}") from error
                dropped[error.rule] += 1
                continue
            clipped += cut
            origin = {"file": path.name, "row": number}
            place = {"split": split, "idx": shards.pairs, "origin": origin}
            pair.meta.update(place)
            shards.add(records.encode(pair))
            report(done, total, "")
    shards.close()
    request = {"images": list(columns.images), "boxes": columns.boxes, "frame": columns.frame}
    request["format"] = columns.format or "xyxy"
    counted = {"dropped": dict(dropped), "clipped_boxes": clipped}
    return sealed.sealed(shards.manifest(split, files, request) | counted)
