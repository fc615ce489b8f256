"""The trade_updates stream at /stream: authenticate, listen, then binary JSON frames of the account's own events."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from recon_pipeline.sandbox.exchange import errors
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.payloads import event_payload
from recon_pipeline.sandbox.exchange.trading import TradeEvent

STREAMS = ("trade_updates",)
_Frame = dict[str, Any]


@dataclass(eq=False, slots=True)
class _Connection:
    """One client: what it may see, what it asked for, and what waits to be sent (None ends the connection)."""

    loop: asyncio.AbstractEventLoop
    queue: asyncio.Queue[_Frame | None] = field(default_factory=asyncio.Queue)
    account_id: str = ""
    streams: tuple[str, ...] = ()

    def put(self, frame: _Frame | None) -> None:
        self.loop.call_soon_threadsafe(self.queue.put_nowait, frame)


class StreamHub:
    """All connected clients. `copies` above 1 sends every event so often: real streams do repeat themselves."""

    def __init__(self, book: ExchangeBook) -> None:
        self._book = book
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._sent: dict[str, list[_Frame]] = {}
        self.copies = 1
        book.listeners.append(self._on_event)

    def route(self) -> WebSocketRoute:
        """Where clients connect."""
        return WebSocketRoute("/stream", self._serve)

    def listeners(self, account_id: str) -> int:
        """How many clients listen to an account."""
        with self._lock:
            return sum(c.account_id == account_id and bool(c.streams) for c in self._connections)

    def replay(self, account_id: str, last: int) -> None:
        """Send the last events of an account again, with the same execution ids."""
        with self._lock:
            frames = self._sent.get(account_id, [])[-last:]
        for frame in frames:
            self._send(account_id, frame)

    def disconnect(self, account_id: str | None = None) -> None:
        """Close the connections of an account, or all of them."""
        with self._lock:
            for connection in self._connections:
                if account_id in (None, connection.account_id):
                    connection.put(None)

    def close(self) -> None:
        """Stop following the book."""
        self._book.listeners.remove(self._on_event)
        self.disconnect()

    def _on_event(self, event: TradeEvent) -> None:
        frame = event_payload(event)
        with self._lock:
            self._sent.setdefault(event.account_id, []).append(frame)
        for _ in range(self.copies):
            self._send(event.account_id, frame)

    def _send(self, account_id: str, frame: _Frame) -> None:
        with self._lock:
            for connection in self._connections:
                if connection.account_id == account_id and "trade_updates" in connection.streams:
                    connection.put(frame)

    async def _serve(self, socket: WebSocket) -> None:
        await socket.accept()
        connection = _Connection(asyncio.get_running_loop())
        with self._lock:
            self._connections.add(connection)
        sender = asyncio.create_task(_pump(socket, connection))
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    break
                self._answer(connection, message.get("text") or (message.get("bytes") or b"").decode())
        except WebSocketDisconnect:
            pass  # the client went away, which is its right
        finally:
            with self._lock:
                self._connections.discard(connection)
            sender.cancel()

    def _answer(self, connection: _Connection, text: str) -> None:
        try:
            message = json.loads(text)
            action, data = message.get("action"), message.get("data") or {}
        except (ValueError, AttributeError):
            connection.put(_frame("error", {"error": "invalid message"}))
            return
        if action in {"authenticate", "auth"}:
            # The newer clients put the keys next to the action.
            keys = data or {"key_id": message.get("key"), "secret_key": message.get("secret")}
            try:
                connection.account_id = self._book.authenticate(keys.get("key_id"), keys.get("secret_key")).id
                status = "authorized"
            except errors.ApiError:
                status = "unauthorized"
            connection.put(_frame("authorization", {"action": "authenticate", "status": status}))
        elif action == "listen" and not connection.account_id:
            connection.put(_frame("authorization", {"action": "listen", "status": "unauthorized"}))
        elif action == "listen":
            wanted = data.get("streams") or []
            connection.streams = tuple(stream for stream in STREAMS if stream in wanted)
            connection.put(_frame("listening", {"streams": list(connection.streams)}))
        else:
            connection.put(_frame("error", {"error": f"unknown action {action}"}))


def _frame(stream: str, data: dict[str, object]) -> _Frame:
    return {"stream": stream, "data": data}


async def _pump(socket: WebSocket, connection: _Connection) -> None:
    while True:
        frame = await connection.queue.get()
        if frame is None:
            await socket.close()
            return
        await socket.send_bytes(json.dumps(frame).encode())
