"""Dry run, apply and rollback as runs: the real assets on a real Postgres and the simulated exchange over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest

from recon_pipeline.defs import catalogue, cycle_catalogue
from recon_pipeline.defs.snapshots import RunSnapshots
from recon_pipeline.defs.stages import load_reading
from recon_pipeline.domain.exit_backfill import plan_exit_backfill
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases
from recon_pipeline.sandbox.exchange import Fault, FaultKind
from recon_pipeline_tests.defs.conftest import World

BTC, ETH, AAPL, AMD, AMZN = "t-btc-trend", "t-eth-swing", "t-aapl-momentum", "t-amd-hold", "t-amzn-returned"
PLAN, APPLIED = "proposed_backfill_rows", "applied_backfill_rows"
ALL_SPECS = (*catalogue.SPECS, *cycle_catalogue.SPECS)


def dry_run(world: World, profile: str) -> dict[str, object]:
    result = world.run("exit_backfill_dry_run", profile)
    assert result.success
    return world.metadata(result, PLAN, profile)


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    return str(event.event_specific_data.user_failure_data.description)


def statuses(world: World, asset: str) -> dict[str, str]:
    """The status of each partition of an asset, as the UI shows it."""
    found = world.instance.get_status_by_partition(dg.AssetKey(asset), world.profiles, catalogue.profiles_partitions)
    known = found or {}  # nothing at all is known of an asset that was never planned
    return {profile: status.value if (status := known.get(profile)) else "MISSING" for profile in world.profiles}


def test_a_dry_run_proposes_with_evidence_and_writes_nothing_but_audit_rows(world: World):
    world.pause()
    before = world.everything()
    result = world.run("exit_backfill_dry_run", ETH)
    assert result.success
    assert world.everything() == before

    plan = world.metadata(result, PLAN, ETH)
    cited = {row["exchange_order"] for row in plan["decisions"]}
    assert [(row["quantity"], row["price"], row["usd"], row["proof"]) for row in plan["decisions"]] == [
        ("SELL 0.7", "3161.642857143", "2,213.15", "sub_tag"),
        ("SELL 0.495", "3170.75", "1,569.52", "sub_tag"),
        ("SELL 0.005", "3170.75", "15.85", "dust"),
    ]
    [truth] = [truth for truth in world.book.truths if truth.trade_id == "eth-201"]
    assert cited == set(truth.writes)
    assert (plan["proposed_rows"], plan["proposed_usd"], plan["left_open_usd"], plan["no_go_trades"]) == (
        3,
        3798.53,
        0.0,
        0,
    )
    assert plan["outcome"] == "3 rows proposed ($3,798.53); no trade left open."
    assert (plan["paused"], plan["evidence_complete"]) == (True, True)
    assert plan["paused_since"].endswith("by test: test")
    assert len(plan["digest"]) == 64

    audit = world.rows("SELECT decision, dry_run, filled_qty, batch_id FROM public.reconciliation_backfill_audit"
                       " WHERE profile_id = %(p)s ORDER BY filled_qty DESC", p=ETH)  # fmt: skip
    assert [(row["decision"], row["dry_run"], row["filled_qty"]) for row in audit] == [
        ("DRY_RUN", True, Decimal("0.7")),
        ("DRY_RUN", True, Decimal("0.495")),
        ("DRY_RUN", True, Decimal("0.005")),
    ]
    assert {row["batch_id"] for row in audit} == {plan["batch_id"]}
    assert world.metadata(result, "backfill_audit_records", ETH)["audit_rows"] == 3

    held = world.checks(result, ETH)
    assert {name: check.passed for name, check in held.items()} == {
        "evidence_is_complete": True,
        "no_fill_is_used_twice": True,
        "no_symbol_is_unexpectedly_open": True,
        "no_trade_is_over_exited": True,
        "trading_is_paused": True,
        "conservation_holds": True,
        "dry_run_left_the_ledger_unchanged": True,
    }


def test_every_kind_of_trade_of_the_book_ends_as_the_truth_says(world: World):
    world.pause()
    result = world.run("exit_backfill_dry_run", partitions=(world.profiles[0], world.profiles[-1]))
    assert result.success
    proposed = {}
    for profile in world.profiles:
        for row in world.metadata(result, PLAN, profile)["decisions"]:
            if row["decision"] == "DRY_RUN":
                proposed[row["trade"], row["exchange_order"]] = Decimal(row["quantity"].split()[1])
    truth = {(truth.trade_id, order): qty for truth in world.book.truths for order, qty in truth.writes.items()}
    assert proposed == truth
    assert set(statuses(world, PLAN).values()) == {"MATERIALIZED"}
    assert set(statuses(world, APPLIED).values()) == {"MISSING"}
    overall = world.checks(result)
    assert overall["conservation_holds"].passed
    assert overall["conservation_holds"].metadata["profiles"].value == 15
    unexpected = overall["no_symbol_is_unexpectedly_open"]
    assert (unexpected.passed, unexpected.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert [row["profile"] for row in [dict(r.data) for r in unexpected.metadata["failing_profiles"].records]]


def test_an_apply_with_the_digest_inserts_exactly_what_was_read_and_a_rollback_takes_it_back(world: World):
    world.pause()
    before = world.everything()
    plan = dry_run(world, ETH)
    applied = world.run("exit_backfill_apply", ETH, config={"expected_digest": plan["digest"]})
    assert applied.success
    rows = world.backfill_rows(ETH)
    assert [(row["qty"], row["price"], row["side"], row["action"], row["trade_id"]) for row in rows] == [
        (Decimal("0.7"), Decimal("3161.642857143"), "SELL", "EXIT", "eth-201"),
        (Decimal("0.495"), Decimal("3170.75"), "SELL", "EXIT", "eth-201"),
        (Decimal("0.005"), Decimal("3170.75"), "SELL", "EXIT", "eth-201"),
    ]
    shown = world.metadata(applied, APPLIED, ETH)
    assert (shown["inserted_rows"], shown["proposed_by_planning_again"], shown["digest"]) == (3, 0, plan["digest"])
    assert shown["outcome"] == "3 rows inserted ($3,798.53)."
    assert {row["result"] for row in shown["verification"]} == {"holds"}
    assert world.checks(applied, ETH)["planning_again_proposes_nothing"].passed
    assert world.rows("SELECT count(*) AS held FROM recon.leases WHERE expires_at > now()") == [{"held": 0}]

    preview = world.run("exit_backfill_rollback", config={"batch_id": shown["batch_id"]}, op="roll_back_batch")
    assert preview.success
    assert len(world.backfill_rows(ETH)) == 3
    taken_back = world.run(
        "exit_backfill_rollback", config={"batch_id": shown["batch_id"], "confirm": True}, op="roll_back_batch"
    )
    assert taken_back.success
    after = world.everything()
    after["orders"] = [row for row in after["orders"] if row["order_id"] not in {r["order_id"] for r in rows}]
    assert after == before
    assert {row["status"] for row in world.backfill_rows(ETH, "canceled")} == {"canceled"}
    [observed] = [event for event in taken_back.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    observation = observed.asset_observation_data.asset_observation
    assert (observation.asset_key, observation.partition) == (dg.AssetKey(APPLIED), ETH)
    assert observation.metadata["outcome"].value == "3 backfill rows canceled, 3 rows of the books restored."

    # What a rollback took back is proposed again on request only.
    held_back = dry_run(world, ETH)
    assert held_back["proposed_rows"] == 0
    again = world.run("exit_backfill_dry_run", ETH, config={"reapply_reverted": True})
    assert world.metadata(again, PLAN, ETH)["proposed_rows"] == 3


def test_the_link_of_a_plan_opens_the_apply_with_its_digest_and_its_profile(world: World):
    world.pause()
    plan = dry_run(world, AAPL)
    address = plan["apply_this_plan"].partition("](")[2].rstrip(")")
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    assert parts.path == "/locations/recon_pipeline/jobs/exit_backfill_apply/playground/setup"
    assert query["config"] == [f'ops:\n  reconciliation:\n    config:\n      expected_digest: "{plan["digest"]}"\n']
    assert (query["tags[0][key]"], query["tags[0][value]"]) == (["dagster/partition"], [AAPL])


def test_an_apply_that_is_launched_twice_inserts_once_and_says_so(world: World):
    world.pause()
    plan = dry_run(world, AAPL)
    config = {"expected_digest": plan["digest"]}
    assert world.run("exit_backfill_apply", AAPL, config=config).success
    again = world.run("exit_backfill_apply", AAPL, config=config)
    assert again.success
    assert "was applied before, by batch RECON-BFILL-" in world.metadata(again, APPLIED, AAPL)["outcome"]
    assert len(world.backfill_rows(AAPL)) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "review_required"),
        ({"expected_digest": ""}, "review_required"),
        ({"expected_digest": "0" * 64}, "digest_mismatch"),
        ({"expected_digest": "yes"}, "is no digest"),
        ({"expected_digests": {"someone-else": "0" * 64}}, "not part of this run: someone-else"),
    ],
)
def test_an_apply_without_the_digest_that_was_read_is_refused(world: World, config: dict[str, object], said: str):
    world.pause()
    before = world.everything()
    result = world.run("exit_backfill_apply", AAPL, config=config)
    assert not result.success
    assert said in failure(result)
    assert world.everything() == before
    assert statuses(world, APPLIED)[AAPL] == "FAILED"


def test_a_digest_given_to_a_dry_run_is_refused_instead_of_ignored(world: World):
    world.pause()
    result = world.run("exit_backfill_dry_run", AAPL, config={"expected_digest": "0" * 64})
    assert "launch exit_backfill_apply" in failure(result)


def test_without_review_where_the_operator_says_so_an_apply_needs_no_digest(world: World):
    world.environment["RECON_EXIT_BACKFILL_REQUIRE_REVIEW"] = "false"
    world.pause()
    result = world.run("exit_backfill_apply", AAPL)
    assert result.success
    assert len(world.backfill_rows(AAPL)) == 1


def test_materializing_every_asset_in_the_ui_applies_nothing(world: World):
    """'Materialize all' selects reconciliation_report too, so it is a cycle: a dry run until the settings say otherwise."""
    world.pause()
    before = world.everything()
    result = world.run("__ASSET_JOB", AAPL, assets=[spec.key.to_user_string() for spec in ALL_SPECS])
    assert result.success
    assert world.everything() == before
    assert statuses(world, PLAN)[AAPL] == "MATERIALIZED"
    assert statuses(world, APPLIED)[AAPL] == "MISSING"


def test_selecting_the_applied_rows_without_a_digest_applies_nothing(world: World):
    world.pause()
    before = world.everything()
    result = world.run("__ASSET_JOB", AAPL, assets=[*catalogue.DRY_RUN_KEYS, APPLIED])
    assert "review_required" in failure(result)
    assert world.everything() == before
    assert statuses(world, PLAN)[AAPL] == "MATERIALIZED"


def test_executing_a_check_alone_applies_nothing_even_where_no_review_is_required(world: World):
    """The button 'Execute' beside planning_again_proposes_nothing, a check of the asset that writes."""
    world.environment["RECON_EXIT_BACKFILL_REQUIRE_REVIEW"] = "false"
    world.pause()
    before = world.everything()
    done = dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(APPLIED)),
        tags={"dagster/partition": AAPL},
        raise_on_error=False,
    )
    assert done.get_asset_materialization_events() == []
    assert world.everything() == before
    assert world.rows("SELECT count(*) AS n FROM recon.batches WHERE profile_id = %(p)s", p=AAPL) == [{"n": 0}]


def test_a_range_is_applied_with_a_digest_for_each_profile_and_one_without_stays_as_it_is(world: World):
    world.pause()
    digests = {profile: dry_run(world, profile)["digest"] for profile in (BTC, ETH)}
    wrong = world.run("exit_backfill_apply", partitions=(BTC, ETH), config={"expected_digest": digests[BTC]})
    assert "can't be that of 2 profiles" in failure(wrong)
    one = world.run("exit_backfill_apply", partitions=(BTC, ETH), config={"expected_digests": {BTC: digests[BTC]}})
    assert not one.success
    assert failure(one).startswith(
        "1 of 2 profiles failed, the others are done. t-eth-swing: nothing was applied: review_required"
    )
    assert (len(world.backfill_rows(BTC)), len(world.backfill_rows(ETH))) == (2, 0)
    assert {p: statuses(world, APPLIED)[p] for p in (BTC, ETH)} == {BTC: "MATERIALIZED", ETH: "FAILED"}


def test_one_unreadable_account_of_three_fails_its_profiles_and_no_other(world: World):
    world.pause()
    name = next(
        name for name in world.environment if name.startswith("RECON_ACCOUNT_T_EQUITY") and name.endswith("SECRET_KEY")
    )
    world.environment[name] = "wrong"
    result = world.run("exit_backfill_dry_run", partitions=(world.profiles[0], world.profiles[-1]))
    assert not result.success
    unreadable = {profile.profile_id for profile in world.book.profiles if profile.account_id == "t-equity"}
    others = set(world.profiles) - unreadable
    assert len(unreadable) == 5
    assert failure(result).startswith("5 of 15 profiles failed, the others are done.")
    for profile in unreadable:
        assert profile in failure(result)
    found = statuses(world, PLAN)
    assert {profile for profile in found if found[profile] == "FAILED"} == unreadable
    assert {profile for profile in found if found[profile] == "MATERIALIZED"} == others
    evidence = world.checks(result)["evidence_is_complete"]
    assert not evidence.passed
    assert evidence.metadata["profiles_failing"].value == 5
    assert "wrong" not in json.dumps([event.message or "" for event in result.all_events])


def test_what_is_done_stays_reported_where_a_run_without_checks_fails(world: World):
    """A scheduled run selects no check; its failure must not take the other profiles' events with it."""
    world.pause()
    for name in [name for name in world.environment if name.startswith("RECON_ACCOUNT_T_MIXED")]:
        del world.environment[name]
    job = dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.assets(PLAN).without_checks(),
        tags={
            "dagster/asset_partition_range_start": world.profiles[0],
            "dagster/asset_partition_range_end": world.profiles[-1],
            "recon/trigger": "schedule",
        },
        raise_on_error=False,
    )
    assert not job.success
    assert job.get_asset_check_evaluations() == []
    unreadable = {profile.profile_id for profile in world.book.profiles if profile.account_id == "t-mixed"}
    found = statuses(world, PLAN)
    assert {profile for profile in found if found[profile] == "FAILED"} == unreadable
    assert {profile for profile in found if found[profile] == "MATERIALIZED"} == set(world.profiles) - unreadable


