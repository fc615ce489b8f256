"""A thousand stale orders on three accounts, worked off in batches within the rate that the exchange grants."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.sandbox.exchange import HistoricFill, HistoricOrder
from recon_pipeline_tests.adapters.exchange.world import enforce_the_rate, order_id, world
from recon_pipeline_tests.order_status.scene import SyncScene, hours_ago

ACCOUNTS = ("A1", "A2", "A3")
PROFILES = {"p1": "A1", "p2": "A1", "p3": "A2", "p4": "A2", "p5": "A3"}
ORDERS = 1000
BATCH = 100


def kind_of(n: int) -> str:
    """What the exchange knows of an order: some have filled, some wait, are over, or never arrived."""
    return {0: "filled", 1: "filled", 2: "filled", 3: "filled", 7: "canceled", 9: "unknown"}.get(n % 10, "waits")


def placed(n: int, account: str) -> dt.datetime:
    """When an order was placed: on two accounts all within minutes, on the third each a day from the next: no page has two."""
    return hours_ago(24 * (ORDERS - n) + 4) if account == "A3" else hours_ago(4) + dt.timedelta(seconds=n)


@pytest.fixture
def many(database_url: str) -> Iterator[SyncScene]:
    with world(*ACCOUNTS) as exchange:
        scene = SyncScene(database_url, exchange)
        for profile_id, account_id in PROFILES.items():
            scene.profile(profile_id, account_id)
        yield scene


def furnish(scene: SyncScene) -> dict[str, str]:
    """A thousand exits that the ledger calls pending; return what becomes of each, by its key."""
    names, expected, rows = list(PROFILES), {}, []
    injected: dict[str, list[HistoricOrder]] = {account: [] for account in ACCOUNTS}
    for n in range(1, ORDERS + 1):
        profile_id, kind = names[n % len(names)], kind_of(n)
        then = placed(n, PROFILES[profile_id])
        fills = (HistoricFill(Decimal(1), Decimal(100), then + dt.timedelta(seconds=1)),) if kind == "filled" else ()
        if kind != "unknown":
            told = HistoricOrder(
                "AAPL",
                "sell",
                Decimal(1),
                submitted_at=then,
                fills=fills,
                status=kind if kind == "canceled" else None,
                order_id=order_id(n),
                client_order_id=f"bytelyst-{profile_id}-t{n}-exit",
            )
            injected[PROFILES[profile_id]].append(told)
        old = then < hours_ago(24)
        expected[order_id(n)] = {"waits": "pending_new", "unknown": "unknown" if old else "pending_new"}.get(kind, kind)
        rows.append((order_id(n), profile_id, f"t{n}", then, then, int(then.timestamp() * 1000)))
    for account, orders in injected.items():
        scene.world.inject(*orders, account=account)
    with psycopg.connect(scene.database_url, autocommit=True) as connection:
        connection.cursor().executemany(
            """INSERT INTO orders (order_id, profile_id, trade_id, created_at, updated_at, "timestamp", user_id, symbol, type,
                 side, action, qty, status, source)
               VALUES (%s, %s, %s, %s, %s, %s, 'u1', 'AAPL', 'market', 'SELL', 'EXIT', 1, 'pending_new', 'BOT')""",
            rows,
        )
    return expected


def test_a_thousand_stale_orders_are_worked_off_a_hundred_a_run_within_the_rate(many: SyncScene):
    refused = enforce_the_rate(many.world)
    expected = furnish(many)
    many.world.sim.faults.requests.clear()

    results = [many.sync(*PROFILES) for _ in range(ORDERS // BATCH)]

    statuses = {row["order_id"]: row["status"] for row in many.sql("SELECT order_id, status FROM orders")}
    assert statuses == expected
    assert [result.counts["checked"] for result in results] == [BATCH] * 10
    assert [result.left_over for result in results] == list(range(900, -1, -100))
    assert (many.sync(*PROFILES).api_calls, many.due()) == (0, [])

    calls = [result.api_calls for result in results]
    assert sum(calls) == len(many.world.requests) == many.totals()["order_status_api_calls"]
    runs = {row["run_id"]: row["api_calls"] for row in many.sql("SELECT * FROM recon.order_sync_runs")}
    assert [runs[result.run_id] for result in results] == calls
    assert sum(calls) < ORDERS * 2 // 3, "pages answer most of the orders of two accounts"
    assert refused == []

    written = many.sql(
        "SELECT row_key->>'order_id' AS key, count(*) AS n FROM recon.corrections WHERE table_name = 'orders' GROUP BY 1"
    )
    changed = {key for key, status in expected.items() if status != "pending_new"}
    assert {row["key"]: row["n"] for row in written} == dict.fromkeys(changed, 1)
    totals = many.totals()
    told = Counter(kind_of(n) for n in range(1, ORDERS + 1))
    assert totals["order_status_checked"] == ORDERS
    assert totals["order_status_not_found"] == told["unknown"]
    assert totals["order_status_updated"] == told["filled"] + told["canceled"]
    assert totals.get("order_status_failed", 0) == 0
