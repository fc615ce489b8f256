"""What a cycle adds to the counters that only grow, and what reading its accounts has cost.

What belongs here: what is counted of a report, of an account and of a run. What does not: the tables (``ledger.totals``) and how
they are shown (``ops.metrics``).
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

import psycopg

from recon_pipeline.cycle.outcome import ProfileCycle, ReconciliationReport
from recon_pipeline.cycle.ports import CycleExchange, CyclePorts
from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.ledger.cycle_state import LEASE_HELD
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, connect
from recon_pipeline.ledger.totals import Addition, TotalName, save_account_reading, save_cycle_run

_LOG = logging.getLogger(__name__)


def additions_of(report: ReconciliationReport) -> tuple[Addition, ...]:
    """Return what a report adds when it is saved for the first time.

    A profile whose lease another run held had no cycle. One that failed had one: what its steps found before that is counted.
    """
    if report.skipped_reason == LEASE_HELD:
        return ()
    counted = {
        TotalName.CYCLES: 1,
        TotalName.FAILED_CYCLES: int(bool(report.error)),
        TotalName.MISMATCH: report.mismatch_count,
        TotalName.MISSING_FROM_EXCHANGE: report.missing_from_exchange,
        TotalName.MISSING_IN_DB: report.missing_in_db,
        TotalName.CORRECTIONS: report.corrections,
    }
    return tuple(Addition(name, value, profile_id=report.profile_id) for name, value in counted.items())


class AccountMeter:
    """The requests of one account in one cycle: those of its reading, and whatever is asked from here on."""

    def __init__(self, exchange: CycleExchange, reading: AccountReading) -> None:
        self._exchange = exchange
        self._reading = reading
        self._before = exchange.usage_of(reading.account_id).requests

    @property
    def calls(self) -> int:
        """Requests so far, repeated ones included."""
        usage = self._exchange.usage_of(self._reading.account_id)
        return self._reading.certificate.calls + usage.requests - self._before

    def save(self, ports: CyclePorts, *, read_at: dt.datetime, asked_at: dt.datetime) -> None:
        """Save what the account's requests came to; a failure to save it is logged and stops nobody's cycle."""
        usage, certificate = self._exchange.usage_of(self._reading.account_id), self._reading.certificate
        try:
            with connect(ports.database_url, READER, "recon cycle") as connection:
                save_account_reading(
                    connection,
                    self._reading.account_id,
                    calls=self.calls,
                    rate_limit=usage.rate_limit,
                    rate_remaining=usage.rate_remaining,
                    complete=certificate.complete,
                    incomplete_why="; ".join(certificate.reasons),
                    read_at=read_at,
                    asked_at=asked_at,
                )
        except (psycopg.Error, DatabaseUnavailableError):
            _LOG.exception("what account %s's requests came to could not be saved", self._reading.account_id)


@dataclass
class RunTally:
    """What has become of the profiles of one run."""

    run_id: str
    began: dt.datetime
    profiles: int = 0
    failed: int = 0
    contended: int = 0

    def count(self, cycle: ProfileCycle) -> None:
        """Take one profile's cycle in."""
        self.profiles += 1
        self.failed += bool(cycle.report.error or cycle.failure is not None)
        self.contended += cycle.report.skipped_reason == LEASE_HELD

    def save(self, ports: CyclePorts, ended: dt.datetime) -> None:
        """Save that the run came to its end; a failure to save it is logged: the reports are there."""
        try:
            with connect(ports.database_url, READER, "recon cycle") as connection:
                save_cycle_run(
                    connection,
                    self.run_id,
                    began_at=self.began,
                    ended_at=ended,
                    profiles=self.profiles,
                    failed=self.failed,
                    contended=self.contended,
                )
        except (psycopg.Error, DatabaseUnavailableError):
            _LOG.exception("the end of run %s could not be saved", self.run_id)
