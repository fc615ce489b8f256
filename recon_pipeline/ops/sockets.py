"""The address that ``recon serve`` listens on.

What belongs here: making the socket before anything else is loaded, so that a taken port is said at once. What does not: the
server on it (``serving``), and who may ask (``access``).
"""

from __future__ import annotations

import socket


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
