"""Several applies at once: threads, processes, profiles that share an account. No fill is used twice."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import threading
from collections.abc import Sequence
from decimal import Decimal

import pytest

from recon_pipeline.apply import ApplyResult, ApplyState, verify_batch
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases
from recon_pipeline_tests.adapters.apply.book import Book


def together(book: Book, plans: Sequence[ProfilePlan], *, at: str = "gates_held", **more: object) -> list[ApplyResult]:
    """Apply the plans in threads that meet at a fault point, as far as each gets there."""
    barrier = threading.Barrier(len(plans))
    results: dict[int, ApplyResult] = {}

    def meet(point: str) -> None:
        if point == at:
            # Where the other one is refused or waits behind a lock, nobody comes: also a meeting.
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=2)

    def work(index: int) -> None:
        arguments = {"owner": f"worker-{index}", "run_id": f"run-{index}", **more}
        results[index] = book.apply(plans[index], at=meet, **arguments)

    threads = [threading.Thread(target=work, args=[index]) for index in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return [results[index] for index in range(len(plans))]


def test_two_applies_of_one_profile_at_once_insert_once(ghost: Book):
    """Each run has a lease or is refused."""
    results = together(ghost, [ghost.plan(batch="B1"), ghost.plan(batch="B2")])

    assert len(ghost.backfill_rows()) == 2
    assert sorted(result.state.value for result in results) in (["applied", "refused"], ["applied", "applied"])
    assert sum(result.inserted_rows for result in results) == 2
    assert ghost.position("t1")["qty"] == 0
    assert ghost.history("t1")["exit_qty"] == 10


def test_two_applies_under_one_lease_at_once_insert_once(ghost: Book):
    """Two threads of one run hold the same lease: the account's lock and the row ids keep them apart."""
    with connect(ghost.url, WRITER) as connection:
        lease = acquire_leases(connection, ["p1"], owner="worker", ttl_seconds=60)["p1"]

    results = together(ghost, [ghost.plan(batch="B1"), ghost.plan(batch="B2")], lease=lease)

    assert len(ghost.backfill_rows()) == 2
    assert sum(result.inserted_rows for result in results) == 2
    assert ghost.history("t1")["exit_qty"] == 10
    assert ghost.history("t1")["realized_pnl_usd"] == Decimal(70)
    assert len(ghost.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL")) == 2


@pytest.mark.parametrize("round_", range(3))
def test_two_profiles_that_cite_one_exchange_order_cannot_both_use_it(book: Book, round_: int):
    """Two runs planned apart, each with its own attribution of the same execution: only one wins."""
    book.profile("p2")
    book.trade("t1", "10", profile_id="p1")
    book.trade("t2", "10", profile_id="p2")
    book.executed("x1", "t1", "10", profile_id="p1")
    first = book.plan("p1", batch="B1")
    book.exchange["a1"][0]["client_order_id"] = "bytelyst-p2-t2-exit"
    second = book.plan("p2", batch="B2")
    assert (len(first.proposals), len(second.proposals)) == (1, 1)

    results = together(book, [first, second])

    assert sorted(result.state.value for result in results) == ["applied", "refused"]
    loser = next(result for result in results if result.state is ApplyState.REFUSED)
    assert loser.refused_reason == "evidence_already_consumed"
    assert len(book.backfill_rows("p1")) + len(book.backfill_rows("p2")) == 1
    winner = next(result for result in results if result.state is ApplyState.APPLIED)
    assert verify_batch(book.url, winner.batch_id).passed


def test_two_profiles_that_share_the_quantity_of_one_order_both_get_theirs(book: Book):
    """Executed 10, used 4 and 6: both fit, whoever comes first."""
    book.profile("p2")
    book.trade("t1", "4", profile_id="p1")
    book.trade("t2", "6", profile_id="p2")
    book.executed("x1", "t1", "10", profile_id="p1")
    first = book.plan("p1", batch="B1")
    book.exchange["a1"][0]["client_order_id"] = "bytelyst-p2-t2-exit"
    second = book.plan("p2", batch="B2")

    results = together(book, [first, second])

    assert [result.state for result in results] == [ApplyState.APPLIED, ApplyState.APPLIED]
    checks = verify_batch(book.url, "B1-p1").checks
    assert [(check.name, check.passed) for check in checks] == [
        ("no fill is used twice", True),
        ("conservation holds", True),
        ("no trade is over-exited", True),
    ]


def test_profiles_of_different_accounts_do_not_wait_for_each_other(book: Book):
    book.profile("p2", "a2")
    book.trade("t1", "10", profile_id="p1")
    book.trade("t2", "10", profile_id="p2")
    book.executed("x1", "t1", "10", profile_id="p1", account_id="a1")
    book.executed("x2", "t2", "10", profile_id="p2", account_id="a2")
    plans = book.plans(["p1", "p2"])

    results = together(book, [plans["p1"], plans["p2"]], at="rows_inserted")

    assert [result.state for result in results] == [ApplyState.APPLIED, ApplyState.APPLIED]


def _apply_in_a_process(url: str, plan: ProfilePlan, digest: str, start: object, answers: object) -> None:
    book = Book.__new__(Book)
    book.url = url
    start.wait()
    result = book.apply(plan, owner=plan.batch_id, run_id=plan.batch_id, expected_digest=digest)
    answers.put((plan.batch_id, result.state.value, result.inserted_rows))


def test_four_processes_at_once_insert_once(ghost: Book):
    context = multiprocessing.get_context("fork")
    start, answers = context.Event(), context.Queue()
    plan = ghost.plan()
    plans = [dataclasses.replace(plan, batch_id=f"B{number}-p1") for number in range(4)]
    workers = [
        context.Process(target=_apply_in_a_process, args=(ghost.url, own, own.digest, start, answers)) for own in plans
    ]
    for worker in workers:
        worker.start()
    start.set()
    outcomes = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0

    assert sum(inserted for _, _, inserted in outcomes) == 2
    assert len(ghost.backfill_rows()) == 2
    assert ghost.history("t1")["exit_qty"] == 10
    assert ghost.rows("SELECT count(*) AS n FROM recon.batches WHERE state = 'PENDING_APPLY'")[0]["n"] == 0
