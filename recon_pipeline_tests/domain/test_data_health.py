"""Rows and trades that can't be used: each is reported with the row named."""

from __future__ import annotations

from random import Random
from typing import Any

import pandas as pd
import pytest

from recon_pipeline.domain.account_slices import slices_of_accounts
from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.data_health import data_findings
from recon_pipeline.domain.frames import EXCHANGE_ORDERS
from recon_pipeline.domain.plan import ExitBackfillInputs
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.domain.terms import RowDefect
from recon_pipeline_tests.domain.book_makers import MINUTE, START_MS, backfill_id
from recon_pipeline_tests.domain.coverage_makers import SENT_MS, Record, inputs_of, profile, row


def exit_row(**changes: Any) -> Record:
    return row(**{"order_id": "r1", "side": "sell", "action": "EXIT", "qty": "4", "timestamp": SENT_MS, **changes})


def slices(inputs: CycleInputs, rows: list[Record]) -> pd.DataFrame:
    return slices_of_accounts(
        ExitBackfillInputs(
            profiles=inputs.profiles, lifecycle_rows=lifecycle_rows_frame(rows), exchange_orders=EXCHANGE_ORDERS.empty()
        )
    )


def findings(rows: list[Record], **options: Any) -> tuple[Finding, ...]:
    inputs = inputs_of(rows, **options)
    return data_findings(inputs, slices(inputs, rows))


def named(found: tuple[Finding, ...]) -> list[tuple[str, str, str]]:
    return [(finding.reason, finding.trade_id, finding.order_id) for finding in found]


def test_a_healthy_ledger_has_nothing_to_report() -> None:
    assert findings([row(), exit_row(), exit_row(order_id="r2", status="pending_new")]) == ()


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row(quantity="9")], [("conflicting_quantities", "t1", "e1")]),
        ([row(status="partially_filled", filled_qty="11")], [("conflicting_quantities", "t1", "e1")]),
        ([row(qty=None)], [("row_without_quantity", "t1", "e1")]),
        ([row(qty="-1")], [("row_without_quantity", "t1", "e1")]),
        ([row(side="hold")], [("row_without_side", "t1", "e1")]),
        ([row(), exit_row(side=None, status="pending_new")], [("row_without_side", "t1", "r1")]),
        ([row(), exit_row(symbol=None)], [("row_without_symbol", "t1", "r1")]),
        ([row(), exit_row(symbol=None, status="new")], [("row_without_symbol", "t1", "r1")]),
        ([row(), exit_row(timestamp=None)], [("row_without_time", "t1", "r1")]),
        ([row(), row(qty="9")], [("conflicting_rows", "t1", "e1"), ("conflicting_rows", "t1", "e1")]),
        ([row(), exit_row(symbol="MSFT")], [("conflicting_symbols", "t1", "r1")]),
        ([row(), exit_row(order_id="e2", action="ENTRY")], [("conflicting_entry_sides", "t1", "e2")]),
        ([row(action=None)], [("unknown_entry_side", "t1", "e1")]),
        ([row(), exit_row(side="buy")], [("exit_on_entry_side", "t1", "r1")]),
        ([row(qty="3"), exit_row()], [("over_exit", "t1", "r1")]),
        ([row(trade_id=None)], [("row_without_trade", "", "e1")]),
        ([row(trade_id=None, status="pending_new")], [("row_without_trade", "", "e1")]),
        ([row(order_id=None)], [("row_without_id", "t1", "")]),
        ([row(), exit_row(status=None)], [("row_without_status", "t1", "r1")]),
    ],
)
def test_each_defect_is_reported_with_its_row(rows: list[Record], expected: list[tuple[str, str, str]]) -> None:
    found = findings(rows)
    assert named(found) == expected
    assert all(
        (finding.profile_id, finding.stage, finding.needs_person) == ("p1", Stage.READING, True) for finding in found
    )


def test_every_defect_that_a_row_or_trade_can_have_is_reported() -> None:
    books: list[list[Record]] = [
        [row(quantity="9")],
        [row(qty=None)],
        [row(side="hold")],
        [row(symbol=None)],
        [row(timestamp=None)],
        [row(), row(qty="9")],
        [row(), exit_row(symbol="MSFT")],
        [row(), exit_row(action="ENTRY")],
        [row(action=None)],
        [row(), exit_row(side="buy")],
    ]
    reasons = {finding.reason for rows in books for finding in findings(rows)}
    assert reasons == {defect.value for defect in RowDefect}


@pytest.mark.parametrize("status", ["canceled", "rejected", "expired", "replaced"])
def test_a_row_that_booked_nothing_is_nobodys_concern(status: str) -> None:
    assert findings([row(status=status, trade_id=None, side="hold", symbol=None, order_id=None)]) == ()


def test_a_row_with_several_defects_is_reported_for_each() -> None:
    assert named(findings([row(order_id=None, trade_id=None, quantity="9")])) == [
        ("conflicting_quantities", "", ""),
        ("row_without_id", "", ""),
        ("row_without_trade", "", ""),
    ]


def test_a_finding_says_what_the_row_says() -> None:
    (finding,) = findings([row(quantity="9")])
    assert finding.detail == {
        "side": "buy",
        "action": "ENTRY",
        "status": "filled",
        "qty": "10",
        "quantity": "9",
        "filled_qty": None,
        "price": "100",
    }
    assert finding.symbol == "AAPL"


def test_an_over_exit_names_its_exits_newest_first_and_by_how_much() -> None:
    (finding,) = findings(
        [row(qty="3"), exit_row(qty="2"), exit_row(order_id="r2", qty="2.5", timestamp=SENT_MS + MINUTE)]
    )
    assert finding.order_id == "r2"
    assert finding.detail == {"entered": "3", "exited": "4.5", "over": "1.5", "rows": ["r2", "r1"]}


@pytest.mark.parametrize("key", ["PARITY-1", backfill_id("p1", "t1", "x1", SENT_MS)])
def test_an_over_exit_by_rows_that_stand_in_is_first_left_to_the_next_cycles(key: str) -> None:
    (finding,) = findings([row(qty="3"), exit_row(order_id=key)])
    assert (finding.reason, finding.needs_person) == ("over_exit", False)


def test_a_short_trade_can_be_over_exited_too() -> None:
    assert named(findings([row(side="sell", qty="3"), exit_row(side="buy")])) == [("over_exit", "t1", "r1")]


def test_an_over_exit_below_the_epsilon_is_none() -> None:
    assert findings([row(qty="4"), exit_row(qty="4.00000001")]) == ()


def test_only_the_selected_profiles_are_reported() -> None:
    rows = [
        row(quantity="9"),
        row(profile_id="p2", order_id="e2", quantity="9"),
        exit_row(profile_id="p2", trade_id="t2"),
    ]
    found = findings(rows, profiles=[profile("p1", selected=False), "p2"])
    assert {finding.profile_id for finding in found} == {"p2"}
    assert [finding.reason for finding in found] == ["conflicting_quantities", "over_exit"]


def test_an_incomplete_reading_of_the_exchange_hides_no_defect_of_the_ledger() -> None:
    assert len(findings([row(quantity="9")], profiles=[profile("p1", evidence_defect="page cap")])) == 1


def test_the_order_of_rows_decides_nothing() -> None:
    rows = [
        row(quantity="9"),
        exit_row(),
        exit_row(order_id="r2", timestamp=START_MS),
        row(order_id="e3", trade_id=None),
    ]
    expected = findings(rows)
    for seed in range(4):
        shuffled = list(rows) * 2
        Random(seed).shuffle(shuffled)
        assert findings(shuffled) == expected
