"""Order entry: what a request to place or replace an order must look like, and what it means.

Checks of the request alone and of the asset belong here. Checks against the account's money and holdings are in
`trading.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from recon_pipeline.sandbox.exchange import errors
from recon_pipeline.sandbox.exchange.amounts import decimal_places, parse_amount
from recon_pipeline.sandbox.exchange.assets import Asset, AssetList
from recon_pipeline.sandbox.exchange.records import Order

SIDES = frozenset({"buy", "sell"})
TYPES = frozenset({"market", "limit", "stop", "stop_limit"})
EQUITY_TIMES = frozenset({"day", "gtc", "ioc", "fok"})
CRYPTO_TIMES = frozenset({"gtc", "ioc"})
CRYPTO_TYPES = frozenset({"market", "limit", "stop_limit"})
CLIENT_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Ticket:
    """A valid request for an order."""

    asset: Asset
    side: str
    type: str
    time_in_force: str
    qty: Decimal | None
    notional: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    client_order_id: str | None
    extended_hours: bool
    subtag: str | None
    source: str | None


def _text(body: Mapping[str, object], key: str) -> str | None:
    value = body.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise errors.bad_input(f"{key} must be a string")
    return value


def _amount(body: Mapping[str, object], key: str) -> Decimal | None:
    value = body.get(key)
    if value is None or value == "":
        return None
    try:
        amount = parse_amount(value)
    except ValueError as error:
        raise errors.bad_input(f"invalid {key}: {value!r}") from error
    if amount <= 0:
        raise errors.bad_input(f"{key} must be > 0")
    return amount


def _client_order_id(body: Mapping[str, object]) -> str | None:
    client_order_id = _text(body, "client_order_id")
    if client_order_id is not None and len(client_order_id) > CLIENT_ID_LENGTH:
        raise errors.bad_input(f"client_order_id must be no more than {CLIENT_ID_LENGTH} characters")
    return client_order_id


def _check_price(asset: Asset, key: str, price: Decimal | None) -> None:
    if price is None or asset.is_crypto:
        return
    places = 2 if price >= 1 else 4
    if decimal_places(price) > places:
        raise errors.not_allowed(
            f"invalid {key} {price}. sub-penny increment does not fulfill minimum pricing criteria"
        )


def _check_prices(order_type: str, limit_price: Decimal | None, stop_price: Decimal | None) -> None:
    if order_type in {"limit", "stop_limit"} and limit_price is None:
        raise errors.bad_input(f"{order_type.replace('_', ' ')} orders require limit price")
    if order_type in {"stop", "stop_limit"} and stop_price is None:
        raise errors.bad_input(f"{order_type.replace('_', ' ')} orders require stop price")
    if order_type in {"market", "stop"} and limit_price is not None:
        raise errors.bad_input(f"{order_type} orders require no limit price")
    if order_type in {"market", "limit"} and stop_price is not None:
        raise errors.bad_input(f"{order_type} orders require no stop price")


def check_quantity(asset: Asset, qty: Decimal | None, notional: Decimal | None, time_in_force: str) -> None:
    """What of a quantity the asset allows."""
    if qty is not None and decimal_places(qty) > 9:
        raise errors.bad_input("qty must be limited to 9 decimal places")
    if notional is not None and decimal_places(notional) > 2:
        raise errors.bad_input("notional value must be limited to 2 decimal places")
    fractional = notional is not None or (qty is not None and decimal_places(qty) > 0)
    if asset.is_crypto or not fractional:
        return
    if not asset.fractionable:
        raise errors.not_fractionable(asset.symbol)
    if time_in_force != "day":
        raise errors.not_allowed("fractional orders must be DAY orders")


def _check_terms(asset: Asset, order_type: str, time_in_force: str) -> None:
    if asset.is_crypto:
        if time_in_force not in CRYPTO_TIMES:
            raise errors.not_allowed("invalid crypto time_in_force")
        if order_type not in CRYPTO_TYPES:
            raise errors.not_allowed("invalid order type for crypto order")
    elif time_in_force not in EQUITY_TIMES:
        raise errors.not_allowed(f"time_in_force {time_in_force} is not simulated")


def read_ticket(body: object, assets: AssetList) -> Ticket:
    """A ticket out of the body of POST /v2/orders; ApiError with Alpaca's code for anything wrong with it."""
    if not isinstance(body, Mapping):
        raise errors.bad_input("request body format is invalid")
    symbol = _text(body, "symbol")
    if symbol is None:
        raise errors.bad_input("symbol is required")
    qty, notional = _amount(body, "qty"), _amount(body, "notional")
    if qty is None and notional is None:
        raise errors.bad_input("qty or notional is required")
    if qty is not None and notional is not None:
        raise errors.bad_input("only one of qty or notional is accepted")
    side, order_type, time_in_force = _text(body, "side"), _text(body, "type"), _text(body, "time_in_force")
    if side not in SIDES:
        raise errors.bad_input("side is required" if side is None else f"invalid side: {side}")
    if order_type is None:
        raise errors.bad_input("type is required")
    if time_in_force is None:
        raise errors.bad_input("time_in_force is required")
    order_class = _text(body, "order_class") or "simple"
    if order_class != "simple":
        raise errors.not_allowed(f"order_class {order_class} is not simulated")
    if order_type not in TYPES:
        raise errors.not_allowed(f"order type {order_type} is not simulated")
    asset = assets.find(symbol)
    if asset is None or not asset.tradable:
        raise errors.not_allowed(f'asset "{symbol}" not found' if asset is None else f"asset {symbol} is not tradable")
    limit_price, stop_price = _amount(body, "limit_price"), _amount(body, "stop_price")
    _check_prices(order_type, limit_price, stop_price)
    _check_price(asset, "limit_price", limit_price)
    _check_price(asset, "stop_price", stop_price)
    _check_terms(asset, order_type, time_in_force)
    check_quantity(asset, qty, notional, time_in_force)
    if notional is not None and order_type != "market":
        raise errors.bad_input("notional orders must be market orders")
    return Ticket(
        asset=asset,
        side=side,
        type=order_type,
        time_in_force=time_in_force,
        qty=qty,
        notional=notional,
        limit_price=limit_price,
        stop_price=stop_price,
        client_order_id=_client_order_id(body),
        extended_hours=body.get("extended_hours") is True,
        subtag=_text(body, "subtag"),
        source=_text(body, "source"),
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A valid request to replace an order: what the new order has instead."""

    qty: Decimal | None
    limit_price: Decimal | None
    stop_price: Decimal | None
    time_in_force: str
    client_order_id: str | None


def read_change(body: object, order: Order, asset: Asset) -> Change:
    """A change out of the body of PATCH /v2/orders/{id}."""
    if not isinstance(body, Mapping):
        raise errors.bad_input("request body format is invalid")
    if order.notional is not None:
        raise errors.not_allowed("notional orders cannot be replaced")
    qty = _amount(body, "qty") or order.qty
    limit_price = _amount(body, "limit_price") or order.limit_price
    stop_price = _amount(body, "stop_price") or order.stop_price
    time_in_force = _text(body, "time_in_force") or order.time_in_force
    _check_prices(order.type, limit_price, stop_price)
    _check_price(asset, "limit_price", limit_price)
    _check_price(asset, "stop_price", stop_price)
    _check_terms(asset, order.type, time_in_force)
    check_quantity(asset, qty, None, time_in_force)
    if qty is not None and qty <= order.filled_qty:
        raise errors.not_allowed("qty must be greater than the filled quantity of the order to replace")
    return Change(qty, limit_price, stop_price, time_in_force, _client_order_id(body))
