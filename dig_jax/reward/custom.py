"""Reward functions by name, the user's own included, called with nothing taken on trust.

A function that cannot be found is refused before anything compiles. One that fails on an answer
stops the run with that answer in its message: a bug in a reward is not a reward of 0.
"""

import difflib
import functools
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dig_jax.common.userfile import told
from dig_jax.config import RewardConfig
from dig_jax.reward.functions import NAMED, dig
from dig_jax.reward.sample import Sample

RewardFunction = Callable[[Sample], float | Mapping[str, float]]
_SHOWN = 200  # characters of an answer in an error
_LARGEST = float(np.finfo(np.float32).max)


class RewardError(RuntimeError):
    """A reward function raised, or returned what is no reward. Names function and answer."""


def find_function(cfg: RewardConfig) -> RewardFunction:
    """The function that cfg.function names: a named one, or `module:function`.

    The module may also be a file of the working directory. Raises ValueError naming the field
    and the remedy where it cannot be imported, has no such function, or this takes no sample.
    """
    if cfg.function == "dig":
        return functools.partial(dig, cfg=cfg)
    if cfg.function in NAMED:
        return NAMED[cfg.function]
    name, _, attribute = cfg.function.partition(":")
    module = _module(cfg.function, name)
    function = getattr(module, attribute, None)
    if not callable(function):
        offered = sorted(key for key, value in vars(module).items() if inspect.isfunction(value))
        near = difflib.get_close_matches(attribute, offered, n=3, cutoff=0.4) or offered
        what = "is not callable" if hasattr(module, attribute) else "does not exist"
        raise _refusal(
            cfg.function,
            f"{attribute} {what} in {module.__file__}",
            f"its functions: {', '.join(near) or 'none'}",
        )
    if inspect.iscoroutinefunction(function) or not _takes_one(function):
        what = f"{attribute} is not called with one argument"
        raise _refusal(cfg.function, what, "define it as reward(sample) -> float or dict")
    return function


def source_file(cfg: RewardConfig) -> Path | None:
    """The file of the user's own function, after `find_function`; None for a named one."""
    name = cfg.function.partition(":")[0]
    path = getattr(sys.modules.get(name), "__file__", None)
    return None if cfg.function == "dig" or cfg.function in NAMED or not path else Path(path)


def _module(function: str, name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: a file here must not hide an installed package
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module runs into
        what = f"{name} cannot be imported ({told(error)})"
        remedy = f"put {name.replace('.', '/')}.py into {here}, install it, or mend it"
        raise _refusal(function, what, remedy) from error


def _refusal(function: str, what: str, remedy: str) -> ValueError:
    return ValueError(
        f"reward.function={function!r}: {what}; {remedy}; or use one of {', '.join(NAMED)}"
    )


def _takes_one(function: Callable) -> bool:
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        return False
    except ValueError:  # a builtin without a signature
        return True
    return True


def call(
    function: RewardFunction, name: str, samples: Sequence[Sample], group: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The reward of every sample, and the other entries of its dict.

    name     the function's, for errors
    samples  N in order, `group` answers to each pair
    ->       f32[N]; entry -> f32[N]

    Raises RewardError naming the function, the pair, the answer and its text where the function
    raises (its exception is the cause), returns what is no finite number or dict of such, a dict
    without "reward", or other entries than for the first answer.
    """
    rows: list[dict[str, float]] = []
    for number, sample in enumerate(samples):
        try:
            row = _entries(function(sample))
            if rows and row.keys() != rows[0].keys():
                raise TypeError(f"it returned entries {[*row]}, for the first answer {[*rows[0]]}")
        except Exception as error:
            raise _failure(name, sample, number % group, error) from error
        rows.append(row)
    entries = rows[0] if rows else {"reward": 0.0}
    columns = {key: np.array([row[key] for row in rows], np.float32) for key in entries}
    return columns.pop("reward"), columns


def _entries(value: Any) -> dict[str, float]:
    """A returned value as floats by name; raises TypeError or ValueError saying what is wrong."""
    if not isinstance(value, Mapping):
        return {"reward": _number("its value", value)}
    if "reward" not in value:
        raise TypeError(f"it returned a dict of {[*value]} without 'reward'")
    return {str(key): _number(f"entry {key!r}", entry) for key, entry in value.items()}


def _number(what: str, value: Any) -> float:
    kind = type(value).__name__
    if isinstance(value, str | bytes) or np.ndim(value):
        shape = f" of shape {np.shape(value)}" if np.ndim(value) else ""
        raise TypeError(f"{what} is a {kind}{shape}, not one number")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} is a {kind}, not one number") from error
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise ValueError(f"{what} is {number}, not a finite number of float32")
    return number


def _failure(name: str, sample: Sample, answer: int, error: Exception) -> RewardError:
    text = sample.text if len(sample.text) <= _SHOWN else f"{sample.text[:_SHOWN]}..."
    meta = sample.meta
    return RewardError(
        f"reward function {name!r} failed on answer {answer} to pair {meta['pair_id']} of "
        f"{meta['bucket']!r}: {told(error)}; the answer: {text!r}"
    )
