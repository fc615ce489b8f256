"""What the pipeline asks of an exchange and what it gets back: protocols, readings, certificates and errors.

What belongs here: the types that cross the border between an exchange and the rest, whichever exchange it is. What does
not: HTTP, JSON, retries (``alpaca``), and how a reading is proven complete (``evidence``).

A failure is a value as soon as it leaves this package: ``read_account`` hands back an :class:`AccountReading` with its
``error``, a look-up hands back :class:`Unknown`. Inside the package failures are exceptions of one tree::

    ExchangeError                          status, Alpaca's code, what to do; never a secret in its text
    ├── PermanentError                     repeating the request changes nothing; a person has to act
    │   ├── CredentialsError               401, 403: keys refused, or no keys at all
    │   ├── NotFoundError                  404 with code 40410000: the exchange says that it does not exist
    │   ├── RequestError                   any other 4xx, or a redirect: the request or the address is wrong
    │   └── AccountMismatchError           the keys open another exchange account than the one meant
    └── TransientError                     a later cycle may succeed; nothing has to be changed
        ├── RateLimitedError               429, and the wait for the next window is longer than allowed
        ├── ServerError                    5xx
        ├── ConnectionFailedError          refused, reset, dropped, not resolved
        ├── NoAnswerInTimeError            no (whole) answer within the time-out
        ├── DeadlineError                  the time that one reading may take is used up
        └── UnreadableAnswerError          null, HTML, cut-off JSON, or JSON of another shape than documented
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import pandas as pd

from recon_pipeline.domain.frames import EXCHANGE_ORDERS, NO_TIME, POSITIONS, Column, Schema

EXECUTIONS = Schema(
    "executions",
    (
        Column("account_id", "text", "account that the execution belongs to"),
        Column("execution_id", "text", "the exchange's id of the execution; never used twice"),
        Column("order_id", "text", "the exchange's id of the order"),
        Column("symbol", "text", "as the exchange spells it"),
        Column("side", "text", "BUY or SELL"),
        Column("qty_e9", "quantity", "executed by this execution", "1e-9 units of the asset"),
        Column(
            "cum_qty_e9", "quantity", "executed by the order up to and with this execution", "1e-9 units of the asset"
        ),
        Column("price", "price", "price of the execution", "quote currency per unit"),
        Column("executed_at_ms", "instant", "time of the execution", "ms since 1970, UTC"),
    ),
)


class ExchangeError(Exception):
    """A request that did not bring what was asked for. See the tree in the module's docstring."""

    advice: ClassVar[str] = "Look at the exchange's status page."
    transient: ClassVar[bool] = False

    def __init__(self, message: str, *, status: int | None = None, code: int | None = None) -> None:
        self.message = message
        self.status = status
        self.code = code
        super().__init__(message)

    def __str__(self) -> str:
        """Return the message, what the exchange answered, and what to do."""
        facts = [f"HTTP {self.status}"] if self.status is not None else []
        facts += [f"code {self.code}"] if self.code is not None else []
        what = f"{self.message} ({', '.join(facts)})" if facts else self.message
        return f"{what}. {self.advice}"


class PermanentError(ExchangeError):
    """Repeating the request changes nothing."""

    advice = "Nothing is retried; the cause has to be mended first."


class CredentialsError(PermanentError):
    """The exchange refused the keys, or there are none."""

    advice = "Check the account's key id, secret and base URL (paper keys do not work on the live address)."


class NotFoundError(PermanentError):
    """The exchange itself says that the thing does not exist (404 with its own code)."""

    advice = "The exchange does not know it."


class RequestError(PermanentError):
    """The exchange, or something before it, refused the request."""

    advice = "Check the base URL; if it is right, the exchange has changed its API."


class AccountMismatchError(PermanentError):
    """The keys open another exchange account than the one meant."""

    advice = "Give every account its own keys; evidence of two exchange accounts must never be mixed."


class TransientError(ExchangeError):
    """A later cycle may succeed."""

    advice = "The next cycle tries again."
    transient = True


class RateLimitedError(TransientError):
    """The account's requests of this minute are used up. ``reset_in`` is the wait the exchange asks for, in seconds."""

    advice = "The next cycle tries again; if it stays so, other programs use up the account's requests."

    def __init__(
        self, message: str, *, status: int | None = None, code: int | None = None, reset_in: float | None = None
    ) -> None:
        self.reset_in = reset_in
        super().__init__(message, status=status, code=code)


class ServerError(TransientError):
    """The exchange failed (5xx)."""


class ConnectionFailedError(TransientError):
    """No connection, or it broke before the whole answer was there."""

    advice = "The next cycle tries again; if it stays so, check the network and the base URL."


class NoAnswerInTimeError(TransientError):
    """No whole answer within the time-out."""


class DeadlineError(TransientError):
    """The time that one reading may take is used up."""

    advice = "The next cycle goes on from what was stored."


