"""The outbox of the bots: in order, together, at least once, and never a row before one that may still come."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from recon_pipeline.ledger.database import READER, WRITER, connect
from recon_pipeline.ledger.outbox import OutboxRow, acknowledge_outbox, outbox_lag, read_outbox
from recon_pipeline_tests.adapters.apply.book import Book
from recon_pipeline_tests.adapters.apply.correcting import correct, filled, plan_of

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "outbox.md"


def read(book: Book, consumer: str = "bot", *, limit: int = 100) -> list[OutboxRow]:
    with connect(book.url, READER) as connection:
        return read_outbox(connection, consumer, limit=limit)


def acknowledge(book: Book, row: OutboxRow, consumer: str = "bot") -> bool:
    with connect(book.url, READER) as connection:
        return acknowledge_outbox(connection, consumer, row)


def corrected(book: Book, number: int) -> None:
    """A trade with a pending exit that the exchange executed."""
    trade = f"t{number}"
    book.trade(trade, "10")
    book.record(f"x{number}", trade, "SELL", "10", action="EXIT", status="pending_new")
    assert correct(book, plan_of(filled(book, f"x{number}", "10", trade_id=trade), batch=f"C{number}")).ok


def test_a_correction_and_its_books_are_handed_out_together_with_cause_and_images(book: Book):
    corrected(book, 1)
    rows = read(book)
    assert [row.table_name for row in rows] == ["orders", "positions", "trade_history", "capital_ledger"]
    assert len({row.tx for row in rows}) == 1
    order = rows[0]
    assert (order.kind, order.handler, order.trade_id, order.profile_id) == ("order_parity", "exit_fill", "t1", "p1")
    assert order.row_key == {"order_id": "x1"}
    assert order.before is not None
    assert (order.before["status"], order.after["status"]) == ("pending_new", "filled")
    assert order.cause["rule"] == "exchange_filled"
    assert (rows[1].handler, rows[1].after["qty"]) == (None, 0)


def test_a_row_is_handed_out_until_it_is_acknowledged_and_each_consumer_has_its_own_place(book: Book):
    corrected(book, 1)
    rows = read(book, limit=3)
    assert [row.id for row in read(book, limit=3)] == [row.id for row in rows]
    assert acknowledge(book, rows[1]) is True
    assert [row.id for row in read(book)] == [rows[2].id, rows[2].id + 1]
    assert len(read(book, "another")) == 4


def test_an_acknowledgement_never_moves_back(book: Book):
    corrected(book, 1)
    rows = read(book)
    assert acknowledge(book, rows[-1]) is True
    assert acknowledge(book, rows[0]) is False
    assert acknowledge(book, rows[-1]) is False
    assert read(book) == []


def test_what_was_never_shown_can_not_be_acknowledged(book: Book):
    corrected(book, 1)
    row = read(book)[0]
    with pytest.raises(psycopg.errors.RaiseException, match="the outbox has no row"):
        acknowledge(book, OutboxRow(**{**vars(row), "id": row.id + 1000}))


def test_a_row_never_appears_before_one_that_may_still_commit(book: Book):
    """Two transactions, the first takes the lower id and commits last: until then the second is not shown either."""
    corrected(book, 1)
    assert acknowledge(book, read(book)[-1])
    insert = (
        b"INSERT INTO recon.corrections (batch_id, profile_id, table_name, row_key, after, cause)"
        b" VALUES (%s, 'p1', 'orders', '{}', '{}', '{}')"
    )
    with connect(book.url, WRITER) as slow, connect(book.url, WRITER) as fast:
        with slow.transaction():
            slow.execute(insert, ["slow"])
            fast.execute(insert, ["fast"])
            assert read(book) == [], "the fast one is committed and waits"
        assert [row.batch_id for row in read(book)] == ["slow", "fast"]


def test_a_transaction_that_took_its_place_first_and_its_id_last_is_not_passed_over(book: Book):
    """The other way round: a transaction that wrote something else first has the lower place whatever its row's id."""
    insert = (
        b"INSERT INTO recon.corrections (batch_id, profile_id, table_name, row_key, after, cause)"
        b" VALUES (%s, 'p1', 'orders', '{}', '{}', '{}')"
    )
    with connect(book.url, WRITER) as early, connect(book.url, WRITER) as late:
        with early.transaction():
            early.execute(b"UPDATE public.profiles SET updated_at = now()")
            late.execute(insert, ["late"])
            assert read(book) == []
            early.execute(insert, ["early"])
        assert [row.batch_id for row in read(book)] == ["early", "late"]


