"""The stream's events and who listens to which account, as Postgres keeps them: ``recon.order_events``, ``recon.order_streams``.

What belongs here: storing an event once, finding those that nobody has handled, settling them, the heartbeat of a process that
listens. What does not: what an event says (``domain.order_events``) and what is done about it (``order_status``).

Every function takes a connection as ``recon_reader``, whose role can't touch the bots' tables.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_events import REPLACED, TELLING, EventOutcome, OrderEvent, StreamState
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement
from recon_pipeline.ledger.totals import Addition, TotalName, add_totals

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Settlement:
    """What became of one stored event."""

    id: int
    outcome: EventOutcome
    detail: str = ""
    profile_id: str = ""


def store_event(connection: Connection, event: OrderEvent, received_at: dt.datetime) -> bool:
    """Store an event, and count it; False, and nothing, where it was stored before."""
    happened = event.happened_at_ms
    values = {
        "account_id": event.account_id,
        "event_key": event.event_key,
        "event": event.event,
        "order_id": event.order_id,
        "client_order_id": event.client_order_id,
        "happened_at": None if happened == NO_TIME else _EPOCH + dt.timedelta(milliseconds=happened),
        "received_at": received_at,
        "raw": Jsonb(dict(event.raw)),
    }
    with connection.transaction():
        if connection.execute(statement("insert_order_event"), values).fetchone() is None:
            return False
        add_totals(connection, [Addition(TotalName.STREAM_EVENTS, 1, account_id=event.account_id)])
    return True


def waiting_events(connection: Connection, account_id: str, *, limit: int) -> list[Row]:
    """Events that nobody has handled (id, event, order_id, client_order_id, happened_ms, received_ms, raw), as they came."""
    asked = {"account_id": account_id, "row_limit": limit}
    return connection.execute(statement("select_waiting_order_events"), asked).fetchall()


def disputed_orders(connection: Connection, account_id: str, order_ids: Iterable[str]) -> set[str]:
    """Of the orders those that an event, handled or not, said anything unusual of: a bust, a correction, an unknown word."""
    asked = {
        "account_id": account_id,
        "order_ids": sorted(set(order_ids) - {""}),
        "telling": sorted({*TELLING, REPLACED}),
    }
    return {row["order_id"] for row in connection.execute(statement("select_disputed_orders"), asked)}


def settle_events(connection: Connection, settlements: Sequence[Settlement], *, handled_at: dt.datetime) -> int:
    """Note what became of events; how many of them nobody had settled before."""
    rows = [
        {
            "id": found.id,
            "outcome": found.outcome.value,
            "detail": found.detail,
            "profile_id": found.profile_id,
            "needs_cycle": found.outcome is EventOutcome.NEEDS_CYCLE,
        }
        for found in settlements
    ]
    settled = 0
    for chunk in json_rows(rows):
        asked = {"rows": chunk, "handled_at": handled_at}
        settled += len(connection.execute(statement("settle_order_events"), asked).fetchall())
    return settled


def profiles_to_reconcile(connection: Connection) -> list[Row]:
    """Profiles with events of the last day that need a cycle and have had none since: profile_id, newest_id, events."""
    return connection.execute(statement("select_profiles_to_reconcile")).fetchall()


def try_listening(connection: Connection, account_id: str) -> bool:
    """Take the account for this session, to its end; False where another session has it."""
    row = connection.execute(statement("try_listening"), {"account_id": account_id}).fetchone()
    return bool(row and row["free"])


def stop_listening(connection: Connection, account_id: str) -> None:
    """Give the account back."""
    connection.execute(statement("stop_listening"), {"account_id": account_id})


def stream_of(connection: Connection, account_id: str) -> Row | None:
    """What the process that listens to the account, or the last that did, said of itself."""
    return connection.execute(statement("select_order_stream"), {"account_id": account_id}).fetchone()


def save_stream(
    connection: Connection,
    account_id: str,
    state: StreamState,
    *,
    seen_at: dt.datetime,
    last_event_at: dt.datetime | None = None,
    connections: int = 0,
    error: str = "",
) -> None:
    """Say that the process is alive and what it does.

    :param last_event_at: None leaves what was said before
    :param connections: made since the last call
    """
    asked = {
        "account_id": account_id,
        "state": state.value,
        "seen_at": seen_at,
        "last_event_at": last_event_at,
        "connections": connections,
        "error": error,
    }
    connection.execute(statement("save_order_stream"), asked)
