"""What a correction of a trade's orders does to its position, its history and its reserved capital.

The trade is read twice, from its rows before and after the correction, and each book's row is brought from what it says to
what the ledger says: images in, changes out, or a new row where there is none. Exact and idempotent: a book that says it
already is left alone. What does not belong here: reading and writing rows (``recon_pipeline.apply``).

Rules
-----
position        the quantity is what the ledger leaves open, with the sign that the row has (a row of 0 and a new row: short
                negative); the average entry price follows where the entries changed. Nothing open and no entry order live:
                closed, at the last exit. Open again, because an exit was superseded: open, without a time of closing.
trade history   entries and exits become what the ledger's rows sum to. Where the recorded quantity says so already, a bot
                booked it, and neither price nor profit is touched, unless the record is that of a row whose place another
                took. Profit changes by the difference that the correction makes, so that what a bot knows beside it (fees,
                rounding) stays; without a recorded profit it is that of all rows. Prices are volume-weighted; what an
                unpriced row leaves unknown is unknown. Fees are not touched.
capital         while an entry order is live it is the bot's, who reserved for the whole order. Otherwise: nothing open reserves
                nothing; where the entries changed, the open quantity at their average price; where only exits did, the share
                of the reservation that stays open, of what the position said was open (``as_booked``).

A trade with a defect, or with more exits than entries, is not understood: its books stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, localcontext
from typing import Final

import pandas as pd

from recon_pipeline.domain.bookkeeping import CLOSED, Changes, Image, same_value
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, from_e9, parse_decimal, to_e9
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline.domain.terms import (
    BUY,
    ENTRY,
    EXIT,
    FILLED_STATUSES,
    FINAL_UNFILLED_STATUSES,
    SELL,
    normalise_status,
)

OPEN: Final = "open"
_PLACES: Final = Decimal("1e-12")
"""Averages and shares are rounded to this, half to even; sums and products are exact."""
_DIGITS: Final = 120


@dataclass(frozen=True)
class TradeState:
    """One trade as the ledger's rows tell it."""

    profile_id: str
    trade_id: str
    user_id: str
    symbol: str
    entry_side: str
    entry_e9: int
    exit_e9: int
    entry_price: Decimal | None
    """volume-weighted, exact where it has at most twelve decimals; None where an entry has no price or there is none"""
    exit_value: Decimal
    """sum of price x quantity of the exits that have a price"""
    unpriced_e9: int
    """exits that have none"""
    entry_live: bool
    """an entry order of the trade may still execute"""
    first_entry_ms: int
    last_exit_ms: int
    understood: bool
    """no defect, and no more exits than entries"""

    @property
    def open_e9(self) -> int:
        """Entries minus exits; at most the epsilon is nothing."""
        opened = self.entry_e9 - self.exit_e9
        return opened if opened > EPSILON_E9 else 0

    @property
    def over(self) -> bool:
        """Whether nothing is open and nothing is going to be."""
        return self.open_e9 == 0 and not self.entry_live

    def profit(self, entry_price: Decimal | None) -> Decimal | None:
        """What the exits gained at this entry price; None where a price is not known."""
        if self.unpriced_e9 or entry_price is None:
            return None
        with localcontext(prec=_DIGITS):
            return self.signed(self.exit_value - entry_price * from_e9(self.exit_e9))

    def signed(self, gain: Decimal) -> Decimal:
        """A gain of a long trade, as one of this trade."""
        return gain if self.entry_side == BUY else -gain


NOTHING: Final = TradeState(
    profile_id="",
    trade_id="",
    user_id="",
    symbol="",
    entry_side="",
    entry_e9=0,
    exit_e9=0,
    entry_price=None,
    exit_value=Decimal(0),
    unpriced_e9=0,
    entry_live=False,
    first_entry_ms=NO_TIME,
    last_exit_ms=NO_TIME,
    understood=True,
)
"""A trade without a row."""


