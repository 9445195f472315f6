"""`parse` for a whole batch: well-formed answers by array operations, all others one by one.

A well-formed answer is a skeleton (the text with every run of digits as one "0") and its numbers.
A batch has few different skeletons, so each is judged once; the numbers of all answers are read
together. Whatever is not plainly well formed goes to `parse`, which alone decides what is wrong:
the tests hold the two against each other.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dig_jax.boxes import QWEN_SIDE, unit_from_qwen
from dig_jax.reward.parse import Parsed, Verdict, holds_special, parse, split_thought

# The skeletons that `parse` calls ok, or fewer: labels hold no digit, escape, tag or letter
# outside ASCII, and white space is short.
_WS = r"[ \t\r\n]{0,8}"
_BOX = rf'"bbox_2d"{_WS}:{_WS}\[{_WS}0{_WS},{_WS}0{_WS},{_WS}0{_WS},{_WS}0{_WS}\]'.replace("2", "0")
_LABEL = rf'"label"{_WS}:{_WS}"[A-Za-z ,.;:()/_-]*+"'
_ITEM = rf"\{{{_WS}(?:{_BOX}(?:{_WS},{_WS}{_LABEL})?|{_LABEL}{_WS},{_WS}{_BOX}){_WS}\}}"
# not possessive: Python 3.11 would take "{...}," for an item with its successor
_LIST = rf"\[{_WS}(?:{_ITEM}(?:{_WS},{_WS}{_ITEM})*{_WS})?\]"
_STRICT = re.compile(rf"{_WS}(?:{_LIST}|```json{_WS}{_LIST}{_WS}```){_WS}".encode())
_RUNS = 5  # runs of digits per box: the 2 of bbox_2d, then the four coordinates
_DIGITS = len(str(QWEN_SIDE))
_TOGETHER = 512  # answers per pass: their bytes stay in a core's cache


@dataclass(frozen=True, eq=False)
class Readings:
    """What N answers name, in columns.

    boxes     f32[N, Q, 4]   unit frame, ordered corners; 0 beyond `kept`
    kept      i32[N]         boxes of each row, at most Q
    n_boxes   i32[N]         boxes named, surplus included
    verdicts  N of Verdict
    """

    boxes: np.ndarray
    kept: np.ndarray
    n_boxes: np.ndarray
    verdicts: list[Verdict]

    @property
    def valid(self) -> np.ndarray:
        """bool[N, Q]: which rows are boxes."""
        return np.arange(self.boxes.shape[1]) < self.kept[:, None]

    def parsed(self) -> list[Parsed]:
        """One `Parsed` per answer; their boxes are views of the columns."""
        kept, named = self.kept.tolist(), self.n_boxes.tolist()
        rows = zip(self.boxes, kept, self.verdicts, named, strict=True)
        return [Parsed(boxes[:k], verdict, n) for boxes, k, verdict, n in rows]


def parse_batch(
    texts: Sequence[str], ended: Sequence[bool], *, think: str, max_boxes: int
) -> Readings:
    """`parse(text, think=..., ended=..., max_boxes=...)` of every text, much faster.

    texts  N decoded answers;  ended  N;  Q is max_boxes
    """
    size = len(texts)
    out = Readings(
        boxes=np.zeros((size, max_boxes, 4), np.float32),
        kept=np.zeros(size, np.int32),
        n_boxes=np.zeros(size, np.int32),
        verdicts=[Verdict.OK if end else Verdict.NOT_ENDED for end in ended],
    )
    done = np.zeros(size, bool)
    plain = [(row, body) for row, body in enumerate(_bodies(texts, think)) if body is not None]
    for at in range(0, len(plain), _TOGETHER):
        rows, bodies = zip(*plain[at : at + _TOGETHER], strict=True)
        done[_fill_strict(out, np.array(rows), bodies)] = True
    for row in np.flatnonzero(~done).tolist():
        got = parse(texts[row], think=think, ended=bool(ended[row]), max_boxes=max_boxes)
        count = len(got.boxes_unit)
        out.boxes[row, :count], out.kept[row] = got.boxes_unit, count
        out.n_boxes[row], out.verdicts[row] = got.n_boxes, got.verdict
    return out


def _bodies(texts, think):
    """Of each text what follows its thought, or None where only `parse` should read it."""
    for text in texts:
        if think != "none":
            fine = not holds_special(text)
            text, ok = split_thought(text, think)
            if not (fine and ok):
                yield None
                continue
        yield text.encode() if text.isascii() and "\0" not in text else None


def _fill_strict(out: Readings, rows: np.ndarray, bodies: Sequence[bytes]) -> np.ndarray:
    """Writes the well-formed bodies' boxes into `out`; the rows it wrote."""
    data = np.frombuffer(b"\0".join([*bodies, b""]), np.uint8)
    digit = (data - ord("0")) < 10  # unsigned: what lies below wraps far above
    first, last = digit.copy(), digit.copy()
    first[1:] &= ~digit[:-1]
    last[:-1] &= ~digit[1:]
    skeletons = np.where(digit, np.uint8(ord("0")), data)[~digit | first].tobytes().split(b"\0")
    known = {skeleton: _strict_boxes(skeleton) for skeleton in set(skeletons)}
    counts = np.array([known[skeleton] for skeleton in skeletons[:-1]])

    starts, ends = np.flatnonzero(first), np.flatnonzero(last) + 1
    numbers = _numbers(data, starts, ends - starts)
    run = np.searchsorted(starts, np.flatnonzero(data == 0))  # runs up to each body's end
    run = np.concatenate([[0], run[:-1]])

    strict = np.flatnonzero((counts >= 0) & (counts <= out.boxes.shape[1]))
    counts, rows, run = counts[strict], rows[strict], run[strict]
    owner = np.repeat(np.arange(len(strict)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    key, *corners = (numbers[run[owner] + _RUNS * place + i] for i in range(_RUNS))
    x0, y0, x1, y1 = corners
    inside = (np.minimum(x0, y0) >= 0) & (np.maximum(x1, y1) <= QWEN_SIDE)
    fine = (key == 2) & inside & (x0 < x1) & (y0 < y1)  # bbox_2d, not bbox_4d
    good = np.bincount(owner[~fine], minlength=len(strict)) == 0

    keep = good[owner]
    out.boxes[rows[owner[keep]], place[keep]] = unit_from_qwen(np.stack(corners, axis=1)[keep])
    rows, counts = rows[good], counts[good]
    out.kept[rows] = out.n_boxes[rows] = counts
    return rows


def _strict_boxes(skeleton: bytes) -> int:
    """Boxes of a well-formed skeleton, -1 for any other."""
    return skeleton.count(b"{") if _STRICT.fullmatch(skeleton) else -1


def _numbers(data: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The runs' values; -1 for those that are too long or, as JSON forbids, begin with a 0."""
    value = np.zeros(len(starts), np.int32)
    top = len(data) - 1
    for place in range(_DIGITS):
        there = place < lengths
        digit = data[np.minimum(starts + place, top)].astype(np.int32) - ord("0")
        value = np.where(there, 10 * value + digit, value)
    wrong = (lengths > _DIGITS) | ((lengths > 1) & (data[starts] == ord("0")))
    return np.where(wrong, -1, value)
