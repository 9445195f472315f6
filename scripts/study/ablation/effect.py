"""What training did, as one picture: F1 of every arm beside the untrained base, split by split."""

from pathlib import Path

from dig_jax.pictures.drawing import FAINT, INK
from scripts.study.ablation.plan import Plan
from scripts.study.ablation.tables import NAMES

SPLITS = {
    "greedy": "held-out pairs",
    "noise": "B has its own noise",
    "jitter": "B's camera moved",
    "novel": "new colour x shape",
    "sampled": "held-out pairs, sampled",
}
COLORS = ("#c9ccd1", "#8d96a3", "#d1495b", "#1f6feb", "#2a9d8f", "#e9a23b", "#7b4fb5")
_WIDTH = 0.8  # of a group of bars, of the way to the next


def draw(path: Path, plan: Plan, scores: dict) -> None:
    """A group of bars per split, a bar per policy, with the 95 % interval over seeds and pairs.

    scores   mode -> arm -> figures, as `tables.summarize` gives them
    """
    from matplotlib.figure import Figure  # a second to import; no pyplot: no global state

    modes = [mode for mode in SPLITS if mode in scores]
    shown = [arm for arm in (*NAMES, *plan.arms) if any(arm in scores[mode] for mode in modes)]
    figure = Figure(figsize=(2.2 + 1.7 * len(modes), 3.2), layout="constrained")
    axis, step = figure.subplots(), _WIDTH / max(len(shown), 1)
    for number, arm in enumerate(shown):
        for place, mode in enumerate(modes):
            if arm in scores[mode]:
                at = place - _WIDTH / 2 + (number + 0.5) * step
                label = NAMES.get(arm) or plan.titles[arm]
                _bar(axis, at, step, scores[mode][arm], COLORS[number % len(COLORS)], label)
    axis.set_xticks(range(len(modes)), [SPLITS[mode] for mode in modes])
    axis.set_ylim(0, 1)
    axis.set_ylabel("F1 at IoU .5")
    axis.grid(axis="y", color=FAINT, alpha=0.15)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axis.get_legend_handles_labels()
    first = dict(zip(reversed(labels), reversed(handles), strict=True))
    axis.legend(
        [first[name] for name in dict.fromkeys(labels)], dict.fromkeys(labels), fontsize=8,
        frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(first),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _bar(axis, at: float, width: float, scores: dict, color: str, label: str) -> None:
    mean, low, high = scores["metrics"]["f1"]
    axis.bar(at, mean, 0.92 * width, color=color, label=label)
    axis.plot([at, at], [low, high], color=INK, linewidth=1)