def test_an_account_without_keys_names_the_variables(world: World):
    world.pause()
    for name in [name for name in world.environment if name.startswith("RECON_ACCOUNT_T_MIXED")]:
        del world.environment[name]
    result = world.run("exit_backfill_dry_run", AMD)
    assert "RECON_ACCOUNT_T_MIXED_KEY_ID" in failure(result)


def test_a_reading_that_stays_incomplete_skips_the_profile_and_says_what_to_do(world: World):
    world.pause()
    world.exchange.faults.add(Fault(FaultKind.ERROR, path="/v2/account/activities*", status=503, count=100_000))
    result = world.run("exit_backfill_dry_run", AAPL)
    world.exchange.faults.clear()
    assert world.backfill_rows() == []
    evidence = world.checks(result, AAPL)["evidence_is_complete"]
    assert not evidence.passed
    assert evidence.metadata["violations"].value >= 1
    if result.success:
        plan = world.metadata(result, PLAN, AAPL)
        assert (plan["skipped_reason"], plan["proposed_rows"]) == ("evidence_incomplete", 0)
        assert plan["what_to_do"].startswith("Launch this again")
    else:
        assert "could not be read" in failure(result)


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("ENABLE_RECON_EXIT_BACKFILL", "false", "disabled"),
        ("RECON_EXIT_BACKFILL_PROFILE_ALLOWLIST", "another", "profile_not_allowlisted"),
        ("RECON_EXIT_BACKFILL_REQUIRE_PAUSE", "true", "pause_required"),
    ],
)
def test_a_profile_that_a_gate_holds_back_says_why_and_what_to_do(world: World, setting: str, value: str, reason: str):
    world.environment[setting] = value
    if reason != "pause_required":
        world.pause()
    plan = dry_run(world, AAPL)
    assert (plan["skipped_reason"], plan["proposed_rows"]) == (reason, 0)
    assert plan["outcome"].startswith(f"Skipped: {reason}. ")
    assert plan["what_to_do"] in plan["outcome"]
    assert "digest" not in plan


