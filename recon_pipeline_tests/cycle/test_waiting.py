"""What waits for a person after a cycle: on a real Postgres and the simulated exchange."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.cycle import account as account_module
from recon_pipeline.cycle.outcome import ProfileCycle, ReconciliationReport, StageOutcome
from recon_pipeline.cycle.waiting import decided_stages
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.cycle_policy import PositionParityPolicy
from recon_pipeline.domain.waiting import WaitingCase
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.leases import acquire_leases, release_leases
from recon_pipeline.ledger.waiting import ProfileCases, save_waiting_cases
from recon_pipeline.sandbox.exchange.faults import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import ago, order_id
from recon_pipeline_tests.cycle.conftest import Scene


def waiting(scene: Scene) -> list[dict[str, Any]]:
    return scene.sql("SELECT * FROM recon.waiting_cases ORDER BY notional_usd DESC NULLS LAST, profile_id, case_key")


def ghost(scene: Scene, trade: str = "t1", *, number: int = 1, qty: int = 10, profile: str = "p1") -> None:
    """An open trade of which the exchange knows nothing: nobody can prove what became of it."""
    scene.row(
        order_id(number),
        profile_id=profile,
        side="BUY",
        qty=qty,
        price=100,
        trade_id=trade,
        action="ENTRY",
    )


def test_a_trade_that_nothing_explains_waits_with_its_money_and_since_when(scene: Scene) -> None:
    scene.profile()
    ghost(scene)
    began = scene.now
    scene.run()
    cases = waiting(scene)
    assert [(case["stage"], case["reason"], case["trade_id"]) for case in cases] == [
        ("exit_backfill", "missing_fill_evidence_for_large_remainder", "t1"),
        ("position_parity", "unattributed", "t1"),
    ]
    assert {case["notional_usd"] for case in cases} == {Decimal(1000)}
    assert {(case["profile_id"], case["account_id"], case["symbol"]) for case in cases} == {("p1", "A1", "AAPL")}
    assert {case["run_id"] for case in cases} == {"run-0"}
    scene.wait(5)
    scene.run()
    again = waiting(scene)
    assert [case["case_key"] for case in again] == [case["case_key"] for case in cases]
    assert {case["first_seen_at"] for case in again} == {case["first_seen_at"] for case in cases} == {cut(began)}
    assert {case["seen_at"] for case in again} == {cut(scene.now)}


def cut(instant: dt.datetime) -> dt.datetime:
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def test_a_case_that_is_resolved_is_gone_with_the_next_cycle(scene: Scene) -> None:
    scene.profile()
    ghost(scene)
    scene.run()
    assert len(waiting(scene)) == 2
    scene.sql("UPDATE orders SET status = 'canceled'")
    scene.wait()
    scene.run()
    assert waiting(scene) == []


def test_most_money_comes_first_and_a_profile_that_is_not_run_keeps_its_cases(scene: Scene) -> None:
    scene.profile("p1", "A1")
    scene.profile("p2", "A2")
    ghost(scene, "small", number=1, qty=1)
    ghost(scene, "large", number=2, qty=7)
    ghost(scene, "other", number=3, qty=3, profile="p2")
    scene.run("p1", "p2")
    ranked = list(dict.fromkeys((case["trade_id"], case["notional_usd"]) for case in waiting(scene)))
    assert ranked == [("large", 700), ("other", 300), ("small", 100)]
    scene.sql("UPDATE orders SET status = 'canceled'")
    scene.wait()
    scene.run("p1")
    assert {case["trade_id"] for case in waiting(scene)} == {"other"}


def test_an_incomplete_reading_leaves_the_cases_as_they_are(scene: Scene) -> None:
    scene.profile()
    ghost(scene)
    scene.run()
    before = waiting(scene)
    scene.sql("UPDATE orders SET status = 'canceled'")
    scene.wait()
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, account="PKA1"))
    assert not scene.run()["p1"].report.evidence_complete
    assert waiting(scene) == before


def test_an_incomplete_reading_decides_nothing_not_even_of_a_step_that_is_switched_off() -> None:
    off = StageOutcome(Stage.POSITION_PARITY, attempted=False, skipped_reason="disabled")
    report = ReconciliationReport("p1", "u1", "A1", "r1", 0, processed=True, evidence_complete=True)
    cycle = ProfileCycle(report, stages={Stage.POSITION_PARITY: off})
    assert decided_stages(cycle) == {Stage.POSITION_PARITY}
    assert decided_stages(replace(cycle, report=replace(report, evidence_complete=False))) == frozenset()


def test_a_step_that_failed_keeps_its_cases_and_the_others_are_replaced(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.profile()
    ghost(scene)
    scene.run()
    before = waiting(scene)
    scene.sql("UPDATE orders SET status = 'canceled'")
    scene.wait()

    def fails(*_: object, **__: object) -> None:
        raise ArithmeticError("a defect")

    monkeypatch.setattr(account_module, "plan_position_parity", fails)
    scene.run()
    assert waiting(scene) == [case for case in before if case["stage"] == "position_parity"]
    assert len(before) == 2


def test_a_step_that_is_switched_off_has_no_cases(scene: Scene) -> None:
    scene.profile()
    ghost(scene)
    scene.run()
    scene.policy = replace(scene.policy, position_parity=PositionParityPolicy(enabled=False))
    scene.wait()
    scene.run()
    assert [case["stage"] for case in waiting(scene)] == ["exit_backfill"]


def test_a_finding_that_needs_a_person_waits_by_its_order(scene: Scene) -> None:
    scene.profile()
    scene.row("odd", side="BUY", qty=10, quantity=9, price=100, trade_id="t9", action="ENTRY", created_at=ago(hours=1))
    scene.run()
    stages = {(case["stage"], case["reason"], case["order_id"]) for case in waiting(scene)}
    assert ("reading", "conflicting_quantities", "odd") in stages
    assert ("exit_backfill", "conflicting_quantities", "") in stages


def test_a_profile_whose_lease_another_run_holds_is_not_touched(scene: Scene) -> None:
    scene.profile()
    ghost(scene)
    scene.run()
    before = waiting(scene)
    scene.sql("UPDATE orders SET status = 'canceled'")
    scene.run(without_lease=["p1"])
    assert waiting(scene) == before


def test_a_run_that_lost_its_lease_changes_nothing_of_that_profile(scene: Scene) -> None:
    def case(profile: str) -> WaitingCase:
        return WaitingCase(profile, "A1", Stage.ORDER_PARITY, "ledger_ahead_of_exchange", trade_id="t1", order_id="o1")

    with connect(scene.database_url, READER) as connection:
        leases = acquire_leases(connection, ["p1", "p2"], owner="one", ttl_seconds=60)
        decided = frozenset({Stage.ORDER_PARITY})
        saved = [ProfileCases(leases[p], decided, (case(p),)) for p in ("p1", "p2")]
        assert save_waiting_cases(connection, saved, run_id="one", seen_ms=1000) == frozenset()
        release_leases(connection, [leases["p2"]])
        acquire_leases(connection, ["p2"], owner="two", ttl_seconds=60)
        gone = [ProfileCases(leases[p], decided, ()) for p in ("p1", "p2")]
        assert save_waiting_cases(connection, gone, run_id="one", seen_ms=2000) == frozenset({"p2"})
        assert [(row["profile_id"], row["run_id"]) for row in waiting(scene)] == [("p2", "one")]
        foreign = ProfileCases(leases["p1"], decided, (case("p2"),))
        with pytest.raises(ValueError, match="of p2 is not what its cycle decided"):
            save_waiting_cases(connection, [foreign], run_id="one", seen_ms=3000)
        undecided = ProfileCases(leases["p1"], frozenset(), (case("p1"),))
        with pytest.raises(ValueError, match="not what its cycle decided"):
            save_waiting_cases(connection, [undecided], run_id="one", seen_ms=3000)
