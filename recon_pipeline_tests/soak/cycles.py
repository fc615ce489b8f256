"""Runs the pipeline's cycle in a world: alone, two schedulers at once, or in processes that are killed at any moment.

A cycle is what the schedule runs, without Dagster: readings over HTTP, writes under leases in Postgres, the clock given.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import NAMESPACE_OID, uuid5

from recon_pipeline.cycle.outcome import ProfileCycle
from recon_pipeline.cycle.ports import CyclePorts
from recon_pipeline.cycle.running import run_cycle
from recon_pipeline.defs.lease_keeper import holding_leases
from recon_pipeline.domain.cycle_policy import (
    CyclePolicy,
    OrderCoveragePolicy,
    OrderParityPolicy,
    PositionParityPolicy,
    SubTagRepairPolicy,
)
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.exchange.alpaca import ClientLimits
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.rate_budget import RateBudgets, Timing
from recon_pipeline.exchange.reader import AlpacaReader
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.sandbox.exchange import FaultKind
from recon_pipeline_tests.soak.cast import HOUR_MS, moment
from recon_pipeline_tests.soak.driver import KEY, SECRET, World
from recon_pipeline_tests.soak.mishaps import Trouble
from recon_pipeline_tests.soak.verdict import Name

LEASE_SECONDS = 30.0
UNREADABLE = "exchange"
"""Stage of a failure that says that the account could not be read: that is not a step that failed."""


def policy(lookback_hours: float, coverage_inserts: int) -> CyclePolicy:
    """Everything that writes writes."""
    lookback_ms = int(lookback_hours * HOUR_MS)
    return CyclePolicy(
        exit_backfill=ExitBackfillPolicy(enabled=True, require_pause=False, lookback_ms=lookback_ms),
        exit_backfill_dry_run=False,
        order_parity=OrderParityPolicy(dry_run=False),
        order_coverage=OrderCoveragePolicy(dry_run=False, max_inserts=coverage_inserts),
        sub_tag_repair=SubTagRepairPolicy(dry_run=False),
        position_parity=PositionParityPolicy(dry_run=False, lookback_ms=lookback_ms),
    )


@dataclass(frozen=True)
class Place:
    """Everything a cycle needs to find its world, from any process."""

    database_url: str
    exchange_url: str
    account_ids: tuple[str, ...]
    profile_ids: tuple[str, ...]
    lookback_hours: float
    coverage_inserts: int

    @classmethod
    def of(cls, world: World) -> Place:
        names = tuple(profile.profile_id for profile in world.profiles)
        plan = world.plan
        accounts = tuple(world.account_ids)
        return cls(world.database_url, world.sim.url, accounts, names, plan.lookback_hours, plan.coverage_inserts)


@dataclass
class Elastic:
    """Real clocks that jump by every sleep instead of waiting for it."""

    slept: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    @property
    def timing(self) -> Timing:
        return Timing(
            wall=lambda: time.time() + self.slept, steady=lambda: time.monotonic() + self.slept, sleep=self.sleep
        )


class Scheduler:
    """One scheduler's hands: its connections, its reader, its way of making ids."""

    def __init__(self, place: Place) -> None:
        self.place = place
        timing = Elastic().timing
        self.ledger = PostgresLedger(place.database_url)
        self.reader = AlpacaReader(
            [AccountCredentials(a, KEY.format(a), SECRET.format(a), place.exchange_url) for a in place.account_ids],
            EvidenceStore(place.database_url),
            limits=ClientLimits(connect_seconds=5, read_seconds=1.5, answer_seconds=5),
            budgets=RateBudgets(per_minute=10**6, timing=timing),
            timing=timing,
        )

    def run(self, run_id: str, now_ms: int) -> list[ProfileCycle]:
        """Run one cycle for every profile whose lease is free."""
        numbers = itertools.count()
        with holding_leases(
            self.place.database_url, self.place.profile_ids, owner=run_id, ttl_seconds=LEASE_SECONDS
        ) as leases:
            ports = CyclePorts(
                database_url=self.place.database_url, ledger=self.ledger, exchange=self.reader, leases=leases
            )
            return list(
                run_cycle(
                    self.place.profile_ids,
                    ports=ports,
                    policy=policy(self.place.lookback_hours, self.place.coverage_inserts),
                    run_id=run_id,
                    now=lambda: moment(now_ms),
                    new_id=lambda: str(uuid5(NAMESPACE_OID, f"{run_id}:{next(numbers)}")),
                )
            )


def names_of(cycles: Sequence[ProfileCycle]) -> list[Name]:
    """Every difference that the cycle leaves, by the name that it gives it."""
    found: list[Name] = []
    for cycle in cycles:
        profile = cycle.profile_id
        for stage in cycle.stages.values():
            for told in stage.findings:
                found += [
                    Name(profile, told.trade_id, order_id, told.reason)
                    for order_id in {told.order_id, told.exchange_order_id} - {""} or {""}
                ]
        for row in cycle.parity.to_dict("records"):
            reason = ":".join(str(row[name]) for name in ("reason", "root_cause") if row[name])
            found.append(Name(profile, str(row["trade_id"]), "", reason or "out_of_line"))
        if cycle.plan is not None:
            for row in cycle.plan.decisions.to_dict("records"):
                found.append(Name(profile, str(row["trade_id"]), "", str(row["reason"])))
    return found


@dataclass
class Log:
    """What the cycles cost and said."""

    seconds: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    names: list[Name] = field(default_factory=list)
    """of the last cycle"""
    ever: dict[Name, None] = field(default_factory=dict)
    """of any cycle: what is older than the look-back is not named again"""
    failures: list[str] = field(default_factory=list)
    struck: set[FaultKind] = field(default_factory=set)
    """what the exchange did wrong"""
    incomplete: int = 0

    def took(self, cycles: Sequence[ProfileCycle], number: int) -> None:
        self.names = names_of(cycles)
        self.ever.update(dict.fromkeys(self.names))
        for cycle in cycles:
            told = [cycle.failure, *(stage.failure for stage in cycle.stages.values())]
            self.failures += [
                f"cycle {number} {cycle.profile_id}: {f.stage}: {f.message}"
                for f in told
                if f and f.stage != UNREADABLE
            ]
            self.incomplete += not cycle.report.evidence_complete


class Alone:
    """One scheduler, as it should be."""

    def __init__(self, world: World, after: Callable[[int], None]) -> None:
        self.log = Log()
        self._scheduler = Scheduler(Place.of(world))
        self._after = after

    def run(self, world: World, number: int, trouble: list[Trouble]) -> None:
        arm(world, trouble)
        began = time.perf_counter()
        cycles = self._scheduler.run(f"cycle-{number}", world.now_ms)
        self.log.seconds.append(time.perf_counter() - began)
        self.log.calls.append(len(world.sim.faults.requests))
        self.log.struck |= {fault.kind for fault in world.sim.faults.all() if fault.struck}
        self.log.took(cycles, number)
        self._after(number)


def arm(world: World, trouble: list[Trouble]) -> None:
    """Put the exchange's trouble of this cycle in force, and forget what was asked before."""
    world.sim.faults.clear()
    world.sim.faults.requests.clear()
    for told in trouble:
        world.sim.faults.add(told.fault())
