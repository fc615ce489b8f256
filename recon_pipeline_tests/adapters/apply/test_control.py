"""Pausing and resuming trading, of all and of one profile."""

from __future__ import annotations

import datetime as dt
import threading
import time

import pytest

from recon_pipeline.apply import set_trading_state
from recon_pipeline.apply.control import TradingState, lift_own_pause
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline_tests.adapters.apply.book import NOW, Book, at_point

LATER = NOW + dt.timedelta(minutes=10)


def test_a_pause_says_who_when_and_why(database_url: str):
    state = set_trading_state(database_url, "p1", "PAUSED", "operator", "ghosts", NOW)

    assert (state.state, state.previous, state.changed, state.since) == ("PAUSED", "", True, NOW)
    with PostgresLedger(database_url) as ledger:
        read = ledger.pause_state(["p1", "p2"])
    assert (read["p1"].paused, read["p1"].source, read["p1"].since, read["p1"].reason) == (
        True,
        "operator",
        NOW,
        "ghosts",
    )
    assert read["p2"].paused is False


def test_pausing_again_keeps_since_and_takes_the_new_reason(database_url: str):
    set_trading_state(database_url, "all", "PAUSED", "operator", "ghosts", NOW)
    again = set_trading_state(database_url, "all", "PAUSED", "watchdog", "mismatch", LATER)
    assert (again.since, again.source, again.reason, again.changed) == (NOW, "watchdog", "mismatch", False)


def test_resuming_starts_a_new_since(database_url: str):
    set_trading_state(database_url, "all", "PAUSED", "operator", "ghosts", NOW)
    resumed = set_trading_state(database_url, "all", "RUNNING", "operator", "", LATER)
    assert (resumed.since, resumed.previous, resumed.changed) == (LATER, "PAUSED", True)


def test_resuming_a_profile_does_not_lift_the_pause_of_all(database_url: str):
    set_trading_state(database_url, "all", "PAUSED", "operator", "", NOW)
    set_trading_state(database_url, "p1", "RUNNING", "operator", "", NOW)
    with PostgresLedger(database_url) as ledger:
        assert ledger.pause_state(["p1"])["p1"].paused is True


@pytest.mark.parametrize(
    ("scope", "state", "source"),
    [("p1", "paused", "op"), ("p1", "STOPPED", "op"), ("", "PAUSED", "op"), ("p1", "PAUSED", "")],
)
def test_what_bots_would_not_understand_is_not_written(database_url: str, scope: str, state: str, source: str):
    with pytest.raises(ValueError):
        set_trading_state(database_url, scope, state, source, "", NOW)


def test_a_time_without_a_zone_is_not_written(database_url: str):
    with pytest.raises(ValueError, match="time zone"):
        set_trading_state(database_url, "p1", "PAUSED", "op", "", NOW.replace(tzinfo=None))


def test_a_resume_waits_for_an_apply_in_progress(ghost: Book):
    """The apply holds the pause to its commit: no bot trades while rows are written."""
    finished: list[str] = []
    threads: list[threading.Thread] = []

    def resume() -> None:
        set_trading_state(ghost.url, "all", "RUNNING", "operator", "", LATER)
        finished.append("resumed")

    def start() -> None:
        thread = threading.Thread(target=resume)
        thread.start()
        threads.append(thread)
        thread.join(timeout=0.5)
        assert finished == []

    result = ghost.apply(ghost.plan(), at=at_point("rows_inserted", start))
    threads[0].join(timeout=20)

    assert result.ok
    assert finished == ["resumed"]
    assert ghost.rows("SELECT state FROM trading_control")[0]["state"] == "RUNNING"


def _lift(database_url: str, now: dt.datetime = LATER) -> TradingState | None:
    with connect(database_url, "recon_writer", lock_timeout_ms=200) as connection, connection.transaction():
        return lift_own_pause(connection, "p1", source="watchdog", reason="clean", now=now)


def test_a_source_lifts_its_own_pause(database_url: str):
    set_trading_state(database_url, "p1", "PAUSED", "watchdog", "mismatch", NOW)
    lifted = _lift(database_url)
    assert lifted is not None
    assert (lifted.state, lifted.previous, lifted.since, lifted.reason) == ("RUNNING", "PAUSED", LATER, "clean")
    assert _lift(database_url) is None


def test_a_source_lifts_nobody_elses_pause(database_url: str):
    assert _lift(database_url) is None
    set_trading_state(database_url, "p1", "PAUSED", "watchdog", "mismatch", NOW)
    set_trading_state(database_url, "p1", "PAUSED", "operator", "wait for me", NOW)
    assert _lift(database_url) is None
    with PostgresLedger(database_url) as ledger:
        assert ledger.pause_state(["p1"])["p1"] == (True, "operator", NOW, "wait for me")
    with pytest.raises(ValueError, match="time zone"):
        _lift(database_url, LATER.replace(tzinfo=None))


def test_a_person_who_pauses_at_the_same_moment_wins(database_url: str):
    set_trading_state(database_url, "p1", "PAUSED", "watchdog", "mismatch", NOW)
    with connect(database_url, "recon_writer") as connection, connection.transaction():
        assert lift_own_pause(connection, "p1", source="watchdog", reason="clean", now=LATER) is not None
        person = threading.Thread(
            target=set_trading_state, args=(database_url, "p1", "PAUSED", "operator", "wait for me", LATER)
        )
        person.start()
        deadline = time.monotonic() + 20
        while not _waits_for_a_lock(database_url):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    person.join(timeout=30)
    with PostgresLedger(database_url) as ledger:
        assert ledger.pause_state(["p1"])["p1"][:2] == (True, "operator")


def _waits_for_a_lock(database_url: str) -> bool:
    with connect(database_url) as connection:
        row = connection.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
    return bool(row and row["n"])
