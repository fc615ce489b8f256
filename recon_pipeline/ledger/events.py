"""Events: what operators and alerts are told, in ``recon.events``.

What belongs here: writing and reading them, and the throttle that all processes share. What does not: when to raise one, and
how it reaches people (``recon_pipeline.alerting``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from recon_pipeline.domain.corrections import Event
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


def raise_events(connection: Connection, events: Sequence[Event], *, run_id: str, now: dt.datetime) -> list[int]:
    """Insert the events that nobody has raised for their scope within their throttle; return the ids of those.

    Atomic across processes: of several that raise one scope at once, one does. ``now`` is the time of the events and of the
    throttle. In a transaction of the caller's that is rolled back, nothing was raised and nothing is throttled by it.

    :raises ValueError: a time without a zone
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    rows = [
        {
            "type": event.type.value,
            "severity": event.severity.value,
            "message": event.message,
            "profile_id": event.profile_id,
            "user_id": event.user_id,
            "account_id": event.account_id,
            "details": dict(event.details),
            "scope": event.scope,
            "throttle_ms": event.throttle_ms,
        }
        for event in events
    ]
    ids: list[int] = []
    with connection.transaction():
        for chunk in json_rows(rows):
            raised = connection.execute(statement("raise_events"), {"events": chunk, "run_id": run_id, "at": now})
            ids += [row["id"] for row in raised]
    return ids


def events_since(connection: Connection, since: dt.datetime, *, limit: int = 200) -> list[Row]:
    """Return the newest events at or after the instant, newest first."""
    return connection.execute(statement("select_events"), {"since": since, "row_limit": limit}).fetchall()
