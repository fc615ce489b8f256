"""Reading a snapshot: what ``recon serve`` shows, in one read-only transaction, as the role that can't write the bots' tables.

What belongs here: the connection and the statements of ``sql/ops.sql``. What does not: when to read (``keeper``) and what is made
of it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg

from recon_pipeline.ledger.database import READER, Connection, DatabaseUnavailableError, connect, redact
from recon_pipeline.ledger.statements import statement
from recon_pipeline.ops.snapshot import Row, Snapshot

ROWS_AT_ONCE: Final = 200
"""rows that become Python objects before another thread may run: requests are answered while a large table is read"""
RUNS_SHOWN: Final = 20
UNCHECKED_SHOWN: Final = 500
UNCHECKED_REST: Final = 20
"""The bots' table may lack the index for orders that may still execute: what took a second to find is kept for so many."""


class ReadingError(Exception):
    """The database can't be read; the text says why, without secrets."""


class SnapshotReader:
    """One connection, kept from reading to reading and opened again after an error. Used by one thread."""

    def __init__(
        self,
        database_url: str,
        *,
        timeout_seconds: float,
        stale_ms: int,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._database_url = database_url
        self._timeout_ms = int(timeout_seconds * 1000)
        self._stale_seconds = stale_ms / 1000
        self._clock = clock
        self._unchecked: tuple[Row, ...] = ()
        self._unchecked_until = 0.0
        self._connection: Connection | None = None

    def read(self) -> Snapshot:
        """Return everything as it is now.

        :raises ReadingError: no connection, no answer in time, or a table that is not as this version has it
        """
        taken_at, began = self._clock(), time.monotonic()
        failure: str
        try:
            return self._read(taken_at, began)
        except DatabaseUnavailableError as error:
            failure = str(error)
        except psycopg.Error as error:
            failure = redact(str(error), self._database_url).strip() or type(error).__name__
        self.close()
        # Raised outside the handler: the driver's own message may quote the URL, and must not follow as a context.
        raise ReadingError(failure)

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _read(self, taken_at: dt.datetime, began: float) -> Snapshot:
        connection = self._connected()
        with connection.transaction():
            fields: dict[str, Any] = {
                "profiles": _rows(connection, "ops_profiles"),
                "cycles": _rows(connection, "ops_cycles"),
                "runs": _rows(connection, "ops_cycle_runs", row_limit=RUNS_SHOWN),
                "trading": _rows(connection, "ops_trading"),
                "watchdogs": _rows(connection, "ops_watchdogs"),
                "contentions": int(_rows(connection, "ops_contentions")[0]["contentions"]),
                "pending_batches": _rows(connection, "ops_pending_batches"),
                "totals": _rows(connection, "ops_totals"),
                "accounts": _rows(connection, "ops_accounts"),
                "order_checks": (checks := _rows(connection, "ops_order_checks")),
                "unchecked": self._unchecked_now(connection, checks),
                "sync": next(iter(_rows(connection, "ops_sync")), None),
                "streams": _rows(connection, "ops_streams"),
                "waiting": _rows(connection, "ops_waiting"),
                "undelivered_events": int(_rows(connection, "ops_undelivered_events")[0]["events"]),
            }
        return Snapshot(taken_at=taken_at, seconds=time.monotonic() - began, **fields)

    def _unchecked_now(self, connection: Connection, checks: tuple[Row, ...]) -> tuple[Row, ...]:
        began = time.monotonic()
        if began >= self._unchecked_until:
            limits = {"stale_seconds": self._stale_seconds, "row_limit": UNCHECKED_SHOWN}
            self._unchecked = _rows(connection, "ops_unchecked_orders", **limits)
            ended = time.monotonic()
            self._unchecked_until = ended + UNCHECKED_REST * (ended - began)
            return self._unchecked
        checked = {(row["profile_id"], row["order_id"]) for row in checks}
        return tuple(row for row in self._unchecked if (row["profile_id"], row["order_id"]) not in checked)

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            connection = connect(
                self._database_url,
                READER,
                "recon serve",
                statement_timeout_ms=self._timeout_ms,
                lock_timeout_ms=self._timeout_ms,
                connect_timeout_s=max(2, self._timeout_ms // 1000),
            )
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute(statement("ops_never_write"))
            self._connection = connection
        return self._connection


def _rows(connection: Connection, name: str, **parameters: object) -> tuple[Row, ...]:
    found: list[Row] = []
    with connection.cursor() as cursor:
        cursor.execute(statement(name), parameters)
        while some := cursor.fetchmany(ROWS_AT_ONCE):
            found += some
    return tuple(found)
