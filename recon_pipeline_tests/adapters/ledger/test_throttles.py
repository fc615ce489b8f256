"""An event is raised once for its scope within its throttle, however many processes raise it at once."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace

import pytest

from recon_pipeline.domain.corrections import Event, EventType, Severity
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.events import events_since, raise_events

NOW = dt.datetime(2026, 11, 20, 12, 0, 0, 123_000, tzinfo=dt.UTC)
TEN_MINUTES = dt.timedelta(minutes=10)
MILLISECOND = dt.timedelta(milliseconds=1)


@pytest.fixture
def reader(database_url):
    with connect(database_url, "recon_reader") as connection:
        yield connection


def event(scope="p1:coverage:disabled", message="a step was skipped", throttle_ms=600_000):
    return Event(
        EventType.RECONCILIATION_DEGRADED,
        Severity.WARN,
        message,
        profile_id="p1",
        user_id="u1",
        details={"n": 1},
        scope=scope,
        throttle_ms=throttle_ms,
    )


def messages(connection):
    return [row["message"] for row in connection.execute("SELECT message FROM recon.events ORDER BY id")]


def test_an_event_is_raised_as_it_is_with_the_time_of_the_one_who_raises_it(reader):
    [number] = raise_events(reader, [event()], run_id="run-1", now=NOW)
    [found] = events_since(reader, NOW)
    assert found == {
        "id": number,
        "type": "RECONCILIATION_DEGRADED",
        "severity": "WARN",
        "message": "a step was skipped",
        "profile_id": "p1",
        "user_id": "u1",
        "account_id": None,
        "run_id": "run-1",
        "details": {"n": 1},
        "created_at": NOW,
    }


def test_a_scope_is_silent_for_its_throttle_and_speaks_again_after_it(reader):
    assert len(raise_events(reader, [event()], run_id="run-1", now=NOW)) == 1
    assert raise_events(reader, [event()], run_id="run-2", now=NOW + TEN_MINUTES - MILLISECOND) == []
    assert len(raise_events(reader, [event()], run_id="run-3", now=NOW + TEN_MINUTES)) == 1
    # What was swallowed did not begin the throttle again: the third counts from itself.
    assert len(raise_events(reader, [event()], run_id="run-4", now=NOW + 2 * TEN_MINUTES)) == 1


def test_scopes_are_silent_apart(reader):
    raised = raise_events(reader, [event(), event("p2:coverage:disabled"), event("p1:backfill:x")], run_id="r", now=NOW)
    assert len(raised) == 3
    assert len(raise_events(reader, [event(), event("p3:coverage:disabled")], run_id="r", now=NOW)) == 1


def test_of_one_scope_in_one_call_the_first_is_raised(reader):
    events = [event(message="first"), event("other", "second"), event(message="third")]
    assert len(raise_events(reader, events, run_id="r", now=NOW)) == 2
    assert messages(reader) == ["first", "second"]


def test_an_event_without_a_scope_or_a_throttle_is_never_silent(reader):
    loud = [event(""), event(""), event(throttle_ms=0), event(throttle_ms=0)]
    assert [len(raise_events(reader, loud, run_id="r", now=NOW)) for _ in range(2)] == [4, 4]


def test_a_clock_that_was_far_ahead_silences_nobody(reader):
    raise_events(reader, [event()], run_id="r", now=NOW + dt.timedelta(days=400))
    assert len(raise_events(reader, [event()], run_id="r", now=NOW)) == 1
    # A machine whose clock is a little behind another's is throttled by it.
    assert raise_events(reader, [event()], run_id="r", now=NOW - dt.timedelta(seconds=2)) == []


def test_what_is_rolled_back_was_not_said(reader):
    with reader.transaction(force_rollback=True):
        assert len(raise_events(reader, [event()], run_id="r", now=NOW)) == 1
    assert len(raise_events(reader, [event()], run_id="r", now=NOW)) == 1


def test_nothing_to_raise_and_a_time_without_a_zone(reader):
    assert raise_events(reader, [], run_id="r", now=NOW) == []
    with pytest.raises(ValueError, match="time zone"):
        raise_events(reader, [event()], run_id="r", now=NOW.replace(tzinfo=None))


def test_of_many_processes_at_once_one_raises_each_scope(database_url, reader):
    scopes = [event(f"p{n}:backfill:disabled", f"event {n}") for n in range(20)]
    barrier = threading.Barrier(6)
    raised: list[list[int]] = []

    def run(number):
        with connect(database_url, "recon_reader") as connection:
            barrier.wait(timeout=30)
            # Each in an order of its own: taking turns is no deadlock.
            mine = scopes[number:] + scopes[:number]
            raised.append(raise_events(connection, [replace(e) for e in mine], run_id=f"run-{number}", now=NOW))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(raised) == 6
    assert sum(map(len, raised)) == 20
    assert sorted(messages(reader)) == sorted(e.message for e in scopes)
