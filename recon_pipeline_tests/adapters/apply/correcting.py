"""Corrections as the stages of a cycle plan them, for a book in a real database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from recon_pipeline.apply import CorrectionResult, apply_corrections
from recon_pipeline.domain.corrections import COMPARED, CorrectionPlan, Handler, OrderChange, Stage
from recon_pipeline.domain.quantities import parse_decimal, to_e9
from recon_pipeline_tests.adapters.apply.book import NOW, Book

AT = "2026-03-02T11:30:00.250Z"
AT_MS = str(int(dt.datetime.fromisoformat(AT).timestamp() * 1000))


def units(text: str) -> int:
    number = parse_decimal(text)
    assert number is not None
    return to_e9(number)


def seen(book: Book, order_id: str) -> dict[str, str | None]:
    """The row as a stage read it."""
    (row,) = book.rows("SELECT * FROM recon.lifecycle_orders WHERE order_id = %s", order_id)
    return {name: row[name] for name in COMPARED}


def filled(
    book: Book,
    order_id: str,
    executed: str,
    *,
    exchange_id: str = "",
    status: str = "filled",
    handler: Handler = Handler.EXIT_FILL,
    price: str = "110",
    trade_id: str = "t1",
    profile_id: str = "p1",
    **more: Any,
) -> OrderChange:
    """The exchange executed this much of the order of a ledger row."""
    values: dict[str, str | None] = {"status": status, "executed": executed, "price": price, "filled_at": AT}
    facts: dict[str, Any] = {
        "profile_id": profile_id,
        "trade_id": trade_id,
        "order_id": order_id,
        "handler": handler,
        "values": values,
        "expected": seen(book, order_id),
        "cause": {"rule": "exchange_filled", "exchange_status": status, "executed": executed, "filled_at": AT},
        "exchange_order_id": exchange_id or order_id,
        "represents_e9": units(executed),
    }
    return OrderChange(**(facts | more))


def inserted(
    order_id: str,
    qty: str,
    *,
    side: str = "SELL",
    action: str = "EXIT",
    handler: Handler = Handler.EXIT_FILL,
    price: str | None = "110",
    status: str = "filled",
    trade_id: str = "t1",
    profile_id: str = "p1",
    values: Mapping[str, str | None] | None = None,
    **more: Any,
) -> OrderChange:
    """An order of the exchange that the ledger lacks."""
    synthetic = handler is Handler.SYNTHETIC_EXIT
    counts = status in {"filled", "partially_filled"}
    columns: dict[str, str | None] = {
        "order_id": order_id,
        "user_id": "u1",
        "profile_id": profile_id,
        "symbol": "AAPL",
        "type": "market",
        "side": side,
        "qty": qty,
        "quantity": qty,
        "filled_qty": qty if counts else None,
        "price": price,
        "status": status,
        "timestamp": AT_MS,
        "filled_at": AT if counts else None,
        "trade_id": trade_id,
        "action": action,
        "source": "RECON" if synthetic else "BOT",
    }
    facts: dict[str, Any] = {
        "profile_id": profile_id,
        "trade_id": trade_id,
        "order_id": order_id,
        "handler": handler,
        "values": columns | dict(values or {}),
        "expected": None,
        "cause": {"rule": "missing_in_ledger", "filled_at": AT},
        "exchange_order_id": order_id if counts and not synthetic else "",
        "represents_e9": units(qty) if counts and not synthetic else 0,
    }
    return OrderChange(**(facts | more))


def ended(
    book: Book, order_id: str, *, handler: Handler = Handler.CANCEL, trade_id: str = "t1", **more: Any
) -> OrderChange:
    """The row books nothing any more."""
    facts: dict[str, Any] = {
        "profile_id": "p1",
        "trade_id": trade_id,
        "order_id": order_id,
        "handler": handler,
        "values": {"status": "canceled"},
        "expected": seen(book, order_id),
        "cause": {"rule": "exchange_rejected", "exchange_status": "rejected"},
    }
    return OrderChange(**(facts | more))


def plan_of(
    *changes: OrderChange,
    executed: Mapping[str, str] | None = None,
    clients: Mapping[str, str] | None = None,
    stage: Stage = Stage.ORDER_PARITY,
    batch: str = "C1",
    profile_id: str = "p1",
    account_id: str = "a1",
) -> CorrectionPlan:
    """The changes of a stage; an order that ``executed`` does not name executed what the changes say."""
    said: dict[str, int] = {}
    for change in changes:
        if change.exchange_order_id:
            said[change.exchange_order_id] = said.get(change.exchange_order_id, 0) + change.represents_e9
    told = {order_id: units(qty) for order_id, qty in (executed or {}).items()}
    return CorrectionPlan(profile_id, "u1", account_id, stage, batch, changes, said | told, dict(clients or {}))


def correct(book: Book, plan: CorrectionPlan, **more: Any) -> CorrectionResult:
    arguments: dict[str, Any] = {"run_id": "run-1", "owner": "worker-1", "now": NOW}
    return apply_corrections(book.url, plan, **(arguments | more))


def corrections(book: Book, batch_id: str = "C1") -> list[dict[str, Any]]:
    return book.rows("SELECT * FROM recon.corrections WHERE batch_id = %s ORDER BY id", batch_id)