def test_an_apply_that_a_gate_holds_back_fails_where_a_digest_was_given(world: World):
    world.pause()
    plan = dry_run(world, AAPL)
    world.pause(state="RUNNING")
    result = world.run("exit_backfill_apply", AAPL, config={"expected_digest": plan["digest"]})
    assert "nothing was applied: pause_required" in failure(result)
    assert world.backfill_rows() == []


def test_a_profile_that_another_run_works_on_is_skipped_and_counted(world: World):
    world.environment["RECON_EXIT_BACKFILL_REQUIRE_REVIEW"] = "false"
    world.pause()
    with connect(world.database_url, WRITER) as connection:
        assert acquire_leases(connection, [BTC], owner="another run", ttl_seconds=120)
    result = world.run("exit_backfill_apply", partitions=(BTC, ETH))
    assert result.success
    held = world.metadata(result, APPLIED, BTC)
    assert (held["skipped_reason"], held["inserted_rows"]) == ("lease_held", 0)
    assert world.metadata(result, APPLIED, ETH)["inserted_rows"] == 3
    assert world.backfill_rows(BTC) == []


def test_a_plan_that_changed_since_it_was_read_is_refused(world: World):
    world.pause()
    plan = dry_run(world, BTC)
    world.rows("UPDATE public.orders SET sub_tag = sub_tag, qty = qty * 2, quantity = quantity * 2, filled_qty = filled_qty * 2"
               " WHERE trade_id = 'btc-101' AND action = 'ENTRY' RETURNING order_id")  # fmt: skip
    result = world.run("exit_backfill_apply", BTC, config={"expected_digest": plan["digest"]})
    assert not result.success
    assert "nothing was applied" in failure(result)
    assert world.backfill_rows(BTC) == []


