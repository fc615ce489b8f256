"""What the order status page shows, from a snapshot and a query: facts, lines, counts. Pure; nothing of it is markup.

What belongs here: what is chosen, shown and left out. What does not: what is stale and comes first (``ranking``), words
(``wording``), and markup (``page`` and its template).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from recon_pipeline.domain.order_answers import CheckOutcome
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops import wording
from recon_pipeline.ops.ranking import RankedCase, RankedOrder, ranked_rows
from recon_pipeline.ops.snapshot import Snapshot

ORDERS_SHOWN: Final = 50
CASES_SHOWN: Final = 50
MOST_SHOWN: Final = 1_000
"""Lines of one list, also where all are asked for: a phone has to be able to show them."""
UNCHECKED_READ: Final = 500
"""Orders that no sync has looked at, as many as a snapshot holds."""


@dataclass(frozen=True)
class Query:
    """What the reader asked for. Any text may come from outside; what nobody knows shows nothing, and says so."""

    profile: str = ""
    status: str = ""
    live: bool = False
    """also orders that the exchange has confirmed"""
    everything: bool = False
    """more lines than fit a screen"""

    @staticmethod
    def of(raw: Mapping[str, str]) -> Query:
        """Read the parameters of an address."""
        return Query(
            profile=wording.clean(raw.get("profile", "")).strip(),
            status=wording.clean(raw.get("status", "")).strip(),
            live=raw.get("live", "") == "1",
            everything=raw.get("all", "") == "1",
        )

    @property
    def narrows(self) -> bool:
        """Whether something is filtered out."""
        return bool(self.profile or self.status)


@dataclass(frozen=True)
class OrderLine:
    """One order that may still execute and is older than the threshold."""

    profile_id: str
    account_id: str
    order_id: str
    client_order_id: str
    trade_id: str
    symbol: str
    side: str
    status: str
    placed_at: dt.datetime | None
    first_seen_at: dt.datetime | None
    """stale since, as far as a sync has seen; None: none has looked"""
    stale: bool
    persistent: bool
    """stale for so long that people were told"""
    outcome: str
    exchange_status: str
    detail: str
    failures: int
    checked_at: dt.datetime | None
    next_check_at: dt.datetime | None


@dataclass(frozen=True)
class Problem:
    """One reason why something waits."""

    stage: str
    reason: str
    order_id: str


@dataclass(frozen=True)
class CaseLine:
    """A trade, order or symbol that waits for a person, with every reason."""

    profile_id: str
    account_id: str
    trade_id: str
    symbol: str
    notional_usd: Decimal | None
    root_cause: str
    first_seen_at: dt.datetime
    seen_at: dt.datetime
    problems: tuple[Problem, ...]
    outdated: bool
    """no cycle could tell lately whether it still waits"""

    @property
    def orders(self) -> tuple[str, ...]:
        """The orders that it is about."""
        return tuple(dict.fromkeys(problem.order_id for problem in self.problems if problem.order_id))


@dataclass(frozen=True)
class Orders:
    """The list of orders: counts of all, lines of what was asked for."""

    stale: int
    persistent: int
    waiting: int
    """confirmed by the exchange: they wait rightly"""
    profiles: int
    """with stale orders"""
    oldest: dt.datetime | None
    """placed when, of the stale ones"""
    more: bool
    """there are more stale ones than the snapshot has room for"""
    overdue: int
    """checks that should have been made two intervals ago"""
    matching: int
    """of those asked for"""
    lines: tuple[OrderLine, ...]
    statuses: tuple[str, ...]


@dataclass(frozen=True)
class Cases:
    """The list of what waits for a person: counts and money of all, lines of what was asked for."""

    count: int
    notional_usd: Decimal
    unpriced: int
    matching: int
    matching_usd: Decimal
    lines: tuple[CaseLine, ...]


def orders_of(snapshot: Snapshot, query: Query, policy: OrderStatusPolicy) -> Orders:
    """The orders that may still execute and are older than the threshold: stale ones first, then oldest first.

    Judged at the instant of the snapshot. A row without a time of placing comes first: nothing is known to be older.
    """
    ranked = ranked_rows(snapshot, policy)
    wanted = query.status.lower()
    shown = [
        order
        for order in (ranked.orders if query.live else ranked.orders[: ranked.stale])
        if query.profile in {"", order.profile_id} and wanted in {"", order.status}
    ]
    return Orders(
        stale=ranked.stale,
        persistent=ranked.persistent,
        waiting=len(ranked.orders) - ranked.stale,
        profiles=ranked.profiles,
        oldest=ranked.oldest,
        more=len(snapshot.unchecked) >= UNCHECKED_READ,
        overdue=ranked.overdue,
        matching=len(shown),
        lines=tuple(_order_line(order) for order in shown[: MOST_SHOWN if query.everything else ORDERS_SHOWN]),
        statuses=ranked.statuses,
    )


def cases_of(snapshot: Snapshot, query: Query, policy: OrderStatusPolicy, late: dt.timedelta) -> Cases:
    """What waits for a person, one line for each trade (or order, or symbol), most money first.

    The money of a trade counts once, however many reasons there are.

    :param late: a case that no cycle has seen for longer is outdated
    """
    every = ranked_rows(snapshot, policy).cases
    shown = [case for case in every if query.profile in {"", case.profile_id}]
    return Cases(
        count=len(every),
        notional_usd=_total(every),
        unpriced=sum(case.notional_usd is None for case in every),
        matching=len(shown),
        matching_usd=_total(shown),
        lines=tuple(
            _case_line(case, snapshot.taken_at, late)
            for case in shown[: MOST_SHOWN if query.everything else CASES_SHOWN]
        ),
    )


def profile_names(snapshot: Snapshot, query: Query, policy: OrderStatusPolicy) -> tuple[str, ...]:
    """The profiles to choose from: all of them, or, where they are many, those with something to show."""
    names = ranked_rows(snapshot, policy).names
    if not query.profile or query.profile in names:
        return names
    return tuple(sorted((*names, query.profile)))


def is_known(snapshot: Snapshot, profile_id: str, policy: OrderStatusPolicy) -> bool:
    """Whether there is such a profile, or anything of it."""
    return profile_id in ranked_rows(snapshot, policy).known


def _order_line(order: RankedOrder) -> OrderLine:
    row = order.row
    return OrderLine(
        **{name: wording.clean(row.get(name)) for name in _TEXTS},
        placed_at=row["placed_at"],
        first_seen_at=row.get("first_seen_at"),
        stale=order.stale,
        persistent=order.persistent,
        outcome=str(row.get("outcome") or CheckOutcome.NOT_CHECKED),
        failures=int(row.get("failures") or 0),
        checked_at=row.get("checked_at"),
        next_check_at=row.get("next_check_at"),
    )


_TEXTS: Final = (
    "profile_id",
    "account_id",
    "order_id",
    "client_order_id",
    "trade_id",
    "symbol",
    "side",
    "status",
    "exchange_status",
    "detail",
)


def _case_line(case: RankedCase, now: dt.datetime, late: dt.timedelta) -> CaseLine:
    first, seen_at = case.rows[0], max(row["seen_at"] for row in case.rows)
    return CaseLine(
        profile_id=case.profile_id,
        account_id=wording.clean(first["account_id"]),
        trade_id=wording.clean(first["trade_id"]),
        symbol=wording.clean(next((row["symbol"] for row in case.rows if row["symbol"]), "")),
        notional_usd=case.notional_usd,
        root_cause=wording.clean(next((row["root_cause"] for row in case.rows if row["root_cause"]), "")),
        first_seen_at=min(row["first_seen_at"] for row in case.rows),
        seen_at=seen_at,
        problems=tuple(
            Problem(
                wording.clean(row["stage"]),
                wording.clean(row["reason"]),
                wording.clean(row["order_id"] or (row["detail"] or {}).get("exchange_order_id")),
            )
            for row in case.rows
        ),
        outdated=now - seen_at > late,
    )


def _total(cases: Iterable[RankedCase]) -> Decimal:
    return sum((case.notional_usd for case in cases if case.notional_usd is not None), Decimal(0))
