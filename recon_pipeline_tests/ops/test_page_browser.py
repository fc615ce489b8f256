"""The order status page in a real browser, served by the app itself: on a phone, in the dark, without a script, hour after hour.

Screenshots go to ./screenshots (not committed), to be looked at.
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route, expect, sync_playwright
from starlette.types import ASGIApp, Receive, Scope, Send

from recon_pipeline.ops.access import Access, page_policy
from recon_pipeline.ops.app import Views, build_app
from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.page import PARAMETERS, SCRIPT, STYLE, render
from recon_pipeline.ops.snapshot import Snapshot
from recon_pipeline_tests.chromium import ARGUMENTS
from recon_pipeline_tests.ops.boards import DASHBOARD, NOW, POLICY, check, five_hundred, live, night, three_stale

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 900}

expect.set_options(timeout=15_000)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


@dataclass
class Service:
    """`recon serve`'s app over a snapshot that a test may change, at an instant that stands still."""

    url: str = ""
    app: ASGIApp = field(init=False)

    def show(self, snapshot: Snapshot | None, *, trouble: str = "") -> None:
        """From now on; an app of its own, which has nothing left of the snapshot before."""
        latest = Latest(snapshot, error=trouble)
        self.app = build_app(lambda: latest, views=VIEWS, access=Access(), clock=lambda: NOW)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


