"""Positions, trade history and reserved capital: what an apply books there.

Row images are read under lock, changed by ``domain.bookkeeping``, written by compare-and-set, and both images are kept in
``recon.corrections``. What does not belong here: the arithmetic (``domain.bookkeeping``) and orders (``applying``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import pandas as pd
from psycopg.types.json import Jsonb

from recon_pipeline.apply.records import tuples
from recon_pipeline.domain.bookkeeping import (
    Changes,
    ExitFill,
    Image,
    TradeExit,
    capital_after,
    position_after,
    trade_history_after,
)
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.quantities import from_e9
from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement

CorrectionRow = dict[str, Any]


class RowChangedError(RuntimeError):
    """A row changed although it was locked: a trigger or a rule of the database rewrites it."""


@dataclass(frozen=True)
class Book:
    """One table: how its rows are locked, set and computed."""

    table: str
    lock: str
    write: str
    after: Callable[[Image, TradeExit], Changes]
    columns: tuple[str, ...]
    """columns that the write sets"""


BOOKS: Final = (
    Book(
        "positions",
        "lock_position_images",
        "set_positions",
        position_after,
        ("qty", "avg_entry_price", "status", "closed_at"),
    ),
    Book(
        "trade_history",
        "lock_trade_history_images",
        "set_trade_history",
        trade_history_after,
        ("entry_qty", "entry_price", "exit_qty", "exit_price", "realized_pnl_usd", "status", "closed_at"),
    ),
    Book("capital_ledger", "lock_capital_images", "set_capital", capital_after, ("reserved_usd",)),
)
BOOK_OF: Final = {book.table: book for book in BOOKS}


@dataclass(frozen=True)
class RowImage:
    """A row as the database spells it, and as values."""

    text: str
    values: dict[str, Any]

    @classmethod
    def of(cls, text: str) -> RowImage:
        """Read the text of a row image; numbers are exact."""
        return cls(text, json.loads(text, parse_float=Decimal))


def lock_images(connection: Connection, book: Book, profile_id: str, trade_ids: Iterable[str]) -> dict[str, RowImage]:
    """The rows of the trades, by trade, locked to the end of the transaction."""
    rows = connection.execute(
        statement(book.lock), {"profile_id": profile_id, "trade_ids": sorted(trade_ids)}
    ).fetchall()
    return {row["trade_id"]: RowImage.of(row["image"]) for row in rows}


def write_rows(
    connection: Connection,
    book: Book,
    profile_id: str,
    rows: Mapping[str, tuple[RowImage, Mapping[str, Any]]],
) -> dict[str, str]:
    """Set the changed columns of each trade's row where it is still as its image says; the images after, as text.

    :raises RowChangedError: a row is not as its image says
    """
    records = []
    for trade_id in sorted(rows):
        image, changes = rows[trade_id]
        kept = {name: image.values.get(name) for name in book.columns}
        values = {"profile_id": profile_id, "trade_id": trade_id, **kept, **changes}
        records.append({"before": image.text, "values": values})
    after: dict[str, str] = {}
    for chunk in json_rows(records):
        written = connection.execute(statement(book.write), {"records": chunk}).fetchall()
        after |= {row["trade_id"]: row["image"] for row in written}
    if missing := set(rows) - set(after):
        raise RowChangedError(f"{book.table}: rows of trades {', '.join(sorted(missing))} are not as they were read")
    return after


def update_books(
    connection: Connection, plan: ProfilePlan, slices: pd.DataFrame, written: frozenset[str]
) -> list[CorrectionRow]:
    """Book the rows ``written`` of the plan; the corrections say what changed, with both images.

    :param slices: the trades as the ledger reads without the plan's rows
    """
    exits = _trade_exits(plan, slices, written)
    ids: dict[str, list[str]] = {}
    for row in tuples(plan.proposals.sort_values("order_id")):
        if row.order_id in written:
            ids.setdefault(row.trade_id, []).append(row.order_id)
    corrections: list[CorrectionRow] = []
    for book in BOOKS:
        images = lock_images(connection, book, plan.profile_id, exits)
        changed = {
            trade_id: (image, changes)
            for trade_id, image in images.items()
            if (changes := book.after(image.values, exits[trade_id]))
        }
        after = write_rows(connection, book, plan.profile_id, changed)
        corrections += [
            {
                "batch_id": plan.batch_id,
                "profile_id": plan.profile_id,
                "table_name": book.table,
                "row_key": {"profile_id": plan.profile_id, "trade_id": trade_id},
                "before": changed[trade_id][0].text,
                "after": after[trade_id],
                "cause": {
                    "kind": "exit_backfill",
                    "trade_id": trade_id,
                    "backfill_order_ids": ids[trade_id],
                },
            }
            for trade_id in sorted(changed)
        ]
    return corrections


def insert_corrections(connection: Connection, corrections: Sequence[CorrectionRow]) -> None:
    """Record row images in ``recon.corrections``, in their order."""
    for chunk in json_rows(corrections):
        connection.execute(statement("insert_corrections"), {"records": chunk})


def as_parameter(records: Sequence[Mapping[str, Any]]) -> Jsonb:
    """Records for one statement that must not be split."""
    return Jsonb([dict(record) for record in records])


def _trade_exits(plan: ProfilePlan, slices: pd.DataFrame, written: frozenset[str]) -> dict[str, TradeExit]:
    """Per trade with a written row what it closes; rows that were there before count as closed before."""
    seen = {row.trade_id: row for row in tuples(slices)}
    fills: dict[str, list[ExitFill]] = {}
    earlier: dict[str, int] = {}
    for row in tuples(plan.proposals):
        if row.order_id in written:
            fill = ExitFill(from_e9(row.qty_e9), row.price, int(row.filled_at_ms))
            fills.setdefault(row.trade_id, []).append(fill)
        else:
            earlier[row.trade_id] = earlier.get(row.trade_id, 0) + int(row.qty_e9)
    exits: dict[str, TradeExit] = {}
    for trade_id in sorted(fills):
        trade, before = seen[trade_id], earlier.get(trade_id, 0)
        exits[trade_id] = TradeExit(
            entry_side=trade.entry_side,
            entry_price=trade.entry_price,
            exit_before=from_e9(int(trade.exit_e9) + before),
            open_before=from_e9(int(trade.open_e9) - before),
            fills=tuple(fills[trade_id]),
        )
    return exits
