"""One run of the order status sync for a shard of profiles: its ports, what was remembered before, what is remembered now.

Knows no Dagster. Not here: how the sync works (``order_status.syncing``), any rule, and how an outcome looks
(``order_status_presentation``).
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from recon_pipeline.defs.cycle_run import new_id
from recon_pipeline.defs.resources import Outside
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_answers import Decision
from recon_pipeline.domain.order_checks import stale_checks
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.engine import Failure
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.order_checks import read_checks
from recon_pipeline.order_status.outcome import AccountAnswers, ProfileSync, SyncResult
from recon_pipeline.order_status.ports import SyncPorts
from recon_pipeline.order_status.syncing import SyncScope, sync_order_status

_CONTENT: Final = ["order_id", "status", "outcome", "exchange_status"]
"""Columns that are news; when it was asked about last and how often that failed is none."""


@dataclass(frozen=True)
class SyncAsk:
    """What a run of the sync was asked to do."""

    profile_ids: tuple[str, ...]
    run_id: str
    scope: SyncScope
    dry_run: bool
    limit: int | None = None
    """orders at most; None: RECON_ORDER_STATUS_BATCH_SIZE"""
    expected_digest: str | None = None
    """write only what a preview with this digest has shown"""
    decided: Mapping[RowKey, Decision] | None = None
    """what a person has decided, by profile and row"""


@dataclass(frozen=True)
class SyncOutcome:
    """A run with what is shown beside it."""

    result: SyncResult
    policy: OrderStatusPolicy
    at: dt.datetime
    """when it ended: the ages of orders are as of then"""
    changed: frozenset[str]
    """profiles whose stale orders, or what is known of them, are not what they were before the run"""

    @property
    def at_ms(self) -> int:
        """The same in milliseconds."""
        return milliseconds(self.at)

    def account_of(self, profile: ProfileSync) -> AccountAnswers | None:
        """Return what asking the profile's account brought; None where nothing was to be asked."""
        return self.result.accounts.get(profile.account_id)

    def stale(self, profile: ProfileSync) -> pd.DataFrame:
        """Return ORDER_CHECKS of the profile's stale orders."""
        return stale_checks(profile.checks, self.policy, now_ms=self.at_ms)

    def failures(self, profile: ProfileSync) -> list[Failure]:
        """Return what failed for the profile: its own work, or its whole account."""
        if profile.failure is not None:
            return [profile.failure]
        account = self.account_of(profile)
        if account is not None and account.error and profile.counts.get("failed"):
            return [Failure("exchange", account.error)]
        return []

    def is_quiet(self, profile: ProfileSync) -> bool:
        """Whether nothing was asked, decided or found about the profile."""
        return not (any(profile.counts.values()) or profile.changes or profile.findings or profile.failure)


def run_order_status(outside: Outside, ask: SyncAsk) -> SyncOutcome:
    """Run the sync.

    :raises SettingError: a setting can't be read
    :raises DatabaseUnavailableError: the ledger can't be read
    """
    settings = outside.settings()
    profiles = list(ask.profile_ids)
    before = read_remembered(settings.database_url, profiles)
    with outside.ledger(settings) as ledger, EvidenceStore(settings.database_url) as store:
        accounts = {str(row["account_id"]) for row in ledger.account_siblings(profiles)}
        result = sync_order_status(
            profiles,
            ports=SyncPorts(
                database_url=settings.database_url, ledger=ledger, exchange=outside.exchange(settings, accounts, store)
            ),
            policy=settings.order_status,
            run_id=ask.run_id,
            now=outside.now,
            new_id=new_id,
            managed_symbols=settings.managed_symbols,
            scope=ask.scope,
            dry_run=ask.dry_run,
            limit=ask.limit,
            expected_digest=ask.expected_digest,
            decided=ask.decided or {},
        )
    at = outside.now()
    policy = settings.order_status
    after = {profile_id: profile.checks for profile_id, profile in result.profiles.items()}
    changed = {
        profile_id
        for profile_id, checks in after.items()
        if _content(checks) != _content(before[before["profile_id"] == profile_id])
    }
    return SyncOutcome(result, policy, at, frozenset(changed))


def read_remembered(database_url: str, profile_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """Return ORDER_CHECKS as they are remembered, of the profiles or (None) of all.

    :raises DatabaseUnavailableError: the database can't be read
    """
    with connect(database_url, READER, "recon order status") as connection:
        return read_checks(connection, profile_ids)


def milliseconds(instant: dt.datetime) -> int:
    """Return an instant in milliseconds since 1970."""
    return int(instant.timestamp() * 1000)


def _content(checks: pd.DataFrame) -> set[tuple[object, ...]]:
    frame = checks if len(checks) else ORDER_CHECKS.empty()
    return {tuple(getattr(row, name) for name in _CONTENT) for row in rows_of(frame)}
