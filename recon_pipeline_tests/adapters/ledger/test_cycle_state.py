"""What one cycle remembers, the next one reads exactly, whichever process it runs in; without the lease nothing is saved."""

from __future__ import annotations

import dataclasses
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.cycle.outcome import ReconciliationReport
from recon_pipeline.domain.cycle_frames import ORDER_CONFIRMATIONS, PARITY_STATES
from recon_pipeline.domain.frames import frame_of, rows_of
from recon_pipeline.domain.watchdog import Pause, WatchdogState
from recon_pipeline.ledger.boards import cycle_board, lease_board, watchdog_board
from recon_pipeline.ledger.cycle_state import (
    contentions,
    latest_reports,
    lease_holders,
    note_contention,
    read_cycle_state,
    save_cycle_state,
    save_reports,
    standing_pauses,
)
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.leases import acquire_leases

T = 1_714_564_800_123


@pytest.fixture
def reader(database_url):
    """A cycle saves its state as the role that may not write the bots' tables."""
    with connect(database_url, "recon_reader", lock_timeout_ms=2000) as connection:
        yield connection


def lease(connection, profile_id="p1", owner="run-1"):
    return acquire_leases(connection, [profile_id], owner=owner, ttl_seconds=60)[profile_id]


def confirmations(*rows, profile_id="p1"):
    columns = ("profile_id", "order_id", "confirmations", "first_missing_ms", "last_counted_ms")
    whole = [(profile_id, *row) for row in rows]
    return frame_of(ORDER_CONFIRMATIONS, {name: [row[n] for row in whole] for n, name in enumerate(columns)})


def parity(*trades, profile_id="p1", **more):
    rows = [
        {
            "profile_id": profile_id,
            "trade_id": trade,
            "symbol": "PEPE/USD",
            "signature": "5:0",
            "confirmations": 2,
            "first_seen_ms": T,
            "last_counted_ms": T + 1,
            "open_e9": -(10**25) - 1,
            "position_e9": 1,
            "notional_usd": Decimal("0.000000000000012345"),
            "quarantined": True,
            "reason": "unattributed",
            "root_cause": "",
            **more,
        }
        for trade in trades
    ]
    return frame_of(PARITY_STATES, {name: [row[name] for row in rows] for name in PARITY_STATES.names})


WATCHDOG = WatchdogState(
    "p1",
    triggered_ms=T,
    paused_ms=T + 1,
    clean_cycles=3,
    last_clean_ms=T + 2,
    resumed_ms=T + 3,
    mismatch_usd=Decimal("1234.000000001"),
    capital_usd=Decimal("2000.50"),
    reason="over_limit",
)


def save(connection, held, **state):
    return save_cycle_state(connection, held, **({"confirmations": None, "parity": None, "watchdog": None} | state))


def counts(state):
    return [(row.profile_id, row.order_id, row.confirmations) for row in rows_of(state.confirmations)]


def test_a_state_is_read_as_it_was_saved_to_the_last_digit_and_millisecond(reader):
    assert save(
        reader,
        lease(reader),
        confirmations=confirmations(("o2", 1, T, T), ("o1", 2, T, T + 1)),
        parity=parity("t1"),
        watchdog=WATCHDOG,
    )
    state = read_cycle_state(reader, ["p1", "p2"])
    assert [tuple(row) for row in rows_of(state.confirmations)] == [("p1", "o1", 2, T, T + 1), ("p1", "o2", 1, T, T)]
    assert [tuple(row) for row in rows_of(state.parity)] == [tuple(row) for row in rows_of(parity("t1"))]
    assert list(state.parity.columns) == PARITY_STATES.names
    assert state.watchdogs == {"p1": WATCHDOG, "p2": WatchdogState("p2")}
    assert all(getattr(WATCHDOG, field.name) is not None for field in dataclasses.fields(WatchdogState))


def test_an_unknown_price_stays_unknown(reader):
    save(reader, lease(reader), parity=parity("t1", notional_usd=None, open_e9=5), watchdog=WatchdogState("p1"))
    state = read_cycle_state(reader, ["p1"])
    assert [(row.notional_usd, row.open_e9) for row in rows_of(state.parity)] == [(None, 5)]
    assert str(state.parity["open_e9"].dtype) == "int64"
    assert state.watchdogs == {"p1": WatchdogState("p1")}


