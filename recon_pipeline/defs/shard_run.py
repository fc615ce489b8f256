"""One shard of profiles from reading to outcome: leases, engine, snapshots, audit or apply, planning again.

Knows no Dagster: what happens is handed out as outcomes, one profile at a time, and whoever asked logs them. One
profile's failure is its outcome and never stops the others. Not here: any rule about trades, and how an outcome looks.

Order in an apply: leases first, then the reading, so that nobody else changes a profile between its plan and its apply.
"""

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum

import pandas as pd

from recon_pipeline.apply import ApplyResult, BatchVerification, RecordedPlan, apply_plan, record_plan, verify_batch
from recon_pipeline.apply.outcomes import ApplyState
from recon_pipeline.apply.records import KIND
from recon_pipeline.cycle.backfill import record_if_new
from recon_pipeline.defs.lease_keeper import HeldLeases, holding_leases
from recon_pipeline.defs.resources import AttentiveLedger, Outside
from recon_pipeline.defs.snapshots import RunSnapshots
from recon_pipeline.defs.stages import save_plan, save_reading
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.engine import Failure, ShardPlan, ShardReading, plan_shard, read_shard
from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.ledger.batches import BatchState, latest_batch
from recon_pipeline.ledger.cycle_state import LEASE_HELD
from recon_pipeline.ledger.database import READER, Row, connect, redact
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.reads import RUNNING, PauseState
from recon_pipeline.settings import Settings

_LOG = logging.getLogger(__name__)
Fingerprint = Mapping[str, object]


@dataclass(frozen=True)
class Ask:
    """What a run was asked to do."""

    profile_ids: tuple[str, ...]
    run_id: str
    apply: bool = False
    record: bool = True
    """write the audit rows of a dry run"""
    only_changes: bool = False
    """record a plan only where it differs from the newest one on record"""
    fingerprint: bool = True
    """compare the bots' tables before and after a dry run"""
    reapply_reverted: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    """the reviewed digest, by profile"""


class Step(StrEnum):
    """How far a profile has come."""

    FAILED = "failed"
    PLANNED = "planned"
    DONE = "done"


@dataclass(frozen=True)
class Outcome:
    """One profile's outcome as far as it has come. ``failure`` is set where a person has to look before anything else."""

    profile_id: str
    ask: Ask
    step: Step
    snapshots: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    plan: ProfilePlan | None = None
    reading: ShardReading | None = None
    account: AccountReading | None = None
    lifecycle_rows: pd.DataFrame | None = None
    """LIFECYCLE_ROWS of the account's profiles"""
    pause: PauseState = RUNNING
    skipped_reason: str = ""
    skipped_detail: str = ""
    recorded: RecordedPlan | None = None
    applied: ApplyResult | None = None
    verification: BatchVerification | None = None
    again: ProfilePlan | None = None
    """the plan made after the apply"""
    again_failure: str = ""
    before: Fingerprint | None = None
    after: Fingerprint | None = None

    @property
    def was_applied(self) -> bool:
        """Whether the apply ran to its end, with or without something to write."""
        return self.applied is not None and self.applied.ok


def run_shard(outside: Outside, ask: Ask) -> Iterator[Outcome]:
    """Yield every profile once as PLANNED (or FAILED), then, unless it failed there, once as DONE or FAILED.

    :raises SettingError: a setting can't be read
    :raises DatabaseUnavailableError: the ledger can't be read
    :raises SnapshotError: a snapshot can't be written; nothing was recorded or applied
    """
    settings = outside.settings()
    policy = replace(settings.exit_backfill, reapply_reverted=ask.reapply_reverted)
    with ExitStack() as stack:
        ledger = stack.enter_context(outside.ledger(settings))
        leases = stack.enter_context(_leases(settings, ask))
        before = _fingerprints(ledger, ask)
        reading = _read(outside, settings, ledger, ask.profile_ids, policy)
        snapshots = RunSnapshots.of_run(settings.snapshot_url, ask.run_id, outside.now())
        places = save_reading(snapshots, reading, policy)
        planned = plan_shard(reading, policy)
        places = {**places, **save_plan(snapshots, planned)}
        outcomes = [
            replace(_planned(profile, ask, reading, planned, ledger, leases), snapshots=places)
            for profile in ask.profile_ids
        ]
        yield from outcomes
        ready = [outcome for outcome in outcomes if outcome.failure is None]
        if ask.apply:
            yield from _apply_all(outside, settings, ledger, policy, ready, leases)
        else:
            yield from _record_all(settings, ledger, ready, before)


