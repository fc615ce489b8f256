"""Schedule and sensors on a real instance: what they launch, what they skip, and that none of them reaches an apply."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from recon_pipeline.defs import cycle_catalogue
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.schedules import RANGE_END, RANGE_START, SHARD_TAG, dry_run_schedule, reconcile_schedule
from recon_pipeline.defs.sensors import profiles_to_partitions, stuck_batches, unattended_apply_of_stuck_batches
from recon_pipeline_tests.defs.conftest import World

TICK = datetime(2026, 11, 20, 12, 5, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A tick is evaluated from the reference to an instance, which only one that keeps files has."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def outside(world: World) -> dict[str, object]:
    return {"outside": world.definitions.resources["outside"]}


def tick(world: World, schedule: dg.ScheduleDefinition = dry_run_schedule) -> dg.ScheduleExecutionData:
    with dg.build_schedule_context(
        instance=world.instance, scheduled_execution_time=TICK, resources=outside(world)
    ) as context:
        return schedule.evaluate_tick(context)


def sense(world: World, sensor: dg.SensorDefinition):
    with dg.build_sensor_context(
        instance=world.instance, definitions=world.definitions, resources=outside(world), sensor_name=sensor.name
    ) as context:
        return sensor.evaluate_tick(context)


def announce(world: World, profile: str = "t-btc-trend", batch: str = "RECON-BFILL-stuck", minutes: int = 60) -> None:
    """A batch as a run leaves it that ends between the announcement and the apply."""
    world.rows(
        "INSERT INTO recon.batches (batch_id, profile_id, account_id, kind, state, digest, plan, conservation, created_at,"
        " updated_at) VALUES (%(batch)s, %(profile)s, 't-crypto', 'exit_backfill', 'PENDING_APPLY', 'd',"
        " '{\"proposals\": [], \"evidence\": []}', '{}', now() - make_interval(mins => %(minutes)s),"
        " now() - make_interval(mins => %(minutes)s)) RETURNING batch_id",
        batch=batch,
        profile=profile,
        minutes=minutes,
    )


# -- the schedule


def test_the_schedule_covers_every_profile_in_contiguous_shards(world: World):
    world.environment["RECON_SHARD_SIZE"] = "4"
    requests = tick(world).run_requests
    keys = list(world.instance.get_dynamic_partitions(PROFILES))
    covered = []
    for request in requests:
        first, last = keys.index(request.tags[RANGE_START]), keys.index(request.tags[RANGE_END])
        covered += keys[first : last + 1]
        assert last - first < 4
        assert [key.to_user_string() for key in request.asset_selection] == ["proposed_backfill_rows"]
    assert covered == keys
    assert len({request.run_key for request in requests}) == len(requests) == 4


def test_the_schedule_of_the_cycle_selects_the_report_and_its_checks_alone(world: World):
    world.environment["RECON_SHARD_SIZE"] = "8"
    requests = tick(world, reconcile_schedule).run_requests
    keys = list(world.instance.get_dynamic_partitions(PROFILES))
    assert [(request.tags[RANGE_START], request.tags[RANGE_END]) for request in requests] == [
        (keys[0], keys[7]),
        (keys[8], keys[14]),
    ]
    for request in requests:
        assert [key.to_user_string() for key in request.asset_selection] == ["reconciliation_report"]
        assert {key.name for key in request.asset_check_keys} == {check.name for check in cycle_catalogue.CHECKS}
        assert request.tags["recon/trigger"] == "schedule"


def test_a_dry_run_that_still_works_holds_no_cycle_back(world: World):
    world.instance.add_run(
        dg.DagsterRun(job_name="exit_backfill_dry_run", status=dg.DagsterRunStatus.STARTED, tags={SHARD_TAG: "0"})
    )
    assert len(tick(world, reconcile_schedule).run_requests) == 1
    world.instance.add_run(
        dg.DagsterRun(job_name="reconcile", status=dg.DagsterRunStatus.STARTED, tags={SHARD_TAG: "0"})
    )
    assert "still works, shard 0" in tick(world, reconcile_schedule).skip_message


def test_a_shard_whose_last_run_still_works_is_left_out(world: World):
    world.environment["RECON_SHARD_SIZE"] = "8"
    world.instance.add_run(
        dg.DagsterRun(
            job_name="exit_backfill_dry_run",
            status=dg.DagsterRunStatus.STARTED,
            tags={SHARD_TAG: "0"},
        )
    )
    assert [request.tags[SHARD_TAG] for request in tick(world).run_requests] == ["1"]


def test_without_profiles_or_without_a_database_the_schedule_says_so(world: World):
    for key in world.profiles:
        world.instance.delete_dynamic_partition(PROFILES, key)
    assert "There are no profiles" in tick(world).skip_message
    del world.environment["RECON_DATABASE_URL"]
    assert "RECON_DATABASE_URL is not set" in tick(world).skip_message


def test_a_scheduled_run_records_a_plan_once_and_again_only_when_it_changes(world: World):
    world.pause()
    [request] = tick(world).run_requests

    def run() -> dg.ExecuteInProcessResult:
        result = world.run("exit_backfill_dry_run", tags=request.tags, assets=["proposed_backfill_rows"])
        assert result.success
        return result

    def audit_rows() -> int:
        return world.rows("SELECT count(*) AS n FROM public.reconciliation_backfill_audit WHERE dry_run")[0]["n"]

    run()
    first = audit_rows()
    assert first > 15
    quiet = run()
    assert audit_rows() == first
    # One event for each quiet profile, and not a check.
    assert len(quiet.get_asset_materialization_events()) == 15
    assert request.asset_check_keys == []
    world.rows(
        "UPDATE public.orders SET status = 'canceled' WHERE trade_id = 'nvda-1001' AND action = 'EXIT' RETURNING order_id"
    )
    run()
    changed = world.rows(
        "SELECT profile_id, decision FROM public.reconciliation_backfill_audit WHERE dry_run ORDER BY id DESC LIMIT %(n)s",
        n=audit_rows() - first,
    )
    assert changed == [{"profile_id": "t-nvda-breakout", "decision": "DRY_RUN"}]
    assert world.backfill_rows() == []


# -- profiles to partitions


def test_partitions_follow_the_table_of_profiles(world: World):
    assert "in step" in sense(world, profiles_to_partitions).skip_message
    world.rows(
        "INSERT INTO public.profiles (profile_id, account_id) VALUES ('new one', 't-mixed') RETURNING profile_id"
    )
    world.instance.add_dynamic_partitions(PROFILES, ["long gone"])
    added, deleted = sense(world, profiles_to_partitions).dynamic_partitions_requests
    assert (added.partition_keys, deleted.partition_keys) == (["new one"], ["long gone"])


def test_an_empty_or_unreadable_table_removes_no_partition(world: World):
    world.environment["RECON_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
    data = sense(world, profiles_to_partitions)
    assert not data.dynamic_partitions_requests
    assert data.skip_message
    assert len(world.instance.get_dynamic_partitions(PROFILES)) == 15


def test_a_profile_id_that_cannot_be_a_partition_is_left_out(world: World):
    world.rows(
        "INSERT INTO public.profiles (profile_id, account_id) VALUES ('a...b', 't-mixed'), ('c', 't-mixed') RETURNING profile_id"
    )
    [added] = sense(world, profiles_to_partitions).dynamic_partitions_requests
    assert added.partition_keys == ["c"]


# -- stuck batches


def test_a_stuck_batch_leads_to_one_alert_that_fails_and_raises_an_event(world: World):
    assert sense(world, stuck_batches).skip_message == "No batch is stuck."
    announce(world)
    announce(world, "t-eth-swing", "RECON-BFILL-at-work", minutes=0)
    [request] = sense(world, stuck_batches).run_requests
    assert (request.run_key, request.job_name) == ("RECON-BFILL-stuck", None)
    alert = world.run("exit_backfill_stuck_batch", config={"batch_id": "RECON-BFILL-stuck"}, op="verify_stuck_batch")
    assert not alert.success
    [event] = world.rows("SELECT type, severity, profile_id, message FROM recon.events WHERE type = 'batch_stuck'")
    assert (event["severity"], event["profile_id"]) == ("ERROR", "t-btc-trend")
    assert "exit_backfill_apply with its digest" in event["message"]
    assert world.backfill_rows() == []


@pytest.mark.parametrize(
    ("review", "dry_run", "launched"),
    [("true", "true", []), ("true", "false", []), ("false", "true", []), ("false", "false", ["t-btc-trend"])],
)
def test_a_stuck_batch_is_applied_only_where_both_settings_allow_it(
    world: World, review: str, dry_run: str, launched: list[str]
):
    announce(world)
    world.environment["RECON_EXIT_BACKFILL_REQUIRE_REVIEW"] = review
    world.environment["RECON_EXIT_BACKFILL_DRY_RUN"] = dry_run
    with dg.build_sensor_context(instance=world.instance, resources=outside(world)) as context:
        answers = list(unattended_apply_of_stuck_batches(context))
    requests = [answer for answer in answers if isinstance(answer, dg.RunRequest)]
    assert [request.partition_key for request in requests] == launched


def test_the_next_apply_closes_a_batch_that_a_crash_left_behind(world: World):
    world.pause()
    announce(world)
    plan = world.metadata(world.run("exit_backfill_dry_run", "t-btc-trend"), "proposed_backfill_rows", "t-btc-trend")
    applied = world.run("exit_backfill_apply", "t-btc-trend", config={"expected_digest": plan["digest"]})
    shown = world.metadata(applied, "applied_backfill_rows", "t-btc-trend")
    assert (shown["closed_stuck_batches"], shown["inserted_rows"]) == ("RECON-BFILL-stuck", 2)
    assert sense(world, stuck_batches).skip_message == "No batch is stuck."
