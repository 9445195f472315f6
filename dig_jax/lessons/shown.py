"""What the pictures of a folder of questions show, as `data questions` tells it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dig_jax.benchmarks.question import Picture
from dig_jax.lessons.cells import KINDS

FILE = "things.jsonl"


@dataclass(frozen=True)
class Thing:
    """A thing that a picture shows.

    looks  i32[4], as THINGS
    box    f32[4], unit frame: x0 y0 x1 y1
    """

    looks: np.ndarray
    box: np.ndarray


def read_things(root: str) -> dict[str, tuple[Thing, ...]]:
    """Of every picture, by its file's name and by its bytes' digest; empty where none are told."""
    path = Path(root) / FILE
    found = {}
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        told = json.loads(line)
        things = tuple(_thing(one, told["size"]) for one in told["things"])
        found[told["picture"]] = found[told["sha256"][:32]] = things
    return found


def things_of(
    pictures: Sequence[Picture], known: Mapping[str, tuple[Thing, ...]]
) -> tuple[Thing, ...]:
    """What the one picture of a question shows; nothing of several, or of one that nobody told."""
    return known.get(pictures[0].key.rpartition("/")[2], ()) if len(pictures) == 1 else ()


def _thing(told: dict, size: Sequence[int]) -> Thing:
    looks = np.array([values.index(told[name]) for name, values in KINDS.items()])
    return Thing(looks, np.float32(told["box"]) / np.float32([*size, *size]))
