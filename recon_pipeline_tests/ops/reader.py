"""Reads a page as a person does: its text, its lists, its links."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "link", "input", "br", "img", "wbr"})


@dataclass
class Node:
    """An element with its attributes and what is in it."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The text that a person reads, white space as it looks."""
        if self.tag in {"style", "script", "title"}:
            return ""
        inner = "".join(child if isinstance(child, str) else child.text for child in self.children)
        block = self.tag in {"p", "div", "li", "td", "th", "tr", "dt", "dd", "h1", "h2", "strong", "option", "section"}
        return f" {inner} " if block else inner

    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text).strip()

    def all(self, tag: str = "", **attributes: str) -> list[Node]:
        """Every element inside with that tag and those attributes (``class_`` is one of its classes)."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if (not tag or child.tag == tag) and all(child._has(name, value) for name, value in attributes.items()):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def _has(self, name: str, value: str) -> bool:
        if name == "class_":
            return value in self.attributes.get("class", "").split()
        return self.attributes.get(name) == value

    def one(self, tag: str = "", **attributes: str) -> Node:
        [found] = self.all(tag, **attributes)
        return found


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.path = [Node("document")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        assert len(node.attributes) == len(attrs), (tag, attrs)
        self.path[-1].children.append(node)
        if tag not in VOID:
            self.path.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.path[-1].tag == tag, f"</{tag}> closes <{self.path[-1].tag}>"
        self.path.pop()

    def handle_data(self, data: str) -> None:
        self.path[-1].children.append(data)


def read(html: str) -> Node:
    """The document; every element must be closed where it was opened."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert len(builder.path) == 1, builder.path[-1].tag
    return builder.path[0]


def rows(document: Node, section: str) -> list[str]:
    """The lines of one list as text."""
    return [
        row.words()
        for table in document.all("table", **{"aria-labelledby": section})
        for row in table.one("tbody").all("tr")
    ]


def fact(document: Node, name: str) -> str:
    """What the page says of one fact."""
    [found] = [node.words() for node in document.one("dl").all("div") if node.one("dt").words() == name]
    return found.removeprefix(name).strip()


def banners(document: Node) -> list[tuple[str, str]]:
    """Tone and text of every banner that shows."""
    shown = [node for node in document.all("div", class_="banner") if "hidden" not in node.attributes]
    return [(node.attributes["class"].split()[1], node.words()) for node in shown]
