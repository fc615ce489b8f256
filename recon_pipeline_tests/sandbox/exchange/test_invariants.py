"""What holds whatever happens to an account: sums, cursors, earlier moments, restarts."""

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.sandbox.exchange import (
    Account,
    AccountSettings,
    ExchangeBook,
    HistoricFill,
    HistoricOrder,
    SimClock,
)
from recon_pipeline.sandbox.exchange.amounts import quantity_down
from recon_pipeline.sandbox.exchange.assets import normal_symbol
from recon_pipeline.sandbox.exchange.errors import ApiError
from recon_pipeline.sandbox.exchange.listing import read_activity_query, read_order_query
from recon_pipeline.sandbox.exchange.persistence import dump_state, load_state
from recon_pipeline_tests.sandbox.exchange.conftest import NOON

SYMBOLS = ["AAPL", "MSFT", "BTC/USD", "SHIB/USD"]
quantities = st.integers(1, 5_000_000_000).map(lambda units: Decimal(units) / 1_000_000_000)
wholes = st.integers(1, 20).map(Decimal)
prices = st.integers(1, 100_000).map(lambda cents: Decimal(cents) / 100)
symbols = st.sampled_from(SYMBOLS)
sides = st.sampled_from(["buy", "sell"])
moments = st.integers(-3, 3).map(lambda minutes: NOON + timedelta(minutes=minutes))

operations = st.lists(
    st.one_of(
        st.tuples(st.just("market"), symbols, sides, quantities | wholes),
        st.tuples(st.just("limit"), symbols, sides, wholes, prices),
        st.tuples(st.just("notional"), symbols, st.integers(1, 500)),
        st.tuples(st.just("price"), symbols, prices),
        st.tuples(st.just("parts"), symbols, st.integers(1, 4)),
        st.tuples(st.just("advance"), st.integers(1, 100_000)),
        st.tuples(st.just("cancel"), st.integers(0, 9)),
        st.tuples(st.just("replace"), st.integers(0, 9), wholes),
        st.tuples(st.just("fill"), st.integers(0, 9), st.integers(1, 10)),
        st.tuples(st.just("history"), symbols, sides, st.lists(st.tuples(quantities, prices, moments), max_size=3)),
        st.tuples(st.just("split"), symbols, wholes),
        st.tuples(st.just("close"), symbols),
    ),
    min_size=3,
    max_size=40,
)


def opened() -> tuple[ExchangeBook, Account]:
    book = ExchangeBook(clock=SimClock(NOON), seed=1)
    account = book.add_account("PA1", settings=AccountSettings(cash=Decimal(10_000_000)))
    return book, account


def perform(book: ExchangeBook, account: Account, operation: tuple[Any, ...]) -> None:
    """Do one thing; a refusal is as good as any other answer."""
    name, *values = operation
    crypto = bool(values) and "/" in str(values[0])
    order = {"symbol": values[0] if values else "", "time_in_force": "gtc" if crypto else "day"}
    resting = account.open_orders()
    try:
        if name == "market":
            book.submit(account, {**order, "side": values[1], "qty": str(values[2]), "type": "market"})
        elif name == "limit":
            terms = {"type": "limit", "side": values[1], "qty": str(values[2]), "limit_price": str(values[3])}
            book.submit(account, {**order, **terms})
        elif name == "notional":
            book.submit(account, {**order, "side": "buy", "notional": str(values[1]), "type": "market"})
        elif name == "price":
            book.set_price(values[0], values[1])
        elif name == "parts":
            book.set_liquidity(values[0], values[1], 30)
        elif name == "advance":
            book.advance(values[0])
        elif name == "cancel" and resting:
            book.cancel(account, resting[values[0] % len(resting)].id)
        elif name == "replace" and resting:
            book.replace_order(account, resting[values[0] % len(resting)].id, {"qty": str(values[1])})
        elif name == "fill" and resting:
            chosen = resting[values[0] % len(resting)]
            if chosen.target_qty is not None:
                book.fill(chosen.id, quantity_down(chosen.remaining_qty / values[1]) or chosen.remaining_qty)
        elif name == "history":
            fills = tuple(HistoricFill(*fill) for fill in values[2])
            total = sum((fill.qty for fill in fills), Decimal(1))
            book.inject(account.id, HistoricOrder(values[0], values[1], total, NOON - timedelta(hours=1), fills))
        elif name == "split":
            book.corporate_action(account.id, values[0], values[1])
        elif name == "close":
            book.close_position(account, values[0])
    except ApiError:
        pass


