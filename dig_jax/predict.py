"""Box the differences of two pictures, or of every pair in a folder, with a model's answer.

    python -m dig_jax.predict a.png b.png --source FOLDER --out boxes.png
    python -m dig_jax.predict shots --run runs/mine --from-best --out boxes --json

A folder's pairs are X_a.png with X_b.png, or X/a.png with X/b.png. --out is drawn into: both
pictures with the boxes, and their difference. --json prints a line per pair on the standard
output, everything else on the standard error.

Exit status: 0 every answer was read, 1 an error, 2 a wrong request, 3 an answer that could not be
read.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dig_jax.boxes import QWEN_SIDE, px_from_unit
from dig_jax.common.commandline import path_of, place_of, within
from dig_jax.common.files import make_folder, telling_room, write_json
from dig_jax.common.progress import progress
from dig_jax.config import MeshConfig, PromptConfig
from dig_jax.data.inspect import heat
from dig_jax.engine.jobs import Asked, Group, batches, cut_prompt, plan_shapes
from dig_jax.engine.loop import Answered, answer_all
from dig_jax.engine.slots import make_engine
from dig_jax.inputs.images import prepare, target_size
from dig_jax.inputs.pair_files import PairFiles, difference, find_pairs, read_pair
from dig_jax.inputs.prompt import check_ids, decode_answers, opens_thought, render
from dig_jax.pictures.prediction import prediction_sheet
from dig_jax.reward.parse import Parsed, parse
from dig_jax.run.policy import Policy, answer_room, open_policy

UNREAD = 3  # exit status
_CHUNK = 32  # tokens after which the host looks
_SHAPES = 4  # of prompts: a program is compiled for each
_MOST, _MOST_THOUGHT = 1024, 8192  # tokens of an answer, where the context has room for them


@dataclass(frozen=True)
class Questions:
    """Pairs as an engine takes them.

    think     the reward's rule for <think>, by which answers are read
    most      tokens that an answer may have
    warnings  by pair
    """

    groups: list[Group]
    think: str
    most: int
    warnings: dict[str, list[str]]


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dig_jax.predict", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("pictures", type=path_of, nargs="+", metavar="PATH", help="two pictures, or one folder")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--source", type=place_of, metavar="FOLDER", help="checkpoint folder")
    who.add_argument("--run", type=place_of, metavar="RUN", help="a run: its newest checkpoint")
    add("--from-best", action="store_true", help="with --run: the weights that validated best")
    add("--out", type=path_of, help="a .png for two pictures, a folder for a folder")
    add("--json", action="store_true", help="print a line of JSON per pair")
    add("--question", help="default: the run's, or the recipe's")
    most = within(int, 1, 2**20)
    add("--max-tokens", type=most, help=f"of an answer; default: the run's, or {_MOST}")
    pixels = within(int, 0, 2**28)
    for name in ("min", "max"):
        text = f"{name}imum size of a resized picture; 0 is the run's or the checkpoint's own"
        add(f"--{name}-pixels", type=pixels, default=0, metavar="N", help=text)
    add("--rows", type=within(int, 1, 2**14), default=8, help="answers that are drawn at a time")
    add("--tensor", type=within(int, 1, 2**16), default=1, help="devices that share the weights")
    args = parser.parse_args(argv)
    if len(args.pictures) > 2 or (len(args.pictures) == 2 and args.pictures[0].is_dir()):
        parser.error("give two pictures, or one folder of pairs")
    if len(args.pictures) == 1 and args.pictures[0].is_file():
        parser.error(f"{args.pictures[0]} alone is no pair; give a second picture")
    if args.from_best and not args.run:
        parser.error("--from-best is of a run; give --run RUN")
    if len(args.pictures) == 2 and args.out and args.out.suffix.lower() != ".png":
        parser.error(f"--out {args.out} is a picture; end its name in .png")
    return args


def find(args: argparse.Namespace) -> list[PairFiles]:
    """The pairs that were named; raises for a folder with others, and where --out is in the way."""
    if len(args.pictures) == 2:
        if args.out and args.out.resolve() in [path.resolve() for path in args.pictures]:
            raise ValueError(f"--out {args.out} is one of the pictures; name another file")
        if args.out:
            make_folder(args.out.parent)
        return [PairFiles(args.pictures[1].stem, *args.pictures)]
    (folder,) = args.pictures
    found = find_pairs(folder)
    if args.out and folder.resolve() in (args.out.resolve(), *args.out.resolve().parents):
        raise ValueError(
            f"--out {args.out} lies in {folder}, where its pictures would be taken for pairs; "
            f"name another folder"
        )
    if args.out:
        make_folder(args.out)
    return found


def prepare_pairs(args: argparse.Namespace) -> tuple[list[PairFiles], Policy, Questions]:
    """Finds and decodes every picture and checks every prompt; no weights yet."""
    pairs = find(args)
    policy = open_policy(
        args.source,
        args.run,
        from_best=args.from_best,
        decoding="greedy",
        mesh=MeshConfig(1, args.tensor),
        dtype="auto",
        min_pixels=args.min_pixels,
        max_pixels=args.max_pixels,
        as_trained=True,
    )
    return pairs, policy, ask(args, pairs, policy)


def ask(args: argparse.Namespace, pairs: list[PairFiles], policy: Policy) -> Questions:
    """The pairs as groups of one question each; raises naming the file or the prompt."""
    config, trained = policy.layout.model, policy.trained
    prompt = trained.cfg.prompt if trained else PromptConfig()
    ids = render(prompt, policy.processor, args.question or prompt.question, 2)
    check_ids(ids, config.text.vocab, "the question", policy.processor)
    prefix, suffix = cut_prompt(config, ids)
    thought = opens_thought(policy.processor, ids)
    groups, warnings, longest = [], {}, 0
    for pair in pairs:
        pictures, warnings[pair.name] = read_pair(pair)
        sizes = [
            target_size(*picture.shape[:2], policy.rules, str(path))
            for picture, path in zip(pictures, pair[1:], strict=True)
        ]
        groups.append(Group(pair.name, prefix, sizes, partial(_load, pair, policy)))
        cell = config.vision.cell
        longest = max(longest, len(ids) + sum(y * x // cell**2 - 1 for y, x in sizes))
    usual = _MOST_THOUGHT if thought else _MOST
    usual = trained.cfg.rollout.max_tokens if trained else usual
    context = config.text.context
    most = answer_room(args.max_tokens, usual, context=context, longest=longest)
    for group in groups:
        group.asked.append(Asked(group.name, suffix, policy.decoding, (0, 0), most))
    think = trained.cfg.reward.think if trained else "prefilled" if thought else "none"
    return Questions(groups, think, most, warnings)


def answers(args: argparse.Namespace, policy: Policy, questions: Questions) -> Iterator[Answered]:
    """Reads the weights and answers all together, in the order in which the answers end."""
    model, groups = policy.layout.model, questions.groups
    slots = min(args.rows, len(groups))
    rows = max(1, slots // 4)
    engine = make_engine(policy.layout, slots=slots, answer=questions.most)
    coming = batches(model, groups, plan_shapes(model, groups, _SHAPES), rows)
    return answer_all(
        engine,
        policy.layout,
        policy.load(),
        lambda idle: next(coming, None),
        rows=rows,
        chunk=min(_CHUNK, questions.most),
    )


def outcome(pair: PairFiles, parsed: Parsed, pictures, **told: Any) -> dict[str, Any]:
    """What is known of a pair, as JSON has it; boxes_px are half-open pixels of the second."""
    sizes = [list(picture.shape[1::-1]) for picture in pictures]
    boxes = parsed.boxes_unit.astype(float)
    return {
        "pair": pair.name,
        "a": str(pair.a),
        "b": str(pair.b),
        "size_a": sizes[0],
        "size_b": sizes[1],
        "boxes": _rounded(boxes * QWEN_SIDE),
        "boxes_px": _rounded(px_from_unit(boxes, *sizes[1])),
        "verdict": str(parsed.verdict),
        "readable": parsed.readable,
        **told,
    }


def draw(path: Path, pictures, parsed: Parsed, row: dict[str, Any]) -> None:
    """The pair's picture, written to a PNG file."""
    changed = heat.palette()[difference(pictures)]
    stretched = "" if row["size_a"] == row["size_b"] else ", A stretched to B"
    names = [f"A  {Path(row['a']).name}", f"B  {Path(row['b']).name}"]
    sheet = prediction_sheet(
        list(zip(names, pictures, strict=True)),
        parsed.boxes_unit,
        heat=(f"|A - B|{stretched}", changed),
        title=headline(row),
        text=row["answer"],
    )
    with telling_room(path):
        sheet.save(path)


