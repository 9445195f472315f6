"""Stops a run whose loss or gradient is not finite, and keeps what is needed to see why."""

import math
from pathlib import Path
from typing import Any

import jax

from dig_jax.common.files import write_json
from dig_jax.config import Config
from dig_jax.run import manifest
from dig_jax.run.experience import Experience, fetch


def stop_if_not_finite(
    cfg: Config, step: int, drawn: Experience, metrics: dict, answers: dict
) -> None:
    """Raises FloatingPointError, after writing a dump, where an update refused to move.

    metrics   of the update; `finite` is 0 where its loss or gradient was not (`make_update`)
    answers   advantage f32[B, G] and the parts of the loss, by name, on the devices

    The parameters are those before that update and no checkpoint is written, so the newest one
    is good. The dump is <run_dir>/not_finite/step_<n>.json.
    """
    if metrics["finite"]:
        return
    answers = fetch(answers)  # on every process: it gathers
    path = Path(cfg.run_dir) / "not_finite" / f"step_{step:06d}.json"
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.add_stop(cfg, step, "the loss or the gradient is not finite")
        write_json(path, _dump(cfg, step, drawn, metrics, answers))
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    raise FloatingPointError(
        f"step {step}: {', '.join(wrong) or 'the gradient'} not finite; nothing was updated. "
        f"{path} holds the pairs, answers, rewards and losses of this step; look there, lower "
        f"optim.rate or set grpo.kl_max, and start again: the run continues from its checkpoint"
    )


def _dump(cfg: Config, step: int, drawn: Experience, metrics: dict, answers: dict) -> dict:
    names = {-1: "none", **dict(enumerate(cfg.data.buckets))}
    buckets = [names[int(number)] for number in drawn.batch.bucket]
    return {
        "step": step,
        "metrics": _plain(metrics),
        "pair_id": _plain(drawn.batch.pair_id),
        "bucket": buckets,
        "texts": drawn.texts,
        "ended": _plain(drawn.host.ended),
        "length": _plain(drawn.host.lengths),
        "reward": _plain(drawn.reward.total),
        "reward_parts": _plain(drawn.reward.parts),
        # of every update: [updates][pairs of a minibatch][G]; see make_update
        "answers": _plain(answers),
    }


def _plain(value: Any) -> Any:
    """Lists and numbers for JSON, which has no NaN: those become text."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
