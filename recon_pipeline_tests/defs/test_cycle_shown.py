"""What an operator reads about a profile's cycle, from cycles made by hand: the sentence, the tables, the numbers, the checks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

import dagster as dg
import pytest

from recon_pipeline.apply.outcomes import Postponed
from recon_pipeline.defs import cycle_catalogue as names
from recon_pipeline.defs import cycle_checks, cycle_remedies, cycle_tables
from recon_pipeline.defs.cycle_presentation import metadata_of, summary
from recon_pipeline.defs.cycle_run import CycleOutcome
from recon_pipeline.domain.corrections import Handler, Stage
from recon_pipeline.domain.coverage_rows import RECORDED_ELSEWHERE
from recon_pipeline.domain.data_health import OVER_EXIT, WITHOUT_ID, WITHOUT_STATUS, WITHOUT_TRADE
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.position_parity import POSITION_WITHOUT_TRADE
from recon_pipeline.domain.root_causes import RootCause
from recon_pipeline.domain.synthetic_exits import ParityReason
from recon_pipeline.domain.terms import RowDefect, SkippedReason
from recon_pipeline.domain.watchdog import PARITY_WATCHDOG_SOURCE
from recon_pipeline.engine import Failure
from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.ledger.cycle_state import LEASE_HELD
from recon_pipeline_tests.defs.conftest import plain
from recon_pipeline_tests.defs.cycles import (
    AHEAD,
    ALL_STAGES,
    DISCOVERED,
    FILL,
    WAITING,
    cycle,
    outcome,
    parity,
    report,
    stage,
)


def shown(made: CycleOutcome, key: str = names.REPORT_KEY) -> dict[str, object]:
    found = metadata_of(made, key, dashboard_url="http://ui", location="recon_pipeline", run_id="run-1")
    assert found is not None
    return {name: plain(value) if hasattr(value, "value") else value for name, value in found.items()}


def rows(table: dg.TableMetadataValue) -> list[dict[str, str]]:
    return [dict(record.data) for record in table.records]


def verdicts(made: CycleOutcome) -> dict[str, bool | None]:
    found = {check.name: cycle_checks.judge(check.name, made) for check in names.CHECKS}
    return {name: None if verdict is None else verdict.passed for name, verdict in found.items()}


# -- the sentence


def test_a_profile_that_is_in_line_says_so_and_every_check_holds():
    quiet = outcome(cycle(changed=False))
    assert summary(quiet.cycle) == "In line."
    assert set(verdicts(quiet).values()) == {True}


def test_a_quiet_profile_has_numbers_and_no_table():
    found = shown(outcome(cycle(changed=False)))
    assert [name for name, value in found.items() if isinstance(value, list)] == []
    assert (found["outcome"], found["clean"], found["mismatches"], found["money_out_of_line_usd"]) == (
        "In line.",
        True,
        0,
        0.0,
    )


def test_the_sentence_names_what_is_worst_first():
    made = cycle(
        stage(Stage.ORDER_PARITY, changes=(FILL, DISCOVERED), applied=(FILL.order_id,),
              postponed={DISCOVERED.order_id: "row_changed"}),
        report=report(
            clean=False, mismatch_count=1, missing_in_db=2, corrections=1, waiting_for_person=1,
            integrity_watchdog_triggered=True, paused=True, pause_source=PARITY_WATCHDOG_SOURCE, parity_mismatch_trades=2,
            parity_total_mismatch_notional_usd=Decimal("1234.5"),
        ),
    )  # fmt: skip
    assert summary(made) == (
        "The watchdog is triggered; trading is paused by the watchdog; 1 thing for a person; 1 order that differs; "
        "2 orders missing in the ledger; 2 trades out of line with the position ($1,234.50); 1 row corrected; "
        "1 correction postponed."
    )


def test_a_dry_run_says_what_it_would_correct_and_never_that_it_did():
    made = cycle(stage(Stage.ORDER_PARITY, changes=(FILL,), dry_run=True), report=report(clean=False, mismatch_count=1))
    assert summary(made) == "1 order that differs; 1 row would be corrected (dry run)."


def test_a_cycle_that_failed_says_why_and_is_not_shown_as_a_report():
    made = outcome(
        cycle(failure=Failure("exchange", "account 'acc' could not be read"), report=report(processed=False))
    )
    assert summary(made.cycle) == "FAILED: account 'acc' could not be read"
    assert metadata_of(made, names.REPORT_KEY, dashboard_url="", location="", run_id="") is None
    assert [failure.stage for failure in made.failures] == ["exchange"]


# -- tables


def test_a_correction_shows_what_was_what_is_and_why():
    [row] = rows(
        cycle_tables.corrections_table(
            [stage(Stage.ORDER_PARITY, changes=(FILL,), applied=(FILL.order_id,), batch_id="RECON-1")]
        )
    )
    assert row == {
        "state": "written",
        "change": "entry fill, trade t-1, row bytelyst-p1-t-1-entry",
        "before": "status partially_filled, filled_qty 3, qty 10, price 101",
        "after": "status partially_filled, executed 8, price 101.5",
        "why": "executed quantity grew: exchange status partially_filled, executed 8, read at 2026-11-20T12:00:00.000Z; "
        "exchange order ord-1; batch RECON-1",
    }


def test_a_new_row_shows_what_is_inserted():
    [row] = rows(cycle_tables.corrections_table([stage(Stage.ORDER_COVERAGE, changes=(DISCOVERED,), dry_run=True)]))
    assert (row["state"], row["before"]) == ("dry run", "no row")
    assert row["after"] == "side SELL, action EXIT, status filled, qty 2, price 7"


def test_what_should_have_been_written_and_was_not_comes_first():
    other = replace(FILL, order_id="other", handler=Handler.CANCEL)
    made = stage(
        Stage.ORDER_PARITY,
        changes=(FILL, DISCOVERED, other),
        applied=(FILL.order_id,),
        postponed={"ord-2": "row_changed"},
        batch_id="b",
    )
    found = rows(cycle_tables.corrections_table([made]))
    assert [(row["state"], row["change"].partition("row ")[2]) for row in found] == [
        ("not written", "other"),
        ("postponed: row_changed", "ord-2"),
        ("written", "bytelyst-p1-t-1-entry"),
    ]
    assert ["batch b" in row["why"] for row in found] == [False, False, True]


def test_findings_for_a_person_come_first_with_what_to_do_and_the_numbers_behind_them():
    first, second = rows(cycle_tables.findings_table([WAITING, AHEAD]))
    assert (first["about"], first["detail"]) == ("trade t-9, AAPL, row ord-9", "row 10, order 8, order_parity")
    assert first["what_to_do"].startswith("ledger_ahead_of_exchange: The row says more than the exchange executed")
    assert (second["what_to_do"].partition(":")[0], second["about"]) == ("awaiting_confirmation", "trade t-3, MSFT")


def test_trades_that_nothing_proves_stand_with_what_waits_for_a_person():
    made = cycle(
        stage(Stage.ORDER_PARITY, findings=(AHEAD,)),
        report=report(
            clean=False,
            waiting_for_person=2,
            no_go_trades=1,
            no_go_samples=({"symbol": "ETH/USD", "trade_id": "t-7", "reason": "exchange_not_flat:0.5"},),
        ),
    )
    found = shown(outcome(made))["needs_a_person"]
    assert [(row["about"], row["what_to_do"].partition(": ")[0], row["detail"]) for row in found] == [
        ("trade t-9, AAPL, row ord-9", "ledger_ahead_of_exchange", "row 10, order 8, order_parity"),
        ("trade t-7, ETH/USD", "exchange_not_flat:0.5", "exit_backfill"),
    ]
    assert [row for row in found if row["what_to_do"].endswith((": ", cycle_remedies.SEE_RUNBOOK))] == []


def test_trades_out_of_line_show_both_sides_the_count_and_the_cause_the_quarantined_first():
    states = parity(
        ("t-1", 10, 0, "100", 2, False, "awaiting_confirmation", "manual_close"),
        ("t-2", -3, 1, None, 3, True, "unattributed", ""),
    )
    found = shown(outcome(cycle(parity=states)), names.POSITION_PARITY_KEY)["out_of_line"]
    assert [(row["trade"], row["ledger_exchange"], row["usd"], row["state"]) for row in found] == [
        ("t-2 AAPL", "-3 / 1", "unknown", "quarantined, 3 confirmations since 2026-11-20 22:00:00 UTC"),
        ("t-1 AAPL", "10 / 0", "100.00", "waiting, 2 confirmations since 2026-11-20 22:00:00 UTC"),
    ]
    assert found[1]["what_to_do"].startswith("awaiting_confirmation: Looks like closed by hand. ")


def test_a_trade_out_of_line_is_not_listed_again_under_the_findings():
    finding = replace(WAITING, trade_id="t-1")
    made = cycle(
        stage(Stage.POSITION_PARITY, findings=(finding, WAITING)),
        parity=parity(("t-1", 10, 0, "100", 2, False, "awaiting_confirmation", "")),
    )
    assert [row["about"] for row in shown(outcome(made))["other_findings"]] == ["trade t-3, MSFT"]


def test_every_stage_says_what_became_of_it_even_one_that_was_not_reached():
    made = cycle(
        stage(Stage.ORDER_PARITY, failure=Failure("order_parity", "boom")),
        stage(Stage.ORDER_COVERAGE, attempted=False, skipped_reason="disabled"),
        stage(Stage.SUB_TAG_REPAIR, dry_run=True, counts={"repairable": 2, "unproven": 0}),
    )
    made = replace(
        made, stages={which: made.stages[which] for which in ALL_STAGES if which is not Stage.POSITION_PARITY}
    )
    found = {row["stage"]: row for row in rows(cycle_tables.stages_table(made))}
    assert {which: row["state"] for which, row in found.items()} == {
        "order_parity": "FAILED",
        "order_coverage": "skipped: disabled",
        "exit_backfill": "done",
        "integrity_watchdog": "done",
        "sub_tag_repair": "dry run",
        "position_parity": "not reached",
    }
    assert found["order_parity"]["note"] == "boom"
    assert found["order_coverage"]["note"] == "Switched off: ENABLE_RECON_ORDER_COVERAGE is false."
    assert found["sub_tag_repair"]["note"] == "repairable 2"


def test_the_last_cycles_say_since_when_it_is_so():
    earlier = {
        "cycle_at": datetime(2026, 11, 20, 11, 55, tzinfo=UTC),
        "report": {"processed": True, "clean": True, "mismatch_count": 0, "corrections": 1},
    }
    made = outcome(cycle(report=report(clean=False, mismatch_count=4)), history=(earlier,))
    found = shown(made)["last_cycles"]
    assert [(row["state"], row["orders"], row["corrected"]) for row in found] == [
        ("out of line", "4 / 0 / 0", ""),
        ("in line", "", "1"),
    ]
    assert found[1]["cycle"] == "2026-11-20 11:55:00 UTC"


def test_a_stage_plots_its_counters_by_the_names_of_the_source():
    made = cycle(stage(Stage.ORDER_COVERAGE, counts={"scanned_orders": 12, "missing_in_db": 0}))
    found = shown(outcome(made), names.ORDER_COVERAGE_KEY)
    assert (found["scanned_orders"], found["missing_in_db"], found["outcome"]) == (12, 0, "Nothing to correct.")


def test_a_failed_stage_is_not_shown_as_done():
    made = outcome(cycle(stage(Stage.ORDER_COVERAGE, failure=Failure("order_coverage", "boom"))))
    assert metadata_of(made, names.ORDER_COVERAGE_KEY, dashboard_url="", location="", run_id="") is None
    assert [failure.message for failure in made.failures] == ["boom"]


# -- checks


def only_failing(made: CycleOutcome) -> set[str]:
    return {name for name, passed in verdicts(made).items() if passed is False}


def test_an_order_that_differs_and_was_not_corrected_is_out_of_line_and_a_corrected_one_is_not():
    wanting = stage(Stage.ORDER_PARITY, changes=(FILL,), dry_run=True)
    assert only_failing(outcome(cycle(wanting, report=report(mismatch_count=1)))) == {names.LEDGER_IS_IN_LINE}
    written = stage(Stage.ORDER_PARITY, changes=(FILL,), applied=(FILL.order_id,))
    assert only_failing(outcome(cycle(written, report=report(mismatch_count=1, corrections=1)))) == set()


@pytest.mark.parametrize("name", ["missing_from_exchange", "missing_in_db", "parity_mismatch_trades", "no_go_trades"])
def test_every_kind_of_difference_speaks_against_being_in_line(name: str):
    made = outcome(cycle(report=report(clean=False, **{name: 2})))
    verdict = cycle_checks.judge(names.LEDGER_IS_IN_LINE, made)
    assert verdict is not None
    assert (verdict.passed, verdict.count) == (False, 2)


def test_an_incomplete_reading_is_not_in_line_for_nobody_knows():
    reading = AccountReading.failed("acc", "page 3 failed", since_ms=0, now_ms=1)
    made = outcome(
        cycle(report=report(clean=False, evidence_complete=False, skipped_reason="evidence_incomplete")),
        account=reading,
    )
    verdict = cycle_checks.judge(names.LEDGER_IS_IN_LINE, made)
    assert verdict is not None
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "page 3 failed" in verdict.description
    assert shown(made)["evidence_reasons"] == "page 3 failed"


def test_a_contended_lease_speaks_only_about_the_lease():
    made = outcome(
        cycle(
            report=report(processed=False, skipped_reason=LEASE_HELD),
            lease={"owner": "run-0"},
            stages={},
            changed=False,
        )
    )
    assert {name for name, passed in verdicts(made).items() if passed is not None} == {names.LEASE_IS_FREE}
    assert only_failing(made) == {names.LEASE_IS_FREE}
    found = shown(made)
    assert (found["lease_holder"], found["lease_contended"]) == ("owner run-0", 1)
    assert found["outcome"] == "Skipped, lease_held: nothing was concluded."


@pytest.mark.parametrize(
    ("made", "check"),
    [
        (cycle(report=report(waiting_for_person=1)), names.NOBODY_IS_NEEDED),
        (cycle(stage(Stage.ORDER_PARITY, postponed={"o": "row_changed"})), names.NOTHING_POSTPONED),
        (
            cycle(stage(Stage.EXIT_BACKFILL, attempted=False, skipped_reason="audit_table_missing")),
            names.EVERY_STAGE_RAN,
        ),
        (cycle(stage(Stage.EXIT_BACKFILL, failure=Failure("exit_backfill", "boom"))), names.EVERY_STAGE_RAN),
        (cycle(report=report(integrity_watchdog_triggered=True)), names.WATCHDOG_IS_QUIET),
        (cycle(report=report(paused=True, pause_source=PARITY_WATCHDOG_SOURCE)), names.WATCHDOG_IS_QUIET),
        (cycle(report=report(data_defects=1)), names.ROWS_ARE_USABLE),
    ],
)
def test_each_check_fails_for_its_own_reason_alone_and_says_what_to_do(made: object, check: str):
    assert only_failing(outcome(made)) == {check}
    verdict = cycle_checks.judge(check, outcome(made))
    assert verdict is not None
    assert verdict.recovery


@pytest.mark.parametrize("reason", ["disabled", "pause_required", "profile_not_allowlisted"])
def test_a_step_that_the_operators_own_settings_skip_is_named_and_is_no_failure(reason: str):
    made = outcome(cycle(stage(Stage.EXIT_BACKFILL, attempted=False, skipped_reason=reason)))
    verdict = cycle_checks.judge(names.EVERY_STAGE_RAN, made)
    assert verdict is not None
    assert verdict.passed
    assert verdict.description == f"Every step ran that the settings let run (not exit_backfill: {reason})."


def test_a_pause_that_a_person_set_leaves_the_watchdog_quiet():
    assert only_failing(outcome(cycle(report=report(paused=True, pause_source="dagster run 1")))) == set()


# -- remedies


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Stage.ORDER_PARITY, [*OrderReason, RECORDED_ELSEWHERE]),
        (
            Stage.POSITION_PARITY,
            [*ParityReason, *RowDefect, POSITION_WITHOUT_TRADE, "watchdog_capital_unknown", "watchdog_price_unknown"],
        ),
        (
            Stage.ORDER_COVERAGE,
            ["ambiguous_owner", "contradictory_owner", *cycle_remedies.FINDINGS[Stage.ORDER_COVERAGE]],
        ),
        (Stage.READING, [OVER_EXIT, WITHOUT_ID, WITHOUT_TRADE, WITHOUT_STATUS, RECORDED_ELSEWHERE, *RowDefect]),
    ],
)
def test_the_ui_says_what_to_do_about_every_finding(where: Stage, words: list[str]):
    assert [word for word in words if cycle_remedies.for_finding(where, str(word)) == cycle_remedies.SEE_RUNBOOK] == []


@pytest.mark.parametrize("words", [Postponed, RootCause])
def test_every_postponement_and_every_root_cause_is_said_in_words(words: type[StrEnum]):
    say = cycle_remedies.for_postponed if words is Postponed else cycle_remedies.root_cause
    assert [word for word in words if word and say(word.value) in {"", word.value}] == []


@pytest.mark.parametrize("reason", [*SkippedReason, LEASE_HELD])
def test_every_skipped_step_says_what_to_do(reason: str):
    assert cycle_remedies.for_skipped_stage(Stage.EXIT_BACKFILL, reason) not in {"", cycle_remedies.SEE_RUNBOOK}
