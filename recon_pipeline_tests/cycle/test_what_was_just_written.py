"""A step of a cycle judges the ledger as the steps before it have left it."""

from __future__ import annotations

from recon_pipeline.domain.corrections import Stage
from recon_pipeline_tests.adapters.exchange.world import order_id
from recon_pipeline_tests.cycle.conftest import Scene
from recon_pipeline_tests.cycle.test_cycle import entry_and_exit


def test_an_order_that_order_parity_has_just_recorded_is_not_missing_to_the_coverage(scene: Scene) -> None:
    entry_and_exit(scene, exit_row=False)
    scene.row("local-17", side="SELL", qty=10, status="pending_new", trade_id="t1", action="EXIT")
    cycle = scene.run()["p1"]
    assert cycle.stages[Stage.ORDER_PARITY].applied == (order_id(2), "local-17")
    coverage = cycle.stages[Stage.ORDER_COVERAGE]
    assert (coverage.counts["missing_in_db"], coverage.counts["skipped_existing"], coverage.findings) == (0, 2, ())
    assert (cycle.report.missing_in_db, cycle.report.integrity_watchdog_triggered) == (0, False)
    assert [message for _, _, message in scene.events() if "integrity" in message] == []
