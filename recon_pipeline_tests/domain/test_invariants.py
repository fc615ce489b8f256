"""The eight invariants of ``recon_pipeline.domain`` on random books, and: no book crashes the engine.

Each property is checked from the outside, from the book and the answer, with its own reading of the book where one is
needed; nothing of the engine's own checks is trusted.
"""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from random import Random
from typing import Any

from recon_pipeline.cli.evaluate import evaluate_book
from recon_pipeline_tests.domain import book_makers
from recon_pipeline_tests.domain.book_makers import Book, spoiled
from recon_pipeline_tests.domain.outcome import Answer, engine_outcome, evidence, proposals, refusals
from recon_pipeline_tests.domain.properties import answer_of, holds_for
from recon_pipeline_tests.domain.source_rules import number, plain, tag_parts, tag_token, token

EPSILON = Decimal("0.00000001")


def raw_orders(book: Book) -> dict[str, list[dict[str, Any]]]:
    """The exchange orders of the book by id; several where they are listed several times."""
    found: dict[str, list[dict[str, Any]]] = {}
    for listing in book["closed_orders"].values():
        for order in listing:
            found.setdefault(str(order.get("id")), []).append(order)
    return found


def quantity(value: object) -> Decimal:
    assert isinstance(value, str), f"a quantity is text, not {value!r}"
    return Decimal(value)


# --- 1 conservation -----------------------------------------------------------------------------------------------------


@holds_for("rich")
def test_1_every_executed_quantity_is_represented_allocated_or_excess(book: Book, answer: Answer, rnd: Random) -> None:
    taken: dict[str, Decimal] = {}
    for row in proposals(answer):
        taken[row["exchange_order_id"]] = taken.get(row["exchange_order_id"], Decimal(0)) + quantity(row["qty"])
    for order_id, row in evidence(answer).items():
        parts = [quantity(row[part]) for part in ("represented", "allocated", "excess")]
        assert min(parts) >= 0
        assert quantity(row["executed"]) == sum(parts)
        assert taken.pop(order_id, Decimal(0)) == parts[1]
    assert all(cited.startswith("DUST-REMAINDER-") for cited in taken)


@holds_for("rich")
def test_1_every_open_quantity_is_allocated_dust_or_remaining(book: Book, answer: Answer, rnd: Random) -> None:
    closed: dict[str, Decimal] = {}
    for row in answer["orders"]:
        closed[row["trade_id"]] = closed.get(row["trade_id"], Decimal(0)) + quantity(row["qty"])
    for trade_id, is_open in open_quantities(book, answer).items():
        left = is_open - closed.get(trade_id, Decimal(0))
        assert left >= 0, f"{trade_id} gets more than it has open"
        refused = [row for row in refusals(answer) if row["trade_id"] == trade_id]
        if left > EPSILON:
            assert refused, f"{trade_id}: nobody says why {plain(left)} remains"
        about_ids = sum((quantity(row["filled_qty"]) for row in refused if row["backfill_order_id"]), Decimal(0))
        stated = [quantity(row["metadata"]["remaining"]) for row in refused if "remaining" in row["metadata"]]
        assert all(value + about_ids == left for value in stated)


def open_quantities(book: Book, answer: Answer) -> dict[str, Decimal]:
    """Open quantity per decidable, managed trade of p1: its filled rows that name everything, each order id once."""
    undecidable = {
        row["trade_id"]
        for row in answer["audit_rows"]
        if str(row["reason"]).startswith(("row_", "conflicting", "unknown_entry"))
    }
    scope = book.get("managed_symbols")
    totals: dict[str, Decimal] = {}
    if not answer["result"]["attempted"]:
        return totals
    for row in book["lifecycle_rows"]:
        filled = str(row.get("status")).replace("-", "_") in ("filled", "partially_filled")
        if row.get("profile_id") != "p1" or not filled or row["trade_id"] in undecidable:
            continue
        if scope is not None and token(row["symbol"]) not in {token(symbol) for symbol in scope}:
            continue
        units = number(row.get("qty") if row.get("qty") not in (None, "") else row.get("quantity"))
        entry = row["order_id"].startswith("e")
        totals[row["trade_id"]] = totals.get(row["trade_id"], Decimal(0)) + (units if entry else -units)
    return {trade_id: total for trade_id, total in totals.items() if total > EPSILON}


# --- 2 totality ---------------------------------------------------------------------------------------------------------


