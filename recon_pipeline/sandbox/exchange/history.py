"""Injected history: orders and executions that happened before, trades by hand, corporate actions.

This is how a demo book or a test tells the exchange what is true; nothing is validated against balances. Times may lie
in the past, ids may be chosen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from recon_pipeline.sandbox.exchange import sessions
from recon_pipeline.sandbox.exchange.accounts import Account
from recon_pipeline.sandbox.exchange.amounts import QUANTITY_PLACES, ZERO, decimal_places
from recon_pipeline.sandbox.exchange.assets import AssetList
from recon_pipeline.sandbox.exchange.clock import SECOND_NS, IdSource, SimClock, activity_id, day_of, to_ns
from recon_pipeline.sandbox.exchange.records import ALL_STATUSES, OPEN_STATUSES, Activity, Booking, Order
from recon_pipeline.sandbox.exchange.trading import Desk

Instant = datetime | int


@dataclass(frozen=True, slots=True)
class HistoricFill:
    """An execution that happened. `posted_at` later than `at` makes its activity appear late."""

    qty: Decimal
    price: Decimal
    at: Instant
    execution_id: str | None = None
    posted_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class HistoricOrder:
    """An order that was placed. Without a status: filled, partially_filled or new, as its fills say.

    An open one stays as it is until it is filled, canceled or replaced by command (`live` lets the market move it).
    """

    symbol: str
    side: str
    qty: Decimal | None
    submitted_at: Instant
    fills: tuple[HistoricFill, ...] = ()
    status: str | None = None
    type: str = "market"
    time_in_force: str | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    notional: Decimal | None = None
    order_id: str | None = None
    client_order_id: str | None = None
    subtag: str | None = None
    source: str | None = "access_key"
    created_at: Instant | None = None
    ended_at: Instant | None = None
    replaces: str | None = None
    live: bool = False


def _check_fills(told: HistoricOrder) -> None:
    """Nothing of an order is written unless all of it can be."""
    for amount in (told.qty, *(fill.qty for fill in told.fills)):
        if amount is not None and (amount <= 0 or decimal_places(amount) > QUANTITY_PLACES):
            raise ValueError(f"a quantity is above zero with at most {QUANTITY_PLACES} decimal places, not {amount}")
    if any(fill.price <= 0 for fill in told.fills):
        raise ValueError("a price is above zero")
    executed = sum((fill.qty for fill in told.fills), ZERO)
    if told.qty is None and told.notional is None:
        raise ValueError("an order has a quantity or a notional value")
    if told.qty is not None and executed > told.qty:
        raise ValueError(f"the fills sum up to {executed}, the order is for {told.qty}")


class Historian:
    """Writes history into accounts. Runs under the book's lock."""

    def __init__(self, clock: SimClock, ids: IdSource, assets: AssetList, desk: Desk) -> None:
        self._clock = clock
        self._ids = ids
        self._assets = assets
        self._desk = desk

    def inject(self, account: Account, told: HistoricOrder) -> Order:
        """Write one order with its fills; returns its last version."""
        if told.side not in {"buy", "sell"}:
            raise ValueError(f"a side is buy or sell, not {told.side!r}")
        if told.status is not None and told.status not in ALL_STATUSES:
            raise ValueError(f"unknown order status {told.status!r}")
        _check_fills(told)
        order_id = told.order_id or self._ids.new()
        client_order_id = told.client_order_id or self._ids.new()
        if account.order(order_id) is not None or account.order_by_client_id(client_order_id) is not None:
            raise ValueError(f"the account already has an order {order_id} or {client_order_id}")
        asset = self._assets.find_or_list(told.symbol)
        if told.replaces is not None and account.order(told.replaces) is None:
            raise ValueError(f"there is no order {told.replaces} to replace")
        submitted = to_ns(told.submitted_at)
        created = submitted if told.created_at is None else to_ns(told.created_at)
        time_in_force = told.time_in_force or ("gtc" if asset.is_crypto else "day")
        held = account.holding(asset.symbol).qty
        closing = held > 0 if told.side == "sell" else held < 0
        order = Order(
            id=order_id,
            account_id=account.id,
            sequence=self._desk.next_sequence(),
            client_order_id=client_order_id,
            symbol=asset.symbol,
            side=told.side,
            type=told.type,
            time_in_force=time_in_force,
            qty=told.qty,
            notional=told.notional,
            working_qty=sum((fill.qty for fill in told.fills), ZERO) if told.qty is None else None,
            limit_price=told.limit_price,
            stop_price=told.stop_price,
            position_intent=f"{told.side}_to_{'close' if closing else 'open'}",
            subtag=told.subtag,
            source=told.source,
            created_ns=created,
            submitted_ns=submitted,
            updated_ns=submitted,
            expires_ns=sessions.expiry_ns(time_in_force, created),
            status="new",
            replaces=told.replaces,
            parked=not told.live,
        )
        account.put(order, created)
        if told.replaces is not None:
            self._link(account, told.replaces, order, created)
        for fill in sorted(told.fills, key=lambda fill: to_ns(fill.at)):
            order = self._desk.execute(
                account,
                order,
                fill.qty,
                fill.price,
                to_ns(fill.at),
                execution_id=fill.execution_id,
                posted_ns=None if fill.posted_at is None else to_ns(fill.posted_at),
                publish=False,
            )
        return self._end(account, order, told)

    def _end(self, account: Account, order: Order, told: HistoricOrder) -> Order:
        status = told.status or order.status
        if status in OPEN_STATUSES:
            lasting = max(order.expires_ns, sessions.expiry_ns("gtc", self._clock.now_ns()))
            return account.put(replace(order, status=status, expires_ns=lasting), order.updated_ns)
        if status == order.status:
            return order
        ended = to_ns(told.ended_at) if told.ended_at is not None else order.updated_ns + SECOND_NS
        if status in {"canceled", "expired", "rejected"}:
            return self._desk.finish(account, order, status, ended, publish=False)
        if status == "replaced":
            return account.put(replace(order, status=status, replaced_ns=ended, updated_ns=ended), ended)
        return account.put(replace(order, status=status), order.updated_ns)

    def _link(self, account: Account, replaced_id: str, by: Order, at_ns: int) -> None:
        old = account.order(replaced_id)
        if old is None:
            raise KeyError(replaced_id)
        replaced_ns = old.replaced_ns or at_ns
        account.put(
            replace(old, status="replaced", replaced_ns=replaced_ns, replaced_by=by.id, updated_ns=replaced_ns),
            replaced_ns,
        )

    def corporate_action(
        self, account: Account, symbol: str, qty_change: Decimal, kind: str, subtype: str, at_ns: int, cash: Decimal
    ) -> Activity:
        """Change a position without an order, with the activity that tells of it."""
        if decimal_places(qty_change) > QUANTITY_PLACES:
            raise ValueError(f"quantities have at most {QUANTITY_PLACES} decimal places, not {qty_change}")
        asset = self._assets.find_or_list(symbol)
        sequence = self._desk.next_sequence()
        account.book(Booking(at_ns, sequence, asset.symbol, "corporate_action", qty_change, None, cash))
        activity = Activity(
            id=activity_id(at_ns, self._ids.new()),
            kind=kind,
            at_ns=at_ns,
            posted_ns=at_ns,
            sequence=sequence,
            symbol=asset.position_symbol,
            qty=qty_change,
            price=None,
            net_amount=cash,
            description=f"{kind} {asset.position_symbol}",
            subtype=subtype,
            day=day_of(at_ns),
        )
        account.post(activity)
        return activity
