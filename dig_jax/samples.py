"""Answers of the policy while it trains, to be looked at: a picture and rows every few steps.

    <run_dir>/samples/step_000020.png   the first pairs of the batch of step 20, one answer each
    <run_dir>/samples.jsonl             the same answers in full, a row each

Everything here reads what the step has computed; nothing is sampled or drawn by chance.
"""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from dig_jax import sharding
from dig_jax.data.pipeline import Batch
from dig_jax.evaluate import answer_rows
from dig_jax.runlog import RunLog, drop_rows
from dig_jax.sample_sheet import sample_sheet
from dig_jax.session import Session

FOLDER, ROWS = "samples", "samples.jsonl"


def make_sample_log(session: Session, first_step: int) -> Callable[..., None]:
    """Bind the statics; returns record(log, step, batch, texts, parsed, reward).

    first_step   that this start computes first: rows of later ones move to
                 samples.replaced.jsonl

    Where a picture is due (after the first step, then every log.samples_every steps), process 0
    writes it and its rows and gives it to the trackers; the others do nothing.

    batch                   of this process
    texts, parsed, reward   of the global batch, [B][G]
    """
    cfg = session.cfg
    folder = Path(cfg.run_dir)
    writes = jax.process_index() == 0 and cfg.log.samples_every > 0
    if writes:
        drop_rows(folder / ROWS, first_step)
    index, count = sharding.process_slice(session.mesh)
    first = index * cfg.pairs_per_step // count

    def record(log: RunLog, step: int, batch: Batch, texts, parsed, reward) -> None:
        if not writes or (step and (step + 1) % cfg.log.samples_every):
            return
        shown = min(cfg.log.samples, len(batch.pair_id))
        some = jax.tree.map(lambda leaf: leaf[:shown], batch)
        part = slice(first, first + shown)
        mine = jax.tree.map(lambda leaf: leaf[part], jax.device_get(reward))
        rows = answer_rows(cfg.reward, some, texts[part], parsed[part], mine)
        rows = [_described(cfg.data.buckets, step, *each) for each in zip(rows, some.bucket,
                mine.total, strict=True)]  # fmt: skip
        sheet = sample_sheet(some.images, rows, title=_title(cfg, step))
        path = folder / FOLDER / f"step_{step + 1:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
        with (folder / ROWS).open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        log.show(step, FOLDER, np.asarray(sheet))

    return record


def _described(buckets: tuple[str, ...], step: int, row: dict, bucket: int, rewards) -> dict:
    """An answer's row of samples.jsonl: `rewards` of its whole group, the answer's own scores."""
    scores = row.pop("shown")
    kept = ("text", "verdict", "pred", "true", "match", "match_iou", "kinds")
    return {
        "step": step,
        "bucket": buckets[bucket],
        "pair_id": row["pair_id"],
        **{name: row[name] for name in kept},
        "scores": scores,
        "group_rewards": [round(float(each), 4) for each in rewards],
    }


def _title(cfg, step: int) -> str:
    return f"{cfg.name}, step {step + 1} of {cfg.steps}"
