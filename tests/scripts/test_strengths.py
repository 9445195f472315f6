"""Study 1: strengths in turn, seed by seed; one table and one figure of them all."""

import json

import pytest

from scripts.study import strengths
from scripts.study.ablation import crossing, tables
from tests import ROOT
from tests.scripts.test_ablation import exam_rows

AT = (1000, 2000)


@pytest.fixture
def args(tmp_path):
    words = ["--bases", "runs/tiny_base", "--at", "2000", "1000", "--root", str(tmp_path)]
    words += ["--arms", str(ROOT / "configs/learners.py"), "--seeds", "0", "1"]
    return strengths.parse([*words, "--config", str(ROOT / "configs/tiny_cpu.py"), "--steps", "20"])


@pytest.fixture
def plans(args):
    """Every base scored, seed 0 of two learners with it; the weaker base gains more."""
    made = {step: strengths.plan_of(args, step) for step in AT}
    for step, plan in made.items():
        folders = {plan.root / tables.BASE: step / 4000}
        folders |= {r.folder: step / 4000 + 0.1 for r in plan.runs if r.seed == 0}
        for folder, f1 in folders.items():
            if folder.parent.name != "plain":
                folder.mkdir(parents=True)
                (folder / "eval_sampled.json").write_text(json.dumps({"rows": exam_rows(f1)}))
    return made


def test_every_strength_starts_from_its_own_export_and_spends_the_same(plans, args):
    sources = {step: plan.runs[0].config.model.source for step, plan in plans.items()}
    assert sources == {step: str(args.root / str(step) / "source") for step in AT}
    first, second = ([run.config.steps for run in plan.runs] for plan in plans.values())
    assert first == second
    assert set(first) == {20, 68, 88}


def test_a_base_that_is_a_folder_is_taken_as_it_is(args, tmp_path):
    args.bases = tmp_path
    (tmp_path / "1000").mkdir()
    (tmp_path / "1000" / "config.json").touch()
    assert strengths.source_of(args, 1000) == tmp_path / "1000"
    assert strengths.source_of(args, 2000) == args.root / "2000" / "source"


def test_whole_seeds_come_first_and_the_weaker_base_before_the_stronger(plans):
    names = [job.name for job in strengths.jobs_of(plans, ["sampled"])]
    assert names[:4] == [f"{step}: {name}" for step in AT for name in ("pixels", "base")]
    learners = ("grpo", "supervised", "plain")
    assert names[4:] == [f"{at}: {a} seed {s}" for s in (0, 1) for at in AT for a in learners]


def test_the_table_has_every_base_before_what_became_of_it_and_leaves_out_what_is_missing(plans):
    scores = {step: tables.summarize(plan, ["sampled"])["sampled"] for step, plan in plans.items()}
    lines = crossing.table(plans, scores)
    named = [line[:2] for line in lines[1:]]
    then = ["untrained", "GRPO", "supervised, with dense labels"]
    assert named == [[str(step), name] for step in AT for name in then]
    assert lines[1][4].startswith("0.250 [")
    assert lines[6][-1] == "+0.000 [+0.000, +0.000]"
    assert crossing.by_count(plans, scores)[0][2:] == [
        "F1, n = 1", "F1, n = 2", "count accuracy, n = 1", "count accuracy, n = 2"
    ]  # fmt: skip


def test_the_report_is_a_page_with_its_figure_and_a_section_of_the_results(plans, args, tmp_path):
    page = tmp_path / "results.md"
    page.write_text("# Strengths\n")
    args.modes, args.results = ["sampled"], page
    strengths.write_report(plans, args, ["2000: plain seed 0 failed in train"])
    text = page.read_text()
    assert "**Not complete:** 2000: plain seed 0 failed in train" in text
    assert "| 1000 | GRPO | 1 |" in text.replace("  ", " ")
    assert (tmp_path / "strengths.png").read_bytes()[:4] == b"\x89PNG"
