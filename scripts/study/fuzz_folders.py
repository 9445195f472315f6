"""Damaged settings files of a checkpoint folder: each is opened, or refused by file and field.

    python -m scripts.study.fuzz_folders --count 5000 --seed 0

Prints planted / handled, how many of the damaged folders opened, and seconds; the exit status is 1
where anything else than a named error was raised. Case n of a seed is always the same one; --case
shows it alone. Named: FileNotFoundError, ValueError or KeyError whose text has the name of the
damaged file.
"""

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from dig_jax.common.commandline import seed_of
from dig_jax.common.files import write_json
from dig_jax.common.json_files import shown
from dig_jax.config import PromptConfig
from dig_jax.hf import files, weights
from dig_jax.inputs.decoding import read_decoding
from dig_jax.inputs.images import target_size
from dig_jax.inputs.prompt import make_prompt
from dig_jax.model.specs import model_specs
from dig_jax.run.session import image_rules, open_processor

BASE = Path(__file__).resolve().parents[2] / "assets" / "tiny_qwen3vl"
PICTURE = (70, 90)  # pixels, height and width
FILES = (
    *("config.json", "config.json", "preprocessor_config.json", "processor_config.json"),
    *("tokenizer_config.json", "generation_config.json", files.INDEX),
)  # config.json twice: it has most fields
NAMED = (FileNotFoundError, ValueError, KeyError)
VALUES = [
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        3,
        -1,
        7,
        0.5,
        -0.0,
        1e-320,
        1e308,
        -1e308,
        2**31,
        2**63,
        -(2**63),
    ),
    *(10**30, 10**400, float("nan"), float("inf"), float("-inf"), "", "0", "16", "1e3", "default"),
    *("yarn", "TokenizersBackend", "Qwen2Tokenizer", "<|im_end|>", "\x00", "\ud800", "x" * 5000),
    *("../config.json", [], {}, [[]], [None], [0], [-1, 2, 3], ["a"], [1e9], {"a": 1}, {"": None}),
    *([[[[[[]]]]]], [1] * 3000),
]


class Outcome(NamedTuple):
    """What became of one damaged folder.

    case   its number
    file   that was damaged, and how
    error  raised, None where the folder opened
    named  whether the error is one that says where to look
    """

    case: int
    file: str
    damage: str
    error: Exception | None
    named: bool


def make_base(folder: Path) -> Path:
    """The shipped base with every file of FILES: two shards with an index, rules in two files."""
    shutil.copytree(BASE, folder)
    tensors = load_file(folder / files.SINGLE)
    (folder / files.SINGLE).unlink()
    names = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    spread = {key: names[n % 2] for n, key in enumerate(sorted(tensors))}
    for name in names:
        part = {key: tensors[key] for key in tensors if spread[key] == name}
        save_file(part, folder / name, metadata={"format": "pt"})
    write_json(folder / files.INDEX, {"metadata": {}, "weight_map": spread})
    inner = json.loads((folder / "preprocessor_config.json").read_text())
    write_json(folder / "processor_config.json", {"image_processor": inner})
    return folder


def open_all(folder: Path) -> None:
    """All that a session, `ask` and the doctor read of a folder; tensors by their headers."""
    model = weights.read_model_config(folder)
    found = files.find_weights(files.open_folder(folder))
    files.check_weights(folder, found, model_specs(model), tied=model.text.tied)
    size = target_size(*PICTURE, image_rules(str(folder), model))
    read_decoding(folder)
    processor = open_processor(str(folder), model)
    make_prompt(PromptConfig(), processor, model, [[size, size]])


def damaged(text: str, rng: np.random.Generator) -> tuple[bytes, str]:
    """The bytes of a JSON file after one to three changes, and what they were."""
    if rng.random() < 0.1:
        return _damaged_bytes(text.encode(), rng)
    tree, done = json.loads(text), []
    for _ in range(rng.integers(1, 4)):
        if isinstance(tree, dict | list) and tree:
            tree, what = _changed(tree, rng)
            done.append(what)
    return json.dumps(tree).encode(), "; ".join(done)


