"""Is everything well? The body of ``/internal/health``, and each reason for a no. Pure: of a reading and an instant.

What belongs here: the judgement and the names of its fields. What does not: HTTP (``app``) and reading (``reading``).

The fields that begin with ``reconciliation`` have the names and meanings of the source's runbook of divergence, over all enabled
profiles. What is out of line with the exchange is not unhealthy: the pipeline is there to find it, and health says whether the
pipeline does.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.snapshot import Row, Snapshot

NAMED: Final = 20
"""profiles and accounts that a reason names"""


class HealthReason(StrEnum):
    """Why the health is bad."""

    NOTHING_READ_YET = "nothing_read_yet"
    """the process has just started"""
    DATABASE_UNREADABLE = "database_unreadable"
    """the last attempt to read failed"""
    SNAPSHOT_TOO_OLD = "snapshot_too_old"
    """what is known is older than ``RECON_SERVE_MAX_AGE_SECONDS``"""
    CYCLES_LATE = "cycles_late"
    """enabled profiles whose last cycle that was not turned away by a lease is longer ago than ``RECON_HEALTH_LATE_MINUTES``"""
    NEVER_RECONCILED = "never_reconciled"
    """enabled profiles that had no cycle and have been there for longer than that"""
    CYCLES_FAILING = "cycles_failing"
    """enabled profiles whose last cycle failed, or a step of it"""
    EVIDENCE_LATE = "evidence_late"
    """accounts of enabled profiles that were last read completely longer ago than that, or never"""


@dataclass(frozen=True)
class HealthRules:
    """What counts as too long."""

    late: dt.timedelta
    max_age: dt.timedelta


def health(latest: Latest, now: dt.datetime, rules: HealthRules) -> tuple[dict[str, Any], bool]:
    """Return the body and whether all is well."""
    snapshot = latest.snapshot
    reasons: list[dict[str, Any]] = []
    if latest.error:
        since = "" if latest.failing_since is None else f" since {instant(latest.failing_since)}"
        reasons.append(_reason(HealthReason.DATABASE_UNREADABLE, f"The database can't be read{since}: {latest.error}"))
    if snapshot is None:
        if not reasons:
            reasons.append(_reason(HealthReason.NOTHING_READ_YET, "The first reading is under way."))
        return _body(latest, None, now, reasons, {})
    age = now - snapshot.taken_at
    if age > rules.max_age:
        detail = f"What is known was read {_length(age)} ago, at {instant(snapshot.taken_at)}."
        reasons.append(_reason(HealthReason.SNAPSHOT_TOO_OLD, detail))
    enabled = [row for row in snapshot.profiles if row["enabled"]]
    cycles = {str(row["profile_id"]): row for row in snapshot.cycles}
    own = [cycles[str(row["profile_id"])] for row in enabled if str(row["profile_id"]) in cycles]
    reasons += _cycle_reasons(snapshot, enabled, cycles, now, rules)
    return _body(latest, snapshot, now, reasons, {"enabled": enabled, "cycles": own})


def instant(moment: dt.datetime) -> str:
    """Return an instant as the endpoints write it: UTC, to the millisecond."""
    return moment.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cycle_reasons(
    snapshot: Snapshot, enabled: list[Row], cycles: Mapping[str, Row], now: dt.datetime, rules: HealthRules
) -> list[dict[str, Any]]:
    late: list[str] = []
    never: list[str] = []
    failing: list[str] = []
    oldest: dt.datetime | None = None
    errors: list[str] = []
    for row in enabled:
        profile = str(row["profile_id"])
        cycle = cycles.get(profile)
        at = None if cycle is None else cycle["cycle_at"]
        if cycle is None or at is None:
            there_since = row.get("created_at")
            if there_since is None or now - there_since > rules.late:
                never.append(profile)
            continue
        if now - at > rules.late:
            late.append(profile)
            oldest = at if oldest is None else min(oldest, at)
        if cycle["error"] or cycle["failed_stages"]:
            failing.append(profile)
            errors.append(str(cycle["error"] or "a step failed: " + ", ".join(map(str, cycle["failed_stages"]))))
    accounts = {str(row["account_id"]) for row in enabled}
    unread = [
        row for row in snapshot.accounts if str(row["account_id"]) in accounts and _is_unread(row, now, rules.late)
    ]
    limit = _length(rules.late)
    found = []
    if late and oldest is not None:
        detail = f"{_count(late)} had no cycle in the last {limit}; the oldest was at {instant(oldest)}."
        found.append(_reason(HealthReason.CYCLES_LATE, detail, profiles=late))
    if never:
        detail = f"{_count(never)} never had a cycle."
        found.append(_reason(HealthReason.NEVER_RECONCILED, detail, profiles=never))
    if failing:
        detail = f"The last cycle of {_count(failing)} failed; of {failing[0]}: {errors[0]}"
        found.append(_reason(HealthReason.CYCLES_FAILING, detail, profiles=failing))
    if unread:
        why = next((str(row["incomplete_why"]) for row in unread if row["incomplete_why"]), "")
        names = [str(row["account_id"]) for row in unread]
        detail = f"{_count(names, 'account')} not read completely for longer than {limit}" + (
            f": {why}" if why else "."
        )
        found.append(_reason(HealthReason.EVIDENCE_LATE, detail, accounts=names))
    return found


def _is_unread(account: Row, now: dt.datetime, late: dt.timedelta) -> bool:
    """Whether the account was not read completely for too long; one that no cycle has read yet was not late."""
    if account["covered_until"] is None:
        return account["complete"] is False
    return bool(now - account["covered_until"] > late)


def _body(
    latest: Latest,
    snapshot: Snapshot | None,
    now: dt.datetime,
    reasons: list[dict[str, Any]],
    known: Mapping[str, list[Row]],
) -> tuple[dict[str, Any], bool]:
    well = not reasons
    cycles = known.get("cycles")
    number = _of(cycles)
    by_reason = {reason["reason"]: reason.get("count", 0) for reason in reasons}
    return {
        "status": "ok" if well else "unhealthy",
        "reasons": reasons,
        "reconciliationLoopHealthy": well,
        "reconciliationLastRun": _last_run(snapshot),
        "reconciliationMismatchCount": number("mismatch_count", sum),
        "reconciliationMissingFromExchange": number("missing_from_exchange", sum),
        "reconciliationMissingInDb": number("missing_in_db", sum),
        "reconciliationParityMismatchTrades": number("parity_mismatch_trades", sum),
        "reconciliationParityQuarantinedTrades": number("parity_quarantined_trades", sum),
        "reconciliationParityAutoClosedTrades": number("parity_auto_closed_trades", sum),
        "reconciliationParityMaxMismatchNotionalUsd": number("parity_max_mismatch_notional_usd", max),
        "reconciliationParityTotalMismatchNotionalUsd": number("parity_total_mismatch_notional_usd", sum),
        "reconciliationIntegrityWatchdogTriggered": None
        if cycles is None
        else any(bool(row["integrity_watchdog_triggered"]) for row in cycles),
        "reconciliationNoGoTrades": number("no_go_trades", sum),
        "reconciliationWaitingForPerson": number("waiting_for_person", sum),
        "reconciliationMoneyAtRiskUsd": number("money_at_risk_usd", sum),
        "profiles": None if snapshot is None else len(known["enabled"]),
        "profilesLate": None if snapshot is None else by_reason.get(HealthReason.CYCLES_LATE, 0),
        "profilesNeverReconciled": None if snapshot is None else by_reason.get(HealthReason.NEVER_RECONCILED, 0),
        "profilesFailing": None if snapshot is None else by_reason.get(HealthReason.CYCLES_FAILING, 0),
        "batchesPending": None if snapshot is None else len(snapshot.pending_batches),
        "eventsUndelivered": None if snapshot is None else snapshot.undelivered_events,
        "orderStatusSyncLastRun": None
        if snapshot is None or snapshot.sync is None
        else instant(snapshot.sync["ended_at"]),
        "databaseReadable": snapshot is not None and not latest.error,
        "snapshotTakenAt": None if snapshot is None else instant(snapshot.taken_at),
        "snapshotAgeSeconds": None if snapshot is None else round((now - snapshot.taken_at).total_seconds(), 1),
    }, well


def _of(cycles: list[Row] | None) -> Callable[[str, Callable[[Iterable[Decimal]], Decimal | int]], int | float | None]:
    """Return a function that puts one column of the reports together; None where nothing could be read."""

    def number(column: str, together: Callable[[Iterable[Decimal]], Decimal | int]) -> int | float | None:
        if cycles is None:
            return None
        value = Decimal(together([Decimal(0), *(Decimal(row[column]) for row in cycles if row[column] is not None)]))
        return float(round(value, 2)) if column.endswith("_usd") else int(value)

    return number


def _last_run(snapshot: Snapshot | None) -> str | None:
    if snapshot is None:
        return None
    ends = [row["ended_at"] for row in snapshot.runs]
    ends += [row["cycle_at"] for row in snapshot.cycles if row["cycle_at"] is not None]
    return instant(max(ends)) if ends else None


def _reason(reason: HealthReason, detail: str, **named: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": reason.value, "detail": detail}
    for what, names in named.items():
        found |= {"count": len(names), what: names[:NAMED]}
    return found


def _count(names: list[str], noun: str = "profile") -> str:
    return f"{len(names)} {noun}" if len(names) == 1 else f"{len(names)} {noun}s"


def _length(time: dt.timedelta) -> str:
    seconds = int(time.total_seconds())
    if seconds < 120:
        return f"{seconds} seconds"
    return f"{seconds // 60} minutes" if seconds < 7_200 else f"{seconds // 3_600} hours"
