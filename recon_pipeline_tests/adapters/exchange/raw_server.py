"""A server that answers with exactly the bytes it is told: what no well-behaved server would send."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Script = Callable[[socket.socket], None]


@dataclass
class RawServer:
    url: str
    answers: list[Script] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def answer(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Script:
    """A whole answer; `length` promises another length than the body has."""
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Length: {len(body) if length is None else length}",
        "Connection: close",
        *headers,
    ]

    def send(connection: socket.socket) -> None:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return send


def chunked(*chunks: bytes, end: bool = True) -> Script:
    def send(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        for chunk in chunks:
            connection.sendall(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if end:
            connection.sendall(b"0\r\n\r\n")

    return send


def trickle(seconds: float) -> Script:
    """A byte now and then, so that no single read takes long."""

    def send(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n[")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            connection.sendall(b" ")
            time.sleep(0.02)

    return send


def silence(seconds: float) -> Script:
    def send(connection: socket.socket) -> None:
        time.sleep(seconds)

    return send


def hang_up(connection: socket.socket) -> None:
    """Close without a word."""


@contextmanager
def raw_server(*answers: Script) -> Iterator[RawServer]:
    """Answers the requests in their order; the last answer is repeated."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}", list(answers))
        stopping = threading.Event()
        listener.settimeout(0.05)

        def serve() -> None:
            while not stopping.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with connection:
                    head = b""
                    connection.settimeout(2)
                    while b"\r\n\r\n" not in head and (part := connection.recv(65_536)):
                        head += part
                    server.requests.append(head.split(b"\r\n")[0].decode("latin-1"))
                    script = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                    try:
                        script(connection)
                    except OSError:
                        continue  # the client has gone: that is what some of the tests are about

        thread = threading.Thread(target=serve, name="raw-server", daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stopping.set()
            thread.join(5)
