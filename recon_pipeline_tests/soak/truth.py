"""What is true: the simulated exchange's own orders, and what each was placed for. The ledger is never asked.

An order's meaning (profile, trade, action) is written down where a bot places it, under the exchange's id. What executed,
at which price and when, is always read from the exchange's book.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from recon_pipeline.sandbox.exchange import ExchangeBook
from recon_pipeline.sandbox.exchange.amounts import rounded_quantity
from recon_pipeline.sandbox.exchange.assets import normal_symbol
from recon_pipeline.sandbox.exchange.records import Order
from recon_pipeline_tests.soak.cast import Profile, ms_of

TradeKey = tuple[str, str]
ZERO = Decimal(0)


@dataclass
class Trade:
    """One trade as its bot means it."""

    profile: Profile
    trade_id: str
    symbol: str
    entry_side: str
    to_be_held: bool = False
    """the bot keeps it to the end"""
    by_hand: bool = False
    """somebody closed its position by hand, without any of the bot's marks"""
    finished: bool = False
    order_ids: list[str] = field(default_factory=list)

    @property
    def key(self) -> TradeKey:
        return self.profile.profile_id, self.trade_id

    @property
    def exit_side(self) -> str:
        return "sell" if self.entry_side == "buy" else "buy"


@dataclass(frozen=True)
class Intent:
    """What an order was placed for."""

    order_id: str
    trade: Trade
    action: str
    side: str
    evident: bool = True
    """whether the order itself says whose it is: by a client order id, a sub-tag, or what it replaces"""


@dataclass(frozen=True)
class Fact:
    """An order as it is at the exchange now."""

    order_id: str
    client_order_id: str
    status: str
    executed: Decimal
    price: Decimal | None
    executed_ms: int | None
    is_open: bool
    intent: Intent


class Truth:
    """Everything that bots placed, with what became of it."""

    def __init__(self, book: ExchangeBook) -> None:
        self.book = book
        self.trades: dict[TradeKey, Trade] = {}
        self._intents: dict[str, Intent] = {}
        self._by_client_id: dict[tuple[str, str], str] = {}

    def opened(self, trade: Trade) -> Trade:
        self.trades[trade.key] = trade
        return trade

    def placed(self, order: Order, trade: Trade, action: str, *, evident: bool = True) -> Intent:
        intent = Intent(order.id, trade, action, order.side, evident)
        self._intents[order.id] = intent
        self._by_client_id[trade.profile.account_id, order.client_order_id] = order.id
        trade.order_ids.append(order.id)
        return intent

    def order(self, order_id: str) -> Order:
        return self.book.order(self.book.account(self._intents[order_id].trade.profile.account_id), order_id)

    def fact(self, order_id: str) -> Fact | None:
        """The order with this id of the exchange's, if a bot placed it."""
        intent = self._intents.get(order_id)
        if intent is None:
            return None
        order = self.order(order_id)
        return Fact(
            order.id,
            order.client_order_id,
            order.status,
            order.filled_qty,
            order.average_price,
            None if order.filled_ns is None else ms_of(order.filled_ns),
            order.is_open,
            intent,
        )

    def named(self, profile: Profile, row_id: str) -> Fact | None:
        """The order that a ledger row's id stands for: the exchange's id or the client's."""
        return self.fact(row_id) or self.fact(self._by_client_id.get((profile.account_id, row_id), ""))

    def facts(self) -> Iterator[Fact]:
        for order_id in self._intents:
            fact = self.fact(order_id)
            assert fact is not None
            yield fact

    def of_trade(self, trade: Trade) -> list[Fact]:
        return [fact for fact in map(self.fact, trade.order_ids) if fact is not None]

    def executed(self, trade: Trade, action: str) -> Decimal:
        """Executed quantity of the trade's entries or exits."""
        return sum((fact.executed for fact in self.of_trade(trade) if fact.intent.action == action), ZERO)

    def average(self, trade: Trade, action: str) -> Decimal | None:
        """Volume-weighted price of the trade's entries or exits."""
        orders = [self.order(fact.order_id) for fact in self.of_trade(trade) if fact.intent.action == action]
        total = sum((order.filled_qty for order in orders), ZERO)
        value = sum((order.filled_value for order in orders), ZERO)
        return rounded_quantity(value / total) if total else None

    def position(self, account_id: str, symbol: str) -> Decimal:
        """Signed position of the account."""
        return self.book.account(account_id).holding(normal_symbol(symbol)).qty
