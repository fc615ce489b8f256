"""The columns of every frame that crosses a border of the domain: names, types, units, meaning.

What belongs here: schemas and empty frames. What does not: parsing (``readings``) and decisions.

Conventions. ``*_e9`` columns hold quantities as integers in units of 1e-9 (int64 where the totals fit, Python ints
otherwise). Prices are ``Decimal`` or None. ``*_ms`` columns hold instants as int64 milliseconds since 1970 UTC, cut, never
rounded, and ``NO_TIME`` where there is none. Text is ``str``, empty where there is none.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NO_TIME: Final[int] = int(np.iinfo(np.int64).min)
"""An instant that is not known. Never a default for one: rows that carry it carry a ``defect`` too."""


@dataclass(frozen=True)
class Column:
    """One column: its name, its type as a reader would say it, its unit and its meaning."""

    name: str
    type: str
    description: str
    unit: str = ""


@dataclass(frozen=True)
class Schema:
    """The columns of one frame, in their order."""

    name: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> list[str]:
        """The column names in their order."""
        return [column.name for column in self.columns]

    def empty(self) -> pd.DataFrame:
        """A frame with these columns and no rows, typed like a full one."""
        return _empty(self).copy(deep=False)


@cache
def _empty(schema: Schema) -> pd.DataFrame:
    frame = pd.DataFrame({c.name: pd.Series([], dtype=_DTYPES[c.type]) for c in schema.columns})
    frame.columns = _names(schema)
    return frame


def frame_of(schema: Schema, columns: Mapping[str, Sequence[Any] | NDArray[Any] | pd.Series]) -> pd.DataFrame:
    """The columns, all of one length, as a frame of ``schema``: text and prices as objects, numbers as they are.

    :raises ValueError: the columns differ in length
    """
    count = len(columns[schema.columns[0].name])
    arrays = []
    for column in schema.columns:
        values = columns[column.name]
        if isinstance(values, pd.Series):
            values = values.to_numpy()
        if column.type in _NUMERIC:
            values = np.asarray(values)
        elif not (isinstance(values, np.ndarray) and values.dtype == object):
            values = np.fromiter(values, dtype=object, count=len(values))
        if len(values) != count:
            raise ValueError(f"column {column.name} of {schema.name} has {len(values)} values, the first has {count}")
        arrays.append(values)
    frame = _together(arrays) if count <= _FEW_ROWS else _side_by_side(arrays, count)
    # Names as Python text: a look-up of a column is a third faster than in pandas' Arrow text, and there are thousands.
    frame.columns = _names(schema)
    return frame


def _together(arrays: Sequence[NDArray[Any]]) -> pd.DataFrame:
    """A small frame whose columns of one type lie in one block: most of what a small frame costs is paid by the block."""
    places: dict[np.dtype[Any], list[int]] = {}
    for place, array in enumerate(arrays):
        places.setdefault(array.dtype, []).append(place)
    blocks = []
    for dtype, at in places.items():
        block = np.empty((len(at), len(arrays[0])), dtype=dtype)
        for row, place in enumerate(at):
            block[row] = arrays[place]
        blocks.append(pd.DataFrame(block.T, dtype=dtype, copy=False))
    if len(blocks) == 1:
        return blocks[0]
    order = np.argsort([place for at in places.values() for place in at])
    return pd.concat(blocks, axis=1, ignore_index=True).take(order, axis=1)


def _side_by_side(arrays: Sequence[NDArray[Any]], count: int) -> pd.DataFrame:
    """A large frame without a copy. Every column is given pandas with its type and index, which spares it the inference."""
    index = pd.RangeIndex(count)
    data = {at: pd.Series(array, index=index, dtype=array.dtype, copy=False) for at, array in enumerate(arrays)}
    return pd.DataFrame(data, index=index, copy=False)


@cache
def _names(schema: Schema) -> pd.Index[str]:
    return pd.Index(schema.names, dtype=object)


@cache
def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names)  # noqa: PYI024  the fields are only known at run time


def rows_of(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows of a frame as named tuples of its columns, for the loops that end in text or JSON."""
    if not len(frame):
        return iter(())
    make = _row_type(tuple(frame.columns))._make
    if len(frame) <= _FEW_ROWS:
        # One step for all columns instead of a look-up for each, which is most of what a small frame costs.
        return map(make, frame.to_numpy(dtype=object).tolist())
    return map(make, zip(*(frame[name].to_numpy() for name in frame.columns), strict=True))


