"""The books of corrected trades: rows locked, brought to what the ledger says, written by compare-and-set or inserted.

What does not belong here: the arithmetic (``domain.trade_books``) and orders (``corrections``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from recon_pipeline.apply.books import BOOK_OF, CorrectionRow, RowImage, as_parameter, lock_images, write_rows
from recon_pipeline.domain.bookkeeping import Changes, Image
from recon_pipeline.domain.corrections import CorrectionPlan, OrderChange
from recon_pipeline.domain.trade_books import TradeState, as_booked, capital_after, position_after, trade_history_after
from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.statements import statement


class WrittenMeanwhileError(RuntimeError):
    """Somebody inserted a row of the same key between the look and the insert: look again."""


@dataclass(frozen=True)
class TradeBook:
    """One table: how a trade's row is computed, and inserted where there is none."""

    table: str
    insert: str
    after: Callable[[Image | None, TradeState, TradeState], Changes]


TRADE_BOOKS: Final = (
    TradeBook("positions", "insert_positions", position_after),
    TradeBook("trade_history", "insert_trade_history", trade_history_after),
    TradeBook("capital_ledger", "insert_capital", capital_after),
)


def update_trade_books(
    connection: Connection,
    plan: CorrectionPlan,
    changes: Iterable[OrderChange],
    before: Mapping[str, TradeState],
    after: Mapping[str, TradeState],
) -> list[CorrectionRow]:
    """Bring the books of the changes' trades to what the ledger says; the corrections say what changed, with both images.

    :raises RowChangedError: a row is not as its image says although it is locked
    :raises WrittenMeanwhileError: a row appeared where there was none
    """
    by_trade: dict[str, list[OrderChange]] = {}
    for change in sorted(changes, key=lambda change: change.order_id):
        if change.trade_id:
            by_trade.setdefault(change.trade_id, []).append(change)
    corrections: list[CorrectionRow] = []
    booked: dict[str, TradeState] = dict(before)
    for book in TRADE_BOOKS:
        images = lock_images(connection, BOOK_OF[book.table], plan.profile_id, by_trade)
        if book.table == "positions":
            booked = {
                trade_id: as_booked(None if (image := images.get(trade_id)) is None else image.values, before[trade_id])
                for trade_id in by_trade
            }
        states = booked if book.table == "capital_ledger" else before
        changed: dict[str, tuple[RowImage, Mapping[str, Any]]] = {}
        new: dict[str, Changes] = {}
        for trade_id in sorted(by_trade):
            image = images.get(trade_id)
            wanted = book.after(None if image is None else image.values, states[trade_id], after[trade_id])
            if wanted and image is None:
                new[trade_id] = wanted
            elif wanted and image is not None:
                changed[trade_id] = (image, wanted)
        written = write_rows(connection, BOOK_OF[book.table], plan.profile_id, changed)
        written |= _insert(connection, plan, book, new)
        corrections += [
            _correction(plan, book, trade_id, images.get(trade_id), written[trade_id], by_trade[trade_id])
            for trade_id in sorted(written)
        ]
    return corrections


def _insert(
    connection: Connection, plan: CorrectionPlan, book: TradeBook, new: Mapping[str, Changes]
) -> dict[str, str]:
    """Insert the rows; their images. A table that wants what only its bot knows gets none."""
    if not new:
        return {}
    records = [{"profile_id": plan.profile_id, "trade_id": trade_id, **new[trade_id]} for trade_id in sorted(new)]
    rows = connection.execute(statement(book.insert), {"records": as_parameter(records)}).fetchall()
    inserted = {row["trade_id"] for row in rows}
    there = lock_images(connection, BOOK_OF[book.table], plan.profile_id, new)
    if foreign := set(there) - inserted:
        raise WrittenMeanwhileError(f"{book.table}: rows of trades {', '.join(sorted(foreign))} appeared meanwhile")
    return {trade_id: there[trade_id].text for trade_id in inserted}


def _correction(
    plan: CorrectionPlan,
    book: TradeBook,
    trade_id: str,
    before: RowImage | None,
    after: str,
    changes: list[OrderChange],
) -> CorrectionRow:
    return {
        "batch_id": plan.batch_id,
        "profile_id": plan.profile_id,
        "table_name": book.table,
        "row_key": {"profile_id": plan.profile_id, "trade_id": trade_id},
        "before": None if before is None else before.text,
        "after": after,
        "cause": {
            "kind": plan.stage.value,
            "trade_id": trade_id,
            "handlers": sorted({change.handler.value for change in changes}),
            "order_ids": [change.order_id for change in changes],
        },
    }
