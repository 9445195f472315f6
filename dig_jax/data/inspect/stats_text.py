"""The figures of `stats` as plain text: aligned columns and bars of block characters."""

from __future__ import annotations

from collections.abc import Iterable

from dig_jax.data.scene.scene import COLORS, SHAPES, TYPES

_BLOCKS = " ▁▂▃▄▅▆▇█"
_QUANTILES = {"0": "min", "0.05": "5%", "0.5": "median", "0.95": "95%", "1": "max"}
_COLUMNS = {  # name in the figures -> heading, unit, decimals
    "short_side_px": ("label, shorter side", "px", 0),
    "long_side_px": ("label, longer side", "px", 0),
    "visible_share": ("visible share of a changed thing, in the image that shows less", "", 2),
    "changed_share": ("changed share of its pixels", "", 2),
    "residual_mean": ("residual outside labels, mean", "of 255", 2),
    "residual_max": ("residual outside labels, largest", "of 255", 0),
    "residual_largest_blob": ("residual outside labels, largest blob", "px", 0),
}


def text(stats: dict) -> str:
    """Everything worth reading of the figures, sections apart."""
    splits = stats["splits"]
    sections = [
        ("splits", _splits(splits)),
        ("differences per pair (p: chi-square against the draw)", _k(splits)),
        ("types of differences (p: chi-square against equal shares)", _types(splits)),
        ("things per image", _counts(splits, "things")),
        *((_heading(name), _quantiles(splits, name)) for name in _COLUMNS),
        ("color x shape: changed things / all things shown, all splits", _combos(splits)),
        ("scenes dropped on the way (shares of all that were tried)", _dropped(splits)),
        ("pixel-difference baseline (means over pairs)", _baseline(splits)),
        ("its recall at IoU .5, by type", _recall(splits)),
    ]
    blocks = [f"{title}\n{table(rows)}" for title, rows in sections if len(rows) > 1]
    return "\n\n".join([*blocks, _verdict(stats)])


