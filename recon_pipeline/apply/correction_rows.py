"""Rows of orders written as they were judged, read back, and the executed quantity that they take or give back.

What does not belong here: what may be written (``correction_gates``), books (``correction_books``) and the transaction around it
(``corrections``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

from recon_pipeline.apply import gates
from recon_pipeline.apply.books import CorrectionRow, RowChangedError, as_parameter
from recon_pipeline.apply.correction_books import WrittenMeanwhileError
from recon_pipeline.apply.correction_gates import Candidate, Judgement, evidence_frame, names_its_order
from recon_pipeline.apply.gates import Refused
from recon_pipeline.apply.outcomes import RefusedReason
from recon_pipeline.domain.bookkeeping import same_value
from recon_pipeline.domain.corrections import CorrectionPlan, Handler
from recon_pipeline.domain.order_values import executed_units
from recon_pipeline.domain.quantities import decimal_text_e9, from_e9
from recon_pipeline.domain.rollback import ORDERS
from recon_pipeline.domain.terms import normalise_status
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.statements import statement

_OPTIONAL: Final = frozenset({"client_order_id", "quantity", "filled_qty", "sub_tag"})


def write_orders(connection: Connection, chosen: Iterable[Candidate]) -> None:
    """Update and insert; what was written is what the database returned."""
    updates = [
        {"order_id": found.change.order_id, "before": found.before_image, "values": dict(found.values)}
        for found in chosen
        if not found.change.inserts
    ]
    if updates:
        rows = connection.execute(statement("update_orders"), {"records": as_parameter(updates)}).fetchall()
        if missing := {str(update["order_id"]) for update in updates} - {row["order_id"] for row in rows}:
            raise RowChangedError(f"orders: {', '.join(sorted(missing))} are not as they were read although locked")
    inserts = [dict(found.values) for found in chosen if found.change.inserts]
    if inserts:
        rows = connection.execute(statement("insert_corrected_orders"), {"records": as_parameter(inserts)}).fetchall()
        if missing := {str(insert["order_id"]) for insert in inserts} - {row["order_id"] for row in rows}:
            raise WrittenMeanwhileError(f"orders: {', '.join(sorted(missing))} appeared meanwhile")


def check_written(connection: Connection, chosen: Iterable[Candidate]) -> None:
    """The rows read back as they were meant: no trigger changed them and no column rounded them."""
    wanted = {found.change.order_id: found for found in chosen}
    rows = connection.execute(statement("select_orders_by_id"), {"order_ids": sorted(wanted)}).fetchall()
    there = {row["order_id"]: row for row in rows}
    for order_id, found in wanted.items():
        row = there.get(order_id, {})
        differing = [name for name, value in found.values.items() if not _holds(row, name, value)]
        if found.change.handler is not Handler.SUB_TAG and executed_units(row) != found.executed_after_e9:
            differing.append("executed quantity")
        if differing:
            raise Refused(RefusedReason.NOT_WRITTEN_EXACTLY, f"{order_id}: {', '.join(differing)}")


def _holds(row: Mapping[str, Any], name: str, value: str | None) -> bool:
    """Whether the row says what was written; columns that the table or the view lacks say nothing."""
    if value in (None, "") or name not in row or (name in _OPTIONAL and row[name] is None):
        return True
    if name == "status":
        return normalise_status(row[name]) == normalise_status(value)
    said = row[name]
    return same_value(said.isoformat() if isinstance(said, dt.datetime) else said, value)


def consume(connection: Connection, plan: CorrectionPlan, chosen: Iterable[Candidate], now: dt.datetime) -> None:
    """Rows that no longer stand for an order give its quantity back; a row that can't be told by its ids takes it."""
    changed = [found for found in chosen if found.change.handler is not Handler.SUB_TAG]
    ids = [found.change.order_id for found in changed]
    connection.execute(statement("release_consumption_of_rows"), {"order_ids": ids, "released_at": now})
    records = [
        {
            "account_id": plan.account_id,
            "exchange_order_id": found.change.exchange_order_id,
            "backfill_order_id": found.change.order_id,
            "profile_id": plan.profile_id,
            "trade_id": found.change.trade_id,
            "batch_id": plan.batch_id,
            "qty": from_e9(found.change.represents_e9),
        }
        for found in changed
        if found.change.represents_e9 and not names_its_order(found, plan)
    ]
    if records:
        connection.execute(statement("insert_consumption"), {"records": as_parameter(records)})


def check_represented(
    connection: Connection, plan: CorrectionPlan, judgement: Judgement, rows: Mapping[str, Row]
) -> None:
    """The ledger represents of each cited order what was worked out before the rows were written.

    :raises WrittenMeanwhileError: it does not: a bot, which takes no lock of the account, recorded the order in between
    """
    if not judgement.expected:
        return
    evidence = evidence_frame(plan, rows)
    found, _ = gates.represented_now(connection, plan.account_id, evidence)
    for order_id, units in zip(evidence["order_id"], found, strict=True):
        if units != judgement.expected[order_id]:
            raise WrittenMeanwhileError(
                f"order {order_id}: the ledger represents {decimal_text_e9(units)} of it,"
                f" expected {decimal_text_e9(judgement.expected[order_id])}",
            )


def order_corrections(connection: Connection, plan: CorrectionPlan, chosen: Iterable[Candidate]) -> list[CorrectionRow]:
    """Before and after images of the written rows; an inserted row has no before."""
    written = {found.change.order_id: found for found in chosen}
    rows = connection.execute(statement("lock_order_images"), {"order_ids": sorted(written)}).fetchall()
    images = {row["order_id"]: row["image"] for row in rows}
    return [
        {
            "batch_id": plan.batch_id,
            "profile_id": plan.profile_id,
            "table_name": ORDERS,
            "row_key": {"order_id": order_id},
            "before": found.before_image,
            "after": images[order_id],
            "cause": {
                **found.change.cause,
                "kind": plan.stage.value,
                "handler": found.change.handler.value,
                "trade_id": found.change.trade_id,
            },
        }
        for order_id, found in written.items()
    ]