def fuzz(folder: Path, seed: int, cases: range):
    """Yields the outcome of every case; the folder is whole again after each."""
    for case in cases:
        rng = np.random.default_rng((seed, case))
        path = folder / FILES[rng.integers(len(FILES))]
        whole = path.read_text(encoding="utf-8")
        data, damage = damaged(whole, rng)
        path.write_bytes(data)
        error = None
        try:
            open_all(folder)
        except Exception as raised:  # telling which is what this is for
            error = raised
        finally:
            path.write_text(whole, encoding="utf-8")
        named = error is None or _is_named(error, path.name)
        yield Outcome(case, path.name, damage, error, named)


def _is_named(error: Exception, name: str) -> bool:
    return type(error) in NAMED and name in str(error)


def _damaged_bytes(data: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    at = int(rng.integers(len(data)))
    ways = {
        "cut": data[:at],
        "emptied": b"",
        "byte": data[:at] + bytes([rng.integers(256)]) + data[at + 1 :],
        "marked": b"\xef\xbb\xbf" + data,
        "in a list": b"[" + data + b"]",
        "nested": b"[" * 100_000,
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "utf-16": data.decode().encode("utf-16"),
        "twice": data + data,
    }
    how = list(ways)[rng.integers(len(ways))]
    return ways[how], how


def _changed(tree, rng: np.random.Generator):
    """The tree with one change at a random place, and its description."""
    node, way = tree, []
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[rng.integers(len(keys))]
        way.append(key)
        inner = node[key]
        if not (isinstance(inner, dict | list) and inner) or rng.random() < 0.3:
            break
        node = inner
    how = ("delete", "replace", "replace", "retype", "nudge", "rename", "copy")[rng.integers(7)]
    if how == "delete":
        del node[key]
    elif how == "replace":
        node[key] = VALUES[rng.integers(len(VALUES))]
    elif how == "retype":
        node[key] = _retyped(inner, rng)
    elif how == "nudge":
        node[key] = _nudged(inner, rng)
    elif how == "rename" and isinstance(node, dict):
        node[f"{key}_"] = node.pop(key)
    else:  # what another place holds
        other = keys[rng.integers(len(keys))]
        node[key] = json.loads(json.dumps(node[other])) if other in keys else inner
    now = node[key] if isinstance(node, dict) and key in node else ""
    return tree, f"{how} {'.'.join(map(str, way))} {shown(now)}"


def _retyped(value, rng: np.random.Generator):
    choices = [str(value), [value], {"value": value}, bool(value)]
    if isinstance(value, list) and value:
        choices += [value[0], {str(n): item for n, item in enumerate(value)}]
    if isinstance(value, int | float) and abs(value) < 1e300:
        choices += [float(value), int(value)]
    return choices[rng.integers(len(choices))]


def _nudged(value, rng: np.random.Generator):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float) and abs(value) < 1e300:
        return (value + 1, value - 1, 2 * value, value // 2, -value, 0)[rng.integers(6)]
    if isinstance(value, str):
        return (value[1:], value + "x", value.upper(), value[::-1])[rng.integers(4)]
    if isinstance(value, list):
        return (value[1:], value + value, value[::-1])[rng.integers(3)]
    return value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=seed_of, default=0)
    parser.add_argument("--case", type=int, help="only this one, with its error")
    args = parser.parse_args()
    one = args.case is not None
    cases = range(args.case, args.case + 1) if one else range(args.count)
    began, opened, per_file, bad = time.time(), 0, Counter(), []
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stderr(sys.stdout):
        for outcome in fuzz(make_base(Path(work) / "base"), args.seed, cases):
            per_file[outcome.file] += 1
            opened += outcome.error is None
            if not outcome.named:
                bad.append(outcome)
            if one or not outcome.named:
                print(f"case {outcome.case}: {outcome.file}: {outcome.damage[:200]}")
                shown = (outcome.error, outcome.error and outcome.error.__traceback__)
                print("".join(traceback.format_exception(None, *shown)[-4:])[-1500:])
    print(f"seed {args.seed}: planted {len(cases)} in {dict(per_file)}")
    print(
        f"handled {len(cases) - len(bad)} of {len(cases)}: {opened} opened, "
        f"{len(cases) - opened - len(bad)} refused by name; {time.time() - began:.0f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
