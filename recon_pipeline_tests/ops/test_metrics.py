"""What /metrics says of a snapshot: names, labels, values, and how many series there may be."""

from __future__ import annotations

import datetime as dt
import time
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.totals import TotalName
from recon_pipeline.ops.board import Query, orders_of
from recon_pipeline.ops.metric_families import FAMILIES
from recon_pipeline.ops.metrics import render
from recon_pipeline.ops.snapshot import Row, Snapshot
from recon_pipeline_tests.ops.snapshots import NOW, account, ago, cycle, profile, snapshot

POLICY = OrderStatusPolicy()


def said(read: Snapshot, **more: Any) -> dict[tuple[str, ...], float]:
    """Every sample, by name and label values in the order of the label names."""
    text = render(read, policy=POLICY, now=NOW, **more).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(s.name, *(s.labels[name] for name in sorted(s.labels))): s.value for s in samples}
    assert len(found) == len(samples), "a series is there twice"
    return found


def total(name: TotalName, value: float, profile_id: str = "", account_id: str = "") -> Row:
    return {"name": name.value, "profile_id": profile_id, "account_id": account_id, "value": Decimal(str(value))}


def check(order_id: str, profile_id: str = "p1", **changed: Any) -> Row:
    """A row of recon.order_checks: placed two hours ago, never asked about, due now."""
    known = {"profile_id": profile_id, "order_id": order_id, "account_id": "a1", "client_order_id": "", "trade_id": ""}
    known |= {"symbol": "AAPL", "side": "BUY", "status": "pending_new", "exchange_status": "", "detail": ""}
    times = {"placed_at": ago(hours=2), "first_seen_at": ago(hours=1), "checked_at": None, "next_check_at": NOW}
    return known | times | {"outcome": "not_checked", "failures": 0} | changed


def stream(name: str, state: str = "listening", **changed: Any) -> Row:
    known = {"account_id": name, "state": state, "since": ago(hours=1), "seen_at": ago(seconds=5), "error": ""}
    return known | {"last_event_at": None, "connections": 3} | changed


def test_the_counters_of_the_source_have_its_names_and_what_the_tables_of_totals_say() -> None:
    totals = (
        total(TotalName.MISMATCH, 7, "p1"),
        total(TotalName.MISSING_FROM_EXCHANGE, 2, "p1"),
        total(TotalName.MISSING_IN_DB, 1, "p2"),
    )
    found = said(snapshot(totals=totals))
    assert {key: value for key, value in found.items() if key[0].startswith("reconciliation_")} == {
        ("reconciliation_mismatch_total", "p1"): 7,
        ("reconciliation_mismatch_total", "p2"): 0,
        ("reconciliation_missing_from_exchange_total", "p1"): 2,
        ("reconciliation_missing_from_exchange_total", "p2"): 0,
        ("reconciliation_missing_in_db_total", "p1"): 0,
        ("reconciliation_missing_in_db_total", "p2"): 1,
    }


def test_what_was_counted_of_a_profile_that_is_gone_stays_counted() -> None:
    found = said(snapshot(totals=(total(TotalName.MISMATCH, 7, "gone"),)))
    assert found["reconciliation_mismatch_total", "gone"] == 7


