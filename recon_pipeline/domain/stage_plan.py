"""The plan of one stage for many profiles: counters, changes, findings and the executions cited, and one profile's part of it.

What does not belong here: how a stage decides (``order_coverage``, ``sub_tag_repair``) and how a part is written
(``recon_pipeline.apply``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from recon_pipeline.domain.corrections import CorrectionPlan, Finding, OrderChange, Stage
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.terms import SkippedReason

CitedKey = tuple[str, str]
"""(account id, exchange order id)"""


@dataclass(frozen=True)
class StagePlan:
    """What a stage found and wants, for every selected profile."""

    stage: Stage
    profiles: Mapping[str, tuple[str, str]]
    """every selected profile: its user and its account"""
    counts: Mapping[str, Mapping[str, int]]
    """counters by profile, of the profiles that were attempted"""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """why a selected profile was not attempted, by profile"""
    changes: tuple[OrderChange, ...] = ()
    """of all profiles, in the order in which they are to be written"""
    findings: tuple[Finding, ...] = ()
    executed_e9: Mapping[CitedKey, int] = field(default_factory=dict)
    """executed quantity of the cited orders (1e-9 units)"""
    client_order_ids: Mapping[CitedKey, str] = field(default_factory=dict)
    """client order ids of the cited orders that have one"""

    def for_profile(self, profile_id: str, batch_id: str) -> CorrectionPlan:
        """The changes of one selected profile, to be applied as one batch.

        :raises KeyError: the profile was not selected
        """
        if profile_id not in self.profiles:
            raise KeyError(f"profile {profile_id!r} is not part of this plan; select it when planning")
        user_id, account_id = self.profiles[profile_id]
        changes = tuple(change for change in self.changes if change.profile_id == profile_id)
        cited = sorted({change.exchange_order_id for change in changes if change.exchange_order_id})
        return CorrectionPlan(
            profile_id=profile_id,
            user_id=user_id,
            account_id=account_id,
            stage=self.stage,
            batch_id=batch_id,
            changes=changes,
            executed_e9={order_id: self.executed_e9[account_id, order_id] for order_id in cited},
            client_order_ids={
                order_id: self.client_order_ids[account_id, order_id]
                for order_id in cited
                if (account_id, order_id) in self.client_order_ids
            },
        )

    def findings_of(self, profile_id: str) -> tuple[Finding, ...]:
        """The findings of one profile."""
        return tuple(finding for finding in self.findings if finding.profile_id == profile_id)


def selected_profiles(profiles: pd.DataFrame) -> tuple[list[Any], dict[str, str]]:
    """The selected rows of PROFILES whose account was read completely, and why the others are skipped, by profile."""
    selected = [member for member in rows_of(profiles) if member.selected]
    skipped = {
        member.profile_id: SkippedReason.EVIDENCE_INCOMPLETE.value for member in selected if member.evidence_defect
    }
    return [member for member in selected if not member.evidence_defect], skipped


def owners_of(profiles: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """User and account of every selected profile."""
    return {member.profile_id: (member.user_id, member.account_id) for member in rows_of(profiles) if member.selected}


def in_finding_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings in an order that no input order decides."""
    return tuple(sorted(findings, key=lambda f: (f.profile_id, f.reason, f.trade_id, f.exchange_order_id, f.order_id)))


def citations(
    changes: Iterable[OrderChange], cited: Mapping[CitedKey, Any], profiles: pd.DataFrame
) -> tuple[dict[CitedKey, int], dict[CitedKey, str]]:
    """Executed quantity and client order id of the orders that the changes cite, by their keys in order.

    :param cited: rows of ORDER_FACTS
    :param profiles: PROFILES
    """
    account_of = dict(zip(profiles["profile_id"], profiles["account_id"], strict=True))
    keys = sorted({(account_of[change.profile_id], change.exchange_order_id) for change in changes} & set(cited))
    return (
        {key: int(cited[key].executed_e9) for key in keys},
        {key: cited[key].client_order_id for key in keys if cited[key].client_order_id},
    )
