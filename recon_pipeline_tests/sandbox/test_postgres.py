"""The embedded Postgres on real servers, real signals and real processes. Runs as root and as a normal user."""

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy

from recon_pipeline.sandbox import postgres_install
from recon_pipeline.sandbox.postgres import EmbeddedPostgres, EmbeddedPostgresError
from recon_pipeline.sandbox.postgres_install import WHEEL, Installation, ServerAccount

SUPERVISOR = """
import sys, time
from recon_pipeline.sandbox.postgres import EmbeddedPostgres
server = EmbeddedPostgres(sys.argv[1], durable=False)
url = server.start("books")
print(url, server.owned, flush=True)
time.sleep(600)
"""

NORMAL_USER = """
import os, sys
from pathlib import Path
import psycopg
from recon_pipeline.sandbox.postgres import EmbeddedPostgres, EmbeddedPostgresError
from recon_pipeline.sandbox.postgres_install import Installation, ServerAccount
installation = Installation.from_wheel()
if os.geteuid() == 0:
    import pwd
    nobody = pwd.getpwnam("nobody")
    installation = installation.for_account(ServerAccount(nobody.pw_uid, nobody.pw_gid))
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
assert os.geteuid() != 0
try:
    with EmbeddedPostgres(sys.argv[1], durable=False, installation=installation) as server:
        with psycopg.connect(server.url()) as connection:
            print(connection.execute("SELECT 40 + 2").fetchone()[0], flush=True)
except EmbeddedPostgresError as error:
    print("refused:", error, flush=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for one server, removed with the server afterwards, wherever its files are."""
    directory = tmp_path / "postgres"
    yield directory
    EmbeddedPostgres(directory).delete()


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every account may enter and write."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def ask(url: str, question: str = "SELECT 1") -> object:
    with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
        cursor = connection.execute(question)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def until(what: str, condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def supervisor(place: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(place)], stdout=subprocess.PIPE, text=True)


def test_it_starts_answers_and_stops(place: Path) -> None:
    server = EmbeddedPostgres(place, durable=False)
    url = server.start("books")
    assert ask(url, "SELECT current_database()") == "books"
    assert ask(url, "SHOW server_version_num").startswith("18")
    assert ask(url, "SHOW timezone") == "UTC"
    pid = server.pid
    server.stop()
    assert server.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(psycopg.OperationalError):
        ask(url)


def test_the_driver_of_dagsters_storage_connects_too(place: Path) -> None:
    with EmbeddedPostgres(place, durable=False) as server:
        server.ensure_database("dagster")
        engine = sqlalchemy.create_engine(server.sqlalchemy_url("dagster"))
        assert engine.dialect.driver == "psycopg2"
        with engine.connect() as connection:
            assert connection.execute(sqlalchemy.text("SELECT current_database()")).scalar() == "dagster"
        engine.dispose()


def test_a_path_with_spaces_quotes_and_180_bytes_works(tmp_path: Path) -> None:
    directory = tmp_path / "it's a place" / ("long " * 36).strip()
    server = EmbeddedPostgres(directory, durable=False)
    try:
        assert ask(server.start()) == 1
    finally:
        server.delete()


def test_only_the_servers_account_may_enter_the_socket_directory_and_no_port_is_open(place: Path) -> None:
    with EmbeddedPostgres(place, durable=False) as server:
        directory = Path(str(ask(server.url(), "SHOW unix_socket_directories")))
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert ask(server.url(), "SHOW listen_addresses") == ""
        sockets = [entry for entry in directory.iterdir() if stat.S_ISSOCK(entry.stat().st_mode)]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(sockets[0]))
    assert not directory.exists()


def test_committed_rows_survive_kill_9_of_the_server(place: Path) -> None:
    server = EmbeddedPostgres(place)
    url = server.start("books")
    ask(url, "CREATE TABLE kept AS SELECT 7 AS value")
    first = server.pid
    os.kill(first, signal.SIGKILL)
    assert server.start("books") == url
    assert server.pid != first
    assert ask(url, "SELECT value FROM kept") == 7
    server.stop()


