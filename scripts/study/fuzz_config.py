"""Mutated configurations by the thousand: each is accepted and whole, or refused by its field.

    .venv/bin/python -m scripts.study.fuzz_config --count 20000 --seed 0

Four kinds in turn: `--set` lines on a command line, `--set` lines of a corpus, the JSON of a run
folder with parts changed, and Python files of a user's. An accepted configuration must come back
equal from its JSON, print, have a hash, and give the pairs of its steps. A refusal is a KeyError,
TypeError or ValueError (at a command line its message and status 2) with a field's name in it.
Anything else is printed, and makes the exit status 1.
"""

import argparse
import collections
import contextlib
import copy
import dataclasses
import io
import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dig_jax.common import typed
from dig_jax.common.commandline import seed_of
from dig_jax.config import Config, config_hash, config_text, from_json, to_json
from dig_jax.config.commandline import parse_config
from dig_jax.data.feed.curriculum import index_table
from dig_jax.data.scene.presets import PRESETS, Corpus, preset

ROOT = Path(__file__).resolve().parents[2]
REFUSALS = (KeyError, TypeError, ValueError)
DRAWS = 2000  # of a run whose table of pairs is made
NUMBERS = [
    *"0 1 2 3 7 8 60 -1 -0 0.0 -0.0 0.5 1.0 1e-3 1e-9 1e-45 5e-324 1e300 1e308 1e400".split(),
    *"inf -inf nan 4294967295 4294967296 2147483648 9223372036854775808 1_000 0x10".split(),
    *"1e5 +1 1. .5 ² ٣ 1/2".split(),
    str(2**70),
    "9" * 5000,
]
WORDS = [
    *"none None null true false yes no True '' () [] {} (,) ( [ { a,b ,, a, , single".split(),
    *"single,dual {'single':1} {'single':-1} {'single':'x'} {1:2} {[]:1} {'single':1j}".split(),
    *"{'single':True} (3) ('wq') [('a',)] [[1]] b'x' 1j ... x.y gs://b gs://b/f s3://b/f".split(),
    *"~ ~/x ~nobody_at_all/x ./~ / . auto float32 token group clip k3 sampled greedy".split(),
    *"greedy,sampled wandb dig module:f :f f1".split(),
    "",
    '""',
]
STAGES = (
    "[{'until': 60, 'weights': {'single': 1}}]",
    "[{'until': 60}]",
    "[{'until': 60, 'weights': {}, 'x': 1}]",
    "[{'until': 60, 'weights': {'single': 0}}]",
    "[{'until': 60, 'weights': {'single': " + "9" * 400 + "}}]",
)
ODD = ("\0", "\n", " ", "\ud800", "é", "'", '"', "\\", "=", ".", "(" * 3000, "[" * 300, "-" * 50)
PLAIN = (None, True, False, 0, 1, -1, 2**70, 10**400, 0.5, -0.0, 1e300, float("inf"), float("nan"),
         "", "x", "\0", "\ud800", [], {}, [1], ["a"], [[]], {"a": 1}, {"": None})  # fmt: skip


def texts(rng: random.Random) -> str:
    """The value of a --set line: a number, a word, or either with a character too many."""
    text = rng.choice(rng.choice((NUMBERS, WORDS, STAGES)))
    if rng.random() < 0.15:
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(ODD) + text[at:]
    return text


def a_setting(rng: random.Random, leaves: list[tuple[str, Any]]) -> str:
    """One --set line: a field of the tree, mostly spelt right, and a value."""
    path, now = rng.choice(leaves)
    chance = rng.random()
    if chance < 0.1:
        path = path.rpartition(".")[0] or path
    elif chance < 0.15:
        path += rng.choice((".x", ".0", ".", ".0.x", ".²"))
    elif chance < 0.2:
        at = rng.randrange(len(path))
        path = path[:at] + rng.choice(("", ".", "x", " ", "\n")) + path[at + 1 :]
    elif chance < 0.23:
        return path
    near = now * rng.choice((0.5, 2)) if type(now) in (int, float) and now < 1e9 else now
    return f"{path}={rng.choice((texts(rng), texts(rng), near, now))}"


