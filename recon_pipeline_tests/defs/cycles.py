"""Cycles made by hand, as the engine hands them out: for what is shown and judged without running anything."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pandas as pd

from recon_pipeline.cycle.outcome import ProfileCycle, ReconciliationReport, StageOutcome
from recon_pipeline.defs.cycle_run import CycleOutcome
from recon_pipeline.domain.corrections import COMPARED, Finding, Handler, OrderChange, Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.frames import frame_of

AT_MS = 1_795_212_000_000
ALL_STAGES = (
    Stage.ORDER_PARITY,
    Stage.ORDER_COVERAGE,
    Stage.EXIT_BACKFILL,
    Stage.INTEGRITY_WATCHDOG,
    Stage.SUB_TAG_REPAIR,
    Stage.POSITION_PARITY,
)

FILL = OrderChange(
    profile_id="p1",
    trade_id="t-1",
    order_id="bytelyst-p1-t-1-entry",
    handler=Handler.ENTRY_FILL,
    values={"status": "partially_filled", "executed": "8", "price": "101.5"},
    expected=dict.fromkeys(COMPARED) | {"status": "partially_filled", "qty": "10", "filled_qty": "3", "price": "101"},
    cause={
        "rule": "executed_quantity_grew",
        "exchange_order_id": "ord-1",
        "exchange_status": "partially_filled",
        "executed": "8",
        "read_at": "2026-11-20T12:00:00.000Z",
        "note": None,
    },
    exchange_order_id="ord-1",
    represents_e9=8_000_000_000,
)
DISCOVERED = OrderChange(
    profile_id="p1",
    trade_id="t-2",
    order_id="ord-2",
    handler=Handler.EXIT_FILL,
    values={
        "side": "SELL",
        "action": "EXIT",
        "status": "filled",
        "qty": "2",
        "price": "7",
        "user_id": "u1",
        "sub_tag": None,
    },
    expected=None,
    cause={"rule": "missing_in_ledger", "exchange_order_id": "ord-2"},
    exchange_order_id="ord-2",
    represents_e9=2_000_000_000,
)
AHEAD = Finding(
    "p1",
    Stage.ORDER_PARITY,
    "ledger_ahead_of_exchange",
    order_id="ord-9",
    trade_id="t-9",
    symbol="AAPL",
    exchange_order_id="ord-9",
    needs_person=True,
    detail={"row": "10", "order": "8", "nothing": ""},
)
WAITING = Finding("p1", Stage.POSITION_PARITY, "awaiting_confirmation", trade_id="t-3", symbol="MSFT")


def report(**changed: object) -> ReconciliationReport:
    known = ReconciliationReport("p1", "u1", "acc", "run-1", AT_MS, processed=True, evidence_complete=True, clean=True)
    return replace(known, **changed)


def stage(which: Stage, **changed: object) -> StageOutcome:
    return replace(StageOutcome(which, attempted=True), **changed)


def cycle(*stages: StageOutcome, **changed: object) -> ProfileCycle:
    own = {each.stage: each for each in stages}
    return replace(
        ProfileCycle(report(), {which: own.get(which, stage(which)) for which in ALL_STAGES} | own), **changed
    )


def outcome(made: ProfileCycle, **changed: object) -> CycleOutcome:
    return replace(CycleOutcome(made, snapshots="/snapshots/run-1"), **changed)


def parity(*rows: tuple[str, int, int, str | None, int, bool, str, str]) -> pd.DataFrame:
    """PARITY_STATES from trade, open and position in units, money, confirmations, quarantined, reason, root cause."""
    if not rows:
        return PARITY_STATES.empty()
    names = (
        "trade_id",
        "open_e9",
        "position_e9",
        "notional_usd",
        "confirmations",
        "quarantined",
        "reason",
        "root_cause",
    )
    columns: dict[str, list[object]] = {name: [row[at] for row in rows] for at, name in enumerate(names)}
    columns["open_e9"] = [int(row[1]) * 10**9 for row in rows]
    columns["position_e9"] = [int(row[2]) * 10**9 for row in rows]
    columns["notional_usd"] = [None if row[3] is None else Decimal(row[3]) for row in rows]
    same = {"profile_id": "p1", "symbol": "AAPL", "signature": "s", "first_seen_ms": AT_MS, "last_counted_ms": AT_MS}
    return frame_of(PARITY_STATES, columns | {name: [value] * len(rows) for name, value in same.items()})
