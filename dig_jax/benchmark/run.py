"""The verb run: a model answers a benchmark's questions, and is scored by its rules.

    python -m dig_jax.benchmark run --root R --suite paper --source FOLDER --out D
    python -m dig_jax.benchmark run --root R --suite pope,vstar --run runs/mine --from-best --out D

Every answer is on the disk as soon as it has ended; the same command goes on after any stop.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from dig_jax.benchmark import cost, store
from dig_jax.benchmark.asking import Prepared, Tag, ask, prepare_questions
from dig_jax.benchmark.choice import limited, share
from dig_jax.benchmark.score import RESAMPLES, table
from dig_jax.benchmarks import prompts
from dig_jax.benchmarks.catalog import entry_of
from dig_jax.benchmarks.question import Question
from dig_jax.benchmarks.questions import (
    data_digest,
    pictures_digest,
    read_questions,
    rows_of,
    wanted,
)
from dig_jax.benchmarks.readings import PARSERS
from dig_jax.benchmarks.result import make_result, protocol, read_result, write_result
from dig_jax.benchmarks.scored import score_answer
from dig_jax.common.commandline import path_of, place_of, seed_of, within
from dig_jax.common.locks import NAME as LOCK
from dig_jax.common.locks import owned
from dig_jax.common.progress import progress
from dig_jax.config import MeshConfig
from dig_jax.engine.jobs import batches, plan_shapes
from dig_jax.engine.loop import Answered, answer_all
from dig_jax.engine.slots import Engine, make_engine
from dig_jax.inputs.prompt import decode_answers
from dig_jax.mesh import distributed
from dig_jax.run import manifest
from dig_jax.run.policy import DECODINGS, Policy, answer_room, open_policy

MOST = 8192  # tokens of an answer, where the model's context has room for them
TOKENS_EVAL = (768, 12800)  # of a picture, in Qwen's own evaluation code
CHUNK = 32  # tokens after which the host looks
_SHAPES = 6  # of prompts, per benchmark
_ASKED = ("thinking", "data_digest", "pictures_digest")  # of a protocol: what answers are of


@dataclass(frozen=True)
class Task:
    """One benchmark that is to be answered.

    tags  answers that this share has to give, those included that are there
    """

    name: str
    questions: list[Question]
    prepared: Prepared
    tags: list[Tag]
    protocol: dict[str, Any]
    warnings: list[str]


def add_arguments(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.description = "Answer benchmarks' questions with a model, and score the answers."
    add = parser.add_argument
    add("--root", type=path_of, required=True, help="folder that holds a folder per benchmark")
    add(
        "--suite",
        required=True,
        help="perception, general, refcoco, paper; here: all of the root; or names with commas",
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--source", type=place_of, help="checkpoint folder")
    who.add_argument("--run", type=place_of, help="a run: its newest checkpoint")
    add("--from-best", action="store_true", help="with --run: the weights that validated best")
    add("--out", type=path_of, required=True, help="result folder; the same goes on")
    count = within(int, 1, 2**20)
    add("--limit", type=count, help="questions of each benchmark, drawn with what they share")
    add("--decoding", choices=DECODINGS, default="checkpoint", help="how tokens are chosen")
    add("--repeats", type=within(int, 1, 1000), default=1, help="answers to each question")
    add("--seed", type=seed_of, default=0, help="of the draws")
    add("--max-tokens", type=count, help=f"of an answer; default: {MOST}, or what the context has")
    add(
        "--pixels",
        choices=("checkpoint", "qwen-eval"),
        default="checkpoint",
        help="limits of a picture",
    )
    pixels = within(int, 0, 2**28)
    add("--min-pixels", type=pixels, default=0, help="of a resized picture; 0: as --pixels says")
    add("--max-pixels", type=pixels, default=0, help="of a resized picture; 0: as --pixels says")
    add("--prompt", choices=prompts.PROMPTS, default=prompts.PROMPTS[0], help="for expressions")
    add("--parser", choices=PARSERS, default="dig_jax", help="whose rules read the answers")
    add("--resamples", type=within(int, 0, 10**6), default=RESAMPLES, help="of the bootstrap")
    add(
        "--shards", type=shard_of, default=(1, 1), metavar="I/N", help="answer the I-th of N shares"
    )
    add("--rows", type=within(int, 1, 2**14), default=16, help="answers that are drawn at a time")
    add(
        "--fsdp",
        type=count,
        help="copies of the weights, rows spread over them; default: as many "
        "as there are devices for",
    )
    add("--tensor", type=count, default=1, help="devices that share a copy")
    add("--dtype", choices=("auto", "float32", "bfloat16"), default="auto", help="of matmuls")


def shard_of(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8)."""
    number, _, count = text.partition("/")
    ok = number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)
    if not ok:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N, as 1/8")
    return int(number), int(count)


