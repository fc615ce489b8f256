"""What corrections of a trade's orders do to its position, history and capital, to the last digit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.bookkeeping import same_value
from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.domain.trade_books import (
    NOTHING,
    TradeState,
    capital_after,
    position_after,
    trade_history_after,
    trade_state,
)

T0 = 1_772_452_800_000
PROPERTY = settings(max_examples=25, deadline=None)


def row(
    action: str | None, side: str, qty: str, price: str | None = "100", status: str = "filled", **more: Any
) -> dict[str, Any]:
    return {
        "profile_id": "p1",
        "user_id": "u1",
        "order_id": f"{action}-{side}-{qty}-{price}-{status}",
        "trade_id": "t1",
        "symbol": "AAPL",
        "side": side,
        "action": action,
        "qty": qty,
        "price": price,
        "status": status,
        "timestamp": T0,
        **more,
    }


def state(*rows: dict[str, Any]) -> TradeState:
    return trade_state(lifecycle_rows_frame(rows))


ENTRY = row("ENTRY", "BUY", "10")
BEFORE = state(ENTRY)
POSITION = {"qty": Decimal(10), "avg_entry_price": Decimal(100), "status": "open", "closed_at": None}
HISTORY = {
    "entry_qty": Decimal(10),
    "entry_price": Decimal(100),
    "exit_qty": 0,
    "exit_price": None,
    "realized_pnl_usd": None,
    "status": "open",
    "closed_at": None,
}
CAPITAL = {"reserved_usd": Decimal(1000)}


def leave(qty: str, price: str | None = "110", **more: Any) -> dict[str, Any]:
    return row("EXIT", "SELL", qty, price, order_id=f"x-{qty}-{price}", timestamp=T0 + 1000, **more)


# -- reading a trade


def test_a_trade_without_rows_is_nothing():
    assert state() == NOTHING
    assert NOTHING.over


def test_a_row_without_an_action_counts_by_its_side():
    found = state(ENTRY, row(None, "SELL", "4"), row(None, "BUY", "1", "89"))
    assert (found.entry_e9, found.exit_e9, found.entry_price) == (11 * 10**9, 4 * 10**9, Decimal(99))


@pytest.mark.parametrize(
    ("pending", "live"),
    [
        (row("ENTRY", "BUY", "5", status="new"), True),
        (row("ENTRY", "BUY", "5", status="partially_filled"), True),
        (row("ENTRY", "BUY", "5", status="unknown"), True),
        (row(None, "BUY", "5", status="new"), True),
        (row(None, "", "5", status="new"), True),
        (row(None, "SELL", "5", status="new"), False),
        (row("EXIT", "SELL", "5", status="new"), False),
        (row("ENTRY", "BUY", "5", status="rejected"), False),
    ],
)
def test_an_entry_that_may_still_execute_is_live(pending: dict[str, Any], live: bool):
    assert state(ENTRY, pending).entry_live is live


def test_the_rows_are_those_of_one_trade():
    with pytest.raises(ValueError, match="several trades"):
        trade_state(pd.concat([lifecycle_rows_frame([ENTRY]), lifecycle_rows_frame([ENTRY | {"trade_id": "t2"}])]))


@pytest.mark.parametrize(
    "rows",
    [
        (ENTRY, leave("14")),
        (leave("4"),),
        (ENTRY, row("ENTRY", "SELL", "1")),
        (ENTRY, row("EXIT", "SELL", "1", quantity="2")),
    ],
)
def test_a_trade_that_is_not_understood_leaves_every_book_as_it_is(rows: tuple[dict[str, Any], ...]):
    after = state(*rows)
    assert not after.understood
    for image in (POSITION, None):
        assert position_after(image, BEFORE, after) == {}
    for image in (HISTORY, None):
        assert trade_history_after(image, BEFORE, after) == {}
    for image in (CAPITAL, None):
        assert capital_after(image, BEFORE, after) == {}


# -- position


def test_a_position_is_what_the_ledger_leaves_open_with_the_sign_of_its_row():
    after = state(ENTRY, leave("4"))
    assert position_after(POSITION, BEFORE, after) == {"qty": "6"}
    assert position_after(POSITION | {"qty": Decimal(-10)}, BEFORE, after) == {"qty": "-6"}
    assert position_after(POSITION | {"qty": 6}, BEFORE, after) == {}
    assert position_after(POSITION | {"qty": None}, BEFORE, after) == {"qty": "6"}


def test_a_new_position_of_a_short_is_negative():
    after = state(row("ENTRY", "SELL", "3"))
    assert position_after(None, NOTHING, after)["qty"] == "-3"
    assert position_after(POSITION | {"qty": 0}, NOTHING, after)["qty"] == "-3"


def test_a_closed_position_keeps_its_time_of_closing_and_its_spelling():
    after = state(ENTRY, leave("10"))
    assert position_after(POSITION, BEFORE, after) == {
        "qty": "0",
        "status": "closed",
        "closed_at": "2026-03-02T12:00:01.000Z",
    }
    closed = {"qty": 0, "avg_entry_price": 100, "status": "CLOSED", "closed_at": "2026-03-01T00:00:00+00:00"}
    assert position_after(closed, BEFORE, after) == {}


def test_a_remainder_within_the_epsilon_is_closed():
    assert position_after(POSITION, BEFORE, state(ENTRY, leave("9.99999999")))["status"] == "closed"
    assert position_after(POSITION, BEFORE, state(ENTRY, leave("9.999999989"))) == {"qty": "0.000000011"}


def test_a_position_is_not_closed_while_an_entry_is_live():
    live = row("ENTRY", "BUY", "5", status="new")
    assert position_after(POSITION, BEFORE, state(ENTRY, leave("10"), live)) == {"qty": "0"}


def test_a_reopened_position_loses_its_time_of_closing():
    closed = {"qty": 0, "avg_entry_price": 100, "status": "closed", "closed_at": "2026-03-01T00:00:00+00:00"}
    assert position_after(closed, state(ENTRY, leave("10")), state(ENTRY, leave("4"))) == {
        "qty": "6",
        "status": "open",
        "closed_at": None,
    }


def test_the_average_entry_price_follows_the_entries_and_nothing_else():
    bots_own = POSITION | {"avg_entry_price": Decimal("100.01")}
    assert "avg_entry_price" not in position_after(bots_own, BEFORE, state(ENTRY, leave("1")))
    more = state(ENTRY, row("ENTRY", "BUY", "5", "103"))
    assert position_after(bots_own, BEFORE, more) == {"qty": "15", "avg_entry_price": "101"}
    unpriced = state(ENTRY, row("ENTRY", "BUY", "5", None))
    assert position_after(bots_own, BEFORE, unpriced) == {"qty": "15"}


def test_no_position_is_made_for_a_trade_that_is_closed():
    assert position_after(None, NOTHING, state(ENTRY, leave("10"))) == {}


# -- history


def test_history_grows_by_the_difference_and_keeps_what_a_bot_knows_beside_it():
    booked = HISTORY | {"exit_qty": 4, "exit_price": 110, "realized_pnl_usd": Decimal("39.75")}
    before, after = state(ENTRY, leave("4")), state(ENTRY, leave("4"), leave("6", "105"))
    assert trade_history_after(booked, before, after) == {
        "exit_qty": "10",
        "exit_price": "107",
        "realized_pnl_usd": "69.75",
        "status": "closed",
        "closed_at": "2026-03-02T12:00:01.000Z",
    }


def test_history_that_a_bot_booked_already_only_changes_its_status():
    booked = HISTORY | {"exit_qty": 10, "exit_price": 108, "realized_pnl_usd": Decimal("79.2")}
    assert trade_history_after(booked, state(ENTRY, leave("4")), state(ENTRY, leave("4"), leave("6", "105"))) == {
        "status": "closed",
        "closed_at": "2026-03-02T12:00:01.000Z",
    }


def test_history_that_never_booked_earlier_exits_books_them_too():
    before, after = state(ENTRY, leave("4")), state(ENTRY, leave("4"), leave("5", "120"))
    changes = trade_history_after(HISTORY, before, after)
    assert (changes["exit_qty"], changes["exit_price"], changes["realized_pnl_usd"]) == ("9", "115.555555555556", "140")
    odd = HISTORY | {"exit_qty": 2, "exit_price": 111, "realized_pnl_usd": 21}
    assert trade_history_after(odd, before, after)["realized_pnl_usd"] == "139"


def test_a_superseded_exit_is_taken_out_of_history():
    booked = HISTORY | {"exit_qty": 10, "exit_price": 107, "realized_pnl_usd": 70, "status": "closed", "closed_at": "x"}
    before, after = state(ENTRY, leave("4"), leave("6", "105")), state(ENTRY, leave("4"))
    assert trade_history_after(booked, before, after) == {
        "exit_qty": "4",
        "exit_price": "110",
        "realized_pnl_usd": "40",
        "status": "open",
        "closed_at": None,
    }
    assert trade_history_after(booked, before, BEFORE) == {
        "exit_qty": "0",
        "exit_price": None,
        "realized_pnl_usd": "0",
        "status": "open",
        "closed_at": None,
    }


def test_an_exit_that_takes_another_ones_place_changes_price_and_profit_only():
    booked = HISTORY | {
        "exit_qty": 10,
        "exit_price": 100,
        "realized_pnl_usd": "-0.5",
        "status": "closed",
        "closed_at": "x",
    }
    before, after = state(ENTRY, leave("10", "100")), state(ENTRY, leave("10", "104"))
    assert trade_history_after(booked, before, after) == {"exit_price": "104", "realized_pnl_usd": "39.5"}
    bots_own = booked | {"exit_price": Decimal("103.9")}
    assert trade_history_after(bots_own, before, after) == {}


def test_a_short_gains_where_the_price_fell():
    entry = row("ENTRY", "SELL", "10")
    after = state(entry, row("EXIT", "BUY", "10", "90"))
    assert trade_history_after(HISTORY, state(entry), after)["realized_pnl_usd"] == "100"


def test_what_an_unpriced_row_leaves_unknown_is_unknown():
    booked = HISTORY | {"exit_qty": 4, "realized_pnl_usd": 5}
    unpriced = leave("4", None)
    changes = trade_history_after(booked, state(ENTRY, unpriced), state(ENTRY, unpriced, leave("6", "105")))
    assert "exit_price" not in changes
    assert changes["realized_pnl_usd"] == "35", "the six are known, and were not booked before"
    lost = trade_history_after(booked, state(ENTRY, leave("4")), state(ENTRY, leave("4"), leave("6", None)))
    assert (lost["exit_qty"], lost["realized_pnl_usd"]) == ("10", None)
    no_entry_price = row("ENTRY", "BUY", "10", None)
    blank = HISTORY | {"entry_price": None}
    assert "realized_pnl_usd" not in trade_history_after(
        blank, state(no_entry_price), state(no_entry_price, leave("4"))
    )


def test_a_late_entry_changes_the_average_and_the_profit_of_what_was_sold():
    booked = HISTORY | {"exit_qty": 4, "exit_price": 110, "realized_pnl_usd": 40}
    before, after = state(ENTRY, leave("4")), state(ENTRY, leave("4"), row("ENTRY", "BUY", "10", "90"))
    assert trade_history_after(booked, before, after) == {
        "entry_qty": "20",
        "entry_price": "95",
        "realized_pnl_usd": "60",
    }


def test_entries_that_a_bot_booked_already_are_left_alone():
    booked = HISTORY | {"entry_qty": 20, "entry_price": Decimal("95.01")}
    assert trade_history_after(booked, BEFORE, state(ENTRY, row("ENTRY", "BUY", "10", "90"))) == {}


def test_a_trade_that_was_never_entered_has_no_history():
    assert trade_history_after(None, NOTHING, state(row("ENTRY", "BUY", "5", status="rejected"))) == {}


def test_a_new_history_tells_all_of_a_closed_trade():
    assert trade_history_after(None, NOTHING, state(ENTRY, leave("10", "104"))) == {
        "user_id": "u1",
        "symbol": "AAPL",
        "side": "BUY",
        "entry_qty": "10",
        "exit_qty": "10",
        "entry_price": "100",
        "exit_price": "104",
        "realized_pnl_usd": "40",
        "status": "closed",
        "opened_at": "2026-03-02T12:00:00.000Z",
        "closed_at": "2026-03-02T12:00:01.000Z",
    }


# -- capital


def test_capital_keeps_the_share_that_stays_open_and_nothing_of_what_is_closed():
    assert capital_after(CAPITAL, BEFORE, state(ENTRY, leave("4"))) == {"reserved_usd": "600"}
    assert capital_after(CAPITAL | {"reserved_usd": Decimal(500)}, BEFORE, state(ENTRY, leave("4"))) == {
        "reserved_usd": "300"
    }
    assert capital_after(CAPITAL, BEFORE, state(ENTRY, leave("10"))) == {"reserved_usd": "0"}


def test_capital_follows_the_entries_once_none_is_live():
    live = row("ENTRY", "BUY", "10", status="new")
    assert capital_after(CAPITAL, NOTHING, state(ENTRY, live)) == {}
    assert capital_after(CAPITAL, state(ENTRY, live), state(row("ENTRY", "BUY", "4", "99"))) == {"reserved_usd": "396"}
    assert capital_after(CAPITAL, state(live), state(row("ENTRY", "BUY", "10", status="rejected"))) == {
        "reserved_usd": "0"
    }
    assert capital_after(None, NOTHING, BEFORE) == {"user_id": "u1", "reserved_usd": "1000"}
    assert capital_after(None, NOTHING, state(ENTRY, live)) == {}


def test_capital_that_is_not_known_stays_so():
    assert capital_after({"reserved_usd": None}, BEFORE, state(ENTRY, leave("4"))) == {}
    unpriced = state(row("ENTRY", "BUY", "10", None))
    assert capital_after(CAPITAL, NOTHING, unpriced) == {}
    assert capital_after(None, NOTHING, unpriced) == {}


def test_capital_of_a_reopened_trade_is_what_is_open():
    closed, reopened = state(ENTRY, leave("10")), state(ENTRY, leave("4"))
    assert capital_after({"reserved_usd": 0}, closed, reopened) == {"reserved_usd": "600"}


# -- properties

units = st.integers(min_value=100, max_value=10**15)
prices = st.integers(min_value=1, max_value=10**10).map(lambda n: Decimal(n) / 10**4)


@st.composite
def trades(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Entries and exits of one trade, in the order in which the ledger learns of them; never over-exited at the end."""
    side, back = draw(st.sampled_from([("BUY", "SELL"), ("SELL", "BUY")]))
    entries = draw(st.lists(st.tuples(units, prices), min_size=1, max_size=3))
    left = sum(qty for qty, _ in entries)
    rows = [
        row("ENTRY", side, decimal_text_e9(qty), str(price), order_id=f"e{i}") for i, (qty, price) in enumerate(entries)
    ]
    for index in range(draw(st.integers(0, 3))):
        qty = draw(st.integers(1, left)) if left else 0
        if qty:
            left -= qty
            rows.append(row("EXIT", back, decimal_text_e9(qty), str(draw(prices)), order_id=f"x{index}"))
    return rows