def _leases(settings: Settings, ask: Ask) -> AbstractContextManager[HeldLeases | None]:
    if not ask.apply:
        return nullcontext()
    return holding_leases(settings.database_url, ask.profile_ids, owner=ask.run_id, ttl_seconds=settings.lease_seconds)


def _read(
    outside: Outside,
    settings: Settings,
    ledger: AttentiveLedger,
    profile_ids: Sequence[str],
    policy: ExitBackfillPolicy,
) -> ShardReading:
    accounts = {str(row["account_id"]) for row in ledger.account_siblings(profile_ids)}
    with EvidenceStore(settings.database_url) as store:
        return read_shard(
            profile_ids,
            ledger=ledger,
            exchange=outside.exchange(settings, accounts, store),
            policy=policy,
            now_ms=int(outside.now().timestamp() * 1000),
            new_batch_id=lambda: f"RECON-BFILL-{uuid.uuid4()}",
            managed_symbols=settings.managed_symbols,
        )


def _planned(
    profile_id: str,
    ask: Ask,
    reading: ShardReading,
    planned: ShardPlan,
    ledger: AttentiveLedger,
    leases: HeldLeases | None,
) -> Outcome:
    failure = planned.failures.get(profile_id)
    if failure is not None:
        known = bool((reading.inputs.profiles["profile_id"] == profile_id).any())
        account = reading.account_of(profile_id) if known else None
        return Outcome(profile_id, ask, Step.FAILED, failure=failure, reading=reading, account=account)
    plan = planned.plans[profile_id]
    reason, detail = plan.skipped_reason, plan.skipped_detail
    if not reason and leases is not None and leases.of(profile_id) is None:
        reason, detail = LEASE_HELD, "another run holds the profile's lease"
    return Outcome(
        profile_id,
        ask,
        Step.PLANNED,
        plan=plan,
        reading=reading,
        account=reading.account_of(profile_id),
        lifecycle_rows=reading.inputs.lifecycle_rows,
        pause=ledger.pauses.get(profile_id, RUNNING),
        skipped_reason=reason,
        skipped_detail=detail,
    )


def _fingerprints(ledger: AttentiveLedger, ask: Ask) -> dict[str, Fingerprint]:
    if ask.apply or not ask.fingerprint:
        return {}
    rows = ledger.rows("ledger_fingerprints", {"profile_ids": list(ask.profile_ids)})
    return {row["profile_id"]: row for row in rows}


def _record_all(
    settings: Settings, ledger: AttentiveLedger, outcomes: list[Outcome], before: Mapping[str, Fingerprint]
) -> Iterator[Outcome]:
    recorded = [_record(settings, outcome) if outcome.ask.record else outcome for outcome in outcomes]
    after = _fingerprints(ledger, outcomes[0].ask) if outcomes else {}
    for outcome in recorded:
        step = Step.DONE if outcome.failure is None else Step.FAILED
        profile = outcome.profile_id
        yield replace(outcome, step=step, before=before.get(profile), after=after.get(profile))


def _record(settings: Settings, outcome: Outcome) -> Outcome:
    if outcome.skipped_reason or outcome.plan is None:
        return outcome
    try:
        record = record_if_new if outcome.ask.only_changes else record_plan
        return replace(outcome, recorded=record(settings.database_url, outcome.plan, run_id=outcome.ask.run_id))
    except Exception as error:  # noqa: BLE001  one profile's failure, whatever it is, stays its own
        return replace(outcome, failure=_unexpected("audit", error, settings))


