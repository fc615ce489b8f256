"""Many orders looked for at once: pages where one page answers many, single look-ups for the rest, never over the rate."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.exchange.gateway import Absent, Found, FoundOrders, Unknown, WantedOrder
from recon_pipeline.sandbox.exchange import Fault, FaultKind, HistoricOrder
from recon_pipeline_tests.adapters.exchange.world import World, ago, enforce_the_rate, filled, ms, order_id, world

LISTING = "/v2/orders"


def waiting(n: int, **told: object) -> HistoricOrder:
    """An order that still waits."""
    settings: dict[str, object] = {
        "submitted_at": ago(hours=1),
        "order_id": order_id(n),
        "client_order_id": f"c{n}",
    } | told
    return HistoricOrder("AAPL", "buy", Decimal(1), type="limit", limit_price=Decimal(1), **settings)  # type: ignore[arg-type]


def closed(n: int, **told: object) -> HistoricOrder:
    return filled(n, "AAPL", "sell", ("1", "100", ago(minutes=50)), **{"submitted_at": ago(hours=1), **told})


def wanted(numbers: Iterable[int], placed_at_ms: int | None = None) -> list[WantedOrder]:
    at = ms(ago(hours=1)) if placed_at_ms is None else placed_at_ms
    return [WantedOrder(order_id(n), placed_at_ms=at) for n in numbers]


def find(w: World, orders: list[WantedOrder], *, bulk_pages: int = 4, account: str = "A1") -> FoundOrders:
    w.sim.faults.requests.clear()
    found = w.reader.find_orders(account, orders, bulk_pages=bulk_pages)
    assert len(found.results) == len(orders)
    assert found.api_calls == len(w.requests)
    return found


def ids(found: FoundOrders) -> list[str]:
    return [result.raw["id"] if isinstance(result, Found) else type(result).__name__ for result in found.results]


def test_two_pages_answer_hundreds_of_orders_that_wait_or_were_placed_together() -> None:
    with world() as w:
        w.inject(*(waiting(n) for n in range(1, 101)), *(closed(n) for n in range(101, 301)))

        found = find(w, wanted(range(1, 301)))

        assert ids(found) == [order_id(n) for n in range(1, 301)]
        assert (found.api_calls, found.in_bulk, found.singly, found.error) == (2, 300, 0, "")
        assert found.rate_remaining == 198
        executed = {result.raw["filled_qty"] for result in found.results[100:] if isinstance(result, Found)}
        assert executed == {"1"}


def test_a_page_that_is_full_is_followed_by_the_next_until_the_orders_are_answered() -> None:
    with world() as w:
        w.inject(*(closed(n, submitted_at=ago(hours=1) + timedelta(milliseconds=n)) for n in range(1, 1101)))

        found = find(w, wanted([1, 600, 601, 1099, 1100]))

        assert ids(found) == [order_id(n) for n in (1, 600, 601, 1099, 1100)]
        assert (found.in_bulk, found.singly) == (5, 0)
        assert found.api_calls == 4
        assert w.requests == [LISTING] * 4


def test_the_pages_are_as_many_as_allowed_and_the_rest_is_asked_for_one_by_one() -> None:
    with world() as w:
        w.inject(*(closed(n, submitted_at=ago(hours=1) + timedelta(milliseconds=n)) for n in range(1, 1101)))

        found = find(w, wanted([1, 1099, 1100]), bulk_pages=2)
        none = find(w, wanted([1, 1099, 1100]), bulk_pages=0)

        assert (found.in_bulk, found.singly, found.api_calls) == (1, 2, 4)
        assert (none.in_bulk, none.singly, none.api_calls) == (0, 3, 3)
        assert ids(found) == ids(none) == [order_id(n) for n in (1, 1099, 1100)]


def test_an_order_that_is_on_no_page_is_absent_only_where_the_exchange_denies_each_of_its_ids() -> None:
    with world() as w:
        w.inject(closed(1), closed(2), closed(3, submitted_at=ago(minutes=1)))
        orders = [*wanted([1, 2, 3]), WantedOrder(order_id(9), "mine", ms(ago(hours=1)))]

        found = find(w, orders)

        assert ids(found) == [order_id(1), order_id(2), order_id(3), "Absent"]
        assert found.results[3] == Absent((order_id(9), "mine"))
        assert (found.in_bulk, found.singly) == (2, 2)


def test_orders_placed_at_different_times_are_looked_for_where_most_of_them_are() -> None:
    with world() as w:
        days = {1: 30, 2: 9, 3: 9, 4: 9, 5: 2, 6: 2}
        w.inject(*(closed(n, submitted_at=ago(days=day)) for n, day in days.items()))

        found = find(w, [WantedOrder(order_id(n), placed_at_ms=ms(ago(days=day))) for n, day in days.items()])

        assert ids(found) == [order_id(n) for n in days]
        assert (found.in_bulk, found.singly) == (5, 1), (
            "a page costs a request, so one order alone is asked for by itself"
        )
        assert found.api_calls == 4


def test_an_order_without_a_time_is_found_among_the_open_ones_or_by_itself() -> None:
    with world() as w:
        w.inject(waiting(1), closed(2))

        found = find(w, wanted([1, 2], NO_TIME))

        assert ids(found) == [order_id(1), order_id(2)]
        assert (found.in_bulk, found.singly, found.api_calls) == (1, 1, 2)


def test_a_row_keyed_by_the_client_id_is_found_on_a_page() -> None:
    with world() as w:
        w.inject(closed(1, client_order_id="mine-1"), closed(2, client_order_id="mine-2"))

        found = find(w, [WantedOrder("mine-1", "", ms(ago(hours=1))), WantedOrder("row-2", "mine-2", ms(ago(hours=1)))])

        assert ids(found) == [order_id(1), order_id(2)]
        assert found.singly == 0


def test_another_order_under_the_rows_client_id_does_not_answer_for_the_order_that_is_its_key() -> None:
    with world() as w:
        w.inject(closed(1, client_order_id="mine"), closed(2), closed(7, submitted_at=ago(days=3)))

        found = find(w, [WantedOrder(order_id(7), "mine", ms(ago(hours=1))), *wanted([2])])

        assert ids(found) == [order_id(7), order_id(2)]


def test_two_rows_of_one_order_cost_one_request() -> None:
    with world() as w:
        found = find(w, wanted([1, 1, 1]), bulk_pages=0)

        assert ids(found) == ["Absent"] * 3
        assert found.api_calls == 2, "by id and by client id, once"


def test_a_listing_that_fails_leaves_the_orders_to_single_look_ups() -> None:
    with world() as w:
        w.inject(closed(1), closed(2))
        for kind, status in ((FaultKind.ERROR, 500), (FaultKind.ERROR, 422), (FaultKind.HTML, 200)):
            w.sim.faults.clear()
            w.sim.faults.add(Fault(kind, path=LISTING, status=status))

            found = find(w, wanted([1, 2]))

            assert ids(found) == [order_id(1), order_id(2)]
            assert (found.in_bulk, found.singly, found.error) == (0, 2, "")


def test_a_page_with_less_than_there_is_costs_requests_and_never_makes_an_order_absent() -> None:
    with world() as w:
        w.inject(closed(1), closed(2), waiting(3))
        for kind in (FaultKind.EMPTY_LIST, FaultKind.TRUNCATE, FaultKind.DUPLICATE):
            w.sim.faults.clear()
            w.sim.faults.add(Fault(kind, path=LISTING))

            assert ids(find(w, wanted([1, 2, 3]))) == [order_id(1), order_id(2), order_id(3)]


def test_hundreds_of_single_requests_wait_for_the_next_minute_and_are_never_refused() -> None:
    with world() as w:
        refused = enforce_the_rate(w)
        w.inject(*(closed(n) for n in range(1, 301)))

        found = find(w, wanted(range(1, 301)), bulk_pages=0)

        assert ids(found) == [order_id(n) for n in range(1, 301)]
        assert refused == []
        assert 50 < sum(w.time.slept) < 120
        assert found.error == ""


def test_what_the_time_of_a_search_does_not_suffice_for_is_left_unasked_and_nothing_is_refused() -> None:
    with world() as w:
        refused = enforce_the_rate(w)

        found = find(w, wanted(range(1, 401)), bulk_pages=0)

        asked = [result for result in found.results if isinstance(result, Absent)]
        left = found.results[len(asked) :]
        assert 150 <= len(asked) < 300
        assert all(isinstance(result, Unknown) and result.transient and not result.asked for result in left)
        assert "requests a minute are used up" in found.error
        assert refused == []


def test_a_share_of_the_minute_is_left_to_the_bots() -> None:
    with world() as w:
        enforce_the_rate(w)

        find(w, wanted(range(1, 80)), bulk_pages=0)
        before = sum(w.time.slept)
        found = find(w, wanted(range(100, 120)), bulk_pages=0)

        assert before == 0
        assert sum(w.time.slept) > 30, "20 of 200 requests are the bots'"
        assert found.error == ""


def test_refused_keys_are_the_answer_to_every_order_after_one_request() -> None:
    with world() as w:
        w.sim.faults.add(Fault(FaultKind.ERROR, path="/v2/orders*", status=401))

        found = find(w, wanted(range(1, 50)))
        missing = w.reader.find_orders("A9", wanted([1, 2]), bulk_pages=4)

        assert found.api_calls == 1
        assert all(isinstance(result, Unknown) and result.asked and not result.transient for result in found.results)
        assert "HTTP 401" in found.error
        assert [result.error for result in missing.results if isinstance(result, Unknown)] == [missing.error] * 2
        assert "there are no keys for account 'A9'" in missing.error
        assert "secret-of" not in found.error + missing.error


def test_an_exchange_that_answers_nothing_is_given_up_after_three_orders() -> None:
    with world() as w:
        w.sim.faults.add(Fault(FaultKind.ERROR, path="/v2/orders*", status=503))

        found = find(w, wanted(range(1, 50)))

        flags = [result.asked for result in found.results if isinstance(result, Unknown)]
        assert flags == [True] * 3 + [False] * 46
        assert found.api_calls == 4 * 4, "a page and three orders, four attempts each"
        assert "HTTP 503" in found.error


def test_orders_that_the_exchange_can_not_read_do_not_keep_others_from_being_asked_for() -> None:
    with world() as w:
        w.inject(closed(1))
        bad = [WantedOrder("x" * 200), WantedOrder("y" * 200), WantedOrder("z" * 200), WantedOrder(" ")]

        found = find(w, [*bad, *wanted([1])], bulk_pages=0)

        assert [type(result).__name__ for result in found.results] == ["Unknown"] * 4 + ["Found"]


def test_nothing_wanted_is_nothing_asked() -> None:
    with world() as w:
        assert find(w, []) == FoundOrders((), rate_remaining=None)
