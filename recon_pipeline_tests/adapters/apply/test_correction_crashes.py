"""kill -9 at any moment of a correction, a dropped connection, a lost commit: all or nothing, and again ends the same."""

from __future__ import annotations

import psycopg
import pytest

from recon_pipeline.apply import ApplyState
from recon_pipeline.apply.corrections import FAULT_POINTS
from recon_pipeline.domain.corrections import CorrectionPlan, Handler, Stage
from recon_pipeline_tests.adapters.apply.book import Book, at_point
from recon_pipeline_tests.adapters.apply.correcting import correct, corrections, ended, filled, inserted, plan_of
from recon_pipeline_tests.adapters.apply.test_crashes import expire_leases, killed_in_a_process, outcome


def prepare(book: Book) -> CorrectionPlan:
    """One of everything: an update, an insert with books of its own, and a backfill row that is superseded."""
    book.trade("t1", "10")
    book.record("x1", "t1", "SELL", "6", action="EXIT", status="pending_new")
    book.trade("t2", "10")
    book.executed("x7", "t2", "4", price="110")
    assert book.apply(book.plan()).inserted_rows == 1
    (backfill,) = book.backfill_rows()
    return plan_of(
        filled(book, "x1", "6"),
        inserted("e3", "5", side="BUY", action="ENTRY", handler=Handler.ENTRY_FILL, trade_id="t3"),
        inserted("x7", "4", price="110", trade_id="t2"),
        ended(
            book,
            backfill["order_id"],
            handler=Handler.SUPERSEDE,
            trade_id="t2",
            cause={"rule": "own_row_recorded", "exchange_order_id": "x7"},
        ),
        stage=Stage.ORDER_COVERAGE,
    )


@pytest.fixture(scope="module")
def undisturbed(postgres) -> dict[str, list[str]]:
    """The ledger after the same correction that nothing happened to."""
    url = postgres.new_database(migrated=True)
    try:
        twin = Book(url)
        twin.profile("p1")
        assert correct(twin, prepare(twin)).corrections == 4
        return outcome(twin)
    finally:
        postgres.drop(url)


@pytest.mark.parametrize("point", FAULT_POINTS)
def test_kill_9_at_any_point_leaves_all_or_nothing_and_the_same_plan_again_ends_in_the_undisturbed_ledger(
    book: Book, undisturbed: dict[str, list[str]], point: str
):
    plan = prepare(book)
    before = outcome(book)
    killed_in_a_process(lambda at: correct(book, plan, at=at), point)

    done = point == "committed_corrections"
    assert outcome(book) == (undisturbed if done else before)
    assert len(corrections(book)) == (10 if done else 0)
    early = correct(book, plan, owner="other")
    assert early.refused_reason == "lease_lost", "the dead run's lease lasts a while"
    expire_leases(book)
    again = correct(book, plan, owner="other", run_id="run-9")

    assert (again.state, again.corrections) == (ApplyState.APPLIED, 4)
    assert outcome(book) == undisturbed
    assert len(corrections(book)) == 10
    assert book.rows("SELECT * FROM recon.batches WHERE state = 'PENDING_APPLY'") == []


@pytest.mark.parametrize("point", ["gates_held", "rows_written", "batch_applied"])
def test_a_connection_dropped_inside_the_transaction_writes_nothing_and_says_so(
    book: Book, undisturbed: dict[str, list[str]], point: str
):
    plan = prepare(book)
    before = outcome(book)

    def drop() -> None:
        with psycopg.connect(book.url, autocommit=True) as admin:
            cut = admin.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                b" WHERE datname = current_database() AND application_name = 'recon corrections'"
            ).fetchall()
            assert cut == [(True,)]

    result = correct(book, plan, at=at_point(point, drop))

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "apply_failed")
    assert outcome(book) == before
    assert [event["severity"] for event in book.events()] == ["ERROR"]
    assert correct(book, plan).state is ApplyState.APPLIED
    assert outcome(book) == undisturbed


def test_a_commit_whose_answer_was_lost_counts_as_applied(book: Book, undisturbed: dict[str, list[str]]):
    def lose_the_answer() -> None:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    result = correct(book, prepare(book), at=at_point("committed_corrections", lose_the_answer))

    assert (result.state, result.corrections) == (ApplyState.APPLIED, 4)
    assert outcome(book) == undisturbed
    assert book.events() == []


def test_a_database_that_is_gone_leaves_the_outcome_unknown(book: Book, undisturbed: dict[str, list[str]]):
    plan = prepare(book)
    name = psycopg.conninfo.conninfo_to_dict(book.url)["dbname"]
    admin_url = book.url.replace(f"/{name}?", "/postgres?")

    def take_away() -> None:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
            admin.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    result = correct(book, plan, at=at_point("rows_written", take_away))
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "outcome_unknown")
    expire_leases(book)
    assert correct(book, plan).state is ApplyState.APPLIED
    assert outcome(book) == undisturbed
