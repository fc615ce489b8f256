"""Faults on demand: what can go wrong between a client and the exchange, per route, account, count and probability.

Faults sit between the connection and the routes (`FaultInjector`), so that the API itself knows nothing of them. They
never touch the control surface. A fault with `after=True` lets the request take effect and spoils the answer only.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import random
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from recon_pipeline.sandbox.exchange import errors
from recon_pipeline.sandbox.exchange.accounts import Account
from recon_pipeline.sandbox.exchange.app import STALE_SECONDS
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.wire import cut_connection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class FaultKind(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"  # `seconds` before anything else happens
    RATE_LIMITED = "rate_limited"  # 429 42910000; `headers=False` leaves the rate headers out
    ERROR = "error"  # `status` with a JSON error
    HTML = "html"  # `status` with an HTML page
    DROP = "drop"  # the connection is cut before an answer
    DROP_MID_BODY = "drop_mid_body"  # the connection is cut in the middle of the answer
    TIMEOUT = "timeout"  # no answer for `seconds`, then the connection is cut
    TRUNCATE = "truncate"  # a list answer keeps its first `keep` items although there are more
    DUPLICATE = "duplicate"  # a list answer begins with the last `keep` items of the page before
    STALE = "stale"  # the state of `seconds` ago
    NULL_BODY = "null_body"  # `null`
    EMPTY_BODY = "empty_body"  # nothing at all
    EMPTY_LIST = "empty_list"  # `[]` although there is something
    NULL_FIELDS = "null_fields"  # `fields` of the answer's objects become null
    BUSY = "busy"  # a manual trade of `qty` `symbol` happens just before the answer


_AFTER_BY_NATURE = {
    FaultKind.DROP_MID_BODY,
    FaultKind.TRUNCATE,
    FaultKind.DUPLICATE,
    FaultKind.NULL_BODY,
    FaultKind.EMPTY_BODY,
    FaultKind.EMPTY_LIST,
    FaultKind.NULL_FIELDS,
}
_LIST_ONLY = {FaultKind.TRUNCATE, FaultKind.DUPLICATE, FaultKind.EMPTY_LIST}


@dataclass(slots=True)
class Fault:
    """One fault: when it strikes and what it does.

    `path` is a pattern such as `/v2/orders*`; `account` a number, id or key id ("" for all); `skip` lets so many
    matching requests pass first; `count` is how often it strikes (None: always); `probability` is drawn from `seed`.
    """

    kind: FaultKind
    path: str = "*"
    method: str = ""
    account: str = ""
    count: int | None = None
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    seconds: float = 1.0
    status: int = 500
    headers: bool = True
    after: bool = False
    keep: int = 1
    fields: tuple[str, ...] = ()
    symbol: str = "AAPL"
    side: str = "buy"
    qty: Decimal = Decimal(1)
    struck: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.kind = FaultKind(self.kind)
        self.fields = tuple(self.fields)
        self.qty = Decimal(self.qty)
        self.seconds, self.probability = float(self.seconds), float(self.probability)
        self._random = random.Random(self.seed)  # noqa: S311

    def strikes(self, method: str, path: str, account: Account | None) -> bool:
        """Whether it strikes this request; counts if it does."""
        if self.method and self.method.upper() != method:
            return False
        if not fnmatch.fnmatchcase(path, self.path):
            return False
        if self.account and (account is None or self.account not in (account.number, account.id, account.keys.key_id)):
            return False
        if self.count is not None and self.struck >= self.count:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self._random.random() >= self.probability:
            return False
        self.struck += 1
        return True

    @property
    def acts_after(self) -> bool:
        """Whether the request takes effect first."""
        return self.after or self.kind in _AFTER_BY_NATURE


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []

    def add(self, fault: Fault) -> Fault:
        """Put a fault in force."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """All is well again."""
        with self._lock:
            self._faults.clear()

    def all(self) -> list[Fault]:
        """What is in force, exhausted ones included."""
        with self._lock:
            return list(self._faults)

    def draw(self, method: str, path: str, account: Account | None) -> list[Fault]:
        """The faults that strike this request, in the order in which they were added."""
        with self._lock:
            self.requests.append((method, path))
            return [fault for fault in self._faults if fault.strikes(method, path, account)]


class FaultInjector:
    """ASGI middleware that applies the faults in force."""

    def __init__(self, app: AsgiApp, book: ExchangeBook, faults: Faults) -> None:
        self._app = app
        self._book = book
        self._faults = faults
        self._last_pages: dict[tuple[str, str], list[Any]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, with whatever strikes it."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith("/v2"):
            await self._app(scope, receive, send)
            return
        account = self._account(scope)
        faults = self._faults.draw(scope["method"], path, account)
        for fault in faults:
            if fault.kind is FaultKind.LATENCY:
                await asyncio.sleep(fault.seconds)
            elif fault.kind is FaultKind.STALE:
                scope[STALE_SECONDS] = fault.seconds
            elif fault.kind is FaultKind.BUSY and account is not None:
                self._book.manual_trade(account.id, fault.symbol, fault.side, fault.qty)
            elif not fault.acts_after and await self._break(fault, scope, receive, send):
                return
        key = (account.id if account else "", path)
        answer = _Answer()
        await self._app(scope, receive, answer.take)
        for fault in faults:
            if not fault.acts_after:
                continue
            if fault.kind is FaultKind.DROP_MID_BODY:
                await answer.give(send, until=max(1, len(answer.body) // 2))
                await asyncio.sleep(0.01)
                cut_connection(scope)
                return
            if fault.kind not in _AFTER_BY_NATURE:
                if await self._break(fault, scope, receive, send):
                    return
            else:
                self._spoil(fault, answer, key)
        if answer.is_list:
            self._last_pages[key] = answer.json()
        await answer.give(send)

    def _account(self, scope: Scope) -> Account | None:
        headers = dict(scope["headers"])
        key_id = headers.get(b"apca-api-key-id", b"").decode("latin-1")
        try:
            return self._book.account(key_id) if key_id else None
        except KeyError:
            return None

    async def _break(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> bool:
        """Answer (or not) instead of the exchange. True if the request is over."""
        if fault.kind is FaultKind.DROP:
            cut_connection(scope)
            return True
        if fault.kind is FaultKind.TIMEOUT:
            await _wait_for_disconnect(receive, fault.seconds)
            cut_connection(scope)
            return True
        if fault.kind is FaultKind.HTML:
            page = f"<html><head><title>{fault.status}</title></head><body><h1>{fault.status}</h1></body></html>"
            await _Answer.of(fault.status, page.encode(), "text/html").give(send)
            return True
        if fault.kind is FaultKind.RATE_LIMITED:
            answer = _Answer.of(429, json.dumps(errors.rate_limited().body).encode())
            if fault.headers:
                reset = int(self._book.clock.now_ns() // 1_000_000_000) + max(1, int(fault.seconds))
                limits = {"X-Ratelimit-Limit": "200", "X-Ratelimit-Remaining": "0", "X-Ratelimit-Reset": str(reset)}
                answer.headers += [(name.encode(), value.encode()) for name, value in limits.items()]
            await answer.give(send)
            return True
        if fault.kind is FaultKind.ERROR:
            body = {"code": fault.status * 100_000, "message": "internal server error occurred"}
            await _Answer.of(fault.status, json.dumps(body).encode()).give(send)
            return True
        return False

    def _spoil(self, fault: Fault, answer: _Answer, key: tuple[str, str]) -> None:
        """Change the content of an answer."""
        if answer.status >= 300 or (fault.kind in _LIST_ONLY and not answer.is_list):
            return
        if fault.kind is FaultKind.NULL_BODY:
            answer.body = b"null"
        elif fault.kind is FaultKind.EMPTY_BODY:
            answer.body = b""
        elif fault.kind is FaultKind.EMPTY_LIST:
            answer.body = b"[]"
        elif fault.kind is FaultKind.TRUNCATE:
            answer.put_json(answer.json()[: fault.keep])
        elif fault.kind is FaultKind.DUPLICATE:
            answer.put_json(_repeated(self._last_pages.get(key, []), answer.json(), fault.keep))
        elif fault.kind is FaultKind.NULL_FIELDS:
            content = answer.json()
            for item in content if isinstance(content, list) else [content]:
                item.update({name: None for name in fault.fields if name in item})
            answer.put_json(content)


def _repeated(before: list[Any], page: list[Any], keep: int) -> list[Any]:
    """The page with the last items of the one before at its beginning; a full page pushes its own last ones out.

    On a first page the items repeated are its own first ones.
    """
    again = before[-keep:] if before else page[:keep]
    full = bool(before) and len(page) >= len(before)
    merged = [*again, *page]
    return merged[: len(page)] if full and len(page) > keep else merged


class _Answer:
    """A response held back, to be changed or cut."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    @classmethod
    def of(cls, status: int, body: bytes, content_type: str = "application/json") -> _Answer:
        answer = cls()
        answer.status, answer.body = status, body
        answer.headers = [(b"content-type", content_type.encode())]
        return answer

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    async def give(self, send: Send, until: int | None = None) -> None:
        headers = [(name, value) for name, value in self.headers if name.lower() != b"content-length"]
        if self.status != 204:
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        body = self.body if until is None else self.body[:until]
        await send({"type": "http.response.body", "body": body, "more_body": until is not None})

    @property
    def is_list(self) -> bool:
        return self.status < 300 and self.body[:1] == b"["

    def json(self) -> Any:
        return json.loads(self.body)

    def put_json(self, content: Any) -> None:
        self.body = json.dumps(content, separators=(",", ":")).encode()


async def _wait_for_disconnect(receive: Receive, seconds: float) -> None:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    try:
        await asyncio.wait_for(gone(), seconds)
    except TimeoutError:
        return
