"""What the order status page shows, from a snapshot and a query: facts, lines, counts. Pure; nothing of it is markup.

What belongs here: what is stale, what is shown, in which order, and what is left out. What does not: words (``wording``), markup
(``page`` and its template) and the judgement of health (``health``), which the page repeats.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_answers import CheckOutcome
from recon_pipeline.domain.order_checks import confirmed_live
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops import wording
from recon_pipeline.ops.snapshot import Row, Snapshot

ORDERS_SHOWN: Final = 100
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


def orders_of(snapshot: Snapshot, query: Query, policy: OrderStatusPolicy, now: dt.datetime) -> Orders:
    """The orders that may still execute and are older than the threshold: stale ones first, then oldest first.

    A row without a time of placing comes first: nothing is known to be older.
    """
    every = [_order_line(row, policy, now) for row in (*snapshot.unchecked, *snapshot.order_checks)]
    every.sort(key=_stale_then_oldest)
    stale = [line for line in every if line.stale]
    shown = [line for line in every if _asked_for(line, query)]
    late = now - dt.timedelta(milliseconds=2 * policy.interval_ms)
    return Orders(
        stale=len(stale),
        persistent=sum(line.persistent for line in stale),
        waiting=len(every) - len(stale),
        profiles=len({line.profile_id for line in stale}),
        oldest=min((line.placed_at for line in stale if line.placed_at is not None), default=None),
        more=len(snapshot.unchecked) >= UNCHECKED_READ,
        overdue=sum(line.next_check_at is not None and line.next_check_at < late for line in every),
        matching=len(shown),
        lines=tuple(shown[: MOST_SHOWN if query.everything else ORDERS_SHOWN]),
        statuses=tuple(sorted({line.status for line in every if line.status})),
    )


def cases_of(snapshot: Snapshot, query: Query, now: dt.datetime, late: dt.timedelta) -> Cases:
    """What waits for a person, one line for each trade (or order, or symbol), most money first.

    The money of a trade counts once, however many reasons there are.

    :param late: a case that no cycle has seen for longer is outdated
    """
    grouped: dict[tuple[str, ...], list[Row]] = {}
    for row in snapshot.waiting:
        grouped.setdefault(_thing(row), []).append(row)
    every = sorted((_case_line(rows, now, late) for rows in grouped.values()), key=_richest_first)
    shown = [line for line in every if query.profile in {"", line.profile_id}]
    return Cases(
        count=len(every),
        notional_usd=_total(every),
        unpriced=sum(line.notional_usd is None for line in every),
        matching=len(shown),
        matching_usd=_total(shown),
        lines=tuple(shown[: MOST_SHOWN if query.everything else CASES_SHOWN]),
    )


def profile_names(snapshot: Snapshot, query: Query, *, most: int = 200) -> tuple[str, ...]:
    """The profiles to choose from: all of them, or, where they are many, those with something to show."""
    known = {wording.clean(row["profile_id"]) for row in snapshot.profiles}
    if len(known) > most:
        rows: Iterable[Row] = (*snapshot.order_checks, *snapshot.unchecked, *snapshot.waiting)
        counted = Counter(wording.clean(row["profile_id"]) for row in rows)
        known = {name for name, _ in counted.most_common(most)}
    return tuple(sorted({*known, *([query.profile] if query.profile else [])} - {""}))


def is_known(snapshot: Snapshot, profile_id: str) -> bool:
    """Whether there is such a profile, or anything of it."""
    rows: Sequence[Row] = (*snapshot.profiles, *snapshot.order_checks, *snapshot.unchecked, *snapshot.waiting)
    return any(wording.clean(row["profile_id"]) == profile_id for row in rows)


def _order_line(row: Row, policy: OrderStatusPolicy, now: dt.datetime) -> OrderLine:
    placed_at, checked_at = row["placed_at"], row.get("checked_at")
    outcome = str(row.get("outcome") or CheckOutcome.NOT_CHECKED)
    checked_ms = NO_TIME if checked_at is None else wording.ms(checked_at)
    confirmed = checked_at is not None and confirmed_live(outcome, checked_ms, policy, now_ms=wording.ms(now))
    return OrderLine(
        **{name: wording.clean(row.get(name)) for name in _TEXTS},
        placed_at=placed_at,
        stale=not confirmed,
        persistent=not confirmed and placed_at is not None and _ms(now - placed_at) >= policy.alert_after_ms,
        outcome=outcome,
        failures=int(row.get("failures") or 0),
        checked_at=checked_at,
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


def _asked_for(line: OrderLine, query: Query) -> bool:
    return (
        (line.stale or query.live)
        and query.profile in {"", line.profile_id}
        and query.status.lower() in {"", line.status.lower()}
    )


def _stale_then_oldest(line: OrderLine) -> tuple[Any, ...]:
    placed = dt.datetime.min.replace(tzinfo=dt.UTC) if line.placed_at is None else line.placed_at
    return (not line.stale, placed, line.profile_id, line.order_id)


def _thing(row: Row) -> tuple[str, ...]:
    """What a case is about: its trade, else its order, else its symbol on the account, else its reason."""
    profile, detail = str(row["profile_id"]), row["detail"] or {}
    order = row["order_id"] or detail.get("exchange_order_id")
    for kind, about in (("trade", row["trade_id"]), ("order", order)):
        if about:
            return (kind, profile, str(about))
    return ("symbol", str(row["account_id"]), str(row["symbol"]), str(row["reason"]))


def _case_line(rows: list[Row], now: dt.datetime, late: dt.timedelta) -> CaseLine:
    worths = [row["notional_usd"] for row in rows if row["notional_usd"] is not None]
    first = rows[0]
    seen_at = max(row["seen_at"] for row in rows)
    return CaseLine(
        profile_id=wording.clean(first["profile_id"]),
        account_id=wording.clean(first["account_id"]),
        trade_id=wording.clean(first["trade_id"]),
        symbol=wording.clean(next((row["symbol"] for row in rows if row["symbol"]), "")),
        notional_usd=max(worths, default=None),
        root_cause=next((wording.clean(row["root_cause"]) for row in rows if row["root_cause"]), ""),
        first_seen_at=min(row["first_seen_at"] for row in rows),
        seen_at=seen_at,
        problems=tuple(
            Problem(
                wording.clean(row["stage"]),
                wording.clean(row["reason"]),
                wording.clean(row["order_id"] or (row["detail"] or {}).get("exchange_order_id")),
            )
            for row in rows
        ),
        outdated=now - seen_at > late,
    )


def _richest_first(line: CaseLine) -> tuple[Any, ...]:
    unknown = line.notional_usd is None
    return (
        unknown,
        -(line.notional_usd or Decimal(0)),
        line.first_seen_at,
        line.profile_id,
        line.trade_id,
        line.symbol,
    )


def _total(lines: Iterable[CaseLine]) -> Decimal:
    return sum((line.notional_usd for line in lines if line.notional_usd is not None), Decimal(0))


def _ms(time: dt.timedelta) -> int:
    return time // dt.timedelta(milliseconds=1)
