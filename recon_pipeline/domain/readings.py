"""Raw records in, frames out: the one tolerant reader of ledger rows, exchange orders and positions.

A value that can't be read makes its record unusable, with a defect that names why; it never raises and is never replaced
by a default. Alpaca's and CCXT's spellings are both read. What does not belong here: any decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from recon_pipeline.domain.frames import (
    CONSUMPTION,
    EXCHANGE_ORDERS,
    LIFECYCLE_ROWS,
    NO_TIME,
    POSITIONS,
    Schema,
    frame_of,
)
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.quantities import decimal_text, integer_array, parse_decimal, to_e9
from recon_pipeline.domain.symbols import has_pair_separator, symbol_token
from recon_pipeline.domain.terms import (
    FILLED_STATUSES,
    NoEvidence,
    RowDefect,
    normalise_action,
    normalise_side,
    normalise_status,
)

Record = Mapping[str, object]

_EXECUTED_KEYS: Final = ("filled_qty", "filledQty", "filled_quantity", "filled")
_PRICE_KEYS: Final = ("filled_avg_price", "avg_price", "average")
_TIME_KEYS: Final = ("filled_at", "filledAt", "lastTradeTimestamp")
_SUB_TAG_KEYS: Final = ("sub_tag", "subTag", "subtag")
_POSITION_KEYS: Final = ("qty", "size", "position_qty", "positionQty", "contracts")
_EXECUTED_STATUSES: Final = FILLED_STATUSES | {"closed"}


def text_of(raw: object) -> str:
    """An identifier as text: stripped text, or the plain decimal of a number; anything else names nothing."""
    if isinstance(raw, str):
        return raw.strip() if raw.isascii() or _is_text(raw) else ""
    if raw is None or isinstance(raw, bool):
        return ""
    number = parse_decimal(raw)
    return "" if number is None else decimal_text(number)


def _is_text(raw: str) -> bool:
    """JSON can spell half of a surrogate pair, which is no character and can't be hashed or stored."""
    try:
        raw.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(record: Record, keys: tuple[str, ...]) -> object:
    """The first value that is there; an empty text is as absent as null."""
    for key in keys:
        value = record.get(key)
        if value is not None and value != "":
            return value
    return None


def _first_text(record: Record, keys: tuple[str, ...]) -> str:
    for key in keys:
        text = text_of(record.get(key))
        if text:
            return text
    return ""


def _frame(schema: Schema, rows: list[tuple[object, ...]]) -> pd.DataFrame:
    """Rows as a frame of ``schema``: text and prices as objects, quantities and instants as exact integers."""
    if not rows:
        return schema.empty()
    columns: dict[str, Any] = dict(zip(schema.names, zip(*rows, strict=True), strict=True))
    for column in schema.columns:
        if column.type == "quantity":
            columns[column.name] = integer_array(list(columns[column.name]))
        elif column.type == "instant":
            columns[column.name] = np.array(columns[column.name], dtype=np.int64)
    return frame_of(schema, columns)


def lifecycle_rows_frame(records: Iterable[Record], *, profile_id: str = "", user_id: str = "") -> pd.DataFrame:
    """Ledger rows of any status as a LIFECYCLE_ROWS frame, in the order given.

    ``profile_id`` and ``user_id`` stand in where a record names none. A record that is no mapping becomes a row without
    a trade, with a defect.
    """
    return _frame(LIFECYCLE_ROWS, [_lifecycle_row(record, profile_id, user_id) for record in records])


