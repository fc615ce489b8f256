"""What /internal/health and /internal/trading/status say of a reading."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.ops.health import HealthReason, HealthRules, health
from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.snapshot import Snapshot
from recon_pipeline.ops.trading import trading_status
from recon_pipeline_tests.ops.snapshots import NOW, account, ago, cycle, profile, snapshot

RULES = HealthRules(late=dt.timedelta(minutes=15), max_age=dt.timedelta(seconds=60))


def judged(read: Snapshot | None, **latest: Any) -> tuple[dict[str, Any], bool]:
    body, well = health(Latest(read, **latest), NOW, RULES)
    return json.loads(json.dumps(body, allow_nan=False)), well


def reasons(read: Snapshot | None, **latest: Any) -> list[str]:
    body, well = judged(read, **latest)
    assert well == body["reconciliationLoopHealthy"] == (body["status"] == "ok") == (not body["reasons"])
    return [reason["reason"] for reason in body["reasons"]]


def test_profiles_that_had_their_cycle_are_healthy_whatever_the_cycle_found() -> None:
    found = cycle("p1", mismatch_count=7, no_go_trades=2, clean=False, integrity_watchdog_triggered=True)
    assert reasons(snapshot(cycles=(found, cycle("p2")))) == []


def test_the_fields_have_the_names_of_the_runbook_and_add_up_over_the_enabled_profiles() -> None:
    first = cycle(
        "p1",
        cycle_at=ago(minutes=2),
        mismatch_count=3,
        missing_from_exchange=1,
        missing_in_db=2,
        parity_mismatch_trades=4,
        parity_quarantined_trades=1,
        parity_auto_closed_trades=1,
        parity_max_mismatch_notional_usd=Decimal("1000.015"),
        parity_total_mismatch_notional_usd=Decimal("1500.10"),
        no_go_trades=2,
        waiting_for_person=5,
        money_at_risk_usd=Decimal("99.999"),
    )
    second = cycle(
        "p2",
        mismatch_count=10,
        parity_max_mismatch_notional_usd=Decimal("250.5"),
        parity_total_mismatch_notional_usd=Decimal("250.5"),
        integrity_watchdog_triggered=True,
    )
    disabled = cycle("off", mismatch_count=100, parity_total_mismatch_notional_usd=Decimal(10**6))
    read = snapshot(
        profiles=(profile("off", enabled=False), profile("p1"), profile("p2")), cycles=(disabled, first, second)
    )
    body, well = judged(read)
    assert well
    assert (
        body
        | {
            "reconciliationLoopHealthy": True,
            "reconciliationMismatchCount": 13,
            "reconciliationMissingFromExchange": 1,
            "reconciliationMissingInDb": 2,
            "reconciliationLastRun": "2026-11-20T11:59:00.000Z",
            "reconciliationParityMismatchTrades": 4,
            "reconciliationParityQuarantinedTrades": 1,
            "reconciliationParityAutoClosedTrades": 1,
            "reconciliationParityMaxMismatchNotionalUsd": 1000.02,
            "reconciliationParityTotalMismatchNotionalUsd": 1750.6,
            "reconciliationIntegrityWatchdogTriggered": True,
            "reconciliationNoGoTrades": 2,
            "reconciliationWaitingForPerson": 5,
            "reconciliationMoneyAtRiskUsd": 100.0,
            "profiles": 2,
        }
        == body
    )


def test_the_last_run_is_the_newest_end_of_a_run_or_report() -> None:
    run = {
        "run_id": "r",
        "began_at": ago(minutes=9),
        "ended_at": ago(seconds=30),
        "profiles": 2,
        "failed": 0,
        "contended": 0,
    }
    assert judged(snapshot(runs=(run,)))[0]["reconciliationLastRun"] == "2026-11-20T11:59:30.000Z"
    assert judged(snapshot(cycles=(), runs=()))[0]["reconciliationLastRun"] is None


def test_a_profile_without_a_cycle_for_longer_than_the_limit_is_late_and_at_the_limit_it_is_not() -> None:
    assert reasons(snapshot(cycles=(cycle("p1", cycle_at=ago(minutes=15)), cycle("p2")))) == []
    late = snapshot(cycles=(cycle("p1", cycle_at=ago(minutes=15, seconds=1)), cycle("p2")))
    body, _ = judged(late)
    assert body["reasons"] == [
        {
            "reason": "cycles_late",
            "detail": "1 profile had no cycle in the last 15 minutes; the oldest was at 2026-11-20T11:44:59.000Z.",
            "count": 1,
            "profiles": ["p1"],
        }
    ]
    assert (body["profilesLate"], body["profilesFailing"]) == (1, 0)


def test_a_disabled_profile_is_neither_late_nor_failing() -> None:
    off = profile("p1", enabled=False)
    failing = cycle("p1", cycle_at=ago(days=3), error="its account refuses")
    assert reasons(snapshot(profiles=(off, profile("p2")), cycles=(failing, cycle("p2")))) == []


def test_a_new_profile_has_the_limit_to_get_its_first_cycle_and_one_of_unknown_age_has_not() -> None:
    def of(created_at: dt.datetime | None) -> list[str]:
        return reasons(snapshot(profiles=(profile("p1", created_at=created_at), profile("p2")), cycles=(cycle("p2"),)))

    assert of(ago(minutes=14)) == []
    assert of(ago(minutes=16)) == ["never_reconciled"]
    assert of(None) == ["never_reconciled"]


def test_a_profile_whose_lease_was_always_taken_never_had_a_cycle() -> None:
    turned_away = cycle("p1", cycle_at=None, run_id=None, error=None, failed_stages=None, mismatch_count=None)
    assert reasons(snapshot(cycles=(turned_away, cycle("p2")))) == ["never_reconciled"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"error": "401 from the exchange", "processed": False}, "of p1: 401 from the exchange"),
        ({"failed_stages": ["position_parity"]}, "of p1: a step failed: position_parity"),
    ],
)
def test_a_profile_whose_last_cycle_or_step_failed_is_unhealthy_and_says_why(
    changed: dict[str, Any], said: str
) -> None:
    body, _ = judged(snapshot(cycles=(cycle("p1", **changed), cycle("p2"))))
    assert [(reason["reason"], reason["profiles"]) for reason in body["reasons"]] == [("cycles_failing", ["p1"])]
    assert body["reasons"][0]["detail"] == f"The last cycle of 1 profile failed; {said}"
    assert body["profilesFailing"] == 1


def test_an_account_that_was_not_read_completely_for_long_is_unhealthy_though_its_cycles_run() -> None:
    old = account("a1", covered_until=ago(minutes=20), complete=False, incomplete_why="page 3 failed: 500")
    body, _ = judged(snapshot(accounts=(old, account("a2", covered_until=ago(days=9)))))
    assert body["reasons"] == [
        {
            "reason": "evidence_late",
            "detail": "1 account not read completely for longer than 15 minutes: page 3 failed: 500",
            "count": 1,
            "accounts": ["a1"],
        }
    ]


def test_an_account_that_no_cycle_has_read_yet_is_not_late_and_one_that_was_never_read_whole_is() -> None:
    def of(complete: bool | None) -> list[str]:
        return reasons(snapshot(accounts=(account("a1", covered_until=None, complete=complete),)))

    assert (of(None), of(False)) == ([], ["evidence_late"])


def test_a_database_that_can_not_be_read_is_unhealthy_and_what_was_known_is_still_told() -> None:
    body, well = judged(snapshot(), error="server closed the connection", failing_since=ago(seconds=7))
    assert not well
    assert body["reasons"] == [
        {
            "reason": "database_unreadable",
            "detail": "The database can't be read since 2026-11-20T11:59:53.000Z: server closed the connection",
        }
    ]
    assert (body["databaseReadable"], body["reconciliationMismatchCount"], body["snapshotAgeSeconds"]) == (
        False,
        0,
        2.0,
    )


def test_a_reading_that_is_too_old_is_unhealthy_even_where_nothing_failed() -> None:
    assert reasons(snapshot(taken_at=ago(seconds=60))) == []
    assert reasons(snapshot(taken_at=ago(seconds=61))) == ["snapshot_too_old"]


def test_before_the_first_reading_nothing_is_healthy_and_nothing_is_known() -> None:
    assert reasons(None) == ["nothing_read_yet"]
    assert reasons(None, error="refused", failing_since=NOW) == ["database_unreadable"]
    body, _ = judged(None)
    unknown = {name for name, value in body.items() if value is None}
    assert {name for name in body if name.startswith("reconciliation")} - unknown == {"reconciliationLoopHealthy"}
    assert body["databaseReadable"] is False


def test_a_reason_names_twenty_profiles_and_counts_them_all() -> None:
    names = [f"p{number:03}" for number in range(150)]
    late = tuple(cycle(name, cycle_at=ago(hours=5)) for name in names)
    body, _ = judged(snapshot(profiles=tuple(profile(name) for name in names), cycles=late))
    [reason] = body["reasons"]
    assert (reason["count"], reason["profiles"]) == (150, names[:20])


def test_every_reason_can_be_given() -> None:
    given = {
        *reasons(None),
        *reasons(snapshot(taken_at=ago(hours=1)), error="x"),
        *reasons(snapshot(cycles=(cycle("p1", cycle_at=ago(hours=1)),))),
        *reasons(
            snapshot(
                cycles=(cycle("p1", error="x"), cycle("p2")), accounts=(account("a1", covered_until=ago(hours=1)),)
            )
        ),
    }
    assert given == {reason.value for reason in HealthReason}


# -- trading


def control(scope: str, state: str, **changed: Any) -> dict[str, Any]:
    return {"scope": scope, "state": state, "source": "ops", "since": ago(hours=1), "reason": "deploy"} | changed


def test_trading_that_nobody_ever_paused_runs() -> None:
    said = trading_status(snapshot())
    assert said == {
        "state": "RUNNING",
        "source": None,
        "since": None,
        "reason": None,
        "asOf": "2026-11-20T11:59:58.000Z",
        "profiles": {
            name: {"state": "RUNNING", "source": None, "since": None, "reason": None, "scope": "all"}
            for name in ("p1", "p2")
        },
    }


def test_a_pause_of_all_holds_for_every_profile_and_says_since_when_by_whom_and_why() -> None:
    said = trading_status(snapshot(trading=(control("all", "PAUSED"), control("p1", "RUNNING", source="bot"))))
    pause = {"state": "PAUSED", "source": "ops", "since": "2026-11-20T11:00:00.000Z", "reason": "deploy"}
    assert {name: said[name] for name in pause} == pause
    assert said["profiles"] == {"p1": pause | {"scope": "all"}, "p2": pause | {"scope": "all"}}


def test_a_profile_s_own_pause_is_its_own() -> None:
    rows = (control("all", "RUNNING"), control("p1", "PAUSED", source="parity_watchdog", reason="too much money"))
    said = trading_status(snapshot(trading=rows))
    assert said["state"] == "RUNNING"
    assert said["profiles"]["p1"] == {
        "state": "PAUSED",
        "source": "parity_watchdog",
        "since": "2026-11-20T11:00:00.000Z",
        "reason": "too much money",
        "scope": "p1",
    }
    assert (said["profiles"]["p2"]["state"], said["profiles"]["p2"]["scope"]) == ("RUNNING", "all")
