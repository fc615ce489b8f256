"""Orders that may still execute are found by an index; checks are saved whole, under the lease, with what they count."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from psycopg import Rollback

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_matching import LIVE, class_of_status
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.terms import FILLED_STATUSES, FINAL_UNFILLED_STATUSES, normalise_status
from recon_pipeline.ledger.database import READER, Connection, connect
from recon_pipeline.ledger.leases import Lease, acquire_leases
from recon_pipeline.ledger.migrate import migrate
from recon_pipeline.ledger.order_checks import (
    backfill_rows,
    consumption_of,
    due_profiles,
    live_orders,
    read_checks,
    rows_around_orders,
    save_checks,
    save_sync_run,
)
from recon_pipeline.ledger.requirements import LIVE_CONDITION, check_database
from recon_pipeline.ledger.statements import statement

NOW = dt.datetime(2026, 11, 3, 15, 0, tzinfo=dt.UTC)
MS = int(NOW.timestamp() * 1000)
POLICY = OrderStatusPolicy()


@pytest.fixture
def owner(database_url: str) -> Iterator[Connection]:
    with connect(database_url) as connection:
        yield connection


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    with connect(database_url, READER) as connection:
        yield connection


def order(owner: Connection, order_id: str, **columns: object) -> None:
    hour_ago = NOW - dt.timedelta(hours=1)
    row = {
        "order_id": order_id,
        "profile_id": "p1",
        "symbol": "AAPL",
        "status": "pending_new",
        "created_at": hour_ago,
    } | columns
    names, places = ", ".join(f'"{name}"' for name in row), ", ".join(f"%({name})s" for name in row)
    owner.execute(f"INSERT INTO public.orders ({names}) VALUES ({places})".encode(), row)


def check(order_id: str, **columns: object) -> dict[str, Any]:
    made: dict[str, Any] = dict.fromkeys(ORDER_CHECKS.names, "") | {
        "profile_id": "p1",
        "order_id": order_id,
        "account_id": "a",
        "status": "pending_new",
        "outcome": "live",
        "failures": 0,
        "placed_at_ms": MS - 3_600_000,
        "first_seen_ms": MS,
        "checked_at_ms": MS + 1,
        "next_check_ms": MS + 300_000,
    }
    return made | columns


def checks(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=ORDER_CHECKS.names) if rows else ORDER_CHECKS.empty()


def lease_of(reader: Connection, profile_id: str = "p1") -> Lease:
    return acquire_leases(reader, [profile_id], owner="test", ttl_seconds=60)[profile_id]


def keys(rows: list[dict[str, Any]]) -> list[str]:
    return [row["order_id"] for row in rows]


# -- orders that may still execute


def test_the_database_and_the_domain_agree_which_status_may_still_execute(owner: Connection):
    spellings = {
        *FILLED_STATUSES,
        *FINAL_UNFILLED_STATUSES,
        "unknown",
        "pending_new",
        "new",
        "held",
        "",
        "no such status",
        "cancelled",
    }
    spelled = sorted(
        spelling
        for status in spellings
        for spelling in (status, status.upper(), f" {status} ", status.replace("_", "-"), status.replace("_", " "))
    )
    said = {text: owner.execute("SELECT recon.may_execute(%s) AS live", [text]).fetchone() for text in (*spelled, None)}
    assert {text: row["live"] for text, row in said.items() if row} == {
        text: class_of_status(normalise_status(text)) in LIVE for text in said
    }


def test_live_orders_are_those_of_the_profiles_that_are_old_enough_or_do_not_say(owner: Connection, reader: Connection):
    order(owner, "old")
    order(owner, "partly", status="Partially-Filled")
    order(owner, "nothing", status=None)
    order(owner, "young", created_at=NOW)
    order(owner, "theirs", profile_id="p2")
    for over in ("filled", "FILLED", "canceled", "cancelled", "rejected", "done-for-day"):
        order(owner, over, status=over)
    order(owner, "BFILL-1")
    order(owner, "PARITY-1")
    order(owner, "")

    assert keys(live_orders(reader, ["p1"], placed_before=NOW)) == ["nothing", "old", "partly"]
    assert keys(live_orders(reader, placed_before=NOW)) == ["nothing", "old", "partly", "theirs"]
    assert keys(live_orders(reader, ["p1"])) == ["nothing", "old", "partly", "young"]
    assert live_orders(reader, []) == []


def test_a_row_without_any_time_is_old_and_its_timestamp_stands_in_for_created_at(
    owner: Connection, reader: Connection
):
    owner.execute("ALTER TABLE public.orders ALTER COLUMN created_at DROP NOT NULL")
    order(owner, "no-time", created_at=None)
    order(owner, "by-timestamp", created_at=None, timestamp=MS - 1)
    order(owner, "too-young", created_at=None, timestamp=MS)

    assert keys(live_orders(reader, placed_before=NOW)) == ["by-timestamp", "no-time"]


@pytest.fixture
def crowded(owner: Connection) -> None:
    """Forty thousand orders, of which ten are not over."""
    owner.execute(
        """INSERT INTO orders (order_id, profile_id, trade_id, symbol, status)
           SELECT 'o' || n, 'p' || n % 50, 't' || n, 'AAPL', CASE WHEN n % 4000 = 0 THEN 'new' ELSE 'filled' END
           FROM generate_series(1, 40000) AS s(n)"""
    )
    owner.execute("ANALYZE orders")


def explained(reader: Connection, name: str, **parameters: object) -> str:
    plan = reader.execute(b"EXPLAIN (COSTS off) " + statement(name), parameters).fetchall()
    return "\n".join(row["QUERY PLAN"] for row in plan)


@pytest.mark.usefixtures("crowded")
def test_orders_that_are_over_are_not_read_to_find_those_that_are_not(reader: Connection):
    everyone = explained(reader, "select_live_orders", profile_ids=None, placed_before=NOW)
    few = explained(reader, "select_live_orders", profile_ids=["p1", "p2"], placed_before=NOW)
    due = explained(reader, "select_due_profiles", now=NOW, placed_before=NOW)
    around = explained(reader, "select_rows_around_orders", profile_id="p1", trade_ids=["t1"], ids=["o1"])

    for plan in (everyone, few, due, around):
        assert "Seq Scan on orders" not in plan
    for plan in (everyone, few, due):
        assert "orders_live_idx" in plan


def test_the_condition_that_the_doctor_recommends_is_the_functions(owner: Connection):
    source = owner.execute("SELECT prosrc FROM pg_proc WHERE oid = 'recon.may_execute(text)'::regprocedure").fetchone()
    assert source is not None
    assert " ".join(source["prosrc"].replace("(\n", "(").split()) == (
        "SELECT " + LIVE_CONDITION.format(status="status").replace("ALL ('", "ALL ( '")
    )


def test_a_table_that_the_bots_made_is_not_altered_and_the_recommended_index_serves_it(empty_database_url: str):
    with connect(empty_database_url) as owner:
        owner.execute(
            """CREATE TABLE public.orders (order_id varchar(80) UNIQUE, user_id text, profile_id uuid, symbol text, type text,
               side text, qty numeric, price numeric, status varchar(20), "timestamp" bigint, filled_at timestamptz,
               trade_id text, action text, source text, created_at timestamptz, updated_at timestamptz)"""
        )
        migrate(empty_database_url)
        assert owner.execute("SELECT indexname FROM pg_indexes WHERE tablename = 'orders'").fetchall() == [
            {"indexname": "orders_order_id_key"}
        ]
        [problem] = [found for found in check_database(empty_database_url) if found.where == "orders.status"]
        owner.execute(problem.remedy.encode())
        assert [found for found in check_database(empty_database_url) if found.where == "orders.status"] == []
        owner.execute(
            """INSERT INTO orders (order_id, profile_id, status)
               SELECT n, gen_random_uuid(), CASE WHEN n % 4000 = 0 THEN 'new' ELSE 'filled' END
               FROM generate_series(1, 40000) AS s(n)"""
        )
        owner.execute("ANALYZE orders")
        assert "Seq Scan" not in explained(owner, "select_live_orders", profile_ids=None, placed_before=None)


def test_a_table_with_orders_in_it_gets_no_index_from_the_migration(empty_database_url: str, new_database: Any):
    source = new_database()
    with connect(source) as owner:
        owner.execute("DROP INDEX public.orders_live_idx")
        owner.execute("DROP TABLE recon.order_checks, recon.order_sync_runs, recon.order_events, recon.order_streams")
        owner.execute("DROP TABLE recon.cycle_runs, recon.account_usage, recon.totals, recon.waiting_cases")
        owner.execute("DROP INDEX recon.cycle_reports_clean_idx")
        owner.execute("DELETE FROM recon.schema_migrations WHERE name LIKE '0008%'")
        order(owner, "somebody's")
        migrate(source)
        assert owner.execute("SELECT to_regclass('public.orders_live_idx') AS index").fetchone() == {"index": None}


# -- rows around orders


def test_rows_around_orders_are_those_of_the_trades_and_those_that_name_an_order(owner: Connection, reader: Connection):
    order(owner, "o1", trade_id="t1", status="filled")
    order(owner, "o2", trade_id="t1", status="canceled")
    order(owner, "o3", trade_id="t1", profile_id="p2")
    order(owner, "o4", trade_id="t9", client_order_id="c1")
    order(owner, "o5", profile_id="p2", client_order_id="o6")
    order(owner, "o7")

    found = rows_around_orders(reader, "p1", trade_ids=["t1", ""], ids=["c1", "o6", "o7", "", "nobody"])

    assert keys(found) == ["o1", "o2", "o4", "o7", "o5"]
    assert found[0].keys() >= {"created_at", "updated_at", "filled_at", "timestamp", "sub_tag"}


def test_backfill_rows_and_consumption_are_found(owner: Connection, reader: Connection):
    order(owner, "BFILL-1", status="filled")
    order(owner, "BFILL-2", status="canceled")
    order(owner, "BFILL-3", profile_id="p2")
    assert keys(backfill_rows(reader, ["p1"])) == ["BFILL-1", "BFILL-2"]
    assert consumption_of(reader, "a", ["x"]) == []


# -- what is remembered


def test_what_was_saved_is_what_is_read(reader: Connection):
    saved = checks(
        check(
            "o1",
            client_order_id="c",
            trade_id="t",
            symbol="BTC/USD",
            side="SELL",
            exchange_status="new",
            detail="why",
            failures=3,
        ),
        check("o2", placed_at_ms=NO_TIME, checked_at_ms=NO_TIME, outcome="not_checked"),
    )

    assert save_checks(reader, lease_of(reader), saved, counts={}, run_id="r1")

    found = read_checks(reader, ["p1"])
    assert found.columns.tolist() == ORDER_CHECKS.names
    assert found.to_dict("records") == saved.to_dict("records")
    assert found["placed_at_ms"].dtype == "int64"
    assert len(read_checks(reader, ["p2"])) == 0
    assert len(read_checks(reader)) == 2


def test_checks_are_saved_whole_and_what_says_the_same_is_not_written(reader: Connection):
    lease = lease_of(reader)
    save_checks(reader, lease, checks(check("o1"), check("o2")), counts={}, run_id="r1")
    save_checks(reader, lease, checks(check("o2"), check("o3", outcome="missing")), counts={}, run_id="r2")

    rows = reader.execute("SELECT order_id, run_id FROM recon.order_checks ORDER BY order_id").fetchall()
    assert rows == [{"order_id": "o2", "run_id": "r1"}, {"order_id": "o3", "run_id": "r2"}]
    save_checks(reader, lease, checks(), counts={}, run_id="r3")
    assert len(read_checks(reader)) == 0


def test_without_the_lease_nothing_is_saved_and_nothing_counted(reader: Connection):
    lease = lease_of(reader)
    reader.execute("UPDATE recon.leases SET token = token + 1")

    assert not save_checks(reader, lease, checks(check("o1")), counts={"checked": 1}, run_id="r1")

    assert len(read_checks(reader)) == 0
    assert reader.execute("SELECT * FROM recon.totals").fetchall() == []
    with pytest.raises(ValueError, match="does not cover checks of p2"):
        save_checks(reader, lease, checks(check("o1", profile_id="p2")), counts={}, run_id="r1")


def test_counts_are_added_to_the_profiles_totals_with_the_checks(reader: Connection):
    lease, counts = lease_of(reader), {"checked": 3, "updated": 1, "not_found": 1, "failed": 0, "still_live": 1}
    save_checks(reader, lease, checks(), counts=counts, run_id="r1")
    save_checks(reader, lease, checks(), counts=counts, run_id="r2")

    found = reader.execute("SELECT name, profile_id, value FROM recon.totals ORDER BY name").fetchall()
    assert [(row["name"], row["profile_id"], row["value"]) for row in found] == [
        ("order_status_checked", "p1", Decimal(6)),
        ("order_status_not_found", "p1", Decimal(2)),
        ("order_status_updated", "p1", Decimal(2)),
    ]


def test_a_rolled_back_transaction_of_the_callers_saves_and_counts_nothing(reader: Connection):
    lease = lease_of(reader)
    with reader.transaction() as transaction:
        assert save_checks(reader, lease, checks(check("o1")), counts={"checked": 1}, run_id="r1")
        raise Rollback(transaction)
    assert len(read_checks(reader)) == 0
    assert reader.execute("SELECT * FROM recon.totals").fetchall() == []


def test_a_run_is_saved_and_counted_once(reader: Connection):
    told: dict[str, Any] = {
        "began_at": NOW,
        "ended_at": NOW,
        "dry_run": True,
        "counts": {"checked": 2},
        "api_calls": 5,
        "error": "",
    }
    assert save_sync_run(reader, "r1", **told)
    assert not save_sync_run(reader, "r1", **told)
    (run,) = reader.execute("SELECT * FROM recon.order_sync_runs").fetchall()
    assert (run["checked"], run["updated"], run["api_calls"], run["dry_run"]) == (2, 0, 5, True)
    (total,) = reader.execute("SELECT name, value FROM recon.totals").fetchall()
    assert (total["name"], total["value"]) == ("order_status_runs", 1)


# -- who is due


def profile(owner: Connection, profile_id: str = "p1") -> None:
    owner.execute("INSERT INTO public.profiles (profile_id, account_id) VALUES (%s, 'a')", [profile_id])


def test_a_profile_that_the_ledger_does_not_know_is_never_due(owner: Connection, reader: Connection):
    order(owner, "o1", profile_id="stranger")
    save_checks(reader, lease_of(reader), checks(check("o2")), counts={}, run_id="r1")
    assert due_profiles(reader, POLICY, NOW) == []


@dataclass(frozen=True)
class Due:
    says: str
    status: str = "pending_new"
    age_minutes: float = 60
    checked: dict[str, Any] | None = None
    due: bool = True


@pytest.mark.parametrize(
    "case",
    [
        Due("never looked at"),
        Due("too young", age_minutes=4.9, due=False),
        Due("over", status="filled", due=False),
        Due("asked about and not yet due again", checked={"next_check_ms": MS + 1}, due=False),
        Due("due again", checked={"next_check_ms": MS}),
        Due("over, and still remembered", status="canceled", checked={"next_check_ms": MS + 1}),
        Due("gone, and still remembered", status="", checked={"order_id": "gone", "next_check_ms": MS + 1}),
    ],
    ids=lambda case: case.says,
)
def test_a_profile_is_due_where_a_run_would_find_something_to_do(owner: Connection, reader: Connection, case: Due):
    profile(owner)
    order(owner, "o1", status=case.status or "filled", created_at=NOW - dt.timedelta(minutes=case.age_minutes))
    if case.checked is not None:
        save_checks(
            reader, lease_of(reader), checks(check(**({"order_id": "o1"} | case.checked))), counts={}, run_id="r1"
        )
    assert due_profiles(reader, POLICY, NOW) == (["p1"] if case.due else [])
