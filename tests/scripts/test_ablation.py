"""Ablations: arms of equal budgets, intervals by hand, and runs that survive kills and failures."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import ablations, tiny_cpu
from dig_jax import evaluate
from dig_jax.common import typed
from dig_jax.config import (
    CheckpointConfig,
    Config,
    CurriculumConfig,
    DataConfig,
    EvalConfig,
    ModelSource,
    RewardConfig,
    RolloutConfig,
    Stage,
    config_hash,
)
from dig_jax.hf import weights
from dig_jax.run.runlog import read_rows
from scripts.study.ablation import effect, plan, results, runs, statistics, tables
from tests import ROOT
from tests.corpora import plain_pair, write_split
from tests.tiny_model import ASSETS, make_tiny, small_base

ARMS = ROOT / "configs" / "ablations.py"
BASE = tiny_cpu.get_config()


@pytest.mark.parametrize("modes", [("sampled",), ("sampled", "greedy"), ("greedy", "noise")])
def test_one_program_makes_all_evaluations_that_are_wanted(modes, tmp_path):
    """Its files are those that `dig_jax.evaluate` writes, and the stage is done when they are."""
    stage = runs.exam_stage(tmp_path, modes, "untrained")
    assert ("--more" in stage.words) == (modes != ("sampled",))
    made = evaluate.beside(
        typed.override(BASE, ["eval.splits=" + ",".join(runs.splits_of(modes))]),
        "sampled",
        greedy=True,
    )
    for name in ("sampled", *made):
        assert not stage.done()
        (tmp_path / f"eval_{name}.json").touch()
        if modes == ("sampled",):
            break
    assert stage.done()


def test_pixels_have_one_answer_to_a_pair_sampled_or_not():
    folder = Path("x") / tables.PIXELS
    assert runs.exam_file(folder, "greedy") == runs.exam_file(folder, "sampled")
    assert runs.exam_file(folder, "noise").name == "eval_sampled_test_noise.json"


def draws(config: Config) -> dict[str, float]:
    """Expected pairs of each bucket over a whole run."""
    found, first = dict.fromkeys(config.data.buckets, 0.0), 0
    for stage in config.curriculum.stages:
        for bucket, weight in stage.weights.items():
            share = weight / sum(stage.weights.values())
            found[bucket] += (stage.until - first) * config.pairs_per_step * share
        first = stage.until
    return found


# ---- the arms


def test_every_arm_differs_from_the_base_in_its_reward_or_its_stages_alone(tmp_path):
    made = plan.make_plan(BASE, ARMS, tmp_path, seeds=[0])
    assert len(made.runs) == 9
    for run in made.runs:
        steps = {"steps": BASE.steps} if run.arm == "mixed" else {}
        same = dataclasses.replace(
            run.config, name=BASE.name, run_dir=BASE.run_dir,
            reward=BASE.reward, curriculum=BASE.curriculum, **steps,
        )  # fmt: skip
        assert same == BASE
        assert run.exam.reward == RewardConfig()


def test_the_papers_table_adds_the_parts_of_the_reward_one_by_one():
    weights = [
        (arm(BASE).reward.w_format, arm(BASE).reward.w_iou, arm(BASE).reward.w_f1)
        for arm in ablations.STUDIES["table4"]
    ]
    assert weights == [(1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1)]


def test_shuffled_and_backwards_draw_as_many_pairs_of_each_bucket_as_the_curriculum():
    wanted = draws(ablations.full(BASE))
    assert sum(wanted.values()) == pytest.approx(BASE.steps * BASE.pairs_per_step)
    for arm in (ablations.shuffled, ablations.backwards):
        assert draws(arm(BASE)) == pytest.approx(wanted)
    assert [s.until for s in ablations.backwards(BASE).curriculum.stages] == [97, 117, 130]
    assert ablations.backwards(BASE).curriculum.stages[0].weights == {"mixed": 1.0}


def test_mixed_pairs_alone_are_drawn_for_as_many_tokens_of_answers_as_the_curriculum():
    def tokens(config):
        return sum(ablations.TOKENS[bucket] * pairs for bucket, pairs in draws(config).items())

    alone = ablations.mixed(BASE)
    assert set(alone.curriculum.stages[0].weights) == {"mixed"}
    step = ablations.TOKENS["mixed"] * BASE.pairs_per_step
    assert tokens(alone) == pytest.approx(tokens(BASE), abs=step / 2)


def test_single_and_single_dual_never_draw_what_their_names_leave_out():
    assert set(ablations.single(BASE).curriculum.stages[0].weights) == {"single"}
    assert draws(ablations.single_dual(BASE))["mixed"] == 0
    assert ablations.single_dual(BASE).curriculum.stages[-1].until == BASE.steps


def test_other_steps_keep_the_stages_shares_and_the_warm_ups():
    short = plan.with_steps(BASE, 26)
    assert [stage.until for stage in short.curriculum.stages] == [3, 7, 26]
    assert (short.steps, short.optim.warmup) == (26, 1)
    with pytest.raises(ValueError, match="--steps=2 leaves a stage of 3 without steps; use 6 or"):
        plan.with_steps(BASE, 2)
    assert plan.with_steps(BASE, 6).steps == 6


def arms_file(folder: Path, body: str) -> Path:
    path = folder / "arms.py"
    path.write_text(
        "import dataclasses\nfrom dig_jax.config import *\n"
        f"{body}\nSTUDIES = {{'study': (full, other)}}\nREFERENCE = full\n"
    )
    return path


def test_an_arm_that_breaks_a_rule_or_spends_another_budget_is_refused_by_name(tmp_path):
    wrong = "def full(base): return base\ndef other(base): return dataclasses.replace(base, {})"
    path = arms_file(tmp_path, wrong.format("steps=7"))
    with pytest.raises(
        ValueError, match=r"arm other: .*, line \d+.*: curriculum.stages.2.until=130 does not equal"
    ):
        plan.make_plan(BASE, path, tmp_path, seeds=[0])
    path = arms_file(tmp_path, wrong.format("pairs_per_step=32"))
    with pytest.raises(ValueError, match=r"arm other: pairs_per_step=32 is 16 in the base"):
        plan.make_plan(BASE, path, tmp_path, seeds=[0])


def test_a_mistake_in_an_arms_file_is_told_by_line_and_type(tmp_path):
    """In the file itself, which ended in a traceback, and in an arm of it."""
    path = arms_file(tmp_path, "raise RuntimeError('not today')")
    with pytest.raises(ValueError, match=r"arms\.py, line \d+: RuntimeError: not today"):
        plan.make_plan(BASE, path, tmp_path, seeds=[0])
    path = arms_file(tmp_path, "def full(base): return base\ndef other(base): return base.rate")
    with pytest.raises(ValueError, match=r"arm other: .*, line \d+: AttributeError: .* 'rate'"):
        plan.make_plan(BASE, path, tmp_path, seeds=[0])


def test_what_a_plan_cannot_mean_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--only='table5' .* use table4, curriculum"):
        plan.make_plan(BASE, ARMS, tmp_path, seeds=[0], only="table5")
    with pytest.raises(ValueError, match=r"--seeds=\[0, 0\] is empty or repeats"):
        plan.make_plan(BASE, ARMS, tmp_path, seeds=[0, 0])
    with pytest.raises(ValueError, match=r"is not a file; use configs/ablations.py"):
        plan.make_plan(BASE, tmp_path / "absent.py", tmp_path, seeds=[0])
    path = arms_file(
        tmp_path, "def full(base): return base\ndef base(base): return base\nother=base"
    )
    with pytest.raises(ValueError, match=r"--arms='base' is the folder of a policy"):
        plan.make_plan(BASE, path, tmp_path, seeds=[0])


def test_the_pages_own_arm_makes_a_plan(tmp_path):
    """The code of docs/ablations.md, run as --arms."""
    page = (ROOT / "docs" / "ablations.md").read_text()
    path = tmp_path / "arms.py"
    path.write_text(page.split("```python\n")[1].split("```")[0])
    made = plan.make_plan(BASE, path, tmp_path, seeds=[0, 1])
    assert [run.name for run in made.runs] == [
        "no_kl seed 0", "full seed 0", "no_kl seed 1", "full seed 1"
    ]  # fmt: skip
    assert made.runs[0].config.grpo.kl_coef == 0.0
    assert made.titles["no_kl"] == "no KL to the base"


def test_the_page_names_every_arm_that_is_shipped():
    page = (ROOT / "docs" / "ablations.md").read_text()
    arms = {arm.__name__ for study in ablations.STUDIES.values() for arm in study}
    assert all(f"| `{name}` |" in page for name in arms)


@pytest.mark.parametrize("name", ["learners", "grpo_settings", "mixture", "transfer"])
def test_the_other_arms_that_are_shipped_make_a_plan_of_different_runs(name, tmp_path):
    made = plan.make_plan(
        tiny_cpu.get_config(), ROOT / "configs" / f"{name}.py", tmp_path, seeds=[0]
    )
    assert len({config_hash(run.config) for run in made.runs}) == len(made.runs) > 1


# ---- the intervals


def test_one_pair_and_two_seeds_give_the_distribution_worked_out_by_hand():
    """S = 2 draws one seed: the mean is 0 or 1, each half the time."""
    drawn = statistics.resampled_means(np.array([[0.0], [1.0]]), resamples=4000, seed=0, arm=0)
    assert set(drawn) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)


def test_seeds_alone_vary_by_their_unbiased_variance_over_their_number():
    """Seeds 0, 1, 2: s^2 = 1, so the mean's variance is 1/3; the fourth moment of two draws from
    {0,1,2} is 1/2, which bounds the estimate's own deviation by sqrt((1/2 - 1/9) / n)."""
    scores = np.array([[0.0], [1.0], [2.0]])
    drawn = statistics.resampled_means(scores, resamples=20000, seed=1, arm=0)
    assert drawn.var() == pytest.approx(1 / 3, abs=4 * ((1 / 2 - 1 / 9) / 20000) ** 0.5)


