"""Boards: the leases, watchdogs and latest reports of all profiles as people look at them, one row per profile.

What belongs here: reading the views of ``sql/migrations/repeatable/40_boards.sql``, which psql shows just as well. What does not:
anything that a decision stands on (``cycle_state``, ``leases``), and how it is shown (``defs``).
"""

from __future__ import annotations

from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.statements import statement


def lease_board(connection: Connection) -> list[Row]:
    """Return who holds which lease until when, and how often a cycle found it taken; ordered by profile.

    Columns: profile_id, held, owner (of a lease that is not held: who let it expire), seconds_left, expires_at, renewed_at,
    token, contentions, last_contended_at, last_contended_with.
    """
    return connection.execute(statement("select_lease_board")).fetchall()


def watchdog_board(connection: Connection) -> list[Row]:
    """Return what every watchdog remembers beside the trading state that holds for its profile; ordered by profile.

    Columns: profile_id, paused_by_watchdog, paused_at, reason, mismatch_usd, capital_usd, mismatch_ratio, clean_cycles,
    last_clean_at, triggered_at, resumed_at, trading, trading_source, trading_since, trading_reason.
    """
    return connection.execute(statement("select_watchdog_board")).fetchall()


def cycle_board(connection: Connection) -> list[Row]:
    """Return the latest report of every profile that decided anything, its counters as columns; ordered by profile.

    Beside the report's fields (but its lists of NO_GO reasons): last_clean_at, contentions and last_contended_at. A profile
    whose lease was taken in every cycle so far has a row without a report (run_id is None).
    """
    return connection.execute(statement("select_cycle_board")).fetchall()


def last_order_sync(connection: Connection) -> Row | None:
    """Return the last run of the order status sync: run_id, began_at, ended_at, dry_run, its counts, api_calls, error."""
    return connection.execute(statement("ops_sync")).fetchone()


def stream_board(connection: Connection) -> list[Row]:
    """Return the accounts that a stream process listens to, or did; ordered by account.

    Columns: account_id, state, since, seen_at (the process's sign of life), last_event_at, connections, error.
    """
    return connection.execute(statement("ops_streams")).fetchall()
