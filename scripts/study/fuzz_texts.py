"""Any text is read, by all readers alike, in time linear in its length: texts by the million.

    .venv/bin/python -m scripts.study.fuzz_texts --count 1000000 --seed 0

A text is one of five kinds: near the form asked for, by a grammar; a real answer (of the tiny base)
with one to six edits; pieces of the form in any order; bytes; and, one in a thousand, up to 10^6
characters of a short unit again and again. Under a drawn think rule, cap and end, it goes through
`parse`, through `parse_batch` among 256 others, and through the EasyR1 file's `read_answer`.

Printed: texts by kind, verdicts, disagreements and exceptions (each text as Python writes it, with
what it was read under), seconds, and by decade of length the most nanoseconds per character that a
single `parse` took: at the long end these must not grow. Exits with 1 where anything disagreed or
raised. Chunk n of a seed is the same however many are asked for.
"""

import argparse
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from dig_jax.boxes import unit_from_qwen
from dig_jax.data.exchange.easyr1_reward import read_answer
from dig_jax.reward.parse import Parsed, parse
from dig_jax.reward.parse_batch import parse_batch

CHUNK = 256  # texts under one think rule and one cap: a batch
SHOWN = 20  # failures printed in full
THINKS = ("none", "prefilled", "full")
REAL = (  # answers of assets/tiny_qwen3vl, sampled at temperature 1
    '[{"bbox_2d": [560, 500, 833, 934]}]',
    '[{"bbox_2d": [502, 21\ufffd, 650, 399]}]',
    '[{"bbox_2d": [648, 234, 969, 75\t]}]',
    '[{"bbox_2d": [704, 156, 875, 456]}, {"bbox_2d": [94, 328, 302, 6\x141]}]',
    '[{"bbox_2d": [627, 62, 881, 375]}, {"bbox_2d": [479, 956, 617, 703]}]',
    '[{"bbox_2d": [435, 328, 717, 7384]}, {"bbox_2d": [354, 516, 656, 969]}]',
    '[{"bbox_2d": [469, 31, 798, 391]}, {"bbox_2d": [104, 78, 333, 409]}, {"bbox_2d": [40, 159]}]',
    '[{"bbox_2d": [11, 147, 292, 500]}, {"bbox_2d": [62, 37, 298, 558, 675, 784, 297, 45456]}]',
    '[{"bbox_2d": [604, 47, 844, 422]}, {"bbox_2d": [198, 375, 385, 784]}, '
    '{"bbox_2d": [42, 428, 381, 878]}, {"bbox_2d": [12, 288, 221, 678]}]',
    '[{"bbox_\ufffd0, 60, 1\ufffd2,\n        [\n                {"bbox_8, 3\ufffd0\ufffd212, 7]}, '
    '{"bbox_2]}, {"bbox_\ufffd71]}]',
    "[]",
)
PIECES = (
    *"[]{}(),:\"'.-+eE0123456789 \n\t\\/\u00e9\u0660\ud800\x00\x7f\v\u00a0\u2028\ufeff",
    *('"bbox_2d"', '"bbox"', '"label"', '"bbox\\u005f2d"', '"point_2d"', "'box'", "\\u0022"),
    *("<think>", "</think>", "<answer>", "</answer>", "<|im_end|>", "<|endoftext|>"),
    *("<|im_start|>", "<|", "|>", "```json", "```", "NaN", "Infinity", "null", "true", "1e999"),
    *("9" * 400, "-0", "007", "1001", "[1,2,3,4]", "[]", '{"bbox_2d": [1, 2, 30, 40]}', " " * 40),
)
NUMBERS = ("-1", "-0", "007", "1001", "1000.0", "1e2", "2.", ".5", "", "99999999999999", "200e")
KEYS = ('"bbox_2d"',) * 8 + ('"bbox\\u005f2d"', '"bbox"', "'bbox_2d'", '"bbox_3d"', "bbox_2d")
LABELS = ('"d"', '"a red cube"', '"in [1,2,3,4]"', '"\\""', '"<answer>"', '"<think>"', "7")
LABELS += ('"<|a|>"', '"{}"')
GAPS = ("", "", "", " ", "\n", "\t", " " * 8, " " * 9, " " * 25, " " * 40, "\u00a0")
AROUND = ("{}",) * 6 + ("```json\n{}\n```", "```json{}", "Here: {}", "{} done", "{}{}")
AROUND += ("<answer>{}</answer>", "{}<|im_end|>", "{}<|endoftext|><|im_end|>", "\ufeff{}")
AROUND += ('{"a": {}}',)
THOUGHTS = {"none": "", "prefilled": "so [1,2,3,4]\n</think>\n\n", "full": "<think>so</think>"}
OTHER_THOUGHTS = ("<think>", "</think>", "<|im_start|></think>", "<think>a</think></think>", "so")
KINDS = ("form", "edited", "pieces", "bytes", "long")