def headline(row: dict[str, Any]) -> str:
    """ "shot: 2 boxes (ok), 41 tokens, 1.3 s"."""
    count = len(row["boxes"])
    read = f"{count} box{'es' * (count != 1)}" if row["readable"] else "not readable"
    return f"{row['pair']}: {read} ({row['verdict']}), {row['tokens']} tokens, {row['seconds']} s"


def say(args: argparse.Namespace, row: dict[str, Any], out) -> None:
    """One pair on the standard output."""
    if args.json:
        print(json.dumps(row), file=out, flush=True)
        return
    print(headline(row), flush=True)
    for number, (box, px) in enumerate(zip(row["boxes"], row["boxes_px"], strict=True), start=1):
        thousandths, pixels = (" ".join(f"{v:g}" for v in some) for some in (box, px))
        print(f"  {number}  {thousandths} of 1000   {pixels} px of {Path(row['b']).name}")
    if len(args.pictures) == 2 or not row["readable"]:
        print(f"  answer: {row['answer']}", flush=True)


def predict(args: argparse.Namespace, out) -> int:
    """Checks, answers, draws and prints; `out` takes the JSON.  ->  exit status"""
    pairs, policy, questions = prepare_pairs(args)
    for text in (text for some in questions.warnings.values() for text in some):
        print(f"warning: {text}", file=sys.stderr)
    by_name, unread = {pair.name: pair for pair in pairs}, 0
    found, start = answers(args, policy, questions), time.monotonic()
    several = len(args.pictures) == 1
    with progress("pairs", "answered") if several else contextlib.nullcontext() as tell:
        for number, one in enumerate(found, start=1):
            pair, seconds = by_name[one.tag], round(time.monotonic() - start, 2)
            row = finish(args, pair, one, policy, questions, seconds)
            unread += not row["readable"]
            say(args, row, out)
            if tell:
                tell(number, len(pairs), "")
    if several and args.out:
        print(f"written: {args.out}", flush=True)
    return UNREAD if unread else 0


