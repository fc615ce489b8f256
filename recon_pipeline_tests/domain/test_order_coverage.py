"""Which executed orders the ledger lacks, what is written for them, and that every order is counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from recon_pipeline.domain import position_parity
from recon_pipeline.domain.corrections import Handler, OrderChange, Stage, changes_digest
from recon_pipeline.domain.coverage_rows import RECORDED_ELSEWHERE
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import OrderCoveragePolicy
from recon_pipeline.domain.order_coverage import COUNTERS, plan_order_coverage
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.stage_plan import StagePlan
from recon_pipeline.domain.stand_ins import SYNTHETIC_PREFIX
from recon_pipeline_tests.domain.book_makers import E9, MINUTE, START_MS, backfill_id, iso
from recon_pipeline_tests.domain.coverage_makers import NOW_MS, SENT_MS, Record, fact, inputs_of, profile, row

POLICY = OrderCoveragePolicy()
EXIT = fact(client_order_id="bytelyst-p1-t1-exit")
BOOKED = backfill_id("p1", "t1", "x1", SENT_MS)


def exit_row(**changes: Any) -> Record:
    return row(
        **{
            "order_id": "r1",
            "side": "sell",
            "action": "EXIT",
            "qty": "4",
            "price": "110",
            "timestamp": SENT_MS,
            **changes,
        }
    )


def plan(inputs: CycleInputs, policy: OrderCoveragePolicy = POLICY, now_ms: int = NOW_MS) -> StagePlan:
    planned = plan_order_coverage(inputs, policy, own_orders(inputs), now_ms=now_ms)
    for counts in planned.counts.values():
        partitioned(counts)
    return planned


def partitioned(counts: Any) -> None:
    """The sums of the module's docstring."""

    def add_up(name: str, *parts: str) -> None:
        assert counts[name] == sum(counts[part] for part in parts), (name, dict(counts))

    assert set(counts) == set(COUNTERS)
    add_up("scanned_orders", "not_filled_orders", "filled_like_orders")
    add_up("filled_like_orders", "skipped_not_bot_owned", "bot_owned_orders")
    add_up(
        "skipped_not_bot_owned",
        "skipped_not_bot_owned_legacy_in_db",
        "skipped_not_bot_owned_before_baseline",
        "skipped_not_bot_owned_actionable",
    )
    add_up(
        "bot_owned_orders",
        "skipped_missing_order_id",
        "skipped_missing_fill_data",
        "skipped_unmapped_trade",
        "skipped_unmapped_action",
        "skipped_before_baseline",
        "skipped_quiet",
        "eligible_orders",
    )
    add_up("eligible_orders", "skipped_existing", "missing_in_db")
    add_up("missing_in_db", "planned_rows", "skipped_max_insert_limit", "held_back")


def counted(planned: StagePlan, profile_id: str = "p1") -> dict[str, int]:
    return {name: count for name, count in planned.counts[profile_id].items() if count}


def found(planned: StagePlan) -> list[tuple[str, str, bool]]:
    return [(finding.reason, finding.exchange_order_id, finding.needs_person) for finding in planned.findings]


def written(planned: StagePlan) -> list[tuple[str, str]]:
    return [(change.handler.value, change.order_id) for change in planned.changes]


