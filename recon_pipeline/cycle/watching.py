"""The watchdogs of an account's profiles in one cycle: judged, written down, and told.

What belongs here: when a verdict is asked for, and carrying it out. What does not: the verdicts (``domain.watchdog``) and the
delivery of events (``alerting``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from recon_pipeline.apply import set_trading_state
from recon_pipeline.cycle.context import CycleContext, ProfileProgress
from recon_pipeline.cycle.outcome import StageOutcome
from recon_pipeline.cycle.reporting import missing_in_db
from recon_pipeline.cycle.writing import LEASE_LOST
from recon_pipeline.domain.corrections import Event, Stage
from recon_pipeline.domain.position_parity import ProfileParity
from recon_pipeline.domain.terms import SkippedReason
from recon_pipeline.domain.watchdog import (
    PARITY_WATCHDOG_SOURCE,
    Pause,
    SafetyStep,
    audit_table_missing_event,
    count_clean,
    judge_integrity,
    judge_parity,
    paused_event,
    skipped_step_event,
)
from recon_pipeline.engine import Failure
from recon_pipeline.ledger.cycle_state import save_cycle_state
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.ledger.reads import PauseState


class Watch:
    """The watchdogs of one account in one cycle."""

    def __init__(self, context: CycleContext) -> None:
        self._context = context
        self._events: list[Event] = []

    def skipped(self, progress: ProfileProgress, step: SafetyStep, stage: Stage) -> None:
        """Say that a safety step was not attempted."""
        outcome = progress.stages.get(stage)
        if outcome is not None and not outcome.attempted and outcome.skipped_reason:
            self._events.append(
                skipped_step_event(
                    progress.profile_id,
                    progress.user_id,
                    step,
                    outcome.skipped_reason,
                    self._context.policy.watchdog,
                    account_id=progress.account_id,
                )
            )
            if outcome.skipped_reason == SkippedReason.AUDIT_TABLE_MISSING:
                policy = self._context.policy.watchdog
                event = audit_table_missing_event(
                    progress.profile_id, progress.user_id, policy, account_id=progress.account_id
                )
                self._events.append(event)

    def judge_integrity(self, progress: ProfileProgress) -> None:
        """Compare what is missing and undecided with the thresholds.

        What could not be decided counts as nothing here: its step has said so itself.
        """
        missing = missing_in_db(progress.stages)
        no_go = progress.plan.no_go_trades if progress.plan is not None else 0
        verdict = judge_integrity(
            progress.profile_id,
            progress.user_id,
            missing_in_db=missing,
            no_go_trades=no_go,
            policy=self._context.policy.watchdog,
            account_id=progress.account_id,
        )
        progress.triggered |= verdict.triggered
        if verdict.event is not None:
            self._events.append(verdict.event)
        progress.stages[Stage.INTEGRITY_WATCHDOG] = StageOutcome(
            Stage.INTEGRITY_WATCHDOG,
            attempted=self._context.policy.watchdog.integrity_enabled,
            skipped_reason="" if self._context.policy.watchdog.integrity_enabled else "disabled",
            counts={"missing_in_db": missing, "no_go_trades": no_go, "triggered": int(verdict.triggered)},
        )

    def judge_parity(
        self, progress: ProfileProgress, counted: ProfileParity, capital_usd: Decimal | None, pauses: Sequence[Pause]
    ) -> None:
        """Compare the money out of line with the allocated capital; pause trading of the profile where it is too much."""
        context = self._context
        verdict = judge_parity(
            progress.watchdog,
            mismatch_usd=counted.total_mismatch_notional_usd,
            unpriced_trades=counted.unpriced_trades,
            capital_usd=capital_usd,
            pauses=pauses,
            policy=context.policy.position_parity,
            watchdog=context.policy.watchdog,
            now_ms=context.began_ms,
            user_id=progress.user_id,
            account_id=progress.account_id,
        )
        progress.triggered |= verdict.triggered
        progress.watchdog = verdict.state
        self._events.extend(verdict.events)
        outcome = progress.stages[Stage.POSITION_PARITY]
        progress.stages[Stage.POSITION_PARITY] = replace(outcome, findings=(*outcome.findings, *verdict.findings))
        if verdict.pause:
            state = set_trading_state(
                context.ports.database_url,
                progress.profile_id,
                "PAUSED",
                PARITY_WATCHDOG_SOURCE,
                verdict.pause_reason,
                context.began,
                only_if=lambda state, _: state.strip().upper() != "PAUSED",
            )
            if state.changed:
                self._events.append(
                    paused_event(
                        progress.profile_id, progress.user_id, verdict.pause_reason, account_id=progress.account_id
                    )
                )

    def remember(self, progress: ProfileProgress, *, complete: bool) -> Failure | None:
        """Save what the next cycle has to know, under the profile's lease."""
        parity = progress.parity_counts
        in_line = parity is not None and not parity.mismatch_trades and not parity.frozen_trades
        clean = complete and in_line and not progress.triggered
        state = count_clean(
            progress.watchdog, clean=clean, policy=self._context.policy.watchdog, now_ms=self._context.began_ms
        )
        lease = self._context.ports.leases.of(progress.profile_id)
        if lease is None:
            return Failure(Stage.REPORT.value, LEASE_LOST)
        with connect(self._context.ports.database_url, READER, "recon cycle") as connection:
            saved = save_cycle_state(
                connection, lease, confirmations=progress.confirmations, parity=progress.parity, watchdog=state
            )
        return None if saved else Failure(Stage.REPORT.value, LEASE_LOST)

    def tell(self) -> None:
        """Raise what there is to be said, as far as it was not said just now."""
        if self._events:
            with connect(self._context.ports.database_url, READER, "recon cycle") as connection:
                raise_events(connection, self._events, run_id=self._context.run_id, now=self._context.began)

    def pause_of(self, profile_id: str) -> PauseState | None:
        """The pause of the profile as it is now."""
        return self._context.ports.ledger.pause_state([profile_id]).get(profile_id)
