"""The order status sync: what an answer of the exchange makes of a row, and what it never makes of one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_status import COUNTERS, Decision, counts_of, plan_order_status
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline_tests.domain.order_status_worlds import DAY, KEY, POLICY, Round, old_row, outcome_of
from recon_pipeline_tests.domain.order_worlds import (
    E9,
    EARLIER,
    MINUTE,
    NOW,
    X1,
    X2,
    Raw,
    World,
    by_order,
    executed,
    order,
    profile,
    row,
    said,
)

DENIED = frozenset({KEY})
FILL: Raw = {"price": "100.5", "filled_at": iso_ms(EARLIER + MINUTE)}
PARTIAL_3: Raw = {"status": "partially_filled", "filled_qty": "3", "price": "99"}
FILLED_3: Raw = {"status": "filled", "qty": "3", "price": "99"}
DECIDED = {KEY: Decision("anna", "never reached the exchange, ticket 12")}


def answered(ledger: Raw, *exchange: Raw, **changes: object) -> Round:
    """The row asked about, whatever it says, and what the exchange answered."""
    return Round(World([ledger], exchange), asked=frozenset({KEY}), **changes)  # type: ignore[arg-type]


def denied(*rows: Raw, **changes: object) -> Round:
    """Rows of which the first is asked about, and denied."""
    return Round(World(rows, absent=DENIED), asked=DENIED, **changes)  # type: ignore[arg-type]


def reasons(played: Round) -> list[tuple[str, str, bool]]:
    assert all(finding.stage is Stage.ORDER_STATUS for finding in played.plan.findings)
    return [(finding.order_id, finding.reason, finding.needs_person) for finding in played.plan.findings]


# The exchange knows the order


@pytest.mark.parametrize(
    ("ledger", "exchange", "handler", "values"),
    [
        (row(), executed("10"), "entry_fill", {"status": "filled", "executed": "10", **FILL}),
        (row(), executed("3"), "entry_fill", {"status": "partially_filled", "executed": "3", **FILL}),
        (row(**PARTIAL_3), executed("8"), "entry_fill", {"status": "partially_filled", "executed": "8", **FILL}),
        (row(), executed("3", status="canceled"), "entry_fill", {"status": "filled", "executed": "3", **FILL}),
        (row(**PARTIAL_3), executed("3", status="expired"), "cancel", {"status": "filled", "executed": "3"}),
        (row(), order(status="canceled"), "cancel", {"status": "canceled"}),
        (row(), order(status="rejected"), "cancel", {"status": "rejected"}),
        (row(), order(status="replaced", replaced_by=X2), "cancel", {"status": "replaced"}),
        (row(status="unknown"), order(status="expired"), "cancel", {"status": "expired"}),
        (row(status="unknown"), executed("10"), "entry_fill", {"status": "filled", "executed": "10", **FILL}),
    ],
)
def test_a_row_becomes_what_order_parity_makes_of_it(ledger: Raw, exchange: Raw, handler: str, values: Raw) -> None:
    played = answered(ledger, exchange)
    (change,) = played.plan.changes
    assert said(change) == (handler, values)
    assert change == World([ledger], [exchange]).plan().changes[0]
    assert (played.plan.stage, played.plan.findings) == (Stage.ORDER_STATUS, ())
    assert played.counts() == {"checked": 1, "updated": 1}
    assert outcome_of(played.outcomes)[:2] == ("updated", exchange["status"])
    assert outcome_of(played.plan.outcomes)[2] == f"{ledger['status']} to {values['status']}: {change.cause['rule']}"


def test_what_is_written_cites_the_order_that_was_found() -> None:
    plan = answered(row(), executed("3")).plan
    assert (plan.executed_e9, plan.client_order_ids) == ({("a1", X1): 3 * E9}, {("a1", X1): "bytelyst-p1-t1-entry"})
    assert plan.for_profile("p1", "b").executed_e9 == {X1: 3 * E9}


@pytest.mark.parametrize(
    ("ledger", "exchange"),
    [
        (row(), order()),
        (row(status="unknown"), order(status="held")),
        (row(status="accepted"), order(status="pending_cancel")),
        (row(**PARTIAL_3), executed("3")),
        (row(updated_at=NOW), order()),
    ],
)
def test_an_order_that_waits_as_its_row_says_is_live_and_nothing_is_written(ledger: Raw, exchange: Raw) -> None:
    played = answered(ledger, exchange)
    assert (played.plan.changes, played.plan.findings) == ((), ())
    assert outcome_of(played.outcomes) == ("live", exchange["status"], "", False)
    assert played.counts() == {"checked": 1, "still_live": 1}


@pytest.mark.parametrize(
    ("ledger", "exchange"),
    [(row(**FILLED_3), executed("3", status="filled")), (row(status="canceled"), order(status="expired"))],
)
def test_a_row_that_its_bot_brought_in_line_meanwhile_is_over_and_left_alone(ledger: Raw, exchange: Raw) -> None:
    played = answered(ledger, exchange)
    assert played.plan.changes == ()
    assert outcome_of(played.outcomes)[0] == "in_line"
    assert played.counts() == {"checked": 1}


@pytest.mark.parametrize(
    ("ledger", "exchange", "reason", "person"),
    [
        (row(**PARTIAL_3), order(), "ledger_ahead_of_exchange", True),
        (row(**PARTIAL_3), order(status="canceled"), "ledger_ahead_of_exchange", True),
        (row(side="sell"), executed("3"), "conflicting_side", True),
        (row(symbol="MSFT"), executed("3"), "conflicting_symbol", True),
        (row(action="EXIT"), executed("3"), "conflicting_action", True),
        (row(), executed("3", subtag="bytelyst:somebody:else"), "conflicting_owner", True),
        (row(trade_id=None), executed("3", client_order_id="c"), "row_without_trade", True),
        (row(action=None), executed("3", client_order_id="c"), "unknown_action", True),
        (row(), order(status="filled", filled_qty="0"), "unusable_order", True),
        (row(), executed("3", filled_at=None), "unusable_order", False),
        (row(), executed("3", filled_avg_price=None), "unusable_order", False),
    ],
)
def test_whatever_speaks_against_a_correction_in_a_cycle_speaks_against_it_here(
    ledger: Raw, exchange: Raw, reason: str, person: bool
) -> None:
    played = answered(ledger, exchange)
    assert played.plan.changes == ()
    assert reasons(played) == [(X1, reason, person)]
    assert outcome_of(played.outcomes) == ("held", exchange["status"], reason, False)
    assert played.counts() == {"checked": 1, "held": 1}


def test_a_row_of_a_symbol_that_is_not_managed_is_shown_and_not_changed() -> None:
    unmanaged = World([row()], [executed("3")], profiles=[profile(managed_symbols=("MSFT",))])
    played = Round(unmanaged)
    assert (played.plan.changes, reasons(played)) == ((), [(X1, "symbol_out_of_scope", False)])
    assert outcome_of(Round(replace(unmanaged, orders=[order()])).outcomes)[0] == "live"


@pytest.mark.parametrize(
    "world",
    [World([row(updated_at=NOW - 4_999)], [executed("3")]), World([row(updated_at=NOW - 4_999)], absent=DENIED)],
)
def test_a_row_that_moved_just_now_is_left_to_its_bot(world: World) -> None:
    played = Round(world, asked=DENIED)
    assert (played.plan.changes, played.plan.findings) == ((), ())
    assert outcome_of(played.outcomes)[::2] == ("postponed", "quiet")
    later = replace(played, world=replace(world, now_ms=NOW + 2))
    assert outcome_of(later.outcomes)[0] != "postponed"


def test_a_row_known_by_its_client_id_alone_is_found_by_it() -> None:
    ledger = row(order_id="bytelyst-p1-t1-entry")
    (change,) = Round(World([ledger], [executed("10")])).plan.changes
    assert (change.order_id, change.exchange_order_id) == ("bytelyst-p1-t1-entry", X1)


def test_nothing_is_discovered_and_no_other_row_is_touched() -> None:
    other = executed("10", id=X2, client_order_id="bytelyst-p1-t1-exit", side="sell")
    world = World([row(), row(order_id="lost", trade_id="t1", side="sell", action="EXIT")], [executed("10"), other])
    played = Round(world, asked=frozenset({KEY}))
    assert [change.order_id for change in played.plan.changes] == [X1]
    assert set(played.outcomes) == {KEY}
    # Order parity knows the other row's order by its trade.
    assert {change.order_id for change in world.plan().changes} == {X1, X2, "lost"}


def test_an_answer_that_names_another_order_than_the_row_is_no_answer() -> None:
    played = answered(row(), executed("10", id=X2, client_order_id="bytelyst-p1-t9-entry"))
    assert played.plan.changes == ()
    assert outcome_of(played.outcomes) == ("failed", "", "other_order", False)


def test_a_row_that_is_gone_has_no_outcome() -> None:
    assert Round(World([]), asked=frozenset({KEY})).outcomes == {}


# Rows beside it


def test_a_doubled_row_is_given_up_for_the_one_that_is_corrected() -> None:
    doubled = row(order_id="bytelyst-p1-t1-entry", timestamp=EARLIER - MINUTE)
    played = Round(World([doubled, row()], [executed("10")]))
    changes = by_order(played.plan.changes)
    assert said(changes[X1])[0] == "entry_fill"
    assert said(changes["bytelyst-p1-t1-entry"]) == ("supersede", {"status": "canceled"})
    assert played.counts() == {"checked": 2, "updated": 2}
    assert played.after().plan.changes == ()


def test_a_backfill_row_gives_way_to_the_orders_own_row_in_the_same_plan() -> None:
    backfill = row(order_id="BFILL-1", action="EXIT", side="sell", status="filled", qty="4")
    sold = executed("4", side="sell", client_order_id="bytelyst-p1-t1-exit", status="filled", qty="4")
    consumed = {"account_id": "a1", "backfill_order_id": "BFILL-1", "exchange_order_id": X1, "qty": "4"}
    world = World([row(side="sell", action="EXIT", qty="4"), backfill], [sold], consumption=[consumed])
    changes = by_order(Round(world).plan.changes)
    assert changes[X1].handler == "exit_fill"
    assert said(changes["BFILL-1"]) == ("supersede", {"status": "canceled"})
    unread = replace(world, rows=world.rows[:1])
    assert Round(unread).plan.changes == ()
    assert outcome_of(Round(unread).outcomes) == ("postponed", "filled", "stand_in_elsewhere", False)


def test_a_synthetic_exit_gives_way_where_the_trades_own_exit_is_found() -> None:
    entry = row(order_id=X2, status="filled")
    closed = row(order_id="PARITY-1", action="EXIT", side="sell", status="filled")
    sold = executed("10", side="sell", client_order_id="bytelyst-p1-t1-exit")
    played = Round(World([entry, closed, row(side="sell", action="EXIT")], [sold]))
    assert {key: change.handler.value for key, change in by_order(played.plan.changes).items()} == {
        X1: "exit_fill",
        "PARITY-1": "supersede",
    }


def test_a_synthetic_exit_of_a_trade_that_does_not_change_is_left_to_the_cycle() -> None:
    # Of t2 only the row that names an order of t1 may have been read: it is not known what it entered.
    stranger = row(order_id="PARITY-1", trade_id="t2", action="EXIT", side="sell", status="filled")
    played = Round(World([row(), stranger], [executed("10")]))
    assert [change.order_id for change in played.plan.changes] == [X1]


def test_a_backfill_row_does_not_give_way_to_a_row_that_says_less() -> None:
    backfill = row(order_id="BFILL-1", action="EXIT", side="sell", status="filled", qty="10")
    sold = executed("10", side="sell", client_order_id="bytelyst-p1-t1-exit")
    consumed = {"account_id": "a1", "backfill_order_id": "BFILL-1", "exchange_order_id": X1, "qty": "10"}
    held = row(action="ENTRY", side="sell", status="partially_filled", filled_qty="4")
    played = Round(World([held, backfill], [sold], consumption=[consumed]))
    assert (played.plan.changes, outcome_of(played.outcomes)[2]) == ((), "conflicting_action")


def test_rows_that_differ_under_one_order_are_held() -> None:
    world = World(
        [row(), row(order_id="bytelyst-p1-t1-entry", trade_id="t2")],
        [executed("10", client_order_id="bytelyst-p1-t1-entry")],
    )
    played = Round(world)
    assert played.plan.changes == ()
    assert {checked.detail for checked in played.outcomes.values()} == {"conflicting_duplicates"}


def test_rows_that_name_each_other_are_no_finding_where_nobody_asked_for_their_order() -> None:
    filled = row(order_id="c9", status="filled", trade_id="t1")
    naming = row(order_id=X2, client_order_id="c9", status="filled", trade_id="t1")
    world = World([row(), filled, naming], [order()])
    assert Round(world).plan.findings == ()
    assert [finding.reason for finding in world.plan().findings] == ["duplicates_without_order"]


# The exchange denies the order


@pytest.mark.parametrize("age_ms", [6 * MINUTE, DAY - 1])
def test_a_denied_order_that_is_young_is_missing_and_nothing_is_confirmed_or_written(age_ms: int) -> None:
    played = denied(row(timestamp=NOW - age_ms))
    assert (played.plan.changes, played.plan.findings) == ((), ())
    assert outcome_of(played.outcomes) == ("missing", "", "", True)
    assert played.counts() == {"checked": 1, "not_found": 1}
    for _ in range(4):
        played = played.after(later_ms=1)
        assert played.plan.changes == ()


def test_a_denied_order_of_a_day_becomes_unknown_and_says_why() -> None:
    placed = NOW - DAY
    played = denied(row(timestamp=placed, client_order_id="c1"))
    (change,) = played.plan.changes
    assert said(change) == ("status", {"status": "unknown"})
    assert dict(change.cause) == {
        "rule": "order_unknown_for_a_day",
        "asked": [X1, "c1"],
        "placed_at": iso_ms(placed),
        "age_seconds": 86_400,
        "status_was": "pending_new",
        "executed_was": "0",
    }
    assert (change.exchange_order_id, change.represents_e9) == ("", 0)
    assert outcome_of(played.outcomes)[::3] == ("marked_unknown", True)
    assert played.counts() == {"checked": 1, "not_found": 1, "marked_unknown": 1}


def test_the_age_is_that_of_created_at_where_the_row_has_one() -> None:
    assert denied(row(created_at=iso_ms(NOW - DAY))).plan.changes
    assert denied(old_row(created_at=iso_ms(NOW - DAY + 1))).plan.changes == ()


def test_the_age_at_which_an_order_becomes_unknown_is_a_setting() -> None:
    assert denied(row(timestamp=NOW - 60_000), policy=replace(POLICY, unknown_after_ms=60_000)).plan.changes


def test_a_denied_row_that_does_not_say_when_it_was_placed_is_never_old_enough() -> None:
    played = denied(row(timestamp=None))
    assert played.plan.changes == ()
    assert outcome_of(played.outcomes) == ("missing", "", "placed_at_unknown", True)


def test_a_row_that_executed_something_is_never_marked() -> None:
    for ledger in (old_row(**PARTIAL_3), old_row(status="partially_filled", qty=None)):
        played = denied(ledger)
        assert played.plan.changes == ()
        assert reasons(played) == [(X1, "executed_order_unknown_to_exchange", True)]
        assert outcome_of(played.outcomes) == ("held", "", "executed_order_unknown_to_exchange", True)
        assert played.counts() == {"checked": 1, "held": 1, "not_found": 1}


def test_a_row_that_was_read_twice_with_differences_is_not_marked() -> None:
    played = denied(old_row(), old_row(qty="9"))
    assert (played.plan.changes, {reason for _, reason, _ in reasons(played)}) == ((), {"unreadable_row"})


def test_a_denied_row_that_is_over_meanwhile_is_in_line() -> None:
    assert outcome_of(denied(old_row(status="canceled")).outcomes) == ("in_line", "", "", True)


def test_a_denial_counts_for_nothing_where_the_order_was_found_by_another_row() -> None:
    doubled = old_row(order_id="bytelyst-p1-t1-entry")
    world = World([old_row(), doubled], [executed("10")], absent=DENIED)
    played = Round(world)
    assert by_order(played.plan.changes)[X1].values["status"] == "filled"
    assert not played.outcomes[KEY].not_found


def test_a_row_that_says_unknown_already_stays_so_and_a_person_is_told() -> None:
    played = denied(old_row(status="unknown"))
    assert (played.plan.changes, reasons(played)) == ((), [(X1, "marked_unknown", True)])
    assert outcome_of(played.outcomes) == ("marked_unknown", "", "", True)


# A person decides


def test_an_unknown_row_that_a_person_gives_up_is_canceled_while_the_exchange_denies_it() -> None:
    played = denied(old_row(status="unknown"), decided=DECIDED)
    (change,) = played.plan.changes
    assert said(change) == ("cancel", {"status": "canceled"})
    assert dict(change.cause) == {
        "rule": "person_decided",
        "decided_by": "anna",
        "reason": "never reached the exchange, ticket 12",
        "asked": [X1],
        "status_was": "unknown",
        "executed_was": "0",
    }
    assert played.counts() == {"checked": 1, "updated": 1, "not_found": 1}
    assert len(played.checks) == 0


@pytest.mark.parametrize(
    "ledger",
    [
        old_row(),
        old_row(**PARTIAL_3),
        old_row(status="unknown", filled_qty="3"),
        old_row(status="unknown", filled_qty="?"),
    ],
)
def test_a_decision_about_a_row_that_says_otherwise_or_executed_something_is_refused(ledger: Raw) -> None:
    played = denied(ledger, decided=DECIDED)
    assert played.plan.changes == ()
    assert reasons(played) == [(X1, "not_marked_unknown", True)]
    assert outcome_of(played.outcomes) == ("held", "", "not_marked_unknown", True)


def test_a_decision_does_not_stand_against_an_exchange_that_knows_the_order() -> None:
    (change,) = answered(old_row(status="unknown"), executed("10"), decided=DECIDED).plan.changes
    assert change.values["status"] == "filled"


def test_a_decision_is_not_carried_out_while_the_exchange_does_not_answer() -> None:
    world = World([old_row(status="unknown")], unknown={KEY: "HTTP 503"})
    played = Round(world, asked=DENIED, decided=DECIDED)
    assert played.plan.changes == ()
    assert outcome_of(played.outcomes) == ("failed", "", "HTTP 503", False)


@pytest.mark.parametrize(("name", "reason"), [("", "why"), ("anna", " ")])
def test_a_decision_without_a_name_or_a_reason_is_none(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match="the name of who decides, and a reason"):
        Decision(name, reason)


# The exchange did not answer


@pytest.mark.parametrize("ledger", [row(), old_row(), old_row(status="unknown"), old_row(**PARTIAL_3)])
def test_any_other_answer_changes_nothing(ledger: Raw) -> None:
    played = Round(World([ledger], unknown={KEY: "HTTP 500"}), asked=DENIED)
    assert (played.plan.changes, played.plan.findings) == ((), ())
    assert outcome_of(played.outcomes) == ("failed", "", "HTTP 500", False)
    assert played.counts() == {"checked": 1, "failed": 1}


def test_an_account_that_can_t_be_worked_on_changes_nothing() -> None:
    played = Round(World([old_row()], [executed("10")], profiles=[profile(evidence_defect="x")], absent=DENIED))
    assert (played.plan.changes, played.plan.skipped) == ((), {"p1": "evidence_incomplete"})
    assert outcome_of(played.outcomes) == ("failed", "", "evidence_incomplete", False)


def test_answers_that_contradict_each_other_or_that_nobody_asked_for_are_refused() -> None:
    inputs = World([row()]).inputs
    for asked, unknown, said_of in (
        (DENIED, {KEY: "HTTP 500"}, "both denied and not answered"),
        (frozenset[tuple[str, str]](), {}, "nobody asked"),
    ):
        with pytest.raises(ValueError, match=said_of):
            plan_order_status(
                inputs,
                POLICY,
                asked=asked,
                absent=DENIED,
                unknown=unknown,
                now_ms=NOW,
                ownership=own_orders(inputs),
            )


# Answers that may be older than the ledger: the events of a stream


@pytest.mark.parametrize(
    ("ledger", "event", "outcome"),
    [
        (row(**PARTIAL_3, qty="10"), order(), "outdated"),
        (row(status="partially_filled", filled_qty="8"), executed("3"), "outdated"),
        (row(status="filled", qty="10"), executed("3"), "outdated"),
        (row(**FILLED_3), executed("3"), "outdated"),
        (row(status="canceled"), order(), "outdated"),
        (row(status="rejected"), order(status="held"), "outdated"),
        (row(**PARTIAL_3), executed("3"), "live"),
        (row(status="filled"), executed("10"), "in_line"),
        (row(status="canceled"), order(status="canceled"), "in_line"),
        (row(status="canceled"), executed("3"), "held"),
        (row(**FILLED_3), executed("5"), "held"),
    ],
)
def test_an_event_never_reduces_a_row_and_never_sets_one_that_is_over_back_to_live(
    ledger: Raw, event: Raw, outcome: str
) -> None:
    played = answered(ledger, event, forward_only=True)
    assert (played.plan.changes, played.plan.findings) == ((), ())
    assert outcome_of(played.outcomes)[0] == outcome


def test_an_event_that_a_row_can_t_follow_says_that_the_row_is_over() -> None:
    assert outcome_of(answered(row(status="canceled"), executed("3"), forward_only=True).outcomes)[2] == "row_is_over"


@pytest.mark.parametrize(
    ("ledger", "event", "values"),
    [
        (row(), executed("3"), {"status": "partially_filled", "executed": "3", **FILL}),
        (row(**PARTIAL_3), executed("8"), {"status": "partially_filled", "executed": "8", **FILL}),
        (row(**PARTIAL_3), executed("10"), {"status": "filled", "executed": "10", **FILL}),
        (row(**PARTIAL_3), executed("3", status="canceled"), {"status": "filled", "executed": "3"}),
        (row(), order(status="rejected"), {"status": "rejected"}),
        (row(**FILLED_3), executed("10"), {"status": "filled", "executed": "10", **FILL}),
        (row(status="canceled"), executed("3", status="canceled"), {"status": "filled", "executed": "3", **FILL}),
    ],
)
def test_an_event_that_says_more_is_written(ledger: Raw, event: Raw, values: Raw) -> None:
    (change,) = answered(ledger, event, forward_only=True).plan.changes
    assert said(change)[1] == values


def test_an_event_under_which_an_order_ended_with_less_than_the_ledger_says_needs_a_person() -> None:
    played = answered(
        row(status="partially_filled", filled_qty="8"), executed("3", status="canceled"), forward_only=True
    )
    assert reasons(played) == [(X1, "ledger_ahead_of_exchange", True)]
    assert outcome_of(played.outcomes)[0] == "held"


def test_a_late_event_does_not_take_a_backfill_row_away_that_stands_for_more() -> None:
    backfill = row(order_id="BFILL-1", action="EXIT", side="sell", status="filled", qty="10")
    consumed = {"account_id": "a1", "backfill_order_id": "BFILL-1", "exchange_order_id": X1, "qty": "10"}
    late = executed("3", side="sell", client_order_id="bytelyst-p1-t1-exit")
    world = World([row(side="sell", action="EXIT"), backfill], [late], consumption=[consumed])
    played = Round(world, asked=DENIED, forward_only=True)
    assert played.plan.changes == ()
    assert outcome_of(played.outcomes)[0] == "outdated"
    filled = executed("10", side="sell", client_order_id="bytelyst-p1-t1-exit")
    changes = by_order(replace(played, world=replace(world, orders=[filled])).plan.changes)
    assert {key: change.values["status"] for key, change in changes.items()} == {X1: "filled", "BFILL-1": "canceled"}


# Many


def test_only_selected_profiles_are_planned_and_counted() -> None:
    sibling = row(profile_id="p2", order_id=X2, trade_id="t2")
    bought = executed("10", id=X2, client_order_id="bytelyst-p2-t2-entry")
    world = World([row(), sibling], [executed("10"), bought], profiles=[profile(), profile("p2", selected=False)])
    played = Round(world, asked=frozenset({KEY, ("p2", X2)}))
    assert [change.profile_id for change in played.plan.changes] == ["p1"]
    assert (set(played.outcomes), set(played.plan.counts)) == ({KEY}, {"p1"})


def test_every_counter_is_there_and_the_left_over_is_the_callers() -> None:
    counts = counts_of({}, "p1", left_over=7)
    assert set(counts) == set(COUNTERS)
    assert sum(counts.values()) == counts["left_over"] == 7
