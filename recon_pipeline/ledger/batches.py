"""Batches: planned sets of changes and what became of them, in ``recon.batches``.

What belongs here: recording, reading and moving a batch between states. What does not: making a plan (``domain``) and
carrying it out (``apply``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement


class BatchState(StrEnum):
    """Where a batch stands."""

    PLANNED = "PLANNED"
    PENDING_APPLY = "PENDING_APPLY"
    APPLIED = "APPLIED"
    FAILED = "FAILED"
    REVERTED = "REVERTED"
    PARTLY_REVERTED = "PARTLY_REVERTED"


def record_batches(connection: Connection, batches: Sequence[Mapping[str, Any]]) -> list[str]:
    """Record batches (columns of ``recon.batches``; state PLANNED unless given); return the ids that were new."""
    recorded: list[str] = []
    with connection.transaction():
        for chunk in json_rows(batches):
            recorded += [row["batch_id"] for row in connection.execute(statement("insert_batches"), {"batches": chunk})]
    return recorded


def move_batch(
    connection: Connection,
    batch_id: str,
    state: BatchState,
    *,
    from_states: Sequence[BatchState],
    reviewed_digest: str | None = None,
    error: str | None = None,
) -> bool:
    """Set the batch's state if it is in one of ``from_states``; return whether it was."""
    row = connection.execute(
        statement("update_batch_state"),
        {
            "batch_id": batch_id,
            "state": state.value,
            "from_states": [s.value for s in from_states],
            "reviewed_digest": reviewed_digest,
            "error": error,
        },
    ).fetchone()
    return row is not None


def read_batch(connection: Connection, batch_id: str) -> Row | None:
    """Return the batch, None where there is none."""
    return connection.execute(statement("select_batch"), {"batch_id": batch_id}).fetchone()


def latest_batch(connection: Connection, profile_id: str, kind: str, states: Sequence[BatchState]) -> Row | None:
    """Return the newest batch of the profile of this kind in any of the states, without its plan."""
    return connection.execute(
        statement("select_latest_batch"),
        {"profile_id": profile_id, "kind": kind, "states": [s.value for s in states]},
    ).fetchone()


def stuck_batches(connection: Connection, *, older_than_seconds: float) -> list[Row]:
    """Return batches announced as being applied that long ago and without an outcome since, oldest first."""
    return connection.execute(statement("select_stuck_batches"), {"older_than_seconds": older_than_seconds}).fetchall()
