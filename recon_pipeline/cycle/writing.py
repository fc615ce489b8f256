"""What a step wants written: written, recorded, or only shown, for one profile; the outcome says which.

What does not belong here: what to write (``domain``) and the transactions (``apply``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from recon_pipeline.apply import apply_corrections
from recon_pipeline.cycle.backfill import apply_unattended, record_if_new
from recon_pipeline.cycle.context import CycleContext, ProfileProgress
from recon_pipeline.cycle.outcome import StageOutcome
from recon_pipeline.domain.corrections import CorrectionPlan, Finding, Stage
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.engine import Failure
from recon_pipeline.ledger.database import redact

LEASE_LOST = (
    "lease_lost: the profile's lease was lost while the cycle worked; nothing more is written, the next cycle goes on"
)


def carry_out(
    context: CycleContext,
    plan: CorrectionPlan,
    *,
    counts: Mapping[str, int],
    findings: tuple[Finding, ...],
    dry_run: bool,
) -> StageOutcome:
    """Write the changes of one step for one profile, unless it is a dry run; a failure is part of the outcome."""
    outcome = StageOutcome(
        plan.stage,
        attempted=True,
        dry_run=dry_run,
        counts=dict(counts),
        changes=plan.changes,
        findings=findings,
    )
    if dry_run or not plan.changes:
        return outcome
    lease = context.ports.leases.of(plan.profile_id)
    if lease is None:
        return replace(outcome, failure=Failure(plan.stage.value, LEASE_LOST))
    try:
        result = apply_corrections(
            context.ports.database_url,
            plan,
            run_id=context.run_id,
            now=context.now(),
            lease=lease,
            owner=context.run_id,
        )
    except Exception as error:  # noqa: BLE001  one profile's failure stays its own
        text = redact(str(error), context.ports.database_url)
        return replace(outcome, failure=Failure(plan.stage.value, f"{type(error).__name__}: {text}"))
    failure = None if result.ok else Failure(plan.stage.value, f"{result.refused_reason}: {result.detail}")
    inserted = {change.order_id for change in plan.changes if change.inserts}
    return replace(
        outcome,
        counts={**counts, "inserted_rows": len(inserted & set(result.applied)), "written_rows": len(result.applied)},
        applied=tuple(result.applied),
        postponed=dict(result.postponed),
        batch_id=plan.batch_id if result.applied else "",
        failure=failure,
    )


def backfill_outcome(context: CycleContext, progress: ProfileProgress, plan: ProfilePlan) -> StageOutcome:
    """Record the plan of the exit backfill, or apply it where the operator's settings say so."""
    dry_run = context.policy.exit_backfill_dry_run
    counts = {
        "open_trade_candidates": int(plan.open_trade_candidates),
        "proposed_rows": len(plan.proposals),
        "inserted_rows": 0,
        "no_go_trades": plan.no_go_trades,
    }
    if not plan.attempted:
        return StageOutcome(
            Stage.EXIT_BACKFILL, attempted=False, skipped_reason=plan.skipped_reason, dry_run=dry_run, counts=counts
        )
    outcome = StageOutcome(Stage.EXIT_BACKFILL, attempted=True, dry_run=dry_run, counts=counts, batch_id=plan.batch_id)
    url = context.ports.database_url
    lease = context.ports.leases.of(plan.profile_id)
    if lease is None:
        return replace(outcome, failure=Failure(Stage.EXIT_BACKFILL.value, LEASE_LOST))
    try:
        if dry_run:
            progress.recorded = record_if_new(url, plan, run_id=context.run_id)
            return replace(outcome, batch_id=progress.recorded.batch_id)
        result = apply_unattended(
            url,
            plan,
            run_id=context.run_id,
            now=context.now(),
            lease=lease,
            require_pause=context.policy.exit_backfill.require_pause,
        )
    except Exception as error:  # noqa: BLE001  one profile's failure stays its own
        text = redact(str(error), url)
        return replace(outcome, failure=Failure(Stage.EXIT_BACKFILL.value, f"{type(error).__name__}: {text}"))
    progress.applied = applied = result.applied
    failure = None
    if not applied.ok:
        failure = Failure(Stage.EXIT_BACKFILL.value, f"{applied.refused_reason}: {applied.detail}")
    elif result.verification is not None and not result.verification.passed:
        wrong = "; ".join(f"{check.name}: {check.detail}" for check in result.verification.checks if not check.passed)
        failure = Failure(Stage.EXIT_BACKFILL.value, f"the batch does not verify: {wrong}")
    return replace(
        outcome,
        counts={**counts, "inserted_rows": applied.inserted_rows},
        applied=(*applied.inserted, *applied.reapplied),
        failure=failure,
    )