def _apply_all(
    outside: Outside,
    settings: Settings,
    ledger: AttentiveLedger,
    policy: ExitBackfillPolicy,
    outcomes: list[Outcome],
    leases: HeldLeases | None,
) -> Iterator[Outcome]:
    done = [_apply(outside, settings, outcome, leases) for outcome in outcomes]
    wrote = [
        outcome.profile_id
        for outcome in done
        if outcome.applied is not None and outcome.applied.state is ApplyState.APPLIED
    ]
    again: ShardPlan | None = None
    trouble = ""
    if wrote:
        try:
            again = plan_shard(_read(outside, settings, ledger, wrote, policy), policy)
        except Exception as error:  # noqa: BLE001  what was applied stays applied; it is shown as not verified
            trouble = _unexpected("verification", error, settings).message
    for outcome in done:
        yield _verified(settings, outcome, again, trouble) if outcome.profile_id in wrote else outcome


def _apply(outside: Outside, settings: Settings, outcome: Outcome, leases: HeldLeases | None) -> Outcome:
    profile, ask = outcome.profile_id, outcome.ask
    digest = ask.digests.get(profile)
    if outcome.skipped_reason or outcome.plan is None:
        if digest is None:
            return replace(outcome, step=Step.DONE)
        said = f"{outcome.skipped_reason}: {outcome.skipped_detail}".rstrip(": ")
        return replace(outcome, step=Step.FAILED, failure=Failure("apply", f"nothing was applied: {said}"))
    try:
        result = apply_plan(
            settings.database_url,
            outcome.plan,
            run_id=ask.run_id,
            now=outside.now(),
            lease=leases.of(profile) if leases is not None else None,
            owner=ask.run_id,
            expected_digest=digest,
            require_review=settings.require_review,
            require_pause=settings.exit_backfill.require_pause,
        )
    except Exception as error:  # noqa: BLE001  one profile's failure, whatever it is, stays its own
        return replace(outcome, step=Step.FAILED, failure=_unexpected("apply", error, settings))
    if result.ok and digest is not None and digest != outcome.plan.digest:
        # Nothing is proposed any more: applied by an earlier run, or not what was reviewed.
        earlier = _applied_before(settings, profile)
        if earlier is None or earlier["digest"] != digest:
            message = f"the reviewed plan {digest} is gone: nothing is proposed any more; launch a new dry run"
            return replace(outcome, step=Step.FAILED, applied=result, failure=Failure("apply", message))
        result = replace(result, detail=f"this digest was applied before, by batch {earlier['batch_id']}")
    if not result.ok:
        message = f"nothing was applied: {result.refused_reason}: {result.detail}".rstrip(": ")
        return replace(outcome, step=Step.FAILED, applied=result, failure=Failure("apply", message))
    return replace(outcome, step=Step.DONE, applied=result)


def _applied_before(settings: Settings, profile_id: str) -> Row | None:
    with connect(settings.database_url, READER, "recon apply") as connection:
        return latest_batch(connection, profile_id, KIND, [BatchState.APPLIED])


def _verified(settings: Settings, outcome: Outcome, again: ShardPlan | None, trouble: str) -> Outcome:
    profile = outcome.profile_id
    verification: BatchVerification | None = None
    try:
        verification = verify_batch(settings.database_url, outcome.applied.batch_id) if outcome.applied else None
    except Exception as error:  # noqa: BLE001  one profile's failure, whatever it is, stays its own
        trouble = trouble or _unexpected("verification", error, settings).message
    if again is not None and profile in again.failures:
        trouble = trouble or again.failures[profile].message
    plan = again.plans.get(profile) if again is not None else None
    return replace(outcome, verification=verification, again=plan, again_failure=trouble)


def _unexpected(stage: str, error: Exception, settings: Settings) -> Failure:
    _LOG.error("%s failed", stage, exc_info=error)
    return Failure(stage, f"{type(error).__name__}: {redact(str(error), settings.database_url)}")
