"""The trade_updates stream, read by alpaca-py's TradingStream and by a plain websocket."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from alpaca.trading.stream import TradingStream
from websockets.sync.client import connect


class Listener:
    """A TradingStream in its own thread, and what it was told."""

    def __init__(self, url: str, *, raw: bool = False) -> None:
        self.updates: list[Any] = []
        self.stream = TradingStream("PKTEST", "test-secret", raw_data=raw, url_override=url)
        self.stream.subscribe_trade_updates(self._take)
        self.thread = threading.Thread(target=self.stream.run, daemon=True)
        self.thread.start()

    async def _take(self, update: Any) -> None:
        self.updates.append(update)


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def event(update: Any) -> str:
    """alpaca-py gives an enum for some events and text for others."""
    return str(getattr(update.event, "value", update.event))


@pytest.fixture
def listener(sim, account):
    listening = Listener(sim.stream_url)
    wait_until(lambda: sim.stream.listeners(account.id) == 1)
    yield listening
    listening.stream.stop()
    sim.stream.disconnect()
    listening.thread.join(10)


def test_the_life_of_an_order_is_told_in_order(sim, listener, place):
    sim.book.set_liquidity("AAPL", 2, 60)
    order_id = place(qty="4")["id"]
    sim.book.advance(61)
    wait_until(lambda: len(listener.updates) == 3)
    new, part, fill = listener.updates
    assert [event(update) for update in (new, part, fill)] == ["new", "partial_fill", "fill"]
    assert {str(update.order.id) for update in listener.updates} == {order_id}
    assert (new.qty, new.price, new.position_qty) == (None, None, None)
    assert (part.qty, part.price, part.position_qty) == (2.0, 271.5, 2.0)
    assert (fill.qty, fill.position_qty, fill.order.filled_qty) == (2.0, 4.0, "4")
    assert len({update.execution_id for update in listener.updates}) == 3


def test_cancels_replacements_and_expiries_are_told(sim, listener, place, raw):
    canceled, replaced = (place(type="limit", limit_price="1")["id"] for _ in range(2))
    raw.cancel_order_by_id(canceled)
    raw.patch(f"/orders/{replaced}", {"qty": "2"})
    sim.book.advance(5 * 3600)
    wait_until(lambda: len(listener.updates) == 6)
    assert [event(update) for update in listener.updates] == ["new", "new", "canceled", "new", "replaced", "expired"]


def test_events_can_be_told_again_with_the_same_execution_id(sim, account, listener, place):
    place()
    wait_until(lambda: len(listener.updates) == 2)
    sim.stream.replay(account.id, 2)
    wait_until(lambda: len(listener.updates) == 4)
    ids = [update.execution_id for update in listener.updates]
    assert ids[:2] == ids[2:]


def test_the_client_comes_back_after_a_cut(sim, account, listener, place):
    sim.stream.disconnect(account.id)
    wait_until(lambda: sim.stream.listeners(account.id) == 0)
    wait_until(lambda: sim.stream.listeners(account.id) == 1)
    place()
    wait_until(lambda: len(listener.updates) == 2)


def test_frames_are_binary_json_and_strangers_hear_nothing(sim, place):
    with connect(sim.stream_url) as socket:
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates"]}}))
        assert json.loads(socket.recv(timeout=5))["data"] == {"action": "listen", "status": "unauthorized"}
        wrong = {"key_id": "PKTEST", "secret_key": "guess"}
        socket.send(json.dumps({"action": "authenticate", "data": wrong}))
        assert json.loads(socket.recv(timeout=5))["data"]["status"] == "unauthorized"
        keys = {"key_id": "PKTEST", "secret_key": "test-secret"}
        socket.send(json.dumps({"action": "authenticate", "data": keys}))
        frame = socket.recv(timeout=5)
        assert isinstance(frame, bytes)
        assert json.loads(frame) == {
            "stream": "authorization",
            "data": {"action": "authenticate", "status": "authorized"},
        }
        socket.send(json.dumps({"action": "listen", "data": {"streams": ["trade_updates", "nonsense"]}}))
        assert json.loads(socket.recv(timeout=5)) == {"stream": "listening", "data": {"streams": ["trade_updates"]}}
        other = sim.book.add_account("PA2")
        sim.book.submit(other, {"symbol": "AAPL", "qty": "1", "side": "buy", "type": "market", "time_in_force": "day"})
        mine = place()["id"]
        assert json.loads(socket.recv(timeout=5))["data"]["order"]["id"] == mine
