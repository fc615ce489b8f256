"""The connection under a request: how to cut it. uvicorn has no word for that, so its protocol is watched."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from uvicorn.protocols.http import h11_impl

_TRANSPORTS: dict[Any, asyncio.Transport] = {}


class TrackedProtocol(h11_impl.H11Protocol):
    """uvicorn's HTTP protocol, with its transport to be found by the client's address, to be able to cut it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the transport."""
        super().connection_made(transport)
        _TRANSPORTS[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        _TRANSPORTS.pop(self.client, None)
        super().connection_lost(exc)


def cut_connection(scope: MutableMapping[str, Any]) -> None:
    """Reset the connection that a request came by."""
    client = scope.get("client")
    transport = _TRANSPORTS.get(tuple(client)) if client else None
    if transport is not None:
        transport.abort()
