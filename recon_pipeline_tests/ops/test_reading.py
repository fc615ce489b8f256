"""Reading a snapshot from a real Postgres, and keeping it when the database can't be read."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.statements import statements
from recon_pipeline.ops.keeper import Keeper
from recon_pipeline.ops.reading import ReadingError, SnapshotReader
from recon_pipeline.ops.snapshot import Snapshot

STALE_MS = 300_000
AT = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)

ROWS = """
INSERT INTO public.profiles (profile_id, user_id, account_id, enabled, created_at) VALUES
  ('p2', 'u1', 'a1', false, '2026-01-01Z'), ('p1', 'u1', 'a1', true, '2026-01-02Z'), ('p3', NULL, 'a2', true, '2026-01-03Z');
INSERT INTO public.trading_control (scope, state, source, since, reason) VALUES
  ('p1', 'PAUSED', 'parity_watchdog', '2026-11-20 11:00Z', 'r'), ('all', 'RUNNING', 'ops', '2026-11-20 10:00Z', NULL);
INSERT INTO recon.cycle_reports (profile_id, run_id, cycle_at, processed, clean, content, report) VALUES
  ('p1', 'r1', '2026-11-20 11:50Z', true, true, '', '{"mismatch_count": 1, "error": ""}'),
  ('p1', 'r2', '2026-11-20 11:55Z', true, false, '',
   '{"mismatch_count": 4, "money_at_risk_usd": "12.50", "failed_stages": ["x"]}'),
  ('p1', 'r3', '2026-11-20 11:59Z', false, false, '', '{"skipped_reason": "lease_held"}');
INSERT INTO recon.cycle_runs (run_id, began_at, ended_at, profiles, failed, contended)
  SELECT 'r' || n, timestamptz '2026-11-20 11:00Z' + n * interval '1 minute', '2026-11-20 12:00Z', 3, 1, 0
  FROM generate_series(1, 30) AS n;
INSERT INTO recon.watchdogs (profile_id, mismatch_usd, capital_usd) VALUES ('p1', 10, 100);
INSERT INTO recon.lease_contentions (profile_id, contentions, last_at) VALUES ('p1', 2, now()), ('gone', 5, now());
INSERT INTO recon.batches (batch_id, profile_id, kind, state, updated_at) VALUES
  ('b1', 'p1', 'k', 'PENDING_APPLY', '2026-11-20 11:58Z'), ('b2', 'p1', 'k', 'APPLIED', now()),
  ('b0', 'p3', 'k', 'PENDING_APPLY', '2026-11-20 11:57Z');
INSERT INTO recon.totals (name, profile_id, value) VALUES ('cycles', '', 7), ('mismatches', 'p1', 3);
INSERT INTO recon.account_usage (account_id, rate_limit, rate_remaining, complete, read_at, asked_at) VALUES
  ('a1', 200, 120, true, '2026-11-20 11:59Z', '2026-11-20 12:00Z');
INSERT INTO recon.watermarks (account_id, stream, covered_until) VALUES
  ('a1', 'fills', '2026-11-20 11:58Z'), ('a1', 'orders', '2026-11-20 11:59Z'), ('a2', 'orders', '2026-11-20 11:59Z');
INSERT INTO recon.order_checks (profile_id, order_id, account_id, status, placed_at, outcome, first_seen_at, next_check_at) VALUES
  ('p1', 'o-new', 'a1', 'new', '2026-11-20 11:00Z', 'live', now(), now()),
  ('p1', 'o-old', 'a1', 'pending_new', '2026-11-20 10:00Z', 'failed', now(), now()),
  ('p1', 'o-no-time', 'a1', 'pending_new', NULL, 'not_checked', now(), now());
INSERT INTO recon.order_sync_runs VALUES
  ('s1', '2026-11-20 11:50Z', '2026-11-20 11:51Z', true, 1, 2, 3, 4, 5, 6, 7, ''),
  ('s2', '2026-11-20 11:55Z', '2026-11-20 11:56Z', false, 9, 0, 0, 0, 0, 0, 0, '');
INSERT INTO recon.order_streams (account_id, state, since, seen_at) VALUES ('a1', 'listening', now(), now());
INSERT INTO recon.waiting_cases (profile_id, case_key, stage, reason, notional_usd, first_seen_at, seen_at, run_id, detail) VALUES
  ('p1', 'k1', 's', 'r', NULL, now(), now(), 'r2', '{}'),
  ('p1', 'k2', 's', 'r', 5, now(), now(), 'r2', '{"a": 1.5}'),
  ('p3', 'k3', 's', 'r', 70.25, now(), now(), 'r2', '{}');
