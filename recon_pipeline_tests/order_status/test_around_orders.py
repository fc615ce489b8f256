"""What stands around a stale order counts: backfill rows, rows of other profiles, keys that name another trade, leases."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import backfill_order_id
from recon_pipeline.order_status.brief_lease import BRIEF, brief_lease, is_brief
from recon_pipeline_tests.adapters.exchange.world import ms
from recon_pipeline_tests.order_status.scene import SyncScene, hours_ago

EXECUTED_AT = hours_ago(1) + dt.timedelta(seconds=2)


def backfilled(scene: SyncScene, key: str, *, trade_id: str, profile_id: str = "p1", qty: str = "10") -> str:
    """A backfill row of the order's execution, as the source wrote them: nothing but its id says which order it stands for."""
    at = iso_ms(ms(EXECUTED_AT))
    backfill = backfill_order_id(profile_id, trade_id, key, at)
    scene.row(
        backfill,
        profile_id=profile_id,
        trade_id=trade_id,
        side="SELL",
        action="EXIT",
        qty=Decimal(qty),
        price=Decimal(100),
        timestamp=ms(EXECUTED_AT),
        filled_at=EXECUTED_AT,
        source="BACKFILL",
    )
    return backfill


def booked(scene: SyncScene) -> Decimal:
    """What the ledger says that exits executed."""
    rows = scene.sql("SELECT coalesce(filled_qty, qty) AS qty FROM orders WHERE action = 'EXIT' AND status = 'filled'")
    return sum((row["qty"] for row in rows), Decimal(0))


def test_a_backfill_row_gives_way_to_the_order_that_it_stood_for(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    backfill = backfilled(scene, key, trade_id="t1")

    scene.sync()

    assert (scene.order(key)["status"], scene.order(backfill)["status"]) == ("filled", "canceled")
    assert booked(scene) == 10


def test_a_backfill_row_of_another_trade_of_the_profile_gives_way_too(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    backfill = backfilled(scene, key, trade_id="t77")

    scene.sync()

    assert (scene.order(key)["status"], scene.order(backfill)["status"]) == ("filled", "canceled")
    assert booked(scene) == 10


def test_an_execution_that_another_profile_has_booked_is_not_booked_twice(scene: SyncScene):
    scene.profile("p2")
    key = scene.stuck(1, executed="10")
    backfill = backfilled(scene, key, trade_id="t77", profile_id="p2")

    result = scene.sync()

    assert (scene.order(key)["status"], scene.order(backfill)["status"]) == ("pending_new", "filled")
    assert booked(scene) == 10
    assert list(scene.checks()) == [key]
    assert result.counts["updated"] == 0


def test_an_order_whose_keys_name_another_trade_is_held_for_a_person(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    scene.stuck(2, executed="10")
    scene.sql("UPDATE orders SET trade_id = 't2' WHERE order_id = %(id)s", id=key)

    result = scene.sync()

    assert scene.order(key)["status"] == "pending_new"
    check = scene.checks()[key]
    assert (check["outcome"], check["detail"]) == ("held", "conflicting_owner")
    assert [(f.reason, f.needs_person) for f in result.profiles["p1"].findings] == [("conflicting_owner", True)]


def test_an_order_that_a_profile_of_another_account_has_recorded_is_held(scene: SyncScene):
    scene.world.sim.book.add_account("A2", key_id="PKA2", secret_key="secret-of-A2")
    scene.profile("p9", "A2")
    key = scene.stuck(1, executed="10")
    scene.row(
        "theirs", profile_id="p9", client_order_id=key, side="SELL", action="EXIT", qty=Decimal(10), trade_id="t1"
    )

    scene.sync()

    assert (scene.order(key)["status"], scene.checks()[key]["outcome"]) == ("pending_new", "held")


def test_an_order_of_a_symbol_that_is_not_managed_is_left_alone(scene: SyncScene):
    key = scene.stuck(1, executed="10")
    scene.sql("UPDATE profiles SET managed_symbols = '{MSFT}'")

    scene.sync()

    assert (scene.order(key)["status"], scene.checks()[key]["outcome"]) == ("pending_new", "held")
    scene.sql("UPDATE profiles SET managed_symbols = NULL")
    scene.wait(5)
    assert scene.sync(managed_symbols=["AAPL"]).counts["updated"] == 1


# -- the lease


def test_a_brief_lease_keeps_others_out_says_that_it_is_brief_and_is_given_back(scene: SyncScene):
    url = scene.database_url
    with brief_lease(url, "p1", owner="a", patience_seconds=0) as lease:
        assert lease is not None
        assert lease.owner == f"{BRIEF}a"
        assert is_brief(lease.owner)
        with brief_lease(url, "p1", owner="b", patience_seconds=0) as other:
            assert other is None
    with brief_lease(url, "p1", owner="b", patience_seconds=0) as other:
        assert other is not None
        assert other.token > lease.token
    assert not is_brief("cycle 1")


def test_a_brief_lease_is_given_back_after_an_error(scene: SyncScene):
    def fail() -> None:
        with brief_lease(scene.database_url, "p1", owner="a"):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    with brief_lease(scene.database_url, "p1", owner="b", patience_seconds=0) as lease:
        assert lease is not None
