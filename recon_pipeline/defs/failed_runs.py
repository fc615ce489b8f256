"""Failed runs as events: which have failed since the last look, for which profiles, and why.

Dagster concept: the instance's own record of runs. Not here: the sensor that asks (``alerts``), and telling anybody.
"""

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import dagster as dg

from recon_pipeline.alerting.redaction import Redactor
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.schedules import RANGE_END, RANGE_START
from recon_pipeline.domain.corrections import Event, EventType, Severity

AT_ONCE: Final = 200
"""Failures looked at in one tick; the others follow in the next."""
SETTLED_SECONDS: Final = 60
"""A failure that is younger is looked at again: one that was recorded before it may become visible after it."""
THROTTLE_MS: Final = 600_000
"""The same failure of the same job for the same profiles is told once in this time (the source's throttle); it is also what
makes looking twice harmless."""
_PARTITION: Final = "dagster/partition"
_NAMED: Final = 5
_LONGEST: Final = 500


@dataclass(frozen=True)
class Look:
    """What a look at the instance found."""

    events: tuple[Event, ...]
    run_ids: tuple[str, ...]
    """by event"""
    after: int
    """storage id that the next look begins after"""


def newest_failure(instance: dg.DagsterInstance) -> int:
    """Return the storage id of the newest failure: where the first look begins, so that history is not told."""
    records = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    return records[0].storage_id if records else 0


def look(
    instance: dg.DagsterInstance, *, after: int, now: dt.datetime, redact: Redactor, location: str | None = None
) -> Look:
    """Return the failures since ``after``, oldest first, as events.

    :param location: of the code whose runs are told; None: all. Runs without one (started in a process) are told always
    """
    since = dg.RunStatusChangeRecordsFilter(event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=after)
    records = instance.fetch_run_status_changes(since, limit=AT_ONCE, ascending=True).records
    ids = list(dict.fromkeys(record.event_log_entry.run_id for record in records))
    found = instance.get_run_records(dg.RunsFilter(run_ids=ids)) if ids else []
    runs = {record.dagster_run.run_id: record.dagster_run for record in found}
    events: list[Event] = []
    run_ids: list[str] = []
    for record in records:
        run = runs.get(record.event_log_entry.run_id)
        if run is None or not _is_ours(run, location):
            continue
        event = record.event_log_entry.dagster_event
        events.append(_event(instance, run, "" if event is None else event.message or "", redact))
        run_ids.append(run.run_id)
    settled_until = now.timestamp() - SETTLED_SECONDS
    for record in records:
        if record.timestamp > settled_until and len(records) < AT_ONCE:
            break
        after = record.storage_id
    return Look(tuple(events), tuple(run_ids), after)


def profiles_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """Return the profiles that the run was about, in the order of the partitions; empty where it was about none in particular."""
    if (key := run.tags.get(_PARTITION)) is not None:
        return [key]
    first, last = run.tags.get(RANGE_START), run.tags.get(RANGE_END)
    if first is None or last is None:
        return []
    keys = list(instance.get_dynamic_partitions(PROFILES))
    if first in keys and last in keys:
        return keys[keys.index(first) : keys.index(last) + 1]
    return [first, last] if first != last else [first]


def _is_ours(run: dg.DagsterRun, location: str | None) -> bool:
    origin = run.remote_job_origin
    return location is None or origin is None or origin.location_name == location


def _event(instance: dg.DagsterInstance, run: dg.DagsterRun, ended: str, redact: Redactor) -> Event:
    profiles = profiles_of(instance, run)
    why = redact.text(_why(instance, run.run_id) or ended or "it says nothing about why")[:_LONGEST]
    kind = hashlib.sha256("\n".join([run.job_name, *profiles, why]).encode()).hexdigest()[:16]
    return Event(
        EventType.SYSTEM_ERROR,
        Severity.ERROR,
        f"Run {run.run_id[:8]} of {run.job_name} failed{_for(profiles)}: {why}",
        profile_id=profiles[0] if len(profiles) == 1 else "",
        details={"job": run.job_name, "run_id": run.run_id, "profiles": profiles, "error": why},
        scope=f"run_failed:{run.job_name}:{kind}",
        throttle_ms=THROTTLE_MS,
    )


def _for(profiles: Sequence[str]) -> str:
    if not profiles:
        return ""
    more = f" and {len(profiles) - _NAMED} more profiles" if len(profiles) > _NAMED else ""
    return f" for {', '.join(profiles[:_NAMED])}{more}"


def _why(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return what the first failed step said: the text of a ``Failure``, else the error at the bottom of the chain."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1).records
    event = records[0].event_log_entry.dagster_event if records else None
    if event is None:
        return ""
    data = event.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return " ".join(data.user_failure_data.description.split())
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "" if error is None else " ".join(error.message.split())