class UnreadableAnswerError(TransientError):
    """An answer that is not what the exchange documents: null, HTML, cut-off JSON, another shape."""

    advice = "The next cycle tries again; if it stays so, something between here and the exchange answers in its place."


@dataclass(frozen=True)
class Certificate:
    """Whether a reading is everything there is, and what it cost to know.

    ``complete`` is False with at least one reason an operator understands, or True with none.
    """

    complete: bool
    reasons: tuple[str, ...]
    window_start_ms: int
    window_end_ms: int
    pages: int
    calls: int
    rate_remaining: int | None

    def __post_init__(self) -> None:
        """Refuse a certificate that contradicts itself."""
        if self.complete == bool(self.reasons):
            raise ValueError("a certificate is complete without reasons, or incomplete with reasons")


@dataclass(frozen=True, eq=False)
class AccountReading:
    """One consistent reading of one account: positions, executions with their orders, positions again.

    What was read before a failure is kept for people to look at; ``certificate`` says whether it may be used.
    ``orders`` has every order with an execution in the window, every order that is not finished, and both ends of every
    replacement; ``raw_orders`` are the same as the exchange sent them.
    """

    account_id: str
    orders: pd.DataFrame
    executions: pd.DataFrame
    positions: pd.DataFrame
    positions_known: bool
    certificate: Certificate
    as_of_ms: int
    error: str = ""
    raw_orders: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    raw_positions: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @classmethod
    def failed(
        cls, account_id: str, error: str, *, since_ms: int, now_ms: int, calls: int = 0, pages: int = 0
    ) -> AccountReading:
        """Return the reading of an account that could not be read at all."""
        certificate = Certificate(
            complete=False,
            reasons=(error,),
            window_start_ms=since_ms,
            window_end_ms=now_ms,
            pages=pages,
            calls=calls,
            rate_remaining=None,
        )
        return cls(
            account_id=account_id,
            orders=EXCHANGE_ORDERS.empty(),
            executions=EXECUTIONS.empty(),
            positions=POSITIONS.empty(),
            positions_known=False,
            certificate=certificate,
            as_of_ms=now_ms,
            error=error,
        )


@dataclass(frozen=True)
class Usage:
    """What a reader's requests to one account have come to."""

    requests: int = 0
    """sent by this reader, repeated ones included"""
    rate_limit: int | None = None
    """requests a minute that the exchange grants the account; None: it has not said so yet"""
    rate_remaining: int | None = None
    """what the exchange last reported as left of the minute, whoever sent the rest; None: it has not said so yet"""


class ExchangeReader(Protocol):
    """Reads accounts. Failures of the exchange are values in the reading, never exceptions."""

    def read_account(self, account_id: str, *, since_ms: int, now_ms: int) -> AccountReading:
        """Read everything executed on the account since ``since_ms``, and its positions."""
        ...


@dataclass(frozen=True)
class Found:
    """The exchange knows the order; ``raw`` is its record as sent."""

    raw: Mapping[str, Any]


@dataclass(frozen=True)
class Absent:
    """The exchange itself says, for every id asked, that there is no such order."""

    asked: tuple[str, ...]


@dataclass(frozen=True)
class Unknown:
    """The exchange did not say whether the order exists; ``error`` says why. Never a reason to change an order."""

    error: str
    transient: bool = True
    asked: bool = True
    """False where the search ended before it came to the order: requests or time were used up, or nothing was answered"""


LookupResult = Found | Absent | Unknown


class OrderLookup(Protocol):
    """Asks for single orders."""

    def look_up(self, account_id: str, *, order_id: str, client_order_id: str = "") -> LookupResult:
        """Look an order up by its id, then by its client id."""
        ...


@dataclass(frozen=True)
class WantedOrder:
    """An order to look for, as the ledger names it."""

    order_id: str
    """the exchange's id, or the client's"""
    client_order_id: str = ""
    placed_at_ms: int = NO_TIME
    """about when it was placed: where pages are looked at for it"""


@dataclass(frozen=True)
class FoundOrders:
    """What a search for many orders of one account brought, and what it cost."""

    results: tuple[LookupResult, ...]
    """in the order of what was wanted"""
    api_calls: int = 0
    """requests sent, repeated ones included"""
    rate_remaining: int | None = None
    """what the exchange last reported as left of the minute"""
    in_bulk: int = 0
    """orders answered by pages"""
    singly: int = 0
    """orders asked for one by one"""
    error: str = ""
    """why the search ended before its end, or could not begin"""


class OrderFinder(Protocol):
    """Looks for many orders at once. Failures of the exchange are values, never exceptions."""

    def find_orders(self, account_id: str, orders: Sequence[WantedOrder], *, bulk_pages: int) -> FoundOrders:
        """Look for the orders in pages, at most ``bulk_pages``, and for those that are on none one by one."""
        ...

    def usage_of(self, account_id: str) -> Usage:
        """What the reader's requests to the account have come to."""
        ...
