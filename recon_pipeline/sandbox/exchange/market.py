"""Prices and matching: at which price an order trades, and how much of it at a time. Pure but for the price table.

The market is a single price per symbol without a spread. An order that can trade does so at that price, which is the
limit or better.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal

from recon_pipeline.sandbox.exchange.amounts import quantity_down
from recon_pipeline.sandbox.exchange.assets import AssetList, normal_symbol
from recon_pipeline.sandbox.exchange.clock import SECOND_NS
from recon_pipeline.sandbox.exchange.records import Order


@dataclass(frozen=True, slots=True)
class Liquidity:
    """How orders of a symbol fill: in `slices` parts, `interval_ns` apart. One part is a full fill at once."""

    slices: int = 1
    interval_ns: int = SECOND_NS


class Market:
    """The price and the liquidity of each symbol. A frozen symbol does not trade at all."""

    def __init__(self, assets: AssetList) -> None:
        self._assets = assets
        self._prices: dict[str, Decimal] = {}
        self._liquidity: dict[str, Liquidity] = {}
        self._frozen: set[str] = set()

    def price(self, symbol: str) -> Decimal:
        """The price now; an asset's first price until one is set."""
        known = self._prices.get(normal_symbol(symbol))
        return known if known is not None else self._assets.find_or_list(symbol).price

    def set_price(self, symbol: str, price: Decimal) -> None:
        """Set a price. Orders are matched by the book, not here."""
        if price <= 0:
            raise ValueError(f"a price is above zero, not {price}")
        self._prices[normal_symbol(symbol)] = price

    def set_liquidity(self, symbol: str, liquidity: Liquidity) -> None:
        """Let orders of a symbol fill in parts over time."""
        if liquidity.slices < 1 or liquidity.interval_ns < 0:
            raise ValueError("at least one slice, and no negative interval")
        self._liquidity[normal_symbol(symbol)] = liquidity

    def freeze(self, symbol: str, *, frozen: bool = True) -> None:
        """Stop (or let go on) all trading of a symbol: orders rest whatever the price."""
        if frozen:
            self._frozen.add(normal_symbol(symbol))
        else:
            self._frozen.discard(normal_symbol(symbol))

    def frozen(self, symbol: str) -> bool:
        """Whether trading of a symbol is stopped."""
        return normal_symbol(symbol) in self._frozen

    def liquidity(self, symbol: str) -> Liquidity:
        """How a symbol's orders fill."""
        return self._liquidity.get(normal_symbol(symbol), Liquidity())

    def dump(self) -> dict[str, object]:
        """What a restart needs."""
        return {
            "prices": {symbol: str(price) for symbol, price in self._prices.items()},
            "liquidity": {symbol: [parts.slices, parts.interval_ns] for symbol, parts in self._liquidity.items()},
            "frozen": sorted(self._frozen),
        }

    def load(self, prices: dict[str, str], liquidity: dict[str, list[int]], frozen: list[str]) -> None:
        """Take over what `dump` gave."""
        self._prices = {symbol: Decimal(price) for symbol, price in prices.items()}
        self._liquidity = {symbol: Liquidity(*parts) for symbol, parts in liquidity.items()}
        self._frozen = set(frozen)


def stop_reached(order: Order, price: Decimal) -> bool:
    """Whether the price sets a stop order off."""
    if order.stop_price is None or order.triggered:
        return True
    return price >= order.stop_price if order.side == "buy" else price <= order.stop_price


def can_trade(order: Order, price: Decimal) -> bool:
    """Whether the order trades at this price."""
    if not stop_reached(order, price):
        return False
    if order.limit_price is None:
        return True
    return price <= order.limit_price if order.side == "buy" else price >= order.limit_price


def working_quantity(order: Order, price: Decimal) -> Decimal:
    """What the order wants to execute: its quantity, or its notional at this price, cut to nine places."""
    if order.target_qty is not None:
        return order.target_qty
    return quantity_down((order.notional or Decimal(0)) / price)


def slice_quantity(order: Order, liquidity: Liquidity) -> Decimal:
    """The next part to execute; the last part takes all that remains."""
    left = liquidity.slices - order.slices_done
    remaining = order.remaining_qty
    if left <= 1:
        return remaining
    part = remaining / left
    whole = part.to_integral_value(ROUND_DOWN)
    rounded = whole if remaining == remaining.to_integral_value() and whole else quantity_down(part)
    return rounded if rounded > 0 else remaining
