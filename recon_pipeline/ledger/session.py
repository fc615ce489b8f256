"""A connection that is opened when first needed and opened again after the server went away.

What belongs here: running one named statement for a reader. What does not: transactions and writes to the bots'
tables; those take a connection of their own (``database.connect``) and lose it with the failure.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg.types.json import Jsonb

from recon_pipeline.ledger.database import Connection, Role, Row, connect
from recon_pipeline.ledger.statements import statement

ROWS_PER_STATEMENT: Final = 5_000


class Session:
    """Named statements over one connection, each a transaction of its own. Safe to share between threads."""

    def __init__(self, database_url: str, role: Role, application_name: str) -> None:
        self._database_url = database_url
        self._role: Role = role
        self._application_name = application_name
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def rows(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run the statement, return its rows. All statements run here may be repeated: a lost connection is retried."""
        with self._lock:
            fresh = self._connection is None or self._connection.closed
            try:
                return self._run(name, parameters)
            except psycopg.OperationalError:
                if fresh or self._connection is None or not self._connection.closed:
                    raise
                return self._run(name, parameters)

    def close(self) -> None:
        """Give the connection back; the next statement opens another."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def __enter__(self) -> Self:
        """Return itself; nothing is opened yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _run(self, name: str, parameters: Mapping[str, Any] | None) -> list[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._database_url, self._role, self._application_name)
        return self._connection.execute(statement(name), parameters or {}).fetchall()


def json_rows(rows: Sequence[Mapping[str, Any]], size: int = ROWS_PER_STATEMENT) -> Iterator[Jsonb]:
    """Yield rows as parameters for ``jsonb_to_recordset``, at most ``size`` in one statement."""
    for begin in range(0, len(rows), size):
        yield Jsonb([dict(row) for row in rows[begin : begin + size]])
