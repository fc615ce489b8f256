"""Superseding: which rows are given up so that nothing executed is booked twice, and which never are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recon_pipeline.domain.corrections import Handler, OrderChange
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import DUST_PREFIX, backfill_order_id
from recon_pipeline.domain.superseding import SupersedingPlan, plan_superseding
from recon_pipeline_tests.domain.order_worlds import (
    EARLIER,
    MINUTE,
    NOW,
    X1,
    X2,
    Raw,
    World,
    executed,
    order,
    profile,
    row,
)

SOLD_AT = EARLIER + MINUTE
CLIENT = "bytelyst-p1-t1-exit"
ENTRY_ROW = row(order_id=X2, status="filled")
BACKFILL = backfill_order_id("p1", "t1", X1, iso_ms(SOLD_AT))


def sold(quantity: str = "4", **changes: Any) -> Raw:
    """The exit order X1 of trade t1, over."""
    return executed(
        quantity, **{"side": "sell", "client_order_id": CLIENT, "status": "filled", "qty": quantity, **changes}
    )


def exit_row(**changes: Any) -> Raw:
    """The ledger's own row of X1: an exit of four, filled."""
    return row(**{"side": "sell", "action": "EXIT", "status": "filled", "qty": "4", "timestamp": SOLD_AT, **changes})


def backfill(**changes: Any) -> Raw:
    """A backfill row of X1 of four."""
    return exit_row(**{"order_id": BACKFILL, "source": "RECON_BACKFILL", **changes})


def consumed(order_id: str, quantity: str, exchange_order_id: str = X1) -> Raw:
    made = {"account_id": "a1", "backfill_order_id": order_id, "exchange_order_id": exchange_order_id}
    return {**made, "qty": quantity}


def superseding(world: World, *corrected: OrderChange) -> SupersedingPlan:
    return plan_superseding(world.inputs, now_ms=world.now_ms, policy=world.policy, corrected=corrected)


def given_up(world: World) -> list[str]:
    plan = superseding(world)
    for change in plan.changes:
        assert change.handler is Handler.SUPERSEDE
        assert dict(change.values) == {"status": "canceled"}
        assert (change.exchange_order_id, change.represents_e9) == ("", 0)
    after = superseding(world.with_written(plan.changes))
    assert after.changes == (), "a second look gives up more"
    return [change.order_id for change in plan.changes]


def findings(world: World) -> list[tuple[str, str, bool]]:
    return [(finding.order_id, finding.reason, finding.needs_person) for finding in superseding(world).findings]


# Backfill rows


def test_a_backfill_row_is_given_up_once_the_orders_own_row_is_there() -> None:
    world = World([ENTRY_ROW, exit_row(), backfill()], [sold()])
    assert given_up(world) == [BACKFILL]
    (change,) = superseding(world).changes
    assert change.cause["rule"] == "backfill_superseded"
    assert change.cause["exchange_order_id"] == X1
    assert change.cause["own_rows"] == [X1]
    assert (change.cause["own_rows_executed"], change.cause["executed"]) == ("4", "4")


@pytest.mark.parametrize(
    "own", [{"order_id": CLIENT}, {"order_id": "local", "client_order_id": CLIENT}, {"trade_id": "t2"}]
)
def test_the_own_row_counts_by_whichever_id_it_names_the_order(own: Raw) -> None:
    assert given_up(World([ENTRY_ROW, exit_row(**own), backfill()], [sold()])) == [BACKFILL]


@pytest.mark.parametrize(
    "rows",
    [
        [backfill()],
        [exit_row(status="canceled"), backfill()],
        [exit_row(status="pending_new"), backfill()],
        [exit_row(), backfill(status="canceled")],
        [exit_row(), backfill(order_id=backfill_order_id("p1", "t1", "another", iso_ms(SOLD_AT)))],
        [exit_row(), backfill(order_id=backfill_order_id("p1", "t1", f"{DUST_PREFIX}t1", iso_ms(SOLD_AT)))],
    ],
)
def test_a_backfill_row_that_nothing_doubles_stays(rows: list[Raw]) -> None:
    assert given_up(World([ENTRY_ROW, *rows], [sold()])) == []


def test_what_fits_beside_the_own_row_stays() -> None:
    # The order grew from four to ten after the own row was written for six of them.
    own = exit_row(qty="6")
    assert given_up(World([ENTRY_ROW, own, backfill()], [sold("10")])) == []


def test_consumption_says_which_order_a_backfill_row_stands_for() -> None:
    world = World([exit_row(), backfill(order_id="BFILL-old")], [sold()], consumption=[consumed("BFILL-old", "4")])
    assert given_up(world) == ["BFILL-old"]
    elsewhere = replace(world, consumption=[consumed("BFILL-old", "4", "another")])
    assert given_up(elsewhere) == []


