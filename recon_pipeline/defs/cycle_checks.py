"""The asset checks of the cycle: the sentences that are all true where a profile is in order.

Exact counts, capped samples, and what to do where one does not hold. Not here: their descriptions (``cycle_catalogue``). They
stop nothing: what may be written is decided by the cycle itself.
"""

from collections.abc import Callable
from typing import Final

import dagster as dg

from recon_pipeline.cycle.reporting import rows_left_alone
from recon_pipeline.defs import cycle_catalogue as names
from recon_pipeline.defs import cycle_remedies, cycle_tables, tables
from recon_pipeline.defs.checks import SAMPLE, Verdict
from recon_pipeline.defs.cycle_presentation import findings_of
from recon_pipeline.defs.cycle_run import CycleOutcome
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.terms import SkippedReason
from recon_pipeline.domain.watchdog import PARITY_WATCHDOG_SOURCE
from recon_pipeline.ledger.cycle_state import LEASE_HELD

WARN: Final = dg.AssetCheckSeverity.WARN


def judge(name: str, outcome: CycleOutcome) -> Verdict | None:
    """Return the verdict of one check; None where this outcome says nothing about it."""
    return _JUDGES[name](outcome)


def _silent(outcome: CycleOutcome) -> bool:
    """Whether the cycle did not look at the profile: another run does, or nothing could be decided."""
    return outcome.cycle.failure is not None or outcome.cycle.report.skipped_reason == LEASE_HELD


def _ledger_is_in_line(outcome: CycleOutcome) -> Verdict | None:
    report = outcome.cycle.report
    if _silent(outcome):
        return None
    if not report.evidence_complete:
        reasons = outcome.account.certificate.reasons if outcome.account is not None else ()
        said = f": {'; '.join(reasons[:3])}" if reasons else "."
        return Verdict(
            False,
            f"The exchange could not be read completely, so it is not known{said}",
            cycle_remedies.for_skipped("evidence_incomplete"),
            1,
            severity=WARN,
        )
    if not report.processed:
        return Verdict(False, f"The cycle did not get to its end: {report.error or report.skipped_reason}", _LATER, 1)
    written = report.corrections + report.parity_auto_closed_trades
    rows = [
        ("order differs", report.mismatch_count),
        ("order missing at the exchange", report.missing_from_exchange),
        ("order missing in the ledger", report.missing_in_db),
        ("trade out of line with the position", report.parity_mismatch_trades - report.parity_auto_closed_trades),
        ("open trade that nothing proves", report.no_go_trades),
    ]
    unwritten = sum(
        1
        for stage in outcome.cycle.stages.values()
        for change in stage.changes
        if cycle_tables.state_of(stage, change) != cycle_tables.WRITTEN
    )
    # A mismatch that was corrected in this cycle is in line by now.
    corrected = _corrected(outcome)
    # What was written besides (a discovery, a stand-in) makes no other row equal to its order.
    differing = max(report.mismatch_count - corrected, rows_left_alone(outcome.cycle.stages))
    left = [(what, differing if what == "order differs" else count) for what, count in rows]
    left = [(what, count) for what, count in left if count > 0]
    count = sum(number for _, number in left)
    if not count and not unwritten:
        said = f"; {tables.counted(written, 'row')} written to get there" if written else ""
        return Verdict(True, f"Ledger and exchange say the same{said}.")
    money = tables.dollars(report.parity_total_mismatch_notional_usd)
    return Verdict(
        False,
        f"{', '.join(f'{number} x {what}' for what, number in left) or f'{unwritten} corrections not written'}"
        f" (${money} out of line).",
        "Read needs_a_person and corrections of this profile. What a later cycle can resolve goes by itself; the runbook says "
        "which does not.",
        count or unwritten,
        tables.table((("what", ""), ("count", "")), left, cap=SAMPLE) if left else None,
    )


_LATER: Final = "The next cycle begins anew. If it stays, read the run's last event."


_CHOSEN: Final = frozenset(
    {SkippedReason.DISABLED.value, SkippedReason.PAUSE_REQUIRED.value, SkippedReason.PROFILE_NOT_ALLOWLISTED.value}
)
"""Reasons that are the operator's own settings: shown, and no failure that would stand there for ever."""


def _corrected(outcome: CycleOutcome) -> int:
    stage = outcome.cycle.stages.get(Stage.ORDER_PARITY)
    return 0 if stage is None else len(stage.applied)


def _nobody_is_needed(outcome: CycleOutcome) -> Verdict | None:
    if _silent(outcome):
        return None
    report = outcome.cycle.report
    waiting = report.waiting_for_person
    needing = [finding for finding in findings_of(outcome.cycle) if finding.needs_person]
    rows = [
        (one.trade_id or one.order_id, one.symbol, one.reason, cycle_remedies.for_finding(one.stage, one.reason))
        for one in needing
    ]
    rows += [
        (sample.get("trade_id", ""), sample.get("symbol", ""), sample.get("reason", ""),
         cycle_remedies.for_finding(Stage.EXIT_BACKFILL, sample.get("reason", "")))
        for sample in report.no_go_samples
    ]  # fmt: skip
    rows = list(dict.fromkeys(rows))
    columns = (("trade", "or order"), ("symbol", ""), ("reason", ""), ("what_to_do", ""))
    return Verdict(
        not waiting,
        "Nothing waits for a person."
        if not waiting
        else f"{tables.counted(waiting, 'thing')} can't be resolved by any cycle.",
        "Decide what the sample names. The profile's reconciliation_report has all of it under needs_a_person.",
        waiting,
        tables.table(columns, rows, cap=SAMPLE) if rows else None,
    )