def test_selecting_one_asset_reports_that_asset_alone_and_records_nothing(world: World):
    world.pause()
    result = world.run("exit_backfill_dry_run", AAPL, assets=["exchange_positions"])
    assert result.success
    assert {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()} == {
        "exchange_positions"
    }
    assert world.rows(
        "SELECT count(*) AS n FROM public.reconciliation_backfill_audit WHERE profile_id = %(p)s", p=AAPL
    ) == [{"n": 0}]


def test_the_snapshots_of_a_run_plan_to_the_same_digest(world: World):
    world.pause()
    result = world.run("exit_backfill_dry_run", partitions=(world.profiles[0], world.profiles[-1]))
    snapshots = RunSnapshots.of_run(str(world.snapshots), result.run_id, datetime.now(UTC))
    inputs, policy, now_ms = load_reading(snapshots)
    members = set(inputs.profiles["account_id"])
    assert len(members) == 3
    for account in members:
        of_account = replace(
            inputs,
            profiles=inputs.profiles[inputs.profiles["account_id"] == account],
            lifecycle_rows=inputs.lifecycle_rows[
                inputs.lifecycle_rows["profile_id"].isin(
                    inputs.profiles["profile_id"][inputs.profiles["account_id"] == account]
                )
            ],
            exchange_orders=inputs.exchange_orders[inputs.exchange_orders["account_id"] == account],
            positions=inputs.positions[inputs.positions["account_id"] == account],
        )
        plan = plan_exit_backfill(of_account, policy, now_ms=now_ms)
        for profile in of_account.profiles["profile_id"]:
            assert plan.for_profile(profile).digest == world.metadata(result, PLAN, profile)["digest"]


