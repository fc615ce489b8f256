"""What backfilled exits do to a trade's position, its history and its reserved capital: row images in, row images out.

An *image* is a row as JSON: column to text, Decimal, int or None. A function answers the columns that change, and an
empty mapping where nothing does. What is unknown stays unknown: a missing number never becomes a zero, and a row that
does not exist is never invented. What does not belong here: reading and writing rows (``recon_pipeline.apply``).

Rules
-----
position        the quantity becomes what the ledger leaves open, never more than it was, and keeps its sign; at most
                the epsilon is closed. A position that is closed already is left alone.
trade history   the exits grow by the difference, so that what a bot booked is never booked again; the price is the
                volume-weighted one; profit is (exit price - entry price) x quantity, with the sign of the entry side.
                Fees are not touched: executions do not tell them.
capital         what stays reserved is the share that stays open; a closed trade reserves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final, TypeAlias

from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, from_e9, parse_decimal
from recon_pipeline.domain.terms import BUY, normalise_status

Image: TypeAlias = Mapping[str, object]
Changes: TypeAlias = dict[str, str | None]

EPSILON: Final = from_e9(EPSILON_E9)
CLOSED: Final = "closed"
_PLACES: Final = Decimal("1e-12")
"""Averages and shares are rounded to this, half to even; sums and products are exact."""
_DIGITS: Final = 120


@dataclass(frozen=True)
class ExitFill:
    """One backfilled exit."""

    qty: Decimal
    price: Decimal
    filled_at_ms: int


@dataclass(frozen=True)
class TradeExit:
    """What a batch closes of one trade, and what the ledger said of it before."""

    entry_side: str
    entry_price: Decimal | None
    """volume-weighted price of the trade's entries in the ledger; None if an entry has no price"""
    exit_before: Decimal
    """what the ledger's rows had closed before"""
    open_before: Decimal
    fills: tuple[ExitFill, ...]

    @property
    def closed_qty(self) -> Decimal:
        """Quantity that the fills close."""
        with localcontext(prec=_DIGITS):
            return sum((fill.qty for fill in self.fills), Decimal(0))

    @property
    def open_after(self) -> Decimal:
        """What stays open, never negative."""
        with localcontext(prec=_DIGITS):
            return max(Decimal(0), self.open_before - self.closed_qty)

    @property
    def closes(self) -> bool:
        """Whether nothing over the epsilon stays open."""
        return self.open_after <= EPSILON

    @property
    def last_fill_ms(self) -> int:
        """Time of the last fill."""
        return max(fill.filled_at_ms for fill in self.fills)


def position_after(before: Image, trade: TradeExit) -> Changes:
    """The columns of ``positions`` that change."""
    held = parse_decimal(before.get("qty"))
    if not trade.fills or normalise_status(before.get("status")) == CLOSED:
        return {}
    if trade.closes:
        return _changed(before, {"qty": "0", "status": CLOSED, "closed_at": _closed_at(before, trade)})
    if held is None:
        return {}
    left = min(abs(held), trade.open_after)
    return _changed(before, {"qty": _text(-left if held < 0 else left)})


def trade_history_after(before: Image, trade: TradeExit) -> Changes:
    """The columns of ``trade_history`` that change."""
    if not trade.fills:
        return {}
    booked = parse_decimal(before.get("exit_qty"))
    if booked is None and trade.exit_before > EPSILON:
        # Exits that the history never booked: the ledger has their quantity; their price and profit are not known here.
        changes: Changes = {"exit_qty": _text(_plus(trade.exit_before, trade.closed_qty))}
    else:
        booked = booked or Decimal(0)
        changes = {
            "exit_qty": _text(_plus(booked, trade.closed_qty)),
            "exit_price": _optional(_exit_price(before, booked, trade)),
            "realized_pnl_usd": _optional(_realized(before, booked, trade)),
        }
    if trade.closes:
        changes |= {"status": CLOSED, "closed_at": _closed_at(before, trade)}
    return _changed(before, changes)


def capital_after(before: Image, trade: TradeExit) -> Changes:
    """The columns of ``capital_ledger`` that change."""
    reserved = parse_decimal(before.get("reserved_usd"))
    if reserved is None or not trade.fills:
        return {}
    if trade.closes or trade.open_before <= 0:
        return _changed(before, {"reserved_usd": "0"})
    with localcontext(prec=_DIGITS):
        kept = _rounded(reserved * trade.open_after / trade.open_before)
    return _changed(before, {"reserved_usd": _text(kept)})


def realized_profit(entry_side: str, entry_price: Decimal, fills: Iterable[ExitFill]) -> Decimal:
    """Profit of closing ``fills`` of a trade entered on ``entry_side`` at ``entry_price``; exact."""
    with localcontext(prec=_DIGITS):
        gain = sum(((fill.price - entry_price) * fill.qty for fill in fills), Decimal(0))
        return gain if entry_side == BUY else -gain


def _exit_price(before: Image, booked: Decimal, trade: TradeExit) -> Decimal | None:
    """The volume-weighted price of all exits; one price is copied, None where an earlier exit has none."""
    earlier = parse_decimal(before.get("exit_price"))
    if booked > 0 and earlier is None:
        return None
    parts = [(fill.qty, fill.price) for fill in trade.fills]
    if booked > 0 and earlier is not None:
        parts.append((booked, earlier))
    prices = {price for _, price in parts}
    if len(prices) == 1:
        return prices.pop()
    with localcontext(prec=_DIGITS):
        total = sum((qty for qty, _ in parts), Decimal(0))
        return _rounded(sum((qty * price for qty, price in parts), Decimal(0)) / total)


def _realized(before: Image, booked: Decimal, trade: TradeExit) -> Decimal | None:
    earlier = parse_decimal(before.get("realized_pnl_usd"))
    entry_price = parse_decimal(before.get("entry_price")) or trade.entry_price
    if entry_price is None or (booked > 0 and earlier is None):
        return None
    with localcontext(prec=_DIGITS):
        return (earlier or Decimal(0)) + realized_profit(trade.entry_side, entry_price, trade.fills)


def _closed_at(before: Image, trade: TradeExit) -> str | None:
    """When the trade was closed: the last fill, unless the row knows a time already."""
    known = before.get("closed_at")
    return str(known) if known else iso_ms(trade.last_fill_ms)


def _changed(before: Image, wanted: Changes) -> Changes:
    """What really differs: numbers compare by value."""
    return {name: value for name, value in wanted.items() if not same_value(before.get(name), value)}


def same_value(one: object, other: object) -> bool:
    """Whether two JSON values name the same: numbers by value however they are spelled, instants by instant."""
    if one is None or other is None:
        return one is other
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    left, right = parse_decimal(one), parse_decimal(other)
    if left is not None and right is not None:
        return left == right
    if isinstance(one, str) and isinstance(other, str) and one != other:
        moments = _moment(one), _moment(other)
        return moments[0] is not None and moments[0] == moments[1]
    return one == other


def _moment(text: str) -> datetime | None:
    """The instant of an ISO text with a time; the sessions of the pipeline are in UTC."""
    if "T" not in text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plus(one: Decimal, other: Decimal) -> Decimal:
    with localcontext(prec=_DIGITS):
        return one + other


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_PLACES, rounding=ROUND_HALF_EVEN)


def _text(value: Decimal) -> str:
    return decimal_text(value)


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else _text(value)
