"""The three tests that the source's document asks a person to do by hand, from end to end and by themselves.

A bot (the real alpaca-py against the simulated exchange), a real Postgres, `recon stream` and `recon serve` as processes, the
job in Dagster, a real browser. Screenshots go to ./screenshots (not committed), to be looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderSide, TimeInForce
from alpaca.trading.requests import LimitOrderRequest
from playwright.sync_api import Page, expect, sync_playwright
from psycopg.rows import dict_row

from recon_pipeline.definitions import build_definitions
from recon_pipeline.defs.order_status_automation import order_status_sync_schedule
from recon_pipeline.defs.order_status_catalogue import NO_ORDER_IS_STALE, UPDATES_KEY
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.resources import Outside
from recon_pipeline.sandbox.demo_load import credentials
from recon_pipeline.sandbox.exchange import SimulatedExchange, running_exchange
from recon_pipeline_tests.ops.served import Serving, ready, start, stop

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"
SECONDS = 30.0
"""How long anything may take at most; what is waited for comes much sooner."""
UPDATES = dg.AssetKey(UPDATES_KEY)
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

expect.set_options(timeout=SECONDS * 1000)

pytestmark = pytest.mark.timeout(180)


@dataclass
class Desk:
    """A bot with its account and its ledger, and what an operator starts beside it."""

    database_url: str
    exchange: SimulatedExchange
    environment: dict[str, str]

    def sql(self, statement: str, **values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, autocommit=True, row_factory=dict_row) as connection:
            found = connection.execute(statement, values)
            return found.fetchall() if found.description else []

    def place(self, trade: str, qty: int = 8) -> str:
        """The bot places an order that does not fill at once, and writes its row; its id."""
        keys = credentials("A1", self.exchange.url)
        client_order_id = f"bytelyst-p1-{trade}-entry"
        order = TradingClient(keys.key_id, keys.secret_key, url_override=self.exchange.url).submit_order(
            LimitOrderRequest(
                symbol="AAPL",
                qty=qty,
                side=OrderSide.BUY,
                time_in_force=TimeInForce.GTC,
                limit_price=50,
                client_order_id=client_order_id,
            )
        )
        self.sql(
            "INSERT INTO orders (order_id, client_order_id, user_id, profile_id, trade_id, action, symbol, type, side, qty,"
            " status, \"timestamp\", source, created_at, updated_at) VALUES (%(id)s, %(client)s, 'u1', 'p1', %(trade)s,"
            " 'ENTRY', 'AAPL', 'limit', 'BUY', %(qty)s, 'pending_new', %(ms)s, 'BOT', now(), now())",
            id=str(order.id),
            client=client_order_id,
            trade=trade,
            qty=qty,
            ms=int(time.time() * 1000),
        )
        return str(order.id)

    def fill(self, order_id: str, price: str) -> None:
        self.exchange.book.fill(order_id, price=price)

    def placed_earlier(self, order_id: str, minutes: int) -> None:
        """Let the row say that its order was placed so long ago, and that nobody has touched it since."""
        then = datetime.now(UTC) - timedelta(minutes=minutes)
        self.sql(
            "UPDATE orders SET status = 'pending_new', filled_qty = NULL, filled_at = NULL, created_at = %(at)s,"
            ' updated_at = %(at)s, "timestamp" = %(ms)s WHERE order_id = %(id)s',
            id=order_id,
            at=then,
            ms=int(then.timestamp() * 1000),
        )

    def row(self, order_id: str) -> dict[str, Any]:
        (found,) = self.sql("SELECT * FROM orders WHERE order_id = %(id)s", id=order_id)
        return found

    def corrections(self, order_id: str) -> list[dict[str, Any]]:
        """What was written of the order's row, as the bots read it."""
        return self.sql(
            "SELECT kind, handler, batch_id, cause FROM recon.outbox WHERE row_key ->> 'order_id' = %(id)s"
            " AND table_name = 'orders' ORDER BY id",
            id=order_id,
        )

    @contextmanager
    def streaming(self) -> Iterator[subprocess.Popen[str]]:
        """`recon stream` as a process that listens, ended as a service manager ends it."""
        process = subprocess.Popen(
            [sys.executable, "-m", "recon_pipeline.cli", "stream"],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            until(lambda: process.poll() is not None or self.stream_state() == "listening", "the stream listens")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=SECONDS)
        assert (process.returncode, said.splitlines()[-1]) == (0, "stopped"), said

    def stream_state(self) -> str:
        return "".join(row["state"] for row in self.sql("SELECT state FROM recon.order_streams"))

    def sync_on_schedule(self, directory: Path) -> dg.ExecuteInProcessResult:
        """The schedule ticks for five minutes, and the one run that it asks for is run."""
        directory.mkdir()
        outside = {"outside": Outside(self.environment)}
        with dg.DagsterInstance.local_temp(str(directory)) as instance:
            instance.add_dynamic_partitions(PROFILES, ["p1"])
            (request,) = [request for minute in range(5) for request in tick(instance, outside, minute)]
            assert request.asset_selection == [UPDATES]
            definitions = build_definitions(outside)
            return dg.materialize(
                list(definitions.assets),
                instance=instance,
                resources=dict(definitions.resources),
                selection=dg.AssetSelection.assets(*request.asset_selection).without_checks()
                | dg.AssetSelection.checks(*request.asset_check_keys),
                tags=dict(request.tags),
                raise_on_error=False,
            )


