"""What the ledger of an account holds of the exchange's orders, and the row that a missing one becomes.

What does not belong here: which orders are looked at and how they are counted (``order_coverage``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.corrections import Handler, OrderChange
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.frames import LIFECYCLE_ROWS, NO_TIME, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, decimal_text_e9
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline.domain.stand_ins import (
    STAND_IN_PREFIXES,
    StandIns,
    cites_nothing,
    distinct_rows,
    newest_first,
    stand_ins_of,
)
from recon_pipeline.domain.terms import ENTRY, EXIT, FILLED_STATUSES, FINAL_UNFILLED_STATUSES, opposite

RECORDED_ELSEWHERE: Final = "recorded_by_another_account"
"""Defect that a reading gives an order which a row of a profile on another account names."""
_SAME_EXECUTION_MS: Final = 300_000
"""How far a bot's clock may be off when it books an execution."""


@dataclass(frozen=True)
class Doubt:
    """Why an order that no row names must not be inserted all the same; no reason where it may be."""

    reason: str = ""
    needs_person: bool = False
    rows: tuple[str, ...] = ()
    """keys of the ledger rows behind it"""

    def because(self, reason: str, *, needs_person: bool) -> Doubt:
        """The doubt for this reason."""
        return replace(self, reason=reason, needs_person=needs_person)


@dataclass
class CoverageLedger:
    """The rows of one account's profiles, as coverage asks for them."""

    trades: Mapping[tuple[str, str], list[Any]]
    """rows of each trade, whatever their status"""
    loose: Mapping[tuple[str, str], list[Any]]
    """rows without a trade, by profile and symbol token"""
    slices: Mapping[tuple[str, str], Any]
    """SLICES of the trades with filled rows"""
    stand_ins: Mapping[str, StandIns]
    fact_ids: frozenset[str]
    """order ids and client order ids of the reading"""
    explained: frozenset[str] = frozenset()
    """keys of rows of which a batch has recorded the order that they represent"""
    open_e9: dict[tuple[str, str], int] = field(default_factory=dict)
    """what each trade is left open with, with what is planned"""
    superseded: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, inputs: CycleInputs, account_id: str, facts: pd.DataFrame) -> CoverageLedger:
        """Index the account's rows.

        :param facts: ORDER_FACTS of the account, each order once
        """
        profiles = inputs.profiles["profile_id"][inputs.profiles["account_id"] == account_id]
        rows = distinct_rows(inputs.ledger_orders[inputs.ledger_orders["profile_id"].isin(list(profiles))])
        consumption = inputs.consumption[inputs.consumption["account_id"] == account_id]
        lifecycle = rows.rename(columns={"executed_e9": "qty_e9"})[LIFECYCLE_ROWS.names]
        trades: dict[tuple[str, str], list[Any]] = {}
        loose: dict[tuple[str, str], list[Any]] = {}
        for row in rows_of(rows):
            if row.trade_id:
                trades.setdefault((row.profile_id, row.trade_id), []).append(row)
            else:
                loose.setdefault((row.profile_id, row.symbol_token), []).append(row)
        slices = {
            (row.profile_id, row.trade_id): row
            for row in rows_of(build_slices(deduplicate_rows(lifecycle), crypto_tokens=frozenset()))
        }
        return cls(
            trades=trades,
            loose=loose,
            slices=slices,
            stand_ins=stand_ins_of(facts, rows, consumption),
            fact_ids=frozenset({*facts["order_id"], *facts["client_order_id"]} - {""}),
            explained=frozenset(consumption["backfill_order_id"]),
            open_e9={trade: int(row.open_e9) for trade, row in slices.items()},
        )

    def knows(self, profile_id: str, trade_id: str) -> bool:
        """Whether any row names the trade."""
        return (profile_id, trade_id) in self.trades

    def stands_in(self, fact: Any) -> bool:
        """Whether a backfill row represents some of the order."""
        return bool(fact.order_id) and fact.order_id in self.stand_ins

    def holds(self, fact: Any, owner: Any) -> bool:
        """Whether the order is in the ledger: its own row, whatever it says, or backfill rows for all of it.

        A row under a profile of another account is in the ledger too, if in the wrong place; the reading reports it.
        """
        if owner.row_order_ids or fact.defect == RECORDED_ELSEWHERE:
            return True
        found = self.stand_ins.get(fact.order_id) if fact.order_id else None
        return (
            found is not None
            and not found.unknown
            and not found.orphaned
            and found.represented_e9 >= max(int(fact.executed_e9), 1)
        )

    def doubt(self, fact: Any, owner: Any) -> Doubt:
        """Why the order may be in the ledger already under another id, or contradicts what the ledger says of its trade."""
        found = self.stand_ins.get(fact.order_id)
        if found is not None:
            keys = tuple(sorted(row.order_id for row in found.rows))
            if found.orphaned:
                return Doubt("consumed_without_row", needs_person=True, rows=keys)
            if found.unknown:
                return Doubt("unreadable_backfill_row", needs_person=True, rows=keys)
            if not found.rows:
                return Doubt("represented_by_another_row", needs_person=True)
            if {(row.profile_id, row.trade_id) for row in found.rows} != {(owner.profile_id, owner.trade_id)}:
                return Doubt("represented_by_another_trade", needs_person=True, rows=keys)
        rows = self.trades.get((owner.profile_id, owner.trade_id), [])
        tokens = {row.symbol_token for row in rows} - {""}
        if tokens and tokens != {fact.symbol_token}:
            return Doubt("conflicting_symbols", needs_person=True, rows=tuple(sorted({row.order_id for row in rows})))
        expected = {row.side if row.action == ENTRY else opposite(row.side) for row in rows if row.side and row.action}
        if expected and {fact.side if owner.action == ENTRY else opposite(fact.side)} != expected:
            return Doubt("conflicting_sides", needs_person=True, rows=tuple(sorted({row.order_id for row in rows})))
        unknown = [
            row
            for row in (*rows, *self.loose.get((owner.profile_id, fact.symbol_token), ()))
            if row.side in {"", fact.side}
            and row.action in {"", owner.action}
            and not row.order_id.startswith(STAND_IN_PREFIXES)
            and row.order_id not in self.explained
            and not {row.order_id, row.client_order_id} & self.fact_ids
        ]
        return _maybe_recorded(fact, unknown)

    def replaced_by(self, fact: Any, owner: Any) -> list[Any]:
        """The rows that the order's own row, now planned, makes superfluous, newest first.

        Backfill rows of the order, and where the trade would then be exited by more than it entered, synthetic exits and dust
        rows of the trade until it is not.
        """
        trade = (owner.profile_id, owner.trade_id)
        found = self.stand_ins.get(fact.order_id)
        out = [] if found is None else list(found.rows)
        sign = 1 if owner.action == ENTRY else -1
        left = self.open_e9.get(trade, 0) + sign * int(fact.executed_e9) + sum(int(row.executed_e9) for row in out)
        known = self.slices.get(trade)
        if owner.action == EXIT and known is not None and not known.defect:
            for row in sorted(self.trades.get(trade, ()), key=newest_first):
                if left >= -EPSILON_E9:
                    break
                if self._stands_for_nothing(row):
                    out.append(row)
                    left += int(row.executed_e9)
        self.open_e9[trade] = left
        self.superseded.update((row.profile_id, row.order_id) for row in out)
        return out

    def _stands_for_nothing(self, row: Any) -> bool:
        return (
            row.status in FILLED_STATUSES
            and not row.defect
            and (row.profile_id, row.order_id) not in self.superseded
            and cites_nothing(row)
        )

    def spelling(self, fact: Any, owner: Any) -> str:
        """The symbol as the ledger spells it for the trade, else as the exchange does."""
        spelled = sorted({row.symbol for row in self.trades.get((owner.profile_id, owner.trade_id), ()) if row.symbol})
        return spelled[0] if spelled else str(fact.symbol)


