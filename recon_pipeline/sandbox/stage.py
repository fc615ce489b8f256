"""What has to be there before Dagster starts: embedded Postgres, migrated databases, simulated exchange, demo book.

Here: the ground of `recon up`, `recon demo` and the tests that need all of it, in one directory ("home"), and the
environment that a process on it gets. Not here: Dagster's processes (:mod:`recon_pipeline.sandbox.supervisor`).
"""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

from recon_pipeline.ledger.migrate import migrate
from recon_pipeline.sandbox.demo_book import DemoBook
from recon_pipeline.sandbox.demo_load import REQUESTS_PER_MINUTE, credentials, is_loaded, load_exchange, load_ledger
from recon_pipeline.sandbox.demo_trades import demo_book
from recon_pipeline.sandbox.exchange import SimulatedExchange, running_exchange
from recon_pipeline.sandbox.postgres import EmbeddedPostgres

LEDGER = "recon"
DAGSTER = "dagster"
Say = Callable[[str], None]


class SandboxError(RuntimeError):
    """The sandbox can't start; the text says why and what to do."""


@dataclass
class Stage:
    """A running ground: what a process needs to work on it."""

    home: Path
    postgres: EmbeddedPostgres
    exchange: SimulatedExchange
    books: dict[str, DemoBook] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        """Return the URL of the bots' database."""
        return self.postgres.url(LEDGER)

    @property
    def dagster_home(self) -> Path:
        """Return the directory with `dagster.yaml`."""
        return self.home / "dagster"

    def environment(self) -> dict[str, str]:
        """Return the variables that point a process here, and let an operator launch dry runs at once."""
        variables = {
            "RECON_DATABASE_URL": self.database_url,
            "DAGSTER_POSTGRES_URL": self.postgres.sqlalchemy_url(DAGSTER),
            "DAGSTER_HOME": str(self.dagster_home),
            "RECON_SNAPSHOT_URL": str(self.home / "snapshots"),
            "RECON_EXCHANGE_RATE_PER_MINUTE": str(REQUESTS_PER_MINUTE),
            "APCA_API_BASE_URL": self.exchange.url,
            "ENABLE_RECON_EXIT_BACKFILL": "true",
        }
        for account_id in (account_id for book in self.books.values() for account_id in book.account_ids):
            keys = credentials(account_id, self.exchange.url)
            name = "RECON_ACCOUNT_" + "".join(c if c.isalnum() else "_" for c in account_id.upper())
            variables[f"{name}_KEY_ID"] = keys.key_id
            variables[f"{name}_SECRET_KEY"] = keys.secret_key
            variables[f"{name}_BASE_URL"] = keys.base_url
        return variables

    def process_environment(self, inherited: Mapping[str, str], *, rules: bool) -> dict[str, str]:
        """Return a whole environment for a process here: no key or address of a production gets in.

        `rules` keeps what the caller has set of the pipeline's rules (RECON_...), to try them out.
        """
        dropped = ("APCA_", "DAGSTER_", "RECON_ACCOUNT_", *(() if rules else ("RECON_", "ENABLE_RECON_")))
        kept = {name: value for name, value in inherited.items() if not name.startswith(dropped)}
        return {**kept, **self.environment()}


@contextlib.contextmanager
def running_stage(home: Path, prefix: str, *, fresh: bool = False, say: Say = lambda _: None) -> Iterator[Stage]:
    """Bring everything up in `home` with the book `prefix` loaded; take it down at the end.

    `fresh` drops what earlier runs left in this home. A home has one user at a time: a second one is refused.
    """
    home = home.absolute()
    if not checkout_file("dagster.yaml").is_file():
        raise SandboxError("The sandbox runs from a checkout: dagster.yaml is not beside the package.")
    with contextlib.ExitStack() as stack:
        try:
            home.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_only_user(home))
        except OSError as error:
            raise SandboxError(f"{home} can't be used: {error.strerror}. Choose another with --home.") from error
        postgres = EmbeddedPostgres(home / "postgres")
        stack.callback(postgres.stop)
        postgres.start()
        say(f"Postgres answers ({home / 'postgres'})")
        if fresh:
            _forget(home, postgres)
        for database in (LEDGER, DAGSTER):
            postgres.ensure_database(database)
        applied = migrate(postgres.url(LEDGER))
        say(f"database migrated ({len(applied)} applied)" if applied else "database is up to date")
        exchange = stack.enter_context(_exchange(home))
        stage = Stage(home, postgres, exchange)
        for name in dict.fromkeys([*_anchors(home), prefix]):
            stage.books[name] = _load(stage, name)
        say(f"simulated exchange answers at {exchange.url} with {len(exchange.book.accounts())} accounts")
        _write_dagster_home(stage)
        _write_environment(stage)
        yield stage


@contextlib.contextmanager
def _only_user(home: Path) -> Iterator[None]:
    with (home / "in-use.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise SandboxError(
                f"{home} is in use by process {file.read().strip() or 'unknown'}. Stop it (Ctrl-C), or use another "
                "directory with --home."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _forget(home: Path, postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        for database in (LEDGER, DAGSTER):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
    for name in ("snapshots", "dagster"):
        shutil.rmtree(home / name, ignore_errors=True)
    for name in ("exchange.json", "books.json"):
        (home / name).unlink(missing_ok=True)


@contextlib.contextmanager
def _exchange(home: Path) -> Iterator[SimulatedExchange]:
    """Run the exchange on the port it had before, for other terminals' environment; on a free one if it is taken."""
    with contextlib.ExitStack() as stack:
        remembered = home / "exchange.port"
        port = int(remembered.read_text()) if remembered.is_file() else 0
        try:
            exchange = stack.enter_context(running_exchange(port=port, state=home / "exchange.json"))
        except OSError:
            exchange = stack.enter_context(running_exchange(state=home / "exchange.json"))
        remembered.write_text(str(exchange.port))
        yield exchange


def _anchors(home: Path) -> dict[str, str]:
    """Read when each book was made."""
    file = home / "books.json"
    found: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}
    return found


def _load(stage: Stage, prefix: str) -> DemoBook:
    """Put the book into ledger and exchange unless it is there; either may have been interrupted before."""
    anchors = _anchors(stage.home)
    loaded = is_loaded(stage.database_url, prefix)
    if loaded and prefix not in anchors:
        raise SandboxError(f"{stage.home / 'books.json'} is gone, but the database holds its book: use --fresh.")
    if not loaded:
        anchors[prefix] = datetime.now(UTC).replace(microsecond=0).isoformat()
        new = stage.home / "books.json.new"
        new.write_text(json.dumps(anchors))
        new.replace(stage.home / "books.json")
    book = demo_book(prefix, datetime.fromisoformat(anchors[prefix]))
    load_exchange(stage.exchange.book, book)
    if not loaded:
        load_ledger(stage.database_url, book)
    return book


def checkout_file(name: str) -> Path:
    """Return a file at the top level of the checkout."""
    return Path(__file__).resolve().parents[2] / name


def _write_dagster_home(stage: Stage) -> None:
    stage.dagster_home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(checkout_file("dagster.yaml"), stage.dagster_home / "dagster.yaml")


def _write_environment(stage: Stage) -> None:
    write_environment(stage.home / "env", stage.environment())


def write_environment(file: Path, variables: Mapping[str, str]) -> None:
    """Write a file for `. FILE` in another terminal; readable by its owner only."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    new = file.with_name(file.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    new.replace(file)


def open_log(home: Path, name: str) -> IO[bytes]:
    """Open a process's log for appending."""
    (home / "logs").mkdir(exist_ok=True)
    return (home / "logs" / f"{name}.log").open("ab")
