"""Root causes: the label of a mismatch where the facts allow one, and none where they do not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.domain.root_causes import RootCause, is_small_ratio
from recon_pipeline_tests.domain.book_makers import E9, MINUTE, START_MS
from recon_pipeline_tests.domain.parity_books import GHOST, NOW, POLICY, Book, Record, bought, executed, sold

HOUR = 60 * MINUTE
OLD = START_MS - 100 * HOUR
FOREIGN = "bytelyst-p9-t1-exit"
OWN = "bytelyst-p1-t1-exit"


def causes(book: Book, **arguments: Any) -> dict[str, str]:
    plan = book.plan(**arguments)
    found = {finding.trade_id: str(finding.detail["root_cause"]) for finding in plan.findings}
    assert dict(zip(plan.states["trade_id"], plan.states["root_cause"], strict=True)) == found
    return found


def bitcoin(trade: str = "t1", qty: str = "1", **changes: Any) -> Record:
    return bought(trade, qty, **{"symbol": "BTC/USD", **changes})


def test_a_mismatch_that_no_fact_explains_has_no_label() -> None:
    assert causes(GHOST) == {"t1": ""}
    assert causes(GHOST.but(positions={"AAPL": "4.7"})) == {"t1": ""}


# --- executions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("orders", "held", "label"),
    [
        ((executed(client_order_id=OWN),), "0", "missed_execution"),
        ((executed(qty="6", client_order_id=OWN),), "4", "missed_execution"),
        ((executed(qty="4", client_order_id=OWN), executed("x2", "6", client_order_id=OWN)), "0", "missed_execution"),
        ((executed(qty="6", client_order_id=OWN),), "0", ""),
        ((executed(qty="10"),), "0", "manual_close"),
        ((executed(qty="4"), executed("x2", "6")), "0", "manual_close"),
        ((executed(qty="10"), executed("x2", "3", side="buy")), "3", "manual_close"),
        ((executed(qty="10"), executed("x2", "3", side="buy")), "0", "manual_close"),
        ((executed(qty="10"), executed("x2", "7")), "0", "manual_close"),
        ((executed(qty="9"),), "0", ""),
        ((executed(qty="10", filled_at=START_MS - 1),), "0", ""),
        ((executed(qty="10", side="buy"),), "0", ""),
        ((executed(qty="10", side="buy"),), "20", ""),
        ((executed(qty="10", symbol="MSFT"),), "0", ""),
        ((executed(qty="10", client_order_id=FOREIGN),), "0", "foreign_profile"),
        ((executed(qty="10", sub_tag="bytelyst:p9"),), "0", "foreign_profile"),
        ((executed(qty="3", side="buy", client_order_id=FOREIGN),), "13", "foreign_profile"),
        ((executed(qty="10", client_order_id=FOREIGN, filled_at=START_MS - 1),), "0", ""),
        ((executed(qty="4", client_order_id=OWN), executed("x2", "6")), "0", "manual_close"),
        (
            (executed(qty="4", client_order_id=OWN), executed("x2", "6", client_order_id=FOREIGN)),
            "0",
            "foreign_profile",
        ),
    ],
)
def test_executions_that_nothing_represents_explain_what_they_add_up_to(
    orders: tuple[Record, ...], held: str, label: str
) -> None:
    assert causes(GHOST.but(orders=orders, positions={"AAPL": held})) == {"t1": label}


def test_a_split_is_no_label_where_an_execution_of_anybody_explains_it() -> None:
    bought_by_hand = executed(qty="10", side="buy", filled_at=START_MS - 1)
    assert causes(GHOST.but(orders=(bought_by_hand,), positions={"AAPL": "20"})) == {"t1": ""}


def test_an_execution_that_the_ledger_has_explains_nothing() -> None:
    rows = (bought(), bought("t2", "4.3"), sold("t2", "4.3", order_id="x1"))
    book = Book(rows, orders=(executed(qty="4.3"),), positions={"AAPL": "5.7"})
    assert causes(book) == {"t1": ""}


def test_the_missed_execution_of_one_trade_explains_the_symbol_for_all_its_trades() -> None:
    book = Book((bought(), bought("t2", "5")), orders=(executed(client_order_id=OWN),), positions={"AAPL": "5"})
    assert causes(book) == {"t1": "missed_execution", "t2": "missed_execution"}


def test_a_trade_that_its_own_executions_close_is_labelled_also_where_the_rest_is_not_explained() -> None:
    book = Book((bought(), bought("t2", "5")), orders=(executed(client_order_id=OWN),))
    assert causes(book) == {"t1": "missed_execution", "t2": ""}


def test_an_order_whose_owner_is_not_clear_explains_nothing() -> None:
    order = executed(client_order_id="bytelyst-p1-t1-exit", sub_tag="bytelyst:p1:t2")
    book = Book((bought(), bought("t2", symbol="MSFT")), orders=(order,), positions={"MSFT": "10"})
    assert causes(book) == {"t1": ""}


def test_a_short_that_was_bought_back_by_hand_is_a_manual_close() -> None:
    book = Book((bought(side="sell"),), orders=(executed(side="buy"),))
    assert causes(book) == {"t1": "manual_close"}


# --- coins ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "held", "labels"),
    [
        ((bitcoin(qty="100"),), "99.75", {"t1": "crypto_fee"}),
        ((bitcoin(qty="100"),), "99.74", {"t1": ""}),
        ((bitcoin(qty="100"),), "100.25", {"t1": ""}),
        ((bitcoin(qty="100"), bitcoin("t2", "100"), sold("t2", "100", symbol="BTC/USD")), "99.5", {"t1": "crypto_fee"}),
        (
            (bitcoin(qty="100"), sold(qty="99.75", symbol="BTC/USD"), bitcoin("t2", "7")),
            "0",
            {"t1": "crypto_fee", "t2": ""},
        ),
        ((bought(qty="100"),), "99.75", {"t1": ""}),
    ],
)
def test_a_coin_that_lacks_at_most_the_fee_on_what_was_bought_is_labelled_crypto_fee(
    rows: tuple[Record, ...], held: str, labels: dict[str, str]
) -> None:
    policy = replace(POLICY, crypto_fee_bps=Decimal(0))
    symbol = str(rows[0]["symbol"]).replace("/", "")
    assert causes(Book(rows, positions={symbol: held}), policy=policy) == labels


def test_a_higher_fee_setting_is_what_counts() -> None:
    book = Book(
        (bitcoin(qty="100"), bitcoin("t2", "100"), sold("t2", "100", symbol="BTC/USD")), positions={"BTCUSD": "99"}
    )
    assert causes(book, policy=replace(POLICY, crypto_fee_bps=Decimal(40))) == {"t1": ""}
    assert causes(book, policy=replace(POLICY, crypto_fee_bps=Decimal(50))) == {"t1": "crypto_fee"}


# --- corporate actions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "whole", "small"),
    [
        (20, 10, True),
        (10, 20, True),
        (15, 10, True),
        (10, 15, True),
        (1000, 10, True),
        (1010, 10, False),
        (10, 1000, True),
        (50, 20, True),
        (70, 20, False),
        (10, 10, False),
        (-20, 10, False),
        (-20, -10, True),
        (0, 10, False),
        (47, 100, False),
    ],
)
def test_a_small_ratio_is_a_multiple_a_fraction_or_two_numbers_up_to_five(part: int, whole: int, small: bool) -> None:
    assert is_small_ratio(part * E9, whole * E9) is small


@pytest.mark.parametrize(
    ("rows", "held", "label"),
    [
        ((bought(),), "20", "split"),
        ((bought(),), "15", "split"),
        ((bought(side="sell"),), "-30", "split"),
        ((bought(),), "1", "split"),
        ((bought(qty="0.333333333"),), "0.666666666", "split"),
        ((bought(), bought("t2", "6")), "32", "split"),
        ((bought(), bought("t2", "5")), "5", ""),
        ((bought(), bought("t2", "6")), "4", "split"),
        ((bought(), bought("t2"), bought("t3")), "10", ""),
        ((bought(),), "-20", ""),
        ((bought(),), "20.5", ""),
    ],
)
def test_a_position_that_is_a_small_ratio_of_the_ledger_without_any_execution_is_labelled_split(
    rows: tuple[Record, ...], held: str, label: str
) -> None:
    assert set(causes(Book(rows, positions={"AAPL": held})).values()) == {label}


def test_a_coin_is_never_split() -> None:
    assert causes(Book((bitcoin(),), positions={"BTCUSD": "2"})) == {"t1": ""}


def test_a_fraction_of_a_trade_older_than_the_look_back_may_be_an_exit_that_was_not_read() -> None:
    old = Book((bought(timestamp=OLD),), positions={"AAPL": "5"})
    assert causes(old) == {"t1": "evidence_outside_lookback"}
    assert causes(old.but(positions={"AAPL": "20"})) == {"t1": "split"}


def test_a_position_that_moved_to_one_other_symbol_whole_is_labelled_split() -> None:
    assert causes(GHOST.but(positions={"NEWCO": "10"})) == {"t1": "split"}
    assert causes(GHOST.but(positions={"NEWCO": "20"})) == {"t1": "split"}


@pytest.mark.parametrize(
    ("positions", "orders"),
    [
        ({"NEWCO": "10", "OTHER": "10"}, ()),
        ({"NEWCO": "7.3"}, ()),
        ({"NEWCO": "-10"}, ()),
        ({"NEWCO": "10"}, (executed(symbol="NEWCO", side="buy"),)),
    ],
)
def test_other_positions_that_may_be_anything_else_label_nothing(
    positions: dict[str, str], orders: tuple[Record, ...]
) -> None:
    assert causes(GHOST.but(positions=positions, orders=orders)) == {"t1": ""}


# --- the look-back -------------------------------------------------------------------------------------------------------


def test_a_trade_older_than_the_look_back_that_nothing_explains_is_labelled_so() -> None:
    since = NOW - POLICY.lookback_ms
    assert causes(Book((bought(timestamp=since - 1),))) == {"t1": "evidence_outside_lookback"}
    assert causes(Book((bought(timestamp=since),))) == {"t1": ""}
    assert causes(Book((bought(timestamp=since),)), policy=replace(POLICY, lookback_ms=HOUR // 2)) == {
        "t1": "evidence_outside_lookback"
    }


def test_what_explains_an_old_trade_goes_before_the_look_back() -> None:
    old = Book((bought(timestamp=OLD),), orders=(executed(),))
    assert causes(old) == {"t1": "manual_close"}


def test_a_label_never_closes_or_keeps_a_trade() -> None:
    for orders in ((), (executed(),), (executed(client_order_id=FOREIGN),)):
        assert len(GHOST.but(orders=orders).cycles(3).changes) == 1
    (change,) = GHOST.but(orders=(executed(),)).cycles(3).changes
    assert change.cause["root_cause"] == RootCause.MANUAL_CLOSE
