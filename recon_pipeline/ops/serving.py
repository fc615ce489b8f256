"""The process behind the endpoints: a socket, the server on it, the thread that reads, a clean end.

What belongs here: starting and stopping. What does not: what is answered (``app``) and the command (``cli.serve``).
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
CONNECTIONS: Final = 1_000
STOP_SECONDS: Final = 5


class ServeError(RuntimeError):
    """The service can't be started; the text says why."""


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the address; port 0 takes a free one.

    :raises ServeError: the address is taken, or none of this machine's
    """
    try:
        [family, kind, protocol, _, address] = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServeError(f"{host} is no address of this machine: {error.strerror}") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(2_048)
    except OSError as error:
        made.close()
        raise ServeError(f"{host}, port {port}, can't be bound: {error.strerror}") from None
    return made


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_server(app: ASGIApp, listening: socket.socket, keeper: Keeper, *, when_ready: Callable[[], None]) -> bool:
    """Answer until SIGINT or SIGTERM; only the main thread may call it.

    :return: whether it was told to end: False if the thread that reads died
    """
    dead: list[bool] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # The server takes these signals itself and sends them on when it has ended: they arrive here.
        signal.signal(number, lambda *_: None)
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

    def reader_died() -> None:
        dead.append(True)
        server.should_exit = True

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
