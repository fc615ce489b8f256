"""A profile's cycle as materialization metadata: what an operator at night wants to see first, asset by asset.

Conventions as in ``presentation``: one sentence, then what waits for a person, then tables, then numbers that the UI plots over
time, then where to go on. Money here is for reading; nothing of it is ever written. Not here: the tables (``cycle_tables``) and
the checks (``cycle_checks``).
"""

from collections.abc import Sequence
from typing import Final

import dagster as dg

from recon_pipeline.apply.outcomes import ApplyState
from recon_pipeline.cycle.outcome import ProfileCycle, ReconciliationReport, StageOutcome
from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import cycle_catalogue as names
from recon_pipeline.defs import cycle_remedies, cycle_tables, presentation, tables
from recon_pipeline.defs.cycle_run import CycleOutcome
from recon_pipeline.defs.presentation import Metadata
from recon_pipeline.defs.shard_run import Ask, Outcome, Step
from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.watchdog import PARITY_WATCHDOG_SOURCE
from recon_pipeline.ledger.reads import RUNNING, PauseState

RUNBOOK: Final = dg.MetadataValue.path(names.RUNBOOK)


def findings_of(cycle: ProfileCycle) -> list[Finding]:
    """Return what every stage found, in the order of the stages."""
    return [finding for outcome in cycle.stages.values() for finding in outcome.findings]


def pause_of(outcome: CycleOutcome) -> PauseState:
    """Return the pause at the end of the cycle: the watchdog may have set it within."""
    report = outcome.cycle.report
    if not report.paused:
        return RUNNING if report.processed else outcome.pause
    before = outcome.pause
    if before.paused and before.source == report.pause_source:
        return before
    return PauseState(paused=True, source=report.pause_source, since=None, reason="set in this cycle")


def summary(cycle: ProfileCycle) -> str:
    """Return the cycle of a profile in one sentence: the worst first."""
    report = cycle.report
    if cycle.failure is not None or (report.error and not cycle.stages):
        return f"FAILED: {cycle.failure.message if cycle.failure else report.error}"
    parts = []
    if report.failed_stages:
        parts.append(f"FAILED in {', '.join(report.failed_stages)}")
    if report.skipped_reason:
        parts.append(f"skipped, {report.skipped_reason}: nothing was concluded")
    if report.integrity_watchdog_triggered:
        parts.append("the watchdog is triggered")
    if report.paused and report.pause_source == PARITY_WATCHDOG_SOURCE:
        parts.append("trading is paused by the watchdog")
    if report.waiting_for_person:
        parts.append(f"{tables.counted(report.waiting_for_person, 'thing')} for a person")
    parts += _differences(report)
    if report.corrections:
        parts.append(f"{tables.counted(report.corrections, 'row')} corrected")
    if wanted := _dry_run_changes(cycle):
        parts.append(f"{tables.counted(wanted, 'row')} would be corrected (dry run)")
    if postponed := sum(len(stage.postponed) for stage in cycle.stages.values()):
        parts.append(f"{tables.counted(postponed, 'correction')} postponed")
    if report.proposed_rows and cycle.applied is None:
        parts.append(f"{tables.counted(report.proposed_rows, 'backfill row')} proposed")
    if not parts:
        return "In line." if report.clean else "Nothing to correct."
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _differences(report: ReconciliationReport) -> list[str]:
    found = [
        (report.mismatch_count, "order that differs", "orders that differ"),
        (report.missing_from_exchange, "order missing at the exchange", "orders missing at the exchange"),
        (report.missing_in_db, "order missing in the ledger", "orders missing in the ledger"),
    ]
    parts = [f"{count:,} {one if count == 1 else many}" for count, one, many in found if count]
    if report.parity_mismatch_trades:
        usd = report.parity_total_mismatch_notional_usd
        parts.append(
            f"{tables.counted(report.parity_mismatch_trades, 'trade')} out of line with the position (${tables.dollars(usd)})"
        )
    return parts


def _dry_run_changes(cycle: ProfileCycle) -> int:
    return sum(
        1
        for stage in cycle.stages.values()
        for change in stage.changes
        if cycle_tables.state_of(stage, change) == cycle_tables.DRY_RUN
    )


