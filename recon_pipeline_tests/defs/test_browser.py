"""An operator at work: `recon up`, a real browser, one profile from the dry run over the apply to the rollback.

Screenshots go to ./screenshots (not committed), to be looked at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from recon_pipeline.apply import set_trading_state
from recon_pipeline.defs.catalogue import DRY_RUN_KEYS
from recon_pipeline.ledger.database import connect
from recon_pipeline_tests.chromium import ARGUMENTS

CHECKOUT = Path(__file__).resolve().parents[2]
SCREENSHOTS = CHECKOUT / "screenshots"
PROFILE = "dev-eth-swing"
HELD = "dev-amd-hold"
READY_SECONDS = 150
RUN_MS = 120_000

expect.set_options(timeout=30_000)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@dataclass
class Sandbox:
    """A running `recon up`."""

    url: str
    environment: dict[str, str]

    def rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        with connect(self.environment["RECON_DATABASE_URL"]) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def ledger(self, profile: str) -> dict[str, Any]:
        """What the bots see of a profile, apart from when a row was touched."""
        [row] = self.rows(
            "SELECT (SELECT jsonb_agg(to_jsonb(o) - 'updated_at' ORDER BY order_id) FROM public.orders AS o"
            "         WHERE profile_id = %(p)s AND status <> 'canceled') AS orders,"
            "       (SELECT jsonb_agg(to_jsonb(o) - 'updated_at' ORDER BY trade_id) FROM public.positions AS o"
            "         WHERE profile_id = %(p)s) AS positions,"
            "       (SELECT jsonb_agg(to_jsonb(o) - 'updated_at' ORDER BY trade_id) FROM public.trade_history AS o"
            "         WHERE profile_id = %(p)s) AS history,"
            "       (SELECT jsonb_agg(to_jsonb(o) - 'updated_at' ORDER BY trade_id) FROM public.capital_ledger AS o"
            "         WHERE profile_id = %(p)s) AS capital",
            p=profile,
        )
        return row


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """`recon up` on a home and a port of its own, stopped with Ctrl-C's signal."""
    home = tmp_path_factory.mktemp("up")
    home.parent.chmod(0o755)
    home.chmod(0o755)
    output = home / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "recon_pipeline.cli",
                "up",
                "--home",
                str(home / "home"),
                "--port",
                str(_free_port()),
            ],
            cwd=CHECKOUT,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not (found := re.search(r"Dagster UI: (http://\S+)", output.read_text())):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        pairs = re.findall(r"^export (\w+)=(.*)$", (home / "home" / "env").read_text(), re.MULTILINE)
        yield Sandbox(found[1], {name: value.strip("'") for name, value in pairs})
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """The machine's own Chromium, with a profile: what it has compiled of the UI it need not compile for every page."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)))
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"),
            executable_path=path,
            args=ARGUMENTS,
            viewport={"width": 1600, "height": 1000},
        )
        yield opened
        opened.close()


@pytest.fixture
def page(browser: BrowserContext, sandbox: Sandbox) -> Iterator[Page]:
    """A page of its own for each test, of an operator whose Launchpads remember nothing."""
    opened = browser.new_page()
    forget = {"origin": sandbox.url, "storageTypes": "local_storage,indexeddb"}
    browser.new_cdp_session(opened).send("Storage.clearDataForOrigin", forget)
    opened.set_default_timeout(30_000)
    yield opened
    opened.close()


def show(page: Page, name: str, *, height: int = 1000) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.set_viewport_size({"width": 1600, "height": height})
    page.wait_for_timeout(700)  # for the eye only: animations end
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    page.set_viewport_size({"width": 1600, "height": 1000})


def shown(page: Page, text: str) -> Locator:
    """The first visible element with the text: the UI keeps hidden copies to measure names with."""
    return page.get_by_text(text).filter(visible=True).first


def launch(page: Page) -> str:
    """Launch what the Launchpad holds and return the run's status when it has ended."""
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/**")
    ended = page.get_by_text(re.compile(r"^RUN_(SUCCESS|FAILURE)$")).first
    ended.wait_for(timeout=RUN_MS)
    return str(ended.text_content())


def launchpad(page: Page, sandbox: Sandbox, job: str, config: dict[str, object]) -> None:
    """Open a Launchpad with a configuration in it, as a link in the runbook or in the metadata does."""
    config_text = quote(json.dumps({"ops": config}))
    page.goto(f"{sandbox.url}/locations/recon_pipeline/jobs/{job}/playground/setup?config={config_text}")


def partition(page: Page, sandbox: Sandbox, asset: str, profile: str) -> None:
    page.goto(f"{sandbox.url}/assets/{asset}?view=partitions&partition={profile}")
    page.get_by_text("Metadata", exact=True).first.wait_for()


def value(page: Page, name: str) -> str:
    """The value beside a metadata entry's name."""
    row = page.locator("tr", has=page.get_by_role("cell", name=name, exact=True)).last
    return str(row.locator("td").nth(1).inner_text())


def follow(page: Page, job: str) -> Page:
    """Click the metadata's link to a Launchpad that is filled in; return the tab that it opens in."""
    page.locator(f"a[href*='jobs/{job}/playground/setup']").first.click()
    deadline = time.monotonic() + 30
    while True:
        for opened in page.context.pages:
            if f"jobs/{job}/playground" in opened.url:
                opened.set_default_timeout(30_000)
                return opened
        assert time.monotonic() < deadline, [opened.url for opened in page.context.pages]
        page.wait_for_timeout(100)


@pytest.mark.usefixtures("backfill")  # begun before, so that its wait passes meanwhile
def test_an_operator_reads_applies_and_takes_back(page: Page, sandbox: Sandbox) -> None:
    before = sandbox.ledger(PROFILE)

    # The asset graph shows, group by group.
    page.goto(f"{sandbox.url}/asset-groups")
    for group in ("exchange", "ledger", "exit_backfill"):
        expect(shown(page, group)).to_be_visible()
    page.goto(f"{sandbox.url}/locations/recon_pipeline/asset-groups/exit_backfill")
    for asset in ("open_trade_slices", "proposed_backfill_rows", "backfill_audit_records", "applied_backfill_rows"):
        expect(shown(page, asset)).to_be_visible()
    expect(page.get_by_text("Loading...")).to_have_count(0, timeout=60_000)
    show(page, "1_asset_graph")

    # The sensor has made a partition of every profile of the book.
    deadline = time.monotonic() + 90
    while True:
        page.goto(f"{sandbox.url}/assets/proposed_backfill_rows?view=partitions")
        try:
            page.get_by_text(PROFILE).first.wait_for(timeout=8_000)
            break
        except PlaywrightTimeout:
            assert time.monotonic() < deadline, "the sensor profiles_to_partitions added nothing"

    # Pause.
    launchpad(page, sandbox, "pause_trading", {"pause": {"config": {"scope": "all", "reason": "exit backfill"}}})
    assert launch(page) == "RUN_SUCCESS"
    show(page, "2_pause")

    # Dry run from the Launchpad, the partition chosen by hand.
    page.goto(f"{sandbox.url}/locations/recon_pipeline/jobs/exit_backfill_dry_run/playground")
    box = page.get_by_placeholder("Partition")
    box.click()
    box.fill(PROFILE)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"partition: {PROFILE}")).to_be_visible()
    show(page, "3_dry_run_launchpad")
    assert launch(page) == "RUN_SUCCESS"
    show(page, "4_dry_run_run")
    assert sandbox.ledger(PROFILE) == before

    # Its decision table is there.
    partition(page, sandbox, "proposed_backfill_rows", PROFILE)
    digest = value(page, "digest")
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert value(page, "proposed_rows") == "3"
    for cell in ("eth-201", "ETH/USD", "SELL 0.7", "SELL 0.495", "SELL 0.005", "DUST-REMAINDER-eth-201"):
        expect(page.get_by_role("cell", name=cell, exact=True).first).to_be_visible()
    show(page, "5_decisions", height=1900)

    # The apply, from the link that the plan shows: partition and digest are filled in.
    opened = follow(page, "exit_backfill_apply")
    expect(opened.locator(".CodeMirror").get_by_text(digest)).to_be_visible()
    expect(opened.get_by_text(f"partition: {PROFILE}")).to_be_visible()
    show(opened, "6_apply_launchpad")
    assert launch(opened) == "RUN_SUCCESS"
    show(opened, "7_apply_run")
    written = sandbox.rows(
        "SELECT qty, price, status, trade_id FROM public.orders WHERE profile_id = %(p)s AND order_id LIKE 'BFILL-%%'"
        " ORDER BY qty DESC",
        p=PROFILE,
    )
    assert [(str(row["qty"]), row["status"], row["trade_id"]) for row in written] == [
        ("0.7", "filled", "eth-201"),
        ("0.495", "filled", "eth-201"),
        ("0.005", "filled", "eth-201"),
    ]
    partition(page, sandbox, "applied_backfill_rows", PROFILE)
    batch = value(page, "batch_id")
    assert value(page, "inserted_rows") == "3"
    assert value(page, "proposed_by_planning_again") == "0"
    show(page, "8_applied", height=1500)
    page.goto(f"{sandbox.url}/assets/applied_backfill_rows?view=checks")
    expect(shown(page, "planning_again_proposes_nothing")).to_be_visible()
    expect(shown(page, "Passed")).to_be_visible()
    show(page, "9_checks")

    # The rollback: first its preview, then for good.
    partition(page, sandbox, "applied_backfill_rows", PROFILE)
    opened = follow(page, "exit_backfill_rollback")
    expect(opened.locator(".CodeMirror").get_by_text(batch)).to_be_visible()
    assert launch(opened) == "RUN_SUCCESS"
    expect(shown(opened, "Preview, nothing was changed")).to_be_visible()
    show(opened, "10_rollback_preview", height=1300)
    assert len(sandbox.ledger(PROFILE)["orders"]) == len(before["orders"]) + 3

    launchpad(
        page, sandbox, "exit_backfill_rollback", {"roll_back_batch": {"config": {"batch_id": batch, "confirm": True}}}
    )
    assert launch(page) == "RUN_SUCCESS"
    show(page, "11_rollback", height=1300)
    assert sandbox.ledger(PROFILE) == before
    page.goto(f"{sandbox.url}/assets/applied_backfill_rows?view=events&partition={PROFILE}")
    expect(shown(page, "backfill rows canceled")).to_be_visible()
    show(page, "12_history")


def test_an_operator_reads_why_a_trade_is_left_alone(page: Page, sandbox: Sandbox) -> None:
    set_trading_state(
        sandbox.environment["RECON_DATABASE_URL"], "all", "PAUSED", "test", "exit backfill", datetime.now(UTC)
    )
    page.goto(f"{sandbox.url}/locations/recon_pipeline/jobs/exit_backfill_dry_run/playground")
    box = page.get_by_placeholder("Partition")
    box.click()
    box.fill(HELD)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"partition: {HELD}")).to_be_visible()
    assert launch(page) == "RUN_SUCCESS"
    partition(page, sandbox, "proposed_backfill_rows", HELD)
    assert value(page, "proposed_rows") == "0"
    expect(page.get_by_role("cell", name="NO_GO").first).to_be_visible()
    show(page, "13_left_alone", height=1500)


def graphql(sandbox: Sandbox, query: str, **variables: object) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{sandbox.url}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)["data"]
        return found


TOGETHER = ["dev-googl-alpha", "dev-ltc-carry", "dev-meta-pair"]


@pytest.fixture(scope="module")
def backfill(sandbox: Sandbox) -> str:
    """What 'Materialize' with several partitions launches, as soon as they are there; its daemon takes its time."""
    deadline = time.monotonic() + 90
    while True:
        [node] = graphql(sandbox, '{ assetNodes(assetKeys: [{path: ["proposed_backfill_rows"]}]) { partitionKeys } }')[
            "assetNodes"
        ]
        if set(TOGETHER) <= set(node["partitionKeys"]):
            break
        assert time.monotonic() < deadline, "the sensor profiles_to_partitions added nothing"
        time.sleep(0.5)
    launched = graphql(
        sandbox,
        "mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) { __typename"
        " ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }",
        p={
            "assetSelection": [{"path": [key]} for key in DRY_RUN_KEYS],
            "partitionNames": TOGETHER,
            "title": "three profiles",
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    return str(launched["backfillId"])


def test_a_backfill_from_the_ui_is_one_run_for_all_its_profiles(sandbox: Sandbox, backfill: str) -> None:
    """The server decides how many runs it becomes."""
    deadline = time.monotonic() + 240
    while True:
        state = graphql(
            sandbox,
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill {"
            " status runs { status tags { key value } } } } }",
            id=backfill,
        )["partitionBackfillOrError"]
        if state["status"].startswith("COMPLETED"):
            break
        assert time.monotonic() < deadline, state
        time.sleep(1)
    assert state["status"] == "COMPLETED_SUCCESS"
    [run] = state["runs"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert (tags["dagster/asset_partition_range_start"], tags["dagster/asset_partition_range_end"]) == (
        TOGETHER[0],
        TOGETHER[-1],
    )
    statuses = graphql(
        sandbox,
        '{ assetNodes(assetKeys: [{path: ["proposed_backfill_rows"]}]) { assetPartitionStatuses {'
        " ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } } } }",
    )["assetNodes"][0]["assetPartitionStatuses"]
    assert set(TOGETHER) <= set(statuses["materializedPartitions"])
    assert statuses["failedPartitions"] == []
