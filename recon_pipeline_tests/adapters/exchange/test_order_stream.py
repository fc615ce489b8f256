"""Listening to the simulated exchange's stream: what is heard, what is said of the connection, and that it comes back."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
import websockets

from recon_pipeline.domain.order_events import StreamState
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.order_stream import OrderStream, StreamLimits, stream_address
from recon_pipeline.sandbox.exchange import ExchangeBook, SimulatedExchange, running_exchange

QUICK = StreamLimits(
    open_seconds=3, stable_seconds=60, backoff_seconds=0.02, backoff_cap_seconds=0.1, refused_seconds=0.3
)


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


class Ears:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.noise: list[str] = []
        self.states: list[tuple[str, str]] = []
        self.at: list[float] = []

    def hear(self, message: Any) -> None:
        self.heard.append(message)

    def hear_noise(self, why: str) -> None:
        self.noise.append(why)

    def hear_state(self, state: StreamState, error: str) -> None:
        self.at.append(time.monotonic())
        self.states.append((state.value, error))

    def said(self, state: str) -> int:
        return [word for word, _ in self.states].count(state)


@contextmanager
def listening(url: str, *, secret: str = "secret-of-A1", limits: StreamLimits = QUICK) -> Iterator[Ears]:
    ears = Ears()
    stream = OrderStream(AccountCredentials("A1", "PKA1", secret, url), ears, limits=limits)
    thread = threading.Thread(target=stream.run, daemon=True)
    thread.start()
    try:
        yield ears
    finally:
        stream.stop()
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def sim() -> Iterator[SimulatedExchange]:
    book = ExchangeBook(seed=1)
    book.add_account("A1", key_id="PKA1", secret_key="secret-of-A1")
    with running_exchange(book=book) as running:
        book.set_price("AAPL", Decimal(100))
        yield running


def buy(sim: SimulatedExchange, qty: str = "2") -> str:
    [account] = sim.book.accounts()
    wanted = {"symbol": "AAPL", "qty": qty, "side": "buy", "type": "market", "time_in_force": "day"}
    return str(sim.book.submit(account, wanted).id)


def test_the_life_of_an_order_is_heard_with_exact_numbers(sim):
    with listening(sim.url) as ears:
        wait_until(lambda: ears.said("listening"))
        order_id = buy(sim, "0.123456789")
        wait_until(lambda: len(ears.heard) == 2)
    new, fill = (message["data"] for message in ears.heard)
    assert [new["event"], fill["event"]] == ["new", "fill"]
    assert {new["order"]["id"], fill["order"]["id"]} == {order_id}
    assert fill["order"]["filled_qty"] == "0.123456789"
    assert [word for word, _ in ears.states] == ["connecting", "listening", "stopped"]


def test_a_cut_connection_is_said_and_made_again(sim):
    with listening(sim.url) as ears:
        wait_until(lambda: ears.said("listening"))
        sim.stream.disconnect()
        wait_until(lambda: ears.said("listening") == 2)
        buy(sim)
        wait_until(lambda: len(ears.heard) == 2)
    assert [word for word, _ in ears.states] == [
        "connecting",
        "listening",
        "down",
        "connecting",
        "listening",
        "stopped",
    ]
    assert "the connection ended" in ears.states[2][1]


def test_refused_keys_are_said_without_the_secret_and_tried_again_slowly(sim):
    with listening(sim.url, secret="another-secret") as ears:
        wait_until(lambda: ears.said("down") == 2)
    assert ears.said("listening") == 0
    assert {error for word, error in ears.states if word == "down"} == {"the exchange refused the keys"}
    first, second = (at for at, (word, _) in zip(ears.at, ears.states, strict=True) if word == "down")
    assert second - first >= QUICK.refused_seconds


def test_an_exchange_that_is_not_there_is_said_and_tried_again(sim):
    with listening("http://127.0.0.1:9") as ears:
        wait_until(lambda: ears.said("down") == 3)
    assert all("no connection" in error for word, error in ears.states if word == "down")


def test_it_stops_while_it_waits_for_the_next_attempt():
    began = time.monotonic()
    slow = StreamLimits(backoff_seconds=60, backoff_cap_seconds=60)
    with listening("http://127.0.0.1:9", limits=slow) as ears:
        wait_until(lambda: ears.said("down"))
    assert time.monotonic() - began < 10
    assert ears.states[-1] == ("stopped", "")


def test_it_stops_before_it_has_begun():
    ears = Ears()
    stream = OrderStream(AccountCredentials("A1", "k", "s", "http://127.0.0.1:9"), ears)
    stream.stop()
    stream.run()
    assert ears.states == []


@contextmanager
def exchange_that_says(*frames: Any, deaf_seconds: float = 0.0) -> Iterator[str]:
    """A websocket that lets everybody in, sends the frames, and then says nothing more; it may stop to answer at all."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    port: list[int] = []
    done = asyncio.Event()

    async def serve(socket: Any) -> None:
        await socket.recv()
        await socket.send(json.dumps({"stream": "authorization", "data": {"status": "authorized"}}))
        await socket.recv()
        for frame in frames:
            await socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame).encode())
        time.sleep(deaf_seconds)  # noqa: ASYNC251  deaf: it answers no ping either
        await done.wait()

    async def run() -> None:
        async with websockets.serve(serve, "127.0.0.1", 0) as server:
            port.append(server.sockets[0].getsockname()[1])
            ready.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)