def trade_state(rows: pd.DataFrame) -> TradeState:
    """The trade whose LIFECYCLE_ROWS of any status these are; all of one profile and trade.

    :raises ValueError: rows of several trades
    """
    if rows.empty:
        return NOTHING
    if len(set(zip(rows["profile_id"], rows["trade_id"], strict=True))) > 1:
        raise ValueError("rows of several trades")
    rows = deduplicate_rows(rows)
    slices = build_slices(rows, crypto_tokens=frozenset())
    side = slices["entry_side"].iloc[0] if len(slices) else ""
    entries: list[tuple[int, Decimal | None]] = []
    exits: list[tuple[int, Decimal | None]] = []
    first_entry, last_exit, live = NO_TIME, NO_TIME, False
    for row in rows_of(rows):
        is_entry = row.action == ENTRY or (row.action != EXIT and row.side == side)
        if row.status not in FINAL_UNFILLED_STATUSES and row.status != "filled" and row.action != EXIT:
            live |= is_entry or not (row.side and side)
        if row.status not in FILLED_STATUSES:
            continue
        at = int(row.time_ms if row.filled_at_ms == NO_TIME else row.filled_at_ms)
        (entries if is_entry else exits).append((int(row.qty_e9), row.price))
        if is_entry:
            first_entry = at if first_entry == NO_TIME else min(first_entry, at)
        else:
            last_exit = max(last_exit, at)
    first = rows.iloc[0]
    trade = slices.iloc[0] if len(slices) else None
    entry_e9, exit_e9 = (0, 0) if trade is None else (int(trade["entry_e9"]), int(trade["exit_e9"]))
    return TradeState(
        profile_id=first["profile_id"],
        trade_id=first["trade_id"],
        user_id=next((user for user in rows["user_id"] if user), ""),
        symbol=first["symbol"] if trade is None else trade["symbol"],
        entry_side=side,
        entry_e9=entry_e9,
        exit_e9=exit_e9,
        entry_price=_average(entries),
        exit_value=_value(exits),
        unpriced_e9=sum(units for units, price in exits if price is None),
        entry_live=live,
        first_entry_ms=first_entry,
        last_exit_ms=last_exit,
        understood=trade is None or (not trade["defect"] and entry_e9 - exit_e9 >= -EPSILON_E9),
    )


def position_after(image: Image | None, before: TradeState, after: TradeState) -> Changes:
    """The columns of ``positions`` to set; of a new row all of them, and none where there is none to make."""
    if not after.understood:
        return {}
    opened = from_e9(after.open_e9)
    if image is None:
        if after.open_e9 == 0:
            return {}
        return {
            "user_id": after.user_id or None,
            "symbol": after.symbol,
            "side": after.entry_side,
            "qty": _signed(opened, negative=after.entry_side == SELL),
            "avg_entry_price": _optional(after.entry_price),
            "status": OPEN,
            "opened_at": _time(after.first_entry_ms),
            "closed_at": None,
        }
    held = parse_decimal(image.get("qty"))
    negative = held < 0 if held else after.entry_side == SELL
    wanted: Changes = {"qty": _signed(opened, negative=negative)}
    if _entries_changed(before, after) and after.entry_price is not None:
        wanted["avg_entry_price"] = _optional(after.entry_price)
    return _changed(image, wanted | _life(image, after))


def as_booked(position: Image | None, before: TradeState) -> TradeState:
    """The trade before a correction with as much open as its position says: what a reservation was made for.

    A bot that lost an order's row and booked its position has freed the capital already; freeing the share that the rows
    tell would free it twice.
    """
    held = None if position is None else parse_decimal(position.get("qty"))
    if held is None or not before.understood or not 0 <= to_e9(abs(held)) <= before.entry_e9:
        return before
    return replace(before, exit_e9=before.entry_e9 - to_e9(abs(held)))


def trade_history_after(image: Image | None, before: TradeState, after: TradeState) -> Changes:
    """The columns of ``trade_history`` to set; of a new row all of them, and none where nothing was entered."""
    if not after.understood:
        return {}
    if image is None:
        if after.entry_e9 == 0:
            return {}
        return {
            "user_id": after.user_id or None,
            "symbol": after.symbol,
            "side": after.entry_side,
            "entry_qty": decimal_text(from_e9(after.entry_e9)),
            "exit_qty": decimal_text(from_e9(after.exit_e9)),
            "entry_price": _optional(after.entry_price),
            "exit_price": _optional(_exit_price(after)),
            "realized_pnl_usd": _optional(after.profit(after.entry_price)) if after.exit_e9 else None,
            "status": CLOSED if after.over else OPEN,
            "opened_at": _time(after.first_entry_ms),
            "closed_at": _time(after.last_exit_ms) if after.over else None,
        }
    wanted: Changes = {}
    price = parse_decimal(image.get("entry_price"))
    priced = price
    if not same_value(_or_zero(image.get("entry_qty")), decimal_text(from_e9(after.entry_e9))):
        priced = after.entry_price if after.entry_e9 else price
        wanted |= {"entry_qty": decimal_text(from_e9(after.entry_e9)), "entry_price": _optional(priced)}
    wanted |= _exits(
        image, before, after, price or before.entry_price or after.entry_price, priced or after.entry_price
    )
    if after.entry_e9 or before.entry_e9:
        wanted |= _life(image, after)
    return _changed(image, wanted)


