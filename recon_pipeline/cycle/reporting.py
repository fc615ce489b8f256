"""The report of one profile's cycle, from what its stages did. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from recon_pipeline.cycle.context import ProfileProgress
from recon_pipeline.cycle.outcome import ReconciliationReport, StageOutcome
from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.position_parity import ProfileParity
from recon_pipeline.ledger.reads import PauseState


def build_report(
    *,
    progress: ProfileProgress,
    run_id: str,
    cycle_at_ms: int,
    pause: PauseState,
    evidence_complete: bool,
    error: str,
) -> ReconciliationReport:
    """Return the counters of the profile's cycle.

    :param pause: what holds for the profile after the cycle
    :param error: why it failed, whole or in a step; empty where it did not
    """
    stages, plan, parity = progress.stages, progress.plan, progress.parity
    counted = progress.parity_counts
    orders = _counts(stages, Stage.ORDER_PARITY)
    positions = _counts(stages, Stage.POSITION_PARITY)
    failed = tuple(stage.value for stage, outcome in stages.items() if outcome.failure is not None)
    findings = [finding for outcome in stages.values() for finding in outcome.findings]
    postponed = sum(len(outcome.postponed) for outcome in stages.values())
    unwritten = sum(len(outcome.changes) - len(outcome.applied) for outcome in stages.values())
    missing = missing_in_db(stages)
    no_go = plan.no_go_trades if plan is not None else 0
    waiting = _waiting(findings)
    clean = (
        evidence_complete
        and not failed
        and not error
        and not postponed
        and not unwritten
        and not missing
        and not no_go
        and not waiting
        and parity.empty
        and _compared(stages, counted)
        and not progress.triggered
        and not orders.get("missing_from_exchange", 0)
        and not rows_left_alone(stages)
    )
    confirmations = [0, *(int(n) for frame in (progress.confirmations, parity) for n in frame["confirmations"])]
    return ReconciliationReport(
        profile_id=progress.profile_id,
        user_id=progress.user_id,
        account_id=progress.account_id,
        run_id=run_id,
        cycle_at_ms=cycle_at_ms,
        processed=not error,
        mismatch_count=int(orders.get("mismatch_count", 0)),
        missing_from_exchange=int(orders.get("missing_from_exchange", 0)),
        missing_in_db=missing,
        no_go_trades=no_go,
        no_go_reason_counts=plan.no_go_reason_counts if plan is not None else {},
        no_go_samples=tuple(plan.no_go_samples) if plan is not None else (),
        parity_mismatch_trades=int(positions.get("mismatch_trades", 0)),
        parity_quarantined_trades=int(positions.get("quarantined_trades", 0)),
        parity_auto_closed_trades=int(positions.get("auto_closed_trades", 0)),
        parity_max_mismatch_notional_usd=Decimal(0) if counted is None else counted.max_mismatch_notional_usd,
        parity_total_mismatch_notional_usd=(Decimal(0) if counted is None else counted.total_mismatch_notional_usd),
        integrity_watchdog_triggered=progress.triggered,
        error=error,
        skipped_reason="" if evidence_complete else "evidence_incomplete",
        evidence_complete=evidence_complete,
        corrections=sum(len(outcome.applied) for outcome in stages.values()),
        proposed_rows=len(plan.proposals) if plan is not None else 0,
        open_trades=int(plan.open_trade_candidates) if plan is not None else 0,
        max_confirmations=max(confirmations),
        waiting_for_person=waiting + no_go,
        money_at_risk_usd=_money_at_risk(plan),
        paused=pause.paused,
        pause_source=pause.source,
        failed_stages=failed,
        data_defects=len(_stage_findings(stages, Stage.READING)),
        clean=clean,
    )


def missing_in_db(stages: Mapping[Stage, StageOutcome]) -> int:
    """Orders of the profile that the ledger still lacks: live ones not recorded, and executed ones not inserted."""
    orders, coverage = _counts(stages, Stage.ORDER_PARITY), _counts(stages, Stage.ORDER_COVERAGE)
    uncovered = int(coverage.get("missing_in_db", 0)) - int(coverage.get("inserted_rows", 0))
    return int(orders.get("missing_in_db", 0)) + max(0, uncovered)


def rows_left_alone(stages: Mapping[Stage, StageOutcome]) -> int:
    """Rows of orders that order parity found to differ from their order and did not correct: something speaks against it.

    What is out of scope is not among them: the operator's own setting leaves it alone.
    """
    scope = OrderReason.OUT_OF_SCOPE.value
    found = _stage_findings(stages, Stage.ORDER_PARITY)
    return len({finding.order_id for finding in found if finding.order_id and finding.reason != scope})


def as_record(report: ReconciliationReport) -> dict[str, Any]:
    """Return the report as plain values, for the table of reports."""
    return asdict(report)


def _counts(stages: Mapping[Stage, StageOutcome], stage: Stage) -> Mapping[str, int]:
    outcome = stages.get(stage)
    return {} if outcome is None else outcome.counts


def _compared(stages: Mapping[Stage, StageOutcome], counted: ProfileParity | None) -> bool:
    """Whether every position was compared; an operator who turned the comparison off does not want to hear of it."""
    if counted is None:
        outcome = stages.get(Stage.POSITION_PARITY)
        return outcome is not None and outcome.skipped_reason == "disabled"
    return not counted.frozen_trades


def _stage_findings(stages: Mapping[Stage, StageOutcome], stage: Stage) -> tuple[Finding, ...]:
    outcome = stages.get(stage)
    return () if outcome is None else outcome.findings


def _waiting(findings: Iterable[Finding]) -> int:
    """How many different things only a person can resolve."""
    return len(
        {
            (finding.reason, finding.order_id, finding.trade_id, finding.exchange_order_id, finding.symbol)
            for finding in findings
            if finding.needs_person
        }
    )


def _money_at_risk(plan: ProfilePlan | None) -> Decimal:
    if plan is None or plan.trades.empty:
        return Decimal(0)
    stuck = plan.trades[plan.trades["outcome"] == "no_go"]
    return sum((value for value in stuck["notional_usd"] if value is not None), Decimal(0))
