"""Who may ask: the token, the Host header, and the headers that go with every answer.

What belongs here: deciding about a request before anything answers it. What does not: reading the settings (``settings``).

Without a token the service is for this machine only. A browser on it may have been sent here by a page that made its own name
resolve to this address (DNS rebinding), so then the Host header has to name this machine.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS: Final = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_LOCAL_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def page_policy(*, style: str, script: str) -> str:
    """Return the Content-Security-Policy of a page with exactly this inline style and script, which may ask its own server."""
    sources = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("style", style), ("script", script))
    }
    return (
        f"default-src 'none'; style-src 'sha256-{sources['style']}'; script-src 'sha256-{sources['script']}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


class AccessError(ValueError):
    """The service may not be started so; the text says what to set."""


@dataclass(frozen=True)
class Access:
    """The rules: with a token whoever knows it, without one whoever is on this machine."""

    token: str = field(default="", repr=False)
    hosts: frozenset[str] = frozenset()
    """names, beside this machine's own, that the Host header may have where no token is set"""

    def refusal(self, headers: Headers) -> tuple[HTTPStatus, str] | None:
        """Return why a request is refused, None if it is not."""
        if self.token:
            given = presented_token(headers.getlist("authorization"))
            if given is None or not hmac.compare_digest(given, self.token.encode()):
                return (
                    HTTPStatus.UNAUTHORIZED,
                    "A token is required: Authorization: Bearer, or Basic with it as password.",
                )
            return None
        named = headers.getlist("host")
        if len(named) != 1 or host_name(named[0]) not in _LOCAL_NAMES | self.hosts:
            return (
                HTTPStatus.MISDIRECTED_REQUEST,
                "Without a token only requests to this machine's own name are answered.",
            )
        return None


def check_binding(host: str, token: str) -> None:
    """Refuse an address that others can reach where no token is set.

    :raises AccessError: the address is not of the loopback interface, and there is no token
    """
    if not token and not is_loopback(host):
        raise AccessError(f"{host} can be reached from outside: set RECON_SERVE_TOKEN, or bind to 127.0.0.1")


def is_loopback(host: str) -> bool:
    """Tell whether an address is this machine's own. A name other than localhost may be anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def host_name(header: str) -> str:
    """Return the name of a Host header without its port, in lower case; empty if it is none."""
    text = header.strip().lower()
    if text.startswith("["):
        name, closed, _ = text[1:].partition("]")
        return name if closed else ""
    return text.partition(":")[0].removesuffix(".")


def presented_token(authorizations: list[str]) -> bytes | None:
    """Return the token of ``Authorization: Bearer <token>``, or of ``Basic`` whatever the user's name; None if there is none."""
    if len(authorizations) != 1:
        return None
    scheme, _, rest = authorizations[0].strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest.encode("latin-1", "replace")  # as it was on the wire
    if scheme.lower() == "basic":
        try:
            _, _, password = base64.b64decode(rest, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return None
        return password
    return None


class Guard:
    """ASGI middleware: refuses who may not ask, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._access.refusal(Headers(scope=scope))
        if refused is None:
            await self._app(scope, receive, send_with_headers)
            return
        status, text = refused
        asked = (
            {"www-authenticate": 'Basic realm="recon", charset="UTF-8"'} if status == HTTPStatus.UNAUTHORIZED else {}
        )
        await PlainTextResponse(f"{text}\n", status, asked)(scope, receive, send_with_headers)
