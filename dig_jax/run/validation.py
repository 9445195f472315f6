"""Validation while training: every mode of answering, every split, one row, and the best weights.

Names are [mode]/[score] for data.eval_split and [mode]/[split]/[score] for the others, such as
"greedy/f1", "sampled/recall_color", "greedy/test_novel/f1_n2", "greedy/controls/empty".
"""

from collections.abc import Callable

import numpy as np

from dig_jax.config import Config, EvalConfig
from dig_jax.data.feed.batch import Batch
from dig_jax.data.feed.pipeline import eval_pairs
from dig_jax.mesh import programs
from dig_jax.mesh.distributed import first_says
from dig_jax.model.params import Params
from dig_jax.run.best import BestKeeper
from dig_jax.run.runlog import RunLog, read_rows
from dig_jax.run.scorer import make_scorer
from dig_jax.run.session import Session
from dig_jax.scoring.statistics import values_by_metric

CONTROLS = "controls"
Validate = Callable[[RunLog, int, Params, Callable[[], bool]], None]


def make_validation(session: Session, first_step: int) -> Validate:
    """Bind the statics; returns validate(log, step, params, stop), to be called after every step.

    first_step   that this start of the run computes first

    Where one is due, it writes a row of kind "eval" (means over pairs and their answers) and
    keeps the weights that score best. Step -1 is before the first. One program is compiled for
    each mode of answering. Where `stop()` says so between two batches, nothing is written: the
    start that goes on there does it again, for `validate(log, first_step - 1, ...)` makes up for
    what has no row.
    """
    cfg = session.cfg
    if not cfg.eval.every:
        return lambda log, step, params, stop: None
    splits = _splits(session)
    scorers = {
        mode: make_scorer(
            session, decoding, answers=_answers(cfg.eval, mode), label=f"validate_{mode}"
        )
        for mode, decoding in session.modes.items()
    }
    done = {row["step"] for row in read_rows(cfg.run_dir, kind="eval")} if first_step else set()
    keeper, answering = BestKeeper(cfg, first_step), programs.jit_reshard(session)

    def validate(log: RunLog, step: int, params: Params, stop: Callable[[], bool]) -> None:
        made = step < first_step and first_says(step in done)
        if made or not is_due(cfg.eval, step):
            return
        scores, weights = {}, answering(params)
        for mode, score in scorers.items():
            for split, batches in splits.items():
                rows = score(weights, batches, stop)
                if rows is None:
                    return
                prefix = f"{mode}/{split}/" if split else f"{mode}/"
                means = control_means(rows) if split == CONTROLS else split_means(rows)
                scores |= {prefix + name: mean for name, mean in means.items()}
        log.write(step, scores, kind="eval")
        keeper.offer(step + 1, scores, params)

    return validate


def is_pending(cfg: Config) -> bool:
    """Whether the validation after a finished run's last step was cut off; all processes ask."""
    rows = read_rows(cfg.run_dir, kind="eval")
    missing = is_due(cfg.eval, cfg.steps - 1) and all(row["step"] != cfg.steps - 1 for row in rows)
    return first_says(missing)


def is_due(cfg: EvalConfig, step: int) -> bool:
    """Whether a validation follows a step; step -1 is before the first."""
    if not cfg.every:
        return False
    return cfg.at_start if step < 0 else (step + 1) % cfg.every == 0


def split_means(rows: list[dict]) -> dict[str, float]:
    """The means of `values_by_metric`."""
    return {name: float(np.mean(values)) for name, values in values_by_metric(rows).items()}


def control_means(rows: list[dict]) -> dict[str, float]:
    """Of identical pairs: the share of empty well-formed answers, and the boxes predicted."""
    return {name: float(np.mean([row[name] for row in rows])) for name in ("empty", "n_pred")}


def _answers(cfg: EvalConfig, mode: str) -> int:
    return 1 if mode == "greedy" else max(1, cfg.samples)


def _splits(session: Session) -> dict[str, list[Batch]]:
    """The batches of each split by the middle part of its names; "" is data.eval_split."""
    cfg, size = session.cfg, session.image_size
    splits = {"": eval_pairs(cfg, size=size)}
    for name in cfg.eval.splits:
        splits[name] = eval_pairs(cfg, name, size=size, fewer=True)
    if cfg.eval.controls:
        splits[CONTROLS] = eval_pairs(cfg, cfg.eval.controls, size=size, fewer=True)
    return splits