def test_an_executed_order_that_the_ledger_lacks_is_inserted_exactly_as_it_executed() -> None:
    listed = {**EXIT, "filled_qty": "4.123456789", "sub_tag": "bytelyst:p1:t1", "status": "canceled", "qty": "9"}
    planned = plan(inputs_of([row()], [listed]))
    assert planned.changes == (
        OrderChange(
            profile_id="p1",
            trade_id="t1",
            order_id="x1",
            handler=Handler.EXIT_FILL,
            values={
                "order_id": "x1",
                "client_order_id": "bytelyst-p1-t1-exit",
                "user_id": "u1",
                "profile_id": "p1",
                "symbol": "AAPL",
                "type": "limit",
                "side": "SELL",
                "qty": "4.123456789",
                "quantity": "4.123456789",
                "filled_qty": "4.123456789",
                "price": "110",
                "status": "filled",
                "timestamp": str(SENT_MS),
                "filled_at": iso(SENT_MS),
                "trade_id": "t1",
                "action": "EXIT",
                "source": "BOT",
                "sub_tag": "bytelyst:p1:t1",
            },
            expected=None,
            cause={
                "rule": "executed_order_missing",
                "attributed_by": "sub_tag",
                "exchange_order_id": "x1",
                "client_order_id": "bytelyst-p1-t1-exit",
                "exchange_status": "canceled",
                "executed": "4.123456789",
                "average_price": "110",
                "filled_at": iso(SENT_MS),
                "read_at": iso(NOW_MS),
            },
            exchange_order_id="x1",
            represents_e9=4_123_456_789,
        ),
    )
    assert counted(planned) == dict.fromkeys(
        (
            "scanned_orders",
            "filled_like_orders",
            "bot_owned_orders",
            "eligible_orders",
            "missing_in_db",
            "planned_rows",
        ),
        1,
    )
    assert planned.findings == ()


def test_an_entry_of_a_trade_that_the_ledger_never_saw_is_inserted() -> None:
    planned = plan(inputs_of([], [fact(client_order_id="bytelyst-p1-t9-entry", side="buy", symbol="BTC/USD")]))
    (change,) = planned.changes
    assert (change.handler, change.trade_id, change.values["action"]) == (Handler.ENTRY_FILL, "t9", "ENTRY")
    assert change.values["symbol"] == "BTC/USD"


def test_the_symbol_is_spelled_as_the_ledger_spells_it() -> None:
    inputs = inputs_of([row(symbol="BTCUSD")], [{**EXIT, "symbol": "BTC/USD"}])
    assert plan(inputs).changes[0].values["symbol"] == "BTCUSD"


def test_the_plan_of_one_profile_cites_its_orders_alone() -> None:
    rows = [row(), row(order_id="e2", profile_id="p2", trade_id="t2")]
    facts = [EXIT, fact(id="x2", client_order_id="bytelyst-p2-t2-exit", filled_qty="5")]
    planned = plan(inputs_of(rows, facts, profiles=["p1", profile("p2", user_id="u2")]))
    own = planned.for_profile("p2", "RECON-COVER-1")
    assert (own.profile_id, own.user_id, own.account_id, own.stage, own.batch_id) == (
        "p2",
        "u2",
        "a1",
        Stage.ORDER_COVERAGE,
        "RECON-COVER-1",
    )
    assert [change.order_id for change in own.changes] == ["x2"]
    assert own.executed_e9 == {"x2": 5 * E9}
    assert own.client_order_ids == {"x2": "bytelyst-p2-t2-exit"}
    with pytest.raises(KeyError, match="p3"):
        planned.for_profile("p3", "RECON-COVER-2")


