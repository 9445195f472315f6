"""One table over one set of generations: what each reward function makes of the same answers.

    .venv/bin/python -m scripts.study.compare_rewards --config configs/tiny_cpu.py --answers a.jsonl
    .venv/bin/python -m scripts.study.compare_rewards --answers a.jsonl --function mine:reward

Where the file of --answers does not exist (or none is named), the policy answers every held-out
pair of the config G times at rollout.temperature (--group; --source or --from-run choose the
weights) and the answers are written there. Where it exists no model is needed; a --config then
gives the reward's settings alone.

A line of the file is one pair: {"pair_id", "bucket", "width", "height", "truth": [[x0, y0, x1, y1]
in the unit frame], "answers": [{"text", "ended", "tokens"}]}.

Columns: mean and standard deviation over answers; share of groups in which all answers earn the
same (they teach GRPO nothing); Spearman's rank correlation with dig over answers; mean by the true
number of differences.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from dig_jax.boxes import pad_boxes
from dig_jax.common.commandline import add_settings, clear_errors, path_of, place_of
from dig_jax.common.files import write_text
from dig_jax.common.typed import override
from dig_jax.config import REWARD_PRESETS, Config, RewardConfig, load_config
from dig_jax.reward.answers import make_samples
from dig_jax.reward.custom import call, find_function
from dig_jax.reward.functions import NAMED, dig
from dig_jax.reward.parse_batch import parse_batch
from dig_jax.reward.sample import Sample
from dig_jax.run.runlog import progress
from dig_jax.scoring.table import markdown

Rewards = dict[str, Callable[[Sample], object]]


def rewards(cfg: RewardConfig, own: list[str] = ()) -> Rewards:
    """Row name -> function: dig first, its presets, the neighbours, then the user's own."""
    rows = {"dig": functools.partial(dig, cfg=cfg)}
    for name, preset in REWARD_PRESETS.items():
        weights = {key: getattr(preset, key) for key in ("w_format", "w_f1", "w_iou")}
        rows[f"dig {name}"] = functools.partial(dig, cfg=dataclasses.replace(cfg, **weights))
    rows |= {name: function for name, function in NAMED.items() if name != "dig"}
    return rows | {name: find_function(RewardConfig(function=name)) for name in own}


def groups_of(cfg: RewardConfig, pairs: list[dict]) -> list[list[Sample]]:
    """The samples of every pair, in the order of the file; sizes of groups may differ."""
    groups = []
    for pair in pairs:
        answers = pair["answers"]
        texts = [answer["text"] for answer in answers]
        ended = np.array([answer["ended"] for answer in answers], bool)
        tokens = np.array([answer["tokens"] for answer in answers], np.int32)
        read = parse_batch(texts, ended, think=cfg.think, max_boxes=cfg.max_boxes).parsed()
        truth = pad_boxes([pair["truth"]], len(pair["truth"]))
        meta = {name: pair[name] for name in ("pair_id", "bucket", "width", "height")}
        groups.append(list(make_samples([texts], [ended], [tokens], truth, [meta], [read])))
    return groups


