"""``recon evaluate`` answers every line, whatever is in it: the corners that random books hit too rarely."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from recon_pipeline.cli.evaluate import evaluate_book
from recon_pipeline_tests.domain.book_makers import START_MS
from recon_pipeline_tests.domain.outcome import evidence, proposals, refusals


def book(**changes: Any) -> dict[str, Any]:
    """Two ghosts of one symbol, proven by one order each, and nothing held."""
    rows = [
        {"order_id": f"e{n}", "trade_id": f"t{n}", "symbol": "AAPL", "side": "buy", "action": "ENTRY", "qty": "10"}
        | {"price": "100", "status": "filled", "timestamp": START_MS}
        for n in (1, 2)
    ]
    orders = [
        {"id": f"x{n}", "trade_id": f"t{n}", "symbol": "AAPL", "side": "sell", "status": "filled", "filled_qty": "10"}
        | {"filled_avg_price": "110", "filled_at": START_MS + 60_000}
        for n in (1, 2)
    ]
    config = {"ENABLE_RECON_EXIT_BACKFILL": True, **changes.pop("config", {})}
    whole = {"id": "b1", "config": config, "lifecycle_rows": rows, "closed_orders": {"AAPL": orders}, "positions": {}}
    return {**whole, **changes}


@pytest.mark.parametrize(
    "config",
    [
        {"RECON_EXIT_BACKFILL_DUST_ABS_QTY": "1e30"},
        {"RECON_EXIT_BACKFILL_DUST_REL_PCT": "1e-50"},
        {"RECON_EXIT_BACKFILL_DUST_MAX_NOTIONAL_USD": "1e50"},
        {"RECON_EXIT_BACKFILL_CRYPTO_FEE_BPS": "1e-50"},
        {"RECON_EXIT_BACKFILL_LOOKBACK_HOURS": "1e-50"},
    ],
)
def test_an_absurd_setting_is_an_answer(config: dict[str, str]) -> None:
    answer = evaluate_book(book(config=config))
    assert answer["id"] == "b1"
    if "error" in answer:
        assert next(iter(config)) in answer["error"]
    else:
        assert {row["trade_id"] for row in answer["orders"]} == {"t1", "t2"}


@pytest.mark.parametrize(
    "name",
    [
        "ENABLE_RECON_EXIT_BACKFILL",
        "RECON_EXIT_BACKFILL_REQUIRE_PAUSE",
        "RECON_EXIT_BACKFILL_REQUIRE_STRONG_ATTRIBUTION",
        "RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH",
        "RECON_EXIT_BACKFILL_DUST_ABS_QTY",
        "RECON_EXIT_BACKFILL_DUST_REL_PCT",
        "RECON_EXIT_BACKFILL_DUST_MAX_NOTIONAL_USD",
        "RECON_EXIT_BACKFILL_LOOKBACK_HOURS",
        "RECON_EXIT_BACKFILL_FILL_AFTER_TRADE_GRACE_MINUTES",
        "RECON_EXIT_BACKFILL_POSITION_GATE",
    ],
)
@pytest.mark.parametrize("value", ["NaN", "maybe", -1, [], {"a": 1}])
def test_a_setting_that_cannot_be_read_is_named(name: str, value: object) -> None:
    assert name in evaluate_book(book(config={name: value}))["error"]


def test_a_lone_surrogate_makes_its_own_record_unusable() -> None:
    bad_row = {**book()["lifecycle_rows"][0], "trade_id": "\ud800"}
    bad_order = {**book()["closed_orders"]["AAPL"][0], "id": "\ud800"}
    changed = book()
    changed["lifecycle_rows"].append({**bad_row, "order_id": "e9"})
    changed["closed_orders"]["AAPL"].append(bad_order)
    answer = evaluate_book(changed)
    assert "error" not in answer, answer
    assert {row["trade_id"] for row in answer["orders"]} == {"t1", "t2"}


def test_a_deeply_nested_id_is_answered() -> None:
    nested: list[Any] = []
    for _ in range(700):
        nested = [nested]
    json.dumps(nested)
    assert evaluate_book(book(id=nested))


def test_every_line_is_answered() -> None:
    lines = [
        json.dumps({"id": "first", "config": {}}).encode(),
        b'{"id": "\\ud800"}',
        b"",
        b"not json",
        b'{"id": "bytes \xff\xfe"}',
        b"[1]",
        b'{"id": 7, "config": []}',
        b'{"id": "deep", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "digits", "now_ms": ' + b"9" * 5000 + b"}",
        json.dumps(book(id="last")).encode(),
    ]
    command = [sys.executable, "-m", "recon_pipeline.cli", "evaluate"]
    done = subprocess.run(command, input=b"\n".join(lines), capture_output=True, check=False, timeout=120)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert len(answers) == len(lines) - 1, "every line but the blank one"
    assert answers[0]["result"]["skipped_reason"] == "disabled"
    assert [("error" in answer) for answer in answers[2:-1]] == [True] * 6
    assert len(answers[-1]["orders"]) == 2
    assert done.stderr == b""


def test_without_a_malformed_line_the_status_is_0() -> None:
    command = [sys.executable, "-m", "recon_pipeline.cli", "evaluate", "--timing"]
    done = subprocess.run(command, input=json.dumps(book()).encode(), capture_output=True, check=False, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["engine_ms"] > 0


def test_a_decimal_of_the_document_is_exact() -> None:
    text = json.dumps(book()).replace('"110"', "0.30000000000000004").replace('"10"', "10.000000001")
    command = [sys.executable, "-m", "recon_pipeline.cli", "evaluate"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=120)
    rows = json.loads(done.stdout)["orders"]
    assert {(row["qty"], row["price"]) for row in rows} == {("10.000000001", "0.30000000000000004")}


def test_quantities_beyond_int64_meet_heuristics() -> None:
    orders = [{**book()["closed_orders"]["AAPL"][0], "trade_id": None, "filled_qty": "9" * 30}]
    config = {
        "RECON_EXIT_BACKFILL_REQUIRE_STRONG_ATTRIBUTION": False,
        "RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH": True,
    }
    changed = book(config=config, closed_orders={"AAPL": orders}, lifecycle_rows=book()["lifecycle_rows"][:1])
    assert [row["qty"] for row in evaluate_book(changed)["orders"]] == ["10"]


def test_dust_is_capped_at_exactly_one_dollar() -> None:
    def dust_at(price: str) -> list[str]:
        orders = [{**book()["closed_orders"]["AAPL"][0], "filled_qty": "9.999", "filled_avg_price": price}]
        answer = evaluate_book(book(closed_orders={"AAPL": orders}))
        return [row["qty"] for row in proposals(answer) if row["matched_by"] == "dust"]

    assert dust_at("1000") == ["0.001"]
    assert dust_at("1000.00000000000000000000000000000001") == []


def test_a_failed_reading_is_said_to_be_one() -> None:
    for name in ("lifecycle_rows", "open_orders", "existing_order_ids", "config"):
        assert name in evaluate_book({**book(), name: None})["error"]
    unknown = evaluate_book(book(positions=None))
    assert {row["reason"] for row in refusals(unknown)} == {"exchange_position_unknown"}
    assert {row["reason"] for row in evidence(unknown).values()} == {"held_back"}
