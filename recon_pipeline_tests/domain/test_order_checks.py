"""What is remembered of stale orders: which are stale, who is asked next, what answers leave, and when people are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from recon_pipeline.domain.corrections import EventType, Severity
from recon_pipeline.domain.frames import NO_TIME, PROFILES, frame_of, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_checks import (
    SIGN,
    age_ms,
    checks_after,
    due_orders,
    is_stale,
    outcomes_after,
    persistent_events,
    sign_of,
    stale_checks,
    stale_rows,
)
from recon_pipeline.domain.order_readings import ledger_orders_frame
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline_tests.domain.order_status_worlds import DAY, KEY, POLICY, Round, old_row, outcome_of
from recon_pipeline_tests.domain.order_worlds import EARLIER, MINUTE, NOW, X1, Raw, World, executed, order, profile, row

HOUR = 60 * MINUTE
INTERVAL = POLICY.interval_ms
EARLY = 30_000
DENIED = frozenset({KEY})


def check(**changes: Any) -> tuple[Any, ...]:
    """A check of an order that was placed an hour ago and never asked about."""
    made: Raw = {"profile_id": "p1", "order_id": X1, "account_id": "a1", "client_order_id": "", "trade_id": "t1"}
    made |= {
        "symbol": "AAPL",
        "side": "BUY",
        "status": "pending_new",
        "placed_at_ms": EARLIER,
        "outcome": "not_checked",
    }
    made |= {"exchange_status": "", "detail": "", "failures": 0, "first_seen_ms": NOW - MINUTE}
    made |= {"checked_at_ms": NO_TIME, "next_check_ms": NOW - MINUTE, **changes}
    return tuple(made[name] for name in ORDER_CHECKS.names)


def checks(*rows: tuple[Any, ...]) -> pd.DataFrame:
    if not rows:
        return ORDER_CHECKS.empty()
    return frame_of(ORDER_CHECKS, dict(zip(ORDER_CHECKS.names, zip(*rows, strict=True), strict=True)))


def stale(*rows: Raw, before: pd.DataFrame | None = None, profiles: tuple[Raw, ...] = (profile(),)) -> list[Any]:
    members = frame_of(PROFILES, {name: [member[name] for member in profiles] for name in PROFILES.names})
    known = ORDER_CHECKS.empty() if before is None else before
    return list(rows_of(stale_rows(ledger_orders_frame(rows), members, known, POLICY, now_ms=NOW)))


def ids(found: Any) -> list[str]:
    return [each.order_id for each in found]


# Which rows are stale


@pytest.mark.parametrize(
    "status", ["pending_new", "new", "accepted", "partially_filled", "unknown", "", "held", "whatever"]
)
def test_any_row_that_may_execute_and_is_older_than_the_threshold_is_listed(status: str) -> None:
    assert ids(stale(row(status=status, filled_qty="3"))) == [X1]


@pytest.mark.parametrize(
    "ledger",
    [
        row(status="filled"),
        row(status="canceled"),
        row(status="rejected"),
        row(order_id="BFILL-1"),
        row(order_id="PARITY-1"),
        row(order_id=None),
        row(timestamp=NOW - 5 * MINUTE),
        row(created_at=iso_ms(NOW - 5 * MINUTE)),
        row(profile_id="p2"),
        row(profile_id="p9"),
    ],
)
def test_a_row_that_is_over_synthetic_young_or_not_of_a_selected_profile_is_not(ledger: Raw) -> None:
    assert stale(ledger, profiles=(profile(), profile("p2", selected=False))) == []


def test_the_threshold_is_passed_and_not_only_reached() -> None:
    assert ids(stale(row(timestamp=NOW - 5 * MINUTE - 1))) == [X1]


def test_a_row_that_does_not_say_when_it_was_placed_counts_as_old() -> None:
    (found,) = stale(row(timestamp=None))
    assert found.placed_at_ms == NO_TIME
    assert is_stale(found, POLICY, now_ms=NOW)


def test_a_row_seen_for_the_first_time_is_not_checked_and_due_now() -> None:
    (found,) = stale(row(client_order_id="c1", created_at=iso_ms(EARLIER - MINUTE)))
    assert found._asdict() == {
        "profile_id": "p1",
        "order_id": X1,
        "account_id": "a1",
        "client_order_id": "c1",
        "trade_id": "t1",
        "symbol": "AAPL",
        "side": "BUY",
        "status": "pending_new",
        "placed_at_ms": EARLIER - MINUTE,
        "outcome": "not_checked",
        "exchange_status": "",
        "detail": "",
        "failures": 0,
        "first_seen_ms": NOW,
        "checked_at_ms": NO_TIME,
        "next_check_ms": NOW,
    }


def test_what_is_remembered_of_a_row_stays_and_the_row_is_as_the_ledger_has_it_now() -> None:
    known: Raw = {"outcome": "failed", "detail": "HTTP 500", "failures": 3, "exchange_status": "new"}
    known |= {"first_seen_ms": NOW - HOUR, "checked_at_ms": NOW - MINUTE, "next_check_ms": NOW + HOUR}
    (found,) = stale(row(trade_id="t7"), before=checks(check(**known), check(order_id="gone")))
    assert {name: getattr(found, name) for name in known} == known
    assert found.trade_id == "t7"


def test_a_row_that_says_something_else_since_is_asked_about_now() -> None:
    known = checks(check(status="unknown", outcome="marked_unknown", next_check_ms=NOW + HOUR))
    assert stale(row(), before=known)[0].next_check_ms == NOW
    assert stale(row(status="unknown"), before=known)[0].next_check_ms == NOW + HOUR


def test_rows_are_listed_by_profile_and_key_and_each_once() -> None:
    rows = [
        row(profile_id="p2", order_id="a"),
        row(order_id="b"),
        row(order_id="b"),
        row(order_id="a"),
        row(order_id="a", qty="9"),
    ]
    found = stale(*rows, profiles=(profile("p2"), profile()))
    assert [(each.profile_id, each.order_id) for each in found] == [("p1", "a"), ("p1", "b"), ("p2", "a")]


def test_of_a_row_that_was_read_twice_with_differences_the_order_of_reading_decides_nothing() -> None:
    rows = [row(status="held"), row(status="accepted", trade_id="t9")]
    assert stale(*rows) == stale(*reversed(rows))


# Who is asked next


def due(*rows: tuple[Any, ...], limit: int | None = None) -> tuple[list[str], int]:
    found, left = due_orders(checks(*rows), POLICY, now_ms=NOW, limit=limit)
    return ids(rows_of(found)), left


def test_never_checked_orders_come_first_the_oldest_of_them_before_all_and_then_who_waited_longest() -> None:
    rows = [
        check(order_id="asked lately", checked_at_ms=NOW - MINUTE, placed_at_ms=NOW - 9 * HOUR),
        check(order_id="asked long ago", checked_at_ms=NOW - HOUR, placed_at_ms=NOW - 8 * HOUR),
        check(order_id="new", placed_at_ms=NOW - HOUR),
        check(order_id="newer", placed_at_ms=NOW - 6 * MINUTE),
        check(order_id="without a time", placed_at_ms=NO_TIME),
        check(order_id="not yet", next_check_ms=NOW + 1),
    ]
    assert due(*rows) == (["without a time", "new", "newer", "asked long ago", "asked lately"], 0)
    assert due(*reversed(rows), limit=2) == (["without a time", "new"], 3)


def test_a_run_asks_about_a_batch_and_says_how_many_are_left() -> None:
    rows = [check(order_id=f"o{number:03d}") for number in range(130)]
    found, left = due(*rows)
    assert (len(found), left) == (100, 30)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_run_that_asks_about_nothing_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="at least one order"):
        due(limit=limit)


def test_orders_that_wait_rightly_keep_no_other_order_from_its_turn() -> None:
    rows = [row(order_id=f"o{number}", timestamp=EARLIER - number) for number in range(6)]
    policy = replace(POLICY, batch_size=2)
    played, asked = Round(World(rows), policy), []
    for _ in range(6):
        facts = [order(id=f"o{number}", client_order_id=f"c{number}") for number in range(6)]
        played = replace(played, world=replace(played.world, orders=facts))
        asked += sorted(order_id for _, order_id in played.plan.asked)
        played = played.after(later_ms=INTERVAL)
    assert asked == ["o4", "o5", "o2", "o3", "o0", "o1"] * 2


# What answers leave


def left(played: Round) -> Any:
    (found,) = rows_of(played.checks)
    return found


def test_an_order_called_live_is_remembered_so_and_asked_again_after_an_interval() -> None:
    found = left(Round(World([row()], [order(status="held")])))
    assert (found.outcome, found.exchange_status, found.failures) == ("live", "held", 0)
    assert (found.checked_at_ms, found.next_check_ms) == (NOW, NOW + INTERVAL - EARLY)
    assert not is_stale(found, POLICY, now_ms=NOW + 2 * INTERVAL + MINUTE)
    assert is_stale(found, POLICY, now_ms=NOW + 2 * INTERVAL + MINUTE + 1)


def test_an_order_that_ended_is_forgotten_once_it_is_written() -> None:
    world = World([row()], [executed("10")])
    assert len(Round(world).checks) == 0
    assert left(Round(world, dry_run=True)).outcome == "differs"


def test_a_row_that_grew_and_still_executes_is_confirmed_live_under_its_new_status() -> None:
    found = left(Round(World([row()], [executed("3")])))
    assert (found.status, found.outcome, found.exchange_status) == ("partially_filled", "live", "partially_filled")


def test_a_row_that_was_marked_is_asked_about_now_and_then_and_waits_for_a_person() -> None:
    found = left(Round(World([old_row()], absent=DENIED)))
    assert (found.status, found.outcome) == ("unknown", "marked_unknown")
    assert found.next_check_ms == NOW + POLICY.retry_cap_ms - EARLY
    assert is_stale(found, POLICY, now_ms=NOW)


def test_a_dry_run_remembers_what_would_be_written_and_keeps_the_row_as_it_is() -> None:
    played = Round(World([old_row()], absent=DENIED), dry_run=True)
    found = left(played)
    assert (found.status, found.outcome) == ("pending_new", "differs")
    assert found.detail == "pending_new to unknown: order_unknown_for_a_day"
    assert played.counts() == {"checked": 1, "differs": 1, "not_found": 1}


def test_a_change_that_was_postponed_is_remembered_with_its_reason() -> None:
    played = Round(World([row()], [executed("10")]), postponed={KEY: "row_changed"})
    assert outcome_of(played.outcomes) == ("postponed", "filled", "row_changed", False)
    assert (left(played).outcome, left(played).detail) == ("postponed", "row_changed")


def test_a_profile_that_could_not_be_written_postpones_its_changes_and_keeps_its_other_answers() -> None:
    rows = [row(), row(order_id=X1[:-1] + "7", trade_id="t7")]
    facts = [executed("10"), order(id=X1[:-1] + "7", client_order_id="c7")]
    played = Round(World(rows, facts), failed_profiles={"p1": "lease_taken"})
    assert [checked.outcome.value for checked in played.outcomes.values()] == ["postponed", "live"]
    assert outcome_of(played.outcomes)[2] == "lease_taken"


def test_a_profile_that_was_not_even_planned_failed() -> None:
    world = World([row()], profiles=[profile(selected=False)])
    played = Round(world, asked=DENIED, failed_profiles={"p1": "rows unreadable"})
    assert outcome_of(played.outcomes) == ("failed", "", "rows unreadable", False)


def test_a_row_that_was_not_asked_about_stays_as_it_was_remembered() -> None:
    before = checks(check(outcome="missing", next_check_ms=NOW + 1, checked_at_ms=NOW - MINUTE))
    played = Round(World([row()]), before=before)
    assert played.plan.asked == frozenset()
    assert played.checks.equals(played.stale)


def test_a_row_that_is_gone_or_over_is_forgotten() -> None:
    assert len(Round(World([row(status="filled")]), before=checks(check())).checks) == 0
    asked = Round(World([row()], [executed("10")]))
    gone = replace(asked, world=replace(asked.world, rows=[]))
    assert len(gone.checks) == 0


def test_a_row_that_its_bot_closed_while_the_exchange_was_asked_is_forgotten() -> None:
    listed = Round(World([row()]))
    closed = Round(World([row(status="filled")], [executed("10")]), asked=DENIED)
    assert outcome_of(closed.outcomes)[0] == "in_line"
    assert len(checks_after(listed.stale, closed.plan, closed.outcomes, policy=POLICY, now_ms=NOW)) == 0


def test_failures_in_a_row_are_retried_after_one_two_four_intervals_up_to_the_cap() -> None:
    played, delays = Round(World([row()], unknown={KEY: "HTTP 503"})), []
    for number in range(7):
        found = left(played)
        assert (found.outcome, found.detail, found.failures) == ("failed", "HTTP 503", number + 1)
        delays.append((found.next_check_ms + EARLY - played.world.now_ms) // MINUTE)
        played = played.after(later_ms=found.next_check_ms - played.world.now_ms)
    assert delays == [5, 10, 20, 40, 60, 60, 60]
    after_all = replace(played, world=replace(played.world, unknown={}, orders=[order()]))
    assert (left(after_all).failures, left(after_all).outcome) == (0, "live")


def test_the_back_off_of_a_long_outage_is_the_cap() -> None:
    found = left(Round(World([row()], unknown={KEY: "x"}), before=checks(check(outcome="failed", failures=5_000))))
    assert found.next_check_ms == NOW + POLICY.retry_cap_ms - EARLY


def test_one_lost_answer_does_not_make_an_order_stale_that_was_just_called_live() -> None:
    called_live = check(outcome="live", exchange_status="new", checked_at_ms=NOW - INTERVAL)
    found = left(Round(World([row()], unknown={KEY: "timeout"}), before=checks(called_live)))
    assert (found.outcome, found.checked_at_ms, found.failures, found.detail) == ("live", NOW - INTERVAL, 1, "timeout")
    assert not is_stale(found, POLICY, now_ms=NOW)
    long_ago = check(outcome="live", exchange_status="new", checked_at_ms=NOW - 3 * INTERVAL)
    again = left(Round(World([row()], unknown={KEY: "timeout"}), before=checks(long_ago)))
    assert (again.outcome, again.checked_at_ms) == ("failed", NOW)


def test_a_dry_run_that_wrote_something_is_no_dry_run() -> None:
    played = Round(World([row()], [executed("10")]))
    with pytest.raises(ValueError, match="a dry run wrote"):
        outcomes_after(played.plan, applied=DENIED, postponed={}, failed_profiles={}, dry_run=True)


# What people see


@pytest.mark.parametrize(
    "outcome", ["not_checked", "differs", "missing", "marked_unknown", "held", "postponed", "failed"]
)
def test_every_old_order_that_is_not_confirmed_live_carries_the_sign(outcome: str) -> None:
    (found,) = rows_of(checks(check(outcome=outcome, checked_at_ms=NOW)))
    assert (is_stale(found, POLICY, now_ms=NOW), sign_of(found, POLICY, now_ms=NOW)) == (True, SIGN)


def test_an_order_that_waits_rightly_is_not_stale_however_old_it_is() -> None:
    (found,) = rows_of(checks(check(outcome="live", checked_at_ms=NOW, placed_at_ms=NOW - 30 * DAY)))
    assert (is_stale(found, POLICY, now_ms=NOW), sign_of(found, POLICY, now_ms=NOW)) == (False, "")
    assert persistent_events(checks(tuple(found)), {}, POLICY, now_ms=NOW) == []


def test_stale_orders_are_listed_the_oldest_first_and_those_without_a_time_by_when_they_were_seen() -> None:
    rows = [
        check(order_id="seen yesterday", placed_at_ms=NO_TIME, first_seen_ms=NOW - DAY),
        check(order_id="live", outcome="live", checked_at_ms=NOW),
        check(order_id="an hour"),
        check(order_id="two days", placed_at_ms=NOW - 2 * DAY),
    ]
    found = list(rows_of(stale_checks(checks(*rows), POLICY, now_ms=NOW)))
    assert ids(found) == ["two days", "seen yesterday", "an hour"]
    assert [age_ms(each, now_ms=NOW) // HOUR for each in found] == [48, 24, 1]


def test_orders_that_stay_stale_are_told_once_for_each_profile() -> None:
    rows = [
        check(detail="HTTP 500", outcome="failed"),
        check(order_id="o2", placed_at_ms=NOW - 3 * HOUR),
        check(order_id="o3", placed_at_ms=NOW - HOUR + 1),
        check(profile_id="p0", order_id="o4", account_id="a0"),
    ]
    first, second = persistent_events(checks(*rows), {"p1": "u1"}, POLICY, now_ms=NOW)
    assert (first.profile_id, first.user_id, first.account_id) == ("p0", "", "a0")
    assert first.message == "1 order is stale for longer than 60 minutes, the oldest for 60 minutes"
    assert (second.type, second.severity) == (EventType.RECONCILIATION_DEGRADED, Severity.WARN)
    assert second.message == "2 orders are stale for longer than 60 minutes, the oldest for 180 minutes"
    assert (second.user_id, second.scope, second.throttle_ms) == ("u1", "p1:stale_orders", POLICY.alert_throttle_ms)
    assert second.details["count"] == 2
    assert [told["order_id"] for told in second.details["orders"]] == ["o2", X1]  # type: ignore[attr-defined]


def test_an_event_names_the_oldest_orders_and_counts_all() -> None:
    rows = [check(order_id=f"o{number:02d}", placed_at_ms=NOW - 2 * HOUR - number) for number in range(40)]
    (event,) = persistent_events(checks(*rows), {}, POLICY, now_ms=NOW)
    named = [told["order_id"] for told in event.details["orders"]]  # type: ignore[attr-defined]
    assert (event.details["count"], named) == (40, [f"o{number:02d}" for number in range(39, 19, -1)])


def test_a_day_of_a_lost_order_is_missing_then_unknown_and_then_quiet() -> None:
    half_hourly = replace(POLICY, interval_ms=HOUR // 2, retry_cap_ms=6 * HOUR)
    played = Round(World([row(timestamp=NOW - 6 * MINUTE)], absent=DENIED), half_hourly)
    told = []
    for _ in range(80):
        told += [outcome_of(played.outcomes)[0]] if played.plan.asked else []
        played = played.after(later_ms=HOUR // 2)
    assert told == ["missing"] * 48 + ["marked_unknown"] * 3
    assert played.world.rows[0]["status"] == "unknown"
