"""The JSON that the Trading API answers with, key by key as the paper API spells it in October 2026.

Quantities and prices are decimal strings, times are UTC with nanoseconds, absent values are null and never missing.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from recon_pipeline.sandbox.exchange import sessions
from recon_pipeline.sandbox.exchange.accounts import Account
from recon_pipeline.sandbox.exchange.amounts import (
    ZERO,
    amount_text,
    cents,
    optional_text,
    rounded_quantity,
)
from recon_pipeline.sandbox.exchange.assets import Asset, asset_id
from recon_pipeline.sandbox.exchange.clock import (
    NEW_YORK,
    day_of,
    micro_text,
    nano_text,
    optional_nano_text,
    to_datetime,
)
from recon_pipeline.sandbox.exchange.records import Activity, Holding, Order
from recon_pipeline.sandbox.exchange.trading import TradeEvent

Payload = dict[str, Any]


def order_payload(order: Order) -> Payload:
    """An order: 36 keys."""
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": nano_text(order.created_ns),
        "updated_at": nano_text(order.updated_ns),
        "submitted_at": nano_text(order.submitted_ns),
        "filled_at": optional_nano_text(order.filled_ns),
        "expired_at": optional_nano_text(order.expired_ns),
        "expires_at": nano_text(order.expires_ns),
        "canceled_at": optional_nano_text(order.canceled_ns),
        "failed_at": optional_nano_text(order.failed_ns),
        "replaced_at": optional_nano_text(order.replaced_ns),
        "replaced_by": order.replaced_by,
        "replaces": order.replaces,
        "asset_id": asset_id(order.symbol),
        "symbol": order.symbol,
        "asset_class": "crypto" if "/" in order.symbol else "us_equity",
        "notional": optional_text(order.notional),
        "qty": optional_text(order.qty),
        "filled_qty": amount_text(order.filled_qty),
        "filled_avg_price": optional_text(order.average_price),
        "order_class": order.order_class,
        "order_type": order.type,
        "type": order.type,
        "side": order.side,
        "position_intent": order.position_intent,
        "time_in_force": order.time_in_force,
        "limit_price": optional_text(order.limit_price),
        "stop_price": optional_text(order.stop_price),
        "status": order.status,
        "extended_hours": order.extended_hours,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "subtag": order.subtag,
        "source": order.source,
    }


def activity_payload(row: Activity) -> Payload:
    """A fill (12 keys) or a non-trade activity."""
    if row.kind == "FILL":
        return {
            "activity_type": "FILL",
            "cum_qty": optional_text(row.cum_qty),
            "id": row.id,
            "leaves_qty": optional_text(row.leaves_qty),
            "order_id": row.order_id,
            "order_status": row.order_status,
            "price": optional_text(row.price),
            "qty": optional_text(row.qty),
            "side": row.side,
            "symbol": row.symbol,
            "transaction_time": micro_text(row.at_ns),
            "type": row.fill_type,
        }
    payload: Payload = {
        "activity_type": row.kind,
        "created_at": nano_text(row.posted_ns),
        "currency": "USD",
        "date": row.day or day_of(row.at_ns),
        "description": row.description,
        "id": row.id,
        "net_amount": amount_text(row.net_amount),
        "status": "executed",
        "symbol": row.symbol,
    }
    if row.subtype:
        payload["activity_sub_type"] = row.subtype
    if row.qty is not None:
        payload["qty"] = amount_text(row.qty)
    if row.price is not None:
        payload["price"] = amount_text(row.price)
    return payload


def _ratio(part: Decimal, whole: Decimal) -> str:
    return amount_text(rounded_quantity(part / whole)) if whole else "0"


def position_payload(holding: Holding, asset: Asset, price: Decimal, held: Decimal, *, signed: bool = True) -> Payload:
    """A position. Shorts carry `side: short` and, unless told otherwise, negative quantity and value."""
    value, cost = holding.qty * price, holding.cost
    gain = value - cost
    sign = 1 if signed or holding.qty > 0 else -1
    available = max(abs(holding.qty) - held, ZERO)
    return {
        "asset_id": asset_id(asset.position_symbol),
        "symbol": asset.position_symbol,
        "exchange": asset.exchange,
        "asset_class": asset.asset_class,
        "asset_marginable": asset.marginable,
        "qty": amount_text(sign * holding.qty),
        "avg_entry_price": amount_text(holding.average_price),
        "side": "long" if holding.qty > 0 else "short",
        "market_value": amount_text(rounded_quantity(sign * value)),
        "cost_basis": amount_text(rounded_quantity(sign * cost)),
        "unrealized_pl": amount_text(rounded_quantity(gain)),
        "unrealized_plpc": _ratio(gain, abs(cost)),
        "unrealized_intraday_pl": amount_text(rounded_quantity(gain)),
        "unrealized_intraday_plpc": _ratio(gain, abs(cost)),
        "current_price": amount_text(price),
        "lastday_price": amount_text(price),
        "change_today": "0",
        "qty_available": amount_text(available if sign * holding.qty > 0 else -available),
    }


def account_payload(
    account: Account, now_ns: int, cash: Decimal, long_value: Decimal, short_value: Decimal, power: Decimal
) -> Payload:
    """The account with the values of its positions."""
    equity = cash + long_value + short_value
    initial = (long_value - short_value) / 2
    return {
        "id": account.id,
        "account_number": account.number,
        "account_blocked": False,
        "accrued_fees": "0",
        "admin_configurations": {},
        "balance_asof": day_of(now_ns),
        "buying_power": cents(power),
        "cash": cents(cash),
        "created_at": nano_text(account.created_ns),
        "crypto_status": "ACTIVE",
        "crypto_tier": 1,
        "currency": "USD",
        "effective_buying_power": cents(power),
        "equity": cents(equity),
        "initial_margin": cents(initial),
        "intraday_adjustments": "0",
        "last_equity": cents(account.settings.cash),
        "last_maintenance_margin": "0",
        "long_market_value": cents(long_value),
        "maintenance_margin": cents(initial * Decimal("0.6")),
        "multiplier": amount_text(account.settings.multiplier),
        "non_marginable_buying_power": cents(max(cash, ZERO)),
        "options_approved_level": 3,
        "options_buying_power": cents(max(cash, ZERO)),
        "options_trading_level": 3,
        "pending_reg_taf_fees": "0",
        "portfolio_value": cents(equity),
        "position_market_value": cents(long_value + short_value),
        "regt_buying_power": cents(max(ZERO, (equity - initial) * 2)),
        "short_market_value": cents(short_value),
        "shorting_enabled": account.settings.shorting_enabled,
        "sma": "0",
        "status": "ACTIVE",
        "trade_suspended_by_user": account.settings.suspend_trade,
        "trading_blocked": False,
        "transfers_blocked": False,
        "user_configurations": None,
    }


def configurations_payload(account: Account) -> Payload:
    """The account's configuration."""
    return {
        "disable_overnight_trading": False,
        "fractional_trading": True,
        "max_margin_multiplier": amount_text(account.settings.multiplier),
        "max_options_trading_level": 3,
        "no_shorting": not account.settings.shorting_enabled,
        "ptp_no_exception_entry": False,
        "suspend_trade": account.settings.suspend_trade,
        "trade_confirm_email": "all",
    }