def test_a_row_that_is_absent_from_the_new_state_is_forgotten_and_another_profiles_is_not(reader):
    first, second = lease(reader), lease(reader, "p2")
    save(reader, first, confirmations=confirmations(("o1", 1, T, T), ("o2", 1, T, T)), parity=parity("t1", "t2"))
    save(
        reader,
        second,
        confirmations=confirmations(("o1", 7, T, T), profile_id="p2"),
        parity=parity("t1", profile_id="p2"),
    )
    save(reader, first, confirmations=confirmations(("o2", 2, T, T + 5)), parity=parity("t2", confirmations=3))
    state = read_cycle_state(reader, ["p1", "p2"])
    assert counts(state) == [("p1", "o2", 2), ("p2", "o1", 7)]
    assert [(row.profile_id, row.trade_id, row.confirmations) for row in rows_of(state.parity)] == [
        ("p1", "t2", 3),
        ("p2", "t1", 2),
    ]
    save(reader, first, confirmations=ORDER_CONFIRMATIONS.empty(), parity=PARITY_STATES.empty())
    state = read_cycle_state(reader, ["p1"])
    assert (len(state.confirmations), len(state.parity)) == (0, 0)
    assert state.confirmations.dtypes.equals(ORDER_CONFIRMATIONS.empty().dtypes)


def test_a_frozen_profile_keeps_its_counts(reader):
    held = lease(reader)
    save(reader, held, confirmations=confirmations(("o1", 2, T, T)), parity=parity("t1"), watchdog=WATCHDOG)
    assert save(reader, held)
    state = read_cycle_state(reader, ["p1"])
    assert counts(state) == [("p1", "o1", 2)]
    assert (len(state.parity), state.watchdogs["p1"]) == (1, WATCHDOG)


def test_a_run_that_lost_its_lease_saves_nothing(reader):
    first = lease(reader)
    save(reader, first, confirmations=confirmations(("o1", 1, T, T)), watchdog=WATCHDOG)
    reader.execute("UPDATE recon.leases SET expires_at = clock_timestamp()")
    second = lease(reader, owner="run-2")
    lost = {"confirmations": confirmations(("o1", 9, T, T)), "parity": parity("t1"), "watchdog": WatchdogState("p1")}
    assert not save(reader, first, **lost)
    state = read_cycle_state(reader, ["p1"])
    assert (counts(state), len(state.parity), state.watchdogs["p1"]) == ([("p1", "o1", 1)], 0, WATCHDOG)
    assert save(reader, second, **lost)
    assert counts(read_cycle_state(reader, ["p1"])) == [("p1", "o1", 9)]


def test_a_state_that_cannot_be_saved_leaves_the_one_before_whole(reader):
    held = lease(reader)
    save(reader, held, confirmations=confirmations(("o1", 1, T, T)), parity=parity("t1"))
    with pytest.raises(psycopg.errors.CheckViolation):
        save(reader, held, confirmations=confirmations(("o2", 5, T, T)), parity=parity("t1", confirmations=0))
    assert counts(read_cycle_state(reader, ["p1"])) == [("p1", "o1", 1)]


@pytest.mark.parametrize(
    "foreign",
    [
        {"confirmations": confirmations(("o1", 1, T, T), profile_id="p2")},
        {"parity": parity("t1", profile_id="p2")},
        {"watchdog": WatchdogState("p2")},
    ],
    ids=["confirmations", "parity", "watchdog"],
)
def test_a_lease_covers_its_own_profile_only(reader, foreign):
    with pytest.raises(ValueError, match="lease of p1 does not cover the state of p2"):
        save(reader, lease(reader), **foreign)


def test_a_quiet_cycle_writes_no_row(reader):
    held = lease(reader)
    state = {"confirmations": confirmations(("o1", 1, T, T)), "parity": parity("t1"), "watchdog": WATCHDOG}
    save(reader, held, **state)

    def versions():
        query = (
            "SELECT xmin::text FROM recon.order_confirmations UNION ALL SELECT xmin::text FROM recon.parity_states "
            "UNION ALL SELECT xmin::text FROM recon.watchdogs"
        )
        return [row["xmin"] for row in reader.execute(query)]

    before = versions()
    save(reader, held, **state)
    assert versions() == before


