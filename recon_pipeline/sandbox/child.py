"""Runs one command that must not outlive the process that started it.

`python -m recon_pipeline.sandbox.child COMMAND...` runs the command in a session of its own and ends the whole session
when it is asked to stop (SIGTERM), or when its standard input closes: the other end is held by the supervisor alone, so
it closes however the supervisor ends, kill -9 included. Standard library only: it starts in milliseconds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 10.0


def main(command: list[str]) -> int:
    """Run the command until it ends, or until it is told or left alone; return its exit status."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's business
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603
    threading.Thread(target=_watch_supervisor, args=(asked,), daemon=True).start()
    while child.poll() is None and not asked.wait(0.1):
        pass
    if child.poll() is None:
        _signal_session(child.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
    _signal_session(child.pid, signal.SIGKILL)
    return child.wait()


def _watch_supervisor(asked: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    asked.set()


def _signal_session(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
