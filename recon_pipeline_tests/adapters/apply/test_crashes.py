"""kill -9 at any moment, a dropped connection, a lost commit: run again, and the ledger is that of an undisturbed apply."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable

import psycopg
import pytest

from recon_pipeline.apply import ApplyState, find_stuck_batches
from recon_pipeline.apply.applying import FAULT_POINTS
from recon_pipeline.apply.rolling_back import FAULT_POINTS as ROLLBACK_POINTS
from recon_pipeline_tests.adapters.apply.book import LEDGER_TABLES, Book, at_point

OUTCOME = (*LEDGER_TABLES, "recon.consumption")
OUTCOME_VOLATILE = ("id", "created_at", "updated_at", "batch_id", "released_at")


def outcome(book: Book) -> dict[str, list[str]]:
    """The ledger and what it consumed, whichever batch did it and when."""
    return book.dump(OUTCOME, without=OUTCOME_VOLATILE)


def killed_in_a_process(work: Callable[[Callable[[str], None]], object], point: str) -> None:
    """Do the work in a process of its own, and kill that process at the point."""

    def run() -> None:
        work(at_point(point, lambda: os.kill(os.getpid(), signal.SIGKILL)))

    worker = multiprocessing.get_context("fork").Process(target=run)
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == -signal.SIGKILL, f"the process did not reach {point}"


def expire_leases(book: Book) -> None:
    """The time passes that a dead run's lease lasts."""
    book.run("UPDATE recon.leases SET expires_at = now() - interval '1 second'")


@pytest.fixture
def undisturbed(new_database, ghost: Book) -> dict[str, list[str]]:
    """What the same ghost looks like after an apply that nothing happened to."""
    twin = Book(new_database())
    twin.profile("p1")
    twin.trade("t1", "10")
    twin.executed("x1", "t1", "4", price="110")
    twin.executed("x2", "t1", "6", price="105", suffix="-exit-2")
    assert twin.dump() == ghost.dump()
    assert twin.apply(twin.plan()).state is ApplyState.APPLIED
    return outcome(twin)


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_kill_9_at_any_point_of_an_apply_and_a_new_run_end_in_the_undisturbed_ledger(
    ghost: Book, undisturbed: dict[str, list[str]], point: str
):
    before = ghost.dump()
    plan = ghost.plan(batch="dead")
    killed_in_a_process(lambda at: ghost.apply(plan, at=at), point)

    done = point == "committed_apply"
    announced = point not in {"before_announcing", "announced"}
    assert (ghost.dump() != before) is done
    stuck = find_stuck_batches(ghost.url, older_than_seconds=0)
    assert [row["batch_id"] for row in stuck] == (["dead-p1"] if announced and not done else [])

    early = ghost.apply(ghost.plan(batch="early"), owner="other")
    assert early.refused_reason == "lease_lost", "the dead run's lease lasts a while"
    expire_leases(ghost)
    again = ghost.plan(batch="alive")
    result = ghost.apply(again, owner="other", run_id="run-9")

    assert result.state is (ApplyState.NOTHING_TO_APPLY if done else ApplyState.APPLIED)
    assert outcome(ghost) == undisturbed
    assert find_stuck_batches(ghost.url, older_than_seconds=0) == []
    if announced and not done:
        assert result.superseded_batches == ("dead-p1",)
        assert ghost.batch("dead-p1")["state"] == "FAILED"
        assert ghost.batch("dead-p1")["error"] == "superseded by alive-p1"
    if done:
        assert ghost.batch("dead-p1")["state"] == "APPLIED"


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_kill_9_and_the_same_batch_again_end_in_the_undisturbed_ledger(
    ghost: Book, undisturbed: dict[str, list[str]], point: str
):
    """A run that is retried with its stored plan: one batch, one outcome, no audit row twice."""
    plan = ghost.plan()
    killed_in_a_process(lambda at: ghost.apply(plan, at=at), point)

    result = ghost.apply(plan)

    assert result.state is ApplyState.APPLIED
    assert len(result.inserted) == 2
    assert outcome(ghost) == undisturbed
    assert ghost.decisions("B1-p1") == ["PENDING_APPLY", "PENDING_APPLY", "APPLIED", "APPLIED"]
    assert find_stuck_batches(ghost.url, older_than_seconds=0) == []