def test_pairs_alone_vary_as_the_plain_bootstrap_says():
    """Equal seeds: only pairs matter; of {0, 1} two draws have a mean of variance 1/8."""
    scores = np.array([[0.0, 1.0]] * 3)
    drawn = statistics.resampled_means(scores, resamples=20000, seed=2, arm=0)
    assert set(drawn) == {0.0, 0.5, 1.0}
    assert drawn.var() == pytest.approx(1 / 8, abs=0.004)  # 4 x sqrt((1/32 - 1/64) / 20000)


def test_a_difference_on_the_same_pairs_is_free_of_what_the_pairs_share():
    """Hard and easy pairs spread either mean, not their difference, which is .25 on every pair."""
    easy = np.linspace(0.0, 0.5, 40)[None]
    shift = statistics.difference_interval(easy + 0.25, easy, resamples=500)
    assert shift == pytest.approx((0.25, 0.25, 0.25))
    mean, low, high = statistics.mean_interval(easy, resamples=500)
    assert low < mean < high


def test_the_two_sides_of_a_difference_draw_their_seeds_apart():
    """Drawn together, an arm minus itself would have no width. Each side is the mean of two draws
    of {0, 1, 2}: a difference of 2 has probability 1/81, one of 1.5 or more 5/81, and 2.5 % lies
    between the two."""
    seeds = np.array([[0.0], [1.0], [2.0]])
    interval = statistics.difference_interval(seeds, seeds, resamples=4000)
    assert interval == (0.0, -1.5, 1.5)