VIEWS = Views(
    health=lambda _, __: ({}, True),
    trading=lambda _, __: {},
    metrics=lambda _, __: b"",
    page=lambda latest, query, now: render(
        latest.snapshot,
        query,
        now=now,
        policy=POLICY,
        late_minutes=15,
        dashboard_url=DASHBOARD,
        trouble=latest.error,
    ),
    page_parameters=PARAMETERS,
    page_policy=page_policy(style=STYLE, script=SCRIPT),
)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    service.show(three_stale())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(service, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        service.url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        yield service
        server.should_exit = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def contexts(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """A browser context for each set of options, made once."""
    made: dict[str, BrowserContext] = {}

    def context(**options: object) -> BrowserContext:
        key = repr(sorted(options.items()))
        if key not in made:
            made[key] = browser.new_context(**options)
        return made[key]

    yield context
    for each in made.values():
        each.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(contexts: Callable[..., BrowserContext], service: Service) -> Iterator[Open]:
    """Opens the page; whatever the browser complains about (a blocked script, an error) fails the test."""
    complaints: list[str] = []
    pages: list[Page] = []

    def opened(path: str = "", *, viewport: dict[str, int] = DESKTOP, **options: object) -> Page:
        page = contexts(**options).new_page()
        pages.append(page)
        page.set_viewport_size(viewport)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if _is_complaint(message) else None)
        page.on(
            "request", lambda request: complaints.append(request.url) if not _is_own(request.url, service.url) else None
        )
        page.goto(service.url + path)
        return page

    service.show(three_stale())
    yield opened
    for page in pages:
        page.close()
    assert complaints == []


def _is_complaint(message: ConsoleMessage) -> bool:
    # A page that could not be loaded again is part of some tests.
    return message.type in {"error", "warning"} and "Failed to load resource" not in message.text


def _is_own(url: str, base: str) -> bool:
    return url.startswith((base, "data:"))


def picture(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"order_status_{name}.png", full_page=True)


def widest(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


PICTURED = ("three", "unreadable")
NIGHTS: dict[str, tuple[Snapshot | None, str]] = {
    "calm": (night(order_checks=(live(),)), ""),
    "three": (three_stale(), ""),
    "many": (five_hundred(), ""),
    "unreadable": (replace(three_stale(), taken_at=NOW - dt.timedelta(minutes=7)), "connection refused"),
    "nothing": (None, "connection refused"),
    "long": (
        night(
            ("x" * 180,),
            order_checks=(check("y" * 190, profile_id="x" * 180, status="z" * 90, detail="w" * 190, symbol="v" * 90),),
        ),
        "",
    ),
}


@pytest.mark.parametrize("name", NIGHTS)
def test_nothing_has_to_be_scrolled_sideways_on_a_phone_or_a_desk(name: str, open_page: Open, service: Service) -> None:
    snapshot, trouble = NIGHTS[name]
    service.show(snapshot, trouble=trouble)
    page = open_page(viewport=PHONE)
    assert widest(page) == PHONE["width"]
    if name in PICTURED:
        picture(page, f"{name}_phone_light")
    page.set_viewport_size(DESKTOP)
    assert widest(page) == DESKTOP["width"]
    if name in PICTURED:
        picture(page, f"{name}_desk_light")
        page.emulate_media(color_scheme="dark")
        picture(page, f"{name}_desk_dark")


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== "");
    if (!own || element.offsetParent === null || ["SCRIPT", "STYLE"].includes(element.tagName)) continue;
    const [one, other] = [light(rgb(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${element.tagName}.${element.className} ${element.textContent.trim()}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("name", ["calm", "unreadable", "many"])
def test_every_text_can_be_told_from_what_is_behind_it(name: str, open_page: Open, service: Service) -> None:
    snapshot, trouble = NIGHTS[name]
    service.show(snapshot, trouble=trouble)
    page = open_page()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == [], scheme


def test_stale_orders_have_their_banner_a_yellow_badge_and_a_sign(open_page: Open) -> None:
    page = open_page()
    expect(page.locator(".banner.warn")).to_contain_text("3 stale orders in 2 profiles")
    badges = page.locator(".badge.stale")
    expect(badges).to_have_count(3)
    for at in range(3):
        expect(badges.nth(at)).to_contain_text("⚠")
        red, green, blue = map(
            int, re.findall(r"\d+", badges.nth(at).evaluate("e => getComputedStyle(e).backgroundColor"))[:3]
        )
        assert red > 230
        assert green > 180
        assert blue < 140
    assert page.title() == "⚠ 3 stale orders"


def test_ages_are_counted_on_while_somebody_looks(open_page: Open, service: Service) -> None:
    service.show(night(order_checks=(check(placed_at=NOW - dt.timedelta(minutes=59, seconds=58)),)))
    page = open_page()
    age = page.locator("#live .age")
    expect(age).to_have_text(re.compile(r"^(59 min 5[89] s|1 h)$"))
    expect(age).to_have_text("1 h")


def test_a_page_that_was_made_some_time_ago_is_as_old_as_it_is(open_page: Open, service: Service) -> None:
    service.show(night(order_checks=(check(placed_at=NOW - dt.timedelta(hours=1)),)))
    page = open_page()
    expect(page.locator("#live .age")).to_have_text("1 h")

    def later(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "date": "Fri, 20 Nov 2099 03:12:05 GMT"})

    page.route("**/*", later)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#live .age")).to_have_text(re.compile(r"^266\d\d d"))


def test_the_script_says_every_length_as_the_page_does(open_page: Open, service: Service) -> None:
    from recon_pipeline.ops import wording

    lengths = [0, 59, 60, 61, 3_599, 3_600, 3_660, 86_399, 86_400, 90_000, 273_600]
    service.show(night(order_checks=tuple(check(f"o{s:06}", placed_at=NOW - dt.timedelta(seconds=s)) for s in lengths)))
    page = open_page(java_script_enabled=False)
    said = page.locator("#live .age").all_inner_texts()
    assert said == [wording.length(seconds) for seconds in reversed(lengths)]
    scripted = open_page(timezone_id="Europe/Berlin")  # whose clock is its own
    scripted.clock.install(time=NOW)
    scripted.clock.pause_at(NOW + dt.timedelta(seconds=1))
    scripted.goto(service.url)
    assert scripted.locator("#live .age").all_inner_texts() == said


def test_without_a_script_the_page_is_whole(open_page: Open) -> None:
    page = open_page(java_script_enabled=False)
    expect(page.locator("#live .age").first).to_have_text("1 d 2 h")
    page.get_by_label("Profile").select_option("swing-2")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".badge.stale")).to_have_count(1)
    assert "profile=swing-2" in page.url


def test_filters_are_in_the_address_and_can_be_kept(open_page: Open, service: Service) -> None:
    page = open_page()
    page.get_by_label("Profile").select_option("momentum-1")
    page.get_by_label("Order status").select_option("partially_filled")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(f"{service.url}?profile=momentum-1&status=partially_filled")
    expect(page.locator("table.orders tbody tr")).to_have_count(1)
    expect(page.get_by_label("Profile")).to_have_value("momentum-1")
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("table.orders tbody tr")).to_have_count(3)
    page.get_by_label("Also orders confirmed live").check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(f"{service.url}?live=1")
    expect(page.locator("table.orders tbody tr")).to_have_count(4)


