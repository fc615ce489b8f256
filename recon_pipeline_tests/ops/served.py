"""`recon serve` as an operator runs it: a process, a database with something in it, requests over sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field

import requests

BOOK = """
INSERT INTO public.profiles (profile_id, user_id, account_id, created_at) VALUES
  ('p1', 'u1', 'a1', now()), ('<b>&"p2''', 'u1', 'a1', now());
INSERT INTO public.trading_control (scope, state, source, reason) VALUES ('p1', 'PAUSED', 'ops', '<script>alert(1)</script>');
INSERT INTO recon.cycle_reports (profile_id, run_id, cycle_at, processed, clean, content, report)
  SELECT profile_id, 'r1', now(), true, false, '', '{"mismatch_count": 2, "error": "", "no_go_trades": 1, "failed_stages": []}'
  FROM public.profiles;
INSERT INTO recon.cycle_runs VALUES ('r1', now(), now(), 2, 0, 0);
INSERT INTO recon.order_checks (profile_id, order_id, account_id, symbol, side, status, placed_at, outcome, first_seen_at,
                                next_check_at)
  SELECT p.profile_id, 'o-' || n, 'a1', 'BTC/USD', 'BUY', 'pending_new', now() - n * interval '7 minutes', 'failed', now(), now()
  FROM public.profiles AS p, generate_series(1, 40) AS n;
INSERT INTO recon.waiting_cases (profile_id, case_key, stage, reason, notional_usd, first_seen_at, seen_at, run_id, detail)
  VALUES ('p1', 'k', 'exit_backfill', 'no_evidence', 12.5, now(), now(), 'r1', '{}');
"""


@dataclass
class Serving:
    """A running `recon serve` and its database."""

    url: str
    process: subprocess.Popen[str]
    database_url: str
    before: dict[str, list[str]] = field(default_factory=dict)
    """every row of the database as it was before the first request"""

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=20)

    def send(self, raw: bytes) -> bytes:
        """Write the bytes to a connection of its own; return all that comes back.

        After its first answer, or after a moment if it waits for more, the server is told that there is no more.
        """
        with socket.create_connection(self.address, timeout=0.04) as connection:
            received = b""
            try:
                connection.sendall(raw)
                with contextlib.suppress(TimeoutError):
                    received = _received(connection)
                connection.settimeout(20)
                connection.shutdown(socket.SHUT_WR)
                while more := _received(connection):
                    received += more
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
            return received


def _received(connection: socket.socket) -> bytes:
    return connection.recv(262_144)


def start(database_url: str, *options: str, **environment: str) -> Serving:
    process = subprocess.Popen(
        [sys.executable, "-m", "recon_pipeline.cli", "serve", "--port", "0", *options],
        env={**os.environ, "RECON_DATABASE_URL": database_url, "RECON_SERVE_REFRESH_SECONDS": "0.2", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.readline().split()
    assert said[:4] == ["recon", "serve", "answers", "at"], process.communicate(timeout=20)
    return Serving(said[4], process, database_url)


def stop(serving: Serving, number: int = signal.SIGTERM) -> tuple[int, str]:
    """End it; return its exit status and what it logged."""
    serving.process.send_signal(number)
    _, logged = serving.process.communicate(timeout=30)
    return serving.process.returncode, logged


def ready(serving: Serving, **headers: str) -> None:
    """Wait for the first reading."""
    deadline = time.monotonic() + 30
    while serving.get("/metrics", **headers).status_code == 503:
        assert time.monotonic() < deadline, serving.get("/internal/health", **headers).text
        time.sleep(0.02)