def metadata_of(outcome: CycleOutcome, key: str, *, dashboard_url: str, location: str, run_id: str) -> Metadata | None:
    """Return the metadata of one asset's materialization for one profile; None where the cycle says nothing about it."""
    cycle = outcome.cycle
    if cycle.failure is not None:
        return None
    if key == names.REPORT_KEY:
        return _report(outcome)
    if key in names.STAGE_OF:
        stage = cycle.stages.get(names.STAGE_OF[key])
        if stage is None or stage.failure is not None:
            return None
        return {**_stage(outcome, stage), **_common(outcome)}
    return _backfill(outcome, key, dashboard_url=dashboard_url, location=location, run_id=run_id)


def _common(outcome: CycleOutcome) -> Metadata:
    return {"snapshots": dg.MetadataValue.path(outcome.snapshots), "runbook": RUNBOOK}


def _report(outcome: CycleOutcome) -> Metadata:
    cycle = outcome.cycle
    report = cycle.report
    findings = findings_of(cycle)
    entries: Metadata = {"outcome": summary(cycle)}
    if report.skipped_reason:
        entries["what_to_do"] = cycle_remedies.for_skipped(report.skipped_reason)
    if report.skipped_reason and outcome.account is not None and not outcome.account.certificate.complete:
        entries["evidence_reasons"] = "; ".join(outcome.account.certificate.reasons)
    if cycle.lease:
        entries["lease_holder"] = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in cycle.lease.items())
    needing = [finding for finding in findings if finding.needs_person]
    if needing or report.no_go_samples:
        entries["needs_a_person"] = _needs_a_person(needing, report)
    if any(stage.changes for stage in cycle.stages.values()):
        entries["corrections"] = cycle_tables.corrections_table(cycle.stages.values())
    if len(cycle.parity):
        entries["out_of_line"] = cycle_tables.parity_table(cycle.parity)
    later = [finding for finding in _not_shown_above(findings, cycle) if not finding.needs_person]
    if later:
        entries["other_findings"] = cycle_tables.findings_table(later)
    if cycle.changed or not report.clean:
        entries["stages"] = cycle_tables.stages_table(cycle)
    if outcome.history:
        entries["last_cycles"] = cycle_tables.history_table(report, outcome.history)
    return {**entries, **_numbers(outcome), **_common(outcome)}


def _not_shown_above(findings: Sequence[Finding], cycle: ProfileCycle) -> list[Finding]:
    """Findings without those about trades that stand in the table of what is out of line, with more."""
    shown = set(cycle.parity["trade_id"])
    return [
        finding
        for finding in findings
        if finding.needs_person or finding.stage is not Stage.POSITION_PARITY or finding.trade_id not in shown
    ]


def _needs_a_person(findings: list[Finding], report: ReconciliationReport) -> dg.TableMetadataValue:
    """The findings, and the trades of the exit backfill that nothing proves."""
    known = {(finding.trade_id, finding.reason) for finding in findings}
    stuck = [
        Finding(
            profile_id=report.profile_id,
            stage=Stage.EXIT_BACKFILL,
            reason=sample.get("reason", ""),
            trade_id=sample.get("trade_id", ""),
            symbol=sample.get("symbol", ""),
            needs_person=True,
        )
        for sample in report.no_go_samples
        if (sample.get("trade_id", ""), sample.get("reason", "")) not in known
    ]
    return cycle_tables.findings_table([*findings, *stuck])


def _numbers(outcome: CycleOutcome) -> Metadata:
    report = outcome.cycle.report
    pause = pause_of(outcome)
    paused = f"by {pause.source or 'unknown'}: {pause.reason or 'no reason given'}" if pause.paused else ""
    return {
        "clean": report.clean,
        "mismatches": report.mismatch_count,
        "missing_from_exchange": report.missing_from_exchange,
        "missing_in_db": report.missing_in_db,
        "no_go_trades": report.no_go_trades,
        "waiting_for_person": report.waiting_for_person,
        "trades_out_of_line": report.parity_mismatch_trades,
        "quarantined_trades": report.parity_quarantined_trades,
        "auto_closed_trades": report.parity_auto_closed_trades,
        "money_out_of_line_usd": float(tables.cents(report.parity_total_mismatch_notional_usd)),
        "largest_out_of_line_usd": float(tables.cents(report.parity_max_mismatch_notional_usd)),
        "money_at_risk_usd": float(tables.cents(report.money_at_risk_usd)),
        "max_confirmations": report.max_confirmations,
        "corrections_written": report.corrections,
        "proposed_rows": report.proposed_rows,
        "open_trades": report.open_trades,
        "unusable_rows": report.data_defects,
        "watchdog_triggered": int(report.integrity_watchdog_triggered),
        "lease_contended": int(bool(outcome.cycle.lease)),
        "api_calls_of_account": outcome.cycle.api_calls,
        "account": report.account_id,
        "paused": pause.paused,
        **({"paused_since": f"{_since(pause)} {paused}"} if paused else {}),
        "cycle_at": tables.instant_text(report.cycle_at_ms),
    }


