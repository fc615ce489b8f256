"""One profile's share of a run: the answers judged, written, and remembered, under the profile's lease.

What belongs here: what is one transaction. Corrections, the checks that they leave and the counts of both are: a run that is
killed has done all of that for a profile, or nothing. What does not: which orders are asked about (``syncing``), rules
(``domain``), and how rows are written (``apply``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from recon_pipeline.apply import ApplyState, CorrectionResult, apply_corrections
from recon_pipeline.domain.corrections import CorrectionPlan, Stage, changes_digest
from recon_pipeline.domain.order_answers import Checked, Decision
from recon_pipeline.domain.order_checks import checks_after, outcomes_after, stale_rows
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_readings import ledger_orders_frame
from recon_pipeline.domain.order_status import OrderStatusPlan, counts_of, plan_order_status
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.engine import Failure
from recon_pipeline.ledger.database import READER, Connection, connect
from recon_pipeline.ledger.leases import Lease
from recon_pipeline.ledger.order_checks import live_orders, read_checks, save_checks
from recon_pipeline.order_status.asking import Answered
from recon_pipeline.order_status.outcome import ProfileSync
from recon_pipeline.order_status.ports import Record, SyncPorts
from recon_pipeline.order_status.reading import profile_inputs, profiles_frame

CHANGED_SINCE_PREVIEW: Final = "changed_since_preview"
"""why a change was not written: the profile's plan is not the one that a person confirmed"""


class LeaseLostError(Exception):
    """The lease was lost before anything could be saved; nothing was."""


@dataclass(frozen=True)
class SyncContext:
    """What all profiles of a run share."""

    ports: SyncPorts
    policy: OrderStatusPolicy
    run_id: str
    began: dt.datetime
    now: Callable[[], dt.datetime]
    new_id: Callable[[], str]
    dry_run: bool
    remember: bool
    """whether the checks are saved: not where a person only previews"""
    managed_symbols: Sequence[str] | None
    decided: Mapping[RowKey, Decision]
    at: Callable[[str], None]
    """called at the fault points that a kill test kills at"""

    @property
    def began_ms(self) -> int:
        """The instant of the run: one for all its answers."""
        return int(self.began.timestamp() * 1000)


@dataclass(frozen=True)
class ProfileShare:
    """One profile, and what the exchange said of its orders."""

    profile_id: str
    siblings: Mapping[str, Record]
    """every profile of its account, by profile"""
    answered: Answered
    left_over: int = 0
    """due orders that were not asked about"""
    confirmed: str | None = None
    """digest of the changes that a person confirmed; None where nobody was asked"""

    @property
    def user_id(self) -> str:
        """Owner of the profile."""
        return str(self.siblings[self.profile_id]["user_id"] or "")

    @property
    def account_id(self) -> str:
        """Account of the profile."""
        return str(self.siblings[self.profile_id]["account_id"])


@dataclass(frozen=True)
class Judged:
    """What the answers make of a profile's rows, as the ledger is now."""

    stale: pd.DataFrame
    """ORDER_CHECKS before the answers"""
    plan: OrderStatusPlan
    changes: CorrectionPlan
    digest: str = field(default="")


def judge(connection: Connection, context: SyncContext, share: ProfileShare) -> Judged:
    """Read the ledger as it is now, and decide what the answers make of it."""
    policy, profile_id, answered = context.policy, share.profile_id, share.answered
    before = context.began - dt.timedelta(milliseconds=policy.stale_ms)
    stale = stale_rows(
        ledger_orders_frame(live_orders(connection, [profile_id], placed_before=before)),
        profiles_frame({profile_id: share.siblings[profile_id]}, selected=[profile_id], managed_symbols=None),
        read_checks(connection, [profile_id]),
        policy,
        now_ms=context.began_ms,
    )
    inputs = profile_inputs(
        connection,
        profile_id,
        share.siblings,
        ids={key for check in answered.checks for key in (check.order_id, check.client_order_id)},
        trade_ids={check.trade_id for check in answered.checks},
        found=answered.found,
        managed_symbols=context.managed_symbols,
    )
    plan = plan_order_status(
        inputs,
        policy,
        asked=answered.asked,
        absent=answered.absent,
        unknown=answered.unknown,
        now_ms=context.began_ms,
        ownership=own_orders(inputs),
        decided=context.decided,
    )
    changes = plan.for_profile(profile_id, f"RECON-ORDER-STATUS-{context.new_id()}")
    return Judged(stale, plan, changes, changes_digest(changes.changes))


