"""Events of the stream and who listens, in a real database."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_events import EventOutcome, OrderEvent, StreamState
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.order_events import (
    Settlement,
    disputed_orders,
    profiles_to_reconcile,
    save_stream,
    settle_events,
    stop_listening,
    store_event,
    stream_of,
    try_listening,
    waiting_events,
)

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)


def event(key: str = "k1", name: str = "fill", order_id: str = "o1", account: str = "A1", **more: Any) -> OrderEvent:
    known = {"client_order_id": "c1", "happened_at_ms": int(NOW.timestamp() * 1000), "raw": {"event": name}}
    return OrderEvent(account, key, name, order_id, **(known | more))


def ago(**kwargs: float) -> dt.datetime:
    return NOW - dt.timedelta(**kwargs)


@pytest.fixture
def reader(database_url):
    with connect(database_url, READER) as connection:
        yield connection


def test_an_event_is_stored_and_counted_once(reader):
    assert store_event(reader, event(), NOW) is True
    assert store_event(reader, event(raw={"event": "told again"}), NOW) is False
    assert store_event(reader, event(account="A2"), NOW) is True
    [stored] = waiting_events(reader, "A1", limit=10)
    assert {name: stored[name] for name in ("event", "order_id", "client_order_id", "raw")} == {
        "event": "fill",
        "order_id": "o1",
        "client_order_id": "c1",
        "raw": {"event": "fill"},
    }
    assert stored["happened_ms"] == stored["received_ms"] == int(NOW.timestamp() * 1000)
    counted = reader.execute("SELECT account_id, value FROM recon.totals WHERE name = 'stream_events' ORDER BY 1")
    assert [(row["account_id"], int(row["value"])) for row in counted] == [("A1", 1), ("A2", 1)]


def test_an_event_without_an_instant_is_kept_without_one(reader):
    store_event(reader, event(happened_at_ms=NO_TIME), NOW)
    assert waiting_events(reader, "A1", limit=10)[0]["happened_ms"] is None


def test_waiting_events_come_as_they_were_told_and_only_so_many(reader):
    for number in range(5):
        store_event(reader, event(f"k{number}"), ago(seconds=number))
    found = waiting_events(reader, "A1", limit=3)
    assert [row["id"] for row in found] == sorted(row["id"] for row in found)
    assert len(found) == 3


def test_an_event_is_settled_once(reader):
    store_event(reader, event(), NOW)
    [waiting] = waiting_events(reader, "A1", limit=10)
    written = Settlement(waiting["id"], EventOutcome.WRITTEN, "why", "p1")
    assert settle_events(reader, [written], handled_at=NOW) == 1
    assert settle_events(reader, [replace(written, outcome=EventOutcome.FOREIGN)], handled_at=NOW) == 0
    assert waiting_events(reader, "A1", limit=10) == []
    row = reader.execute(
        "SELECT outcome, detail, profile_id, needs_cycle, handled_at FROM recon.order_events"
    ).fetchone()
    assert row == {"outcome": "written", "detail": "why", "profile_id": "p1", "needs_cycle": False, "handled_at": NOW}


def test_a_disputed_order_stays_so_whether_the_dispute_was_handled_or_not(reader):
    for number, (name, order_id) in enumerate(
        [("fill", "o1"), ("replaced", "o1"), ("trade_bust", "o2"), ("fill", "o2"), ("word", "o3"), ("word", "o4")]
    ):
        store_event(reader, event(f"k{number}", name, order_id), NOW)
    for row in waiting_events(reader, "A1", limit=10):
        settle_events(reader, [Settlement(row["id"], EventOutcome.NEEDS_CYCLE)], handled_at=NOW)
    assert disputed_orders(reader, "A1", ["o1", "o2", "o3", ""]) == {"o2", "o3"}
    assert disputed_orders(reader, "A2", ["o2"]) == set()


def profile(connection: Any, profile_id: str, account: str = "A1", *, enabled: bool = True) -> None:
    connection.execute("SET ROLE NONE")
    connection.execute(
        "INSERT INTO profiles (profile_id, user_id, account_id, enabled) VALUES (%s, 'u1', %s, %s)",
        [profile_id, account, enabled],
    )
    connection.execute("SET ROLE recon_reader")


def cycle(connection: Any, profile_id: str, began: dt.datetime, *, processed: bool = True) -> None:
    connection.execute(
        "INSERT INTO recon.cycle_reports (profile_id, run_id, cycle_at, processed, clean, content, report)"
        " VALUES (%s, %s, %s, %s, false, '', '{}')",
        [profile_id, f"run {began}", began, processed],
    )


def needing(connection: Any, key: str, profile_id: str, at: dt.datetime, account: str = "A1") -> None:
    store_event(connection, event(key, account=account), at)
    row = next(row for row in waiting_events(connection, account, limit=99))
    settle_events(connection, [Settlement(row["id"], EventOutcome.NEEDS_CYCLE, "", profile_id)], handled_at=at)


def wanted(connection: Any) -> list[tuple[str, int]]:
    return [(row["profile_id"], row["events"]) for row in profiles_to_reconcile(connection)]


def test_a_profile_is_reconciled_until_a_cycle_that_began_after_its_events_decided_something(reader):
    profile(reader, "p1")
    profile(reader, "p2")
    needing(reader, "k1", "p1", ago(minutes=3))
    needing(reader, "k2", "p1", ago(minutes=2))
    assert wanted(reader) == [("p1", 2)]
    newest = profiles_to_reconcile(reader)[0]["newest_id"]
    assert newest == reader.execute("SELECT max(id) AS id FROM recon.order_events").fetchone()["id"]

    cycle(reader, "p1", ago(minutes=2, seconds=30))
    assert wanted(reader) == [("p1", 1)]
    cycle(reader, "p1", ago(minutes=1), processed=False)
    assert wanted(reader) == [("p1", 1)], "a cycle that decided nothing swallows no event"
    cycle(reader, "p1", ago(seconds=30))
    assert wanted(reader) == []


def test_an_event_of_nobody_known_is_every_enabled_profile_s_of_its_account_and_forgotten_after_a_day(reader):
    for name, account, enabled in (("p1", "A1", True), ("p2", "A1", True), ("off", "A1", False), ("x", "A2", True)):
        profile(reader, name, account, enabled=enabled)
    needing(reader, "k0", "", ago(hours=25))
    assert wanted(reader) == []
    needing(reader, "k1", "", ago(minutes=1))
    assert wanted(reader) == [("p1", 1), ("p2", 1)]


def test_a_stream_says_what_it_does_since_when_and_how_often_it_connected(reader):
    assert stream_of(reader, "A1") is None
    save_stream(reader, "A1", StreamState.CONNECTING, seen_at=ago(seconds=50))
    save_stream(reader, "A1", StreamState.LISTENING, seen_at=ago(seconds=40), connections=1)
    save_stream(reader, "A1", StreamState.LISTENING, seen_at=ago(seconds=30), last_event_at=ago(seconds=31))
    save_stream(reader, "A1", StreamState.LISTENING, seen_at=ago(seconds=20))
    assert stream_of(reader, "A1") == {
        "account_id": "A1",
        "state": "listening",
        "since": ago(seconds=40),
        "seen_at": ago(seconds=20),
        "last_event_at": ago(seconds=31),
        "connections": 1,
        "error": "",
    }
    save_stream(reader, "A1", StreamState.DOWN, seen_at=NOW, error="gone")
    row = stream_of(reader, "A1")
    assert row is not None
    assert (row["state"], row["since"], row["error"], row["connections"]) == ("down", NOW, "gone", 1)


def test_one_session_listens_to_an_account_until_it_stops_or_ends(database_url):
    with connect(database_url, READER) as other:
        with connect(database_url, READER) as first:
            assert try_listening(first, "A1")
            assert not try_listening(other, "A1")
            assert try_listening(other, "A2"), "another account is another matter"
            stop_listening(first, "A1")
            assert try_listening(other, "A1")
            stop_listening(other, "A1")
            assert try_listening(first, "A1")
        # The server notices the end of a session a moment later.
        for _ in range(500):
            if try_listening(other, "A1"):
                break
        assert try_listening(other, "A1")