LISTENING = {"stream": "listening", "data": {"streams": ["trade_updates"]}}


def test_what_can_t_be_read_is_noise_and_ends_nothing():
    event = {"stream": "trade_updates", "data": {"event": "fill", "price": 1.1}}
    frames = [LISTENING, "<html>", b"\xff\xfe", "[1]", '{"stream": "trade_updates", "data": {"qty": NaN}}', event]
    with exchange_that_says(*frames) as url, listening(url) as ears:
        wait_until(lambda: ears.heard)
        assert ears.said("down") == 0
    assert ears.noise == ["a frame that is no JSON"] * 2 + ["a frame that is no object", "a frame that is no JSON"]
    assert [message["data"]["price"] for message in ears.heard] == [Decimal("1.1")]


def test_an_event_before_the_subscription_is_confirmed_is_heard():
    event = {"stream": "trade_updates", "data": {"event": "new"}}
    with exchange_that_says(event, LISTENING) as url, listening(url) as ears:
        wait_until(lambda: ears.said("listening"))
    assert len(ears.heard) == 1


def test_a_subscription_to_something_else_is_no_listening():
    other = {"stream": "listening", "data": {"streams": []}}
    with exchange_that_says(other) as url, listening(url) as ears:
        wait_until(lambda: ears.said("down"))
    assert ears.states[1] == ("down", "the exchange did not subscribe to the order updates")


def test_an_exchange_that_never_confirms_is_no_listening():
    limits = StreamLimits(open_seconds=0.3, backoff_seconds=0.02, backoff_cap_seconds=0.1)
    with exchange_that_says() as url, listening(url, limits=limits) as ears:
        wait_until(lambda: ears.said("down"))
    assert ears.states[1] == ("down", "no connection within 0.3 s")


def test_a_peer_that_does_not_answer_is_given_up():
    limits = StreamLimits(ping_seconds=0.05, silent_seconds=0.1, backoff_seconds=30)
    with exchange_that_says(LISTENING, deaf_seconds=1) as url, listening(url, limits=limits) as ears:
        wait_until(lambda: ears.said("down"))
    assert [word for word, _ in ears.states[:3]] == ["connecting", "listening", "down"]


@pytest.mark.parametrize(
    ("base", "address"),
    [
        ("https://paper-api.alpaca.markets", "wss://paper-api.alpaca.markets/stream"),
        ("https://api.alpaca.markets/v2/", "wss://api.alpaca.markets/stream"),
        ("http://127.0.0.1:8765", "ws://127.0.0.1:8765/stream"),
    ],
)
def test_the_stream_is_where_the_account_is(base, address):
    assert stream_address(base) == address