def test_scores_on_different_pairs_are_never_put_side_by_side():
    rows = [{"pair_id": 0, "n_true": 1, "f1": 0.5}, {"pair_id": 1, "n_true": 2, "f1": 1.0}]
    assert statistics.scores_of([rows, rows], "f1").tolist() == [[0.5, 1.0]] * 2
    assert statistics.scores_of([rows], "f1", 2).tolist() == [[1.0]]
    with pytest.raises(ValueError, match="different pairs"):
        statistics.scores_of([rows, rows[:1]], "f1")
    with pytest.raises(ValueError, match="2 and 3 pairs"):
        statistics.difference_interval(np.zeros((1, 2)), np.zeros((1, 3)), resamples=5)


# ---- the runs: chains of programs, here of a few lines each

PROGRAM = """import os, pathlib, sys
name, folder, code = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
with (folder / "said").open("a") as file:
    file.write(name + " ")
(folder / "cores").write_text(repr(sorted(os.sched_getaffinity(0))))
if code:
    sys.exit(f"{name} has no paint left")
(folder / name).touch()
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    (tmp_path / "paint.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def job(name: str, **stages: int) -> runs.Job:
        """stages: name -> exit code"""
        folder = tmp_path / name
        made = [
            runs.Stage(stage, ("paint", stage, str(folder), str(code)), (folder / stage).is_file)
            for stage, code in stages.items()
        ]
        return runs.Job(name, folder, tuple(made))

    return job


def said(job: runs.Job) -> list[str]:
    return (job.folder / "said").read_text().split()


def test_a_failed_run_is_told_with_its_log_and_the_others_go_on(programs):
    lines = []
    jobs = [programs("bad", one=0, two=1, three=0), programs("good", one=0, two=0)]
    outcomes = {o.job.name: o for o in runs.run_jobs(jobs, at_once=1, say=lines.append)}
    assert outcomes["bad"].failed == "two (exit code 1)"
    assert outcomes["bad"].tail == "two has no paint left"
    assert outcomes["good"].failed is None
    assert said(jobs[0]) == ["one", "two"]
    assert said(jobs[1]) == ["one", "two"]
    assert any("bad: two FAILED" in line for line in lines)


def test_the_same_jobs_again_do_only_what_is_missing(programs):
    runs.run_jobs([programs("job", one=0, two=1)], at_once=1, say=print)
    again = programs("job", one=0, two=0, three=0)
    assert runs.run_jobs([again], at_once=1, say=print)[0].failed is None
    assert said(again) == ["one", "two", "two", "three"]
    runs.run_jobs([again], at_once=1, say=print)
    assert said(again) == ["one", "two", "two", "three"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux pins, others do not")
def test_several_runs_at_once_have_one_core_each_and_a_single_one_has_all(programs):
    mine = os.sched_getaffinity(0)
    alone, *two = (programs(name, one=0) for name in ("alone", "left", "right"))
    runs.run_jobs([alone], at_once=1, say=print)
    runs.run_jobs(two, at_once=2, say=print)
    assert json.loads((alone.folder / "cores").read_text()) == sorted(mine)
    assert all(len(json.loads((job.folder / "cores").read_text())) == 1 for job in two)
    assert os.sched_getaffinity(0) == mine


def test_a_program_that_outlived_its_command_is_waited_for(programs):
    """It holds the lock; its end, here the end of its input, lets the next command go on."""
    job = programs("job", one=0)
    with runs.locked(job, print) as lock:
        survivor = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
        os.pwrite(lock, str(survivor.pid).encode(), 0)
    lines = []

    def say(line: str) -> None:
        lines.append(line)
        if "waiting" in line:
            assert not (job.folder / "one").is_file()
            survivor.communicate(b"done\n")

    runs.run_jobs([job], at_once=1, say=say)
    assert lines[0] == f"job: process {survivor.pid} of another command is at work on it; waiting"
    assert said(job) == ["one"]


def test_a_killed_program_is_started_again_and_its_done_stages_are_not(programs):
    """SIGKILL between a program's start and its result: the stage is missing, so it runs anew."""
    job = programs("job", one=0, two=0)
    job.folder.mkdir()
    (job.folder / "one").touch()
    with runs.locked(job, print) as lock:
        victim = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,)
        )
    victim.kill()
    victim.communicate()
    assert runs.run_jobs([job], at_once=1, say=print)[0].failed is None
    assert said(job) == ["two"]


