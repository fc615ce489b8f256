"""Ledger rows, exchange orders and inputs of a cycle made by hand, for the tests of ownership, coverage, tags and health."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.frames import CONSUMPTION, PROFILES, frame_of
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.quantities import integer_array
from recon_pipeline_tests.domain.book_makers import E9, MINUTE, START_MS

Record = dict[str, Any]
NOW_MS = START_MS + 60 * MINUTE
SENT_MS = START_MS + 10 * MINUTE
"""When the orders below executed."""


def row(**changes: Any) -> Record:
    """A recorded entry of trade t1 of p1: 10 AAPL at 100."""
    made = {"profile_id": "p1", "user_id": "u1", "order_id": "e1", "trade_id": "t1", "symbol": "AAPL", "side": "buy"}
    made |= {"action": "ENTRY", "qty": "10", "price": "100", "status": "filled", "timestamp": START_MS}
    return {**made, **changes}


def fact(**changes: Any) -> Record:
    """A filled order to sell 4 AAPL at 110, without any key."""
    made: Record = {"id": "x1", "symbol": "AAPL", "side": "sell", "status": "filled", "qty": "4", "filled_qty": "4"}
    made |= {"type": "limit", "filled_avg_price": "110", "filled_at": SENT_MS, "created_at": SENT_MS - 1000}
    return {**made, **changes}


def profile(profile_id: str = "p1", **changes: Any) -> Record:
    made: Record = {"profile_id": profile_id, "user_id": "u1", "account_id": "a1", "selected": True, "paused": False}
    made |= {"audit_available": True, "evidence_defect": "", "managed_symbols": None, "batch_id": "b1"}
    return {**made, **changes}


def inputs_of(
    rows: Sequence[Record] = (),
    facts: Sequence[Record] = (),
    *,
    profiles: Sequence[Record | str] = ("p1",),
    consumed: Sequence[tuple[str, str, int]] = (),
    more: Sequence[tuple[str, Sequence[Record]]] = (),
) -> CycleInputs:
    """Inputs of account a1; ``consumed``: (backfill row, exchange order, units); ``more``: facts of other accounts."""
    members = [profile(made) if isinstance(made, str) else made for made in profiles]
    parts = [order_facts_frame(listed, account_id=account) for account, listed in (("a1", facts), *more)]
    consumption = CONSUMPTION.empty()
    if consumed:
        columns: dict[str, Any] = {
            "account_id": ["a1"] * len(consumed),
            "backfill_order_id": [key for key, _, _ in consumed],
            "exchange_order_id": [order_id for _, order_id, _ in consumed],
            "qty_e9": integer_array([units * E9 for _, _, units in consumed]),
        }
        consumption = frame_of(CONSUMPTION, columns)
    return CycleInputs(
        profiles=frame_of(PROFILES, {name: [member[name] for member in members] for name in PROFILES.names}),
        ledger_orders=ledger_orders_frame(rows),
        order_facts=pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0],
        consumption=consumption,
    )


def owner_of(inputs: CycleInputs, order_id: str = "x1") -> Any:
    """The OWNERSHIP row of one order."""
    owned = own_orders(inputs)
    (found,) = owned[owned["order_id"] == order_id].itertuples(index=False)
    return found