INSERT INTO recon.events (type, severity, message, created_at, delivered_at) VALUES
  ('t', 'WARN', 'm', now() - interval '2 minutes', NULL), ('t', 'WARN', 'm', now(), NULL),
  ('t', 'WARN', 'm', now() - interval '2 minutes', now());
"""


@pytest.fixture
def reader(database_url: str) -> Iterator[SnapshotReader]:
    made = SnapshotReader(database_url, timeout_seconds=5, stale_ms=STALE_MS, clock=lambda: AT)
    yield made
    made.close()


def read_after(database_url: str, rows: str, reader: SnapshotReader) -> Snapshot:
    with connect(database_url) as connection:
        connection.execute(rows.encode())
    return reader.read()


def test_a_snapshot_holds_every_table_in_its_order(database_url: str, reader: SnapshotReader) -> None:
    found = read_after(database_url, ROWS, reader)
    assert found.taken_at == AT
    assert [(row["profile_id"], row["account_id"], row["enabled"]) for row in found.profiles] == [
        ("p1", "a1", True),
        ("p2", "a1", False),
        ("p3", "a2", True),
    ]
    assert found.profiles[0]["created_at"] == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    [cycle] = found.cycles
    assert (cycle["run_id"], cycle["mismatch_count"], cycle["failed_stages"]) == ("r2", 4, ["x"])
    assert cycle["money_at_risk_usd"] == Decimal("12.50")
    assert cycle["last_clean_at"] == dt.datetime(2026, 11, 20, 11, 50, tzinfo=dt.UTC)
    assert [row["run_id"] for row in found.runs] == [f"r{n}" for n in range(30, 10, -1)]
    assert [(row["scope"], row["state"]) for row in found.trading] == [("all", "RUNNING"), ("p1", "PAUSED")]
    assert [(row["profile_id"], row["mismatch_ratio"], row["trading"]) for row in found.watchdogs] == [
        ("p1", Decimal("0.1000"), "PAUSED")
    ]
    assert found.contentions == 7
    assert [row["batch_id"] for row in found.pending_batches] == ["b0", "b1"]
    assert [(row["name"], row["profile_id"], row["value"]) for row in found.totals] == [
        ("cycles", "", 7),
        ("mismatches", "p1", 3),
    ]
    accounts = [(row["account_id"], row["rate_remaining"], row["covered_until"]) for row in found.accounts]
    assert accounts == [("a1", 120, dt.datetime(2026, 11, 20, 11, 58, tzinfo=dt.UTC)), ("a2", None, None)]
    assert [row["order_id"] for row in found.order_checks] == ["o-no-time", "o-old", "o-new"]
    assert found.sync is not None
    assert (found.sync["run_id"], found.sync["checked"]) == ("s2", 9)
    assert [row["state"] for row in found.streams] == ["listening"]
    assert [(row["case_key"], row["notional_usd"]) for row in found.waiting] == [
        ("k3", Decimal("70.25")),
        ("k2", Decimal(5)),
        ("k1", None),
    ]
    assert found.undelivered_events == 1


ORDERS = """
INSERT INTO public.profiles (profile_id, account_id) VALUES ('p1', 'a1');
INSERT INTO public.orders (order_id, client_order_id, profile_id, symbol, side, status, trade_id, created_at) VALUES
  ('old', 'c-1', 'p1', 'AAPL', 'BUY', 'Pending New', 't1', now() - interval '6 minutes'),
  ('older', NULL, 'gone', NULL, NULL, NULL, NULL, now() - interval '9 days'),
  ('partial', NULL, 'p1', 'AAPL', 'BUY', 'partially-filled', 't1', now() - interval '1 hour'),
  ('young', NULL, 'p1', 'AAPL', 'BUY', 'pending_new', 't1', now() - interval '4 minutes'),
  ('over', NULL, 'p1', 'AAPL', 'BUY', 'filled', 't1', now() - interval '9 days'),
  ('dead', NULL, 'p1', 'AAPL', 'BUY', 'canceled', 't1', now() - interval '9 days'),
  ('BFILL-1', NULL, 'p1', 'AAPL', 'BUY', 'new', 't1', now() - interval '9 days'),
  ('PARITY-1', NULL, 'p1', 'AAPL', 'BUY', 'new', 't1', now() - interval '9 days'),
  ('checked', NULL, 'p1', 'AAPL', 'BUY', 'new', 't1', now() - interval '9 days');