def _lifecycle_row(record: object, profile_id: str, user_id: str) -> tuple[object, ...]:
    if not isinstance(record, Mapping):
        record = {}
    symbol = text_of(record.get("symbol"))
    side = normalise_side(record.get("side"))
    action = normalise_action(record.get("action"))
    status = normalise_status(record.get("status"))
    quantity, defect = _row_quantity(record, status)
    time = parse_instant(_first(record, ("timestamp", "created_at")))
    filled_at = parse_instant(record.get("filled_at"))
    price = parse_decimal(record.get("price"))
    if status in FILLED_STATUSES and not defect:
        if not side:
            defect = RowDefect.SIDE
        elif not symbol_token(symbol):
            defect = RowDefect.SYMBOL
        elif time is None:
            defect = RowDefect.TIME
    return (
        text_of(record.get("profile_id")) or profile_id,
        text_of(record.get("user_id")) or user_id,
        text_of(record.get("order_id")),
        text_of(record.get("client_order_id")),
        text_of(record.get("trade_id")),
        symbol,
        symbol_token(symbol),
        side,
        action,
        status,
        quantity,
        price if price is not None and price > 0 else None,
        NO_TIME if time is None else time,
        NO_TIME if filled_at is None else filled_at,
        text_of(record.get("sub_tag")),
        str(defect),
    )


def _row_quantity(record: Record, status: str) -> tuple[int, str]:
    """The executed quantity of a ledger row and its defect.

    ``qty``, else ``quantity``; both and different is a conflict. A partially filled row whose ``filled_qty`` is recorded
    executed that much: the other two are what was ordered.
    """
    if status not in FILLED_STATUSES:
        number = parse_decimal(_first(record, ("qty", "quantity")))
        return (to_e9(number) if number is not None else 0), ""
    stated: list[int] = []
    for key in ("qty", "quantity"):
        raw = record.get(key)
        if raw is None or raw == "":
            continue
        number = parse_decimal(raw)
        if number is None:
            return 0, RowDefect.QUANTITY
        stated.append(to_e9(number))
    if len(set(stated)) > 1:
        return 0, RowDefect.CONFLICTING_QUANTITIES
    raw_filled = record.get("filled_qty")
    filled = parse_decimal(raw_filled) if raw_filled is not None and raw_filled != "" else None
    if filled is not None and status == "partially_filled":
        stated = [to_e9(filled)] if not stated or to_e9(filled) <= stated[0] else []
        if not stated:
            return 0, RowDefect.CONFLICTING_QUANTITIES
    elif filled and stated and to_e9(filled) != stated[0]:
        return 0, RowDefect.CONFLICTING_QUANTITIES
    elif filled and not stated:
        stated = [to_e9(filled)]
    if not stated or stated[0] <= 0:
        return 0, RowDefect.QUANTITY
    return stated[0], ""


def exchange_orders_frame(records: Iterable[Record], *, account_id: str) -> pd.DataFrame:
    """Exchange orders as an EXCHANGE_ORDERS frame, one row per record in the order given; duplicates are kept.

    Executed quantity: filled_qty, filledQty, filled_quantity, filled. Price: filled_avg_price, avg_price, average, never
    a limit price. Time: filled_at, filledAt, lastTradeTimestamp, and ``timestamp`` for a CCXT order without it; never
    updated_at or submitted_at, which move.
    """
    return _frame(EXCHANGE_ORDERS, [_exchange_order(record, account_id) for record in records])


