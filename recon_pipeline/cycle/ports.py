"""What a cycle reaches outside for: ledger, exchange, leases, snapshots. Protocols only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import pandas as pd

from recon_pipeline.domain.frames import Schema
from recon_pipeline.domain.watchdog import Pause
from recon_pipeline.engine import LedgerReader
from recon_pipeline.exchange.gateway import ExchangeReader, LookupResult, Usage
from recon_pipeline.ledger.leases import Lease
from recon_pipeline.ledger.reads import PauseState

Record = Mapping[str, Any]
ACCOUNT_MARK: Final = "@"
"""Stands between the stage and the account in the name of a snapshot: a run writes each stage once for each account."""


class CycleLedger(LedgerReader, Protocol):
    """What a cycle reads of the ledger; ``ledger.reads.PostgresLedger`` is the real one."""

    def rows_naming_orders(self, exchange_ids: Iterable[str]) -> Sequence[Record]:
        """Raw rows that carry one of the ids as order id or client order id, whatever their profile and status."""
        ...

    def sub_tag_supported(self) -> bool:
        """Whether ``orders`` has a column for sub-tags."""
        ...

    def pause_state(self, profile_ids: Sequence[str]) -> Mapping[str, PauseState]:
        """The pause, by profile, with its source."""
        ...

    def pause_rows(self, profile_ids: Sequence[str]) -> Mapping[str, Sequence[Pause]]:
        """The pauses that hold for each profile, its own and that of all trading."""
        ...


class CycleExchange(ExchangeReader, Protocol):
    """Reads accounts and looks single orders up."""

    def look_up_all(self, account_id: str, orders: Sequence[tuple[str, str]]) -> Sequence[LookupResult]:
        """Look orders up, given as (order id, client order id); the results are in the same order."""
        ...

    def usage_of(self, account_id: str) -> Usage:
        """What the reader's requests to the account have come to."""
        ...


class Leases(Protocol):
    """The leases that the run holds."""

    def of(self, profile_id: str) -> Lease | None:
        """The profile's lease; None where another run has it."""
        ...


class Snapshots(Protocol):
    """Keeps the frames of a run."""

    def write(self, stage: str, schema: Schema, frame: pd.DataFrame) -> str:
        """Write one stage, return its place."""
        ...


@dataclass(frozen=True)
class CyclePorts:
    """Everything outside that a cycle uses."""

    database_url: str = field(repr=False)
    ledger: CycleLedger
    exchange: CycleExchange
    leases: Leases
    snapshots: Snapshots | None = None
