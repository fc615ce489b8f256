"""A row that differs from its order and was left alone is out of line, whatever else the same cycle has written."""

from __future__ import annotations

from recon_pipeline.defs import cycle_checks
from recon_pipeline.domain.corrections import Stage
from recon_pipeline_tests.defs.cycles import AHEAD, DISCOVERED, cycle, outcome, report, stage


def test_a_discovery_that_was_written_does_not_make_another_row_equal_to_its_order() -> None:
    written = stage(Stage.ORDER_PARITY, changes=(DISCOVERED,), applied=(DISCOVERED.order_id,), findings=(AHEAD,))
    told = report(clean=False, mismatch_count=1, corrections=1, waiting_for_person=1)
    verdict = cycle_checks.judge("ledger_is_in_line", outcome(cycle(written, report=told)))
    assert verdict is not None
    assert not verdict.passed
    assert "1 x order differs" in verdict.description