def sync_profile(context: SyncContext, share: ProfileShare, lease: Lease | None) -> ProfileSync:
    """Judge the answers about one profile, write what they change, and remember them.

    :param lease: the profile's; None only where nothing is written and nothing remembered
    :raises LeaseLostError: see there
    """
    with connect(context.ports.database_url, READER, "recon order status") as connection:
        judged = judge(connection, context, share)
        context.at("judged")
        told = _Telling(context, share, judged)
        changed = share.confirmed is not None and share.confirmed != judged.digest
        if context.dry_run or changed or not judged.changes.changes or lease is None:
            why = {share.profile_id: CHANGED_SINCE_PREVIEW} if changed else {}
            return told.remembered(connection, lease, failed=why)
        result = apply_corrections(
            context.ports.database_url,
            judged.changes,
            run_id=context.run_id,
            now=context.now(),
            lease=lease,
            owner=lease.owner,
            also=lambda writing, written: told.save(writing, lease, written),
            at=context.at,
        )
        if result.state is ApplyState.APPLIED:
            return told.outcome(result)
        if result.ok:
            return told.remembered(connection, lease, result=result)
        why = {share.profile_id: f"{result.refused_reason}: {result.detail}"}
        failure = Failure(Stage.ORDER_STATUS.value, why[share.profile_id])
        return told.remembered(connection, lease, failed=why, failure=failure)


@dataclass
class _Telling:
    """What is saved and said of one profile's answers."""

    context: SyncContext
    share: ProfileShare
    judged: Judged

    def save(
        self,
        connection: Connection,
        lease: Lease,
        result: CorrectionResult | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        """Save what is remembered from now on, in the caller's transaction where there is one."""
        outcomes = self._outcomes(result, failed or {})
        saved = save_checks(
            connection, lease, self._checks(outcomes), counts=self._counts(outcomes), run_id=self.context.run_id
        )
        if not saved:
            raise LeaseLostError(f"the lease of {self.share.profile_id} was lost; nothing of its answers was kept")
        self.context.at("checks_saved")

    def remembered(
        self,
        connection: Connection,
        lease: Lease | None,
        *,
        result: CorrectionResult | None = None,
        failed: Mapping[str, str] | None = None,
        failure: Failure | None = None,
    ) -> ProfileSync:
        """Save it where it is to be remembered, and say what became of the answers: no row was written."""
        if self.context.remember and lease is not None:
            self.save(connection, lease, result, failed)
            self.context.at("committed_checks")
        return self.outcome(result, failed, failure)

    def outcome(
        self,
        result: CorrectionResult | None = None,
        failed: Mapping[str, str] | None = None,
        failure: Failure | None = None,
    ) -> ProfileSync:
        """What became of the answers."""
        share, changes = self.share, self.judged.changes
        outcomes = self._outcomes(result, failed or {})
        applied = () if result is None else result.applied
        postponed = {} if result is None else dict(result.postponed)
        if failed:
            postponed |= {change.order_id: failed[share.profile_id] for change in changes.changes}
        return ProfileSync(
            profile_id=share.profile_id,
            user_id=share.user_id,
            account_id=share.account_id,
            counts=self._counts(outcomes),
            checks=self._checks(outcomes),
            changes=changes.changes,
            applied=applied,
            postponed=postponed,
            findings=self.judged.plan.findings_of(share.profile_id),
            batch_id=changes.batch_id if applied else "",
            failure=failure,
        )

    def _outcomes(self, result: CorrectionResult | None, failed: Mapping[str, str]) -> dict[RowKey, Checked]:
        profile_id = self.share.profile_id
        return outcomes_after(
            self.judged.plan,
            applied=frozenset() if result is None else frozenset((profile_id, key) for key in result.applied),
            postponed={} if result is None else {(profile_id, key): why for key, why in result.postponed.items()},
            failed_profiles=failed,
            dry_run=self.context.dry_run,
        )

    def _checks(self, outcomes: Mapping[RowKey, Checked]) -> pd.DataFrame:
        return checks_after(
            self.judged.stale, self.judged.plan, outcomes, policy=self.context.policy, now_ms=self.context.began_ms
        )

    def _counts(self, outcomes: Mapping[RowKey, Checked]) -> dict[str, int]:
        left_over = self.share.left_over + self.share.answered.unasked
        return counts_of(outcomes, self.share.profile_id, left_over=left_over)
