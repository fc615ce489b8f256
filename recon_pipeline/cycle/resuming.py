"""Lifting the watchdog's own pauses where they are due: read, decide, and in one transaction resume, remember and say so.

What does not belong here: when a pause is due to be lifted (``domain.watchdog.decide_resume``), who asks (``defs.alerts``), and
setting a pause (``cycle.account``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import psycopg

from recon_pipeline.apply.control import lift_own_pause
from recon_pipeline.domain.cycle_policy import WatchdogPolicy
from recon_pipeline.domain.watchdog import (
    PARITY_WATCHDOG_SOURCE,
    Pause,
    ResumeDecision,
    WatchdogReason,
    decide_resume,
    resumed,
    resumed_event,
)
from recon_pipeline.ledger.cycle_state import read_cycle_state, save_cycle_state, standing_pauses
from recon_pipeline.ledger.database import WRITER, Connection, connect
from recon_pipeline.ledger.events import raise_events
from recon_pipeline.ledger.leases import Lease, acquire_leases, release_leases
from recon_pipeline.ledger.reads import ALL_TRADING

LEASE_SECONDS: Final = 60.0
LOCK_PATIENCE_MS: Final = 5_000
"""An apply holds the rows of ``trading_control`` while it writes; a lease outlives several such waits."""


def resume_where_due(
    database_url: str, policy: WatchdogPolicy, *, owner: str, run_id: str, now: dt.datetime, users: Mapping[str, str]
) -> dict[str, ResumeDecision | None]:
    """Resume trading of the profiles that the watchdog paused and that have been clean since.

    Returns what was decided for each profile whose own row holds the watchdog's pause; None where it is due and another run
    works on the profile now, so that it stays for the next time. What was resumed was resumed with the watchdog's state and the
    event in one transaction, under the profile's lease, and only if the pause was still the watchdog's own by then.

    :param owner: of the leases; no other call's
    :param users: user id by profile, for the events
    """
    now_ms = int(now.timestamp() * 1000)
    with connect(database_url, WRITER, "recon watchdog", lock_timeout_ms=LOCK_PATIENCE_MS) as connection:
        pauses = standing_pauses(connection)
        own = [pause.scope for pause in pauses if pause.source == PARITY_WATCHDOG_SOURCE and pause.scope != ALL_TRADING]
        states = read_cycle_state(connection, own).watchdogs
        answers: dict[str, ResumeDecision | None] = {
            profile: decide_resume(states[profile], _of(profile, pauses), policy, now_ms) for profile in own
        }
        # A lease is taken where there is something to do: one that is held makes a cycle skip the profile.
        due = [profile for profile, decision in answers.items() if decision is not None and decision.resume]
        leases = acquire_leases(connection, due, owner=owner, ttl_seconds=LEASE_SECONDS) if due else {}
        try:
            for profile in due:
                lease = leases.get(profile)
                user = users.get(profile, "")
                answers[profile] = None if lease is None else _resume(connection, lease, policy, run_id, now, user)
        finally:
            release_leases(connection, leases.values())
    return answers


def _resume(
    connection: Connection, lease: Lease, policy: WatchdogPolicy, run_id: str, now: dt.datetime, user_id: str
) -> ResumeDecision | None:
    profile = lease.profile_id
    now_ms = int(now.timestamp() * 1000)
    with suppress(psycopg.errors.LockNotAvailable), connection.transaction():  # an apply holds the row: next time
        state = read_cycle_state(connection, [profile]).watchdogs[profile]
        decision = decide_resume(state, _of(profile, standing_pauses(connection)), policy, now_ms)
        if not decision.resume:
            return decision
        event = resumed_event(profile, user_id, state.clean_cycles)
        if lift_own_pause(connection, profile, source=PARITY_WATCHDOG_SOURCE, reason=event.message, now=now) is None:
            return ResumeDecision(resume=False, reason=WatchdogReason.PAUSED_BY_OTHER)
        after = resumed(state, now_ms)
        if not save_cycle_state(connection, lease, confirmations=None, parity=None, watchdog=after):
            raise psycopg.Rollback
        raise_events(connection, [event], run_id=run_id, now=now)
        return decision
    return None


def _of(profile: str, pauses: Iterable[Pause]) -> Sequence[Pause]:
    """Return the pauses that hold for the profile."""
    return [pause for pause in pauses if pause.scope in {profile, ALL_TRADING}]
