"""Each benchmark's own rule from answers to scores; the first of a benchmark is its headline.

Shares are 0..1, MME's scores points of 2000, 800 and 2800. Samples of one question weigh 1 / K. A
group (pair, figure, set of orders) is right in a sample where all its questions are.

accuracy           right answers: V*, VSR, ScienceQA, AI2D, MMStar (its rows), POPE, HR-Bench (mean
                   of its cycles' accuracies), RefCOCO (IoU of the first box with the target >= .5)
f1, precision,     of the answer "yes"; yes_ratio is the share of answers that are "yes". POPE's
recall             have all of them per track, too; its overall counts a question once per track
mean               HallusionBench: of aAcc (questions), fAcc (all of a figure right), qAcc (the same
                   question right at all its figures)
perception         MME: sum over ten categories of 100 accuracy + 100 accuracy of pairs; cognition
                   over four; sum of both
official           CV-Bench: 1/2 ((ADE20K + COCO) / 2 + Omni3D); plain: over all questions
pairs, questions   MMVP
circular, plain    MMBench: a question counts only where it is right in all its orders
macro              means over parts: V*'s two categories, MMStar's subcategories
best_box           RefCOCO: some box is right; a diagnostic. mean_iou: of the first boxes
"""

from collections.abc import Callable, Sequence

import numpy as np

from dig_jax.benchmarks.columns import Columns, columns_of
from dig_jax.benchmarks.scored import HIT, Scored
from dig_jax.scoring.ratios import Ratio, Score, ratio

PERCEPTION = ("existence count position color posters celebrity scene landmark artwork OCR").split()
COGNITION = "commonsense_reasoning numerical_calculation text_translation code_reasoning".split()
SOURCES = (("ADE20K", 0.25), ("COCO", 0.25), ("Omni3D", 0.5))  # CV-Bench's official weights
TRACKS = ("adversarial", "popular", "random")
_HRBENCH = {"single": "FSP", "cross": "FCP"}

Scores = dict[str, Score]


def scores_of(name: str, scored: Sequence[Scored]) -> Scores:
    """metric -> its score, the headline first; one of no question at all is left out.

    name     of `catalog.NAMES`
    scored   answers of that benchmark's questions, in any order

    Clusters are numbered by the sorted keys of what shares a picture, a pair, a figure, a set or a
    question, so two sides that answered the same questions have the same numbers. Raises ValueError
    for a name without a rule.
    """
    rule = _RULES.get(_family(name))
    if rule is None:
        raise ValueError(f"no rule scores {name!r}; use one of {', '.join(sorted(_RULES))}")
    found = rule(columns_of(scored))
    return {metric: score for metric, score in found.items() if score}


def lacking(name: str, scored: Sequence[Scored]) -> list[str]:
    """What a score says too little of because no question of a part of it was answered.

    Where no part at all is there, as in scenes of this house's own, no score tells of them.
    """
    needed = {
        "mme": ("category", (*PERCEPTION, *COGNITION)),
        "cvbench": ("source", tuple(source for source, _ in SOURCES)),
        "pope": ("track", TRACKS),
        "hrbench": ("category", tuple(_HRBENCH)),
    }
    group, parts = needed.get(_family(name), ("", ()))
    there = {part for each in scored for part in each.question.groups.get(group, "").split(",")}
    gone = [part for part in parts if part not in there]
    if not gone or len(gone) == len(parts):
        return []
    return [f"no question of {group} {', '.join(gone)}: they count as 0"]


def _family(name: str) -> str:
    families = {"refcoco": "refcoco", "hrbench": "hrbench", "mmbench": "mmbench"}
    return next((family for start, family in families.items() if name.startswith(start)), name)


def _one(part: Ratio) -> Score:
    return ((1.0, part),)


def _mean_of(parts: Sequence[Ratio]) -> Score:
    return tuple((1 / len(parts), part) for part in parts)


def _accuracy(rows: Columns) -> Scores:
    return {"accuracy": _one(rows.mean())}


def _yes_no(rows: Columns) -> Scores:
    """Accuracy and what is known of "yes"."""
    said, true = rows.said_yes, rows.is_yes
    tp, fp, fn = said & true, said & ~true, ~said & true
    parts = {
        "accuracy": (rows.correct, 1.0),
        "f1": (2.0 * tp, 2.0 * tp + fp + fn),
        "precision": (tp, said),
        "recall": (tp, true),
        "yes_ratio": (said, 1.0),
    }
    return {
        metric: _one(ratio(rows.weight * above, rows.weight * below, rows.cluster))
        for metric, (above, below) in parts.items()
    }


