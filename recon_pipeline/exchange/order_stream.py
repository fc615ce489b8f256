"""Listens to one Alpaca account's order updates over alpaca-py's TradingStream, and says at any time whether it does.

alpaca-py brings the address's protocol: connecting, authenticating, subscribing. Its endless loop is not used: that logs and
swallows whatever a handler raises, hides whether it is connected, waits three minutes for a dead peer, and hammers on keys that
were refused. What belongs here: one connection after the other until told to stop. What does not: what a message says
(``domain.order_events``), storing and writing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn, Protocol
from urllib.parse import urlsplit, urlunsplit

import websockets.exceptions
from alpaca.common.utils import reconnect_delay
from alpaca.trading.stream import TradingStream
from websockets.legacy.exceptions import InvalidStatusCode

from recon_pipeline.domain.order_events import TRADE_UPDATES, StreamState
from recon_pipeline.exchange.credentials import AccountCredentials

_LOG = logging.getLogger(__name__)
_SCHEMES: Final = {"https": "wss", "http": "ws"}
_REFUSALS: Final = frozenset({401, 403})
_LONGEST_ERROR: Final = 300


@dataclass(frozen=True)
class StreamLimits:
    """How long things take, in seconds."""

    open_seconds: float = 15.0
    """to connect, authenticate and subscribe"""
    ping_seconds: float = 10.0
    silent_seconds: float = 30.0
    """without an answer to a ping the connection is dead"""
    stable_seconds: float = 10.0
    """a connection that listened for so long begins the back-off again"""
    backoff_seconds: float = 1.0
    backoff_cap_seconds: float = 30.0
    refused_seconds: float = 300.0
    """between attempts with keys that were refused: asking faster mends nothing"""


class Ears(Protocol):
    """Who is told. Called on the stream's own thread: must not block, and must not raise."""

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of the stream, numbers exact."""
        ...

    def hear_noise(self, why: str) -> None:
        """Take note that something arrived that can't be read: it may have been an event."""
        ...

    def hear_state(self, state: StreamState, error: str) -> None:
        """Take note of what the stream is doing now."""
        ...


class _RefusedError(Exception):
    """The exchange does not let these keys listen."""


class _LostError(Exception):
    """There is no connection any more, or none came about."""


class _Wire(TradingStream):
    """One connection: alpaca-py's steps, one by one."""

    async def open(self) -> None:
        """Connect, authenticate, subscribe."""
        own: Any = self  # alpaca-py's steps are not typed
        self.subscribe_trade_updates(_unused)
        await own._connect()  # noqa: SLF001
        try:
            await own._auth()  # noqa: SLF001
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
            raise _LostError("the answer to the keys can't be read") from error
        except ValueError as error:
            raise _RefusedError("the exchange refused the keys") from error
        await self._subscribe_trade_updates()

    async def receive(self) -> str | bytes:
        """Wait for the next frame."""
        socket: Any = self._ws
        frame: str | bytes = await socket.recv()
        return frame


async def _unused(_: object) -> None:
    """alpaca-py subscribes only where there is a handler; frames are read without it."""


