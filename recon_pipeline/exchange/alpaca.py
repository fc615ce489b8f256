"""Alpaca's Trading API over alpaca-py: single requests, read only, with time-outs, retries and exact numbers.

What belongs here: one request and its answer. What does not: which requests make up a reading (``evidence``), and what
an order means (the domain).

alpaca-py brings the addresses, the headers and the session. What it lacks is replaced at one seam, the method that
sends one request (``_one_request``): a time-out (it has none), retries within the rate budget (its own sleep a
fixed 3 s and repeat a POST), and JSON numbers as ``Decimal`` (its models drop fields and make floats of quantities).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NoReturn, Self, TypeVar, cast
from urllib.parse import quote, urlsplit

import requests
import urllib3
from alpaca.trading.client import TradingClient
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState, Retrying, wait_random_exponential

from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.gateway import (
    Absent,
    ConnectionFailedError,
    CredentialsError,
    DeadlineError,
    Found,
    NoAnswerInTimeError,
    NotFoundError,
    RateLimitedError,
    RequestError,
    ServerError,
    TransientError,
    UnreadableAnswerError,
)
from recon_pipeline.exchange.rate_budget import RateBudget, RateReport, Timing

Raw = Mapping[str, Any]
T = TypeVar("T")

NOT_FOUND_CODE: Final = 40410000
ORDERS_PAGE: Final = 500
FILLS_PAGE: Final = 100
_LONGEST_ANSWER: Final = 64 * 1024 * 1024
_LONGEST_MESSAGE: Final = 200
_BROKEN: Final = (
    requests.exceptions.ConnectionError,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


@dataclass(frozen=True)
class ClientLimits:
    """How long a request, its retries and all requests of one client may take, in seconds."""

    connect_seconds: float = 5.0
    read_seconds: float = 15.0
    answer_seconds: float = 30.0
    attempts: int = 4
    backoff_seconds: float = 0.5
    backoff_cap_seconds: float = 8.0
    rate_wait_cap_seconds: float = 65.0
    deadline_seconds: float = 120.0


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class _TimeoutAdapter(HTTPAdapter):
    """Gives every request a time-out for connecting and for each read."""

    def __init__(self, limits: ClientLimits) -> None:
        self._default = (limits.connect_seconds, limits.read_seconds)
        super().__init__(max_retries=0)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._default
        return super().send(request, *args, **kwargs)


class _WireClient(TradingClient):
    """alpaca-py's client, handing back the answer itself instead of parsing it, retrying or raising on it."""

    def __init__(self, credentials: AccountCredentials, limits: ClientLimits, timing: Timing) -> None:
        super().__init__(
            api_key=credentials.key_id,
            secret_key=credentials.secret_key,
            raw_data=True,
            url_override=credentials.base_url.rstrip("/"),
        )
        self._retry = 0
        self._limits = limits
        self._timing = timing
        adapter = _TimeoutAdapter(limits)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        del retry
        if method != "GET":
            raise RequestError(f"{method} is not sent: this client only reads")
        with self._session.request(method, url, stream=True, **opts) as response:
            return _Answer(response.status_code, response.headers, self._body(response))

    def _body(self, response: requests.Response) -> bytes:
        """Read the whole body in the time that one answer may take; a time-out per read alone lets it trickle."""
        until = self._timing.steady() + self._limits.answer_seconds
        parts: list[bytes] = []
        length = 0
        while part := response.raw.read1(65_536, decode_content=True):
            parts.append(part)
            length += len(part)
            if length > _LONGEST_ANSWER:
                raise UnreadableAnswerError(
                    f"the answer to {urlsplit(response.url).path} is longer than {_LONGEST_ANSWER} bytes"
                )
            if self._timing.steady() > until:
                raise NoAnswerInTimeError(
                    f"{urlsplit(response.url).path}: not whole in {self._limits.answer_seconds:g} s"
                )
        return b"".join(parts)

    def close(self) -> None:
        self._session.close()


