"""Everything that can go wrong on the way: it ends as the whole truth, or as incomplete with a reason; never in between."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from recon_pipeline.exchange.evidence import ReadingPolicy
from recon_pipeline.exchange.gateway import AccountReading
from recon_pipeline.sandbox.exchange import Fault, FaultKind
from recon_pipeline_tests.adapters.exchange.world import E9, World, ago, executed, filled, held, order_id, sums, world

ORDERS, FILLS, POSITIONS, ACCOUNT = "/v2/orders*", "/v2/account/activities*", "/v2/positions", "/v2/account"
PATHS = (ORDERS, FILLS, POSITIONS, ACCOUNT)


def furnish(w: World) -> None:
    """Two pages of executions, an order of several fills, an open order, a canceled one with fills, a short."""
    w.inject(*(filled(n, "AAPL", "buy", ("1", "100", ago(hours=60, minutes=-n))) for n in range(1, 121)))
    w.inject(
        filled(200, "MSFT", "buy", ("2", "50", ago(hours=9)), ("3", "51", ago(hours=8))),
        filled(201, "MSFT", "sell", ("1", "55", ago(hours=7)), qty=Decimal(4), status="canceled"),
        filled(202, "TSLA", "sell", ("4", "200", ago(hours=2))),
        filled(203, "NVDA", "buy", submitted_at=ago(hours=1), qty=Decimal(5), type="limit", limit_price=Decimal(1)),
    )


TRUTH = {**{order_id(n): E9 for n in range(1, 121)}, order_id(200): 5 * E9, order_id(201): E9, order_id(202): 4 * E9}
HELD = {"AAPL": 120 * E9, "MSFT": 4 * E9, "TSLA": -4 * E9}


def assert_whole_or_incomplete(reading: AccountReading) -> None:
    if reading.certificate.complete:
        assert executed(reading) == sums(reading) == TRUTH
        assert held(reading) == HELD
        assert reading.positions_known
        assert reading.error == ""
    else:
        assert reading.certificate.reasons
        assert all(len(reason) > 15 for reason in reading.certificate.reasons)
    assert "secret-of" not in repr(reading.certificate) + reading.error


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.RATE_LIMITED),
        Fault(FaultKind.ERROR, status=503),
        Fault(FaultKind.HTML, status=200),
        Fault(FaultKind.DROP),
        Fault(FaultKind.DROP_MID_BODY),
        Fault(FaultKind.TIMEOUT, seconds=1),
        Fault(FaultKind.NULL_BODY),
        Fault(FaultKind.EMPTY_BODY),
        Fault(FaultKind.TRUNCATE, keep=1),
        Fault(FaultKind.TRUNCATE, keep=50),
        Fault(FaultKind.DUPLICATE, keep=3),
        Fault(FaultKind.EMPTY_LIST),
        Fault(FaultKind.STALE, seconds=3 * 3600),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.keep}",
)
def test_a_fault_that_passes_is_survived_and_one_that_stays_is_named(path: str, fault: Fault) -> None:
    """Once, on the first request of the path, and always."""
    for count in (1, None):
        with world() as w:
            furnish(w)
            w.sim.faults.add(
                Fault(fault.kind, path=path, count=count, status=fault.status, keep=fault.keep, seconds=fault.seconds)
            )
            reading = w.read()
            always_stale = fault.kind is FaultKind.STALE and count is None and path == POSITIONS
            if not always_stale:  # an older list of positions that is consistent with itself can't be told
                assert_whole_or_incomplete(reading)
            if count == 1 and fault.kind not in (FaultKind.STALE, FaultKind.EMPTY_LIST, FaultKind.TRUNCATE):
                assert reading.certificate.reasons == ()
            w.sim.faults.clear()
            again = w.read()
            assert again.certificate.reasons == ()
            assert_whole_or_incomplete(again)


@pytest.mark.parametrize("kind", [FaultKind.NULL_BODY, FaultKind.HTML, FaultKind.ERROR, FaultKind.DROP])
@pytest.mark.parametrize("path", PATHS)
def test_an_exchange_that_stays_unreadable_is_an_error_value(path: str, kind: FaultKind) -> None:
    with world() as w:
        furnish(w)
        w.sim.faults.add(Fault(kind, path=path, status=503))
        reading = w.read()
        assert reading.error
        assert reading.certificate.reasons[0] == reading.error
        assert "The next cycle tries again" in reading.error
        assert not reading.positions_known


@pytest.mark.parametrize("field", ["id", "order_id", "qty", "cum_qty", "price", "side", "transaction_time", "symbol"])
def test_a_field_missing_in_executions_makes_the_reading_incomplete(field: str) -> None:
    with world() as w:
        furnish(w)
        w.sim.faults.add(Fault(FaultKind.NULL_FIELDS, path=FILLS, fields=(field,)))
        reading = w.read()
        assert not reading.certificate.complete
        w.sim.faults.clear()
        assert w.read().certificate.reasons == ()


@pytest.mark.parametrize("field", ["id", "client_order_id", "symbol", "side", "status", "filled_qty"])
def test_a_field_missing_in_orders_is_never_kept(field: str) -> None:
    for count in (1, None):
        with world() as w:
            furnish(w)
            w.sim.faults.add(Fault(FaultKind.NULL_FIELDS, path=ORDERS, fields=(field,), count=count))
            assert_whole_or_incomplete(w.read())
            w.sim.faults.clear()
            again = w.read()
            assert_whole_or_incomplete(again)
            assert again.certificate.reasons == ()


@pytest.mark.parametrize("field", ["symbol", "side", "qty"])
def test_a_field_missing_in_positions_makes_nothing_flat(field: str) -> None:
    with world() as w:
        furnish(w)
        w.sim.faults.add(Fault(FaultKind.NULL_FIELDS, path=POSITIONS, fields=(field,)))
        reading = w.read()
        assert not reading.positions_known or not reading.positions["known"].any()


def test_an_empty_list_of_positions_is_doubted_while_the_account_reports_their_worth() -> None:
    with world() as w:
        furnish(w)
        w.sim.faults.add(Fault(FaultKind.EMPTY_LIST, path=POSITIONS))
        reading = w.read()
        assert not reading.positions_known
        assert "none is in the list of positions" in reading.certificate.reasons[0]


def test_a_list_of_positions_that_turns_empty_while_the_account_is_read_makes_nothing_flat() -> None:
    """Read before and after as the proof wants it, the second reading and the third agree: both are empty."""
    with world() as w:
        furnish(w)
        w.sim.faults.add(Fault(FaultKind.EMPTY_LIST, path=POSITIONS, skip=1))
        reading = w.read()
    assert not reading.positions_known
    assert not reading.certificate.complete
    assert any("none is in the list of positions" in reason for reason in reading.certificate.reasons)


def test_a_position_that_moves_once_is_read_again_and_one_that_keeps_moving_is_named() -> None:
    for count, complete in ((1, True), (None, False)):
        with world() as w:
            furnish(w)
            busy = Fault(FaultKind.BUSY, path=POSITIONS, symbol="AAPL", qty=Decimal(2), count=count, skip=1)
            w.sim.faults.add(busy)
            reading = w.read()
            assert reading.certificate.complete is complete
            if complete:
                assert held(reading)["AAPL"] == 122 * E9
                assert sum(executed(reading).values()) == sum(TRUTH.values()) + 2 * E9
            else:
                assert any("the position in AAPL changed" in reason for reason in reading.certificate.reasons)
                assert not reading.positions_known


def test_a_stale_order_is_read_again_and_never_goes_back() -> None:
    with world() as w:
        furnish(w)
        w.sim.book.fill(order_id(203), "5", price="1")
        assert executed(w.read())[order_id(203)] == 5 * E9
        w.sim.faults.add(Fault(FaultKind.STALE, path=ORDERS, seconds=3600))
        stale = w.read()
        w.sim.faults.clear()
        if stale.certificate.complete:
            assert executed(stale)[order_id(203)] == 5 * E9
        assert executed(w.read())[order_id(203)] == 5 * E9


def test_an_execution_that_is_not_listed_any_more_is_a_reason() -> None:
    with world() as w:
        furnish(w)
        assert w.read().certificate.complete
        w.sim.faults.add(Fault(FaultKind.STALE, path="*", seconds=3 * 3600))
        reading = w.read()
        assert not reading.certificate.complete
        assert any(order_id(202) in reason for reason in reading.certificate.reasons)


def test_second_readings_are_bounded_and_what_is_left_is_named() -> None:
    with world(policy=ReadingPolicy(max_single_requests=5)) as w:
        furnish(w)
        w.sim.faults.add(Fault(FaultKind.EMPTY_LIST, path=FILLS, count=1))
        reading = w.read()
        assert not reading.certificate.complete
        assert any("the limit of 5 single requests is used up" in reason for reason in reading.certificate.reasons)
        assert reading.certificate.calls < 30
        assert len(reading.certificate.reasons) <= 21


def test_a_rate_limit_is_waited_out_and_not_retried_into() -> None:
    with world() as w:
        furnish(w)
        w.sim.faults.add(Fault(FaultKind.RATE_LIMITED, path=ORDERS, count=1, seconds=7))
        reading = w.read()
        assert reading.certificate.complete
        assert w.time.slept
        assert reading.certificate.calls == len(w.requests)


def test_the_clock_of_the_exchange_running_while_it_is_read_loses_nothing() -> None:
    with world() as w:
        furnish(w)
        for step in range(4):
            w.sim.book.advance(timedelta(minutes=5))
            w.inject(filled(300 + step, "AMD", "buy", ("1", "10", ago(minutes=-5 * step))))
            reading = w.read()
            assert reading.certificate.complete
            assert order_id(300 + step) in executed(reading)