def test_a_snapshot_that_cannot_be_written_stops_the_run_before_anything_is_recorded(world: World):
    world.pause()
    world.snapshots.parent.joinpath("file").write_text("in the way")
    world.environment["RECON_SNAPSHOT_URL"] = str(world.snapshots.parent / "file")
    result = world.run("exit_backfill_dry_run", AAPL)
    assert not result.success
    assert world.rows("SELECT count(*) AS n FROM recon.batches WHERE profile_id = %(p)s", p=AAPL) == [{"n": 0}]


def test_snapshots_go_to_any_fsspec_url(world: World):
    import fsspec

    world.pause()
    world.environment["RECON_SNAPSHOT_URL"] = "memory://snapshots"
    plan = dry_run(world, AAPL)
    assert plan["snapshot"].startswith("memory://snapshots/")
    assert fsspec.filesystem("memory").exists(plan["snapshot"].removeprefix("memory:/"))


def test_a_run_without_a_partition_says_what_to_choose(world: World):
    result = world.run("exit_backfill_dry_run")
    assert "Choose a partition" in failure(result)


def test_a_profile_that_left_the_table_fails_by_name(world: World):
    world.pause()
    world.instance.add_dynamic_partitions("profiles", ["gone"])
    result = world.run("exit_backfill_dry_run", "gone")
    assert "profile 'gone' is not in the table profiles" in failure(result)
