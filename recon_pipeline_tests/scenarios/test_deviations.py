"""The page of deliberate differences names scenarios that exist, and leaves out no difference that a scenario shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recon_pipeline_tests.scenarios.test_cycle_scenarios import SCENARIOS as CYCLES
from recon_pipeline_tests.scenarios.test_order_status_scenarios import SCENARIOS as ORDER_STATUS
from recon_pipeline_tests.scenarios.test_scenarios import SCENARIOS as BOOKS

SCENARIOS = {**BOOKS, **CYCLES, **ORDER_STATUS}
PAGE = (Path(__file__).parents[2] / "docs" / "deviations.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| the source", "| ---"))]
NAMED = [name for row in ROWS for name in re.findall(r"`((?:defect|medium|rule|settled|status)_\w+)`", row)]


def test_every_row_names_a_scenario() -> None:
    assert ROWS
    for row in ROWS:
        assert re.search(r"`(defect|medium|rule|settled|status)_\w+`", row.split("|")[4]), row


@pytest.mark.parametrize("name", sorted(set(NAMED)))
def test_a_scenario_that_the_page_names_exists(name: str) -> None:
    assert name in SCENARIOS


def test_no_cycle_has_the_name_of_a_book() -> None:
    assert not set(BOOKS) & set(CYCLES)


def test_every_defect_of_the_source_is_on_the_page() -> None:
    assert {name for name in SCENARIOS if name.startswith(("defect_", "medium_", "status_"))} - set(NAMED) == {
        "defect_29_pending_trade_of_another_symbol"  # shows where the rule ends, not where it differs
    }