def _since(pause: PauseState) -> str:
    return pause.since.strftime("%Y-%m-%d %H:%M:%S UTC") if pause.since else "this cycle"


def _stage(outcome: CycleOutcome, stage: StageOutcome) -> Metadata:
    cycle = outcome.cycle
    entries: Metadata = {"outcome": stage_sentence(stage)}
    if not stage.attempted and stage.skipped_reason:
        entries |= {
            "skipped_reason": stage.skipped_reason,
            "what_to_do": cycle_remedies.for_skipped_stage(stage.stage, stage.skipped_reason),
        }
    if stage.changes:
        entries["corrections"] = cycle_tables.corrections_table([stage])
    if stage.postponed:
        entries["postponed"] = cycle_tables.postponed_table(stage)
    if stage.stage is Stage.POSITION_PARITY:
        report = cycle.report
        entries |= {
            "out_of_line": cycle_tables.parity_table(cycle.parity),
            "money_out_of_line_usd": float(tables.cents(report.parity_total_mismatch_notional_usd)),
            "largest_out_of_line_usd": float(tables.cents(report.parity_max_mismatch_notional_usd)),
            "confirmations": int(cycle.parity["confirmations"].max()) if len(cycle.parity) else 0,
        }
    if found := _not_shown_above(stage.findings, cycle):
        entries["findings"] = cycle_tables.findings_table(found)
    if stage.batch_id and stage.applied:
        entries["batch_id"] = stage.batch_id
    return {
        **entries,
        "wanted_rows": len(stage.changes),
        "written_rows": len(stage.applied),
        "postponed_rows": len(stage.postponed),
        "dry_run": stage.dry_run,
        **{name: int(count) for name, count in stage.counts.items()},
    }


def stage_sentence(stage: StageOutcome) -> str:
    """Return what a stage did in one sentence."""
    state = cycle_tables.stage_state(stage)
    if not stage.attempted or stage.failure is not None:
        return f"{state[0].upper()}{state[1:]}."
    if not stage.changes:
        found = f" {tables.counted(len(stage.findings), 'finding')}." if stage.findings else ""
        return f"Nothing to correct.{found}"
    wanted = tables.counted(len(stage.changes), "row")
    if stage.dry_run:
        return f"{wanted} would be corrected (dry run)."
    postponed = f"; {len(stage.postponed)} postponed" if stage.postponed else ""
    return f"{len(stage.applied)} of {wanted} corrected{postponed}."


def as_backfill(outcome: CycleOutcome, run_id: str, *, with_rows: bool = False) -> Outcome:
    """Return the exit backfill's part of a cycle as a run of the exit backfill would show it."""
    cycle = outcome.cycle
    ask = Ask(profile_ids=(outcome.profile_id,), run_id=run_id, apply=cycle.applied is not None)
    plan = cycle.plan
    return Outcome(
        outcome.profile_id,
        ask,
        Step.DONE,
        plan=plan,
        account=outcome.account,
        pause=pause_of(outcome),
        lifecycle_rows=outcome.lifecycle_rows if with_rows else None,
        skipped_reason=plan.skipped_reason if plan is not None else "",
        skipped_detail=plan.skipped_detail if plan is not None else "",
        recorded=cycle.recorded,
        applied=cycle.applied,
    )


def _backfill(outcome: CycleOutcome, key: str, *, dashboard_url: str, location: str, run_id: str) -> Metadata | None:
    cycle, shown = outcome.cycle, as_backfill(outcome, run_id, with_rows=key == cat.LIFECYCLE_KEY)
    if cycle.plan is None or outcome.account is None:
        return None
    if key == cat.APPLIED_KEY and (cycle.applied is None or cycle.applied.state is not ApplyState.APPLIED):
        return None
    metadata = presentation.metadata_of(shown, key, dashboard_url=dashboard_url, location=location)
    return {**metadata, **_common(outcome)}