@holds_for("rich")
def test_2_every_open_trade_and_every_order_has_an_outcome(book: Book, answer: Answer, rnd: Random) -> None:
    decided = {row["trade_id"] for row in answer["orders"]} | {row["trade_id"] for row in refusals(answer)}
    assert set(open_quantities(book, answer)) <= decided
    assert len(open_quantities(book, answer)) <= answer["result"]["open_trade_candidates"]
    for trade_id in decided:
        reasons = {
            row["reason"] for row in refusals(answer) if row["trade_id"] == trade_id and not row["backfill_order_id"]
        }
        assert len(reasons) <= 1, f"{trade_id} has several reasons {reasons}"
    shown = evidence(answer)
    if answer["result"]["attempted"]:
        assert {
            order_id
            for order_id, listed in raw_orders(book).items()
            if all(isinstance(order.get("id"), str) for order in listed)
        } <= set(shown)
    for row in shown.values():
        assert (quantity(row["allocated"]) > 0) != bool(row["reason"]), "allocated, or a reason why not"
    result = answer["result"]
    assert result["proposed_rows"] == len(answer["orders"])
    assert result["inserted_rows"] == (len(answer["orders"]) if book["apply"] else 0)
    assert result["no_go_trades"] == len({row["trade_id"] for row in refusals(answer) if row["decision"] == "NO_GO"})


# --- 3 no crossing ------------------------------------------------------------------------------------------------------


@holds_for("rich")
def test_3_no_row_crosses_profile_symbol_side_or_attribution(book: Book, answer: Answer, rnd: Random) -> None:
    heuristics = book["config"].get("RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH", False)
    listed = raw_orders(book)
    for row in proposals(answer):
        entries = [
            entry
            for entry in book["lifecycle_rows"]
            if entry["trade_id"] == row["trade_id"]
            and entry["profile_id"] == "p1"
            and entry["order_id"].startswith("e")
        ]
        assert row["profile_id"] == "p1"
        assert entries, "the trade is one of the profile's"
        assert token(row["symbol"]) in {token(entry.get("symbol")) for entry in entries}
        assert row["side"] == ("SELL" if entries[0]["side"].lower() == "buy" else "BUY")
        if row["matched_by"] == "dust":
            continue
        for order in listed[row["exchange_order_id"]]:
            assert token(order["symbol"]) == token(row["symbol"])
            assert order["side"].upper() == row["side"]
            strong = assert_no_key_says_otherwise(with_inherited_keys(order, listed), row["trade_id"])
            assert strong or heuristics, "an unattributed order was used"
            if not strong:
                assert row["matched_by"] in ("qty_unique", "single_open_trade")


