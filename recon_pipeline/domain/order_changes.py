"""What a change of a ledger row says: its values, its handler and the exchange's facts that it cites.

What belongs here: how a difference that is proven becomes an :class:`OrderChange`. What does not: whether it is proven
(``order_parity``, ``superseding``).

An order that is over with executions makes a row ``filled`` with what was executed, whatever ended it: the ledger and the
bots count rows by that status. The exchange's own word is in the cause. Quantities, prices and times are copied from the
order, never computed and never the clock's.
"""

from __future__ import annotations

from typing import Any, Final

from recon_pipeline.domain.corrections import Handler, OrderChange
from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_matching import OrderClass, class_of_order, class_of_status
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, decimal_text_e9
from recon_pipeline.domain.terms import ENTRY, UNKNOWN_STATUS

CANCELED: Final = "canceled"
BOT_SOURCE: Final = "BOT"
"""``source`` of a row of a bot's own order."""
_WAITING: Final = "pending_new"
"""How the ledger spells an order that the exchange has and that executed nothing."""
_SPELLED_WAITING: Final = frozenset({"", "new", "accepted", "pending", "partially_filled"})


def status_for(fact: Any) -> str:
    """The status of a ledger row that says what the order is."""
    wanted = class_of_order(fact)
    if wanted is OrderClass.FILLED:
        return "filled"
    if wanted is OrderClass.PARTIAL:
        return "partially_filled"
    status = str(fact.status)
    # A live order never gets a status under which the ledger takes it for over (done_for_day).
    if wanted is OrderClass.PENDING and (
        status in _SPELLED_WAITING or class_of_status(status) is not OrderClass.PENDING
    ):
        return _WAITING
    return status


def corrected(row: Any, fact: Any, *, action: str, matched_by: str) -> OrderChange:
    """The update that makes the row say what its order says.

    :param row: row of LEDGER_ORDERS; it executed no more than the order
    :param fact: its row of ORDER_FACTS
    :param action: ENTRY or EXIT; not needed where nothing more was executed
    :param matched_by: which key says that both are one order
    """
    status = status_for(fact)
    grown = fact.executed_e9 - row.executed_e9 > EPSILON_E9
    values: dict[str, str | None] = {"status": status}
    if fact.executed_e9 > 0:
        values["executed"] = decimal_text_e9(fact.executed_e9)
    if grown:
        values |= {"price": decimal_text(fact.price), "filled_at": iso_ms(fact.executed_at_ms)}
    if grown:
        handler, rule = _fill(action), "order_executed_more"
    elif fact.is_over and fact.status != "filled":
        handler, rule = Handler.CANCEL, "order_is_over"
    else:
        handler, rule = Handler.STATUS, "order_has_another_status"
    return OrderChange(
        profile_id=row.profile_id,
        trade_id=row.trade_id,
        order_id=row.order_id,
        handler=handler,
        values=values,
        expected=row.record,
        cause={**facts_of(fact), "rule": rule, "matched_by": matched_by, **_was(row)},
        exchange_order_id=fact.order_id if fact.executed_e9 > 0 else "",
        represents_e9=int(fact.executed_e9),
    )


def canceled_as_absent(row: Any, *, confirmations: int, first_missing_ms: int) -> OrderChange:
    """The update of a row whose order the exchange has said, often enough, that it does not know."""
    return _updated(
        row,
        Handler.CANCEL,
        CANCELED,
        {
            "rule": "order_unknown_to_exchange",
            "asked": _asked(row),
            "confirmations": confirmations,
            "first_missing_at": iso_ms(first_missing_ms),
        },
    )


def marked_unknown(row: Any, *, placed_at_ms: int, now_ms: int) -> OrderChange:
    """The update of a row whose old order the exchange denies: it keeps blocking its trade until a person decides."""
    return _updated(
        row,
        Handler.STATUS,
        UNKNOWN_STATUS,
        {
            "rule": "order_unknown_for_a_day",
            "asked": _asked(row),
            "placed_at": iso_ms(placed_at_ms),
            "age_seconds": (now_ms - placed_at_ms) // 1000,
        },
    )


