"""A question as the model is asked it: no system prompt, the pictures, then this text.

Options are asked for as Qwen's own evaluation code and VLMEvalKit's Qwen3-VL entries do; a yes or
no by the data set's question; an expression as Qwen does, or as VLMEvalKit's RefCOCO does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dig_jax.benchmarks.values import LETTERS

VERSION = 1  # goes up with every change of a text
PROMPTS = ("qwen", "vlmevalkit")  # how expressions are asked for; all else is the same in both
_ASKS = re.compile(r"answer\s+(with\s+|the\s+question\s+with\s+)?yes\s+or\s+no\W*$", re.I)


def prompt_version(prompt: str) -> str:
    """What a result says about its prompts."""
    return f"{prompt} {VERSION}"


def yes_no(question: str) -> str:
    """The question, which asks for yes or no by itself or is made to."""
    return question if _ASKS.search(question) else f"{question} Please answer yes or no."


def statement(caption: str) -> str:
    """VSR's captions as questions; the wording is ours."""
    return yes_no(f'Is the following statement about the image true? "{caption}"')


def choice(question: str, options: Sequence[str], hint: str = "") -> str:
    """A question with options A, B, ...; the blank before the last line's end is the template's."""
    asked = f"Hint: {hint}\n" if hint else ""
    asked += f"Question: {question}\n"
    if options:
        lines = (f"{name}. {text}\n" for name, text in zip(LETTERS, options, strict=False))
        asked += "Options:\n" + "".join(lines)
    return asked + "Please select the correct answer from the options above. \n"


def locate(expression: str, prompt: str) -> str:
    """A referring expression, in the words of one of PROMPTS."""
    if prompt == "qwen":
        return (
            f'Locate every object that matches the description "{expression}" in the image. '
            "Report bbox coordinates in JSON format."
        )
    return (
        "Please provide the bounding box coordinate of the region this sentence describes: "
        f"<ref>{expression}</ref>"
    )
