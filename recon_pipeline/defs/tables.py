"""Frames as tables that an operator reads: plain decimals, a few columns, capped with "n more".

Not here: which table belongs to which asset (``presentation``).
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import Final

import dagster as dg

from recon_pipeline.defs import remedies
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9, from_e9
from recon_pipeline.domain.terms import Decision, Reason

CAP: Final = 50
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CENT: Final = Decimal("0.01")


def counted(number: int, thing: str) -> str:
    """Return ``1 row`` or ``2 rows``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def table(
    columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[object]], *, cap: int = CAP
) -> dg.TableMetadataValue:
    """Return rows as a table of text columns (name, description); after ``cap`` rows one row says how many more there are."""
    names = [name for name, _ in columns]
    records = [dg.TableRecord(dict(zip(names, map(_cell, row), strict=True))) for row in rows[:cap]]
    if len(rows) > cap:
        more = [f"... and {len(rows) - cap} more", *[""] * (len(names) - 1)]
        records.append(dg.TableRecord(dict(zip(names, more, strict=True))))
    schema = dg.TableSchema([dg.TableColumn(name, "text", description) for name, description in columns])
    return dg.MetadataValue.table(records, schema)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return decimal_text(value)
    return str(value)


def instant_text(ms: int) -> str:
    """Return a time as people write it, in UTC."""
    return "" if ms == NO_TIME else (_EPOCH + timedelta(milliseconds=int(ms))).strftime("%Y-%m-%d %H:%M:%S UTC")


def dollars(value: Decimal | None) -> str:
    """Return an amount in dollars and cents."""
    return "" if value is None else f"{cents(value):,}"


def cents(value: Decimal) -> Decimal:
    """Return an amount rounded to cents, for reading only."""
    with localcontext() as context:
        context.prec = 120
        return value.quantize(_CENT, rounding=ROUND_HALF_EVEN)


def worth(units: int, price: Decimal | None) -> Decimal | None:
    """Return the amount of a quantity in 1e-9 units at a price."""
    if price is None:
        return None
    with localcontext() as context:
        context.prec = 120
        return from_e9(int(units)) * price


DECISION_COLUMNS: Final = (
    ("trade", "the trade"),
    ("symbol", "as the ledger spells it"),
    ("decision", "what becomes of the trade"),
    ("reason", "why"),
    ("quantity", "units of the asset"),
    ("price", "quote currency per unit"),
    ("usd", "quantity at the price, US dollars"),
    ("proof", "how the order was attributed to the trade"),
    ("exchange_order", "the order that proves it"),
)


def decision_table(plan: ProfilePlan, *, proposed_as: Decision) -> dg.TableMetadataValue:
    """Return every proposal and every decision of a plan, what is to be written first."""
    rows: list[tuple[object, ...]] = [
        (
            row.trade_id,
            row.symbol,
            proposed_as.value,
            Reason.ELIGIBLE.value,
            f"{row.side} {decimal_text_e9(row.qty_e9)}",
            row.price,
            dollars(worth(row.qty_e9, row.price)),
            row.matched_by + (" (reapplied)" if row.reapply else ""),
            row.exchange_order_id,
        )
        for row in rows_of(plan.proposals)
    ]
    rows += [
        (
            row.trade_id,
            row.symbol,
            row.decision,
            row.reason,
            decimal_text_e9(row.qty_e9),
            row.price,
            dollars(row.notional_usd),
            "",
            row.exchange_order_id,
        )
        for row in rows_of(plan.decisions)
    ]
    return table(DECISION_COLUMNS, rows)


def reasons_table(plan: ProfilePlan, *, proposed_as: Decision) -> dg.TableMetadataValue:
    """Return how many rows each reason has, and what a person does about it."""
    counts: dict[tuple[str, str], int] = {}
    if len(plan.proposals):
        counts[proposed_as.value, Reason.ELIGIBLE.value] = len(plan.proposals)
    for row in rows_of(plan.decisions):
        key = (row.decision, row.reason)
        counts[key] = counts.get(key, 0) + 1
    rows = [
        (decision, reason, count, remedies.for_reason(reason)) for (decision, reason), count in sorted(counts.items())
    ]
    columns = (("decision", ""), ("reason", "why"), ("rows", "how many"), ("what_to_do", "the next step for a person"))
    return table(columns, rows)


def slices_table(plan: ProfilePlan) -> dg.TableMetadataValue:
    """Return the open trades, then the over-exited ones and those out of scope."""
    columns = (
        ("trade", "the trade"),
        ("symbol", "as the ledger spells it"),
        ("entry_side", "side of the entries"),
        ("entered", "units of the asset"),
        ("left", "units of the asset"),
        ("open", "entered minus left"),
        ("entry_price", "average, quote currency per unit"),
        ("first_entry", "time of the first entry"),
        ("note", "what is special about it"),
    )
    rows: list[tuple[object, ...]] = []
    for frame, note in ((plan.slices, ""), (plan.over_exits, "over-exited"), (plan.unmanaged, "out of scope")):
        rows += [
            (
                row.trade_id,
                row.symbol,
                row.entry_side,
                decimal_text_e9(row.entry_e9),
                decimal_text_e9(row.exit_e9),
                decimal_text_e9(row.open_e9),
                row.entry_price,
                instant_text(row.first_entry_ms),
                "; ".join(filter(None, [note, row.defect, "action inferred" if row.action_inferred else ""])),
            )
            for row in rows_of(frame)
        ]
    return table(columns, rows)


def evidence_table(plan: ProfilePlan) -> dg.TableMetadataValue:
    """Return the orders that the plan takes from or that are attributed to its profile, then the rest of the account."""
    columns = (
        ("exchange_order", "the exchange's order id"),
        ("symbol", "as the exchange spells it"),
        ("side", "BUY or SELL"),
        ("executed", "units of the asset"),
        ("represented", "in the ledger already"),
        ("allocated", "taken by this plan"),
        ("excess", "taken by nobody"),
        ("price", "average, quote currency per unit"),
        ("executed_at", "time of the last execution"),
        ("trade", "attributed to"),
        ("proof", "how it was attributed"),
        ("why_not", "why nothing was allocated"),
    )
    frame = plan.evidence
    own = frame["profile_id"] == plan.profile_id
    rows = [
        (
            row.order_id,
            row.symbol,
            row.side,
            decimal_text_e9(row.executed_e9),
            decimal_text_e9(row.represented_e9),
            decimal_text_e9(row.allocated_e9),
            decimal_text_e9(row.excess_e9),
            row.price,
            instant_text(row.executed_at_ms),
            f"{row.profile_id} {row.trade_id}".strip(),
            row.matched_by,
            row.reason,
        )
        for part in (frame[own], frame[~own])
        for row in rows_of(part)
    ]
    return table(columns, rows)
