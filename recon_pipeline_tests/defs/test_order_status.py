"""The order status sync as runs on a real Postgres and the simulated exchange over HTTP: by hand, on schedule, the cleanup."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from recon_pipeline.defs.order_status_automation import order_status_sync_schedule, reconcile_on_order_events
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.schedules import RANGE_END, RANGE_START, SHARD_TAG
from recon_pipeline.sandbox.exchange import HistoricOrder
from recon_pipeline_tests.defs.conftest import World, plain
from recon_pipeline_tests.defs.test_runs import failure, statuses

NVDA, AMD, BTC, ETH = "t-nvda-breakout", "t-amd-hold", "t-btc-trend", "t-eth-swing"
STALE, UPDATES, CHECK = "stale_orders", "order_status_updates", "no_order_is_stale"
CLEANUP = {"op": "clean_up_stale_orders"}
LOST = str(UUID(int=4711, version=4))
GTC = str(UUID(int=4712, version=4))
ON_TIME = datetime(2026, 11, 20, 12, 7, tzinfo=UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A tick is evaluated from the reference to an instance, which only one that keeps files has."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as made:
        yield made


def place(world: World, profile: str, order_id: str, *, hours: float, trade: str = "stuck-1") -> None:
    """A row that a bot left in pending_new; what the exchange knows of the order is another matter."""
    at = datetime.now(UTC) - timedelta(hours=hours)
    world.rows(
        "INSERT INTO public.orders (order_id, client_order_id, user_id, profile_id, symbol, type, side, qty, status,"
        ' "timestamp", trade_id, action, created_at, updated_at) VALUES (%(id)s, %(client)s, %(user)s, %(p)s, %(symbol)s,'
        " 'limit', 'BUY', 2, 'pending_new', %(ms)s, %(trade)s, 'ENTRY', %(at)s, %(at)s) RETURNING id",
        id=order_id,
        client=f"bytelyst-{profile}-{trade}-entry",
        user="u",
        p=profile,
        symbol="BTC/USD" if profile in {BTC, ETH} else "AMD",
        ms=int(at.timestamp() * 1000),
        trade=trade,
        at=at,
    )


def at_the_exchange(world: World, profile: str, order_id: str, *, hours: float, trade: str = "stuck-1") -> None:
    """An order that waits at the exchange, good till canceled."""
    account = next(one.account_id for one in world.book.profiles if one.profile_id == profile)
    world.exchange.book.inject(
        account,
        [
            HistoricOrder(
                "AMD",
                "buy",
                Decimal(2),
                datetime.now(UTC) - timedelta(hours=hours),
                type="limit",
                time_in_force="gtc",
                limit_price=Decimal("1.5"),
                order_id=order_id,
                client_order_id=f"bytelyst-{profile}-{trade}-entry",
            )
        ],
    )


def status_of(world: World, order_id: str) -> str:
    [row] = world.rows("SELECT status FROM public.orders WHERE order_id = %(id)s", id=order_id)
    return str(row["status"])


def corrections(world: World, order_id: str) -> list[dict[str, Any]]:
    return world.rows(
        "SELECT batch_id, cause FROM recon.corrections WHERE table_name = 'orders' AND row_key ->> 'order_id' = %(id)s"
        " ORDER BY id",
        id=order_id,
    )


def stuck_exit(world: World) -> str:
    """The demo book's exit of nvda-1001: filled at the exchange, pending_new in the ledger for three hours."""
    [row] = world.rows("SELECT order_id FROM public.orders WHERE trade_id = 'nvda-1001' AND status = 'pending_new'")
    return str(row["order_id"])


def materialized(result: dg.ExecuteInProcessResult) -> Counter[tuple[str, str | None]]:
    return Counter(
        (event.asset_key.to_user_string(), event.partition) for event in result.get_asset_materialization_events()
    )