def test_every_pause_that_stands_is_found_with_its_source_and_age(reader, database_url):
    with connect(database_url, "recon_writer") as writer:
        for scope, state, source, since in (
            ("all", "PAUSED", "ops", "2026-11-20 12:00:00.123+00"),
            ("p1", "PAUSED", "recon_parity_watchdog", "2026-11-20 12:00:01+00"),
            ("p2", "RUNNING", "ops", "2026-11-20 12:00:00+00"),
        ):
            writer.execute(
                "INSERT INTO public.trading_control (scope, state, source, since) VALUES (%s, %s, %s, %s)",
                [scope, state, source, since],
            )
    assert standing_pauses(reader) == [
        Pause("all", "ops", 1_795_176_000_123),
        Pause("p1", "recon_parity_watchdog", 1_795_176_001_000),
    ]


# -- reports


def report(profile_id="p1", run_id="run-1", cycle_at_ms=T, **more):
    return {
        "profile_id": profile_id,
        "run_id": run_id,
        "cycle_at_ms": cycle_at_ms,
        "processed": True,
        "clean": True,
        "mismatch_count": 0,
        "skipped_reason": "",
        "parity_max_mismatch_notional_usd": Decimal("1.50"),
        "no_go_samples": ({"reason": "no_price"},),
        **more,
    }


def test_a_report_is_a_change_only_where_its_content_differs_from_the_last_one(reader):
    assert save_reports(reader, [report(), report("p2")]) == {"p1": True, "p2": True}
    later = {"run_id": "run-2", "cycle_at_ms": T + 1}
    same = report(**later, parity_max_mismatch_notional_usd=Decimal("1.5"))
    assert save_reports(reader, [same, report("p2", **later, mismatch_count=1)]) == {"p1": False, "p2": True}
    back = {"run_id": "run-3", "cycle_at_ms": T + 2}
    assert save_reports(reader, [report(**back), report("p2", **back)]) == {"p1": False, "p2": True}


def test_two_cycles_with_the_same_counters_differ_where_their_plans_do(reader):
    save_reports(reader, [report()], contents={"p1": "digest one"})
    again = report(run_id="run-2", cycle_at_ms=T + 1)
    assert save_reports(reader, [again], contents={"p1": "digest two"}) == {"p1": True}
    third = report(run_id="run-3", cycle_at_ms=T + 2)
    assert save_reports(reader, [third], contents={"p1": "digest two"}) == {"p1": False}


def test_the_latest_report_is_the_newest_that_decided_anything(reader):
    save_reports(reader, [report(mismatch_count=4)])
    contended = report(run_id="run-2", cycle_at_ms=T + 9, processed=False, clean=False, skipped_reason="lease_held")
    assert save_reports(reader, [contended]) == {"p1": False}
    latest = latest_reports(reader, ["p1", "p2"])
    assert list(latest) == ["p1"]
    assert (latest["p1"]["run_id"], latest["p1"]["report"]["mismatch_count"]) == ("run-1", 4)
    assert latest["p1"]["report"]["no_go_samples"] == [{"reason": "no_price"}]
    assert latest["p1"]["report"]["parity_max_mismatch_notional_usd"] == "1.5"
    # The other scheduler's contention in between makes no change of the next quiet cycle.
    assert save_reports(reader, [report(run_id="run-3", cycle_at_ms=T + 10, mismatch_count=4)]) == {"p1": False}


def test_a_run_that_reports_again_replaces_what_it_said_and_is_not_compared_with_itself(reader):
    save_reports(reader, [report()])
    run = {"run_id": "run-2", "cycle_at_ms": T + 1}
    assert save_reports(reader, [report(**run, mismatch_count=1)]) == {"p1": True}
    assert save_reports(reader, [report(**run)]) == {"p1": False}
    rows = reader.execute("SELECT run_id, report ->> 'mismatch_count' AS n FROM recon.cycle_reports ORDER BY run_id")
    assert [(row["run_id"], row["n"]) for row in rows] == [("run-1", "0"), ("run-2", "0")]


# -- leases and contention


def test_contention_is_counted_with_its_holder(reader):
    held = lease(reader, owner="run-9")
    lease(reader, "p3", owner="run-9")
    reader.execute("UPDATE recon.leases SET expires_at = clock_timestamp() WHERE profile_id = 'p3'")
    assert lease_holders(reader, ["p1", "p2", "p3"]) == {"p1": held}
    assert [note_contention(reader, "p1", "run-8"), note_contention(reader, "p1", "run-9")] == [1, 2]
    found = contentions(reader, ["p1", "p2"])
    assert list(found) == ["p1"]
    assert (found["p1"].contentions, found["p1"].last_holder) == (2, "run-9")


# -- boards