class Case(NamedTuple):
    """A text, what it is read under, and how it was made."""

    text: str
    kind: str
    think: str
    ended: bool
    max_boxes: int


@dataclass
class Tally:
    """What some texts came to; `slowest` is decade of length -> nanoseconds per character."""

    kinds: Counter = field(default_factory=Counter)
    verdicts: Counter = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)
    exceptions: list[str] = field(default_factory=list)
    slowest: dict[int, float] = field(default_factory=dict)


def pick(rng: np.random.Generator, some):
    return some[rng.integers(len(some))]


def thought(rng: np.random.Generator, think: str) -> str:
    """What `think` asks for; now and then something else."""
    return THOUGHTS[think] if rng.random() < 0.8 else pick(rng, OTHER_THOUGHTS)


def form(rng: np.random.Generator) -> str:
    """The form asked for; each part of it now and then something else."""
    odd = rng.random() < 0.7
    gap = pick(rng, GAPS) if odd else pick(rng, ("", " "))

    def number(value):
        return pick(rng, NUMBERS) if odd and rng.random() < 0.05 else str(value)

    def item(_):
        count = rng.integers(0, 6) if odd and rng.random() < 0.05 else 4
        low, high = np.sort(rng.integers(0, 1001, (2, 2)), axis=0).tolist()
        corners = [number(n) for n in (*low, *high, 0)[:count]]
        key = pick(rng, KEYS) if odd else KEYS[0]
        parts = [f"{key}{gap}:{gap}[{f',{gap}'.join(corners)}]"]
        if rng.random() < 0.3:
            label = pick(rng, LABELS) if odd else LABELS[0]
            parts.insert(rng.integers(0, 2), f'"label"{gap}:{gap}{label}')
        return "{" + gap + f"{gap},{gap}".join(parts) + gap + "}"

    body = "[" + f"{gap},{gap}".join(map(item, range(rng.integers(0, 6)))) + "]"
    around = pick(rng, AROUND) if odd else "{}"
    return around.replace("{}", body)


def edited(rng: np.random.Generator) -> str:
    chars = list(pick(rng, REAL))
    for _ in range(rng.integers(1, 7)):
        at = rng.integers(len(chars) + 1)
        chars[at : at + rng.integers(0, 4)] = [pick(rng, PIECES)]
    return "".join(chars)


def pieces(rng: np.random.Generator) -> str:
    return "".join(PIECES[i] for i in rng.integers(len(PIECES), size=rng.integers(0, 40)))


def noise(rng: np.random.Generator) -> str:
    """Bytes as a decoder may hand them on: some replaced, some as lone surrogates, some Latin."""
    data = rng.bytes(int(rng.integers(0, 200)))
    how = rng.integers(3)
    if how == 2:
        return data.decode("latin-1")
    return data.decode("utf-8", ("replace", "surrogateescape")[how])


