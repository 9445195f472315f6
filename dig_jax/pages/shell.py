"""The page itself, and the blocks that it is made of. Whatever is not `Html` is escaped.

`page` fills `shell.html`, which holds the style and the script. The file it gives refers to nothing
outside itself: pictures are data URIs, and its content policy forbids every request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape, unescape
from pathlib import Path
from typing import NamedTuple

TEMPLATE = Path(__file__).with_name("shell.html")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COLORS = 6  # of sides, in shell.html
# what UTF-8 or HTML cannot hold, and what turns the direction of the text that follows it
_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Html(str):
    """Markup that is ready to stand in a page; text that is added to it is escaped."""

    __slots__ = ()

    def __add__(self, other: object) -> Html:
        return Html(str(self) + str(html(other)))

    def join(self, parts: Iterable[object]) -> Html:
        return Html(str(self).join(str(html(part)) for part in parts))


class Section(NamedTuple):
    """A part of the page, in its navigation too."""

    anchor: str
    heading: str
    body: Html


class Side(NamedTuple):
    """One of what a page compares: its letter and colour go by its number.

    short   stands in place of the letter
    """

    number: int
    name: str
    about: str
    short: str = ""

    @property
    def letter(self) -> str:
        if self.short:
            return self.short
        return LETTERS[self.number] if self.number < len(LETTERS) else f"{self.number + 1}"

    @property
    def css(self) -> str:
        """The class that gives marks of this side their colour."""
        return f"s{self.number % _COLORS}"


def html(value: object) -> Html:
    """A value as markup: itself if it is, else its escaped text."""
    return value if isinstance(value, Html) else Html(escape(printable(str(value))))


def printable(text: str) -> str:
    """Text whose control characters and half surrogate pairs are replaced by a mark."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def joined(*parts: object) -> Html:
    return Html("").join(parts)


def tag(name: str, content: object = "", **attributes: object) -> Html:
    """An element; `css` is its class, other names are its attributes (`_` is `-`, None: none)."""
    pairs = {{"css": "class"}.get(k, k).replace("_", "-"): v for k, v in attributes.items()}
    text = "".join(f' {k}="{escape(printable(str(v)))}"' for k, v in pairs.items() if v is not None)
    return Html(f"<{name}{text}>{html(content)}</{name}>")


def page(title: str, subtitle: str, sides: Sequence[Side], sections: Iterable[Section]) -> str:
    """The whole file."""
    sections = [section for section in sections if section.body]
    links = (tag("li", tag("a", s.heading, href=f"#{s.anchor}")) for s in sections)
    bodies = (
        tag("section", joined(tag("h2", s.heading), s.body), id=s.anchor, aria_label=s.heading)
        for s in sections
    )
    parts = {
        "TITLE": html(title),
        "SUBTITLE": html(subtitle),
        "SIDES": sides_list(sides),
        "NAV": joined(*links),
        "SECTIONS": Html("\n").join(bodies),
    }
    text = TEMPLATE.read_text(encoding="utf-8")
    # no content holds "<!--": it is escaped
    return re.sub("<!--([A-Z]+)-->", lambda found: parts[found[1]], text)


def sides_list(sides: Sequence[Side]) -> Html:
    items = (
        tag(
            "li",
            joined(letter(side), tag("b", side.name), tag("span", side.about, css="soft small")),
        )
        for side in sides
    )
    return tag("ul", joined(*items), css="sides")


def letter(side: Side) -> Html:
    return tag("span", side.letter, css=f"letter {side.css}")


def table(
    head: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: object = "",
    css: str = "",
    wide: Sequence[int] = (),
    marks: Mapping[int, str] | None = None,
) -> Html:
    """Cells as a table whose first column names its rows; it scrolls where it is too wide.

    css     "stack": rows become blocks on narrow screens; "facts": long texts break
    wide    columns that have a line of their own there
    marks   number of a row -> its class
    """
    names = [plain(cell) for cell in head]
    lines = []
    for number, row in enumerate(rows):
        first, *rest = row
        cells = [tag("th", first, scope="row")]
        cells += [
            tag("td", tag("div", cell), data_label=names[i], css="wide" if i in wide else None)
            for i, cell in enumerate(rest, 1)
        ]
        lines.append(tag("tr", joined(*cells), css=(marks or {}).get(number)))
    heads = joined(*(tag("th", cell, scope="col") for cell in head))
    inner = joined(
        tag("caption", caption) if caption else "",
        tag("thead", tag("tr", heads)),
        tag("tbody", joined(*lines)),
    )
    named = plain(caption) or ", ".join(filter(None, names))
    whole = tag("table", inner, css=css or None)
    return tag("div", whole, css="scroll", tabindex="0", role="region", aria_label=named)


def plain(cell: object) -> str:
    """The words of a cell, without markup."""
    return unescape(re.sub("<[^>]*>", "", cell)) if isinstance(cell, Html) else str(cell)


def details(summary: object, body: object, *, css: str = "", open_: bool = False) -> Html:
    inner = joined(tag("summary", summary), body)
    return tag("details", inner, css=css or None, open="" if open_ else None)


def paragraph(content: object, css: str = "") -> Html:
    return tag("p", content, css=css or None)


def panel(*parts: object) -> Html:
    return tag("div", joined(*parts), css="panel")
