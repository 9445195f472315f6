"""Response bodies as OpenAI's clients read them."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dig_jax.inputs.processor import Processor
from dig_jax.serve.texts import Writing, token_bytes


@dataclass
class Sample:
    """One answer of a request, as far as it has come.

    used     tokens of the engine's that have been read
    reason   why it ended: "stop" or "length"
    """

    writing: Writing
    used: int = 0
    thought: str = ""
    words: str = ""
    chosen: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True)
class Head:
    """What all bodies of one request have in common."""

    id: str
    created: int
    model: str


def make_head(model: str) -> Head:
    return Head(f"chatcmpl-{secrets.token_hex(12)}", int(time.time()), model)


def advance(sample: Sample, one, *, whole: bool, logprobs: bool) -> tuple[str, str, list]:
    """Reads the tokens that are new in `one` (an engine's Answered); whole: it has ended.

    ->  what is new: thought, words, the chosen tokens' log-probabilities
    """
    writing, thought, words = sample.writing, "", ""
    first = len(sample.chosen)
    for token, logp in zip(one.tokens[sample.used :], one.logp[sample.used :], strict=True):
        if sample.reason:
            break
        sample.used += 1
        new = writing.take(int(token))
        thought, words = thought + new[0], words + new[1]
        if logprobs and int(token) not in writing.stops:
            sample.chosen.append(_chosen(writing.processor, int(token), float(logp)))
        if writing.stopped:
            sample.reason = "stop"
    if whole and not sample.reason:
        new = writing.finish()
        thought, words = thought + new[0], words + new[1]
        sample.reason = "stop" if one.ended or writing.stopped else "length"
    sample.thought, sample.words = sample.thought + thought, sample.words + words
    return thought, words, sample.chosen[first:]


def completion(head: Head, samples: Sequence[Sample], prompt: int, *, logprobs: bool) -> dict:
    """The body of a request that is not streamed; `prompt` tokens were read."""
    choices = []
    for n, sample in enumerate(samples):
        message = {"role": "assistant", "content": sample.words, "refusal": None}
        if sample.thought:
            message["reasoning_content"] = sample.thought
        told = {"content": sample.chosen, "refusal": None} if logprobs else None
        choice = {"index": n, "message": message, "logprobs": told}
        choices.append(choice | {"finish_reason": sample.reason})
    return {
        **_head(head, "chat.completion"),
        "choices": choices,
        "usage": usage(samples, prompt),
    }


def piece(
    head: Head,
    number: int,
    delta: dict[str, str],
    *,
    chosen: list | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """A chunk of a stream: what is new in one answer."""
    told = {"content": chosen, "refusal": None} if chosen else None
    choice = {"index": number, "delta": delta, "logprobs": told, "finish_reason": reason}
    return {**_head(head, "chat.completion.chunk"), "choices": [choice]}


def last_piece(head: Head, samples: Sequence[Sample], prompt: int) -> dict[str, Any]:
    """The chunk behind all others, where the count is wanted."""
    rest = {"choices": [], "usage": usage(samples, prompt)}
    return {**_head(head, "chat.completion.chunk"), **rest}


def usage(samples: Sequence[Sample], prompt: int) -> dict[str, int]:
    drawn = sum(sample.used for sample in samples)
    return {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn}


def delta_of(thought: str, words: str) -> dict[str, str]:
    told = {"reasoning_content": thought, "content": words}
    return {name: text for name, text in told.items() if text}


def _head(head: Head, kind: str) -> dict[str, Any]:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


def _chosen(processor: Processor, token: int, logp: float) -> dict[str, Any]:
    written = token_bytes(processor, token)
    written = f"<|{token}|>".encode() if written is None else written
    text = written.decode("utf-8", "replace")
    return {"token": text, "logprob": logp, "bytes": list(written), "top_logprobs": []}
