"""The audit of the exit backfill: rows in ``reconciliation_backfill_audit``.

What belongs here: writing and reading them. What does not: what they say (``domain.audit``), and marking them
reverted, which is part of a rollback's transaction (``apply``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Final

from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement

_BEGINNING: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def insert_audit_records(connection: Connection, records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Insert all records or none, in their order; return id, decision and ids of each."""
    inserted: list[Row] = []
    with connection.transaction():
        for chunk in json_rows(records):
            inserted += connection.execute(statement("insert_audit_records"), {"records": chunk}).fetchall()
    return inserted


def audit_of_batch(connection: Connection, batch_id: str) -> list[Row]:
    """Return every audit row of the batch, oldest first."""
    return connection.execute(statement("select_audit_of_batch"), {"batch_id": batch_id}).fetchall()


def audit_of_profile(
    connection: Connection, profile_id: str, *, since: dt.datetime = _BEGINNING, limit: int = 200
) -> list[Row]:
    """Return the newest audit rows of the profile, newest first."""
    return connection.execute(
        statement("select_audit_of_profile"), {"profile_id": profile_id, "since": since, "row_limit": limit}
    ).fetchall()
