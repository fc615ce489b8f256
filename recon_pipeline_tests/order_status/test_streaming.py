"""What the events of a stream make of the ledger: forward only, each once, and a whole cycle for what one event can't prove."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases, release_leases
from recon_pipeline.ledger.order_events import profiles_to_reconcile
from recon_pipeline.sandbox.exchange.faults import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import world
from recon_pipeline_tests.order_status.stream_scene import Frame, StreamScene


@pytest.fixture
def stage(database_url: str) -> Iterator[StreamScene]:
    """A profile p1 on the account A1."""
    with world("A1", "A2") as exchange:
        exchange.sim.book.set_price("AAPL", Decimal(100))
        made = StreamScene(database_url, exchange)
        made.profile()
        yield made
        made.ledger.close()


def altered(frame: Frame, event: str, execution: str, **order: Any) -> Frame:
    """The frame with another event and another record of the order."""
    told = deepcopy(frame)
    told["data"] |= {"event": event, "execution_id": execution}
    told["data"]["order"] |= order
    return told


def test_a_fill_makes_the_row_say_quantity_price_and_time_at_once(stage: StreamScene):
    order = stage.place()
    key = stage.record(order)
    assert stage.hear() == ["written", "written"]
    row = stage.order(key)
    assert (row["status"], row["filled_qty"], row["qty"], row["price"]) == ("filled", 10, 10, 100)
    [fill] = [frame["data"] for frame in stage.frames if frame["data"]["event"] == "fill"]
    told = dt.datetime.fromisoformat(fill["order"]["filled_at"][:23] + "+00:00")
    assert row["filled_at"] == told
    [correction] = stage.corrections()
    assert correction["cause"]["rule"] == "order_executed_more"
    assert correction["cause"]["exchange_order_id"] == order.id
    assert [row["profile_id"] for row in stage.events_stored()] == ["p1", "p1"]
    assert stage.requests() == [], "an event that has just come needs no question"
    [batch] = stage.sql("SELECT kind, state FROM recon.batches")
    assert batch == {"kind": "order_status", "state": "APPLIED"}
    [position] = stage.sql("SELECT * FROM positions")
    assert position["trade_id"] == "t1"


def test_a_row_known_by_its_client_id_is_written_too(stage: StreamScene):
    order = stage.place()
    stage.row(order.client_order_id, trade_id="t1", side="BUY", action="ENTRY", status="pending_new", qty=10)
    assert stage.hear() == ["written", "written"]
    assert stage.says(order.client_order_id) == ("filled", 10, 100)


def test_events_told_again_are_stored_once_and_change_nothing(stage: StreamScene):
    stage.record(stage.place())
    stage.hear()
    before = stage.everything()
    assert stage.told(*stage.frames, *stage.frames) == 0
    assert stage.settle() == 0
    assert (stage.everything(), len(stage.corrections()), len(stage.outcomes())) == (before, 1, 2)


def test_a_partial_fill_grows_from_3_to_8_and_ends_with_what_was_executed(stage: StreamScene):
    order = stage.limit()
    key = stage.record(order)
    seen = []
    for qty in ("3", "5"):
        stage.execute(order, qty)
        stage.hear(*stage.frames)
        seen.append(stage.says(key)[:2])
    stage.cancel(order)
    stage.hear(*stage.frames)
    assert [*seen, stage.says(key)[:2]] == [("partially_filled", 3), ("partially_filled", 8), ("filled", 8)]
    assert stage.outcomes() == ["written"] * 4, (
        "the first is the order's being taken in, heard with its first execution"
    )
    assert [row["cause"]["executed"] for row in stage.corrections()] == ["3", "8", "8"]


@pytest.mark.parametrize("order_told", [(3, 2, 1, 0), (1, 3, 0, 2), (2, 0, 3, 1)])
def test_whatever_order_events_are_heard_in_the_row_ends_alike_and_never_goes_back(
    stage: StreamScene, order_told: tuple[int, ...]
):
    order = stage.limit()
    key = stage.record(order)
    for qty in ("3", "5", "2"):
        stage.execute(order, qty)
    executed = [Decimal(0)]
    for number in order_told:
        stage.hear(stage.frames[number])
        status, filled, _ = stage.says(key)
        executed.append(filled or Decimal(0) if status != "pending_new" else Decimal(0))
    assert executed == sorted(executed)
    assert stage.says(key) == ("filled", 10, 100)
    assert set(stage.outcomes()) <= {"written", "in_line"}


def test_a_cancel_without_executions_ends_the_row(stage: StreamScene):
    order = stage.limit()
    key = stage.record(order)
    stage.cancel(order)
    assert stage.hear() == ["written", "written"]
    assert stage.says(key)[0] == "canceled"
    assert stage.hear(altered(stage.frames[0], "new", "again")) == ["written", "written", "in_line"]
    assert stage.says(key)[0] == "canceled", "a row that is over stays so"


def test_an_order_that_waits_rightly_is_in_line(stage: StreamScene):
    key = stage.record(stage.limit())
    before = stage.everything()
    assert stage.hear() == ["in_line"]
    assert stage.everything() == before
    assert stage.says(key)[0] == "pending_new"


def test_an_event_waits_for_the_row_of_its_bot_and_is_written_when_it_is_there(stage: StreamScene):
    order = stage.place()
    assert stage.hear() == ["waiting", "waiting"]
    stage.wait(4 / 60)
    key = stage.record(order)
    assert stage.settle() == 0
    assert stage.outcomes() == ["written", "written"]
    assert stage.says(key) == ("filled", 10, 100)


def test_an_event_whose_row_has_not_come_after_a_minute_needs_a_cycle(stage: StreamScene):
    stage.place()
    stage.told(*stage.frames)
    writer = stage.writer()
    stage.wait(59 / 60)
    assert stage.settle(writer) == 2
    stage.wait(2 / 60)
    assert stage.settle(writer) == 0
    assert stage.outcomes() == ["needs_cycle", "needs_cycle"]
    assert stage.details() == ["no_row_after_a_minute: no row of the ledger names the order"] * 2
    assert {row["profile_id"] for row in stage.events_stored()} == {"p1"}


def test_what_needs_a_cycle_is_what_the_sensor_reads(stage: StreamScene):
    stage.sql("UPDATE profiles SET enabled = true")
    stage.record(stage.place())
    replaced = altered(stage.frames[0], "replaced", "r1", status="replaced", replaced_by="x")
    stage.told(replaced)
    stage.settle()
    stage.sql("UPDATE recon.order_events SET received_at = now(), handled_at = now()")
    with connect(stage.database_url, "recon_reader") as connection:
        assert [(row["profile_id"], row["events"]) for row in profiles_to_reconcile(connection)] == [("p1", 1)]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ("trade_bust", "execution_disputed: trade_bust"),
        ("trade_correct", "execution_disputed: trade_correct"),
        ("restated", "execution_disputed: restated"),
        ("replaced", "order_replaced: replaced"),
    ],
)
def test_what_may_have_shrunk_or_been_replaced_is_left_to_a_cycle(stage: StreamScene, event: str, reason: str):
    order = stage.limit()
    stage.record(order)
    stage.execute(order, "8")
    stage.hear()
    before = stage.everything()
    told = altered(stage.frames[-1], event, "b1", filled_qty="3")
    assert stage.hear(told)[-1] == "needs_cycle"
    assert stage.details()[-1] == reason
    assert stage.everything() == before


def test_a_fill_that_comes_after_its_bust_is_not_written(stage: StreamScene):
    order = stage.limit()
    key = stage.record(order)
    stage.execute(order, "8")
    fill = stage.frames[-1]
    stage.hear(altered(fill, "trade_bust", "b1", filled_qty="0"))
    assert stage.hear(fill) == ["needs_cycle", "needs_cycle"]
    assert stage.says(key)[0] == "pending_new"


def test_the_fill_of_a_replacement_whose_row_has_only_the_client_id_is_left_to_a_cycle(stage: StreamScene):
    order = stage.place()
    stage.row(order.client_order_id, trade_id="t1", side="BUY", action="ENTRY", status="pending_new", qty=10)
    told = altered(stage.frames[-1], "fill", "r1", replaces="an-earlier-order")
    assert stage.hear(told) == ["needs_cycle"]
    assert stage.details() == ["order_replaced: it replaced an-earlier-order"]


def test_what_speaks_against_a_change_needs_a_cycle_and_says_what(stage: StreamScene):
    key = stage.record(stage.place(), side="SELL")
    assert stage.hear() == ["needs_cycle", "needs_cycle"]
    assert stage.details()[0].startswith("objection: conflicting_side")
    assert stage.says(key)[0] == "pending_new"


def test_a_row_that_its_bot_has_just_touched_is_left_for_a_moment(stage: StreamScene):
    order = stage.place()
    key = stage.record(order, updated_at=stage.now, created_at=stage.now)
    assert stage.hear() == ["waiting", "waiting"]
    assert stage.says(key)[0] == "pending_new"
    stage.wait(6 / 60)
    assert stage.settle() == 0
    assert stage.says(key) == ("filled", 10, 100)


def test_an_order_of_another_bot_is_nobody_s_here_at_once_and_one_without_keys_after_a_minute(stage: StreamScene):
    stage.place(client_order_id="bytelyst-p9-t9-entry")
    stage.place(client_order_id="by-hand")
    stage.told(*stage.frames)
    stage.settle()
    assert stage.outcomes() == ["foreign", "foreign", "waiting", "waiting"]
    stage.wait(1)
    stage.settle()
    assert stage.outcomes() == ["foreign"] * 4
    assert all(not row["needs_cycle"] for row in stage.events_stored())


def test_an_order_that_another_account_s_profile_recorded_needs_a_cycle(stage: StreamScene):
    stage.profile("p2", "A2")
    key = stage.record(stage.place(), profile_id="p2")
    assert stage.hear() == ["needs_cycle", "needs_cycle"]
    assert stage.details() == ["recorded_by_another_account"] * 2
    assert stage.says(key)[0] == "pending_new"


def test_orders_of_several_profiles_of_an_account_are_each_written_for_their_own(stage: StreamScene):
    stage.profile("p2")
    keys = [
        stage.record(stage.place("t1")),
        stage.record(stage.place("t2", client_order_id="bytelyst-p2-t2-entry"), "t2", profile_id="p2"),
    ]
    assert stage.hear() == ["written"] * 4
    assert [stage.says(key)[0] for key in keys] == ["filled", "filled"]
    assert [row["profile_id"] for row in stage.corrections()] == ["p1", "p2"]


def test_a_dry_run_says_that_it_would_write_and_writes_nothing(stage: StreamScene):
    stage.record(stage.place())
    before = stage.everything()
    assert stage.hear(dry_run=True) == ["differs", "differs"]
    assert stage.everything() == before
    assert stage.corrections() == []


def test_a_profile_that_a_cycle_works_on_is_left_until_its_lease_is_free(stage: StreamScene):
    key = stage.record(stage.place())
    with connect(stage.database_url, WRITER) as connection:
        leases = acquire_leases(connection, ["p1"], owner="a cycle", ttl_seconds=60)
        assert stage.hear() == ["waiting", "waiting"]
        assert stage.says(key)[0] == "pending_new"
        release_leases(connection, leases.values())
    assert stage.settle() == 0
    assert stage.says(key)[0] == "filled"


def test_a_lease_that_is_not_free_for_a_minute_leaves_the_event_to_a_cycle(stage: StreamScene):
    stage.record(stage.place())
    with connect(stage.database_url, WRITER) as connection:
        acquire_leases(connection, ["p1"], owner="a cycle", ttl_seconds=600)
        stage.told(*stage.frames)
        stage.wait(1)
        stage.settle()
    assert stage.outcomes() == ["needs_cycle", "needs_cycle"]
    assert stage.details()[0] == "not_written_in_a_minute: another run works on the profile"


def test_what_an_old_event_said_is_asked_again_before_it_is_written(stage: StreamScene):
    """Events of a process that died long ago: the order has moved on since."""
    order = stage.limit()
    key = stage.record(order)
    stage.execute(order, "3")
    stage.told(*stage.frames)
    stage.execute(order, "5")
    stage.wait(90)
    stage.settle()
    assert stage.outcomes() == ["written", "written"]
    assert stage.says(key)[:2] == ("partially_filled", 8)
    assert stage.requests() == [f"/v2/orders/{order.id}"]


def test_an_old_event_about_which_the_exchange_says_nothing_is_not_written(stage: StreamScene):
    key = stage.record(stage.place())
    stage.told(*stage.frames)
    stage.wait(0.5)
    stage.world.sim.faults.requests.clear()
    stage.world.sim.faults.add(Fault(FaultKind.ERROR, status=503, path="/v2/orders*"))
    writer = stage.writer()
    assert stage.settle(writer) == 2
    asked = len(stage.requests())
    stage.wait(1 / 60)
    assert stage.settle(writer) == 2
    assert len(stage.requests()) == asked, "asked again after ten seconds at the soonest"
    stage.wait(1)
    stage.settle(writer)
    assert stage.outcomes() == ["needs_cycle", "needs_cycle"]
    assert stage.details()[0].startswith("not_written_in_a_minute: ")
    assert stage.says(key)[0] == "pending_new"


def test_an_event_that_can_t_be_read_needs_a_cycle_of_the_account(stage: StreamScene):
    for data in ({"event": "fill"}, {"event": "fill", "order": {"id": "x", "qty": "ten"}}, "?", {"order": [1]}):
        stage.told({"stream": "trade_updates", "data": data})
    stage.settle()
    stage.wait(2)
    stage.settle()
    assert stage.outcomes()[0] == stage.outcomes()[2] == stage.outcomes()[3] == "needs_cycle"
    assert stage.outcomes()[1] == "foreign"
    assert stage.events_stored()[0]["profile_id"] == ""


def test_one_order_that_can_t_be_handled_leaves_the_others_alone(stage: StreamScene, monkeypatch):
    """A defect in the handling of one order: the others are written, that one is left to a cycle."""
    keys = [stage.record(stage.place(trade), trade) for trade in ("t1", "t2")]
    first = stage.frames[0]["data"]["order"]["id"]
    own = StreamScene.writer(stage).__class__._owners

    def broken(self: Any, told: Any, *rest: Any) -> Any:
        if any(order.order_id == first for order in told):
            raise ZeroDivisionError("a defect")
        return own(self, told, *rest)

    monkeypatch.setattr("recon_pipeline.order_status.streaming.StreamWriter._owners", broken)
    assert stage.hear() == ["needs_cycle", "needs_cycle", "written", "written"]
    assert stage.details()[0] == "failed: ZeroDivisionError: a defect"
    assert [stage.says(key)[0] for key in keys] == ["pending_new", "filled"]