def _maybe_recorded(fact: Any, rows: Iterable[Any]) -> Doubt:
    """Whether one of the rows, which name no order of the reading, may be this order."""
    open_rows, same = set(), set()
    for row in rows:
        if row.status in FILLED_STATUSES:
            moments = [at for at in (row.filled_at_ms, row.time_ms) if at != NO_TIME]
            begins = fact.created_at_ms if fact.created_at_ms != NO_TIME else fact.executed_at_ms
            near = not moments or any(
                min(begins, fact.executed_at_ms) - _SAME_EXECUTION_MS <= at <= fact.executed_at_ms + _SAME_EXECUTION_MS
                for at in moments
            )
            if near and (row.defect or row.status != "filled" or row.executed_e9 == fact.executed_e9):
                same.add(row.order_id)
        elif row.status not in FINAL_UNFILLED_STATUSES:
            open_rows.add(row.order_id)
    if same:
        return Doubt("maybe_recorded_under_another_id", needs_person=True, rows=tuple(sorted(same)))
    if open_rows:
        return Doubt("open_row_may_be_this_order", rows=tuple(sorted(open_rows)))
    return Doubt()


def missing_order_change(fact: Any, owner: Any, member: Any, ledger: CoverageLedger, *, now_ms: int) -> OrderChange:
    """The row of an executed order that the ledger lacks: keyed by the exchange's id, exactly what it executed."""
    executed = decimal_text_e9(int(fact.executed_e9))
    filled_at = iso_ms(int(fact.executed_at_ms))
    return OrderChange(
        profile_id=owner.profile_id,
        trade_id=owner.trade_id,
        order_id=fact.order_id,
        handler=Handler.ENTRY_FILL if owner.action == ENTRY else Handler.EXIT_FILL,
        values={
            "order_id": fact.order_id,
            "client_order_id": fact.client_order_id or None,
            "user_id": member.user_id,
            "profile_id": owner.profile_id,
            "symbol": ledger.spelling(fact, owner),
            "type": fact.type or "market",
            "side": fact.side,
            "qty": executed,
            "quantity": executed,
            "filled_qty": executed,
            "price": decimal_text(fact.price),
            "status": "filled",
            "timestamp": str(int(fact.executed_at_ms)),
            "filled_at": filled_at,
            "trade_id": owner.trade_id,
            "action": owner.action,
            "source": "BOT",
            "sub_tag": fact.sub_tag or None,
        },
        expected=None,
        cause={
            "rule": "executed_order_missing",
            "attributed_by": owner.how,
            "exchange_order_id": fact.order_id,
            "client_order_id": fact.client_order_id,
            "exchange_status": fact.status,
            "executed": executed,
            "average_price": decimal_text(fact.price),
            "filled_at": filled_at,
            "read_at": iso_ms(now_ms),
        },
        exchange_order_id=fact.order_id,
        represents_e9=int(fact.executed_e9),
    )


def supersede_change(row: Any, fact: Any, *, now_ms: int) -> OrderChange:
    """The cancellation of a row that stood in for what the order's own row now says."""
    return OrderChange(
        profile_id=row.profile_id,
        trade_id=row.trade_id,
        order_id=row.order_id,
        handler=Handler.SUPERSEDE,
        values={"status": "canceled"},
        expected=row.record,
        cause={
            "rule": "own_row_recorded",
            "exchange_order_id": fact.order_id,
            "exchange_status": fact.status,
            "executed": decimal_text_e9(int(fact.executed_e9)),
            "superseded": decimal_text_e9(int(row.executed_e9)),
            "read_at": iso_ms(now_ms),
        },
    )
