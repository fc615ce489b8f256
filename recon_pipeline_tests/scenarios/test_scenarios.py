"""Every incident in ``books/`` has the outcome it names, and the source's rules get the decidable ones wrong.

A file holds a `title` (the rule as a sentence), what the `source_does`, a `book` for ``recon evaluate``, what to `expect`
(subsets: `orders` and `audit_rows` in full length, `refusals` in full length, `evidence` by order id, `result`), and of
the source what it would have `written` per trade. A `defect` that shows only while applying names its test instead.
"""

from __future__ import annotations

import ast
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline.cli.evaluate import evaluate_book
from recon_pipeline_tests.domain import source_rules
from recon_pipeline_tests.domain.outcome import engine_outcome, evidence, proposals, refusals, source_outcome

BOOKS = Path(__file__).parent / "books"
ROOT = Path(__file__).parents[2]
SCENARIOS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(BOOKS.glob("*.json"))
}
DECIDABLE = [name for name, scenario in SCENARIOS.items() if "book" in scenario]
ANSWERED = [name for name in DECIDABLE if "error" not in SCENARIOS[name]["expect"]]
SHOWN_ELSEWHERE = [name for name, scenario in SCENARIOS.items() if "shown_by" in scenario]
DEFECTS = {*range(1, 25), 28, 29, 30}


def matches(expected: object, actual: object) -> bool:
    """Whether `actual` has everything that `expected` names; numbers in text compare as numbers."""
    if isinstance(expected, dict):
        return isinstance(actual, dict) and all(
            key in actual and matches(value, actual[key]) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(expected) == len(actual)
            and all(matches(part, whole) for part, whole in zip(expected, actual, strict=True))
        )
    if isinstance(expected, str) and isinstance(actual, str):
        try:
            return Decimal(expected) == Decimal(actual)
        except ArithmeticError:
            return expected == actual
    return type(expected) is type(actual) and expected == actual


def assert_has(expected: object, actual: object) -> None:
    assert matches(expected, actual), (
        f"expected\n{json.dumps(expected, indent=1)}\nin\n{json.dumps(actual, indent=1, default=str)}"
    )


@pytest.mark.parametrize("name", DECIDABLE)
def test_the_engine_decides_as_the_scenario_says(name: str) -> None:
    scenario = SCENARIOS[name]
    answer, expected = evaluate_book({"id": name, **scenario["book"]}), scenario["expect"]
    if "error" in expected:
        assert answer["id"] == name
        assert expected["error"] in answer["error"]
        return
    assert answer.get("error") is None
    for part, actual in (
        ("orders", proposals(answer)),
        ("refusals", refusals(answer)),
        ("audit_rows", answer["audit_rows"]),
        ("result", answer["result"]),
        ("evidence", evidence(answer)),
    ):
        if part in expected:
            assert_has(expected[part], actual)


@pytest.mark.parametrize("name", ANSWERED)
def test_the_source_gets_it_wrong_where_the_scenario_says_so(name: str) -> None:
    scenario = SCENARIOS[name]
    book, source = scenario["book"], scenario["source"]
    if source.get("throws"):
        with pytest.raises(source_rules.SourceError):
            source_rules.decide(book)
        return
    theirs, ours = source_outcome(book), engine_outcome(evaluate_book(book))
    if "proposed" in source:
        assert {t: Decimal(q) for t, q in source["proposed"].items()} == _proposed_by_source(book)
    if "written" in source:
        assert theirs.written() == {t: Decimal(q) for t, q in source["written"].items()}
    if source.get("agrees"):
        assert ours == theirs, "the scenario says that the source writes and refuses the same"
    else:
        assert ours != theirs, "the scenario shows no difference from the source"


def _proposed_by_source(book: dict[str, Any]) -> dict[str, Decimal]:
    totals: dict[str, Decimal] = {}
    for row in source_rules.decide(book).proposed:
        trade_id, quantity = str(row["trade_id"]), row["qty"]
        assert isinstance(quantity, Decimal)
        totals[trade_id] = totals.get(trade_id, Decimal(0)) + quantity
    return totals


@pytest.mark.parametrize("number", sorted(DEFECTS))
def test_every_defect_of_the_source_has_a_scenario(number: int) -> None:
    assert [name for name, scenario in SCENARIOS.items() if scenario.get("defect") == number]


@pytest.mark.parametrize("name", SHOWN_ELSEWHERE)
def test_what_evaluate_cannot_show_has_its_own_test(name: str) -> None:
    for node in SCENARIOS[name]["shown_by"]:
        path, _, function = node.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        names = {part.name for part in ast.walk(tree) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in names, f"{path} has no {function}"


def test_titles_are_sentences_and_all_different() -> None:
    titles = [scenario["title"] for scenario in SCENARIOS.values()]
    assert all(title[0].isupper() and title.endswith(".") for title in titles)
    assert len(set(titles)) == len(titles)
