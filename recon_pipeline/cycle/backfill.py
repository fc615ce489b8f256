"""The exit backfill within a cycle: every plan recorded where it is new, or applied where the operator's settings say so.

What does not belong here: planning (``engine``) and the apply itself (``recon_pipeline.apply``).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass

from recon_pipeline.apply import ApplyResult, BatchVerification, RecordedPlan, apply_plan, record_plan, verify_batch
from recon_pipeline.apply.outcomes import ApplyState
from recon_pipeline.apply.records import KIND, plan_document
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.ledger.batches import BatchState, latest_batch, read_batch
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.leases import Lease


@dataclass(frozen=True)
class BackfillResult:
    """What became of one profile's plan."""

    applied: ApplyResult
    verification: BatchVerification | None = None


def record_if_new(database_url: str, plan: ProfilePlan, *, run_id: str) -> RecordedPlan:
    """Record a plan where it differs from the newest one on record: a quiet profile leaves no trace of a dry run."""
    known = _on_record(database_url, plan)
    if known is not None:
        return RecordedPlan(known, 0, batch_recorded=False)
    return record_plan(database_url, plan, run_id=run_id)


def apply_unattended(
    database_url: str, plan: ProfilePlan, *, run_id: str, now: dt.datetime, lease: Lease, require_pause: bool
) -> BackfillResult:
    """Apply a plan that nobody reviewed: the operator's setting is the permission, every other gate holds."""
    result = apply_plan(
        database_url,
        plan,
        run_id=run_id,
        now=now,
        lease=lease,
        owner=run_id,
        expected_digest=None,
        require_review=False,
        require_pause=require_pause,
    )
    if result.state is not ApplyState.APPLIED:
        return BackfillResult(applied=result)
    return BackfillResult(applied=result, verification=verify_batch(database_url, result.batch_id))


def _on_record(database_url: str, plan: ProfilePlan) -> str | None:
    """The profile's newest planned batch if it says the same as the plan, whatever its id."""
    with connect(database_url, READER, "recon dry run") as connection:
        newest = latest_batch(connection, plan.profile_id, KIND, [BatchState.PLANNED])
        batch = (
            None if newest is None or newest["digest"] != plan.digest else read_batch(connection, newest["batch_id"])
        )
    if batch is None or _comparable(batch["plan"]) != _comparable(plan_document(plan)):
        return None
    return str(batch["batch_id"])


def _comparable(document: Mapping[str, object]) -> object:
    return json.loads(json.dumps({**document, "batch_id": ""}, default=str))
