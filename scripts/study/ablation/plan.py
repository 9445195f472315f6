"""What an ablation is: studies of arms, each arm trained with each seed, each run checked first."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dig_jax.common.fields import require
from dig_jax.common.userfile import run_path, told
from dig_jax.config import Config, RewardConfig, Stage, config_hash

Arm = Callable[[Config], Config]
# Folders beside those of the arms: the policy without a model, and the untrained one.
PIXELS, BASE = "pixels", "base"


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    config   what is trained
    exam     the full reward, the base's seed and held-out split, whatever was trained
    """

    arm: str
    seed: int
    config: Config
    exam: Config

    @property
    def name(self) -> str:
        return f"{self.arm} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)


@dataclass(frozen=True)
class Plan:
    """Everything that one command runs and reports.

    studies     name -> arms, in table order
    titles      arm -> what reports call it
    reference   the arm that the others are compared with
    """

    base: Config
    studies: dict[str, tuple[str, ...]]
    titles: dict[str, str]
    reference: str
    runs: tuple[Run, ...]
    root: Path

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    @property
    def arms(self) -> list[str]:
        """Of all studies, each once."""
        return list(dict.fromkeys(arm for arms in self.studies.values() for arm in arms))

    def of_arm(self, arm: str) -> list[Run]:
        return [run for run in self.runs if run.arm == arm]


def make_plan(
    base: Config, arms_file: Path, root: Path, *, seeds: Sequence[int], only: str | None = None
) -> Plan:
    """The runs of an arms file over a base config, every arm's Config made and checked.

    arms_file   Python with STUDIES (name -> arms), REFERENCE (one of the arms), and where arms
                may differ in their budgets EQUAL, the fields in which they do not
    only        one study's name; None = all of them

    An arm of two studies is run once. Raises ValueError naming the arm whose function breaks a
    rule of the config, or whose steps, pairs or answers differ from the base's.
    """
    names = run_path(arms_file) if arms_file.is_file() else None
    require(bool(names), "--arms", str(arms_file), "is not a file", "use configs/ablations.py")
    ok = "STUDIES" in names and "REFERENCE" in names
    require(ok, "--arms", str(arms_file), "lacks STUDIES or REFERENCE", "see configs/ablations.py")
    rule, shared = "would hold the checkpoints of all runs at once", base.checkpoint.root
    require(not shared, "checkpoint.root", shared, rule, "leave it empty: each run has its own")
    studies = names["STUDIES"]
    ok = only is None or only in studies
    require(ok, "--only", only, "is no study of the arms file", f"use {', '.join(studies)}")
    ok = bool(seeds) and len(set(seeds)) == len(seeds)
    require(ok, "--seeds", list(seeds), "is empty or repeats a seed", "name each seed once")
    studies = {only: studies[only]} if only else studies
    distinct = list(dict.fromkeys(arm for arms in studies.values() for arm in arms))
    taken = [arm.__name__ for arm in distinct if arm.__name__ in (PIXELS, BASE)]
    rule = "is the folder of a policy that no arm trained"
    require(not taken, "--arms", ", ".join(taken), rule, "call the function otherwise")
    equal = names.get("EQUAL", ("steps", "pairs_per_step", "rollout", "model"))
    runs = [_run(arm, seed, base, root, arms_file, equal) for seed in seeds for arm in distinct]
    return Plan(
        base=base,
        studies={name: tuple(arm.__name__ for arm in arms) for name, arms in studies.items()},
        titles={arm.__name__: _title(arm) for arm in distinct},
        reference=names["REFERENCE"].__name__,
        runs=tuple(runs),
        root=root,
    )


def exam_of(base: Config, run_dir: Path | str) -> Config:
    """How every policy is scored: the base's config with the full reward's weights.

    Splits that it is validated on beside its own are left out: a mode may score one of them.
    """
    full = {name: getattr(RewardConfig(), name) for name in ("w_format", "w_f1", "w_iou")}
    reward = dataclasses.replace(base.reward, **full)
    scored = dataclasses.replace(base.eval, splits=(), controls="")
    return dataclasses.replace(base, reward=reward, eval=scored, run_dir=str(run_dir))


def with_steps(base: Config, steps: int) -> Config:
    """The base cut or stretched to `steps`: its stages and warm-up keep their shares of the run."""
    require(steps >= 1, "--steps", steps, "is below 1", "use 1 or more")
    stages, untils = base.curriculum.stages, _untils(base, steps)
    least = next(n for n in itertools.count(steps) if _all_have_steps(_untils(base, n)))
    rule = f"leaves a stage of {len(stages)} without steps"
    require(least == steps, "--steps", steps, rule, f"use {least} or more")
    moved = tuple(
        Stage(until=until, weights=stage.weights)
        for until, stage in zip(untils, stages, strict=True)
    )
    return dataclasses.replace(
        base,
        steps=steps,
        curriculum=dataclasses.replace(base.curriculum, stages=moved),
        optim=dataclasses.replace(base.optim, warmup=base.optim.warmup * steps // base.steps),
    )


def _untils(base: Config, steps: int) -> list[int]:
    return [round(stage.until * steps / base.steps) for stage in base.curriculum.stages]


def _all_have_steps(untils: Sequence[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise([0, *untils]))


def plan_hash(plan: Plan) -> str:
    """Twelve hex digits of the base, blind to arms and seeds: the hash that reports give."""
    return config_hash(plan.base)


def _run(
    arm: Arm, seed: int, base: Config, root: Path, arms_file: Path, equal: Sequence[str]
) -> Run:
    folder = root / arm.__name__ / f"seed{seed}"
    try:
        config = arm(base)
    except Exception as error:  # whatever the user's function runs into
        raise ValueError(f"arm {arm.__name__}: {told(error, arms_file)}") from error
    for field in equal:
        if field == "steps" and config.learner != base.learner:
            continue  # it is seconds that are equal: tables tell them
        ours, theirs = getattr(config, field), getattr(base, field)
        rule, remedy = f"is {theirs!r} in the base", "arms have equal budgets; change the base"
        require(ours == theirs, f"arm {arm.__name__}: {field}", ours, rule, remedy)
    name = f"{base.name}_{arm.__name__}"
    config = dataclasses.replace(config, name=name, seed=seed, run_dir=str(folder))
    return Run(arm.__name__, seed, config, exam_of(base, folder))


def _title(arm: Arm) -> str:
    text = (arm.__doc__ or arm.__name__).strip()
    return text.splitlines()[0]
