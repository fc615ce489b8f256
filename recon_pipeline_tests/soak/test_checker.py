"""The judge is no rubber stamp: every kind of wrong write is called wrong, at the time and at the end."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from recon_pipeline_tests.soak.checker import Checker
from recon_pipeline_tests.soak.driver import Plan, World, world
from recon_pipeline_tests.soak.verdict import judge_end

FILLED = "status = 'filled' AND action = 'EXIT' AND order_id !~ '^byte'"


class Idle:
    def run(self, world: World, number: int, trouble: list) -> None:
        """A pipeline that does nothing."""


@pytest.fixture(scope="module")
def lived(postgres) -> Iterator[World]:
    """Three days without a pipeline."""
    url = postgres.new_database(migrated=True)
    with world(Plan(seed=3, days=4, trades_per_day=2), url) as made:
        made.live(Idle())
        yield made
    postgres.drop(url)


INSERT = """INSERT INTO orders (order_id, client_order_id, user_id, profile_id, symbol, type, side, qty, quantity, filled_qty,
 price, status, "timestamp", filled_at, trade_id, action, source, sub_tag)
 SELECT {id}, NULL, user_id, profile_id, symbol, type, side, qty, quantity, filled_qty, price, status, "timestamp", filled_at,
 trade_id, action, 'BOT', sub_tag FROM orders WHERE {where} ORDER BY order_id LIMIT 1"""
ONE = f"order_id = (SELECT order_id FROM orders WHERE {FILLED} ORDER BY order_id LIMIT 1)"


@pytest.mark.parametrize(
    ("write", "called"),
    [
        (f"DELETE FROM orders WHERE {ONE}", "deleted"),
        (f"UPDATE orders SET qty = qty + 1, quantity = qty + 1, filled_qty = qty + 1 WHERE {ONE}", "is true"),
        (f"UPDATE orders SET qty = qty / 7, quantity = qty / 7, filled_qty = qty / 7 WHERE {ONE}", "was never"),
        (f"UPDATE orders SET status = 'canceled' WHERE {ONE}", "only 0 of"),
        (f"UPDATE orders SET trade_id = 't-999' WHERE {ONE}", "changed trade_id"),
        (f"UPDATE orders SET side = 'hold' WHERE {ONE}", "changed side"),
        (f"UPDATE orders SET sub_tag = 'bytelyst:nobody' WHERE {ONE}", "sub-tag"),
        (f"UPDATE orders SET price = price * 2 WHERE {ONE}", "price"),
        (f"UPDATE orders SET updated_at = now() WHERE {ONE}", "changes nothing"),
        (INSERT.format(id="'BFILL-00'", where=FILLED), "cites no order"),
        (INSERT.format(id="'PARITY-00'", where=FILLED), "synthetic exit"),
        (INSERT.format(id="gen_random_uuid()::text", where=FILLED), "does not know"),
        ("UPDATE positions SET qty = qty + 1", "the rows leave"),
        ("UPDATE trade_history SET exit_qty = exit_qty + 1 WHERE entry_qty > 0", "exit_qty"),
        ("UPDATE capital_ledger SET reserved_usd = 12345678", "reserved"),
        ("UPDATE profiles SET account_id = 'other'", "a profile"),
    ],
)
def test_a_wrong_write_is_called_wrong(lived: World, write: str, called: str):
    checker = Checker(lived)
    lived.ledger.new_changes()
    with psycopg.connect(lived.database_url, application_name="somebody") as connection:
        assert connection.execute(write.encode()).rowcount > 0
        connection.commit()
        checker.after_cycle(0)
        assert [line for line in checker.wrong if called in line], checker.wrong
        _undo(lived)
    assert checker.wrong


def _undo(lived: World) -> None:
    """Put every row back as it was before the last write."""
    rows = lived.ledger.rows("SELECT name, op, before, after FROM soak.changes WHERE who = 'somebody' ORDER BY id DESC")
    keys = {"orders": ("order_id",), "profiles": ("profile_id",)}
    for row in rows:
        name = row["name"]
        where = " AND ".join(f"{key} = %(k)s::jsonb ->> '{key}'" for key in keys.get(name, ("profile_id", "trade_id")))
        image = psycopg.types.json.Jsonb(row["after"] or row["before"])
        lived.ledger.connection.execute(f"DELETE FROM public.{name} WHERE {where}", {"k": image})
        if row["before"] is not None:
            lived.ledger.connection.execute(
                f"INSERT INTO public.{name} OVERRIDING SYSTEM VALUE "
                f"SELECT * FROM jsonb_populate_record(NULL::public.{name}, %s)",
                (psycopg.types.json.Jsonb(row["before"]),),
            )
    lived.ledger.connection.execute("TRUNCATE soak.changes")


def test_a_ledger_that_nobody_reconciled_is_not_called_true(lived: World):
    verdict = judge_end(lived, [])
    assert len(verdict.problems) > 10
    assert any("executed" in problem for problem in verdict.problems)
    assert any("nothing names it" in problem or "named nowhere" in problem for problem in verdict.problems)


def test_what_bots_write_is_not_the_pipelines(lived: World):
    assert lived.ledger.new_changes() == []
