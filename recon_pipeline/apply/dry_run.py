"""The dry run: a plan written down, not applied. It runs as ``recon_reader``, which may not write the bots' tables."""

from __future__ import annotations

from typing import Any

from recon_pipeline.apply.outcomes import RecordedPlan
from recon_pipeline.apply.records import KIND, check_plan, plan_document
from recon_pipeline.domain.audit import decision_audit_records, proposal_audit_records
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.terms import Decision
from recon_pipeline.ledger.audit import insert_audit_records
from recon_pipeline.ledger.batches import BatchState, record_batches
from recon_pipeline.ledger.database import READER, connect


def record_plan(database_url: str, plan: ProfilePlan, *, run_id: str) -> RecordedPlan:
    """Write the plan's DRY_RUN audit rows, its decisions and its batch (PLANNED), and nothing else.

    A plan that proposes and decides nothing leaves no trace. Recording a batch again changes nothing.

    :raises ValueError: the plan was skipped or does not agree with its digest
    """
    totals = check_plan(plan)
    records = [
        *proposal_audit_records(plan, Decision.DRY_RUN),
        *decision_audit_records(plan, dry_run=True),
    ]
    if not records:
        return RecordedPlan(plan.batch_id, 0, batch_recorded=False)
    with connect(database_url, READER, "recon dry run") as connection, connection.transaction():
        new = record_batches(connection, [batch_record(plan, BatchState.PLANNED, totals, run_id=run_id)])
        if not new:
            return RecordedPlan(plan.batch_id, 0, batch_recorded=False)
        written = insert_audit_records(connection, records)
    return RecordedPlan(plan.batch_id, len(written), batch_recorded=True)


def batch_record(
    plan: ProfilePlan, state: BatchState, totals: dict[str, str], *, run_id: str, reviewed_digest: str | None = None
) -> dict[str, Any]:
    """The row of ``recon.batches``."""
    return {
        "batch_id": plan.batch_id,
        "profile_id": plan.profile_id,
        "account_id": plan.account_id,
        "kind": KIND,
        "state": state.value,
        "digest": plan.digest,
        "reviewed_digest": reviewed_digest,
        "plan": plan_document(plan),
        "conservation": totals,
        "run_id": run_id,
    }
