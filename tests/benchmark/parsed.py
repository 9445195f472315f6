"""A page as its tags and words."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Every tag with its attributes, and all text outside of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self._texts, self._inside = [], [], ""
        self.feed(text)
        self.words = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self._texts.append(data)

    def all(self, tag, **wanted):
        """Attributes of every such tag; `css` is among its classes."""
        css = wanted.pop("css", None)
        found = [attrs for name, attrs in self.tags if name == tag]
        found = [a for a in found if css is None or css in (a.get("class") or "").split()]
        return [a for a in found if all(a.get(key) == value for key, value in wanted.items())]
