"""A run of the order status sync: which orders are due, what the exchange says of them, what that changes, what is remembered.

What belongs here: the order of the steps for many profiles, and that one profile's or account's failure stays its own. What does
not: rules (``domain.order_checks``, ``domain.order_status``), writing (``apply``), and one profile's share (``writing``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_status import Decision
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.order_status.outcome import SyncResult
from recon_pipeline.order_status.ports import SyncPorts


class SyncScope(StrEnum):
    """Which stale orders a run asks about. In every scope: never checked ones first, then the oldest."""

    DUE = "due"
    """those that are to be asked about now: the schedule's"""
    STALE = "stale"
    """every one, also those that were asked about a moment ago: a person's"""
    OLD = "old"
    """every one that is older than ``unknown_after_ms``: the clean-up's"""
    LIVE = "live"
    """every order that may still execute, also those that are not stale yet: a stream's after it was not connected"""


class DigestChangedError(Exception):
    """What would be written now is not what was previewed; nothing was written."""


def sync_order_status(
    profile_ids: Sequence[str],
    *,
    ports: SyncPorts,
    policy: OrderStatusPolicy,
    run_id: str,
    now: Callable[[], dt.datetime],
    new_id: Callable[[], str],
    dry_run: bool,
    managed_symbols: Sequence[str] | None = None,
    scope: SyncScope = SyncScope.DUE,
    limit: int | None = None,
    expected_digest: str | None = None,
    decided: Mapping[RowKey, Decision] | None = None,
) -> SyncResult:
    """Ask the exchange about the profiles' stale orders, and make the ledger say what it answers.

    :param new_id: makes the unique part of batch ids
    :param dry_run: write no order; what is remembered of the checks is kept all the same, for it is not the bots'
    :param limit: orders to ask about; None: ``policy.batch_size``
    :param expected_digest: of the preview that a person confirms
    :param decided: rows that a person gives up: exactly these are asked about, whatever the scope
    :raises DigestChangedError: see there
    :raises DatabaseUnavailableError: the ledger can't be read at all
    """
    raise NotImplementedError
