"""Small books for position parity: ledger rows, exchange orders and positions in, the plan of one or several cycles out.

What belongs here: spelling a snapshot and running the plan on it. What does not: any expectation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import Any

import pandas as pd

from recon_pipeline.domain.account_slices import account_slices
from recon_pipeline.domain.cycle_frames import ORDER_FACTS, PARITY_STATES, CycleInputs
from recon_pipeline.domain.cycle_policy import PositionParityPolicy
from recon_pipeline.domain.frames import CONSUMPTION, EVIDENCE, POSITIONS, PROFILES, SLICES, frame_of, rows_of
from recon_pipeline.domain.free_evidence import free_evidence
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.position_parity import PositionParityPlan, plan_position_parity
from recon_pipeline.domain.readings import lifecycle_rows_frame, positions_frame
from recon_pipeline.domain.slices import deduplicate_rows
from recon_pipeline_tests.domain.book_makers import E9, MINUTE, START_MS

Record = dict[str, Any]
NOW = START_MS + 60 * MINUTE
CYCLE = 5 * MINUTE
POLICY = PositionParityPolicy()


def bought(trade: str = "t1", qty: str = "10", profile: str = "p1", **changes: Any) -> Record:
    """A filled entry row, tagged for its profile and trade."""
    row = {
        "order_id": f"in-{profile}-{trade}",
        "profile_id": profile,
        "user_id": f"user of {profile}",
        "trade_id": trade,
        "symbol": "AAPL",
        "side": "buy",
        "action": "ENTRY",
        "qty": qty,
        "price": "100",
        "status": "filled",
        "timestamp": START_MS,
        "sub_tag": f"bytelyst:{profile}:{trade}",
    }
    return {**row, **changes}


def sold(trade: str = "t1", qty: str = "4", profile: str = "p1", **changes: Any) -> Record:
    """A filled exit row without a tag."""
    return bought(
        trade,
        qty,
        profile,
        **{"order_id": f"out-{profile}-{trade}", "side": "sell", "action": "EXIT", "sub_tag": None, **changes},
    )


def executed(order_id: str = "x1", qty: str = "10", **changes: Any) -> Record:
    """An order of the exchange that sold `qty` at 110, half an hour after the entries, under nobody's key."""
    order = {"id": order_id, "symbol": "AAPL", "side": "sell", "status": "filled", "filled_qty": qty, "qty": qty}
    return {**order, "filled_avg_price": "110", "filled_at": START_MS + 30 * MINUTE, **changes}


@dataclass(frozen=True)
class Book:
    """A snapshot: by default account a1 with profile p1, which holds nothing."""

    rows: tuple[Record, ...] = ()
    orders: tuple[Record, ...] = ()
    positions: Any = field(default_factory=dict)
    """symbol to quantity, None for unknown; of account a1"""
    profiles: tuple[Record, ...] = ({"profile_id": "p1"},)
    unknown: frozenset[str] = frozenset()

    @cached_property
    def inputs(self) -> CycleInputs:
        """The snapshot as frames."""
        defaults = {
            "account_id": "a1",
            "selected": True,
            "paused": False,
            "audit_available": True,
            "evidence_defect": "",
            "managed_symbols": None,
            "batch_id": "",
        }
        members = [{**defaults, "user_id": f"user of {p['profile_id']}", **p} for p in self.profiles]
        facts = order_facts_frame(self.orders, account_id="a1") if self.orders else ORDER_FACTS.empty()
        return CycleInputs(
            profiles=frame_of(PROFILES, {name: [m[name] for m in members] for name in PROFILES.names}),
            ledger_orders=ledger_orders_frame(self.rows),
            order_facts=facts,
            positions=positions_frame(self.positions, account_id="a1") if self.positions else POSITIONS.empty(),
            positions_unknown=self.unknown,
        )

    @cached_property
    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """OWNERSHIP, SLICES and EVIDENCE of the snapshot."""
        inputs = self.inputs
        ownership = own_orders(inputs)
        lifecycle = lifecycle_rows_frame(self.rows)
        slices, evidence = [], []
        for account, members in inputs.profiles.groupby("account_id"):
            rows = lifecycle[lifecycle["profile_id"].isin(list(members["profile_id"]))].reset_index(drop=True)
            facts = inputs.order_facts[inputs.order_facts["account_id"] == account]
            slices.append(account_slices(str(account), deduplicate_rows(rows), facts, list(rows_of(members))))
            evidence.append(free_evidence(facts, rows, CONSUMPTION.empty(), ownership))
        return ownership, _joined(slices, SLICES.empty()), _joined(evidence, EVIDENCE.empty())

    def plan(
        self,
        *,
        now: int = NOW,
        state: pd.DataFrame | None = None,
        waiting: Iterable[tuple[str, str]] = (),
        policy: PositionParityPolicy = POLICY,
    ) -> PositionParityPlan:
        """One cycle."""
        ownership, slices, evidence = self.frames
        return plan_position_parity(
            self.inputs,
            slices,
            policy,
            PARITY_STATES.empty() if state is None else state,
            waiting=frozenset(waiting),
            ownership=ownership,
            evidence=evidence,
            now_ms=now,
        )

    def cycles(self, count: int, *, spacing: int = CYCLE, **arguments: Any) -> PositionParityPlan:
        """`count` cycles of the same snapshot, each with the state of the one before; the last plan."""
        plan = self.plan(**arguments)
        for number in range(1, count):
            plan = self.plan(now=NOW + number * spacing, state=plan.states, **arguments)
        return plan

    def but(self, **changes: Any) -> Book:
        """The same snapshot with something changed."""
        return replace(self, **changes)


def _joined(frames: list[pd.DataFrame], empty: pd.DataFrame) -> pd.DataFrame:
    full = [frame for frame in frames if len(frame)]
    return pd.concat(full, ignore_index=True) if full else empty


def reasons(plan: PositionParityPlan) -> dict[str, str]:
    """Reason of every trade that is out of line."""
    return {finding.trade_id: finding.reason for finding in plan.findings}


def units(qty: str) -> int:
    """A quantity in 1e-9 units."""
    return int(Decimal(qty) * E9)


GHOST = Book(rows=(bought(),))
"""A trade of 10 that the exchange does not hold."""
