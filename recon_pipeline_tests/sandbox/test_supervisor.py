"""`recon up` as an operator runs it: real processes, Ctrl-C, kill -9, a second start."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from recon_pipeline.sandbox.postgres import EmbeddedPostgres
from recon_pipeline.sandbox.stage import SandboxError
from recon_pipeline.sandbox.supervisor import free_port


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "a home"
    yield directory
    EmbeddedPostgres(directory / "postgres").delete()


def until(what: str, condition: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def up(home: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "recon_pipeline.cli", "up", "--home", str(home), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    seen = []
    for line in process.stdout:
        seen.append(line)
        if found := re.search(pattern, line):
            return found
    raise AssertionError("ended after:\n" + "".join(seen))


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process, apart from Postgres, that was started for this home."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("DAGSTER_HOME") == str(home / "dagster") and process.status() != "zombie":
                found.append(process)
    return found


def variables(home: Path) -> dict[str, str]:
    lines = (home / "env").read_text().splitlines()
    return dict(shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines)


def test_up_serves_the_ui_survives_kill_9_and_leaves_nothing_after_ctrl_c(home: Path) -> None:
    first = up(home)
    address = read_until(first, r"Dagster UI: (http://127\.0\.0\.1:\d+)")[1]
    assert requests.get(f"{address}/server_info", timeout=10).json()["dagster_webserver_version"]
    assert variables(home)["RECON_DAGSTER_URL"] == address
    status = read_until(first, r"order status: (http://127\.0\.0\.1:\d+)")[1]
    until("the order status page shows the book", lambda: requests.get(status, timeout=10).status_code == 200, 20)
    assert requests.get(f"{status}/internal/health", timeout=10).json()["profiles"] == 15
    first.kill()
    first.wait()
    until("the children end with their supervisor", lambda: processes_of(home) == [], 40)

    second = up(home, "--no-ui")
    read_until(second, "daemon runs")
    with psycopg.connect(variables(home)["RECON_DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM profiles").fetchone() == (15,)
    refused = subprocess.run(
        [sys.executable, "-m", "recon_pipeline.cli", "up", "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert f"is in use by process {second.pid}" in refused.stderr

    os.kill(EmbeddedPostgres(home / "postgres").pid, signal.SIGKILL)
    read_until(second, "Postgres ended and is started again")
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 0
    assert processes_of(home) == []
    assert EmbeddedPostgres(home / "postgres").pid is None


def test_a_port_in_use_is_an_error_that_names_it_and_the_standard_port_gives_way(home: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SandboxError, match=f"Port {port} is in use"):
            free_port(port)
        assert free_port(None, standard=port) != port


def test_a_home_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "recon_pipeline.cli", "up", "--home", str(tmp_path / "file" / "home")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "can't be used: Not a directory. Choose another with --home." in done.stderr
