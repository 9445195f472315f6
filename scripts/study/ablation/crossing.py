"""Where one learner overtakes another: scores of arms from bases of several strengths."""

from collections.abc import Mapping
from pathlib import Path

from dig_jax.pictures.drawing import FAINT, INK
from scripts.study.ablation.plan import Plan
from scripts.study.ablation.results import MODE_NAMES
from scripts.study.ablation.tables import BASE, BY_COUNT, METRICS, NAMES, arm_cells

COLORS = ("#d1495b", "#1f6feb", "#2a9d8f", "#e9a23b", "#7b4fb5")


def table(plans: Mapping[int, Plan], scores: Mapping[int, dict]) -> list[list[str]]:
    """Cells of one mode: a line per strength and policy, with its difference to the reference."""
    reference = next(iter(plans.values())).reference
    lines = [["base", "then", "seeds", "s", *METRICS.values(), f"F1 minus {reference}"]]
    for step, plan in plans.items():
        for arm in (BASE, *plan.arms):
            if arm in scores[step]:
                name = NAMES.get(arm) or plan.titles[arm]
                lines.append([str(step), name, *arm_cells(plan, arm, scores[step][arm])])
    return lines


def by_count(plans: Mapping[int, Plan], scores: Mapping[int, dict]) -> list[list[str]]:
    """Cells of one mode: F1 and count accuracy by the true number of differences n."""
    lines = []
    for step, plan in plans.items():
        for arm in (BASE, *plan.arms):
            if arm in scores[step]:
                found = scores[step][arm]["by_count"]
                counts = sorted(found["f1"])
                cells = [f"{found[name][n][0]:.3f}" for name in BY_COUNT for n in counts]
                lines.append([str(step), NAMES.get(arm) or plan.titles[arm], *cells])
    head = ["base", "then", *(f"{word}, n = {n}" for word in BY_COUNT.values() for n in counts)]
    return [head, *lines]


def draw(path: Path, plans: Mapping[int, Plan], scores: Mapping[int, dict], modes) -> None:
    """A panel per mode: F1 of every arm by the F1 of the base that it started from.

    scores  strength -> mode -> arm -> figures, as `tables.summarize` gives them
    """
    from matplotlib.figure import Figure  # a second to import; no pyplot: no global state

    figure = Figure(figsize=(3.4 * len(modes), 3.6), layout="constrained")
    for axis, mode in zip(figure.subplots(1, len(modes), squeeze=False)[0], modes, strict=True):
        known = [step for step in plans if BASE in scores[step][mode]]
        at = {step: scores[step][mode][BASE]["metrics"]["f1"][0] for step in known}
        axis.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
        for number, arm in enumerate(next(iter(plans.values())).arms):
            found = [step for step in known if arm in scores[step][mode]]
            values = [scores[step][mode][arm]["metrics"]["f1"] for step in found]
            nudge = 0.004 * (number - 1)
            x = [at[step] + nudge for step in found]
            color, name = COLORS[number % len(COLORS)], plans[next(iter(plans))].titles[arm]
            axis.plot(x, [v[0] for v in values], "o-", color=color, label=name, markersize=4)
            axis.vlines(x, [v[1] for v in values], [v[2] for v in values], color=color, lw=1)
        _frame(axis, MODE_NAMES[mode], list(at.values()))
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=120)


def _frame(axis, title: str, starts: list[float]) -> None:
    if starts:
        low = max(min(starts) - 0.08, 0)
        axis.set_xlim(low, min(max(starts) + 0.08, 1))
        axis.set_ylim(low, 1)
    axis.set_title(title.removeprefix("the "), fontsize=9, loc="left", color=INK)
    axis.set_xlabel("F1 of the base", fontsize=9)
    axis.set_ylabel("F1 after training", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color=FAINT, alpha=0.15)
