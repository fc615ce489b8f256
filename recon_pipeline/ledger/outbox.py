"""The outbox: every change that the pipeline made to the bots' tables, in an order in which none is passed over.

What belongs here: reading it as a consumer does, acknowledging, and how far consumers are behind. What does not: writing
into it (``recon_pipeline.apply`` does, in the transaction of the change). The contract is ``docs/outbox.md``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.statements import statement


@dataclass(frozen=True)
class OutboxRow:
    """One row that the pipeline inserted or changed in one of the bots' tables."""

    tx: str
    """the transaction: rows of one belong together"""
    id: int
    batch_id: str
    profile_id: str
    kind: str | None
    """the stage that wrote it, ``exit_backfill`` or ``rollback``"""
    handler: str | None
    """what kind of change of an order it is; None for the other tables and for a backfill"""
    trade_id: str | None
    table_name: str
    row_key: Mapping[str, Any]
    before: Mapping[str, Any] | None
    """None: the row was inserted"""
    after: Mapping[str, Any]
    cause: Mapping[str, Any]
    created_at: dt.datetime


@dataclass(frozen=True)
class ConsumerLag:
    """How far a consumer is behind."""

    consumer: str
    tx: str
    id: int
    acknowledged_at: dt.datetime
    waiting: int
    """rows that it has not acknowledged"""
    oldest_at: dt.datetime | None


def read_outbox(connection: Connection, consumer: str, *, limit: int = 100) -> list[OutboxRow]:
    """What the consumer has not acknowledged, at most ``limit`` rows, in the order of the outbox; reading changes nothing.

    :raises psycopg.errors.RaiseException: the database was restored from another server and not rebased since
    """
    rows = connection.execute(statement("read_outbox"), {"consumer": consumer, "row_limit": limit}).fetchall()
    return [OutboxRow(**row) for row in rows]


def acknowledge_outbox(connection: Connection, consumer: str, row: OutboxRow) -> bool:
    """Everything up to and with this row is done; whether the consumer's position moved. It never moves back."""
    asked = {"consumer": consumer, "tx": row.tx, "id": row.id}
    moved = connection.execute(statement("acknowledge_outbox"), asked).fetchone()
    return bool(moved and moved["moved"])


def outbox_lag(connection: Connection) -> list[ConsumerLag]:
    """Every consumer that ever acknowledged, by name."""
    return [ConsumerLag(**row) for row in connection.execute(statement("select_outbox_lag")).fetchall()]
