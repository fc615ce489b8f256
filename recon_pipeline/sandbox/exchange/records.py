"""What the simulated exchange remembers: orders, executions' bookings, activities, positions.

All of it is immutable: a change of an order is a new version of it, so that any earlier state can be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from recon_pipeline.sandbox.exchange.amounts import ZERO, rounded_quantity

# Which orders `status=open` lists. The border cases (done_for_day, calculated) are not documented.
OPEN_STATUSES = frozenset(
    {
        "new",
        "partially_filled",
        "accepted",
        "pending_new",
        "accepted_for_bidding",
        "pending_cancel",
        "pending_replace",
        "held",
        "stopped",
        "suspended",
        "calculated",
        "done_for_day",
    }
)
FINAL_STATUSES = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
ALL_STATUSES = OPEN_STATUSES | FINAL_STATUSES


@dataclass(frozen=True, slots=True)
class Order:
    """One version of one order. `*_ns` are nanoseconds since the epoch. A parked order moves only by command."""

    id: str
    account_id: str
    sequence: int
    client_order_id: str
    symbol: str
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    created_ns: int
    submitted_ns: int
    updated_ns: int
    expires_ns: int
    status: str = "pending_new"
    notional: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    extended_hours: bool = False
    order_class: str = ""
    position_intent: str = "buy_to_open"
    subtag: str | None = None
    source: str | None = None
    filled_qty: Decimal = ZERO
    filled_value: Decimal = ZERO
    filled_ns: int | None = None
    canceled_ns: int | None = None
    expired_ns: int | None = None
    failed_ns: int | None = None
    replaced_ns: int | None = None
    replaced_by: str | None = None
    replaces: str | None = None
    working_qty: Decimal | None = None
    triggered: bool = False
    next_slice_ns: int | None = None
    slices_done: int = 0
    parked: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it still can trade or be canceled."""
        return self.status in OPEN_STATUSES

    @property
    def target_qty(self) -> Decimal | None:
        """What has to be executed; for a notional order known from its first match on."""
        return self.qty if self.qty is not None else self.working_qty

    @property
    def remaining_qty(self) -> Decimal:
        """Target minus filled; 0 while a notional order's target is unknown."""
        return (self.target_qty or ZERO) - self.filled_qty

    @property
    def average_price(self) -> Decimal | None:
        """Volume-weighted price of what was executed."""
        return rounded_quantity(self.filled_value / self.filled_qty) if self.filled_qty else None

    @property
    def sign(self) -> int:
        """+1 for a buy, -1 for a sell."""
        return 1 if self.side == "buy" else -1


@dataclass(frozen=True, slots=True)
class Activity:
    """One account activity. `posted_ns` is when it can first be read; `at_ns` is what it is about."""

    id: str
    kind: str
    at_ns: int
    posted_ns: int
    sequence: int
    symbol: str
    qty: Decimal | None
    price: Decimal | None
    side: str = ""
    order_id: str = ""
    cum_qty: Decimal | None = None
    leaves_qty: Decimal | None = None
    fill_type: str = ""
    order_status: str = ""
    net_amount: Decimal = ZERO
    description: str = ""
    subtype: str = ""
    day: str = ""


@dataclass(frozen=True, slots=True)
class Booking:
    """A change of holdings: a fill, a fee taken in coins or dollars, a corporate action, an adjustment."""

    at_ns: int
    sequence: int
    symbol: str
    kind: str
    qty: Decimal
    price: Decimal | None = None
    cash: Decimal = ZERO
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """Signed quantity and its cost (signed the same way)."""

    symbol: str
    qty: Decimal = ZERO
    cost: Decimal = ZERO

    @property
    def average_price(self) -> Decimal:
        """Cost per unit; 0 if nothing is held."""
        return rounded_quantity(self.cost / self.qty) if self.qty else ZERO

    def booked(self, booking: Booking) -> Holding:
        """The holding after one booking."""
        after = self.qty + booking.qty
        if not after:
            return Holding(self.symbol)
        if booking.kind == "corporate_action":
            return replace(self, qty=after)
        if booking.kind == "fill" and booking.price is not None:
            if not self.qty or (self.qty > 0) == (booking.qty > 0):
                return replace(self, qty=after, cost=self.cost + booking.qty * booking.price)
            if (after > 0) != (self.qty > 0):
                return replace(self, qty=after, cost=after * booking.price)
        cost = self.cost * after / self.qty if self.qty else after * (booking.price or ZERO)
        return replace(self, qty=after, cost=cost)


def holding_after(symbol: str, bookings: Iterable[Booking]) -> Holding:
    """Fold bookings, given in order of time, into a holding."""
    holding = Holding(symbol)
    for booking in bookings:
        holding = holding.booked(booking)
    return holding
