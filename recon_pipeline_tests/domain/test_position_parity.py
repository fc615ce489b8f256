"""Position parity: what is out of line, what is closed for it and what is not, and what a cycle remembers for the next."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.corrections import Handler, Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.cycle_policy import PositionParityPolicy
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.position_parity import PARITY_PREFIX, PositionParityPlan
from recon_pipeline_tests.domain.book_makers import E9, MINUTE, START_MS
from recon_pipeline_tests.domain.parity_books import (
    CYCLE,
    GHOST,
    NOW,
    POLICY,
    Book,
    Record,
    bought,
    executed,
    reasons,
    sold,
    units,
)

TWO_PROFILES = ({"profile_id": "p1"}, {"profile_id": "p2"})
PROPERTY = settings(max_examples=max(25, settings.default.max_examples // 40))
AT_ONCE = replace(POLICY, confirmations=1)
LAX = replace(POLICY, require_sub_tag=False)


def state_of(plan: PositionParityPlan, trade: str = "t1") -> dict[str, Any]:
    rows = plan.states[plan.states["trade_id"] == trade]
    assert len(rows) == 1
    return dict(rows.iloc[0])


# --- the flags of the runbook, by name and default -----------------------------------------------------------------------


def test_the_heartbeat_is_on_and_a_dry_run_by_default() -> None:
    assert PositionParityPolicy().enabled  # ENABLE_RECON_POSITION_PARITY_HEARTBEAT
    assert PositionParityPolicy().dry_run  # RECON_POSITION_PARITY_DRY_RUN


def test_disabled_by_enable_recon_position_parity_heartbeat_it_decides_nothing_and_forgets_nothing() -> None:
    before = GHOST.cycles(2)
    plan = GHOST.plan(state=before.states, policy=replace(POLICY, enabled=False), now=NOW + 9 * CYCLE)
    assert plan.skipped == {"p1": "disabled"}
    assert plan.profiles == {}
    assert plan.changes == ()
    pd.testing.assert_frame_equal(plan.states, before.states)


def test_recon_position_parity_confirmations_is_three_cycles_by_default() -> None:
    assert POLICY.confirmations == 3
    assert [len(GHOST.cycles(number).changes) for number in (1, 2, 3, 4)] == [0, 0, 1, 1]
    assert reasons(GHOST.cycles(2)) == {"t1": "awaiting_confirmation"}


@pytest.mark.parametrize(("required", "cycles"), [(0, 1), (1, 1), (2, 2), (5, 5)])
def test_recon_position_parity_confirmations_may_be_another_number(required: int, cycles: int) -> None:
    policy = replace(POLICY, confirmations=required)
    assert GHOST.cycles(cycles - 1, policy=policy).changes == () if cycles > 1 else True
    assert len(GHOST.cycles(cycles, policy=policy).changes) == 1


def test_recon_position_parity_require_subtag_attribution_quarantines_what_is_not_tagged() -> None:
    assert POLICY.require_sub_tag
    book = GHOST.but(rows=(bought(sub_tag=None),))
    plan = book.cycles(5)
    assert plan.changes == ()
    assert reasons(plan) == {"t1": "unattributed"}
    assert plan.profiles["p1"].quarantined_trades == 1
    assert state_of(plan)["quarantined"]
    assert len(book.cycles(3, policy=LAX).changes) == 1


def test_recon_confirmation_spacing_seconds_makes_two_schedulers_in_one_cycle_count_once() -> None:
    assert POLICY.confirmation_spacing_ms == 150_000
    assert state_of(GHOST.cycles(10, spacing=10_000))["confirmations"] == 1
    first = GHOST.plan()
    at_spacing = GHOST.plan(state=first.states, now=NOW + 150_000)
    assert state_of(at_spacing)["confirmations"] == 2
    assert state_of(GHOST.plan(state=first.states, now=NOW + 149_999))["confirmations"] == 1


def test_a_clock_that_went_back_counts_nothing() -> None:
    first = GHOST.plan()
    plan = GHOST.plan(state=first.states, now=NOW - CYCLE, policy=replace(POLICY, confirmation_spacing_ms=0))
    assert state_of(plan)["confirmations"] == 1


# --- in line -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "held"),
    [
        ((bought(),), "10"),
        ((bought(), sold()), "6"),
        ((bought(), sold(qty="10")), None),
        ((bought(side="sell"),), "-10"),
        ((bought(), bought("t2", "5")), "15"),
        ((bought(),), "10.001"),
        ((bought(),), "9.999"),
        ((bought(qty="0.0009"),), None),
    ],
)
def test_a_symbol_is_in_line_where_the_signed_sums_agree_within_the_dust_quantity(
    rows: tuple[Record, ...], held: str | None
) -> None:
    book = Book(rows, positions={} if held is None else {"AAPL": held})
    plan = book.cycles(4)
    assert plan.findings == ()
    assert plan.states.empty
    assert plan.profiles["p1"].mismatch_trades == 0


@pytest.mark.parametrize("held", ["10.0011", "9.9989", "-10", "0", "20"])
def test_a_difference_above_the_dust_quantity_is_a_mismatch(held: str) -> None:
    assert Book((bought(),), positions={"AAPL": held}).plan().profiles["p1"].mismatch_trades == 1


def test_several_profiles_on_one_account_are_in_line_as_their_sum() -> None:
    rows = (bought(), bought(profile="p2", qty="4", side="sell"))
    assert Book(rows, positions={"AAPL": "6"}, profiles=TWO_PROFILES).plan().findings == ()
    assert Book(rows, positions={"AAPL": "10"}, profiles=TWO_PROFILES).plan().profiles["p1"].mismatch_trades == 1


def test_a_profile_that_is_only_context_explains_the_position_and_is_not_judged() -> None:
    rows = (bought(), bought(profile="p2"))
    context = ({"profile_id": "p1"}, {"profile_id": "p2", "selected": False})
    assert Book(rows, positions={"AAPL": "20"}, profiles=context).plan().findings == ()
    plan = Book(rows, profiles=context).cycles(3)
    assert set(plan.profiles) == {"p1"}
    assert {change.profile_id for change in plan.changes} == {"p1"}


@pytest.mark.parametrize(("held", "in_line"), [("0.9975", True), ("0.9974", False), ("1.0025", True)])
def test_the_crypto_fee_allowance_on_the_entries_is_in_line(held: str, in_line: bool) -> None:
    book = Book((bought(symbol="BTC/USD", qty="1"),), positions={"BTCUSD": held})
    policy = replace(POLICY, dust_abs_qty=Decimal("0.0001"))
    assert (book.plan(policy=policy).findings == ()) is in_line


def test_a_stock_has_no_fee_allowance() -> None:
    assert Book((bought(qty="100"),), positions={"AAPL": "99.9"}).plan().findings != ()


# --- the synthetic exit --------------------------------------------------------------------------------------------------


def test_a_confirmed_ghost_is_closed_at_its_entry_price_when_it_was_first_seen() -> None:
    rows = (bought(qty="6", price="100"), bought(order_id="in-2", qty="4", price="110"), sold(qty="3", price="120"))
    plan = Book(rows).cycles(3)
    (change,) = plan.changes
    logical = f"p1:t1:10:3:{START_MS}"
    assert change.order_id == PARITY_PREFIX + hashlib.md5(logical.encode(), usedforsecurity=False).hexdigest()
    assert change.handler is Handler.SYNTHETIC_EXIT
    assert change.inserts
    assert dict(change.values) == {
        "user_id": "user of p1",
        "profile_id": "p1",
        "order_id": change.order_id,
        "trade_id": "t1",
        "symbol": "AAPL",
        "type": "market",
        "side": "SELL",
        "action": "EXIT",
        "qty": "7",
        "quantity": "7",
        "filled_qty": "7",
        "price": "104",
        "status": "filled",
        "timestamp": str(NOW),
        "filled_at": iso_ms(NOW),
        "source": "RECON",
        "sub_tag": "bytelyst:p1:t1",
    }
    assert (change.exchange_order_id, change.represents_e9) == ("", 0)
    cause = change.cause
    assert (cause["rule"], cause["synthetic"], cause["confirmations"]) == ("synthetic_exit", True, 3)
    assert (cause["position"], cause["ledger"], cause["root_cause"]) == ("0", "7", "")
    assert (cause["first_seen"], cause["read_at"]) == (iso_ms(NOW), iso_ms(NOW + 2 * CYCLE))


def test_a_short_ghost_is_bought_back() -> None:
    (change,) = Book((bought(side="sell"),)).cycles(3).changes
    assert (change.values["side"], change.values["qty"]) == ("BUY", "10")


def test_the_same_trade_gives_the_same_id_whoever_closes_it_and_a_reopened_one_another() -> None:
    first = GHOST.cycles(3).changes[0].order_id
    assert GHOST.cycles(7).changes[0].order_id == first
    again = Book((bought(), bought(order_id="in-2", qty="1"))).cycles(3).changes[0].order_id
    assert again != first


def test_every_ghost_of_a_flat_symbol_is_closed_whichever_profile_has_it() -> None:
    rows = (bought(), bought("t2", "5"), bought("t3", "2", profile="p2"))
    plan = Book(rows, profiles=TWO_PROFILES).cycles(3)
    assert {(change.profile_id, change.trade_id, change.values["qty"]) for change in plan.changes} == {
        ("p1", "t1", "10"),
        ("p1", "t2", "5"),
        ("p2", "t3", "2"),
    }
    assert [plan.profiles[profile].auto_closable_trades for profile in ("p1", "p2")] == [2, 1]


def test_the_plan_of_a_profile_holds_its_own_changes_and_cites_no_order() -> None:
    rows = (bought(), bought("t3", "2", profile="p2"))
    plan = Book(rows, profiles=TWO_PROFILES).cycles(3)
    own = plan.for_profile("p2", "RECON-PARITY-1")
    assert (own.user_id, own.account_id, own.stage, own.batch_id) == (
        "user of p2",
        "a1",
        Stage.POSITION_PARITY,
        "RECON-PARITY-1",
    )
    assert [change.trade_id for change in own.changes] == ["t3"]
    assert own.executed_e9 == {}
    with pytest.raises(KeyError, match="p9"):
        plan.for_profile("p9", "RECON-PARITY-1")


def test_after_the_synthetic_exits_are_written_nothing_is_out_of_line() -> None:
    book = Book((bought(), bought("t2", "5"), sold("t2", "1")))
    plan = book.cycles(3)
    after = book.but(rows=(*book.rows, *(dict(change.values) for change in plan.changes)))
    again = after.plan(state=plan.states, now=NOW + 3 * CYCLE)
    assert again.findings == ()
    assert again.states.empty


# --- what speaks against it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("book", "arguments", "reason", "person"),
    [
        (Book((bought(), sold(qty="12"))), {}, "over_exit", True),
        (GHOST.but(profiles=({"profile_id": "p1", "managed_symbols": ("MSFT",)},)), {}, "trade_out_of_scope", True),
        (Book((bought(), bought("t2", "4", side="sell"))), {}, "mixed_sides", True),
        (Book((bought(), bought("t2", timestamp=None))), {}, "undecidable_trade_in_symbol", True),
        (Book((bought(), bought("t2", symbol=None))), {}, "undecidable_trade_in_symbol", True),
        (Book((bought(timestamp=None),)), {}, "row_without_time", True),
        (Book((bought(sub_tag="bytelyst:p2:t1"),)), {}, "contradictory_attribution", True),
        (Book((bought(sub_tag="bytelyst:p1:t2"),)), {}, "contradictory_attribution", True),
        (Book((bought(), sold(sub_tag="bytelyst:p2:t1"))), {}, "contradictory_attribution", True),
        (Book((bought(sub_tag=None),)), {}, "unattributed", True),
        (Book((bought(sub_tag="someone"),)), {}, "unattributed", True),
        (Book((bought(), bought(order_id="in-2", sub_tag=None))), {}, "unattributed", True),
        (GHOST.but(positions={"AAPL": "4"}), {}, "exchange_not_flat", True),
        (GHOST.but(positions={"AAPL": "-10"}), {}, "exchange_not_flat", True),
        (GHOST, {"waiting": [("p1", "t1")]}, "evidence_waiting", False),
        (Book((bought(price=None),)), {}, "no_price", True),
    ],
)
def test_a_trade_is_not_closed_where_anything_speaks_against_it(
    book: Book, arguments: dict[str, Any], reason: str, person: bool
) -> None:
    plan = book.cycles(6, **arguments)
    assert plan.changes == ()
    assert reasons(plan)["t1"] == reason
    finding = next(finding for finding in plan.findings if finding.trade_id == "t1")
    assert finding.needs_person is person
    assert finding.stage is Stage.POSITION_PARITY
    assert state_of(plan)["reason"] == reason


def test_a_person_is_called_only_once_the_mismatch_is_confirmed() -> None:
    book = GHOST.but(positions={"AAPL": "4"})
    assert [book.cycles(number).findings[0].needs_person for number in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(
    ("tag", "proves"),
    [("bytelyst:p1", True), ("bytelyst:p1:t1", True), ("BYTELYST:P1:T1", True), ("bytelyst", False), ("p1", False)],
)
def test_a_tag_of_the_profile_proves_with_or_without_the_trade(tag: str, proves: bool) -> None:
    assert bool(Book((bought(sub_tag=tag),)).cycles(3).changes) is proves


def test_a_tag_that_two_profiles_of_the_account_share_proves_nothing() -> None:
    twins = ({"profile_id": "p-1"}, {"profile_id": "p1"})
    plan = Book((bought(sub_tag="bytelyst:p1"),), profiles=twins).cycles(3)
    assert reasons(plan) == {"t1": "unattributed"}


def test_a_tag_that_two_trades_of_the_profile_share_proves_nothing() -> None:
    rows = (bought(), bought("t-1", symbol="MSFT", sub_tag="bytelyst:p1:t1"))
    plan = Book(rows, positions={"MSFT": "10"}).cycles(3)
    assert reasons(plan) == {"t1": "unattributed"}


def test_the_same_tagged_row_twice_proves_its_quantity_once() -> None:
    rows = (bought(), bought(), bought(order_id="in-2", sub_tag=None))
    assert reasons(Book(rows).cycles(3)) == {"t1": "unattributed"}


@pytest.mark.parametrize(
    "row",
    [
        sold(status="pending_new"),
        sold(status="unknown"),
        sold(status="partially_filled", filled_qty="1", qty="4"),
        sold(status="new", trade_id=None),
        sold("t9", status="accepted"),
        sold(status="new", symbol=None),
        sold(status="new", symbol=None, trade_id=None),
        sold("t9", profile="p2", status="new"),
    ],
)
def test_an_order_that_the_ledger_holds_as_live_keeps_its_symbol_open(row: Record) -> None:
    book = Book((bought(), row), profiles=TWO_PROFILES)
    plan = book.cycles(6)
    assert plan.changes == ()
    assert reasons(plan)["t1"] == "pending_order"
    assert not plan.findings[0].needs_person


@pytest.mark.parametrize("status", ["canceled", "rejected", "expired", "failed"])
def test_an_order_that_is_over_keeps_nothing_open(status: str) -> None:
    assert len(Book((bought(), sold(status=status))).cycles(3).changes) == 1


@pytest.mark.parametrize(
    "order",
    [
        executed(status="new", filled_qty="0", filled_avg_price=None, filled_at=None),
        executed(status="done_for_day", filled_qty="0", filled_avg_price=None, filled_at=None),
        executed(status="held", filled_qty="0", filled_avg_price=None, filled_at=None, symbol=None),
    ],
)
def test_an_order_that_is_live_at_the_exchange_keeps_its_symbol_open(order: Record) -> None:
    assert reasons(GHOST.but(orders=(order,)).cycles(6)) == {"t1": "pending_order"}


def test_an_order_that_a_later_reading_calls_over_is_over() -> None:
    empty = {"filled_qty": "0", "filled_avg_price": None, "filled_at": None}
    book = GHOST.but(orders=(executed(status="new", **empty), executed(status="canceled", **empty)))
    assert len(book.cycles(3).changes) == 1


@pytest.mark.parametrize("changes", [{"symbol": "MSFT"}, {"status": "canceled", "filled_qty": "0"}])
def test_an_order_of_another_symbol_or_one_that_is_over_keeps_nothing_open(changes: Record) -> None:
    live = {"status": "new", "filled_qty": "0", "filled_avg_price": None, "filled_at": None}
    assert len(GHOST.but(orders=(executed(**{**live, **changes}),)).cycles(3).changes) == 1


@pytest.mark.parametrize("side", ["sell", "buy"])
def test_a_trade_whose_own_execution_is_not_booked_waits_for_it(side: str) -> None:
    order = executed(qty="3", side=side, client_order_id="bytelyst-p1-t1-exit")
    plan = GHOST.but(orders=(order,)).cycles(6)
    assert reasons(plan) == {"t1": "unbooked_execution"}
    assert plan.changes == ()


@pytest.mark.parametrize(
    ("keys", "quarantined"),
    [
        ({"client_order_id": "bytelyst-p1-t1-exit", "subtag": "bytelyst:p1:t2"}, True),
        ({"client_order_id": "by-the-bot", "subtag": "bytelyst:p1"}, True),
        ({"client_order_id": "bytelyst-p1-t1-exit", "subtag": "bytelyst:p1:t2", "side": "buy"}, False),
        ({"client_order_id": "sold-by-hand"}, False),
    ],
)
def test_an_execution_that_names_the_profile_but_no_one_trade_quarantines_it(
    keys: dict[str, str], quarantined: bool
) -> None:
    other = (bought("t2"), sold("t2", "10"))
    book = GHOST.but(orders=(executed(qty="10", **keys),))
    plan = book.but(rows=(*book.rows, *other)).cycles(3)
    assert reasons(plan) == {"t1": "unclear_execution" if quarantined else "synthetic_exit"}
    assert len(plan.changes) == (0 if quarantined else 1)
    assert list(plan.states["quarantined"]) == [quarantined]


def test_an_execution_that_the_ledger_represents_keeps_nothing_open() -> None:
    order = executed(qty="4", client_order_id="bytelyst-p1-t1-exit")
    (change,) = Book((bought(), sold(order_id="x1")), orders=(order,)).cycles(3).changes
    assert change.values["qty"] == "6"


@pytest.mark.parametrize(
    ("status", "reason", "person"), [("canceled", "previously_reverted", True), ("rejected", "already_exists", False)]
)
def test_an_exit_that_the_ledger_has_already_is_not_written_again(status: str, reason: str, person: bool) -> None:
    written = dict(GHOST.cycles(3).changes[0].values)
    plan = GHOST.but(rows=(*GHOST.rows, {**written, "status": status})).cycles(4)
    assert plan.changes == ()
    assert reasons(plan) == {"t1": reason}
    assert plan.findings[0].needs_person is person


# --- confirmations across cycles ------------------------------------------------------------------------------------------


def test_a_match_resets_the_count() -> None:
    twice = GHOST.cycles(2)
    match = GHOST.but(positions={"AAPL": "10"}).plan(state=twice.states, now=NOW + 2 * CYCLE)
    assert match.states.empty
    again = GHOST.plan(state=match.states, now=NOW + 3 * CYCLE)
    assert state_of(again)["confirmations"] == 1
    assert state_of(again)["first_seen_ms"] == NOW + 3 * CYCLE


@pytest.mark.parametrize(
    "other",
    [
        GHOST.but(rows=(bought(), sold(qty="1"))),
        GHOST.but(rows=(bought(), bought(order_id="in-2"), sold(qty="10"))),
        GHOST.but(positions={"AAPL": "4"}),
    ],
)
def test_another_mismatch_begins_to_count_again(other: Book) -> None:
    twice = GHOST.cycles(2)
    plan = other.plan(state=twice.states, now=NOW + 2 * CYCLE)
    assert state_of(plan)["confirmations"] == 1
    assert plan.changes == ()


def test_a_flat_position_that_trembles_within_the_dust_is_the_same_mismatch() -> None:
    twice = GHOST.cycles(2)
    plan = GHOST.but(positions={"AAPL": "0.0005"}).plan(state=twice.states, now=NOW + 2 * CYCLE)
    assert len(plan.changes) == 1


@pytest.mark.parametrize(
    ("blocked", "arguments"),
    [
        (GHOST.but(rows=(bought(), sold(status="pending_new"))), {}),
        (GHOST, {"waiting": [("p1", "t1")]}),
        (GHOST.but(positions={"AAPL": "0.0005"}, rows=(bought(), sold(status="pending_new"))), {}),
    ],
)
def test_a_cycle_with_an_order_alive_or_evidence_waiting_confirms_nothing_and_resets_nothing(
    blocked: Book, arguments: dict[str, Any]
) -> None:
    twice = GHOST.cycles(2)
    plan = blocked.plan(state=twice.states, now=NOW + 2 * CYCLE, **arguments)
    kept = state_of(plan)
    assert (kept["confirmations"], kept["last_counted_ms"]) == (2, NOW + CYCLE)
    assert len(GHOST.plan(state=plan.states, now=NOW + 3 * CYCLE).changes) == 1


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (
            GHOST.but(profiles=({"profile_id": "p1", "evidence_defect": "orders: page 2 failed"},)),
            "evidence_incomplete",
        ),
        (GHOST.but(unknown=frozenset({"a1"})), "exchange_position_unknown"),
    ],
)
def test_a_profile_whose_account_could_not_be_read_is_frozen(failed: Book, reason: str) -> None:
    twice = GHOST.cycles(2)
    plan = failed.plan(state=twice.states, now=NOW + 2 * CYCLE)
    assert plan.skipped == {"p1": reason}
    assert plan.profiles == {}
    assert (plan.changes, plan.findings, plan.account_findings) == ((), (), ())
    pd.testing.assert_frame_equal(plan.states, twice.states)
    assert len(GHOST.plan(state=plan.states, now=NOW + 3 * CYCLE).changes) == 1


def test_a_symbol_whose_position_is_not_known_is_frozen_and_the_others_go_on() -> None:
    book = Book((bought(), bought("t2", symbol="MSFT", sub_tag="bytelyst:p1:t2")))
    twice = book.cycles(2)
    plan = book.but(positions={"AAPL": None}).plan(state=twice.states, now=NOW + 2 * CYCLE)
    assert [change.trade_id for change in plan.changes] == ["t2"]
    assert state_of(plan)["confirmations"] == 2
    counters = plan.profiles["p1"]
    assert (counters.mismatch_trades, counters.frozen_trades) == (1, 1)


def test_the_state_says_what_is_out_of_line() -> None:
    found = state_of(Book((bought(side="sell"), sold(side="buy")), positions={"AAPL": "-2.5"}).cycles(2))
    expected = {
        "symbol": "AAPL",
        "confirmations": 2,
        "first_seen_ms": NOW,
        "last_counted_ms": NOW + CYCLE,
        "open_e9": -6 * E9,
        "position_e9": -25 * E9 // 10,
        "notional_usd": Decimal(350),
        "quarantined": False,
        "reason": "exchange_not_flat",
        "root_cause": "",
    }
    assert {name: found[name] for name in expected} == expected


def test_the_states_of_other_profiles_are_not_handed_on() -> None:
    state = Book((bought(profile="p2"),), profiles=TWO_PROFILES).cycles(2).states
    assert GHOST.plan(state=state).states["profile_id"].tolist() == ["p1"]


# --- money ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "held", "largest", "total"),
    [
        ((bought(),), "0", "1000", "1000"),
        ((bought(),), "4", "600", "600"),
        ((bought(),), "-5", "1000", "1000"),
        ((bought(),), "13", "300", "300"),
        ((bought(), bought("t2", "30", price="10")), "20", "500", "650"),
        ((bought(), bought("t2", "5", price=None)), "0", "1000", "1000"),
    ],
)
def test_money_out_of_line_is_the_difference_at_the_entry_prices(
    rows: tuple[Record, ...], held: str, largest: str, total: str
) -> None:
    counters = Book(rows, positions={"AAPL": held}).plan().profiles["p1"]
    assert counters.max_mismatch_notional_usd == Decimal(largest)
    assert counters.total_mismatch_notional_usd == Decimal(total)


def test_each_profile_counts_the_difference_as_far_as_it_has_open() -> None:
    rows = (bought(), bought(profile="p2", qty="2"))
    plan = Book(rows, positions={"AAPL": "4"}, profiles=TWO_PROFILES).plan()
    assert [plan.profiles[p].total_mismatch_notional_usd for p in ("p1", "p2")] == [Decimal(800), Decimal(200)]


def test_a_trade_without_a_price_is_counted_as_unpriced_and_has_no_money() -> None:
    plan = Book((bought(price=None),)).plan()
    assert plan.profiles["p1"].unpriced_trades == 1
    assert state_of(plan)["notional_usd"] is None


def test_the_shares_of_one_difference_add_up_to_the_last_unit() -> None:
    rows = (bought(price="1"), bought("t2", price="1"), bought("t3", price="1"))
    counters = Book(rows, positions={"AAPL": "20"}).plan().profiles["p1"]
    assert counters.total_mismatch_notional_usd == Decimal(10)


# --- positions without trades --------------------------------------------------------------------------------------------


def test_a_position_that_no_trade_explains_is_a_finding_about_the_account() -> None:
    plan = Book((bought(),), positions={"AAPL": "10", "BTCUSD": "0.5"}).plan()
    (finding,) = plan.account_findings
    assert (finding.profile_id, finding.reason, finding.symbol) == ("", "position_without_trade", "BTCUSD")
    assert finding.detail["account_id"] == "a1"
    assert finding.detail["position"] == "0.5"
    assert finding.needs_person
    assert plan.profiles["p1"].mismatch_trades == 0


@pytest.mark.parametrize(
    "order",
    [
        executed("x9", "5", symbol="MSFT", side="buy", client_order_id="bytelyst-p1-t7-entry"),
        executed("x9", "5", symbol="MSFT", side="buy", status="partially_filled"),
    ],
)
def test_a_position_that_an_order_may_still_explain_calls_nobody(order: Record) -> None:
    (finding,) = Book(orders=(order,), positions={"MSFT": "5"}).plan().account_findings
    assert not finding.needs_person


@pytest.mark.parametrize("held", ["0.001", "-0.001", None])
def test_dust_and_unknown_positions_are_no_findings(held: str | None) -> None:
    assert Book(positions={"MSFT": held}).plan().account_findings == ()


def test_a_position_out_of_every_profiles_scope_is_nobodys_business() -> None:
    profiles = ({"profile_id": "p1", "managed_symbols": ("AAPL",)},)
    assert Book(positions={"MSFT": "5"}, profiles=profiles).plan().account_findings == ()
    assert len(Book(positions={"AAPL": "5"}, profiles=profiles).plan().account_findings) == 1


# --- callers' bugs and invariants ----------------------------------------------------------------------------------------


def test_a_slice_of_a_profile_that_is_not_given_is_the_callers_bug() -> None:
    book = Book((bought(),), profiles=({"profile_id": "p1"},))
    inputs = book.inputs
    twice = replace(inputs, profiles=pd.concat([inputs.profiles, inputs.profiles], ignore_index=True))
    from recon_pipeline.domain.frames import EVIDENCE, SLICES
    from recon_pipeline.domain.ownership import OWNERSHIP
    from recon_pipeline.domain.position_parity import plan_position_parity

    rest = {"waiting": frozenset(), "ownership": OWNERSHIP.empty(), "evidence": EVIDENCE.empty(), "now_ms": NOW}
    with pytest.raises(ValueError, match="twice"):
        plan_position_parity(twice, SLICES.empty(), POLICY, PARITY_STATES.empty(), **rest)
    alien = pd.DataFrame([dict.fromkeys(SLICES.names, "") | {"profile_id": "p9", "open_e9": E9, "defect": ""}])
    with pytest.raises(ValueError, match="p9"):
        plan_position_parity(inputs, alien, POLICY, PARITY_STATES.empty(), **rest)


def random_book(rnd: Random) -> Book:
    """Trades of three profiles in two symbols, tagged or not, with orders and positions that fit or do not."""
    names = ("p1", "p2", "p-1" if rnd.randrange(6) == 0 else "p3")
    rows: list[Record] = []
    orders: list[Record] = []
    for number in range(rnd.randint(1, 5)):
        profile, symbol = rnd.choice(names), rnd.choice(("AAPL", "BTC/USD"))
        side = "sell" if rnd.randrange(10) == 0 else "buy"
        tag = None if rnd.randrange(6) == 0 else f"bytelyst:{profile.replace('-', '')}:t{number}"
        trade = f"t{number}"
        rows.append(bought(trade, str(rnd.randint(1, 9)), profile, side=side, symbol=symbol, sub_tag=tag))
        if rnd.randrange(3) == 0:
            exit_side = "buy" if side == "sell" else "sell"
            rows.append(sold(trade, "0.5", profile, symbol=symbol, side=exit_side))
        if rnd.randrange(5) == 0:
            key = rnd.choice((f"bytelyst-{profile}-{trade}-exit", "human"))
            orders.append(executed(f"x{number}", "2", symbol=symbol, client_order_id=key))
        if rnd.randrange(10) == 0:
            rows.append(sold(trade, "1", profile, order_id=f"live-{number}", status="pending_new", symbol=symbol))
    positions = {symbol: str(rnd.choice((0, 0, 0, 0, 5, -3))) for symbol in ("AAPL", "BTCUSD") if rnd.randrange(3)}
    profiles = tuple({"profile_id": name, "selected": bool(rnd.randrange(5))} for name in names)
    return Book(tuple(rows), tuple(orders), positions, profiles)


def fingerprint(plan: PositionParityPlan) -> tuple[object, ...]:
    changes = [(c.profile_id, c.trade_id, c.order_id, sorted(c.values.items(), key=str)) for c in plan.changes]
    return changes, plan.states.to_dict("list"), list(plan.findings), list(plan.account_findings), plan.profiles


@PROPERTY
@given(st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_the_input_changes_the_plan(rnd: Random) -> None:
    book = random_book(rnd)
    rows, orders = list(book.rows), list(book.orders)
    rnd.shuffle(rows)
    rnd.shuffle(orders)
    profiles = list(book.profiles)
    rnd.shuffle(profiles)
    other = book.but(rows=(*rows, *rows[:1]), orders=(*orders, *orders[:1]), profiles=tuple(profiles))
    assert fingerprint(book.plan(policy=AT_ONCE)) == fingerprint(other.plan(policy=AT_ONCE))


@PROPERTY
@given(st.randoms(use_true_random=False))
def test_a_synthetic_exit_closes_its_own_open_quantity_on_a_flat_symbol_and_nothing_else(rnd: Random) -> None:
    book = random_book(rnd)
    plan = book.plan(policy=AT_ONCE)
    selected = {p["profile_id"] for p in book.profiles if p["selected"]}
    for change in plan.changes:
        own = [r for r in book.rows if (r["profile_id"], r["trade_id"]) == (change.profile_id, change.trade_id)]
        filled = [row for row in own if row["status"] == "filled"]
        entry = next(row for row in filled if row["action"] == "ENTRY")
        left = units(entry["qty"]) - sum(units(row["qty"]) for row in filled if row["action"] == "EXIT")
        assert units(change.values["qty"] or "") == left > 0
        assert change.values["side"] == {"buy": "SELL", "sell": "BUY"}[entry["side"]]
        assert (change.values["price"], change.values["symbol"]) == (entry["price"], entry["symbol"])
        assert entry["sub_tag"]
        assert change.profile_id in selected
        assert len(own) == len(filled)
        assert units(book.positions.get(entry["symbol"].replace("/", ""), "0")) == 0
    written = book.but(rows=(*book.rows, *(dict(change.values) for change in plan.changes)))
    again = written.plan(state=plan.states, now=NOW + CYCLE, policy=AT_ONCE)
    assert not {(c.profile_id, c.trade_id) for c in again.changes} & {(c.profile_id, c.trade_id) for c in plan.changes}


@PROPERTY
@given(st.randoms(use_true_random=False))
def test_a_reading_that_failed_never_writes_more_than_one_that_succeeded(rnd: Random) -> None:
    book = random_book(rnd)
    complete = book.plan(policy=AT_ONCE)
    symbol = rnd.choice(("AAPL", "BTCUSD"))
    worse = rnd.choice(
        (
            book.but(unknown=frozenset({"a1"})),
            book.but(positions={**book.positions, symbol: None}),
            book.but(profiles=tuple({**p, "evidence_defect": "positions: failed"} for p in book.profiles)),
        )
    )
    failed = worse.plan(policy=AT_ONCE)
    assert {c.order_id for c in failed.changes} <= {c.order_id for c in complete.changes}


def test_a_mismatch_of_last_week_is_remembered_by_its_first_minute() -> None:
    first = GHOST.plan()
    plan = GHOST.plan(state=first.states, now=NOW + 7 * 24 * 60 * MINUTE, policy=replace(POLICY, confirmations=2))
    assert plan.changes[0].values["timestamp"] == str(NOW)
