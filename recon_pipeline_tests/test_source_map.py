"""The page that says where each part of the source system is: what it names exists, and it leaves no name out."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from recon_pipeline_tests.cycle.test_report_fields import SOURCE_FIELDS
from recon_pipeline_tests.test_cycle_settings import SETTINGS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "source_map.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip().strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| in the source", "| ---"))
]
TESTS = sorted({name for row in ROWS for name in re.findall(r"`([\w/]+\.py::\w+)`", row[2])})
SCENARIOS = sorted({name for row in ROWS for name in re.findall(r"`((?:defect|medium|rule|status)_\w+)`", row[2])})
FILES = sorted({name for row in ROWS for name in re.findall(r"`([\w/]+\.(?:py|md|sql))`", row[1])})
HANDLERS = {"processStatusChange", "handleMissingExchange", "handleExchangeOnly"}
HANDLERS |= {"reconcileEntryFill", "reconcileExitFill", "reconcileCancel"}
COVERAGE = {"scannedOrders", "filledLikeOrders", "botOwnedOrders", "eligibleOrders", "missingInDb", "insertedRows"}
COVERAGE |= {f"skippedNotBotOwned{kind}" for kind in ("", "Actionable", "LegacyInDb", "BeforeBaseline")}
COVERAGE |= {f"skipped{why}" for why in ("UnmappedTrade", "UnmappedAction", "MissingFillData", "MissingOrderId")}
COVERAGE |= {"skippedExisting", "skippedMaxInsertLimit"}
HEALTH = {
    f"reconciliation{name}"
    for name in ("LoopHealthy", "LastRun", "MismatchCount", "MissingFromExchange", "MissingInDb")
}
HEALTH |= {f"reconciliationParity{name}Trades" for name in ("Mismatch", "Quarantined", "AutoClosed")}
HEALTH |= {f"reconciliationParity{name}MismatchNotionalUsd" for name in ("Max", "Total")}
HEALTH |= {"reconciliationIntegrityWatchdogTriggered", "/internal/health", "/metrics"}
HEALTH |= {f"reconciliation_{name}_total" for name in ("mismatch", "missing_from_exchange", "missing_in_db")}
ORDER_STATUS = {"updateOrderStatus", "waitForFill", "OrderStatusSyncService", "getStaleOrders", "getOrder", "unknown"}
ORDER_STATUS |= {"cleanup-stale-orders", "cleanupStaleOrders", "pending_new"}
FEATURES = (
    "Immediate updates",
    "Non-blocking",
    "Graceful error handling",
    "100 stale orders",
    "Logging",
    "every 5 minutes",
)
FEATURES += ("Warning banner", "Yellow badge", "Warning icon", "Real-time age", "Sync interval", "stale threshold")
FEATURES += (
    "Test immediate updates",
    "test background sync",
    "test dashboard indicators",
    "Troubleshooting",
    "schema assumptions",
)
FEATURES += ("WebSocket status updates", "Retry logic", "Metrics dashboard", "Alert on persistent stale orders")
FEATURES += ("Bulk status check", "24 hours")
"""What document 004 calls its features, its tests by hand and its five future enhancements."""
OF_THIS_PROJECT = re.compile(r"ORDER_PARITY|ORDER_COVERAGE|RECON_ORDER_|CONFIRMATION_SPACING|SUB_TAG_REPAIR")
"""Settings that no given document of the source has."""


@cache
def functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_row_has_three_cells_and_says_what_is_there_or_that_nothing_is() -> None:
    assert len(ROWS) > 80
    for row in ROWS:
        assert len(row) == 3, row
        here, test = row[1:]
        absent = re.search(r"not built yet|not used", here)
        assert re.search(r"`[\w/]+\.(py|md)`|the same|symbol", here) or absent, row
        assert (
            "::" in test or re.search(r"`(defect|medium|rule|status)_", test) or test == "the same tests" or absent
        ), row


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_the_page_names_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert function in functions(ROOT / "recon_pipeline_tests" / file)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_that_the_page_names_exists(name: str) -> None:
    folder = "order_status" if name.startswith("status_") else "cycles"
    assert (ROOT / "recon_pipeline_tests" / "scenarios" / folder / f"{name}.json").is_file()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_page_names_exists(name: str) -> None:
    assert (ROOT / name).is_file() or (ROOT / "recon_pipeline" / name).is_file()


@pytest.mark.parametrize("name", sorted({*SOURCE_FIELDS, *HANDLERS, *COVERAGE, *HEALTH, *ORDER_STATUS}))
def test_every_handler_counter_and_result_field_of_the_source_is_on_the_page(name: str) -> None:
    assert any(f"`{name}`" in row[0] for row in ROWS)


@pytest.mark.parametrize("name", FEATURES)
def test_every_feature_of_the_order_status_sync_is_on_the_page(name: str) -> None:
    section = PAGE.partition("## The order status sync (004)")[2]
    assert any(name in row[0] for row in ROWS if row[0] in section)


@pytest.mark.parametrize("name", [name for name in SETTINGS if not OF_THIS_PROJECT.search(name)])
def test_every_flag_threshold_and_throttle_of_the_source_is_on_the_page(name: str) -> None:
    assert any(f"`{name}`" in row[0] for row in ROWS)