def table(rows: list[list[str]]) -> str:
    """Rows of equal length, the first one their heading.

    The first column is flush left, and so is one whose heading begins with "<".
    """
    left = [number == 0 or cell.startswith("<") for number, cell in enumerate(rows[0])]
    rows = [[cell.removeprefix("<") for cell in rows[0]], *rows[1:]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [
        [c.ljust(w) if flush else c.rjust(w) for c, w, flush in zip(row, widths, left, strict=True)]
        for row in rows
    ]
    return "\n".join(f"  {'  '.join(row)}".rstrip() for row in aligned)


def bars(counts: list[int]) -> str:
    """One block character per count, the largest one full; any count but 0 can be seen."""
    most = max([*counts, 1])
    return "".join(_BLOCKS[-(-8 * count // most)] for count in counts)


def _splits(splits: dict) -> list[list[str]]:
    rows = [["", "pairs", "size", "<renderer", "<drawn from", "core-s/pair"]]
    for name, split in splits.items():
        count = f"{split['pairs']}" + ("" if split["complete"] else " so far")
        size = "x".join(map(str, split["size"])) if split["size"] else "-"
        cost = split["core_s_per_pair"]
        cost = "-" if cost is None else f"{cost:.2f}"
        rows.append([name, count, size, renderer(split), draw_text(split["draw"]), cost])
    return rows


def renderer(split: dict) -> str:
    """ "bpy 5.2.3" """
    name = split["renderer"] or "-"
    versions = split["versions"].get(name, [])
    versions = [versions] if isinstance(versions, str) else versions
    return " ".join([name, ", ".join(versions)]).strip()


def draw_text(draw: dict | None) -> str:
    """A split's draw in a few words."""
    if not draw:
        return "imported"
    low, high = draw["k_low"], draw["k_high"]
    words = [f"K {low}" if low == high else f"K {low}..{high}", f"{draw['combos']} combos"]
    words += ["own noise in B"] if draw["noise"] == "independent" else []
    words += [f"camera +-{draw['camera_jitter_b']:g}"] if draw["camera_jitter_b"] else []
    return ", ".join(words)


def _k(splits: dict) -> list[list[str]]:
    ks = sorted({k for split in splits.values() for k in split["k"]["counts"]}, key=int)
    return _against(splits, "k", ks)


def _types(splits: dict) -> list[list[str]]:
    kinds = in_order(kind for split in splits.values() for kind in split["types"]["counts"])
    return _against(splits, "types", kinds)


def in_order(found: Iterable[str]) -> list[str]:
    """The types of differences that occur, ours first and in our order."""
    found = dict.fromkeys(found)
    return [*(kind for kind in TYPES if kind in found), *sorted(set(found) - set(TYPES))]


def _against(splits: dict, what: str, values: list[str]) -> list[list[str]]:
    rows = [["", *values, "<", "p"]]
    for name, split in splits.items():
        counts = [split[what]["counts"].get(value) for value in values]
        if not any(counts):
            continue
        cells = ["" if count is None else str(count) for count in counts]
        p = split[what]["p"]
        p = "-" if p is None else f"{p:.3f}"
        rows.append([name, *cells, bars([count or 0 for count in counts]), p])
    return rows


def _counts(splits: dict, what: str) -> list[list[str]]:
    values = sorted({value for split in splits.values() for value in split[what]}, key=int)
    rows = [["", *values, "<"]]
    for name, split in splits.items():
        counts = [split[what].get(value, 0) for value in values]
        if any(counts):
            rows.append([name, *map(str, counts), bars(counts)])
    return rows


def _heading(name: str) -> str:
    title, unit, _ = _COLUMNS[name]
    return f"{title}, {unit}" if unit else title


def _quantiles(splits: dict, name: str) -> list[list[str]]:
    decimals, rows = _COLUMNS[name][2], []
    for split, figures in splits.items():
        column = figures["columns"].get(name)
        if column:
            cells = [f"{column['quantiles'][q]:.{decimals}f}" for q in _QUANTILES]
            rows.append([split, *cells, f"|{bars(column['histogram'])}|"])
            high = f"{column['edges'][-1]:.{decimals}f}"  # the same for all splits
    return [["", *_QUANTILES.values(), f"<0 .. {high}"], *rows] if rows else []


def _combos(splits: dict) -> list[list[str]]:
    changed, shown = ({}, {})
    for total, name in ((changed, "combos_changed"), (shown, "combos_shown")):
        for split in splits.values():
            for combo, count in split[name].items():
                total[combo] = total.get(combo, 0) + count
    if not shown:
        return []
    rows = [["", *SHAPES]]
    for color in COLORS:
        combos = [f"{color} {shape}" for shape in SHAPES]
        rows.append([color, *(f"{changed.get(c, 0)} / {shown.get(c, 0)}" for c in combos)])
    return rows


def _dropped(splits: dict) -> list[list[str]]:
    rows = [["", "scenes", "share", "<reasons"]]
    for name, split in splits.items():
        reasons = split["dropped"] or {}
        count, share = (sum(row[i] for row in reasons.values()) for i in (0, 1))
        words = ", ".join(f"{reason} {row[1]:.1%}" for reason, row in reasons.items())
        if split["dropped"] is not None:
            rows.append([name, str(count), f"{share:.1%}", words])
    return rows


def _baseline(splits: dict) -> list[list[str]]:
    rows = [["", "F1@.5", "F1@.75", "P@.5", "R@.5", "exact@.5", "pooled F1@.5", "pooled F1@.75"]]
    for name, split in splits.items():
        half, strict = split["baseline"]["0.5"], split["baseline"]["0.75"]
        figures = [half["f1"], strict["f1"], half["precision"], half["recall"], half["exact"]]
        figures += [half["pooled_f1"], strict["pooled_f1"]]
        if half["f1"] is not None:
            rows.append([name, *(f"{figure:.3f}" for figure in figures)])
    return rows


def _recall(splits: dict) -> list[list[str]]:
    names = in_order(t for s in splits.values() for t in s["baseline"]["0.5"]["recall_by_type"])
    rows = [["", *names]]
    for name, split in splits.items():
        recall = split["baseline"]["0.5"]["recall_by_type"]
        if recall:
            rows.append([name, *(f"{recall[t]:.2f}" if t in recall else "" for t in names)])
    return rows


def _verdict(stats: dict) -> str:
    shared = sum(stats["overlap"]["between"].values())
    repeated = sum(stats["overlap"]["within"].values())
    lines = [
        f"scenes or pictures shared by two splits: {shared}",
        f"scenes or pictures repeated within a split: {repeated}",
        *(f"FAULT: {fault}" for fault in stats["faults"]),
    ]
    return "\n".join(lines)
