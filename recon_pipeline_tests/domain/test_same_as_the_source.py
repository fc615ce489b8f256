"""Where no deliberate difference applies, the engine decides what the source decides, to the last digit."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from recon_pipeline.cli.evaluate import evaluate_book
from recon_pipeline_tests.domain import source_rules
from recon_pipeline_tests.domain.book_makers import Book, plain_book
from recon_pipeline_tests.domain.outcome import engine_outcome, proposals, source_outcome

books = st.randoms(use_true_random=False).map(plain_book)


@given(books)
def test_rows_ids_decisions_reasons_and_counts_are_equal(book: Book) -> None:
    answer, theirs = evaluate_book(book), source_rules.decide(book)
    assert engine_outcome(answer) == source_outcome(book)
    result = answer["result"]
    assert result["open_trade_candidates"] == theirs.open_trade_candidates
    assert result["proposed_rows"] == len(theirs.proposed)
    assert result["inserted_rows"] == (len(theirs.inserted) if book["apply"] else 0)
    assert result["no_go_trades"] == len(theirs.no_go)
    assert result["no_go_reason_counts"] == theirs.no_go_reason_counts


@given(books)
def test_rows_to_insert_are_equal_in_every_column(book: Book) -> None:
    def row_of(row: dict[str, object]) -> tuple[object, ...]:
        text = ("order_id", "user_id", "profile_id", "trade_id", "symbol", "side", "timestamp", "filled_at")
        numbers = (Decimal(str(row["qty"])), Decimal(str(row["price"])))
        cited = (row["exchange_order_id"], row["matched_by"], row["sub_tag"] or "")
        return (*(row[name] for name in text), *numbers, *cited)

    theirs = source_rules.decide(book)
    assert sorted(map(row_of, proposals(evaluate_book(book)))) == sorted(map(row_of, theirs.inserted))


@given(books)
def test_audit_rows_are_equal(book: Book) -> None:
    def seen(row: dict[str, object]) -> tuple[str, ...]:
        cited = row.get("backfill_order_id") or row.get("order_id") or ""
        names = (row["trade_id"], row["symbol"], row["decision"], row["reason"], cited)
        return (
            *map(str, names),
            str(row.get("exchange_order_id") or ""),
            str(row.get("exchange_client_order_id") or ""),
        )

    ours = sorted(map(seen, evaluate_book(book)["audit_rows"]))
    assert ours == sorted(map(seen, source_rules.decide(book).audit_rows))
