"""One cycle for a shard of profiles: leases, ports, the cycle itself, and what was read for it. Without Dagster.

What happens is handed out one profile at a time, and whoever asked logs it. Not here: the order of the stages
(``cycle.running``), any rule, and how an outcome looks (``cycle_presentation``).
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

import pandas as pd

from recon_pipeline.cycle.outcome import ProfileCycle
from recon_pipeline.cycle.ports import CycleExchange, CyclePorts
from recon_pipeline.cycle.running import run_cycle
from recon_pipeline.defs.lease_keeper import holding_leases
from recon_pipeline.defs.resources import AttentiveLedger, Outside
from recon_pipeline.defs.snapshots import RunSnapshots
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.engine import Failure
from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.ledger.database import Row
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.reads import RUNNING, PauseState

HISTORY_CYCLES: Final = 24
"""How many earlier cycles are shown with a report: two hours of them."""


@dataclass(frozen=True)
class CycleOutcome:
    """A profile's cycle with what was read for it, to be shown."""

    cycle: ProfileCycle
    account: AccountReading | None = None
    """the reading of the profile's account; None where it was not read"""
    records: tuple[Row, ...] = ()
    """the profile's raw ledger rows as they were read last, after what the cycle corrected"""
    pause: PauseState = RUNNING
    history: tuple[Row, ...] = ()
    """earlier cycles, newest first: cycle_at, processed, clean, report"""
    snapshots: str = ""
    """directory of the run's files"""

    @property
    def profile_id(self) -> str:
        """The profile."""
        return self.cycle.profile_id

    @property
    def lifecycle_rows(self) -> pd.DataFrame:
        """LIFECYCLE_ROWS of the profile."""
        return lifecycle_rows_frame(self.records)

    @property
    def failures(self) -> list[Failure]:
        """Everything that failed for the profile: all of it, or single stages."""
        own = [] if self.cycle.failure is None else [self.cycle.failure]
        return own + [stage.failure for stage in self.cycle.stages.values() if stage.failure is not None]


@dataclass
class _Seen:
    """What passed by on the way into the cycle."""

    accounts: dict[str, AccountReading] = field(default_factory=dict)


class _AttentiveReader:
    """Reads accounts and remembers what they answered: whether a reading was complete is shown with the outcome."""

    def __init__(self, reader: CycleExchange, seen: _Seen) -> None:
        self._reader = reader
        self._seen = seen
        self.look_up_all = reader.look_up_all
        self.usage_of = reader.usage_of

    def read_account(self, account_id: str, *, since_ms: int, now_ms: int) -> AccountReading:
        reading = self._reader.read_account(account_id, since_ms=since_ms, now_ms=now_ms)
        self._seen.accounts[account_id] = reading
        return reading


def run_shard_cycle(outside: Outside, profile_ids: Sequence[str], *, run_id: str) -> Iterator[CycleOutcome]:
    """Yield every profile once, as its cycle ends.

    :raises SettingError: a setting can't be read
    :raises DatabaseUnavailableError: the ledger can't be read
    :raises SnapshotError: a snapshot can't be written; nothing that stands on it was written to the ledger
    """
    settings = outside.settings()
    seen = _Seen()
    snapshots = RunSnapshots.of_run(settings.snapshot_url, run_id, outside.now())
    with ExitStack() as stack:
        ledger = stack.enter_context(outside.ledger(settings))
        store = stack.enter_context(EvidenceStore(settings.database_url))
        # A dry run too: its confirmations and its watchdog are durable, and two at once would count twice.
        leases = stack.enter_context(
            holding_leases(settings.database_url, profile_ids, owner=run_id, ttl_seconds=settings.lease_seconds)
        )
        accounts = {str(row["account_id"]) for row in ledger.account_siblings(profile_ids)}
        for cycle in run_cycle(
            tuple(profile_ids),
            ports=CyclePorts(
                database_url=settings.database_url,
                ledger=ledger,
                exchange=_AttentiveReader(outside.exchange(settings, accounts, store), seen),
                leases=leases,
                snapshots=snapshots,
            ),
            policy=settings.cycle,
            run_id=run_id,
            now=outside.now,
            new_id=new_id,
            managed_symbols=settings.managed_symbols,
        ):
            yield CycleOutcome(
                cycle,
                account=seen.accounts.get(cycle.report.account_id),
                records=ledger.records_of(cycle.profile_id),
                pause=ledger.pauses.get(cycle.profile_id, RUNNING),
                history=_history(ledger, cycle),
                snapshots=snapshots.url,
            )


def new_id() -> str:
    """Return what makes a batch id unique."""
    return str(uuid.uuid4())


def _history(ledger: AttentiveLedger, cycle: ProfileCycle) -> tuple[Row, ...]:
    """The profile's cycles before this one, where somebody may want to know since when; a quiet profile has no such table."""
    if cycle.report.clean and not cycle.changed:
        return ()
    rows = ledger.rows("select_last_cycles", {"profile_id": cycle.profile_id, "cycles": HISTORY_CYCLES})
    return tuple(row for row in rows if row["run_id"] != cycle.report.run_id)
