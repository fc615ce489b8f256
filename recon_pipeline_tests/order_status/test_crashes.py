"""kill -9 at any moment of a run, or two runs at once: the next run goes on, and nothing is lost or done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial

from recon_pipeline.apply import corrections
from recon_pipeline.order_status import syncing
from recon_pipeline_tests.adapters.apply.book import at_point
from recon_pipeline_tests.adapters.exchange.world import order_id
from recon_pipeline_tests.order_status.scene import SyncScene

POINTS = tuple(dict.fromkeys([*syncing.FAULT_POINTS, *corrections.FAULT_POINTS]))


COMMITTED = {"committed_corrections", "committed_checks", "profiles_done"}
"""Where the profile of the first order has been written."""


def killed_in_a_process(work: Callable[[Callable[[str], None]], object], point: str) -> None:
    """Do the work in a process of its own, and kill that process at the point."""

    def run() -> None:
        work(at_point(point, lambda: os.kill(os.getpid(), signal.SIGKILL)))

    worker = multiprocessing.get_context("fork").Process(target=run)
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == -signal.SIGKILL, f"the process did not reach {point}"


def dead_run(scene: SyncScene, run_id: str, at: Callable[[str], None]) -> None:
    scene.sync("p1", "p2", run_id=run_id, at=at)


def written(scene: SyncScene, key: str) -> list[tuple[str, str]]:
    rows = scene.sql(
        "SELECT * FROM recon.corrections WHERE table_name = 'orders' AND row_key->>'order_id' = %(key)s ORDER BY id",
        key=key,
    )
    return [(row["before"]["status"], row["after"]["status"]) for row in rows]


def test_kill_9_at_any_point_of_a_run_loses_nothing_and_repeats_nothing(scene: SyncScene):
    scene.profile("p2")
    for round_, point in enumerate(POINTS):
        n = 10 * (round_ + 1)
        filled = scene.stuck(n, executed="10", hours=30)
        unknown = scene.stuck(n + 1, known=False, hours=30)
        waits = scene.stuck(n + 2, profile_id="p2")

        killed_in_a_process(partial(dead_run, scene, f"dead-{n}"), point)
        before_next = scene.order(filled)["status"]
        scene.sql("UPDATE recon.leases SET expires_at = now() - interval '1 second'")
        scene.sync("p1", "p2")

        statuses = [scene.order(key)["status"] for key in (filled, unknown, waits)]
        assert statuses == ["filled", "unknown", "pending_new"], point
        assert written(scene, filled) == [("pending_new", "filled")], point
        assert written(scene, unknown) == [("pending_new", "unknown")], point
        assert before_next == (
            "filled" if point in {"committed_corrections", "committed_checks", "profiles_done"} else "pending_new"
        )
        totals, rounds = scene.totals(), round_ + 1
        names = ("checked", "updated", "not_found", "failed")
        counted = [totals.get(f"order_status_{name}", Decimal(0)) for name in names]
        assert counted == [3 * rounds, rounds, rounds, 0], point
        outcomes = {key: row["outcome"] for key, row in scene.checks().items()}
        assert (outcomes.get(filled), outcomes[unknown], outcomes[waits]) == (None, "marked_unknown", "live"), point
        assert scene.due() == []
        assert scene.sql("SELECT * FROM recon.batches WHERE state <> 'APPLIED'") == []
    assert (
        scene.sql("SELECT * FROM recon.corrections WHERE table_name = 'orders' AND row_key->>'order_id' LIKE 'BFILL%%'")
        == []
    )


def test_two_runs_at_once_write_every_order_once(scene: SyncScene):
    keys = [scene.stuck(n, executed="10") for n in range(1, 6)]
    both_asked = threading.Barrier(2, timeout=30)

    def meet(point: str) -> None:
        if point == "accounts_asked":
            both_asked.wait()

    runs = [threading.Thread(target=scene.sync, kwargs={"run_id": f"at-once-{n}", "at": meet}) for n in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=60)

    assert {scene.order(key)["status"] for key in keys} == {"filled"}
    assert [written(scene, key) for key in keys] == [[("pending_new", "filled")]] * 5
    assert scene.totals()["order_status_updated"] == 5
    assert (scene.checks(), scene.due()) == ({}, [])
    assert order_id(1) == keys[0]
