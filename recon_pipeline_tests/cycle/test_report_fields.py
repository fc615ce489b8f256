"""Every field of the source's ReconciliationResult: the report of a cycle says under its name what the stages counted."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from decimal import Decimal

import pytest

from recon_pipeline.cycle.context import ProfileProgress
from recon_pipeline.cycle.outcome import ReconciliationReport, StageOutcome
from recon_pipeline.cycle.reporting import build_report, missing_in_db
from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.cycle_frames import ORDER_CONFIRMATIONS, PARITY_STATES
from recon_pipeline.domain.position_parity import ProfileParity
from recon_pipeline.domain.watchdog import WatchdogState
from recon_pipeline.engine import Failure
from recon_pipeline.ledger.reads import RUNNING

SOURCE_FIELDS: dict[str, object] = {
    "processed": True,
    "mismatchCount": 4,
    "missingFromExchange": 3,
    "missingInDb": 2 + (7 - 5),
    "noGoTrades": 0,
    "noGoReasonCounts": {},
    "noGoSamples": (),
    "parityMismatchTrades": 6,
    "parityQuarantinedTrades": 2,
    "parityAutoClosedTrades": 1,
    "parityMaxMismatchNotionalUsd": Decimal("12.5"),
    "parityTotalMismatchNotionalUsd": Decimal("20.25"),
    "integrityWatchdogTriggered": True,
    "error": "",
}
"""What 001 returns, by its names, for the stages below. The NO_GO fields are those of the exit backfill's own result."""
STAGES = {
    Stage.ORDER_PARITY: {"mismatch_count": 4, "missing_from_exchange": 3, "missing_in_db": 2},
    Stage.ORDER_COVERAGE: {"missing_in_db": 7, "inserted_rows": 5},
    Stage.POSITION_PARITY: {"mismatch_trades": 6, "quarantined_trades": 2, "auto_closed_trades": 1},
}


def progress() -> ProfileProgress:
    made = ProfileProgress("p1", "u1", "a1", ORDER_CONFIRMATIONS.empty(), PARITY_STATES.empty(), WatchdogState("p1"))
    made.stages = {stage: StageOutcome(stage, attempted=True, counts=counts) for stage, counts in STAGES.items()}
    made.parity_counts = ProfileParity(
        max_mismatch_notional_usd=Decimal("12.5"), total_mismatch_notional_usd=Decimal("20.25")
    )
    made.triggered = True
    return made


def report_of(made: ProfileProgress, *, complete: bool = True, error: str = "") -> ReconciliationReport:
    return build_report(
        progress=made, run_id="r1", cycle_at_ms=1, pause=RUNNING, evidence_complete=complete, error=error
    )


@pytest.mark.parametrize("name", SOURCE_FIELDS)
def test_a_field_of_the_source_says_what_the_stages_counted(name: str) -> None:
    here = re.sub(r"[A-Z]", lambda letter: f"_{letter.group().lower()}", name)
    assert here in {field.name for field in fields(ReconciliationReport)}
    assert getattr(report_of(progress()), here) == SOURCE_FIELDS[name]


def test_missing_in_db_adds_what_the_coverage_left_uncovered_and_never_takes_away() -> None:
    made = progress()
    coverage = made.stages[Stage.ORDER_COVERAGE]
    made.stages[Stage.ORDER_COVERAGE] = replace(coverage, counts={"missing_in_db": 1, "inserted_rows": 3})
    assert missing_in_db(made.stages) == 2


def test_a_failed_step_is_an_error_and_the_profile_is_not_processed() -> None:
    made = progress()
    failure = Failure("sub_tag_repair", "KeyError: 'x'")
    made.stages[Stage.SUB_TAG_REPAIR] = StageOutcome(Stage.SUB_TAG_REPAIR, attempted=True, failure=failure)
    report = report_of(made, error="sub_tag_repair: KeyError: 'x'")
    assert (report.processed, report.failed_stages, report.clean) == (False, ("sub_tag_repair",), False)


def test_nothing_out_of_line_is_clean_and_an_incomplete_reading_is_not() -> None:
    quiet = progress()
    quiet.stages, quiet.parity_counts, quiet.triggered = {}, ProfileParity(), False
    assert report_of(quiet).clean
    assert not report_of(quiet, complete=False).clean
    finding = Finding("p1", Stage.READING, "over_exit", needs_person=True)
    quiet.stages = {Stage.READING: StageOutcome(Stage.READING, attempted=True, findings=(finding, finding))}
    waiting = report_of(quiet)
    assert (waiting.clean, waiting.waiting_for_person, waiting.data_defects) == (False, 1, 2)


def test_a_row_that_differs_and_waits_for_the_exchange_is_not_clean_and_one_out_of_scope_is() -> None:
    quiet = progress()
    quiet.stages, quiet.parity_counts, quiet.triggered = {}, ProfileParity(), False
    for reason, clean in (("unusable_order", False), ("symbol_out_of_scope", True)):
        finding = Finding("p1", Stage.ORDER_PARITY, reason, order_id="x1")
        quiet.stages = {Stage.ORDER_PARITY: StageOutcome(Stage.ORDER_PARITY, attempted=True, findings=(finding,))}
        assert report_of(quiet).clean is clean
