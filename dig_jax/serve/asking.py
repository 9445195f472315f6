"""A request as an engine takes it: checked by headers and lengths first, then decoded."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dig_jax.config import PromptConfig
from dig_jax.engine.jobs import Asked, Group, cut_prompt, seed_words
from dig_jax.inputs.images import prepare, target_size
from dig_jax.inputs.picture_files import read_picture
from dig_jax.inputs.prompt import check_ids, opens_thought, render_turns
from dig_jax.inputs.shapes import ROUND, Shape
from dig_jax.run.policy import Policy
from dig_jax.serve.limits import Limits, check_picture, unreadable
from dig_jax.serve.messages import read_messages
from dig_jax.serve.refusal import Refused
from dig_jax.serve.shapes import choose
from dig_jax.serve.wanted import Wanted

_TOKENIZER = threading.Lock()  # one of Hugging Face's is not for several threads


@dataclass(frozen=True)
class Question:
    """What one request asks of the engine.

    tokens    of the prompt, those of pictures included
    thinking  the prompt ends inside a thought
    """

    group: Group
    shape: Shape
    tokens: int
    thinking: bool


def make_question(
    policy: Policy, shapes: Sequence[Shape], limits: Limits, messages: Any, wanted: Wanted
) -> Question:
    """Raises Refused naming the field."""
    turns, files = read_messages(messages, limits)
    for where, data in files:
        check_picture(data, limits, where)
    opened = [(where, _opened(data, where)) for where, data in files]
    sizes = [_size(policy, picture, where) for where, picture in opened]
    ids = _render(policy, turns, len(files))
    config = policy.layout.model
    prefix, suffix = _cut(config, ids)
    expanded = sum(y * x // config.vision.cell**2 - 1 for y, x in sizes)
    shape = choose(shapes, sizes, len(prefix) + expanded)
    pictures = [prepare(picture, policy.rules, where) for where, picture in opened]
    asked = [
        Asked(n, suffix, wanted.how, seed_words(wanted.seed, "", n), wanted.most)
        for n in range(wanted.n)
    ]
    group = Group("messages", prefix, sizes, lambda: pictures, asked)
    return Question(group, shape, len(ids) + expanded, opens_thought(policy.processor, ids))


def prompt_of(policy: Policy) -> PromptConfig:
    """How a run was asked in its training; the recipe's where there is no run."""
    return policy.trained.cfg.prompt if policy.trained else PromptConfig()


def _opened(data: bytes, where: str):
    try:
        return read_picture(data)
    except ValueError as error:
        raise unreadable(error, where) from error


def _size(policy: Policy, picture, where: str):
    try:
        return target_size(picture.height, picture.width, policy.rules, where)
    except ValueError as error:
        raise Refused(400, str(error), param=where, code="invalid_image") from error


def _render(policy: Policy, turns: list[dict], pictures: int) -> list[int]:
    config = policy.layout.model
    try:
        with _TOKENIZER:
            named = prompt_of(policy).add_vision_id
            ids = render_turns(policy.processor, turns, add_vision_id=named)
        check_ids(ids, config.text.vocab, "messages", policy.processor)
    except ValueError as error:
        raise Refused(400, str(error), param="messages", code="invalid_value") from error
    if sum(token == config.image_token for token in ids) != pictures:
        raise Refused(
            400,
            "messages: a text holds the token that stands for a picture; leave it out",
            param="messages",
            code="invalid_value",
        )
    return ids


def _cut(config, ids: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """As `cut_prompt`, with no more behind the cut than every shape holds."""
    try:
        prefix, suffix = cut_prompt(config, ids)
    except ValueError as error:
        raise Refused(400, f"messages: {error}", param="messages", code="invalid_value") from error
    more = max(len(suffix) - ROUND, 0)
    return prefix + suffix[:more], suffix[more:]
