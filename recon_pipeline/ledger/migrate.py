"""Brings a database to the state this version needs: numbered SQL files once each, then the repeatable ones.

What belongs here: which files are due, the lock, the record of what was applied. What does not: any table, view or
role (they are SQL, in ``sql/migrations``), and judging the bots' tables (``requirements``).

Each numbered file runs once, in a transaction of its own, and its checksum is kept: a file that changed after it was
applied is an error. The repeatable files (conversions, views, roles) run together, in one transaction, whenever one
of them or the shape of the bots' tables has changed. Processes that start at once take turns by a transaction-level
advisory lock that is polled, never waited for: it holds through a transaction pooler and can't deadlock with a
concurrent index build.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg

from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, connect
from recon_pipeline.ledger.statements import sql_directory

LOCK_KEY: Final = 0x7265636F6E  # "recon"
LOCK_PATIENCE_SECONDS: Final = 120.0
LOCK_POLL_SECONDS: Final = 0.05
REPEATABLE: Final = "repeatable"

_BOOTSTRAP: Final = b"""
CREATE SCHEMA IF NOT EXISTS recon;
CREATE TABLE IF NOT EXISTS recon.schema_migrations (
  name       text PRIMARY KEY,
  checksum   text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
"""

# Columns and identities of the tables that the repeatable files are built from.
_SHAPE: Final = b"""
SELECT coalesce(string_agg(concat_ws(' ', c.oid, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)), ','
                           ORDER BY c.relname, a.attname), '') AS shape
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace('public')
  AND c.relname IN ('profiles', 'orders', 'positions', 'trade_history', 'capital_ledger', 'trading_control',
                    'reconciliation_backfill_audit')
"""


class MigrationError(Exception):
    """The database could not be migrated; the text says why and what to do."""


@dataclass(frozen=True)
class Migration:
    """One SQL file."""

    name: str
    text: bytes
    repeatable: bool = False

    @property
    def checksum(self) -> str:
        """Return a hash of the content; line endings don't count."""
        return hashlib.sha256(self.text.replace(b"\r\n", b"\n")).hexdigest()


def migrations(directory: Path | None = None) -> list[Migration]:
    """Return the numbered files in order, then the repeatable ones in order."""
    folder = directory or sql_directory() / "migrations"
    numbered = [Migration(path.stem, path.read_bytes()) for path in sorted(folder.glob("[0-9]*.sql"))]
    repeatable = [
        Migration(f"{REPEATABLE}/{path.stem}", path.read_bytes(), repeatable=True)
        for path in sorted((folder / REPEATABLE).glob("[0-9]*.sql"))
    ]
    if not numbered:
        raise MigrationError(f"no migrations found in {folder}")
    return numbered + repeatable


def migrate(
    database_url: str, *, directory: Path | None = None, patience_seconds: float = LOCK_PATIENCE_SECONDS
) -> list[str]:
    """Apply what is due and return its names, oldest first; an up-to-date database costs three small reads."""
    files = migrations(directory)
    applied: list[str] = []
    with connect(database_url, application_name="recon migrate", statement_timeout_ms=0) as connection:
        while due := _due(connection, files):
            deadline = time.monotonic() + patience_seconds
            while not (done := _apply_next(connection, files)):
                if not _due(connection, files):
                    return applied  # another process did the rest
                if time.monotonic() > deadline:
                    raise MigrationError(
                        f"another process has been migrating this database for {patience_seconds:.0f} s; "
                        f"still to apply: {', '.join(m.name for m in due)}"
                    )
                time.sleep(LOCK_POLL_SECONDS)
            applied += done
    return applied


def pending(database_url: str, *, directory: Path | None = None) -> list[str]:
    """Return the names of what `migrate` would apply; change nothing."""
    try:
        connection = connect(database_url, READER, "recon doctor")
    except DatabaseUnavailableError:  # before the first migration there may be no such role
        connection = connect(database_url, application_name="recon doctor")
    with connection:
        return [migration.name for migration in _due(connection, migrations(directory))]


def _due(connection: psycopg.Connection[dict[str, Any]], files: list[Migration]) -> list[Migration]:
    """Return what is due: the numbered files not yet applied, and all repeatable ones if an input changed."""
    known = _applied(connection)
    numbered = [m for m in files if not m.repeatable]
    changed = [m.name for m in numbered if m.name in known and known[m.name] != m.checksum]
    if changed:
        raise MigrationError(
            f"migration {', '.join(changed)} was changed after it was applied to this database: "
            "restore the file as it was and put the change into a new migration"
        )
    due = [m for m in numbered if m.name not in known]
    repeatable = [m for m in files if m.repeatable]
    fingerprint = _fingerprint(connection, repeatable)
    if due or known.get(REPEATABLE) != fingerprint:
        due += repeatable
    return due


def _applied(connection: psycopg.Connection[dict[str, Any]]) -> dict[str, str]:
    there = connection.execute(b"SELECT to_regclass('recon.schema_migrations') IS NOT NULL AS there").fetchone()
    if there is None or not there["there"]:
        return {}
    rows = connection.execute(b"SELECT name, checksum FROM recon.schema_migrations").fetchall()
    return {row["name"]: row["checksum"] for row in rows}


def _fingerprint(connection: psycopg.Connection[dict[str, Any]], repeatable: list[Migration]) -> str:
    row = connection.execute(_SHAPE).fetchone()
    parts = [migration.checksum for migration in repeatable] + [row["shape"] if row else ""]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _apply_next(connection: psycopg.Connection[dict[str, Any]], files: list[Migration]) -> list[str]:
    """Apply the next numbered file, or all repeatable ones; an empty list if the lock is not free or nothing is due."""
    with connection.transaction():
        got = connection.execute(b"SELECT pg_try_advisory_xact_lock(%s) AS got", (LOCK_KEY,)).fetchone()
        if got is None or not got["got"]:
            return []
        connection.execute(_BOOTSTRAP)
        due = _due(connection, files)
        if not due:
            return []
        batch = due if due[0].repeatable else due[:1]
        for migration in batch:
            try:
                connection.execute(migration.text)
            except psycopg.Error as error:
                hint = error.diag.message_hint
                raise MigrationError(
                    f"migration {migration.name} failed, nothing of it was applied: {str(error).strip()}"
                    + (f" Hint: {hint}" if hint and hint not in str(error) else "")
                ) from error
        if due[0].repeatable:
            record = {"name": REPEATABLE, "checksum": _fingerprint(connection, batch)}
        else:
            record = {"name": batch[0].name, "checksum": batch[0].checksum}
        connection.execute(
            b"INSERT INTO recon.schema_migrations (name, checksum) VALUES (%(name)s, %(checksum)s) "
            b"ON CONFLICT (name) DO UPDATE SET checksum = excluded.checksum, applied_at = now()",
            record,
        )
        return [migration.name for migration in batch]