@pytest.mark.parametrize("point", ROLLBACK_POINTS)
def test_kill_9_at_any_point_of_a_rollback_and_the_same_again_end_in_the_rolled_back_ledger(ghost: Book, point: str):
    before = ghost.dump()
    ghost.apply(ghost.plan())
    killed_in_a_process(lambda at: ghost.rollback("B1-p1", at=at), point)

    result = ghost.rollback("B1-p1")

    assert result.state.value == "reverted"
    assert {row["status"] for row in ghost.backfill_rows()} == {"canceled"}
    ghost.run("DELETE FROM orders WHERE order_id LIKE 'BFILL-%'")
    assert ghost.dump() == before
    assert ghost.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL") == []
    assert [event["type"] for event in ghost.events()] == ["backfill_reverted"]


@pytest.mark.parametrize("point", ["gates_held", "rows_inserted", "audit_recorded", "batch_applied"])
def test_a_connection_dropped_inside_the_transaction_writes_nothing_and_says_so(ghost: Book, point: str):
    before = ghost.dump()

    def drop() -> None:
        with psycopg.connect(ghost.url, autocommit=True) as admin:
            cut = admin.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                b" WHERE datname = current_database() AND application_name = 'recon apply'"
            ).fetchall()
            assert cut == [(True,)]

    result = ghost.apply(ghost.plan(), at=at_point(point, drop))

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "apply_failed")
    assert ghost.dump() == before
    assert ghost.batch("B1-p1")["state"] == "FAILED"
    (event,) = ghost.events()
    assert event["severity"] == "ERROR"
    assert ghost.apply(ghost.plan(batch="B2")).state is ApplyState.APPLIED


def test_a_commit_whose_answer_was_lost_counts_as_applied(ghost: Book, undisturbed: dict[str, list[str]]):
    """The database committed, the client saw an error: the outcome is read, not guessed."""

    def lose_the_answer() -> None:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    result = ghost.apply(ghost.plan(), at=at_point("committed_apply", lose_the_answer))

    assert result.state is ApplyState.APPLIED
    assert len(result.inserted) == 2
    assert outcome(ghost) == undisturbed
    assert ghost.batch("B1-p1")["state"] == "APPLIED"
    assert ghost.events() == []


def test_a_database_that_is_gone_leaves_the_batch_for_the_next_run(ghost: Book):
    before = ghost.dump()
    plan = ghost.plan()
    name = psycopg.conninfo.conninfo_to_dict(ghost.url)["dbname"]
    admin_url = ghost.url.replace(f"/{name}?", "/postgres?")

    def take_away() -> None:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
            admin.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    result = ghost.apply(plan, at=at_point("rows_inserted", take_away))
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "outcome_unknown")
    assert ghost.dump() == before
    assert [row["batch_id"] for row in find_stuck_batches(ghost.url, older_than_seconds=0)] == ["B1-p1"]
    assert ghost.apply(plan).state is ApplyState.APPLIED


def test_a_stuck_batch_of_a_ghost_that_somebody_closed_since_is_closed_too(ghost: Book):
    killed_in_a_process(lambda at: ghost.apply(ghost.plan(batch="dead"), at=at), "gates_held")
    ghost.record("x1", "t1", "SELL", "4", action="EXIT")
    ghost.record("x2", "t1", "SELL", "6", action="EXIT")

    result = ghost.apply(ghost.plan(batch="alive"))

    assert result.state is ApplyState.NOTHING_TO_APPLY
    assert result.superseded_batches == ("dead-p1",)
    assert find_stuck_batches(ghost.url, older_than_seconds=0) == []
