"""The command lines of README, docs and tpu/, as they are written there, for the tests of them."""

import re
import shlex
from typing import NamedTuple

from tests import ROOT

PAGES = ("README.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))))
PAGES += ("tpu/README.md",)
STARTS = re.compile(
    r"(?:\S*bin/)?python3? -m (?:dig_jax|scripts|tpu)\b|(?<![\w/])(?:scripts|tpu)/\w+\.sh\b"
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


class Line(NamedTuple):
    """A command on a page; `text` has one blank between words and no comment."""

    page: str
    text: str


def commands() -> list[Line]:
    """All of them in order: in code blocks, indented blocks and inline code."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        blocks = [body for language, body in _BLOCK.findall(text) if language != "python"]
        prose = _BLOCK.sub("", text)
        indented = [line[4:] for line in prose.splitlines() if line.startswith("    ")]
        blocks.append("\n".join(indented))
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        inline = "\n".join(line for line in prose.splitlines() if not line.startswith("    "))
        lines += [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", inline)]
        # what a program prints, the doctor's table, is no command of the page
        lines = [line for line in lines if STARTS.search(line) and not line.startswith(" " * 8)]
        found += [Line(page, normal(line)) for line in lines]
    return list(dict.fromkeys(found))


def normal(line: str) -> str:
    """Without its comment, words one blank apart."""
    return " ".join(re.sub(r"\s#\s.*", "", line).split())


def python_calls(text: str) -> list[list[str]]:
    """[module, argument, ...] of every `python -m` in a line, its quoted command included."""
    found, words = [], shlex.split(text)
    for number, word in enumerate(words):
        if " " in word and STARTS.search(word):
            found += python_calls(word)
        elif re.fullmatch(r"(?:\S*bin/)?python3?", word) and words[number + 1 : number + 2] == [
            "-m"
        ]:
            rest = words[number + 2 :]
            end = next((at for at, one in enumerate(rest) if one in ("&&", ";", "|")), len(rest))
            found.append(rest[:end])
    return found