def test_a_folder_of_another_configuration_is_refused_with_the_fields(tmp_path):
    runs.write_config(tmp_path / "train.py", BASE)
    runs.write_config(tmp_path / "train.py", BASE)
    other = dataclasses.replace(BASE, optim=dataclasses.replace(BASE.optim, rate=1e-3))
    with pytest.raises(ValueError, match=r"optim.rate: 0.0003, now 0.001\n.*another --root"):
        runs.write_config(tmp_path / "train.py", other)


# ---- the report


def exam_rows(f1: float) -> list[dict]:
    return [
        {"pair_id": n, "n_true": 1 + n % 2, "f1": f1, "iou": f1 / 2, "format": 1.0, "count_ok": 0.5}
        for n in range(6)
    ]


@pytest.fixture
def scored(tmp_path) -> plan.Plan:
    """Two seeds of every arm of the curriculum but `shuffled`, the base and the pixels."""
    made = plan.make_plan(BASE, ARMS, tmp_path, seeds=[0, 1], only="curriculum")
    folders = {tmp_path / tables.BASE: 0.25, tmp_path / tables.PIXELS: 0.75}
    folders |= {run.folder: 0.5 + 0.1 * run.seed for run in made.runs if run.arm != "shuffled"}
    for folder, f1 in folders.items():
        folder.mkdir(parents=True)
        (folder / "eval_sampled.json").write_text(json.dumps({"rows": exam_rows(f1)}))
    return made