def _nothing_postponed(outcome: CycleOutcome) -> Verdict | None:
    if _silent(outcome):
        return None
    rows = [
        (stage.stage.value, order, reason, cycle_remedies.for_postponed(reason))
        for stage in outcome.cycle.stages.values()
        for order, reason in stage.postponed.items()
    ]
    columns = (("stage", ""), ("order", ""), ("reason", ""), ("what_to_do", ""))
    return Verdict(
        not rows,
        "No correction was postponed."
        if not rows
        else f"{tables.counted(len(rows), 'correction')} postponed to the next cycle.",
        "Once is nothing. If the same row is postponed cycle after cycle, its bot rewrites it: pause the profile.",
        len(rows),
        tables.table(columns, rows, cap=SAMPLE) if rows else None,
        severity=WARN,
    )


def _every_stage_ran(outcome: CycleOutcome) -> Verdict | None:
    cycle = outcome.cycle
    if cycle.report.skipped_reason == LEASE_HELD:
        return None
    if cycle.failure is not None:
        return Verdict(False, f"The cycle failed in {cycle.failure.stage}: {cycle.failure.message}", _LATER, 1)
    failed = [(stage.stage.value, "failed", stage.failure.message) for stage in cycle.stages.values() if stage.failure]
    skipped = [
        (stage.stage.value, stage.skipped_reason, cycle_remedies.for_skipped_stage(stage.stage, stage.skipped_reason))
        for stage in cycle.stages.values()
        if stage.failure is None and not stage.attempted and stage.skipped_reason
    ]
    chosen = [row for row in skipped if row[1] in _CHOSEN]
    rows = failed + [row for row in skipped if row[1] not in _CHOSEN]
    said = "; ".join(f"{stage}: {why}" for stage, why, _ in rows or chosen)
    held = f"Every step ran that the settings let run (not {said})." if chosen else "Every step ran."
    return Verdict(
        not rows,
        held if not rows else f"{tables.counted(len(rows), 'step')} did not run: {said}.",
        _LATER if failed else "A step that does not run finds nothing. The table says what each needs.",
        len(rows),
        tables.table((("stage", ""), ("why", ""), ("what", "")), rows + chosen, cap=SAMPLE) if rows or chosen else None,
        severity=dg.AssetCheckSeverity.ERROR if failed else WARN,
    )


def _watchdog_is_quiet(outcome: CycleOutcome) -> Verdict | None:
    if _silent(outcome):
        return None
    report = outcome.cycle.report
    by_watchdog = report.paused and report.pause_source == PARITY_WATCHDOG_SOURCE
    said = []
    if by_watchdog:
        said.append("Trading is paused by the parity watchdog")
    if report.integrity_watchdog_triggered:
        said.append(
            f"a watchdog is triggered: {report.missing_in_db} missing in the ledger, {report.no_go_trades} no-go trades, "
            f"${tables.dollars(report.parity_total_mismatch_notional_usd)} out of line"
        )
    text = "; ".join(said)
    return Verdict(
        not said,
        "The watchdogs are quiet." if not said else f"{text[0].upper()}{text[1:]}.",
        "Resolve what is out of line. A pause of the watchdog's own ends by itself once the cycles are clean; resume_trading "
        "ends it now, and it comes back if the money is still out of line.",
        len(said),
        numbers={"money_out_of_line_usd": float(tables.cents(report.parity_total_mismatch_notional_usd))},
    )


def _lease_is_free(outcome: CycleOutcome) -> Verdict | None:
    held = outcome.cycle.report.skipped_reason == LEASE_HELD
    holder = ", ".join(f"{name} {value}" for name, value in outcome.cycle.lease.items())
    return Verdict(
        not held,
        "The lease was free." if not held else f"Another run held the lease: {holder or 'unknown'}.",
        "Once is nothing: two runs met. If it stays, look the holder's run up under Runs; its lease ends when it does.",
        int(held),
        severity=WARN,
    )


def _rows_are_usable(outcome: CycleOutcome) -> Verdict | None:
    if _silent(outcome):
        return None
    found = outcome.cycle.stages.get(Stage.READING)
    findings = found.findings if found is not None else ()
    rows = [
        (one.reason, one.trade_id, one.order_id, one.symbol, cycle_remedies.for_finding(one.stage, one.reason))
        for one in findings
    ]
    count = outcome.cycle.report.data_defects
    columns = (("reason", ""), ("trade", ""), ("order", ""), ("symbol", ""), ("what_to_do", ""))
    return Verdict(
        not count,
        "Every row is usable." if not count else f"{tables.counted(count, 'row or trade')} can't be used.",
        "Correct the rows in orders with trading paused; the cycle does not touch them.",
        count,
        tables.table(columns, rows, cap=SAMPLE) if rows else None,
    )


_JUDGES: Final[dict[str, Callable[[CycleOutcome], Verdict | None]]] = {
    names.LEDGER_IS_IN_LINE: _ledger_is_in_line,
    names.NOBODY_IS_NEEDED: _nobody_is_needed,
    names.NOTHING_POSTPONED: _nothing_postponed,
    names.EVERY_STAGE_RAN: _every_stage_ran,
    names.WATCHDOG_IS_QUIET: _watchdog_is_quiet,
    names.LEASE_IS_FREE: _lease_is_free,
    names.ROWS_ARE_USABLE: _rows_are_usable,
}