INSERT INTO recon.order_checks (profile_id, order_id, account_id, status, outcome, first_seen_at, next_check_at) VALUES
  ('p1', 'checked', 'a1', 'new', 'live', now(), now());
"""


def test_stale_orders_that_no_sync_has_looked_at_are_found_oldest_first(
    database_url: str, reader: SnapshotReader
) -> None:
    found = read_after(database_url, ORDERS, reader).unchecked
    assert [row["order_id"] for row in found] == ["older", "partial", "old"]
    named = {
        name: found[2][name] for name in ("profile_id", "account_id", "client_order_id", "trade_id", "symbol", "status")
    }
    assert list(named.values()) == ["p1", "a1", "c-1", "t1", "AAPL", "pending_new"]
    assert (found[0]["account_id"], found[0]["status"], found[0]["side"]) == ("", "", "")


def test_they_are_not_looked_for_again_at_once_where_that_is_slow_but_never_named_once_checked(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon_pipeline.ops import reading

    monkeypatch.setattr(reading, "UNCHECKED_REST", 10**6)
    reader = SnapshotReader(database_url, timeout_seconds=5, stale_ms=STALE_MS)
    assert len(read_after(database_url, ORDERS, reader).unchecked) == 3
    with connect(database_url) as connection:
        connection.execute(
            b"INSERT INTO recon.order_checks (profile_id, order_id, account_id, status, outcome, first_seen_at, "
            b"next_check_at) VALUES ('p1', 'old', 'a1', 'new', 'live', now(), now())"
        )
        connection.execute(b"UPDATE public.orders SET status = 'filled' WHERE order_id = 'partial'")
    assert [row["order_id"] for row in reader.read().unchecked] == ["older", "partial"]
    reader._unchecked_until = 0.0
    assert [row["order_id"] for row in reader.read().unchecked] == ["older"]
    reader.close()


def test_orders_that_may_execute_are_found_without_reading_those_that_are_over(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(
            b"INSERT INTO public.orders (order_id, profile_id, status, created_at) SELECT 'o' || n, 'p' || n % 20, "
            b"CASE WHEN n % 1000 = 0 THEN 'new' ELSE 'filled' END, now() - interval '1 day' FROM generate_series(1, 50000) AS n"
        )
        connection.execute(b"ANALYZE public.orders")
        query = statements()["ops_unchecked_orders"].query
        limits = {"stale_seconds": 300, "row_limit": 500}
        plan = "\n".join(row["QUERY PLAN"] for row in connection.execute(b"EXPLAIN " + query, limits))
        assert len(connection.execute(query, limits).fetchall()) == 50
    assert "orders_live_idx" in plan
    assert "Seq Scan on orders" not in plan


def test_a_database_in_which_nothing_happened_yet_is_read(reader: SnapshotReader) -> None:
    found = reader.read()
    assert (found.profiles, found.cycles, found.sync, found.contentions) == ((), (), None, 0)


def test_the_connection_that_reads_can_not_write_even_what_its_role_may(
    database_url: str, reader: SnapshotReader
) -> None:
    reader.read()
    connection = reader._connection
    assert connection is not None
    assert connection.execute(b"SELECT current_user AS name").fetchone() == {"name": "recon_reader"}
    for write in (
        b"DELETE FROM recon.order_checks",
        b"UPDATE recon.totals SET value = 1",
        b"INSERT INTO recon.events DEFAULT VALUES",
    ):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
            connection.execute(write)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute(b"DELETE FROM recon.order_checks")


def test_all_tables_are_read_as_of_one_instant(
    database_url: str, reader: SnapshotReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cycle that ends between two statements is in none of them."""
    from recon_pipeline.ops import reading

    plain = reading._rows

    def interrupted(connection: psycopg.Connection, name: str, **parameters: object) -> object:
        if name == "ops_cycles":
            with connect(database_url) as other:
                other.execute(ROWS.encode())
        return plain(connection, name, **parameters)

    monkeypatch.setattr(reading, "_rows", interrupted)
    found = reader.read()
    assert (found.profiles, found.cycles, found.waiting, found.undelivered_events) == ((), (), (), 0)
    monkeypatch.undo()
    assert len(reader.read().profiles) == 3


