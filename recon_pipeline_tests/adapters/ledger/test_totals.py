"""Counters that only grow: what is saved is counted once, what is not saved is not counted, whoever counts beside us."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from recon_pipeline.ledger.cycle_state import save_reports
from recon_pipeline.ledger.database import READER, Connection, connect
from recon_pipeline.ledger.statements import statement
from recon_pipeline.ledger.totals import (
    Addition,
    TotalName,
    add_totals,
    save_account_reading,
    save_account_requests,
    save_cycle_run,
)

T0 = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)
MISMATCH = TotalName.MISMATCH


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    """A cycle counts as the role that may not write the bots' tables."""
    with connect(database_url, READER, lock_timeout_ms=5_000) as connection:
        yield connection


def totals(connection: Connection) -> dict[tuple[str, str], Decimal]:
    rows = connection.execute(statement("ops_totals"))
    return {(row["name"], row["profile_id"] or row["account_id"]): row["value"] for row in rows}


def report(profile_id: str = "p1", run_id: str = "run-1", **more: Any) -> dict[str, Any]:
    return {"profile_id": profile_id, "run_id": run_id, "cycle_at_ms": 1_714_564_800_123, "processed": True} | {
        "clean": True,
        "skipped_reason": "",
        **more,
    }


def counted(value: int, *profiles: str) -> dict[str, list[Addition]]:
    return {profile: [Addition(MISMATCH, value, profile_id=profile)] for profile in profiles or ("p1",)}


def test_a_total_is_the_sum_of_what_was_added_by_counter_profile_and_account(reader: Connection) -> None:
    with reader.transaction():
        add_totals(reader, [Addition(MISMATCH, 2, profile_id="p1"), Addition(MISMATCH, 3, profile_id="p1")])
    with reader.transaction():
        add_totals(
            reader,
            [
                Addition(MISMATCH, 4, profile_id="p1"),
                Addition(MISMATCH, 1, profile_id="p2"),
                Addition(TotalName.CYCLE_API_CALLS, 7, account_id="A1"),
                Addition(TotalName.CYCLE_RUN_SECONDS, Decimal("0.125")),
                Addition(TotalName.CYCLES, 0, profile_id="p1"),
            ],
        )
    assert totals(reader) == {
        ("reconciliation_mismatch", "p1"): 9,
        ("reconciliation_mismatch", "p2"): 1,
        ("cycle_api_calls", "A1"): 7,
        ("cycle_run_seconds", ""): Decimal("0.125"),
    }


def test_nothing_is_counted_outside_the_transaction_that_saves_it_and_nothing_that_is_rolled_back(
    reader: Connection,
) -> None:
    with pytest.raises(ValueError, match="in the transaction"):
        add_totals(reader, [Addition(MISMATCH, 1)])
    with reader.transaction(force_rollback=True):
        add_totals(reader, [Addition(MISMATCH, 1, profile_id="p1")])
        assert totals(reader) == {("reconciliation_mismatch", "p1"): 1}
    assert totals(reader) == {}


def test_a_counter_never_shrinks(reader: Connection) -> None:
    with pytest.raises(ValueError, match="can't shrink by 1"), reader.transaction():
        add_totals(reader, [Addition(MISMATCH, 5, profile_id="p1"), Addition(MISMATCH, -1, profile_id="p1")])
    assert totals(reader) == {}


def test_a_report_that_is_saved_twice_counts_once_and_the_one_beside_it_that_is_new_counts(reader: Connection) -> None:
    assert save_reports(reader, [report(mismatch_count=3)], counted=counted(3)) == {"p1": True}
    both = [report(mismatch_count=3), report("p2", mismatch_count=3)]
    assert save_reports(reader, both, counted=counted(3, "p1", "p2")) == {"p1": True, "p2": True}
    assert totals(reader) == {("reconciliation_mismatch", "p1"): 3, ("reconciliation_mismatch", "p2"): 3}
    save_reports(reader, [report(run_id="run-2", mismatch_count=3)], counted=counted(3))
    assert totals(reader)["reconciliation_mismatch", "p1"] == 6


def test_a_report_that_a_run_says_again_otherwise_is_replaced_and_not_counted_again(reader: Connection) -> None:
    save_reports(reader, [report(mismatch_count=3)], counted=counted(3))
    save_reports(reader, [report(mismatch_count=8)], counted=counted(8))
    (row,) = reader.execute("SELECT report ->> 'mismatch_count' AS said FROM recon.cycle_reports").fetchall()
    assert row["said"] == "8"
    assert totals(reader) == {("reconciliation_mismatch", "p1"): 3}


def test_a_report_whose_counting_fails_is_not_saved(reader: Connection) -> None:
    with pytest.raises(ValueError, match="can't shrink"):
        save_reports(reader, [report()], counted=counted(-1))
    assert reader.execute("SELECT 1 FROM recon.cycle_reports").fetchall() == []


def test_two_processes_that_save_the_same_report_at_once_count_it_once(database_url: str, reader: Connection) -> None:
    def again() -> None:
        with connect(database_url, READER) as other:
            save_reports(other, [report(mismatch_count=3)], counted=counted(3))

    second = threading.Thread(target=again)
    with reader.transaction():
        save_reports(reader, [report(mismatch_count=3)], counted=counted(3))
        second.start()
        second.join(0.3)
        assert second.is_alive(), "the second one has to wait for the first one's commit"
    second.join(10)
    assert totals(reader) == {("reconciliation_mismatch", "p1"): 3}


