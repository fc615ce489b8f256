"""What a cycle hands out, profile by profile: stages, the plan of the exit backfill, and the report. Data only.

What does not belong here: how a cycle runs (``cycle.running``) and how it is shown (``defs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pandas as pd

from recon_pipeline.apply import ApplyResult, RecordedPlan
from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.engine import Failure


@dataclass(frozen=True)
class StageOutcome:
    """What one stage did for one profile."""

    stage: Stage
    attempted: bool
    skipped_reason: str = ""
    """why it was not attempted"""
    dry_run: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    """the stage's counters by the names of the source, in snake case"""
    changes: tuple[OrderChange, ...] = ()
    """what it wants to change"""
    applied: tuple[str, ...] = ()
    """order ids of the changes that were written"""
    postponed: Mapping[str, str] = field(default_factory=dict)
    """order id to reason, of changes that were not written: the row or its evidence changed meanwhile"""
    findings: tuple[Finding, ...] = ()
    batch_id: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class ReconciliationReport:
    """The counters of one profile's cycle: what ``recon.cycle_reports`` keeps and health, metrics and plots show.

    The first group has the names and meanings of the source's ReconciliationResult.
    """

    profile_id: str
    user_id: str
    account_id: str
    run_id: str
    cycle_at_ms: int
    processed: bool
    """False: another run holds the lease, or the profile failed before anything could be decided"""
    mismatch_count: int = 0
    missing_from_exchange: int = 0
    missing_in_db: int = 0
    no_go_trades: int = 0
    no_go_reason_counts: Mapping[str, int] = field(default_factory=dict)
    no_go_samples: tuple[Mapping[str, str], ...] = ()
    parity_mismatch_trades: int = 0
    parity_quarantined_trades: int = 0
    parity_auto_closed_trades: int = 0
    parity_max_mismatch_notional_usd: Decimal = Decimal(0)
    parity_total_mismatch_notional_usd: Decimal = Decimal(0)
    integrity_watchdog_triggered: bool = False
    error: str = ""
    # beyond the source
    skipped_reason: str = ""
    """lease_held, evidence_incomplete, ...; empty where the cycle ran"""
    evidence_complete: bool = False
    corrections: int = 0
    """rows of orders written"""
    proposed_rows: int = 0
    """backfill rows proposed and not written"""
    open_trades: int = 0
    max_confirmations: int = 0
    """highest count among trades and orders that are waiting for confirmation"""
    waiting_for_person: int = 0
    money_at_risk_usd: Decimal = Decimal(0)
    """NO_GO trades at their last known price"""
    paused: bool = False
    pause_source: str = ""
    failed_stages: tuple[str, ...] = ()
    data_defects: int = 0
    """ledger rows and trades of the profile that can't be used"""
    clean: bool = False
    """nothing is out of line, nothing was postponed, nothing failed, and the exchange was read completely"""


@dataclass(frozen=True)
class ProfileCycle:
    """One profile's cycle."""

    report: ReconciliationReport
    stages: Mapping[Stage, StageOutcome] = field(default_factory=dict)
    parity: pd.DataFrame = field(default_factory=PARITY_STATES.empty)
    """PARITY_STATES of the profile after the cycle"""
    plan: ProfilePlan | None = None
    """of the exit backfill"""
    recorded: RecordedPlan | None = None
    applied: ApplyResult | None = None
    failure: Failure | None = None
    """why nothing could be decided at all; failures of single stages are in ``stages``"""
    lease: Mapping[str, Any] = field(default_factory=dict)
    """who holds the profile's lease and until when, where it was contended"""
    changed: bool = True
    """whether the content differs from the profile's last report: a quiet profile is logged with one event"""
    content: str = ""
    """digests of what the counters do not show: two cycles that corrected one row each differ"""
    api_calls: int = 0
    """requests that reading the profile's account cost this run (shared by the account's profiles)"""

    @property
    def profile_id(self) -> str:
        """The profile."""
        return self.report.profile_id