_NUMERIC: Final = frozenset({"quantity", "instant", "bool", "count"})
_DTYPES: Final[dict[str, str]] = {
    "text": "object",
    "quantity": "int64",
    "price": "object",
    "instant": "int64",
    "bool": "bool",
    "count": "int64",
    "list": "object",
    "money": "object",
}


_FEW_ROWS: Final = 2_000
"""Up to here a frame is cheap to copy whole."""


def _text(name: str, description: str) -> Column:
    return Column(name, "text", description)


def _quantity(name: str, description: str) -> Column:
    return Column(name, "quantity", description, "1e-9 units of the asset")


def _instant(name: str, description: str) -> Column:
    return Column(name, "instant", description, "ms since 1970, UTC")


def _price(name: str, description: str) -> Column:
    return Column(name, "price", description, "quote currency per unit")


def _count(name: str, description: str) -> Column:
    return Column(name, "count", description, "rows")


def _money(name: str, description: str) -> Column:
    return Column(name, "money", description, "USD")


def _flag(name: str, description: str) -> Column:
    return Column(name, "bool", description)


PROFILES = Schema(
    "profiles",
    (
        _text("profile_id", "one bot and strategy"),
        _text("user_id", "owner of the profile; used where a trade's rows name none"),
        _text("account_id", "exchange account that the profile trades on"),
        _flag("selected", "decisions are wanted for it; the others on its account are context"),
        _flag("paused", "trading is paused for all or for this profile"),
        _flag("audit_available", "the audit table can be written"),
        _text("evidence_defect", "why the account's reading is incomplete; empty when it is complete"),
        Column("managed_symbols", "list", "symbols in scope as a tuple; None means all"),
        _text("batch_id", "RECON-BFILL-<uuid> of this plan"),
    ),
)

LIFECYCLE_ROWS = Schema(
    "lifecycle_rows",
    (
        _text("profile_id", "profile that wrote the row"),
        _text("user_id", "owner"),
        _text("order_id", "id of the order as the ledger knows it: the exchange's, the client's, or BFILL-..."),
        _text("client_order_id", "client order id, where the ledger keeps it"),
        _text("trade_id", "trade that the order belongs to"),
        _text("symbol", "as the ledger spells it"),
        _text("symbol_token", "upper case letters and digits of the symbol; what is compared"),
        _text("side", "BUY or SELL"),
        _text("action", "ENTRY or EXIT where the row says so"),
        _text("status", "normalised order status"),
        _quantity("qty_e9", "executed quantity"),
        _price("price", "price of the execution"),
        _instant("time_ms", "timestamp, else created_at"),
        _instant("filled_at_ms", "time of the execution where the row has one"),
        _text("sub_tag", "attribution tag"),
        _text("defect", "why the row can't be used; empty when it can"),
    ),
)

EXCHANGE_ORDERS = Schema(
    "exchange_orders",
    (
        _text("account_id", "account that placed the order"),
        _text("order_id", "the exchange's order id"),
        _text("client_order_id", "the client's order id"),
        _text("replaces", "id of the order that this one replaced"),
        _text("trade_id", "trade named by the order itself"),
        _text("sub_tag", "attribution tag"),
        _text("symbol", "as the exchange spells it"),
        _text("symbol_token", "upper case letters and digits of the symbol; what is compared"),
        _flag("crypto", "the symbol has a slash or the order's asset class is crypto"),
        _text("side", "BUY or SELL"),
        _text("status", "normalised order status; never decides whether an execution counts"),
        _quantity("executed_e9", "executed quantity"),
        _price("price", "average execution price"),
        _instant("executed_at_ms", "time of the (last) execution"),
        _text("defect", "why the order is no evidence; empty when it is"),
    ),
)

POSITIONS = Schema(
    "positions",
    (
        _text("account_id", "account that holds the position"),
        _text("symbol", "as the exchange spells it"),
        _text("symbol_token", "upper case letters and digits of the symbol; what is compared"),
        _quantity("qty_e9", "signed quantity held, short negative"),
        _flag("known", "the quantity could be read"),
    ),
)