@pytest.mark.parametrize(
    ("listed", "counter"),
    [
        (fact(status="new", filled_qty="0", filled_at=None), "not_filled_orders"),
        ({**EXIT, "status": "partially_filled"}, "not_filled_orders"),
        ({**EXIT, "status": "done_for_day"}, "not_filled_orders"),
        ({**EXIT, "status": "canceled", "filled_qty": "0", "filled_at": None}, "not_filled_orders"),
        (fact(), "skipped_not_bot_owned_actionable"),
        (fact(client_order_id="bytelyst-p9-t1-exit"), "skipped_not_bot_owned_actionable"),
        (fact(client_order_id="bytelyst-p1-t1-exit", trade_id="t2"), "skipped_not_bot_owned_actionable"),
        ({**EXIT, "id": None}, "skipped_missing_order_id"),
        ({**EXIT, "filled_qty": None}, "skipped_missing_fill_data"),
        ({**EXIT, "filled_avg_price": None}, "skipped_missing_fill_data"),
        ({**EXIT, "filled_at": None}, "skipped_missing_fill_data"),
        ({**EXIT, "symbol": None}, "skipped_missing_fill_data"),
        ({**EXIT, "side": "hold"}, "skipped_missing_fill_data"),
        (fact(sub_tag="bytelyst:p1"), "skipped_unmapped_trade"),
        (fact(client_order_id="bytelyst-p1-t9"), "skipped_unmapped_trade"),
        (fact(client_order_id="bytelyst-p1-t9-exit"), "skipped_unmapped_trade"),
        (fact(trade_id="t2"), "skipped_unmapped_action"),
        ({**EXIT, "filled_at": NOW_MS - 4000}, "skipped_quiet"),
    ],
)
def test_an_order_that_is_not_inserted_is_counted_under_its_reason(listed: Record, counter: str) -> None:
    planned = plan(inputs_of([row(), row(order_id="e2", trade_id="t2", action=None)], [listed]))
    assert counted(planned)[counter] == 1
    assert planned.changes == ()


@pytest.mark.parametrize(
    ("listed", "finding"),
    [
        (fact(), []),
        (fact(client_order_id="bytelyst-p9-t1-exit"), []),
        (fact(client_order_id="bytelyst-p1-t1-exit", trade_id="t2"), [("contradictory_owner", "x1", True)]),
        ({**EXIT, "id": None}, [("missing_order_id", "", True)]),
        ({**EXIT, "filled_avg_price": None}, [("missing_fill_data", "x1", False)]),
        (fact(sub_tag="bytelyst:p1"), [("unmapped_trade", "x1", True)]),
        (fact(client_order_id="bytelyst-p1-t9-exit"), [("exit_of_unknown_trade", "x1", True)]),
        (fact(trade_id="t2"), [("unmapped_action", "x1", True)]),
    ],
)
def test_a_person_is_called_only_for_what_no_later_cycle_can_map(listed: Record, finding: list[Any]) -> None:
    assert found(plan(inputs_of([row(), row(order_id="e2", trade_id="t2", action=None)], [listed]))) == finding


def test_what_belongs_to_a_sibling_is_scanned_by_the_sibling_alone() -> None:
    facts = [EXIT, fact(id="x2", sub_tag="bytelyst:p2"), fact(id="x3"), fact(id="x4", sub_tag="bytelyst:p9")]
    planned = plan(inputs_of([row()], facts, profiles=["p1", "p2"]))
    assert counted(planned)["scanned_orders"] == 3
    assert counted(planned, "p2")["scanned_orders"] == 3
    assert counted(planned)["planned_rows"] == 1
    assert counted(planned, "p2")["skipped_unmapped_trade"] == 1


def test_an_unclear_order_is_a_finding_of_the_profiles_that_it_may_mean() -> None:
    keys = {"client_order_id": "bytelyst-p1-t1-exit", "sub_tag": "bytelyst:p2"}
    planned = plan(inputs_of([row()], [fact(**keys)], profiles=["p1", "p2", "p3"]))
    assert [(f.profile_id, f.reason) for f in planned.findings] == [
        ("p1", "contradictory_owner"),
        ("p2", "contradictory_owner"),
    ]


@pytest.mark.parametrize(
    "recorded",
    [
        exit_row(order_id="x1"),
        exit_row(order_id="bytelyst-p1-t1-exit"),
        exit_row(client_order_id="bytelyst-p1-t1-exit"),
        exit_row(order_id="x1", status="pending_new"),
        exit_row(order_id="x1", status="canceled"),
        exit_row(order_id="x1", qty="1"),
        exit_row(order_id=BOOKED),
        exit_row(order_id=BOOKED, qty="5"),
    ],
)
def test_an_order_that_the_ledger_has_is_never_inserted_again(recorded: Record) -> None:
    planned = plan(inputs_of([row(), recorded], [EXIT]))
    assert planned.changes == ()
    assert counted(planned)["skipped_existing"] == 1
    assert planned.findings == ()


