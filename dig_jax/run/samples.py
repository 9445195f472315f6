"""Answers of the policy while it trains, to be looked at: a picture and rows every few steps.

    <run_dir>/samples/step_000020.png   the first pairs of the batch of step 20, one answer each
    <run_dir>/samples.jsonl             the same answers in full, a row each

Everything here reads what the step has computed; nothing is sampled or drawn by chance.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import numpy as np

from dig_jax.common.files import telling_room
from dig_jax.config import Config
from dig_jax.data.feed.batch import Batch
from dig_jax.data.feed.source import PairSource
from dig_jax.pictures.sample_sheet import sample_sheet
from dig_jax.run import checkpoint, manifest
from dig_jax.run.runlog import RunLog, append_rows, drop_rows
from dig_jax.run.session import Session
from dig_jax.scoring.rows import answer_rows

FOLDER, ROWS = "samples", "samples.jsonl"


def make_sample_log(session: Session, first_step: int) -> Callable[..., None]:
    """Bind the statics; returns record(log, step, batch, texts, parsed, reward).

    first_step   that this start computes first: rows of later ones move to
                 samples.replaced.jsonl

    Where a picture is due (after the first step, then every log.samples_every steps), process 0
    writes it and its rows and gives it to the trackers; the others do nothing.

    batch                   the global batch; its images, if it has any, are not read
    texts, parsed, reward   of the global batch, [B][G]

    The pictures come from the records anew: what a step keeps of them may be features only, on
    the devices of other processes.
    """
    cfg = session.cfg
    folder = Path(cfg.run_dir)
    writes = jax.process_index() == 0 and cfg.log.samples_every > 0
    if writes:
        run = checkpoint.run_number(cfg, first_step)
        tell_missing(cfg, first_step, drop_rows(folder / ROWS, first_step, run)[0])

    @functools.cache
    def opened(bucket: str) -> PairSource:
        return PairSource(cfg.data, bucket, session.image_size)

    def record(log: RunLog, step: int, batch: Batch, texts, parsed, reward) -> None:
        if not writes or not _is_due(cfg, step):
            return
        some, scored = jax.tree.map(
            lambda leaf: leaf[: cfg.log.samples], jax.device_get((batch, reward))
        )
        count, names = len(some.pair_id), [cfg.data.buckets[bucket] for bucket in some.bucket]
        rows = answer_rows(cfg.reward, some, texts[:count], parsed[:count], scored)
        rows = [
            _described(step, *each) for each in zip(names, rows, scored.total.tolist(), strict=True)
        ]
        images = [opened(row["bucket"])[row["pair_id"]].images for row in rows]
        sheet = sample_sheet(images, rows, title=_title(cfg, step))
        path = folder / FOLDER / f"step_{step + 1:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with telling_room(path):
            sheet.save(path)
        append_rows(folder / ROWS, rows, manifest.number_of(folder))
        log.show(step, FOLDER, np.asarray(sheet))

    return record


def tell_missing(cfg: Config, first_step: int, kept: Iterable[Mapping]) -> None:
    """Says which steps before `first_step` have no rows, by the settings of today."""
    there = {row["step"] for row in kept}
    missing = [step + 1 for step in range(first_step) if _is_due(cfg, step) and step not in there]
    if missing:
        print(f"{Path(cfg.run_dir) / ROWS} lacks the answers of steps {missing}", flush=True)


def _is_due(cfg: Config, step: int) -> bool:
    return step == 0 or (step + 1) % cfg.log.samples_every == 0


def _described(step: int, bucket: str, row: dict, rewards: list[float]) -> dict:
    """An answer's row of samples.jsonl: `rewards` of its whole group, the answer's own scores."""
    scores = row.pop("shown")
    kept = ("text", "verdict", "pred", "true", "match", "match_iou", "kinds")
    return {
        "step": step,
        "bucket": bucket,
        "pair_id": row["pair_id"],
        **{name: row[name] for name in kept},
        "scores": scores,
        "group_rewards": [round(each, 4) for each in rewards],
    }


def _title(cfg, step: int) -> str:
    return f"{cfg.name}, step {step + 1} of {cfg.steps}"
