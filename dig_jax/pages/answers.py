"""A question with its pictures and what each side answered: what a flip looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dig_jax.pages.picture import Shown, framed
from dig_jax.pages.shell import Html, Side, details, joined, letter, paragraph, printable, tag

# ways of a card -> what chooses them among all
WAYS = {"gained": "gained", "lost": "lost", "wrong": "wrong", "right": "right"}
_BOXES = 12  # of one answer that are drawn
_ANSWER, _THOUGHT = 2100, 6000  # characters of a text that are shown, from its end
_END_OF_THOUGHT = "</think>"


class Answer(NamedTuple):
    """What one side answered.

    right   None where it is not a matter of right and wrong
    facts   how it was read, in words
    boxes   in 0..1 of the pictures' width and height
    """

    side: Side
    right: bool | None
    facts: str
    text: str
    boxes: Sequence[Sequence[float]] = ()


class Card(NamedTuple):
    """One question.

    way        of WAYS, and `chip` in words
    prompt     the text that was asked, or ""
    target     what is right, in words
    true       its boxes in 0..1
    pictures   small copies; all boxes are drawn over each
    missing    why there is no picture, or ""
    """

    id: str
    way: str
    chip: str
    prompt: str
    target: str
    true: Sequence[Sequence[float]]
    pictures: Sequence[Shown]
    missing: str
    answers: Sequence[Answer]


def card_html(card: Card) -> Html:
    boxes = [("true", box) for box in card.true]
    for answer in card.answers:
        boxes += [(f"said {answer.side.css}", box) for box in answer.boxes]
    over = f" with {len(boxes)} boxes drawn over it" if boxes else ""
    shown = [
        framed(picture, f"Picture {number} of {card.id}{over}", boxes)
        for number, picture in enumerate(card.pictures, 1)
    ]
    pics = tag("div", joined(*shown), css="pics pair" if len(shown) > 1 else "pics")
    words = joined(
        paragraph(card.prompt, "ask") if card.prompt else "",
        paragraph(joined("Target: ", tag("b", card.target)), "small"),
        *map(_said, card.answers),
        paragraph(card.missing, "soft small") if card.missing else "",
    )
    split = joined(pics if shown else "", tag("div", words))
    css = "better" if card.way in ("gained", "right") else "worse"
    head = tag("header", joined(tag("h4", card.id), tag("span", card.chip, css=f"chip {css}")))
    body = joined(head, tag("div", split, css="split" if shown else "split words"))
    return tag("article", body, css="card", tabindex="-1", data_way=card.way)


def filter_bar(ways: Sequence[str]) -> Html:
    """What chooses among cards; hidden until its script runs. "" where there is no card."""
    if not ways:
        return Html("")
    names = [("", "all"), *((way, WAYS[way]) for way in WAYS if way in ways)]
    options = joined(*(tag("option", words, value=way) for way, words in names))
    chosen = tag("label", joined("answers shown: ", tag("select", options)))
    button = tag("button", "Open or close all benchmarks", type="button")
    status = tag("output", "", role="status", css="soft")
    return tag("div", joined(chosen, button, status), css="bar", hidden="")


def of_row(side: Side, row: Mapping, samples: int = 1, share: float = 0.0) -> Answer:
    """The answer of a row of a result.json.

    samples   how many answers the question has, of which this is the first
    share     of them that are right
    """
    value = row.get("value")
    found = value if isinstance(value, list | tuple) else []
    boxes = [unit_box(each) for each in found if is_box(each)][:_BOXES]
    more = f", the first of {len(boxes)} counts" if len(boxes) > 1 else ""
    read = value_text(found[0] if len(found) == 1 else value)
    facts = [f"read as {read}{more} ({row.get('how')})"]
    if row.get("iou") is not None:
        facts.append(f"IoU {row['iou']:.2f}")
    if samples > 1:
        facts.append(f"the first of {samples} answers, {share:.0%} of them right")
    right = float(row.get("correct") or 0) == 1
    return Answer(side, right, " · ".join(facts), str(row.get("text") or ""), boxes)


def value_text(value: object) -> str:
    """What was read in an answer, or what is right, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def is_box(value: object) -> bool:
    """Whether a value is four numbers."""
    four = isinstance(value, list | tuple) and len(value) == 4
    return four and all(isinstance(each, int | float) for each in value)


def unit_box(box: Sequence[float]) -> list[float]:
    """A box in 0..1000 as one in 0..1."""
    return [each / 1000 for each in box]


def _said(answer: Answer) -> Html:
    """A side's text, what was read in it, and whether that is right."""
    outcome = Html("")
    if answer.right is not None:
        css = "better" if answer.right else "worse"
        outcome = joined(" ", tag("b", "right" if answer.right else "wrong", css=css), " ·")
    head = paragraph(joined(letter(answer.side), outcome, f" {answer.facts}"))
    thought, mark, text = answer.text.rpartition(_END_OF_THOUGHT)
    parts = [head, tag("pre", _end(text.strip(), _ANSWER) or "(nothing)", tabindex="0")]
    if mark and thought.strip():
        inner = tag("pre", _end(thought.strip(), _THOUGHT), tabindex="0")
        parts.append(details(f"Thought, {len(thought)} characters", inner))
    return tag("div", joined(*parts), css="said")


def _end(text: str, most: int) -> str:
    text = printable(text)
    left_out = len(text) - most
    return text if left_out <= 0 else f"... {left_out} characters before ...\n{text[-most:]}"
