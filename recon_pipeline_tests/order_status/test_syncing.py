"""A run of the sync asks about stale orders, writes what the exchange proves, and remembers the rest."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import pytest

from recon_pipeline.domain.order_answers import Decision
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases, release_leases
from recon_pipeline.order_status import syncing
from recon_pipeline.order_status.brief_lease import is_brief
from recon_pipeline.order_status.syncing import LEASE_HELD, NOT_LIVE, DigestChangedError, SyncScope
from recon_pipeline.sandbox.exchange import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import order_id
from recon_pipeline_tests.order_status.scene import SyncScene

LOOK_UPS = "/v2/orders*"


def test_an_order_that_the_exchange_filled_becomes_filled_with_its_quantity_price_and_time(scene: SyncScene):
    key = scene.stuck(1, executed="10")

    result = scene.sync()

    row = scene.order(key)
    assert (row["status"], row["filled_qty"], row["price"]) == ("filled", Decimal(10), Decimal(100))
    assert row["filled_at"] == row["created_at"] + dt.timedelta(seconds=2)
    assert result.profiles["p1"].applied == (key,)
    assert scene.checks() == {}
    (correction,) = scene.sql("SELECT * FROM recon.corrections WHERE table_name = 'orders'")
    assert (correction["before"]["status"], correction["after"]["status"]) == ("pending_new", "filled")
    (batch,) = scene.sql("SELECT * FROM recon.batches")
    assert (batch["kind"], batch["state"], batch["batch_id"]) == (
        "order_status",
        "APPLIED",
        result.profiles["p1"].batch_id,
    )


def test_every_live_status_is_brought_up_to_date_and_counted(scene: SyncScene):
    filled = scene.stuck(1, executed="10", status="filled")
    grown = scene.stuck(2, executed="8")
    dead = scene.stuck(3, status="canceled")
    waits = scene.stuck(4)
    gone = scene.stuck(5, known=False)
    old = scene.stuck(6, known=False, hours=25)

    result = scene.sync()

    assert scene.order(filled)["status"] == "filled"
    assert (scene.order(grown)["status"], scene.order(grown)["filled_qty"]) == ("partially_filled", Decimal(8))
    assert scene.order(waits)["status"] == scene.order(gone)["status"] == "pending_new"
    assert (scene.order(dead)["status"], scene.order(old)["status"]) == ("canceled", "unknown")
    assert {key: row["outcome"] for key, row in scene.checks().items()} == {
        grown: "live",
        waits: "live",
        gone: "missing",
        old: "marked_unknown",
    }
    counts = result.counts
    assert (counts["checked"], counts["updated"], counts["not_found"], counts["failed"]) == (6, 3, 2, 0)
    assert (counts["still_live"], counts["marked_unknown"], counts["left_over"]) == (1, 1, 0)
    (run,) = scene.sql("SELECT * FROM recon.order_sync_runs")
    assert (run["run_id"], run["dry_run"], run["error"]) == (result.run_id, False, "")
    assert (run["checked"], run["updated"], run["not_found"], run["failed"], run["still_live"]) == (6, 3, 2, 0, 1)
    assert run["api_calls"] == result.api_calls == len(scene.world.requests)


def test_what_was_counted_is_the_runs_counts_added_up(scene: SyncScene):
    scene.stuck(1, executed="10")
    scene.stuck(2, known=False)
    first = scene.sync()
    scene.wait(6)
    second = scene.sync()

    totals = scene.totals()
    for name in ("checked", "updated", "not_found", "failed"):
        assert totals.get(f"order_status_{name}", Decimal(0)) == first.counts[name] + second.counts[name]
    assert totals["order_status_runs"] == 2
    assert totals["order_status_api_calls"] == first.api_calls + second.api_calls
    (usage,) = scene.sql("SELECT * FROM recon.account_usage")
    assert (usage["account_id"], usage["rate_limit"], usage["rate_remaining"]) == (
        "A1",
        200,
        200 - len(scene.world.requests),
    )


def test_a_dry_run_writes_no_order_and_remembers_what_would_be_written(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    before = scene.order(key)

    result = scene.sync(dry_run=True)

    assert scene.order(key) == before
    assert scene.sql("SELECT * FROM recon.batches") == []
    assert [change.order_id for change in result.profiles["p1"].changes] == [key]
    check = scene.checks()[key]
    assert (check["outcome"], check["exchange_status"]) == ("differs", "filled")
    assert result.counts["differs"] == 1
    assert scene.sync(dry_run=False, scope=SyncScope.STALE).digest == result.digest
    assert scene.order(key)["status"] == "filled"


def test_a_quiet_ledger_has_no_due_profiles_and_a_run_of_it_asks_and_saves_nothing(scene: SyncScene):
    scene.stuck(1, executed="10")
    scene.stuck(2, hours=0.01)
    assert scene.due() == ["p1"]
    scene.sync()
    assert scene.due() == []
    requests = len(scene.world.requests)

    result = scene.sync()

    assert (result.api_calls, result.accounts, len(scene.world.requests)) == (0, {}, requests)
    assert result.profiles["p1"].counts == dict.fromkeys(result.profiles["p1"].counts, 0)
    assert scene.sql("SELECT * FROM recon.leases WHERE token > 1") == []


def test_an_order_that_waits_rightly_is_asked_about_again_after_an_interval(scene: SyncScene):
    key = scene.stuck(1)
    scene.sync()
    first = scene.checks()[key]
    assert scene.due() == []

    scene.wait(4.6)
    assert scene.due() == ["p1"]
    scene.sync()

    again = scene.checks()[key]
    assert (again["outcome"], again["first_seen_at"]) == ("live", first["first_seen_at"])
    assert again["checked_at"] > first["checked_at"]


def test_a_check_of_an_order_that_a_bot_has_finished_is_forgotten(scene: SyncScene):
    key = scene.stuck(1)
    scene.sync()
    scene.sql("UPDATE orders SET status = 'canceled' WHERE order_id = %(id)s", id=key)

    assert scene.due() == ["p1"]
    result = scene.sync()

    assert (scene.checks(), result.api_calls, scene.due()) == ({}, 0, [])
    assert len(result.profiles["p1"].checks) == 0


def test_no_answer_is_no_guess_and_is_asked_for_again_ever_later(scene: SyncScene):
    key = scene.stuck(1, executed="10", hours=30)
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, path=LOOK_UPS, status=500))
    waits = []
    for _ in range(5):
        result = scene.sync()
        check = scene.checks()[key]
        waits.append((check["next_check_at"] - scene.now).total_seconds() / 60)
        assert (result.counts["failed"], result.counts["not_found"], check["outcome"]) == (1, 0, "failed")
        assert "HTTP 500" in check["detail"]
        assert scene.due() == []
        scene.wait(waits[-1] + 0.1)
        assert scene.due() == ["p1"]
    assert waits == [4.5, 9.5, 19.5, 39.5, 59.5]
    assert scene.order(key)["status"] == "pending_new"

    scene.world.sim.faults.clear()
    assert scene.sync().counts["updated"] == 1
    assert scene.order(key)["status"] == "filled"


def test_refused_keys_are_the_reason_of_every_order_and_of_the_account(scene: SyncScene):
    scene.stuck(1)
    scene.stuck(2)
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, path=LOOK_UPS, status=403))

    result = scene.sync()

    assert {row["outcome"] for row in scene.checks().values()} == {"failed"}
    assert all("HTTP 403" in row["detail"] for row in scene.checks().values())
    assert "HTTP 403" in result.accounts["A1"].error
    assert "HTTP 403" in scene.sql("SELECT error FROM recon.order_sync_runs")[0]["error"]
    assert result.api_calls == 1


def test_an_exchange_that_is_down_leaves_most_orders_as_they_are_and_due(scene: SyncScene):
    for n in range(1, 11):
        scene.stuck(n)
    scene.world.sim.faults.add(Fault(FaultKind.ERROR, path=LOOK_UPS, status=503))

    result = scene.sync()

    outcomes = [row["outcome"] for row in scene.checks().values()]
    assert (outcomes.count("failed"), outcomes.count("not_checked")) == (3, 7)
    assert (result.counts["failed"], result.left_over) == (3, 7)
    scene.world.sim.faults.clear()
    assert scene.sync().counts["still_live"] == 7


def test_a_run_asks_about_the_oldest_first_and_at_most_a_batch_of_them(scene: SyncScene):
    keys = [scene.stuck(n, hours=10 - n) for n in range(1, 8)]
    small = replace(scene.sync_policy, batch_size=3)

    rounds = []
    for _ in range(3):
        before = {key for key, row in scene.checks().items() if row["checked_at"] is not None}
        result = scene.sync(policy=small)
        checked = {key for key, row in scene.checks().items() if row["checked_at"] is not None}
        rounds.append((sorted(checked - before), result.left_over))
        assert len(scene.checks()) == 7, "those that are left over are seen, too"

    assert rounds == [(sorted(keys[:3]), 4), (sorted(keys[3:6]), 1), (sorted(keys[6:]), 0)]


def test_profiles_of_several_accounts_are_worked_on_and_one_accounts_failure_stays_its_own(scene: SyncScene):
    book = scene.world.sim.book
    book.add_account("A2", key_id="PKA2", secret_key="secret-of-A2")
    scene.profile("p2", "A2")
    scene.profile("p3", "A1")
    mine, theirs = scene.stuck(1, executed="10"), scene.stuck(2, executed="10", profile_id="p3")
    other = scene.stuck(3, executed="10", profile_id="p2", account="A2")

    result = scene.sync("p1", "p2", "p3", "nobody")

    assert [scene.order(key)["status"] for key in (mine, theirs, other)] == ["filled", "filled", "pending_new"]
    assert "there are no keys for account 'A2'" in result.accounts["A2"].error
    assert sorted(result.profiles) == ["nobody", "p1", "p2", "p3"]
    failure = result.profiles["nobody"].failure
    assert failure is not None
    assert "not in the table profiles" in failure.message
    assert result.profiles["p2"].counts["failed"] == 1


def test_one_profile_that_can_not_be_written_does_not_stop_the_others(
    scene: SyncScene, monkeypatch: pytest.MonkeyPatch
):
    scene.profile("p2")
    broken, fine = scene.stuck(1, executed="10"), scene.stuck(2, executed="10", profile_id="p2")
    scene.sql(
        """CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN IF new.profile_id = ''p1'' THEN RAISE EXCEPTION ''no''; END IF; RETURN new; END'"""
    )
    scene.sql("CREATE TRIGGER refuse BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION public.refuse()")

    result = scene.sync("p1", "p2")

    failure = result.profiles["p1"].failure
    assert failure is not None
    assert "apply_failed" in failure.message
    assert scene.checks()[broken]["outcome"] == "postponed"
    assert (scene.order(broken)["status"], scene.order(fine)["status"]) == ("pending_new", "filled")
    assert "apply_failed" in scene.sql("SELECT error FROM recon.order_sync_runs")[0]["error"]


