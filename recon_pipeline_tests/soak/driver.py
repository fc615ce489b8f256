"""Lets the time pass: one queue of what bots, people and the exchange do, and the moments at which the pipeline runs.

The clock is the simulator's held one; HTTP and Postgres are real. While the pipeline runs nobody else acts, so every change
of the bots' tables in between is the pipeline's.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from recon_pipeline.sandbox.exchange import (
    AccountSettings,
    ExchangeBook,
    SimClock,
    SimulatedExchange,
    TradingRules,
    running_exchange,
)
from recon_pipeline_tests.soak.bots import Bot
from recon_pipeline_tests.soak.cast import DAY_MS, HOUR_MS, MINUTE_MS, START, Profile, cast, moment, ms_of
from recon_pipeline_tests.soak.ledger import BotLedger
from recon_pipeline_tests.soak.mishaps import Trouble, Troubles
from recon_pipeline_tests.soak.truth import Truth

CYCLE_MS = 5 * MINUTE_MS
THIN = {"AVAX/USD": (3, 2400), "AMD": (4, 1500), "BTC/USD": (2, 900), "AAPL": (3, 5400)}
LAST_SHOP_DAYS = 4
SETTLING_CYCLES = 5
KEY = "PK-{}"
SECRET = "secret-of-{}"


@dataclass(frozen=True)
class Plan:
    """How long, how dense, and how often the pipeline runs."""

    seed: int
    days: int = 30
    gap_hours: float = 32.0
    """between the moments at which the pipeline runs, more or less ..."""
    burst: int = 1
    """... for so many cycles, five minutes apart"""
    lookback_hours: float = 168.0
    """of the evidence: 72 in production, where a cycle runs every five minutes and not every other day"""
    coverage_inserts: int = 2
    """a cycle and profile; few, so that the exit backfill gets to some orders first and the coverage supersedes its rows"""
    trades_per_day: float = 0.7
    """of each bot"""
    trouble: float = 0.3
    """share of the cycles in which the exchange has trouble"""
    by_hand_per_week: float = 1.5
    profiles: tuple[Profile, ...] = field(default_factory=lambda: tuple(cast()))


class CycleRunner(Protocol):
    """Runs the pipeline once, at the simulated time."""

    def run(self, world: World, number: int, trouble: list[Trouble]) -> None: ...


class World:
    """The exchange, the ledger, the bots, and the time."""

    def __init__(self, plan: Plan, sim: SimulatedExchange, database_url: str) -> None:
        self.plan = plan
        self.sim = sim
        self.database_url = database_url
        self.book = sim.book
        self.truth = Truth(self.book)
        self.ledger = BotLedger(database_url)
        self.profiles = list(plan.profiles)
        self.account_ids = sorted({profile.account_id for profile in self.profiles})
        self.rng = random.Random(f"{plan.seed}:world")
        self.begin_ms = ms_of(self.book.clock.now_ns())
        self.end_ms = self.begin_ms + plan.days * DAY_MS
        self.by_hand: list[str] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._rests: dict[tuple[str, str], int] = {}
        shop_ms = self.end_ms - min(LAST_SHOP_DAYS, plan.days // 2) * DAY_MS
        self.bots = [
            Bot(profile, self, str(plan.seed), closes_shop_ms=shop_ms, trades_per_day=plan.trades_per_day)
            for profile in self.profiles
        ]

    # -- the scene that bots see

    @property
    def now_ms(self) -> int:
        return ms_of(self.book.clock.now_ns())

    @property
    def now(self) -> datetime:
        return moment(self.now_ms)

    def at(self, at_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (max(at_ms, self.now_ms), next(self._numbers), act))

    def rests(self, account_id: str, symbol: str) -> bool:
        return self._rests.get((account_id, symbol), 0) > self.now_ms

    # -- time

    def set_up(self) -> None:
        for account_id in self.account_ids:
            self.book.add_account(
                account_id,
                key_id=KEY.format(account_id),
                secret_key=SECRET.format(account_id),
                settings=AccountSettings(cash=Decimal(10**9), requests_per_minute=10**6),
            )
        for symbol, (slices, seconds) in THIN.items():
            self.book.set_liquidity(symbol, slices, seconds)
        self.ledger.install(self.profiles, self.now)
        for bot in self.bots:
            bot.begin()
        for symbol in sorted({market.symbol for profile in self.profiles for market in profile.markets}):
            self._walk(symbol, self.book.market.price(symbol))
        self._plan_people()

    def pass_until(self, at_ms: int) -> None:
        """Let everything happen that is due until then."""
        while self._queue and self._queue[0][0] <= at_ms:
            due, _, act = heapq.heappop(self._queue)
            self._advance(due)
            act()
        self._advance(at_ms)

    def _advance(self, at_ms: int) -> None:
        step_ms = at_ms - self.now_ms
        if step_ms > 0:
            self.book.advance(timedelta(milliseconds=step_ms))

    def cycle_times(self) -> Iterator[int]:
        """The moments of the cycles: on the five minutes, in bursts, from one to the next half to one and a half of the gap."""
        rng = random.Random(f"{self.plan.seed}:cycles")
        slot, last = 0, (self.end_ms - self.begin_ms) // CYCLE_MS
        while True:
            slot += max(1, round(self.plan.gap_hours * rng.uniform(0.5, 1.5) * HOUR_MS / CYCLE_MS))
            if slot + self.plan.burst > last:
                return
            yield from (self.begin_ms + (slot + offset) * CYCLE_MS for offset in range(self.plan.burst))
            slot += self.plan.burst

    def live(self, runner: CycleRunner) -> int:
        """Live through it all; return how many cycles ran. At the end the bots are still and the exchange is well."""
        troubles = Troubles(f"{self.plan.seed}:trouble", self.account_ids, self.plan.trouble)
        number = 0
        for at_ms in self.cycle_times():
            self.pass_until(at_ms)
            runner.run(self, number, troubles.next())
            number += 1
        for _ in range(SETTLING_CYCLES):
            self.pass_until(max(self.end_ms, self.now_ms) + CYCLE_MS)
            runner.run(self, number, [])
            number += 1
        return number

    # -- what is nobody's doing

    def _walk(self, symbol: str, first: Decimal) -> None:
        """Let the price go up and down, never far enough for a resting order."""
        rng = random.Random(f"{self.plan.seed}:price:{symbol}")
        places = Decimal("0.01") if first >= 1 else Decimal("0.00000001")

        def step() -> None:
            now = self.book.market.price(symbol)
            moved = now * Decimal(rng.randrange(9700, 10300)) / 10000
            moved = min(max(moved, first * Decimal("0.85")), first * Decimal("1.15"))
            self.book.set_price(symbol, moved.quantize(places))
            self.at(self.now_ms + 6 * HOUR_MS, step)

        self.at(self.now_ms + 6 * HOUR_MS, step)

    def _plan_people(self) -> None:
        """People close positions by hand, and trade what no bot trades."""
        rng = random.Random(f"{self.plan.seed}:people")
        times = int(self.plan.days * self.plan.by_hand_per_week / 7 + rng.random())
        for _ in range(times):
            profile = rng.choice(self.profiles)
            symbol = rng.choice(profile.markets).symbol
            rest_ms = rng.choice((0, 3, 3, 4)) * DAY_MS
            at_ms = self.begin_ms + rng.randrange(DAY_MS, max(2, self.plan.days - LAST_SHOP_DAYS) * DAY_MS)
            self.at(
                at_ms, lambda a=profile.account_id, s=symbol, r=rest_ms, left=12: self._close_by_hand(a, s, r, left)
            )
        for day in range(1, self.plan.days, 3):
            account_id = rng.choice(self.account_ids)
            at_ms = self.begin_ms + day * DAY_MS + rng.randrange(DAY_MS)
            self.at(at_ms, lambda a=account_id: self._manual(a, "GME", "buy", Decimal(2)))

    def _manual(self, account_id: str, symbol: str, side: str, qty: Decimal) -> None:
        self.book.manual_trade(account_id, symbol, side, qty)

    def _close_by_hand(self, account_id: str, symbol: str, rest_ms: int, tries: int) -> None:
        """Somebody cancels what is open in a symbol and flattens it; its trades end without a bot's order."""
        running = [
            trade
            for bot in self.bots
            if bot.profile.account_id == account_id
            for trade in bot.trades
            if trade.symbol == symbol and not trade.by_hand and not trade.finished
        ]
        held = self.truth.position(account_id, symbol)
        if not running or abs(held) < Decimal("0.01"):
            if tries:
                self.at(self.now_ms + 5 * HOUR_MS, lambda: self._close_by_hand(account_id, symbol, rest_ms, tries - 1))
            return
        account = self.book.account(account_id)
        for order in account.open_orders():
            if order.symbol == symbol:
                self.book.cancel(account, order.id)
        self._manual(account_id, symbol, "sell" if held > 0 else "buy", abs(held))
        for trade in running:
            trade.by_hand = True
        self.by_hand.append(f"{account_id} {symbol} {held}: {', '.join('/'.join(trade.key) for trade in running)}")
        self._rests[account_id, symbol] = self.now_ms + rest_ms

    def close(self) -> None:
        self.ledger.close()


@contextmanager
def world(plan: Plan, database_url: str) -> Iterator[World]:
    """A world at its beginning."""
    rules = TradingRules(replacement_keeps_filled=True)
    book = ExchangeBook(clock=SimClock(START), seed=plan.seed, rules=rules)
    with running_exchange(book=book) as sim:
        made = World(plan, sim, database_url)
        try:
            made.set_up()
            yield made
        finally:
            made.close()
