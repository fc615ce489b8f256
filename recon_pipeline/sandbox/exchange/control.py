"""The control surface at /sim: what a sandbox or a test outside this process tells the exchange. Loopback only.

Nothing of it exists at Alpaca. In the same process, call the book directly; the names are the same.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from recon_pipeline.sandbox.exchange.accounts import Account, AccountSettings
from recon_pipeline.sandbox.exchange.amounts import parse_amount
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.clock import nano_text, parse_time
from recon_pipeline.sandbox.exchange.faults import Fault, Faults
from recon_pipeline.sandbox.exchange.history import HistoricFill, HistoricOrder
from recon_pipeline.sandbox.exchange.payloads import Payload, activity_payload, order_payload
from recon_pipeline.sandbox.exchange.stream import StreamHub

Body = dict[str, Any]
_FILL_TIMES = ("at", "posted_at")
_ORDER_TIMES = ("submitted_at", "created_at", "ended_at")
_ORDER_AMOUNTS = ("qty", "limit_price", "stop_price", "notional")


def _instant(value: object) -> int:
    return value if isinstance(value, int) else parse_time(str(value))


def _converted(body: Body, times: tuple[str, ...], amounts: tuple[str, ...]) -> Body:
    values = dict(body)
    for name in times:
        if values.get(name) is not None:
            values[name] = _instant(values[name])
    for name in amounts:
        if values.get(name) is not None:
            values[name] = parse_amount(values[name])
    return values


def historic_order(body: Body) -> HistoricOrder:
    """An order of history out of JSON: the fields of `HistoricOrder`, `fills` a list of those of `HistoricFill`."""
    fills = tuple(HistoricFill(**_converted(fill, _FILL_TIMES, ("qty", "price"))) for fill in body.get("fills") or [])
    values = _converted(body, _ORDER_TIMES, _ORDER_AMOUNTS)
    values.setdefault("qty", None)
    return HistoricOrder(**{**values, "fills": fills})


def _account_summary(account: Account) -> Payload:
    return {"id": account.id, "account_number": account.number, "key_id": account.keys.key_id}


class Control:
    """The handlers of /sim. Each takes the request's JSON object and gives the answer's."""

    def __init__(self, book: ExchangeBook, faults: Faults, hub: StreamHub) -> None:
        self.book = book
        self.faults = faults
        self.hub = hub

    def routes(self) -> list[BaseRoute]:
        """Every control route."""
        post: dict[str, Callable[[Body], object]] = {
            "/sim/accounts": self.add_account,
            "/sim/prices": self.set_prices,
            "/sim/liquidity": self.set_liquidity,
            "/sim/freeze": self.freeze,
            "/sim/clock": self.set_clock,
            "/sim/history": self.inject,
            "/sim/fills": self.fill,
            "/sim/trades": self.manual_trade,
            "/sim/corporate-actions": self.corporate_action,
            "/sim/faults": self.add_fault,
            "/sim/stream": self.stream,
        }
        get: dict[str, Callable[[Body], object]] = {
            "/sim/accounts": lambda _: [_account_summary(account) for account in self.book.accounts()],
            "/sim/clock": lambda _: self._clock(),
            "/sim/faults": lambda _: [_fault_summary(fault) for fault in self.faults.all()],
            "/sim/requests": lambda _: [list(request) for request in self.faults.requests],
        }
        return [
            *(_route("POST", path, handler) for path, handler in post.items()),
            *(_route("GET", path, handler) for path, handler in get.items()),
            _route("DELETE", "/sim/faults", self.clear_faults),
        ]

    def add_account(self, body: Body) -> object:
        """Open an account: `name`, `key_id`, `secret_key` and the fields of `AccountSettings`, all optional."""
        amounts = ("cash", "multiplier")
        names = {field.name for field in dataclasses.fields(AccountSettings)}
        settings = {name: value for name, value in _converted(body, (), amounts).items() if name in names}
        keys = {name: body.get(name) for name in ("key_id", "secret_key")}
        account = self.book.add_account(body.get("name", ""), settings=AccountSettings(**settings), **keys)
        return _account_summary(account) | {"secret_key": account.keys.secret_key}

    def set_prices(self, body: Body) -> object:
        """`{symbol: price, ...}`."""
        for symbol, price in body.items():
            self.book.set_price(symbol, parse_amount(price))
        return {"prices": len(body)}

    def set_liquidity(self, body: Body) -> object:
        """`symbol`, `slices`, `seconds`: partial fills over time."""
        self.book.set_liquidity(body["symbol"], int(body["slices"]), float(body.get("seconds", 1)))
        return body

    def freeze(self, body: Body) -> object:
        """`symbol`, `frozen`."""
        self.book.freeze(body["symbol"], frozen=bool(body.get("frozen", True)))
        return body

    def set_clock(self, body: Body) -> object:
        """`advance` (seconds) and/or `hold` (a time, or true for now)."""
        if body.get("hold"):
            self.book.clock.hold(None if body["hold"] is True else _instant(body["hold"]))
        if body.get("advance") is not None:
            self.book.advance(float(body["advance"]))
        return self._clock()

    def _clock(self) -> Payload:
        return {"now": nano_text(self.book.clock.now_ns()), "held": self.book.clock.held}

    def inject(self, body: Body) -> object:
        """`account` and `orders`: history with its fills."""
        orders = self.book.inject(body["account"], [historic_order(order) for order in body["orders"]])
        return [order_payload(order) for order in orders]

    def fill(self, body: Body) -> object:
        """`order_id`, optionally `qty`, `price`, `at`: execute an open order."""
        values = _converted(body, ("at",), ("qty", "price"))
        order = self.book.fill(body["order_id"], values.get("qty"), price=values.get("price"), at=values.get("at"))
        return order_payload(order)

    def manual_trade(self, body: Body) -> object:
        """`account`, `symbol`, `side`, `qty`, optionally `price`, `at`."""
        values = _converted(body, ("at",), ("qty", "price"))
        order = self.book.manual_trade(
            body["account"], body["symbol"], body["side"], values["qty"], price=values.get("price"), at=values.get("at")
        )
        return order_payload(order)

    def corporate_action(self, body: Body) -> object:
        """`account`, `symbol`, `qty_change`, optionally `kind`, `subtype`, `cash`, `at`."""
        values = _converted(body, ("at",), ("qty_change", "cash"))
        name, symbol, change = values.pop("account"), values.pop("symbol"), values.pop("qty_change")
        return activity_payload(self.book.corporate_action(name, symbol, change, **values))

    def add_fault(self, body: Body) -> object:
        """The fields of `Fault`."""
        return _fault_summary(self.faults.add(Fault(**body)))

    def clear_faults(self, _body: Body) -> object:
        """All is well again."""
        self.faults.clear()
        return []

    def stream(self, body: Body) -> object:
        """`account` with `replay` (a number of events) or `disconnect`."""
        account = self.book.account(body["account"])
        if body.get("replay"):
            self.hub.replay(account.id, int(body["replay"]))
        if body.get("disconnect"):
            self.hub.disconnect(account.id)
        return {"listeners": self.hub.listeners(account.id)}


def _fault_summary(fault: Fault) -> Payload:
    fields = {field.name: getattr(fault, field.name) for field in dataclasses.fields(fault) if field.init}
    return {name: str(value) if isinstance(value, Decimal) else value for name, value in fields.items()}


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _route(method: str, path: str, handler: Callable[[Body], object]) -> Route:
    async def endpoint(request: Request) -> Response:
        if not _is_loopback(request):
            return JSONResponse({"message": "the control surface answers on loopback only"}, 403)
        try:
            raw = await request.body()
            body = json.loads(raw, parse_float=Decimal) if raw else {}
            if isinstance(body, dict):
                return JSONResponse(handler(body))
            return JSONResponse({"message": "a JSON object is expected"}, 422)
        except KeyError as error:
            return JSONResponse({"message": f"missing or unknown: {error}"}, 422)
        except (ValueError, TypeError, InvalidOperation) as error:
            return JSONResponse({"message": str(error)}, 422)

    return Route(path, endpoint, methods=[method])
