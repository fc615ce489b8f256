"""Lists and their cursors: which orders and activities a query gets, in which order, from which place on.

Pure functions over records. The order is total: orders by (submitted_at, sequence), activities by (time, sequence), so
that a walk by any cursor meets every record exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from recon_pipeline.sandbox.exchange import errors
from recon_pipeline.sandbox.exchange.assets import normal_symbol
from recon_pipeline.sandbox.exchange.clock import day_of, parse_time
from recon_pipeline.sandbox.exchange.records import Activity, Order

MAX_ORDERS = 500
DEFAULT_ORDERS = 50
MAX_ACTIVITIES = 100
TRADE_ACTIVITIES = frozenset({"FILL"})


@dataclass(frozen=True, slots=True)
class OrderQuery:
    """The parameters of GET /v2/orders, read and checked."""

    status: str = "open"
    limit: int = DEFAULT_ORDERS
    after_ns: int | None = None
    until_ns: int | None = None
    ascending: bool = False
    side: str | None = None
    symbols: frozenset[str] = frozenset()
    asset_classes: frozenset[str] = frozenset()
    before_order_id: str | None = None
    after_order_id: str | None = None


@dataclass(frozen=True, slots=True)
class ActivityQuery:
    """The parameters of GET /v2/account/activities, read and checked."""

    kinds: frozenset[str] = frozenset()
    category: str | None = None
    order_id: str | None = None
    day: str | None = None
    after_ns: int | None = None
    until_ns: int | None = None
    ascending: bool = False
    page_size: int = MAX_ACTIVITIES
    page_token: str | None = field(default=None)


def _instant(parameters: Mapping[str, str], key: str) -> int | None:
    text = parameters.get(key)
    if not text:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise errors.bad_input(f"invalid {key}: {text}") from error


def _choice(parameters: Mapping[str, str], key: str, allowed: Sequence[str], default: str) -> str:
    value = (parameters.get(key) or default).lower()
    if value not in allowed:
        raise errors.bad_input(f"invalid {key}: {value}")
    return value


def _count(parameters: Mapping[str, str], key: str, default: int, maximum: int) -> int:
    text = parameters.get(key)
    if not text:
        return default
    try:
        count = int(text)
    except ValueError as error:
        raise errors.bad_input(f"invalid {key}: {text}") from error
    if not 1 <= count <= maximum:
        raise errors.bad_input(f"{key} must be between 1 and {maximum}")
    return count


def _listed(parameters: Mapping[str, str], key: str) -> list[str]:
    return [part.strip() for part in (parameters.get(key) or "").split(",") if part.strip()]


def read_order_query(parameters: Mapping[str, str]) -> OrderQuery:
    """Check the query of GET /v2/orders."""
    before, after = parameters.get("before_order_id") or None, parameters.get("after_order_id") or None
    if before and after:
        raise errors.bad_input("before_order_id and after_order_id are mutually exclusive")
    if (before or after) and (parameters.get("after") or parameters.get("until")):
        raise errors.bad_input("before_order_id and after_order_id cannot be combined with after or until")
    classes = frozenset(_listed(parameters, "asset_class"))
    return OrderQuery(
        status=_choice(parameters, "status", ("open", "closed", "all"), "open"),
        limit=_count(parameters, "limit", DEFAULT_ORDERS, MAX_ORDERS),
        after_ns=_instant(parameters, "after"),
        until_ns=_instant(parameters, "until"),
        ascending=_choice(parameters, "direction", ("asc", "desc"), "desc") == "asc",
        side=_choice(parameters, "side", ("buy", "sell"), "buy") if parameters.get("side") else None,
        symbols=frozenset(normal_symbol(symbol) for symbol in _listed(parameters, "symbols")),
        asset_classes=frozenset() if "all" in classes else classes,
        before_order_id=before,
        after_order_id=after,
    )


def _order_key(order: Order) -> tuple[int, int]:
    return order.submitted_ns, order.sequence


def _cursor(orders: Sequence[Order], order_id: str) -> tuple[int, int]:
    for order in orders:
        if order.id == order_id:
            return _order_key(order)
    raise errors.order_not_found(order_id)


def list_orders(orders: Sequence[Order], query: OrderQuery) -> list[Order]:
    """One page of orders."""
    after = _cursor(orders, query.after_order_id) if query.after_order_id else None
    before = _cursor(orders, query.before_order_id) if query.before_order_id else None

    def wanted(order: Order) -> bool:
        return (
            (query.status == "all" or order.is_open == (query.status == "open"))
            and (query.after_ns is None or order.submitted_ns > query.after_ns)
            and (query.until_ns is None or order.submitted_ns < query.until_ns)
            and (query.side is None or order.side == query.side)
            and (not query.symbols or normal_symbol(order.symbol) in query.symbols)
            and (not query.asset_classes or ("crypto" if "/" in order.symbol else "us_equity") in query.asset_classes)
            and (after is None or _order_key(order) > after)
            and (before is None or _order_key(order) < before)
        )

    found = sorted(filter(wanted, orders), key=_order_key, reverse=not query.ascending)
    return found[: query.limit]


def read_activity_query(parameters: Mapping[str, str], kind: str | None = None) -> ActivityQuery:
    """Check the query of GET /v2/account/activities[/{kind}]."""
    kinds = [kind] if kind else _listed(parameters, "activity_types")
    category = parameters.get("category") or None
    if category is not None:
        if kinds:
            raise errors.bad_input("category cannot be used with activity_types")
        _choice(parameters, "category", ("trade_activity", "non_trade_activity"), category)
    day = _instant(parameters, "date")
    return ActivityQuery(
        kinds=frozenset(name.upper() for name in kinds),
        category=category,
        order_id=parameters.get("order_id") or None,
        day=None if day is None else day_of(day),
        after_ns=_instant(parameters, "after"),
        until_ns=_instant(parameters, "until"),
        ascending=_choice(parameters, "direction", ("asc", "desc"), "desc") == "asc",
        page_size=_count(parameters, "page_size", MAX_ACTIVITIES, MAX_ACTIVITIES),
        page_token=parameters.get("page_token") or None,
    )


def list_activities(activities: Sequence[Activity], query: ActivityQuery) -> list[Activity]:
    """One page of activities."""
    cursor: tuple[int, int] | None = None
    if query.page_token:
        keys = [(row.at_ns, row.sequence) for row in activities if row.id == query.page_token]
        if not keys:
            raise errors.bad_input("invalid page_token")
        cursor = keys[0]

    def wanted(row: Activity) -> bool:
        key = (row.at_ns, row.sequence)
        return (
            (not query.kinds or row.kind in query.kinds)
            and (query.category is None or (row.kind in TRADE_ACTIVITIES) == (query.category == "trade_activity"))
            and (query.order_id is None or row.order_id == query.order_id)
            and (query.day is None or day_of(row.posted_ns) == query.day)
            and (query.after_ns is None or row.posted_ns > query.after_ns)
            and (query.until_ns is None or row.posted_ns < query.until_ns)
            and (cursor is None or (key > cursor if query.ascending else key < cursor))
        )

    found = sorted(filter(wanted, activities), key=lambda row: (row.at_ns, row.sequence), reverse=not query.ascending)
    return found[: query.page_size]