def test_what_is_in_the_ledger_counts_as_existing_whatever_else_is_unknown_about_it() -> None:
    recorded = exit_row(order_id="x1", trade_id=None)
    assert counted(plan(inputs_of([row(), recorded], [{**EXIT, "filled_avg_price": None}])))["skipped_existing"] == 1


def test_an_order_that_a_profile_of_another_account_recorded_is_in_the_ledger() -> None:
    inputs = inputs_of([row()], [EXIT])
    marked = replace(inputs, order_facts=inputs.order_facts.assign(defect=RECORDED_ELSEWHERE))
    planned = plan(marked)
    assert (planned.changes, planned.findings) == ((), ())
    assert counted(planned)["skipped_existing"] == 1


def test_an_order_without_keys_that_a_backfill_row_stands_for_is_legacy() -> None:
    inputs = inputs_of([row(), exit_row(order_id=BOOKED)], [fact(client_order_id="by-hand")], profiles=["p1", "p2"])
    for profile_id in ("p1", "p2"):
        assert counted(plan(inputs), profile_id)["skipped_not_bot_owned_legacy_in_db"] == 1


def test_an_order_of_unclear_owner_that_a_row_names_is_legacy() -> None:
    recorded = exit_row(order_id="x1", trade_id="t2")
    planned = plan(inputs_of([row(), recorded], [EXIT]))
    assert (planned.changes, counted(planned)["skipped_not_bot_owned_legacy_in_db"]) == ((), 1)


def test_an_order_without_keys_belongs_to_the_profile_whose_row_names_it() -> None:
    recorded = exit_row(order_id="x1", trade_id=None, profile_id="p2")
    planned = plan(inputs_of([row(), recorded], [fact()], profiles=["p1", "p2"]))
    assert (counted(planned), counted(planned, "p2")["skipped_existing"]) == ({}, 1)


def test_before_the_baseline_orders_are_only_counted() -> None:
    policy = OrderCoveragePolicy(baseline_ms=SENT_MS + 1)
    planned = plan(inputs_of([row()], [EXIT, fact(id="x2"), fact(id="x3", sub_tag="bytelyst:p9")]), policy)
    assert planned.changes == ()
    assert counted(planned)["skipped_before_baseline"] == 1
    assert counted(planned)["skipped_not_bot_owned_before_baseline"] == 2
    at_baseline = plan(inputs_of([row()], [EXIT]), OrderCoveragePolicy(baseline_ms=SENT_MS))
    assert written(at_baseline) == [("exit_fill", "x1")]


def test_a_cycle_inserts_the_oldest_up_to_its_limit() -> None:
    facts = [fact(id=f"x{n}", trade_id="t1", filled_qty="1", filled_at=SENT_MS + (5 - n) * MINUTE) for n in range(5)]
    planned = plan(inputs_of([row()], facts), OrderCoveragePolicy(max_inserts=2))
    assert written(planned) == [("exit_fill", "x4"), ("exit_fill", "x3")]
    assert (counted(planned)["missing_in_db"], counted(planned)["skipped_max_insert_limit"]) == (5, 3)
    nothing = plan(inputs_of([row()], facts), OrderCoveragePolicy(max_inserts=0))
    assert (nothing.changes, counted(nothing)["skipped_max_insert_limit"]) == ((), 5)


def test_an_incomplete_reading_inserts_nothing_and_counts_nothing() -> None:
    rows = [row(), row(order_id="e2", profile_id="p2", trade_id="t2")]
    facts = [EXIT, fact(id="x2", trade_id="t2")]
    inputs = inputs_of(
        rows, facts, profiles=[profile("p1", evidence_defect="page cap"), profile("p2", account_id="a2")]
    )
    planned = plan(inputs)
    assert planned.skipped == {"p1": "evidence_incomplete"}
    assert (list(planned.counts), planned.changes) == (["p2"], ())
    assert planned.for_profile("p1", "b").changes == ()


