"""Held-out evaluation: what a policy boxes on pairs it has never trained on.

    python -m dig_jax.evaluate --config configs/tiny_cpu.py --name before
    python -m dig_jax.evaluate --config configs/tiny_cpu.py --name after --from-run --more

Scores are means over pairs with 95 % bootstrap intervals over pairs; the answer to a pair is
greedy unless eval.samples asks for draws at the rollout temperature, or eval.decoding for the
checkpoint's own way. With --more the greedy answer is scored too, also to the pairs of eval.splits.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from dig_jax.boxes import boxes_text, unit_from_px
from dig_jax.common.commandline import clear_errors, place_of
from dig_jax.common.files import NoRoom, make_folder, write_sealed
from dig_jax.config import Config, config_hash
from dig_jax.config.commandline import add_config_arguments, config_from
from dig_jax.data.feed.batch import Batch
from dig_jax.data.feed.pipeline import eval_pairs
from dig_jax.data.inspect.baseline import pixel_difference
from dig_jax.inputs.decoding import Decoding
from dig_jax.mesh import distributed
from dig_jax.model.params import Params, placed_shapes
from dig_jax.reward.answers import make_answer_reward
from dig_jax.reward.custom import find_function
from dig_jax.run import best, checkpoint, manifest
from dig_jax.run.scorer import make_evaluator
from dig_jax.run.session import Session, load_weights, open_session
from dig_jax.scoring.metrics import METRICS
from dig_jax.scoring.rows import answer_rows
from dig_jax.scoring.statistics import summarize


def pixel_rows(cfg: Config, batches: list[Batch]) -> list[dict]:
    """The pixel-difference baseline's rows: no model, the task's shortcut."""
    reward_of = make_answer_reward(cfg)
    width, height = cfg.data.image_width, cfg.data.image_height
    rows = []
    for batch in batches:
        found = [unit_from_px(pixel_difference(a, b), width, height) for a, b in batch.images]
        texts = [[boxes_text(boxes)] for boxes in found]
        ended, lengths = np.ones((len(texts), 1), bool), np.zeros((len(texts), 1), np.int32)
        facts = (batch.truth, batch.pair_id, batch.bucket)
        reward, parsed = reward_of(texts, ended, lengths, *facts)
        rows += answer_rows(cfg.reward, batch, texts, parsed, jax.device_get(reward))
    return rows


def beside(cfg: Config, name: str, *, greedy: bool) -> dict[str, Config]:
    """What --more scores: name of an evaluation -> its configuration, answers greedy.

    greedy  whether the held-out split is among them
    """
    alone = replace(cfg, eval=replace(cfg.eval, samples=0, decoding="policy", splits=()))
    found = {f"{name}_greedy": alone} if greedy else {}
    for split in cfg.eval.splits:
        found[f"{name}_{split}"] = replace(alone, data=replace(cfg.data, eval_split=split))
    return found


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
        with clear_errors(NoRoom):
            make_folder(folder)
            body[manifest.RUN] = manifest.number_for(folder, checkpoint.run_number(cfg))
            write_sealed(folder / f"eval_{name}.json", body)
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
    which.add_argument("--source", type=place_of, help="checkpoint folder instead of the config's")
    which.add_argument("--from-run", action="store_true", help="the run's newest checkpoint")
    which.add_argument(
        "--from-best", action="store_true", help="the weights that validated best in the run"
    )
    which.add_argument("--pixel-diff", action="store_true", help="the baseline without a model")
    parser.add_argument(
        "--more", action="store_true", help="greedy answers too, also to the pairs of eval.splits"
    )
    args = parser.parse_args(argv)
    with clear_errors():
        cfg = config_from(args)
    with distributed.joined():
        evaluate(cfg, args)


def evaluate(cfg: Config, args: argparse.Namespace) -> None:
    """What the command line asks for, on all processes."""
    with clear_errors():
        distributed.check_same("configuration", (config_hash(cfg), vars(args)))
        find_function(cfg.reward)
        session = None
        if args.pixel_diff:
            batches = eval_pairs(cfg)  # the records' own pixels
        else:
            session = open_session(cfg, source=args.source, training=False)
            batches = eval_pairs(cfg, size=session.image_size)
            if args.from_run or args.from_best:
                weights = trained_weights(session, from_best=args.from_best)
            else:
                weights = load_weights(session, args.source)
        more = beside(cfg, args.name, greedy=session is not None) if args.more else {}
        size = session.image_size if session else None
        also = {name: eval_pairs(one, size=size, fewer=True) for name, one in more.items()}
    rows = make_evaluator(session)(weights, batches) if session else pixel_rows(cfg, batches)
    tell(cfg, args.name, rows, session)
    if session and more:
        session = replace(session, cfg=next(iter(more.values())), decoding=Decoding(0.0))
        score = make_evaluator(session)  # compiled once for all of them
    for name, one in more.items():
        rows = score(weights, also[name]) if session else pixel_rows(one, also[name])
        tell(one, name, rows, session and replace(session, cfg=one))


def tell(cfg: Config, name: str, rows: list[dict], session: Session | None) -> None:
    """Writes an evaluation, and its line to the screen."""
    summary = write_evaluation(cfg, name, rows, session)
    line = "  ".join(f"{metric} {summary[metric][0]:.3f}" for metric in METRICS)
    if jax.process_index() == 0:
        print(f"{name}: {len(rows)} pairs of {cfg.data.eval_split}  {line}")


if __name__ == "__main__":
    main()