def test_of_several_backfill_rows_the_newest_goes_first_until_the_rest_fits() -> None:
    old, new = backfill(order_id="BFILL-1", qty="3"), backfill(order_id="BFILL-2", qty="4", timestamp=SOLD_AT + MINUTE)
    consumption = [consumed("BFILL-1", "3"), consumed("BFILL-2", "4")]
    assert given_up(World([old, new, exit_row(qty="2")], [sold("8")], consumption=consumption)) == ["BFILL-2"]
    assert given_up(World([old, new, exit_row(qty="8")], [sold("8")], consumption=consumption)) == [
        "BFILL-1",
        "BFILL-2",
    ]


def test_a_backfill_row_that_is_exactly_what_is_too_much_goes_before_a_newer_one() -> None:
    # Booked at three, then at ten, when the order had grown: the first of them is what is too much.
    old, new = backfill(order_id="BFILL-1", qty="3"), backfill(order_id="BFILL-2", qty="10", timestamp=SOLD_AT + MINUTE)
    consumption = [consumed("BFILL-1", "3"), consumed("BFILL-2", "10")]
    assert given_up(World([old, new], [sold("10")], consumption=consumption)) == ["BFILL-1"]


@pytest.mark.parametrize(
    "exchange",
    [
        sold(filled_avg_price=None),
        sold(side="hold"),
        sold(status=None),
    ],
)
def test_an_order_that_can_t_be_used_gives_up_nothing(exchange: Raw) -> None:
    assert given_up(World([exit_row(), backfill()], [exchange], consumption=[consumed(BACKFILL, "4")])) == []


def test_a_backfill_row_whose_quantity_can_t_be_read_gives_up_nothing() -> None:
    assert given_up(World([exit_row(), backfill(quantity="5")], [sold()])) == []


def test_what_a_row_will_say_counts_and_not_what_it_says() -> None:
    world = World([exit_row(status="pending_new"), backfill()], [sold()])
    assert superseding(world).changes == ()
    (fill,) = [change for change in world.plan().changes if change.handler is Handler.EXIT_FILL]
    assert [change.order_id for change in superseding(world, fill).changes] == [BACKFILL]


def test_a_sibling_gives_up_its_backfill_row_of_an_order_that_another_profiles_row_names() -> None:
    theirs = backfill(profile_id="p2", trade_id="t2", order_id="BFILL-p2")
    world = World(
        [exit_row(status="pending_new"), theirs],
        [sold()],
        profiles=[profile(selected=False), profile("p2")],
        consumption=[consumed("BFILL-p2", "4")],
    )
    # p1's own run will fill its row; p2 takes its row back first, whichever of them runs first.
    assert [change.order_id for change in world.plan().changes] == ["BFILL-p2"]


def test_consumption_without_its_row_is_said_where_it_is_too_much() -> None:
    world = World([exit_row()], [sold()], consumption=[consumed("BFILL-gone", "4")])
    assert given_up(world) == []
    assert findings(world) == [(X1, "order_over_represented", True)]


# Rows that double another


def test_of_two_rows_of_one_order_the_one_with_the_exchanges_id_is_kept() -> None:
    doubled = exit_row(order_id=CLIENT, timestamp=SOLD_AT - MINUTE)
    world = World([ENTRY_ROW, doubled, exit_row()], [sold()])
    assert given_up(world) == [CLIENT]
    (change,) = superseding(world).changes
    assert (change.cause["rule"], change.cause["kept"]) == ("row_doubled", X1)


def test_of_two_rows_without_the_exchanges_id_the_older_one_is_kept() -> None:
    younger = exit_row(order_id="local-a", client_order_id=CLIENT, timestamp=SOLD_AT + 1)
    older = exit_row(order_id="local-b", client_order_id=CLIENT)
    assert given_up(World([ENTRY_ROW, younger, older], [sold()])) == ["local-a"]


@pytest.mark.parametrize(
    ("doubled", "exchange"),
    [
        (exit_row(order_id=CLIENT, status="pending_new"), sold()),
        (exit_row(order_id=CLIENT, status="pending_new", qty="10"), sold("4", status="canceled", qty="10")),
        (exit_row(order_id=CLIENT, status="partially_filled", filled_qty="3"), sold()),
        (exit_row(order_id=CLIENT, action=None), sold()),
    ],
)
def test_a_doubled_row_may_know_less_than_the_one_that_is_kept(doubled: Raw, exchange: Raw) -> None:
    assert given_up(World([ENTRY_ROW, doubled, exit_row()], [exchange])) == [CLIENT]


def test_two_rows_of_an_order_that_waits_are_one_too_many() -> None:
    rows = [row(), row(order_id="bytelyst-p1-t1-entry")]
    assert given_up(World(rows, [order()])) == ["bytelyst-p1-t1-entry"]