def test_a_profile_that_is_only_context_gets_nothing() -> None:
    planned = plan(inputs_of([row()], [EXIT], profiles=[profile("p1", selected=False), "p2"]))
    assert (list(planned.counts), planned.changes, counted(planned, "p2")) == (["p2"], (), {})


# --- entries and exits of new trades ---


def test_the_entry_of_a_new_trade_is_inserted_before_its_exit_though_it_finished_later() -> None:
    facts = [
        fact(id="x2", client_order_id="bytelyst-p1-t9-exit", filled_at=SENT_MS),
        fact(id="x1", client_order_id="bytelyst-p1-t9-entry", side="buy", filled_qty="10", filled_at=SENT_MS + MINUTE),
    ]
    assert written(plan(inputs_of([], facts))) == [("entry_fill", "x1"), ("exit_fill", "x2")]


def test_an_exit_waits_while_the_entry_of_its_new_trade_is_not_recorded() -> None:
    facts = [
        fact(id="x2", client_order_id="bytelyst-p1-t9-exit"),
        fact(id="x1", client_order_id="bytelyst-p1-t9-entry", side="buy", status="partially_filled", qty="20"),
    ]
    planned = plan(inputs_of([], facts))
    assert planned.changes == ()
    assert found(planned) == [("entry_not_recorded_yet", "x2", False)]
    assert counted(planned)["held_back"] == 1


# --- what may be the same order ---


@pytest.mark.parametrize("changes", [{}, {"trade_id": None}, {"status": "unknown"}, {"timestamp": START_MS}])
def test_an_open_row_that_may_be_the_order_holds_it_back(changes: Record) -> None:
    waiting = exit_row(**{"order_id": "bot-7", "status": "pending_new", **changes})
    planned = plan(inputs_of([row(), waiting], [EXIT]))
    assert (planned.changes, found(planned)) == ((), [("open_row_may_be_this_order", "x1", False)])
    assert planned.findings[0].detail["rows"] == ["bot-7"]
    assert (counted(planned)["missing_in_db"], counted(planned)["held_back"]) == (1, 1)


@pytest.mark.parametrize(
    "changes", [{}, {"timestamp": SENT_MS + 4 * MINUTE}, {"trade_id": None}, {"status": "partially_filled"}]
)
def test_a_recorded_execution_under_another_id_that_may_be_the_order_is_for_a_person(changes: Record) -> None:
    recorded = exit_row(**{"order_id": "bot-7", **changes})
    planned = plan(inputs_of([row(), recorded], [EXIT]))
    assert (planned.changes, found(planned)) == ((), [("maybe_recorded_under_another_id", "x1", True)])


@pytest.mark.parametrize(
    "changes",
    [
        {"qty": "3"},
        {"timestamp": SENT_MS - 10 * MINUTE},
        {"trade_id": "t2"},
        {"side": "buy", "action": "ENTRY"},
        {"order_id": "x7"},
        {"status": "canceled"},
        {"status": "rejected"},
    ],
)
def test_a_row_that_can_not_be_the_order_holds_nothing_back(changes: Record) -> None:
    recorded = exit_row(**{"order_id": "bot-7", **changes})
    other = fact(id="x7", client_order_id="by-hand", status="canceled", filled_qty="0", filled_at=None)
    assert written(plan(inputs_of([row(), recorded], [EXIT, other]))) == [("exit_fill", "x1")]


@pytest.mark.parametrize(
    ("recorded", "listed", "reason"),
    [
        (row(symbol="MSFT"), EXIT, "conflicting_symbols"),
        (row(side="sell"), EXIT, "conflicting_sides"),
        (row(), fact(client_order_id="bytelyst-p1-t1-entry"), "conflicting_sides"),
        (row(), {**EXIT, "side": "buy"}, "conflicting_sides"),
    ],
)
def test_what_contradicts_the_trade_is_for_a_person(recorded: Record, listed: Record, reason: str) -> None:
    planned = plan(inputs_of([recorded], [listed]))
    assert (planned.changes, found(planned)) == ((), [(reason, "x1", True)])


