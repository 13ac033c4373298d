"""Checks the structure of a page that Swath wrote."""

from __future__ import annotations

from html.parser import HTMLParser


class Structure(HTMLParser):
    """Tags that stay open, and what every table and picture lacks for those who cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.problems: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img" and not given.get("alt"):
            self.problems.append("an image without words")
        if tag == "svg" and not given.get("aria-label"):
            self.problems.append("a chart without words")
        if tag == "th" and given.get("scope") not in ("col", "row"):
            self.problems.append("a header cell of nothing")
        if tag not in ("meta", "img", "br", "line", "circle", "polyline", "polygon"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("line", "circle", "polyline", "polygon"):
            return
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes something else")
