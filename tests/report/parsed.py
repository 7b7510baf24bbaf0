"""A page as a browser's parser sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Element:
    """A start tag and its attributes."""

    name: str
    attributes: dict[str, str]


@dataclass
class Parsed(HTMLParser):
    """Every element, and all text that is not style."""

    elements: list[Element] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {key: value or "" for key, value in attrs}))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def names(self) -> set[str]:
        return {element.name for element in self.elements}


def parse(page: str) -> Parsed:
    """Parse a page, and check that what is opened is closed."""
    parsed = Parsed()
    parsed.feed(page)
    parsed.close()
    assert parsed.open == []
    return parsed
