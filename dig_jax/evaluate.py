"""Held-out evaluation: what a policy boxes on pairs it has never trained on.

    python -m dig_jax.evaluate --config configs/tiny_cpu.py --name before
    python -m dig_jax.evaluate --config configs/tiny_cpu.py --name after --from-run

Scores are means over pairs with 95 % bootstrap intervals over pairs; the answer to a pair is
greedy unless eval.samples asks for draws at the rollout temperature, or eval.decoding for the
checkpoint's own way.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from dig_jax import best, checkpoint, distributed, programs, sharding
from dig_jax.baseline import pixel_difference
from dig_jax.boxes import pairwise_iou, unit_from_px
from dig_jax.commandline import add_config_arguments, clear_errors, config_from
from dig_jax.config import Config, RewardConfig, config_hash
from dig_jax.data.pipeline import KINDS, Batch, eval_pairs
from dig_jax.decoding import Decoding
from dig_jax.model.params import Params, placed_shapes
from dig_jax.reward.answers import make_answer_reward
from dig_jax.reward.custom import find_function
from dig_jax.reward.matching import assign_on_host
from dig_jax.reward.reward import matching_cost
from dig_jax.runlog import progress, write_whole
from dig_jax.session import Session, load_weights, open_session
from dig_jax.sft import answer_text

METRICS = ("precision", "recall", "f1", "iou", "format", "count_ok", "reward")


def make_evaluator(session: Session, batches: list[Batch]) -> Callable[[Params], list[dict]]:
    """Bind the statics; returns evaluate(params) -> one row per held-out pair, in order."""
    answers = max(1, session.cfg.eval.samples)
    score = make_scorer(session, session.decoding, answers=answers)
    answering = programs.jit_reshard(session)
    return lambda params: score(answering(params), batches)


def make_scorer(
    session: Session, decoding: Decoding, *, answers: int, label: str = "evaluate"
) -> Callable[[Params, list[Batch]], list[dict]]:
    """Bind the statics; returns score(weights, batches) -> one row per pair, in order.

    Its weights are those of `programs.jit_reshard`.

    answers   drawn per pair
    label     of its progress, and of what it compiles once for all batches

    A row holds the pair's true and predicted boxes (unit frame), the answer's text, and every
    metric of METRICS, averaged over the pair's answers if there are several. The draws depend on
    the seed and the pair's place alone, so that every validation of a run draws alike.
    """
    cfg = session.cfg
    sample = programs.jit_sampler(
        session, group=answers, decoding=decoding, name=f"{label}_answers", whole=True
    )
    reward_of = make_answer_reward(cfg)
    prompt = session.prompt_rows(cfg.eval.batch)
    key = sharding.replicate(jax.random.key_data(jax.random.key(cfg.seed)), session.mesh)

    def score(weights: Params, batches: list[Batch]) -> list[dict]:
        rows = []
        for number, batch in enumerate(progress(batches, label)):
            images = sharding.shard_global(batch.images, session.mesh)
            first = number * cfg.eval.batch
            rollout = sample(weights, prompt, images, jax.random.wrap_key_data(key), first)
            host = jax.device_get(rollout)
            lengths = host.valid.sum(-1)
            texts = session.texts(host.tokens, lengths)
            facts = (batch.truth, batch.pair_id, batch.bucket)
            reward, parsed = reward_of(texts, host.ended, lengths, *facts)
            rows += answer_rows(cfg.reward, batch, texts, parsed, jax.device_get(reward))
        return rows

    return score


def answer_rows(cfg: RewardConfig, batch: Batch, texts, parsed, reward) -> list[dict]:
    """One row per real pair of a scored batch: means over its answers, and the first answer.

    text, verdict, boxes and `shown` (its own scores) belong to the first of the group. `found`
    is, for each true box, the share of the answers that matched it with IoU >= iou_threshold,
    `kinds` its type; `empty` the share of well-formed answers without a box.
    """
    empty = reward.parts["format"] * (reward.parts["n_pred"] == 0)
    scores = {**reward.parts, "reward": reward.total, "empty": empty}
    rows = []
    for i in np.flatnonzero(batch.real):
        true = batch.truth.boxes[i][batch.truth.valid[i]]
        means = {name: float(part[i].mean()) for name, part in scores.items()}
        rows.append(
            {
                "pair_id": int(batch.pair_id[i]),
                "n_true": len(true),
                "text": texts[i][0],
                "verdict": str(parsed[i][0].verdict),
                **matched_boxes(cfg, parsed[i][0].boxes_unit, true),
                "kinds": [KINDS[k] for k in batch.kind[i][batch.truth.valid[i]]],
                "found": found_boxes(cfg, [p.boxes_unit for p in parsed[i]], true),
                **means,
                "shown": {name: float(part[i, 0]) for name, part in scores.items()},
            }
        )
    return rows


def partners(cfg: RewardConfig, pred: np.ndarray, true: np.ndarray) -> tuple[list, list]:
    """For each predicted box its true partner (-1: none), and the IoU with it (0: none).

    The partners are the reward's: the cheapest assignment under its matching cost.
    """
    iou = np.asarray(pairwise_iou(pred, true)).reshape(len(pred), len(true))
    match = np.full(len(pred), -1)
    if iou.size:
        match = assign_on_host(np.asarray(matching_cost(cfg, pred, true)))
    return match.tolist(), [float(iou[q, m]) if m >= 0 else 0.0 for q, m in enumerate(match)]


def found_boxes(cfg: RewardConfig, answers: list[np.ndarray], true: np.ndarray) -> list[float]:
    """For each true box the share of the answers that found it; boxes in the unit frame."""
    found = np.zeros(len(true))
    for pred in answers:
        for m, iou in zip(*partners(cfg, pred, true), strict=True):
            if m >= 0 and np.float32(iou) >= np.float32(cfg.iou_threshold):
                found[m] += 1
    return (found / len(answers)).tolist()


def matched_boxes(cfg: RewardConfig, pred: np.ndarray, true: np.ndarray) -> dict:
    """Boxes as lists, and the `partners` of the predicted ones."""
    match, shared = partners(cfg, pred, true)
    return {
        "pred": np.round(np.float64(pred), 4).tolist(),
        "true": np.round(np.float64(true), 4).tolist(),
        "match": match,
        "match_iou": [round(x, 4) for x in shared],
    }


def pixel_rows(cfg: Config, batches: list[Batch]) -> list[dict]:
    """The pixel-difference baseline's rows: no model, the task's shortcut."""
    reward_of = make_answer_reward(cfg)
    width, height = cfg.data.image_width, cfg.data.image_height
    rows = []
    for batch in batches:
        found = [unit_from_px(pixel_difference(a, b), width, height) for a, b in batch.images]
        texts = [[answer_text(boxes)] for boxes in found]
        ended, lengths = np.ones((len(texts), 1), bool), np.zeros((len(texts), 1), np.int32)
        facts = (batch.truth, batch.pair_id, batch.bucket)
        reward, parsed = reward_of(texts, ended, lengths, *facts)
        rows += answer_rows(cfg.reward, batch, texts, parsed, jax.device_get(reward))
    return rows


def summarize(rows: list[dict], *, resamples: int, seed: int = 0) -> dict[str, list[float]]:
    """metric -> [mean, low, high]: 95 % percentile bootstrap over pairs.

    The metrics are those of `values_by_metric`. The seed is the same for every metric, so metrics
    of the same pairs share their resamples.
    """
    values = values_by_metric(rows)
    return {name: bootstrap(each, resamples, seed) for name, each in values.items()}


def values_by_metric(rows: list[dict]) -> dict[str, list[float]]:
    """metric -> its value for each pair that it is defined for.

    METRICS for all pairs; F1, count accuracy and predicted boxes by the true number of
    differences ("f1_n2"); recall by the type of the difference ("recall_color"): of a pair, the
    mean over its differences of that type.
    """
    values = {name: [row[name] for row in rows] for name in METRICS}
    for n in sorted({row["n_true"] for row in rows}):
        some = [row for row in rows if row["n_true"] == n]
        for name in ("f1", "count_ok", "n_pred"):
            values[f"{name}_n{n}"] = [row[name] for row in some]
    for kind in KINDS:
        found = [_found_of(row, kind) for row in rows if kind in row["kinds"]]
        if found:
            values[f"recall_{kind}"] = found
    return values


def _found_of(row: dict, kind: str) -> float:
    shares = zip(row["kinds"], row["found"], strict=True)
    return float(np.mean([share for name, share in shares if name == kind]))


def bootstrap(values: list[float], resamples: int, seed: int) -> list[float]:
    """Mean of one value per pair with the 2.5 % and 97.5 % quantiles of resampled means."""
    values = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[draws].mean(-1), [0.025, 0.975])
    return [float(values.mean()), float(low), float(high)]


def write_evaluation(cfg: Config, name: str, rows: list[dict], session: Session | None) -> dict:
    """<run_dir>/eval_<name>.json with protocol, summary and rows; returns the summary.

    session   None: a baseline without a model

    Process 0 alone writes.
    """
    summary = summarize(rows, resamples=cfg.eval.bootstrap)
    protocol = {
        "split": cfg.data.eval_split,
        "pairs": len(rows),
        "decode": decode_text(session) if session else "none",
        "max_tokens": cfg.rollout.max_tokens,
        "question": cfg.prompt.question,
        "reward": cfg.reward.function,
        "iou_threshold": cfg.reward.iou_threshold,
        "image": [cfg.data.image_width, cfg.data.image_height],
        "model_image": list(session.image_size[::-1]) if session else None,
    }
    body = {"name": name, "protocol": protocol, "summary": summary, "rows": rows}
    if jax.process_index() == 0:
        folder = Path(cfg.run_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / f"eval_{name}.json", json.dumps(body))
    return summary


def decode_text(session: Session) -> str:
    """How evaluation chooses an answer's tokens, for its protocol."""
    decoding = session.decoding
    if not decoding.temperature:
        return str(decoding)
    return f"{max(1, session.cfg.eval.samples)} samples at {decoding}"


