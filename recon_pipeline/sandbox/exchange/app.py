"""The routes of the Trading API: who asks, within which budget, for what. State and rules are in `book.py`.

The control surface (/sim/...) is in `control.py`, the stream in `stream.py`, faults in `faults.py`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import date
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from recon_pipeline.sandbox.exchange import errors, sessions
from recon_pipeline.sandbox.exchange.accounts import Account
from recon_pipeline.sandbox.exchange.amounts import parse_amount
from recon_pipeline.sandbox.exchange.book import ExchangeBook
from recon_pipeline.sandbox.exchange.clock import SECOND_NS, to_datetime
from recon_pipeline.sandbox.exchange.listing import read_activity_query, read_order_query
from recon_pipeline.sandbox.exchange.payloads import (
    activity_payload,
    asset_payload,
    calendar_payload,
    clock_payload,
    configurations_payload,
    order_payload,
)
from recon_pipeline.sandbox.exchange.ratelimit import RateLimiter

Handler = Callable[[Request, Account], Awaitable[Response]]
STALE_SECONDS = "sim_stale_seconds"


class TradingApi:
    """The handlers of /v2."""

    def __init__(self, book: ExchangeBook, limiter: RateLimiter) -> None:
        self.book = book
        self.limiter = limiter

    def routes(self) -> list[BaseRoute]:
        """All routes of the Trading API that are simulated."""
        return [
            self._route("GET", "/v2/account", self.get_account),
            self._route("GET", "/v2/account/configurations", self.get_configurations),
            self._route("PATCH", "/v2/account/configurations", self.patch_configurations),
            self._route("GET", "/v2/account/activities", self.get_activities),
            self._route("GET", "/v2/account/activities/{kind}", self.get_activities),
            self._route("GET", "/v2/positions", self.get_positions),
            self._route("DELETE", "/v2/positions", self.close_positions),
            self._route("GET", "/v2/positions/{name:path}", self.get_position),
            self._route("DELETE", "/v2/positions/{name:path}", self.close_position),
            self._route("GET", "/v2/orders:by_client_order_id", self.get_order_by_client_id),
            self._route("GET", "/v2/orders", self.get_orders),
            self._route("POST", "/v2/orders", self.post_order),
            self._route("DELETE", "/v2/orders", self.cancel_orders),
            self._route("GET", "/v2/orders/{order_id}", self.get_order),
            self._route("PATCH", "/v2/orders/{order_id}", self.patch_order),
            self._route("DELETE", "/v2/orders/{order_id}", self.cancel_order),
            self._route("GET", "/v2/assets", self.get_assets),
            self._route("GET", "/v2/assets/{name:path}", self.get_asset),
            self._route("GET", "/v2/clock", self.get_clock),
            self._route("GET", "/v2/calendar", self.get_calendar),
        ]

    def _route(self, method: str, path: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            headers: dict[str, str] = {}
            try:
                account = self.book.authenticate(
                    request.headers.get("APCA-API-KEY-ID"), request.headers.get("APCA-API-SECRET-KEY")
                )
                budget = self.limiter.spend(account.id, account.settings.requests_per_minute)
                headers = budget.headers
                if not budget.allowed:
                    raise errors.rate_limited()
                self.book.settle()
                response = await handler(request, account)
            except errors.ApiError as error:
                response = JSONResponse(error.body, error.status)
            response.headers.update(headers)
            response.headers["X-Request-ID"] = uuid.uuid4().hex
            return response

        return Route(path, endpoint, methods=[method])

    def _as_of(self, request: Request) -> int | None:
        seconds = request.scope.get(STALE_SECONDS)
        return None if seconds is None else self.book.clock.now_ns() - int(seconds * SECOND_NS)

    # --- account

    async def get_account(self, request: Request, account: Account) -> Response:
        """GET /v2/account."""
        return JSONResponse(self.book.account_view(account, self._as_of(request)))

    async def get_configurations(self, _request: Request, account: Account) -> Response:
        """GET /v2/account/configurations."""
        return JSONResponse(configurations_payload(account))

    async def patch_configurations(self, request: Request, account: Account) -> Response:
        """PATCH /v2/account/configurations: suspend_trade and no_shorting have effect."""
        body = await _json(request)
        if isinstance(body, dict):
            if isinstance(body.get("suspend_trade"), bool):
                account.settings.suspend_trade = body["suspend_trade"]
            if isinstance(body.get("no_shorting"), bool):
                account.settings.shorting_enabled = not body["no_shorting"]
        return JSONResponse(configurations_payload(account))

    async def get_activities(self, request: Request, account: Account) -> Response:
        """GET /v2/account/activities, and one kind of them."""
        query = read_activity_query(request.query_params, request.path_params.get("kind"))
        rows = self.book.list_activities(account, query, self._as_of(request))
        return JSONResponse([activity_payload(row) for row in rows])

    # --- positions

    async def get_positions(self, request: Request, account: Account) -> Response:
        """GET /v2/positions."""
        return JSONResponse(self.book.positions_view(account, self._as_of(request)))

    async def get_position(self, request: Request, account: Account) -> Response:
        """GET /v2/positions/{symbol or asset id}."""
        return JSONResponse(self.book.position_view(account, _last_part(request), self._as_of(request)))

    async def close_position(self, request: Request, account: Account) -> Response:
        """DELETE /v2/positions/{symbol or asset id}."""
        qty, percentage = (_query_amount(request, key) for key in ("qty", "percentage"))
        order = self.book.close_position(account, _last_part(request), qty=qty, percentage=percentage)
        return JSONResponse(order_payload(order))

    async def close_positions(self, request: Request, account: Account) -> Response:
        """DELETE /v2/positions: one result per position."""
        if request.query_params.get("cancel_orders", "").lower() == "true":
            self.book.cancel_all(account)
        results: list[dict[str, Any]] = []
        for position in self.book.positions_view(account):
            try:
                order = self.book.close_position(account, position["symbol"])
                results.append({"symbol": position["symbol"], "status": 200, "body": order_payload(order)})
            except errors.ApiError as error:
                results.append({"symbol": position["symbol"], "status": error.status, "body": error.body})
        return JSONResponse(results, 207)

    # --- orders

    async def get_orders(self, request: Request, account: Account) -> Response:
        """GET /v2/orders."""
        query = read_order_query(_joined_query(request, "asset_class"))
        return JSONResponse(
            [order_payload(order) for order in self.book.list_orders(account, query, self._as_of(request))]
        )

    async def post_order(self, request: Request, account: Account) -> Response:
        """POST /v2/orders."""
        return JSONResponse(order_payload(self.book.submit(account, await _json(request))))

    async def get_order(self, request: Request, account: Account) -> Response:
        """GET /v2/orders/{id}."""
        return JSONResponse(
            order_payload(self.book.order(account, request.path_params["order_id"], self._as_of(request)))
        )

    async def get_order_by_client_id(self, request: Request, account: Account) -> Response:
        """GET /v2/orders:by_client_order_id."""
        client_order_id = request.query_params.get("client_order_id")
        if not client_order_id:
            raise errors.bad_input("client_order_id is required")
        order = self.book.order_by_client_id(account, client_order_id, self._as_of(request))
        return JSONResponse(order_payload(order))

    async def patch_order(self, request: Request, account: Account) -> Response:
        """PATCH /v2/orders/{id}."""
        order = self.book.replace_order(account, request.path_params["order_id"], await _json(request))
        return JSONResponse(order_payload(order))

    async def cancel_order(self, request: Request, account: Account) -> Response:
        """DELETE /v2/orders/{id}."""
        self.book.cancel(account, request.path_params["order_id"])
        return Response(status_code=204)

    async def cancel_orders(self, _request: Request, account: Account) -> Response:
        """DELETE /v2/orders: one result per open order."""
        return JSONResponse([{"id": order.id, "status": 200} for order in self.book.cancel_all(account)], 207)

    # --- assets and time

    async def get_assets(self, request: Request, _account: Account) -> Response:
        """GET /v2/assets."""
        wanted = request.query_params
        assets = [asset_payload(asset) for asset in self.book.assets.all()]
        for key, field in (("asset_class", "class"), ("exchange", "exchange"), ("status", "status")):
            if wanted.get(key):
                assets = [asset for asset in assets if asset[field] == wanted[key]]
        return JSONResponse(assets)

    async def get_asset(self, request: Request, _account: Account) -> Response:
        """GET /v2/assets/{symbol or asset id}; here a slash may stay unquoted."""
        name = request.path_params["name"]
        asset = self.book.assets.find(name)
        if asset is None:
            raise errors.ApiError(404, {"code": 40410000, "message": f"asset not found for {name}"})
        return JSONResponse(asset_payload(asset))

    async def get_clock(self, _request: Request, _account: Account) -> Response:
        """GET /v2/clock."""
        return JSONResponse(clock_payload(self.book.clock.now_ns()))

    async def get_calendar(self, request: Request, _account: Account) -> Response:
        """GET /v2/calendar: a year around now unless start and end are given."""
        today = to_datetime(self.book.clock.now_ns()).date()
        try:
            first = date.fromisoformat(request.query_params.get("start") or f"{today.year}-01-01")
            last = date.fromisoformat((request.query_params.get("end") or f"{today.year}-12-31")[:10])
        except ValueError as error:
            raise errors.bad_input("start and end must be dates") from error
        return JSONResponse([calendar_payload(session) for session in sessions.sessions_between(first, last)])


async def _json(request: Request) -> object:
    try:
        return json.loads(await request.body(), parse_float=Decimal)
    except ValueError as error:
        raise errors.ApiError(400, {"code": 40010000, "message": "request body format is invalid"}) from error


def _query_amount(request: Request, key: str) -> Decimal | None:
    text = request.query_params.get(key)
    if not text:
        return None
    try:
        return parse_amount(text)
    except ValueError as error:
        raise errors.bad_input(f"invalid {key}: {text}") from error


def _joined_query(request: Request, key: str) -> dict[str, str]:
    """The query with a repeated parameter joined by commas: `asset_class` is an array."""
    parameters = dict(request.query_params)
    values = request.query_params.getlist(key)
    if values:
        parameters[key] = ",".join(values)
    return parameters


def _last_part(request: Request) -> str:
    """The last part of the raw path: BTC%2FUSD is one part, BTC/USD are two and no such endpoint."""
    raw = bytes(request.scope.get("raw_path") or request.url.path.encode()).decode("ascii").split("?", maxsplit=1)[0]
    parts = raw.removeprefix("/v2/positions/").split("/")
    if len(parts) != 1:
        raise errors.endpoint_not_found()
    return unquote(parts[0])


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 404:
        return JSONResponse(errors.endpoint_not_found().body, 404)
    return JSONResponse({"code": status * 100_000, "message": str(error)}, status)


def trading_app(
    book: ExchangeBook,
    limiter: RateLimiter,
    more_routes: list[BaseRoute],
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
) -> Starlette:
    """The application: the Trading API and whatever else is served next to it."""
    return Starlette(
        routes=[*TradingApi(book, limiter).routes(), *more_routes],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