def _exchange_order(record: object, account_id: str) -> tuple[object, ...]:
    is_order = isinstance(record, Mapping)
    order: Record = record if isinstance(record, Mapping) else {}
    info = order.get("info")
    raw: Record = info if isinstance(info, Mapping) else {}
    order_id = _first_text(order, ("id", "order_id"))
    symbol = text_of(order.get("symbol"))
    side = normalise_side(order.get("side"))
    status = normalise_status(order.get("status"))
    asset_class = text_of(order.get("asset_class")) or text_of(raw.get("asset_class"))
    executed_key = next((key for key in _EXECUTED_KEYS if order.get(key) not in (None, "")), "")
    executed = parse_decimal(order.get(executed_key)) if executed_key else None
    is_ccxt = executed_key == "filled" or "lastTradeTimestamp" in order
    time_keys = (*_TIME_KEYS, "timestamp") if is_ccxt else _TIME_KEYS
    time = parse_instant(_first(order, time_keys))
    price = next((p for key in _PRICE_KEYS if (p := parse_decimal(order.get(key))) is not None and p > 0), None)
    defect = ""
    if not is_order:
        defect = NoEvidence.NOT_AN_ORDER
    elif not order_id:
        defect = NoEvidence.NO_ORDER_ID
    elif executed is None:
        unread = bool(executed_key) or status in _EXECUTED_STATUSES
        defect = NoEvidence.NO_EXECUTED_QUANTITY if unread else NoEvidence.NOTHING_EXECUTED
    elif executed < 0:
        defect = NoEvidence.NO_EXECUTED_QUANTITY
    elif executed == 0:
        defect = NoEvidence.NO_EXECUTED_QUANTITY if status in _EXECUTED_STATUSES else NoEvidence.NOTHING_EXECUTED
    elif not symbol_token(symbol):
        defect = NoEvidence.NO_SYMBOL
    elif not side:
        defect = NoEvidence.NO_SIDE
    elif time is None:
        defect = NoEvidence.NO_EXECUTION_TIME
    elif price is None:
        defect = NoEvidence.NO_EXECUTION_PRICE
    return (
        account_id,
        order_id,
        _first_text(order, ("client_order_id", "clientOrderId")),
        _first_text(order, ("replaces",)) or _first_text(raw, ("replaces",)),
        _first_text(order, ("trade_id", "tradeId")),
        _first_text(order, _SUB_TAG_KEYS) or _first_text(raw, _SUB_TAG_KEYS),
        symbol,
        symbol_token(symbol),
        has_pair_separator(symbol) or asset_class.lower() == "crypto",
        side,
        status,
        to_e9(executed, floor=True) if executed is not None and executed > 0 else 0,
        price,
        NO_TIME if time is None else time,
        str(defect),
    )


def consumption_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Rows of ``recon.consumption`` as a CONSUMPTION frame.

    :raises ValueError: a row without a quantity; the pipeline wrote it, so somebody changed it by hand
    """
    rows: list[tuple[object, ...]] = []
    for record in records:
        quantity = parse_decimal(record["qty"])
        if quantity is None:
            raise ValueError(
                f"recon.consumption of {record['backfill_order_id']} has no quantity; it was changed by hand"
            )
        names = ("account_id", "backfill_order_id", "exchange_order_id")
        rows.append((*(str(record[name]) for name in names), to_e9(quantity)))
    return _frame(CONSUMPTION, rows)


def positions_frame(records: object, *, account_id: str) -> pd.DataFrame:
    """Positions as a POSITIONS frame: a list of position objects, or a mapping of symbol to number, text or object.

    The quantity is signed, short negative. A value that can't be read is a row with ``known`` False: unknown is not flat.
    A list entry without a symbol makes nothing known and is kept with an empty token.
    """
    pairs: list[tuple[str, object]]
    if isinstance(records, Mapping):
        pairs = [(text_of(symbol), value) for symbol, value in records.items()]
    elif isinstance(records, Iterable) and not isinstance(records, str):
        pairs = [(text_of(item.get("symbol")) if isinstance(item, Mapping) else "", item) for item in records]
    else:
        raise TypeError(f"positions are a mapping or a list of objects, not {type(records).__name__}")
    rows: list[tuple[object, ...]] = []
    for symbol, value in pairs:
        quantity = position_quantity(value)
        rows.append((account_id, symbol, symbol_token(symbol), quantity or 0, quantity is not None))
    return _frame(POSITIONS, rows)


def position_quantity(value: object) -> int | None:
    """The signed quantity of one position in 1e-9 units, or None where it can't be read.

    Objects: qty, size, position_qty, positionQty, contracts; where several are there they must agree. ``side`` short (or
    sell) makes the quantity negative however it is spelled.
    """
    if not isinstance(value, Mapping):
        return _units(value)
    found: set[int] = set()
    for key in _POSITION_KEYS:
        raw = value.get(key)
        if raw is None or raw == "":
            continue
        quantity = _units(raw)
        if quantity is None:
            return None
        found.add(quantity)
    if len(found) != 1:
        return None
    quantity = found.pop()
    side = value.get("side")
    return -abs(quantity) if isinstance(side, str) and side.strip().lower() in {"short", "sell"} else quantity


def _units(raw: object) -> int | None:
    number = parse_decimal(raw)
    return None if number is None else to_e9(number)
