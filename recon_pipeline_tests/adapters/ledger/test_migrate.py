"""Migrations bring any database to the same state, once, whoever starts at the same time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import psycopg
import pytest

from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.migrate import LOCK_KEY, MigrationError, migrate, migrations, pending
from recon_pipeline.ledger.statements import sql_directory

ALL = [migration.name for migration in migrations()]
REPEATABLE = [migration.name for migration in migrations() if migration.repeatable]


@pytest.fixture
def directory(tmp_path):
    """A copy of the migrations that a test may change."""
    return shutil.copytree(sql_directory() / "migrations", tmp_path / "migrations")


def test_numbered_files_come_first_and_rights_after_the_views_that_they_are_about():
    assert ALL[:2] == ["0001_bot_tables", "0002_backfill_audit"]
    assert ALL[-len(REPEATABLE) :] == REPEATABLE
    assert REPEATABLE.index("repeatable/10_conversions") < REPEATABLE.index("repeatable/20_views")
    assert REPEATABLE.index("repeatable/20_views") < REPEATABLE.index("repeatable/30_roles")


def test_a_second_migration_has_nothing_to_do(empty_database_url):
    assert pending(empty_database_url) == ALL
    assert migrate(empty_database_url) == ALL
    assert pending(empty_database_url) == []
    assert migrate(empty_database_url) == []


def test_four_processes_at_once_apply_everything_once(empty_database_url):
    program = (
        "import json, sys; from recon_pipeline.ledger.migrate import migrate; print(json.dumps(migrate(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_database_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outcomes = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0, 0], outcomes
    applied = [name for out, _ in outcomes for name in json.loads(out)]
    assert sorted(applied) == ALL


def test_a_changed_file_is_refused_by_name_and_nothing_is_applied(empty_database_url, directory):
    migrate(empty_database_url, directory=directory)
    changed = directory / "0002_backfill_audit.sql"
    changed.write_text(changed.read_text() + "\n-- one more thought\n")
    (directory / "0099_later.sql").write_text("CREATE TABLE recon.later (x int);")
    with pytest.raises(MigrationError, match="0002_backfill_audit was changed after it was applied"):
        migrate(empty_database_url, directory=directory)
    with connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('recon.later') AS t").fetchone() == {"t": None}


def test_other_line_endings_are_no_change(empty_database_url, directory):
    migrate(empty_database_url, directory=directory)
    for path in directory.rglob("*.sql"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert migrate(empty_database_url, directory=directory) == []


def test_a_failing_file_leaves_nothing_of_itself_and_is_tried_again(empty_database_url, directory):
    later = directory / "0099_later.sql"
    later.write_text("CREATE TABLE recon.half (x int); SELECT 1 / 0;")
    with pytest.raises(MigrationError, match="0099_later failed, nothing of it was applied: division by zero"):
        migrate(empty_database_url, directory=directory)
    with connect(empty_database_url) as connection:
        assert connection.execute("SELECT to_regclass('recon.half') AS t").fetchone() == {"t": None}
    later.write_text("CREATE TABLE recon.half (x int);")
    assert migrate(empty_database_url, directory=directory) == ["0099_later", *REPEATABLE]


def test_a_lock_that_is_never_free_ends_in_an_error(empty_database_url):
    with connect(empty_database_url) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        with pytest.raises(MigrationError, match="another process has been migrating this database for 0 s"):
            migrate(empty_database_url, patience_seconds=0.2)
    assert migrate(empty_database_url) == ALL


def test_the_views_are_rebuilt_when_a_bot_table_changes(database_url):
    with connect(database_url) as connection:
        connection.execute("INSERT INTO public.orders (order_id, profile_id, sub_tag) VALUES ('o1', 'p1', 'tag')")
        connection.execute("ALTER TABLE public.orders DROP COLUMN sub_tag")  # no view of ours stands in the way
        with pytest.raises(psycopg.errors.UndefinedColumn, match=r"o\.sub_tag does not exist"):
            connection.execute("SELECT * FROM recon.lifecycle_orders")
        assert pending(database_url) == REPEATABLE
        assert migrate(database_url) == REPEATABLE
        rows = connection.execute("SELECT order_id, sub_tag FROM recon.lifecycle_orders").fetchall()
    assert rows == [{"order_id": "o1", "sub_tag": None}]


def test_an_audit_table_of_the_bots_keeps_its_rows_and_gains_the_columns_it_lacks(empty_database_url):
    with connect(empty_database_url) as connection:
        connection.execute(
            "CREATE TABLE public.reconciliation_backfill_audit (id uuid PRIMARY KEY DEFAULT gen_random_uuid(),"
            " batch_id text, profile_id text, symbol text, trade_id text, dry_run boolean, decision text,"
            " reason text, metadata jsonb)"
        )
        connection.execute(
            "INSERT INTO public.reconciliation_backfill_audit (batch_id, profile_id, decision) "
            "VALUES ('b', 'p', 'DRY_RUN')"
        )
        migrate(empty_database_url)
        rows = connection.execute(
            "SELECT batch_id, filled_qty, reverted_at, created_at IS NOT NULL AS dated "
            "FROM public.reconciliation_backfill_audit"
        ).fetchall()
    assert rows == [{"batch_id": "b", "filled_qty": None, "reverted_at": None, "dated": True}]
