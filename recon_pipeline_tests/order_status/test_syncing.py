"""A run of the sync asks about stale orders, writes what the exchange proves, and remembers the rest."""

from __future__ import annotations

from decimal import Decimal

from recon_pipeline_tests.order_status.scene import SyncScene


def test_an_order_that_the_exchange_filled_becomes_filled_with_its_quantity_price_and_time(scene: SyncScene):
    key = scene.stuck(1, executed="10")

    result = scene.sync()

    row = scene.order(key)
    assert (row["status"], row["filled_qty"], row["price"]) == ("filled", Decimal(10), Decimal(100))
    assert result.counts["checked"] == result.counts["updated"] == 1
    assert result.profiles["p1"].applied == (key,)
    assert scene.checks() == {}