def walk(page_of: Callable[[str | None], list[Any]], size: int) -> list[Any]:
    """Pages until a short one."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        page = page_of(cursor)
        found += page
        if len(page) < size:
            return found
        cursor = page[-1].id


@settings(max_examples=1000, deadline=None)
@given(operations)
def test_activities_explain_every_position_and_every_order(done):
    book, account = opened()
    for operation in done:
        perform(book, account, operation)
    rows = account.all_activities()

    held = defaultdict(Decimal)
    fills = defaultdict(list)
    for row in rows:
        if row.kind == "FILL":
            held[normal_symbol(row.symbol)] += row.qty if row.side == "buy" else -row.qty
            fills[row.order_id].append(row)
        else:
            held[normal_symbol(row.symbol)] += row.qty or 0
    positions = {normal_symbol(holding.symbol): holding.qty for holding in account.holdings()}
    assert positions == {symbol: qty for symbol, qty in held.items() if qty}

    for order in account.orders():
        executed = sorted(fills[order.id], key=lambda row: row.sequence)
        totals = [row.cum_qty for row in executed]
        assert totals == sorted(set(totals))
        assert sum((row.qty for row in executed), Decimal(0)) == order.filled_qty
        assert totals[-1:] == ([order.filled_qty] if order.filled_qty else [])
        assert all(row.leaves_qty == (order.target_qty or 0) - row.cum_qty for row in executed)
        if order.qty is not None:
            assert order.filled_qty <= order.qty
        assert (order.status == "filled") == (bool(executed) and order.remaining_qty == 0)
        if order.replaced_by is not None:
            assert account.order(order.replaced_by).replaces == order.id


@settings(max_examples=500, deadline=None)
@given(operations)
def test_crypto_is_never_sold_short_by_an_order(done):
    book, account = opened()
    for operation in done:
        if operation[0] != "history":
            perform(book, account, operation)
            assert all(holding.qty > 0 for holding in account.holdings() if "/" in holding.symbol)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), sides, symbols), max_size=40),
    st.integers(1, 7),
    st.sampled_from([{}, {"side": "buy"}, {"symbols": "AAPL,BTCUSD"}, {"status": "closed"}]),
)
def test_a_walk_by_any_cursor_meets_every_order_exactly_once(told, size, filters):
    book, account = opened()
    for minute, side, symbol in told:  # many share one submitted_at
        at = NOON + timedelta(minutes=minute)
        book.inject("PA1", HistoricOrder(symbol, side, Decimal(1), at, (HistoricFill(Decimal(1), Decimal(9), at),)))

    def page(cursor_name: str, direction: str) -> Callable[[str | None], list[Any]]:
        base = {"status": "all", "direction": direction, "limit": str(size), **filters}
        return lambda cursor: book.list_orders(
            account, read_order_query({**base, cursor_name: cursor} if cursor else base)
        )

    everything = book.list_orders(account, read_order_query({"status": "all", "limit": "500", **filters}))
    ids = [order.id for order in everything]
    assert len(set(ids)) == len(ids)
    assert [order.id for order in walk(page("after_order_id", "asc"), size)] == ids[::-1]
    assert [order.id for order in walk(page("before_order_id", "desc"), size)] == ids

    for direction in ("asc", "desc"):
        rows = walk(
            lambda cursor, direction=direction: book.list_activities(
                account,
                read_activity_query(
                    {"direction": direction, "page_size": str(size), "activity_types": "FILL"}
                    | ({"page_token": cursor} if cursor else {})
                ),
            ),
            size,
        )
        in_time = sorted(account.all_activities(), key=lambda row: (row.at_ns, row.sequence))
        expected = [row.id for row in in_time if row.kind == "FILL" and row.posted_ns <= book.clock.now_ns()]
        assert [row.id for row in rows] == (expected if direction == "asc" else expected[::-1])


@settings(max_examples=300, deadline=None)
@given(operations)
def test_a_restart_forgets_nothing_and_repeats_no_id(done):
    book, account = opened()
    for operation in done:
        perform(book, account, operation)
    state = dump_state(book)
    again = load_state(state)
    assert dump_state(again) == state
    assert again.positions_view(again.account("PA1")) == book.positions_view(account)
    assert again.account_view(again.account("PA1")) == book.account_view(account)
    assert again.ids.new() == book.ids.new()


@settings(max_examples=300, deadline=None)
@given(operations, st.lists(st.integers(-4000, 4000), min_size=2, max_size=5))
def test_earlier_moments_only_ever_knew_less(done, seconds):
    book, account = opened()
    for operation in done:
        perform(book, account, operation)
    last = book.clock.now_ns() + 10**12
    assert account.orders(last) == account.orders()
    assert account.holdings(last) == account.holdings()
    before: dict[str, Decimal] = {}
    for second in sorted(seconds):
        at = int((NOON + timedelta(seconds=second)).timestamp()) * 10**9
        then = {order.id: order.filled_qty for order in account.orders(at)}
        assert all(then.get(order_id, -1) >= filled for order_id, filled in before.items())
        before = then
