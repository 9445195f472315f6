"""The ablation as a section of a page of results: tables, figure, and what made them."""

import platform
import re
from collections.abc import Sequence
from pathlib import Path

from dig_jax.common.files import write_text
from dig_jax.scoring.table import markdown
from scripts.study.ablation.plan import Plan, plan_hash
from scripts.study.ablation.suite import suite_table
from scripts.study.ablation.tables import count_table, starts, study_table

BEGIN, END = "<!-- ablations: begin -->", "<!-- ablations: end -->"
STUDY_NAMES = {
    "learners": "GRPO and supervised training at equal seconds",
    "transfer": "Transfer and forgetting",
    "settings": "What makes GRPO learn",
    "table4": "Parts of the reward (the paper's Table 4)",
    "curriculum": "The curriculum",
}
MODE_NAMES = {
    "sampled": "answers sampled as in training",
    "greedy": "the greedy answer",
    "noise": "the greedy answer, noise of B's own",
    "jitter": "the greedy answer, another camera for B",
    "novel": "the greedy answer, colours on other shapes",
}


def section(
    plan: Plan,
    scores: dict,
    *,
    command: str,
    figure: str | None,
    failures: Sequence[str],
    suite: dict | None = None,
) -> str:
    """Markdown: provenance, figure, then per study and mode the table and the one by n.

    scores     mode -> arm -> figures, as `tables.summarize` gives them
    figure     address of the picture as the text should link it
    failures   a line each, told before the tables
    suite      arm -> comparisons with the base, of each seed (`suite.compared`)
    """
    parts = ["## Ablations", made_by(plan, command)]
    parts += [f"**Not complete:** {line}" for line in failures]
    parts += [f"![Scores by arm and training curves]({figure})"] if figure else []
    for study in plan.studies:
        parts.append(f"### {STUDY_NAMES.get(study, study)}")
        for mode, of_mode in scores.items():
            parts.append(heading(mode))
            parts.append(markdown(study_table(plan, study, of_mode)))
        mode = next(iter(scores))
        parts.append(f"By the true number of differences n, {MODE_NAMES.get(mode, mode)}:")
        parts.append(markdown(count_table(plan, study, scores[mode])))
        if suite:
            parts.append(
                "Questions about single pictures: the score, and in brackets its difference to "
                "the untrained base, mean over seeds [lowest and highest end of their paired 95 % "
                "intervals; seeds with a verdict after Holm's correction]:"
            )
            parts.append(markdown(suite_table(suite, plan.studies[study])))
    return "\n\n".join(parts) + "\n"


def heading(mode: str) -> str:
    """ "The greedy answer:" before a mode's table."""
    name = MODE_NAMES.get(mode, mode)
    return f"{name[0].upper()}{name[1:]}:"


def made_by(plan: Plan, command: str) -> str:
    """Command, config and hash, commits, machine, dates, and what the intervals are."""
    begun = starts(plan)
    commits = sorted({str(start["commit"])[:15] for start in begun}) or ["unknown"]
    dates = sorted({start["time"][:10] for start in begun}) or ["unknown"]
    versions = begun[0]["versions"] if begun else {}
    machine = {f"{start['cores']} cores, {start['device']}" for start in begun}
    days = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    base = plan.base
    return (
        f"`{command}`, base `{base.name}` (hash {plan_hash(plan)}), "
        f"commit {', '.join(commits)}, {days}; {processor()}, {'; '.join(sorted(machine))}, "
        f"Python {versions.get('python', '?')}, jax {versions.get('jax', '?')}. Every arm: "
        f"{base.steps} steps of {base.pairs_per_step} pairs x {base.rollout.group} answers, "
        f"seeds {', '.join(map(str, plan.seeds))}; scored on the first {base.eval.pairs} pairs of "
        f"`{base.data.eval_split}`. Mean [95 % interval] over seeds and pairs: crossed bootstrap, "
        f"{base.eval.bootstrap} resamples (docs/ablations.md); single comparisons, not corrected "
        f"for their number."
    )


def processor() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.processor() or platform.machine()


def check_results(path: Path) -> None:
    """Raises ValueError unless the file can take the section: both marks in order, or none."""
    if not path.is_file():
        raise ValueError(f"--results {path} does not exist; name a Markdown file of this project")
    text = path.read_text()
    begins, ends = text.count(BEGIN), text.count(END)
    if (begins, ends) == (0, 0) or (begins == ends == 1 and text.index(BEGIN) < text.index(END)):
        return
    raise ValueError(
        f"{path} has {begins} marks {BEGIN} and {ends} {END}; keep one of each, in this order, or "
        f"none: then the section is added at the end"
    )


def replace_section(path: Path, body: str) -> None:
    """Puts the section between the file's marks, or with new marks at its end."""
    check_results(path)
    text = path.read_text()
    marked = f"{BEGIN}\n\n{body.strip()}\n\n{END}"
    if BEGIN in text:
        before, rest = text.split(BEGIN)
        text = before + marked + rest.split(END)[1]
    else:
        text = f"{text.rstrip()}\n\n{marked}\n"
    write_text(path, text)
