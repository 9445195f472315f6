"""True answers as a model should write them, and what each of their tokens weighs."""

from collections.abc import Sequence

import numpy as np

from dig_jax.benchmarks.question import Question
from dig_jax.boxes import boxes_text
from dig_jax.config import SftConfig
from dig_jax.inputs.prompt import Processor, encode_answer, opens_thought


def answer_text(question: Question) -> str:
    """The right answer: Yes or No, a letter, or a list of one box."""
    if question.kind == "box":
        return boxes_text(np.float32(question.target).reshape(1, 4) / 1000)
    return question.target.capitalize()


def opening(processor: Processor, prompt: Sequence[int]) -> str:
    """What comes before an answer: the end of a thought that the template has opened, or nothing.

    prompt  token ids, the assistant's turn opened
    """
    return "\n</think>\n\n" if opens_thought(processor, prompt) else ""


def answer_ids(processor: Processor, text: str, length: int, where: str) -> list[int]:
    """Token ids of an answer, its end included.

    where  what it answers, for the message

    Raises ValueError if it is longer than `length`.
    """
    ids = encode_answer(processor, text)
    if len(ids) > length:
        raise ValueError(
            f"the answer to {where} has {len(ids)} tokens, more than {length}; raise "
            f"rollout.max_tokens"
        )
    return ids


def token_weights(processor: Processor, ids: Sequence[int], cfg: SftConfig) -> np.ndarray:
    """f32[len(ids)]: what each token of an answer weighs in the loss, by its place."""
    pieces = processor.tokenizer.convert_ids_to_tokens(ids)
    if not any("[" in piece for piece in pieces):  # words: the last token is their end
        return np.float32([cfg.choice] * (len(ids) - 1) + [cfg.scaffold])
    weight = np.zeros(len(ids), np.float32)
    inside = place = 0
    for at, piece in enumerate(pieces):
        if piece.isdigit() and inside:
            weight[at] = (cfg.first_digit, cfg.second_digit, cfg.third_digit)[min(place, 2)]
            place += 1
            continue
        weight[at] = cfg.stop if "]" in piece else cfg.scaffold
        # the 2 of "bbox_2d" is a digit token too: coordinates start at the inner bracket
        inside = ("[" in piece and "{" not in piece) or (inside and "]" not in piece)
        place = 0
    return weight


def padded(rows: Sequence[Sequence[float]], length: int, dtype: type) -> np.ndarray:
    """[B, length] of rows that are as long or shorter, zeros beyond."""
    out = np.zeros((len(rows), length), dtype)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