class AlpacaClient:
    """Requests of one account, for one reading or one batch of look-ups, in one thread.

    All its requests together may take ``limits.deadline_seconds`` from its construction. Failures are raised as
    :class:`~recon_pipeline.exchange.gateway.ExchangeError`.
    """

    def __init__(
        self,
        credentials: AccountCredentials,
        *,
        budget: RateBudget,
        limits: ClientLimits | None = None,
        timing: Timing | None = None,
        spent: Callable[[int], None] | None = None,
    ) -> None:
        self._credentials = credentials
        self._budget = budget
        self._limits = limits or ClientLimits()
        self._timing = timing or Timing()
        self._wire = _WireClient(credentials, self._limits, self._timing)
        self._host = urlsplit(credentials.base_url).hostname or "?"
        self._deadline = self._timing.steady() + self._limits.deadline_seconds
        self._backoff = wait_random_exponential(
            multiplier=self._limits.backoff_seconds, max=self._limits.backoff_cap_seconds, min=0.05
        )
        self._spent = spent
        self.calls = 0

    def __enter__(self) -> Self:
        """Return the client; leaving the block closes its connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections, and say how many requests were sent."""
        self._wire.close()
        if self._spent is not None:
            self._spent(self.calls)

    @property
    def rate_remaining(self) -> int | None:
        """What the exchange last reported as left of this minute's requests."""
        return self._budget.remaining

    def account(self) -> Raw:
        """Return the account's own record."""
        return self._get("/account", {}, _object_with_id)

    def positions(self) -> list[Raw]:
        """Return all positions. Single ones are never asked for: crypto symbols answer 404 though they are held."""
        return self._get("/positions", {}, _objects)

    def open_orders(self, *, max_pages: int = 20) -> list[Raw]:
        """Return all orders that the exchange shows as open, over as many pages as it takes."""
        orders: list[Raw] = []
        for _ in range(max_pages):
            page = self.orders_page(status="open", after_order_id=str(orders[-1]["id"]) if orders else "")
            orders += page
            if len(page) < ORDERS_PAGE:
                return orders
        raise UnreadableAnswerError(f"more than {max_pages * ORDERS_PAGE} open orders were listed")

    def orders_page(
        self,
        *,
        after_order_id: str = "",
        after: str = "",
        until: str = "",
        status: str = "all",
        limit: int = ORDERS_PAGE,
    ) -> list[Raw]:
        """Return one page of orders, oldest submission first: behind the given one, or submitted between two instants.

        The exchange takes either a place or a span of time.
        """
        query: dict[str, Any] = {"status": status, "direction": "asc", "limit": limit, "nested": "false"}
        query |= {k: v for k, v in (("after_order_id", after_order_id), ("after", after), ("until", until)) if v}
        return self._get("/orders", query, _objects_with_id)

    def fills(
        self, *, after: str = "", page_token: str = "", order_id: str = "", page_size: int = FILLS_PAGE
    ) -> list[Raw]:
        """Return one page of executions, oldest first: those created after ``after``, behind ``page_token``."""
        query: dict[str, Any] = {"direction": "asc", "page_size": page_size}
        query |= {k: v for k, v in (("after", after), ("page_token", page_token), ("order_id", order_id)) if v}
        return self._get("/account/activities/FILL", query, _objects_with_id)

    def order(self, order_id: str) -> Found | Absent:
        """Return the order, or Absent where the exchange itself says that there is none."""
        return self._one_order(f"/orders/{quote(order_id, safe='')}", {}, "id", order_id)

    def order_by_client_id(self, client_order_id: str) -> Found | Absent:
        """Return the order with this client id, or Absent where the exchange itself says that there is none."""
        query = {"client_order_id": client_order_id}
        return self._one_order("/orders:by_client_order_id", query, "client_order_id", client_order_id)

    def _one_order(self, path: str, query: Mapping[str, Any], key: str, value: str) -> Found | Absent:
        def meant(answer: object) -> Raw:
            order = _object_with_id(answer)
            if order.get(key) != value:
                raise _ShapeError(f"an order with another {key} than the one asked for")
            return order

        try:
            return Found(self._get(path, query, meant))
        except NotFoundError:
            return Absent((value,))

    def _get(self, path: str, query: Mapping[str, Any], shape: Callable[[object], T]) -> T:
        """Send one GET until it brings an answer of the right shape, or until repeating is no use any more."""
        retrying = Retrying(
            sleep=self._timing.sleep, wait=self._wait, stop=self._stop, retry=_worth_repeating, reraise=True
        )
        return cast("T", retrying(self._attempt, path, query, shape))

    def _wait(self, state: RetryCallState) -> float:
        error = _error_of(state)
        backoff = float(self._backoff(state))
        if isinstance(error, RateLimitedError):
            wait = backoff if error.reset_in is None else error.reset_in + min(backoff, 1.0)
            return min(max(wait, backoff), self._limits.rate_wait_cap_seconds)
        return backoff

    def _stop(self, state: RetryCallState) -> bool:
        """Give up after the last attempt or where the wait would pass the deadline. A 429 is no attempt."""
        late = self._timing.steady() + state.upcoming_sleep >= self._deadline
        used_up = state.attempt_number >= self._limits.attempts
        return late or (used_up and not isinstance(_error_of(state), RateLimitedError))

    def _attempt(self, path: str, query: Mapping[str, Any], shape: Callable[[object], T]) -> T:
        what = f"GET {path} at {self._host}"
        if self._timing.steady() >= self._deadline:
            raise DeadlineError(f"{what} was not sent: {self._limits.deadline_seconds:g} s are used up")
        self._budget.take(deadline=self._deadline)
        self.calls += 1
        answer = self._send(path, query, what)
        report = RateReport.of(answer.headers, wall=self._timing.wall())
        if answer.status == requests.codes.too_many_requests:
            self._budget.refused(report)
        else:
            self._budget.report(report)
        if not 200 <= answer.status < 300:
            self._raise_for(answer, report, what)
        try:
            return shape(_parsed(answer.body))
        except _ShapeError as error:
            raise UnreadableAnswerError(f"{what} brought {error}", status=answer.status) from None

    def _send(self, path: str, query: Mapping[str, Any], what: str) -> _Answer:
        try:
            return cast("_Answer", self._wire.get(path, dict(query)))
        except requests.exceptions.ConnectTimeout as error:
            raise ConnectionFailedError(f"{what}: no connection within {self._limits.connect_seconds:g} s") from error
        except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
            raise NoAnswerInTimeError(f"{what}: no answer within {self._limits.read_seconds:g} s") from error
        except (*_BROKEN, urllib3.exceptions.HTTPError) as error:
            raise ConnectionFailedError(f"{what}: no connection, or it broke ({type(error).__name__})") from error
        except requests.exceptions.RequestException as error:
            raise RequestError(f"{what} could not be sent ({type(error).__name__})") from error
        except OSError as error:
            raise ConnectionFailedError(f"{what}: the connection broke ({type(error).__name__})") from error

    def _raise_for(self, answer: _Answer, report: RateReport, what: str) -> NoReturn:
        code, said = _error_body(answer.body)
        status = answer.status
        message = what + (f" answered: {self._credentials.redact(said)}" if said else " failed")
        if status in (401, 403):
            raise CredentialsError(message, status=status, code=code)
        if status == 404 and code == NOT_FOUND_CODE:
            raise NotFoundError(message, status=status, code=code)
        if status == 429:
            raise RateLimitedError(message, status=status, code=code, reset_in=report.reset_in)
        if status == 408:
            raise NoAnswerInTimeError(message, status=status, code=code)
        if status >= 500:
            raise ServerError(message, status=status, code=code)
        raise RequestError(message, status=status, code=code)