def test_an_empty_database_has_every_counter_and_no_sample_that_would_be_a_guess() -> None:
    empty = Snapshot(taken_at=ago(seconds=2), seconds=0.25)
    text = render(empty, policy=POLICY, now=NOW).decode()
    assert {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")} == {f.name for f in FAMILIES}
    found = {key[0]: value for key, value in said(empty).items()}
    assert found.pop("recon_snapshot_timestamp_seconds") == NOW.timestamp() - 2
    assert found.pop("recon_snapshot_duration_seconds") == 0.25
    assert (found.pop("recon_build_info"), found.pop("recon_order_status_enabled")) == (1, 1)
    assert set(found.values()) == {0}
    assert "recon_order_status_last_run_timestamp_seconds" not in found
    assert "recon_pending_batch_oldest_timestamp_seconds" not in found


def test_the_last_cycle_of_each_profile_is_there_with_what_it_found() -> None:
    bad = cycle(
        "p1",
        cycle_at=ago(minutes=4),
        last_clean_at=None,
        error="the exchange refused",
        no_go_trades=2,
        money_at_risk_usd=Decimal("1234.56"),
        parity_mismatch_trades=3,
        parity_quarantined_trades=1,
        parity_total_mismatch_notional_usd=Decimal("99.5"),
    )
    found = said(snapshot(cycles=(bad, cycle("p2", failed_stages=["order_parity"]))))
    assert found["recon_profile_last_cycle_timestamp_seconds", "p1"] == ago(minutes=4).timestamp()
    assert ("recon_profile_last_clean_cycle_timestamp_seconds", "p1") not in found
    assert found["recon_profile_last_clean_cycle_timestamp_seconds", "p2"] == ago(minutes=1).timestamp()
    assert found["recon_profile_cycle_failed", "p1"] == found["recon_profile_cycle_failed", "p2"] == 1
    assert found["recon_no_go_trades", "p1"] == 2
    assert found["recon_money_at_risk_usd", "p1"] == 1234.56
    assert found["recon_parity_mismatch_trades", "p1"] == 3
    assert found["recon_parity_quarantined_trades", "p1"] == 1
    assert found["recon_parity_mismatch_usd", "p1"] == 99.5
    assert (found["recon_no_go_trades", "p2"], found["recon_money_at_risk_usd", "p2"]) == (0, 0)


def test_a_profile_that_only_ever_found_its_lease_taken_has_no_last_cycle() -> None:
    columns = ("no_go_trades", "money_at_risk_usd", "parity_mismatch_trades", "parity_quarantined_trades")
    columns += ("parity_total_mismatch_notional_usd", "cycle_at", "last_clean_at", "error", "failed_stages")
    found = said(snapshot(cycles=(cycle("p1", **dict.fromkeys(columns)),)))
    assert found["recon_profile_enabled", "p1"] == 1
    assert not {
        key for key in found if key[1:] == ("p1",) and key[0].startswith(("recon_profile_cycle_failed", "recon_no"))
    }
    assert ("recon_profile_last_cycle_timestamp_seconds", "p1") not in found


def test_runs_of_the_cycle_have_a_number_a_sum_and_the_last_one() -> None:
    last = {"run_id": "r2", "began_at": ago(seconds=100), "ended_at": ago(seconds=60), "profiles": 1, "failed": 0}
    before = {"run_id": "r1", "began_at": ago(seconds=90), "ended_at": ago(seconds=80), "profiles": 1, "failed": 0}
    totals = (total(TotalName.CYCLE_RUNS, 12), total(TotalName.CYCLE_RUN_SECONDS, 340.5))
    found = said(snapshot(runs=(before, last), totals=totals, contentions=4))
    assert found["recon_cycle_duration_seconds_count",] == 12
    assert found["recon_cycle_duration_seconds_sum",] == 340.5
    assert found["recon_cycle_last_duration_seconds",] == 40
    assert found["recon_cycle_last_end_timestamp_seconds",] == ago(seconds=60).timestamp()
    assert found["recon_lease_contentions_total",] == 4


def test_pending_batches_waiting_cases_and_alerts_that_were_not_delivered_are_counted() -> None:
    batches = tuple(
        {"batch_id": f"b{n}", "profile_id": "p1", "kind": "EXIT", "updated_at": ago(minutes=n)} for n in (3, 50, 7)
    )
    waiting = tuple({"profile_id": name, "case_key": str(n)} for n, name in enumerate(("p1", "p1", "gone")))
    found = said(snapshot(pending_batches=batches, waiting=waiting, undelivered_events=6))
    assert found["recon_pending_batches",] == 3
    assert found["recon_pending_batch_oldest_timestamp_seconds",] == ago(minutes=50).timestamp()
    assert (found["recon_waiting_cases", "p1"], found["recon_waiting_cases", "p2"]) == (2, 0)
    assert found["recon_waiting_cases", "gone"] == 1
    assert found["recon_undelivered_alerts",] == 6


@pytest.mark.parametrize(
    ("scopes", "paused"), [({}, (0, 0)), ({"p1": "PAUSED"}, (1, 0)), ({"all": "PAUSED", "p2": "RUNNING"}, (1, 1))]
)
def test_trading_is_paused_where_all_trading_or_the_profile_is(scopes: dict[str, str], paused: tuple[int, int]) -> None:
    trading = tuple({"scope": scope, "state": state} for scope, state in scopes.items())
    found = said(snapshot(trading=trading))
    assert (found["recon_trading_paused", "p1"], found["recon_trading_paused", "p2"]) == paused


def test_a_pause_of_a_watchdog_is_told_apart() -> None:
    watchdogs = ({"profile_id": "p1", "paused_by_watchdog": True}, {"profile_id": "p2", "paused_by_watchdog": False})
    found = said(snapshot(watchdogs=watchdogs))
    assert (found["recon_watchdog_paused", "p1"], found["recon_watchdog_paused", "p2"]) == (1, 0)


def test_stale_orders_are_counted_by_profile_and_class_of_status_as_the_page_counts_them() -> None:
    confirmed = {"outcome": "live", "checked_at": ago(minutes=4), "next_check_at": NOW + dt.timedelta(minutes=1)}
    checks = (
        check("o1"),
        check("o2", status="partially_filled", outcome="failed", checked_at=ago(minutes=9), placed_at=ago(minutes=30)),
        check("o3", status="unknown", outcome="marked_unknown", checked_at=ago(minutes=9), placed_at=ago(hours=30)),
        check("o4", status="new", **confirmed),
        check("o5", "p2", **(confirmed | {"checked_at": ago(minutes=12), "placed_at": ago(hours=1)})),
        check("o6", "p2", placed_at=None, first_seen_at=ago(minutes=59)),
    )
    unchecked = ({key: check("o7", "p2")[key] for key in ("profile_id", "order_id", "status", "placed_at")},)
    read = snapshot(order_checks=checks, unchecked=unchecked)
    found = said(read)
    assert {key[1:]: value for key, value in found.items() if key[0] == "recon_stale_orders"} == {
        ("p1", "pending"): 1,
        ("p1", "partial"): 1,
        ("p1", "unknown"): 1,
        ("p2", "pending"): 3,
    }
    shown = orders_of(read, Query(), POLICY)
    assert shown.stale == sum(value for key, value in found.items() if key[0] == "recon_stale_orders")
    assert found["recon_persistent_stale_orders", "p1"] == 2
    assert found["recon_persistent_stale_orders", "p2"] == 2
    assert found["recon_oldest_stale_order_timestamp_seconds",] == ago(hours=30).timestamp()


def test_an_order_that_waits_rightly_is_a_series_of_zero_and_no_stale_order() -> None:
    waits = check("o1", status="new", outcome="live", checked_at=ago(minutes=4), placed_at=ago(days=20))
    found = said(snapshot(order_checks=(waits,)))
    assert found["recon_stale_orders", "p1", "pending"] == 0
    assert found["recon_persistent_stale_orders", "p1"] == 0
    assert ("recon_oldest_stale_order_timestamp_seconds",) not in found


def test_checks_that_should_have_been_made_two_intervals_ago_are_overdue() -> None:
    checks = tuple(check(f"o{n}", next_check_at=ago(minutes=n)) for n in (0, 9, 11, 12))
    unchecked = tuple(
        {"profile_id": "p1", "order_id": f"u{n}", "status": "new", "placed_at": ago(minutes=n)} for n in (6, 14, 16)
    )
    found = said(snapshot(order_checks=checks, unchecked=unchecked))
    assert found["recon_order_checks_overdue",] == 2 + 1


def test_the_sync_says_what_it_did_over_all_profiles_and_how_its_last_run_went() -> None:
    sync = {"run_id": "s", "began_at": ago(seconds=90), "ended_at": ago(seconds=60), "left_over": 17, "dry_run": True}
    totals = (
        total(TotalName.ORDER_STATUS_RUNS, 5),
        *(total(TotalName.ORDER_STATUS_CHECKED, 10, name) for name in ("p1", "p2")),
        total(TotalName.ORDER_STATUS_UPDATED, 4, "p1"),
        total(TotalName.ORDER_STATUS_NOT_FOUND, 3, "p2"),
        total(TotalName.ORDER_STATUS_FAILED, 2, "p2"),
    )
    found = said(snapshot(sync=sync, totals=totals))
    names = ("runs", "checked", "updated", "not_found", "failed")
    assert [found[f"recon_order_status_{name}_total",] for name in names] == [5, 20, 4, 3, 2]
    assert found["recon_order_status_last_run_timestamp_seconds",] == ago(seconds=60).timestamp()
    assert found["recon_order_status_last_run_duration_seconds",] == 30
    assert found["recon_order_status_left_over",] == 17


def test_each_account_shows_its_calls_its_budget_and_until_when_its_evidence_is_whole() -> None:
    accounts = (
        account("a1", covered_until=ago(minutes=3), rate_remaining=12),
        account("a2", complete=False, rate_limit=None, rate_remaining=None),
        account("a3", complete=None, covered_until=None),
    )
    profiles = tuple(profile(f"p{n}", account_id=f"a{n}") for n in (1, 2, 3))
    totals = (
        total(TotalName.CYCLE_API_CALLS, 100, account_id="a1"),
        total(TotalName.ORDER_STATUS_API_CALLS, 20, account_id="a1"),
    )
    found = said(snapshot(profiles=profiles, accounts=accounts, totals=totals))
    assert found["recon_exchange_api_calls_total", "a1", "cycle"] == 100
    assert found["recon_exchange_api_calls_total", "a1", "order_status"] == 20
    assert found["recon_exchange_api_calls_total", "a2", "cycle"] == 0
    assert (found["recon_exchange_rate_limit", "a1"], found["recon_exchange_rate_remaining", "a1"]) == (200, 12)
    assert (found["recon_evidence_complete", "a1"], found["recon_evidence_complete", "a2"]) == (1, 0)
    assert found["recon_evidence_covered_until_timestamp_seconds", "a1"] == ago(minutes=3).timestamp()
    absent = [("recon_exchange_rate_limit", "a2"), ("recon_exchange_rate_remaining", "a2")]
    absent += [("recon_evidence_complete", "a3")]
    assert not [key for key in absent if key in found]


def test_the_evidence_of_an_account_that_no_enabled_profile_uses_may_grow_old() -> None:
    found = said(
        snapshot(profiles=(profile("p1", enabled=False),), accounts=(account("a1", covered_until=ago(days=9)),))
    )
    assert not {key for key in found if key[0].startswith("recon_evidence")}


@pytest.mark.parametrize(
    ("row", "up", "wanted"),
    [
        (stream("a1"), 1, 1),
        (stream("a1", seen_at=ago(seconds=60)), 1, 1),
        (stream("a1", seen_at=ago(seconds=61)), 0, 1),
        (stream("a1", "connecting"), 0, 1),
        (stream("a1", "down"), 0, 1),
        (stream("a1", "stopped"), 0, 0),
    ],
)
def test_a_stream_is_up_while_it_listens_and_its_heart_beats(row: Row, up: int, wanted: int) -> None:
    found = said(snapshot(streams=(row,), totals=(total(TotalName.STREAM_EVENTS, 8, account_id="a1"),)))
    assert (found["recon_stream_up", "a1"], found["recon_stream_wanted", "a1"]) == (up, wanted)
    assert found["recon_stream_connections_total", "a1"] == 3
    assert found["recon_stream_events_total", "a1"] == 8


def test_a_database_that_can_not_be_read_is_said() -> None:
    assert said(snapshot())["recon_snapshot_failing",] == 0
    assert said(snapshot(), failing_since=ago(seconds=9))["recon_snapshot_failing",] == 1


def test_profiles_beyond_the_limit_are_put_together_and_no_number_is_lost() -> None:
    names = [f"p{n:03}" for n in range(50)]
    read = snapshot(
        profiles=tuple(profile(name, account_id=f"a-{name}") for name in names),
        cycles=tuple(
            cycle(name, cycle_at=ago(minutes=n), money_at_risk_usd=Decimal(n)) for n, name in enumerate(names)
        ),
        accounts=tuple(account(f"a-{name}", rate_remaining=n) for n, name in enumerate(names)),
        totals=tuple(total(TotalName.MISMATCH, n, name) for n, name in enumerate(names)),
        trading=({"scope": "all", "state": "PAUSED"},),
    )
    found = said(read, max_profiles=3)
    assert {key[1] for key in found if key[0] == "reconciliation_mismatch_total"} == {"p000", "p001", "p002", "_other"}
    assert found["reconciliation_mismatch_total", "_other"] == sum(range(3, 50))
    assert found["recon_money_at_risk_usd", "_other"] == sum(range(3, 50))
    assert found["recon_profile_last_cycle_timestamp_seconds", "_other"] == ago(minutes=49).timestamp()
    assert found["recon_trading_paused", "_other"] == 47
    assert found["recon_exchange_rate_remaining", "_other"] == 3
    assert found["recon_profiles_in_other",] == 47
    assert max(sum(key[0] == family.name for key in found) for family in FAMILIES) <= 8
    assert said(read, max_profiles=0)["reconciliation_mismatch_total", "_other"] == sum(range(50))


def test_a_new_profile_takes_no_series_from_one_that_has_it_unless_its_id_comes_first() -> None:
    before = said(snapshot(profiles=(profile("a"), profile("b"))), max_profiles=2)
    more = snapshot(profiles=(profile("a"), profile("b"), profile("c")), totals=(total(TotalName.MISMATCH, 1, "0"),))
    after = said(more, max_profiles=2)
    assert {key for key in before if key[0] == "reconciliation_mismatch_total"} < set(after)
    assert after["reconciliation_mismatch_total", "_other"] == 1


@pytest.mark.parametrize("name", ['quote"s', "back\\slash", "new\nline", "günther ∆", "_other", ""])
def test_a_name_is_a_label_whatever_is_in_it(name: str) -> None:
    read = snapshot(profiles=(profile(name),), cycles=(cycle(name),), accounts=(account(name),))
    assert said(read)["recon_profile_enabled", name] == 1


def test_names_follow_the_conventions() -> None:
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind == "counter"), family.name
        assert family.meaning.endswith("."), family.name
        assert not set(family.labels) - {"profile", "account", "status", "purpose", "version"}, family.name
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_a_thousand_profiles_are_rendered_in_a_fraction_of_the_time_between_two_readings() -> None:
    names = [f"p{n:04}" for n in range(1000)]
    read = snapshot(
        profiles=tuple(profile(name) for name in names),
        cycles=tuple(cycle(name) for name in names),
        totals=tuple(total(counter, 1, name) for name in names for counter in list(TotalName)[:6]),
    )
    began = time.process_time()
    text = render(read, policy=POLICY, now=NOW)
    assert time.process_time() - began < 1
    assert len(text) < 3_000_000
