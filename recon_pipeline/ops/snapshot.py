"""Everything that ``recon serve`` shows, as it was at one instant. Data only; every endpoint answers from it alone.

What belongs here: the fields. What does not: reading them (``reading``), and how they look (``health``, ``metrics``, ``page``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """One reading of the pipeline's own tables. Rows are mappings of column to value; instants are aware, money is Decimal."""

    taken_at: dt.datetime
    seconds: float
    """how long the reading took"""
    profiles: tuple[Row, ...] = ()
    """profile_id, user_id, account_id, enabled; by profile_id"""
    cycles: tuple[Row, ...] = ()
    """``recon.cycle_board``: the latest report of each profile that decided anything"""
    runs: tuple[Row, ...] = ()
    """the last runs of the cycle, newest first: run_id, began_at, ended_at, profiles, failed, contended"""
    trading: tuple[Row, ...] = ()
    """``recon.trading_states()``: scope ('all' or a profile), state, source, since, reason"""
    watchdogs: tuple[Row, ...] = ()
    """``recon.watchdog_board``"""
    contentions: int = 0
    """how often cycles found a lease taken, ever"""
    pending_batches: tuple[Row, ...] = ()
    """batches in PENDING_APPLY: batch_id, profile_id, kind, updated_at"""
    totals: tuple[Row, ...] = ()
    """``recon.totals``: name, profile_id, account_id, value"""
    accounts: tuple[Row, ...] = ()
    """account_id, rate_limit, rate_remaining, complete, incomplete_why, read_at, covered_until (evidence is whole until then)"""
    order_checks: tuple[Row, ...] = ()
    """``recon.order_checks``, oldest order first"""
    unchecked: tuple[Row, ...] = ()
    """orders of the ledger that may still execute, are older than the stale threshold, and that no sync has looked at:
    profile_id, account_id, order_id, client_order_id, trade_id, symbol, side, status, placed_at; oldest first, at most 500"""
    sync: Row | None = None
    """the last run of the order status sync (``recon.order_sync_runs``)"""
    streams: tuple[Row, ...] = ()
    """``recon.order_streams``"""
    waiting: tuple[Row, ...] = ()
    """``recon.waiting_cases``, most money at risk first"""
    undelivered_events: int = 0
    """events that wait for their delivery for longer than a minute"""
