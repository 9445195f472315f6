"""A run on the page: held-out scores, curves, cost, settings, and pairs that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dig_jax.common import typed
from dig_jax.config import Config
from dig_jax.pages import bars
from dig_jax.pages.answers import Answer, Card, card_html
from dig_jax.pages.facts import beside, words
from dig_jax.pages.lines import chart
from dig_jax.pages.picture import box_key, small_copy_of
from dig_jax.pages.results import p_text
from dig_jax.pages.run_folder import Run, costs, held_out_images
from dig_jax.pages.shell import Html, Side, details, joined, letter, panel, paragraph, table, tag
from dig_jax.pictures.curves import MODES, PANELS
from dig_jax.scoring.metrics import METRICS
from dig_jax.scoring.paired import paired
from dig_jax.scoring.ratios import Score, ratio
from dig_jax.scoring.table import NAMES, Evaluation

_RESAMPLES, _SEED = 10_000, 0
_TOLD = ("time", "config_hash", "commit", "device", "devices", "processes", "cores", "platform")


def run_section(run: Run, cards: Sequence[Card]) -> Html:
    """All of one run but what it is compared with."""
    sides = evaluation_sides(run)
    shown = [paragraph(note, "note") for note in run.notes]
    if run.evaluations:
        shown += [_scores(run, sides), *_outcome(run), _protocols(run, sides)]
    else:
        shown.append(
            paragraph("No held-out evaluation (eval_<name>.json) is in this folder.", "soft")
        )
    curves = run_curves(run.rows)
    if curves:
        shown += [tag("h3", "Curves"), curves, paragraph(_CURVES, "soft small")]
    head, *lines = costs(run.rows)
    if len(lines) > 2:  # beside the rates
        shown += [tag("h3", "Cost"), table(head, lines, css="facts")]
    shown += [tag("h3", "Settings other than the defaults"), _settings(run.config)]
    shown.append(_starts(run.starts))
    body = panel(*shown)
    if not cards:
        return body
    pairs = joined(box_key(sides[:2]), *map(card_html, cards))
    name = "Held-out pairs whose F1 changed most"
    return joined(body, details(tag("b", name), pairs, css="bench", open_=True))


def evaluation_sides(run: Run) -> list[Side]:
    """Evaluations as sides: before and after have the first two colours."""
    return [
        Side(number, name, "", NAMES.get(name, name)) for number, name in enumerate(run.evaluations)
    ]


_CURVES = (
    "Faint lines are single steps, bold ones a running mean over a twentieth of the run; discs are "
    "held-out validations."
)


def _scores(run: Run, sides: Sequence[Side]) -> Html:
    found = list(run.evaluations.values())
    threshold = found[0]["protocol"].get("iou_threshold", 0.5)
    labels = {name: label.format(threshold=threshold) for name, label in METRICS.items()}
    counts = sorted({row["n_true"] for each in found for row in each["rows"]})
    labels |= {f"f1_n{n}": f"F1, {n} difference{'s' * (n != 1)}" for n in counts}
    rows = []
    for metric, label in labels.items():
        each = [evaluation["summary"].get(metric) for evaluation in found]
        drawn = [(side, cell) for side, cell in zip(sides, each, strict=True) if cell]
        if drawn:
            most = 1.0 if max(cell[2] for _, cell in drawn) <= 1 else 3.0
            most = max(most, *(cell[2] for _, cell in drawn))
            told = ", ".join(f"{side.letter} {cell[0]:.3f}" for side, cell in drawn)
            picture = bars.intervals(drawn, (0.0, most), f"{label}: {told}")
            rows.append([label, *map(_interval, each), picture])
    pairs = len(found[0]["rows"])
    caption = f"Means over {pairs} held-out pairs with 95 % bootstrap intervals over pairs"
    head = ["", *map(letter, sides), "intervals"]
    return table(head, rows, caption=caption, css="stack", wide=[len(head) - 1])


def _interval(cell: Sequence[float] | None) -> Html | str:
    if cell is None:
        return "-"
    value, low, high = cell
    return joined(
        tag("b", f"{value:.3f}"), " ", tag("span", f"[{low:.3f}, {high:.3f}]", css="range")
    )


def _outcome(run: Run) -> list[Html]:
    """The rise of the reward and of F1 from before to after, paired by pair."""
    before, after = run.evaluations.get("before"), run.evaluations.get("after")
    if not (before and after) or not same_pairs(before, after):
        return []
    lines = []
    for metric, label in (("reward", "Mean reward"), ("f1", "F1")):
        found = paired(
            _mean_of(before, metric), _mean_of(after, metric), resamples=_RESAMPLES, seed=_SEED
        )
        told = f"{label}, after \N{MINUS SIGN} before, paired by pair: {found.difference:+.3f}"
        told += f" [{found.low:+.3f}, {found.high:+.3f}], permutation p {p_text(found.p)}"
        verdict = "more than noise" if found.p < 0.05 else "inside noise"
        lines.append(paragraph(joined(told, ": ", tag("b", verdict))))
    return lines


def _mean_of(evaluation: Evaluation, metric: str) -> Score:
    """The mean over pairs, as a score that `paired` takes."""
    values = [row[metric] for row in evaluation["rows"]]
    return ((1.0, ratio(values, 1.0, range(len(values)))),)


def same_pairs(one: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations scored the same pairs of one split."""
    splits = {each["protocol"].get("split") for each in (one, other)}
    pairs = [[row["pair_id"] for row in each["rows"]] for each in (one, other)]
    return len(splits) == 1 and pairs[0] == pairs[1]


