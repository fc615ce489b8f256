"""A reading of an account over real HTTP: what it brings, how it is proven, what it costs."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from recon_pipeline.exchange.evidence import ReadingPolicy
from recon_pipeline.exchange.gateway import EXECUTIONS
from recon_pipeline.exchange.reader import SharedReadings
from recon_pipeline.sandbox.exchange import HistoricFill, HistoricOrder
from recon_pipeline_tests.adapters.exchange.world import (
    E9,
    NOW,
    ElasticTime,
    ago,
    executed,
    filled,
    held,
    ms,
    order_id,
    reader_of,
    sums,
    world,
)


def test_a_reading_brings_orders_executions_and_positions_and_is_complete() -> None:
    with world() as w:
        w.inject(
            filled(1, "AAPL", "buy", ("6", "100", ago(hours=5)), ("4", "101.5", ago(hours=4))),
            filled(2, "AAPL", "sell", ("3", "105", ago(hours=3))),
            filled(3, "BTC/USD", "buy", ("0.123456789", "64000.12", ago(hours=2))),
        )
        reading = w.read()
        assert reading.error == ""
        assert reading.certificate.reasons == ()
        assert reading.certificate.complete
        assert executed(reading) == sums(reading) == {order_id(1): 10 * E9, order_id(2): 3 * E9, order_id(3): 123456789}
        assert held(reading)["AAPL"] == 7 * E9
        assert reading.positions_known
        assert list(reading.executions.columns) == EXECUTIONS.names
        first = reading.executions.iloc[0]
        assert (first["side"], first["price"], first["executed_at_ms"]) == ("BUY", Decimal(100), ms(ago(hours=5)))
        assert reading.orders["client_order_id"].tolist() == [f"bytelyst-p1-t{n}-exit" for n in (1, 2, 3)]


def test_an_account_without_anything_is_complete_and_flat() -> None:
    with world() as w:
        reading = w.read()
        assert (reading.certificate.complete, reading.positions_known, len(reading.positions)) == (True, True, 0)
        assert len(reading.orders) == len(reading.executions) == 0


def test_a_reading_costs_a_bounded_number_of_requests() -> None:
    with world() as w:
        w.inject(*(filled(n, "AAPL", "buy", ("1", "100", ago(hours=70, minutes=-n))) for n in range(1, 251)))
        cold = w.read()
        assert cold.certificate.complete
        assert cold.certificate.calls == len(w.requests) == 1 + 2 + 2 + 4  # account, positions, orders, fills of 100
        warm = w.read()
        assert warm.certificate.complete
        assert warm.certificate.calls == len(w.requests) == 1 + 2 + 1 + 4
        assert executed(warm) == executed(cold)
        assert warm.certificate.rate_remaining is not None
        w.sim.book.advance(timedelta(days=2))
        later = w.read(days=6)
        assert len(executed(later)) == 250
        assert later.certificate.complete


def test_the_profiles_of_an_account_share_one_reading_and_accounts_are_read_side_by_side() -> None:
    with world("A1", "A2", "A3") as w:
        for account in ("A1", "A2", "A3"):
            w.inject(filled(1, "AAPL", "buy", ("2", "100", ago(hours=1))), account=account)
        shared = SharedReadings(w.reader, since_ms=ms(ago(days=3)), now_ms=ms(NOW))
        readings = shared.read_all(["A1", "A2", "A3", "A1", "A2"])
        assert sorted(readings) == ["A1", "A2", "A3"]
        assert all(r.certificate.complete and executed(r) == {order_id(1): 2 * E9} for r in readings.values())
        assert shared.of("A1") is readings["A1"]
        assert len(w.requests) == sum(r.certificate.calls for r in readings.values())


def test_one_account_that_refuses_does_not_touch_the_others() -> None:
    with world("A1", "A2") as w:
        w.inject(filled(1, "AAPL", "buy", ("2", "100", ago(hours=1))))
        w.sim.book.account("A2").settings.revoked = True
        readings = SharedReadings(w.reader, since_ms=ms(ago(days=3)), now_ms=ms(NOW)).read_all(["A1", "A2", "A3"])
        assert readings["A1"].certificate.complete
        assert "HTTP 401" in readings["A2"].error
        assert "Check the account's key id" in readings["A2"].error
        assert readings["A3"].error.startswith("there are no keys for account 'A3'")
        for name in ("A2", "A3"):
            assert not readings[name].certificate.complete
            assert not readings[name].positions_known
        assert "secret-of" not in repr(readings)


def test_orders_that_ended_after_a_part_was_executed_are_kept() -> None:
    with world() as w:
        for n, status in enumerate(("canceled", "expired"), start=1):
            w.inject(filled(n, "AAPL", "sell", ("4", "100", ago(hours=n)), qty=Decimal(10), status=status))
        reading = w.read()
        assert reading.certificate.complete
        assert executed(reading) == {order_id(1): 4 * E9, order_id(2): 4 * E9}
        assert reading.orders["status"].tolist() == ["canceled", "expired"]
        assert reading.orders["defect"].tolist() == ["", ""]


def test_both_orders_of_a_replacement_are_kept_each_with_its_own_executions() -> None:
    with world() as w:
        w.inject(
            filled(
                1,
                "AAPL",
                "sell",
                ("3", "100", ago(hours=5)),
                qty=Decimal(10),
                status="replaced",
                subtag="bytelyst:p1:t1",
            ),
            filled(2, "AAPL", "sell", ("7", "99", ago(hours=4)), client_order_id="generated", replaces=order_id(1)),
        )
        reading = w.read()
        assert reading.certificate.complete
        assert executed(reading) == {order_id(1): 3 * E9, order_id(2): 7 * E9}
        replacement = next(raw for raw in reading.raw_orders if raw["id"] == order_id(2))
        assert replacement["replaced_client_order_ids"] == ["bytelyst-p1-t1-exit"]
        assert reading.orders["sub_tag"].tolist() == ["bytelyst:p1:t1", "bytelyst:p1:t1"]


def test_the_order_that_was_replaced_before_the_window_is_followed() -> None:
    with world() as w:
        w.inject(
            filled(1, "AAPL", "sell", submitted_at=ago(days=30), qty=Decimal(10), status="replaced", ended_at=ago(days=20)),
            filled(2, "AAPL", "sell", ("10", "99", ago(hours=4)), client_order_id="generated", replaces=order_id(1),
                   submitted_at=ago(days=20), created_at=ago(days=20)),
        )  # fmt: skip
        reading = w.read()
        assert reading.certificate.complete
        assert sorted(reading.orders["order_id"]) == [order_id(1), order_id(2)]


def test_an_order_partly_executed_before_the_window_is_completed_and_no_mismatch() -> None:
    with world() as w:
        w.inject(
            filled(1, "AAPL", "buy", ("5", "90", ago(days=40)), ("2", "91", ago(hours=2)), time_in_force="gtc"),
            filled(2, "MSFT", "buy", ("1", "90", ago(days=40)), time_in_force="gtc"),
        )
        reading = w.read()
        assert reading.certificate.reasons == ()
        assert executed(reading) == sums(reading) == {order_id(1): 7 * E9}
        assert w.read().certificate.complete
        assert w.requests.count("/v2/account/activities/FILL") == 2  # the old execution is known from before


def test_a_look_back_is_by_execution_and_not_by_submission() -> None:
    with world() as w:
        w.inject(filled(1, "AAPL", "sell", ("5", "90", ago(hours=1)), submitted_at=ago(days=50), time_in_force="gtc"))
        assert executed(w.read()) == {order_id(1): 5 * E9}


def test_open_orders_are_there_and_read_again_until_they_end() -> None:
    with world() as w:
        w.inject(filled(1, "AAPL", "sell", qty=Decimal(8), submitted_at=ago(days=20), type="limit",
                        limit_price=Decimal(500), time_in_force="gtc"))  # fmt: skip
        first = w.read()
        assert first.orders["status"].tolist() == ["new"]
        w.sim.book.fill(order_id(1), "3", price="500")
        part = w.read()
        assert (part.certificate.complete, executed(part)) == (True, {order_id(1): 3 * E9})
        w.sim.book.finish(order_id(1), "canceled")
        last = w.read()
        assert (last.certificate.complete, last.orders["status"].tolist()) == (True, ["canceled"])


def test_executions_posted_late_make_the_reading_incomplete_until_they_are_there() -> None:
    with world() as w:
        fills = (
            HistoricFill(Decimal(6), Decimal(100), ago(hours=2)),
            HistoricFill(Decimal(4), Decimal(100), ago(hours=1), posted_at=NOW + timedelta(minutes=10)),
        )
        w.inject(HistoricOrder("AAPL", "sell", Decimal(10), ago(hours=3), fills, order_id=order_id(1)))
        early = w.read()
        assert not early.certificate.complete
        (reason,) = early.certificate.reasons
        sums_up = "its executions add up to 6, the last of them says 6, the order says 10"
        assert reason == f"order {order_id(1)} (AAPL): {sums_up}, after a second reading"
        w.sim.book.advance(timedelta(minutes=11))
        late = w.read()
        assert (late.certificate.complete, sums(late)) == (True, {order_id(1): 10 * E9})


def test_what_an_earlier_reading_kept_is_not_asked_for_again() -> None:
    with world(policy=ReadingPolicy(overlap_ms=3_600_000)) as w:
        w.inject(*(filled(n, "AAPL", "buy", ("1", "100", ago(hours=60, minutes=-n))) for n in range(1, 301)))
        assert w.read().certificate.complete
        w.inject(filled(900, "AAPL", "sell", ("2", "100", ago(minutes=1))))
        warm = w.read()
        assert warm.certificate.complete
        assert len(executed(warm)) == 301
        assert w.requests.count("/v2/account/activities/FILL") == 2


def test_a_reading_that_stops_at_a_limit_is_incomplete_and_the_next_one_goes_on() -> None:
    with world(policy=ReadingPolicy(max_order_pages=1)) as w:
        w.inject(*(filled(n, "AAPL", "buy", ("1", "100", ago(days=2, minutes=-n))) for n in range(1, 901)))
        stopped = w.read()
        assert stopped.certificate.reasons[0] == (
            "the list of orders: the limit of 1 pages was reached before the end of the list"
        )
        reader = reader_of(w.sim, w.store, ElasticTime(), "A1")
        resumed = reader.read_account("A1", since_ms=ms(ago(days=3)), now_ms=ms(NOW))
        assert (resumed.certificate.complete, len(executed(resumed))) == (True, 900)


def test_the_limit_of_pages_of_executions_is_never_a_silent_end() -> None:
    with world(policy=ReadingPolicy(max_fill_pages=2)) as w:
        w.inject(*(filled(n, "AAPL", "buy", ("1", "100", ago(days=2, minutes=-n))) for n in range(1, 301)))
        reading = w.read()
        assert not reading.certificate.complete
        assert "the list of executions: the limit of 2 pages" in reading.certificate.reasons[0]


def test_a_longer_look_back_than_before_is_read_from_its_own_start() -> None:
    with world() as w:
        w.inject(
            filled(1, "AAPL", "buy", ("1", "100", ago(days=9))), filled(2, "AAPL", "buy", ("2", "100", ago(days=1)))
        )
        assert executed(w.read(days=3)) == {order_id(2): 2 * E9}
        longer = w.read(days=14)
        assert (longer.certificate.complete, executed(longer)) == (True, {order_id(1): E9, order_id(2): 2 * E9})


def test_shorts_are_negative_however_the_exchange_spells_them() -> None:
    for signed in (True, False):
        with world() as w:
            w.sim.book.signed_shorts = signed
            w.inject(filled(1, "TSLA", "sell", ("4", "200", ago(hours=1))))
            assert held(w.read()) == {"TSLA": -4 * E9}


def test_keys_of_another_exchange_account_are_refused_and_change_nothing() -> None:
    with world("A1", "B1") as w:
        w.inject(filled(1, "AAPL", "buy", ("1", "100", ago(hours=1))))
        assert w.read("A1").certificate.complete
        swapped = reader_of(w.sim, w.store, ElasticTime(), "B1")
        swapped._credentials["A1"] = swapped._credentials.pop("B1")
        reading = swapped.read_account("A1", since_ms=ms(ago(days=3)), now_ms=ms(NOW))
        assert "open exchange account" in reading.error
        assert (reading.certificate.complete, reading.positions_known) == (False, False)


def test_one_exchange_account_under_two_names_is_refused() -> None:
    with world("A1", "A2") as w:
        w.reader._credentials["A2"] = w.reader._credentials["A1"]
        w.read("A1")
        assert "are the same exchange account" in w.read("A2").error
