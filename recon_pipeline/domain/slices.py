"""Slices: every trade of the ledger with its entry, exit and open quantity, and why it can't be decided where it can't.

The entry side comes from an explicit action, never from whichever row happens to be first: a lost entry row must not turn
an exit into a short. What does not belong here: exchange evidence and pending orders.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.frames import NO_TIME, SLICES, frame_of
from recon_pipeline.domain.ordering import sorted_positions
from recon_pipeline.domain.quantities import EPSILON_E9, EXACT
from recon_pipeline.domain.terms import BUY, ENTRY, EXIT, FILLED_STATUSES, SELL, RowDefect

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Quantities = NDArray[Any]
"""int64, or Python ints where totals do not fit"""

_DEFECTS: Final[tuple[RowDefect, ...]] = (
    RowDefect.CONFLICTING_ROWS,
    RowDefect.CONFLICTING_QUANTITIES,
    RowDefect.QUANTITY,
    RowDefect.SIDE,
    RowDefect.CONFLICTING_ENTRY_SIDES,
    RowDefect.EXIT_ON_ENTRY_SIDE,
    RowDefect.UNKNOWN_ENTRY_SIDE,
    RowDefect.SYMBOL,
    RowDefect.CONFLICTING_SYMBOLS,
    RowDefect.TIME,
)
"""Of several defects of a trade the first of these is its reason."""
_NONE: Final = len(_DEFECTS)
_RANK: Final = {defect.value: rank for rank, defect in enumerate(_DEFECTS)} | {"": _NONE}
_DEFECT_TEXTS: Final = np.array([*(defect.value for defect in _DEFECTS), ""], dtype=object)
_SIDES: Final = np.array(["", BUY, SELL], dtype=object)
"""Entry sides by code: 0 unknown, 1 long, -1 short."""
_VWAP_PLACES: Final = Decimal("1e-9")


def deduplicate_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Ledger rows with exact duplicates dropped; rows that share an order id and differ get ``conflicting_rows``.

    A row without an order id is a duplicate where every column is the same.
    """
    if len(rows) < 2:
        return rows
    repeated = rows.duplicated(["profile_id", "order_id"], keep=False).to_numpy(dtype=bool)
    if not repeated.any():
        return rows
    suspects = rows[repeated].drop_duplicates()
    kept = pd.concat([rows[~repeated], suspects])
    still = kept.duplicated(["profile_id", "order_id"], keep=False).to_numpy(dtype=bool)
    conflicting = still & (kept["order_id"] != "").to_numpy(dtype=bool)
    if conflicting.any():
        kept = kept.copy()
        kept.loc[conflicting, "defect"] = RowDefect.CONFLICTING_ROWS.value
    return kept.reset_index(drop=True)