def test_a_row_that_booked_more_than_the_kept_one_is_not_given_up_before_that_is_corrected() -> None:
    kept, doubled = exit_row(status="pending_new"), exit_row(order_id=CLIENT)
    unusable = World([ENTRY_ROW, kept, doubled], [sold(filled_avg_price=None)])
    assert given_up(unusable) == []
    assert {change.order_id for change in unusable.plan().changes} == set()
    usable = World([ENTRY_ROW, kept, doubled], [sold()])
    assert {change.order_id: change.handler.value for change in usable.plan().changes} == {
        X1: "exit_fill",
        CLIENT: "supersede",
    }


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"profile_id": "p2"}, "profile_id"),
        ({"trade_id": "t2"}, "trade_id"),
        ({"action": "ENTRY"}, "action"),
        ({"side": "buy"}, "side"),
        ({"symbol": "MSFT"}, "symbol_token"),
        ({"qty": "5"}, "quantity"),
        ({"quantity": "5"}, "defect"),
    ],
)
def test_rows_of_one_order_that_differ_are_left_to_a_person(changes: Raw, differs: str) -> None:
    world = World(
        [ENTRY_ROW, exit_row(), exit_row(order_id=CLIENT, **changes)],
        [sold()],
        profiles=[profile(), profile("p2")],
    )
    assert given_up(world) == []
    assert sorted(findings(world)) == sorted((order_id, "conflicting_duplicates", True) for order_id in (X1, CLIENT))
    assert differs in superseding(world).findings[0].detail["differ_in"]  # type: ignore[operator]
    assert [change for change in world.plan().changes if change.order_id in {X1, CLIENT}] == []


def test_a_doubled_row_that_just_moved_is_left_for_the_next_cycle() -> None:
    world = World([ENTRY_ROW, exit_row(), exit_row(order_id=CLIENT, updated_at=NOW - 1000)], [sold()])
    assert given_up(world) == []
    assert given_up(replace(world, now_ms=NOW + MINUTE)) == [CLIENT]


def test_doubled_rows_of_an_order_that_was_not_read_are_said_and_not_touched() -> None:
    world = World([ENTRY_ROW, exit_row(client_order_id=CLIENT), exit_row(order_id=CLIENT)], [])
    assert given_up(world) == []
    assert findings(world) == [(CLIENT, "duplicates_without_order", True)]
    one_given_up = World(
        [ENTRY_ROW, exit_row(client_order_id=CLIENT), exit_row(order_id=CLIENT, status="canceled")], []
    )
    assert findings(one_given_up) == []


# Synthetic exits


def synthetic(order_id: str = "PARITY-1", **changes: Any) -> Raw:
    return exit_row(**{"order_id": order_id, "qty": "10", "source": "RECON", "timestamp": SOLD_AT, **changes})


def test_a_synthetic_exit_is_given_up_when_later_evidence_over_exits_its_trade() -> None:
    world = World([ENTRY_ROW, synthetic(), exit_row()], [sold()])
    assert given_up(world) == ["PARITY-1"]
    (change,) = superseding(world).changes
    assert change.cause["rule"] == "synthetic_exit_superseded"
    assert (change.cause["entered"], change.cause["exited"]) == ("10", "14")


def test_the_newest_synthetic_exit_goes_first_while_more_was_exited_than_entered() -> None:
    parts = [synthetic("PARITY-1", qty="6"), synthetic("PARITY-2", qty="4", timestamp=SOLD_AT + MINUTE)]
    assert given_up(World([ENTRY_ROW, *parts, exit_row()], [sold()])) == ["PARITY-2"]
    late = exit_row(qty="8")
    assert given_up(World([ENTRY_ROW, *parts, late], [sold("8")])) == ["PARITY-1", "PARITY-2"]


@pytest.mark.parametrize(
    "rows",
    [
        [ENTRY_ROW, synthetic()],
        [ENTRY_ROW, synthetic(), exit_row(status="canceled")],
        [ENTRY_ROW, synthetic(status="canceled"), exit_row(qty="14")],
        [ENTRY_ROW, exit_row(qty="14")],
        [ENTRY_ROW, synthetic(), exit_row(quantity="5")],
        [ENTRY_ROW, synthetic(), exit_row(side="buy")],
        [ENTRY_ROW, synthetic(), exit_row(), row(order_id="e2", status="filled", quantity="6")],
    ],
)
def test_no_synthetic_exit_is_given_up_where_the_trade_is_not_over_exited_for_certain(rows: list[Raw]) -> None:
    assert given_up(World(rows, [])) == []


def test_a_synthetic_exit_of_a_short_is_given_up_as_well() -> None:
    short = row(order_id=X2, status="filled", side="sell")
    cover = exit_row(side="buy")
    world = World([short, synthetic(side="buy"), cover], [sold(side="buy")])
    assert given_up(world) == ["PARITY-1"]


def test_a_backfill_row_that_goes_leaves_the_synthetic_exit_in_place() -> None:
    # Entry 10, synthetic 6, own exit 4, and the backfill row of the same 4: only the backfill row is too much.
    world = World([ENTRY_ROW, synthetic(qty="6"), exit_row(), backfill()], [sold()])
    assert given_up(world) == [BACKFILL]


# What freezes everything


@pytest.mark.parametrize("member", [profile(evidence_defect="a page failed"), profile(selected=False)])
def test_nothing_is_given_up_for_a_profile_that_is_not_decided(member: Raw) -> None:
    rows = [ENTRY_ROW, exit_row(), backfill(), synthetic(), exit_row(order_id=CLIENT)]
    world = World(rows, [sold()], profiles=[member])
    assert superseding(world) == SupersedingPlan((), ())
