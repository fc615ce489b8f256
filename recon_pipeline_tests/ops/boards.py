"""Snapshots for the tests of the page: what a night may look like."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops.page import render
from recon_pipeline.ops.snapshot import Snapshot

NOW = dt.datetime(2026, 11, 21, 3, 12, 5, tzinfo=dt.UTC)
POLICY = OrderStatusPolicy()
DASHBOARD = "http://127.0.0.1:3000"


def ago(**length: float) -> dt.datetime:
    return NOW - dt.timedelta(**length)


def check(order_id: str = "o1", **told: Any) -> dict[str, Any]:
    """A row of recon.order_checks: 12 minutes old, never answered, unless told otherwise."""
    return {
        "profile_id": "momentum-1",
        "order_id": order_id,
        "account_id": "A1",
        "client_order_id": "",
        "trade_id": "t1",
        "symbol": "AAPL",
        "side": "BUY",
        "status": "pending_new",
        "placed_at": ago(minutes=12),
        "outcome": "failed",
        "exchange_status": "",
        "detail": "",
        "failures": 0,
        "first_seen_at": ago(minutes=7),
        "checked_at": ago(minutes=2),
        "next_check_at": NOW + dt.timedelta(minutes=3),
        **told,
    }


def live(order_id: str = "gtc", **told: Any) -> dict[str, Any]:
    """An order that waits rightly."""
    told = {"outcome": "live", "exchange_status": "accepted", "status": "accepted", **told}
    return check(order_id, **{"placed_at": ago(days=3), **told})


def unchecked(order_id: str = "u1", **told: Any) -> dict[str, Any]:
    """An order that no sync has looked at."""
    row = check(order_id, **told)
    names = (
        "profile_id",
        "account_id",
        "order_id",
        "client_order_id",
        "trade_id",
        "symbol",
        "side",
        "status",
        "placed_at",
    )
    return {name: row[name] for name in names}


def case(**told: Any) -> dict[str, Any]:
    """A row of recon.waiting_cases."""
    return {
        "profile_id": "momentum-1",
        "case_key": "k",
        "account_id": "A1",
        "stage": "position_parity",
        "reason": "unattributed",
        "root_cause": "",
        "trade_id": "t1",
        "order_id": "",
        "symbol": "AAPL",
        "notional_usd": Decimal("1250.5"),
        "first_seen_at": ago(hours=5),
        "seen_at": ago(minutes=2),
        "run_id": "r1",
        "detail": {},
        **told,
    }


def cycle(profile_id: str, **told: Any) -> dict[str, Any]:
    """A row of recon.cycle_board."""
    numbers = (
        "mismatch_count",
        "missing_from_exchange",
        "missing_in_db",
        "no_go_trades",
        "parity_mismatch_trades",
        "parity_quarantined_trades",
        "parity_auto_closed_trades",
        "parity_max_mismatch_notional_usd",
        "parity_total_mismatch_notional_usd",
        "waiting_for_person",
        "money_at_risk_usd",
    )
    return {
        **dict.fromkeys(numbers, 0),
        "profile_id": profile_id,
        "cycle_at": ago(minutes=2),
        "error": "",
        "failed_stages": [],
        "integrity_watchdog_triggered": False,
        **told,
    }


def stream(account_id: str = "A1", **told: Any) -> dict[str, Any]:
    """A row of recon.order_streams."""
    return {
        "account_id": account_id,
        "state": "listening",
        "since": ago(hours=9),
        "seen_at": ago(seconds=4),
        "last_event_at": ago(seconds=50),
        "connections": 1,
        "error": "",
        **told,
    }


def night(profiles: tuple[str, ...] = ("momentum-1", "swing-2"), **told: Any) -> Snapshot:
    """A calm night, unless told otherwise."""
    calm = Snapshot(
        taken_at=ago(seconds=2),
        seconds=0.02,
        profiles=tuple(
            {"profile_id": p, "user_id": "u1", "account_id": "A1", "enabled": True, "created_at": ago(days=90)}
            for p in profiles
        ),
        cycles=tuple(cycle(p) for p in profiles),
        runs=(
            {
                "run_id": "r1",
                "began_at": ago(minutes=2, seconds=20),
                "ended_at": ago(minutes=2),
                "profiles": len(profiles),
                "failed": 0,
                "contended": 0,
            },
        ),
        trading=({"scope": "all", "state": "RUNNING", "source": "operator", "since": ago(days=2), "reason": ""},),
        sync={
            "run_id": "s1",
            "began_at": ago(minutes=3, seconds=2),
            "ended_at": ago(minutes=3),
            "dry_run": False,
            "checked": 4,
            "updated": 1,
            "not_found": 0,
            "failed": 0,
            "still_live": 3,
            "left_over": 0,
            "api_calls": 2,
            "error": "",
        },
        streams=(stream(),),
    )
    return replace(calm, **told)


def page(
    snapshot: Snapshot | None, *, now: dt.datetime = NOW, trouble: str = "", dashboard: str = DASHBOARD, **query: str
) -> str:
    """The page as it is served."""
    return render(
        snapshot,
        query,
        now=now,
        policy=POLICY,
        late_minutes=15,
        dashboard_url=dashboard,
        trouble=trouble,
    )


def three_stale() -> Snapshot:
    """Three stale orders among those that wait rightly, and trades for a person."""
    return night(
        order_checks=(
            live(symbol="MSFT", trade_id="t7", order_id="61e69015-8549-4bfd-b9c3-01e75843f47d"),
            check(
                "904837e3-3b76-47ec-b432-046db621571b",
                profile_id="swing-2",
                symbol="ETH/USD",
                side="SELL",
                trade_id="eth-201",
                placed_at=ago(hours=26, minutes=14),
                status="unknown",
                outcome="marked_unknown",
                detail="404 for the id and the client id, asked twice",
                first_seen_at=ago(hours=26),
            ),
            check(
                "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
                placed_at=ago(hours=1, minutes=20),
                status="partially_filled",
                symbol="NVDA",
                trade_id="t12",
                outcome="failed",
                failures=3,
                detail="the exchange answered 503 three times",
                next_check_at=NOW + dt.timedelta(minutes=18),
            ),
            check("5d0f2c1e-0a55-43d1-8f0e-3c9a0c6a8a4f", outcome="differs", exchange_status="filled"),
        ),
        waiting=(
            case(
                profile_id="swing-2",
                trade_id="btc-7",
                symbol="BTC/USD",
                notional_usd=Decimal("48210.33"),
                reason="exchange_not_flat",
                root_cause="manual_close",
            ),
            case(
                profile_id="swing-2",
                trade_id="btc-7",
                symbol="BTC/USD",
                notional_usd=Decimal("48210.33"),
                stage="exit_backfill",
                reason="missing_fill_evidence_for_large_remainder",
            ),
            case(),
            case(
                stage="order_parity",
                reason="marked_unknown",
                order_id="904837e3-3b76-47ec-b432-046db621571b",
                trade_id="eth-201",
                symbol="ETH/USD",
                notional_usd=None,
            ),
        ),
    )


def five_hundred() -> Snapshot:
    """The morning after the sync was down."""
    words = ("pending_new", "new", "partially_filled", "accepted", "unknown")
    results = ("failed", "missing", "not_checked", "held", "differs")
    profiles = tuple(f"dev-strategy-with-a-long-name-{n:02}" for n in range(40))
    return night(
        profiles,
        order_checks=tuple(
            check(
                f"{n:08x}-8549-4bfd-b9c3-01e75843f47d",
                profile_id=profiles[n % 40],
                status=words[n % 5],
                outcome=results[n % 5],
                placed_at=ago(minutes=6 + 7 * (500 - n)),
                symbol=("AAPL", "BTC/USD", "NVDA")[n % 3],
                trade_id=f"t{n}",
                checked_at=None if n % 5 == 2 else ago(minutes=40),
                next_check_at=ago(minutes=30),
            )
            for n in range(500)
        ),
        waiting=tuple(
            case(case_key=str(n), profile_id=profiles[n % 40], trade_id=f"w{n}", notional_usd=Decimal(9000 - n * 70))
            for n in range(80)
        ),
        cycles=tuple(cycle(p, cycle_at=ago(minutes=58)) for p in profiles),
        runs=(
            {
                "run_id": "r1",
                "began_at": ago(minutes=59),
                "ended_at": ago(minutes=58),
                "profiles": 40,
                "failed": 3,
                "contended": 1,
            },
        ),
        trading=(
            {
                "scope": "all",
                "state": "PAUSED",
                "source": "operator",
                "since": ago(minutes=50),
                "reason": "exchange outage",
            },
        ),
        streams=(
            stream("A1"),
            stream("A2", state="down", error="authentication failed: 401", since=ago(minutes=33)),
            stream("A3", seen_at=ago(minutes=48)),
        ),
    )
