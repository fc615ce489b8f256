"""Small worlds for the order rules: raw ledger rows and raw exchange orders in, plans out, and plans written back.

What belongs here: makers and the stand-in for ``apply``, which writes as ``order_values`` says. What does not: properties.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from recon_pipeline.domain.corrections import OrderChange
from recon_pipeline.domain.cycle_frames import ORDER_CONFIRMATIONS, CycleInputs
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.frames import PROFILES, frame_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_parity import OrderParityPlan, orders_to_look_up, plan_order_parity
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.order_values import inserted_values, updated_values
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.readings import consumption_frame

E9 = 1_000_000_000
MINUTE = 60_000
NOW = 1_790_848_800_000
"""2026-10-01T10:00:00Z"""
EARLIER = NOW - 60 * MINUTE
COLUMNS = frozenset({"qty", "quantity", "filled_qty", "price", "filled_at", "status", "sub_tag"})

Raw = dict[str, Any]
RowKey = tuple[str, str]


def exchange_id(number: int) -> str:
    """An order id as the exchange makes them."""
    return f"00000000-0000-4000-8000-{number:012d}"


X1, X2, X3 = exchange_id(1), exchange_id(2), exchange_id(3)


def row(**changes: Any) -> Raw:
    """An open entry row of trade t1 of profile p1, keyed by the exchange's id X1."""
    made: Raw = {"profile_id": "p1", "user_id": "u1", "order_id": X1, "client_order_id": None, "trade_id": "t1"}
    made |= {"symbol": "AAPL", "side": "buy", "action": "ENTRY", "status": "pending_new", "qty": "10", "quantity": None}
    made |= {"filled_qty": None, "price": None, "timestamp": EARLIER, "created_at": None, "updated_at": None}
    return {**made, "filled_at": None, "sub_tag": None, "source": "BOT", **changes}


def order(**changes: Any) -> Raw:
    """The live exchange order X1 of trade t1 of profile p1, without executions."""
    made: Raw = {"id": X1, "client_order_id": "bytelyst-p1-t1-entry", "symbol": "AAPL", "side": "buy", "type": "limit"}
    made |= {"asset_class": "us_equity", "status": "new", "qty": "10", "filled_qty": "0", "filled_avg_price": None}
    made |= {"filled_at": None, "limit_price": "101", "replaces": None, "replaced_by": None, "subtag": None}
    return {**made, "created_at": iso_ms(EARLIER), "canceled_at": None, **changes}


def executed(quantity: str, **changes: Any) -> Raw:
    """The order with executions, over where they are all that was ordered."""
    status = "filled" if quantity == "10" else "partially_filled"
    facts: Raw = {"filled_qty": quantity, "filled_avg_price": "100.5", "status": status}
    return order(**{**facts, "filled_at": iso_ms(EARLIER + MINUTE), **changes})


def profile(profile_id: str = "p1", **changes: Any) -> Raw:
    """A selected profile of account a1, read completely, that manages every symbol."""
    made: Raw = {"profile_id": profile_id, "user_id": "u1", "account_id": "a1", "selected": True, "paused": False}
    made |= {"audit_available": True, "evidence_defect": "", "managed_symbols": None, "batch_id": "b1"}
    return {**made, **changes}


@dataclass(frozen=True)
class World:
    """Ledger and exchange, and what look-ups of single orders said."""

    rows: Sequence[Raw] = ()
    orders: Sequence[Raw] = ()
    profiles: Sequence[Raw] = field(default_factory=lambda: (profile(),))
    consumption: Sequence[Raw] = ()
    absent: frozenset[RowKey] = frozenset()
    unknown: Mapping[RowKey, str] = field(default_factory=dict)
    confirmations: pd.DataFrame = field(default_factory=ORDER_CONFIRMATIONS.empty)
    policy: OrderParityPolicy = field(default_factory=OrderParityPolicy)
    now_ms: int = NOW

    @property
    def inputs(self) -> CycleInputs:
        """The snapshot."""
        members = {name: [member[name] for member in self.profiles] for name in PROFILES.names}
        by_account: dict[str, list[Raw]] = {}
        for raw in self.orders:
            by_account.setdefault(raw.get("account_id", "a1"), []).append(raw)
        facts = [order_facts_frame(raws, account_id=account) for account, raws in by_account.items()]
        return CycleInputs(
            profiles=frame_of(PROFILES, members),
            ledger_orders=ledger_orders_frame(self.rows),
            order_facts=pd.concat(facts, ignore_index=True) if facts else order_facts_frame([], account_id="a1"),
            consumption=consumption_frame(self.consumption),
        )

    def plan(self) -> OrderParityPlan:
        """The plan of order parity."""
        return self._plan

    @cached_property
    def _plan(self) -> OrderParityPlan:
        inputs = self.inputs
        return plan_order_parity(
            inputs,
            self.policy,
            self.confirmations,
            absent=self.absent,
            unknown=self.unknown,
            asked=self.absent | frozenset(self.unknown),
            now_ms=self.now_ms,
            ownership=own_orders(inputs),
        )

    def look_ups(self) -> list[tuple[str, str, str, str]]:
        """What single look-ups would ask for."""
        frame = orders_to_look_up(self.inputs, self.policy, now_ms=self.now_ms)
        return list(frame.itertuples(index=False, name=None))

    def with_written(self, changes: Iterable[OrderChange]) -> World:
        """The world after the changes were written, as ``apply`` writes them."""
        rows = {(raw["profile_id"], raw["order_id"]): dict(raw) for raw in self.rows}
        released = set()
        for change in changes:
            key = (change.profile_id, change.order_id)
            if change.inserts:
                assert key not in rows, "an insert of a row that exists"
                rows[key] = {**row(updated_at=None), "action": None, **inserted_values(change, COLUMNS)}
                rows[key]["timestamp"] = int(rows[key]["timestamp"])
                continue
            before = rows[key]
            assert change.expected is not None
            spelled = {name: None if before.get(name) is None else str(before[name]) for name in change.expected}
            assert dict(change.expected) == spelled, "the row is not what the change expects"
            before |= updated_values(change.expected, change, COLUMNS)
            if before["status"] == "canceled":
                released.add(change.order_id)
        consumption = [raw for raw in self.consumption if raw["backfill_order_id"] not in released]
        return replace(self, rows=list(rows.values()), consumption=consumption)

    def after(self) -> World:
        """The world after the plan was written and what has to be remembered is."""
        plan = self.plan()
        return replace(self.with_written(plan.changes), confirmations=plan.confirmations)


def by_order(changes: Iterable[OrderChange]) -> dict[str, OrderChange]:
    """The changes by the key of their row."""
    listed = list(changes)
    found = {change.order_id: change for change in listed}
    assert len(found) == len(listed), "a row is changed twice"
    return found


def said(change: OrderChange) -> tuple[str, Raw]:
    """What kind of change it is and what it writes."""
    return change.handler.value, dict(change.values)
