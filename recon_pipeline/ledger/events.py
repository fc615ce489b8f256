"""Events: what operators and alerts are told, in ``recon.events``.

What belongs here: writing and reading them. What does not: when to raise one, and throttling.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement


def insert_events(connection: Connection, events: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert events, return ids (type, severity, message; profile_id, user_id, account_id, run_id, details)."""
    ids: list[int] = []
    with connection.transaction():
        for chunk in json_rows(events):
            ids += [row["id"] for row in connection.execute(statement("insert_events"), {"events": chunk})]
    return ids


def events_since(connection: Connection, since: dt.datetime, *, limit: int = 200) -> list[Row]:
    """Return the newest events at or after the instant, newest first."""
    return connection.execute(statement("select_events"), {"since": since, "row_limit": limit}).fetchall()
