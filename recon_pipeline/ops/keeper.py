"""Keeping the latest snapshot: a thread that reads again and again, so that no request ever waits for the database.

What belongs here: when to read, and what is kept when reading fails. What does not: the reading itself (``reading``).
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.reading import ReadingError
from recon_pipeline.ops.snapshot import Snapshot

_LOG = logging.getLogger(__name__)
REST: Final = 4
"""A reading that took long is followed by a pause of this many times its length: serving never loads the database much."""


class Reads(Protocol):
    """What reads: ``reading.SnapshotReader``."""

    def read(self) -> Snapshot:
        """Return a snapshot, or raise ReadingError."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Keeper:
    """The latest snapshot. ``latest`` may be called by any thread."""

    def __init__(
        self,
        reader: Reads,
        *,
        refresh_seconds: float,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._reader = reader
        self._refresh_seconds = refresh_seconds
        self._clock = clock
        self._latest = Latest()
        self._stopping = threading.Event()
        self._when_dead: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)

    def latest(self) -> Latest:
        """Return the outcome of the last attempt to read."""
        return self._latest

    def refresh(self) -> Latest:
        """Read now, in this thread; a failure is kept beside the snapshot of before."""
        before = self._latest
        try:
            self._latest = Latest(self._reader.read())
        except ReadingError as error:
            since = before.failing_since or self._clock()
            if not before.error:
                _LOG.warning("the database can't be read: %s", error)
            self._latest = Latest(before.snapshot, str(error), since)
        else:
            if before.error:
                _LOG.warning("the database can be read again")
        return self._latest

    def start(self, *, when_dead: Callable[[], None] = lambda: None) -> None:
        """Begin to read.

        :param when_dead: called if the thread ends by an error that is not the database's: a process without it would show the
            same snapshot for ever, so whoever runs it should end it
        """
        self._when_dead = when_dead
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and wait for the thread, which may be in the middle of a reading."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(self._refresh_seconds)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                self.refresh()
                took = time.monotonic() - began
                self._stopping.wait(max(self._refresh_seconds - took, REST * took, 0))
        finally:
            self._reader.close()
            if not self._stopping.is_set():
                self._when_dead()