class OrderStream:
    """The stream of one account. ``run`` blocks until ``stop``, which any thread may call."""

    def __init__(self, credentials: AccountCredentials, ears: Ears, *, limits: StreamLimits | None = None) -> None:
        self._credentials = credentials
        self._address = stream_address(credentials.base_url)
        self._ears = ears
        self._limits = limits or StreamLimits()
        self._lock = threading.Lock()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None

    def run(self) -> None:
        """Listen, and connect again and again, until told to stop. Only a defect raises."""
        asyncio.run(self._run())

    def stop(self) -> None:
        """Let ``run`` return; also before it has begun."""
        with self._lock:
            self._stopping = True
            if self._loop is not None and self._stopped is not None:
                self._loop.call_soon_threadsafe(self._stopped.set)

    async def _run(self) -> None:
        stopped = asyncio.Event()
        with self._lock:
            if self._stopping:
                return
            self._loop, self._stopped = asyncio.get_running_loop(), stopped
        try:
            listening = asyncio.create_task(self._listen())
            waiting = asyncio.create_task(stopped.wait())
            await asyncio.wait({listening, waiting}, return_when=asyncio.FIRST_COMPLETED)
            for task in (listening, waiting):
                task.cancel()
            await asyncio.wait({listening, waiting})
            if not listening.cancelled():
                listening.result()
            self._ears.hear_state(StreamState.STOPPED, "")
        finally:
            with self._lock:
                self._loop = self._stopped = None

    async def _listen(self) -> NoReturn:
        """One connection after the other."""
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            self._ears.hear_state(StreamState.CONNECTING, "")
            listened_from: list[float] = []
            limits, refused = self._limits, False
            try:
                await self._connection(listened_from)
            except _RefusedError as error:
                refused, said = True, str(error)
            except _LostError as error:
                said = str(error)
            except InvalidStatusCode as error:
                refused, said = error.status_code in _REFUSALS, f"the exchange answered HTTP {error.status_code}"
            except websockets.exceptions.WebSocketException as error:
                said = f"the connection ended: {error}"
            except TimeoutError:
                said = f"no connection within {limits.open_seconds:g} s"
            except OSError as error:
                said = f"no connection, or it broke: {error}"
            if listened_from and loop.time() - listened_from[0] >= limits.stable_seconds:
                failures = 0
            failures += 1
            said = self._credentials.redact(said)[:_LONGEST_ERROR]
            _LOG.warning("order stream of account %s: %s", self._credentials.account_id, said)
            self._ears.hear_state(StreamState.DOWN, said)
            wait = reconnect_delay(failures, limits.backoff_seconds, limits.backoff_cap_seconds)
            await asyncio.sleep(limits.refused_seconds if refused else wait)

    async def _connection(self, listened_from: list[float]) -> NoReturn:
        """Listen over one connection until it ends, which it does by an exception."""
        limits = self._limits
        wire = _Wire(
            self._credentials.key_id,
            self._credentials.secret_key,
            raw_data=True,
            url_override=self._address,
            websocket_params={
                "open_timeout": limits.open_seconds,
                "close_timeout": 2,
                "ping_interval": limits.ping_seconds,
                "ping_timeout": limits.silent_seconds,
                "max_queue": 1024,
            },
        )
        try:
            async with asyncio.timeout(limits.open_seconds):
                await wire.open()
                while not listened_from:
                    self._take(await wire.receive(), listened_from)
            self._ears.hear_state(StreamState.LISTENING, "")
            while True:
                self._take(await wire.receive(), listened_from)
        finally:
            with contextlib.suppress(websockets.exceptions.WebSocketException, OSError):
                await wire.close()

    def _take(self, frame: str | bytes, listened_from: list[float]) -> None:
        """Pass a message on; note the confirmation of the subscription."""
        try:
            text = frame.decode() if isinstance(frame, bytes) else frame
            message = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            self._ears.hear_noise("a frame that is no JSON")
            return
        if not isinstance(message, dict):
            self._ears.hear_noise("a frame that is no object")
            return
        stream, data = message.get("stream"), message.get("data")
        if stream == TRADE_UPDATES:
            self._ears.hear(message)
        elif stream == "listening":
            streams = data.get("streams") if isinstance(data, dict) else None
            if not isinstance(streams, list) or TRADE_UPDATES not in streams:
                raise _LostError("the exchange did not subscribe to the order updates")
            listened_from.append(asyncio.get_running_loop().time())
        elif stream == "authorization" and isinstance(data, dict) and data.get("status") != "authorized":
            raise _RefusedError("the exchange refused to let these keys listen")
        else:
            _LOG.info("order stream of account %s: a message of %r", self._credentials.account_id, stream)


def stream_address(base_url: str) -> str:
    """The stream's address for the base URL of an account: the same host, ``/stream``."""
    parts = urlsplit(base_url)
    path = parts.path.rstrip("/").removesuffix("/v2")
    return urlunsplit((_SCHEMES.get(parts.scheme, parts.scheme), parts.netloc, f"{path}/stream", "", ""))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
