"""Where no deliberate difference applies, the engine decides what the source decides, to the last digit."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

from recon_pipeline_tests.domain import source_rules
from recon_pipeline_tests.domain.book_makers import Book
from recon_pipeline_tests.domain.outcome import Answer, engine_outcome, proposals, source_outcome
from recon_pipeline_tests.domain.properties import holds_for


@holds_for("plain")
def test_decisions_reasons_and_counts_are_equal(book: Book, answer: Answer, rnd: Random) -> None:
    theirs = source_rules.decide(book)
    assert engine_outcome(answer) == source_outcome(book)
    result = answer["result"]
    assert result["open_trade_candidates"] == theirs.open_trade_candidates
    assert result["proposed_rows"] == len(theirs.proposed)
    assert result["inserted_rows"] == (len(theirs.inserted) if book["apply"] else 0)
    assert result["no_go_trades"] == len(theirs.no_go)
    assert result["no_go_reason_counts"] == theirs.no_go_reason_counts
    assert result["no_go_samples"] == [
        {name: row[name] for name in ("symbol", "trade_id", "reason")} for row in theirs.no_go[:5]
    ]


@holds_for("plain")
def test_rows_to_insert_are_equal_in_every_column(book: Book, answer: Answer, rnd: Random) -> None:
    def row_of(row: dict[str, Any]) -> tuple[object, ...]:
        text = ("order_id", "user_id", "profile_id", "trade_id", "symbol", "side", "timestamp", "filled_at")
        cited = (row["exchange_order_id"], row["matched_by"], row["sub_tag"] or "")
        return (*(row[name] for name in text), Decimal(row["qty"]), Decimal(row["price"]), *cited)

    theirs = source_rules.decide(book)
    assert [row_of(row) for row in proposals(answer)] == [row_of(row) for row in theirs.inserted]


@holds_for("plain")
def test_audit_rows_are_equal(book: Book, answer: Answer, rnd: Random) -> None:
    def seen(row: dict[str, Any]) -> tuple[str, ...]:
        names = ("trade_id", "symbol", "decision", "reason", "exchange_order_id", "exchange_client_order_id")
        written = row.get("backfill_order_id") or row.get("order_id") or ""
        return (*(str(row.get(name) or "") for name in names), written)

    ours = [seen(row) for row in answer["audit_rows"]]
    assert ours == [seen(row) for row in source_rules.decide(book).audit_rows]