def test_after_kill_9_of_its_supervisor_the_server_goes_on_and_the_next_start_owns_it(place: Path) -> None:
    child = supervisor(place)
    url, owned = child.stdout.readline().split()
    assert owned == "True"
    ask(url, "CREATE TABLE kept AS SELECT 7 AS value")
    child.kill()
    child.wait()
    assert ask(url, "SELECT value FROM kept") == 7
    server = EmbeddedPostgres(place, durable=False)
    assert server.start("books") == url
    assert server.owned
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        ask(url)


def test_after_kill_9_of_both_the_next_start_finds_the_rows(place: Path) -> None:
    child = supervisor(place)
    url = child.stdout.readline().split()[0]
    ask(url, "CREATE TABLE kept AS SELECT 7 AS value")
    ask(url, "CHECKPOINT")
    pid = EmbeddedPostgres(place).pid
    child.kill()
    os.kill(pid, signal.SIGKILL)
    child.wait()
    with EmbeddedPostgres(place, durable=False) as server:
        assert ask(server.url("books"), "SELECT value FROM kept") == 7


def test_a_process_that_only_joined_leaves_the_server_running(place: Path) -> None:
    child = supervisor(place)
    url = child.stdout.readline().split()[0]
    guest = EmbeddedPostgres(place, durable=False)
    assert guest.start("books") == url
    assert not guest.owned
    guest.stop()
    assert ask(url) == 1
    with pytest.raises(EmbeddedPostgresError, match="belongs to another process"):
        guest.delete()
    assert ask(url) == 1
    child.kill()
    child.wait()


def test_processes_that_start_at_once_share_one_server(place: Path) -> None:
    children = [supervisor(place) for _ in range(4)]
    answers = [child.stdout.readline().split() for child in children]
    assert len({url for url, _ in answers}) == 1
    assert sorted(owned for _, owned in answers) == ["False", "False", "False", "True"]
    assert ask(answers[0][0]) == 1
    for child in children:
        child.kill()
        child.wait()


def test_a_stale_pid_that_another_process_has_now_does_not_hinder_the_start(place: Path) -> None:
    server = EmbeddedPostgres(place, durable=False)
    server.start()
    pid_file = place / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    os.kill(server.pid, signal.SIGKILL)
    until("the server is gone", lambda: server.pid is None)
    other = subprocess.Popen(["sleep", "600"], **ServerAccount.for_data(place / "data").popen_options())
    try:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        assert not server.is_alive()
        assert ask(server.start()) == 1
        assert server.pid != other.pid
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
        server.stop()


def test_a_server_that_answers_for_another_directory_is_not_ours(place: Path, tmp_path: Path) -> None:
    other = EmbeddedPostgres(tmp_path / "other", durable=False)
    other.start()
    server = EmbeddedPostgres(place, durable=False)
    server.start()
    server.stop()
    try:
        shutil.copy(tmp_path / "other" / "data" / "postmaster.pid", place / "data" / "postmaster.pid")
        assert not server.is_alive()
        server.start()
        assert server.pid != other.pid
        assert ask(other.url()) == 1
        server.stop()
        assert ask(other.url()) == 1
    finally:
        other.delete()


