"""The ledger is read as it is: exact, without what is over, and never more than was asked for."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.reads import PostgresLedger

UTC = dt.UTC


@pytest.fixture
def ledger(database_url):
    with PostgresLedger(database_url) as ledger:
        yield ledger


@pytest.fixture
def writer(database_url):
    with connect(database_url, "recon_writer") as connection:
        yield connection


def _orders(writer, *rows):
    for row in rows:
        names = ", ".join(f'"{name}"' for name in row)
        places = ", ".join(f"%({name})s" for name in row)
        writer.execute(f"INSERT INTO public.orders ({names}) VALUES ({places})", row)


@pytest.fixture
def profiles(writer):
    writer.execute(
        "INSERT INTO public.profiles (profile_id, user_id, account_id, enabled, managed_symbols, "
        "allocated_capital_usd) VALUES ('p1', 'u1', 'a', true, NULL, 1000.50), ('p2', 'u2', 'a', false, '{BTC/USD}', NULL), "
        "('p3', 'u3', 'b', true, '{}', 0)"
    )


def test_profiles_come_with_account_and_scope(ledger, profiles):
    assert ledger.profiles(["p2", "p1", "nobody"]) == [
        {
            "profile_id": "p1",
            "user_id": "u1",
            "account_id": "a",
            "enabled": True,
            "managed_symbols": None,
            "allocated_capital_usd": "1000.50",
        },
        {
            "profile_id": "p2",
            "user_id": "u2",
            "account_id": "a",
            "enabled": False,
            "managed_symbols": ["BTC/USD"],
            "allocated_capital_usd": None,
        },
    ]
    assert [row["profile_id"] for row in ledger.profiles()] == ["p1", "p2", "p3"]
    assert ledger.profiles([]) == []


def test_siblings_are_all_profiles_of_the_accounts(ledger, profiles):
    assert [row["profile_id"] for row in ledger.account_siblings(["p1"])] == ["p1", "p2"]
    assert [row["profile_id"] for row in ledger.account_siblings(["p3"])] == ["p3"]
    assert ledger.account_siblings([]) == []


def test_only_rows_that_are_over_and_executed_nothing_are_left_out(ledger, writer):
    row = {"profile_id": "p1", "symbol": "BTC/USD", "qty": 1}
    _orders(
        writer,
        *(
            {**row, "order_id": status, "status": status}
            for status in ("filled", "partially-filled", "pending_new", "new")
        ),
        {**row, "order_id": "unknown", "status": "unknown"},
        {**row, "order_id": "no-status", "status": None},
        {**row, "order_id": "BFILL-reverted", "status": "canceled"},
        {**row, "order_id": "canceled-partly", "status": "Cancelled", "filled_qty": Decimal("0.000000001")},
        {**row, "order_id": "over-1", "status": "canceled"},
        {**row, "order_id": "over-2", "status": "CANCELLED", "filled_qty": Decimal("0.000")},
        {**row, "order_id": "over-3", "status": "rejected", "filled_qty": 0},
        {**row, "order_id": "over-4", "status": "done-for-day"},
        {**row, "order_id": "foreign", "profile_id": "p2", "status": "filled"},
    )
    assert [record["order_id"] for record in ledger.lifecycle_records(["p1"])] == [
        "BFILL-reverted",
        "canceled-partly",
        "filled",
        "new",
        "no-status",
        "partially-filled",
        "pending_new",
        "unknown",
    ]
    assert len(ledger.lifecycle_records(["p1", "p2"])) == 9
    assert ledger.lifecycle_records([]) == []


def test_a_row_arrives_exactly_as_it_is_written(ledger, writer):
    _orders(
        writer,
        {
            "order_id": "o1",
            "client_order_id": "bytelyst-p1-t1-exit",
            "user_id": "u1",
            "profile_id": "p1",
            "symbol": "BTC/USD",
            "side": "sell",
            "qty": Decimal("0.123456789"),
            "quantity": Decimal("0.1234567890"),
            "price": Decimal("61234.5678901234567890"),
            "status": "filled",
            "timestamp": 1_700_000_000_123,
            "filled_at": dt.datetime(2023, 11, 14, 22, 13, 20, 123999, tzinfo=UTC),
            "created_at": dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            "updated_at": dt.datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
            "trade_id": "t1",
            "action": "EXIT",
            "source": "BOT",
            "sub_tag": "bytelyst:p1:t1",
        },
    )
    records = ledger.lifecycle_records(["p1"])
    assert records == [
        {
            "profile_id": "p1",
            "user_id": "u1",
            "order_id": "o1",
            "client_order_id": "bytelyst-p1-t1-exit",
            "symbol": "BTC/USD",
            "side": "sell",
            "action": "EXIT",
            "qty": "0.123456789",
            "quantity": "0.1234567890",
            "filled_qty": None,
            "price": "61234.5678901234567890",
            "status": "filled",
            "timestamp": 1_700_000_000_123,
            "created_at": dt.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
            "updated_at": dt.datetime(2023, 11, 14, 22, 13, 21, tzinfo=UTC),
            "filled_at": dt.datetime(2023, 11, 14, 22, 13, 20, 123999, tzinfo=UTC),
            "trade_id": "t1",
            "sub_tag": "bytelyst:p1:t1",
            "source": "BOT",
        }
    ]
    frame = lifecycle_rows_frame(records)
    assert frame.loc[0, ["qty_e9", "time_ms", "filled_at_ms", "defect"]].tolist() == [
        123_456_789,
        1_700_000_000_123,
        1_700_000_000_123,
        "",
    ]
    assert frame.loc[0, "price"] == Decimal("61234.5678901234567890")


def test_reading_a_profile_uses_the_index(database_url, writer):
    writer.execute(
        "INSERT INTO public.orders (order_id, profile_id, status) SELECT 'o' || n, 'p' || n % 500, 'filled' "
        "FROM generate_series(1, 20000) AS n"
    )
    with connect(database_url) as connection:
        connection.execute("ANALYZE public.orders")
        plan = connection.execute(
            "EXPLAIN SELECT * FROM recon.lifecycle_orders WHERE profile_id = ANY('{p1,p2}')"
        ).fetchall()
    assert "orders_profile_id_trade_id_idx" in "".join(row["QUERY PLAN"] for row in plan)


def test_ids_are_looked_up_whatever_their_profile_and_status(ledger, writer):
    _orders(
        writer,
        {"order_id": "BFILL-1", "profile_id": "p1", "status": "canceled", "qty": Decimal("1.5"), "price": Decimal(2)},
        {"order_id": "BFILL-2", "profile_id": "p2", "status": "filled"},
    )
    assert ledger.existing_order_ids(["BFILL-1", "BFILL-2", "BFILL-3"]) == {"BFILL-1", "BFILL-2"}
    [row] = ledger.orders_by_id(["BFILL-1"])
    assert (row["status"], row["qty"], row["price"]) == ("canceled", "1.5", "2")
    assert ledger.existing_order_ids([]) == set()


def test_released_consumption_is_no_longer_consumed(ledger, writer):
    insert = (
        "INSERT INTO recon.consumption (account_id, exchange_order_id, backfill_order_id, profile_id, trade_id, "
        "batch_id, qty, released_at) VALUES (%s, 'x', %s, 'p1', 't1', %s, 0.5, %s)"
    )
    writer.execute(insert, ("a", "BFILL-1", "b1", None))
    writer.execute(insert, ("a", "BFILL-2", "b1", dt.datetime(2024, 1, 1, tzinfo=UTC)))
    writer.execute(insert, ("b", "BFILL-3", "b1", None))
    rows = ledger.consumption(["a"])
    assert [(row["backfill_order_id"], row["qty"]) for row in rows] == [("BFILL-1", Decimal("0.5"))]


class TestPause:
    SINCE = dt.datetime(2024, 5, 1, tzinfo=UTC)

    def _set(self, writer, scope, state, reason="why"):
        writer.execute(
            "INSERT INTO public.trading_control (scope, state, source, since, reason) VALUES (%s, %s, 'admin', %s, %s) "
            "ON CONFLICT (scope) DO UPDATE SET state = excluded.state",
            (scope, state, self.SINCE, reason),
        )

    def test_no_row_means_running(self, ledger):
        assert ledger.pause_state(["p1"]) == {"p1": (False, "", None, "")}

    def test_all_trading_paused_pauses_every_profile(self, ledger, writer):
        self._set(writer, "all", "PAUSED", "incident")
        self._set(writer, "p1", "RUNNING")
        assert ledger.pause_state(["p1", "p2"]) == dict.fromkeys(["p1", "p2"], (True, "admin", self.SINCE, "incident"))

    def test_a_profile_can_be_paused_alone(self, ledger, writer):
        self._set(writer, "all", "RUNNING", "all is well")
        self._set(writer, "p1", "PAUSED", "ghost")
        assert ledger.pause_state(["p1", "p2"]) == {
            "p1": (True, "admin", self.SINCE, "ghost"),
            "p2": (False, "admin", self.SINCE, "all is well"),
        }


class TestAuditTable:
    def test_it_is_available_when_it_has_its_columns_and_takes_rows(self, ledger):
        assert ledger.audit_available() is True

    @pytest.mark.parametrize(
        "harm",
        [
            "DROP TABLE public.reconciliation_backfill_audit",
            "ALTER TABLE public.reconciliation_backfill_audit DROP COLUMN reverted_at",
            "REVOKE INSERT ON public.reconciliation_backfill_audit FROM recon_reader",
        ],
    )
    def test_it_is_not_when_anything_of_that_is_missing(self, database_url, ledger, harm):
        with connect(database_url) as connection:
            connection.execute(harm)
        assert ledger.audit_available() is False


def test_a_reader_survives_a_lost_connection(database_url, ledger, writer):
    assert ledger.profiles() == []
    with connect(database_url) as connection:
        ended = connection.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) AS n FROM pg_stat_activity "
            "WHERE application_name = 'recon ledger' AND datname = current_database()"
        ).fetchone()
    assert ended == {"n": 1}
    assert ledger.profiles() == []


def test_rows_that_name_an_exchange_order_by_either_id_are_found_whatever_their_status_and_profile(ledger, writer):
    _orders(
        writer,
        {"order_id": "x1", "profile_id": "p1", "status": "canceled"},
        {"order_id": "bot-2", "client_order_id": "c2", "profile_id": "p2", "status": "rejected"},
        {"order_id": "c3", "profile_id": "p2", "status": "pending_new"},
        {"order_id": "x9", "profile_id": "p1", "status": "filled"},
    )
    found = ledger.rows_naming_orders(["x1", "c1", "x2", "c2", "x3", "c3", ""])
    assert [row["order_id"] for row in found] == ["x1", "bot-2", "c3"]
    assert ledger.rows_naming_orders([]) == []


def test_whether_the_table_has_a_place_for_sub_tags_is_known(ledger, database_url):
    assert ledger.sub_tag_supported()
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute("ALTER TABLE public.orders DROP COLUMN sub_tag")
    assert not ledger.sub_tag_supported()
