"""What a run of the order status sync hands out: accounts, profiles, counts. Data only.

What does not belong here: how a run works (``syncing``) and how it is shown (``defs``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from recon_pipeline.domain.corrections import Finding, OrderChange
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.engine import Failure


@dataclass(frozen=True)
class AccountAnswers:
    """What asking one account cost and brought."""

    account_id: str
    api_calls: int = 0
    rate_remaining: int | None = None
    in_bulk: int = 0
    """orders answered by pages"""
    singly: int = 0
    """orders asked for one by one"""
    failed: int = 0
    """orders of which the exchange did not say whether it knows them"""
    error: str = ""
    """why nothing could be asked at all"""


@dataclass(frozen=True)
class ProfileSync:
    """What a run did for one profile."""

    profile_id: str
    user_id: str
    account_id: str
    counts: Mapping[str, int] = field(default_factory=dict)
    """COUNTERS of ``domain.order_status``"""
    checks: pd.DataFrame = field(default_factory=ORDER_CHECKS.empty)
    """ORDER_CHECKS of the profile after the run: stale orders, and live ones that are confirmed"""
    changes: tuple[OrderChange, ...] = ()
    applied: tuple[str, ...] = ()
    """keys of the rows that were written"""
    postponed: Mapping[str, str] = field(default_factory=dict)
    """key of the row to reason, of changes that were not written"""
    findings: tuple[Finding, ...] = ()
    batch_id: str = ""
    failure: Failure | None = None


@dataclass(frozen=True)
class SyncResult:
    """One run."""

    run_id: str
    began_at_ms: int
    dry_run: bool
    profiles: Mapping[str, ProfileSync]
    accounts: Mapping[str, AccountAnswers]
    left_over: int = 0
    """due orders that the run did not come to: its batch was full"""
    digest: str = ""
    """over everything that would be written: what a person who previews confirms"""

    @property
    def counts(self) -> dict[str, int]:
        """The counters of all profiles."""
        total: dict[str, int] = {}
        for profile in self.profiles.values():
            for name, value in profile.counts.items():
                total[name] = total.get(name, 0) + value
        return total

    @property
    def api_calls(self) -> int:
        """Requests of all accounts."""
        return sum(account.api_calls for account in self.accounts.values())