# --- rows that stand in ---


def test_an_order_that_grew_beyond_its_backfill_rows_replaces_them() -> None:
    grown = {**EXIT, "filled_qty": "8", "filled_at": SENT_MS + MINUTE}
    planned = plan(inputs_of([row(), exit_row(order_id=BOOKED)], [grown]))
    assert written(planned) == [("exit_fill", "x1"), ("supersede", BOOKED)]
    insert, canceled = planned.changes
    assert insert.represents_e9 == 8 * E9
    assert canceled.values == {"status": "canceled"}
    assert canceled.expected is not None
    assert (canceled.expected["order_id"], canceled.expected["qty"]) == (BOOKED, "4")
    assert (canceled.exchange_order_id, canceled.represents_e9) == ("", 0)
    assert canceled.cause["exchange_order_id"] == "x1"


def test_the_consumption_of_a_batch_says_what_a_backfill_row_stands_for() -> None:
    stranger = exit_row(order_id="BFILL-of-a-batch")
    full = plan(inputs_of([row(), stranger], [EXIT], consumed=[("BFILL-of-a-batch", "x1", 4)]))
    assert (full.changes, counted(full)["skipped_existing"]) == ((), 1)
    grown = plan(inputs_of([row(), stranger], [{**EXIT, "filled_qty": "8"}], consumed=[("BFILL-of-a-batch", "x1", 4)]))
    assert written(grown) == [("exit_fill", "x1"), ("supersede", "BFILL-of-a-batch")]


def test_consumption_whose_row_is_gone_is_for_a_person() -> None:
    canceled = exit_row(order_id="BFILL-1", status="canceled")
    planned = plan(inputs_of([row(), canceled], [EXIT], consumed=[("BFILL-1", "x1", 4)]))
    assert (planned.changes, found(planned)) == ((), [("consumed_without_row", "x1", True)])


def test_a_row_that_a_batch_booked_the_order_on_under_another_id_is_the_order() -> None:
    inputs = inputs_of([row(), exit_row(order_id="bot-7")], [EXIT], consumed=[("bot-7", "x1", 4)])
    assert (plan(inputs).changes, counted(plan(inputs))["skipped_existing"]) == ((), 1)
    grown = inputs_of([row(), exit_row(order_id="bot-7")], [{**EXIT, "filled_qty": "8"}], consumed=[("bot-7", "x1", 4)])
    assert found(plan(grown)) == [("represented_by_another_row", "x1", True)]


def test_a_row_of_which_a_batch_has_said_what_order_it_is_can_not_be_another() -> None:
    rows = [row(), exit_row(order_id="bot-7")]
    facts = [EXIT, fact(id="x7", client_order_id="by-hand")]
    assert found(plan(inputs_of(rows, facts))) == [("maybe_recorded_under_another_id", "x1", True)]
    assert written(plan(inputs_of(rows, facts, consumed=[("bot-7", "x7", 4)]))) == [("exit_fill", "x1")]


def test_a_backfill_row_of_another_trade_is_left_alone() -> None:
    other = exit_row(order_id=backfill_id("p1", "t2", "x1", SENT_MS), trade_id="t2", qty="3")
    planned = plan(inputs_of([row(), row(order_id="e2", trade_id="t2"), other], [EXIT]))
    assert (planned.changes, found(planned)) == ((), [("represented_by_another_trade", "x1", True)])


def test_a_backfill_row_that_can_not_be_read_holds_its_order_back() -> None:
    planned = plan(inputs_of([row(), exit_row(order_id=BOOKED, quantity="9")], [EXIT]))
    assert (planned.changes, found(planned)) == ((), [("unreadable_backfill_row", "x1", True)])


