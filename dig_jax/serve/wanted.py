"""A request's fields: what is asked for, how tokens are chosen, what is not supported."""

import secrets
from dataclasses import dataclass, replace
from typing import Any

from dig_jax.inputs.decoding import Decoding
from dig_jax.serve.limits import Limits
from dig_jax.serve.refusal import Refused

_STOPS, _STOP_LETTERS = 4, 256  # stop texts of a request, letters of each
_COLDEST = 1e-3  # below it logits would leave float32's range: it is greedy
# Fields that change nothing here with these values; any value where there is none.
_NEUTRAL = {
    "user": None,
    "metadata": None,
    "store": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
    "service_tier": None,
    "reasoning_effort": None,
    "verbosity": None,
    "parallel_tool_calls": None,
    "stream_options": None,
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "top_logprobs": (0,),
}
_READ = (
    "messages model n temperature top_p top_k min_p seed stop max_tokens max_completion_tokens "
    "logprobs stream"
).split()


@dataclass(frozen=True)
class Wanted:
    """What a request asks for, but for its messages.

    n         answers
    seed      of the draws
    stop      texts at which an answer ends
    most      tokens of an answer
    logprobs  of the chosen tokens are wanted
    stream    the answers are wanted as they come; usage: and their count at the end
    """

    n: int
    how: Decoding
    seed: int
    stop: tuple[str, ...]
    most: int
    logprobs: bool
    stream: bool
    usage: bool


def read_wanted(body: Any, *, model: str, how: Decoding, limits: Limits) -> Wanted:
    """Checks all fields but messages; raises Refused naming the field.

    how  the checkpoint's own, for what a request does not say
    """
    if not isinstance(body, dict):
        raise Refused(400, "the body is no JSON object", code="invalid_json")
    _check_names(body)
    _check_model(body.get("model"), model)
    most = _most(body, limits.most)
    seed = _whole(body, "seed", -(2**63), 2**64 - 1, None)
    return Wanted(
        n=_whole(body, "n", 1, limits.answers, 1),
        how=_decoding(body, how),
        seed=secrets.randbits(63) if seed is None else seed,
        stop=_stops(body.get("stop")),
        most=most,
        logprobs=_flag(body, "logprobs"),
        stream=_flag(body, "stream"),
        usage=_usage(body.get("stream_options")),
    )


def _check_names(body: dict) -> None:
    for name, value in body.items():
        if name in _READ or value is None:
            continue
        if name not in _NEUTRAL:
            known = ", ".join(sorted([*_READ, *_NEUTRAL]))
            raise _wrong(name[:64], f"is no field that is known here; known are {known}")
        neutral = _NEUTRAL[name]
        if neutral is not None and not any(_same(value, one) for one in neutral):
            raise _wrong(
                name,
                f"is not supported; leave it out, or use {neutral[0]!r}",
                code="unsupported_parameter",
            )


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _check_model(name: Any, model: str) -> None:
    if name is not None and name != model:
        raise Refused(
            404,
            f"model: this server has {model!r} alone; use that, or start it with another --name",
            param="model",
            code="model_not_found",
        )


def _most(body: dict, most: int) -> int:
    newer = body.get("max_completion_tokens") is not None
    return _whole(body, "max_completion_tokens" if newer else "max_tokens", 1, most, most)


def _decoding(body: dict, how: Decoding) -> Decoding:
    temperature = _number(body, "temperature", 0, 100, how.temperature)
    top_k = _whole(body, "top_k", -1, 2**31 - 1, how.top_k)
    top_p = _number(body, "top_p", 0, 1, how.top_p)
    min_p = _number(body, "min_p", 0, 1, how.min_p)
    if not top_p:
        raise _wrong("top_p", "is outside (0, 1]")
    if temperature < _COLDEST:
        temperature = 0.0
    return replace(how, temperature=temperature, top_k=max(top_k, 0), top_p=top_p, min_p=min_p)


def _stops(stop: Any) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    right = isinstance(stops, list) and len(stops) <= _STOPS
    right = right and all(isinstance(s, str) and 0 < len(s) <= _STOP_LETTERS for s in stops)
    if not right:
        raise _wrong(
            "stop", f"is neither a text nor up to {_STOPS}, of 1 to {_STOP_LETTERS} letters each"
        )
    return tuple(stops)


def _usage(options: Any) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict):
        raise _wrong("stream_options", "is no object")
    return _flag(options, "include_usage")


def _flag(body: dict, name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "is neither true nor false")
    return bool(value)


def _number(body: dict, name: str, least: float, most: float, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not least <= value <= most:  # so is nan; no float holds every int
        raise _wrong(name, f"is no number from {least} to {most}")
    return float(value)


def _whole(body: dict, name: str, least: int, most: int, default: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise _wrong(name, f"is no whole number from {least} to {most}")
    return value


def _wrong(name: str, what: str, code: str = "invalid_value") -> Refused:
    return Refused(400, f"{name} {what}", param=name, code=code)