def asset_payload(asset: Asset) -> Payload:
    """An asset."""
    payload: Payload = {
        "id": asset_id(asset.symbol),
        "class": asset.asset_class,
        "exchange": asset.exchange,
        "symbol": asset.symbol,
        "name": asset.name,
        "status": "active",
        "tradable": asset.tradable,
        "marginable": asset.marginable,
        "maintenance_margin_requirement": 100 if asset.is_crypto else 30,
        "margin_requirement_long": "100" if asset.is_crypto else "30",
        "margin_requirement_short": "100" if asset.is_crypto else "30",
        "shortable": asset.shortable,
        "easy_to_borrow": asset.shortable,
        "fractionable": asset.fractionable,
        "attributes": [] if asset.is_crypto else ["fractional_eh_enabled"],
    }
    if asset.is_crypto:
        payload |= {"min_order_size": "0.000000001", "min_trade_increment": "0.000000001"}
        payload["price_increment"] = "0.000000001"
    else:
        payload["borrow_status"] = "easy_to_borrow" if asset.shortable else "hard_to_borrow"
    return payload


def clock_payload(now_ns: int) -> Payload:
    """The market's clock, in New York's time."""
    return {
        "timestamp": to_datetime(now_ns).astimezone(NEW_YORK).isoformat(),
        "is_open": sessions.is_open(now_ns),
        "next_open": sessions.next_open(now_ns).isoformat(),
        "next_close": sessions.next_close(now_ns).isoformat(),
    }


def calendar_payload(session: sessions.Session) -> Payload:
    """One day of the calendar."""
    settles = sessions.sessions_between(session.day + timedelta(days=1), session.day + timedelta(days=7))[0]
    return {
        "date": session.day.isoformat(),
        "open": f"{session.opens:%H:%M}",
        "close": f"{session.closes:%H:%M}",
        "session_open": "0400",
        "session_close": "2000",
        "settlement_date": settles.day.isoformat(),
    }


def event_payload(event: TradeEvent) -> Payload:
    """A message of the trade_updates stream."""
    data: Payload = {
        "event": event.event,
        "execution_id": event.execution_id,
        "order": order_payload(event.order),
        "timestamp": nano_text(event.at_ns),
    }
    if event.qty is not None:
        data |= {
            "price": optional_text(event.price),
            "qty": amount_text(event.qty),
            "position_qty": optional_text(event.position_qty),
        }
    return {"stream": "trade_updates", "data": data}
