"""Counters that only grow: what ``/metrics`` shows as counters, whichever process or machine counted, whatever is pruned.

What belongs here: the names, and adding to them. What does not: when something is counted (the modules that save it) and how it
is shown (``ops.metrics``).

Whoever saves something counts it in the same transaction, and only where it is saved for the first time: what a run saved before
it was killed is counted, what was rolled back is not, and what is saved twice counts once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.statements import statement


class TotalName(StrEnum):
    """What is counted."""

    # by profile
    MISMATCH = "reconciliation_mismatch"
    MISSING_FROM_EXCHANGE = "reconciliation_missing_from_exchange"
    MISSING_IN_DB = "reconciliation_missing_in_db"
    CYCLES = "cycles"
    """cycles that the profile's lease was held for, failed ones included"""
    FAILED_CYCLES = "failed_cycles"
    CORRECTIONS = "corrections"
    """rows of orders that cycles wrote"""
    ORDER_STATUS_CHECKED = "order_status_checked"
    ORDER_STATUS_UPDATED = "order_status_updated"
    ORDER_STATUS_NOT_FOUND = "order_status_not_found"
    ORDER_STATUS_FAILED = "order_status_failed"
    # by account
    CYCLE_API_CALLS = "cycle_api_calls"
    ORDER_STATUS_API_CALLS = "order_status_api_calls"
    STREAM_EVENTS = "stream_events"
    # of all
    CYCLE_RUNS = "cycle_runs"
    CYCLE_RUN_SECONDS = "cycle_run_seconds"
    ORDER_STATUS_RUNS = "order_status_runs"


@dataclass(frozen=True)
class Addition:
    """What is added to one counter; of a counter by profile the account is empty, and the other way round."""

    name: TotalName
    value: int | Decimal
    profile_id: str = ""
    account_id: str = ""


def add_totals(connection: Connection, additions: Iterable[Addition]) -> None:
    """Add to the counters, in the transaction that saves what is counted; the caller knows that it is saved for the first time.

    :raises ValueError: no transaction is open (what is counted could be lost, or counted twice), or a counter would shrink
    """
    if connection.info.transaction_status != TransactionStatus.INTRANS:
        raise ValueError("totals are added in the transaction that saves what they count")
    rows = []
    for addition in additions:
        if addition.value < 0:
            raise ValueError(f"{addition.name} can't shrink by {-addition.value}")
        if addition.value:
            rows.append(
                {
                    "name": addition.name.value,
                    "profile_id": addition.profile_id,
                    "account_id": addition.account_id,
                    "value": format(Decimal(addition.value), "f"),
                }
            )
    if rows:
        connection.execute(statement("add_totals"), {"additions": Jsonb(rows)})


def save_cycle_run(
    connection: Connection,
    run_id: str,
    *,
    began_at: dt.datetime,
    ended_at: dt.datetime,
    profiles: int,
    failed: int,
    contended: int,
) -> bool:
    """Save that a run of the cycle came to its end, and count it; False, and nothing, where it is saved already."""
    row = {
        "run_id": run_id,
        "began_at": began_at,
        "ended_at": ended_at,
        "profiles": profiles,
        "failed": failed,
        "contended": contended,
    }
    with connection.transaction():
        if connection.execute(statement("insert_cycle_run"), row).fetchone() is None:
            return False
        took = ended_at - began_at
        seconds = Decimal(took // dt.timedelta(microseconds=1)) / 1_000_000
        add_totals(
            connection,
            [Addition(TotalName.CYCLE_RUNS, 1), Addition(TotalName.CYCLE_RUN_SECONDS, max(Decimal(0), seconds))],
        )
    return True


def save_account_reading(
    connection: Connection,
    account_id: str,
    *,
    calls: int,
    rate_limit: int | None,
    rate_remaining: int | None,
    complete: bool,
    incomplete_why: str,
    read_at: dt.datetime,
    asked_at: dt.datetime,
) -> None:
    """Save what a cycle's reading of an account came to, and count its requests. Called once for each reading."""
    row = {
        "account_id": account_id,
        "complete": complete,
        "incomplete_why": incomplete_why,
        "read_at": read_at,
        "asked_at": asked_at,
    }
    with connection.transaction():
        connection.execute(statement("save_account_reading"), row)
        save_account_requests(
            connection,
            Addition(TotalName.CYCLE_API_CALLS, calls, account_id=account_id),
            rate_limit=rate_limit,
            rate_remaining=rate_remaining,
            asked_at=asked_at,
        )


def save_account_requests(
    connection: Connection,
    calls: Addition,
    *,
    rate_limit: int | None,
    rate_remaining: int | None,
    asked_at: dt.datetime,
) -> None:
    """Count requests that were sent to an account, and save what the exchange said is left of its minute."""
    row = {
        "account_id": calls.account_id,
        "rate_limit": rate_limit,
        "rate_remaining": rate_remaining,
        "asked_at": asked_at,
    }
    with connection.transaction():
        connection.execute(statement("save_account_requests"), row)
        add_totals(connection, [calls])