def output(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """The metadata of the cleanup's output."""
    [event] = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    return {name: plain(value) for name, value in event.event_specific_data.metadata.items()}


def again_due(world: World) -> None:
    world.rows("UPDATE recon.order_checks SET next_check_at = now() - interval '1 second' RETURNING order_id")


def on_schedule(world: World, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
    """A run as the schedule launches it: the updates, nothing else."""
    return dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.assets(UPDATES),
        tags=tags,
        raise_on_error=False,
    )


def tick(world: World, at: datetime = ON_TIME) -> dg.ScheduleExecutionData:
    outside = {"outside": world.definitions.resources["outside"]}
    with dg.build_schedule_context(instance=world.instance, scheduled_execution_time=at, resources=outside) as context:
        return order_status_sync_schedule.evaluate_tick(context)


def sense(world: World) -> Any:
    outside = {"outside": world.definitions.resources["outside"]}
    with dg.build_sensor_context(
        instance=world.instance,
        definitions=world.definitions,
        resources=outside,
        sensor_name=reconcile_on_order_events.name,
    ) as context:
        return reconcile_on_order_events.evaluate_tick(context)


# -- by hand


def test_a_dry_run_shows_what_it_would_write_and_a_run_that_may_write_corrects_the_order(world: World):
    order_id, before = stuck_exit(world), world.everything()
    dry = world.run("order_status_sync", NVDA)
    assert dry.success, failure(dry)
    assert world.everything() == before
    shown = world.metadata(dry, UPDATES, NVDA)
    assert (shown["outcome"], shown["dry_run"]) == ("1 order asked about: 1 would be corrected (dry run).", True)
    [row] = shown["corrections"]
    assert (row["state"], row["change"]) == ("dry run", f"exit fill, trade nvda-1001, row {order_id}")
    stale = world.metadata(dry, STALE, NVDA)
    assert (stale["stale"], stale["oldest_stale_minutes"]) == (1, 180)
    [order] = stale["orders"]
    assert order["order"] == f"⚠ trade nvda-1001, SELL NVDA, row {order_id}"
    assert order["last_answer"] == "differs: pending_new to filled: order_executed_more"
    assert stale["answers"][0]["what_to_do"].startswith("to be written, and only shown in a dry run")
    check = world.checks(dry)[CHECK]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "⚠ 1 stale order of 1 profile, the oldest 3 h old."

    world.environment["RECON_ORDER_STATUS_DRY_RUN"] = "false"
    done = world.run("order_status_sync", NVDA)
    assert done.success, failure(done)
    assert status_of(world, order_id) == "filled"
    shown = world.metadata(done, UPDATES, NVDA)
    assert (shown["checked"], shown["updated"], shown["failed"], shown["stale"]) == (1, 1, 0, 0)
    assert shown["api_calls_of_account"] >= 1
    [row] = shown["corrections"]
    [written] = corrections(world, order_id)
    assert (row["state"], shown["batch_id"]) == ("written", written["batch_id"])
    assert world.checks(done)[CHECK].passed
    assert materialized(done) == Counter([(STALE, NVDA), (UPDATES, NVDA), ("operations_board", None)])
    board = world.metadata(done, "operations_board", None)
    assert board["order_status"] == "No order is stale."
    assert board["order_status_sync"].startswith("Last run 0 s ago (writes): 1 checked, 1 updated")


def test_an_order_that_waits_rightly_is_shown_with_its_reason_and_is_not_stale(world: World):
    place(world, AMD, GTC, hours=30)
    at_the_exchange(world, AMD, GTC, hours=30)
    result = world.run("order_status_sync", AMD)
    assert world.metadata(result, UPDATES, AMD)["outcome"] == "1 order asked about: 1 live at the exchange."
    shown = world.metadata(result, STALE, AMD)
    assert shown["outcome"] == "No order is stale; 1 older order confirmed live by the exchange."
    assert shown["orders"][0]["order"] == f"trade stuck-1, BUY AMD, row {GTC}"
    assert world.checks(result)[CHECK].passed


def test_the_check_alone_asks_nobody_and_needs_no_partition(world: World):
    world.run("order_status_sync", NVDA)
    world.exchange.faults.requests.clear()
    alone = dg.materialize(
        list(world.definitions.assets),
        instance=world.instance,
        resources=dict(world.definitions.resources),
        selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(STALE)),
    )
    assert not world.checks(alone)[CHECK].passed
    assert world.exchange.faults.requests == []


