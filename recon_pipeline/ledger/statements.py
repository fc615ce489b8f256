r"""The SQL of the pipeline: named blocks of the files in ``sql/``, also pasted into psql.

What belongs here: finding and reading the files. What does not: SQL, and running it.

A block opens with ``-- name: select_something`` and a comment that says which index it relies on or which lock it
takes, and ends where the next one begins. Parameters are psql variables, ``:'profile_id'``, so that a block can be
pasted into psql after ``\set profile_id p1``; here they become psycopg's ``%(profile_id)s``. (psycopg's own spelling
is understood too, but can't be pasted.) A per cent sign is written once, as in psql.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"^--\s*name:\s*(\S+)\s*$")
_TOKEN: Final = re.compile(r"(?<!:):'(?P<psql>[a-z_][a-z0-9_]*)'|%\((?P<psycopg>[a-z_][a-z0-9_]*)\)s|(?P<percent>%)")
_IDENTIFIER: Final = re.compile(r"[a-z_][a-z0-9_]*")


class StatementError(Exception):
    """A statement that does not exist, or a file that can't be read as named blocks."""


@dataclass(frozen=True)
class Statement:
    """One named block."""

    name: str
    file: str
    comment: str
    source: str
    """The block as it stands in the file, comments left out."""
    query: bytes
    """What psycopg gets; the name leads it, so that pg_stat_activity shows it."""
    parameters: tuple[str, ...]


def sql_directory() -> Path:
    """Return ``sql/`` of the source checkout, or its copy in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "_sql", package.parent / "sql"):
        if (candidate / "migrations").is_dir():
            return candidate
    raise StatementError(f"the SQL files are missing: neither {package / '_sql'} nor {package.parent / 'sql'} exists")


def statement(name: str) -> bytes:
    """Return the named statement, as psycopg takes it."""
    found = statements().get(name)
    if found is None:
        raise StatementError(f"no statement is named {name!r} in {sql_directory()}")
    return found.query


@cache
def statements() -> dict[str, Statement]:
    """Return every named statement of ``sql/*.sql``."""
    found: dict[str, Statement] = {}
    for path in sorted(sql_directory().glob("*.sql")):
        for block in parse(path.read_text(encoding="utf-8"), path.name):
            if block.name in found:
                raise StatementError(f"{block.name} is defined in {found[block.name].file} and in {path.name}")
            found[block.name] = block
    return found


def parse(text: str, file: str) -> list[Statement]:
    """Return the named blocks of one file."""
    blocks: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if match := _NAME.match(line):
            if not _IDENTIFIER.fullmatch(match[1]):
                raise StatementError(f"{file}: {match[1]!r} is no name for a statement")
            blocks.append((match[1], []))
        elif blocks:
            blocks[-1][1].append(line)
        elif line.strip() and not line.lstrip().startswith("--"):
            raise StatementError(f"{file}: text before the first '-- name:' line: {line.strip()!r}")
    return [_statement(name, lines, file) for name, lines in blocks]


def _statement(name: str, lines: list[str], file: str) -> Statement:
    comments = [line.strip()[2:].strip() for line in lines if line.lstrip().startswith("--")]
    source = "\n".join(line for line in lines if not line.lstrip().startswith("--")).strip().removesuffix(";").strip()
    if not source:
        raise StatementError(f"{file}: {name} is empty")
    parameters: list[str] = []

    def translate(match: re.Match[str]) -> str:
        if match["percent"]:
            return "%%"
        parameter = match["psql"] or match["psycopg"]
        if parameter not in parameters:
            parameters.append(parameter)
        return f"%({parameter})s"

    query = _TOKEN.sub(translate, source)
    return Statement(name, file, " ".join(comments), source, f"/* {name} */ {query}".encode(), tuple(parameters))
