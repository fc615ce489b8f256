"""The process behind the endpoints: the server on its socket, the thread that reads, a clean end.

What belongs here: starting and stopping. What does not: what is answered (``app``), making the socket (``sockets``), the command.
"""

from __future__ import annotations

import gc
import signal
import socket
import sys
from collections.abc import Callable
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from recon_pipeline.ops.keeper import Keeper

SWITCH_SECONDS: Final = 0.0005
"""How long the thread that reads and renders may keep the interpreter while requests wait; Python's own 5 ms would add up, for a
request gives it up several times."""
CONNECTIONS: Final = 500
STOP_SECONDS: Final = 5


def run_server(app: ASGIApp, listening: socket.socket, keeper: Keeper, *, when_ready: Callable[[], None]) -> bool:
    """Answer until SIGINT or SIGTERM; only the main thread may call it.

    :return: whether it was told to end: False if the thread that reads died
    """
    dead: list[bool] = []
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=STOP_SECONDS,
        ),
        when_ready,
    )

    def end(*_: object) -> None:
        server.should_exit = True

    def reader_died() -> None:
        dead.append(True)
        end()

    for number in (signal.SIGINT, signal.SIGTERM):
        # While it runs the server takes these signals itself; what comes before, and what it sends on afterwards, arrives here.
        signal.signal(number, end)

    sys.setswitchinterval(SWITCH_SECONDS)
    # What the imports left is never looked through again: a full collection would hold up every request.
    gc.collect()
    gc.freeze()
    keeper.start(when_dead=reader_died)
    try:
        server.run(sockets=[listening])
    finally:
        keeper.stop()
    return not dead


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, when_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_ready = when_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._when_ready()