def test_a_backfill_row_that_was_rolled_back_stands_for_nothing() -> None:
    assert written(plan(inputs_of([row(), exit_row(order_id=BOOKED, status="canceled")], [EXIT]))) == [
        ("exit_fill", "x1")
    ]


DUST = backfill_id("p1", "t1", "DUST-REMAINDER-t1", SENT_MS)


@pytest.mark.parametrize("synthetic", [f"{SYNTHETIC_PREFIX}1", DUST])
def test_a_row_that_closed_the_trade_without_an_execution_gives_way_to_the_exit_that_is_found(synthetic: str) -> None:
    rows = [row(qty="4"), exit_row(order_id=synthetic)]
    planned = plan(inputs_of(rows * 2, [EXIT]))
    assert written(planned) == [("exit_fill", "x1"), ("supersede", synthetic)]


def test_synthetic_exits_give_way_newest_first_and_only_while_the_trade_is_over_exited() -> None:
    rows = [
        row(),
        exit_row(order_id="PARITY-1", qty="3", timestamp=SENT_MS),
        exit_row(order_id="PARITY-2", qty="3", timestamp=SENT_MS + 2 * MINUTE),
        exit_row(order_id="PARITY-3", qty="3", timestamp=SENT_MS + MINUTE),
    ]
    assert written(plan(inputs_of(rows, [EXIT]))) == [("exit_fill", "x1"), ("supersede", "PARITY-2")]
    both = [EXIT, fact(id="x2", trade_id="t1", filled_qty="3", filled_at=SENT_MS + 3 * MINUTE)]
    assert written(plan(inputs_of(rows, both))) == [
        ("exit_fill", "x1"),
        ("supersede", "PARITY-2"),
        ("exit_fill", "x2"),
        ("supersede", "PARITY-3"),
    ]


def test_an_exit_that_fits_beside_a_synthetic_one_cancels_nothing() -> None:
    assert written(plan(inputs_of([row(), exit_row(order_id="PARITY-1", qty="6")], [EXIT]))) == [("exit_fill", "x1")]


def test_an_over_exit_by_real_orders_is_recorded_as_it_is() -> None:
    rows = [row(qty="4"), exit_row(order_id="x0")]
    assert written(plan(inputs_of(rows, [EXIT, fact(id="x0", trade_id="t1")]))) == [("exit_fill", "x1")]


def test_the_prefix_of_synthetic_exits_is_position_parity_s() -> None:
    assert position_parity.PARITY_PREFIX == SYNTHETIC_PREFIX


# --- invariants over random books ---

_KEYS: tuple[Record, ...] = (
    {},
    {"client_order_id": "bytelyst-p1-t1-exit"},
    {"client_order_id": "bytelyst-p1-t1-entry", "side": "buy"},
    {"client_order_id": "bytelyst-p1-t9-entry", "side": "buy"},
    {"client_order_id": "bytelyst-p1-t9-exit"},
    {"client_order_id": "bytelyst-p9-t1-exit"},
    {"client_order_id": "bytelyst-p2-t2-exit"},
    {"sub_tag": "bytelyst:p1"},
    {"sub_tag": "bytelyst:p2:t2"},
    {"trade_id": "t1", "sub_tag": "bytelyst:p2"},
)