def on_the_command_line(rng: random.Random, folder: Path) -> Config:
    settings = [a_setting(rng, CONFIG) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
    name = rng.choice(("tiny_cpu", "pod_8b", "tiny_no_kl"))
    argv = ["--config", str(ROOT / "configs" / f"{name}.py"), *(f"--set={s}" for s in settings)]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return parse_config(argv)
    except SystemExit as stop:
        if stop.code != 2:
            raise RuntimeError(f"status {stop.code}: {printed.getvalue()}") from stop
        raise ValueError(printed.getvalue().partition("error: ")[2]) from stop


def of_a_corpus(rng: random.Random, folder: Path) -> Corpus:
    settings = [a_setting(rng, CORPUS) for _ in range(rng.choice((1, 1, 2)))]
    return typed.override(preset(rng.choice(list(PRESETS))), settings)


def as_json(rng: random.Random, folder: Path) -> Config:
    """A run folder's config.json with one to three parts replaced, dropped, renamed or added."""
    plain = json.loads(to_json(Config()))
    for _ in range(rng.choice((1, 1, 2, 3))):
        node = plain
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
            if not isinstance(node[key], dict | list) or rng.random() < 0.2:
                break
            node = node[key]
        if not node:
            continue
        chance = rng.random()
        if chance < 0.1:
            del node[key]
        elif chance < 0.2 and isinstance(node, dict):
            node[f"{key}x"] = node.pop(key)
        elif chance < 0.25 and isinstance(node, dict):
            node["new"] = copy.deepcopy(rng.choice(PLAIN))
        else:
            node[key] = copy.deepcopy(rng.choice(PLAIN))
    return from_json(json.dumps(plain))


def of_a_file(rng: random.Random, folder: Path) -> Config:
    """A file whose get_config changes fields, or fails on the way."""
    lines = ["from dataclasses import replace", "from dig_jax.config import *", "cfg = Config()"]
    for _ in range(rng.choice((1, 1, 2))):
        path, now = rng.choice(CONFIG)
        section, _, name = path.partition(".")
        value = (
            repr(rng.choice((*PLAIN, now))).replace("inf", "1e999").replace("nan", "-(0 * 1e999)")
        )
        where = f"replace(cfg.{section}, {name.split('.')[0]}={value})" if name else value
        lines.append(f"cfg = replace(cfg, {section}={where})")
    lines += ["def get_config():", "    return cfg"]
    if rng.random() < 0.2:
        wrong = (
            "import os; os.environ['NOT_SET']",
            "float('')",
            "1/0",
            "(",
            "raise RuntimeError",
            "",
        )
        lines.insert(rng.randrange(len(lines)), rng.choice(wrong))
    path = folder / "config.py"
    path.write_text("\n".join(lines), errors="surrogatepass")
    return typed.run_file(path, Config)


def _named() -> re.Pattern:
    """A field followed by what a message has after it, or what stands for more than one."""
    names = {name for tree in (CONFIG, CORPUS) for path, _ in tree for name in path.split(".")}
    fields = "|".join(sorted(names - set("0123456789"), key=len, reverse=True))
    wholes = r"--set|unknown config field|the configuration=|config\.py, line \d+.*: \w+: "
    return re.compile(rf"(?s)\b(?:{fields})(?:=|[.']\w|'| is missing| until=| has a )|{wholes}")


def check_whole(tree: Config | Corpus, rng: random.Random) -> None:
    """Raises AssertionError where an accepted tree does not survive what a run does with it."""
    back = typed.from_plain(type(tree), json.loads(json.dumps(typed.to_plain(tree))))
    assert back == tree, "its JSON does not come back equal"
    assert typed.override(tree, []) == tree, "no setting changes it"
    if isinstance(tree, Corpus):
        assert tree.look.fingerprint() == back.look.fingerprint(), "its fingerprint changes"
        return
    assert from_json(to_json(tree)) == tree, "its text does not come back equal"
    assert config_hash(back) == config_hash(tree), "its hash changes"
    config_text(tree).encode()
    if tree.steps * tree.pairs_per_step <= DRAWS:
        sizes = {name: rng.randint(1, 5) for name in tree.data.buckets}
        table = index_table(tree, sizes, rng.randint(0, 2))
        drawn = [tree.data.buckets[bucket] for bucket in table.bucket]
        assert len(drawn) == tree.steps * tree.pairs_per_step, "draws are missing"
        assert all(at < sizes[name] for name, at in zip(drawn, table.offset, strict=True))


CONFIG = [*typed.leaves(Config()), ("curriculum", None), ("optim", None)]
CORPUS = typed.leaves(preset("tiny"))
NAMED = _named()
KINDS: tuple[Callable[[random.Random, Path], Any], ...] = (
    on_the_command_line,
    of_a_corpus,
    as_json,
    of_a_file,
)


@dataclasses.dataclass
class Outcome:
    counts: collections.Counter
    others: list[str]  # what neither held nor was refused by name


def run(count: int, seed: int) -> Outcome:
    """Tries `count` mutants, which the seed alone decides."""
    outcome = Outcome(collections.Counter(), [])
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            make, rng = KINDS[number % len(KINDS)], random.Random(f"{seed} {number}")
            label = f"{make.__name__} {number}"
            outcome.counts[_tried(make, rng, Path(folder), label, outcome.others)] += 1
    return outcome


def _tried(make: Callable, rng: random.Random, folder: Path, label: str, others: list) -> str:
    try:
        tree = make(rng, folder)
    except REFUSALS as error:
        text = str(error.args[0] if error.args else error)
        if NAMED.search(text):
            return "refused"
        others.append(f"{label}: no field in {type(error).__name__}: {text[:300]}")
        return "other"
    except Exception as error:  # what is looked for
        others.append(f"{label}: {type(error).__name__}: {str(error)[:300]}")
        return "other"
    try:
        check_whole(tree, rng)
    except Exception as error:  # whatever an accepted tree runs into is a finding
        others.append(f"{label}: accepted, but {type(error).__name__}: {str(error)[:300]}")
        return "other"
    return "accepted"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=seed_of, default=0)
    args = parser.parse_args(argv)
    start = time.monotonic()
    outcome = run(args.count, args.seed)
    print("\n".join(outcome.others[:50]))
    told = ", ".join(f"{outcome.counts[name]} {name}" for name in ("accepted", "refused", "other"))
    print(f"{args.count} tried with seed {args.seed}: {told}; {time.monotonic() - start:.0f} s")
    return 1 if outcome.others else 0


if __name__ == "__main__":
    sys.exit(main())
