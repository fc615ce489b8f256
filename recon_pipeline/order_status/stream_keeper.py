"""That one process listens to an account, and says so: the session's lock, and the heartbeat in ``recon.order_streams``.

What belongs here: taking the account, the connection that holds it, and what the process says of itself. What does not: what it
listens to and what it writes.

The lock ends with the session, so that a process that was killed leaves none behind. A holder that says nothing any more, because
its machine or its network is gone, is waited for and then passed over: two listeners cost requests, never truth.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from recon_pipeline.domain.order_events import StreamState
from recon_pipeline.ledger.database import READER, Connection, connect, redact
from recon_pipeline.ledger.order_events import save_stream, stream_of, try_listening
from recon_pipeline.order_status.stream_ports import AWAY

_LOG = logging.getLogger(__name__)
_BEATS_TO_WAIT = 2.5
_LONGEST_ERROR = 300


class AlreadyListeningError(Exception):
    """Another process listens to the account."""


@dataclass(frozen=True)
class StreamPace:
    """How often a stream does what, in seconds."""

    heartbeat_seconds: float = 10.0
    """whoever has said nothing for six of them is taken for gone"""
    again_seconds: float = 1.0
    """between two attempts at events that wait"""
    away_cap_seconds: float = 30.0
    """between two attempts at a database that is away, at most"""
    catch_up_again_seconds: float = 30.0
    """between two attempts at asking for what was missed"""
    catch_up_attempts: int = 5
    """after these the order status sync has it anyway"""


class StreamKeeper:
    """The account's lock and heartbeat. Used by one thread."""

    def __init__(self, account_id: str, database_url: str, now: Callable[[], dt.datetime], pace: StreamPace) -> None:
        self._account_id = account_id
        self._database_url = database_url
        self._now = now
        self._pace = pace
        self._connection: Connection | None = None
        self._claimed = False
        self.state = StreamState.CONNECTING
        self._error = ""
        self._last_event_at: dt.datetime | None = None
        self._connections = 0
        self._beaten = float("-inf")

    def __enter__(self) -> Self:
        """Return itself; nothing is opened yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say how it ended, and give the account back."""
        if self._claimed:
            if error is None:
                self.turn(StreamState.STOPPED, "")
            else:
                said = redact(f"{type(error).__name__}: {error}", self._database_url)
                self.turn(StreamState.DOWN, f"the process ended: {said}"[:_LONGEST_ERROR])
            try:
                self._say(self.connection())
            except AWAY as away:
                _LOG.warning("the end of the stream could not be noted: %s", redact(str(away), self._database_url))
        self.close()

    def claim(self, stopping: threading.Event) -> None:
        """Take the account; waits while nobody can say whether its holder lives.

        :raises AlreadyListeningError: somebody else has it, and lives
        """
        connection = self._open()
        seen = stream_of(connection, self._account_id)
        deadline = time.monotonic() + _BEATS_TO_WAIT * self._pace.heartbeat_seconds
        while not try_listening(connection, self._account_id):
            now_seen = stream_of(connection, self._account_id)
            if now_seen is not None and (seen is None or now_seen["seen_at"] > seen["seen_at"]):
                raise AlreadyListeningError(f"another process listens to account {self._account_id}")
            if time.monotonic() >= deadline:
                _LOG.warning("whoever held account %s says nothing any more and is passed over", self._account_id)
                break
            if stopping.wait(self._pace.heartbeat_seconds / 20):
                return
        self._claimed = True

    def connection(self) -> Connection:
        """The connection that holds the account; a new one where it was lost."""
        if self._connection is None or self._connection.closed:
            connection = self._open()
            # The old session may not have ended yet at the server; whoever took the account meanwhile is the other listener.
            if self._claimed and not try_listening(connection, self._account_id):
                _LOG.warning("account %s is still held by an earlier session", self._account_id)
        assert self._connection is not None  # noqa: S101  just opened
        return self._connection

    def close(self) -> None:
        """Close the connection, and with it give the account back; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def turn(self, state: StreamState, error: str) -> None:
        """Take note of what the stream does now; it is said with the next beat, which is due at once."""
        self.state, self._error = state, error
        self._connections += state is StreamState.LISTENING
        self._beaten = float("-inf")

    def heard(self, at: dt.datetime) -> None:
        """Take note of an event."""
        self._last_event_at = at

    def beat(self) -> None:
        """Say that the process lives, where it is time to."""
        if time.monotonic() - self._beaten >= self._pace.heartbeat_seconds:
            self._say(self.connection())

    def _say(self, connection: Connection) -> None:
        save_stream(
            connection,
            self._account_id,
            self.state,
            seen_at=self._now(),
            last_event_at=self._last_event_at,
            connections=self._connections,
            error=self._error,
        )
        self._connections = 0
        self._beaten = time.monotonic()

    def _open(self) -> Connection:
        self.close()
        self._connection = connect(self._database_url, READER, "recon stream")
        return self._connection