def tick(instance: dg.DagsterInstance, outside: dict[str, Outside], minute: int) -> list[dg.RunRequest]:
    at = NOON + timedelta(minutes=minute)
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=at, resources=outside) as context:
        return list(order_status_sync_schedule.evaluate_tick(context).run_requests or [])


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    """The profile p1 on the account A1; the sync may write."""
    with running_exchange() as exchange:
        keys = credentials("A1", exchange.url)
        exchange.book.add_account("A1", key_id=keys.key_id, secret_key=keys.secret_key)
        made = Desk(
            database_url,
            exchange,
            {
                "RECON_DATABASE_URL": database_url,
                "RECON_ACCOUNT_A1_KEY_ID": keys.key_id,
                "RECON_ACCOUNT_A1_SECRET_KEY": keys.secret_key,
                "RECON_ACCOUNT_A1_BASE_URL": exchange.url,
                "RECON_ORDER_STATUS_DRY_RUN": "false",
                "RECON_ORDER_QUIET_PERIOD_SECONDS": "0.3",
            },
        )
        made.sql(
            "INSERT INTO profiles (profile_id, user_id, account_id, allocated_capital_usd) VALUES ('p1', 'u1', 'A1', 10000)"
        )
        yield made


def test_an_order_that_fills_is_filled_in_the_ledger_within_seconds(desk: Desk) -> None:
    """Place a new order; the database says pending_new; wait for it to fill; the database says filled."""
    with desk.streaming():
        order_id = desk.place("t1")
        assert desk.row(order_id)["status"] == "pending_new"
        began = time.monotonic()
        desk.fill(order_id, "49.75")
        until(lambda: desk.row(order_id)["status"] != "pending_new", "the fill is in the ledger")
        took = time.monotonic() - began
    row = desk.row(order_id)
    assert (row["status"], row["filled_qty"], row["price"]) == ("filled", Decimal(8), Decimal("49.75"))
    told = desk.exchange.book.order(desk.exchange.book.account("A1"), order_id)
    assert abs(row["filled_at"].timestamp() * 1e9 - told.filled_ns) < 1e6
    assert took < 10, f"{took:.1f} s after the fill"
    (position,) = desk.sql("SELECT trade_id, qty, status FROM positions")
    assert (position["trade_id"], position["qty"], position["status"]) == ("t1", Decimal(8), "open")
    (written,) = desk.corrections(order_id)
    assert (written["kind"], written["handler"], written["cause"]["rule"]) == (
        "order_status",
        "entry_fill",
        "order_executed_more",
    )
    events = desk.sql("SELECT event, outcome FROM recon.order_events ORDER BY id")
    assert {"event": "fill", "outcome": "written"} in events


