"""How a bot writes its orders down: as they are, or with the mishap drawn for the order. It never changes what the bot does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.records import Order
from recon_pipeline_tests.soak.cast import MINUTE_MS, Profile, moment, ms_of
from recon_pipeline_tests.soak.ledger import BotLedger, BotRow
from recon_pipeline_tests.soak.mishaps import Rows
from recon_pipeline_tests.soak.truth import Trade, Truth


class Scene(Protocol):
    """The world as a bot sees it."""

    book: ExchangeBook
    truth: Truth
    ledger: BotLedger

    @property
    def now_ms(self) -> int: ...

    def at(self, at_ms: int, act: Callable[[], None]) -> None: ...

    def rests(self, account_id: str, symbol: str) -> bool: ...


@dataclass
class Following:
    """An order as its bot follows it."""

    order_id: str
    trade: Trade
    action: str
    rows: Rows
    tag: str | None
    written: tuple[object, ...] = ()
    sees: int = 0
    over: bool = False
    stopped: bool = False


class Scribe:
    """One bot's writing hand."""

    def __init__(self, profile: Profile, scene: Scene, rng: random.Random) -> None:
        self.profile = profile
        self.scene = scene
        self.rng = rng

    def unsent(self, named: str, trade: Trade, action: str, side: str, qty: Decimal, price: Decimal, tag: str) -> None:
        """Write an order down that then never reaches the exchange."""
        row = self._row(named, named, trade, action, side, "pending_new", qty, Decimal(0), price, None, tag, "market")
        self.scene.ledger.write(row, entry_side=trade.entry_side, at=moment(self.scene.now_ms))

    def pending(self, following: Following, order: Order) -> None:
        """Write the row of an order that was just placed."""
        if following.rows in {Rows.LOST, Rows.LATE, Rows.BOOKS_ONLY}:
            return
        by_client = following.rows in {Rows.CLIENT_KEY, Rows.TWICE}
        self._write(following, order, order.client_order_id if by_client else order.id, status="pending_new")
        following.stopped = following.rows is Rows.STUCK

    def seen(self, following: Following, order: Order) -> None:
        """Write what is new of the order, if the mishap lets it."""
        state = (order.status, order.filled_qty)
        if state == following.written:
            return
        following.written = state
        rows = following.rows
        if rows is Rows.LOST:
            return
        if rows is Rows.LATE:
            if not order.is_open:
                following.stopped = True
                by_client = self.rng.random() < 0.25
                key = order.client_order_id if by_client else order.id
                self._later(self.rng.randrange(10, 1800) * MINUTE_MS, lambda: self._write(following, order, key))
            return
        if rows is Rows.BOOKS_ONLY:
            if not order.is_open:
                row = self._row_of(following, order, order.id)
                self.scene.ledger.write_books_only(
                    row, entry_side=following.trade.entry_side, at=moment(self.scene.now_ms)
                )
            return
        if rows is Rows.STUCK_PART and order.filled_qty:
            following.stopped = True
        key = order.client_order_id if rows is Rows.CLIENT_KEY else order.id
        self._write(following, order, key)
        if rows is Rows.TWICE:
            self._write(following, order, order.client_order_id)

    def _write(self, following: Following, order: Order, key: str, *, status: str = "") -> None:
        row = self._row_of(following, order, key, status=status)
        self.scene.ledger.write(row, entry_side=following.trade.entry_side, at=moment(self.scene.now_ms))

    def _row_of(self, following: Following, order: Order, key: str, *, status: str = "") -> BotRow:
        executed = Decimal(0) if status == "pending_new" else order.filled_qty
        if not status:
            names = ("partially_filled", "new") if order.is_open else ("filled", order.status)
            status = names[0] if executed else names[1]
        if following.rows is Rows.MISREAD_END and order.status in {"canceled", "expired"}:
            status, executed = order.status, Decimal(0)
        done = status == "filled"
        guess = order.limit_price or self.scene.book.market.price(order.symbol)
        return self._row(
            key,
            order.client_order_id,
            following.trade,
            following.action,
            order.side,
            status,
            executed if done else order.qty or Decimal(0),
            executed,
            order.average_price if executed else guess,
            ms_of(order.filled_ns) if executed and order.filled_ns else None,
            following.tag,
            order.type,
        )

    def _row(
        self,
        key: str,
        named: str,
        trade: Trade,
        action: str,
        side: str,
        status: str,
        qty: Decimal,
        executed: Decimal,
        price: Decimal | None,
        executed_ms: int | None,
        tag: str | None,
        kind: str,
    ) -> BotRow:
        return BotRow(
            order_id=key,
            client_order_id=named,
            user_id=self.profile.user_id,
            profile_id=self.profile.profile_id,
            trade_id=trade.trade_id,
            symbol=trade.symbol,
            type=kind,
            side=side,
            action=action,
            status=status,
            qty=qty,
            filled_qty=executed,
            price=price,
            time_ms=executed_ms or self.scene.now_ms,
            filled_at=None if executed_ms is None else moment(executed_ms),
            sub_tag=tag,
        )

    def _later(self, after_ms: int, act: Callable[[], None]) -> None:
        self.scene.at(self.scene.now_ms + after_ms, act)
