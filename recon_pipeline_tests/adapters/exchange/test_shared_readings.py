"""Each account is read once per run, whoever asks, and one account's failure stays its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.exchange.reader import SharedReadings
from recon_pipeline_tests.adapters.exchange.world import NOW, ago, executed, filled, ms, order_id, world


def test_profiles_that_ask_at_the_same_time_get_the_same_reading() -> None:
    with world() as w:
        w.inject(filled(1, "AAPL", "buy", ("2", "100", ago(hours=1))))
        shared = SharedReadings(w.reader, since_ms=ms(ago(days=3)), now_ms=ms(NOW))
        together = threading.Barrier(8)

        def ask(_: int) -> AccountReading:
            together.wait(10)
            return shared.of("A1")

        with ThreadPoolExecutor(8) as pool:
            readings = list(pool.map(ask, range(8)))
        assert all(reading is readings[0] for reading in readings)
        assert w.requests.count("/v2/account") == 1
        assert len(w.requests) == readings[0].certificate.calls == 7


def test_a_defect_of_our_own_in_one_account_is_an_error_of_that_account() -> None:
    class Reader:
        def read_account(self, account_id: str, *, since_ms: int, now_ms: int) -> AccountReading:
            if account_id == "bad":
                raise KeyError("something unforeseen")
            return AccountReading.failed(account_id, "nothing to read here", since_ms=since_ms, now_ms=now_ms)

    readings = SharedReadings(Reader(), since_ms=1, now_ms=2).read_all(["good", "bad"])
    assert readings["good"].error == "nothing to read here"
    assert readings["bad"].error == "account 'bad' could not be read: unexpected KeyError, see the log"
    assert not readings["bad"].certificate.complete
    assert SharedReadings(Reader(), since_ms=1, now_ms=2).read_all([]) == {}


def test_an_account_can_be_checked_with_one_request() -> None:
    with world("A1", "A2") as w:
        w.sim.book.account("A2").settings.revoked = True
        assert w.reader.check("A1") == ""
        assert w.requests == ["/v2/account"]
        assert "HTTP 401" in w.reader.check("A2")
        assert "no keys for account 'A3'" in w.reader.check("A3")


def test_a_cursor_that_the_exchange_has_forgotten_costs_a_sweep_from_the_start() -> None:
    with world() as w:
        w.inject(filled(1, "AAPL", "buy", ("2", "100", ago(hours=5))))
        assert w.read().certificate.complete
        mark = w.store.watermark("A1", "orders")
        assert mark is not None
        w.store.set_watermark(
            "A1", "orders", last_id=order_id(77), covered_from=mark["covered_from"], covered_until=mark["covered_until"]
        )
        reading = w.read()
        assert (reading.certificate.complete, executed(reading)) == (True, {order_id(1): 2 * 10**9})
