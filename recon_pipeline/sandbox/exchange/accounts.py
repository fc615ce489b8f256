"""One account's state: versions of its orders, bookings, activities; and that state as it was at any earlier moment.

Who may change it and when is decided in `trading.py` and `history.py`.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from recon_pipeline.sandbox.exchange.assets import normal_symbol
from recon_pipeline.sandbox.exchange.records import Activity, Booking, Holding, Order, holding_after


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What a client signs in with."""

    key_id: str
    secret_key: str = field(repr=False)


@dataclass(slots=True)
class AccountSettings:
    """What may differ from account to account."""

    cash: Decimal = Decimal(100_000)
    multiplier: Decimal = Decimal(4)
    requests_per_minute: int = 200
    revoked: bool = False
    shorting_enabled: bool = True
    suspend_trade: bool = False
    check_buying_power: bool = True


class Account:
    """Orders, bookings and activities of one account. Not thread-safe by itself: the book's lock guards it."""

    def __init__(self, account_id: str, number: str, keys: KeyPair, settings: AccountSettings, created_ns: int) -> None:
        self.id = account_id
        self.number = number
        self.keys = keys
        self.settings = settings
        self.created_ns = created_ns
        self._versions: dict[str, list[tuple[int, int, Order]]] = {}
        self._by_client_id: dict[str, str] = {}
        self._bookings: list[tuple[int, int, Booking]] = []
        self._symbol_bookings: dict[str, list[tuple[int, int, Booking]]] = {}
        self._holdings: dict[str, Holding] = {}
        self._activities: list[tuple[int, int, Activity]] = []
        self._open: dict[str, None] = {}
        self._step = 0

    @property
    def revision(self) -> int:
        """Grows with every order version, booking and activity."""
        return self._step + len(self._bookings) + len(self._activities)

    # --- orders

    def put(self, order: Order, at_ns: int) -> Order:
        """Record a version of an order that holds from `at_ns` on."""
        self._step += 1
        versions = self._versions.setdefault(order.id, [])
        if versions and versions[-1][0] > at_ns:
            at_ns = versions[-1][0]
        versions.append((at_ns, self._step, order))
        self._by_client_id[order.client_order_id] = order.id
        if order.is_open:
            self._open[order.id] = None
        else:
            self._open.pop(order.id, None)
        return order

    def order(self, order_id: str, as_of: int | None = None) -> Order | None:
        """An order as it is, or as it was at `as_of`; None if it is not there (yet)."""
        versions = self._versions.get(order_id)
        if not versions:
            return None
        if as_of is None:
            return versions[-1][2]
        place = bisect_right(versions, as_of, key=lambda version: version[0])
        return versions[place - 1][2] if place else None

    def order_by_client_id(self, client_order_id: str, as_of: int | None = None) -> Order | None:
        """By the client's id."""
        order_id = self._by_client_id.get(client_order_id)
        return None if order_id is None else self.order(order_id, as_of)

    def orders(self, as_of: int | None = None) -> list[Order]:
        """All orders, in the order in which they were recorded."""
        found = (self.order(order_id, as_of) for order_id in self._versions)
        return [order for order in found if order is not None]

    def open_orders(self) -> list[Order]:
        """Orders that can still trade."""
        return [self._versions[order_id][-1][2] for order_id in self._open]

    def versions(self) -> Iterator[tuple[int, Order]]:
        """Every version of every order, in the order in which they were recorded."""
        rows = [row for versions in self._versions.values() for row in versions]
        for at_ns, _, order in sorted(rows, key=lambda row: row[1]):
            yield at_ns, order

    # --- holdings

    def book(self, booking: Booking) -> None:
        """Record a change of holdings; a late one with an earlier time is put in its place."""
        key = normal_symbol(booking.symbol)
        row = (booking.at_ns, booking.sequence, booking)
        insort(self._bookings, row, key=lambda entry: entry[:2])
        of_symbol = self._symbol_bookings.setdefault(key, [])
        insort(of_symbol, row, key=lambda entry: entry[:2])
        if of_symbol[-1] is row:
            self._holdings[key] = self._holdings.get(key, Holding(booking.symbol)).booked(booking)
        else:
            self._holdings[key] = holding_after(booking.symbol, (entry[2] for entry in of_symbol))

    def bookings(self, as_of: int | None = None) -> list[Booking]:
        """Every booking in order of time."""
        return [booking for at_ns, _, booking in self._bookings if as_of is None or at_ns <= as_of]

    def holding(self, symbol: str, as_of: int | None = None) -> Holding:
        """What is held of a symbol."""
        key = normal_symbol(symbol)
        if as_of is None:
            return self._holdings.get(key, Holding(symbol))
        rows = self._symbol_bookings.get(key, [])
        return holding_after(symbol, (booking for at_ns, _, booking in rows if at_ns <= as_of))

    def holdings(self, as_of: int | None = None) -> list[Holding]:
        """Everything held, by symbol."""
        found = (self.holding(rows[0][2].symbol, as_of) for _, rows in sorted(self._symbol_bookings.items()))
        return [holding for holding in found if holding.qty]

    def cash(self, as_of: int | None = None) -> Decimal:
        """Dollars."""
        return self.settings.cash + sum((booking.cash for booking in self.bookings(as_of)), Decimal(0))

    # --- activities

    def post(self, activity: Activity) -> None:
        """Record an activity; it can be read from its `posted_ns` on."""
        insort(self._activities, (activity.at_ns, activity.sequence, activity), key=lambda entry: entry[:2])

    def activities(self, as_of: int) -> list[Activity]:
        """What can be read at `as_of`, oldest first."""
        return [activity for _, _, activity in self._activities if activity.posted_ns <= as_of]

    def all_activities(self) -> list[Activity]:
        """Posted or not, oldest first."""
        return [activity for _, _, activity in self._activities]
