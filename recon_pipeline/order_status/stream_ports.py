"""What a stream reaches outside for, and what it works by. Values and protocols only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import psycopg

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.database import DatabaseUnavailableError
from recon_pipeline.order_status.ports import Record, SyncLedger, SyncPorts

AWAY: Final = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, DatabaseUnavailableError)
"""What says that the database can't be used now: the same again, later."""


class StreamLedger(SyncLedger, Protocol):
    """What a stream reads of the ledger; ``ledger.reads.PostgresLedger`` is the real one."""

    def profiles(self, profile_ids: Sequence[str] | None = None) -> Sequence[Record]:
        """Every profile with its account."""
        ...

    def rows_naming_orders(self, exchange_ids: Iterable[str]) -> Sequence[Record]:
        """Raw rows that carry one of the ids as order id or client order id, whatever their profile and status."""
        ...


@dataclass(frozen=True)
class StreamPorts(SyncPorts):
    """Everything outside that a stream uses."""

    ledger: StreamLedger


def nowhere(point: str) -> None:
    """Nothing happens at a fault point."""


@dataclass(frozen=True)
class StreamRules:
    """What a stream works by."""

    policy: OrderStatusPolicy
    run_id: str
    """of the process: it names its leases and what it writes"""
    now: Callable[[], dt.datetime]
    new_id: Callable[[], str]
    """makes the unique part of batch ids"""
    managed_symbols: Sequence[str] | None = None
    at: Callable[[str], None] = nowhere
    """called with the name of each fault point"""
