"""What an update writes into the quantity columns that a table has, and that the row then reads as what was meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.corrections import COMPARED, Handler, OrderChange
from recon_pipeline.domain.order_values import executed_units, inserted_values, updated_values
from recon_pipeline.domain.quantities import decimal_text_e9

ALL = frozenset({"order_id", "status", "qty", "quantity", "filled_qty", "price", "filled_at", "sub_tag"})
BARE = frozenset({"order_id", "status", "qty", "price", "filled_at"})


def record(**columns: str | None) -> dict[str, str | None]:
    return dict.fromkeys(COMPARED, None) | {"status": "pending_new", "qty": "10"} | columns


def change(**values: str | None) -> OrderChange:
    return OrderChange("p1", "t1", "o1", Handler.EXIT_FILL, values, record(), {})


@pytest.mark.parametrize(
    ("row", "columns", "status", "executed", "written"),
    [
        (record(), BARE, "filled", "4", {"qty": "4"}),
        (record(), ALL, "filled", "4", {"qty": "4", "filled_qty": "4"}),
        (record(quantity="10"), ALL, "filled", "4", {"qty": "4", "quantity": "4", "filled_qty": "4"}),
        (record(qty=None, quantity="10"), ALL, "filled", "4", {"qty": "4", "quantity": "4", "filled_qty": "4"}),
        (record(), BARE, "partially_filled", "4", {"qty": "4"}),
        (record(), ALL, "partially_filled", "4", {"filled_qty": "4"}),
        (record(quantity="10"), ALL, "partially_filled", "10", {"filled_qty": "10"}),
        (record(quantity="3", qty="3"), ALL, "partially_filled", "4", {"filled_qty": "4", "qty": "4", "quantity": "4"}),
        (record(qty=None), ALL, "partially_filled", "4", {"filled_qty": "4"}),
        (record(), ALL, "canceled", "0", {}),
    ],
)
def test_the_columns_that_say_what_was_executed(
    row: dict[str, str | None], columns: frozenset[str], status: str, executed: str, written: dict[str, str]
):
    found = updated_values(row, change(status=status, executed=executed), columns)
    assert found == written | {"status": status}


def test_what_is_not_known_never_erases_what_is():
    assert updated_values(
        record(price="5"), change(status="filled", executed="1", price=None, filled_at=None), BARE
    ) == {
        "status": "filled",
        "qty": "1",
    }


@pytest.mark.parametrize("executed", ["0.0000000001", "-1", "x", "1e-10"])
def test_a_quantity_that_no_exchange_executes_is_a_mistake(executed: str):
    with pytest.raises(ValueError, match="is no executed quantity"):
        updated_values(record(), change(status="filled", executed=executed), ALL)


def test_executed_quantity_under_a_status_that_books_nothing_is_a_mistake():
    with pytest.raises(ValueError, match="books nothing"):
        updated_values(record(), change(status="canceled", executed="1"), ALL)


def test_a_value_that_no_update_takes_is_a_mistake():
    with pytest.raises(ValueError, match="can't set side"):
        updated_values(record(), change(side="BUY"), ALL)


def test_a_new_partial_row_of_a_table_without_filled_qty_says_what_was_executed():
    values: dict[str, Any] = {"status": "partially_filled", "qty": "10", "quantity": "10", "filled_qty": "4"}
    assert inserted_values(change(**values), BARE)["qty"] == "4"
    assert inserted_values(change(**values), ALL)["qty"] == "10"


quantities = st.integers(min_value=1, max_value=10**15)


@settings(max_examples=100, deadline=None)
@given(
    quantities, quantities, st.sampled_from(["filled", "partially_filled"]), st.sampled_from([ALL, BARE]), st.booleans()
)
def test_a_written_row_reads_as_what_was_executed(
    ordered: int, executed: int, status: str, columns: frozenset[str], doubled: bool
):
    text = decimal_text_e9(ordered)
    row = record(qty=text, quantity=text if doubled and "quantity" in columns else None)
    values = updated_values(row, change(status=status, executed=decimal_text_e9(executed)), columns)
    assert set(values) <= columns
    assert executed_units({**row, **values}) == executed
