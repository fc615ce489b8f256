"""Reading the runbooks as their tests do: links that lead nowhere, and the queries that they give to paste."""

from __future__ import annotations

import re
from pathlib import Path


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as they are linked to."""
    lines = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).strip().replace(" ", "-") for line in lines}


def links(text: str) -> list[tuple[str, str]]:
    """The links to other pages and headings: file (empty: this page) and anchor."""
    return re.findall(r"\]\(([\w./]*)(?:#([\w-]+))?\)", text)


def assert_leads_somewhere(page: Path, file: str, anchor: str) -> None:
    """A link of the page: its file is there, and has the heading."""
    target = (page.parent / file).resolve() if file else page
    assert target.is_file(), file
    assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), (file, anchor)


def pasted(text: str) -> list[str]:
    """The page's queries, each with its parameters' names as their values."""
    blocks = re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)
    found = [part.strip() for block in blocks for part in block.split(";") if part.strip()]
    return [re.sub(r":'(\w+)'", r"'\1'", query).replace("%", "%%") for query in found]