def test_counting_from_two_sides_loses_nothing_and_nobody_waits_in_a_circle(
    database_url: str, reader: Connection
) -> None:
    names = [f"p{n:02}" for n in range(40)]
    failures: list[psycopg.Error] = []

    def count_all_of_them() -> None:
        try:
            with connect(database_url, READER) as other, other.transaction():
                add_totals(other, [Addition(MISMATCH, 1, profile_id=name) for name in reversed(names)])
        except psycopg.Error as error:
            failures.append(error)

    second = threading.Thread(target=count_all_of_them)
    with reader.transaction():
        add_totals(reader, [Addition(MISMATCH, 1, profile_id=names[0])])
        second.start()
        second.join(0.5)
        assert second.is_alive(), "the other one has to wait for the first counter"
        # It waits for the first counter and holds none of the others.
        add_totals(reader, [Addition(MISMATCH, 1, profile_id=name) for name in names[1:]])
    second.join(10)
    assert failures == []
    assert totals(reader) == {("reconciliation_mismatch", name): 2 for name in names}


KILLED = """
import sys
from recon_pipeline.ledger.cycle_state import save_reports
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.totals import Addition, TotalName
def save(connection, run, value):
    report = {"profile_id": "p1", "run_id": run, "cycle_at_ms": 1, "processed": True, "clean": True, "skipped_reason": ""}
    save_reports(connection, [report], counted={"p1": [Addition(TotalName.MISMATCH, value, profile_id="p1")]})
with connect(sys.argv[1], "recon_reader") as connection:
    save(connection, "run-1", 3)
    with connection.transaction():
        save(connection, "run-2", 100)
        print("counted, not committed", flush=True)
        sys.stdin.read()
"""


def test_a_process_that_is_killed_has_counted_what_it_saved_and_nothing_else(
    database_url: str, reader: Connection
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, database_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("counted")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    saved = reader.execute("SELECT run_id FROM recon.cycle_reports").fetchall()
    assert [row["run_id"] for row in saved] == ["run-1"]
    assert totals(reader) == {("reconciliation_mismatch", "p1"): 3}
    save_reports(reader, [report(run_id="run-2", mismatch_count=5)], counted=counted(5))
    assert totals(reader) == {("reconciliation_mismatch", "p1"): 8}


def test_a_run_that_is_saved_twice_counts_once(reader: Connection) -> None:
    run = {"began_at": T0, "profiles": 3, "failed": 1, "contended": 1}
    assert save_cycle_run(reader, "run-1", ended_at=T0 + dt.timedelta(seconds=2.5), **run)
    assert not save_cycle_run(reader, "run-1", ended_at=T0 + dt.timedelta(seconds=9), **run)
    assert save_cycle_run(reader, "run-2", ended_at=T0 + dt.timedelta(microseconds=1), **run)
    assert totals(reader) == {("cycle_runs", ""): 2, ("cycle_run_seconds", ""): Decimal("2.500001")}


def test_a_clock_that_was_set_back_makes_no_run_shorter_than_nothing(reader: Connection) -> None:
    run = {"began_at": T0, "profiles": 1, "failed": 0, "contended": 0}
    assert save_cycle_run(reader, "run-1", ended_at=T0 - dt.timedelta(hours=1), **run)
    assert totals(reader) == {("cycle_runs", ""): 1}


def usage(connection: Connection) -> list[tuple[Any, ...]]:
    rows = connection.execute(
        "SELECT account_id, rate_limit, rate_remaining, complete, incomplete_why, read_at, asked_at "
        "FROM recon.account_usage ORDER BY account_id"
    )
    return [tuple(row.values()) for row in rows]


def reading(connection: Connection, minute: int, **more: Any) -> None:
    at = T0 + dt.timedelta(minutes=minute)
    known: dict[str, Any] = {"calls": 10, "rate_limit": 200, "rate_remaining": 150, "complete": True}
    save_account_reading(connection, "A1", **(known | {"incomplete_why": "", "read_at": at, "asked_at": at} | more))


def test_requests_of_cycle_and_sync_are_counted_apart_and_what_is_left_is_the_latest_answer(reader: Connection) -> None:
    reading(reader, 0)
    calls = Addition(TotalName.ORDER_STATUS_API_CALLS, 4, account_id="A1")
    later = T0 + dt.timedelta(minutes=2)
    save_account_requests(reader, calls, rate_limit=None, rate_remaining=120, asked_at=later)
    assert usage(reader) == [("A1", 200, 120, True, "", T0, later)]
    assert totals(reader) == {("cycle_api_calls", "A1"): 10, ("order_status_api_calls", "A1"): 4}


def test_a_slower_reading_that_began_earlier_is_counted_and_does_not_overwrite_a_later_one(reader: Connection) -> None:
    reading(reader, 5, complete=False, incomplete_why="a page failed", rate_remaining=99)
    reading(reader, 0, rate_remaining=10)
    at = T0 + dt.timedelta(minutes=5)
    assert usage(reader) == [("A1", 200, 99, False, "a page failed", at, at)]
    assert totals(reader) == {("cycle_api_calls", "A1"): 20}


def test_of_an_account_that_no_cycle_has_read_nobody_says_whether_it_can_be_read_completely(reader: Connection) -> None:
    calls = Addition(TotalName.ORDER_STATUS_API_CALLS, 1, account_id="A9")
    save_account_requests(reader, calls, rate_limit=None, rate_remaining=None, asked_at=T0)
    assert usage(reader) == [("A9", None, None, None, "", None, T0)]
