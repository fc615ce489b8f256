"""What becomes of waiting events, judged without a database: which verdict wins, and how long anything waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_answers import Checked, CheckOutcome
from recon_pipeline.domain.order_event_verdicts import (
    FRESH_MS,
    WAIT_MS,
    WaitingEvent,
    needs_cycle,
    told_orders,
    verdict_before_planning,
    verdict_of_rows,
    wait,
)
from recon_pipeline.domain.order_events import CycleReason, EventOutcome

T0 = 1_800_000_000_000


def waiting(number: int = 1, name: str = "fill", order_id: str = "o1", *, age_ms: int = 0, **more: Any) -> WaitingEvent:
    order = {"id": order_id, "filled_qty": str(number), **more.pop("order", {})}
    return WaitingEvent(number, name, order_id, T0 - age_ms, more.pop("happened_ms", NO_TIME), {"order": order})


def owner(kind: str = "owned", profile: str = "p1", *named: str) -> Any:
    return SimpleNamespace(kind=kind, profile_id=profile, named_profiles=named)


ROW = {"profile_id": "p1", "order_id": "o1"}


def test_events_are_told_order_by_order_with_the_record_that_says_most():
    told = told_orders([waiting(2), waiting(9, order_id="o2"), waiting(5), waiting(3)], disputed=set())
    assert [(order.order_id, [event.id for event in order.events]) for order in told] == [
        ("o1", [2, 5, 3]),
        ("o2", [9]),
    ]
    assert told[0].record["filled_qty"] == "5"
    assert [order.reason for order in told] == [None, None]


def test_events_that_name_no_order_are_each_alone():
    told = told_orders([waiting(1, order_id=""), waiting(2, order_id="")], disputed=set())
    assert [(order.order_id, order.reason) for order in told] == [("", CycleReason.UNREADABLE)] * 2


def test_one_dispute_makes_every_event_of_its_order_need_a_cycle():
    [first, other] = told_orders([waiting(1), waiting(2, order_id="o2"), waiting(3, "replaced")], disputed={"o2"})
    assert (first.reason, other.reason) == (CycleReason.REPLACED, CycleReason.DISPUTED)


@pytest.mark.parametrize(
    ("received", "happened", "fresh"),
    [(0, NO_TIME, True), (FRESH_MS, NO_TIME, True), (FRESH_MS + 1, NO_TIME, False), (0, T0 - FRESH_MS - 1, False)],
)
def test_an_event_is_fresh_for_ten_seconds_after_it_happened(received, happened, fresh):
    [told] = told_orders([waiting(age_ms=received, happened_ms=happened)], disputed=set())
    assert told.is_fresh(T0) is fresh


@pytest.mark.parametrize(
    ("kind", "profile", "rows", "elsewhere", "outcome", "reason"),
    [
        ("owned", "p1", [ROW], False, None, None),
        ("contradictory", "", [ROW], False, None, None),
        ("owned", "p1", [], False, "waiting", CycleReason.NO_ROW),
        ("ambiguous", "", [], False, "waiting", CycleReason.NO_ROW),
        ("unattributed", "p1", [], False, "waiting", CycleReason.NO_ROW),
        ("unattributed", "", [], False, "waiting", None),
        ("foreign", "", [], False, "foreign", None),
        ("owned", "p1", [ROW], True, "needs_cycle", CycleReason.RECORDED_ELSEWHERE),
        ("owned", "p1", [ROW, {**ROW, "profile_id": "p2"}], False, "needs_cycle", CycleReason.OBJECTION),
    ],
)
def test_what_is_known_of_the_owner_decides_before_the_rows_do(kind, profile, rows, elsewhere, outcome, reason):
    [told] = told_orders([waiting()], disputed=set())
    verdict = verdict_before_planning(told, owner(kind, profile), rows, elsewhere=elsewhere)
    said = (None, None) if verdict is None else (verdict.outcome.value, verdict.reason)
    assert said == (outcome, reason)


def test_a_dispute_about_an_order_that_is_nobody_s_is_nobody_s():
    [told] = told_orders([waiting(name="trade_bust")], disputed=set())
    assert verdict_before_planning(told, owner("foreign", ""), [], elsewhere=False).outcome is EventOutcome.FOREIGN
    mine = verdict_before_planning(told, owner(), [], elsewhere=False)
    assert (mine.outcome, mine.reason, mine.profile_id) == (EventOutcome.NEEDS_CYCLE, CycleReason.DISPUTED, "p1")


def test_the_profile_is_the_rows_else_the_one_that_the_keys_name():
    [told] = told_orders([waiting(name="trade_bust")], disputed=set())

    def named(of: Any, *rows: dict[str, str]) -> str:
        return verdict_before_planning(told, of, rows, elsewhere=False).profile_id

    assert named(owner("contradictory", "", "p1", "p2"), {**ROW, "profile_id": "p2"}) == "p2"
    assert named(owner("ambiguous", "", "p1", "p2")) == ""
    assert named(owner("ambiguous", "", "p2")) == "p2"


@pytest.mark.parametrize(("age_ms", "waits"), [(WAIT_MS - 1, True), (WAIT_MS, False)])
def test_nothing_waits_for_more_than_a_minute(age_ms, waits):
    event = waiting(age_ms=age_ms)
    found = [wait(reason).of(event, T0).outcome for reason in (CycleReason.NO_ROW, None)]
    assert found == [EventOutcome.WAITING] * 2 if waits else [EventOutcome.NEEDS_CYCLE, EventOutcome.FOREIGN]


def of_rows(*outcomes: CheckOutcome | None, written: int = 0, dry_run: bool = False) -> EventOutcome:
    checked = {str(n): None if outcome is None else Checked(outcome) for n, outcome in enumerate(outcomes)}
    applied = [str(n) for n in range(written)]
    return verdict_of_rows(checked, profile_id="p1", applied=applied, not_written={}, dry_run=dry_run).outcome


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (CheckOutcome.LIVE, EventOutcome.IN_LINE),
        (CheckOutcome.IN_LINE, EventOutcome.IN_LINE),
        (CheckOutcome.OUTDATED, EventOutcome.IN_LINE),
        (CheckOutcome.HELD, EventOutcome.NEEDS_CYCLE),
        (CheckOutcome.POSTPONED, EventOutcome.WAITING),
        (CheckOutcome.DIFFERS, EventOutcome.WAITING),
        (CheckOutcome.FAILED, EventOutcome.WAITING),
        (CheckOutcome.MISSING, EventOutcome.WAITING),
        (None, EventOutcome.WAITING),
    ],
)
def test_what_was_made_of_the_row_is_what_becomes_of_the_event(outcome, expected):
    assert of_rows(outcome) is expected
    assert of_rows(outcome, written=1) is EventOutcome.WRITTEN


def test_a_dry_run_settles_what_differs():
    assert of_rows(CheckOutcome.DIFFERS, dry_run=True) is EventOutcome.DIFFERS
    assert of_rows(CheckOutcome.POSTPONED, dry_run=True) is EventOutcome.WAITING


@given(st.lists(st.sampled_from([*CheckOutcome, None]), min_size=1, max_size=4), st.integers(0, 4), st.booleans())
def test_an_event_is_settled_only_where_every_row_of_its_order_is(outcomes, written, dry_run):
    alone = {of_rows(outcome, dry_run=dry_run) for outcome in outcomes[written:]}
    together = of_rows(*outcomes, written=written, dry_run=dry_run)
    if EventOutcome.NEEDS_CYCLE in alone:
        assert together is EventOutcome.NEEDS_CYCLE
    elif EventOutcome.WAITING in alone:
        assert together is EventOutcome.WAITING
    else:
        assert together in {EventOutcome.DIFFERS, EventOutcome.WRITTEN, EventOutcome.IN_LINE}


def test_a_verdict_says_its_reason_and_its_detail():
    assert needs_cycle(CycleReason.OBJECTION, "conflicting_side").text == "objection: conflicting_side"
    assert wait(None, "no row").text == "no row"