def test_a_profile_that_a_cycle_works_on_is_waited_for_and_then_left_due(
    scene: SyncScene, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(syncing, "_PATIENCE_SECONDS", 0.4)
    scene.profile("p2")
    held, free = scene.stuck(1, executed="10"), scene.stuck(2, executed="10", profile_id="p2")
    with connect(scene.database_url, WRITER) as connection:
        leases = acquire_leases(connection, ["p1"], owner="cycle", ttl_seconds=60)
        result = scene.sync("p1", "p2")
        assert scene.due() == ["p1"]
        release_leases(connection, leases.values())

    assert (scene.order(held)["status"], scene.order(free)["status"]) == ("pending_new", "filled")
    mine = result.profiles["p1"]
    assert (dict(mine.postponed), mine.failure, mine.counts["left_over"]) == ({held: LEASE_HELD}, None, 1)
    assert mine.checks["outcome"].tolist() == ["not_checked"], "what was remembered before"
    assert scene.checks() == {}
    assert scene.sync().counts["updated"] == 1


def test_a_lease_that_is_given_back_in_time_costs_nothing(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    with connect(scene.database_url, WRITER) as connection:
        acquire_leases(connection, ["p1"], owner="cycle", ttl_seconds=1)

    scene.sync()

    assert scene.order(key)["status"] == "filled"
    (lease,) = scene.sql("SELECT owner, token FROM recon.leases")
    assert (lease["owner"], lease["token"]) == ("", 2), "given back"


def test_the_lease_says_that_it_is_held_for_a_moment(scene: SyncScene):
    scene.stuck(1, executed="10")
    owners = []

    def look(point: str) -> None:
        if point == "judged":
            owners.extend(row["owner"] for row in scene.sql("SELECT owner FROM recon.leases"))

    scene.sync(at=look)

    assert [is_brief(owner) for owner in owners] == [True]


def test_a_row_that_the_bot_finishes_while_the_exchange_is_asked_stays_as_the_bot_wrote_it(scene: SyncScene):
    key = scene.stuck(1, executed="10")

    def bot(point: str) -> None:
        if point == "accounts_asked":
            scene.sql(
                "UPDATE orders SET status = 'filled', filled_qty = 10, price = 100, updated_at = %(now)s WHERE order_id = %(id)s",
                id=key,
                now=scene.now,
            )

    result = scene.sync(at=bot)

    assert (scene.sql("SELECT * FROM recon.corrections"), scene.checks()) == ([], {})
    assert (result.counts["checked"], result.counts["updated"]) == (1, 0)


def test_a_row_that_changes_between_the_plan_and_the_write_is_postponed(scene: SyncScene):
    key = scene.stuck(1, executed="10")

    def bot(point: str) -> None:
        if point == "judged":
            scene.sql("UPDATE orders SET qty = 11 WHERE order_id = %(id)s", id=key)

    result = scene.sync(at=bot)

    assert scene.order(key)["status"] == "pending_new"
    assert list(result.profiles["p1"].postponed) == [key]
    assert scene.checks()[key]["outcome"] == "postponed"
    assert result.counts["postponed"] == 1


@pytest.mark.parametrize("point", ["judged", "rows_written", "checks_saved"])
def test_a_lease_that_is_lost_on_the_way_leaves_everything_as_it_was_and_due(scene: SyncScene, point: str):
    key = scene.stuck(1, executed="10")

    def lose(reached: str) -> None:
        if reached == point == "judged":
            scene.sql("UPDATE recon.leases SET token = token + 1")
        elif reached == point:
            raise RuntimeError("the connection is gone")

    failure = scene.sync(at=lose).profiles["p1"].failure

    assert failure is not None
    assert (scene.order(key)["status"], scene.checks(), scene.due()) == ("pending_new", {}, ["p1"])
    assert scene.totals().keys() == {"order_status_api_calls", "order_status_runs"}
    scene.sql("UPDATE recon.leases SET expires_at = now() - interval '1 second'")
    assert scene.sync().counts["updated"] == 1


def test_an_account_that_was_not_reached_leaves_what_is_known_of_its_rate(scene: SyncScene):
    scene.stuck(1)
    scene.sync()
    before = scene.sql("SELECT * FROM recon.account_usage")
    scene.sql("UPDATE profiles SET account_id = 'A9'")
    scene.wait(6)

    assert "no keys" in scene.sync().accounts["A9"].error
    assert scene.sql("SELECT * FROM recon.account_usage") == before


def test_a_persistent_stale_order_is_told_once_an_hour(scene: SyncScene):
    scene.stuck(1, known=False, hours=2)

    for _ in range(3):
        scene.sync()
        scene.wait(10)

    (event,) = scene.sql("SELECT * FROM recon.events")
    assert (event["type"], event["severity"], event["profile_id"]) == ("RECONCILIATION_DEGRADED", "WARN", "p1")
    scene.wait(60)
    scene.sync()
    assert len(scene.events()) == 2


# -- a person's runs


def test_a_person_asks_about_every_stale_order_at_once_also_those_that_were_asked_about_just_now(scene: SyncScene):
    key = scene.stuck(1)
    scene.sync()
    assert scene.sync().counts["checked"] == 0

    assert scene.sync(scope=SyncScope.STALE).counts["checked"] == 1
    assert scene.checks()[key]["outcome"] == "live"


def test_the_catch_up_of_a_stream_asks_about_young_orders_too_and_remembers_only_stale_ones(scene: SyncScene):
    young, stale = scene.stuck(1, executed="10", hours=0.05), scene.stuck(2)
    ahead = scene.stuck(3, hours=-0.05)

    result = scene.sync(scope=SyncScope.LIVE)

    assert result.counts["checked"] == 3
    assert scene.order(young)["status"] == "filled"
    assert scene.order(ahead)["status"] == "pending_new"
    assert list(scene.checks()) == [stale]


def test_the_preview_of_a_clean_up_changes_and_remembers_nothing_and_its_digest_is_confirmed(scene: SyncScene):
    old, young = scene.stuck(1, known=False, hours=30), scene.stuck(2, known=False)
    found = scene.stuck(3, executed="10", hours=30)
    before = scene.sql("SELECT * FROM orders ORDER BY order_id")

    preview = scene.sync(scope=SyncScope.OLD, dry_run=True)

    assert scene.sql("SELECT * FROM orders ORDER BY order_id") == before
    assert (scene.checks(), scene.sql("SELECT * FROM recon.order_sync_runs"), scene.events()) == ({}, [], [])
    assert sorted(change.order_id for change in preview.profiles["p1"].changes) == sorted([old, found])

    with pytest.raises(DigestChangedError, match=preview.digest):
        scene.sync(scope=SyncScope.OLD, dry_run=False, expected_digest="0" * 64)
    assert scene.sql("SELECT * FROM orders ORDER BY order_id") == before

    result = scene.sync(scope=SyncScope.OLD, dry_run=False, expected_digest=preview.digest)

    assert result.digest == preview.digest
    statuses = [scene.order(key)["status"] for key in (old, young, found)]
    assert statuses == ["unknown", "pending_new", "filled"]


def test_an_order_that_fills_after_the_preview_is_not_marked_unknown(scene: SyncScene):
    key = scene.stuck(1, known=False, hours=30)
    preview = scene.sync(scope=SyncScope.OLD, dry_run=True)
    scene.stuck(2, executed="10", hours=30)

    with pytest.raises(DigestChangedError):
        scene.sync(scope=SyncScope.OLD, dry_run=False, expected_digest=preview.digest)

    assert scene.order(key)["status"] == "pending_new"


def test_a_row_that_changes_after_the_digest_was_compared_keeps_its_profile_from_being_written(scene: SyncScene):
    scene.profile("p2")
    key, other = scene.stuck(1, known=False, hours=30), scene.stuck(2, known=False, hours=30, profile_id="p2")
    preview = scene.sync("p1", "p2", scope=SyncScope.OLD, dry_run=True)

    def bot(point: str) -> None:
        if point == "leased":
            scene.sql("UPDATE orders SET qty = 11 WHERE order_id = %(id)s", id=key)

    result = scene.sync("p1", "p2", scope=SyncScope.OLD, dry_run=False, expected_digest=preview.digest, at=bot)

    assert dict(result.profiles["p1"].postponed) == {key: "changed_since_preview"}
    assert (scene.order(key)["status"], scene.order(other)["status"]) == ("pending_new", "unknown")


def test_a_person_gives_an_unknown_order_up_after_the_exchange_denied_it_once_more(scene: SyncScene):
    key, other = scene.stuck(1, known=False, hours=30), scene.stuck(2, known=False, hours=30)
    scene.sync()
    assert scene.order(key)["status"] == "unknown"
    decided = {("p1", key): Decision("ada", "the broker confirmed that it never arrived")}

    preview = scene.sync(dry_run=True, decided=decided)
    assert scene.order(key)["status"] == "unknown"
    result = scene.sync(dry_run=False, decided=decided, expected_digest=preview.digest)

    assert (scene.order(key)["status"], scene.order(other)["status"]) == ("canceled", "unknown")
    assert result.counts["checked"] == 1
    causes = [
        row["cause"]
        for row in scene.sql("SELECT cause FROM recon.corrections WHERE row_key->>'order_id' = %(id)s", id=key)
    ]
    assert (causes[-1]["decided_by"], causes[-1]["rule"]) == ("ada", "person_decided")
    assert list(scene.checks()) == [other]


def test_an_order_that_turns_up_is_not_given_up_whatever_a_person_decided(scene: SyncScene):
    key = scene.stuck(1, known=False, hours=30)
    scene.sync()
    scene.sql("DELETE FROM orders WHERE order_id = 'entry-1'")
    scene.sql("DELETE FROM orders WHERE order_id = %(id)s", id=key)
    scene.stuck(1, executed="10", hours=30, status="filled")
    scene.sql("UPDATE orders SET status = 'unknown' WHERE order_id = %(id)s", id=key)

    scene.sync(dry_run=False, decided={("p1", key): Decision("ada", "gone")})

    assert scene.order(key)["status"] == "filled"


def test_a_decision_about_an_order_that_is_over_comes_to_nothing_and_says_so(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    scene.sync()

    result = scene.sync(dry_run=False, decided={("p1", key): Decision("ada", "gone")})

    assert dict(result.profiles["p1"].postponed) == {key: NOT_LIVE}
    assert (result.api_calls, scene.order(key)["status"]) == (0, "filled")
    with pytest.raises(ValueError, match="p9"):
        scene.sync(dry_run=False, decided={("p9", key): Decision("ada", "gone")})


def test_a_profiles_failure_is_said_without_the_databases_url(scene: SyncScene):
    scene.stuck(1, executed="10")

    def lose(point: str) -> None:
        if point == "judged":
            raise RuntimeError(f"lost {scene.database_url}")

    failure = scene.sync(at=lose).profiles["p1"].failure

    assert failure is not None
    assert scene.database_url not in failure.message
    assert scene.order(order_id(1))["status"] == "pending_new"
