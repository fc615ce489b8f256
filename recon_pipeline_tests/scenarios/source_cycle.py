"""What the source system would do in a cycle: three small rules, stated independently of the engine.

What belongs here: the order loop of the source's orchestrator, statement by statement and faults included; and of the two
services whose code was not handed over the one sentence that is known of each (order coverage writes what has no row of its
own; the parity heartbeat closes what the exchange does not hold). What does not: anything from ``recon_pipeline``.

A call is what the source writes about one order: ``log`` writes the row alone, the others call the handler behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from recon_pipeline_tests.domain.source_rules import action_of, number, text, token

Raw = Mapping[str, Any]
OPEN_STATES = ("pending_new", "new", "accepted", "pending", "partially_filled")
LISTED_STATES = ("new", "accepted", "pending_new", "partially_filled", "pending_cancel", "pending_replace", "held")
"""What the exchange lists as open orders."""


@dataclass(frozen=True)
class Call:
    """One write: the row's status, action and trade as logged, and the handler with the cumulative quantity it gets."""

    order_id: str
    call: str
    """log, entry_fill, exit_fill or cancel"""
    status: str
    action: str
    trade_id: str
    quantity: str = "0"


def comparable_status(raw: object) -> str:
    status = text(raw).lower()
    if status in ("new", "accepted", "pending"):
        return "pending_new"
    if status == "partially-filled":
        return "partially_filled"
    return "canceled" if status in ("cancelled", "canceled") else status


def keys_of(order: Raw) -> list[str]:
    names = ("order_id", "id", "client_order_id", "clientOrderId", "trade_id", "tradeId")
    return [key for name in names if (key := text(order.get(name)).lower())]


def action_for(order: Raw) -> str:
    """A side without an action decides: a sell is an EXIT (defect 27)."""
    return action_of(order.get("action")) or (
        "EXIT" if text(order.get("side")).lower() in ("sell", "short") else "ENTRY"
    )


def fill_quantity(order: Raw) -> str:
    """The first positive of these; what was ordered where nothing else is (defect 9)."""
    names = ("filled_qty", "filledQty", "filled_quantity", "qty", "amount", "size")
    found = next((value for name in names if (value := number(order.get(name))) > 0), Decimal(0))
    return f"{found.normalize():f}"


def orders(
    rows: Sequence[Raw], listed: Sequence[Raw] | None, profile_id: str, managed: Sequence[str] | None
) -> list[Call]:
    """The order loop: open rows against open orders; a list that could not be read is an empty one (defect 4)."""
    scope = None if managed is None else {token(symbol) for symbol in managed}

    def in_scope(order: Raw) -> bool:
        return scope is None or not text(order.get("symbol")) or token(order.get("symbol")) in scope

    own = [row for row in rows if row["profile_id"] == profile_id and in_scope(row)]
    exchange = [order for order in (listed or []) if in_scope(order)]
    by_key = {keys_of(order)[0]: order for order in exchange if keys_of(order)}
    closed = {keys_of(row)[0]: row for row in own if text(row.get("status")).lower() not in OPEN_STATES}
    handled: set[str] = set()
    calls: list[Call] = []
    for row in (row for row in own if text(row.get("status")).lower() in OPEN_STATES):
        found = _match(row, by_key, handled)
        if found is None:
            calls.append(_logged(row, "cancel", text(row.get("status"))))
            continue
        status = comparable_status(found.get("status"))
        if status and status != comparable_status(row.get("status")):
            calls.append(_changed(row, found, status))
    closed_handled: set[str] = set()
    for order in exchange:
        if keys_of(order)[0] in handled:
            continue
        closed_row = _match(order, closed, closed_handled)
        calls.append(_changed(closed_row or order, order, comparable_status(order.get("status"))))
    return calls


def _match(order: Raw, by_key: Mapping[str, Raw], handled: set[str]) -> Raw | None:
    for key in keys_of(order):
        found = by_key.get(key)
        if found is not None and keys_of(found)[0] not in handled:
            handled.add(keys_of(found)[0])
            return found
    return None


def _changed(row: Raw, order: Raw, status: str) -> Call:
    """The status is applied; which handler runs hangs on it alone (defect 25: none for rejected and expired)."""
    if status in ("filled", "partially_filled"):
        return _logged(order, "entry_fill" if action_for(row) == "ENTRY" else "exit_fill", status, fill_quantity(order))
    return _logged(order, "cancel" if status == "canceled" else "log", status)


def _logged(order: Raw, call: str, status: str, quantity: str = "0") -> Call:
    """The row as logged is built from one of both sides alone: an exchange order has neither trade nor action."""
    order_id = text(order.get("order_id")) or text(order.get("id")) or text(order.get("client_order_id"))
    return Call(order_id, call, status, action_for(order), text(order.get("trade_id")), quantity)


def coverage(rows: Sequence[Raw], exchange_orders: Sequence[Raw], profile_id: str) -> list[Call]:
    """Inserted is a bot's executed order that has no row under its own id, whatever stands in for it (defect 6)."""
    known = {key for row in rows for key in (text(row.get("order_id")), text(row.get("client_order_id"))) if key}
    prefix = f"bytelyst-{profile_id}-"
    calls = []
    for order in exchange_orders:
        name, executed = text(order.get("client_order_id")), number(order.get("filled_qty"))
        if not name.startswith(prefix) or executed <= 0 or known & {text(order.get("id")), name}:
            continue
        rest = name[len(prefix) :]
        role = "ENTRY" if rest.endswith("-entry") else "EXIT"
        trade = rest.removesuffix("-entry").removesuffix("-exit")
        calls.append(
            Call(text(order.get("id")), f"{role.lower()}_fill", "filled", role, trade, f"{executed.normalize():f}")
        )
    return calls


def heartbeat(opened: Mapping[str, Decimal], symbols: Mapping[str, str], positions: Mapping[str, Any]) -> list[Call]:
    """Closed is a trade with something open whose symbol's position is effectively zero; null is zero (defect 7)."""
    held = {token(symbol): abs(number(quantity)) for symbol, quantity in positions.items()}
    return [
        Call("", "exit_fill", "filled", "EXIT", trade, f"{abs(quantity).normalize():f}")
        for trade, quantity in sorted(opened.items())
        if quantity and held.get(token(symbols[trade]), Decimal(0)) <= Decimal("0.001")
    ]