def _protocols(run: Run, sides: Sequence[Side]) -> Html:
    fields = [evaluation["protocol"] for evaluation in run.evaluations.values()]
    return details("Protocol of these evaluations", beside(sides, fields, caption="Protocol"))


def run_curves(rows: Sequence[Mapping]) -> Html:
    """The panels of `pictures.curves` as SVG; "" where no row has any of them."""
    train = [row for row in rows if row["kind"] == "train"]
    held_out = [row for row in rows if row["kind"] == "eval"]
    charts = []
    for title, metrics in PANELS:
        present = {m: label for m, label in metrics.items() if any(m in row for row in train)}
        lines = {label: _points(m, train) for m, label in present.items()}
        marks = {
            label: [point for prefix in MODES for point in _points(prefix + m, held_out)]
            for m, label in present.items()
        }
        charts.append(chart(title, lines, marks))
    drawn = [each for each in charts if each]
    return tag("div", joined(*drawn), css="charts") if drawn else Html("")


def _points(metric: str, rows: Sequence[Mapping]) -> list[tuple[float, float]]:
    """Steps done and values; one that was not finite stands in the log as text."""
    return [(row["step"] + 1, float(row[metric])) for row in rows if metric in row]


def _settings(config: Config) -> Html:
    changed = typed.differences(typed.to_plain(Config()), typed.to_plain(config))
    rows = [[name, words(now), words(default)] for name, (default, now) in changed.items()]
    if not rows:
        return paragraph("None.", "soft")
    return table(["setting", "this run", "default"], rows, css="facts")


def _starts(starts: Sequence[Mapping]) -> Html:
    """The newest start, what the numbers depend on, and what later starts changed."""
    if not starts:
        return paragraph("Not told by what it was made: manifest.json tells of no start.", "soft")
    last = starts[-1]
    facts = {name: last[name] for name in _TOLD if name in last} | last.get("versions", {})
    facts["started at step"] = ", ".join(str(start.get("first_step")) for start in starts)
    parts = [table(["made by", ""], [[k, words(v)] for k, v in facts.items()], css="facts")]
    if last.get("depends"):
        rows = [[name, words(value)] for name, value in last["depends"].items()]
        parts.append(table(["its numbers depend on", ""], rows, css="facts"))
    changes = [
        [words(start.get("first_step")), how, name, words(old), words(new)]
        for start in starts
        for how in ("changed", "accepted")
        for name, (old, new) in start.get(how, {}).items()
    ]
    stops = [start["stopped"] for start in starts if "stopped" in start]
    changes += [[words(s.get("step")), "stopped", words(s.get("why")), "", ""] for s in stops]
    if changes:
        head = ["at step", "how", "what", "before", "after"]
        parts.append(table(head, changes, caption="Differences between its starts", css="facts"))
    return details("Made by", joined(*parts))


def settings(run: Run) -> dict[str, object]:
    """Every setting by its dotted path."""
    return dict(typed.leaves(typed.to_plain(run.config)))


def environment(run: Run) -> dict[str, object]:
    """Where and with what the newest start ran, for a comparison of sides."""
    last = run.starts[-1] if run.starts else {}
    told = {name: last[name] for name in _TOLD if name in last}
    return told | {f"versions.{k}": v for k, v in last.get("versions", {}).items()}


def changed_pairs(run: Run, count: int) -> tuple[list[Card], str]:
    """(cards of pairs whose F1 changed most from before to after, why there are no pictures).

    count   of cards: half of them rose, half fell, where there are as many
    """
    before, after = run.evaluations.get("before"), run.evaluations.get("after")
    if not (before and after and count) or not same_pairs(before, after):
        return [], ""
    ours, theirs = ([row | row.get("shown", {}) for row in e["rows"]] for e in (before, after))
    moved = [two["f1"] - one["f1"] for one, two in zip(ours, theirs, strict=True)]
    chosen = most_moved(moved, count)
    images, missing = None, ""
    try:
        images = held_out_images(run.config, after["protocol"])
    except (FileNotFoundError, ValueError, KeyError) as error:
        missing = f"no pictures: {error}"
    sides = evaluation_sides(run)
    cards = []
    for at in chosen:
        answers = [
            _answer(s, row) for s, row in zip(sides[:2], (ours[at], theirs[at]), strict=True)
        ]
        shown = [] if images is None else [small_copy_of(image) for image in images[at]]
        way, chip = ("gained", "F1 rose") if moved[at] > 0 else ("lost", "F1 fell")
        name, true = f"pair {ours[at]['pair_id']}", ours[at]["true"]
        target = f"{len(true)} difference{'s' * (len(true) != 1)}"
        cards.append(Card(name, way, chip, "", target, true, shown, missing, answers))
    return cards, missing


def most_moved(moved: Sequence[float], count: int) -> list[int]:
    """Indices of the largest rises, then of the largest falls; of those that moved at all."""
    order = np.argsort(-np.asarray(moved, float), kind="stable").tolist()
    rises = [i for i in order if moved[i] > 0]
    falls = [i for i in reversed(order) if moved[i] < 0]
    half = count // 2
    take = max(count - half, count - len(falls))
    return [*rises[:take], *falls[: count - min(take, len(rises))]]


def _answer(side: Side, row: Mapping) -> Answer:
    facts = f"F1 {row['f1']:.2f}, {len(row['pred'])} boxes, {row['verdict']}"
    return Answer(side, None, facts, row["text"], row["pred"])