def test_what_an_interrupted_first_start_left_behind_is_no_data(place: Path) -> None:
    (place / "data.new-interrupted" / "base").mkdir(parents=True)
    (place / "data.new-interrupted" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(place, durable=False) as server:
        assert ask(server.url()) == 1
    assert not (place / "data.new-interrupted").exists()


def test_creating_a_database_twice_is_no_error(place: Path) -> None:
    with EmbeddedPostgres(place, durable=False) as server:
        server.ensure_database("it's a name")
        server.ensure_database("it's a name")
        assert ask(server.url("it's a name"), "SELECT current_database()") == "it's a name"


def test_data_of_another_major_version_is_refused_by_name(place: Path) -> None:
    server = EmbeddedPostgres(place, durable=False)
    server.start()
    server.stop()
    version = place / "data" / "PG_VERSION"
    version.write_text("16\n")
    with pytest.raises(EmbeddedPostgresError, match="written by PostgreSQL 16, the embedded server is 18"):
        server.start()
    version.write_text("18\n")


def test_missing_binaries_are_named_with_the_way_out(place: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match=r"No PostgreSQL 18 programs .*RECON_DATABASE_URL"):
        EmbeddedPostgres(place, installation=Installation(tmp_path / "nothing")).start()


def test_a_disk_that_takes_no_more_is_a_clear_error_and_leaves_no_half_made_data(place: Path) -> None:
    script = (
        "import resource, sys\n"
        "from recon_pipeline.sandbox.postgres import EmbeddedPostgres, EmbeddedPostgresError\n"
        "from recon_pipeline.sandbox.postgres_install import Installation, ServerAccount\n"
        "from pathlib import Path\n"
        "Installation.from_wheel().for_account(ServerAccount.for_data(Path(sys.argv[1]) / 'data'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "try:\n    EmbeddedPostgres(sys.argv[1]).start()\n"
        "except EmbeddedPostgresError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(place)], capture_output=True, text=True, check=True)
    assert "initdb could not create a database" in done.stdout
    assert [entry.name for entry in place.iterdir() if entry.name.startswith("data")] == []


def test_a_normal_user_runs_it(open_place: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NORMAL_USER, str(open_place / "a b")], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


def test_a_directory_that_may_not_be_written_is_named(open_place: Path) -> None:
    open_place.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", NORMAL_USER, str(open_place / "new")], capture_output=True, text=True, check=False
    )
    assert f"refused: The embedded Postgres can't use {open_place}/new: Permission denied" in done.stdout, done.stderr


def test_binaries_that_the_servers_account_may_not_enter_are_copied_where_it_may(
    tmp_path: Path, open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_install, "SYSTEM_PLACES", (open_place / "system",))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    wheel = Installation.from_wheel().root
    shutil.copytree(wheel, closed / "site-packages" / WHEEL / wheel.name)
    libraries = wheel.parent.parent / f"{WHEEL}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, closed / "site-packages" / libraries.name)
    installation = Installation(closed / "site-packages" / WHEEL / wheel.name)
    server = EmbeddedPostgres(closed / "postgres", durable=False, installation=installation)
    try:
        assert ask(server.start()) == 1
        as_root = os.geteuid() == 0
        assert psutil.Process(server.pid).cmdline()[0].startswith(str(open_place if as_root else closed))
        assert (closed / "postgres" / "data").is_symlink() == as_root
        assert closed.stat().st_mode & 0o777 == 0o700
    finally:
        server.delete()
    left = [path.name for path in (open_place / "system").glob("*") if not path.name.startswith("postgresql-18-")]
    assert left == []


def test_no_existing_directory_changes_its_mode_or_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    before = [(p, p.stat().st_mode, p.stat().st_uid) for p in [tmp_path, *tmp_path.parents]]
    server = EmbeddedPostgres(tmp_path / "postgres", durable=False)
    server.start()
    server.delete()
    assert [(p, p.stat().st_mode, p.stat().st_uid) for p in [tmp_path, *tmp_path.parents]] == before
    assert list(tmp_path.iterdir()) == []


def test_the_server_does_not_run_as_root(open_place: Path) -> None:
    open_place.chmod(0o755)
    server = EmbeddedPostgres(open_place / "postgres", durable=False)
    server.start()
    try:
        owner = (open_place / "postgres" / "data").stat().st_uid
        assert owner == (pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else os.geteuid())
        assert not (open_place / "postgres" / "data").is_symlink()
    finally:
        server.delete()


def test_keys_in_the_environment_do_not_reach_the_server(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APCA_API_SECRET_KEY", "not-for-the-server")
    with EmbeddedPostgres(place, durable=False) as server:
        assert "APCA_API_SECRET_KEY" not in psutil.Process(server.pid).environ()
        assert "LC_ALL" in psutil.Process(server.pid).environ()
