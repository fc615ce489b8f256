"""The request budget of each account: a fixed window of real time, and the headers that tell of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left after a request."""

    limit: int
    remaining: int
    reset: int
    allowed: bool

    @property
    def headers(self) -> dict[str, str]:
        """As Alpaca spells them."""
        return {
            "X-Ratelimit-Limit": str(self.limit),
            "X-Ratelimit-Remaining": str(self.remaining),
            "X-Ratelimit-Reset": str(self.reset),
        }


class RateLimiter:
    """Counts requests per account. Real time, also where the exchange's clock is held: clients wait in real time."""

    def __init__(self, window_seconds: float = 60.0, now: Callable[[], float] = time.time) -> None:
        self.window_seconds = window_seconds
        self._now = now
        self._windows: dict[str, tuple[float, int]] = {}

    def spend(self, account_id: str, limit: int) -> Budget:
        """Count one request."""
        now = self._now()
        started, used = self._windows.get(account_id, (now, 0))
        if now >= started + self.window_seconds:
            started, used = now, 0
        allowed = used < limit
        used += allowed
        self._windows[account_id] = (started, used)
        return Budget(limit, limit - used, math.ceil(started + self.window_seconds), allowed)
