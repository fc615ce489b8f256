"""What goes wrong, drawn from a seed: how a bot loses its rows, how orders go on, and what the exchange does to a reading."""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from recon_pipeline.sandbox.exchange import Fault, FaultKind

T = TypeVar("T")


class Rows(StrEnum):
    """How a bot writes an order down."""

    GOOD = "good"
    LOST = "lost"  # never
    LATE = "late"  # once, long after the order was over
    TWICE = "twice"  # under the client's id, and again under the exchange's
    CLIENT_KEY = "client_key"  # under the client's id, because the answer to the POST was lost
    STUCK = "stuck"  # as pending_new, and never again
    STUCK_PART = "stuck_part"  # up to the first partial fill, and never again
    NO_TAG = "no_tag"  # without its sub-tag
    BOOKS_ONLY = "books_only"  # position and history know of it, its row is lost
    MISREAD_END = "misread_end"  # canceled with fills is written down as canceled


ROW_WEIGHTS = {
    Rows.GOOD: 59,
    Rows.LOST: 8,
    Rows.LATE: 7,
    Rows.TWICE: 4,
    Rows.CLIENT_KEY: 6,
    Rows.STUCK: 6,
    Rows.STUCK_PART: 3,
    Rows.NO_TAG: 4,
    Rows.BOOKS_ONLY: 3,
}


class Course(StrEnum):
    """How an order goes at the exchange."""

    MARKET = "market"  # at once, or in parts where the symbol is thin
    PARTS = "parts"  # rests and is executed in parts, hours apart
    CANCELED = "canceled"  # executed in part or not at all, then canceled
    EXPIRED = "expired"
    REJECTED = "rejected"
    REPLACED = "replaced"  # executed in part, then replaced; the rest executes under the new id
    POSTED_LATE = "posted_late"  # executed, and its activity is posted much later


COURSE_WEIGHTS = {
    Course.MARKET: 59,
    Course.PARTS: 14,
    Course.CANCELED: 9,
    Course.EXPIRED: 4,
    Course.REJECTED: 3,
    Course.REPLACED: 9,
    Course.POSTED_LATE: 2,
}


class Marks(StrEnum):
    """How an order says whose it is."""

    CLIENT_ID = "client_id"
    TAG_ONLY = "tag_only"
    BOTH = "both"
    NONE = "none"


MARK_WEIGHTS = {Marks.BOTH: 60, Marks.CLIENT_ID: 33, Marks.TAG_ONLY: 5, Marks.NONE: 2}


def draw(rng: random.Random, weights: dict[T, int]) -> T:
    """One of the keys, by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


_LISTS = ("/v2/orders", "/v2/positions", "/v2/account/activities/FILL")
_ANY = ("*", "/v2/account", *_LISTS)


@dataclass(frozen=True)
class Trouble:
    """The exchange's trouble during one cycle."""

    kind: FaultKind
    account_id: str
    path: str
    count: int | None
    skip: int

    def fault(self) -> Fault:
        """A fresh fault: what struck before does not count."""
        waits = {FaultKind.LATENCY: 0.02, FaultKind.STALE: 1200.0}
        return Fault(
            self.kind,
            path=self.path,
            account=self.account_id,
            count=self.count,
            skip=self.skip,
            seconds=waits.get(self.kind, 2.0),
            status=503,
            after=False,
            keep=1,
            fields=("filled_qty", "filled_at", "qty"),
            symbol="GME",
            qty=Decimal(1),
        )


class Troubles:
    """Deals the troubles of the exchange: often none, sometimes passing, sometimes for all of a cycle; every kind in turn."""

    def __init__(self, seed: str, account_ids: list[str], share: float) -> None:
        self._rng = random.Random(seed)
        self._account_ids = account_ids
        self._share = share
        self._deck: list[FaultKind] = []

    def next(self) -> list[Trouble]:
        """What goes wrong during the next cycle."""
        rng = self._rng
        if rng.random() >= self._share:
            return []
        some = rng.randrange(1, len(self._account_ids) + 1)
        return [self._trouble(account_id) for account_id in rng.sample(self._account_ids, some)]

    def _trouble(self, account_id: str) -> Trouble:
        rng = self._rng
        if not self._deck:
            self._deck = rng.sample(list(FaultKind), len(FaultKind))
        kind = self._deck.pop()
        lasting = rng.random() < 0.4
        if kind is FaultKind.TIMEOUT:
            path, count = rng.choice(_LISTS), 1
        elif kind is FaultKind.RATE_LIMITED:
            path, count = rng.choice(_ANY), rng.choice((1, 2))
        elif kind is FaultKind.BUSY:
            path, count = "/v2/account/activities/FILL", 1
        elif kind in {FaultKind.TRUNCATE, FaultKind.DUPLICATE, FaultKind.EMPTY_LIST}:
            path, count = rng.choice(_LISTS), None if lasting else 1
        else:
            path, count = rng.choice(_ANY), None if lasting else rng.choice((1, 2, 3))
        skip = 0 if path == "/v2/account" else rng.choice((0, 0, 1))
        return Trouble(kind, account_id, path, count, skip)