@PROPERTY
@given(trades())
def test_booking_row_by_row_ends_where_booking_all_at_once_ends(rows: list[dict[str, Any]]):
    images: dict[str, dict[str, Any] | None] = {"position": None, "history": None, "capital": None}
    books = {"position": position_after, "history": trade_history_after, "capital": capital_after}
    for count in range(1, len(rows) + 1):
        before, after = state(*rows[: count - 1]), state(*rows[:count])
        for name, book in books.items():
            changes = book(images[name], before, after)
            if changes:
                images[name] = {**(images[name] or {}), **changes}
    history, position = images["history"], images["position"]
    assert history is not None
    assert position is not None
    end = state(*rows)
    assert same_value(history["entry_qty"], decimal_text_e9(end.entry_e9))
    assert same_value(history["exit_qty"], decimal_text_e9(end.exit_e9))
    assert abs(Decimal(position["qty"])) == Decimal(decimal_text_e9(end.open_e9))
    assert (history["status"], position["status"]) == (("closed", "closed") if end.over else ("open", "open"))
    if end.exit_e9 and all(r["action"] == "EXIT" or r["price"] == rows[0]["price"] for r in rows):
        entry = Fraction(rows[0]["price"])
        sign = 1 if rows[0]["side"] == "BUY" else -1
        exact = sum(sign * (Fraction(r["price"]) - entry) * Fraction(r["qty"]) for r in rows if r["action"] == "EXIT")
        assert Fraction(history["realized_pnl_usd"]) == exact


@PROPERTY
@given(trades(), st.integers(0, 6))
def test_a_book_that_says_it_already_is_left_alone(rows: list[dict[str, Any]], known: int):
    before, after = state(*rows[:known]), state(*rows)
    for book in (position_after, trade_history_after, capital_after):
        image = book(None, NOTHING, after)
        if image:
            again = {**image, **book(image, after, after)}
            assert again == image
            assert book(image, before, after) == {} or book is capital_after
