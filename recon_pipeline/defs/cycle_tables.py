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
from recon_pipeline.defs.tables import dollars, instant_text, table
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
            rows.append(
                (
                    order.index(state),
                    (
                        shown,
                        change.handler.value.replace("_", " "),
                        change.trade_id,
                        change.order_id,
                        before,
                        after,
                        cause_text(change.cause),
                        change.exchange_order_id or str(change.cause.get("exchange_order_id", "")),
                        outcome.stage.value,
                        outcome.batch_id,
                    ),
                )
            )
    rows.sort(key=lambda row: row[0])
    columns = (
        ("state", "whether it was written"),
        ("what", "kind of change"),
        ("trade", "the trade"),
        ("order", "row in orders"),
        ("before", "columns as they were"),
        ("after", "columns as they become"),
        ("cause", "the rule, and the exchange's facts"),
        ("exchange_order", "the order that proves it"),
        ("stage", "who decided it"),
        ("batch", "in recon.corrections"),
    )
    return table(columns, [row for _, row in rows])


def findings_table(findings: Sequence[Finding]) -> dg.TableMetadataValue:
    """Return findings, those that need a person first, with what to do about each."""
    rows = [
        (
            "a person" if finding.needs_person else "a later cycle",
            finding.reason,
            cycle_remedies.for_finding(finding.stage, finding.reason),
            finding.trade_id,
            finding.symbol,
            finding.order_id,
            finding.exchange_order_id,
            ", ".join(
                f"{name.replace('_', ' ')} {_fact(value)}" for name, value in finding.detail.items() if _known(value)
            ),
            finding.stage.value,
        )
        for finding in sorted(findings, key=lambda one: not one.needs_person)
    ]
    columns = (
        ("waits_for", "who can resolve it"),
        ("reason", "what it is"),
        ("what_to_do", "the next step for a person"),
        ("trade", "the trade"),
        ("symbol", "the symbol"),
        ("order", "row in orders"),
        ("exchange_order", "the exchange's order"),
        ("detail", "numbers behind it"),
        ("stage", "who found it"),
    )
    return table(columns, rows)


def stages_table(cycle: ProfileCycle) -> dg.TableMetadataValue:
    """Return the stages in their order, one line each."""
    rows = []
    for stage in STAGES:
        outcome = cycle.stages.get(stage)
        if outcome is None:
            rows.append((stage.value, "not reached", "", "", "", ""))
            continue
        counts = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in outcome.counts.items() if count)
        rows.append(
            (
                stage.value,
                stage_state(outcome),
                str(len(outcome.changes)) if outcome.changes else "",
                str(len(outcome.applied)) if outcome.applied else "",
                counts,
                _stage_note(outcome),
            )
        )
    columns = (
        ("stage", "in the order of the cycle"),
        ("state", "what became of it"),
        ("wanted", "rows it wants to change"),
        ("written", "rows it changed"),
        ("counts", "its counters that are not zero"),
        ("note", "why not, and what to do"),
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
    return ""


def counts_table(outcome: StageOutcome) -> dg.TableMetadataValue:
    """Return every counter of a stage, zero or not."""
    columns = (("counter", "by the names of the source"), ("count", ""))
    return table(columns, sorted(outcome.counts.items()))


def parity_table(states: pd.DataFrame) -> dg.TableMetadataValue:
    """Return the trades that are out of line with the exchange, the most money first."""
    ordered = sorted(rows_of(states), key=lambda row: (not row.quarantined, -(row.notional_usd or Decimal(0))))
    rows = [
        (
            row.trade_id,
            row.symbol,
            decimal_text_e9(row.open_e9),
            decimal_text_e9(row.position_e9),
            dollars(row.notional_usd) or "unknown",
            row.confirmations,
            "quarantined" if row.quarantined else "waiting",
            row.reason,
            cycle_remedies.root_cause(row.root_cause),
            instant_text(row.first_seen_ms),
            cycle_remedies.for_finding(Stage.POSITION_PARITY, row.reason) if row.reason else "",
        )
        for row in ordered
    ]
    columns = (
        ("trade", "the trade"),
        ("symbol", "as the ledger spells it"),
        ("ledger", "open quantity, short negative"),
        ("exchange", "position of the account, short negative"),
        ("usd", "out of line, US dollars"),
        ("confirmations", "cycles in a row"),
        ("state", "whether a cycle may close it"),
        ("reason", "why it is not closed"),
        ("root_cause", "what the facts say it is"),
        ("since", "first seen"),
        ("what_to_do", "the next step for a person"),
    )
    return table(columns, rows)


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
        ("mismatches", "orders that differed"),
        ("missing_at_exchange", "ledger orders that the exchange lacks"),
        ("missing_in_ledger", "exchange orders that the ledger lacks"),
        ("no_go", "trades that nothing proves"),
        ("trades_out_of_line", "position parity"),
        ("usd_out_of_line", "position parity"),
        ("corrections", "rows written"),
        ("confirmations", "highest count"),
        ("for_a_person", "trades and orders"),
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
    names = (
        "mismatch_count",
        "missing_from_exchange",
        "missing_in_db",
        "no_go_trades",
        "parity_mismatch_trades",
        "parity_total_mismatch_notional_usd",
        "corrections",
        "max_confirmations",
        "waiting_for_person",
    )
    return (state, *(report.get(name, "") for name in names))
