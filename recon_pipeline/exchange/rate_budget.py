"""How many requests an account still has: one budget per account and process, shared by all its threads and clients.

What belongs here: counting, the exchange's own count from its headers, waiting. What does not: sending, retrying.

An exchange counts requests per account and minute, whoever sends them; the bots send theirs too. So a share of every
window is left to them, and what the exchange reports as remaining always beats our own count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from recon_pipeline.exchange.gateway import RateLimitedError

WINDOW_SECONDS: Final = 60.0
_SAME_WINDOW_SECONDS: Final = 2.0
"""Two reports of one window's end differ by less: the exchange reports whole seconds."""


@dataclass(frozen=True)
class Timing:
    """The clocks and the sleep that everything here uses; tests inject their own."""

    wall: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class RateReport:
    """What the headers of one answer say about the account's requests."""

    limit: int | None
    remaining: int | None
    reset_in: float | None

    @classmethod
    def of(cls, headers: Mapping[str, str], *, wall: float) -> RateReport:
        """Read the X-Ratelimit headers. The reset is measured on the exchange's clock where the answer has a Date."""
        reset = _number(headers.get("X-Ratelimit-Reset"))
        if reset is not None:
            reset = min(max(0.0, reset - _date(headers.get("Date"), default=wall)), WINDOW_SECONDS)
        limit, remaining = _number(headers.get("X-Ratelimit-Limit")), _number(headers.get("X-Ratelimit-Remaining"))
        return cls(
            limit=int(limit) if limit is not None and limit >= 1 else None,
            remaining=max(0, int(remaining)) if remaining is not None else None,
            reset_in=reset,
        )


def _number(text: str | None) -> float | None:
    if text is None or not text.strip().isascii() or not text.strip().lstrip("-").isdigit() or len(text) > 15:
        return None
    return float(text)


def _date(text: str | None, *, default: float) -> float:
    if not text:
        return default
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return default


class RateBudget:
    """The requests of one account. Thread safe.

    ``reserve`` is the share of every window that is never taken, because the account's bots need it.
    """

    def __init__(self, *, per_minute: int = 200, reserve: float = 0.1, timing: Timing | None = None) -> None:
        if per_minute < 1 or not 0 <= reserve < 1:
            raise ValueError("a budget needs at least one request a minute and a reserve from 0 to below 1")
        self._timing = timing or Timing()
        self._reserve = reserve
        self._lock = threading.Lock()
        self._limit = per_minute
        self._remaining = per_minute
        self._window_ends = float("-inf")
        self._reported = False
        self._reported_limit: int | None = None

    @property
    def limit(self) -> int | None:
        """The account's requests a minute as the exchange last reported them, None until it did."""
        with self._lock:
            return self._reported_limit

    @property
    def remaining(self) -> int | None:
        """What is left of the current window as far as the exchange has reported, else None."""
        with self._lock:
            return self._remaining if self._reported else None

    def take(self, *, deadline: float) -> None:
        """Take one request, waiting for the next window where this one is used up.

        ``deadline`` is an instant of the steady clock; a wait that would pass it raises ``RateLimitedError`` at once.
        """
        while True:
            with self._lock:
                now = self._timing.steady()
                if now >= self._window_ends:
                    self._remaining, self._window_ends = self._limit, now + WINDOW_SECONDS
                if self._remaining > int(self._limit * self._reserve):
                    self._remaining -= 1
                    return
                wait = self._window_ends - now
            if now + wait > deadline:
                raise RateLimitedError(
                    f"the account's {self._limit} requests a minute are used up for another {wait:.0f} s", reset_in=wait
                )
            self._timing.sleep(wait)

    def report(self, report: RateReport) -> None:
        """Take over what the exchange said with an answer."""
        with self._lock:
            now = self._timing.steady()
            self._limit = report.limit or self._limit
            self._reported_limit = report.limit or self._reported_limit
            if report.remaining is None:
                return
            self._reported = True
            ends = self._window_ends if report.reset_in is None else now + report.reset_in
            new_window = ends > self._window_ends + _SAME_WINDOW_SECONDS and now >= self._window_ends
            self._remaining = report.remaining if new_window else min(self._remaining, report.remaining)
            self._window_ends = ends

    def refused(self, report: RateReport) -> None:
        """Note a 429: nothing is left until the reset."""
        self.report(RateReport(report.limit, 0, report.reset_in))


class RateBudgets:
    """The budgets of all accounts of a process."""

    def __init__(self, *, per_minute: int = 200, reserve: float = 0.1, timing: Timing | None = None) -> None:
        self._per_minute = per_minute
        self._reserve = reserve
        self._timing = timing
        self._lock = threading.Lock()
        self._budgets: dict[str, RateBudget] = {}

    def of(self, account_id: str) -> RateBudget:
        """Return the account's one budget."""
        with self._lock:
            if account_id not in self._budgets:
                self._budgets[account_id] = RateBudget(
                    per_minute=self._per_minute, reserve=self._reserve, timing=self._timing
                )
            return self._budgets[account_id]
