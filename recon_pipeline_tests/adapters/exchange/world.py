"""A small exchange with known truth, read over real HTTP; time that sleeps without waiting."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from recon_pipeline.exchange.alpaca import ClientLimits
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.evidence import ReadingPolicy
from recon_pipeline.exchange.evidence_store import MemoryEvidenceStore
from recon_pipeline.exchange.executions import milliseconds
from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.exchange.rate_budget import RateBudgets, Timing
from recon_pipeline.exchange.reader import AlpacaReader
from recon_pipeline.sandbox.exchange import (
    ExchangeBook,
    HistoricFill,
    HistoricOrder,
    SimClock,
    SimulatedExchange,
    running_exchange,
)

NOW = datetime(2026, 11, 3, 15, 0, tzinfo=UTC)
E9 = 10**9


def ago(**kwargs: float) -> datetime:
    return NOW - timedelta(**kwargs)


def order_id(n: int) -> str:
    return str(UUID(int=n, version=4))


@dataclass
class ElasticTime:
    """Clocks that run, and jump by every sleep instead of waiting for it."""

    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    @property
    def timing(self) -> Timing:
        return Timing(
            wall=lambda: time.time() + sum(self.slept),
            steady=lambda: time.monotonic() + sum(self.slept),
            sleep=self.sleep,
        )


def filled(n: int, symbol: str, side: str, *parts: tuple[str, str, datetime], **told: object) -> HistoricOrder:
    """An order whose fills are (quantity, price, time)."""
    fills = tuple(HistoricFill(Decimal(qty), Decimal(price), at) for qty, price, at in parts)
    total = sum((fill.qty for fill in fills), Decimal(0))
    settings: dict[str, object] = {"submitted_at": parts[0][2] - timedelta(seconds=1) if parts else ago(hours=1)}
    settings |= {"qty": total, "order_id": order_id(n), "client_order_id": f"bytelyst-p1-t{n}-exit"} | told
    return HistoricOrder(symbol, side, fills=fills, **settings)  # type: ignore[arg-type]


@dataclass
class World:
    sim: SimulatedExchange
    store: MemoryEvidenceStore
    time: ElasticTime
    reader: AlpacaReader

    def inject(self, *orders: HistoricOrder, account: str = "A1") -> None:
        self.sim.book.inject(account, list(orders))

    def now_ms(self) -> int:
        return self.sim.book.clock.now_ns() // 1_000_000

    def read(self, account: str = "A1", *, days: float = 3) -> AccountReading:
        self.sim.faults.requests.clear()
        return self.reader.read_account(account, since_ms=self.now_ms() - int(days * 86_400_000), now_ms=self.now_ms())

    @property
    def requests(self) -> list[str]:
        return [path for _, path in self.sim.faults.requests]


def credentials(account: str, url: str) -> AccountCredentials:
    return AccountCredentials(account, f"PK{account}", f"secret-of-{account}", url)


def reader_of(
    sim: SimulatedExchange,
    store: object,
    elastic: ElasticTime,
    *accounts: str,
    policy: ReadingPolicy | None = None,
    limits: ClientLimits | None = None,
) -> AlpacaReader:
    return AlpacaReader(
        [credentials(account, sim.url) for account in accounts],
        store,  # type: ignore[arg-type]
        policy=policy,
        limits=limits or ClientLimits(connect_seconds=2, read_seconds=0.5, answer_seconds=2),
        budgets=RateBudgets(timing=elastic.timing),
        timing=elastic.timing,
    )


@contextmanager
def world(*accounts: str, policy: ReadingPolicy | None = None, limits: ClientLimits | None = None) -> Iterator[World]:
    book = ExchangeBook(clock=SimClock(NOW), seed=1)
    accounts = accounts or ("A1",)
    with running_exchange(book=book) as sim:
        for account in accounts:
            book.add_account(account, key_id=f"PK{account}", secret_key=f"secret-of-{account}")
        store, elastic = MemoryEvidenceStore(), ElasticTime()
        yield World(sim, store, elastic, reader_of(sim, store, elastic, *accounts, policy=policy, limits=limits))


def enforce_the_rate(world: World) -> list[str]:
    """Let the exchange's minutes pass with the reader's sleeps; return what holds the accounts that were refused a request."""
    world.sim.limiter._now = world.time.timing.wall
    refused: list[str] = []
    spend = world.sim.limiter.spend

    def counted(account_id: str, limit: int) -> object:
        budget = spend(account_id, limit)
        refused.extend([] if budget.allowed else [account_id])
        return budget

    world.sim.limiter.spend = counted  # type: ignore[method-assign,assignment]
    return refused


def executed(reading: AccountReading) -> dict[str, int]:
    """Executed quantity by order id, from the orders."""
    rows = reading.orders[reading.orders["executed_e9"] > 0]
    return {str(key): int(value) for key, value in zip(rows["order_id"], rows["executed_e9"], strict=True)}


def sums(reading: AccountReading) -> dict[str, int]:
    """Executed quantity by order id, from the executions."""
    totals: dict[str, int] = {}
    for key, value in zip(reading.executions["order_id"], reading.executions["qty_e9"], strict=True):
        totals[str(key)] = totals.get(str(key), 0) + int(value)
    return totals


def held(reading: AccountReading) -> dict[str, int]:
    rows = reading.positions
    return {str(key): int(value) for key, value in zip(rows["symbol_token"], rows["qty_e9"], strict=True)}


def ms(moment: datetime) -> int:
    return milliseconds(moment)