def capital_after(image: Image | None, before: TradeState, after: TradeState) -> Changes:
    """The columns of ``capital_ledger`` to set; of a new row all of them, and none where nothing is reserved."""
    if not after.understood or after.entry_live:
        return {}
    value = None
    if after.entry_price is not None:
        with localcontext(prec=_DIGITS):
            value = _rounded(from_e9(after.open_e9) * after.entry_price)
    if image is None:
        return {"user_id": after.user_id or None, "reserved_usd": decimal_text(value)} if value else {}
    reserved = parse_decimal(image.get("reserved_usd"))
    if reserved is None:
        return {}
    if after.open_e9 == 0:
        return _changed(image, {"reserved_usd": "0"})
    if before.understood and not _entries_changed(before, after) and before.open_e9 and not before.entry_live:
        if before.open_e9 == after.open_e9:
            return {}
        with localcontext(prec=_DIGITS):
            value = _rounded(reserved * after.open_e9 / before.open_e9)
    return {} if value is None else _changed(image, {"reserved_usd": decimal_text(value)})


def _exits(
    image: Image, before: TradeState, after: TradeState, price_before: Decimal | None, price_after: Decimal | None
) -> Changes:
    """Exit quantity, price and profit, by difference to what is recorded."""
    booked = parse_decimal(image.get("exit_qty")) or Decimal(0)
    target = from_e9(after.exit_e9)
    if booked == target and not _priced_as(image, before, after) and (target == 0 or price_before == price_after):
        return {}
    changes: Changes = {}
    if booked != target or _priced_as(image, before, after):
        changes = {"exit_qty": decimal_text(target), "exit_price": _optional(_exit_price(after))}
    recorded = parse_decimal(image.get("realized_pnl_usd"))
    if recorded is None:
        # Nothing is recorded that could be kept: the rows tell all of it, or it stays unknown.
        return changes | {"realized_pnl_usd": _optional(after.profit(price_after)) if target else None}
    more = _more_value(image, booked, before, after)
    if more is None or price_before is None or price_after is None:
        return changes | {"realized_pnl_usd": None}
    with localcontext(prec=_DIGITS):
        gain = after.signed(more - price_after * target + price_before * booked)
        return changes | {"realized_pnl_usd": decimal_text(recorded + gain)}


def _priced_as(image: Image, before: TradeState, after: TradeState) -> bool:
    """Whether the record is that of the rows before, which had another price: a row took the place of one of its size."""
    was = _exit_price(before)
    if was is None or before.exit_e9 != after.exit_e9 or was == _exit_price(after):
        return False
    return same_value(image.get("exit_price"), decimal_text(was))


def _more_value(image: Image, booked: Decimal, before: TradeState, after: TradeState) -> Decimal | None:
    """How much more the exits are worth than the recorded ones; None where that can't be told."""
    if booked == from_e9(after.exit_e9) and not _priced_as(image, before, after):
        return Decimal(0)
    with localcontext(prec=_DIGITS):
        if booked == from_e9(before.exit_e9):
            return after.exit_value - before.exit_value if after.unpriced_e9 == before.unpriced_e9 else None
        price = parse_decimal(image.get("exit_price"))
        if after.unpriced_e9 or (booked and price is None):
            return None
        return after.exit_value - (booked * price if price is not None else Decimal(0))


def _life(image: Image, after: TradeState) -> Changes:
    """Status and time of closing: closed where the trade is over, open again where it is not."""
    closed = normalise_status(image.get("status")) == CLOSED
    if after.over and not closed:
        known = image.get("closed_at")
        return {"status": CLOSED, "closed_at": str(known) if known else _time(after.last_exit_ms)}
    if closed and not after.over and after.open_e9:
        return {"status": OPEN, "closed_at": None}
    return {}


def _entries_changed(before: TradeState, after: TradeState) -> bool:
    return (before.entry_e9, before.entry_price) != (after.entry_e9, after.entry_price)


def _value(parts: list[tuple[int, Decimal | None]]) -> Decimal:
    """The sum of price x quantity of what has a price."""
    with localcontext(prec=_DIGITS):
        return sum((from_e9(units) * price for units, price in parts if price is not None), Decimal(0))


def _average(parts: list[tuple[int, Decimal | None]]) -> Decimal | None:
    """The volume-weighted price; one price is copied, None where one is not known."""
    prices = {price for _, price in parts}
    if not parts or None in prices:
        return None
    if len(prices) == 1:
        return prices.pop()
    units = sum(units for units, _ in parts)
    with localcontext(prec=_DIGITS):
        return _rounded(_value(parts) / from_e9(units)) if units else None


def _exit_price(state: TradeState) -> Decimal | None:
    if state.unpriced_e9 or state.exit_e9 == 0:
        return None
    with localcontext(prec=_DIGITS):
        return _rounded(state.exit_value / from_e9(state.exit_e9))


def _changed(image: Image, wanted: Changes) -> Changes:
    """What really differs: numbers compare by value."""
    return {name: value for name, value in wanted.items() if not same_value(image.get(name), value)}


def _or_zero(value: object) -> object:
    return "0" if value is None else value


def _signed(value: Decimal, *, negative: bool) -> str:
    return decimal_text(-value if negative else value)


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(_PLACES)


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else decimal_text(value)


def _time(ms: int) -> str | None:
    return None if ms == NO_TIME else iso_ms(ms)