SLICES = Schema(
    "open_trade_slices",
    (
        _text("profile_id", "profile of the trade"),
        _text("user_id", "owner"),
        _text("account_id", "account of the profile"),
        _text("trade_id", "the trade"),
        _text("symbol", "as the trade's first row spells it"),
        _text("symbol_token", "what is compared"),
        _text("entry_side", "side of the entries"),
        _quantity("entry_e9", "sum of the entries"),
        _quantity("exit_e9", "sum of the exits"),
        _quantity("open_e9", "entries minus exits"),
        _price("entry_price", "volume-weighted average price of the entries; None if an entry has no price"),
        _price("highest_exit_price", "highest price of a recorded exit; None where none has a price"),
        _instant("first_entry_ms", "time of the first entry"),
        _instant("newest_ms", "time of the newest row"),
        _instant("first_ms", "time of the first row"),
        _flag("action_inferred", "an action was inferred from the side"),
        _flag("crypto", "the symbol is a crypto pair"),
        _flag("managed", "the symbol is in scope"),
        _text("defect", "why the trade can't be decided; empty when it can"),
    ),
)

PROPOSALS = Schema(
    "proposed_backfill_rows",
    (
        _text("profile_id", "profile of the trade"),
        _text("user_id", "owner"),
        _text("account_id", "account of the profile"),
        _text("trade_id", "the trade that is closed"),
        _text("symbol", "as the ledger spells it"),
        _text("symbol_token", "what is compared"),
        _text("side", "BUY or SELL, opposite to the entry"),
        _text("order_id", "BFILL-<md5>"),
        _quantity("qty_e9", "quantity of the row"),
        _price("price", "average execution price of the cited order"),
        _instant("filled_at_ms", "execution time of the cited order"),
        _text("exchange_order_id", "the cited order, or DUST-REMAINDER-<trade>"),
        _text("exchange_client_order_id", "client id of the cited order"),
        _text("sub_tag", "tag of the cited order"),
        _text("matched_by", "attribution method, or dust"),
        _flag("reapply", "a rollback canceled this row and the operator asked for it again"),
    ),
)

DECISIONS = Schema(
    "decisions",
    (
        _text("profile_id", "profile of the trade"),
        _text("trade_id", "the trade"),
        _text("symbol", "as the ledger spells it"),
        _text("decision", "NO_GO or SKIP_*"),
        _text("reason", "why"),
        _quantity("qty_e9", "open quantity that the decision leaves open"),
        _money("notional_usd", "that quantity at the last known price; None where no price is known"),
        _text("exchange_order_id", "the order the decision is about, where there is one"),
        _text("exchange_client_order_id", "its client id"),
        _text("backfill_order_id", "the backfill row the decision is about, where there is one"),
        _price("price", "price of that backfill row"),
        _instant("filled_at_ms", "time of that backfill row"),
        Column("metadata", "list", "numbers behind the decision, by name"),
    ),
)

TRADES = Schema(
    "trades",
    (
        _text("profile_id", "profile of the trade"),
        _text("trade_id", "the trade"),
        _text("symbol", "as the ledger spells it"),
        _quantity("open_e9", "entries minus exits"),
        _quantity("allocated_e9", "closed by proposals that cite executions"),
        _quantity("dust_e9", "closed by a dust proposal"),
        _quantity("remaining_e9", "left open by this plan"),
        _money("notional_usd", "the remaining quantity at the last known price; None where no price is known"),
        _text("outcome", "covered, proposed, skipped or no_go"),
        _text("reason", "why something remains; empty where nothing does"),
    ),
)

CONSUMPTION = Schema(
    "consumption",
    (
        _text("account_id", "account of the exchange order"),
        _text("backfill_order_id", "backfill row of a batch that was not reverted"),
        _text("exchange_order_id", "exchange order whose executed quantity it represents"),
        _quantity("qty_e9", "quantity consumed"),
    ),
)

EVIDENCE = Schema(
    "evidence",
    (
        _text("account_id", "account of the order"),
        _text("order_id", "the exchange's order id"),
        _text("client_order_id", "the client's order id"),
        _text("symbol", "as the exchange spells it"),
        _text("side", "BUY or SELL"),
        _text("profile_id", "profile that the order is attributed to"),
        _text("trade_id", "trade that the order is attributed to"),
        _text("matched_by", "attribution method"),
        _quantity("executed_e9", "executed quantity"),
        _quantity("represented_e9", "what the ledger already represents, at most the executed quantity"),
        _quantity("allocated_e9", "what this plan takes"),
        _quantity("excess_e9", "executed but taken by nobody"),
        _price("price", "average execution price"),
        _instant("executed_at_ms", "time of the (last) execution"),
        _text("reason", "why nothing was allocated; empty where something was"),
    ),
)
