"""The life of an order: accepted, executed (in parts), canceled, replaced, expired; fees; and what it does to holdings.

Everything here runs under the book's lock. Requests are validated in `entry.py`, prices and parts are decided in
`market.py`, injected history is in `history.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from recon_pipeline.sandbox.exchange import errors, sessions
from recon_pipeline.sandbox.exchange.accounts import Account
from recon_pipeline.sandbox.exchange.amounts import (
    QUANTITY_PLACES,
    ZERO,
    decimal_places,
    quantity_down,
    rounded_quantity,
)
from recon_pipeline.sandbox.exchange.assets import AssetList
from recon_pipeline.sandbox.exchange.clock import (
    IdSource,
    SimClock,
    activity_id,
    day_of,
    next_midnight,
)
from recon_pipeline.sandbox.exchange.entry import Ticket, read_change, read_ticket
from recon_pipeline.sandbox.exchange.market import Market, can_trade, slice_quantity, stop_reached, working_quantity
from recon_pipeline.sandbox.exchange.records import Activity, Booking, Order

# Measured on the paper API: the answer to a POST says submitted_at = created_at, later readings say some ms more.
ROUTING_NS = 6_277_503
EXECUTION_NS = 3_500_411
REPLACEABLE = frozenset({"new", "partially_filled", "held"})


@dataclass(frozen=True, slots=True)
class TradeEvent:
    """What the trade_updates stream tells: an event of an order, with the execution if there was one."""

    event: str
    account_id: str
    order: Order
    at_ns: int
    execution_id: str
    qty: Decimal | None = None
    price: Decimal | None = None
    position_qty: Decimal | None = None


@dataclass(slots=True)
class TradingRules:
    """What tests and the sandbox may choose about the exchange's behaviour."""

    crypto_fee_bps: Decimal = Decimal(25)
    market_hours: bool = False
    replacement_keeps_filled: bool = False


