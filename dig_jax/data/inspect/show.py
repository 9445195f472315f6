"""A contact sheet: pairs as one HTML file that opens anywhere, without a network.

    python -m dig_jax.data show --root data/tiny --splits mixed --pick hard

Every pair is there with A, B, a map of where they differ, and boxes that can be switched off;
"Blink A / B" shows the two in turn in one place, which is how eyes find differences best.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dig_jax.common import typed
from dig_jax.common.files import write_text
from dig_jax.common.progress import progress
from dig_jax.data import records
from dig_jax.data.corpus.on_disk import Split, open_splits
from dig_jax.data.inspect.sheet import Card, card_html, page

PICKS = {
    "first": "the first ones",
    "random": "drawn at random",
    "hard": "the faintest first: the least changed pixels x levels of a difference",
    "marginal": "the nearest to rejection first: the least slack of a certificate",
}
_MAX_MB = 100
_PER_CARD = 6000  # bytes of text
_HEAT_PER_PX = 0.5  # bytes


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description = "Write a contact sheet: one HTML file that needs no network."
    parser.add_argument("--root", type=Path, required=True, help="folder that holds the splits")
    parser.add_argument("--splits", help="only these, separated by commas; default: all")
    parser.add_argument("--pairs", type=int, default=24, help="of each split; default: 24")
    picks = "; ".join(f"{name}: {what.partition(':')[0]}" for name, what in PICKS.items())
    parser.add_argument("--pick", choices=PICKS, default="first", help=f"which: {picks}")
    parser.add_argument("--seed", type=int, default=0, help="of --pick random")
    parser.add_argument("--idx", help="these indices of each split instead: 3,17")
    parser.add_argument("--out", type=Path, help="default: sheet.html in root")
    parser.add_argument(
        "--max-mb", type=float, default=_MAX_MB, help=f"refuse larger files; default: {_MAX_MB}"
    )


def run(args: argparse.Namespace, verb: str) -> int:
    """Choose, draw, write."""
    typed.require(args.pairs >= 1, "--pairs", args.pairs, "is below 1", "use 1 or more")
    indices = _indices(args.idx)
    splits = open_splits(args.root, args.splits)
    chosen = [choose(split, args.pick, args.pairs, args.seed, indices) for split in splits]
    check_size(chosen, args.max_mb)
    total, cards = sum(map(len, chosen)), []
    with progress("show", "pairs") as report:
        for split, spots in zip(splits, chosen, strict=True):
            for card in read_cards(split, spots):
                cards.append(card_html(card))
                report(len(cards), total, "")
    order = f"indices {args.idx}" if indices else PICKS[args.pick]
    title = args.root.resolve().name
    text = page(title, splits, f"{total} pairs, {order}", cards)
    out = args.out or args.root / "sheet.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print(f"{out}: {total} pairs, {len(text.encode()) / 1e6:.1f} MB; open it in a browser")
    return 0


def choose(
    split: Split, pick: str, pairs: int, seed: int = 0, indices: list[int] | None = None
) -> list[tuple[Path, int, int]]:
    """Where the pairs to show are: (shard, number in it, index in the split), in order.

    Raises ValueError where `indices` names one that the split does not have.
    """
    spots = [
        (shard, number)
        for shard, entry in zip(split.shards, split.manifest["shards"], strict=True)
        for number in range(entry["count"])
    ]
    if indices is None and pick in ("first", "random"):
        take = np.arange(len(spots))
        if pick == "random":
            take = np.sort(np.random.default_rng(seed).permutation(len(spots))[:pairs])
        return [(*spots[i], int(i)) for i in take[:pairs]]
    metas = [records.decode_meta(r) for shard in split.shards for r in records.read_shard(shard)]
    idx = [meta.get("idx", i) for i, meta in enumerate(metas)]
    if indices is not None:
        for wanted in indices:
            remedy = f"use 0 to {max(idx, default=0)}"
            typed.require(wanted in idx, "--idx", wanted, f"is not in split {split.name}", remedy)
        take = [idx.index(wanted) for wanted in indices]
    else:
        measure = {"hard": faintness, "marginal": slack}[pick]
        take = sorted(range(len(metas)), key=lambda i: (measure(metas[i], split.look), i))[:pairs]
    return [(*spots[i], idx[i]) for i in take]


def faintness(meta: dict, look: dict) -> float:
    """Changed pixels x mean levels of the faintest difference; label area where unknown."""
    return min((_signal(d) for d in meta["differences"]), default=float("inf"))


def slack(meta: dict, look: dict) -> float:
    """How many times over the tightest certificate is met: 1 = just accepted."""
    differences = meta["differences"]
    if not look or not differences or "residual" not in meta:
        return float("inf")
    least = look["min_side_px"] * look["width"] / 128
    ratios = []
    for d in differences:
        x0, y0, x1, y1 = d["box"]
        seen = [d[f"visible_frac_{side}"] for side in "ab"]
        ratios.append(min(x1 - x0, y1 - y0) / least)
        ratios += [share / look["min_visible"] for share in seen if share is not None]
        ratios.append(d["changed_frac"] / look["min_changed"])
        ratios.append(d["changed_iou"] / look["min_tight_iou"])
    allowed = look["max_residual"] * min(d["changed_px"] for d in differences)
    ratios.append(allowed / max(meta["residual"]["largest_blob"], 1e-9))
    return min(ratios)


def check_size(chosen: list[list[tuple]], max_mb: float) -> None:
    """Refuse, before any work, a file that no browser would like."""
    each = [_card_bytes(spots[0][0]) if spots else 0.0 for spots in chosen]
    counts = [len(spots) for spots in chosen]

    def size_mb(pairs: int) -> float:
        return sum(min(pairs, n) * one for n, one in zip(counts, each, strict=True)) / 1e6

    most = max(counts)
    if size_mb(most) > max_mb:
        fits = [pairs for pairs in range(1, most) if size_mb(pairs) <= max_mb]
        fewer = f"--pairs {fits[-1]}, fewer --splits" if fits else "fewer --splits"
        raise ValueError(
            f"{sum(counts)} pairs would make a file of about {size_mb(most):.3g} MB, above "
            f"--max-mb={max_mb:g}; use {fewer} or a higher --max-mb"
        )


def _card_bytes(shard: Path) -> float:
    """About what one pair takes in the file, by a shard of its split."""
    stored = records.read_shard(shard)
    height, width = records.decode(stored[0]).image_a.shape[:2]
    record = sum(map(len, stored)) / len(stored)
    return 4 / 3 * (record + _HEAT_PER_PX * width * height) + _PER_CARD


def read_cards(split: Split, spots: list[tuple[Path, int, int]]) -> Iterator[Card]:
    """The chosen pairs in their order, one shard in memory at a time."""
    shard, stored = None, []
    for path, number, idx in spots:
        if path != shard:
            shard, stored = path, records.read_shard(path)
        record = stored[number]
        pair, fields = records.decode(record), records.unpack(record)
        idx = pair.meta.get("idx", idx)
        yield Card(split.name, idx, pair, fields["image_a"], fields["image_b"])


def _signal(difference: dict) -> float:
    if "changed_px" in difference:
        return difference["changed_px"] * difference["mean_absdiff"]
    x0, y0, x1, y1 = difference["box"]
    return (x1 - x0) * (y1 - y0)


def _indices(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    ok = all(part.isdigit() for part in parts)
    typed.require(ok, "--idx", text, "is not a list of indices", "write 3,17")
    return list(dict.fromkeys(map(int, parts)))