def given_up(row: Any, *, decided_by: str, reason: str) -> OrderChange:
    """The update of a row that says ``unknown`` and that a person gives up, while the exchange still denies its order."""
    return _updated(
        row,
        Handler.CANCEL,
        CANCELED,
        {"rule": "person_decided", "decided_by": decided_by, "reason": reason, "asked": _asked(row)},
    )


def superseded(row: Any, *, rule: str, cause: dict[str, object]) -> OrderChange:
    """The update that takes a row out of the books because something else says what it said."""
    return _updated(row, Handler.SUPERSEDE, CANCELED, {**cause, "rule": rule})


def discovered(fact: Any, *, owner: tuple[str, str], user_id: str, action: str, how: str) -> OrderChange:
    """The new row of an order that the ledger lacks, keyed by the exchange's id.

    :param owner: profile and trade
    :param action: ENTRY or EXIT
    :param how: what proves the owner
    """
    profile_id, trade_id = owner
    executed = fact.executed_e9 > 0
    ordered = fact.ordered_e9 or fact.executed_e9
    if executed and status_for(fact) == "filled":
        ordered = fact.executed_e9
    price = fact.price if executed else fact.limit_price
    at = fact.executed_at_ms if executed else fact.created_at_ms
    return OrderChange(
        profile_id=profile_id,
        trade_id=trade_id,
        order_id=fact.order_id,
        handler=_fill(action) if executed else Handler.DISCOVERY,
        values={
            "order_id": fact.order_id,
            "client_order_id": fact.client_order_id or None,
            "user_id": user_id or None,
            "profile_id": profile_id,
            "symbol": fact.symbol,
            "type": fact.type or None,
            "side": fact.side,
            "qty": decimal_text_e9(ordered) if ordered else None,
            "filled_qty": decimal_text_e9(fact.executed_e9) if executed else None,
            "price": None if price is None else decimal_text(price),
            "status": status_for(fact),
            "timestamp": str(int(at)),
            "filled_at": iso_ms(at) if executed else None,
            "trade_id": trade_id,
            "action": action,
            "source": BOT_SOURCE,
            "sub_tag": fact.sub_tag or None,
        },
        expected=None,
        cause={**facts_of(fact), "rule": "order_missing_in_ledger", "matched_by": how},
        exchange_order_id=fact.order_id if executed else "",
        represents_e9=int(fact.executed_e9),
    )


def facts_of(fact: Any) -> dict[str, object]:
    """What the exchange says of the order, as JSON values: what a cause cites."""
    said: dict[str, object] = {
        "exchange_order_id": fact.order_id,
        "client_order_id": fact.client_order_id,
        "exchange_status": fact.status,
        "executed": decimal_text_e9(fact.executed_e9),
        "average_price": None if fact.price is None else decimal_text(fact.price),
        "filled_at": None if fact.executed_at_ms == NO_TIME else iso_ms(fact.executed_at_ms),
    }
    if fact.ended_at_ms != NO_TIME:
        said["ended_at"] = iso_ms(fact.ended_at_ms)
    for name in ("replaces", "replaced_by"):
        if getattr(fact, name):
            said[name] = getattr(fact, name)
    return said


def _asked(row: Any) -> list[str]:
    """The ids that the exchange was asked for."""
    return [key for key in (row.order_id, row.client_order_id) if key]


def _updated(row: Any, handler: Handler, status: str, cause: dict[str, object]) -> OrderChange:
    """The update of a row's status alone, for a cause that cites no execution."""
    return OrderChange(
        profile_id=row.profile_id,
        trade_id=row.trade_id,
        order_id=row.order_id,
        handler=handler,
        values={"status": status},
        expected=row.record,
        cause={**cause, **_was(row)},
    )


def _was(row: Any) -> dict[str, object]:
    return {"status_was": row.status, "executed_was": decimal_text_e9(row.executed_e9)}


def _fill(action: str) -> Handler:
    return Handler.ENTRY_FILL if action == ENTRY else Handler.EXIT_FILL
