"""The embedded Postgres: a private server on a Unix socket, for the demo, the sandbox and the tests.

Here: the launcher over the binaries of :mod:`recon_pipeline.sandbox.postgres_install`. One process, the supervisor,
owns the server; every other process gets a URL and nothing else. Not here: schemas, migrations, or anything that runs
against a production server.

What it keeps:

1. A server is alive if it answers and `SHOW data_directory` is ours. A pid proves nothing.
2. Whoever holds the lock `owner` owns the server. The kernel releases it however the owner ends, so the next start
   adopts a server whose supervisor was killed.
3. Starting and stopping happen under the lock `starting`, so that any number of processes may start at once.
4. A data directory exists completely or not at all: initdb works under another name, then the directory is renamed.
5. The socket lies in a short directory with mode 0700 of the server's account; there is no TCP port.
6. As root the server runs as `nobody` (or as the owner of existing data). Where `nobody` may not enter the directory,
   the data and a copy of the binaries lie in /var/lib/recon-pipeline, and `data` is a link to them. No mode of any
   existing directory is changed.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

import psutil
import psycopg
from psycopg import sql

from recon_pipeline.sandbox import postgres_install
from recon_pipeline.sandbox.postgres_install import (
    MAJOR_VERSION,
    EmbeddedPostgresError,
    Installation,
    ServerAccount,
    open_place,
)

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

SUPERUSER = "postgres"
SOCKET_NAME = ".s.PGSQL.5432"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
LONGEST_SOCKET_DIRECTORY = 80  # a socket's path may have 103 bytes on macOS, 107 on Linux
LARGEST_LOG_BYTES = 16 * 1024 * 1024


class EmbeddedPostgres:
    """One embedded server, named by the directory that holds its files.

    `durable=False` turns fsync off, for tests. Nothing happens before `start`.
    """

    def __init__(self, data_dir: Path | str, *, durable: bool = True, installation: Installation | None = None) -> None:
        self.directory = Path(data_dir).absolute()
        self.durable = durable
        self._installation = installation
        self._child: subprocess.Popen[bytes] | None = None
        self._owner_lock: IO[bytes] | None = None

    # -- what callers use

    def start(self, database: str = "postgres") -> str:
        """Start the server, or find the one that runs already; return the URL of `database`, created if missing.

        May be called again at any time: a server that died is started anew.
        """
        try:
            with self._locked("starting"):
                self._bring_up()
                self._claim()
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The embedded Postgres can't use {self.directory}: {error.strerror or error}"
                f"{f' ({error.filename})' if error.filename else ''}. Choose another directory, "
                "or set RECON_DATABASE_URL and DAGSTER_POSTGRES_URL to a server of your own."
            ) from error
        self.ensure_database(database)
        return self.url(database)

    def stop(self) -> None:
        """Stop the server if this process owns it, and wait until it is gone. Otherwise do nothing."""
        if self._owner_lock is None:
            return
        with self._locked("starting"):
            self._shut_down()
            self._owner_lock.close()
            self._owner_lock = None

    def delete(self) -> None:
        """Stop the server and remove its data for good. Refused while another process owns it."""
        if not self.directory.exists():
            return
        with self._locked("starting"):
            self._claim()
            if not self.owned:
                raise EmbeddedPostgresError(f"The server in {self.directory} belongs to another process.")
            self._shut_down()
            data = self._data.resolve()
            shutil.rmtree(data, ignore_errors=True)
            if data.parent.parent in postgres_install.SYSTEM_PLACES:
                shutil.rmtree(data.parent, ignore_errors=True)
            if self._owner_lock is not None:
                self._owner_lock.close()
                self._owner_lock = None
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def owned(self) -> bool:
        """Whether this process is the one that stops the server."""
        return self._owner_lock is not None

    @property
    def pid(self) -> int | None:
        """The process id of the running server, None if there is none."""
        return self._server_pid()

    def is_alive(self) -> bool:
        """Whether a server answers and says that its data directory is ours."""
        socket_directory = self._socket_directory()
        if socket_directory is None:
            return False
        try:
            with psycopg.connect(_url("postgres", socket_directory), connect_timeout=5, autocommit=True) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.Error:
            return False
        return row is not None and Path(str(row[0])).resolve() == self._data.resolve()

    def url(self, database: str = "postgres") -> str:
        """Return the URL for psycopg, libpq and ADBC."""
        return _url(database, self._known_socket_directory())

    def sqlalchemy_url(self, database: str = "postgres") -> str:
        """Return the URL for Dagster's storage, which is written for psycopg2."""
        return "postgresql+psycopg2" + self.url(database).removeprefix("postgresql")

    def ensure_database(self, name: str) -> None:
        """Create the database unless it exists; another process may do the same at the same time."""
        with psycopg.connect(self.url(), connect_timeout=10, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return
            with contextlib.suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- files

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        """What the server says."""
        return self.directory / "server.log"

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.lock").open("ab") as file:
            deadline = time.monotonic() + 2 * START_SECONDS
            while not _try_lock(file):
                if time.monotonic() > deadline:
                    raise EmbeddedPostgresError(f"Another process holds {file.name} for too long.")
                time.sleep(POLL_SECONDS)
            yield

    def _claim(self) -> None:
        """Become the owner unless another living process is."""
        if self._owner_lock is not None:
            return
        file = (self.directory / "owner.lock").open("ab")
        if _try_lock(file):
            self._owner_lock = file
        else:
            file.close()

    # -- starting

    def _bring_up(self) -> None:
        account = ServerAccount.for_data(self._data)
        if not account.is_me or self._data.is_dir():
            self._check_owner(account)
        installed = self._installation or Installation.from_wheel()
        installed.check()
        installation = installed.for_account(account)
        if not self._data.is_dir():
            self._create_data(account, installation)
        self._check_version()
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self.is_alive():
                return
            if self._server_pid() is None:
                problem = self._launch(account, installation, deadline)
                if problem is None:
                    return
                if "still in use" not in problem and "already exists" not in problem:
                    raise EmbeddedPostgresError(
                        f"The embedded Postgres did not start: {problem}\nIts log is {self.log}."
                    )
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"No answer from the embedded Postgres within {START_SECONDS:.0f} s; see {self.log}."
                )
            time.sleep(POLL_SECONDS)

    def _check_owner(self, account: ServerAccount) -> None:
        if self._data.is_dir() and self._data.stat().st_uid != account.uid:
            raise EmbeddedPostgresError(
                f"{self._data} belongs to user id {self._data.stat().st_uid}, this is user id {os.geteuid()}: "
                "run as that user or as root, or choose another directory."
            )

    def _create_data(self, account: ServerAccount, installation: Installation) -> None:
        for leftover in self.directory.glob("data.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        place = self.directory
        if not account.is_me and not account.may("x", place):
            place = open_place() / hashlib.sha256(os.fsencode(self.directory.resolve())).hexdigest()[:16]
            if place.exists():  # of a directory that was deleted since
                EmbeddedPostgres(place).delete()
            place.mkdir(mode=0o755)
            place.chmod(0o755)
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=place))
        try:
            account.own(new)
            options = ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
            options += ["--auth=trust", f"--username={SUPERUSER}", "--no-instructions", "--no-sync"]
            done = subprocess.run(  # type: ignore[call-overload]  # noqa: S603
                [str(installation.program("initdb")), *options, "-D", str(new)],
                check=False,
                capture_output=True,
                text=True,
                errors="replace",
                cwd="/",
                env=_environment(),
                **account.popen_options(),
            )
            if done.returncode != 0:
                raise EmbeddedPostgresError(
                    f"initdb could not create a database in {place}: {_tail(done.stderr or done.stdout)}"
                )
            if self.durable:
                os.sync()
            new.rename(place / "data")
        finally:
            shutil.rmtree(new, ignore_errors=True)
        if place != self.directory:
            self._data.unlink(missing_ok=True)
            self._data.symlink_to(place / "data")

    def _check_version(self) -> None:
        try:
            found = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            found = "an unknown version"
        if found != str(MAJOR_VERSION):
            raise EmbeddedPostgresError(
                f"The data in {self._data} was written by PostgreSQL {found}, the embedded server is {MAJOR_VERSION}: "
                "move the directory away, or choose another one."
            )

    def _launch(self, account: ServerAccount, installation: Installation, deadline: float) -> str | None:
        """Start a server process; None once it answers, else what it said."""
        socket_directory = self._make_socket_directory(account)
        for stale in [self._data / "postmaster.pid", *socket_directory.glob(f"{SOCKET_NAME}*")]:
            stale.unlink(missing_ok=True)  # nobody serves this directory: a pid in there is of some other process
        configuration = self._data / "postgresql.conf"
        configuration.write_text(self._configuration(socket_directory))
        account.own(configuration)
        if self.log.is_file() and self.log.stat().st_size > LARGEST_LOG_BYTES:
            self.log.unlink()
        with self.log.open("ab") as log:
            begin = log.tell()
            self._child = subprocess.Popen(  # type: ignore[call-overload]  # noqa: S603
                [str(installation.program("postgres")), "-D", str(self._data.resolve())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                **account.popen_options(),
            )
        while self._child.poll() is None:
            if self.is_alive():
                return None
            if time.monotonic() > deadline:
                return f"no answer within {START_SECONDS:.0f} s"
            time.sleep(POLL_SECONDS)
        with self.log.open("rb") as log:
            log.seek(begin)
            return _tail(log.read().decode(errors="replace")) or f"exit status {self._child.returncode}"

    def _configuration(self, socket_directory: Path) -> str:
        lines = [
            "# written by recon_pipeline at every start",
            "listen_addresses = ''",
            f"unix_socket_directories = {_quoted(str(socket_directory))}",
            "unix_socket_permissions = 0700",
            "max_connections = 200",
            "shared_buffers = 64MB",
            "max_wal_size = 512MB",
            "wal_level = minimal",
            "max_wal_senders = 0",
            "io_method = sync",
            "max_parallel_workers_per_gather = 0  # containers often have 64 MB of shared memory",
            "timezone = 'UTC'",
            "log_timezone = 'UTC'",
            "log_line_prefix = '%m [%p] '",
            "logging_collector = off",
        ]
        if not self.durable:
            lines += ["fsync = off", "synchronous_commit = off", "full_page_writes = off"]
        return "\n".join(lines) + "\n"

    # -- the socket

    def _make_socket_directory(self, account: ServerAccount) -> Path:
        name = "recon-" + hashlib.sha256(os.fsencode(self._data.resolve())).hexdigest()[:12]
        bases = [Path("/tmp"), Path(tempfile.gettempdir())]  # noqa: S108
        bases += [Path(os.environ["XDG_RUNTIME_DIR"])] if os.environ.get("XDG_RUNTIME_DIR") else []
        for base in bases:
            if len(os.fsencode(base / name)) > LONGEST_SOCKET_DIRECTORY - 10:
                continue
            try:
                wanted = base / name
                wanted.mkdir(mode=0o700, exist_ok=True)
                if not _is_private(wanted, {account.uid, os.geteuid()}):  # somebody else's: use another name
                    wanted = Path(tempfile.mkdtemp(prefix="recon-", dir=base))
                account.own(wanted)
            except OSError:
                continue
            if account.may("w", wanted):
                return wanted
        raise EmbeddedPostgresError(
            f"No short temporary directory for the server's socket among {', '.join(str(base) for base in bases)}."
        )

    def _socket_directory(self) -> Path | None:
        """Where the running server says its socket is, in line 5 of its pid file."""
        lines = self._pid_file_lines()
        return Path(lines[4]) if len(lines) > 4 and lines[4] else None

    def _known_socket_directory(self) -> Path:
        found = self._socket_directory()
        if found is None:
            raise EmbeddedPostgresError(f"No server runs in {self.directory}.")
        return found

    # -- the process

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _server_pid(self) -> int | None:
        """Return the pid in the pid file, if that process is a server on our data."""
        lines = self._pid_file_lines()
        if not lines or not lines[0].strip().isdigit():
            return None
        pid = int(lines[0])
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return pid if str(self._data.resolve()) in process.cmdline() else None
        except psutil.Error:
            return None

    def _shut_down(self) -> None:
        """Ask for a fast shutdown; insist after a while."""
        socket_directory = self._socket_directory()
        for request in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            pid = self._server_pid()
            if pid is None:
                break
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, request)
            deadline = time.monotonic() + STOP_SECONDS
            while self._server_pid() is not None and time.monotonic() < deadline:
                if self._child is not None:
                    self._child.poll()
                time.sleep(POLL_SECONDS)
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_SECONDS)
            self._child = None
        if socket_directory is not None and socket_directory.name.startswith("recon-"):
            shutil.rmtree(socket_directory, ignore_errors=True)


def _url(database: str, socket_directory: Path) -> str:
    return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={quote(str(socket_directory), safe='/')}"


def _try_lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_private(directory: Path, owners: set[int]) -> bool:
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid in owners and not found.st_mode & 0o077


def _environment() -> dict[str, str]:
    """Keep what the server needs of the environment: no PG* settings, no keys."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _tail(text: str, lines: int = 8) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
