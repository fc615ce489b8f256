"""What an operator reads of the order status sync: sentences, tables, numbers, the check, the board; no word without a remedy."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest

from recon_pipeline.defs import cycle_remedies, order_board, order_status_remedies
from recon_pipeline.defs.order_status_check import judge
from recon_pipeline.defs.order_status_presentation import metadata_of, stale_sentence, summary
from recon_pipeline.defs.order_status_tables import age_text
from recon_pipeline.domain.corrections import Handler
from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_answers import CheckOutcome, CheckReason
from recon_pipeline.domain.order_events import StreamState
from recon_pipeline.engine import Failure
from recon_pipeline_tests.defs.conftest import plain
from recon_pipeline_tests.defs.syncs import AT, AT_MS, FILLED, HELD, MINUTE, POLICY, answers, checks, outcome, profile

HOUR = 60 * MINUTE
NO_BREAK = "\N{NO-BREAK SPACE}"
STALE, UPDATES = "stale_orders", "order_status_updates"

FRESH_LIVE = {
    "order_id": "gtc",
    "outcome": "live",
    "exchange_status": "accepted",
    "placed_at_ms": AT_MS - 30 * HOUR,
    "checked_at_ms": AT_MS - 2 * MINUTE,
    "next_check_ms": AT_MS + 3 * MINUTE,
}
OLD_LIVE = FRESH_LIVE | {"order_id": "gtc-unconfirmed", "checked_at_ms": AT_MS - HOUR}
FAILED = {
    "order_id": "silent",
    "outcome": "failed",
    "detail": "HTTP 500",
    "failures": 3,
    "placed_at_ms": AT_MS - 2 * HOUR,
    "checked_at_ms": AT_MS - 4 * MINUTE,
    "next_check_ms": AT_MS + 16 * MINUTE,
}
UNKNOWN = {"order_id": "lost", "status": "unknown", "outcome": "marked_unknown", "placed_at_ms": AT_MS - 26 * HOUR}


def read(entries: Any) -> dict[str, Any]:
    """Metadata as values, tables as lists of rows."""
    return {name: plain(value) if hasattr(value, "value") else value for name, value in entries.items()}


def named(rows: list[dict[str, str]]) -> list[str]:
    """The orders of a table, by sign and row."""
    return [("⚠ " if row["order"].startswith("⚠") else "") + row["order"].rpartition("row ")[2] for row in rows]


def ages(*texts: str) -> list[str]:
    """Ages as a table has them: without a line break within."""
    return [text.replace(" ", NO_BREAK) for text in texts]


def shown(made: Any, key: str = UPDATES) -> dict[str, Any]:
    [one] = made.result.profiles.values()
    return read(metadata_of(made, one, key, dashboard_url="http://ui"))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 s"),
        (59_999, "59 s"),
        (MINUTE, "1 min"),
        (2 * HOUR + 5 * MINUTE + 30_000, "2 h 5 min"),
        (26 * HOUR + MINUTE, "1 d 2 h"),
        (48 * HOUR, "2 d"),
        (-5, "0 s"),
    ],
)
def test_an_age_is_said_in_its_two_largest_units(ms: int, text: str):
    assert age_text(ms) == text


def test_the_stale_orders_come_first_with_their_sign_and_those_that_wait_rightly_without():
    made = outcome(profile(checks=checks(FRESH_LIVE, FAILED, UNKNOWN, {"order_id": "new"})))
    entries = shown(made, STALE)
    assert (
        entries["outcome"] == "⚠ 3 stale orders, the oldest 1 d 2 h old; 1 older order confirmed live by the exchange."
    )
    assert named(entries["orders"]) == ["⚠ lost", "⚠ silent", "⚠ new", "gtc"]
    assert [row["age"] for row in entries["orders"]] == ages("1 d 2 h", "2 h", "10 min", "1 d 6 h")
    lost, silent, new, gtc = entries["orders"]
    assert lost["order"] == "⚠ trade t-1, BUY AAPL, row lost"
    assert (silent["last_answer"], silent["asked"]) == ("failed: HTTP 500, 3 times in a row", "11:56, again 12:16")
    assert (new["last_answer"], new["asked"]) == ("not_checked", "not yet, again at the next run")
    assert gtc["status"] == "pending_new; accepted at the exchange"
    assert {row["answer"]: row["orders"] for row in entries["answers"]} == {
        "live": "1",
        "failed": "1",
        "marked_unknown": "1",
        "not_checked": "1",
    }
    [todo] = [row["what_to_do"] for row in entries["answers"] if row["answer"] == "marked_unknown"]
    assert "it blocks its trade until you decide" in todo
    assert {
        name: entries[name] for name in ("stale", "confirmed_live", "unknown", "without_answer", "stale_for_long")
    } == {
        "stale": 3,
        "confirmed_live": 1,
        "unknown": 1,
        "without_answer": 1,
        "stale_for_long": 2,
    }
    assert entries["oldest_stale_minutes"] == 26 * 60


def test_an_order_that_the_exchange_confirmed_too_long_ago_is_stale_again():
    made = outcome(profile(checks=checks(FRESH_LIVE, OLD_LIVE)))
    assert named(shown(made, STALE)["orders"]) == ["⚠ gtc-unconfirmed", "gtc"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((), "No order is stale."),
        ((FRESH_LIVE,), "No order is stale; 1 older order confirmed live by the exchange."),
        ((FAILED,), "⚠ 1 stale order, the oldest 2 h old."),
    ],
)
def test_the_sentence_about_stale_orders(found: tuple[dict[str, object], ...], said: str):
    one = profile(checks=checks(*found))
    assert stale_sentence(outcome(one), one) == said


@pytest.mark.parametrize(
    ("counts", "dry_run", "said"),
    [
        ({}, False, "Nothing to ask."),
        ({"checked": 1, "still_live": 1}, False, "1 order asked about: 1 live at the exchange."),
        (
            {
                "checked": 9,
                "failed": 2,
                "updated": 3,
                "not_found": 3,
                "marked_unknown": 1,
                "still_live": 1,
                "left_over": 7,
            },
            False,
            (
                "9 orders asked about: 2 without an answer; 1 unknown, for a person to decide; 2 not known to the exchange; "
                "3 corrected; 1 live at the exchange; 7 left for the next run."
            ),
        ),
        ({"checked": 2, "differs": 2}, True, "2 orders asked about: 2 would be corrected (dry run)."),
    ],
)
def test_what_the_sync_did_is_said_in_one_sentence_the_worst_first(counts: dict[str, int], dry_run: bool, said: str):
    one = profile(counts=counts)
    assert summary(outcome(one, dry_run=dry_run), one) == said


def test_a_dry_run_tells_an_order_that_it_would_mark_unknown_once():
    lost = replace(FILLED, handler=Handler.STATUS, values={"status": "unknown"})
    one = profile(counts={"checked": 3, "not_found": 2, "differs": 2}, changes=(lost, FILLED))
    assert summary(outcome(one, dry_run=True), one) == (
        "3 orders asked about: 1 would be marked unknown (dry run); 1 not known to the exchange; 1 would be corrected (dry run)."
    )


def test_an_update_is_shown_with_what_it_was_what_it_becomes_and_why():
    one = profile(
        counts={"checked": 2, "updated": 1},
        changes=(FILLED,),
        applied=("ord-1",),
        batch_id="RECON-1",
        findings=(HELD,),
    )
    entries = shown(outcome(one))
    [row] = entries["corrections"]
    assert (row["state"], row["change"]) == ("written", "entry fill, trade t-1, row ord-1")
    assert row["before"].startswith("status pending_new")
    assert "status filled, executed 10" in row["after"]
    assert "executed quantity grew" in row["why"]
    assert entries["batch_id"] == "RECON-1"
    assert entries["needs_a_person"][0]["what_to_do"].startswith("ledger_ahead_of_exchange: The row says more")
    assert entries["outcome"].endswith("1 for a person.")
    assert (entries["checked"], entries["updated"], entries["api_calls_of_account"], entries["rate_left"]) == (
        2,
        1,
        3,
        180,
    )
    assert (entries["answered_by_pages"], entries["asked_one_by_one"], entries["dry_run"]) == (4, 1, False)


def test_an_account_that_does_not_say_what_is_left_of_its_minute_plots_no_number():
    one = profile(counts={"checked": 1})
    assert "rate_left" not in shown(outcome(one, accounts=(answers(rate_remaining=None),)))


def test_a_profile_that_failed_or_whose_account_could_not_be_asked_has_failed():
    failed = profile(failure=Failure("order_status", "no lease"))
    assert summary(outcome(failed), failed) == "FAILED: no lease"
    silent = profile(counts={"checked": 2, "failed": 2})
    made = outcome(silent, accounts=(answers(error="account 'acc' has no keys"),))
    assert [one.message for one in made.failures(silent)] == ["account 'acc' has no keys"]
    # Of an account that can't be asked only those profiles fail that had something to ask.
    quiet = profile(counts={"checked": 0})
    assert outcome(quiet, accounts=(answers(error="no keys"),)).failures(quiet) == []


def test_a_profile_that_another_run_works_on_is_skipped_and_says_so():
    busy = profile(counts={"left_over": 2}, postponed={"ord-1": "lease_held", "ord-2": "lease_held"})
    assert summary(outcome(busy), busy) == (
        "Skipped, lease_held: another run works on the profile. 2 orders to be asked about again."
    )
    assert "the next run of the sync" in shown(outcome(busy))["postponed"][0]["what_to_do"]


def test_the_check_holds_where_every_older_order_is_confirmed():
    verdict = judge(checks(FRESH_LIVE), POLICY, AT)
    assert (verdict.passed, verdict.severity) == (True, dg.AssetCheckSeverity.WARN)
    assert verdict.description == "No order is stale. 1 older order confirmed live by the exchange."
    assert "stale_orders" not in (verdict.metadata or {})


def test_the_check_warns_of_stale_orders_of_all_profiles_with_age_and_sign():
    verdict = judge(checks(FRESH_LIVE, FAILED, UNKNOWN | {"profile_id": "p2"}), POLICY, AT)
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert verdict.description == (
        "⚠ 2 stale orders of 2 profiles, the oldest 1 d 2 h old. 1 older order confirmed live by the exchange."
    )
    entries = read(verdict.metadata)
    table = entries["stale_orders"]
    assert [row["profile"] for row in table] == ["p2", "p1"]
    assert named(table) == ["⚠ lost", "⚠ silent"]
    assert [row["age"] for row in table] == ages("1 d 2 h", "2 h")
    assert (entries["violations"], entries["profiles_with_stale_orders"], entries["unknown"]) == (2, 2, 1)
    assert entries["oldest_stale_minutes"] == 26 * 60


def test_the_table_of_the_check_says_how_many_more_there_are():
    verdict = judge(checks(*({"order_id": f"o{number:03}"} for number in range(60))), POLICY, AT)
    rows = plain((verdict.metadata or {})["stale_orders"])
    assert len(rows) == 51
    assert rows[-1]["profile"] == "... and 10 more"


def test_orders_that_wait_for_a_decision_lead_to_the_job_that_carries_it_out():
    link = shown(outcome(profile(checks=checks(UNKNOWN, FAILED))), STALE)["decide_unknown"]
    address = parse_qs(urlsplit(link.partition("](")[2].rstrip(")")).query)
    assert "/jobs/stale_order_cleanup/playground" in link
    assert 'profile_ids: ["p1"]' in address["config"][0]
    assert 'cancel_unknown: ["lost"]' in address["config"][0]
    assert "confirm" not in address["config"][0]
    assert "decide_unknown" not in shown(outcome(profile(checks=checks(FAILED))), STALE)
    many = checks(*(UNKNOWN | {"order_id": f"o{number:02}"} for number in range(30)))
    link = shown(outcome(profile(checks=many)), STALE)["decide_unknown"]
    assert ("the first 20 of these orders" in link, "o19" in link, "o20" in link) == (True, True, False)


def test_an_order_that_was_asked_about_on_another_day_shows_the_date():
    old = FAILED | {"checked_at_ms": AT_MS - 26 * HOUR, "next_check_ms": AT_MS + 13 * HOUR}
    [row] = shown(outcome(profile(checks=checks(old))), STALE)["orders"]
    assert row["asked"].replace(NO_BREAK, " ") == "2026-11-19 10:00, again 2026-11-21 01:00"


def test_an_order_whose_row_does_not_say_when_it_was_placed_is_at_least_as_old_as_it_is_known():
    [row] = shown(outcome(profile(checks=checks({"placed_at_ms": NO_TIME}))), STALE)["orders"]
    assert [row["age"]] == ages("at least 5 min")


# -- words


def test_every_outcome_of_a_check_and_every_state_of_a_stream_says_what_to_do():
    assert set(order_status_remedies.OUTCOMES) == set(CheckOutcome)
    assert set(order_status_remedies.STREAM_STATES) == {*StreamState, order_status_remedies.GONE}
    assert order_status_remedies.for_outcome("of a later version") == cycle_remedies.SEE_RUNBOOK


@pytest.mark.parametrize(
    ("outcome_word", "detail", "adds"),
    [
        ("held", "ledger_ahead_of_exchange", "rows are never reduced"),
        ("postponed", "quiet", "its bot may be writing the same"),
        ("postponed", "row_changed", "The row changed after this was decided"),
        ("failed", "HTTP 500: nothing", ""),
    ],
)
def test_a_detail_that_is_a_word_says_what_to_do_about_it(outcome_word: str, detail: str, adds: str):
    plainly = order_status_remedies.for_outcome(outcome_word)
    said = order_status_remedies.for_outcome(outcome_word, detail)
    assert said.startswith(plainly)
    assert adds in said
    assert (said == plainly) is (not adds)


def test_every_reason_of_a_check_says_what_to_do():
    assert set(order_status_remedies.REASONS) == set(CheckReason)


# -- the board


def stream(**changed: object) -> dict[str, Any]:
    return {
        "account_id": "acc",
        "state": "listening",
        "since": AT - timedelta(hours=2),
        "seen_at": AT - timedelta(seconds=5),
        "last_event_at": None,
        "connections": 1,
        "error": "",
    } | changed


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (stream(), "listening"),
        (stream(seen_at=AT - timedelta(seconds=61)), "gone"),
        (stream(state="down", error="refused"), "down"),
        (stream(state="stopped", seen_at=AT - timedelta(days=1)), "stopped"),
    ],
)
def test_a_stream_without_a_sign_of_life_is_gone_whatever_it_said_last(row: dict[str, Any], state: str):
    assert order_board.stream_state(row, AT) == state


def run(**changed: object) -> dict[str, Any]:
    return {
        "run_id": "run-1",
        "began_at": AT - timedelta(minutes=3),
        "ended_at": AT - timedelta(minutes=3),
        "dry_run": True,
        "checked": 5,
        "updated": 0,
        "not_found": 1,
        "failed": 0,
        "still_live": 4,
        "left_over": 0,
        "api_calls": 2,
        "error": "",
    } | changed


def test_the_board_says_when_the_sync_ran_last_and_when_orders_wait_for_it_for_too_long():
    none = checks()
    assert order_board.sync_sentence(None, none, POLICY, AT).startswith("It never ran;")
    said = order_board.sync_sentence(run(), none, POLICY, AT)
    assert said == "Last run 3 min ago (dry run): 5 checked, 1 not found, 4 still live, 2 api calls."
    assert order_board.sync_sentence(run(dry_run=False, error="p1: busy"), none, POLICY, AT).endswith(
        "api calls; p1: busy."
    )
    waiting = checks({"next_check_ms": AT_MS - POLICY.confirmed_for_ms - MINUTE})
    assert order_board.sync_sentence(run(), waiting, POLICY, AT).startswith(
        "LATE: an order waits to be asked about for 12 min; see that order_status_sync_schedule is on"
    )
    assert order_board.sync_sentence(run(), checks({"next_check_ms": AT_MS - MINUTE}), POLICY, AT) == said
