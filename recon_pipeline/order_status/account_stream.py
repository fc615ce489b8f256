"""One account's stream, kept running: what is heard is queued, stored, handled and tried again.

Two threads: the connection to the exchange, which never waits for a database, and the writer, which does everything else in the
order in which it was heard. What was said while nobody listened, or could not be stored, is asked of the exchange. What belongs
here: that nothing heard is lost while the database is away, and when what is done. What does not: what an event makes of the
ledger (``streaming``), and who may listen (``stream_keeper``).
"""

from __future__ import annotations

import datetime as dt
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import psycopg

from recon_pipeline.domain.order_events import OrderEvent, StreamState, read_event
from recon_pipeline.ledger.database import Connection, redact
from recon_pipeline.ledger.order_events import store_event
from recon_pipeline.order_status.stream_keeper import StreamKeeper, StreamPace
from recon_pipeline.order_status.stream_ports import AWAY

_LOG = logging.getLogger(__name__)
_QUEUE: Final = 10_000
_JOIN_SECONDS: Final = 5.0


class Stream(Protocol):
    """What listens: ``exchange.order_stream.OrderStream`` is the real one."""

    def run(self) -> None:
        """Listen until told to stop."""
        ...

    def stop(self) -> None:
        """Let ``run`` return."""
        ...


class Writer(Protocol):
    """What handles stored events: ``streaming.StreamWriter`` is the real one."""

    def settle(self, connection: Connection) -> int:
        """Handle the account's waiting events; return how many still wait."""
        ...

    def catch_up(self) -> bool:
        """Ask the exchange about the account's live orders; return whether all of it is settled now."""
        ...


@dataclass(frozen=True)
class _Heard:
    event: OrderEvent
    at: dt.datetime


@dataclass(frozen=True)
class _Turned:
    state: StreamState
    error: str


class AccountStream:
    """The stream of one account. ``run`` blocks until ``stop``, which any thread may call."""

    def __init__(
        self,
        account_id: str,
        writer: Writer,
        *,
        database_url: str,
        now: Callable[[], dt.datetime],
        open_stream: Callable[[AccountStream], Stream],
        pace: StreamPace | None = None,
    ) -> None:
        self.account_id = account_id
        self._writer = writer
        self._database_url = database_url
        self._now = now
        self._pace = pace or StreamPace()
        self._queue: queue.Queue[_Heard | _Turned] = queue.Queue(_QUEUE)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._keeper = StreamKeeper(account_id, database_url, now, self._pace)
        self._missed = _Missed(writer, account_id, database_url, self._pace)
        self._failure: BaseException | None = None
        self._stream = open_stream(self)

    # -- what the stream calls, on its own thread

    def hear(self, message: Mapping[str, Any]) -> None:
        """Queue an event."""
        event = read_event(message, self.account_id)
        if event is not None:
            self._put(_Heard(event, self._now()))

    def hear_noise(self, why: str) -> None:
        """Take note of something that can't be read: it may have been an event."""
        _LOG.warning("the order stream of account %s sent %s", self.account_id, why)
        self._missed.note()
        self._wake.set()

    def hear_state(self, state: StreamState, error: str) -> None:
        """Queue what the stream does now. What happened while nobody listened has to be asked for."""
        if state is StreamState.LISTENING:
            self._missed.note()
        self._put(_Turned(state, error))

    def _put(self, item: _Heard | _Turned) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            # The database has been away for long: what is left out is asked for when it is back.
            self._missed.note()
        self._wake.set()

    # -- the life of both threads

    def run(self) -> None:
        """Listen and write until told to stop.

        :raises AlreadyListeningError: another process listens to the account
        :raises DatabaseUnavailableError: there is no database to begin with
        """
        with self._keeper:
            self._keeper.claim(self._stopping)
            if self._stopping.is_set():
                return
            listener = threading.Thread(target=self._listen, name=f"stream {self.account_id}", daemon=True)
            listener.start()
            try:
                self._write_on()
            finally:
                self._stream.stop()
                listener.join(_JOIN_SECONDS)
            if self._failure is not None:
                raise self._failure
            self._missed.join()

    def stop(self) -> None:
        """Let ``run`` return once what was heard is stored."""
        self._stopping.set()
        self._stream.stop()
        self._wake.set()

    def _listen(self) -> None:
        try:
            self._stream.run()
        except BaseException as error:  # noqa: BLE001  handed to the thread that runs, which raises it
            self._failure = error
        if not self._stopping.is_set():
            self.stop()

    # -- the writer

    def _write_on(self) -> None:
        """Store, handle and try again, until told to stop and everything heard is stored."""
        heard: deque[_Heard | _Turned] = deque()
        waiting, failures = True, 0
        while True:
            stopping = self._stopping.is_set()
            if not heard:
                heard.extend(self._collect())
            try:
                stored = self._store_all(heard)
                if stored or waiting:
                    waiting = self._writer.settle(self._keeper.connection()) > 0
                self._keeper.beat()
            except AWAY as error:
                failures += 1
                self._keeper.close()
                said = redact(str(error), self._database_url).strip()
                _LOG.warning("the stream of account %s can't reach its database: %s", self.account_id, said)
                if stopping:
                    return  # what was not stored is asked for by whoever listens next
                waiting = True
                self._stopping.wait(min(self._pace.again_seconds * 2 ** min(failures, 10), self._pace.away_cap_seconds))
                continue
            failures = 0
            if stopping and self._queue.empty():
                return
            if self._keeper.state is StreamState.LISTENING:
                self._missed.ask()
            if self._queue.empty():
                self._wake.wait(self._pace.again_seconds)
                self._wake.clear()

    def _collect(self) -> list[_Heard | _Turned]:
        """Everything in the queue, as it was heard."""
        found = []
        while True:
            try:
                found.append(self._queue.get_nowait())
            except queue.Empty:
                return found

    def _store_all(self, heard: deque[_Heard | _Turned]) -> bool:
        """Store what was heard, one by one; an item leaves the queue when it is stored. Whether an event is new."""
        new = False
        while heard:
            item = heard[0]
            if isinstance(item, _Turned):
                self._keeper.turn(item.state, item.error)
            else:
                self._keeper.heard(item.at)
                new |= self._store(item)
            heard.popleft()
        return new

    def _store(self, item: _Heard) -> bool:
        try:
            return store_event(self._keeper.connection(), item.event, item.at)
        except AWAY:
            raise
        except psycopg.Error:
            # Nothing of what is heard may stop what is heard after it.
            _LOG.exception("an event of account %s could not be stored", self.account_id)
            self._missed.note()
            return False


