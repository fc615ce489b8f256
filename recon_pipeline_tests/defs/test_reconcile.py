"""The cycle as runs: the real step on a real Postgres and the simulated exchange over HTTP, by hand and on schedule."""

from __future__ import annotations

import json
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from recon_pipeline.cycle.ports import ACCOUNT_MARK
from recon_pipeline.defs import catalogue, cycle_catalogue
from recon_pipeline.defs.boards import EVERY_PROFILE_LATELY
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases, release_leases
from recon_pipeline_tests.defs.conftest import World
from recon_pipeline_tests.defs.test_runs import failure, statuses

BTC, ETH = "t-btc-trend", "t-eth-swing"
REPORT, COVERAGE = "reconciliation_report", "order_coverage"
SCHEDULED = {"recon/trigger": "schedule"}


def everyone(world: World) -> tuple[str, str]:
    return world.profiles[0], world.profiles[-1]


def on_schedule(world: World) -> dg.ExecuteInProcessResult:
    """A run as the schedule launches it: the report alone, with its own checks."""
    first, last = everyone(world)
    return dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.assets(REPORT),
        tags={
            **SCHEDULED,
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        },
        raise_on_error=False,
    )


def materialized(result: dg.ExecuteInProcessResult) -> Counter[str]:
    return Counter(event.asset_key.to_user_string() for event in result.get_asset_materialization_events())


def test_a_cycle_by_hand_shows_every_asset_and_as_a_dry_run_writes_nothing(world: World):
    before = world.everything()
    result = world.run("reconcile", BTC)
    assert result.success, failure(result)
    assert world.everything() == before
    assert materialized(result) == Counter([*cycle_catalogue.JOB_KEYS, "operations_board"])

    report = world.metadata(result, REPORT, BTC)
    assert report["outcome"] == (
        "The watchdog is triggered; 1 order missing in the ledger; 1 trade out of line with the position ($47,560.20); "
        "1 row would be corrected (dry run)."
    )
    assert (report["missing_in_db"], report["trades_out_of_line"], report["money_out_of_line_usd"]) == (1, 1, 47560.2)
    assert (report["corrections_written"], report["max_confirmations"], report["clean"]) == (0, 1, False)
    assert report["api_calls_of_account"] > 3
    [correction] = report["corrections"]
    assert (correction["state"], correction["before"]) == ("dry run", "no row")
    assert correction["change"].startswith("exit fill, trade btc-101, row ")
    assert "executed 0.49875" in correction["why"]
    assert [row["trade"] for row in report["out_of_line"]] == ["btc-101 BTC/USD"]
    assert {row["stage"]: row["state"] for row in report["stages"]} == {
        "order_parity": "dry run",
        "order_coverage": "dry run",
        "exit_backfill": "skipped: pause_required",
        "integrity_watchdog": "done",
        "sub_tag_repair": "dry run",
        "position_parity": "dry run",
    }
    held = world.checks(result, BTC)
    assert {name for name, check in held.items() if not check.passed} == {"ledger_is_in_line", "watchdog_is_quiet"}
    assert {check.name for check in cycle_catalogue.CHECKS} <= set(held)
    assert world.rows("SELECT count(*) AS held FROM recon.leases WHERE expires_at > now()") == [{"held": 0}]
    files = {path.name for path in Path(report["snapshots"]).iterdir()}
    assert {f"{stage}{ACCOUNT_MARK}t_crypto.parquet" for stage in ("ledger_orders", "order_facts", "profiles")} <= files


