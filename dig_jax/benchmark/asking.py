"""Questions of a benchmark as an engine takes them: what shares its pictures is one group."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dig_jax.benchmarks.picture_cells import open_picture, size_of
from dig_jax.benchmarks.question import Picture, Question
from dig_jax.config import PromptConfig
from dig_jax.engine.jobs import Asked, Group, cut_prompt, seed_words
from dig_jax.inputs.images import Size, prepare, target_size
from dig_jax.inputs.prompt import check_ids, opens_thought, render
from dig_jax.run.policy import Policy

Tag = tuple[str, int]  # a question's id, and the number of the sample


@dataclass(frozen=True)
class Prepared:
    """A benchmark's questions as token ids, with the sizes of their pictures.

    groups    with nothing asked yet, by what they share
    suffixes  question id -> (number of its group, token ids behind the pictures)
    longest   tokens of the longest prompt
    thinking  prompts end inside a thought
    """

    groups: list[Group]
    suffixes: dict[str, tuple[int, tuple[int, ...]]]
    longest: int
    thinking: bool


def prepare_questions(name: str, questions: Sequence[Question], policy: Policy) -> Prepared:
    """Reads every picture's header and renders every prompt; raises naming the question."""
    config, sizes_of = policy.layout.model, {}
    numbers, groups, suffixes, longest = {}, [], {}, 0
    for question in questions:
        where = f"{name} {question.id}"
        sizes = [_size(picture, policy, where, sizes_of) for picture in question.pictures]
        ids = render(PromptConfig(), policy.processor, question.prompt, len(sizes))
        check_ids(ids, config.text.vocab, where, policy.processor)
        prefix, suffix = cut_prompt(config, ids)
        key = (prefix, *(picture.key for picture in question.pictures))
        if key not in numbers:
            numbers[key] = len(groups)
            load = partial(_load, question.pictures, policy, where)
            groups.append(Group(where, prefix, sizes, load))
        suffixes[question.id] = numbers[key], suffix
        cell = config.vision.cell
        longest = max(longest, len(ids) + sum(y * x // cell**2 - 1 for y, x in sizes))
    return Prepared(groups, suffixes, longest, opens_thought(policy.processor, ids))


def ask(prepared: Prepared, tags: Iterable[Tag], policy: Policy, *, seed: int, most: int):
    """The groups in which these answers are wanted, each with what is asked about it.

    seed   of the draws; a question's depend on it, its id and the sample's number alone
    most   tokens that an answer may have
    """
    wanted: dict[int, list[Asked]] = {}
    for name, sample in tags:
        number, suffix = prepared.suffixes[name]
        words = seed_words(seed, name, sample)
        asked = Asked((name, sample), suffix, policy.decoding, words, most)
        wanted.setdefault(number, []).append(asked)
    return [replace(prepared.groups[n], asked=some) for n, some in wanted.items()]


def _size(picture: Picture, policy: Policy, where: str, known: dict[str, Size]) -> Size:
    if picture.key not in known:
        try:
            width, height = size_of(picture)
        except ValueError as error:
            raise ValueError(f"{where}: its picture cannot be read ({error})") from error
        known[picture.key] = target_size(height, width, policy.rules, where)
    return known[picture.key]


def _load(pictures: Sequence[Picture], policy: Policy, where: str) -> list[np.ndarray]:
    return [prepare(open_picture(picture), policy.rules, where) for picture in pictures]
