"""The steps of a cycle together: what one writes the next one sees, and what fails stays where it failed."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import pytest

from recon_pipeline.cycle import account as account_module
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.cycle_policy import OrderCoveragePolicy
from recon_pipeline.sandbox.exchange import HistoricOrder
from recon_pipeline.sandbox.exchange.faults import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import ago, filled, order_id
from recon_pipeline_tests.cycle.conftest import Scene


def entry_and_exit(scene: Scene, *, exit_row: bool = True) -> None:
    """Trade t1 of p1: 10 AAPL bought and sold at the exchange; the bot recorded the entry, and the exit if asked."""
    scene.profile()
    scene.world.inject(
        filled(1, "AAPL", "buy", ("10", "100", ago(hours=2)), client_order_id="bytelyst-p1-t1-entry"),
        filled(2, "AAPL", "sell", ("10", "101", ago(hours=1)), client_order_id="bytelyst-p1-t1-exit"),
    )
    scene.row(
        order_id(1),
        client_order_id="bytelyst-p1-t1-entry",
        side="BUY",
        qty=10,
        price=100,
        trade_id="t1",
        action="ENTRY",
    )
    if exit_row:
        scene.row(
            order_id(2),
            client_order_id="bytelyst-p1-t1-exit",
            side="SELL",
            qty=10,
            price=101,
            trade_id="t1",
            action="EXIT",
        )


def test_a_ledger_that_is_in_line_is_left_alone_and_its_second_cycle_is_quiet(scene: Scene) -> None:
    entry_and_exit(scene)
    scene.sql("UPDATE orders SET sub_tag = 'bytelyst:p1:t1'")
    before = scene.sql("SELECT * FROM orders ORDER BY order_id")
    first = scene.run()["p1"]
    assert first.report.clean
    assert first.report.corrections == 0
    assert first.changed
    scene.wait()
    second = scene.run()["p1"]
    assert second.report.clean
    assert not second.changed
    assert scene.sql("SELECT * FROM orders ORDER BY order_id") == before
    assert scene.sql("SELECT count(*) AS n FROM recon.corrections")[0]["n"] == 0


def test_an_exit_stuck_in_pending_new_is_filled_from_the_exchange_and_its_trade_is_closed(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.row(
        order_id(2),
        client_order_id="bytelyst-p1-t1-exit",
        side="SELL",
        qty=10,
        price=None,
        status="pending_new",
        trade_id="t1",
        action="EXIT",
    )
    scene.sql(
        "INSERT INTO positions (profile_id, trade_id, symbol, side, qty, avg_entry_price, status)"
        " VALUES ('p1', 't1', 'AAPL', 'BUY', 10, 100, 'open')"
    )
    scene.sql("INSERT INTO capital_ledger (profile_id, trade_id, reserved_usd) VALUES ('p1', 't1', 1000)")
    cycle = scene.run()["p1"]
    row = scene.order(order_id(2))
    assert (row["status"], row["qty"], row["filled_qty"], row["price"]) == ("filled", 10, 10, 101)
    assert row["filled_at"] == ago(hours=1)
    assert cycle.report.mismatch_count == 1
    assert cycle.report.parity_mismatch_trades == 0
    assert cycle.stages[Stage.ORDER_PARITY].applied == (order_id(2),)
    assert scene.sql("SELECT qty, status FROM positions") == [{"qty": 0, "status": "closed"}]
    assert scene.sql("SELECT reserved_usd FROM capital_ledger") == [{"reserved_usd": 0}]
    assert scene.sql("SELECT realized_pnl_usd AS pnl FROM trade_history") == [{"pnl": 10}]


def test_a_lost_exit_is_inserted_by_the_coverage_and_the_next_cycle_finds_nothing(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    first = scene.run()["p1"]
    assert first.stages[Stage.ORDER_COVERAGE].counts["inserted_rows"] == 1
    assert first.report.missing_in_db == 0
    row = scene.order(order_id(2))
    assert (row["trade_id"], row["action"], row["side"], row["qty"], row["price"]) == ("t1", "EXIT", "SELL", 10, 101)
    assert first.stages[Stage.EXIT_BACKFILL].counts["open_trade_candidates"] == 0
    scene.wait()
    assert scene.run()["p1"].report.corrections == 0


def test_where_the_coverage_is_off_the_exit_backfill_closes_the_ghost(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.policy = replace(scene.policy, order_coverage=OrderCoveragePolicy(enabled=False))
    cycle = scene.run()["p1"]
    assert cycle.stages[Stage.ORDER_COVERAGE].skipped_reason == "disabled"
    assert cycle.stages[Stage.EXIT_BACKFILL].counts["inserted_rows"] == 1
    rows = scene.sql("SELECT qty, price FROM orders WHERE order_id LIKE 'BFILL-%%'")
    assert rows == [{"qty": 10, "price": 101}]
    assert cycle.report.parity_mismatch_trades == 0
    events = scene.events()
    assert events == [
        ("RECONCILIATION_DEGRADED", "ERROR", "Order coverage reconciliation skipped (disabled) for profile p1.")
    ]
    scene.wait()
    scene.run()
    assert scene.events() == events, "said again within its throttle"
    scene.wait(6)
    scene.run()
    assert len(scene.events()) == 2


def test_a_dry_cycle_shows_what_it_would_write_and_writes_no_order(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    before = scene.sql("SELECT * FROM orders")
    cycle = scene.run(policy=scene.dry())["p1"]
    coverage = cycle.stages[Stage.ORDER_COVERAGE]
    assert coverage.dry_run
    assert [change.order_id for change in coverage.changes] == [order_id(2)]
    assert coverage.applied == ()
    assert cycle.report.missing_in_db == 1
    assert cycle.report.proposed_rows == 1
    assert cycle.report.integrity_watchdog_triggered
    assert not cycle.report.clean
    assert scene.sql("SELECT * FROM orders") == before


def test_an_exchange_that_fails_changes_nothing_and_the_account_beside_it_goes_on(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.profile("p2", "A2")
    scene.world.inject(
        filled(3, "AAPL", "buy", ("5", "100", ago(hours=2)), client_order_id="bytelyst-p2-t9-entry"), account="A2"
    )
    scene.row(order_id(7), side="SELL", qty=1, price=1, status="pending_new", trade_id="t1", action="EXIT")
    before = scene.sql("SELECT * FROM orders WHERE profile_id = 'p1' ORDER BY order_id")
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, account="PKA1"))
    cycles = scene.run("p1", "p2")
    broken, sound = cycles["p1"], cycles["p2"]
    assert not broken.report.processed
    assert "could not be read" in broken.report.error
    assert broken.stages[Stage.ORDER_PARITY].skipped_reason == "evidence_incomplete"
    assert broken.stages[Stage.POSITION_PARITY].skipped_reason == "evidence_incomplete"
    assert broken.stages[Stage.INTEGRITY_WATCHDOG].attempted
    assert scene.sql("SELECT * FROM orders WHERE profile_id = 'p1' ORDER BY order_id") == before
    assert scene.sql("SELECT * FROM recon.order_confirmations") == []
    assert sound.report.processed
    assert sound.stages[Stage.ORDER_COVERAGE].applied == (order_id(3),)
    assert any(message.startswith("Reconciliation failed for profile p1") for _, _, message in scene.events())


def test_an_order_that_the_exchange_does_not_know_is_canceled_in_the_third_cycle_that_says_so(scene: Scene) -> None:
    scene.profile()
    scene.row(order_id(5), side="BUY", qty=10, status="pending_new", trade_id="t1", action="ENTRY")
    counts = []
    for _ in range(2):
        # Twice at once, as two schedulers do, is one confirmation.
        counts.append([scene.run()["p1"].report.max_confirmations for _ in range(2)])
        assert scene.order(order_id(5))["status"] == "pending_new"
        scene.wait()
    assert counts == [[1, 1], [2, 2]]
    scene.run()
    assert scene.order(order_id(5))["status"] == "canceled"
    scene.wait()
    assert scene.run()["p1"].report.clean
    assert scene.sql("SELECT * FROM recon.order_confirmations") == []


def test_a_confirmation_is_neither_counted_nor_lost_while_the_exchange_does_not_answer(scene: Scene) -> None:
    scene.profile()
    scene.row(order_id(5), side="BUY", qty=10, status="pending_new", trade_id="t1", action="ENTRY")
    scene.run()
    scene.wait()
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, account="PKA1"))
    assert scene.run()["p1"].report.max_confirmations == 1
    scene.world.sim.faults.clear()
    scene.wait()
    scene.run()
    scene.wait()
    scene.run()
    assert scene.order(order_id(5))["status"] == "canceled"


def test_a_step_that_fails_is_named_and_the_safety_steps_behind_it_still_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_and_exit(scene, exit_row=False)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect of the coverage")

    monkeypatch.setattr(account_module, "plan_order_coverage", broken)
    cycle = scene.run()["p1"]
    failure = cycle.stages[Stage.ORDER_COVERAGE].failure
    assert failure is not None
    assert failure.message == "RuntimeError: a defect of the coverage"
    assert cycle.report.failed_stages == ("order_coverage",)
    assert cycle.stages[Stage.EXIT_BACKFILL].counts["inserted_rows"] == 1
    assert cycle.stages[Stage.POSITION_PARITY].attempted
    assert cycle.stages[Stage.INTEGRITY_WATCHDOG].attempted
    assert not cycle.report.clean


def test_a_profile_whose_lease_another_run_holds_is_skipped_counted_and_shown(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.profile("p2")
    cycles = scene.run("p1", "p2", without_lease=["p1"])
    assert cycles["p1"].report.skipped_reason == "lease_held"
    assert not cycles["p1"].report.processed
    assert cycles["p1"].stages == {}
    assert cycles["p2"].report.processed
    assert scene.sql("SELECT contentions FROM recon.lease_contentions") == [{"contentions": 1}]
    assert len(scene.sql("SELECT * FROM orders")) == 1


def test_a_run_that_lost_its_lease_writes_nothing_and_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_and_exit(scene, exit_row=False)
    planned = account_module.plan_order_parity

    def slow(*args: object, **more: object) -> object:
        # Meanwhile the lease expires and another run takes it.
        scene.sql("UPDATE recon.leases SET owner = 'another', token = token + 1")
        return planned(*args, **more)

    monkeypatch.setattr(account_module, "plan_order_parity", slow)
    cycle = scene.run()["p1"]
    assert len(scene.sql("SELECT * FROM orders")) == 1
    assert {stage.value for stage, outcome in cycle.stages.items() if outcome.failure is not None} == {
        "order_coverage",
        "exit_backfill",
        "sub_tag_repair",
        "report",
    }
    assert scene.sql("SELECT * FROM recon.watchdogs") == []


def test_a_ghost_that_was_closed_by_hand_is_closed_after_three_cycles_and_says_why(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.sql("UPDATE orders SET sub_tag = 'bytelyst:p1:t1'")
    # The exit of the fixture belongs to the bot; here somebody sold by hand instead.
    scene.sql("DELETE FROM orders WHERE order_id = %(id)s", id=order_id(2))
    scene.world.sim.book.inject(
        "A2",
        [
            filled(11, "AAPL", "buy", ("10", "100", ago(hours=2)), client_order_id="bytelyst-p2-t1-entry"),
            filled(12, "AAPL", "sell", ("10", "99", ago(hours=1)), client_order_id="made-by-hand"),
        ],
    )
    scene.profile("p2", "A2")
    scene.row(
        order_id(11),
        profile_id="p2",
        side="BUY",
        qty=10,
        price=100,
        trade_id="t1",
        action="ENTRY",
        sub_tag="bytelyst:p2:t1",
    )
    closed = []
    for _ in range(4):
        report = scene.run("p2")["p2"].report
        closed.append((report.parity_mismatch_trades, report.parity_auto_closed_trades))
        scene.wait()
    assert closed == [(1, 0), (1, 0), (1, 1), (0, 0)]
    (row,) = scene.sql("SELECT * FROM orders WHERE order_id LIKE 'PARITY-%%'")
    assert (row["side"], row["qty"], row["price"], row["action"], row["source"]) == ("SELL", 10, 100, "EXIT", "RECON")
    (correction,) = scene.sql("SELECT cause FROM recon.corrections WHERE table_name = 'orders'")
    assert correction["cause"]["root_cause"] == "manual_close"


def test_money_out_of_line_beyond_its_share_of_the_capital_pauses_the_profile_once(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.sql("UPDATE profiles SET allocated_capital_usd = 1500")
    dry = scene.dry()
    first = scene.run(policy=dry)["p1"]
    assert first.report.parity_total_mismatch_notional_usd == Decimal(1000)
    control = scene.sql("SELECT scope, state, source, since FROM trading_control")
    assert [(row["scope"], row["state"], row["source"]) for row in control] == [
        ("p1", "PAUSED", "recon_parity_watchdog")
    ]
    scene.wait()
    assert scene.run(policy=dry)["p1"].report.paused
    assert scene.sql("SELECT scope, state, source, since FROM trading_control") == control
    assert [type_ for type_, _, _ in scene.events()].count("TRADING_PAUSED") == 1


def test_the_watchdog_never_takes_over_a_persons_pause(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.sql("UPDATE profiles SET allocated_capital_usd = 1500")
    scene.sql("INSERT INTO trading_control (scope, state, source) VALUES ('p1', 'PAUSED', 'alice')")
    scene.run(policy=scene.dry())
    assert [row["source"] for row in scene.sql("SELECT source FROM trading_control")] == ["alice"]


def test_an_order_known_by_its_client_id_alone_is_found_by_a_look_up(scene: Scene) -> None:
    scene.profile()
    scene.world.inject(
        HistoricOrder(
            "AAPL",
            "buy",
            Decimal(4),
            ago(days=9),
            status="expired",
            order_id=order_id(8),
            client_order_id="bytelyst-p1-t3-entry",
            ended_at=ago(days=8),
        )
    )
    scene.row("bytelyst-p1-t3-entry", side="BUY", qty=4, status="pending_new", trade_id="t3", action="ENTRY")
    cycle = scene.run()["p1"]
    assert scene.order("bytelyst-p1-t3-entry")["status"] in {"expired", "canceled"}
    assert cycle.stages[Stage.ORDER_PARITY].applied == ("bytelyst-p1-t3-entry",)


def test_an_audit_table_that_takes_no_rows_skips_the_backfill_and_is_an_error_of_the_system(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.policy = replace(scene.policy, order_coverage=OrderCoveragePolicy())
    scene.sql("ALTER TABLE reconciliation_backfill_audit DROP COLUMN metadata")
    cycle = scene.run()["p1"]
    assert cycle.stages[Stage.EXIT_BACKFILL].skipped_reason == "audit_table_missing"
    assert ("SYSTEM_ERROR", "ERROR", "Reconciliation EXIT backfill aborted: audit table missing for profile p1") in (
        scene.events()
    )
    assert cycle.stages[Stage.POSITION_PARITY].attempted
    assert len(scene.sql("SELECT * FROM orders")) == 1


def test_every_report_is_kept_with_its_counters(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.run(policy=scene.dry())
    (kept,) = scene.sql("SELECT profile_id, run_id, cycle_at, processed, clean, report FROM recon.cycle_reports")
    assert (kept["profile_id"], kept["run_id"], kept["processed"], kept["clean"]) == ("p1", "run-0", True, False)
    assert kept["cycle_at"] == dt.datetime(2026, 11, 3, 15, 0, tzinfo=dt.UTC)
    assert kept["report"]["missing_in_db"] == 1
