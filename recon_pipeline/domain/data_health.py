"""Health of the data: ledger rows and trades that can't be used, each with the row named, for whoever mends them.

What belongs here: saying what is wrong. What does not: deciding anything with it (``slices`` gives a trade its defect and every
stage leaves it alone).

Reasons: every ``RowDefect``; ``over_exit`` (exits exceed entries); ``row_without_id``, ``row_without_trade`` and
``row_without_status``. A row that is over and booked nothing is not looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.frames import LIFECYCLE_ROWS, rows_of
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9
from recon_pipeline.domain.slices import deduplicate_rows
from recon_pipeline.domain.stage_plan import in_finding_order
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES, distinct_rows, newest_first
from recon_pipeline.domain.terms import BUY, ENTRY, EXIT, FILLED_STATUSES, FINAL_UNFILLED_STATUSES, SELL, RowDefect

OVER_EXIT: Final = "over_exit"
WITHOUT_ID: Final = "row_without_id"
WITHOUT_TRADE: Final = "row_without_trade"
WITHOUT_STATUS: Final = "row_without_status"
_OF_TRADES: Final = frozenset(
    {
        RowDefect.CONFLICTING_SYMBOLS,
        RowDefect.CONFLICTING_ENTRY_SIDES,
        RowDefect.UNKNOWN_ENTRY_SIDE,
        RowDefect.EXIT_ON_ENTRY_SIDE,
    }
)
"""Defects that only the rows of a trade together show."""


def data_findings(inputs: CycleInputs, slices: pd.DataFrame) -> tuple[Finding, ...]:
    """What is wrong with the ledger of every selected profile, one finding per row and reason, or per trade.

    A finding about a trade names the newest of the rows that show it in ``order_id`` and all of them in the detail ``rows``.
    All need a person, except an over-exit of a trade with backfill rows or synthetic exits, which later cycles supersede.

    :param slices: SLICES of the same rows
    """
    selected = set(inputs.profiles["profile_id"][inputs.profiles["selected"].to_numpy(dtype=bool)])
    rows = distinct_rows(inputs.ledger_orders[inputs.ledger_orders["profile_id"].isin(list(selected))])
    lifecycle = deduplicate_rows(rows.rename(columns={"executed_e9": "qty_e9"})[LIFECYCLE_ROWS.names])
    conflicting = {
        (row.profile_id, row.order_id) for row in rows_of(lifecycle) if row.defect == RowDefect.CONFLICTING_ROWS.value
    }
    findings: dict[tuple[str, ...], Finding] = {}
    trades: dict[tuple[str, str], list[Any]] = {}
    for row in rows_of(rows):
        if row.status in FINAL_UNFILLED_STATUSES:
            continue
        if row.trade_id and row.status in FILLED_STATUSES:
            trades.setdefault((row.profile_id, row.trade_id), []).append(row)
        for reason in _row_defects(row, conflicting=(row.profile_id, row.order_id) in conflicting):
            finding = _of_row(row, reason)
            findings[row.profile_id, row.order_id, row.trade_id, reason, repr(sorted(finding.detail.items()))] = finding
    found = list(findings.values())
    for trade in rows_of(slices):
        if trade.profile_id not in selected:
            continue
        own = sorted(trades.get((trade.profile_id, trade.trade_id), ()), key=newest_first)
        if trade.open_e9 < -EPSILON_E9 and not trade.defect:
            found.append(_over_exit(trade, own))
        if trade.defect in _OF_TRADES:
            found.append(_of_trade(trade, _culprits(trade, own)))
    return in_finding_order(found)


def _row_defects(row: Any, *, conflicting: bool) -> list[str]:
    """What is wrong with one row that executed something or may yet."""
    found = [row.defect] if row.defect else []
    if conflicting and row.defect != RowDefect.CONFLICTING_ROWS.value:
        found.append(RowDefect.CONFLICTING_ROWS.value)
    if not row.order_id:
        found.append(WITHOUT_ID)
    if not row.trade_id:
        found.append(WITHOUT_TRADE)
    if not row.status:
        found.append(WITHOUT_STATUS)
    if row.status not in FILLED_STATUSES:
        # What an open order without a side or symbol may do to which position can't be said either.
        found.extend(
            defect.value
            for value, defect in ((row.side, RowDefect.SIDE), (row.symbol_token, RowDefect.SYMBOL))
            if not value
        )
    return found


def _of_row(row: Any, reason: str) -> Finding:
    said: Mapping[str, str | None] = row.record
    return Finding(
        profile_id=row.profile_id,
        stage=Stage.READING,
        reason=reason,
        order_id=row.order_id,
        trade_id=row.trade_id,
        symbol=row.symbol,
        needs_person=True,
        detail={
            name: said.get(name) for name in ("side", "action", "status", "qty", "quantity", "filled_qty", "price")
        },
    )


def _over_exit(trade: Any, rows: list[Any]) -> Finding:
    exits = [row for row in rows if row.action == EXIT or (not row.action and row.side != trade.entry_side)]
    return Finding(
        profile_id=trade.profile_id,
        stage=Stage.READING,
        reason=OVER_EXIT,
        order_id=exits[0].order_id if exits else "",
        trade_id=trade.trade_id,
        symbol=trade.symbol,
        needs_person=not any(row.order_id.startswith(STAND_IN_PREFIXES) for row in exits),
        detail={
            "entered": decimal_text_e9(int(trade.entry_e9)),
            "exited": decimal_text_e9(int(trade.exit_e9)),
            "over": decimal_text_e9(-int(trade.open_e9)),
            "rows": [row.order_id for row in exits],
        },
    )


def _culprits(trade: Any, rows: list[Any]) -> list[Any]:
    """The rows that show the trade's defect, newest first."""
    if trade.defect == RowDefect.CONFLICTING_SYMBOLS:
        return [row for row in rows if row.symbol_token not in {"", trade.symbol_token}] or rows
    if trade.defect == RowDefect.EXIT_ON_ENTRY_SIDE:
        return [row for row in rows if row.action == EXIT and row.side == trade.entry_side] or rows
    if trade.defect == RowDefect.CONFLICTING_ENTRY_SIDES:
        sided = [row for row in rows if row.action == ENTRY and row.side in {BUY, SELL}]
        return sided or rows
    return rows


def _of_trade(trade: Any, rows: list[Any]) -> Finding:
    return Finding(
        profile_id=trade.profile_id,
        stage=Stage.READING,
        reason=trade.defect,
        order_id=rows[0].order_id if rows else "",
        trade_id=trade.trade_id,
        symbol=trade.symbol,
        needs_person=True,
        detail={"entry_side": trade.entry_side, "rows": [row.order_id for row in rows]},
    )
