"""What the accounts of a run share, and what has become of one profile so far. Data only."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd

from recon_pipeline.apply import ApplyResult, RecordedPlan
from recon_pipeline.cycle.outcome import StageOutcome
from recon_pipeline.cycle.ports import CyclePorts
from recon_pipeline.domain.corrections import Stage, changes_digest
from recon_pipeline.domain.cycle_policy import CyclePolicy
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.position_parity import ProfileParity
from recon_pipeline.domain.watchdog import WatchdogState


@dataclass(frozen=True)
class CycleContext:
    """What all accounts of a run share."""

    ports: CyclePorts
    policy: CyclePolicy
    run_id: str
    began: dt.datetime
    now: Callable[[], dt.datetime]
    new_id: Callable[[], str]
    managed_symbols: Sequence[str] | None

    @property
    def began_ms(self) -> int:
        """The instant of the cycle: one for all its readings and counts."""
        return int(self.began.timestamp() * 1000)


@dataclass
class ProfileProgress:
    """What has become of one profile so far, and what it will be remembered by."""

    profile_id: str
    user_id: str
    account_id: str
    confirmations: pd.DataFrame
    """ORDER_CONFIRMATIONS of the profile"""
    parity: pd.DataFrame
    """PARITY_STATES of the profile"""
    watchdog: WatchdogState
    stages: dict[Stage, StageOutcome] = field(default_factory=dict)
    plan: ProfilePlan | None = None
    recorded: RecordedPlan | None = None
    applied: ApplyResult | None = None
    parity_counts: ProfileParity | None = None
    """None where position parity was not decided"""
    triggered: bool = False
    """a watchdog was triggered"""

    @property
    def waiting_trades(self) -> frozenset[tuple[str, str]]:
        """Trades that the exit backfill has evidence for, holds back, or leaves to a pending order."""
        if self.plan is None:
            return frozenset()
        trades = self.plan.trades
        if self.applied is not None and self.applied.ok:
            # What was proposed is in the ledger now; what was skipped still waits.
            trades = trades[trades["outcome"] == "skipped"]
        else:
            trades = trades[trades["outcome"].isin(["proposed", "skipped"]) | (trades["allocated_e9"] > 0)]
        return frozenset((self.profile_id, str(trade)) for trade in trades["trade_id"])

    @property
    def content(self) -> str:
        """Digests of what the counters do not show."""
        parts = [f"{stage.value}:{changes_digest(outcome.changes)}" for stage, outcome in sorted(self.stages.items())]
        parts += [
            f"{finding.reason}:{finding.order_id}:{finding.trade_id}:{finding.exchange_order_id}"
            for outcome in self.stages.values()
            for finding in outcome.findings
        ]
        parts.append("" if self.plan is None else self.plan.digest)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