def test_an_account_that_can_not_be_asked_fails_its_profiles_and_no_other_and_no_key_is_told(world: World):
    name = next(name for name in world.environment if name.startswith("RECON_ACCOUNT_T_EQUITY") and "SECRET" in name)
    world.environment[name] = "wrong"
    place(world, AMD, GTC, hours=30)
    at_the_exchange(world, AMD, GTC, hours=30)
    result = world.run("order_status_sync", partitions=(world.profiles[0], world.profiles[-1]))
    assert not result.success
    assert failure(result).startswith("1 of 15 profiles failed, the others are done.")
    found = statuses(world, UPDATES)
    assert {profile for profile in found if found[profile] == "FAILED"} == {NVDA}
    assert set(found.values()) == {"FAILED", "MATERIALIZED"}
    # That its order is stale is known all the same.
    assert world.metadata(result, STALE, NVDA)["without_answer"] == 1
    assert "wrong" not in json.dumps([event.message or "" for event in result.all_events])


def test_a_sync_that_is_switched_off_asks_nobody(world: World):
    world.environment["ENABLE_RECON_ORDER_STATUS_SYNC"] = "false"
    assert "ENABLE_RECON_ORDER_STATUS_SYNC=true" in failure(world.run("order_status_sync", NVDA))
    assert "ENABLE_RECON_ORDER_STATUS_SYNC is false" in tick(world).skip_message
    assert world.exchange.faults.requests == []


# -- on schedule