class Desk:
    """Takes orders of all accounts and moves them through their life."""

    def __init__(
        self,
        clock: SimClock,
        ids: IdSource,
        assets: AssetList,
        market: Market,
        rules: TradingRules,
        publish: Callable[[TradeEvent], None],
    ) -> None:
        self._clock = clock
        self._ids = ids
        self._assets = assets
        self._market = market
        self._publish = publish
        self.rules = rules
        self.sequence = 0

    def next_sequence(self) -> int:
        """The next number in the order in which things happen."""
        self.sequence += 1
        return self.sequence

    def _emit(self, event: str, order: Order, at_ns: int) -> None:
        self._publish(TradeEvent(event, order.account_id, order, at_ns, self._ids.new()))

    # --- placing

    def submit(self, account: Account, body: object) -> Order:
        """Place an order. Returns what the POST answers; the order may have been filled since."""
        ticket = read_ticket(body, self._assets)
        if account.settings.suspend_trade:
            raise errors.ApiError(403, {"code": 40310000, "message": "new orders are rejected by user request"})
        self._check_client_id(account, ticket.client_order_id)
        self._check_means(account, ticket)
        return self._place(account, ticket)

    def _check_client_id(self, account: Account, client_order_id: str | None) -> None:
        if client_order_id is not None and account.order_by_client_id(client_order_id) is not None:
            raise errors.bad_input("client_order_id must be unique")

    def _check_means(self, account: Account, ticket: Ticket) -> None:
        price = ticket.limit_price or ticket.stop_price or self._market.price(ticket.asset.symbol)
        qty = ticket.qty if ticket.qty is not None else quantity_down((ticket.notional or ZERO) / price)
        if not qty:
            raise errors.bad_input("notional value is too small")
        held = account.holding(ticket.asset.symbol).qty
        sign = 1 if ticket.side == "buy" else -1
        closes = held * sign < 0
        reserved, related = self._reserved(account, ticket.asset.symbol, ticket.side)
        available = abs(held) - reserved
        if ticket.asset.is_crypto and ticket.side == "sell":
            if qty > max(available, ZERO):
                raise errors.insufficient_balance(ticket.asset.symbol, qty, max(available, ZERO))
            return
        if closes:
            if qty > available:
                raise errors.insufficient_qty(
                    ticket.asset.symbol, qty, max(available, ZERO), abs(held), reserved, related
                )
            return
        if ticket.side == "sell":
            if not (ticket.asset.shortable and account.settings.shorting_enabled):
                raise errors.not_allowed(f'asset "{ticket.asset.symbol}" cannot be sold short')
            if qty != qty.to_integral_value() or ticket.notional is not None:
                raise errors.not_allowed("fractional orders cannot be sold short")
        cost = qty * price
        power = self.buying_power(account, crypto=ticket.asset.is_crypto)
        if account.settings.check_buying_power and cost > power:
            raise errors.insufficient_buying_power(power, cost)

    def _reserved(self, account: Account, symbol: str, side: str) -> tuple[Decimal, list[str]]:
        rivals = [order for order in account.open_orders() if order.symbol == symbol and order.side == side]
        return sum((order.remaining_qty for order in rivals), ZERO), [order.id for order in rivals]

    def held_for_orders(self, account: Account, symbol: str) -> Decimal:
        """How much of a position open orders would close."""
        side = "sell" if account.holding(symbol).qty > 0 else "buy"
        return self._reserved(account, symbol, side)[0]

    def equity_value(self, account: Account, as_of: int | None = None) -> tuple[Decimal, Decimal]:
        """Market value of the long and of the short positions (the latter negative)."""
        values = [holding.qty * self._market.price(holding.symbol) for holding in account.holdings(as_of)]
        return sum((value for value in values if value > 0), ZERO), sum((value for value in values if value < 0), ZERO)

    def buying_power(self, account: Account, *, crypto: bool, as_of: int | None = None) -> Decimal:
        """Cash for crypto; a multiple of what is not bound for equities."""
        cash = account.cash(as_of)
        if crypto:
            return max(cash, ZERO)
        long_value, short_value = self.equity_value(account, as_of)
        bound = (long_value - short_value) / 2
        return max(ZERO, (cash + long_value + short_value - bound) * account.settings.multiplier)

    def _intent(self, account: Account, symbol: str, side: str) -> str:
        held = account.holding(symbol).qty
        closing = held > 0 if side == "sell" else held < 0
        return f"{side}_to_{'close' if closing else 'open'}"

    def _place(self, account: Account, ticket: Ticket, replaces: Order | None = None) -> Order:
        now = self._clock.now_ns()
        order_id = self._ids.new()
        order = Order(
            id=order_id,
            account_id=account.id,
            sequence=self.next_sequence(),
            client_order_id=ticket.client_order_id or self._ids.new(),
            symbol=ticket.asset.symbol,
            side=ticket.side,
            type=ticket.type,
            time_in_force=ticket.time_in_force,
            qty=ticket.qty,
            notional=ticket.notional,
            limit_price=ticket.limit_price,
            stop_price=ticket.stop_price,
            extended_hours=ticket.extended_hours,
            position_intent=self._intent(account, ticket.asset.symbol, ticket.side),
            subtag=ticket.subtag,
            source=ticket.source,
            created_ns=now,
            submitted_ns=now,
            updated_ns=now,
            expires_ns=sessions.expiry_ns(ticket.time_in_force, now),
            replaces=None if replaces is None else replaces.id,
        )
        answer = account.put(order, now)
        if self._session_closed(order):
            account.put(replace(order, status="accepted"), now)
            self._emit("accepted", order, now)
        else:
            self._route(account, order, now)
        return answer

    def _session_closed(self, order: Order) -> bool:
        crypto = "/" in order.symbol
        return self.rules.market_hours and not crypto and not sessions.is_open(self._clock.now_ns())

    def _route(self, account: Account, order: Order, now: int) -> None:
        routed = now + ROUTING_NS
        order = account.put(replace(order, status="new", submitted_ns=routed, updated_ns=routed), routed)
        self._emit("new", order, routed)
        self.match(account, order, routed + EXECUTION_NS)

    # --- executing

    def match(self, account: Account, order: Order, at_ns: int) -> Order:
        """Let an open order trade at the price of now as far as it can."""
        price = self._market.price(order.symbol)
        if order.parked:
            return order
        if order.status in {"new", "partially_filled"} and not self._market.frozen(order.symbol):
            if order.stop_price is not None and not order.triggered and stop_reached(order, price):
                order = account.put(replace(order, triggered=True), at_ns)
            while order.is_open and can_trade(order, price) and (order.next_slice_ns or 0) <= at_ns:
                if order.target_qty is None:
                    order = replace(order, working_qty=working_quantity(order, price))
                if order.time_in_force == "fok":
                    order = self.execute(account, order, order.remaining_qty, price, at_ns)
                    continue
                liquidity = self._market.liquidity(order.symbol)
                part = slice_quantity(order, liquidity)
                order = self.execute(account, order, part, price, at_ns)
                if order.is_open:
                    due = at_ns + liquidity.interval_ns
                    order = account.put(replace(order, slices_done=order.slices_done + 1, next_slice_ns=due), at_ns)
                    if order.time_in_force == "ioc":
                        break
        if order.is_open and order.time_in_force in {"ioc", "fok"}:
            order = self.finish(account, order, "canceled", at_ns)
        return order

    def execute(
        self,
        account: Account,
        order: Order,
        qty: Decimal,
        price: Decimal,
        at_ns: int,
        *,
        execution_id: str | None = None,
        posted_ns: int | None = None,
        publish: bool = True,
        settle: bool = True,
    ) -> Order:
        """Execute a part (or all) of an order: order, holdings, fee and FILL activity in one go."""
        if qty <= 0 or price <= 0:
            raise ValueError(f"an execution needs a quantity and a price above zero, not {qty} at {price}")
        if decimal_places(qty) > QUANTITY_PLACES:
            raise ValueError(f"quantities have at most {QUANTITY_PLACES} decimal places, not {qty}")
        if order.target_qty is not None and qty > order.remaining_qty:
            raise ValueError(f"order {order.id} has {order.remaining_qty} left, not {qty}")
        execution_id = execution_id or self._ids.new()
        filled = order.filled_qty + qty
        done = order.target_qty is not None and filled >= order.target_qty
        status = ("filled" if done else "partially_filled") if settle else order.status
        order = account.put(
            replace(
                order,
                status=status,
                filled_qty=filled,
                filled_value=order.filled_value + qty * price,
                filled_ns=at_ns,
                updated_ns=max(at_ns, order.updated_ns),
            ),
            at_ns,
        )
        sequence = self.next_sequence()
        account.book(
            Booking(at_ns, sequence, order.symbol, "fill", order.sign * qty, price, -order.sign * qty * price, order.id)
        )
        account.post(
            Activity(
                id=activity_id(at_ns, execution_id),
                kind="FILL",
                at_ns=at_ns,
                posted_ns=at_ns if posted_ns is None else posted_ns,
                sequence=sequence,
                symbol=order.symbol,
                qty=qty,
                price=price,
                side=order.side,
                order_id=order.id,
                cum_qty=filled,
                leaves_qty=ZERO if order.target_qty is None else order.target_qty - filled,
                fill_type="fill" if done else "partial_fill",
                order_status="filled" if done else "partially_filled",
            )
        )
        self._charge(account, order, qty, price, at_ns)
        if publish:
            position = account.holding(order.symbol).qty
            event = "fill" if done else "partial_fill"
            self._publish(TradeEvent(event, account.id, order, at_ns, execution_id, qty, price, position))
        return order

    def _charge(self, account: Account, order: Order, qty: Decimal, price: Decimal, at_ns: int) -> None:
        """Take the crypto fee from what is received: coins of a buy, dollars of a sale. Posted at the day's end."""
        if "/" not in order.symbol or not self.rules.crypto_fee_bps:
            return
        rate = self.rules.crypto_fee_bps / 10_000
        sequence = self.next_sequence()
        posted = next_midnight(at_ns)
        coins = rounded_quantity(qty * rate) if order.side == "buy" else ZERO
        dollars = rounded_quantity(qty * price * rate) if order.side == "sell" else ZERO
        if not coins and not dollars:
            return
        account.book(Booking(at_ns, sequence, order.symbol, "fee", -coins, price, -dollars, order.id))
        account.post(
            Activity(
                id=f"{day_of(at_ns).replace('-', '')}000000000::{self._ids.new()}",
                kind="CFEE",
                at_ns=posted,
                posted_ns=posted,
                sequence=sequence,
                symbol=self._assets.find_or_list(order.symbol).position_symbol,
                qty=-coins if coins else None,
                price=price if coins else None,
                net_amount=-dollars,
                description=f"Coin Pair Transaction Fee ({'Non USD' if coins else 'USD'})",
                day=day_of(at_ns),
            )
        )

    # --- ending

    def finish(self, account: Account, order: Order, status: str, at_ns: int, *, publish: bool = True) -> Order:
        """End an order without filling it (further)."""
        stamp = {"canceled": "canceled_ns", "expired": "expired_ns", "rejected": "failed_ns"}[status]
        changes: dict[str, object] = {"status": status, "updated_ns": at_ns, stamp: at_ns}
        order = account.put(_changed(order, changes), at_ns)
        if publish:
            self._emit(status, order, at_ns)
        return order

    def cancel(self, account: Account, order_id: str) -> Order:
        """Cancel an order that is still open."""
        order = account.order(order_id)
        if order is None:
            raise errors.order_not_found(order_id)
        if not order.is_open:
            raise errors.not_allowed(f'order is already in "{order.status}" state')
        return self.finish(account, order, "canceled", self._clock.now_ns())

    def replace_order(self, account: Account, order_id: str, body: object) -> Order:
        """PATCH: the order ends as replaced, a new one takes its place. Returns the new one as it was placed."""
        order = account.order(order_id)
        if order is None:
            raise errors.order_not_found(order_id)
        change = read_change(body, order, self._assets.find_or_list(order.symbol))
        if order.status not in REPLACEABLE:
            raise errors.not_allowed(f'cannot replace order in "{order.status}" state')
        self._check_client_id(account, change.client_order_id)
        qty = change.qty
        if self.rules.replacement_keeps_filled and qty is not None:
            qty -= order.filled_qty
        now = self._clock.now_ns()
        ticket = Ticket(
            asset=self._assets.find_or_list(order.symbol),
            side=order.side,
            type=order.type,
            time_in_force=change.time_in_force,
            qty=qty,
            notional=None,
            limit_price=change.limit_price,
            stop_price=change.stop_price,
            client_order_id=change.client_order_id,
            extended_hours=order.extended_hours,
            subtag=order.subtag,
            source=order.source,
        )
        old = account.put(replace(order, status="replaced", replaced_ns=now, updated_ns=now), now)
        new = self._place(account, ticket, replaces=order)
        old = account.put(replace(old, replaced_by=new.id), now)
        self._emit("replaced", old, now)
        return new

    # --- time

    def settle(self, account: Account, now: int) -> None:
        """Do what is due: orders queued for the open, further parts, expiries."""
        for order in account.open_orders():
            if order.parked:
                continue
            if order.expires_ns <= now:
                self.finish(account, order, "expired", order.expires_ns)
            elif order.status == "accepted" and not self._session_closed(order):
                self._route(account, order, now)
            elif order.next_slice_ns is not None and order.next_slice_ns <= now:
                self._due_slices(account, order, now)

    def _due_slices(self, account: Account, order: Order, now: int) -> None:
        while order.is_open and order.next_slice_ns is not None and order.next_slice_ns <= now:
            due, before = order.next_slice_ns, order.filled_qty
            order = self.match(account, order, due)
            if order.is_open and order.filled_qty == before:
                account.put(replace(order, next_slice_ns=None), now)
                return

    def reprice(self, account: Account, symbol: str, at_ns: int) -> None:
        """Match the open orders of a symbol after its price changed."""
        for order in account.open_orders():
            if order.symbol == symbol and not self._session_closed(order):
                self.match(account, order, at_ns)


def _changed(order: Order, changes: dict[str, object]) -> Order:
    return replace(order, **changes)  # type: ignore[arg-type]
