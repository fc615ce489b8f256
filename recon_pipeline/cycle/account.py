"""The cycle of one account's profiles, step by step.

What belongs here: what each step is given, that a step that fails is set aside with its error, and that the next step knows what
is unknown because of it. What does not: rules (``domain``), writing (``apply``), and other accounts (``running``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from recon_pipeline.cycle.context import CycleContext, ProfileProgress
from recon_pipeline.cycle.outcome import ProfileCycle, StageOutcome
from recon_pipeline.cycle.ports import ACCOUNT_MARK
from recon_pipeline.cycle.reading import look_orders_up, read_account_snapshot, read_ledger_again
from recon_pipeline.cycle.reporting import build_report
from recon_pipeline.cycle.watching import Watch
from recon_pipeline.cycle.writing import backfill_outcome, carry_out
from recon_pipeline.domain.account_slices import slices_of_accounts
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.cycle_frames import LEDGER_ORDERS, ORDER_FACTS, CycleInputs
from recon_pipeline.domain.data_health import data_findings
from recon_pipeline.domain.frames import CONSUMPTION, EXCHANGE_ORDERS, LIFECYCLE_ROWS, POSITIONS, PROFILES
from recon_pipeline.domain.free_evidence import free_evidence
from recon_pipeline.domain.order_coverage import plan_order_coverage
from recon_pipeline.domain.order_parity import plan_order_parity
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.plan import ExitBackfillInputs
from recon_pipeline.domain.position_parity import plan_position_parity
from recon_pipeline.domain.stage_plan import StagePlan
from recon_pipeline.domain.sub_tag_repair import plan_sub_tag_repair
from recon_pipeline.domain.terms import SkippedReason
from recon_pipeline.domain.watchdog import SafetyStep
from recon_pipeline.engine import Failure, ShardAccounts, plan_shard
from recon_pipeline.ledger.cycle_state import CycleState
from recon_pipeline.ledger.database import redact
from recon_pipeline.ledger.reads import RUNNING

_LOG = logging.getLogger(__name__)
DISABLED = "disabled"


class AccountCycle:
    """One account, once."""

    def __init__(self, context: CycleContext, accounts: ShardAccounts, state: CycleState) -> None:
        self._context = context
        self._policy = context.policy
        self._accounts = accounts
        self._chosen = accounts.profile_ids
        self._profiles = {
            profile: ProfileProgress(
                profile_id=profile,
                user_id=str(accounts.siblings[profile]["user_id"] or ""),
                account_id=accounts.account_of(profile),
                confirmations=_of(state.confirmations, profile),
                parity=_of(state.parity, profile),
                watchdog=state.watchdogs[profile],
            )
            for profile in self._chosen
        }
        self._watch = Watch(context)
        self._written = False
        self._owned: tuple[CycleInputs, pd.DataFrame] | None = None
        self._sliced: tuple[ExitBackfillInputs, pd.DataFrame] | None = None
        self._snapshot = read_account_snapshot(
            accounts,
            self._chosen,
            ledger=context.ports.ledger,
            new_batch_id=lambda: f"RECON-BFILL-{context.new_id()}",
            managed_symbols=context.managed_symbols,
        )

    def run(self) -> list[ProfileCycle]:
        """Carry every step out; return the profiles' cycles.

        What was read is kept before anything is decided: without its snapshot nothing is written.
        """
        self._keep()
        self._guarded(Stage.ORDER_PARITY, self._order_parity)
        self._guarded(Stage.ORDER_COVERAGE, self._order_coverage)
        self._guarded(Stage.EXIT_BACKFILL, self._exit_backfill)
        self._guarded(Stage.INTEGRITY_WATCHDOG, self._integrity_watchdog)
        self._guarded(Stage.SUB_TAG_REPAIR, self._sub_tag_repair)
        self._guarded(Stage.POSITION_PARITY, self._position_parity)
        self._guarded(Stage.READING, self._data_health)
        self._guarded(Stage.REPORT, self._remember)
        return [self._result(progress) for progress in self._profiles.values()]

    # -- the steps, in the order of the source

    def _order_parity(self) -> None:
        policy, now_ms = self._policy.order_parity, self._context.began_ms
        if not policy.enabled:
            self._skip_all(Stage.ORDER_PARITY, DISABLED)
            return
        if self._snapshot.complete:
            self._snapshot = look_orders_up(
                self._snapshot, exchange=self._context.ports.exchange, policy=policy, now_ms=now_ms
            )
        inputs, looked_up = self._inputs(), self._snapshot.looked_up
        plan = plan_order_parity(
            inputs,
            policy,
            pd.concat([progress.confirmations for progress in self._profiles.values()], ignore_index=True),
            absent=looked_up.absent,
            unknown=looked_up.unknown,
            asked=looked_up.asked,
            now_ms=now_ms,
            ownership=self._ownership(),
        )
        for profile in plan.counts:
            self._profiles[profile].confirmations = _of(plan.confirmations, profile)
        self._carry_out(plan, dry_run=policy.dry_run)

    def _order_coverage(self) -> None:
        policy = self._policy.order_coverage
        if not policy.enabled:
            self._skip_all(Stage.ORDER_COVERAGE, DISABLED)
        else:
            # What order parity has just written is in the ledger: it is neither missing nor to be held back.
            self._refresh()
            inputs = self._inputs()
            plan = plan_order_coverage(inputs, policy, self._ownership(), now_ms=self._context.began_ms)
            self._carry_out(plan, dry_run=policy.dry_run)
        for progress in self._profiles.values():
            self._watch.skipped(progress, SafetyStep.COVERAGE, Stage.ORDER_COVERAGE)

    def _exit_backfill(self) -> None:
        self._refresh()
        planned = plan_shard(self._snapshot.shard, self._policy.exit_backfill)
        for profile, progress in self._profiles.items():
            failure = planned.failures.get(profile)
            if failure is not None:
                # A reading that failed is not the backfill's failure: the account says it once, for the whole cycle.
                said = None if profile in self._accounts.failures else failure
                progress.stages[Stage.EXIT_BACKFILL] = StageOutcome(
                    Stage.EXIT_BACKFILL,
                    attempted=False,
                    skipped_reason=SkippedReason.EVIDENCE_INCOMPLETE.value if said is None else "",
                    dry_run=self._policy.exit_backfill_dry_run,
                    failure=said,
                )
            else:
                progress.plan = planned.plans[profile]
                progress.stages[Stage.EXIT_BACKFILL] = backfill_outcome(self._context, progress, progress.plan)
                self._written |= bool(progress.applied is not None and progress.applied.inserted_rows)
            self._watch.skipped(progress, SafetyStep.BACKFILL, Stage.EXIT_BACKFILL)

    def _integrity_watchdog(self) -> None:
        for progress in self._profiles.values():
            self._watch.judge_integrity(progress)

    def _sub_tag_repair(self) -> None:
        policy = self._policy.sub_tag_repair
        if not policy.enabled:
            self._skip_all(Stage.SUB_TAG_REPAIR, DISABLED)
            return
        self._refresh()
        supported = self._context.ports.ledger.sub_tag_supported()
        self._carry_out(plan_sub_tag_repair(self._inputs(), policy, supported=supported), dry_run=policy.dry_run)

    def _position_parity(self) -> None:
        self._refresh()
        policy, inputs, shard = self._policy.position_parity, self._inputs(), self._snapshot.shard
        ownership = self._ownership()
        plan = plan_position_parity(
            inputs,
            self._slices(),
            policy,
            pd.concat([progress.parity for progress in self._profiles.values()], ignore_index=True),
            waiting=frozenset().union(*(progress.waiting_trades for progress in self._profiles.values())),
            ownership=ownership,
            evidence=free_evidence(inputs.order_facts, shard.inputs.lifecycle_rows, inputs.consumption, ownership),
            now_ms=self._context.began_ms,
        )
        pauses = self._context.ports.ledger.pause_rows(list(self._chosen))
        for profile, progress in self._profiles.items():
            progress.parity = _of(plan.states, profile)
            findings = tuple(finding for finding in plan.findings if finding.profile_id == profile)
            if profile in plan.skipped:
                self._skip(progress, Stage.POSITION_PARITY, plan.skipped[profile], dry_run=policy.dry_run)
                continue
            counted = plan.profiles[profile]
            outcome = carry_out(
                self._context,
                plan.for_profile(profile, self._batch_id("PARITY")),
                counts=counted.counts,
                findings=(*findings, *(plan.account_findings if profile == self._chosen[0] else ())),
                dry_run=policy.dry_run,
            )
            progress.stages[Stage.POSITION_PARITY] = replace(
                outcome, counts={**outcome.counts, "auto_closed_trades": len(outcome.applied)}
            )
            progress.parity_counts = counted
            capital = inputs.capital_usd.get(profile)
            self._watch.judge_parity(progress, counted, capital, pauses.get(profile, ()))

    def _data_health(self) -> None:
        found = data_findings(self._inputs(), self._slices())
        for profile, progress in self._profiles.items():
            own = tuple(finding for finding in (*self._snapshot.findings, *found) if finding.profile_id == profile)
            progress.stages[Stage.READING] = StageOutcome(
                Stage.READING,
                attempted=self._snapshot.complete,
                skipped_reason="" if self._snapshot.complete else SkippedReason.EVIDENCE_INCOMPLETE.value,
                counts={"data_defects": len(own)},
                findings=own,
            )

    def _remember(self) -> None:
        for progress in self._profiles.values():
            failure = self._watch.remember(progress, complete=self._snapshot.complete)
            if failure is not None:
                progress.stages[Stage.REPORT] = StageOutcome(Stage.REPORT, attempted=True, failure=failure)
        self._watch.tell()

    # -- what the steps share

    def _keep(self) -> None:
        """Keep what the first steps decide from; the plan of the exit backfill keeps its own evidence with its batch."""
        snapshots = self._context.ports.snapshots
        if snapshots is None:
            return
        inputs, shard = self._inputs(), self._snapshot.shard.inputs
        account = "".join(c if c.isalnum() else "_" for c in self._snapshot.account_id)
        for stage, schema, frame in (
            ("profiles", PROFILES, inputs.profiles),
            ("ledger_orders", LEDGER_ORDERS, inputs.ledger_orders),
            ("lifecycle_rows", LIFECYCLE_ROWS, shard.lifecycle_rows),
            ("order_facts", ORDER_FACTS, inputs.order_facts),
            ("exchange_orders", EXCHANGE_ORDERS, shard.exchange_orders),
            ("exchange_positions", POSITIONS, inputs.positions),
            ("consumption", CONSUMPTION, inputs.consumption),
        ):
            snapshots.write(f"{stage}{ACCOUNT_MARK}{account}", schema, frame)

    def _inputs(self) -> CycleInputs:
        return self._snapshot.inputs

    def _ownership(self) -> pd.DataFrame:
        """Whose each order is, worked out once for a snapshot."""
        inputs = self._inputs()
        if self._owned is None or self._owned[0] is not inputs:
            self._owned = inputs, own_orders(inputs)
        return self._owned[1]

    def _slices(self) -> pd.DataFrame:
        """Every trade of the account, worked out once for a snapshot."""
        inputs = self._snapshot.shard.inputs
        if self._sliced is None or self._sliced[0] is not inputs:
            self._sliced = inputs, slices_of_accounts(inputs)
        return self._sliced[1]

    def _refresh(self) -> None:
        """Read the ledger again where this cycle has written since it was read."""
        if self._written:
            self._snapshot = read_ledger_again(
                self._snapshot,
                ledger=self._context.ports.ledger,
                new_batch_id=lambda: f"RECON-BFILL-{self._context.new_id()}",
                managed_symbols=self._context.managed_symbols,
            )
            self._written = False

    def _carry_out(self, plan: StagePlan, *, dry_run: bool) -> None:
        for profile, progress in self._profiles.items():
            if profile in plan.skipped:
                self._skip(progress, plan.stage, plan.skipped[profile], dry_run=dry_run)
                continue
            outcome = carry_out(
                self._context,
                plan.for_profile(profile, self._batch_id(plan.stage.value.upper())),
                counts=plan.counts[profile],
                findings=plan.findings_of(profile),
                dry_run=dry_run,
            )
            self._written |= bool(outcome.applied)
            progress.stages[plan.stage] = outcome

    def _batch_id(self, kind: str) -> str:
        return f"RECON-{kind.replace('_', '-')}-{self._context.new_id()}"

    def _skip_all(self, stage: Stage, reason: str) -> None:
        for progress in self._profiles.values():
            self._skip(progress, stage, reason)

    def _skip(self, progress: ProfileProgress, stage: Stage, reason: str, *, dry_run: bool = False) -> None:
        progress.stages[stage] = StageOutcome(stage, attempted=False, skipped_reason=reason, dry_run=dry_run)

    def _guarded(self, stage: Stage, step: Callable[[], None]) -> None:
        """Carry one step out; its failure is the outcome of every profile that it had not come to."""
        try:
            step()
        except Exception as error:  # noqa: BLE001  a step that fails must not skip the safety steps behind it
            _LOG.exception("%s of account %s failed", stage.value, self._snapshot.account_id)
            text = redact(str(error), self._context.ports.database_url)
            failure = Failure(stage.value, f"{type(error).__name__}: {text}")
            # What was written before the failure is in the ledger, and the next step must see it.
            self._written = True
            for progress in self._profiles.values():
                if stage not in progress.stages:
                    progress.stages[stage] = StageOutcome(stage, attempted=True, failure=failure)

    def _result(self, progress: ProfileProgress) -> ProfileCycle:
        profile = progress.profile_id
        unread = self._accounts.failures.get(profile)
        broken = [f"{o.failure.stage}: {o.failure.message}" for o in progress.stages.values() if o.failure is not None]
        report = build_report(
            progress=progress,
            run_id=self._context.run_id,
            cycle_at_ms=self._context.began_ms,
            pause=self._watch.pause_of(profile) or RUNNING,
            evidence_complete=self._snapshot.complete,
            error="; ".join([*([unread.message] if unread is not None else []), *broken]),
        )
        return ProfileCycle(
            report=report,
            stages=dict(progress.stages),
            parity=progress.parity,
            plan=progress.plan,
            recorded=progress.recorded,
            applied=progress.applied,
            failure=unread,
            content=progress.content,
        )


def _of(frame: pd.DataFrame, profile: str) -> pd.DataFrame:
    return frame[frame["profile_id"] == profile].reset_index(drop=True)