def build_slices(rows: pd.DataFrame, *, crypto_tokens: frozenset[str]) -> pd.DataFrame:
    """All trades with filled rows, as a SLICES frame without account and scope (``account_id`` empty, ``managed`` True).

    :param rows: deduplicated LIFECYCLE_ROWS of any status
    :param crypto_tokens: symbol tokens that the exchange calls crypto
    """
    filled = rows["status"].isin(list(FILLED_STATUSES)).to_numpy(dtype=bool)
    filled = filled & (rows["trade_id"] != "").to_numpy(dtype=bool)
    if not filled.any():
        return SLICES.empty()
    table = {name: rows[name].to_numpy()[filled] for name in rows.columns}

    trade_code, trades = pd.factorize(table["trade_id"])
    profile_code, _ = pd.factorize(table["profile_id"])
    code, _ = pd.factorize(profile_code.astype(np.int64) * len(trades) + trade_code)
    symbol_rank, _ = pd.factorize(table["symbol"], sort=True)
    user_rank, _ = pd.factorize(table["user_id"], sort=True)
    time: Ints = table["time_ms"].astype(np.int64)
    # Ties of time are broken by content, so that the order of the input decides nothing.
    order = np.lexsort((user_rank, symbol_rank, time, code))
    table = {name: values[order] for name, values in table.items()}
    time, code = time[order], code[order]
    starts = np.flatnonzero(np.r_[True, code[1:] != code[:-1]])
    group = np.cumsum(np.r_[True, code[1:] != code[:-1]]) - 1

    quantity: Quantities = table["qty_e9"]
    buy, sell = table["side"] == BUY, table["side"] == SELL
    says_entry, says_exit = table["action"] == ENTRY, table["action"] == EXIT
    rank: Ints = np.array([_RANK.get(defect, 0) for defect in table["defect"]], dtype=np.int64)

    def any_of(mask: Bools) -> Bools:
        return np.logical_or.reduceat(mask, starts)

    entry_buy, entry_sell = any_of(says_entry & buy), any_of(says_entry & sell)
    exit_buy, exit_sell = any_of(says_exit & buy), any_of(says_exit & sell)
    conflicting = (entry_buy & entry_sell) | (~entry_buy & ~entry_sell & exit_buy & exit_sell)
    is_long = entry_buy | (~entry_sell & exit_sell)
    is_short = ~is_long & (entry_sell | exit_buy)
    side = np.where(is_long, 1, np.where(is_short, -1, 0))
    row_side = np.where(buy, 1, np.where(sell, -1, 0))
    on_entry_side = (row_side == side[group]) & (row_side != 0)
    inferred = ~says_entry & ~says_exit
    is_entry = says_entry | (inferred & on_entry_side)
    is_exit = says_exit | (inferred & ~on_entry_side & (row_side != 0) & (side[group] != 0))

    zero = quantity * 0
    entries = np.add.reduceat(np.where(is_entry, quantity, zero), starts)
    exits = np.add.reduceat(np.where(is_exit, quantity, zero), starts)
    net = np.add.reduceat(quantity * row_side, starts)
    unknown_side = (side == 0) & (net != 0)
    entries = np.where(unknown_side, abs(net), entries)
    opened = entries - exits

    # A side that is missing hurts only where the action is missing too.
    hurts = (rank < _RANK[RowDefect.SIDE.value]) | ((rank == _RANK[RowDefect.SIDE.value]) & inferred)
    quantity_defect = any_of(hurts)
    wrong_exit = any_of(says_exit & on_entry_side)
    token: NDArray[Any] = np.array(_first_text(table["symbol_token"], starts), dtype=object)
    several = any_of((table["symbol_token"] != token[group]) & (table["symbol_token"] != ""))

    worst = np.minimum.reduceat(rank, starts)
    for condition, defect in (
        (conflicting, RowDefect.CONFLICTING_ENTRY_SIDES),
        (wrong_exit, RowDefect.EXIT_ON_ENTRY_SIDE),
        (unknown_side, RowDefect.UNKNOWN_ENTRY_SIDE),
        (several, RowDefect.CONFLICTING_SYMBOLS),
    ):
        worst = np.where(condition, np.minimum(worst, _RANK[defect.value]), worst)
    undecidable = quantity_defect | conflicting | wrong_exit | unknown_side
    # A trade whose quantities are certain and closed needs no time and no symbol.
    worst = np.where((opened > EPSILON_E9) | undecidable, worst, _NONE)

    far = np.iinfo(np.int64).max
    entry_time = np.where(is_entry & (time != NO_TIME), time, far)
    first_entry = np.minimum.reduceat(entry_time, starts)
    first_entry = np.where(first_entry == far, NO_TIME, first_entry)
    first = np.minimum.reduceat(np.where(time == NO_TIME, far, time), starts)
    first = np.where(first == far, NO_TIME, first)
    newest = np.maximum.reduceat(time, starts)

    interesting = (abs(opened) > EPSILON_E9) | (worst < _NONE)
    slash = any_of(np.array(["/" in symbol for symbol in table["symbol"]], dtype=bool))
    return frame_of(
        SLICES,
        {
            "profile_id": table["profile_id"][starts],
            "user_id": _first_text(table["user_id"], starts),
            "account_id": [""] * len(starts),
            "trade_id": table["trade_id"][starts],
            "symbol": _first_text(table["symbol"], starts),
            "symbol_token": token,
            "entry_side": _SIDES[side],
            "entry_e9": entries,
            "exit_e9": exits,
            "open_e9": opened,
            "entry_price": _entry_prices(table["price"], quantity, is_entry, starts, interesting),
            "highest_exit_price": _highest_prices(table["price"], is_exit, starts, interesting),
            "first_entry_ms": first_entry.astype(np.int64),
            "newest_ms": newest.astype(np.int64),
            "first_ms": first.astype(np.int64),
            "action_inferred": any_of(inferred),
            "crypto": slash | np.isin(token.astype(str), list(crypto_tokens)),
            "managed": np.ones(len(starts), dtype=bool),
            "defect": _DEFECT_TEXTS[worst],
        },
    )


