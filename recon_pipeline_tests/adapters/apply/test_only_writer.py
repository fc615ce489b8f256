"""The apply is the only writer of the bots' tables, and nothing anywhere deletes from them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import recon_pipeline
from recon_pipeline.ledger.statements import sql_directory, statements

PACKAGE = Path(recon_pipeline.__file__).parent
BOT_TABLES = ("profiles", "orders", "positions", "trade_history", "capital_ledger", "trading_control")
WRITERS = {"apply.sql", "corrections.sql", "rollback.sql", "control.sql"}
STAGE = {"demo.sql"}
"""What the sandbox's bots wrote before the curtain rises; only the sandbox may use it."""
_TABLES = "|".join(BOT_TABLES)
_WRITE = re.compile(
    rf"\b(?:INSERT\s+INTO|UPDATE|MERGE\s+INTO|COPY)\s+(?:ONLY\s+)?(?:public\.)?\"?({_TABLES})\b|"
    r"\brecon\.(?:insert_orders|update_orders|insert_positions|insert_trade_history|insert_capital)\s*\(",
    re.IGNORECASE,
)
_REMOVAL = re.compile(
    rf"\b(?:DELETE\s+FROM|TRUNCATE(?:\s+TABLE)?|DROP\s+TABLE)\s+(?:ONLY\s+)?(?:public\.)?\"?({_TABLES})\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("name", sorted(statements()))
def test_no_statement_outside_apply_corrections_rollback_and_control_writes_a_bots_table(name: str):
    found = statements()[name]
    if found.file not in WRITERS | STAGE:
        assert _WRITE.search(found.source) is None


def test_the_writing_statements_are_these_and_no_others():
    writing = {name for name, found in statements().items() if _WRITE.search(found.source) and found.file not in STAGE}
    assert writing == {
        "insert_backfill_orders",
        "reapply_canceled_orders",
        "set_positions",
        "set_trade_history",
        "set_capital",
        "cancel_backfill_orders",
        "set_trading_state",
        "ensure_trading_state",
        "update_orders",
        "insert_corrected_orders",
        "insert_positions",
        "insert_trade_history",
        "insert_capital",
    }


def test_what_the_demos_bots_write_is_used_by_the_sandbox_alone():
    names = [name for name, found in statements().items() if found.file in STAGE and _WRITE.search(found.source)]
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if any(f'"{name}"' in path.read_text(encoding="utf-8") for name in names)
    }
    assert users <= {"sandbox"}


def test_no_statement_deletes_anything_from_a_bots_table_or_from_the_audit():
    removal = re.compile(_REMOVAL.pattern.replace(_TABLES, f"{_TABLES}|reconciliation_backfill_audit"), re.IGNORECASE)
    guilty = [name for name, found in statements().items() if removal.search(found.source)]
    assert guilty == []


@pytest.mark.parametrize("path", sorted(p for p in sql_directory().rglob("*.sql")), ids=lambda path: path.name)
def test_no_sql_file_removes_rows_or_tables_of_the_bots(path: Path):
    assert _REMOVAL.search(path.read_text()) is None


def test_no_python_module_outside_the_sandbox_contains_sql_that_writes_a_bots_table():
    guilty = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if "sandbox" not in path.relative_to(PACKAGE).parts
        and (_WRITE.search(text := path.read_text()) or _REMOVAL.search(text))
    ]
    assert guilty == []


def test_only_the_apply_package_names_the_writing_statements():
    pattern = re.compile(
        r"\b(?:insert_backfill_orders|reapply_canceled_orders|set_positions|set_trade_history|set_capital|"
        r"cancel_backfill_orders|update_orders|insert_corrected_orders|insert_positions|insert_trade_history|insert_capital)\b"
    )
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if pattern.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"apply"}
