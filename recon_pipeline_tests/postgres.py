"""A real Postgres for the tests: one server per test process, a migrated template, a clone of it per test.

Fixtures: ``postgres`` (the server), ``database_url`` (migrated, fresh), ``empty_database_url`` and ``new_database``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from recon_pipeline.ledger.migrate import migrate
from recon_pipeline.sandbox.postgres import EmbeddedPostgres

TEMPLATE = "recon_template"


class TestServer:
    """A throw-away server and its databases."""

    __test__ = False

    def __init__(self, directory: Path) -> None:
        self._server = EmbeddedPostgres(directory / "postgres", durable=False)
        self._server.start()
        self._numbers = itertools.count(1)
        self._template_made = False

    def url(self, database: str = "postgres") -> str:
        return self._server.url(database)

    def new_database(self, *, migrated: bool) -> str:
        """The URL of a fresh database."""
        if migrated and not self._template_made:
            self._execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
            migrate(self.url(TEMPLATE))
            self._template_made = True
        name = f"test_{next(self._numbers)}"
        template = TEMPLATE if migrated else "template0"
        self._execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        return self.url(name)

    def drop(self, url: str) -> None:
        name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(str(name))))

    def stop(self) -> None:
        self._server.delete()

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """The server of this test process, in memory where the machine allows it."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="recon-test-", dir=place))
    directory.chmod(0o755)  # the server runs as another account where this one is root
    server = TestServer(directory)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def new_database(postgres: TestServer) -> Iterator[Callable[..., str]]:
    """Makes databases (``migrated=True`` or ``False``) that are dropped after the test."""
    made: list[str] = []

    def make(*, migrated: bool = True) -> str:
        made.append(postgres.new_database(migrated=migrated))
        return made[-1]

    yield make
    for url in made:
        postgres.drop(url)


@pytest.fixture
def database_url(new_database: Callable[..., str]) -> str:
    """A migrated database of its own for this test."""
    return new_database(migrated=True)


@pytest.fixture
def empty_database_url(new_database: Callable[..., str]) -> str:
    """A database of its own for this test, with nothing in it."""
    return new_database(migrated=False)