def long(rng: np.random.Generator) -> str:
    """A unit again and again, between 10^3 and 10^6 characters, perhaps inside a right list."""
    unit = "".join(pick(rng, PIECES) for _ in range(rng.integers(1, 5)))
    body = unit * max(1, int(10 ** rng.uniform(3, 6)) // len(unit))
    return pick(rng, ("{}", "[{}]", '[{"bbox_2d": [{}', "```json{}```", "{}</think>[]")).replace(
        "{}", body, 1
    )


MAKERS = dict(zip(KINDS, (form, edited, pieces, noise, long), strict=True))
SHARES = (0.45, 0.3, 0.15, 0.099, 0.001)


def chunk_of(seed: int, number: int) -> list[Case]:
    """The CHUNK cases of a chunk, under one think rule and one cap."""
    rng = np.random.default_rng((seed, number))
    think, max_boxes = THINKS[number % 3], int(rng.integers(1, 7))
    kinds = rng.choice(len(KINDS), CHUNK, p=SHARES)
    ended = rng.random(CHUNK) < 0.8

    def case(kind: str, end: bool) -> Case:
        return Case(thought(rng, think) + MAKERS[kind](rng), kind, think, end, max_boxes)

    return [case(KINDS[kind], bool(end)) for kind, end in zip(kinds, ended, strict=True)]


def cases(count: int, seed: int) -> Iterator[list[Case]]:
    for number in range(-(-count // CHUNK)):
        yield chunk_of(seed, number)[: count - number * CHUNK]


def fuzz(chunk: list[Case], tally: Tally) -> None:
    """Reads a chunk three ways and adds what came of it."""
    alone: list[Parsed | None] = [_attempt(tally, case, _timed, case, tally) for case in chunk]
    texts, ended = [case.text for case in chunk], [case.ended for case in chunk]
    rule = {"think": chunk[0].think, "max_boxes": chunk[0].max_boxes}
    batch = _attempt(tally, chunk[0], lambda: parse_batch(texts, ended, **rule).parsed())
    for at, (case, one) in enumerate(zip(chunk, alone, strict=True)):
        tally.kinds[case.kind] += 1
        other = _attempt(tally, case, read_answer, case.text, case.think, case.max_boxes)
        if one is None or other is None or batch is None:
            continue  # an exception, which stands in the tally
        tally.verdicts[str(one.verdict)] += 1
        wrong = _fault(case, one, batch[at], other)
        if wrong:
            tally.disagreements.append(f"{wrong}: {_told(case)}")


def _timed(case: Case, tally: Tally) -> Parsed:
    """`parse`, its time kept where it is the slowest so far: the least of four, for pauses."""
    size = len(case.text)
    under = {"think": case.think, "ended": case.ended, "max_boxes": case.max_boxes}

    def once():
        start = time.perf_counter_ns()
        got = parse(case.text, **under)
        return got, (time.perf_counter_ns() - start) / max(size, 1)

    got, cost = once()
    decade = len(str(size)) - 1
    if size and cost > tally.slowest.get(decade, 0.0):
        again = min(cost, *(once()[1] for _ in range(3)))
        tally.slowest[decade] = max(again, tally.slowest.get(decade, 0.0))
    return got


def _attempt(tally: Tally, case: Case, function, *args):
    try:
        return function(*args)
    except Exception:  # what this program looks for
        tally.exceptions.append(f"{traceback.format_exc(limit=-3)}{_told(case)}")
        return None


def _fault(case: Case, one: Parsed, batched: Parsed, other: tuple) -> str:
    """What two of the three readings disagree about, or what no reading may be; "" = nothing."""
    boxes, count, form_ok = other
    says = f"parse says {one.verdict}, {one.n_boxes}"
    if (one.verdict, one.n_boxes) != (batched.verdict, batched.n_boxes):
        return f"{says}; parse_batch {batched.verdict}, {batched.n_boxes}"
    if not np.array_equal(one.boxes_unit, batched.boxes_unit):
        return "parse and parse_batch read other boxes"
    if (count, form_ok and case.ended) != (one.n_boxes, one.ok):
        return f"{says}; the EasyR1 file {form_ok}, {count}"
    if not np.array_equal(one.boxes_unit, boxes):
        return "parse and the EasyR1 file read other boxes"
    kept = min(one.n_boxes, case.max_boxes)
    inside = ((one.boxes_unit >= 0) & (one.boxes_unit <= 1)).all()  # False for NaN
    if one.boxes_unit.shape != (kept, 4) or not inside:
        return f"{one.n_boxes} boxes are kept as {one.boxes_unit.tolist()}"
    if one.ok and not np.array_equal(one.boxes_unit, _written(case)):
        return f"ok with boxes {one.boxes_unit.tolist()}"
    return ""


def _written(case: Case) -> np.ndarray:
    """The boxes of a text that was called ok, by the json module alone."""
    body = case.text.rstrip()
    for end in ("<|im_end|>", "<|endoftext|>"):
        body = body.removesuffix(end)
    body = body.rpartition("</think>")[2].strip().removeprefix("```json").removesuffix("```")
    return unit_from_qwen(np.array([item["bbox_2d"] for item in json.loads(body)]).reshape(-1, 4))


def _told(case: Case) -> str:
    text = case.text if len(case.text) <= 600 else f"{case.text[:600]}... {len(case.text)} long"
    under = f"think={case.think}, ended={case.ended}, max_boxes={case.max_boxes}"
    return f"{text!r} ({case.kind}, {under})"


def report(tally: Tally, seconds: float) -> str:
    def told(counts: Counter) -> str:
        return ", ".join(f"{name} {n}" for name, n in counts.most_common())

    lines = [
        f"texts          {sum(tally.kinds.values())}: {told(tally.kinds)}",
        f"verdicts       {told(tally.verdicts)}",
        f"disagreements  {len(tally.disagreements)}",
        f"exceptions     {len(tally.exceptions)}",
        f"seconds        {seconds:.0f}",
        "characters     most ns per character of one parse",
    ]
    for decade, cost in sorted(tally.slowest.items()):
        lines.append(f"{f'10^{decade}':<15}{cost:,.0f}")
    return "\n".join([*lines, *tally.disagreements[:SHOWN], *tally.exceptions[:SHOWN]])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="texts, > 0")
    parser.add_argument("--seed", type=int, default=0, help="of all of them, >= 0")
    args = parser.parse_args(argv)
    if args.count < 1 or args.seed < 0:
        parser.error(f"--count={args.count} --seed={args.seed}: give a text at least, a seed >= 0")
    tally, start = Tally(), time.perf_counter()
    for chunk in cases(args.count, args.seed):
        fuzz(chunk, tally)
    print(report(tally, time.perf_counter() - start))
    return 1 if tally.disagreements or tally.exceptions else 0


if __name__ == "__main__":
    sys.exit(main())