def test_what_becomes_stale_is_shown_without_a_click_and_said_to_who_can_not_see(
    open_page: Open, service: Service
) -> None:
    service.show(night())
    page = open_page()
    expect(page.locator(".banner.ok")).to_contain_text("No order is stale")
    page.get_by_label("Profile").select_option("swing-2")
    service.show(night(order_checks=(check(),)))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".banner.warn")).to_contain_text("1 stale order")
    expect(page.locator("#announce")).to_have_text("1 stale order")
    expect(page.get_by_label("Profile")).to_have_value("swing-2")
    assert page.title() == "⚠ 1 stale order"
    service.show(night())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#announce")).to_have_text("No order is stale")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(f"{service.url}?profile=swing-2")


def test_a_page_that_can_not_be_loaded_again_says_so_and_recovers(open_page: Open, service: Service) -> None:
    page = open_page()
    lost = page.locator("#lost")
    expect(lost).to_be_hidden()
    page.route("**/*", lambda route: route.abort())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(lost).to_contain_text("This page is not up to date")
    page.unroute_all()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(lost).to_be_hidden()


def test_who_reads_by_keyboard_stays_where_they_are(open_page: Open, service: Service) -> None:
    page = open_page()
    page.locator("table.cases a", has_text="momentum-1").first.focus()
    href = page.evaluate("document.activeElement.href")
    service.show(replace(three_stale(), order_checks=(check(),)))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".badge.stale")).to_have_count(1)
    assert page.evaluate("document.activeElement.href") == href


def test_a_database_that_comes_back_shows_itself(open_page: Open, service: Service) -> None:
    service.show(None, trouble="connection refused")
    page = open_page()
    expect(page.locator(".banner.bad").last).to_contain_text("The database can't be read")
    service.show(three_stale())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".badge.stale")).to_have_count(3)


def test_what_is_selected_to_be_copied_stays_selected(open_page: Open, service: Service) -> None:
    page = open_page()
    page.locator("table.orders code").first.click()
    chosen = page.evaluate("document.getSelection().toString()")
    assert chosen == "904837e3-3b76-47ec-b432-046db621571b"
    service.show(night())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_timeout(200)
    assert page.evaluate("document.getSelection().toString()") == chosen


def test_everything_can_be_reached_by_keyboard_and_is_seen_there(open_page: Open) -> None:
    page = open_page()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the orders")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Stale orders")).to_be_focused()
    page.keyboard.press("Tab")
    first = page.locator("table.orders a").first
    expect(first).to_be_focused()
    assert first.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_a_screen_reader_finds_tables_headings_and_names_on_a_phone_too(open_page: Open) -> None:
    page = open_page(viewport=PHONE)
    table = page.get_by_role("table", name="Stale orders")
    expect(table.get_by_role("row")).to_have_count(4)
    expect(table.get_by_role("columnheader")).to_have_count(5)
    expect(page.get_by_role("heading", name="Waiting for a person")).to_be_visible()
    expect(page.get_by_role("combobox")).to_have_count(2)
    for control in page.get_by_role("combobox").all() + page.get_by_role("button").all():
        box = control.bounding_box()
        assert box is not None
        assert box["height"] >= 44