def test_the_lease_board_shows_who_holds_what_and_who_let_it_expire(reader):
    lease(reader, "p1", owner="run-1")
    lease(reader, "p2", owner="run-2")
    reader.execute("UPDATE recon.leases SET expires_at = clock_timestamp() WHERE profile_id = 'p2'")
    note_contention(reader, "p1", "run-1")
    note_contention(reader, "p4", "run-7")
    shown = {row["profile_id"]: row for row in lease_board(reader)}
    assert {key: (row["held"], row["owner"], row["contentions"]) for key, row in shown.items()} == {
        "p1": (True, "run-1", 1),
        "p2": (False, "run-2", 0),
        "p4": (False, None, 1),
    }
    assert 50 < shown["p1"]["seconds_left"] <= 60
    assert (shown["p2"]["seconds_left"], shown["p4"]["last_contended_with"]) == (None, "run-7")


def test_the_watchdog_board_shows_the_pause_that_holds_for_the_profile(reader, database_url):
    for name in ("p1", "p2", "p3"):
        save(reader, lease(reader, name), watchdog=dataclasses.replace(WATCHDOG, profile_id=name))
    with connect(database_url, "recon_writer") as writer:
        set_state = (
            "INSERT INTO public.trading_control (scope, state, source, since, reason) VALUES (%s, %s, %s, now(), %s)"
        )
        writer.execute(set_state, ["p1", "PAUSED", "recon_parity_watchdog", "money out of line"])
        writer.execute(set_state, ["p2", "RUNNING", "a person", "fine"])
        writer.execute(set_state, ["all", "RUNNING", "a person", ""])
        shown = {row["profile_id"]: row for row in watchdog_board(reader)}
        assert {key: (row["trading"], row["trading_source"]) for key, row in shown.items()} == {
            "p1": ("PAUSED", "recon_parity_watchdog"),
            "p2": ("RUNNING", "a person"),
            "p3": ("RUNNING", "a person"),
        }
        assert (shown["p1"]["paused_by_watchdog"], shown["p1"]["mismatch_ratio"]) == (True, Decimal("0.6168"))
        writer.execute("UPDATE public.trading_control SET state = 'PAUSED', source = 'ops' WHERE scope = 'all'")
        assert {row["trading_source"] for row in watchdog_board(reader)} == {"ops"}


def test_the_cycle_board_shows_the_latest_report_of_each_profile(reader):
    save_reports(reader, [report("p1"), report("p2", mismatch_count=2, clean=False)])
    worse = {"run_id": "run-2", "cycle_at_ms": T + 1, "clean": False, "failed_stages": ("order_parity",)}
    save_reports(reader, [report("p1", **worse, waiting_for_person=3, money_at_risk_usd=Decimal("99.5"))])
    save_reports(
        reader, [report("p2", run_id="run-3", cycle_at_ms=T + 2, processed=False, skipped_reason="lease_held")]
    )
    note_contention(reader, "p2", "run-1")
    shown = {row["profile_id"]: row for row in cycle_board(reader)}
    assert {key: (row["run_id"], row["mismatch_count"], row["contentions"]) for key, row in shown.items()} == {
        "p1": ("run-2", 0, 0),
        "p2": ("run-1", 2, 1),
    }
    first = shown["p1"]
    assert (first["waiting_for_person"], first["money_at_risk_usd"], first["failed_stages"]) == (
        3,
        Decimal("99.5"),
        ["order_parity"],
    )
    assert first["last_clean_at"] < first["cycle_at"]


def test_the_cycle_board_has_a_column_for_every_field_of_a_report_but_its_lists(reader):
    whole = ReconciliationReport(
        "p1", "u1", "a1", "run-1", T, processed=True, evidence_complete=True, pause_source="ops"
    )
    save_reports(reader, [dataclasses.asdict(whole)])
    [row] = cycle_board(reader)
    elsewhere = {"user_id", "account_id", "cycle_at_ms", "no_go_reason_counts", "no_go_samples"}
    fields = {field.name for field in dataclasses.fields(whole)} - elsewhere
    shown = {name: row[name] for name in fields}
    assert shown == {name: getattr(whole, name) for name in fields} | {"failed_stages": []}


def test_the_boards_are_empty_before_the_first_cycle_and_show_a_profile_that_was_only_ever_contended(reader):
    assert (lease_board(reader), watchdog_board(reader), cycle_board(reader)) == ([], [], [])
    save_reports(reader, [report(processed=False, clean=False, skipped_reason="lease_held")])
    [row] = cycle_board(reader)
    assert (row["profile_id"], row["run_id"]) == ("p1", None)
