"""The order status page, as text: what it says of a night, and that it never says more than is known."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.defs import catalogue, cycle_catalogue, order_status_catalogue
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.order_answers import CheckOutcome
from recon_pipeline.domain.root_causes import RootCause
from recon_pipeline.ops import wording
from recon_pipeline.ops.page import PARAMETERS, SCRIPT, STYLE
from recon_pipeline.ops.snapshot import Snapshot
from recon_pipeline_tests.ops.boards import (
    DASHBOARD,
    NOW,
    POLICY,
    ago,
    case,
    check,
    cycle,
    five_hundred,
    live,
    night,
    page,
    stream,
    three_stale,
    unchecked,
)
from recon_pipeline_tests.ops.reader import Node, banners, fact, read, rows


def shown(snapshot: Snapshot | None, **options: object) -> Node:
    return read(page(snapshot, **options))  # type: ignore[arg-type]


# -- stale orders


def test_a_calm_night_is_said_in_one_sentence() -> None:
    document = shown(night())
    assert banners(document) == [
        (
            "ok",
            "✓ No order is stale Every order that may still execute is younger than 5\u00a0min.".replace("\u00a0", " "),
        )
    ]
    assert rows(document, "orders") == []
    assert "No stale orders." in document.words()
    assert "Nothing waits for a person." in document.words()
    assert [fact(document, name) for name in ("Stale orders", "Waiting for a person", "Trading")] == [
        "0",
        "0",
        "Running",
    ]


def test_stale_orders_are_told_first_and_each_has_its_sign_its_age_and_what_the_exchange_said() -> None:
    document = shown(three_stale())
    [(tone, banner)] = banners(document)
    assert tone == "warn"
    assert banner == (
        "⚠ 3 stale orders in 2 profiles They may still execute, and the exchange has not confirmed them lately."
        " 2 for more than 1 h. The oldest was placed 1 d 2 h ago."
    )
    listed = rows(document, "orders")
    assert len(listed) == 3
    assert listed[0] == (
        "⚠ Stale: unknown over 1 h ETH/USD SELL · trade eth-201 Order 904837e3-3b76-47ec-b432-046db621571b swing-2 ↗ account A1"
        " The exchange does not know it. It blocks its trade until a person decides."
        " 404 for the id and the client id, asked twice Checked 2 min ago. Again at 03:15:05 UTC. Placed 1 d 2 h 20 Nov 00:58 UTC"
    )
    assert "Checked 2 min ago. 3 failures in a row. Again at 03:30:05 UTC. Placed 1 h 20 min 01:52:05 UTC" in listed[1]
    assert listed[2].startswith("⚠ Stale: pending_new AAPL BUY")
    assert "the sync is a dry run and does not write it. It says filled." in listed[2]
    assert listed[2].endswith("Placed 12 min 0 s 03:00:05 UTC")
    assert len(document.all("span", class_="stale")) == 3


def test_one_stale_order_is_one() -> None:
    [(_, banner)] = banners(shown(night(order_checks=(check(),))))
    assert banner == (
        "⚠ 1 stale order It may still execute, and the exchange has not confirmed it lately. Placed 12 min ago."
    )


def test_an_order_that_the_exchange_confirmed_lately_is_not_stale_and_is_shown_on_request() -> None:
    calm = night(order_checks=(live(),))
    assert banners(shown(calm)) == [
        ("ok", "✓ No order is stale 1 older order waits rightly: the exchange holds it as live.")
    ]
    assert rows(shown(calm), "orders") == []
    [row] = rows(shown(calm, live="1"), "orders")
    assert row.startswith("accepted AAPL BUY")
    assert "⚠" not in row
    assert "The exchange holds it as live. It says accepted." in row


@pytest.mark.parametrize(("minutes", "is_stale"), [(11, False), (11.01, True)])
def test_a_confirmation_holds_for_two_intervals_and_a_minute(minutes: float, is_stale: bool) -> None:
    snapshot = night(order_checks=(live(checked_at=ago(minutes=minutes)),), taken_at=NOW)
    assert (len(rows(shown(snapshot), "orders")) == 1) is is_stale


def test_an_order_that_no_sync_has_looked_at_is_stale_too() -> None:
    snapshot = night(unchecked=(unchecked(placed_at=ago(minutes=40)),), order_checks=(check("o2"),))
    document = shown(snapshot)
    first, _ = rows(document, "orders")
    assert "Not asked about yet. The next sync asks. Placed 40 min 0 s" in first
    assert banners(document)[0][1].startswith("⚠ 2 stale orders They may")


def test_more_orders_than_a_snapshot_holds_are_not_counted_as_if_they_were_all() -> None:
    document = shown(night(unchecked=tuple(unchecked(f"u{n}") for n in range(500))))
    assert banners(document)[0][1].startswith("⚠ At least 500 stale orders")
    assert fact(document, "Stale orders") == "500+"


def test_an_order_that_does_not_say_when_it_was_placed_comes_first_and_is_as_old_as_it_was_seen() -> None:
    nameless = check("no-time", placed_at=None, first_seen_at=ago(hours=1, seconds=2))
    document = shown(night(order_checks=(check("old", placed_at=ago(minutes=59)), nameless)))
    first, second = rows(document, "orders")
    assert "no-time" in first
    assert first.startswith("⚠ Stale: pending_new over 1 h")
    assert first.endswith("Stale for at least 1 h seen; not said when placed")
    assert "over" not in second
    [row] = rows(shown(night(unchecked=(unchecked(placed_at=None),))), "orders")
    assert row.endswith("age unknown")


def test_the_oldest_order_comes_first_wherever_it_is_known_from() -> None:
    snapshot = night(
        order_checks=(check("b", placed_at=ago(hours=2)), check("d", placed_at=ago(minutes=9))),
        unchecked=(unchecked("a", placed_at=ago(hours=3)), unchecked("c", placed_at=ago(hours=1))),
    )
    found = [re.search(r"Order (\w)", row) for row in rows(shown(snapshot), "orders")]
    assert [match and match[1] for match in found] == ["a", "b", "c", "d"]


def test_every_outcome_of_a_check_has_a_sentence() -> None:
    assert set(wording.OUTCOMES) == set(CheckOutcome)
    assert set(wording._ROOT_CAUSES) == set(RootCause) - {RootCause.UNKNOWN}


def test_a_word_that_this_version_does_not_know_is_still_shown() -> None:
    [row] = rows(shown(night(order_checks=(check(outcome="some_new_word", detail="row_doubled"),))), "orders")
    assert "Some new word. Row doubled." in row


# -- filters and caps


def test_the_filters_narrow_the_orders_and_the_banner_still_speaks_of_all() -> None:
    document = shown(three_stale(), profile="momentum-1", status="PENDING_NEW")
    [row] = rows(document, "orders")
    assert "5d0f2c1e" in row
    assert "1 of 3, in momentum-1 with status PENDING_NEW" in document.words()
    assert banners(document)[0][1].startswith("⚠ 3 stale orders")
    selected = [node.words() for node in document.all("option") if "selected" in node.attributes]
    assert selected == ["momentum-1", "pending_new"]
    assert document.one("a", href="?").words() == "Clear"


def test_what_nobody_knows_shows_nothing_and_says_so() -> None:
    document = shown(three_stale(), profile="nobody")
    assert rows(document, "orders") == rows(document, "waiting") == []
    assert document.words().count("There is no profile “nobody”.") == 2
    assert "No stale order with status dreaming." in shown(three_stale(), status="dreaming").words()
    assert "No stale order in swing-2." in shown(night(), profile="swing-2").words()
    assert "Nothing in swing-2 waits for a person." in shown(night(), profile="swing-2").words()


def test_long_lists_are_cut_and_the_rest_is_a_link_away() -> None:
    document = shown(five_hundred(), status="pending_new")
    assert len(rows(document, "orders")) == 50
    document = shown(five_hundred())
    assert len(rows(document, "orders")) == 50
    assert len(rows(document, "waiting")) == 50
    words = document.words()
    assert "450 more orders. Show more" in words
    assert "30 more. Show more" in words
    assert {link.attributes["href"] for link in document.all("a") if link.words() == "Show more"} == {"?all=1"}
    document = shown(five_hundred(), all="1", status="new")
    assert len(rows(document, "orders")) == 100
    document = shown(five_hundred(), all="1")
    assert len(rows(document, "orders")) == 500
    assert len(rows(document, "waiting")) == 80
    assert "Show more" not in document.words()


def test_no_list_is_endless() -> None:
    many = night(order_checks=tuple(check(f"o{n}") for n in range(1_250)))
    document = shown(many, all="1")
    assert len(rows(document, "orders")) == 1_000
    assert "250 more orders. Narrow the list by profile or status." in document.words()


def test_a_link_to_more_keeps_the_filters() -> None:
    many = night(order_checks=tuple(check(f"o{n}", profile_id="a b&c") for n in range(51)))
    document = shown(many, profile="a b&c", live="1")
    [more] = [link for link in document.all("a") if link.words() == "Show more"]
    assert more.attributes["href"] == "?profile=a+b%26c&live=1&all=1"


def test_of_many_profiles_those_with_something_to_show_can_be_chosen() -> None:
    crowd = tuple(f"p{n:04}" for n in range(300))
    document = shown(
        night(crowd, order_checks=(check(profile_id="p0007"),), waiting=(case(profile_id="p0009"),)), profile="p0042"
    )
    options = [node.words() for node in document.one("select", id="profile").all("option")]
    assert options == ["All profiles", "p0007", "p0009", "p0042"]


# -- what waits for a person


def test_trades_are_ranked_by_money_with_every_reason_and_their_money_counts_once() -> None:
    document = shown(three_stale())
    first, second, third = rows(document, "waiting")
    assert first == (
        "BTC/USD · trade btc-7 swing-2 ↗ account A1 Exchange not flat · Position parity ↗"
        " Missing fill evidence for large remainder · Exit backfill ↗ Likely closed by hand."
        " Since 20 Nov 22:12 UTC, 5 h ago. At risk: $48,210.33"
    )
    assert second.startswith("AAPL · trade t1")
    assert third.endswith("At risk: price unknown")
    assert "$49,460.83 at risk, most money first" in document.words()
    assert fact(document, "Waiting for a person") == "3 $49,460.83 at risk 1 without a known price"


def test_the_filter_by_profile_narrows_what_waits() -> None:
    document = shown(three_stale(), profile="swing-2")
    assert len(rows(document, "waiting")) == 1
    assert "in swing-2; $48,210.33 at risk, most money first" in document.words()


def test_cases_that_are_about_no_trade_stand_by_themselves() -> None:
    snapshot = night(
        waiting=(
            case(trade_id="", order_id="o7", reason="no_trade", stage="order_parity", notional_usd=None),
            case(trade_id="", order_id="o8", reason="no_trade", stage="order_parity", notional_usd=None),
            case(
                trade_id="",
                detail={"exchange_order_id": "x9"},
                stage="order_coverage",
                notional_usd=None,
                reason="unmapped_trade",
            ),
            case(trade_id="", symbol="TSLA", reason="position_without_trade", notional_usd=None),
        )
    )
    listed = rows(shown(snapshot), "waiting")
    assert len(listed) == 4
    assert any("Order x9" in row for row in listed)
    assert any(row.startswith("TSLA") for row in listed)


def test_a_case_that_no_cycle_could_see_lately_says_so() -> None:
    [row] = rows(shown(night(waiting=(case(seen_at=ago(minutes=31)),))), "waiting")
    assert "Last seen 31 min ago: no cycle could tell since." in row


def test_everything_leads_to_its_partition_in_the_dagster_ui() -> None:
    document = shown(three_stale())
    links = {link.attributes["href"] for link in document.all("a")}
    for asset, profile in (
        ("stale_orders", "swing-2"),
        ("stale_orders", "momentum-1"),
        ("position_parity", "swing-2"),
        ("proposed_backfill_rows", "swing-2"),
        ("order_parity", "momentum-1"),
    ):
        assert f"{DASHBOARD}/assets/{asset}?view=partitions&partition={profile}" in links


def test_the_assets_that_the_page_links_to_exist() -> None:
    known = {
        catalogue.PROPOSED_KEY,
        catalogue.ORDER_PARITY_KEY,
        catalogue.ORDER_COVERAGE_KEY,
        cycle_catalogue.SUB_TAG_KEY,
        cycle_catalogue.POSITION_PARITY_KEY,
        cycle_catalogue.REPORT_KEY,
        *order_status_catalogue.KEYS,
    }
    assert {*wording.ASSETS.values(), wording.REPORT_ASSET, wording.STALE_ASSET} <= known
    assert {
        wording.ASSETS[stage.value] for stage, asset in () or [(s, a) for a, s in cycle_catalogue.STAGE_OF.items()]
    } == set(cycle_catalogue.STAGE_OF)
    assert set(wording.ASSETS) <= {stage.value for stage in Stage}


@pytest.mark.parametrize("dashboard", ["", "javascript:alert(1)", "ftp://x"])
def test_without_an_address_that_a_browser_may_follow_there_is_no_link(dashboard: str) -> None:
    document = shown(three_stale(), dashboard=dashboard)
    assert {link.attributes["href"] for link in document.all("a")} == {
        "#orders",
        "#waiting",
        "internal/health",
        "internal/trading/status",
        "metrics",
    }
    assert "swing-2 account A1" in rows(document, "orders")[0]


def test_a_name_with_odd_characters_is_quoted_in_its_link() -> None:
    [row] = (
        shown(night(order_checks=(check(profile_id="a/b c&d?é"),))).one("table", class_="orders").one("tbody").all("tr")
    )
    assert (
        row.one("a").attributes["href"]
        == f"{DASHBOARD}/assets/stale_orders?view=partitions&partition=a%2Fb%20c%26d%3F%C3%A9"
    )


# -- how the pipeline does


def test_a_database_that_can_not_be_read_is_told_before_everything_with_the_age_of_what_is_shown() -> None:
    document = shown(replace(three_stale(), taken_at=ago(minutes=7)), trouble="connection refused")
    first, second = banners(document)
    assert first == (
        "bad",
        "✕ The database can't be read What follows was so at 03:05:05 UTC, 7 min ago. connection refused",
    )
    assert second[1].startswith("⚠ 3 stale orders")
    assert document.one("title").children == ["✕ The database can't be read: order status"]


def test_a_calm_list_under_an_unreadable_database_is_not_shown_as_all_well() -> None:
    document = shown(replace(night(), taken_at=ago(minutes=7)), trouble="connection refused")
    assert [tone for tone, _ in banners(document)] == ["bad", "warn"]


def test_an_old_snapshot_is_told_though_no_reading_failed() -> None:
    assert [tone for tone, _ in banners(shown(night(taken_at=ago(seconds=60))))] == ["ok"]
    document = shown(night(taken_at=ago(seconds=61)))
    assert banners(document)[0][1].startswith(
        "✕ What is shown here is old What follows was so at 03:11:04 UTC, 1 min ago."
    )


def test_before_anything_was_read_the_page_says_which_of_both_it_is() -> None:
    assert banners(shown(None)) == [
        ("warn", "… The first reading is under way This page shows itself as soon as it is done.")
    ]
    document = shown(None, trouble="connection refused")
    assert banners(document) == [("bad", "✕ The database can't be read Nothing is known yet. connection refused")]
    assert document.all("table") == document.all("form") == []


def test_what_health_says_the_page_says() -> None:
    late = night(cycles=(cycle("momentum-1", cycle_at=ago(minutes=16)), cycle("swing-2", error="account refused")))
    tone, text = banners(shown(late))[0]
    assert tone == "bad"
    assert text.startswith("✕ Reconciliation is not healthy 1 profile had no cycle in the last 15 minutes")
    assert "account refused" in text


@pytest.mark.parametrize(
    ("trading", "said"),
    [
        ((), "Running"),
        (({"scope": "all", "state": "RUNNING", "source": "x", "since": None, "reason": ""},), "Running"),
        (
            ({"scope": "all", "state": "PAUSED", "source": "operator", "since": ago(minutes=50), "reason": "outage"},),
            "Paused outage by operator for all, 50 min ago",
        ),
        (
            (
                {
                    "scope": "p9",
                    "state": "PAUSED",
                    "source": "recon_parity_watchdog",
                    "since": None,
                    "reason": "too much",
                },
            ),
            "Paused in 1 profile too much",
        ),
    ],
)
def test_trading_is_said_with_source_since_and_why(trading: tuple[dict[str, object], ...], said: str) -> None:
    document = shown(night(trading=trading))
    assert fact(document, "Trading") == said
    assert len(rows(document, "pauses")) == (0 if said == "Running" else 1)


def test_the_sync_is_said_with_its_counts_and_whether_it_writes() -> None:
    snapshot = night()
    assert fact(shown(snapshot), "Order status sync") == "3 min ago 4 checked, 1 updated"
    sync = {**(snapshot.sync or {}), "dry_run": True, "not_found": 2, "failed": 1, "left_over": 900, "error": "A2: 401"}
    assert fact(shown(replace(snapshot, sync=sync)), "Order status sync") == (
        "3 min ago A2: 401 4 checked, 1 updated, 2 not found, 1 failed, 900 left over dry run: writes no order"
    )
    assert fact(shown(replace(snapshot, sync=None)), "Order status sync") == "None yet it runs where an order is due"
    behind = replace(snapshot, order_checks=(check(next_check_at=ago(minutes=10, seconds=3)), check("o2")))
    assert "1 check overdue" in fact(shown(behind), "Order status sync")
    never = night(sync=None, unchecked=(unchecked(placed_at=ago(minutes=15, seconds=3)), unchecked("u2")))
    assert fact(shown(never), "Order status sync").startswith("None yet 1 check overdue")


def test_streams_are_said_and_one_whose_process_is_gone_does_not_listen() -> None:
    assert fact(shown(night(streams=())), "Streams") == "Not used the sync sees what happens"
    snapshot = night(
        streams=(stream("A1"), stream("A2", seen_at=ago(seconds=61)), stream("A3", state="down", error="401"))
    )
    document = shown(snapshot)
    assert fact(document, "Streams") == "1 of 3 listening last event 50 s ago"
    assert rows(document, "streams") == [
        "A2 gone without a word for 1 min 50 s ago",
        "A3 down for 9 h 401 50 s ago",
        "A1 listening for 9 h 50 s ago",
    ]


def test_a_pipeline_that_has_never_run_says_so() -> None:
    empty = Snapshot(taken_at=NOW, seconds=0.0)
    document = shown(empty)
    assert fact(document, "Last cycle") == "None yet reconcile has not run"
    assert fact(document, "Order status sync") == "None yet it runs where an order is due"


# -- the document


def test_the_document_is_whole_in_itself_and_holds_exactly_the_style_and_the_script_that_are_hashed() -> None:
    html = page(three_stale())
    document = read(html)
    assert [node.children for node in document.all("style")] == [[STYLE]]
    assert [node.children for node in document.all("script")] == [[SCRIPT]]
    assert html.count("<style>") == html.count("<script>") == 1
    outside = re.findall(r"""(?:src|srcset|action|data)=["'][^"']*|url\(|@import""", html)
    assert outside == []
    assert re.search(r"""\s(style|on[a-z]+)=["']""", html) is None
    assert [link.attributes["href"][:19] for link in document.all("link")] == ["data:image/svg+xml,"]
    assert document.one("html").attributes["lang"] == "en"


def test_every_control_has_a_name_and_every_list_its_headers() -> None:
    document = shown(five_hundred())
    labels = {node.attributes["for"] for node in document.all("label") if "for" in node.attributes}
    assert labels == {node.attributes["id"] for node in document.all("select")} == {"profile", "status"}
    assert {node.attributes["name"] for node in document.all("select")} <= set(PARAMETERS)
    for table in document.all("table"):
        assert table.attributes["role"] == "table"
        assert {header.attributes["scope"] for header in table.one("thead").all("th")} == {"col"}
        assert document.one("h2", id=table.attributes["aria-labelledby"]).words()
    assert [node.words() for node in document.all("h1")] == ["Order status"]
    ids = [node.attributes["id"] for node in document.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids))


