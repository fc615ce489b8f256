"""A profile's part of the order status sync as materialization metadata: what an operator at night wants to see first.

Conventions as in ``presentation``: one sentence, then tables, then numbers that the UI plots over time, then where to go on. Not
here: the tables (``order_status_tables``) and the check (``order_status_check``).
"""

from collections.abc import Sequence
from typing import Final

import dagster as dg

from recon_pipeline.defs import cycle_tables, tables
from recon_pipeline.defs import order_status_catalogue as names
from recon_pipeline.defs import order_status_tables as own
from recon_pipeline.defs.order_status_run import SyncOutcome
from recon_pipeline.defs.presentation import Metadata, launchpad_link
from recon_pipeline.defs.reporting import LOCATION
from recon_pipeline.domain.order_answers import CheckOutcome
from recon_pipeline.domain.terms import UNKNOWN_STATUS
from recon_pipeline.ledger.cycle_state import LEASE_HELD
from recon_pipeline.order_status.outcome import ProfileSync

RUNBOOK: Final = dg.MetadataValue.path(names.RUNBOOK)
_LINKED: Final = 20
"""Orders that fit into an address."""


def summary(outcome: SyncOutcome, profile: ProfileSync) -> str:
    """Return what the sync did for a profile in one sentence: the worst first."""
    if failures := outcome.failures(profile):
        return f"FAILED: {failures[0].message}"
    counts = profile.counts
    if LEASE_HELD in profile.postponed.values():
        waiting = tables.counted(len(profile.postponed), "order")
        return f"Skipped, {LEASE_HELD}: another run works on the profile. {waiting} to be asked about again."
    # Orders that are marked unknown are denied ones, and in a dry run ones that differ: each is told once.
    unknown, to_mark = counts.get("marked_unknown", 0), _to_mark(outcome, profile)
    found = (
        (counts.get("failed", 0), "without an answer"),
        (unknown, "unknown, for a person to decide"),
        (to_mark, "would be marked unknown (dry run)"),
        (counts.get("not_found", 0) - unknown - to_mark, "not known to the exchange"),
        (counts.get("held", 0), "held back"),
        (counts.get("differs", 0) - to_mark, "would be corrected (dry run)"),
        (counts.get("updated", 0), "corrected"),
        (counts.get("postponed", 0), "postponed"),
        (counts.get("still_live", 0), "live at the exchange"),
    )
    parts = [f"{count:,} {what}" for count, what in found if count > 0]
    if needing := sum(1 for finding in profile.findings if finding.needs_person):
        parts.append(f"{needing:,} for a person")
    if left := counts.get("left_over", 0):
        parts.append(f"{left:,} left for the next run")
    checked = counts.get("checked", 0)
    if not parts:
        return "Nothing to ask." if not checked else f"{tables.counted(checked, 'order')} asked about."
    return f"{tables.counted(checked, 'order')} asked about: {'; '.join(parts)}."


def _to_mark(outcome: SyncOutcome, profile: ProfileSync) -> int:
    """Return how many orders a dry run would mark unknown."""
    if not outcome.result.dry_run:
        return 0
    return sum(1 for change in profile.changes if change.values.get("status") == UNKNOWN_STATUS)


def metadata_of(
    outcome: SyncOutcome, profile: ProfileSync, key: str, *, dashboard_url: str, location: str = LOCATION
) -> Metadata:
    """Return the metadata of one asset's materialization for one profile."""
    if key == names.STALE_KEY:
        return _stale(outcome, profile, dashboard_url, location)
    return _updates(outcome, profile)


