"""What the order status sync reaches outside for: ledger and exchange. Protocols only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recon_pipeline.exchange.gateway import OrderFinder

Record = Mapping[str, Any]


class SyncLedger(Protocol):
    """What the sync reads of the ledger by itself; ``ledger.reads.PostgresLedger`` is the real one.

    What it reads beside this it reads under the lease, over the connection that saves (``ledger.order_checks``).
    """

    def account_siblings(self, profile_ids: Sequence[str]) -> Sequence[Record]:
        """Every profile on the accounts of the given ones, they themselves included."""
        ...


@dataclass(frozen=True)
class SyncPorts:
    """Everything outside that the sync uses."""

    database_url: str = field(repr=False)
    ledger: SyncLedger
    exchange: OrderFinder
