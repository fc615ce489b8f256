"""What the source's order status sync and its cleanup script would do: two small rules, stated independently of the engine.

What belongs here: OrderStatusSyncService and cleanupStaleOrders as 004 describes them, faults included. What does not: anything
from ``recon_pipeline``. A call is a status that the source writes, and it writes nothing else: no quantity, no price.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from recon_pipeline_tests.domain.source_rules import text

Raw = Mapping[str, Any]
STALE = timedelta(minutes=5)
OLD = timedelta(hours=24)
BATCH = 100


@dataclass(frozen=True)
class Call:
    """``updateOrderStatus`` of a row."""

    order_id: str
    status: str


def sync(rows: Sequence[Raw], look_ups: Mapping[str, Any], now: datetime) -> list[Call]:
    """Each run: ``pending_new`` and nothing else, older than five minutes; one ``getOrder`` by the row's id alone.

    An exchange that does not know the id and one that does not answer are both an error that is caught.
    """
    calls = []
    for row in _stale(rows, now, STALE)[:BATCH]:
        answer = look_ups.get(text(row["order_id"]))
        if isinstance(answer, Mapping) and text(answer.get("id")) == text(row["order_id"]):
            status = text(answer.get("status")) or "filled"
            if status != "pending_new":
                calls.append(Call(text(row["order_id"]), status))
        elif now - _placed(row) > OLD:
            calls.append(Call(text(row["order_id"]), "unknown"))
    return calls


def cleanup(rows: Sequence[Raw], look_ups: Mapping[str, Any], now: datetime) -> list[Call]:
    """The one-time script: every ``pending_new`` older than a day becomes ``unknown``, and nobody is asked."""
    return [Call(text(row["order_id"]), "unknown") for row in _stale(rows, now, OLD)]


def _stale(rows: Sequence[Raw], now: datetime, age: timedelta) -> list[Raw]:
    listed = [row for row in rows if text(row["status"]).lower() == "pending_new" and now - _placed(row) > age]
    return sorted(listed, key=_placed)


def _placed(row: Raw) -> datetime:
    return datetime.fromisoformat(text(row["created_at"]) or text(row["timestamp"]))
