"""What the order status sync reaches outside for: ledger and exchange. Protocols only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recon_pipeline.exchange.gateway import OrderFinder

Record = Mapping[str, Any]


class SyncLedger(Protocol):
    """What the sync reads of the ledger; ``ledger.reads.PostgresLedger`` is the real one. Each answer is one statement."""

    def profiles(self, profile_ids: Sequence[str] | None = None) -> Sequence[Record]:
        """The profiles with user, account and managed symbols."""
        ...

    def account_siblings(self, profile_ids: Sequence[str]) -> Sequence[Record]:
        """Every profile on the accounts of the given ones, they themselves included."""
        ...

    def rows_naming_orders(self, exchange_ids: Iterable[str]) -> Sequence[Record]:
        """Raw rows that carry one of the ids as order id or client order id, whatever their profile and status."""
        ...

    def rows_of_trades(self, profile_id: str, trade_ids: Iterable[str]) -> Sequence[Record]:
        """Raw rows of the profile's trades, whatever their status."""
        ...

    def backfill_rows(self, profile_ids: Sequence[str], symbols: Iterable[str]) -> Sequence[Record]:
        """Raw backfill rows of the profiles in the symbols, whatever their status."""
        ...

    def consumption_of(self, account_id: str, exchange_order_ids: Iterable[str]) -> Sequence[Record]:
        """What live backfill rows have consumed of the account's given orders."""
        ...


@dataclass(frozen=True)
class SyncPorts:
    """Everything outside that the sync uses."""

    database_url: str = field(repr=False)
    ledger: SyncLedger
    exchange: OrderFinder