def with_inherited_keys(order: dict[str, Any], listed: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The order's trade id, tag and bot's client id, each from the order it replaced where it has none."""
    keys, seen = dict(order), {order["id"]}
    while (before := order.get("replaces")) in listed and before not in seen:
        seen.add(before)
        order = listed[before][0]
        names = ("trade_id", "tradeId", "client_order_id", "clientOrderId", "subtag", "sub_tag", "info")
        own_client = str(keys.get("client_order_id") or keys.get("clientOrderId") or "")
        for name in names:
            is_client = name in ("client_order_id", "clientOrderId")
            if not keys.get(name) and not (is_client and own_client.lower().startswith("bytelyst-")):
                keys[name] = order.get(name)
    return keys


def assert_no_key_says_otherwise(order: dict[str, Any], trade_id: str) -> bool:
    """Whether a key of the order names the trade; no key may name anything else."""
    strong = False
    for hint in (order.get("trade_id"), order.get("tradeId")):
        if hint:
            assert hint == trade_id
            strong = True
    client = str(order.get("client_order_id") or order.get("clientOrderId") or "").lower()
    if client.startswith("bytelyst-"):
        accepted = {f"bytelyst-p1-{trade_id}{suffix}".lower() for suffix in ("", "-exit", "-exit-2")}
        assert client in accepted
        strong = True
    inner = order.get("info") or {}
    tag = order.get("sub_tag") or order.get("subtag") or inner.get("subtag") or ""
    parts = tag_parts(tag)
    if parts:
        assert parts[0] == "p1"
        if parts[1]:
            assert parts[1] == tag_token(trade_id)
            strong = True
    return strong


# --- 4 no invention -----------------------------------------------------------------------------------------------------


@holds_for("rich")
def test_4_quantities_prices_and_times_are_those_of_the_cited_orders(book: Book, answer: Answer, rnd: Random) -> None:
    listed = raw_orders(book)
    for row in proposals(answer):
        assert quantity(row["qty"]) > 0
        assert Decimal(row["price"]) > 0
        assert row["qty"] == row["quantity"]
        if row["matched_by"] == "dust":
            assert row["exchange_order_id"] == f"DUST-REMAINDER-{row['trade_id']}"
        else:
            cited = listed[row["exchange_order_id"]]
            assert quantity(row["qty"]) <= max(number(_first(order, "filled_qty", "filled")) for order in cited)
            assert Decimal(row["price"]) in {
                number(order.get(n)) for order in cited for n in ("filled_avg_price", "average")
            }
            times = {_cut(_first(order, "filled_at", "lastTradeTimestamp", "timestamp")) for order in cited}
            assert row["filled_at"] in times
        assert row["order_id"] == book_makers.backfill_id(
            "p1", row["trade_id"], row["exchange_order_id"], row["timestamp"]
        )
        assert book_makers.iso(row["timestamp"]) == row["filled_at"]


def _first(order: dict[str, Any], *names: str) -> object:
    return next((order[name] for name in names if order.get(name) not in (None, "")), None)


def _cut(value: object) -> str:
    return book_makers.iso(value) if isinstance(value, int) else f"{str(value)[:23]}Z"


# --- 5 order-independence -----------------------------------------------------------------------------------------------


@holds_for("rich")
def test_5_shuffling_and_duplicating_changes_nothing(book: Book, answer: Answer, rnd: Random) -> None:
    shuffled = copy.deepcopy(book)
    for listing in (
        shuffled["lifecycle_rows"],
        shuffled["open_orders"],
        shuffled.get("existing_order_ids", []),
        *shuffled["closed_orders"].values(),
    ):
        if listing:
            listing.extend(copy.deepcopy(rnd.choices(listing, k=rnd.randrange(3))))
        rnd.shuffle(listing)
    for name in ("closed_orders", "positions"):
        pairs = list(shuffled[name].items())
        rnd.shuffle(pairs)
        shuffled[name] = dict(pairs)
    after = answer_of(shuffled)
    assert after["digest"] == answer["digest"]
    assert engine_outcome(after) == engine_outcome(answer)
    assert evidence(after) == evidence(answer)
    assert after["result"] == answer["result"]


# --- 6 fixed point ------------------------------------------------------------------------------------------------------


def applied(book: Book, answer: Answer, *, status: str = "filled") -> Book:
    """The book after the answer's rows were inserted."""
    rows = [{**row, "status": status} for row in answer["orders"]]
    after = {**copy.deepcopy(book), "lifecycle_rows": book["lifecycle_rows"] + rows}
    if "existing_order_ids" in book:
        after["existing_order_ids"] = book["existing_order_ids"] + [row["order_id"] for row in rows]
    return after


@holds_for("strong")
def test_6_after_an_apply_planning_again_proposes_nothing(book: Book, first: Answer, rnd: Random) -> None:
    second = answer_of(applied(book, first))
    assert second["orders"] == []
    assert second["result"].get("over_exits") == first["result"].get("over_exits"), "an apply over-exits no trade"


# --- 7 inverse ----------------------------------------------------------------------------------------------------------


@holds_for("strong")
def test_7_what_a_rollback_canceled_is_named_and_never_proposed_again(book: Book, first: Answer, rnd: Random) -> None:
    rolled_back = answer_of(applied(book, first, status="canceled"))
    gone = {row["order_id"] for row in first["orders"]}
    assert not gone & {row["order_id"] for row in rolled_back["orders"]}
    reverted = [row for row in refusals(rolled_back) if row["reason"] == "previously_reverted"]
    dust = {row["order_id"] for row in proposals(first) if row["matched_by"] == "dust"}
    assert gone - dust <= {row["backfill_order_id"] for row in reverted}
    assert {row["trade_id"] for row in first["orders"]} <= {row["trade_id"] for row in reverted}
    opened = open_quantities(book, first)
    assert open_quantities(book, rolled_back) == opened, "the canceled rows close nothing"


# --- 8 failed readings --------------------------------------------------------------------------------------------------


@holds_for("rich")
def test_8_a_failed_reading_writes_no_more_than_a_good_one(book: Book, answer: Answer, rnd: Random) -> None:
    failed = copy.deepcopy(book)
    part = rnd.choice(("positions", "closed_orders", "position", "listing", "open_orders", "lifecycle_rows"))
    if part == "position":
        failed["positions"][rnd.choice(list(book_makers.SYMBOLS))] = None
    elif part == "listing":
        failed["closed_orders"][rnd.choice(list(failed["closed_orders"]))] = None
    else:
        failed[part] = None
    bad = evaluate_book(failed)
    if bad.get("error") is None:
        assert {row["order_id"] for row in bad["orders"]} <= {row["order_id"] for row in answer["orders"]}
        written, instead = engine_outcome(answer).written(), engine_outcome(bad).written()
        assert all(amount <= written[trade_id] for trade_id, amount in instead.items())


# --- and no crash -----------------------------------------------------------------------------------------------------


@holds_for("rich")
def test_no_book_crashes_the_engine(book: Book, answer: Answer, rnd: Random) -> None:
    answer = evaluate_book({"id": "b1", **spoiled(rnd, book)})
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    if "error" in answer:
        assert set(answer) == {"id", "error"}
        assert answer["error"]
    else:
        assert answer["result"]["proposed_rows"] == len(answer["orders"])
        assert all(Decimal(row["qty"]) > 0 and Decimal(row["price"]) > 0 for row in answer["orders"])
