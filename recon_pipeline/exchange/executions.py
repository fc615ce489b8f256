"""Executions and order records as the exchange sends them, read exactly or named as unreadable.

What belongs here: what one record says. What does not: which records there are (``evidence``), and what they mean for
the ledger (the domain).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import numpy as np
import pandas as pd

from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.quantities import from_e9, integer_array, parse_decimal, to_e9
from recon_pipeline.exchange.evidence_store import FINISHED_STATUSES
from recon_pipeline.exchange.gateway import EXECUTIONS

Raw = Mapping[str, Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SIDES: Final = {"buy": "BUY", "buy_to_cover": "BUY", "sell": "SELL", "sell_short": "SELL"}
_LAST_CHANGE: Final = ("filled_at", "canceled_at", "expired_at", "replaced_at", "failed_at", "updated_at", "created_at")


class UnreadableRecordError(ValueError):
    """A record lacks, or garbles, what it must say. The text names the record and the field."""


def instant(ms: int) -> datetime:
    """Return the aware datetime of an instant in milliseconds."""
    return _EPOCH + timedelta(milliseconds=ms)


def milliseconds(moment: datetime) -> int:
    """Return the instant in milliseconds, cut."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def exact_e9(raw: object) -> int | None:
    """Return a quantity in units of 1e-9, or None where it is no number or needs more decimals than that."""
    number = parse_decimal(raw)
    if number is None:
        return None
    units = to_e9(number, floor=True)
    return units if from_e9(units) == number else None


@dataclass(frozen=True)
class Execution:
    """One execution of one order."""

    execution_id: str
    order_id: str
    symbol: str
    side: str
    qty_e9: int
    cum_qty_e9: int
    price: Any
    executed_at_ms: int
    raw: Raw

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read a FILL activity."""
        name = f"execution {raw.get('id')}"
        if raw.get("activity_type") != "FILL":
            raise UnreadableRecordError(f"{name} is a {raw.get('activity_type')!s:.40} among the fills")
        for key in ("id", "order_id", "symbol"):
            if not isinstance(raw.get(key), str) or not raw[key].strip():
                raise UnreadableRecordError(f"{name} has no {key}")
        side = _SIDES.get(str(raw.get("side")).strip().lower())
        qty, cum_qty = exact_e9(raw.get("qty")), exact_e9(raw.get("cum_qty"))
        price, executed_at = parse_decimal(raw.get("price")), parse_instant(raw.get("transaction_time"))
        if side is None:
            raise UnreadableRecordError(f"{name} has no side")
        if qty is None or qty <= 0 or cum_qty is None or cum_qty < qty:
            raise UnreadableRecordError(f"{name} has no usable quantity")
        if price is None or price < 0:
            raise UnreadableRecordError(f"{name} has no price")
        if executed_at is None:
            raise UnreadableRecordError(f"{name} has no time")
        return cls(raw["id"], raw["order_id"], raw["symbol"], side, qty, cum_qty, price, executed_at, raw)

    @classmethod
    def kept(cls, row: Mapping[str, Any]) -> Self:
        """Read a row of the evidence store."""
        return cls(
            execution_id=row["execution_id"],
            order_id=row["order_id"],
            symbol=row["symbol"],
            side=row["side"],
            qty_e9=to_e9(row["qty"]),
            cum_qty_e9=to_e9(row["cum_qty"]),
            price=row["price"],
            executed_at_ms=milliseconds(row["executed_at"]),
            raw=row["raw"],
        )

    def row(self, account_id: str) -> dict[str, Any]:
        """Return the row of the evidence store."""
        leaves = exact_e9(self.raw.get("leaves_qty"))
        return {
            "account_id": account_id,
            "execution_id": self.execution_id,
            "order_id": self.order_id,
            "symbol": self.symbol,
            "side": self.side,
            "qty": from_e9(self.qty_e9),
            "price": self.price,
            "cum_qty": from_e9(self.cum_qty_e9),
            "leaves_qty": None if leaves is None else from_e9(leaves),
            "executed_at": instant(self.executed_at_ms),
            "kind": str(self.raw.get("type") or "fill"),
            "raw": dict(self.raw),
        }

    def says_the_same(self, other: Execution) -> bool:
        """Whether two records of one id agree. Times are left out: they are rounded differently per endpoint."""
        return (self.order_id, self.side, self.qty_e9, self.cum_qty_e9, self.price) == (
            other.order_id,
            other.side,
            other.qty_e9,
            other.cum_qty_e9,
            other.price,
        )


def executions_frame(executions: Iterable[Execution], account_id: str) -> pd.DataFrame:
    """Return executions as a frame of the EXECUTIONS schema, by time and id."""
    rows = sorted(executions, key=lambda e: (e.executed_at_ms, e.execution_id))
    if not rows:
        return EXECUTIONS.empty()
    return pd.DataFrame(
        {
            "account_id": pd.Series([account_id] * len(rows), dtype=object),
            "execution_id": pd.Series([e.execution_id for e in rows], dtype=object),
            "order_id": pd.Series([e.order_id for e in rows], dtype=object),
            "symbol": pd.Series([e.symbol for e in rows], dtype=object),
            "side": pd.Series([e.side for e in rows], dtype=object),
            "qty_e9": integer_array([e.qty_e9 for e in rows]),
            "cum_qty_e9": integer_array([e.cum_qty_e9 for e in rows]),
            "price": pd.Series([e.price for e in rows], dtype=object),
            "executed_at_ms": np.array([e.executed_at_ms for e in rows], dtype=np.int64),
        }
    )


def with_legs(raw: Raw) -> Iterator[Raw]:
    """Return an order and, where the exchange rolled them up, its legs: each is an order with its own id."""
    yield raw
    legs = raw.get("legs")
    for leg in legs if isinstance(legs, list) else ():
        if isinstance(leg, Mapping) and isinstance(leg.get("id"), str) and leg["id"]:
            yield from with_legs(leg)


def filled_e9(raw: Raw) -> int | None:
    """Return an order's executed quantity, 0 where it says nothing, or None where it can't be read."""
    value = raw.get("filled_qty")
    units = 0 if value in (None, "") else exact_e9(value)
    return units if units is None or units >= 0 else None


def status_of(raw: Raw) -> str:
    """Return an order's status as text."""
    return str(raw.get("status") or "").strip().lower()