def in_display_order(frame: pd.DataFrame) -> pd.DataFrame:
    """SLICES by the first time of their symbol, then of the trade, then by ids, whatever the order of the rows."""
    token_code, tokens = pd.factorize(frame["symbol_token"].to_numpy())
    first = frame["first_ms"].to_numpy()
    symbol_first = np.full(len(tokens), np.iinfo(np.int64).max)
    np.minimum.at(symbol_first, token_code, first)
    token_rank = np.empty(len(tokens), dtype=np.int64)
    token_rank[sorted_positions([symbol_first], [tokens])] = np.arange(len(tokens))
    texts = [frame["trade_id"].to_numpy(), frame["profile_id"].to_numpy()]
    return frame.iloc[sorted_positions([token_rank[token_code], first], texts)].reset_index(drop=True)


def _first_text(values: NDArray[Any], starts: Ints) -> list[str]:
    """The first non-empty text of each group."""
    out: list[str] = list(values[starts])
    ends = np.r_[starts[1:], len(values)]
    for index in np.flatnonzero((values[starts] == "") & (ends - starts > 1)):
        out[index] = next((text for text in values[starts[index] : ends[index]] if text), "")
    return out


def _entry_prices(
    prices: NDArray[Any], quantity: Quantities, is_entry: Bools, starts: Ints, wanted: Bools
) -> list[Any]:
    """The volume-weighted price of each wanted group's entries; None where an entry has no price.

    One entry's price is copied; an average is rounded to nine decimals.
    """
    out: list[Decimal | None] = [None] * len(starts)
    entry_rows = np.flatnonzero(is_entry)
    begin: Ints = np.asarray(np.searchsorted(entry_rows, starts), dtype=np.int64)
    end: Ints = np.asarray(np.searchsorted(entry_rows, np.r_[starts[1:], len(prices)]), dtype=np.int64)
    count = end - begin
    for index in np.flatnonzero(wanted & (count > 0)).tolist():
        at = entry_rows[int(begin[index]) : int(end[index])]
        stated: list[Decimal] = [price for price in prices[at].tolist() if price is not None]
        if len(stated) < len(at):
            continue
        if len(set(stated)) == 1:
            out[index] = stated[0]
            continue
        units: list[int] = quantity[at].tolist()
        if any(units):
            with localcontext(EXACT):
                paid = sum((price * unit for price, unit in zip(stated, units, strict=True)), Decimal(0))
                out[index] = (paid / sum(units)).quantize(_VWAP_PLACES)
    return out


def _highest_prices(prices: NDArray[Any], of: Bools, starts: Ints, wanted: Bools) -> list[Any]:
    """The highest price among the rows ``of`` each wanted group; None where none has a price."""
    out: list[Decimal | None] = [None] * len(starts)
    group = np.cumsum(np.bincount(starts, minlength=len(prices))) - 1
    for row in np.flatnonzero(of & wanted[group]).tolist():
        price, known = prices[row], out[group[row]]
        if price is not None and (known is None or price > known):
            out[group[row]] = price
    return out
