"""Running the simulated exchange: in a thread (tests, sandbox), or in the foreground (`recon exchange-sim`)."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from recon_pipeline.sandbox.exchange.app import trading_app
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.faults import FaultInjector, Faults, TrackedProtocol
from recon_pipeline.sandbox.exchange.ratelimit import RateLimiter

START_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class SimulatedExchange:
    """A running exchange: where it listens, its state, and its faults."""

    host: str
    port: int
    book: ExchangeBook
    faults: Faults
    limiter: RateLimiter

    @property
    def url(self) -> str:
        """For `TradingClient(..., url_override=...)`."""
        return f"http://{self.host}:{self.port}"

    @property
    def stream_url(self) -> str:
        """For `TradingStream(..., url_override=...)`."""
        return f"ws://{self.host}:{self.port}/stream"


@contextmanager
def running_exchange(
    *, book: ExchangeBook | None = None, port: int = 0, rate_window_seconds: float = 60.0
) -> Iterator[SimulatedExchange]:
    """Serve a book on a loopback port from a thread of its own until the block ends."""
    book = book or ExchangeBook()
    faults, limiter = Faults(), RateLimiter(rate_window_seconds)
    app = FaultInjector(trading_app(book, limiter, []), book, faults)
    with socket.create_server(("127.0.0.1", port)) as listener:
        config = uvicorn.Config(
            app, loop="asyncio", http=TrackedProtocol, log_level="critical", lifespan="off", access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="simulated-exchange", daemon=True)
        thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the simulated exchange did not start")
            time.sleep(0.005)
        try:
            yield SimulatedExchange("127.0.0.1", listener.getsockname()[1], book, faults, limiter)
        finally:
            server.should_exit = True
            thread.join(START_SECONDS)
