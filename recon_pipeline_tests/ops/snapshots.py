"""Snapshots made by hand: what `recon serve` reads, for what is judged and answered without a database."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

from recon_pipeline.ops.snapshot import Row, Snapshot

NOW = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)


def ago(**time: float) -> dt.datetime:
    return NOW - dt.timedelta(**time)


def profile(name: str, **changed: Any) -> Row:
    known = {"profile_id": name, "user_id": "u1", "account_id": "a1", "enabled": True, "created_at": ago(days=30)}
    return known | changed


def cycle(name: str, **changed: Any) -> Row:
    """A row of recon.cycle_board: in line, a minute ago."""
    counts = ("mismatch_count", "missing_from_exchange", "missing_in_db", "no_go_trades", "parity_mismatch_trades")
    counts += ("parity_quarantined_trades", "parity_auto_closed_trades", "waiting_for_person", "contentions")
    money = ("parity_max_mismatch_notional_usd", "parity_total_mismatch_notional_usd", "money_at_risk_usd")
    known: dict[str, Any] = dict.fromkeys(counts, 0) | dict.fromkeys(money, Decimal(0))
    known |= {"profile_id": name, "cycle_at": ago(minutes=1), "run_id": "run-1", "processed": True, "clean": True}
    known |= {"skipped_reason": "", "error": "", "failed_stages": [], "integrity_watchdog_triggered": False}
    known |= {"evidence_complete": True, "last_clean_at": ago(minutes=1), "paused": False, "pause_source": ""}
    return known | changed


def account(name: str, **changed: Any) -> Row:
    known = {"account_id": name, "rate_limit": 200, "rate_remaining": 150, "complete": True, "incomplete_why": ""}
    return known | {"read_at": ago(minutes=1), "covered_until": ago(minutes=1)} | changed


def snapshot(**changed: Any) -> Snapshot:
    """Two profiles on one account, in line, read two seconds ago."""
    known: dict[str, Any] = {
        "taken_at": ago(seconds=2),
        "seconds": 0.01,
        "profiles": (profile("p1"), profile("p2")),
        "cycles": (cycle("p1"), cycle("p2")),
        "accounts": (account("a1"),),
    }
    return Snapshot(**(known | changed))