def test_tables_hold_the_means_over_seeds_and_say_which_arm_is_missing(scored):
    scores = tables.summarize(scored, ["sampled"])["sampled"]
    assert scores["full"]["metrics"]["f1"][0] == pytest.approx(0.55)
    assert scores["full"]["per_seed"]["f1"] == pytest.approx([0.5, 0.6])
    assert "difference" not in scores["full"]
    assert scores["single"]["difference"]["f1"][0] == pytest.approx(0.0)
    lines = {
        line[0].split(":")[0]: line for line in tables.study_table(scored, "curriculum", scores)
    }
    assert lines["untrained"][3].startswith("0.250 [0.250, 0.250]")
    assert lines["full"][1:4] == ["2", "-", "0.550 [0.500, 0.600]"]
    assert lines["shuffled"][1] == "none finished"
    assert "shuffled" not in {line[0] for line in tables.count_table(scored, "curriculum", scores)}


def test_the_figure_of_the_effect_has_a_bar_for_whoever_has_answered_a_split(scored, monkeypatch):
    drawn = []
    monkeypatch.setattr(effect, "_bar", lambda axis, at, width, seen, color, label: drawn.append(
        (round(at), label, seen["metrics"]["f1"][0])))  # fmt: skip
    one = tables.summarize(scored, ["sampled"])["sampled"]
    less = {arm: one[arm] for arm in (tables.BASE, "full")}
    effect.draw(scored.root / "effect.png", scored, {"greedy": less, "sampled": one})
    assert (0, "untrained", 0.25) in drawn
    assert (1, "pixel difference", 0.75) in drawn
    assert sum(place == 0 for place, _, _ in drawn) == 2
    assert sum(place == 1 for place, _, _ in drawn) == len(one) == 7


def test_the_section_replaces_what_stood_between_the_marks_and_nothing_else(scored, tmp_path):
    page = tmp_path / "ablations.md"
    page.write_text("# Results\n\nBefore.\n")
    scores = tables.summarize(scored, ["sampled"])
    body = results.section(scored, scores, command="ablate", figure="f.png", failures=["x failed"])
    results.replace_section(page, "old figures")
    results.replace_section(page, body)
    page.write_text(page.read_text() + "After.\n")
    results.replace_section(page, body)
    text = page.read_text()
    assert text.startswith("# Results\n\nBefore.\n\n" + results.BEGIN)
    assert text.endswith(results.END + "\nAfter.\n")
    assert "old figures" not in text
    assert text.count("### The curriculum") == 1
    assert "**Not complete:** x failed" in text
    assert "![Scores by arm and training curves](f.png)" in text


