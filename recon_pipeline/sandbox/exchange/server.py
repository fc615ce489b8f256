"""Running the simulated exchange: in a thread (tests, sandbox), or in the foreground (`recon exchange-sim`)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from recon_pipeline.sandbox.exchange.app import trading_app
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.control import Control
from recon_pipeline.sandbox.exchange.faults import AsgiApp, FaultInjector, Faults, Message, Receive, Scope, Send
from recon_pipeline.sandbox.exchange.persistence import StateFile, read_state
from recon_pipeline.sandbox.exchange.ratelimit import RateLimiter
from recon_pipeline.sandbox.exchange.stream import StreamHub
from recon_pipeline.sandbox.exchange.wire import TrackedProtocol

START_SECONDS = 20.0
TICK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class SimulatedExchange:
    """A running exchange: where it listens, its state, its faults, its stream."""

    host: str
    port: int
    book: ExchangeBook
    faults: Faults
    limiter: RateLimiter
    stream: StreamHub

    @property
    def url(self) -> str:
        """For `TradingClient(..., url_override=...)`."""
        return f"http://{self.host}:{self.port}"

    @property
    def stream_url(self) -> str:
        """For `TradingStream(..., url_override=...)`."""
        return f"ws://{self.host}:{self.port}/stream"


class _SaveBeforeAnswer:
    """ASGI middleware: a change is in the state file before the client hears of it."""

    def __init__(self, app: AsgiApp, save: Callable[[], None]) -> None:
        self._app = app
        self._save = save

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def saved(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["method"] != "GET":
                self._save()
            await send(message)

        await self._app(scope, receive, saved if scope["type"] == "http" else send)


def _server(
    book: ExchangeBook, rate_window_seconds: float, state: StateFile | None
) -> tuple[uvicorn.Server, Faults, RateLimiter, StreamHub]:
    faults, limiter, hub = Faults(), RateLimiter(rate_window_seconds), StreamHub(book)
    save = state.save if state is not None else _nothing

    async def tick() -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            book.settle()
            save()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        ticker = asyncio.create_task(tick())
        try:
            yield
        finally:
            ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticker
            save()

    routes = [hub.route(), *Control(book, faults, hub).routes()]
    app = _SaveBeforeAnswer(FaultInjector(trading_app(book, limiter, routes, lifespan), book, faults), save)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=TrackedProtocol,
        ws="websockets-sansio",
        lifespan="on",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config), faults, limiter, hub


def _nothing() -> None:
    """Without a state file there is nothing to save."""


@contextmanager
def running_exchange(
    *,
    book: ExchangeBook | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    state: Path | None = None,
    rate_window_seconds: float = 60.0,
    prepare: Callable[[ExchangeBook], object] | None = None,
) -> Iterator[SimulatedExchange]:
    """Serve a book from a thread of its own until the block ends.

    With `state`, the book of that file goes on (if there is one) and every change is written to it. `prepare` is given the
    book before the first request is answered.
    """
    if state is not None:
        book = read_state(state) or book
    book = book or ExchangeBook()
    keeper = None if state is None else StateFile(state, book)
    if prepare is not None:
        prepare(book)
    with socket.create_server((host, port)) as listener:
        # asyncio sets this only on sockets whose protocol is named; without it every longer answer waits for an ACK.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server, faults, limiter, hub = _server(book, rate_window_seconds, keeper)
        thread = threading.Thread(target=server.run, args=([listener],), name="simulated-exchange", daemon=True)
        thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the simulated exchange did not start")
            time.sleep(0.005)
        try:
            yield SimulatedExchange(host, listener.getsockname()[1], book, faults, limiter, hub)
        finally:
            hub.close()
            server.should_exit = True
            thread.join(START_SECONDS)