def compare(functions: Rewards, groups: list[list[Sample]]) -> list[list[str]]:
    """Header and one row per function; "-" where a correlation is not defined."""
    counts = np.array([len(group[0].truth) for group in groups])
    scores = {
        name: [call(function, name, group, len(group))[0] for group in groups]
        for name, function in functions.items()
    }
    reference = np.concatenate(scores["dig"])
    numbers = sorted(set(counts.tolist()))
    head = ["reward", "mean", "std", "flat groups", "rank corr. with dig"]
    table = [[*head, *(f"mean, {n} true" for n in numbers)]]
    for name, by_group in scores.items():
        all_scores = np.concatenate(by_group)
        flat = np.mean([np.ptp(score) == 0 for score in by_group])
        row = [all_scores.mean(), all_scores.std(), flat, rank_correlation(all_scores, reference)]
        for n in numbers:
            some = [score for score, count in zip(by_group, counts, strict=True) if count == n]
            row.append(np.concatenate(some).mean())
        table.append([name, *("-" if np.isnan(x) else f"{x:.3f}" for x in row)])
    return table


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; NaN where one side is constant and so has no order."""
    return float(spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else float("nan")


def sample_pairs(cfg: Config, group: int, source: str | None, from_run: bool) -> list[dict]:
    """Every held-out pair with `group` answers of the policy, as rows of the file."""
    import jax

    from dig_jax.data.feed.pipeline import eval_pairs
    from dig_jax.evaluate import trained_weights
    from dig_jax.mesh import programs, sharding
    from dig_jax.run.session import load_weights, open_session

    with clear_errors():
        session = open_session(cfg, source=source, training=False)
        batches = eval_pairs(cfg, size=session.image_size)
        params = trained_weights(session) if from_run else load_weights(session, source)
    weights = programs.jit_reshard(session)(params)
    sample = programs.jit_sampler(session, group=group, whole=True)
    prompt, key = session.prompt_rows(cfg.eval.batch), jax.random.key(cfg.seed)
    key = sharding.replicate(jax.random.key_data(key), session.mesh)
    pairs = []
    for number, batch in enumerate(progress(batches, "answers")):
        images = sharding.shard_global(batch.images, session.mesh)
        first = number * cfg.eval.batch
        host = jax.device_get(sample(weights, prompt, images, jax.random.wrap_key_data(key), first))
        texts = session.texts(host.tokens, host.valid.sum(-1))
        pairs += batch_rows(cfg, batch, texts, host.ended, host.valid.sum(-1))
    return pairs


def batch_rows(cfg: Config, batch, texts, ended, tokens) -> list[dict]:
    """The real pairs of a batch as rows of the file."""
    size = {"width": cfg.data.image_width, "height": cfg.data.image_height}
    rows = []
    for i in np.flatnonzero(batch.real):
        answers = [
            {"text": text, "ended": end, "tokens": count}
            for text, end, count in zip(
                texts[i], ended[i].tolist(), tokens[i].tolist(), strict=True
            )
        ]
        rows.append(
            {
                "pair_id": int(batch.pair_id[i]),
                "bucket": cfg.data.eval_split,
                **size,
                "truth": batch.truth.boxes[i][batch.truth.valid[i]].tolist(),
                "answers": answers,
            }
        )
    return rows


def write_answers(path: Path, pairs: list[dict]) -> None:
    write_text(path, "".join(json.dumps(pair) + "\n" for pair in pairs))


def read_answers(path: Path) -> list[dict]:
    """The pairs of a file of `write_answers`; ValueError names the line that is none."""
    pairs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            pair = json.loads(line)
            groups_of(RewardConfig(), [pair])
            if not pair["answers"]:
                raise ValueError("no answers")
        except (ValueError, TypeError, KeyError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{path} line {number} is no pair with answers ({what})") from error
        pairs.append(pair)
    if not pairs:
        raise ValueError(f"{path} holds no pairs; delete it to sample answers anew")
    return pairs


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=place_of, metavar="F", help="a file of configs/")
    add_settings(parser, "one field of the config, by its dotted path")
    parser.add_argument(
        "--run-dir", type=place_of, metavar="D", help="run folder, instead of the config's"
    )
    parser.add_argument("--answers", type=path_of, metavar="J", help="generations, read or written")
    parser.add_argument("--function", action="append", default=[], metavar="module:fn")
    parser.add_argument("--group", type=int, metavar="G", help="answers per pair; rollout.group")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--source", type=place_of, help="checkpoint folder instead of the config's")
    which.add_argument("--from-run", action="store_true", help="the run's newest checkpoint")
    args = parser.parse_args(argv)
    known = args.answers is not None and args.answers.is_file()
    if not args.config and not known:
        parser.error("give --config to sample answers, or --answers with a file that exists")
    with clear_errors():
        cfg = load_config(args.config) if args.config else Config()
        cfg = override(cfg, args.settings)
        cfg = dataclasses.replace(cfg, run_dir=args.run_dir) if args.run_dir else cfg
        functions = rewards(cfg.reward, args.function)
        pairs = read_answers(args.answers) if known else None
    if pairs is None:
        pairs = sample_pairs(cfg, args.group or cfg.rollout.group, args.source, args.from_run)
        if args.answers:
            write_answers(args.answers, pairs)
    total = sum(len(pair["answers"]) for pair in pairs)
    print(f"{total} answers to {len(pairs)} pairs\n")
    print(markdown(compare(functions, groups_of(cfg.reward, pairs))))


if __name__ == "__main__":
    main()
