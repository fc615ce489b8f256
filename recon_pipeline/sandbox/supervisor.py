"""What `recon up` runs: the stage, and Dagster's webserver, its daemon and `recon serve` as children that end with it.

Here: starting the children, keeping them running, stopping everything. Not here: what is below Dagster
(:mod:`recon_pipeline.sandbox.stage`), and anything that imports Dagster: the children do.

The children run under :mod:`recon_pipeline.sandbox.child`, so kill -9 of this process leaves only the Postgres server,
which the next start adopts.
"""

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

from recon_pipeline.sandbox.stage import SandboxError, Say, Stage, checkout_file, open_log, write_environment

READY_SECONDS = 120.0
STOP_SECONDS = 20.0
STATUS_PORT = 8080
RESTARTS = 5
RESTART_WINDOW_SECONDS = 120.0


@dataclass
class Child:
    """One process that has to run."""

    name: str
    command: list[str]
    environment: dict[str, str]
    home: Path
    process: subprocess.Popen[bytes] | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it, with its output in its log."""
        self.started.append(time.monotonic())
        with open_log(self.home, self.name) as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "recon_pipeline.sandbox.child", *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.home / "dagster",
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def keep(self, say: Say) -> None:
        """Start it again if it ended; give up when it keeps ending."""
        if self.is_running:
            return
        now = time.monotonic()
        self.started = [at for at in self.started if now - at < RESTART_WINDOW_SECONDS]
        log = self.home / "logs" / f"{self.name}.log"
        if len(self.started) >= RESTARTS:
            raise SandboxError(f"The {self.name} keeps ending; see {log}.")
        say(f"the {self.name} ended and is started again; its log is {log}")
        self.start()

    def ask_to_stop(self) -> None:
        """Begin stopping it."""
        if self.process is not None and self.is_running:
            self.process.terminate()

    def wait(self) -> None:
        """Wait until it is gone; insist at the end."""
        if self.process is None:
            return
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def free_port(wanted: int | None, standard: int = 3000) -> int:
    """Return the wanted port if it is free, an error if not; without a wish the standard one, or any."""
    for port in [wanted] if wanted is not None else [standard, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise SandboxError(f"Port {wanted} is in use: choose another with --port.")


def run_dagster(stage: Stage, *, ui: bool, port: int | None, say: Say, stopping: threading.Event) -> None:
    """Run Dagster on the stage until `stopping` is set; everything is gone when it returns."""
    environment = stage.process_environment(os.environ, rules=True)
    address = status = ""
    children: list[Child] = []
    if ui:
        found, served = free_port(port), free_port(None, standard=STATUS_PORT)
        address, status = f"http://127.0.0.1:{found}", f"http://127.0.0.1:{served}"
        environment["RECON_DAGSTER_URL"] = address
        write_environment(stage.home / "env", {**stage.environment(), "RECON_DAGSTER_URL": address})
        serve = ["-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(found)]
        children.append(Child("webserver", [*_python(serve), *_workspace()], environment, stage.home))
        pages = ["-m", "recon_pipeline.cli", "serve", "--host", "127.0.0.1", "--port", str(served)]
        children.append(Child("serve", _python(pages), environment, stage.home))
    children.append(
        Child("daemon", [*_python(["-m", "dagster._daemon", "run"]), *_workspace()], environment, stage.home)
    )
    create_instance(stage, environment)
    try:
        for child in children:
            child.start()
        if ui:
            _await_answer(f"{address}/server_info", "The Dagster UI", children[0], stopping)
            _await_answer(f"{status}/internal/health", "recon serve", children[1], stopping)
        if not stopping.is_set():
            say(f"Dagster UI: {address}" if ui else "Dagster's daemon runs")
            if ui:
                say(f"order status: {status} (also /internal/health, /internal/trading/status and /metrics)")
            say(f"for another terminal: . '{stage.home / 'env'}'")
            say("stop with Ctrl-C")
        while not stopping.wait(0.5):
            if stage.postgres.pid is None:
                say("Postgres ended and is started again")
                stage.postgres.start()
            for child in children:
                child.keep(say)
    finally:
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.wait()


def _python(arguments: list[str]) -> list[str]:
    return [sys.executable, *arguments]


def _workspace() -> list[str]:
    return ["-w", str(checkout_file("workspace.yaml"))]


def create_instance(stage: Stage, environment: dict[str, str]) -> None:
    """Let one process create Dagster's tables, before several would at once; again after a change of version."""
    version = importlib.metadata.version("dagster")
    created = stage.dagster_home / "tables-of-version"
    if created.is_file() and created.read_text() == version:
        return
    done = subprocess.run(  # noqa: S603
        _python(["-m", "dagster", "instance", "migrate"]),
        env=environment,
        cwd=stage.dagster_home,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SandboxError(f"Dagster's database could not be prepared: {done.stderr.strip()[-2000:]}")
    created.write_text(version)


def _await_answer(address: str, name: str, child: Child, stopping: threading.Event) -> None:
    """Wait until the child answers at all: an answer that says that it is not well is one."""
    deadline = time.monotonic() + READY_SECONDS
    while not stopping.wait(0.2):
        log = child.home / "logs" / f"{child.name}.log"
        if not child.is_running:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise SandboxError(f"{name} did not start; {log} ends with:\n{tail}")
        try:
            with urllib.request.urlopen(address, timeout=2):  # noqa: S310
                return
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise SandboxError(f"{name} did not answer within {READY_SECONDS:.0f} s; see {log}.") from None


def stop_on_signals(stopping: threading.Event) -> None:
    """Set the event on Ctrl-C, SIGTERM and SIGHUP; only the main thread may call it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