def test_text_of_others_is_never_markup() -> None:
    evil = "<script>alert(1)</script>"
    odd = {
        "symbol": evil,
        "detail": f"{evil} \x00\x1b[31m",
        "status": '"><img src=x onerror=alert(1)>',
        "trade_id": "x" * 999,
    }
    snapshot = night(
        order_checks=(check(evil, profile_id=evil, account_id=evil, **odd),),
        waiting=(case(profile_id=evil, trade_id=evil, reason=evil, stage=evil, root_cause=evil, symbol=evil),),
        trading=({"scope": "all", "state": "PAUSED", "source": evil, "since": None, "reason": evil},),
        streams=(stream(evil, error=evil, state=evil),),
    )
    assert read(page(snapshot, status='"><b>')).all("b") == []
    html = page(snapshot, trouble=evil, profile=evil)
    document = read(html)
    assert "<script>alert" not in html
    assert document.all("img") == document.all("b") == []
    assert "\x00" not in html
    assert "\x1b" not in html
    assert "x" * 199 + "…" in document.words()
    assert evil in document.words()


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from([*PARAMETERS, "limit", ""]), st.text(max_size=300) | st.sampled_from(["1", "swing-2"])
    ),
    st.text(st.characters(), max_size=50),
)
def test_any_query_is_answered(query: dict[str, str], trouble: str) -> None:
    document = read(
        page(three_stale(), trouble=trouble, **{name: value for name, value in query.items() if name in PARAMETERS})
    )
    assert document.one("h1").words() == "Order status"
    page(three_stale(), profile="\ud800\x00", status="\udfff").encode()