def test_a_consumer_that_acknowledges_row_by_row_under_writers_gets_every_row_once(book: Book):
    got: list[int] = []
    for number in range(1, 4):
        corrected(book, number)
        for row in read(book, limit=3):
            got.append(row.id)
            acknowledge(book, row)
    while rows := read(book, limit=1):
        got += [row.id for row in rows]
        acknowledge(book, rows[-1])
    assert got == [row["id"] for row in book.rows("SELECT id FROM recon.corrections ORDER BY id")]
    assert len(got) == 12


def test_a_rollback_writes_rows_of_its_own_and_does_not_disturb_the_batches(ghost: Book):
    ghost.apply(ghost.plan())
    assert acknowledge(ghost, read(ghost)[-1])

    assert ghost.rollback("B1-p1").state.value == "reverted"

    rows = read(ghost)
    assert {row.batch_id for row in rows} == {"RECON-ROLLBACK-B1-p1"}
    assert {row.kind for row in rows} == {"rollback"}
    assert [row.table_name for row in rows] == ["orders", "orders", "positions", "trade_history", "capital_ledger"]
    assert [(row.before or {})["status"] for row in rows[:2]] == ["filled", "filled"]
    assert [row.after["status"] for row in rows[:2]] == ["canceled", "canceled"]
    position = rows[2]
    assert position.before is not None
    assert (position.before["qty"], position.after["qty"], position.trade_id) == (0, 10, "t1")
    assert position.cause == {"kind": "rollback", "trade_id": "t1", "reverted_batch_id": "B1-p1"}
    assert ghost.rollback("B1-p1").state.value == "reverted"
    assert read(ghost) == rows, "a rollback of what is rolled back changes nothing"


def test_the_lag_says_how_many_rows_wait_and_since_when(book: Book):
    corrected(book, 1)
    acknowledge(book, read(book)[0])
    with connect(book.url, READER) as connection:
        (lag,) = outbox_lag(connection)
    assert (lag.consumer, lag.waiting) == ("bot", 3)
    assert lag.oldest_at == read(book)[0].created_at


def test_a_bot_needs_no_right_but_to_the_schema(book: Book):
    corrected(book, 1)
    with connect(book.url) as owner:
        owner.execute("CREATE ROLE outbox_bot LOGIN")
        try:
            owner.execute("GRANT USAGE ON SCHEMA recon TO outbox_bot")
            with connect(book.url.replace("postgres@", "outbox_bot@")) as bot:
                rows = read_outbox(bot, "bot")
                assert len(rows) == 4
                assert acknowledge_outbox(bot, "bot", rows[-1])
                for forbidden in ("SELECT * FROM recon.corrections", "UPDATE recon.outbox_consumers SET id = 0"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        bot.execute(forbidden.encode())
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    bot.execute(b"SELECT recon.rebase_outbox()")
        finally:
            owner.execute("DROP OWNED BY outbox_bot")
            owner.execute("DROP ROLE outbox_bot")


def test_after_a_restore_into_another_server_the_outbox_says_so_and_goes_on_where_it_was(book: Book):
    corrected(book, 1)
    corrected(book, 2)
    rows = read(book)
    acknowledge(book, rows[4])
    # The other server had come much further in its transactions.
    book.run("UPDATE recon.corrections SET tx = (tx::text::bigint + 1000000000)::text::xid8")
    book.run("UPDATE recon.outbox_consumers SET tx = (tx::text::bigint + 1000000000)::text::xid8")
    with pytest.raises(psycopg.errors.RaiseException, match="restored from another server"):
        read(book)

    book.run("SELECT recon.rebase_outbox()")

    assert [row.id for row in read(book)] == [row.id for row in rows[5:]]
    corrected(book, 3)
    assert [row.id for row in read(book, "another")] == [
        row["id"] for row in book.rows("SELECT id FROM recon.corrections ORDER BY id")
    ]
    assert acknowledge(book, read(book)[-1])
    assert read(book) == []


def test_the_example_consumer_of_the_document_works(book: Book):
    corrected(book, 1)
    blocks = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (example,) = [block for block in blocks if "my_state" in block]
    book.run("CREATE TABLE my_state (trade_id text, open_qty numeric)")
    book.run("INSERT INTO my_state VALUES ('t1', 10), ('t2', 3)")
    with psycopg.connect(book.url, autocommit=True) as bot:
        bot.execute(example.encode())
    assert book.rows("SELECT * FROM my_state ORDER BY trade_id") == [
        {"trade_id": "t1", "open_qty": 0},
        {"trade_id": "t2", "open_qty": 3},
    ]
    assert read(book, "bot-p1") == []


def test_the_document_names_every_column_and_every_handler(book: Book):
    text = DOCUMENT.read_text()
    corrected(book, 1)
    for name in vars(read(book)[0]):
        assert f"`{name}`" in text
    handlers = re.findall(r"`([a-z_]+)`", text)
    for name in ("entry_fill", "exit_fill", "cancel", "status", "discovery", "supersede", "sub_tag", "synthetic_exit"):
        assert name in handlers
