"""A production database brings its own tables: other types, fewer columns. They are read and written as they are."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import psycopg
import pytest
from psycopg.types.json import Jsonb

from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.migrate import migrate
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.ledger.requirements import Stops, check_database

UTC = dt.UTC
MS = 1_714_564_800_123
AT = dt.datetime(2024, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)
PROFILE = "6b5c0b1e-3f0e-4a55-9d5e-0a3a5b1c2d3e"

TABLES = """
CREATE TYPE public.order_status AS ENUM ('pending_new', 'filled', 'canceled');
CREATE TABLE public.profiles (profile_id uuid PRIMARY KEY, user_id uuid, managed_symbols {symbols});
CREATE TABLE public.orders (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), order_id varchar(80) NOT NULL UNIQUE, user_id uuid,
  profile_id uuid NOT NULL, symbol varchar(20), type text, side text, qty numeric(20, 8), price double precision,
  status public.order_status, "timestamp" {stamp}, filled_at {filled}, trade_id text, action text, source text,
  created_at timestamp DEFAULT now(), updated_at timestamptz DEFAULT now()
);
"""
BACKFILL = {
    "order_id": "BFILL-1",
    "user_id": "",
    "profile_id": PROFILE,
    "symbol": "BTC/USD",
    "type": "market",
    "side": "SELL",
    "qty": Decimal("0.12345678"),
    "quantity": Decimal("0.12345678"),
    "price": Decimal("61234.5"),
    "status": "filled",
    "timestamp": MS,
    "filled_at": AT,
    "trade_id": "t1",
    "action": "EXIT",
    "source": "BOT",
    "sub_tag": "bytelyst:p1",
}


@pytest.fixture
def production(empty_database_url):
    def make(stamp, filled="timestamptz", symbols="text[]"):
        with connect(empty_database_url) as connection:
            connection.execute(TABLES.format(stamp=stamp, filled=filled, symbols=symbols))
        migrate(empty_database_url)
        return empty_database_url

    return make


@pytest.mark.parametrize(
    ("stamp", "stored"),
    [
        ("bigint", MS),
        ("timestamptz", AT),
        ("timestamp", AT.replace(tzinfo=None)),
        ("text", "2024-05-01T12:00:00.123Z"),
        ("numeric", Decimal(MS)),
        ("double precision", float(MS)),
        ("varchar(40)", "2024-05-01T12:00:00.123Z"),
    ],
)
def test_a_backfill_row_is_written_and_read_back_in_the_table_s_own_types(production, stamp, stored):
    url = production(stamp)
    with connect(url, "recon_writer") as connection:
        insert = "SELECT order_id FROM recon.insert_orders(%s) AS inserted(order_id)"
        assert connection.execute(insert, [Jsonb([BACKFILL])]).fetchall() == [{"order_id": "BFILL-1"}]
        assert connection.execute(insert, [Jsonb([BACKFILL])]).fetchall() == []
        row = connection.execute(
            'SELECT "timestamp" AS stamp, qty, price, filled_at, user_id, recon.orders_timestamp(%s) AS now '
            "FROM public.orders",
            [MS],
        ).fetchone()
    assert row == {
        "stamp": stored,
        "qty": Decimal("0.12345678"),
        "price": 61234.5,
        "filled_at": AT,
        "user_id": None,
        "now": stored,
    }
    with PostgresLedger(url) as ledger:
        [record] = ledger.lifecycle_records([PROFILE])
        assert ledger.existing_order_ids(["BFILL-1"]) == {"BFILL-1"}
    assert (record["timestamp"], record["filled_at"], record["qty"], record["price"]) == (
        MS,
        AT,
        "0.12345678",
        "61234.5",
    )
    assert [record[name] for name in ("client_order_id", "quantity", "filled_qty", "sub_tag")] == [None] * 4
    frame = lifecycle_rows_frame([record])
    assert frame.loc[0, ["qty_e9", "time_ms", "filled_at_ms", "defect"]].tolist() == [123_456_780, MS, MS, ""]


def test_a_quantity_that_the_table_would_round_is_refused(production):
    url = production("bigint")
    insert = "SELECT recon.insert_orders(%s)"
    fine = {**BACKFILL, "order_id": "BFILL-2"}
    with connect(url, "recon_writer") as connection:
        with pytest.raises(
            psycopg.errors.NumericValueOutOfRange, match=r"orders\.qty would store 0\.12345679 instead of 0\.123"
        ):
            connection.execute(insert, [Jsonb([fine, {**BACKFILL, "qty": Decimal("0.123456789")}])])
        assert connection.execute("SELECT count(*) AS n FROM public.orders").fetchone() == {"n": 0}


@pytest.mark.parametrize("filled", ["timestamptz", "timestamp", "text", "bigint"])
def test_the_time_of_the_fill_may_have_any_type(production, filled):
    url = production("bigint", filled)
    with connect(url, "recon_writer") as connection:
        connection.execute("SELECT recon.insert_orders(%s)", [Jsonb([BACKFILL])])
    with PostgresLedger(url) as ledger:
        assert ledger.lifecycle_records([PROFILE])[0]["filled_at"] == AT


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("2024-05-01T12:00:00.123999Z", MS),
        ("2024-05-01 14:00:00.123+02", MS),
        ("2024-05-01 12:00:00.123", MS),
        (str(MS), MS),
        ("1714564800", MS - 123),
        ("yesterday", None),
        ("2024-13-41", None),
        ("", None),
        ("9" * 18, None),
    ],
)
def test_a_text_that_is_no_time_is_no_time(production, text, read):
    url = production("text")
    with connect(url, "recon_writer") as connection:
        connection.execute(
            'INSERT INTO public.orders (order_id, profile_id, "timestamp") VALUES (%s, %s, %s)', ("o", PROFILE, text)
        )
    with PostgresLedger(url) as ledger:
        assert ledger.lifecycle_records([PROFILE])[0]["timestamp"] == read


def test_a_time_that_no_calendar_holds_does_not_break_the_reading(production):
    url = production("timestamptz")
    with connect(url, "recon_writer") as connection:
        connection.execute(
            'INSERT INTO public.orders (order_id, profile_id, "timestamp", filled_at) VALUES '
            "('o1', %s, 'infinity', '-infinity'), ('o2', %s, '20000-01-01', '4000-01-01 BC')",
            (PROFILE, PROFILE),
        )
    with PostgresLedger(url) as ledger:
        records = ledger.lifecycle_records([PROFILE])
    assert [(record["timestamp"], record["filled_at"]) for record in records] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text[]", "'{BTC/USD,ETHUSD}'"),
        ("jsonb", '\'["BTC/USD", "ETHUSD"]\''),
        ("json", '\'["BTC/USD", "ETHUSD"]\''),
        ("text", "'BTC/USD, ETHUSD'"),
        ("varchar(20)[]", "'{BTC/USD,ETHUSD}'"),
    ],
)
def test_profiles_without_an_account_share_one_and_symbols_may_be_kept_in_any_list(production, kind, value):
    url = production("bigint", symbols=kind)
    with connect(url) as connection:
        connection.execute(f"INSERT INTO public.profiles (profile_id, managed_symbols) VALUES ('{PROFILE}', {value})")
        connection.execute("INSERT INTO public.profiles (profile_id) VALUES (gen_random_uuid())")
    with PostgresLedger(url) as ledger:
        [profile] = ledger.profiles([PROFILE])
        assert len(ledger.account_siblings([PROFILE])) == 2
    assert profile == {
        "profile_id": PROFILE,
        "user_id": None,
        "account_id": "default",
        "enabled": True,
        "managed_symbols": ["BTC/USD", "ETHUSD"],
        "allocated_capital_usd": None,
    }


def test_the_doctor_accepts_such_a_database_and_says_what_it_assumes(production):
    problems = check_database(production("timestamptz"))
    assert {problem.stops for problem in problems} == {Stops.NOTHING}
    assert {problem.where for problem in problems} == {
        "orders.client_order_id",
        "orders.filled_qty",
        "orders.price",
        "orders.profile_id",
        "orders.qty",
        "orders.quantity",
        "orders.sub_tag",
        "profiles.account_id",
        "profiles.allocated_capital_usd",
        "profiles.enabled",
    }
    [index] = [problem for problem in problems if problem.where == "orders.profile_id"]
    assert index.remedy == "CREATE INDEX CONCURRENTLY ON public.orders ((profile_id::text));"


def test_the_index_that_the_doctor_advises_is_used(production):
    url = production("bigint")
    with connect(url) as connection:
        connection.execute("CREATE INDEX CONCURRENTLY ON public.orders ((profile_id::text))")
        connection.execute(
            "INSERT INTO public.orders (order_id, profile_id) SELECT 'o' || n, gen_random_uuid() "
            "FROM generate_series(1, 5000) AS n"
        )
        connection.execute("ANALYZE public.orders")
        plan = connection.execute(
            "EXPLAIN SELECT * FROM recon.lifecycle_orders WHERE profile_id = ANY('{x,y}')"
        ).fetchall()
    assert "orders_profile_id_idx" in "".join(row["QUERY PLAN"] for row in plan)
    assert "orders.profile_id" not in {problem.where for problem in check_database(url)}


def test_a_serial_id_can_be_drawn_by_the_writer(empty_database_url):
    with connect(empty_database_url) as connection:
        connection.execute(TABLES.format(stamp="bigint", filled="timestamptz", symbols="text[]"))
        connection.execute("ALTER TABLE public.orders DROP COLUMN id")
        connection.execute("ALTER TABLE public.orders ADD COLUMN id bigserial PRIMARY KEY")
    migrate(empty_database_url)
    with connect(empty_database_url, "recon_writer") as writer:
        assert len(writer.execute("SELECT recon.insert_orders(%s)", [Jsonb([BACKFILL])]).fetchall()) == 1
