"""Readings that keep their evidence in Postgres: the same as in memory, and still there in the next process."""

from __future__ import annotations

from decimal import Decimal

from recon_pipeline.exchange.evidence_store import EvidenceStore as Wanted
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.sandbox.exchange import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import (
    E9,
    NOW,
    ElasticTime,
    ago,
    executed,
    filled,
    ms,
    order_id,
    reader_of,
    sums,
    world,
)


def test_a_reading_is_the_same_with_the_durable_store_and_goes_on_in_another_process(database_url: str) -> None:
    with world() as w:
        w.inject(
            *(filled(n, "AAPL", "buy", ("1", "100", ago(hours=60, minutes=-n))) for n in range(1, 121)),
            filled(200, "BTC/USD", "buy", ("0.123456789", "64000.12", ago(days=30)), ("0.1", "64001", ago(hours=8)),
                   time_in_force="gtc"),
            filled(201, "MSFT", "sell", ("1", "55", ago(hours=7)), qty=Decimal(4), status="canceled"),
            filled(203, "NVDA", "buy", submitted_at=ago(days=20), qty=Decimal(5), type="limit",
                   limit_price=Decimal(1), time_in_force="gtc"),
        )  # fmt: skip
        in_memory = w.read()
        assert in_memory.certificate.complete
        calls: list[int] = []
        for step in range(3):
            store: Wanted = EvidenceStore(database_url)
            reader = reader_of(w.sim, store, ElasticTime(), "A1")
            reading = reader.read_account("A1", since_ms=ms(ago(days=3)), now_ms=ms(NOW))
            store.close()  # type: ignore[attr-defined]
            assert reading.certificate.reasons == (), step
            assert reading.executions.equals(in_memory.executions)
            assert reading.orders.equals(in_memory.orders)
            calls.append(reading.certificate.calls)
        assert calls[0] == in_memory.certificate.calls
        assert calls[1] == calls[2] < calls[0]
        w.sim.book.fill(order_id(203), "5", price="1")
        with EvidenceStore(database_url) as last:
            reader = reader_of(w.sim, last, ElasticTime(), "A1")
            reading = reader.read_account("A1", since_ms=ms(ago(days=3)), now_ms=ms(NOW) + 60_000)
        assert reading.certificate.complete
        assert executed(reading)[order_id(203)] == sums(reading)[order_id(203)] == 5 * E9


def test_what_an_incomplete_reading_brought_is_kept_and_the_next_one_completes_it(database_url: str) -> None:
    with world() as w, EvidenceStore(database_url) as store:
        w.inject(*(filled(n, "AAPL", "buy", ("1", "100", ago(hours=60, minutes=-n))) for n in range(1, 121)))
        reader = reader_of(w.sim, store, ElasticTime(), "A1")
        w.sim.faults.add(Fault(FaultKind.ERROR, path="/v2/account/activities*", status=503, skip=1))
        broken = reader.read_account("A1", since_ms=ms(ago(days=3)), now_ms=ms(NOW))
        assert "HTTP 503" in broken.error
        assert len(store.executions_since("A1", ago(days=3))) == 100
        assert store.watermark("A1", "fills") is None
        w.sim.faults.clear()
        whole = reader.read_account("A1", since_ms=ms(ago(days=3)), now_ms=ms(NOW))
        assert (whole.certificate.complete, len(executed(whole))) == (True, 120)
        assert store.watermark("A1", "fills") is not None
