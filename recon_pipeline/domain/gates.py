"""The gates before a profile is attempted at all, in the order in which the first that closes gives the reason."""

from __future__ import annotations

import pandas as pd

from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.terms import SkippedReason


def skipped_profiles(profiles: pd.DataFrame, policy: ExitBackfillPolicy) -> dict[str, str]:
    """For each profile of a PROFILES frame the reason why it is skipped, empty where it is attempted."""
    columns = (profiles[name] for name in ("profile_id", "paused", "audit_available", "evidence_defect"))
    return {
        profile: _reason(profile, policy, paused=bool(paused), audit=bool(audit), defect=defect)
        for profile, paused, audit, defect in zip(*columns, strict=True)
    }


def _reason(profile: str, policy: ExitBackfillPolicy, *, paused: bool, audit: bool, defect: str) -> str:
    if not policy.enabled:
        return SkippedReason.DISABLED.value
    if policy.profile_allowlist and profile not in policy.profile_allowlist:
        return SkippedReason.PROFILE_NOT_ALLOWLISTED.value
    if policy.require_pause and not paused:
        return SkippedReason.PAUSE_REQUIRED.value
    if not audit:
        return SkippedReason.AUDIT_TABLE_MISSING.value
    if defect:
        return SkippedReason.EVIDENCE_INCOMPLETE.value
    return ""