def _pope(rows: Columns) -> Scores:
    """Overall, and each track; a question that a track asks twice counts twice in it."""
    times = {
        track: np.array([names.split(",").count(track) for names in rows.group("track")])
        for track in TRACKS
    }
    scores = _yes_no(rows.weighted(sum(times.values())))
    for track, count in times.items():
        found = _yes_no(rows.weighted(count).where(count > 0))
        scores |= {f"{metric}_{track}": score for metric, score in found.items()}
    return scores


def _hallusionbench(rows: Columns) -> Scores:
    parts = {
        "aAcc": rows.mean(),
        "fAcc": rows.all_right("figure"),
        "qAcc": rows.all_right("question"),
    }
    return {"mean": _mean_of([*parts.values()]), **{name: _one(r) for name, r in parts.items()}}


def _mme(rows: Columns) -> Scores:
    categories = rows.parts("category")
    known = {name: part for name, part in categories.items() if name in PERCEPTION + COGNITION}
    scores = {
        name: ((100.0, part.mean()), (100.0, part.all_right("pair")))
        for name, part in categories.items()
    }
    sums = {
        metric: tuple(term for name in known if name in names for term in scores[name])
        for metric, names in (
            ("perception", PERCEPTION),
            ("cognition", COGNITION),
            ("sum", PERCEPTION + COGNITION),
        )
    }
    return {**sums, **scores}


def _vstar(rows: Columns) -> Scores:
    parts = {name: part.mean() for name, part in rows.parts("category").items()}
    by_category = {f"accuracy_{name}": _one(part) for name, part in parts.items()}
    return {**_accuracy(rows), "macro": _mean_of([*parts.values()]), **by_category}


def _hrbench(rows: Columns) -> Scores:
    def mean_of_cycles(some: Columns) -> Score:
        return _mean_of([part.mean() for part in some.parts("cycle").values()])

    by_category = {
        _HRBENCH.get(name, f"accuracy_{name}"): mean_of_cycles(part)
        for name, part in rows.parts("category").items()
    }
    return {"accuracy": mean_of_cycles(rows), **by_category}


def _cvbench(rows: Columns) -> Scores:
    sources = {name: part.mean() for name, part in rows.parts("source").items()}
    official = tuple((weight, sources[name]) for name, weight in SOURCES if name in sources)
    tasks = {f"accuracy_{name}": part for name, part in rows.parts("category").items()}
    return {
        "official": official,
        "plain": _one(rows.mean()),
        **{f"accuracy_{name}": _one(part) for name, part in sources.items()},
        **{metric: _one(part.mean()) for metric, part in tasks.items()},
    }


def _mmvp(rows: Columns) -> Scores:
    return {"pairs": _one(rows.all_right("pair")), "questions": _one(rows.mean())}


def _mmbench(rows: Columns) -> Scores:
    by_ability = {
        f"circular_{name}": _one(part.all_right("question"))
        for name, part in rows.parts("l2").items()
        if name
    }
    circular = _one(rows.all_right("question"))
    return {"circular": circular, "plain": _one(rows.mean()), **by_ability}


def _mmstar(rows: Columns) -> Scores:
    below = [part.mean() for part in rows.parts("category", "subcategory").values()]
    by_category = {
        f"accuracy_{name}": _one(part.mean()) for name, part in rows.parts("category").items()
    }
    return {**_accuracy(rows), "macro": _mean_of(below), **by_category}


def _refcoco(rows: Columns) -> Scores:
    return {
        "accuracy": _one(rows.mean()),
        "best_box": _one(rows.mean(rows.best >= HIT)),
        "mean_iou": _one(rows.mean(rows.iou)),
    }


_RULES: dict[str, Callable[[Columns], Scores]] = {
    "ai2d": _accuracy,
    "cvbench": _cvbench,
    "hallusionbench": _hallusionbench,
    "hrbench": _hrbench,
    "mmbench": _mmbench,
    "mme": _mme,
    "mmstar": _mmstar,
    "mmvp": _mmvp,
    "pope": _pope,
    "refcoco": _refcoco,
    "scienceqa": _accuracy,
    "vsr": _yes_no,
    "vstar": _vstar,
}
