"""Evidence is kept by the exchange's ids: reading twice, late or out of order never loses or doubles an execution."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest

from recon_pipeline.ledger.evidence_store import EvidenceStore

UTC = dt.UTC
NOON = dt.datetime(2024, 5, 1, 12, tzinfo=UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def store(database_url):
    with EvidenceStore(database_url) as store:
        yield store


def _execution(number, **more):
    return {
        "account_id": "a",
        "execution_id": f"e{number}",
        "order_id": "x1",
        "symbol": "BTC/USD",
        "side": "SELL",
        "qty": Decimal("0.000000001"),
        "price": "61234.567890123456789",
        "cum_qty": Decimal(number),
        "leaves_qty": None,
        "executed_at": NOON + number * HOUR,
        "kind": "fill",
        "raw": {"id": f"e{number}", "qty": "0.000000001"},
        **more,
    }


def _order(**more):
    return {
        "account_id": "a",
        "order_id": "x1",
        "status": "partially_filled",
        "filled_qty": Decimal(5),
        "filled_at": NOON,
        "read_at": NOON,
        "raw": {},
        **more,
    }


def test_an_execution_is_stored_exactly_and_once(store):
    assert store.upsert_executions([_execution(1), _execution(2), _execution(1)]) == (2, 0)
    assert store.upsert_executions([_execution(2), _execution(3)]) == (1, 0)
    rows = store.executions_since("a", NOON)
    assert [row["execution_id"] for row in rows] == ["e1", "e2", "e3"]
    assert rows[0]["qty"] == Decimal("0.000000001")
    assert rows[0]["price"] == Decimal("61234.567890123456789")
    assert rows[0]["executed_at"] == NOON + HOUR
    assert rows[0]["raw"] == {"id": "e1", "qty": "0.000000001"}
    assert store.upsert_executions([]) == (0, 0)


def test_an_execution_that_is_reported_differently_is_counted(store):
    store.upsert_executions([_execution(1)])
    assert store.upsert_executions([_execution(1, qty=Decimal(2))]) == (0, 1)
    assert store.executions_of_orders("a", ["x1"])[0]["qty"] == Decimal(2)


def test_accounts_do_not_mix(store):
    store.upsert_executions([_execution(1), _execution(1, account_id="b", qty=Decimal(9))])
    assert [row["qty"] for row in store.executions_since("b", NOON)] == [Decimal(9)]
    assert store.executions_of_orders("c", ["x1"]) == []


def test_more_rows_than_fit_one_statement_are_all_stored(store):
    rows = [_execution(1, execution_id=f"e{n:05}") for n in range(5_001)]
    assert store.upsert_executions(rows) == (5_001, 0)
    assert len(store.executions_since("a", NOON)) == 5_001


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"filled_qty": Decimal(8), "read_at": NOON + HOUR}, (Decimal(8), "partially_filled")),
        ({"status": "canceled", "read_at": NOON + HOUR}, (Decimal(5), "canceled")),
        ({"status": "new", "read_at": NOON - HOUR}, (Decimal(5), "partially_filled")),
        ({"status": "new", "filled_qty": Decimal(3), "read_at": NOON + HOUR}, (Decimal(5), "partially_filled")),
        ({"status": "new", "filled_qty": None, "read_at": NOON + HOUR}, (Decimal(5), "partially_filled")),
        ({"filled_qty": Decimal(8), "read_at": NOON - HOUR}, (Decimal(8), "partially_filled")),
    ],
    ids=["grown", "newer status", "stale", "less executed", "nothing executed", "more executed, read earlier"],
)
@pytest.mark.parametrize("together", [True, False])
def test_executed_quantity_is_never_unlearned(store, later, expected, together):
    if together and later["read_at"] == NOON + HOUR and "filled_qty" not in later:
        store.upsert_exchange_orders([_order(**later), _order()])
    elif together:
        store.upsert_exchange_orders([_order(), _order(**later)])
    else:
        store.upsert_exchange_orders([_order()])
        store.upsert_exchange_orders([_order(**later)])
    [row] = store.exchange_orders_by_id("a", ["x1", "x2"])
    assert (row["filled_qty"], row["status"]) == expected


def test_orders_since_an_instant_are_those_filled_or_executed_since(store):
    store.upsert_exchange_orders(
        [
            _order(order_id="filled", filled_at=NOON + HOUR),
            _order(order_id="executed", filled_at=None),
            _order(order_id="old", filled_at=NOON - HOUR),
        ]
    )
    store.upsert_executions([_execution(1, order_id="executed")])
    assert [row["order_id"] for row in store.exchange_orders_since("a", NOON)] == ["executed", "filled"]


def test_an_order_is_unfinished_until_the_exchange_says_otherwise(store):
    statuses = ["filled", "canceled", "expired", "replaced", "rejected", "new", "done_for_day", "pending_replace", None]
    store.upsert_exchange_orders([_order(order_id=f"x{n}", status=status) for n, status in enumerate(statuses)])
    store.upsert_exchange_orders([_order(account_id="b", order_id="y", status="new")])
    assert [row["status"] for row in store.exchange_orders_unfinished("a")] == statuses[5:]


class TestWatermark:
    def _set(self, store, begin, end, last_id):
        row = store.set_watermark(
            "a", "FILL", last_id=last_id, covered_from=NOON + begin * HOUR, covered_until=NOON + end * HOUR
        )
        return (row["covered_from"] - NOON) // HOUR, (row["covered_until"] - NOON) // HOUR, row["last_id"]

    def test_there_is_none_before_the_first_reading(self, store):
        assert store.watermark("a", "FILL") is None
        self._set(store, 0, 1, "x")
        assert store.watermark("a", "FILL")["last_id"] == "x"
        assert store.watermark("a", "CFEE") is None
        assert store.watermark("b", "FILL") is None

    def test_overlapping_windows_are_joined(self, store):
        self._set(store, 0, 2, "x")
        assert self._set(store, 1, 3, "y") == (0, 3, "y")
        assert self._set(store, 3, 4, "z") == (0, 4, "z")

    def test_an_older_window_moves_nothing_back(self, store):
        self._set(store, 0, 4, "x")
        assert self._set(store, 1, 2, "y") == (0, 4, "x")
        assert self._set(store, -2, 1, "y") == (-2, 4, "x")

    def test_a_gap_is_never_claimed_as_covered(self, store):
        self._set(store, 0, 1, "x")
        assert self._set(store, 5, 6, "y") == (5, 6, "y")
        assert self._set(store, 0, 2, "z") == (5, 6, "y")

    def test_a_window_that_ends_before_it_begins_is_refused(self, store):
        with pytest.raises(ValueError, match="ends before it begins"):
            self._set(store, 1, 0, "x")