def test_an_order_that_was_set_back_to_pending_new_is_filled_by_the_sync(desk: Desk, tmp_path: Path) -> None:
    """Set an order to pending_new that is filled; wait five minutes; the log says what the sync did; the database says filled."""
    order_id, waiting = desk.place("t1"), desk.place("t2")
    desk.fill(order_id, "49.75")
    desk.placed_earlier(order_id, 6)
    desk.placed_earlier(waiting, 6)
    done = desk.sync_on_schedule(tmp_path / "dagster")
    assert done.success
    row = desk.row(order_id)
    assert (row["status"], row["filled_qty"], row["price"]) == ("filled", Decimal(8), Decimal("49.75"))
    assert desk.row(waiting)["status"] == "pending_new"
    (written,) = desk.corrections(order_id)
    assert (written["kind"], written["handler"]) == ("order_status", "entry_fill")
    assert written["batch_id"].startswith("RECON-ORDER-STATUS-")
    (run,) = desk.sql("SELECT checked, updated, not_found, failed, still_live, dry_run FROM recon.order_sync_runs")
    assert run == {"checked": 2, "updated": 1, "not_found": 0, "failed": 0, "still_live": 1, "dry_run": False}
    (update,) = [made for made in done.asset_materializations_for_node("order_status") if made.asset_key == UPDATES]
    assert update.metadata["outcome"].value == "2 orders asked about: 1 corrected; 1 live at the exchange."
    passed = {found.check_name: found.passed for found in done.get_asset_check_evaluations()}
    assert passed[NO_ORDER_IS_STALE]


@pytest.mark.browser
def test_a_stale_order_has_a_banner_a_badge_and_a_sign_until_it_is_corrected(desk: Desk, tmp_path: Path) -> None:
    """Create a stale order; open the dashboard; a yellow banner, a yellow badge on the order, a sign beside its status."""
    stale, fresh = desk.place("t1"), desk.place("t2")
    desk.fill(stale, "49.75")
    desk.placed_earlier(stale, 6)
    with serving(desk) as service, browsing(service.url) as page:
        banner = page.get_by_text(re.compile("stale order", re.IGNORECASE)).first
        expect(banner).to_be_visible()
        line = page.get_by_role("row").filter(has_text=stale)
        badge = line.locator(".badge.stale")
        expect(badge).to_contain_text("⚠")
        expect(badge).to_contain_text("pending_new")
        for yellow in (badge, page.locator("#state.banner.warn")):
            red, green, blue = colour(yellow.evaluate("found => getComputedStyle(found).backgroundColor"))
            assert red > blue + 20, (red, green, blue)
            assert green > blue + 10, (red, green, blue)
        age = line.locator(".age")
        expect(age).to_contain_text("6 min")
        before = age.inner_text()
        expect(age).not_to_have_text(before)
        expect(page.get_by_text(fresh)).to_have_count(0)
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "by_hand_stale.png", full_page=True)
        assert desk.sync_on_schedule(tmp_path / "dagster").success
        assert desk.row(stale)["status"] == "filled"
        until(lambda: page.reload() and not page.locator(".badge.stale").count(), "the badge is gone")
        expect(page.locator("#state.banner.ok")).to_be_visible()
        page.screenshot(path=SCREENSHOTS / "by_hand_corrected.png", full_page=True)


def colour(css: str) -> tuple[int, int, int]:
    red, green, blue = re.findall(r"\d+", css)[:3]
    return int(red), int(green), int(blue)


@contextmanager
def serving(desk: Desk) -> Iterator[Serving]:
    """`recon serve` as a process over the desk's database, of a pipeline whose cycle has just run."""
    desk.sql(
        "INSERT INTO recon.cycle_reports (profile_id, run_id, cycle_at, processed, clean, content, report)"
        " VALUES ('p1', 'r1', now(), true, true, '', %(report)s)",
        report=json.dumps({"error": "", "failed_stages": []}),
    )
    service = start(desk.database_url)
    try:
        ready(service)
        yield service
    finally:
        status, logged = stop(service)
    assert (status, logged) == (0, "")


@contextmanager
def browsing(url: str) -> Iterator[Page]:
    executable = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        page = browser.new_page()
        page.set_default_timeout(SECONDS * 1000)
        page.goto(url)
        yield page
        browser.close()
