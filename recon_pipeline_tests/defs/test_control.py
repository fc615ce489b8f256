"""Pause, resume and rollback as jobs: what they write, what they refuse, what they say."""

from __future__ import annotations

import pytest

from recon_pipeline_tests.defs.conftest import World
from recon_pipeline_tests.defs.test_runs import APPLIED, ETH, dry_run, failure


def states(world: World) -> dict[str, tuple[str, str]]:
    rows = world.rows("SELECT scope, state, reason FROM public.trading_control ORDER BY scope")
    return {row["scope"]: (row["state"], row["reason"]) for row in rows}


def test_trading_is_paused_and_resumed_with_a_reason_and_an_event(world: World):
    config = {"scope": ETH, "reason": "exit backfill"}
    paused = world.run("pause_trading", config=config, op="pause")
    assert paused.success
    assert states(world) == {ETH: ("PAUSED", "exit backfill")}
    assert dry_run(world, ETH)["paused_since"].endswith(f"by dagster run {paused.run_id[:8]}: exit backfill")
    assert world.run("resume_trading", config={"scope": ETH, "reason": "done"}, op="resume").success
    assert states(world) == {ETH: ("RUNNING", "done")}
    events = world.rows("SELECT type, profile_id FROM recon.events ORDER BY id")
    assert [(row["type"], row["profile_id"]) for row in events] == [("trading_paused", ETH), ("trading_resumed", ETH)]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"scope": "all", "reason": ""}, "a reason"),
        ({"scope": "", "reason": "why"}, "a scope"),
        ({"scope": "t-misspelt", "reason": "why"}, "no profile 't-misspelt'"),
    ],
)
def test_a_pause_of_nobody_or_without_a_reason_is_refused(world: World, config: dict[str, str], said: str):
    assert said in failure(world.run("pause_trading", config=config, op="pause"))
    assert states(world) == {}


def apply(world: World) -> str:
    world.pause()
    plan = dry_run(world, ETH)
    result = world.run("exit_backfill_apply", ETH, config={"expected_digest": plan["digest"]})
    return str(world.metadata(result, APPLIED, ETH)["batch_id"])


def test_a_rollback_says_which_row_stays_because_somebody_changed_it(world: World):
    batch = apply(world)
    world.rows(
        "UPDATE public.orders SET price = price + 1 WHERE order_id LIKE 'BFILL-%%' AND qty = 0.7 RETURNING order_id"
    )
    result = world.run("exit_backfill_rollback", config={"batch_id": batch, "confirm": True}, op="roll_back_batch")
    assert not result.success
    assert failure(result).startswith("Only partly taken back: ")
    assert [str(row["qty"]) for row in world.backfill_rows(ETH)] == ["0.7"]
    [event] = [event for event in result.all_events if event.event_type_value == "ASSET_OBSERVATION"]
    rows = event.asset_observation_data.asset_observation.metadata["rows"].records
    stays = [dict(row.data) for row in rows if row.data["outcome"] == "stays"]
    assert "changed_since (price)" in {row["reason"] for row in stays}


@pytest.mark.parametrize(("batch", "said"), [("RECON-BFILL-none", "unknown_batch"), ("", "Give the batch_id")])
def test_a_rollback_of_no_batch_is_refused(world: World, batch: str, said: str):
    result = world.run("exit_backfill_rollback", config={"batch_id": batch, "confirm": True}, op="roll_back_batch")
    assert said in failure(result)


def test_a_rollback_wants_trading_paused(world: World):
    batch = apply(world)
    world.pause(state="RUNNING")
    result = world.run("exit_backfill_rollback", config={"batch_id": batch, "confirm": True}, op="roll_back_batch")
    assert "pause_required" in failure(result)
    assert len(world.backfill_rows(ETH)) == 3
