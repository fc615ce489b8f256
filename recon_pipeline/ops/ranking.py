"""The rows of a snapshot in the order in which the page shows them, worked out once for all that ask of the same snapshot. Pure.

What belongs here: what is stale, what belongs together, what comes first. What does not: the lines that are shown (``board``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from recon_pipeline.domain.order_checks import confirmed_live
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops import wording
from recon_pipeline.ops.snapshot import Row, Snapshot

PROFILES_LISTED: Final = 200
"""Where there are more, only those with something to show can be chosen."""
_EARLIEST: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True)
class RankedOrder:
    """A row with what it is chosen and sorted by."""

    row: Row
    stale: bool
    persistent: bool
    profile_id: str
    status: str
    """in lower case"""


@dataclass(frozen=True)
class RankedCase:
    """The rows about one thing."""

    rows: tuple[Row, ...]
    profile_id: str
    notional_usd: Decimal | None


@dataclass(frozen=True)
class Ranked:
    """What depends on the snapshot alone, for all queries."""

    snapshot: Snapshot
    policy: OrderStatusPolicy
    orders: tuple[RankedOrder, ...]
    """stale ones first, then oldest first"""
    stale: int
    persistent: int
    profiles: int
    oldest: dt.datetime | None
    overdue: int
    """that should have been asked about two intervals ago: a sync that never ran shows here"""
    statuses: tuple[str, ...]
    cases: tuple[RankedCase, ...]
    known: frozenset[str]
    names: tuple[str, ...]


_last: Final[list[Ranked]] = []
"""Of the newest snapshot: sixty queries of one reading sort its orders once. A race costs one more sorting."""


def ranked_rows(snapshot: Snapshot, policy: OrderStatusPolicy) -> Ranked:
    """Return what the page shows of the snapshot, before anybody chose from it. Judged at the instant of the snapshot."""
    for ranked in _last:
        if ranked.snapshot is snapshot and ranked.policy == policy:
            return ranked
    ranked = _rank(snapshot, policy)
    _last[:] = [ranked]
    return ranked


def _rank(snapshot: Snapshot, policy: OrderStatusPolicy) -> Ranked:
    now_ms = wording.ms(snapshot.taken_at)
    orders = [_order(row, policy, now_ms) for row in (*snapshot.unchecked, *snapshot.order_checks)]
    orders.sort(key=_stale_then_oldest)
    stale = [order for order in orders if order.stale]
    placed = [order.row["placed_at"] for order in stale if order.row["placed_at"] is not None]
    late = snapshot.taken_at - dt.timedelta(milliseconds=2 * policy.interval_ms)
    threshold = dt.timedelta(milliseconds=policy.stale_ms)
    things: dict[tuple[str, ...], list[Row]] = {}
    for row in snapshot.waiting:
        things.setdefault(_thing(row), []).append(row)
    cases = [_case(rows) for rows in things.values()]
    busy = {order.profile_id for order in orders} | {case.profile_id for case in cases}
    every = {wording.clean(row["profile_id"]) for row in snapshot.profiles}
    return Ranked(
        snapshot=snapshot,
        policy=policy,
        orders=tuple(orders),
        stale=len(stale),
        persistent=sum(order.persistent for order in stale),
        profiles=len({order.profile_id for order in stale}),
        oldest=min(placed, default=None),
        overdue=sum(row["next_check_at"] is not None and row["next_check_at"] < late for row in snapshot.order_checks)
        + sum(row["placed_at"] is not None and row["placed_at"] + threshold < late for row in snapshot.unchecked),
        statuses=tuple(sorted({wording.clean(order.row["status"]) for order in orders} - {""})),
        cases=tuple(sorted(cases, key=_richest_first)),
        known=frozenset(every | busy),
        names=tuple(sorted((every | busy if len(every) <= PROFILES_LISTED else busy) - {""})[:PROFILES_LISTED]),
    )


def _order(row: Row, policy: OrderStatusPolicy, now_ms: int) -> RankedOrder:
    checked_at, placed_at = row.get("checked_at"), row["placed_at"]
    confirmed = checked_at is not None and confirmed_live(
        str(row["outcome"]), wording.ms(checked_at), policy, now_ms=now_ms
    )
    # As the alert has it: a row that does not say when it was placed is as old as it has been seen stale.
    since = placed_at or row.get("first_seen_at")
    old = since is not None and now_ms - wording.ms(since) >= policy.alert_after_ms
    return RankedOrder(
        row=row,
        stale=not confirmed,
        persistent=old and not confirmed,
        profile_id=wording.clean(row["profile_id"]),
        status=wording.clean(row["status"]).lower(),
    )


def _stale_then_oldest(order: RankedOrder) -> tuple[Any, ...]:
    placed = order.row["placed_at"] or _EARLIEST
    return (not order.stale, placed, order.profile_id, str(order.row["order_id"]))


def _thing(row: Row) -> tuple[str, ...]:
    """What a case is about: its trade, else its order, else its symbol on the account, else its reason."""
    profile, detail = str(row["profile_id"]), row["detail"] or {}
    order = row["order_id"] or detail.get("exchange_order_id")
    for kind, about in (("trade", row["trade_id"]), ("order", order)):
        if about:
            return (kind, profile, str(about))
    return ("symbol", str(row["account_id"]), str(row["symbol"]), str(row["reason"]))


def _case(rows: list[Row]) -> RankedCase:
    worths = [row["notional_usd"] for row in rows if row["notional_usd"] is not None]
    return RankedCase(tuple(rows), wording.clean(rows[0]["profile_id"]), max(worths, default=None))


def _richest_first(case: RankedCase) -> tuple[Any, ...]:
    since = min(row["first_seen_at"] for row in case.rows)
    return (case.notional_usd is None, -(case.notional_usd or Decimal(0)), since, case.profile_id, _thing(case.rows[0]))