def is_finished(raw: Raw) -> bool:
    """Whether nothing more can be executed of the order."""
    return status_of(raw) in FINISHED_STATUSES


def is_basket(raw: Raw) -> bool:
    """Whether it is the parent of a multi-leg order, whose executions are its legs'."""
    return raw.get("order_class") == "mleg" and not raw.get("symbol")


def order_defect(raw: Raw) -> str:
    """Return what an order lacks that the exchange always sends; kept so, it could never be attributed again."""
    needed = ("status", "client_order_id") if is_basket(raw) else ("status", "client_order_id", "symbol", "side")
    for key in needed:
        if not isinstance(raw.get(key), str) or not raw[key].strip():
            return f"without its {key}"
    if filled_e9(raw) is None or raw.get("filled_qty") in (None, ""):
        return "without a readable filled_qty"
    return ""


def last_execution_bound(raw: Raw) -> int | None:
    """Return an instant before which the order's last execution was: filled_at, else its last change."""
    filled_at = parse_instant(raw.get("filled_at"))
    return last_change(raw) if filled_at is None else filled_at


def last_change(raw: Raw) -> int | None:
    """Return the latest instant that the order names of itself."""
    return max((ms for key in _LAST_CHANGE if (ms := parse_instant(raw.get(key))) is not None), default=None)


def submitted_at(raw: Raw) -> int | None:
    """Return when the exchange took the order; it may move later, never earlier."""
    return parse_instant(raw.get("submitted_at"))


def linked_ids(raw: Raw) -> list[str]:
    """Return the ids of the orders that this one replaces and is replaced by."""
    links = (raw.get("replaces"), raw.get("replaced_by"))
    return [link for link in links if isinstance(link, str) and link]


def order_row(raw: Raw, account_id: str, *, read_at: datetime) -> dict[str, Any]:
    """Return the row of the evidence store."""
    filled_at = parse_instant(raw.get("filled_at"))
    return {
        "account_id": account_id,
        "order_id": raw["id"],
        "client_order_id": str(raw.get("client_order_id") or ""),
        "symbol": str(raw.get("symbol") or ""),
        "side": _SIDES.get(str(raw.get("side")).strip().lower(), ""),
        "status": status_of(raw),
        "filled_qty": from_e9(filled_e9(raw) or 0),
        "filled_avg_price": parse_decimal(raw.get("filled_avg_price")),
        "filled_at": None if filled_at is None else instant(filled_at),
        "replaces": str(raw.get("replaces") or ""),
        "replaced_by": str(raw.get("replaced_by") or ""),
        "raw": {key: value for key, value in raw.items() if key != "legs"},
        "read_at": read_at,
    }