def test_a_correction_that_is_written_is_shown_as_written_and_the_next_cycle_is_in_line(world: World):
    for name in ("RECON_ORDER_COVERAGE_DRY_RUN", "RECON_ORDER_PARITY_DRY_RUN"):
        world.environment[name] = "false"
    result = world.run("reconcile", ETH)
    assert result.success, failure(result)
    report = world.metadata(result, REPORT, ETH)
    assert {row["state"] for row in report["corrections"]} == {"written"}
    assert report["corrections_written"] == len(report["corrections"]) == 2
    written = world.rows(
        "SELECT order_id, qty, action FROM public.orders WHERE profile_id = %(p)s AND order_id = ANY(%(ids)s) ORDER BY qty",
        p=ETH,
        ids=[row["change"].partition("row ")[2] for row in report["corrections"]],
    )
    assert [(row["qty"], row["action"]) for row in written] == [(Decimal("0.495"), "EXIT"), (Decimal("0.7"), "EXIT")]
    outbox = world.rows("SELECT DISTINCT batch_id FROM recon.corrections WHERE profile_id = %(p)s", p=ETH)
    assert {row["why"].partition("batch ")[2] for row in report["corrections"]} == {row["batch_id"] for row in outbox}

    again = world.run("reconcile", ETH)
    after = world.metadata(again, REPORT, ETH)
    assert (after["missing_in_db"], after["corrections_written"], after["trades_out_of_line"]) == (0, 0, 0)
    assert (after["outcome"], after["clean"]) == ("In line.", True)
    assert after["last_cycles"][1]["corrected"] == "2"
    assert {name for name, check in world.checks(again, ETH).items() if not check.passed} == set()


def test_a_quiet_profile_of_a_scheduled_cycle_costs_one_event(world: World):
    first = on_schedule(world)
    assert first.success, failure(first)
    assert materialized(first)[REPORT] == materialized(first)[COVERAGE] == len(world.profiles)
    quiet = on_schedule(world)
    assert quiet.success, failure(quiet)
    assert materialized(quiet) == Counter({REPORT: len(world.profiles), "operations_board": 1})
    # The checks of the run are evaluated, and of no single profile.
    assert set(world.checks(quiet)) == {check.name for check in cycle_catalogue.CHECKS} | {EVERY_PROFILE_LATELY}
    assert [world.checks(quiet, profile) for profile in world.profiles] == [{}] * len(world.profiles)

    # One profile's news is reported in full, and no other's.
    world.rows(
        "UPDATE public.orders SET status = 'canceled' WHERE trade_id = 'nvda-1001' AND action = 'EXIT' RETURNING order_id"
    )
    news = on_schedule(world)
    assert materialized(news)[COVERAGE] == 1
    assert world.metadata(news, REPORT, "t-nvda-breakout")["clean"] is False
    # A profile's own evaluation would hide that of the run in the UI, and with it the profiles that did not change.
    assert world.checks(news, "t-nvda-breakout") == {}
    assert world.checks(news)["ledger_is_in_line"].metadata["profiles_failing"].value > 1


def test_an_unreadable_account_fails_its_profiles_and_no_other(world: World):
    name = next(name for name in world.environment if name.startswith("RECON_ACCOUNT_T_EQUITY") and "SECRET" in name)
    world.environment[name] = "wrong"
    result = world.run("reconcile", partitions=everyone(world))
    assert not result.success
    unreadable = {profile.profile_id for profile in world.book.profiles if profile.account_id == "t-equity"}
    assert failure(result).startswith(f"{len(unreadable)} of 15 profiles failed, the others are done.")
    for asset in (REPORT, COVERAGE, "position_parity"):
        found = statuses(world, asset)
        assert {profile for profile in found if found[profile] == "FAILED"} == unreadable
        assert {profile for profile in found if found[profile] == "MATERIALIZED"} == set(world.profiles) - unreadable
    ran = world.checks(result)["every_stage_ran"]
    assert (ran.passed, ran.severity, ran.metadata["profiles_failing"].value) == (
        False,
        dg.AssetCheckSeverity.ERROR,
        len(unreadable),
    )
    assert "wrong" not in json.dumps([event.message or "" for event in result.all_events])


