"""Order parity: what becomes of rows and orders that differ, that only one side knows, and that nobody can tell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.order_parity import COUNTERS
from recon_pipeline_tests.domain.order_worlds import (
    E9,
    EARLIER,
    MINUTE,
    NOW,
    X1,
    X2,
    X3,
    Raw,
    World,
    by_order,
    executed,
    order,
    profile,
    row,
    said,
)

FILL: Raw = {"price": "100.5", "filled_at": iso_ms(EARLIER + MINUTE)}
SPACING = OrderParityPolicy().confirmation_spacing_ms
PARTIAL_3: Raw = {"status": "partially_filled", "filled_qty": "3", "price": "99"}
FILLED_3: Raw = {"status": "filled", "qty": "3", "price": "99"}


def counted(world: World, profile_id: str = "p1") -> dict[str, int]:
    """The counters of a profile that are not zero."""
    counts = world.plan().counts[profile_id]
    assert set(counts) == set(COUNTERS)
    return {name: count for name, count in counts.items() if count}


def reasons(world: World) -> list[tuple[str, str, bool]]:
    return [(finding.order_id, finding.reason, finding.needs_person) for finding in world.plan().findings]


def remembered(world: World) -> list[tuple[Any, ...]]:
    return list(world.plan().confirmations.itertuples(index=False, name=None))


# Rows and orders that an id matches


@pytest.mark.parametrize(
    ("ledger", "exchange"),
    [
        (row(), order()),
        (row(status="new"), order(status="accepted")),
        (row(status="unknown"), order(status="held")),
        (row(status="pending_cancel"), order(status="new")),
        (row(status="canceled"), order(status="expired")),
        (row(status="rejected"), order(status="canceled")),
        (row(status="replaced"), order(status="replaced", replaced_by=X2)),
        (row(**PARTIAL_3), executed("3")),
        (row(**PARTIAL_3), executed("3", status="pending_cancel")),
        (row(**FILLED_3), executed("3", status="canceled")),
        (row(**FILLED_3), executed("3", status="filled")),
        (row(status="filled", qty="10"), executed("10", status="done_for_day")),
        (row(status="filled", qty="10.000000001"), executed("10")),
        (row(status="filled", qty="9.99999999"), executed("10")),
        (row(order_id="bytelyst-p1-t1-entry"), order()),
        (row(order_id="local", client_order_id=X1), order()),
    ],
)
def test_a_row_and_an_order_of_one_class_and_quantity_are_in_line(ledger: Raw, exchange: Raw) -> None:
    world = World([ledger], [exchange])
    assert world.plan().changes == ()
    assert world.plan().findings == ()
    assert counted(world) == {}


@pytest.mark.parametrize(
    ("ledger", "exchange", "handler", "values"),
    [
        # fills, by difference
        (row(), executed("3"), "entry_fill", {"status": "partially_filled", "executed": "3", **FILL}),
        (row(), executed("10"), "entry_fill", {"status": "filled", "executed": "10", **FILL}),
        (row(**PARTIAL_3), executed("8"), "entry_fill", {"status": "partially_filled", "executed": "8", **FILL}),
        (row(**PARTIAL_3), executed("10"), "entry_fill", {"status": "filled", "executed": "10", **FILL}),
        (row(**FILLED_3), executed("10"), "entry_fill", {"status": "filled", "executed": "10", **FILL}),
        (row(status="filled", qty=None), executed("10"), "entry_fill", {"status": "filled", "executed": "10", **FILL}),
        # an order that is over keeps what it executed, whatever ended it
        (row(), executed("3", status="canceled"), "entry_fill", {"status": "filled", "executed": "3", **FILL}),
        (row(), executed("3", status="expired"), "entry_fill", {"status": "filled", "executed": "3", **FILL}),
        (row(), executed("3", status="replaced"), "entry_fill", {"status": "filled", "executed": "3", **FILL}),
        (row(status="canceled"), executed("3", status="canceled"), "entry_fill",
         {"status": "filled", "executed": "3", **FILL}),
        (row(**PARTIAL_3), executed("3", status="canceled"), "cancel", {"status": "filled", "executed": "3"}),
        (row(**PARTIAL_3), executed("3", status="replaced"), "cancel", {"status": "filled", "executed": "3"}),
        (row(**PARTIAL_3), executed("3", status="filled"), "status", {"status": "filled", "executed": "3"}),
        # over without executions
        (row(), order(status="canceled"), "cancel", {"status": "canceled"}),
        (row(), order(status="expired"), "cancel", {"status": "expired"}),
        (row(), order(status="rejected"), "cancel", {"status": "rejected"}),
        (row(), order(status="replaced"), "cancel", {"status": "replaced"}),
        (row(status="unknown"), order(status="canceled"), "cancel", {"status": "canceled"}),
        # the ledger takes for over what is not
        (row(status="canceled"), order(), "status", {"status": "pending_new"}),
        (row(status="rejected"), order(status="held"), "status", {"status": "held"}),
        (row(status="done_for_day"), order(status="done_for_day"), "status", {"status": "pending_new"}),
        (row(status="canceled"), executed("3"), "entry_fill",
         {"status": "partially_filled", "executed": "3", **FILL}),
        (row(**FILLED_3), executed("3"), "status", {"status": "partially_filled", "executed": "3"}),
    ],
)  # fmt: skip
def test_a_row_is_made_to_say_what_its_order_says(ledger: Raw, exchange: Raw, handler: str, values: Raw) -> None:
    world = World([ledger], [exchange])
    (change,) = world.plan().changes
    assert said(change) == (handler, values)
    assert change.expected is not None
    assert counted(world) == {"mismatch_count": 1}
    assert world.after().plan().changes == ()


def test_a_partial_fill_that_grows_from_three_to_eight_is_a_correction_of_the_same_row() -> None:
    grown = replace(World([row()], [executed("3")]).after(), orders=[executed("8")])
    (change,) = grown.plan().changes
    assert said(change)[1]["executed"] == "8"
    assert (change.exchange_order_id, change.represents_e9) == (X1, 8 * E9)
    assert grown.after().rows[0]["filled_qty"] == "8"
    assert grown.after().rows[0]["qty"] == "10"


@pytest.mark.parametrize(
    ("trade", "ledger", "exchange", "handler"),
    [
        ("long", row(action="EXIT", side="sell"), executed("3", side="sell", client_order_id="c"), "exit_fill"),
        (
            "short entry",
            row(action="ENTRY", side="sell"),
            executed("3", side="sell", client_order_id="c"),
            "entry_fill",
        ),
        ("cover", row(action="EXIT", side="buy"), executed("3", client_order_id="c"), "exit_fill"),
        ("named by the client id", row(action=None), executed("3", client_order_id="bytelyst-p1-t1-exit"), "exit_fill"),
    ],
)
def test_the_action_is_the_rows_and_never_follows_from_the_side_alone(
    trade: str, ledger: Raw, exchange: Raw, handler: str
) -> None:
    (change,) = World([ledger], [exchange]).plan().changes
    assert change.handler == handler, trade


def test_without_any_action_the_side_of_the_trades_entries_says_it() -> None:
    entered = row(order_id=X2, status="filled", side="sell")
    cover = executed("3", side="buy", client_order_id="c")
    (change,) = World([entered, row(action=None)], [cover]).plan().changes
    assert change.handler == "exit_fill"
    alone = World([row(action=None)], [cover])
    assert alone.plan().changes == ()
    assert reasons(alone) == [(X1, "unknown_action", True)]


def test_an_order_known_only_by_its_client_id_is_neither_missing_nor_discovered() -> None:
    ledger = row(order_id="bytelyst-p1-t1-entry")
    live = World([ledger], [order()])
    assert (live.look_ups(), live.plan().changes) == ([], ())
    (change,) = World([ledger], [executed("10")]).plan().changes
    assert change.order_id == "bytelyst-p1-t1-entry"
    assert change.cause["matched_by"] == "client_order_id"
    assert (change.exchange_order_id, change.represents_e9) == (X1, 10 * E9)


def test_the_cause_cites_what_the_exchange_said_and_what_the_row_said() -> None:
    exchange = executed("3", status="canceled", canceled_at=iso_ms(EARLIER + 2 * MINUTE))
    (change,) = World([row()], [exchange]).plan().changes
    assert dict(change.cause) == {
        "rule": "order_executed_more",
        "matched_by": "order_id",
        "exchange_order_id": X1,
        "client_order_id": "bytelyst-p1-t1-entry",
        "exchange_status": "canceled",
        "executed": "3",
        "average_price": "100.5",
        "filled_at": iso_ms(EARLIER + MINUTE),
        "ended_at": iso_ms(EARLIER + 2 * MINUTE),
        "status_was": "pending_new",
        "executed_was": "0",
    }


def test_a_change_expects_the_row_as_the_view_spelled_it() -> None:
    (change,) = World([row(status="Pending-New", qty="10.0")], [executed("3")]).plan().changes
    assert change.expected is not None
    assert (change.expected["status"], change.expected["qty"]) == ("Pending-New", "10.0")


def test_a_replaced_chain_keeps_each_orders_executions_and_the_trade() -> None:
    old = executed("3", status="replaced", replaced_by=X2)
    new = order(id=X2, client_order_id="made-by-the-exchange", replaces=X1, qty="7")
    world = World([row(client_order_id="bytelyst-p1-t1-entry")], [old, new])
    changes = by_order(world.plan().changes)
    assert said(changes[X1])[1] | {} == {"status": "filled", "executed": "3", **FILL}
    assert changes[X2].handler == "discovery"
    assert {name: changes[X2].values[name] for name in ("trade_id", "action", "side", "qty", "status")} == {
        "trade_id": "t1", "action": "ENTRY", "side": "BUY", "qty": "7", "status": "pending_new",
    }  # fmt: skip
    assert changes[X1].cause["replaced_by"] == X2
    assert world.after().plan().changes == ()


def test_a_row_that_took_over_the_replacements_id_is_the_replacements() -> None:
    old = order(status="replaced", replaced_by=X2)
    new = executed("4", id=X2, client_order_id="made-by-the-exchange", replaces=X1)
    ledger = row(order_id=X2, client_order_id="bytelyst-p1-t1-entry")
    (change,) = World([ledger], [old, new]).plan().changes
    assert (change.exchange_order_id, change.represents_e9) == (X2, 4 * E9)


def test_a_row_that_names_two_orders_with_executions_is_left_to_a_person() -> None:
    old = executed("3", status="replaced", replaced_by=X2)
    new = order(id=X2, client_order_id="made-by-the-exchange", replaces=X1)
    world = World([row(order_id=X2, client_order_id="bytelyst-p1-t1-entry")], [old, new])
    assert world.plan().changes == ()
    assert reasons(world) == [(X2, "row_names_two_orders", True)]
    assert world.look_ups() == []


@pytest.mark.parametrize(
    ("ledger", "exchange", "reason", "person"),
    [
        (row(status="filled"), executed("3", status="canceled"), OrderReason.LEDGER_AHEAD, True),
        (row(**PARTIAL_3), order(), OrderReason.LEDGER_AHEAD, True),
        (row(status="filled"), order(status="canceled"), OrderReason.LEDGER_AHEAD, True),
        (row(side="sell"), executed("3"), OrderReason.CONFLICTING_SIDE, True),
        (row(side="sell"), order(status="canceled"), OrderReason.CONFLICTING_SIDE, True),
        (row(symbol="MSFT"), executed("3"), OrderReason.CONFLICTING_SYMBOL, True),
        (row(action="EXIT"), executed("3"), OrderReason.CONFLICTING_ACTION, True),
        (
            row(trade_id="t2"),
            executed("3", client_order_id="bytelyst-p1-t1-entry"),
            OrderReason.CONFLICTING_OWNER,
            True,
        ),
        (row(), executed("3", subtag="bytelyst:somebody:else"), OrderReason.CONFLICTING_OWNER, True),
        (row(trade_id=None), executed("3", client_order_id="c"), OrderReason.NO_TRADE, True),
        (row(status="filled", quantity="9"), executed("10"), OrderReason.UNREADABLE_ROW, True),
        (row(status="filled", filled_qty="9"), executed("10"), OrderReason.UNREADABLE_ROW, True),
        (row(status="canceled"), order(status=None), OrderReason.UNUSABLE_ORDER, True),
        (row(), order(status="filled", filled_qty="0"), OrderReason.UNUSABLE_ORDER, True),
        (row(), order(status="canceled", filled_qty="what"), OrderReason.UNUSABLE_ORDER, True),
        (row(), executed("3", filled_avg_price=None), OrderReason.UNUSABLE_ORDER, False),
        (row(), executed("3", filled_at=None), OrderReason.UNUSABLE_ORDER, False),
        (row(), executed("3", side="hold"), OrderReason.UNUSABLE_ORDER, True),
    ],
)
def test_what_can_t_be_proven_is_a_finding_and_never_a_write(
    ledger: Raw, exchange: Raw, reason: OrderReason, person: bool
) -> None:
    # The trade of the conflicting owner is one that the ledger knows.
    world = World([ledger, row(order_id=X3, status="filled", qty="1")], [exchange])
    assert world.plan().changes == ()
    assert reasons(world) == [(X1, reason.value, person)]
    assert counted(world)["mismatch_count"] == 1


def test_a_row_without_a_trade_still_learns_that_its_order_is_over() -> None:
    (change,) = World([row(trade_id=None)], [order(status="canceled", client_order_id="c")]).plan().changes
    assert said(change) == ("cancel", {"status": "canceled"})


def test_two_readings_of_one_order_count_as_the_one_that_executed_more() -> None:
    (change,) = World([row()], [executed("3"), executed("8"), executed("3")]).plan().changes
    assert change.represents_e9 == 8 * E9


def test_a_row_that_was_read_twice_with_differences_is_left_alone() -> None:
    world = World([row(), row(qty="9")], [executed("3")])
    assert world.plan().changes == ()
    assert {reason for _, reason, _ in reasons(world)} == {"conflicting_duplicates"}


def test_of_two_rows_of_one_order_the_one_with_the_exchanges_id_is_corrected_and_the_other_given_up() -> None:
    doubled = row(order_id="bytelyst-p1-t1-entry", timestamp=EARLIER - MINUTE)
    world = World([doubled, row()], [executed("10")])
    changes = by_order(world.plan().changes)
    assert said(changes[X1])[0] == "entry_fill"
    assert said(changes["bytelyst-p1-t1-entry"]) == ("supersede", {"status": "canceled"})
    assert counted(world) == {"mismatch_count": 1, "superseded": 1}
    assert world.after().plan().changes == ()


def test_a_row_that_was_given_up_for_another_does_not_come_back() -> None:
    given_up = row(order_id="bytelyst-p1-t1-entry", status="canceled")
    world = World([given_up, row(**PARTIAL_3)], [executed("8")])
    assert [change.order_id for change in world.plan().changes] == [X1]


@pytest.mark.parametrize("status", ["canceled", "rejected"])
def test_of_an_order_that_executed_nothing_and_is_over_no_row_stays_open(status: str) -> None:
    world = World([row(), row(order_id="bytelyst-p1-t1-entry", timestamp=EARLIER + 1)], [order(status=status)])
    assert {order_id: said(change) for order_id, change in by_order(world.plan().changes).items()} == {
        X1: ("cancel", {"status": status}),
        "bytelyst-p1-t1-entry": ("cancel", {"status": status}),
    }
    assert counted(world) == {"mismatch_count": 2}


def test_a_fill_and_the_backfill_row_that_stood_for_it_change_together() -> None:
    backfill = row(order_id="BFILL-1", action="EXIT", side="sell", status="filled", qty="4")
    sold = executed("4", side="sell", client_order_id="bytelyst-p1-t1-exit", status="filled", qty="4")
    consumed = {"account_id": "a1", "backfill_order_id": "BFILL-1", "exchange_order_id": X1, "qty": "4"}
    world = World([row(side="sell", action="EXIT", qty="4"), backfill], [sold], consumption=[consumed])
    changes = by_order(world.plan().changes)
    assert changes[X1].handler == "exit_fill"
    assert said(changes["BFILL-1"]) == ("supersede", {"status": "canceled"})
    assert world.after().plan().changes == ()


# Rows whose order the exchange does not list


def test_an_open_row_that_nothing_matches_is_looked_up_by_both_ids() -> None:
    world = World([row(order_id="o1", client_order_id="c1"), row(order_id="o2", **PARTIAL_3)])
    assert world.look_ups() == [("p1", "a1", "o1", "c1"), ("p1", "a1", "o2", "")]
    assert counted(world) == {"missing_from_exchange": 2, "not_asked": 2}
    assert world.plan().changes == ()


@pytest.mark.parametrize(
    "ledger",
    [
        row(status="filled"),
        row(status="canceled"),
        row(order_id="BFILL-1"),
        row(order_id="PARITY-1"),
        row(order_id=None),
        row(updated_at=NOW - 4999),
        row(profile_id="p2"),
        row(profile_id="p3"),
        row(symbol="MSFT"),
    ],
)
def test_a_row_that_is_over_synthetic_recent_or_not_asked_for_is_not_looked_up(ledger: Raw) -> None:
    context = profile("p2", selected=False)
    incomplete = profile("p3", account_id="a3", evidence_defect="a page failed")
    world = World([ledger], profiles=[profile(managed_symbols=("AAPL",)), context, incomplete])
    assert world.look_ups() == []


def test_look_ups_go_to_the_oldest_rows_and_end_at_the_limit_of_each_account() -> None:
    rows = [row(order_id=f"o{n}", timestamp=EARLIER + n, updated_at=EARLIER + (7 - n) * MINUTE) for n in range(5)]
    others = [row(order_id=f"q{n}", profile_id="p2") for n in range(3)]
    world = World(rows + others, profiles=[profile(), profile("p2", account_id="a2")])
    limited = replace(world, policy=OrderParityPolicy(max_lookups=2))
    assert [order_id for _, _, order_id, _ in limited.look_ups()] == ["o4", "o3", "q0", "q1"]


def test_an_order_is_canceled_only_after_enough_separate_answers_that_it_is_unknown() -> None:
    world = World([row()], absent=frozenset({("p1", X1)}))
    assert remembered(world) == [("p1", X1, 1, NOW, NOW)]
    assert counted(world) == {"missing_from_exchange": 1, "awaiting_confirmation": 1}
    world = replace(world.after(), now_ms=NOW + SPACING)
    assert remembered(world) == [("p1", X1, 2, NOW, NOW + SPACING)]
    assert world.plan().changes == ()
    world = replace(world.after(), now_ms=NOW + 2 * SPACING)
    (change,) = world.plan().changes
    assert said(change) == ("cancel", {"status": "canceled"})
    assert change.cause["rule"] == "order_unknown_to_exchange"
    assert change.cause["asked"] == [X1]
    assert (change.cause["confirmations"], change.cause["first_missing_at"]) == (3, iso_ms(NOW))
    assert (change.exchange_order_id, change.represents_e9) == ("", 0)
    assert world.after().plan().changes == ()
    assert remembered(world.after()) == []


def test_two_schedulers_in_one_cycle_confirm_once() -> None:
    world = World([row()], absent=frozenset({("p1", X1)})).after()
    again = replace(world, now_ms=NOW + SPACING - 1)
    assert remembered(again) == [("p1", X1, 1, NOW, NOW)]


@pytest.mark.parametrize(
    ("changes", "counter"),
    [
        ({"absent": frozenset(), "unknown": {("p1", X1): "HTTP 500"}}, "unknown_answers"),
        ({"absent": frozenset()}, "not_asked"),
    ],
)
def test_no_answer_neither_confirms_nor_resets(changes: Raw, counter: str) -> None:
    world = World([row()], absent=frozenset({("p1", X1)})).after()
    asked_again = replace(world, now_ms=NOW + SPACING, **changes)
    assert remembered(asked_again) == [("p1", X1, 1, NOW, NOW)]
    assert counted(asked_again) == {"missing_from_exchange": 1, counter: 1}


def test_a_match_resets_the_confirmations() -> None:
    world = World([row()], absent=frozenset({("p1", X1)})).after()
    assert remembered(replace(world, absent=frozenset(), orders=[order()])) == []


def test_local_activity_freezes_the_confirmations() -> None:
    world = replace(World([row()], absent=frozenset({("p1", X1)})).after(), now_ms=NOW + 2 * SPACING)
    touched = replace(world, rows=[row(updated_at=NOW + 2 * SPACING)])
    assert remembered(touched) == [("p1", X1, 1, NOW, NOW)]
    assert counted(touched) == {"postponed_quiet": 1}


def test_a_row_with_executions_is_never_canceled_because_the_exchange_does_not_know_its_order() -> None:
    policy = OrderParityPolicy(missing_confirmations=1)
    world = World([row(**PARTIAL_3)], absent=frozenset({("p1", X1)}), policy=policy)
    assert world.plan().changes == ()
    assert reasons(world) == [(X1, "executed_order_unknown_to_exchange", True)]


def test_a_partial_row_whose_quantity_can_t_be_read_is_not_canceled_either() -> None:
    policy = OrderParityPolicy(missing_confirmations=1)
    ledger = row(status="partially_filled", qty=None, filled_qty="what")
    world = World([ledger], absent=frozenset({("p1", X1)}), policy=policy)
    assert world.plan().changes == ()
    assert reasons(world) == [(X1, "executed_order_unknown_to_exchange", True)]


def test_a_row_marked_unknown_is_never_canceled_by_a_cycle_and_a_person_is_told() -> None:
    world = World([row(status="Unknown")], absent=frozenset({("p1", X1)}))
    for number in range(5):
        assert world.plan().changes == ()
        assert reasons(world) == [(X1, "marked_unknown", True)]
        assert counted(world) == {"missing_from_exchange": 1}
        (finding,) = world.plan().findings
        assert finding.detail == {"confirmations": number + 1, "first_missing_at": iso_ms(NOW)}
        world = replace(world.after(), now_ms=NOW + (number + 1) * SPACING)


@pytest.mark.parametrize("changes", [{"unknown": {("p1", X1): "HTTP 500"}}, {}])
def test_that_a_marked_row_waits_for_a_person_is_said_in_a_cycle_that_got_no_answer_too(changes: Raw) -> None:
    world = World([row(status="unknown")], absent=frozenset({("p1", X1)})).after()
    assert reasons(replace(world, absent=frozenset(), **changes)) == [(X1, "marked_unknown", True)]


def test_a_row_that_its_bot_calls_unknown_is_no_persons_business_until_the_exchange_denies_it() -> None:
    assert reasons(World([row(status="unknown")], unknown={("p1", X1): "HTTP 500"})) == []


@pytest.mark.parametrize(
    ("exchange", "handler", "status"),
    [
        (order(status="expired"), "cancel", "expired"),
        (executed("10"), "entry_fill", "filled"),
        (executed("3"), "entry_fill", "partially_filled"),
    ],
)
def test_a_marked_row_whose_order_the_exchange_knows_after_all_is_corrected(
    exchange: Raw, handler: str, status: str
) -> None:
    world = replace(World([row(status="unknown")], absent=frozenset({("p1", X1)})).after(), orders=[exchange])
    (change,) = replace(world, absent=frozenset()).plan().changes
    assert (change.handler, change.values["status"]) == (handler, status)


def test_rows_that_wait_for_a_person_keep_no_other_row_from_being_looked_up() -> None:
    marked = [row(order_id=f"u{n}", status="unknown", timestamp=EARLIER - n * MINUTE) for n in range(3)]
    limited = World([*marked, row()], policy=OrderParityPolicy(max_lookups=2))
    assert [order_id for _, _, order_id, _ in limited.look_ups()] == [X1, "u2"]


def test_a_look_up_that_found_the_order_decides_as_a_reading_does() -> None:
    found = World([row(order_id="o1", client_order_id="bytelyst-p1-t1-entry")], [executed("10")])
    (change,) = found.plan().changes
    assert said(change)[0] == "entry_fill"
    assert counted(found) == {"mismatch_count": 1}


# Orders that the ledger does not have


def test_a_live_order_of_a_profile_is_recorded_under_the_exchanges_id() -> None:
    world = World([], [order(subtag="bytelyst:p1:t1")])
    (change,) = world.plan().changes
    assert change.handler == "discovery"
    assert dict(change.values) == {
        "order_id": X1,
        "client_order_id": "bytelyst-p1-t1-entry",
        "user_id": "u1",
        "profile_id": "p1",
        "symbol": "AAPL",
        "type": "limit",
        "side": "BUY",
        "qty": "10",
        "filled_qty": None,
        "price": "101",
        "status": "pending_new",
        "timestamp": str(EARLIER),
        "filled_at": None,
        "trade_id": "t1",
        "action": "ENTRY",
        "source": "BOT",
        "sub_tag": "bytelyst:p1:t1",
    }
    assert change.inserts
    assert (change.exchange_order_id, change.represents_e9) == ("", 0)
    assert counted(world) == {"discovered": 1}
    assert world.after().plan().changes == ()


def test_a_live_order_that_executed_already_is_recorded_as_a_fill() -> None:
    entered = row(order_id=X2, status="filled")
    sold = executed("3", side="sell", client_order_id="bytelyst-p1-t1-exit-2")
    world = World([entered], [sold])
    (change,) = world.plan().changes
    assert change.handler == "exit_fill"
    values = {name: change.values[name] for name in ("qty", "filled_qty", "status", "action", "timestamp", "price")}
    assert values == {
        "qty": "10", "filled_qty": "3", "status": "partially_filled", "action": "EXIT",
        "timestamp": str(EARLIER + MINUTE), "price": "100.5",
    }  # fmt: skip
    assert (change.exchange_order_id, change.represents_e9) == (X1, 3 * E9)
    assert world.plan().executed_e9 == {("a1", X1): 3 * E9}
    assert world.after().plan().changes == ()


@pytest.mark.parametrize("status", ["filled", "canceled", "rejected"])
def test_an_order_that_is_over_and_not_in_the_ledger_is_left_to_order_coverage(status: str) -> None:
    quantity = "0" if status == "rejected" else "10"
    assert World([], [executed(quantity, status=status)]).plan().changes == ()


@pytest.mark.parametrize("client_id", ["by-hand", "bytelyst-stranger-t1-entry"])
def test_foreign_orders_are_only_counted(client_id: str) -> None:
    world = World([], [order(client_order_id=client_id)])
    assert world.plan().changes == ()
    assert world.plan().findings == ()
    assert counted(world) == {"foreign_orders": 1}


def test_an_order_of_a_sibling_is_the_siblings() -> None:
    world = World([], [order(client_order_id="bytelyst-p2-t9-entry")], profiles=[profile(), profile("p2")])
    (change,) = world.plan().changes
    assert (change.profile_id, change.trade_id) == ("p2", "t9")
    assert counted(world) == {}
    only_p1 = replace(world, profiles=[profile(), profile("p2", selected=False)])
    assert only_p1.plan().changes == ()


@pytest.mark.parametrize(
    ("changes", "reason", "person"),
    [
        ({"client_order_id": "bytelyst-p1-t9"}, OrderReason.UNMAPPED_TRADE, False),
        ({"client_order_id": "bytelyst-p1-t1-exit"}, OrderReason.CONFLICTING_SIDE, True),
        ({"side": "sell"}, OrderReason.CONFLICTING_SIDE, True),
        ({"symbol": "MSFT"}, OrderReason.CONFLICTING_SYMBOL, True),
        ({"subtag": "bytelyst:p1:t2"}, OrderReason.CONTRADICTORY, True),
        ({"side": "hold"}, OrderReason.UNUSABLE_ORDER, True),
        ({"symbol": None}, OrderReason.UNUSABLE_ORDER, True),
        ({"created_at": None}, OrderReason.NO_TIME, True),
        ({"status": None}, OrderReason.UNUSABLE_ORDER, True),
    ],
)
def test_an_order_that_can_t_be_recorded_is_missing_in_the_ledger(
    changes: Raw, reason: OrderReason, person: bool
) -> None:
    entered = [row(order_id=X2, status="filled"), row(order_id=X3, status="filled", trade_id="t2")]
    world = World(entered, [order(**changes)])
    assert world.plan().changes == ()
    (finding,) = world.plan().findings
    assert (finding.reason, finding.needs_person) == (reason.value, person)
    assert finding.exchange_order_id == X1
    assert counted(world) == {"missing_in_db": 1}


def test_an_order_that_was_just_placed_is_left_for_the_bot_to_record() -> None:
    world = World([], [order(created_at=iso_ms(NOW - 4999))])
    assert world.plan().changes == ()
    assert counted(world) == {"postponed_quiet": 1}
    assert len(replace(world, now_ms=NOW + 1).plan().changes) == 1


# Orders that are known by the trade alone

LOCAL = row(order_id="local-1")


def test_a_row_without_an_orders_id_is_closed_by_the_one_order_of_its_trade() -> None:
    world = World([LOCAL], [order(status="rejected")])
    (change,) = world.plan().changes
    assert said(change) == ("cancel", {"status": "rejected"})
    assert change.cause["matched_by"] == "trade_id"
    live = World([LOCAL], [order()])
    assert live.plan().changes == ()
    assert counted(live) == {}


def test_what_such_an_order_executed_is_booked_under_its_own_id_and_the_row_given_up() -> None:
    for quantity, status in (("3", "partially_filled"), ("10", "filled")):
        world = World([LOCAL], [executed(quantity)])
        changes = by_order(world.plan().changes)
        assert said(changes["local-1"]) == ("supersede", {"status": "canceled"})
        assert changes["local-1"].cause["rule"] == "order_known_by_trade"
        assert (changes[X1].values["status"], changes[X1].values["trade_id"]) == (status, "t1")
        assert changes[X1].handler == "entry_fill"
        assert world.after().plan().changes == ()


def test_a_row_without_an_orders_id_is_the_first_order_of_a_chain_and_not_its_replacement() -> None:
    old = order(status="replaced", replaced_by=X2)
    new = order(id=X2, client_order_id="made-by-the-exchange", replaces=X1)
    changes = by_order(World([LOCAL], [old, new]).plan().changes)
    assert said(changes["local-1"]) == ("cancel", {"status": "replaced"})
    assert changes[X2].handler == "discovery"


def test_an_entry_and_an_exit_of_one_trade_are_told_apart_by_their_sides() -> None:
    rows = [LOCAL, row(order_id="local-2", side="sell", action="EXIT")]
    orders = [executed("3"), order(id=X2, client_order_id="bytelyst-p1-t1-exit", side="sell", status="rejected")]
    assert {change.order_id: change.handler.value for change in World(rows, orders).plan().changes} == {
        X1: "entry_fill",
        "local-1": "supersede",
        "local-2": "cancel",
    }


@pytest.mark.parametrize(
    ("rows", "orders"),
    [
        ([LOCAL, row(order_id="local-2")], [executed("3")]),
        ([LOCAL, row(order_id="local-2", action=None, status="unknown")], [executed("3")]),
        ([LOCAL], [executed("3"), executed("3", id=X2, client_order_id="bytelyst-p1-t1-entry-2")]),
        ([row(order_id="local-1", qty="9")], [executed("3")]),
        ([row(order_id="local-1", side="sell", action="EXIT")], [executed("3")]),
        ([row(order_id="local-1", client_order_id="bytelyst-p1-t1-exit")], [executed("3")]),
        ([row(order_id=X3)], [executed("3")]),
    ],
)
def test_a_trade_names_an_order_only_where_it_is_unique_both_ways_and_no_id_speaks_against_it(
    rows: list[Raw], orders: list[Raw]
) -> None:
    world = World(rows, orders)
    assert all(change.inserts for change in world.plan().changes)
    assert len(world.look_ups()) == len(rows)


# What freezes everything


def test_an_incomplete_reading_concludes_nothing_and_freezes_what_is_remembered() -> None:
    incomplete = profile(evidence_defect="a page failed")
    others = [row(profile_id="p2", order_id=X2, trade_id="t2")]
    world = World(
        [row(), *others],
        [order(status="canceled"), order(id=X2, status="canceled", account_id="a2", client_order_id="c")],
        profiles=[incomplete, profile("p2", account_id="a2")],
        absent=frozenset({("p1", X1)}),
        confirmations=World([row()], absent=frozenset({("p1", X1)})).plan().confirmations,
    )
    plan = world.plan()
    assert plan.skipped == {"p1": "evidence_incomplete"}
    assert set(plan.counts) == {"p2"}
    assert [change.profile_id for change in plan.changes] == ["p2"]
    assert len(plan.confirmations) == 0


def test_symbols_out_of_scope_are_said_and_not_touched() -> None:
    scoped = [profile(managed_symbols=("BTC/USD",))]
    world = World([row()], [executed("3")], profiles=scoped)
    assert world.plan().changes == ()
    assert reasons(world) == [(X1, "symbol_out_of_scope", False)]
    assert counted(world) == {"out_of_scope": 1}
    assert counted(World([], [order()], profiles=scoped)) == {"out_of_scope": 1}
    pair = [executed("3", symbol="BTC/USD")]
    assert len(World([row(symbol="BTCUSD")], pair, profiles=scoped).plan().changes) == 1


@pytest.mark.parametrize("moved", ["updated_at", "created_at", "timestamp"])
def test_local_activity_within_the_quiet_period_postpones(moved: str) -> None:
    world = World([row(**{moved: NOW - 4999})], [executed("3")])
    assert world.plan().changes == ()
    assert counted(world) == {"postponed_quiet": 1}
    assert len(replace(world, now_ms=NOW + 1).plan().changes) == 1


def test_a_bot_whose_clock_is_ahead_is_recent_and_a_row_of_next_year_is_not() -> None:
    assert World([row(updated_at=NOW + 30_000)], [executed("3")]).plan().changes == ()
    assert len(World([row(timestamp=NOW + 365 * 24 * 60 * MINUTE)], [executed("3")]).plan().changes) == 1


def test_a_plan_hands_out_each_profiles_part_with_what_it_cites() -> None:
    rows = [row(), row(order_id=X2, profile_id="p2", trade_id="t2")]
    orders = [executed("3"), order(id=X2, client_order_id="c2", status="canceled")]
    plan = World(rows, orders, profiles=[profile(), profile("p2", user_id="u2")]).plan()
    part = plan.for_profile("p1", "RECON-1")
    assert (part.stage, part.batch_id, part.user_id, part.account_id) == (Stage.ORDER_PARITY, "RECON-1", "u1", "a1")
    assert [change.order_id for change in part.changes] == [X1]
    assert part.executed_e9 == {X1: 3 * E9}
    assert part.client_order_ids == {X1: "bytelyst-p1-t1-entry"}
    assert plan.for_profile("p2", "RECON-2").executed_e9 == {}
    with pytest.raises(KeyError, match="p9"):
        plan.for_profile("p9", "RECON-3")


def test_the_digest_does_not_depend_on_the_instant_of_the_cycle() -> None:
    world = World([row()], [executed("3")])
    later = replace(world, now_ms=NOW + MINUTE)
    assert world.plan().for_profile("p1", "b").digest == later.plan().for_profile("p1", "b").digest