def _updates(outcome: SyncOutcome, profile: ProfileSync) -> Metadata:
    dry_run = outcome.result.dry_run
    stage = own.as_stage(profile, dry_run=dry_run)
    entries: Metadata = {"outcome": summary(outcome, profile)}
    if needing := [finding for finding in profile.findings if finding.needs_person]:
        entries["needs_a_person"] = cycle_tables.findings_table(needing)
    if profile.changes:
        entries["corrections"] = cycle_tables.corrections_table([stage])
    if profile.postponed:
        entries["postponed"] = cycle_tables.postponed_table(stage)
    if later := [finding for finding in profile.findings if not finding.needs_person]:
        entries["other_findings"] = cycle_tables.findings_table(later)
    if profile.batch_id and profile.applied:
        entries["batch_id"] = profile.batch_id
    entries |= {name: int(count) for name, count in profile.counts.items()}
    account = outcome.account_of(profile)
    if account is not None:
        entries |= {
            "api_calls_of_account": account.api_calls,
            "answered_by_pages": account.in_bulk,
            "asked_one_by_one": account.singly,
            **({} if account.rate_remaining is None else {"rate_left": account.rate_remaining}),
        }
    return {
        **entries,
        **stale_numbers(outcome, profile),
        "account": profile.account_id,
        "dry_run": dry_run,
        "asked_at": own.instant_of(outcome.at),
        "runbook": RUNBOOK,
    }


def _stale(outcome: SyncOutcome, profile: ProfileSync, dashboard_url: str, location: str) -> Metadata:
    checks, policy, at_ms = profile.checks, outcome.policy, outcome.at_ms
    entries: Metadata = {"outcome": stale_sentence(outcome, profile)}
    if len(checks):
        entries |= {"orders": own.orders_table(checks, policy, at_ms), "answers": own.answers_table(checks)}
    unknown = sorted(str(order_id) for order_id in checks["order_id"][checks["status"] == UNKNOWN_STATUS])
    if unknown:
        entries["decide_unknown"] = _decision_link(profile.profile_id, unknown, dashboard_url, location)
    return {
        **entries,
        **stale_numbers(outcome, profile),
        "account": profile.account_id,
        "read_at": own.instant_of(outcome.at),
        "runbook": RUNBOOK,
    }


def _decision_link(
    profile_id: str, order_ids: Sequence[str], dashboard_url: str, location: str
) -> dg.MetadataValue[str]:
    """Return the way from orders that wait for a decision to the job that carries it out, as a preview."""
    meant: dict[str, object] = {
        "profile_ids": [profile_id],
        "cancel_unknown": list(order_ids[:_LINKED]),
        "decided_by": "",
        "reason": "",
    }
    config = {"ops": {names.CLEANUP_OP: {"config": meant}}}
    which = "these orders" if len(order_ids) <= _LINKED else f"the first {_LINKED} of these orders"
    address = launchpad_link(dashboard_url, location, names.CLEANUP_JOB, config)
    return dg.MetadataValue.md(
        f"[Open {names.CLEANUP_JOB} with {which} filled in: say who decides and why (a preview)]({address})"
    )


def stale_sentence(outcome: SyncOutcome, profile: ProfileSync) -> str:
    """Return how many orders are stale and how many wait rightly, in one sentence."""
    stale = outcome.stale(profile)
    confirmed = len(profile.checks) - len(stale)
    waits = f"{tables.counted(confirmed, 'older order')} confirmed live by the exchange" if confirmed else ""
    if not len(stale):
        return f"No order is stale; {waits}." if waits else "No order is stale."
    said = f"⚠ {tables.counted(len(stale), 'stale order')}, the oldest {own.age_text(own.oldest_ms(stale, outcome.at_ms))} old"
    return f"{said}; {waits}." if waits else f"{said}."


def stale_numbers(outcome: SyncOutcome, profile: ProfileSync) -> Metadata:
    """Return the numbers of a profile's stale orders, as plots show them."""
    stale, policy, at_ms = outcome.stale(profile), outcome.policy, outcome.at_ms
    return {
        "stale": len(stale),
        "confirmed_live": len(profile.checks) - len(stale),
        "unknown": int((stale["status"] == UNKNOWN_STATUS).sum()),
        "without_answer": int((stale["outcome"] == CheckOutcome.FAILED.value).sum()),
        "stale_for_long": own.older_than(stale, policy.alert_after_ms, at_ms),
        "oldest_stale_minutes": own.oldest_ms(stale, at_ms) // 60_000,
    }