# -- words


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (-3, "0 s", "0 s"),
        (59.9, "59 s", "59 s"),
        (60, "1 min 0 s", "1 min"),
        (372, "6 min 12 s", "6 min"),
        (3_599, "59 min 59 s", "59 min"),
        (3_600, "1 h", "1 h"),
        (8_040, "2 h 14 min", "2 h 14 min"),
        (86_399, "23 h 59 min", "23 h 59 min"),
        (86_400, "1 d", "1 d"),
        (273_600, "3 d 4 h", "3 d 4 h"),
    ],
)
def test_lengths_of_time_have_two_units_at_most(seconds: float, exact: str, rough: str) -> None:
    assert wording.length(seconds) == exact
    assert wording.about(seconds) == rough


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (None, "unknown"),
        (Decimal(0), "$0.00"),
        (Decimal("0.004"), "under $0.01"),
        (Decimal("12340.5"), "$12,340.50"),
        (Decimal("-3.456"), "-$3.46"),
        (Decimal("1E+9"), "$1,000,000,000.00"),
    ],
)
def test_money_is_said_to_the_cent(usd: Decimal | None, text: str) -> None:
    assert wording.money(usd) == text


def test_thresholds_are_said_as_they_are_set() -> None:
    said = [wording.threshold(ms) for ms in (300_000, 3_600_000, 86_400_000, 90_000)]
    assert said == ["5\u00a0min", "1\u00a0h", "24\u00a0h", "1 min 30 s"]


def test_instants_are_utc_with_their_day_where_it_is_not_today() -> None:
    berlin = dt.timezone(dt.timedelta(hours=1))
    assert wording.clock(dt.datetime(2026, 11, 21, 2, 4, 5, tzinfo=berlin), NOW) == "01:04:05 UTC"
    assert wording.clock(ago(days=1), NOW) == "20 Nov 03:12 UTC"
    assert wording.clock(ago(days=400), NOW) == "17 Oct 2025 03:12 UTC"
    assert wording.iso(ago(days=1)) == "2026-11-20T03:12:05Z"


def test_the_policy_of_these_tests_is_the_standard_one() -> None:
    assert (POLICY.stale_ms, POLICY.confirmed_for_ms, POLICY.alert_after_ms) == (300_000, 660_000, 3_600_000)