def _error_of(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


def _worth_repeating(state: RetryCallState) -> bool:
    error = _error_of(state)
    return isinstance(error, TransientError) and not isinstance(error, DeadlineError)


class _ShapeError(Exception):
    """What the answer was instead of what is documented."""


def _parsed(body: bytes) -> object:
    """Parse JSON with every number exact. NaN and Infinity are no JSON."""
    if not body.strip():
        raise _ShapeError("an empty answer")
    try:
        return json.loads(body.decode("utf-8"), parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        kind = "an HTML page" if body.lstrip()[:1] == b"<" else "an answer that is no whole JSON document"
        raise _ShapeError(kind) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _object_with_id(answer: object) -> Raw:
    if not isinstance(answer, dict):
        raise _ShapeError(f"{_kind(answer)} instead of an object")
    if not isinstance(answer.get("id"), str) or not answer["id"]:
        raise _ShapeError("an object without an id")
    return answer


def _objects(answer: object) -> list[Raw]:
    if not isinstance(answer, list):
        raise _ShapeError(f"{_kind(answer)} instead of a list")
    if not all(isinstance(item, dict) for item in answer):
        raise _ShapeError("a list with something other than objects in it")
    return answer


def _objects_with_id(answer: object) -> list[Raw]:
    return [_object_with_id(item) for item in _objects(answer)]


def _kind(answer: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(answer), "a number")


def _error_body(body: bytes) -> tuple[int | None, str]:
    """Alpaca's code and message; nothing of a body that is not Alpaca's."""
    try:
        answer = _parsed(body)
    except _ShapeError:
        return None, ""
    if not isinstance(answer, dict):
        return None, ""
    code, message = answer.get("code"), answer.get("message")
    number = code if isinstance(code, int) and not isinstance(code, bool) else None
    if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 12:
        number = int(code)
    return number, " ".join(message.split())[:_LONGEST_MESSAGE] if isinstance(message, str) else ""
