"""Fixtures for all tests, and their order: the modules that take longest first, so that no worker is left alone with one."""

from __future__ import annotations

import pytest

pytest_plugins = ["recon_pipeline_tests.postgres"]

_LONGEST_FIRST = (
    "defs/test_browser.py",
    "domain/test_invariants.py",
    "sandbox/test_demo.py",
    "soak/test_soak.py",
    "domain/test_same_as_the_source.py",
    "sandbox/test_supervisor.py",
    "defs/test_order_status.py",
    "order_status/test_by_hand.py",
    "ops/test_page_browser.py",
    "order_status/test_many.py",
    "order_status/test_crashes.py",
    "soak/test_api_calls.py",
    "soak/test_disturbed.py",
    "defs/test_runs.py",
    "defs/test_automation.py",
    "defs/test_reconcile.py",
    "sandbox/exchange/test_invariants.py",
    "domain/test_rollback.py",
    "adapters/apply/test_inverse.py",
    "sandbox/test_postgres.py",
    "adapters/apply/test_corrections.py",
    "adapters/apply/test_handlers.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules that take longest first; the others stay in their order."""

    def place(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((at for at, ending in enumerate(_LONGEST_FIRST) if path.endswith(ending)), len(_LONGEST_FIRST))

    items.sort(key=place)