def test_a_profile_that_another_run_holds_is_shown_and_skipped_and_the_others_go_on(world: World):
    for name in ("RECON_ORDER_COVERAGE_DRY_RUN", "RECON_ORDER_PARITY_DRY_RUN"):
        world.environment[name] = "false"
    with connect(world.database_url, WRITER, "somebody else") as connection:
        held = acquire_leases(connection, [ETH], owner="another run", ttl_seconds=60)
        connection.commit()
    result = world.run("reconcile", partitions=(BTC, ETH))
    assert result.success, failure(result)
    report = world.metadata(result, REPORT, ETH)
    assert (report["outcome"], report["lease_contended"]) == ("Skipped, lease_held: nothing was concluded.", 1)
    assert "another run" in report["lease_holder"]
    assert "operations_board" in report["what_to_do"]
    assert (world.checks(result, ETH).keys(), world.checks(result, ETH)["lease_is_free"].passed) == (
        {"lease_is_free"},
        False,
    )
    assert world.metadata(result, REPORT, BTC)["corrections_written"] == 1
    assert world.rows("SELECT 1 AS one FROM recon.corrections WHERE profile_id = %(p)s", p=ETH) == []
    board = world.metadata(result, "operations_board", None)
    [shown] = [row for row in board["leases"] if row["profile"] == ETH]
    assert re.fullmatch(r"held by another run, [0-9.]+ s left", shown["lease"])
    assert re.fullmatch(r"1, last \d+ s ago with another run", shown["contentions"])
    with connect(world.database_url, WRITER, "somebody else") as connection:
        release_leases(connection, held.values())
        connection.commit()


@pytest.mark.parametrize(
    ("assets", "said"),
    [
        (["order_parity"], "order_parity can't be made alone"),
        (["position_parity", *catalogue.DRY_RUN_KEYS], "Launch reconcile"),
    ],
)
def test_a_part_of_the_cycle_alone_is_refused_with_what_to_launch(world: World, assets: list[str], said: str):
    result = world.run("__ASSET_JOB", BTC, assets=assets)
    assert said in failure(result)
    assert world.rows("SELECT 1 AS one FROM recon.cycle_reports") == []


def test_executing_a_check_of_the_cycle_alone_runs_no_cycle(world: World):
    done = dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(REPORT)),
        tags={"dagster/partition": BTC},
        raise_on_error=False,
    )
    assert "Launch reconcile" in failure(done)
    assert world.rows("SELECT 1 AS one FROM recon.cycle_reports") == []


def test_a_digest_given_to_a_cycle_is_refused_instead_of_ignored(world: World):
    result = world.run("reconcile", BTC, config={"expected_digest": "0" * 64})
    assert "launch exit_backfill_apply" in failure(result)


def test_a_cycle_applies_the_backfill_only_where_the_operator_says_so(world: World):
    world.pause()
    dry = world.run("reconcile", ETH)
    assert world.metadata(dry, "proposed_backfill_rows", ETH)["proposed_rows"] == 3
    assert world.backfill_rows(ETH) == []
    assert statuses(world, "applied_backfill_rows")[ETH] == "MISSING"
    world.environment["RECON_EXIT_BACKFILL_DRY_RUN"] = "false"
    world.environment["RECON_EXIT_BACKFILL_REQUIRE_REVIEW"] = "false"
    applied = world.run("reconcile", ETH)
    assert applied.success, failure(applied)
    assert len(world.backfill_rows(ETH)) == 3
    # What was applied stands in the history of the applied rows, with the link that takes it back.
    shown = world.metadata(applied, "applied_backfill_rows", ETH)
    assert shown["inserted_rows"] == 3
    assert shown["batch_id"] in shown["take_it_back"]


def test_the_board_says_which_profiles_had_no_cycle_lately(world: World):
    result = world.run("reconcile", BTC)
    board = world.metadata(result, "operations_board", None)
    states = {row["profile"]: row["state"] for row in board["profiles"]}
    assert states[BTC] == "out of line"
    assert set(states.values()) == {"out of line", "never reconciled"}
    assert (board["profiles_known"], board["profiles_late"]) == (15, 14)
    late = world.checks(result)[EVERY_PROFILE_LATELY]
    assert (late.passed, late.severity) == (False, dg.AssetCheckSeverity.WARN)

    world.rows("UPDATE recon.cycle_reports SET cycle_at = cycle_at - interval '16 minutes' RETURNING profile_id")
    by_hand = dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.assets("operations_board"),
    )
    board = world.metadata(by_hand, "operations_board", None)
    assert {row["profile"]: row["state"] for row in board["profiles"]}[BTC] == "late: 16 min ago"
    assert board["profiles_late"] == 15
