"""Books with ghosts in a real Postgres."""

from __future__ import annotations

import pytest

from recon_pipeline_tests.adapters.apply.book import Book


@pytest.fixture
def book(database_url: str) -> Book:
    """One profile on one account, trading paused, nothing in the ledger."""
    made = Book(database_url)
    made.profile("p1")
    return made


@pytest.fixture
def ghost(book: Book) -> Book:
    """Trade t1: 10 entered at 100, closed at the exchange in 4 at 110 and 6 at 105; the ledger knows no exit."""
    book.trade("t1", "10")
    book.executed("x1", "t1", "4", price="110")
    book.executed("x2", "t1", "6", price="105", suffix="-exit-2")
    return book
