"""What backfilled exits do to positions, trade history and capital, to the last digit."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.bookkeeping import (
    EPSILON,
    ExitFill,
    TradeExit,
    capital_after,
    position_after,
    realized_profit,
    same_value,
    trade_history_after,
)

T0 = 1_772_452_800_000
ISO = "2026-03-02T12:00:00.000Z"
PROPERTY = settings(max_examples=1000, deadline=None)


def trade(
    *fills: tuple[str, str], opened: str = "10", before: str = "0", side: str = "BUY", entry: str | None = "100"
) -> TradeExit:
    return TradeExit(
        entry_side=side,
        entry_price=None if entry is None else Decimal(entry),
        exit_before=Decimal(before),
        open_before=Decimal(opened),
        fills=tuple(
            ExitFill(Decimal(qty), Decimal(price), T0 + 1000 * index) for index, (qty, price) in enumerate(fills)
        ),
    )


OPEN_POSITION = {"qty": Decimal(10), "status": "open", "closed_at": None}
OPEN_HISTORY = {
    "entry_qty": Decimal(10),
    "entry_price": Decimal(100),
    "exit_qty": 0,
    "exit_price": None,
    "realized_pnl_usd": None,
    "fees_usd": Decimal("0.25"),
    "status": "open",
    "closed_at": None,
}


def test_a_full_exit_closes_the_position_at_the_time_of_the_last_fill():
    assert position_after(OPEN_POSITION, trade(("4", "110"), ("6", "105"))) == {
        "qty": "0",
        "status": "closed",
        "closed_at": "2026-03-02T12:00:01.000Z",
    }


def test_a_partial_exit_leaves_the_position_open_with_the_rest():
    assert position_after(OPEN_POSITION, trade(("4", "110"))) == {"qty": "6"}


def test_a_remainder_within_the_epsilon_closes_the_position():
    assert position_after(OPEN_POSITION, trade(("9.99999999", "110")))["status"] == "closed"
    assert position_after(OPEN_POSITION, trade(("9.999999989", "110"))) == {"qty": "0.000000011"}


def test_a_short_position_keeps_its_sign():
    short = OPEN_POSITION | {"qty": Decimal(-10)}
    assert position_after(short, trade(("4", "90"), side="SELL")) == {"qty": "-6"}


def test_a_position_never_grows_by_an_exit():
    small = OPEN_POSITION | {"qty": Decimal(2)}
    assert position_after(small, trade(("4", "110"))) == {}


def test_a_position_that_missed_an_earlier_exit_follows_the_ledger():
    stale = OPEN_POSITION | {"qty": Decimal(10)}
    assert position_after(stale, trade(("3", "110"), opened="6", before="4")) == {"qty": "3"}


def test_a_closed_position_is_left_alone():
    closed = {"qty": Decimal(0), "status": "closed", "closed_at": "2026-03-01T00:00:00+00:00"}
    assert position_after(closed, trade(("10", "110"))) == {}


def test_an_unknown_position_quantity_stays_unknown_until_the_trade_is_closed():
    unknown = OPEN_POSITION | {"qty": None}
    assert position_after(unknown, trade(("4", "110"))) == {}
    assert position_after(unknown, trade(("10", "110")))["qty"] == "0"


def test_history_books_quantity_average_price_and_profit():
    assert trade_history_after(OPEN_HISTORY, trade(("4", "110"), ("6", "105"))) == {
        "exit_qty": "10",
        "exit_price": "107",
        "realized_pnl_usd": "70",
        "status": "closed",
        "closed_at": "2026-03-02T12:00:01.000Z",
    }


def test_history_of_a_short_gains_where_the_price_fell():
    changes = trade_history_after(OPEN_HISTORY, trade(("10", "90"), side="SELL"))
    assert changes["realized_pnl_usd"] == "100"


def test_history_adds_to_what_a_bot_booked_before():
    booked = OPEN_HISTORY | {"exit_qty": Decimal(4), "exit_price": Decimal(110), "realized_pnl_usd": Decimal("39.75")}
    changes = trade_history_after(booked, trade(("6", "105"), opened="6", before="4"))
    assert (changes["exit_qty"], changes["exit_price"], changes["realized_pnl_usd"]) == ("10", "107", "69.75")


def test_an_exit_that_the_history_never_booked_is_counted_and_its_profit_stays_unknown():
    blank = OPEN_HISTORY | {"exit_qty": None}
    changes = trade_history_after(blank, trade(("6", "105"), opened="6", before="4"))
    assert changes == {"exit_qty": "10", "status": "closed", "closed_at": ISO}


def test_an_earlier_exit_without_a_price_leaves_the_average_unknown():
    booked = OPEN_HISTORY | {"exit_qty": Decimal(4), "realized_pnl_usd": Decimal(5)}
    changes = trade_history_after(booked, trade(("6", "105"), opened="6", before="4"))
    assert "exit_price" not in changes
    assert changes["realized_pnl_usd"] == "35"


def test_without_an_entry_price_there_is_no_profit():
    nameless = OPEN_HISTORY | {"entry_price": None, "realized_pnl_usd": Decimal(0)}
    assert trade_history_after(nameless, trade(("10", "105"), entry=None))["realized_pnl_usd"] is None
    assert trade_history_after(nameless, trade(("10", "105"), entry="100"))["realized_pnl_usd"] == "50"


def test_a_time_of_closing_that_is_known_is_kept():
    known = OPEN_HISTORY | {"closed_at": "2026-03-01T00:00:00+00:00"}
    assert "closed_at" not in trade_history_after(known, trade(("10", "105")))


def test_fees_are_never_touched():
    assert "fees_usd" not in trade_history_after(OPEN_HISTORY, trade(("10", "105")))


def test_capital_is_released_with_the_share_that_closes():
    assert capital_after({"reserved_usd": Decimal(1000)}, trade(("4", "110"))) == {"reserved_usd": "600"}
    assert capital_after({"reserved_usd": Decimal(1000)}, trade(("10", "110"))) == {"reserved_usd": "0"}


def test_capital_that_is_not_recorded_stays_so():
    assert capital_after({"reserved_usd": None}, trade(("10", "110"))) == {}
    assert capital_after({"reserved_usd": 0}, trade(("10", "110"))) == {}


def test_a_third_is_rounded_to_twelve_places():
    assert capital_after({"reserved_usd": Decimal(100)}, trade(("1", "1"), opened="3")) == {
        "reserved_usd": "66.666666666667"
    }


def test_without_fills_nothing_changes():
    nothing = trade()
    assert position_after(OPEN_POSITION, nothing) == {}
    assert trade_history_after(OPEN_HISTORY, nothing) == {}
    assert capital_after({"reserved_usd": Decimal(5)}, nothing) == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (Decimal("1.50"), "1.5", True),
        (0, "0", True),
        (None, None, True),
        (None, "0", False),
        ("open", "closed", False),
        ("2026-03-02T12:00:00+00:00", ISO, True),
        ("2026-03-02T12:00:00", ISO, True),
        ("2026-03-02T13:00:00+01:00", ISO, True),
        ("2026-03-02T12:00:01+00:00", ISO, False),
        (True, 1, False),
    ],
)
def test_values_are_the_same_by_what_they_name(one: object, other: object, same: bool):
    assert same_value(one, other) is same


# -- properties

quantities = st.integers(min_value=1, max_value=10**18).map(lambda units: Decimal(units) / 10**9)
prices = st.integers(min_value=1, max_value=10**16).map(lambda units: Decimal(units) / 10**10)


@st.composite
def exits(draw: st.DrawFn) -> TradeExit:
    fills = tuple(
        ExitFill(qty, price, T0 + index)
        for index, (qty, price) in enumerate(draw(st.lists(st.tuples(quantities, prices), min_size=1, max_size=5)))
    )
    with localcontext(prec=100):
        total = sum((fill.qty for fill in fills), Decimal(0))
        left = draw(st.one_of(st.just(Decimal(0)), quantities))
        return TradeExit(draw(st.sampled_from(["BUY", "SELL"])), draw(prices), Decimal(0), total + left, fills)


@PROPERTY
@given(exits(), prices)
def test_profit_is_exact(exit_: TradeExit, entry: Decimal):
    sign = 1 if exit_.entry_side == "BUY" else -1
    exact = sum(sign * (Fraction(fill.price) - Fraction(entry)) * Fraction(fill.qty) for fill in exit_.fills)
    assert Fraction(realized_profit(exit_.entry_side, entry, exit_.fills)) == exact


@PROPERTY
@given(exits())
def test_booking_fills_one_by_one_ends_where_booking_them_together_ends(exit_: TradeExit):
    """What is written in two batches is what is written in one: quantities and profit exactly."""
    position = {"qty": exit_.open_before, "status": "open", "closed_at": None}
    history = OPEN_HISTORY | {"entry_price": exit_.entry_price}
    together = (
        {**position, **position_after(position, exit_)},
        {**history, **trade_history_after(history, exit_)},
    )
    opened, done = exit_.open_before, Decimal(0)
    for fill in exit_.fills:
        step = TradeExit(exit_.entry_side, exit_.entry_price, done, opened, (fill,))
        position = {**position, **position_after(position, step)}
        history = {**history, **trade_history_after(history, step)}
        with localcontext(prec=100):
            opened, done = opened - fill.qty, done + fill.qty
    assert same_value(position["qty"], together[0]["qty"])
    assert position["status"] == together[0]["status"]
    for name in ("exit_qty", "realized_pnl_usd", "status"):
        assert same_value(history[name], together[1][name])


@PROPERTY
@given(exits())
def test_a_position_ends_with_what_the_ledger_leaves_open_and_never_below_zero(exit_: TradeExit):
    position = {"qty": exit_.open_before, "status": "open", "closed_at": None}
    after = {**position, **position_after(position, exit_)}
    left = Decimal(str(after["qty"]))
    assert 0 <= left <= exit_.open_before
    assert left == (0 if exit_.open_after <= EPSILON else exit_.open_after)


@PROPERTY
@given(exits(), prices)
def test_the_average_price_lies_between_the_lowest_and_the_highest(exit_: TradeExit, reserved: Decimal):
    price = trade_history_after(OPEN_HISTORY, exit_)["exit_price"]
    assert price is not None
    places = Decimal("1e-12")
    assert min(f.price for f in exit_.fills) - places <= Decimal(price) <= max(f.price for f in exit_.fills) + places
    kept = Decimal(str({"reserved_usd": reserved, **capital_after({"reserved_usd": reserved}, exit_)}["reserved_usd"]))
    assert 0 <= kept <= reserved