def test_the_schedule_launches_what_is_due_and_nothing_where_nothing_is(world: World):
    world.environment["RECON_SHARD_SIZE"] = "5"
    place(world, BTC, LOST, hours=2)
    keys = list(world.instance.get_dynamic_partitions(PROFILES))
    requests = tick(world).run_requests
    assert [request.tags[SHARD_TAG] for request in requests] == sorted(
        {str(keys.index(profile) // 5) for profile in (BTC, NVDA)}
    )
    for request in requests:
        # Only the profile that is due, not its shard.
        assert request.tags[RANGE_START] == request.tags[RANGE_END]
        assert [key.to_user_string() for key in request.asset_selection] == [UPDATES]
        assert request.asset_check_keys == []
    ran = [on_schedule(world, dict(request.tags)) for request in requests]
    assert all(result.success for result in ran)
    assert sum((materialized(result) for result in ran), Counter()) == Counter(
        {(UPDATES, BTC): 1, (STALE, BTC): 1, (UPDATES, NVDA): 1, (STALE, NVDA): 1, ("operations_board", None): 2}
    )
    # The check looks at all profiles, whichever the run was about.
    assert world.checks(ran[-1])[CHECK].metadata["profiles_with_stale_orders"].value == 2
    assert "No order is due" in tick(world).skip_message
    # Launched all the same, a run asks nobody and tells nothing.
    world.exchange.faults.requests.clear()
    assert set(materialized(on_schedule(world, dict(requests[0].tags)))) == {("operations_board", None)}
    assert world.exchange.faults.requests == []
    # Asked about again with the same answer: what is stale is no news.
    again_due(world)
    assert {asset for asset, _ in materialized(on_schedule(world, dict(requests[0].tags)))} == {
        UPDATES,
        "operations_board",
    }


def test_a_quiet_profile_between_two_that_are_due_costs_no_event(world: World):
    first, last = world.profiles[0], world.profiles[-1]
    place(world, first, LOST, hours=2)
    [request] = tick(world).run_requests
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == tuple(
        sorted((first, NVDA), key=world.profiles.index)
    )
    done = on_schedule(world, dict(request.tags))
    assert {partition for key, partition in materialized(done) if key == UPDATES} == {first, NVDA}
    assert statuses(world, UPDATES)[last] == "MISSING"

    # Where the run fails it is told all the same: what a failed run planned and did not tell is shown as failed.
    name = next(name for name in world.environment if name.startswith("RECON_ACCOUNT_T_EQUITY") and "SECRET" in name)
    world.environment[name] = "wrong"
    again_due(world)
    failed = on_schedule(world, dict(request.tags))
    assert failure(failed).startswith("1 of ")
    found = statuses(world, UPDATES)
    assert {profile for profile in found if found[profile] == "FAILED"} == {NVDA}


def test_the_schedule_ticks_every_minute_and_acts_when_the_interval_is_over(world: World):
    for interval, minute, said in (
        ("5", 7, ""),
        ("5", 5, "The next run is due in 2 min"),  # the cycle's minute
        ("5", 8, "The next run is due in 4 min"),
        ("60", 7, "The next run is due in 55 min"),
        ("1", 6, ""),
        ("2", 6, ""),
    ):
        world.environment["RECON_ORDER_STATUS_INTERVAL_MINUTES"] = interval
        data = tick(world, ON_TIME.replace(minute=minute))
        assert (bool(data.run_requests), data.skip_message or "") == (
            not said,
            f"{said}, by RECON_ORDER_STATUS_INTERVAL_MINUTES." if said else "",
        )


def test_a_shard_whose_last_sync_still_works_is_left_out(world: World):
    world.instance.add_run(
        dg.DagsterRun(job_name="order_status_sync", status=dg.DagsterRunStatus.STARTED, tags={SHARD_TAG: "0"})
    )
    assert "still works, shard 0" in tick(world).skip_message


def test_a_database_that_can_not_be_read_is_said_by_schedule_and_sensor(world: World):
    world.environment["RECON_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/nothing"
    assert tick(world).skip_message
    assert sense(world).skip_message


# -- the cleanup


def cleanup(world: World, **config: object) -> dg.ExecuteInProcessResult:
    return world.run("stale_order_cleanup", config=config, **CLEANUP)


def test_the_cleanup_previews_then_writes_what_it_showed_and_a_person_decides_the_rest(world: World):
    place(world, AMD, LOST, hours=30)
    place(world, AMD, GTC, hours=40, trade="stuck-2")
    at_the_exchange(world, AMD, GTC, hours=40, trade="stuck-2")
    before = world.everything()
    shown = cleanup(world, profile_ids=[AMD])
    preview = output(shown)
    assert world.everything() == before
    assert preview["outcome"].startswith("Preview, nothing was changed: 2 orders asked about with ")
    assert "1 row would be written" in preview["outcome"]
    # A preview is no news of the ledger.
    assert materialized(shown) == Counter()
    [row] = preview["corrections"]
    assert (row["state"], row["change"]) == ("dry run", f"status, trade stuck-1, row {LOST}")
    assert preview["digest"] in preview["carry_it_out"]

    assert "launch this without confirm" in failure(cleanup(world, profile_ids=[AMD], confirm=True))
    other = cleanup(world, profile_ids=[AMD], confirm=True, expected_digest="0" * 64)
    assert "Nothing was written" in failure(other)
    assert world.everything() == before

    done = cleanup(world, profile_ids=[AMD], confirm=True, expected_digest=preview["digest"])
    assert done.success, failure(done)
    assert (status_of(world, LOST), status_of(world, GTC)) == ("unknown", "pending_new")
    assert "1 of 1 row written." in output(done)["outcome"]
    assert (UPDATES, AMD) in materialized(done)
    assert not world.checks(done)[CHECK].passed
    left = world.metadata(done, STALE, AMD)["answers"]
    assert {row["answer"]: "it blocks its trade until you decide" in row["what_to_do"] for row in left} == {
        "marked_unknown": True,
        "live": False,
    }

    who = {"decided_by": "Ada", "reason": "the bot crashed before it was sent"}
    # The row was written a moment ago: that may have been its bot.
    hasty = output(cleanup(world, cancel_unknown=[LOST], **who))
    assert "nothing is to be written. 1 postponed" in hasty["outcome"]
    assert "postponed: quiet" in {row["last_answer"] for row in hasty["orders"]}
    world.environment["RECON_ORDER_QUIET_PERIOD_SECONDS"] = "0"
    decided = output(cleanup(world, cancel_unknown=[LOST], **who))
    assert decided["corrections"][0]["change"] == f"cancel, trade stuck-1, row {LOST}"
    assert status_of(world, LOST) == "unknown"
    gone = cleanup(world, cancel_unknown=[LOST], confirm=True, expected_digest=decided["digest"], **who)
    assert gone.success, failure(gone)
    assert status_of(world, LOST) == "canceled"
    last = corrections(world, LOST)[-1]
    assert last["cause"]["rule"] == "person_decided"
    assert "Ada" in json.dumps(last["cause"])
    assert (
        world.checks(gone)[CHECK].metadata["violations"].value == 1
    )  # the other profile's, which was never asked about


def test_a_cleanup_that_can_not_be_meant_so_is_refused_and_asks_nobody(world: World):
    ada = {"decided_by": "Ada", "reason": "gone"}
    refused: list[tuple[dict[str, object], str]] = [
        ({"profile_ids": ["t-misspelt"]}, "no profile t-misspelt"),
        ({"limit": -1}, "limit is a number of orders"),
        ({"confirm": True}, "launch this without confirm"),
        ({"confirm": True, "expected_digest": "abc"}, "is no digest"),
        ({"cancel_unknown": ["x"]}, "wants decided_by (who) and reason (why)"),
        ({"cancel_unknown": ["x"], **ada, "reason": " "}, "wants decided_by (who) and reason (why)"),
        ({"cancel_unknown": ["x"], **ada}, "not remembered as unknown"),
        (dict(ada), "belong to cancel_unknown"),
    ]
    for config, said in refused:
        assert said in failure(cleanup(world, **config))
    assert world.exchange.faults.requests == []


# -- events of the stream


def tell(world: World, profile: str, *, minutes: float = 0, account: str = "t-crypto", key: str = "e1") -> None:
    """An event that only a cycle can judge, as the stream leaves it."""
    world.rows(
        "INSERT INTO recon.order_events (account_id, event_key, event, received_at, handled_at, profile_id, outcome,"
        " needs_cycle, raw) VALUES (%(account)s, %(key)s, 'replaced', %(at)s, %(at)s, %(profile)s, 'needs_cycle', true, '{}')"
        " RETURNING id",
        account=account,
        key=key,
        at=datetime.now(UTC) - timedelta(minutes=minutes),
        profile=profile,
    )


def test_an_event_that_needs_a_cycle_starts_one_for_its_profile_until_a_cycle_has_looked(world: World):
    assert sense(world).skip_message == "No event needs a cycle."
    tell(world, BTC, minutes=1)
    [request] = sense(world).run_requests
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (BTC, BTC)
    # The same event within the same five minutes is the same run.
    assert [one.run_key for one in sense(world).run_requests] == [request.run_key]
    ran = world.run("reconcile", partitions=(BTC, BTC), tags=dict(request.tags))
    assert ran.success, failure(ran)
    assert sense(world).skip_message == "No event needs a cycle."


def test_neighbours_share_a_run_and_a_cycle_at_work_is_waited_for(world: World):
    first, second, third = world.profiles[0], world.profiles[1], world.profiles[3]
    for number, profile in enumerate((first, second, third)):
        tell(world, profile, account=world.book.profiles[world.profiles.index(profile)].account_id, key=f"e{number}")
    requests = sense(world).run_requests
    assert [(one.tags[RANGE_START], one.tags[RANGE_END]) for one in requests] == [(first, second), (third, third)]
    world.instance.add_run(
        dg.DagsterRun(
            job_name="reconcile",
            status=dg.DagsterRunStatus.STARTED,
            tags={RANGE_START: first, RANGE_END: world.profiles[-1]},
        )
    )
    assert sense(world).skip_message.startswith("A cycle works on it")
