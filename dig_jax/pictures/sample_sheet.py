"""The picture of sampled answers: a card per pair with its images, boxes, scores and text.

On image B a line joins each predicted box to the true box that it was matched with.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from dig_jax.pictures.drawing import (
    FAINT,
    GAP,
    INK,
    PAPER,
    PRED,
    TRUE,
    corners,
    draw_box,
    draw_tag,
    enlarged,
    font_of,
    framed,
    heading,
    legend,
)

LINK, RULE, BAR, TRACK = "#1f6feb", "#e5e7eb", "#1f6feb", "#eef0f3"
TRUE_TAG = "#0b8043"  # darker than TRUE: white letters stand on it
TEXT_PX, PAD = 400, 18  # width of a card's text column, px, and the space around it
BARS = {"format": "format", "f1": "F1", "iou": "mean IoU", "precision": "precision"}
BARS |= {"recall": "recall"}  # parts of a reward that lie in [0, 1], with their labels
OTHER = {*BARS, "reward", "count_ok", "n_pred", "true_positives", "empty"}  # shown elsewhere
ROW, LETTER = 19, 13  # px between lines of the column, and size of its letters


def sample_sheet(
    images: Sequence[np.ndarray], rows: Sequence[Mapping], *, title: str
) -> Image.Image:
    """One card below another.

    images  u8[2, Y, X, 3] of each row, in their order
    rows    of samples.jsonl
    """
    note = "     blue: from a prediction to the true box it was matched with      left: image A"
    note += "      right: image B"
    keys = {"true difference, with its type": TRUE, "predicted, with its IoU": PRED}
    cards = [_card(pair, row) for pair, row in zip(images, rows, strict=True)]
    blocks = [heading(title, size=20), legend(keys, note)]
    for card in cards:
        blocks += [_rule(card.width), card]
    return framed(blocks)


def _card(images: np.ndarray, row: Mapping) -> Image.Image:
    a, b = _marked(images, row)
    left = a.width + GAP + b.width + PAD
    card = Image.new("RGB", (left + TEXT_PX, max(a.height, 236)), PAPER)
    card.paste(a, (0, 0))
    card.paste(b, (a.width + GAP, 0))
    column = _Column(card, left)
    column.headline(f"pair {row['pair_id']} of {row['bucket']}", row["verdict"])
    column.line(_counts(row), FAINT)
    for name, label in BARS.items():
        if name in row["scores"]:
            column.bar(label, row["scores"][name])
    column.line(_reward(row["scores"]), INK)
    column.group(row["group_rewards"])
    column.text(row["text"])
    return card


def _marked(images: np.ndarray, row: Mapping) -> list[Image.Image]:
    """Both images with the true boxes, A with their types, B with the predicted ones and lines."""
    a, b = [enlarged(image) for image in images]
    for picture in (a, b):
        for box in row["true"]:
            draw_box(picture, box, TRUE, 3)
    for box, kind in zip(row["true"], row["kinds"], strict=True):
        draw_tag(a, box, kind, TRUE_TAG)
    matched = list(zip(row["pred"], row["match"], row["match_iou"], strict=True))
    for box, match, _ in matched:
        draw_box(b, box, PRED, 2)
        if match >= 0:
            _link(b, box, row["true"][match])
    for box, match, iou in matched:
        draw_tag(b, box, f"{iou:.2f}" if match >= 0 else "none")
    return [a, b]


def _link(picture: Image.Image, pred: Sequence[float], true: Sequence[float]) -> None:
    """From centre to centre, with a dot at the true one."""
    draw = ImageDraw.Draw(picture)
    ends = []
    for box in (pred, true):
        x0, y0, x1, y1 = corners(picture, box)
        ends.append(((x0 + x1) / 2, (y0 + y1) / 2))
    draw.line(ends, fill=LINK, width=2)
    x, y = ends[1]
    draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=LINK)


def _counts(row: Mapping) -> str:
    matched = sum(match >= 0 for match in row["match"])
    return f"{len(row['true'])} true, {len(row['pred'])} predicted, {matched} matched"


def _reward(scores: Mapping[str, float]) -> str:
    """The reward, and those of its parts that have no bar."""
    rest = [f"{name} {value:.2f}" for name, value in scores.items() if name not in OTHER]
    return "   ".join([f"reward {scores['reward']:.2f}", *rest])


class _Column:
    """The text beside the images, written from the top down."""

    def __init__(self, card: Image.Image, left: int):
        self._draw, self._left, self._top = ImageDraw.Draw(card), left, 0
        self._bottom = card.height

    def headline(self, text: str, verdict: str) -> None:
        """Which pair, and at the right whether its answer was well-formed."""
        self._draw.text((self._left, self._top), text, fill=INK, font=font_of(16))
        letters, color = font_of(LETTER), TRUE_TAG if verdict == "ok" else PRED
        wide = letters.getlength(verdict) + 14
        right, y = self._left + TEXT_PX, self._top + 1
        self._draw.rounded_rectangle([right - wide, y, right - 1, y + 18], 5, fill=color)
        self._draw.text((right - wide + 7, y + 1), verdict, fill=PAPER, font=letters)
        self._top += 23

    def line(self, text: str, color: str) -> None:
        self._draw.text((self._left, self._top), text, fill=color, font=font_of(LETTER))
        self._top += ROW

    def bar(self, label: str, value: float) -> None:
        """A number in [0, 1] as a bar."""
        x, y, length = self._left + 82, self._top + 3, TEXT_PX - 82 - 44
        letters = font_of(LETTER)
        self._draw.text((self._left, self._top), label, fill=FAINT, font=letters)
        self._draw.rectangle([x, y, x + length, y + 10], fill=TRACK)
        if value > 0:
            end = x + length * min(1.0, value)
            self._draw.rectangle([x, y, end, y + 10], fill=BAR)
        self._draw.text((x + length + 10, self._top), f"{value:.2f}", fill=INK, font=letters)
        self._top += ROW

    def group(self, rewards: Sequence[float]) -> None:
        """The rewards of the whole group side by side; the answer shown is the dark one."""
        low, high = min(0.0, *rewards), max(1e-9, *rewards)
        text = f"its group of {len(rewards)}: mean {np.mean(rewards):.2f}"
        letters = font_of(LETTER)
        self._draw.text((self._left, self._top + 4), text, fill=FAINT, font=letters)
        x, tall = self._left + int(letters.getlength(text)) + 14, 22
        room = self._left + TEXT_PX - x
        wide = max(2, min(12, room // len(rewards) - 2))
        for number, reward in enumerate(rewards[: room // (wide + 2)]):
            top = self._top + tall - tall * (reward - low) / (high - low)
            at = x + number * (wide + 2)
            color = INK if number == 0 else "#c3c8d0"
            self._draw.rectangle([at, min(top, self._top + tall - 1), at + wide - 1,
                                  self._top + tall], fill=color)  # fmt: skip
        self._top += tall + 8

    def text(self, text: str) -> None:
        """The answer; of a long one its first and last lines, as many as there is room for."""
        letters = font_of(12)
        shown = "".join(c if c.isprintable() else " " for c in text) or "(nothing)"
        lines = textwrap.wrap(shown, 62, break_on_hyphens=False)
        room = max(1, (self._bottom - self._top) // 16)
        if len(lines) > room:
            first, last = room // 2, len(lines) - (room - 1 - room // 2)
            left_out = sum(map(len, lines[first:last]))
            lines = [*lines[:first], f"... {left_out} characters ...", *lines[last:]]
        for line in lines:
            self._draw.text((self._left, self._top), line, fill=INK, font=letters)
            self._top += 16


def _rule(width: int) -> Image.Image:
    """A thin line across, with air around it."""
    strip = Image.new("RGB", (width, 11), PAPER)
    ImageDraw.Draw(strip).line([0, 5, strip.width, 5], fill=RULE)
    return strip
