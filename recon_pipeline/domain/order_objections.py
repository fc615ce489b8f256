"""Why a row is not made to say what its order says, although both differ: the words of the findings of order parity.

What belongs here: looking at one row and one order. What does not: finding the pairs (``order_matching``) and what is
written where nothing speaks against it (``order_changes``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_keys import Kind
from recon_pipeline.domain.order_matching import OrderClass, class_of_order, class_of_status
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9
from recon_pipeline.domain.terms import NoEvidence, RowDefect


class OrderReason(StrEnum):
    """What an operator reads about a row or an order that was left alone."""

    LEDGER_AHEAD = "ledger_ahead_of_exchange"
    """the row says that more was executed than the exchange does; rows are never reduced"""
    CONFLICTING_DUPLICATES = "conflicting_duplicates"
    """several rows of one order that are not the same row written twice"""
    CONFLICTING_SIDE = "conflicting_side"
    CONFLICTING_SYMBOL = "conflicting_symbol"
    CONFLICTING_ACTION = "conflicting_action"
    CONFLICTING_OWNER = "conflicting_owner"
    """the order's keys name another profile or trade than its row"""
    TWO_ORDERS = "row_names_two_orders"
    UNREADABLE_ROW = "unreadable_row"
    UNUSABLE_ORDER = "unusable_order"
    """what the exchange says of the order can't be used; the detail says why"""
    NO_TRADE = "row_without_trade"
    NO_ACTION = "unknown_action"
    NO_TIME = "order_without_time"
    OUT_OF_SCOPE = "symbol_out_of_scope"
    EXECUTED_BUT_UNKNOWN = "executed_order_unknown_to_exchange"
    """the row says that something was executed, the exchange that it does not know the order"""
    MARKED_UNKNOWN = "marked_unknown"
    """the row says ``unknown`` and the exchange does not know the order: no cycle cancels it, a person decides"""
    NOT_MARKED_UNKNOWN = "not_marked_unknown"
    """a person has given the order up, and its row doesn't say ``unknown`` or says that something was executed"""
    UNMAPPED_TRADE = "unmapped_trade"
    """a live order of the profile that names no trade"""
    AMBIGUOUS = "ambiguous_attribution"
    CONTRADICTORY = "contradictory_attribution"
    DUPLICATES_WITHOUT_ORDER = "duplicates_without_order"
    """two rows name one order, and the order was not read"""
    OVER_REPRESENTED = "order_over_represented"
    """the ledger represents more of an order than it executed, and no row can be given up for it"""


@dataclass(frozen=True)
class Objection:
    """What speaks against a change."""

    reason: OrderReason
    needs_person: bool = True
    detail: dict[str, object] = field(default_factory=dict)


_UNREADABLE: Final = frozenset({RowDefect.CONFLICTING_QUANTITIES.value, RowDefect.CONFLICTING_ROWS.value})
_MAY_BE_MENDED: Final = frozenset({NoEvidence.NO_EXECUTION_TIME.value, NoEvidence.NO_EXECUTION_PRICE.value})


def order_objection(fact: Any) -> Objection | None:
    """Why nothing can be concluded from an order at all; None where it can be used."""
    if not fact.status:
        return Objection(OrderReason.UNUSABLE_ORDER, detail={"defect": "no_status"})
    nothing = fact.executed_e9 == 0 and fact.defect == NoEvidence.NOTHING_EXECUTED.value
    if fact.defect and not nothing:
        lasting = fact.defect not in _MAY_BE_MENDED
        return Objection(OrderReason.UNUSABLE_ORDER, needs_person=lasting, detail={"defect": fact.defect})
    return None


def correction_objection(row: Any, fact: Any, owner: Any | None) -> Objection | None:
    """Why the row is not corrected by its order; None where it is.

    A row whose one quantity can't be read says nothing, so what was executed is news to it; a row whose quantities (or
    copies) contradict each other may say more than the exchange does.

    :param owner: row of OWNERSHIP of the order; None where there is none
    """
    if row.defect in _UNREADABLE:
        return Objection(OrderReason.UNREADABLE_ROW, detail={"defect": row.defect})
    unusable = order_objection(fact)
    if unusable is not None:
        return unusable
    if row.side and fact.side and row.side != fact.side:
        return Objection(OrderReason.CONFLICTING_SIDE, detail={"row": row.side, "order": fact.side})
    if row.symbol_token and fact.symbol_token and row.symbol_token != fact.symbol_token:
        return Objection(OrderReason.CONFLICTING_SYMBOL, detail={"row": row.symbol, "order": fact.symbol})
    if owner is not None:
        claimed = (owner.profile_id, owner.trade_id or row.trade_id)
        other = owner.kind == Kind.OWNED.value and claimed != (row.profile_id, row.trade_id or owner.trade_id)
        if other or owner.kind == Kind.CONTRADICTORY.value:
            return Objection(
                OrderReason.CONFLICTING_OWNER, detail={"profile_id": owner.profile_id, "trade_id": owner.trade_id}
            )
        if row.action and owner.action and row.action != owner.action:
            return Objection(OrderReason.CONFLICTING_ACTION, detail={"row": row.action, "order": owner.action})
    if row.executed_e9 - fact.executed_e9 > EPSILON_E9:
        return Objection(
            OrderReason.LEDGER_AHEAD,
            detail={"row": decimal_text_e9(row.executed_e9), "order": decimal_text_e9(fact.executed_e9)},
        )
    if fact.executed_e9 - row.executed_e9 > EPSILON_E9:
        if not row.trade_id:
            return Objection(OrderReason.NO_TRADE)
        if not action_of(row, owner):
            return Objection(OrderReason.NO_ACTION)
    return None


def says_executed(row: Any) -> bool:
    """Whether the row says that something was executed, be it in a quantity that can't be read."""
    return class_of_status(row.status) is OrderClass.PARTIAL or row.executed_e9 > 0


def action_of(row: Any, owner: Any | None) -> str:
    """What the row says that the order is for, else what is known of the order."""
    return row.action or ("" if owner is None else owner.action)


def recording_objection(fact: Any, owner: Any) -> Objection | None:
    """Why a live order of a profile can't be recorded; None where it can."""
    if owner.kind == Kind.CONTRADICTORY.value:
        return Objection(OrderReason.CONTRADICTORY)
    if owner.kind == Kind.AMBIGUOUS.value:
        return Objection(OrderReason.AMBIGUOUS)
    unusable = order_objection(fact)
    if unusable is not None:
        return unusable
    if not owner.trade_id:
        return Objection(OrderReason.UNMAPPED_TRADE, needs_person=False)
    if not owner.action:
        return Objection(OrderReason.NO_ACTION)
    for name, text in (("side", fact.side), ("symbol", fact.symbol_token)):
        if not text:
            return Objection(OrderReason.UNUSABLE_ORDER, detail={"defect": f"no_{name}"})
    if class_of_order(fact) is OrderClass.PENDING and fact.created_at_ms == NO_TIME:
        return Objection(OrderReason.NO_TIME)
    return None