def run(args: argparse.Namespace, verb: str) -> int:
    """Check everything, read the weights, answer and score benchmark after benchmark."""
    with distributed.joined():
        distributed.check_same("command", vars(args))
        tasks, policy, common = prepare(args)
        distributed.check_shared("--out", args.out)
        first = jax.process_index() == 0
        lock = args.out / f"share-{args.shards[0]}-of-{args.shards[1]}-{LOCK}"
        with owned("--out", *[lock] * first):
            if first:
                store.check_protocol(args.out, common)
                for task in tasks:
                    asked = {name: task.protocol[name] for name in _ASKED}
                    store.check_protocol(args.out / task.name, asked)
            left = {task.name: _left(args, task) for task in tasks}
            engine, params = None, None
            for task in tasks:
                if left[task.name] and engine is None:
                    params = policy.load()
                    most = common["max_tokens"]
                    engine = make_engine(policy.layout, slots=args.rows, answer=most)
                if left[task.name]:
                    answer(args, task, left[task.name], policy, engine, params)
                if first:
                    finish(args, task)
    return 0


def prepare(args: argparse.Namespace) -> tuple[list[Task], Policy, dict[str, Any]]:
    """Reads all questions, checks all prompts against the model; no weights yet.

    ->  tasks, who answers, and the protocol that they have in common
    """
    names = wanted(args.root, args.suite)
    read = {name: read_questions(args.root, name, prompt=args.prompt) for name in names}
    policy = open_policy(
        args.source,
        args.run,
        from_best=args.from_best,
        decoding=args.decoding,
        mesh=MeshConfig(args.fsdp or max(1, jax.device_count() // args.tensor), args.tensor),
        dtype=args.dtype,
        min_pixels=args.min_pixels or _budget(args, 0),
        max_pixels=args.max_pixels or _budget(args, 1),
    )
    if args.repeats > 1 and not policy.decoding.temperature:
        raise ValueError(
            f"--repeats {args.repeats} greedy answers are all the same; use --decoding card or "
            f"readme, or --repeats 1"
        )
    some = {name: limited(questions, args.limit) for name, (questions, _) in read.items()}
    prepared = {name: prepare_questions(name, some[name], policy) for name in names}
    longest = max(each.longest for each in prepared.values())
    context = policy.layout.model.text.context
    most = answer_room(args.max_tokens, MOST, context=context, longest=longest)
    common = _common(args, policy, most)
    tasks = []
    for name, (questions, warnings) in read.items():
        if len(some[name]) < len(questions):
            warnings = [*warnings, f"--limit: {len(some[name])} of {len(questions)} questions"]
        # of all: some are of the same data
        told = common | {
            "data_digest": data_digest(questions),
            "pictures_digest": pictures_digest(questions),
        }
        tasks.append(_task_of(name, some[name], warnings, prepared[name], told, args))
    return tasks, policy, common


def answer(
    args: argparse.Namespace,
    task: Task,
    tags: Sequence[Tag],
    policy: Policy,
    engine: Engine,
    params,
) -> None:
    """Draws the answers that are not there yet, and writes each as it ends."""
    layout, model = policy.layout, policy.layout.model
    rows = max(layout.mesh.shape["fsdp"], args.rows // 4)
    rows -= rows % layout.mesh.shape["fsdp"]
    most = task.protocol["max_tokens"]
    groups = ask(task.prepared, tags, policy, seed=args.seed, most=most)
    coming = batches(model, groups, plan_shapes(model, groups, _SHAPES), rows)
    found = answer_all(
        engine, layout, params, lambda idle: next(coming, None), rows=rows, chunk=min(CHUNK, most)
    )
    path = args.out / task.name / store.answers_name(args.shards)
    if jax.process_index():
        for _ in found:
            continue
        return
    spent = cost.told(path.with_name(store.cost_name(args.shards)), layout.mesh.size)
    with store.appending(path) as write, spent as counts, progress(task.name, "answers") as tell:
        done = len(task.tags) - len(tags)
        for number, one in enumerate(found, start=done + 1):
            write([_row(one, policy)])
            counts["answers"] += 1
            counts["tokens"] += len(one.tokens)
            tell(number, len(task.tags), "")


def finish(args: argparse.Namespace, task: Task) -> None:
    """Scores a benchmark all of whose answers are there, and says so."""
    answers = store.read_answers(args.out / task.name)
    wanted = [(q, sample) for q in task.questions for sample in range(args.repeats)]
    missing = [q.id for q, sample in wanted if (q.id, sample) not in answers]
    if missing:
        print(f"{task.name}: {len(missing)} answers are other shares' to give", flush=True)
        return
    how = {"parser": task.protocol["parser"], "thinking": task.protocol["thinking"]}
    scored = []
    for question, sample in wanted:
        row = answers[question.id, sample]
        facts = {"sample": sample, "ended": row["ended"], "tokens": row["tokens"]}
        scored.append(score_answer(question, row["answer"], **how, **facts))
    told = {"protocol": task.protocol, "warnings": task.warnings}
    result = make_result(task.name, scored, **told, resamples=args.resamples)
    path = args.out / task.name / "result.json"
    known = _scored_before(path)
    if known > len(scored):
        said = f"keeps its {known} answers; name another --out for a result of {len(scored)}"
        print(f"{task.name}: {path} {said}", flush=True)
    else:
        write_result(path, result)
    print("\n".join(table(result)), flush=True)


def _scored_before(path: Path) -> int:
    """How many answers a result.json is of; 0 where there is none, or a damaged one."""
    try:
        return len(read_result(path)["rows"])
    except (OSError, ValueError):
        return 0


def _left(args: argparse.Namespace, task: Task) -> list[Tag]:
    known = store.read_answers(args.out / task.name)
    left = [tag for tag in task.tags if tag not in known]
    distributed.check_same(f"answers of {task.name}", len(left))
    return left


def _row(one: Answered, policy: Policy) -> dict[str, Any]:
    stops = policy.layout.model.eos_tokens
    length = len(one.tokens)
    text = decode_answers(policy.processor, one.tokens, length, stops=stops)
    name, sample = one.tag
    return {"id": name, "sample": sample, "answer": text, "ended": one.ended, "tokens": length}


def _budget(args: argparse.Namespace, which: int) -> int:
    """Pixels that --pixels stands for; 0: the checkpoint's own."""
    return 0 if args.pixels == "checkpoint" else TOKENS_EVAL[which] * 32**2


def _common(args: argparse.Namespace, policy: Policy, most: int) -> dict[str, Any]:
    """What all benchmarks of a result folder have in common."""
    rules = policy.rules
    return {
        "parser": PARSERS[args.parser],
        "prompt": prompts.prompt_version(args.prompt),
        "seed": args.seed,
        "samples": args.repeats,
        "max_tokens": most,
        "min_pixels": rules.min_pixels,
        "max_pixels": rules.max_pixels,
        **policy.facts,
    }


def _task_of(name, questions, warnings, prepared: Prepared, told, args) -> Task:
    told = told | {
        "thinking": prepared.thinking,
        "rows": rows_of(questions),
        "expected_rows": entry_of(name).expected(rows_of(questions)),
        "commit": manifest.git_commit(),
        "versions": manifest.versions(),
    }
    tags = [(one, n) for one in share(questions, args.shards) for n in range(args.repeats)]
    return Task(name, questions, prepared, tags, protocol(**told), warnings)
