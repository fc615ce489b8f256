"""Every statement means something to the migrated schema, is used, and can be pasted into psql."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import recon_pipeline
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.migrate import migrations
from recon_pipeline.ledger.statements import StatementError, parse, sql_directory, statement, statements

PACKAGE = Path(recon_pipeline.__file__).parent
RUNBOOKS = PACKAGE.parent / "docs" / "runbooks"
USE = re.compile(r"""(?:\bstatement\(|\.rows\(|_upsert\(|\bexecute_statement\()\s*["']([a-z_0-9]+)["']""")


QUOTED = re.compile(r"```sql\n-- name:\s*(\S+)\n(.*?)```", re.DOTALL)


def _texts() -> dict[str, str]:
    paths = [*PACKAGE.rglob("*.py"), *RUNBOOKS.rglob("*.md")]
    return {str(path.relative_to(PACKAGE.parent)): path.read_text(encoding="utf-8") for path in paths}


def test_every_statement_is_valid_against_the_migrated_schema(database_url):
    problems = {}
    with connect(database_url) as connection:
        for name, found in statements().items():
            try:
                connection.execute(b"EXPLAIN " + found.query, dict.fromkeys(found.parameters))
            except psycopg.Error as error:
                problems[name] = str(error)
    assert problems == {}
    assert len(statements()) > 20


def test_every_statement_is_used():
    text = "\n".join(_texts().values())
    assert [name for name in statements() if f'"{name}"' not in text and f"-- name: {name}\n" not in text] == []


def test_every_use_names_a_statement():
    uses = [(file, name) for file, text in _texts().items() for name in USE.findall(text)]
    assert [(file, name) for file, name in uses if name not in statements()] == []
    assert len(uses) > 20


def test_a_block_quoted_in_a_runbook_is_the_text_that_the_pipeline_runs():
    quoted = [(file, *block) for file, text in _texts().items() for block in QUOTED.findall(text)]
    differing = []
    for file, name, body in quoted:
        [block] = parse(f"-- name: {name}\n{body}", file)
        if name not in statements() or block.source != statements()[name].source:
            differing.append((file, name))
    assert differing == []


def test_every_statement_says_which_index_or_lock_it_relies_on():
    silent = [
        name
        for name, found in statements().items()
        if not re.search(r"index|indexes|key|lock|catalogs|whole", found.comment, re.IGNORECASE)
    ]
    assert silent == []


def test_no_file_has_a_doubled_per_cent_sign():
    assert [path.name for path in sql_directory().glob("*.sql") if "%%" in path.read_text(encoding="utf-8")] == []


def test_every_statement_can_be_pasted_into_psql():
    """No psycopg placeholder is left in the files, and every parameter is a psql variable."""
    assert [name for name, found in statements().items() if re.search(r"%\(\w+\)s", found.source)] == []
    for found in statements().values():
        assert set(re.findall(r"(?<!:):'(\w+)'", found.source)) == set(found.parameters), found.name


def test_a_block_becomes_what_psycopg_takes():
    [first, second] = parse(
        "-- a file's own comment\n"
        "-- name: one\n-- Index x.\nSELECT * FROM t\n"
        "WHERE a = :'a' AND b LIKE 'BFILL-%' -- no name\n  AND c = :'a'::text;\n\n"
        "-- name: two\n-- Index y.\nSELECT %(b)s, '{1:2}'::text;\n",
        "x.sql",
    )
    assert first.query == (
        b"/* one */ SELECT * FROM t\nWHERE a = %(a)s AND b LIKE 'BFILL-%%' -- no name\n  AND c = %(a)s::text"
    )
    assert (first.name, first.comment, first.parameters) == ("one", "Index x.", ("a",))
    assert second.query == b"/* two */ SELECT %(b)s, '{1:2}'::text"
    assert second.parameters == ("b",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("SELECT 1;\n-- name: late\nSELECT 1;", "before the first"),
        ("-- name: empty\n-- only a comment\n", "empty is empty"),
        ("-- name: Upper-Case\nSELECT 1;", "no name for a statement"),
    ],
)
def test_a_malformed_file_is_refused(text, says):
    with pytest.raises(StatementError, match=says):
        parse(text, "x.sql")


def test_an_unknown_name_is_refused():
    with pytest.raises(StatementError, match="no statement is named 'select_nothing_at_all'"):
        statement("select_nothing" + "_at_all")


def test_pasted_into_psql_and_run_by_the_pipeline_a_block_answers_alike(database_url, postgres, psql):
    with connect(database_url, "recon_writer") as connection:
        connection.execute(
            "INSERT INTO public.orders (order_id, profile_id, trade_id, symbol, action, status, qty) "
            "VALUES ('e', 'p1', 't1', 'BTC/USD', 'ENTRY', 'filled', 1.5)"
        )
        block = statements()["detect_affected_trades"]
        rows = connection.execute(block.query, {"profile_id": "p1"}).fetchall()
    pasted = psql(database_url, "\\set profile_id p1\n" + block.source + ";\n")
    assert [[str(value) for value in row.values()] for row in rows] == pasted
    assert pasted == [["p1", "BTC/USD", "t1", "1.5", "0", "1.5", "0", "0"]]


def test_an_installed_wheel_finds_its_own_copy_of_the_files(tmp_path):
    """The build puts ``sql/`` into the package as ``_sql``."""
    shutil.copytree(PACKAGE / "ledger", tmp_path / "recon_pipeline" / "ledger")
    shutil.copytree(PACKAGE / "domain", tmp_path / "recon_pipeline" / "domain")
    (tmp_path / "recon_pipeline" / "__init__.py").touch()
    copied = shutil.copytree(sql_directory(), tmp_path / "recon_pipeline" / "_sql")
    program = (
        "from recon_pipeline.ledger import migrate, statements as s\n"
        "print(s.sql_directory(), len(s.statements()), len(migrate.migrations()), sep='|')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == f"{copied}|{len(statements())}|{len(migrations())}"
