"""Which orders a run of the sync asks about.

What belongs here: the scopes of a run, and reading what they choose from. What does not: when an order is stale, which come first
(``domain.order_checks``), and asking (``asking``).
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import pandas as pd

from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_checks import due_orders, stale_rows
from recon_pipeline.domain.order_readings import ledger_orders_frame
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.order_checks import live_orders, read_checks
from recon_pipeline.order_status.ports import Record
from recon_pipeline.order_status.reading import profiles_frame
from recon_pipeline.order_status.writing import SyncContext

_AHEAD_MS: Final = 3_600_000
"""An order that a clock which runs ahead has stamped is live, too."""


class SyncScope(StrEnum):
    """Which orders a run asks about. In every scope: never checked ones first, then those checked longest ago."""

    DUE = "due"
    """stale ones that are to be asked about now: the schedule's"""
    STALE = "stale"
    """every stale one, also those that were asked about a moment ago: a person's"""
    OLD = "old"
    """every one that is older than ``unknown_after_ms``: the clean-up's; a dry run of it remembers nothing"""
    LIVE = "live"
    """every order that may still execute, also those that are not stale yet: a stream's after it was not connected"""


@dataclass(frozen=True)
class Chosen:
    """The orders that a run asks about, and what they were chosen from."""

    asked: pd.DataFrame
    """ORDER_CHECKS in the order of asking"""
    left_over: Mapping[str, int]
    """due orders that are not asked about, by profile"""
    stale: pd.DataFrame
    """ORDER_CHECKS of every stale order"""
    changed: frozenset[str]
    """profiles whose stale orders are not those that are remembered"""

    def stale_of(self, profile_id: str) -> pd.DataFrame:
        """The stale orders of one profile."""
        return self.stale[self.stale["profile_id"] == profile_id].reset_index(drop=True)


def choose_orders(
    context: SyncContext, members: Mapping[str, Record], *, scope: SyncScope, limit: int | None
) -> Chosen:
    """Read the orders that may still execute, and choose those to ask about.

    :param members: rows of the ledger's profiles that the run works on, by profile
    :param limit: orders to ask about; None: ``policy.batch_size``. Decisions are all asked about
    """
    policy, now_ms, present = context.policy, context.began_ms, sorted(members)
    live = scope is SyncScope.LIVE
    placed_before = None if live else context.began - dt.timedelta(milliseconds=policy.stale_ms)
    with connect(context.ports.database_url, READER, "recon order status") as connection:
        rows = ledger_orders_frame(live_orders(connection, present, placed_before=placed_before))
        before = read_checks(connection, present)
    profiles = profiles_frame(members, selected=present, managed_symbols=None)
    stale = stale_rows(rows, profiles, before, policy, now_ms=now_ms)
    among = stale
    if live:
        among = stale_rows(rows, profiles, before, replace(policy, stale_ms=-_AHEAD_MS), now_ms=now_ms)
    among = _in_scope(context, among, scope)
    most = max(1, len(among)) if context.decided else limit
    asked, _ = due_orders(among, policy, now_ms=now_ms, limit=most)
    taken = {(check.profile_id, check.order_id) for check in rows_of(asked)}
    left = Counter(
        check.profile_id
        for check in rows_of(among)
        if check.next_check_ms <= now_ms and (check.profile_id, check.order_id) not in taken
    )
    changed = {profile_id for profile_id, *_ in set(rows_of(stale)) ^ set(rows_of(before))}
    return Chosen(asked, left, stale, frozenset(changed))


def _in_scope(context: SyncContext, checks: pd.DataFrame, scope: SyncScope) -> pd.DataFrame:
    """The checks that the run is for; where a person asks for them, they are due now."""
    if context.decided:
        keys = zip(checks["profile_id"], checks["order_id"], strict=True)
        checks = checks[[key in context.decided for key in keys]]
    elif scope is SyncScope.DUE:
        return checks
    elif scope is SyncScope.OLD:
        checks = checks[checks["placed_at_ms"] <= context.began_ms - context.policy.unknown_after_ms]
    return checks.assign(next_check_ms=context.began_ms).reset_index(drop=True)