class _Missed:
    """What nobody heard, or could store: asked of the exchange, beside the writer, which goes on."""

    def __init__(self, writer: Writer, account_id: str, database_url: str, pace: StreamPace) -> None:
        self._writer = writer
        self._account_id = account_id
        self._database_url = database_url
        self._pace = pace
        self._lock = threading.Lock()
        self._attempts_left = 0
        self._not_before = 0.0
        self._asking: threading.Thread | None = None

    def note(self) -> None:
        """Something may have been missed just now."""
        with self._lock:
            self._attempts_left = self._pace.catch_up_attempts
            self._not_before = 0.0

    def ask(self) -> None:
        """Ask for it, if there is something to ask and nobody is asking."""
        if self._asking is not None and self._asking.is_alive():
            return
        with self._lock:
            if not self._attempts_left or time.monotonic() < self._not_before:
                return
            self._attempts_left -= 1
            attempts_left = self._attempts_left
            self._not_before = time.monotonic() + self._pace.catch_up_again_seconds
        self._asking = threading.Thread(
            target=self._ask, args=(attempts_left,), name=f"catch up {self._account_id}", daemon=True
        )
        self._asking.start()

    def join(self) -> None:
        """Wait a moment for whoever is asking; what it writes is one transaction, so it may be left alone too."""
        if self._asking is not None:
            self._asking.join(_JOIN_SECONDS)

    def _ask(self, attempts_left: int) -> None:
        try:
            done = self._writer.catch_up()
        except Exception as error:  # noqa: BLE001  beside the writer: it is tried again, and the sync has it anyway
            said = redact(f"{type(error).__name__}: {error}", self._database_url)
            _LOG.warning("what the stream of account %s missed could not be asked for: %s", self._account_id, said)
            done = False
        with self._lock:
            if done and self._attempts_left == attempts_left:  # nothing was missed since
                self._attempts_left = 0
        if not done and not attempts_left:
            _LOG.warning("what the stream of account %s missed is left to the order status sync", self._account_id)
