"""How the property tests get their books: by seed, answered once, and reduced to the part that fails.

What belongs here: the machinery. What does not: the properties (``test_invariants``) and the books (``book_makers``).

A property takes a book that it must not change and the engine's answer to it. Properties over the same books share the
answers, which is what makes 1,000 examples of each affordable. A failing book is reduced by leaving out rows, orders and
fields as long as the property still fails, and the smallest one is shown as JSON.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.cli.evaluate import evaluate_book
from recon_pipeline_tests.domain.book_makers import Book, plain_book, rich_book
from recon_pipeline_tests.domain.outcome import Answer

Property = Callable[[Book, Answer, Random], None]
MAKERS: dict[str, Callable[[Random], Book]] = {
    "rich": rich_book,
    "strong": lambda rnd: rich_book(rnd, strong=True),
    "plain": plain_book,
}
PATIENCE = 400
"""Evaluations that a reduction may cost."""


def answer_of(book: Book) -> Answer:
    answer = evaluate_book(book)
    assert "error" not in answer, answer
    return answer


@lru_cache(maxsize=4000)
def _answered(kind: str, seed: int) -> tuple[Book, Answer]:
    book = MAKERS[kind](Random(f"{kind} {seed}"))
    return book, answer_of(book)


def holds_for(kind: str) -> Callable[[Property], Callable[[], None]]:
    """Run a property on as many books of a kind as the hypothesis profile says; every seed is another book."""

    def decorate(check: Property) -> Callable[[], None]:
        @given(st.integers(0, settings.default.max_examples - 1))  # type: ignore[union-attr]
        def test(seed: int) -> None:
            book, answer = _answered(kind, seed)
            try:
                check(book, answer, Random(seed))
            except Exception as error:
                kind_of_failure = type(error)
                small = reduced(
                    book, lambda smaller: _fails(check, smaller, seed, kind_of_failure), fields=kind != "plain"
                )
                raise AssertionError(f"seed {seed}, smallest book:\n{json.dumps(small)}") from error

        test.__name__ = test.__qualname__ = check.__name__
        test.__doc__ = check.__doc__
        test.__module__ = check.__module__
        return test

    return decorate


def _fails(check: Property, book: Book, seed: int, kind: type[Exception]) -> bool:
    try:
        check(book, answer_of(book), Random(seed))
    except kind:
        return True
    except Exception:  # noqa: BLE001 - another failure is not the one that is being reduced
        return False
    return False


def reduced(book: Book, fails: Callable[[Book], bool], *, fields: bool = True) -> Book:
    """The smallest book found by leaving out one element after the other while it still fails.

    :param fields: leave out fields too, not only rows and orders; a plain book without one would not be plain any more
    """
    small, tried, progress = copy.deepcopy(book), 0, True
    while progress:
        progress = False
        for path in [path for path in _paths(small) if fields or isinstance(path[-1], int)]:
            candidate = copy.deepcopy(small)
            try:
                node: Any = candidate
                for key in path[:-1]:
                    node = node[key]
                del node[path[-1]]
            except (KeyError, IndexError):
                continue
            tried += 1
            if tried > PATIENCE:
                return small
            if fails(candidate):
                small, progress = candidate, True
    return small


def _paths(node: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every element, whole lists and objects before their parts, the last of a list first."""
    keys = sorted(node) if isinstance(node, dict) else reversed(range(len(node)))
    for key in keys:
        path = (*prefix, key)
        if len(path) > 1:
            yield path
        if isinstance(node[key], dict | list):
            yield from _paths(node[key], path)
