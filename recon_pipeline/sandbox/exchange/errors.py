"""The errors that the simulated exchange answers with: status, code and body as Alpaca words them.

Only refusals of the Trading API belong here; faults on demand are in `faults.py`.
"""

from __future__ import annotations

from decimal import Decimal

from recon_pipeline.sandbox.exchange.amounts import amount_text


class ApiError(Exception):
    """A refusal: an HTTP status and the JSON body that goes with it."""

    def __init__(self, status: int, body: dict[str, object]) -> None:
        super().__init__(str(body.get("message", "")))
        self.status = status
        self.body = body


def bad_input(message: str) -> ApiError:
    """422 40010001: the request itself is wrong."""
    return ApiError(422, {"code": 40010001, "message": message})


def not_allowed(message: str) -> ApiError:
    """422 42210000: well formed, but not possible for this asset or in this state."""
    return ApiError(422, {"code": 42210000, "message": message})


def order_not_found(order_id: str) -> ApiError:
    """404 40410000 for an order."""
    return ApiError(404, {"code": 40410000, "message": f"order not found for {order_id}"})


def position_not_found() -> ApiError:
    """404 40410000 for a position."""
    return ApiError(404, {"code": 40410000, "message": "position does not exist"})


def endpoint_not_found() -> ApiError:
    """404 for a path that the API does not have (an unquoted slash in a symbol ends here)."""
    return ApiError(404, {"code": 40410000, "message": "endpoint not found"})


def unauthorized() -> ApiError:
    """401 40110000: no keys were sent, or the keys were revoked."""
    return ApiError(401, {"code": 40110000, "message": "request is not authorized"})


def forbidden() -> ApiError:
    """403 without a code: the key pair is not known."""
    return ApiError(403, {"message": "forbidden."})


def rate_limited() -> ApiError:
    """429 42910000."""
    return ApiError(429, {"code": 42910000, "message": "rate limit exceeded"})


def not_fractionable(symbol: str) -> ApiError:
    """403 40310000: the same code as a missing balance, told apart by its text only."""
    return ApiError(403, {"code": 40310000, "message": f'asset "{symbol}" is not fractionable'})


def insufficient_qty(
    symbol: str, requested: Decimal, available: Decimal, existing: Decimal, held: Decimal, related_orders: list[str]
) -> ApiError:
    """403 40310000: the position does not have what the order wants to close."""
    return ApiError(
        403,
        {
            "available": amount_text(available),
            "code": 40310000,
            "existing_qty": amount_text(existing),
            "held_for_orders": amount_text(held),
            "message": "insufficient qty available for order "
            f"(requested: {amount_text(requested)}, available: {amount_text(available)})",
            "related_orders": related_orders,
            "symbol": symbol,
        },
    )


def insufficient_balance(symbol: str, requested: Decimal, available: Decimal) -> ApiError:
    """403 40310000: the coins to sell are not there; crypto cannot be sold short."""
    coin = symbol.split("/", maxsplit=1)[0]
    return ApiError(
        403,
        {
            "available": amount_text(available),
            "balance": amount_text(available),
            "code": 40310000,
            "message": f"insufficient balance for {coin} "
            f"(requested: {amount_text(requested)}, available: {amount_text(available)})",
            "symbol": symbol,
        },
    )


def insufficient_buying_power(buying_power: Decimal, cost_basis: Decimal) -> ApiError:
    """403 40310000: the account cannot pay for the order."""
    return ApiError(
        403,
        {
            "buying_power": amount_text(buying_power),
            "code": 40310000,
            "cost_basis": amount_text(cost_basis),
            "message": "insufficient buying power",
        },
    )
