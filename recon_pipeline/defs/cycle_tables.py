"""A cycle's outcome as tables that an operator reads: corrections with before, after and cause; findings; stages; trades; cycles.

Not here: which table belongs to which asset (``cycle_presentation``), and what to do about a reason (``cycle_remedies``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Final

import dagster as dg
import pandas as pd

from recon_pipeline.cycle.outcome import ProfileCycle, ReconciliationReport, StageOutcome
from recon_pipeline.defs import cycle_remedies
from recon_pipeline.defs.tables import counted, dollars, instant_text, table
from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.ledger.database import Row

WRITTEN: Final = "written"
DRY_RUN: Final = "dry run"
POSTPONED: Final = "postponed"
NOT_WRITTEN: Final = "not written"
STAGES: Final = (
    Stage.ORDER_PARITY,
    Stage.ORDER_COVERAGE,
    Stage.EXIT_BACKFILL,
    Stage.INTEGRITY_WATCHDOG,
    Stage.SUB_TAG_REPAIR,
    Stage.POSITION_PARITY,
)
_FIRST_IN_CAUSE: Final = ("rule", "exchange_status", "executed", "average_price", "filled_at")
_QUANTITIES: Final = ("filled_qty", "qty", "quantity")


def state_of(outcome: StageOutcome, change: OrderChange) -> str:
    """Return what became of a change: written, postponed, a dry run, or not written because its stage ended before."""
    if change.order_id in outcome.applied:
        return WRITTEN
    if change.order_id in outcome.postponed:
        return POSTPONED
    return DRY_RUN if outcome.dry_run else NOT_WRITTEN


def before_and_after(change: OrderChange) -> tuple[str, str]:
    """Return the columns that change, as they were and as they become."""
    after = ", ".join(f"{name} {_said(value)}" for name, value in change.values.items())
    if change.expected is None:
        return "no row", _inserted(change)
    before = []
    for name in change.values:
        if name == "executed":
            before += [
                f"{column} {_said(change.expected[column])}"
                for column in _QUANTITIES
                if change.expected.get(column) is not None
            ]
        elif name in change.expected:
            before.append(f"{name} {_said(change.expected[name])}")
    return ", ".join(before), after


def _inserted(change: OrderChange) -> str:
    wanted = ("side", "action", "status", "filled_qty", "qty", "quantity", "price")
    return ", ".join(f"{name} {change.values[name]}" for name in wanted if change.values.get(name) is not None)


def _said(value: str | None) -> str:
    return "none" if value in {None, ""} else str(value)


def cause_text(cause: Mapping[str, object]) -> str:
    """Return rule and cited facts in one line, what matters first."""
    names = [name for name in _FIRST_IN_CAUSE if name in cause]
    names += [name for name in cause if name not in names and name != "exchange_order_id"]
    facts = [
        f"{name.replace('_', ' ')} {_fact(cause[name])}" for name in names if name != "rule" and _known(cause[name])
    ]
    rule = str(cause.get("rule", "")).replace("_", " ")
    return ": ".join(filter(None, [rule, ", ".join(facts)]))


def _known(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_fact(inner)}" for name, inner in value.items()) + ")"
    if isinstance(value, (list, tuple)):
        return " ".join(_fact(inner) for inner in value)
    return str(value)


def corrections_table(outcomes: Iterable[StageOutcome]) -> dg.TableMetadataValue:
    """Return every change of the stages; what was not written although it should have been comes first."""
    order = (NOT_WRITTEN, POSTPONED, WRITTEN, DRY_RUN)
    rows = []
    for outcome in outcomes:
        for change in outcome.changes:
            state = state_of(outcome, change)
            before, after = before_and_after(change)
            reason = outcome.postponed.get(change.order_id, "")
            shown = f"{state}: {reason}" if reason else state
            rows.append((order.index(state), (shown, _change(change), before, after, _why(outcome, change))))
    rows.sort(key=lambda row: row[0])
    columns = (
        ("state", "whether it was written"),
        ("change", "kind, trade, and row in orders"),
        ("before", "columns as they were"),
        ("after", "columns as they become"),
        ("why", "the rule, the exchange's facts, the order that proves it, and the batch in recon.corrections"),
    )
    return table(columns, [row for _, row in rows])


def _change(change: OrderChange) -> str:
    trade = f", trade {change.trade_id}" if change.trade_id else ""
    return f"{change.handler.value.replace('_', ' ')}{trade}, row {change.order_id}"


def _why(outcome: StageOutcome, change: OrderChange) -> str:
    order = change.exchange_order_id or str(change.cause.get("exchange_order_id") or "")
    parts = [
        cause_text(change.cause),
        f"exchange order {order}" if order and order != change.order_id else "",
        f"batch {outcome.batch_id}" if change.order_id in outcome.applied else "",
    ]
    return "; ".join(filter(None, parts))


def findings_table(findings: Sequence[Finding]) -> dg.TableMetadataValue:
    """Return findings, those that need a person first, with what to do about each."""
    rows = [
        (
            _said_with(finding.reason, cycle_remedies.for_finding(finding.stage, finding.reason)),
            _about(finding),
            _told(finding),
        )
        for finding in sorted(findings, key=lambda one: not one.needs_person)
    ]
    columns = (
        ("what_to_do", "the reason, and the next step for a person"),
        ("about", "trade, symbol, row in orders, order at the exchange"),
        ("detail", "numbers behind it, and the stage that found it"),
    )
    return table(columns, rows)


def _said_with(reason: str, remedy: str) -> str:
    """A reason and what to do about it in one cell: a long word in a column of its own leaves the others no room."""
    return f"{reason}: {remedy}" if reason else remedy


def _about(finding: Finding) -> str:
    exchange = finding.exchange_order_id if finding.exchange_order_id != finding.order_id else ""
    named = (
        ("trade", finding.trade_id),
        ("", finding.symbol),
        ("row", finding.order_id),
        ("exchange order", exchange),
    )
    return ", ".join(f"{name} {value}".strip() for name, value in named if value)


def _told(finding: Finding) -> str:
    facts = [f"{name.replace('_', ' ')} {_fact(value)}" for name, value in finding.detail.items() if _known(value)]
    return ", ".join([*facts, finding.stage.value])


def stages_table(cycle: ProfileCycle) -> dg.TableMetadataValue:
    """Return the stages in their order, one line each."""
    rows = []
    for stage in STAGES:
        outcome = cycle.stages.get(stage)
        if outcome is None:
            rows.append((stage.value, "not reached", "", ""))
            continue
        wanted = f"{len(outcome.applied)} of {len(outcome.changes)} written" if outcome.changes else ""
        rows.append((stage.value, stage_state(outcome), wanted, _stage_note(outcome)))
    columns = (
        ("stage", "in the order of the cycle"),
        ("state", "what became of it"),
        ("rows", "rows of orders"),
        ("note", "its counters that are not zero; or why it did not run, and what to do"),
    )
    return table(columns, rows)


def stage_state(outcome: StageOutcome) -> str:
    """Return done, dry run, skipped or FAILED."""
    if outcome.failure is not None:
        return "FAILED"
    if not outcome.attempted:
        return f"skipped: {outcome.skipped_reason}" if outcome.skipped_reason else "skipped"
    return "dry run" if outcome.dry_run else "done"


def _stage_note(outcome: StageOutcome) -> str:
    if outcome.failure is not None:
        return outcome.failure.message
    if not outcome.attempted and outcome.skipped_reason:
        return cycle_remedies.for_skipped_stage(outcome.stage, outcome.skipped_reason)
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in outcome.counts.items() if count)


def parity_table(states: pd.DataFrame) -> dg.TableMetadataValue:
    """Return the trades that are out of line with the exchange, the most money first."""
    ordered = sorted(rows_of(states), key=lambda row: (not row.quarantined, -(row.notional_usd or Decimal(0))))
    rows = [
        (
            f"{row.trade_id} {row.symbol}",
            f"{decimal_text_e9(row.open_e9)} / {decimal_text_e9(row.position_e9)}",
            dollars(row.notional_usd) or "unknown",
            _parity_state(row),
            _parity_remedy(row),
        )
        for row in ordered
    ]
    columns = (
        ("trade", "the trade and its symbol"),
        ("ledger_exchange", "open quantity of the trade / position of the account, short negative"),
        ("usd", "out of line, US dollars"),
        ("state", "whether a cycle may close it, and how often in a row it was seen"),
        ("what_to_do", "why it is not closed, what the facts say it is, and the next step for a person"),
    )
    return table(columns, rows)


def _parity_state(row: Any) -> str:
    word = "quarantined" if row.quarantined else "waiting"
    return f"{word}, {counted(int(row.confirmations), 'confirmation')} since {instant_text(row.first_seen_ms)}"


def _parity_remedy(row: Any) -> str:
    cause = cycle_remedies.root_cause(row.root_cause)
    remedy = cycle_remedies.for_finding(Stage.POSITION_PARITY, row.reason) if row.reason else ""
    return _said_with(row.reason, f"Looks like {cause}. {remedy}" if cause else remedy)


def postponed_table(outcome: StageOutcome) -> dg.TableMetadataValue:
    """Return the corrections of a stage that were not written, and why."""
    rows = [(order, reason, cycle_remedies.for_postponed(reason)) for order, reason in outcome.postponed.items()]
    return table((("order", "row in orders"), ("reason", "why"), ("what_to_do", "the next step")), rows)


def history_table(report: ReconciliationReport, earlier: Sequence[Row]) -> dg.TableMetadataValue:
    """Return this cycle and those before it, newest first: since when it is so."""
    rows = [(instant_text(report.cycle_at_ms), *_history_row(asdict(report)))]
    rows += [(row["cycle_at"].strftime("%Y-%m-%d %H:%M:%S UTC"), *_history_row(row["report"])) for row in earlier]
    columns = (
        ("cycle", "when"),
        ("state", ""),
        ("orders", "differ / missing at the exchange / missing in the ledger"),
        ("no_go", "trades that nothing proves"),
        ("out_of_line", "trades, US dollars"),
        ("corrected", "rows written"),
        ("person", "trades and orders for a person"),
    )
    return table(columns, rows)


def _history_row(report: Mapping[str, Any]) -> tuple[object, ...]:
    if report.get("clean"):
        state = "in line"
    elif report.get("error"):
        state = "FAILED"
    elif report.get("skipped_reason"):
        state = str(report["skipped_reason"])
    else:
        state = "out of line" if report.get("processed") else "not processed"
    orders = [int(report.get(name) or 0) for name in ("mismatch_count", "missing_from_exchange", "missing_in_db")]
    trades = int(report.get("parity_mismatch_trades") or 0)
    money = dollars(Decimal(report.get("parity_total_mismatch_notional_usd") or 0))
    return (
        state,
        " / ".join(map(str, orders)) if any(orders) else "",
        report.get("no_go_trades") or "",
        f"{trades}, ${money}" if trades else "",
        report.get("corrections") or "",
        report.get("waiting_for_person") or "",
    )
