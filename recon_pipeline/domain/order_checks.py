"""What is remembered of stale orders: which rows are stale, which are asked about next, what answers leave, who is told.

What belongs here: ORDER_CHECKS in, ORDER_CHECKS out. What does not: what an answer makes of a row (``order_status``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.corrections import Event
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_status import Checked, OrderStatusPlan
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy

SIGN: Final = "⚠"


def stale_rows(
    ledger_orders: pd.DataFrame,
    profiles: pd.DataFrame,
    before: pd.DataFrame,
    policy: OrderStatusPolicy,
    *,
    now_ms: int,
) -> pd.DataFrame:
    """ORDER_CHECKS of every row of selected profiles that may execute and is older than the threshold, with what is remembered.

    A row that does not say when it was placed counts as older. Sorted by profile and key.

    :param ledger_orders: LEDGER_ORDERS
    :param profiles: PROFILES
    :param before: ORDER_CHECKS as they are remembered; rows that are not stale any more are forgotten
    """
    raise NotImplementedError


def due_orders(stale: pd.DataFrame, policy: OrderStatusPolicy, *, now_ms: int, limit: int) -> tuple[pd.DataFrame, int]:
    """The checks to ask about now, in that order, at most ``limit``; and how many due ones are left over.

    Never checked ones first, the oldest order first; then those that were asked about longest ago.
    """
    raise NotImplementedError


def outcomes_after(
    plan: OrderStatusPlan,
    *,
    applied: frozenset[RowKey],
    postponed: Mapping[RowKey, str],
    failed_profiles: Mapping[str, str],
    dry_run: bool,
) -> dict[RowKey, Checked]:
    """What became of every asked row once the plan was written, or was not.

    :param applied: rows that were written
    :param postponed: rows whose change was not written, and the word why
    :param failed_profiles: profiles of which nothing was written (lease taken, database), and why
    """
    raise NotImplementedError


def counts_of(outcomes: Mapping[RowKey, Checked], profile_id: str, *, left_over: int = 0) -> dict[str, int]:
    """COUNTERS of one profile."""
    raise NotImplementedError


def checks_after(
    before: pd.DataFrame,
    plan: OrderStatusPlan,
    outcomes: Mapping[RowKey, Checked],
    *,
    policy: OrderStatusPolicy,
    now_ms: int,
) -> pd.DataFrame:
    """ORDER_CHECKS to remember: ``before`` (as ``stale_rows`` gave them) with what the answers leave.

    Rows that are over are gone, rows that were not asked about stay as they are.

    :param outcomes: of ``outcomes_after``
    """
    raise NotImplementedError


def confirmed_live(outcome: str, checked_at_ms: int, policy: OrderStatusPolicy, *, now_ms: int) -> bool:
    """Whether the exchange has called the order live so recently that it waits rightly."""
    raise NotImplementedError


def is_stale(check: Any, policy: OrderStatusPolicy, *, now_ms: int) -> bool:
    """Whether the order of a row of ORDER_CHECKS is stale: older than the threshold and not confirmed live."""
    raise NotImplementedError


def stale_checks(checks: pd.DataFrame, policy: OrderStatusPolicy, *, now_ms: int) -> pd.DataFrame:
    """The rows of ORDER_CHECKS that are stale, the oldest order first."""
    raise NotImplementedError


def age_ms(check: Any, *, now_ms: int) -> int:
    """How long ago the order was placed; where its row doesn't say, how long it has been seen stale."""
    raise NotImplementedError


def sign_of(check: Any, policy: OrderStatusPolicy, *, now_ms: int) -> str:
    """The sign that people see beside an order: ``⚠`` where it is stale, else empty."""
    raise NotImplementedError


def persistent_events(
    checks: pd.DataFrame, users: Mapping[str, str], policy: OrderStatusPolicy, *, now_ms: int
) -> list[Event]:
    """One event for each profile with orders that are stale for longer than ``alert_after_ms``, by profile.

    :param users: user by profile
    """
    raise NotImplementedError
