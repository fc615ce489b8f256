"""A cycle on a real Postgres and the simulated exchange over HTTP, with a clock that the test holds."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from recon_pipeline.cycle.outcome import ProfileCycle
from recon_pipeline.cycle.ports import CyclePorts
from recon_pipeline.cycle.running import run_cycle
from recon_pipeline.domain.cycle_policy import (
    CyclePolicy,
    OrderCoveragePolicy,
    OrderParityPolicy,
    PositionParityPolicy,
    SubTagRepairPolicy,
)
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.leases import acquire_leases, release_leases
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline_tests.adapters.exchange.world import NOW, World, world

WRITING = CyclePolicy(
    exit_backfill=ExitBackfillPolicy(enabled=True, require_pause=False),
    exit_backfill_dry_run=False,
    order_parity=OrderParityPolicy(dry_run=False),
    order_coverage=OrderCoveragePolicy(dry_run=False),
    sub_tag_repair=SubTagRepairPolicy(dry_run=False),
    position_parity=PositionParityPolicy(dry_run=False),
)


class Held:
    """Leases as they were taken."""

    def __init__(self, leases: dict[str, Any]) -> None:
        self.leases = leases

    def of(self, profile_id: str) -> Any:
        return self.leases.get(profile_id)


@dataclass
class Scene:
    """Ledger, exchange and time of a test."""

    database_url: str
    world: World
    policy: CyclePolicy = WRITING
    runs: Iterator[int] = field(default_factory=itertools.count)
    ids: Iterator[int] = field(default_factory=itertools.count)

    @property
    def now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.world.now_ms() / 1000, dt.UTC)

    def sql(self, statement: str, **values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, autocommit=True, row_factory=dict_row) as connection:
            found = connection.execute(statement, values)
            return found.fetchall() if found.description else []

    def profile(self, profile_id: str = "p1", account_id: str = "A1", capital: str | None = "10000") -> None:
        self.sql(
            "INSERT INTO profiles (profile_id, user_id, account_id, allocated_capital_usd) VALUES (%(p)s, 'u1', %(a)s, %(c)s)",
            p=profile_id,
            a=account_id,
            c=capital,
        )

    def row(self, order_id: str, **columns: object) -> None:
        """A row of ``orders`` that a bot wrote an hour ago, unless the columns say otherwise."""
        then = NOW - dt.timedelta(hours=1)
        values: dict[str, object] = {
            "order_id": order_id,
            "user_id": "u1",
            "profile_id": "p1",
            "symbol": "AAPL",
            "type": "market",
            "status": "filled",
            "timestamp": int(then.timestamp() * 1000),
            "source": "BOT",
            "created_at": then,
            "updated_at": then,
            **columns,
        }
        names = ", ".join(f'"{name}"' for name in values)
        self.sql(f"INSERT INTO orders ({names}) VALUES ({', '.join(f'%({name})s' for name in values)})", **values)

    def order(self, order_id: str) -> dict[str, Any]:
        (row,) = self.sql("SELECT * FROM orders WHERE order_id = %(id)s", id=order_id)
        return row

    def run(
        self, *profiles: str, policy: CyclePolicy | None = None, without_lease: Sequence[str] = ()
    ) -> dict[str, ProfileCycle]:
        """One cycle; by profile."""
        run_id = f"run-{next(self.runs)}"
        wanted = profiles or ("p1",)
        with connect(self.database_url, READER) as connection:
            leases = acquire_leases(
                connection, [p for p in wanted if p not in without_lease], owner=run_id, ttl_seconds=60
            )
            with PostgresLedger(self.database_url) as ledger:
                cycles = list(
                    run_cycle(
                        wanted,
                        ports=CyclePorts(self.database_url, ledger, self.world.reader, Held(leases)),
                        policy=policy or self.policy,
                        run_id=run_id,
                        now=lambda: self.now,
                        new_id=lambda: str(next(self.ids)),
                    )
                )
            release_leases(connection, leases.values())
        assert len(cycles) == len(wanted)
        return {cycle.profile_id: cycle for cycle in cycles}

    def wait(self, minutes: float = 5) -> None:
        self.world.sim.book.advance(dt.timedelta(minutes=minutes))

    def events(self) -> list[tuple[str, str, str]]:
        rows = self.sql("SELECT type, severity, message FROM recon.events ORDER BY id")
        return [(row["type"], row["severity"], row["message"]) for row in rows]

    def dry(self) -> CyclePolicy:
        return replace(
            self.policy,
            exit_backfill_dry_run=True,
            order_parity=OrderParityPolicy(),
            order_coverage=OrderCoveragePolicy(),
            sub_tag_repair=SubTagRepairPolicy(),
            position_parity=PositionParityPolicy(),
        )


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with world("A1", "A2") as exchange:
        exchange.sim.book.set_price("AAPL", Decimal(100))
        yield Scene(database_url, exchange)
