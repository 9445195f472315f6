"""What an answer says, read by rules alone: yes or no, an option's letter, boxes, or nothing.

A thought goes first: what stands before the last </think> is never read, and an answer without one
from a model that was prompted into a thought was cut off. Two parsers read the rest:

dig_jax 1    ours: `yes_no`, `letter`, `box_answer` say what each does
vlmevalkit   that toolkit's rules as of 2026, to compare with its numbers: `vlmevalkit`

Whatever the text, a reading is a value and never an exception, in time linear in its length.
"""

from dig_jax.benchmarks import box_answer, letter, vlmevalkit, yes_no
from dig_jax.benchmarks.reading import AMBIGUOUS, CUT, NONE, Reading

__all__ = ["AMBIGUOUS", "CUT", "NONE", "PARSERS", "Reading"]
OURS, VLMEVALKIT = "dig_jax 1", "vlmevalkit"
PARSERS = {"dig_jax": OURS, "vlmevalkit": VLMEVALKIT}  # by the name that a person types


def answer_of(text: str, *, thinking: bool) -> str | None:
    """What is left of a text without its thought; None where the thought never ends.

    thinking   the prompt ended in <think>, so that only </think> is in the text

    A <think> of the model's own that is not closed hides what follows it, too.
    """
    _, closed, answer = text.rpartition("</think>")
    if (thinking and not closed) or "<think>" in answer:
        return None
    return answer.strip()


def read_yes_no(text: str, parser: str) -> Reading:
    """ "yes", "no" or None of an answer without its thought."""
    return (vlmevalkit if _is_theirs(parser) else yes_no).read_yes_no(text)


def read_letter(text: str, options: tuple[str, ...], parser: str) -> Reading:
    """The letter of one option, or None, of an answer without its thought.

    options   texts of A, B, ...; empty: four whose texts are not known
    """
    return (vlmevalkit if _is_theirs(parser) else letter).read_letter(text, options)


def read_boxes(text: str, parser: str) -> Reading:
    """Tuple of boxes (x0, y0, x1, y1) in 0..1000 in the order in which they stand, or None.

    An empty list, said in so many brackets, is an empty tuple.
    """
    return (vlmevalkit if _is_theirs(parser) else box_answer).read_boxes(text)


def _is_theirs(parser: str) -> bool:
    if parser not in PARSERS.values():
        raise ValueError(f"parser={parser!r} is none of {sorted(PARSERS.values())}; choose one")
    return parser == VLMEVALKIT