def random_book(rnd: Random) -> tuple[list[Record], list[Record]]:
    facts: list[Record] = []
    for n in range(rnd.randint(1, 8)):
        keys = dict(rnd.choice(_KEYS))
        if "client_order_id" in keys and n % 2:
            keys["client_order_id"] += "-2" if keys["client_order_id"].endswith(("entry", "exit")) else ""
        facts.append(
            fact(
                **{
                    "id": f"x{n}",
                    "filled_qty": rnd.choice(("0", "1", "4", "8")),
                    "filled_at": SENT_MS + rnd.randint(0, 3) * MINUTE,
                    "status": rnd.choice(("filled", "canceled", "partially_filled")),
                    **keys,
                }
            )
        )
    rows: list[Record] = [row()] if rnd.random() < 0.8 else []
    rows += [row(order_id="e2", profile_id="p2", trade_id="t2")]
    for n, listed in enumerate(facts):
        owner = ("p2", "t2") if "p2" in str(listed.get("client_order_id")) else ("p1", "t1")
        kind = rnd.randrange(7)
        made = {"profile_id": owner[0], "trade_id": owner[1], "side": listed["side"], "timestamp": listed["filled_at"]}
        made["action"] = "ENTRY" if listed["side"] == "buy" else "EXIT"
        if kind == 0:
            rows.append(exit_row(**made, order_id=listed["id"], qty=listed["filled_qty"]))
        elif kind == 1:
            rows.append(
                exit_row(**made, order_id=backfill_id(*owner, listed["id"], listed["filled_at"]), qty=rnd.choice("148"))
            )
        elif kind == 2:
            rows.append(exit_row(**made, order_id=f"bot-{n}", status=rnd.choice(("pending_new", "filled", "canceled"))))
        elif kind == 3:
            rows.append(exit_row(**made, order_id=f"PARITY-{n}", qty=rnd.choice("148")))
    return rows, facts


def recorded_after(rows: Sequence[Record], planned: StagePlan) -> list[Record]:
    """The ledger after the plan was applied."""
    canceled = {change.order_id for change in planned.changes if not change.inserts}
    kept = [{**made, "status": "canceled"} if made["order_id"] in canceled else made for made in rows]
    return kept + [dict(change.values) for change in planned.changes if change.inserts]


@pytest.mark.parametrize("seed", range(40))
def test_of_any_book_every_order_is_counted_once_and_nothing_is_written_twice_or_invented(seed: int) -> None:
    rnd = Random(seed)
    rows, facts = random_book(rnd)
    inputs = inputs_of(rows, facts, profiles=["p1", "p2"])
    planned = plan(inputs)
    by_id = {listed["id"]: listed for listed in facts}
    inserted = [change for change in planned.changes if change.inserts]
    assert len({change.order_id for change in inserted}) == len(inserted)
    for change in inserted:
        source = by_id[change.order_id]
        assert change.values["qty"] == source["filled_qty"]
        assert change.values["price"] == source["filled_avg_price"]
        assert change.values["timestamp"] == str(source["filled_at"])
        assert str(change.values["side"]).lower() == source["side"]
        assert source["status"] in {"filled", "canceled"}
        assert change.order_id not in {made["order_id"] for made in rows}
        keys = str(source.get("client_order_id", "")) + str(source.get("sub_tag", ""))
        assert f"-{change.profile_id}-{change.trade_id}-" in keys or f":{change.profile_id}:{change.trade_id}" in keys
    # Order-independence, and what is written is not missing any more.
    shuffled = [list(rows) * 2, list(facts) * 2]
    for listed in shuffled:
        rnd.shuffle(listed)
    again = plan(inputs_of(*shuffled, profiles=["p2", "p1"]))
    assert changes_digest(again.changes) == changes_digest(planned.changes)
    assert again.counts == planned.counts
    assert again.findings == planned.findings
    after = plan(inputs_of(recorded_after(rows, planned), facts, profiles=["p1", "p2"]))
    assert [change for change in after.changes if change.order_id in {c.order_id for c in planned.changes}] == []


@pytest.mark.parametrize("seed", range(15))
def test_of_any_book_the_second_cycle_writes_only_what_the_first_made_possible(seed: int) -> None:
    rows, facts = random_book(Random(1000 + seed))
    for _ in range(4):
        planned = plan(inputs_of(rows, facts, profiles=["p1", "p2"]))
        if not planned.changes:
            break
        rows = recorded_after(rows, planned)
    assert plan(inputs_of(rows, facts, profiles=["p1", "p2"])).changes == ()
