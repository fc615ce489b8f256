"""Pausing and resuming trading, of all and of one profile."""

from __future__ import annotations

import datetime as dt
import threading

import pytest

from recon_pipeline.apply import set_trading_state
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
