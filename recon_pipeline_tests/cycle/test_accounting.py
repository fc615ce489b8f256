"""What a cycle leaves in the counters, the runs and the accounts' usage: exactly what it did, once."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.cycle import account as account_module
from recon_pipeline.cycle.ports import CyclePorts
from recon_pipeline.cycle.running import run_cycle
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.leases import acquire_leases
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.sandbox.exchange.faults import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import ago, filled, order_id
from recon_pipeline_tests.cycle.conftest import Held, Scene


def totals(scene: Scene) -> dict[tuple[str, str], int]:
    rows = scene.sql("SELECT name, profile_id, account_id, value FROM recon.totals")
    return {
        (row["name"], row["profile_id"] or row["account_id"]): int(row["value"])
        for row in rows
        if row["name"] != "cycle_run_seconds"
    }


def runs(scene: Scene) -> list[tuple[Any, ...]]:
    rows = scene.sql("SELECT run_id, profiles, failed, contended FROM recon.cycle_runs ORDER BY run_id")
    return [tuple(row.values()) for row in rows]


def stuck(scene: Scene, profile: str, account: str, number: int) -> None:
    """A profile whose only order was executed at the exchange and is pending in the ledger."""
    scene.profile(profile, account)
    client_id = f"bytelyst-{profile}-t{number}-entry"
    order = filled(number, "AAPL", "buy", ("10", "100", ago(hours=2)), client_order_id=client_id)
    scene.world.inject(order, account=account)
    scene.row(
        order_id(number),
        profile_id=profile,
        client_order_id=client_id,
        side="BUY",
        qty=10,
        price=100,
        status="pending_new",
        trade_id=f"t{number}",
        action="ENTRY",
        sub_tag=f"bytelyst:{profile}:t{number}",
    )


def test_the_counters_of_the_source_grow_by_what_each_cycle_found(scene: Scene) -> None:
    stuck(scene, "p1", "A1", 1)
    first = scene.run(policy=scene.dry())["p1"].report
    assert (first.mismatch_count, first.missing_from_exchange, first.corrections) == (1, 0, 0)
    scene.wait()
    assert scene.run()["p1"].report.corrections == 1
    scene.wait()
    assert scene.run()["p1"].report.mismatch_count == 0
    found = totals(scene)
    del found["cycle_api_calls", "A1"]
    assert found == {
        ("reconciliation_mismatch", "p1"): 2,
        ("corrections", "p1"): 1,
        ("cycles", "p1"): 3,
        ("cycle_runs", ""): 3,
    }
    assert runs(scene) == [("run-0", 1, 0, 0), ("run-1", 1, 0, 0), ("run-2", 1, 0, 0)]


def test_every_request_that_the_exchange_saw_is_counted_for_its_account_look_ups_and_repeated_ones_too(
    scene: Scene,
) -> None:
    scene.profile()
    scene.profile("p2", "A2")
    for n in (7, 8):  # unknown to the exchange: looked up by id, then by client id
        scene.row(order_id(n), client_order_id=f"mine-{n}", side="BUY", qty=1, price=1, status="new", trade_id=f"t{n}")
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, path="/v2/positions", status=503, count=1))
    scene.world.sim.faults.requests.clear()
    cycles = scene.run("p1", "p2")
    found = totals(scene)
    counted = found["cycle_api_calls", "A1"] + found["cycle_api_calls", "A2"]
    assert counted == len(scene.world.requests)
    assert cycles["p1"].api_calls == found["cycle_api_calls", "A1"]
    assert cycles["p2"].api_calls == found["cycle_api_calls", "A2"]
    assert found["cycle_api_calls", "A1"] >= found["cycle_api_calls", "A2"] + 4
    (usage,) = scene.sql("SELECT * FROM recon.account_usage WHERE account_id = 'A1'")
    assert (usage["complete"], usage["incomplete_why"], usage["rate_limit"]) == (True, "", 200)
    assert usage["rate_remaining"] == scene.world.reader.usage_of("A1").rate_remaining


def test_an_account_that_can_not_be_read_is_counted_as_failed_and_says_why(scene: Scene) -> None:
    stuck(scene, "p1", "A1", 1)
    stuck(scene, "p2", "A2", 2)
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, path="/v2/account", status=403, account="A1"))
    cycles = scene.run("p1", "p2")
    assert cycles["p1"].report.error
    found = totals(scene)
    assert (found["cycles", "p1"], found["failed_cycles", "p1"]) == (1, 1)
    assert (found["cycles", "p2"], found["corrections", "p2"]) == (1, 1)
    assert ("failed_cycles", "p2") not in found
    assert runs(scene) == [("run-0", 2, 1, 0)]
    (usage,) = scene.sql("SELECT complete, incomplete_why FROM recon.account_usage WHERE account_id = 'A1'")
    assert not usage["complete"]
    assert "403" in usage["incomplete_why"]


def test_an_account_whose_cycle_breaks_is_a_failed_cycle_whose_requests_are_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.profile()

    def breaks(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(account_module.AccountCycle, "run", breaks)
    assert scene.run()["p1"].report.error == "RuntimeError: broken"
    found = totals(scene)
    assert found["failed_cycles", "p1"] == 1
    assert found["cycle_api_calls", "A1"] > 3
    assert runs(scene) == [("run-0", 1, 1, 0)]


def test_a_profile_that_another_run_works_on_had_no_cycle(scene: Scene) -> None:
    scene.profile()
    scene.run(without_lease=["p1"])
    assert totals(scene) == {("cycle_runs", ""): 1}
    assert runs(scene) == [("run-0", 1, 0, 1)]


def test_a_run_that_stops_in_the_middle_has_counted_what_it_saved_and_goes_on_without_counting_twice(
    scene: Scene,
) -> None:
    stuck(scene, "p1", "A1", 1)
    stuck(scene, "p2", "A2", 2)
    policy = scene.dry()
    with connect(scene.database_url, READER) as connection, PostgresLedger(scene.database_url) as ledger:
        leases = acquire_leases(connection, ["p1", "p2"], owner="run", ttl_seconds=60)
        ports = CyclePorts(scene.database_url, ledger, scene.world.reader, Held(leases))
        run = {"ports": ports, "policy": policy, "run_id": "run", "now": lambda: scene.now, "new_id": lambda: "1"}
        stopped = run_cycle(("p1", "p2"), **run)
        first = next(stopped).profile_id
        stopped.close()
        other = "p2" if first == "p1" else "p1"
        found = totals(scene)
        assert (found["reconciliation_mismatch", first], found["cycles", first]) == (1, 1)
        assert ("cycles", other) not in found
        assert ("cycle_runs", "") not in found
        assert runs(scene) == []
        assert len(list(run_cycle(("p1", "p2"), **run))) == 2
    found = totals(scene)
    assert [found["reconciliation_mismatch", profile] for profile in ("p1", "p2")] == [1, 1]
    assert [found["cycles", profile] for profile in ("p1", "p2")] == [1, 1]
    assert runs(scene) == [("run", 2, 0, 0)]


def test_the_time_that_runs_took_adds_up(scene: Scene) -> None:
    scene.profile()
    for _ in range(2):
        scene.run()
        scene.wait()
    (total,) = scene.sql("SELECT sum(extract(epoch FROM ended_at - began_at)) AS seconds FROM recon.cycle_runs")
    found = scene.sql("SELECT value FROM recon.totals WHERE name = 'cycle_run_seconds'")
    assert sum((row["value"] for row in found), Decimal(0)) == total["seconds"]
