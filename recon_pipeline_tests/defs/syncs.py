"""Runs of the order status sync made by hand, as it hands them out: for what is shown and judged without running anything."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd

from recon_pipeline.defs.order_status_run import SyncOutcome
from recon_pipeline.domain.corrections import COMPARED, Finding, Handler, OrderChange, Stage
from recon_pipeline.domain.frames import NO_TIME, frame_of
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.order_status.outcome import AccountAnswers, ProfileSync, SyncResult

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)
MINUTE = 60_000
POLICY = OrderStatusPolicy()

FILLED = OrderChange(
    profile_id="p1",
    trade_id="t-1",
    order_id="ord-1",
    handler=Handler.ENTRY_FILL,
    values={"status": "filled", "executed": "10", "price": "101.5"},
    expected=dict.fromkeys(COMPARED) | {"status": "pending_new", "qty": "10"},
    cause={
        "rule": "executed_quantity_grew",
        "exchange_order_id": "ord-1",
        "exchange_status": "filled",
        "executed": "10",
    },
    exchange_order_id="ord-1",
    represents_e9=10_000_000_000,
)
HELD = Finding(
    "p1",
    Stage.ORDER_STATUS,
    "ledger_ahead_of_exchange",
    order_id="ord-9",
    trade_id="t-9",
    symbol="AAPL",
    needs_person=True,
)


def checks(*rows: dict[str, object]) -> pd.DataFrame:
    """ORDER_CHECKS: an order of p1 placed ten minutes ago that nobody was asked about, but for what a row says."""
    if not rows:
        return ORDER_CHECKS.empty()
    standard: dict[str, object] = {
        "profile_id": "p1",
        "account_id": "acc",
        "client_order_id": "",
        "trade_id": "t-1",
        "symbol": "AAPL",
        "side": "BUY",
        "status": "pending_new",
        "placed_at_ms": AT_MS - 10 * MINUTE,
        "outcome": "not_checked",
        "exchange_status": "",
        "detail": "",
        "failures": 0,
        "first_seen_ms": AT_MS - 5 * MINUTE,
        "checked_at_ms": NO_TIME,
        "next_check_ms": AT_MS,
    }
    full = [standard | {"order_id": f"ord-{number}"} | row for number, row in enumerate(rows, 1)]
    return frame_of(ORDER_CHECKS, {name: [row[name] for row in full] for name in ORDER_CHECKS.names})


def profile(**changed: object) -> ProfileSync:
    return replace(ProfileSync("p1", "u1", "acc"), **changed)


def answers(**changed: object) -> AccountAnswers:
    return replace(AccountAnswers("acc", api_calls=3, rate_remaining=180, in_bulk=4, singly=1), **changed)


def outcome(
    *profiles: ProfileSync, accounts: tuple[AccountAnswers, ...] = (), dry_run: bool = False, **changed: object
) -> SyncOutcome:
    result = SyncResult(
        "run-1",
        AT_MS,
        dry_run,
        {each.profile_id: each for each in profiles},
        {each.account_id: each for each in accounts or (answers(),)},
    )
    return replace(SyncOutcome(result, POLICY, AT, frozenset()), **changed)