def trained_weights(session: Session, *, from_best: bool = False) -> Params:
    """The parameters of the run's newest checkpoint, or those its validations found best."""
    like = placed_shapes(session.model, session.shardings)
    if from_best:
        return best.load_best(checkpoint.root_of(session.cfg), like)
    return checkpoint.restore_params(session.cfg, like)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Score a policy on held-out pairs.")
    add_config_arguments(parser)
    parser.add_argument("--name", required=True, help="writes <run_dir>/eval_<name>.json")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--source", help="checkpoint folder instead of the config's")
    which.add_argument("--from-run", action="store_true", help="the run's newest checkpoint")
    which.add_argument(
        "--from-best", action="store_true", help="the weights that validated best in the run"
    )
    which.add_argument("--pixel-diff", action="store_true", help="the baseline without a model")
    args = parser.parse_args(argv)
    with clear_errors():
        cfg = config_from(args)
    with distributed.joined():
        evaluate(cfg, args)


def evaluate(cfg: Config, args: argparse.Namespace) -> None:
    """What the command line asks for, on all processes."""
    with clear_errors():
        distributed.check_same("configuration", (config_hash(cfg), vars(args)))
        batches = eval_pairs(cfg)  # the records' own pixels
        find_function(cfg.reward)
        session = None
        if not args.pixel_diff:
            session = open_session(cfg, source=args.source)
            batches = eval_pairs(cfg, size=session.image_size)
            if args.from_run or args.from_best:
                weights = trained_weights(session, from_best=args.from_best)
            else:
                weights = load_weights(session, args.source)
    rows = make_evaluator(session, batches)(weights) if session else pixel_rows(cfg, batches)
    summary = write_evaluation(cfg, args.name, rows, session)
    line = "  ".join(f"{name} {summary[name][0]:.3f}" for name in METRICS)
    if jax.process_index() == 0:
        print(f"{args.name}: {len(rows)} pairs of {cfg.data.eval_split}  {line}")


if __name__ == "__main__":
    main()