def test_the_last_time_a_profile_was_in_line_is_found_through_an_index_however_long_ago(database_url: str) -> None:
    with connect(database_url) as connection:
        connection.execute(
            b"INSERT INTO recon.cycle_reports (profile_id, run_id, cycle_at, processed, clean, content, report) "
            b"SELECT 'p1', 'r' || n, now() - n * interval '5 minutes', true, n = 19000, '', '{}' "
            b"FROM generate_series(1, 20000) AS n"
        )
        connection.execute(b"ANALYZE recon.cycle_reports")
        plan = "\n".join(
            row["QUERY PLAN"]
            for row in connection.execute(b"EXPLAIN (ANALYZE, BUFFERS OFF) " + statements()["ops_cycles"].query)
        )
    assert "cycle_reports_clean_idx" in plan
    removed = [int(line.rsplit(":", 1)[1]) for line in plan.splitlines() if "Rows Removed" in line]
    assert sum(removed) < 100, plan


def test_a_database_that_is_down_is_said_without_its_password(reader: SnapshotReader) -> None:
    url = "postgresql://reader:hunter2@127.0.0.1:1/recon"
    with pytest.raises(ReadingError, match=r"can't connect to database recon on 127\.0\.0\.1:1 as reader") as caught:
        SnapshotReader(url, timeout_seconds=2, stale_ms=STALE_MS).read()
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in str(error)
        error = error.__cause__ or error.__context__


def test_a_table_that_is_locked_ends_the_reading_in_time_and_the_next_one_works(database_url: str) -> None:
    reader = SnapshotReader(database_url, timeout_seconds=0.3, stale_ms=STALE_MS)
    with connect(database_url) as connection, connection.transaction():
        connection.execute(b"LOCK TABLE recon.totals IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        with pytest.raises(ReadingError, match="timeout"):
            reader.read()
        assert time.monotonic() - began < 3
    assert reader.read().totals == ()
    reader.close()


def test_a_keeper_keeps_what_was_read_while_reading_fails_and_reads_on_afterwards(database_url: str) -> None:
    instants = iter([AT + dt.timedelta(seconds=second) for second in range(100)])
    reader = SnapshotReader(database_url, timeout_seconds=2, stale_ms=STALE_MS, clock=lambda: AT)
    keeper = Keeper(reader, refresh_seconds=1, clock=lambda: next(instants))
    first = keeper.refresh()
    assert first.snapshot is not None
    assert (first.error, first.failing_since) == ("", None)
    with connect(database_url) as connection:
        connection.execute(b"ALTER TABLE recon.totals RENAME TO totals_gone")
        broken, again = keeper.refresh(), keeper.refresh()
        connection.execute(b"ALTER TABLE recon.totals_gone RENAME TO totals")
    assert broken.snapshot is again.snapshot is first.snapshot
    assert 'relation "recon.totals" does not exist' in again.error
    assert broken.failing_since == again.failing_since == AT
    with connect(database_url) as connection:
        connection.execute(
            b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'recon serve'"
        )
    mended = keeper.refresh()
    assert (mended.error, mended.failing_since) == ("", None)
    assert mended.snapshot is not first.snapshot
    assert keeper.latest() is mended
    reader.close()


class Broken:
    """A reader with an error of its own."""

    closed = False

    def read(self) -> Snapshot:
        raise ZeroDivisionError

    def close(self) -> None:
        self.closed = True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_keeper_that_dies_of_an_error_that_is_not_the_database_s_says_so() -> None:
    died, reader = threading.Event(), Broken()
    keeper = Keeper(reader, refresh_seconds=1)
    keeper.start(when_dead=died.set)
    keeper._thread.join(10)
    assert died.is_set()
    assert reader.closed


def test_a_keeper_reads_again_and_again_until_it_is_stopped(database_url: str) -> None:
    keeper = Keeper(SnapshotReader(database_url, timeout_seconds=2, stale_ms=STALE_MS), refresh_seconds=0.05)
    died = threading.Event()
    keeper.start(when_dead=died.set)
    seen: set[int] = set()
    deadline = time.monotonic() + 20
    while len(seen) < 3:
        assert time.monotonic() < deadline
        seen.add(id(keeper.latest().snapshot))
        time.sleep(0.01)
    keeper.stop()
    last = keeper.latest()
    time.sleep(0.2)
    assert keeper.latest() is last
    assert not died.is_set()
