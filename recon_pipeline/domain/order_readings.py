"""Raw records in, the cycle's frames out: ledger orders with what they say and when they moved, exchange orders whole.

What a row or an order has in common with LIFECYCLE_ROWS and EXCHANGE_ORDERS is read by ``readings``, so that both agree;
here are only the columns that the cycle adds. As there, a value that can't be read is never replaced by a default that
means something: it makes no text, no time, no price. What does not belong here: any decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from recon_pipeline.domain.corrections import COMPARED, RowRecord
from recon_pipeline.domain.cycle_frames import LEDGER_ORDERS, ORDER_FACTS
from recon_pipeline.domain.frames import NO_TIME, frame_of
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.quantities import integer_array, parse_decimal, to_e9
from recon_pipeline.domain.readings import Record, exchange_orders_frame, lifecycle_rows_frame, text_of
from recon_pipeline.domain.terms import FILLED_STATUSES

OVER_STATUSES: Final = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})
"""Statuses of the exchange under which nothing more can execute. ``done_for_day`` is not among them: it goes on."""
_ORDERED_KEYS: Final = ("qty", "quantity")
_FACT_ORDERED_KEYS: Final = ("qty", "amount")
_ENDED_KEYS: Final = ("canceled_at", "expired_at", "failed_at", "replaced_at")
_CREATED_KEYS: Final = ("created_at", "submitted_at")
_ACTIVITY_KEYS: Final = ("updated_at", "timestamp")
"""beside ``created_at``"""
_NOTHING: Final[Record] = {}


def ledger_orders_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Rows of ``recon.lifecycle_orders`` of any status as a LEDGER_ORDERS frame, in the order given.

    Keys are those of ``lifecycle_rows_frame`` and ``updated_at``. ``executed_e9`` and ``defect`` are that frame's: a row
    whose status books nothing executed nothing, whatever its ``filled_qty`` says.
    """
    rows: list[Record] = [record if isinstance(record, Mapping) else _NOTHING for record in records]
    if not rows:
        return LEDGER_ORDERS.empty()
    read = lifecycle_rows_frame(rows)
    books = read["status"].isin(list(FILLED_STATUSES)).tolist()
    executed = [units if booked else 0 for units, booked in zip(read["qty_e9"].tolist(), books, strict=True)]
    created = [_instant(row.get("created_at")) for row in rows]
    columns: dict[str, Any] = {name: read[name] for name in LEDGER_ORDERS.names if name in read.columns}
    columns |= {
        "created_at_ms": np.array(created, dtype=np.int64),
        "ordered_e9": integer_array([_units(_first(row, _ORDERED_KEYS)) for row in rows]),
        "executed_e9": integer_array(executed),
        "activity_ms": np.array(
            [max(at, _latest(row, _ACTIVITY_KEYS)) for at, row in zip(created, rows, strict=True)], dtype=np.int64
        ),
        "source": [text_of(row.get("source")) for row in rows],
        "record": [compared_record(row) for row in rows],
    }
    return frame_of(LEDGER_ORDERS, columns)


def compared_record(row: Record) -> RowRecord:
    """The columns COMPARED of a row as the view spells them: what must still read so when a change is written."""
    return {name: None if (value := row.get(name)) is None else str(value) for name in COMPARED}


def order_facts_frame(records: Iterable[Record], *, account_id: str) -> pd.DataFrame:
    """Exchange orders as the exchange sent them as an ORDER_FACTS frame, in the order given; duplicates are kept.

    ``raw_orders`` of a reading and what single look-ups found are read alike. Ordered quantity: qty, else (CCXT) amount;
    an order by notional has none. A defect of its executions is no defect of its status.
    """
    rows: list[Record] = [record if isinstance(record, Mapping) else _NOTHING for record in records]
    if not rows:
        return ORDER_FACTS.empty()
    read = exchange_orders_frame(rows, account_id=account_id)
    columns: dict[str, Any] = {name: read[name] for name in ORDER_FACTS.names if name in read.columns}
    columns |= {
        "replaced_by": [text_of(row.get("replaced_by")) for row in rows],
        "type": [(text_of(row.get("type")) or text_of(row.get("order_type"))).lower() for row in rows],
        "is_over": np.array([status in OVER_STATUSES for status in read["status"].tolist()], dtype=bool),
        "ordered_e9": integer_array([_units(_first(row, _FACT_ORDERED_KEYS)) for row in rows]),
        "limit_price": [_price(row.get("limit_price")) for row in rows],
        "created_at_ms": np.array([_instant(_first(row, _CREATED_KEYS)) for row in rows], dtype=np.int64),
        "ended_at_ms": np.array([_instant(_first(row, _ENDED_KEYS)) for row in rows], dtype=np.int64),
    }
    return frame_of(ORDER_FACTS, columns)


def _first(record: Record, keys: tuple[str, ...]) -> object:
    """The first value that is there; an empty text is as absent as null."""
    return next((value for key in keys if (value := record.get(key)) is not None and value != ""), None)


def _units(raw: object) -> int:
    """A quantity in 1e-9 units; 0 where there is none that can be read."""
    number = parse_decimal(raw)
    return to_e9(number) if number is not None and number > 0 else 0


def _price(raw: object) -> object:
    number = parse_decimal(raw)
    return number if number is not None and number > 0 else None


def _instant(raw: object) -> int:
    instant = parse_instant(raw)
    return NO_TIME if instant is None else instant


def _latest(record: Record, keys: tuple[str, ...]) -> int:
    return max(_instant(record.get(key)) for key in keys)
