"""Orders of the ledger that may still execute, what is remembered of asking about them, and the runs that asked.

What belongs here: reading and saving, for many profiles at once. What does not: which orders are stale and what an answer makes
of them (``domain.order_checks``, ``domain.order_status``).

The checks of a profile are saved whole under its lease, and what they count with them: a run that was killed has counted what it
has saved, and nothing twice.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from psycopg.types.json import Jsonb

from recon_pipeline.domain.frames import NO_TIME, frame_of, rows_of
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.leases import Lease, check_lease
from recon_pipeline.ledger.statements import statement
from recon_pipeline.ledger.totals import Addition, TotalName, add_totals

COUNTED: Final = {
    "checked": TotalName.ORDER_STATUS_CHECKED,
    "updated": TotalName.ORDER_STATUS_UPDATED,
    "not_found": TotalName.ORDER_STATUS_NOT_FOUND,
    "failed": TotalName.ORDER_STATUS_FAILED,
}
"""Counters of a profile that are added up over all runs."""
_NUMBERS: Final = tuple(column.name for column in ORDER_CHECKS.columns if column.type in {"instant", "count"})


def live_orders(
    connection: Connection, profile_ids: Sequence[str] | None = None, *, placed_before: dt.datetime | None = None
) -> list[Row]:
    """Return raw rows of ``orders`` that may still execute, by profile and key; None for the profiles means all.

    Those that don't say when they were placed are among them, whatever ``placed_before``.
    """
    ids = None if profile_ids is None else list(profile_ids)
    return connection.execute(
        statement("select_live_orders"), {"profile_ids": ids, "placed_before": placed_before}
    ).fetchall()


def rows_around_orders(
    connection: Connection, profile_id: str, *, trade_ids: Iterable[str], ids: Iterable[str]
) -> list[Row]:
    """Return raw rows of the profile's trades, and whatever rows carry one of the ids as order id or client order id."""
    asked = {
        "profile_id": profile_id,
        "trade_ids": sorted(set(trade_ids) - {""}),
        "ids": sorted(set(ids) - {""}),
    }
    return connection.execute(statement("select_rows_around_orders"), asked).fetchall()


def backfill_rows(connection: Connection, profile_ids: Sequence[str]) -> list[Row]:
    """Return raw backfill rows of the profiles, whatever their status."""
    return connection.execute(statement("select_backfill_rows"), {"profile_ids": list(profile_ids)}).fetchall()


def consumption_of(connection: Connection, account_id: str, exchange_order_ids: Iterable[str]) -> list[Row]:
    """Return what live backfill rows have consumed of these orders of the account."""
    asked = {"account_id": account_id, "exchange_order_ids": sorted(set(exchange_order_ids))}
    return connection.execute(statement("select_consumption_of_orders"), asked).fetchall()


def read_checks(connection: Connection, profile_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Return ORDER_CHECKS as they were saved, by profile and key; None for the profiles means all."""
    ids = None if profile_ids is None else list(profile_ids)
    rows = connection.execute(statement("select_order_checks"), {"profile_ids": ids}).fetchall()
    if not rows:
        return ORDER_CHECKS.empty()
    columns: dict[str, Any] = {}
    for name in ORDER_CHECKS.names:
        values = [row[name] for row in rows]
        if name in _NUMBERS:
            columns[name] = np.array([NO_TIME if value is None else value for value in values], dtype=np.int64)
        else:
            columns[name] = values
    return frame_of(ORDER_CHECKS, columns)


def save_checks(
    connection: Connection, lease: Lease, checks: pd.DataFrame, *, counts: Mapping[str, int], run_id: str
) -> bool:
    """Save all that is remembered of the lease's profile, and count; return False, and save nothing, without the lease.

    One transaction, or part of the caller's. Rows that are not among the checks are forgotten.

    :param counts: COUNTERS of ``domain.order_answers``; see :data:`COUNTED`
    :raises ValueError: a check of another profile than the lease's
    """
    profile_id = lease.profile_id
    foreign = set(checks["profile_id"]) - {profile_id}
    if foreign:
        raise ValueError(f"the lease of {profile_id} does not cover checks of {', '.join(sorted(foreign))}")
    rows = [_plain(check) for check in rows_of(checks[ORDER_CHECKS.names])]
    with connection.transaction():
        if not check_lease(connection, lease):
            return False
        connection.execute(
            statement("save_order_checks"), {"profile_id": profile_id, "rows": Jsonb(rows), "run_id": run_id}
        )
        add_totals(
            connection,
            [Addition(total, counts.get(name, 0), profile_id=profile_id) for name, total in COUNTED.items()],
        )
    return True


def save_sync_run(
    connection: Connection,
    run_id: str,
    *,
    began_at: dt.datetime,
    ended_at: dt.datetime,
    dry_run: bool,
    counts: Mapping[str, int],
    api_calls: int,
    error: str,
) -> bool:
    """Save that a run came to its end, and count it; False, and nothing, where it is saved already."""
    row = {
        "run_id": run_id,
        "began_at": began_at,
        "ended_at": ended_at,
        "dry_run": dry_run,
        "api_calls": api_calls,
        "error": error,
    } | {name: counts.get(name, 0) for name in ("checked", "updated", "not_found", "failed", "still_live", "left_over")}
    with connection.transaction():
        if connection.execute(statement("insert_order_sync_run"), row).fetchone() is None:
            return False
        add_totals(connection, [Addition(TotalName.ORDER_STATUS_RUNS, 1)])
    return True


def due_profiles(connection: Connection, policy: OrderStatusPolicy, now: dt.datetime) -> list[str]:
    """Return the profiles that a run would find something to do for: an order to ask about, or a check to forget."""
    placed_before = now - dt.timedelta(milliseconds=policy.stale_ms)
    rows = connection.execute(statement("select_due_profiles"), {"now": now, "placed_before": placed_before})
    return [row["profile_id"] for row in rows]


def _plain(check: Any) -> dict[str, object]:
    plain: dict[str, object] = {}
    for name in ORDER_CHECKS.names:
        value = getattr(check, name)
        if name in _NUMBERS:
            plain[name] = None if value == NO_TIME else int(value)
        elif name != "profile_id":
            plain[name] = str(value)
    return plain