def test_a_page_with_half_a_pair_of_marks_is_refused_before_any_run(tmp_path):
    page = tmp_path / "ablations.md"
    page.write_text(f"{results.END}\n{results.BEGIN}\n")
    with pytest.raises(ValueError, match="keep one of each, in this order"):
        results.check_results(page)
    with pytest.raises(ValueError, match="does not exist"):
        results.check_results(tmp_path / "absent.md")


# ---- the whole command, on a model that compiles in seconds

BROKEN = """
def full(base): return base
def other(base): "a prompt that cannot fit"; return dataclasses.replace(
    base, prompt=dataclasses.replace(base.prompt, max_tokens=3))
"""


@pytest.fixture
def command(tmp_path) -> list[str]:
    """`python -m scripts.study.ablate` over a micro base, with one arm that fails."""
    for name, boxes in (("single", 1), ("heldout", 2)):
        pairs = [plain_pair(*[(4, 4, 30, 30)] * boxes, seed=n) for n in range(4)]
        write_split(tmp_path / "data", name, pairs)
    model = small_base()
    weights.save_hf(
        tmp_path / "model", make_tiny(jax.random.key(0), model), model, source_folder=ASSETS
    )
    base = Config(
        steps=16,
        pairs_per_step=2,
        model=ModelSource(source=str(tmp_path / "model")),
        data=DataConfig(
            root=str(tmp_path / "data"), image_width=64, image_height=48, buckets=("single",)
        ),
        rollout=RolloutConfig(group=2, max_tokens=8),
        curriculum=CurriculumConfig(stages=(Stage(16, {"single": 1.0}),)),
        eval=EvalConfig(pairs=4, batch=4, samples=2, bootstrap=50),
        checkpoint=CheckpointConfig(every=4),
    )
    runs.write_config(tmp_path / "base.py", base)
    arms = arms_file(tmp_path, BROKEN)
    return [
        *(sys.executable, "-m", "scripts.study.ablate", "--config", str(tmp_path / "base.py")),
        *("--arms", str(arms), "--root", str(tmp_path / "root"), "--seeds", "0", "--jobs", "2"),
        *("--modes", "sampled", "--results", str(tmp_path / "ablations.md")),
    ]


def is_there(check, process: subprocess.Popen) -> None:
    """Returns when `check()` holds; fails when the process ends first."""
    while not check():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_command_killed_at_work_is_taken_over_and_a_broken_arm_costs_only_itself(
    command, tmp_path
):
    """SIGKILL of the command alone: its trainer lives on, and the same command waits for it."""
    (tmp_path / "ablations.md").write_text("# Results\n")
    # half the compile time; one device, unlike the other tests'
    env = os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"}
    folder = tmp_path / "root" / "full" / "seed0"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    first = subprocess.Popen(command, env=env, cwd=ROOT, **pipes)
    is_there(lambda: (folder / "train.log").is_file(), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()

    second = subprocess.run(command, env=env, cwd=ROOT, check=False, timeout=300, **pipes)
    assert second.returncode == 1, second.stdout
    assert "of another command is at work on it; waiting" in second.stdout
    assert "FAILED other seed 0 in train" in second.stdout
    assert "prompt.max_tokens=3" in second.stdout
    assert len(json.loads((folder / "manifest.json").read_text())["starts"]) == 1
    assert [row["step"] for row in read_rows(folder, kind="train")] == list(range(16))
    found = json.loads((tmp_path / "root" / "ablation.json").read_text())
    assert set(found["scores"]["sampled"]) == {"base", "full", "pixels"}
    text = (tmp_path / "ablations.md").read_text()
    assert "other seed 0 failed in train" in text
    assert (tmp_path / "ablations.png").read_bytes()[:4] == b"\x89PNG"
    assert "](ablations.png)" in text
