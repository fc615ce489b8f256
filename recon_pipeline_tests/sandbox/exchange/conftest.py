"""A running exchange with one account, and the real alpaca-py signed in to it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import requests
from alpaca.trading.client import TradingClient

from recon_pipeline.sandbox.exchange import (
    Account,
    AccountSettings,
    ExchangeBook,
    SimClock,
    SimulatedExchange,
    running_exchange,
)

NOON = datetime(2026, 10, 8, 16, 0, tzinfo=UTC)  # a Thursday, noon in New York
KEYS = {"APCA-API-KEY-ID": "PKTEST", "APCA-API-SECRET-KEY": "test-secret"}


@dataclass
class Http:
    """A client without manners: any path, any body, the raw answer."""

    base: str
    session: requests.Session

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        return self.session.request(method, self.base + path, timeout=options.pop("timeout", 10), **options)


@pytest.fixture
def sim() -> Iterator[SimulatedExchange]:
    """An exchange whose clock stands at noon of a trading day, with the account PA1."""
    book = ExchangeBook(clock=SimClock(NOON), seed=7)
    with running_exchange(book=book) as running:
        book.add_account(
            "PA1",
            key_id="PKTEST",
            secret_key="test-secret",
            settings=AccountSettings(requests_per_minute=100_000),
        )
        yield running


@pytest.fixture
def account(sim: SimulatedExchange) -> Account:
    """The account PA1."""
    return sim.book.account("PA1")


@pytest.fixture
def client(sim: SimulatedExchange) -> TradingClient:
    """alpaca-py with its models."""
    return TradingClient("PKTEST", "test-secret", url_override=sim.url)


@pytest.fixture
def raw(sim: SimulatedExchange) -> TradingClient:
    """alpaca-py with plain JSON."""
    return TradingClient("PKTEST", "test-secret", url_override=sim.url, raw_data=True)


@pytest.fixture
def http(sim: SimulatedExchange) -> Iterator[Http]:
    """Signed requests, everything else up to the test."""
    with requests.Session() as session:
        session.headers.update(KEYS)
        yield Http(sim.url, session)


@pytest.fixture
def place(raw: TradingClient) -> Callable[..., dict[str, Any]]:
    """Place an order by its raw body, defaults for what is not said."""

    def placed(**body: Any) -> dict[str, Any]:
        given = {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day", **body}
        return raw.post("/orders", {name: value for name, value in given.items() if value is not None})

    return placed