def finish(args, pair: PairFiles, one: Answered, policy, questions, seconds) -> dict[str, Any]:
    """Reads an answer, and draws it where --out says."""
    stops, length = policy.layout.model.eos_tokens, len(one.tokens)
    text = decode_answers(policy.processor, one.tokens, length, stops=stops)
    parsed = parse(text, think=questions.think, ended=one.ended)
    pictures, warnings = read_pair(pair)
    told = {"answer": text, "ended": one.ended, "tokens": length, "seconds": seconds}
    row = outcome(pair, parsed, pictures, **told, warnings=warnings)
    if args.out and len(args.pictures) == 2:
        draw(args.out, pictures, parsed, row)
    elif args.out:
        draw(args.out / f"{pair.name}.png", pictures, parsed, row)
        write_json(args.out / f"{pair.name}.json", row)
    return row


def _load(pair: PairFiles, policy: Policy) -> list[np.ndarray]:
    pictures, _ = read_pair(pair)
    named = zip(pictures, pair[1:], strict=True)
    return [prepare(picture, policy.rules, str(path)) for picture, path in named]


def _rounded(boxes: np.ndarray) -> list[list[float]]:
    """To hundredths; a whole number as an int."""
    rows = np.round(boxes, 2).tolist()
    return [[int(v) if v.is_integer() else v for v in row] for row in rows]


def main(argv: list[str] | None = None) -> int:
    args, out = parse_args(argv), sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
            return predict(args, out)
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print(f"error: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
