"""The simulated exchange as one object: accounts, market, clock; what the HTTP routes, tests and the demo book call.

Every public method may be called from any thread. HTTP is in `app.py`, payloads in `payloads.py`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

from recon_pipeline.sandbox.exchange import errors
from recon_pipeline.sandbox.exchange.accounts import Account, AccountSettings, KeyPair
from recon_pipeline.sandbox.exchange.amounts import ZERO, decimal_places, quantity_down
from recon_pipeline.sandbox.exchange.assets import Asset, AssetList
from recon_pipeline.sandbox.exchange.clock import IdSource, SimClock, to_ns
from recon_pipeline.sandbox.exchange.history import Historian, HistoricFill, HistoricOrder, Instant
from recon_pipeline.sandbox.exchange.listing import ActivityQuery, OrderQuery, list_activities, list_orders
from recon_pipeline.sandbox.exchange.market import Liquidity, Market
from recon_pipeline.sandbox.exchange.payloads import Payload, account_payload, position_payload
from recon_pipeline.sandbox.exchange.records import Activity, Order
from recon_pipeline.sandbox.exchange.trading import EXECUTION_NS, ROUTING_NS, Desk, TradeEvent, TradingRules

Listener = Callable[[TradeEvent], None]


class ExchangeBook:
    """All accounts of the simulated exchange and everything that can be done to them."""

    def __init__(
        self,
        *,
        clock: SimClock | None = None,
        seed: int | None = None,
        rules: TradingRules | None = None,
        signed_shorts: bool = True,
    ) -> None:
        self.clock = clock or SimClock()
        self.ids = IdSource(seed)
        self.assets = AssetList()
        self.market = Market(self.assets)
        self.signed_shorts = signed_shorts
        self.lock = threading.RLock()
        self.listeners: list[Listener] = []
        self.changes = 0
        self.desk = Desk(self.clock, self.ids, self.assets, self.market, rules or TradingRules(), self._publish)
        self.historian = Historian(self.clock, self.ids, self.assets, self.desk)
        self._accounts: dict[str, Account] = {}
        self._by_key: dict[str, Account] = {}

    def _publish(self, event: TradeEvent) -> None:
        self.changes += 1
        for listener in self.listeners:
            listener(event)

    @property
    def revision(self) -> int:
        """Grows with every change of the state."""
        with self.lock:
            return self.changes + sum(account.revision for account in self._accounts.values())

    # --- accounts

    def add_account(
        self,
        name: str = "",
        *,
        key_id: str | None = None,
        secret_key: str | None = None,
        settings: AccountSettings | None = None,
    ) -> Account:
        """Open an account with its own keys. `name` becomes the account number; ids come from the book's source."""
        with self.lock:
            number = name or f"PA{len(self._accounts) + 1:08d}"
            if any(account.number == number for account in self._accounts.values()):
                raise ValueError(f"there is an account {number} already")
            digest = hashlib.sha256(self.ids.new().encode()).hexdigest()
            keys = KeyPair(key_id or f"PK{digest[:18].upper()}", secret_key or digest[18:58])
            if keys.key_id in self._by_key:
                raise ValueError("the key id is taken")
            account = Account(self.ids.new(), number, keys, settings or AccountSettings(), self.clock.now_ns())
            self.adopt(account)
            return account

    def adopt(self, account: Account) -> None:
        """Take in an account as it is (a restart does)."""
        with self.lock:
            self._accounts[account.id] = account
            self._by_key[account.keys.key_id] = account
            self.changes += 1

    def accounts(self) -> list[Account]:
        """All accounts, in the order of their opening."""
        with self.lock:
            return list(self._accounts.values())

    def account(self, name: str) -> Account:
        """By id, number or key id; KeyError otherwise."""
        with self.lock:
            for account in self._accounts.values():
                if name in (account.id, account.number, account.keys.key_id):
                    return account
        raise KeyError(f"no account {name}")

    def authenticate(self, key_id: str | None, secret_key: str | None) -> Account:
        """The account of a key pair; ApiError 401 without keys or with revoked ones, 403 for unknown ones."""
        if not key_id or not secret_key:
            raise errors.unauthorized()
        with self.lock:
            account = self._by_key.get(key_id)
        if account is None or account.keys.secret_key != secret_key:
            raise errors.forbidden()
        if account.settings.revoked:
            raise errors.unauthorized()
        return account

    # --- what the Trading API does

    def settle(self) -> None:
        """Do what is due now: parts, expiries, queued orders."""
        with self.lock:
            now = self.clock.now_ns()
            for account in self._accounts.values():
                self.desk.settle(account, now)

    def submit(self, account: Account, body: object) -> Order:
        """Place an order; what the POST answers."""
        with self.lock:
            self.changes += 1
            return self.desk.submit(account, body)

    def order(self, account: Account, order_id: str, as_of: int | None = None) -> Order:
        """One order by id."""
        with self.lock:
            order = account.order(order_id, as_of)
        if order is None:
            raise errors.order_not_found(order_id)
        return order

    def order_by_client_id(self, account: Account, client_order_id: str, as_of: int | None = None) -> Order:
        """One order by the client's id."""
        with self.lock:
            order = account.order_by_client_id(client_order_id, as_of)
        if order is None:
            raise errors.order_not_found(client_order_id)
        return order

    def list_orders(self, account: Account, query: OrderQuery, as_of: int | None = None) -> list[Order]:
        """A page of orders."""
        with self.lock:
            return list_orders(account.orders(as_of), query)

    def list_activities(self, account: Account, query: ActivityQuery, as_of: int | None = None) -> list[Activity]:
        """A page of activities."""
        with self.lock:
            # A market order's execution is stamped some milliseconds after its POST: a held clock must show it too.
            until = self.clock.now_ns() + ROUTING_NS + EXECUTION_NS if as_of is None else as_of
            return list_activities(account.activities(until), query)

    def cancel(self, account: Account, order_id: str) -> Order:
        """Cancel one order."""
        with self.lock:
            self.changes += 1
            return self.desk.cancel(account, order_id)

    def cancel_all(self, account: Account) -> list[Order]:
        """Cancel every open order."""
        with self.lock:
            return [self.cancel(account, order.id) for order in account.open_orders()]

    def replace_order(self, account: Account, order_id: str, body: object) -> Order:
        """Replace one order; the new one as it was placed."""
        with self.lock:
            self.changes += 1
            return self.desk.replace_order(account, order_id, body)

    def account_view(self, account: Account, as_of: int | None = None) -> Payload:
        """The account's payload."""
        with self.lock:
            long_value, short_value = self.desk.equity_value(account, as_of)
            power = self.desk.buying_power(account, crypto=False, as_of=as_of)
            now = self.clock.now_ns()
            return account_payload(account, now, account.cash(as_of), long_value, short_value, power)

    def positions_view(self, account: Account, as_of: int | None = None) -> list[Payload]:
        """All positions' payloads, by symbol."""
        with self.lock:
            return [
                position_payload(
                    holding,
                    self.assets.find_or_list(holding.symbol),
                    self.market.price(holding.symbol),
                    self.desk.held_for_orders(account, holding.symbol),
                    signed=self.signed_shorts,
                )
                for holding in account.holdings(as_of)
            ]

    def position_view(self, account: Account, name: str, as_of: int | None = None) -> Payload:
        """One position's payload, by symbol or asset id."""
        asset = self.assets.find(name)
        for payload in self.positions_view(account, as_of) if asset is not None else []:
            if payload["symbol"] == asset.position_symbol:  # type: ignore[union-attr]
                return payload
        raise errors.position_not_found()

    def close_position(
        self, account: Account, name: str, *, qty: Decimal | None = None, percentage: Decimal | None = None
    ) -> Order:
        """Place the market order that closes a position, or a part of it."""
        with self.lock:
            asset = self.assets.find(name)
            held = ZERO if asset is None else account.holding(asset.symbol).qty
            if asset is None or not held:
                raise errors.position_not_found()
            if qty is not None and percentage is not None:
                raise errors.bad_input("qty and percentage are mutually exclusive")
            wanted = abs(held) if qty is None else qty
            if percentage is not None:
                if not ZERO < percentage <= 100:
                    raise errors.bad_input("percentage must be between 0 and 100")
                wanted = (abs(held) * percentage / 100).quantize(Decimal("0.000000001"))
            fractional = decimal_places(wanted) > 0
            return self.submit(
                account,
                {
                    "symbol": asset.symbol,
                    "qty": str(wanted),
                    "side": "sell" if held > 0 else "buy",
                    "type": "market",
                    "time_in_force": "gtc" if asset.is_crypto else "day",
                    "extended_hours": False if fractional else None,
                },
            )

    # --- what tests and the sandbox do

    def add_asset(self, asset: Asset) -> Asset:
        """List an asset."""
        with self.lock:
            self.changes += 1
            return self.assets.add(asset)

    def set_price(self, symbol: str, price: Decimal | str) -> None:
        """Set a price and let every order that can trade at it do so."""
        with self.lock:
            asset = self.assets.find_or_list(symbol)
            self.market.set_price(asset.symbol, Decimal(price))
            self.changes += 1
            for account in self._accounts.values():
                self.desk.reprice(account, asset.symbol, self.clock.now_ns())

    def set_liquidity(self, symbol: str, slices: int, seconds: float) -> None:
        """Let orders of a symbol fill in so many parts, so many seconds apart."""
        with self.lock:
            self.market.set_liquidity(symbol, Liquidity(slices, int(seconds * 1_000_000) * 1_000))
            self.changes += 1

    def freeze(self, symbol: str, *, frozen: bool = True) -> None:
        """Stop (or let go on) trading of a symbol."""
        with self.lock:
            self.market.freeze(symbol, frozen=frozen)
            self.changes += 1

    def advance(self, seconds: float | timedelta) -> None:
        """Move the clock forward and do what became due."""
        with self.lock:
            self.clock.advance(seconds)
            self.changes += 1
            self.settle()

    def fill(
        self,
        order_id: str,
        qty: Decimal | str | None = None,
        *,
        price: Decimal | str | None = None,
        at: Instant | None = None,
    ) -> Order:
        """Execute an open order by command: all of it, or a part."""
        with self.lock:
            account, order = self._owner(order_id)
            if not order.is_open:
                raise ValueError(f"order {order_id} is {order.status}")
            at_ns = self.clock.now_ns() if at is None else to_ns(at)
            at_price = self.market.price(order.symbol) if price is None else Decimal(price)
            if order.target_qty is None:
                order = replace(order, working_qty=quantity_down((order.notional or ZERO) / at_price))
            return self.desk.execute(
                account, order, order.remaining_qty if qty is None else Decimal(qty), at_price, at_ns
            )

    def finish(self, order_id: str, status: str) -> Order:
        """End an open order as canceled, expired or rejected."""
        with self.lock:
            account, order = self._owner(order_id)
            if not order.is_open:
                raise ValueError(f"order {order_id} is {order.status}")
            return self.desk.finish(account, order, status, self.clock.now_ns())

    def amend(self, order_id: str, *, submitted_at: Instant | None = None, status: str | None = None) -> Order:
        """Change what real orders change without an event: their time of submission, or an interim status."""
        with self.lock:
            account, order = self._owner(order_id)
            self.changes += 1
            return account.put(
                replace(
                    order,
                    submitted_ns=order.submitted_ns if submitted_at is None else to_ns(submitted_at),
                    status=status or order.status,
                ),
                self.clock.now_ns(),
            )

    def inject(self, account_name: str, orders: HistoricOrder | Iterable[HistoricOrder]) -> list[Order]:
        """Write history: orders with their fills, at the times they say."""
        told = [orders] if isinstance(orders, HistoricOrder) else list(orders)
        with self.lock:
            self.changes += 1
            account = self.account(account_name)
            return [self.historian.inject(account, order) for order in told]

    def manual_trade(
        self,
        account_name: str,
        symbol: str,
        side: str,
        qty: Decimal | str,
        *,
        price: Decimal | str | None = None,
        at: datetime | int | None = None,
    ) -> Order:
        """A trade that somebody made by hand: a filled market order without any bot's marks."""
        with self.lock:
            at_ns = self.clock.now_ns() if at is None else to_ns(at)
            at_price = self.market.price(symbol) if price is None else Decimal(price)
            fill = HistoricFill(Decimal(qty), at_price, at_ns)
            order = HistoricOrder(symbol, side, Decimal(qty), at_ns, (fill,), source=None)
            return self.inject(account_name, order)[0]

    def corporate_action(
        self,
        account_name: str,
        symbol: str,
        qty_change: Decimal | str,
        *,
        kind: str = "SPLIT",
        subtype: str = "",
        cash: Decimal | str = ZERO,
        at: Instant | None = None,
    ) -> Activity:
        """Change a position without an order."""
        with self.lock:
            self.changes += 1
            at_ns = self.clock.now_ns() if at is None else to_ns(at)
            return self.historian.corporate_action(
                self.account(account_name), symbol, Decimal(qty_change), kind, subtype, at_ns, Decimal(cash)
            )

    def _owner(self, order_id: str) -> tuple[Account, Order]:
        for account in self._accounts.values():
            order = account.order(order_id)
            if order is not None:
                return account, order
        raise KeyError(f"no order {order_id}")
