"""What a cycle asks of the exchange grows with accounts and new executions, not with profiles, symbols or open rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal

import pytest

from recon_pipeline_tests.soak.cast import Market, Profile, client_id, moment, ms_of, sub_tag
from recon_pipeline_tests.soak.cycles import Place, Scheduler
from recon_pipeline_tests.soak.driver import Plan, World, world
from recon_pipeline_tests.soak.ledger import BotRow

SYMBOLS = ("AAPL", "MSFT", "NVDA", "META", "AMZN", "GOOGL", "TSLA", "SPY", "QQQ", "IWM")
FILLS_PAGE = 100
KNOWN = 12


def people(accounts: int, profiles: int) -> tuple[Profile, ...]:
    markets = tuple(Market(symbol, "buy", Decimal(1)) for symbol in SYMBOLS)
    return tuple(
        Profile(f"a{account}-p{number}", f"account-{account}", markets, Decimal(10**6))
        for account in range(accounts)
        for number in range(profiles)
    )


def trade(made: World, orders_per_account: int, symbols: int, *, written: bool = True, resting: bool = False) -> None:
    """Let each account execute so many orders, shared by its profiles, and its bots write them down."""
    for account_id in made.account_ids:
        own = [profile for profile in made.profiles if profile.account_id == account_id]
        account = made.book.account(account_id)
        for number in range(orders_per_account):
            profile, symbol = own[number % len(own)], SYMBOLS[number % symbols]
            trade_id = f"x{made.now_ms % 10**9}n{number}"
            named = client_id(profile.profile_id, trade_id, "entry")
            tag = sub_tag(profile.profile_id, trade_id)
            body = {"symbol": symbol, "side": "buy", "qty": "1", "time_in_force": "gtc", "client_order_id": named}
            body |= {"type": "limit", "limit_price": "1"} if resting else {"type": "market"}
            order = made.book.order(account, made.book.submit(account, body | {"subtag": tag}).id)
            if not written:
                continue
            done = order.status == "filled"
            at_ms = ms_of(order.filled_ns or order.created_ns)
            row = BotRow(
                order_id=order.id,
                client_order_id=named,
                user_id=profile.user_id,
                profile_id=profile.profile_id,
                trade_id=trade_id,
                symbol=symbol,
                type="market",
                side="buy",
                action="ENTRY",
                status="filled" if done else "new",
                qty=Decimal(1),
                filled_qty=Decimal(int(done)),
                price=order.average_price or Decimal(1),
                time_ms=at_ms,
                filled_at=moment(at_ms) if done else None,
                sub_tag=tag,
            )
            made.ledger.write(row, entry_side="buy", at=moment(at_ms))


def calls(made: World, scheduler: Scheduler) -> int:
    """What one cycle asks."""
    made.book.advance(300)
    made.sim.faults.requests.clear()
    cycles = scheduler.run(f"cycle-{made.now_ms}", made.now_ms)
    assert [cycle.profile_id for cycle in cycles if not cycle.report.evidence_complete] == []
    assert len(cycles) == len(made.profiles)
    return len(made.sim.faults.requests)


def quiet() -> dict[str, float]:
    return {"trades_per_day": 0.001, "by_hand_per_week": 0.0}


@pytest.fixture
def counted(new_database: Callable[..., str]) -> Callable[..., list[int]]:
    """Requests of cycles: the first, one without news, one with so many new executions on each account."""

    def count(accounts: int, profiles: int, symbols: int, *, news: int = 12, resting: int = 0) -> list[int]:
        plan = Plan(seed=1, days=1, profiles=people(accounts, profiles), **quiet())
        with world(plan, new_database()) as made:
            scheduler = Scheduler(Place.of(made))
            trade(made, KNOWN, symbols)
            if resting:
                made.book.advance(60)
                trade(made, resting, symbols, resting=True)
            told = [calls(made, scheduler), calls(made, scheduler)]
            trade(made, news, symbols)
            return [*told, calls(made, scheduler)]

    return count


def test_calls_do_not_grow_with_profiles(counted: Callable[..., list[int]]):
    assert counted(1, 1, 4) == counted(1, 12, 4)


def test_calls_do_not_grow_with_symbols(counted: Callable[..., list[int]]):
    assert counted(1, 2, 1) == counted(1, 2, len(SYMBOLS))


def test_calls_do_not_grow_with_orders_that_rest_at_the_exchange(counted: Callable[..., list[int]]):
    few, many = counted(1, 2, 4, resting=1), counted(1, 2, 4, resting=30)
    assert few[1:] == many[1:]


def test_calls_grow_with_accounts_one_for_one(counted: Callable[..., list[int]]):
    one, three = counted(1, 3, 4), counted(3, 3, 4)
    assert [3 * number for number in one] == three
    assert one[1] <= 9, "a quiet account costs a handful of calls"


def test_calls_grow_with_new_executions_by_the_page(counted: Callable[..., list[int]]):
    few, many = counted(1, 3, 4, news=12), counted(1, 3, 4, news=320)
    pages = math.ceil((KNOWN + 320) / FILLS_PAGE) - math.ceil((KNOWN + 12) / FILLS_PAGE)
    assert many[2] - few[2] == pages
