"""Corrections in a real database: what is postponed and why, what is refused, what is idempotent, and at once with others."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import threading
from decimal import Decimal

import psycopg
import pytest

from recon_pipeline.apply import ApplyState, CorrectionResult, RollbackState, rollback_batch
from recon_pipeline.apply.books import as_parameter
from recon_pipeline.apply.corrections import apply_corrections
from recon_pipeline.apply.outcomes import POSTPONEMENTS, Postponed
from recon_pipeline.domain.corrections import CorrectionPlan, Handler, Stage
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases
from recon_pipeline.ledger.migrate import migrate
from recon_pipeline.ledger.statements import statement
from recon_pipeline_tests.adapters.apply.book import LEDGER_TABLES, NOW, Book, at_point
from recon_pipeline_tests.adapters.apply.correcting import correct, corrections, ended, filled, inserted, plan_of, units
from recon_pipeline_tests.adapters.apply.production import P1, T1, USER, production_book

EVERYTHING = (*LEDGER_TABLES, "recon.batches", "recon.corrections", "recon.consumption")


@pytest.fixture
def exit_pending(book: Book) -> Book:
    """t1: 10 bought at 100; the exit order x1 of 10 is pending in the ledger."""
    book.trade("t1", "10")
    book.record("x1", "t1", "SELL", "10", price="110", action="EXIT", status="pending_new")
    return book


# -- compare-and-set


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        ("status = 'filled'", True),
        ("filled_qty = 3", True),
        ("qty = 11, quantity = 11", True),
        ("trade_id = 't9'", True),
        ("price = 111", True),
        ("sub_tag = 'bytelyst:p1:t1'", True),
        ("updated_at = now(), source = 'X'", False),
    ],
)
def test_a_row_that_its_bot_changed_since_is_postponed(exit_pending: Book, change: str, touched: bool):
    plan = plan_of(filled(exit_pending, "x1", "10"))
    exit_pending.run(f"UPDATE orders SET {change} WHERE order_id = 'x1'")
    before = exit_pending.dump(EVERYTHING)

    result = correct(exit_pending, plan)

    if touched:
        assert (result.state, result.ok) == (ApplyState.NOTHING_TO_APPLY, True)
        assert (result.applied, result.postponed) == ((), {"x1": "row_changed"})
        assert exit_pending.dump(EVERYTHING) == before
    else:
        assert result.applied == ("x1",)


def test_a_row_that_is_gone_is_postponed(exit_pending: Book):
    plan = plan_of(filled(exit_pending, "x1", "10"))
    exit_pending.run("DELETE FROM orders WHERE order_id = 'x1'")
    assert correct(exit_pending, plan).postponed == {"x1": "row_missing"}


def test_an_insert_whose_id_exists_is_postponed(exit_pending: Book):
    plan = plan_of(inserted("x2", "10"))
    exit_pending.record("x2", "t1", "SELL", "10", action="EXIT")
    assert correct(exit_pending, plan).postponed == {"x2": "already_exists"}


@pytest.mark.parametrize("status", ["pending_new", "filled"])
def test_an_insert_whose_order_a_bot_recorded_under_its_client_id_is_postponed(exit_pending: Book, status: str):
    exit_pending.record("my-x2", "t1", "SELL", "10", action="EXIT", status=status)
    live = inserted("x2", "10", status="new", handler=Handler.DISCOVERY, values={"client_order_id": "my-x2"})
    assert correct(exit_pending, plan_of(live)).postponed == {"x2": "already_exists"}
    done = inserted("x2", "10")
    assert correct(exit_pending, plan_of(done, clients={"x2": "my-x2"})).postponed == {"x2": "already_exists"}


def test_a_change_that_is_postponed_does_not_fail_the_others(exit_pending: Book):
    exit_pending.record("x2", "t1", "SELL", "5", action="EXIT", status="pending_new")
    plan = plan_of(filled(exit_pending, "x1", "4"), ended(exit_pending, "x2"), inserted("x3", "2"))
    exit_pending.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'x2'")

    result = correct(exit_pending, plan)

    assert (result.state, result.applied, result.corrections) == (ApplyState.APPLIED, ("x1", "x3"), 2)
    assert result.postponed == {"x2": "row_changed"}
    assert exit_pending.position("t1")["qty"] == 4


def test_every_word_for_a_postponement_is_explained():
    assert set(POSTPONEMENTS) == set(Postponed)


# -- evidence


def test_quantity_that_another_row_represents_is_not_written_again(exit_pending: Book):
    """The order executed 10; somebody booked 4 of it for another trade since this was decided."""
    plan = plan_of(filled(exit_pending, "x1", "10", exchange_id="X"), clients={"X": "x1"})
    exit_pending.trade("t2", "4")
    exit_pending.record("X", "t2", "SELL", "4", action="EXIT")
    before = exit_pending.dump(EVERYTHING)

    result = correct(exit_pending, plan)

    assert result.postponed == {"x1": "evidence_already_consumed"}
    assert exit_pending.dump(EVERYTHING) == before


def test_quantity_that_a_sibling_profiles_backfill_consumed_is_not_written_again(exit_pending: Book):
    exit_pending.profile("p2")
    exit_pending.trade("t2", "10", profile_id="p2")
    plan = plan_of(inserted("x7", "10"))
    exit_pending.executed("x7", "t2", "10", profile_id="p2")
    assert exit_pending.apply(exit_pending.plan("p2")).inserted_rows == 1

    assert correct(exit_pending, plan).postponed == {"x7": "evidence_already_consumed"}
    assert exit_pending.rows("SELECT * FROM orders WHERE order_id = 'x7'") == []


def test_an_order_that_executed_less_than_two_rows_say_gives_only_what_fits_and_neither_is_guessed(exit_pending: Book):
    exit_pending.record("x1b", "t1", "SELL", "6", action="EXIT", status="pending_new", client_order_id="x1")
    plan = plan_of(
        filled(exit_pending, "x1", "6"), filled(exit_pending, "x1b", "6", exchange_id="x1"), executed={"x1": "6"}
    )
    assert correct(exit_pending, plan).postponed == {
        "x1": "evidence_already_consumed",
        "x1b": "evidence_already_consumed",
    }


def test_a_row_that_names_its_order_by_no_id_is_recorded_as_its_consumption(exit_pending: Book):
    """The bot keys its rows by ids of its own; the order was matched by its trade."""
    change = filled(exit_pending, "x1", "3", exchange_id="X", status="partially_filled")
    assert correct(exit_pending, plan_of(change, executed={"X": "3"}, batch="C1")).applied == ("x1",)
    (consumed,) = exit_pending.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL")
    assert (consumed["exchange_order_id"], consumed["backfill_order_id"], consumed["qty"]) == ("X", "x1", 3)

    again = plan_of(inserted("X", "3"), executed={"X": "3"}, batch="C2", stage=Stage.ORDER_COVERAGE)
    assert correct(exit_pending, again).postponed == {"X": "evidence_already_consumed"}

    grown = filled(exit_pending, "x1", "10", exchange_id="X")
    assert correct(exit_pending, plan_of(grown, executed={"X": "10"}, batch="C3")).applied == ("x1",)
    (consumed,) = exit_pending.rows("SELECT * FROM recon.consumption WHERE released_at IS NULL")
    assert (consumed["qty"], consumed["batch_id"]) == (10, "C3")


def test_a_backfill_row_is_not_superseded_where_nothing_takes_its_place(exit_pending: Book):
    """The order's own row was to be inserted; its bot inserted it as pending meanwhile."""
    exit_pending.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'x1'")
    exit_pending.executed("x7", "t1", "10")
    exit_pending.apply(exit_pending.plan())
    (backfill,) = exit_pending.backfill_rows()
    supersede = ended(exit_pending, backfill["order_id"], handler=Handler.SUPERSEDE, cause={"exchange_order_id": "x7"})
    plan = plan_of(inserted("x7", "10"), supersede, stage=Stage.ORDER_COVERAGE)
    exit_pending.record("x7", "t1", "SELL", "10", action="EXIT", status="pending_new")

    result = correct(exit_pending, plan)

    assert result.postponed == {"x7": "already_exists", backfill["order_id"]: "still_needed"}
    assert exit_pending.order(backfill["order_id"])["status"] == "filled"


def test_a_backfill_row_is_superseded_by_a_row_that_its_bot_wrote(exit_pending: Book):
    """As superseding plans it: the order is only named by the cause."""
    exit_pending.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'x1'")
    exit_pending.executed("x7", "t1", "10")
    exit_pending.apply(exit_pending.plan())
    (backfill,) = exit_pending.backfill_rows()
    cause = {"exchange_order_id": "x7", "executed": "10"}
    plan = plan_of(ended(exit_pending, backfill["order_id"], handler=Handler.SUPERSEDE, cause=cause))
    assert correct(exit_pending, plan).postponed == {backfill["order_id"]: "still_needed"}

    exit_pending.record("x7", "t1", "SELL", "10", action="EXIT")

    assert correct(exit_pending, plan).applied == (backfill["order_id"],)
    assert exit_pending.history("t1")["exit_qty"] == 10


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        ("exit", "trade_changed"),
        ("entry", "trade_changed"),
        ("pending", "pending_order_blocker"),
        ("nothing", ""),
    ],
)
def test_a_synthetic_exit_needs_the_trade_as_it_was(book: Book, meanwhile: str, reason: str):
    book.trade("t1", "10")
    close = inserted("PARITY-1", "10", price="100", handler=Handler.SYNTHETIC_EXIT)
    if meanwhile == "exit":
        book.record("x1", "t1", "SELL", "3", action="EXIT")
    elif meanwhile == "entry":
        book.record("e2", "t1", "BUY", "3", action="ENTRY")
    elif meanwhile == "pending":
        book.record("x1", "t1", "SELL", "3", action="EXIT", status="accepted")

    result = correct(book, plan_of(close, stage=Stage.POSITION_PARITY))

    assert result.postponed == ({"PARITY-1": reason} if reason else {})
    assert result.applied == (() if reason else ("PARITY-1",))


def test_a_synthetic_exit_is_superseded_only_while_the_trade_is_over_exited(book: Book):
    book.trade("t1", "10")
    close = inserted("PARITY-1", "10", price="100", handler=Handler.SYNTHETIC_EXIT)
    assert correct(book, plan_of(close, stage=Stage.POSITION_PARITY, batch="C1")).ok
    alone = plan_of(ended(book, "PARITY-1", handler=Handler.SUPERSEDE), batch="C2")
    assert correct(book, alone).postponed == {"PARITY-1": "trade_changed"}

    both = plan_of(*alone.changes, inserted("x1", "10", price="104"), batch="C3")
    assert correct(book, both).applied == ("PARITY-1", "x1")
    history = book.history("t1")
    assert (history["exit_qty"], history["exit_price"], history["realized_pnl_usd"]) == (10, 104, 40)


# -- tables that can't hold it


def test_a_column_that_the_table_lacks_and_a_status_that_its_enumeration_lacks_are_postponed(book: Book):
    book.trade("t1", "10")
    book.record("x1", "t1", "SELL", "10", action="EXIT", status="pending_new")
    book.record("x2", "t1", "SELL", "4", action="EXIT", status="pending_new")
    book.run("ALTER TABLE orders DROP COLUMN sub_tag, DROP COLUMN filled_qty")
    book.run("DROP INDEX orders_live_idx")  # of text: as the deploy runbook says, it goes before the type does
    book.run("CREATE TYPE order_status AS ENUM ('pending_new', 'filled', 'canceled')")
    book.run("ALTER TABLE orders ALTER COLUMN status TYPE order_status USING status::order_status")
    migrate(book.url)
    partial = filled(book, "x1", "3", status="partially_filled")
    tag = ended(book, "x2", handler=Handler.SUB_TAG, values={"sub_tag": "bytelyst:p1:t1"})

    result = correct(book, plan_of(partial, tag, inserted("x3", "2")))

    assert result.postponed == {"x1": "unsupported_status", "x2": "unsupported_column"}
    assert result.applied == ("x3",)
    assert (book.order("x3")["qty"], book.position("t1")["qty"]) == (2, 8)


def test_without_filled_qty_a_partial_fill_is_what_qty_says(exit_pending: Book):
    exit_pending.run("ALTER TABLE orders DROP COLUMN filled_qty, DROP COLUMN quantity")
    migrate(exit_pending.url)
    partial = filled(exit_pending, "x1", "3", status="partially_filled")
    new = inserted(
        "x2", "5", status="partially_filled", values={"filled_qty": "1", "qty": "5"}, represents_e9=units("1")
    )

    assert correct(exit_pending, plan_of(partial, new)).applied == ("x1", "x2")

    assert (exit_pending.order("x1")["qty"], exit_pending.order("x2")["qty"]) == (3, 1)
    assert exit_pending.position("t1")["qty"] == 6


def test_quantities_that_contradict_each_other_are_left_to_a_person(exit_pending: Book):
    exit_pending.run("UPDATE orders SET quantity = 9 WHERE order_id = 'x1'")
    partial = filled(exit_pending, "x1", "3", status="partially_filled")
    assert correct(exit_pending, plan_of(partial)).postponed == {"x1": "conflicting_quantities"}
    assert correct(exit_pending, plan_of(filled(exit_pending, "x1", "9"))).applied == ("x1",)


def test_a_bots_table_with_a_column_of_its_own_gets_no_row_and_does_not_stop_the_correction(book: Book):
    book.record("e1", "t1", "BUY", "10", action="ENTRY", status="pending_new")
    book.run("ALTER TABLE positions ADD COLUMN leverage numeric NOT NULL")
    migrate(book.url)

    result = correct(book, plan_of(filled(book, "e1", "10", handler=Handler.ENTRY_FILL)))

    assert (result.state, result.books_updated) == (ApplyState.APPLIED, 2)
    assert book.rows("SELECT * FROM positions") == []
    assert book.history("t1")["entry_qty"] == 10


@pytest.fixture
def production(empty_database_url: str) -> Book:
    """Tables that the bots made, with a pending entry and nothing else."""
    book = production_book(empty_database_url)
    book.run(
        'INSERT INTO orders (order_id, user_id, profile_id, symbol, type, side, qty, status, "timestamp", trade_id, action)'
        " VALUES ('e1', %s, %s, 'AAPL', 'market', 'BUY', 10, 'pending_new', '2026-03-02T02:00:00Z', %s, 'ENTRY')",
        USER,
        P1,
        T1,
    )
    return book


def test_uuids_enumerations_floats_and_missing_columns_are_corrected(production: Book):
    entry = filled(
        production, "e1", "4.123456789", handler=Handler.ENTRY_FILL, price="100.25", profile_id=P1, trade_id=T1
    )
    leave = inserted("x1", "1.1", price="101.5", profile_id=P1, trade_id=T1, values={"user_id": USER})

    result = correct(production, plan_of(entry, leave, profile_id=P1, account_id="default"))

    assert (result.state, result.applied, result.detail) == (ApplyState.APPLIED, ("e1", "x1"), "")
    row = production.order("e1")
    assert (row["qty"], row["price"], row["status"]) == (Decimal("4.123456789"), 100.25, "filled")
    assert row["filled_at"] == dt.datetime(2026, 3, 2, 11, 30, 0, 250000)
    position = production.position(T1, P1)
    assert (position["qty"], position["avg_entry_price"]) == (Decimal("3.023456789"), Decimal("100.25"))
    assert production.history(T1, P1)["realized_pnl_usd"] == Decimal("1.375")


def test_a_column_that_rounds_what_is_written_refuses_the_whole(production: Book):
    production.run("ALTER TABLE orders ALTER COLUMN qty TYPE numeric(20, 4)")
    migrate(production.url)
    before = production.dump(EVERYTHING)
    entry = filled(production, "e1", "4.123456789", handler=Handler.ENTRY_FILL, profile_id=P1, trade_id=T1)

    result = correct(production, plan_of(entry, profile_id=P1, account_id="default"))

    assert (result.state, result.refused_reason) == (ApplyState.FAILED, "apply_failed")
    assert "orders.qty would store 4.1235 instead of 4.123456789" in result.detail
    assert production.dump(EVERYTHING) == before


@pytest.mark.parametrize("rewrite", ["NEW.price := NEW.price / 2", "NEW.qty := 1", "NEW.status := 'accepted'"])
def test_a_trigger_that_rewrites_what_is_written_refuses_the_whole(exit_pending: Book, rewrite: str):
    exit_pending.run(
        f"CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {rewrite}; RETURN NEW; END $$"
    )
    exit_pending.run("CREATE TRIGGER meddle BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION meddle()")
    before = exit_pending.dump(EVERYTHING)

    result = correct(exit_pending, plan_of(filled(exit_pending, "x1", "10")))

    assert (result.state, result.refused_reason) == (ApplyState.REFUSED, "not_written_exactly")
    assert exit_pending.dump(EVERYTHING) == before
    (event,) = exit_pending.events()
    assert (event["type"], event["severity"]) == ("apply_failed", "WARN")


# -- idempotence and the caller's mistakes


def test_the_same_plan_again_writes_nothing_and_says_what_it_wrote(exit_pending: Book):
    plan = plan_of(filled(exit_pending, "x1", "10"), inserted("x2", "1"), executed={"x1": "10", "x2": "1"})
    first = correct(exit_pending, plan)
    before = exit_pending.dump(EVERYTHING)

    again = correct(exit_pending, plan)
    other_batch = correct(exit_pending, dataclasses.replace(plan, batch_id="C2"))

    assert (again.state, again.applied, again.books_updated) == (first.state, first.applied, first.books_updated)
    assert again.detail == "the batch had been applied already"
    assert (other_batch.applied, other_batch.postponed) == ((), {"x1": "row_changed", "x2": "already_exists"})
    assert exit_pending.dump(EVERYTHING) == before


def test_a_plan_without_changes_asks_the_database_nothing(exit_pending: Book):
    result = apply_corrections("postgresql://nobody@127.0.0.1:1/none", plan_of(), run_id="r", now=NOW)
    assert (result.state, result.ok, result.batch_id) == (ApplyState.NOTHING_TO_APPLY, True, "C1")


def test_a_batch_id_is_not_given_to_another_plan(exit_pending: Book):
    correct(exit_pending, plan_of(filled(exit_pending, "x1", "10")))
    with pytest.raises(ValueError, match="belongs to another plan"):
        correct(exit_pending, plan_of(inserted("x2", "1")))


def test_quantity_without_an_order_to_cite_is_a_mistake(exit_pending: Book):
    change = filled(exit_pending, "x1", "10")
    uncited = dataclasses.replace(change, exchange_order_id="", represents_e9=0)
    with pytest.raises(ValueError, match="cites no order"):
        correct(exit_pending, plan_of(uncited))
    understated = dataclasses.replace(change, represents_e9=units("9"))
    with pytest.raises(ValueError, match="the change says"):
        correct(exit_pending, plan_of(understated))
    unsaid = dataclasses.replace(plan_of(change), executed_e9={})
    with pytest.raises(ValueError, match="doesn't say what x1 executed"):
        correct(exit_pending, unsaid)


def test_a_ledger_row_is_never_reduced(exit_pending: Book):
    exit_pending.record("x2", "t1", "SELL", "4", action="EXIT")
    less = filled(exit_pending, "x2", "3")
    with pytest.raises(ValueError, match="would lose executed quantity"):
        correct(exit_pending, plan_of(less))
    with pytest.raises(ValueError, match="would lose executed quantity"):
        correct(exit_pending, plan_of(ended(exit_pending, "x2")))


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (plan_of(inserted("x2", "1"), batch=""), "no batch id"),
        (plan_of(inserted("x2", "1", profile_id="p2")), "changes rows of p2"),
        (plan_of(inserted("x2", "1"), inserted("x2", "1")), "a row twice"),
        (plan_of(inserted("x2", "1", values={"trade_id": "t2"})), "has trade_id 't2'"),
    ],
)
def test_a_plan_that_is_none_is_a_mistake(exit_pending: Book, plan: CorrectionPlan, says: str):
    with pytest.raises(ValueError, match=says):
        correct(exit_pending, plan)


# -- lease, locks, at once


def test_without_the_lease_nothing_is_written(exit_pending: Book):
    plan = plan_of(filled(exit_pending, "x1", "10"))
    with connect(exit_pending.url, WRITER) as connection:
        lost = acquire_leases(connection, ["p1"], owner="slow", ttl_seconds=0)["p1"]
        acquire_leases(connection, ["p1"], owner="other", ttl_seconds=60)
    before = exit_pending.dump(EVERYTHING)

    for arguments in ({"lease": lost}, {}):
        result = correct(exit_pending, plan, **arguments)
        assert (result.state, result.refused_reason) == (ApplyState.REFUSED, "lease_lost")
    assert exit_pending.dump(EVERYTHING) == before
    # Two refusals for one reason, one event: it is throttled.
    assert [event["severity"] for event in exit_pending.events()] == ["WARN"]


def test_a_paused_or_running_profile_is_corrected_alike(exit_pending: Book):
    exit_pending.run("UPDATE trading_control SET state = 'RUNNING'")
    assert correct(exit_pending, plan_of(filled(exit_pending, "x1", "10"))).applied == ("x1",)


def test_a_row_that_its_bot_inserts_in_the_last_moment_is_found(exit_pending: Book):
    """Between the look and the insert: everything is judged again."""
    plan = plan_of(inserted("x2", "10"), filled(exit_pending, "x1", "4"))
    bot = at_point("rows_compared", lambda: exit_pending.record("x2", "t1", "SELL", "10", action="EXIT"))

    result = correct(exit_pending, plan, at=bot)

    assert (result.applied, result.postponed) == (("x1",), {"x2": "already_exists"})
    assert corrections(exit_pending)[0]["row_key"] == {"order_id": "x1"}


def test_an_order_that_its_bot_records_under_another_id_in_the_last_moment_is_found(exit_pending: Book):
    plan = plan_of(inserted("x2", "10"), clients={"x2": "my-x2"})
    bot = at_point("rows_compared", lambda: exit_pending.record("my-x2", "t1", "SELL", "10", action="EXIT"))
    result = correct(exit_pending, plan, at=bot)
    assert (result.applied, result.postponed) == ((), {"x2": "already_exists"})
    assert exit_pending.rows("SELECT * FROM orders WHERE order_id = 'x2'") == []


def test_a_book_that_its_bot_opens_in_the_last_moment_is_brought_in_line(book: Book):
    book.record("e1", "t1", "BUY", "10", action="ENTRY", status="pending_new")
    insert = (
        "INSERT INTO positions (profile_id, trade_id, symbol, side, qty, status)"
        " VALUES ('p1', 't1', 'AAPL', 'BUY', 9, 'open')"
    )
    lock = threading.Event()
    done = threading.Event()

    def bot() -> None:
        with psycopg.connect(book.url) as connection:
            connection.execute(insert.encode())
            lock.set()
            # Commits once the correction waits for this row, at the latest after two seconds.
            done.wait(timeout=2)

    thread = threading.Thread(target=bot)

    def begin() -> None:
        thread.start()
        assert lock.wait(timeout=10)
        threading.Timer(0.2, done.set).start()

    result = correct(
        book,
        plan_of(filled(book, "e1", "10", handler=Handler.ENTRY_FILL)),
        at=at_point("consumption_recorded", begin),
    )
    thread.join(timeout=10)

    assert result.state is ApplyState.APPLIED
    assert book.position("t1")["qty"] == 10


def test_a_row_that_somebody_keeps_locked_is_busy_and_says_so(exit_pending: Book, monkeypatch: pytest.MonkeyPatch):
    plan = plan_of(filled(exit_pending, "x1", "10"))
    monkeypatch.setattr(
        "recon_pipeline.apply.corrections.connect", lambda *a, **k: connect(*a, **k | {"lock_timeout_ms": 100})
    )
    with psycopg.connect(exit_pending.url) as bot:
        bot.execute(b"UPDATE orders SET status = 'accepted' WHERE order_id = 'x1'")
        result = correct(exit_pending, plan)
        assert (result.state, result.refused_reason) == (ApplyState.FAILED, "busy")
    assert [event["severity"] for event in exit_pending.events()] == ["ERROR"]
    assert correct(exit_pending, plan).postponed == {"x1": "row_changed"}


def together(
    book: Book, plans: list[CorrectionPlan], *, at: str = "gates_held", **more: object
) -> list[CorrectionResult]:
    """Apply the plans in threads that meet at a fault point, as far as each gets there."""
    barrier = threading.Barrier(len(plans))
    results: dict[int, CorrectionResult] = {}

    def meet(point: str) -> None:
        if point == at:
            # Where the other one waits behind a lock, nobody comes: also a meeting.
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=1)

    def work(index: int) -> None:
        results[index] = correct(book, plans[index], at=meet, owner=f"w{index}", **more)

    threads = [threading.Thread(target=work, args=[index]) for index in range(len(plans))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return [results[index] for index in range(len(plans))]


def test_two_schedulers_under_one_lease_correct_once(exit_pending: Book):
    changes = (filled(exit_pending, "x1", "4"), inserted("x2", "6"))
    with connect(exit_pending.url, WRITER) as connection:
        lease = acquire_leases(connection, ["p1"], owner="worker", ttl_seconds=60)["p1"]

    results = together(exit_pending, [plan_of(*changes, batch="C1"), plan_of(*changes, batch="C2")], lease=lease)

    assert sorted(len(result.applied) for result in results) == [0, 2]
    assert exit_pending.history("t1")["exit_qty"] == 10
    assert exit_pending.rows("SELECT count(*) AS n FROM recon.corrections WHERE table_name = 'orders'")[0]["n"] == 2
    assert exit_pending.rows("SELECT count(*) AS n FROM recon.batches")[0]["n"] == 1


def test_two_profiles_that_want_the_same_executed_quantity_do_not_both_get_it(exit_pending: Book):
    exit_pending.profile("p2")
    exit_pending.trade("t2", "10", profile_id="p2")
    exit_pending.record("my-x2", "t2", "SELL", "10", action="EXIT", status="pending_new", profile_id="p2")
    first = plan_of(inserted("X", "10"), clients={"X": "my-x2"}, batch="C1")
    second = plan_of(
        filled(exit_pending, "my-x2", "10", exchange_id="X", trade_id="t2", profile_id="p2"),
        clients={"X": "my-x2"},
        batch="C2",
        profile_id="p2",
    )
    # p2's row is pending under the client id: p1 must not insert the order at all.
    results = together(exit_pending, [first, second])
    assert [len(result.applied) for result in results] == [0, 1]


def test_two_rows_of_two_profiles_that_name_one_order_share_no_more_than_it_executed(exit_pending: Book):
    """Each sees the other's row pending until the other commits: only the account's lock keeps them apart."""
    exit_pending.profile("p2")
    exit_pending.trade("t2", "10", profile_id="p2")
    exit_pending.record("my-x1", "t2", "SELL", "10", action="EXIT", status="pending_new", profile_id="p2")
    first = plan_of(filled(exit_pending, "x1", "10"), clients={"x1": "my-x1"}, batch="C1")
    second = plan_of(
        filled(exit_pending, "my-x1", "10", exchange_id="x1", trade_id="t2", profile_id="p2"),
        clients={"x1": "my-x1"},
        batch="C2",
        profile_id="p2",
    )

    results = together(exit_pending, [first, second], at="rows_compared")

    assert sorted(len(result.applied) for result in results) == [0, 1]
    assert [set(result.postponed.values()) for result in results if result.postponed] == [{"evidence_already_consumed"}]


def test_an_update_changes_a_row_only_as_its_image_says(exit_pending: Book):
    """The statement itself, which needs no lock to be safe."""
    (image,) = exit_pending.rows("SELECT to_jsonb(o)::text AS text FROM orders AS o WHERE order_id = 'x1'")
    records = [{"order_id": "x1", "before": image["text"], "values": {"status": "canceled"}}]
    with connect(exit_pending.url, WRITER) as connection:
        exit_pending.run("UPDATE orders SET type = 'limit' WHERE order_id = 'x1'")
        assert connection.execute(statement("update_orders"), {"records": as_parameter(records)}).fetchall() == []
        exit_pending.run("UPDATE orders SET type = 'market' WHERE order_id = 'x1'")
        rows = connection.execute(statement("update_orders"), {"records": as_parameter(records)}).fetchall()
    assert (rows, exit_pending.order("x1")["status"]) == ([{"order_id": "x1"}], "canceled")


def test_an_exit_backfill_and_a_correction_of_the_same_order_at_once_book_it_once(exit_pending: Book):
    exit_pending.run("UPDATE orders SET status = 'canceled' WHERE order_id = 'x1'")
    exit_pending.executed("x7", "t1", "10")
    backfill = exit_pending.plan()
    plan = plan_of(inserted("x7", "10"), stage=Stage.ORDER_COVERAGE)
    with connect(exit_pending.url, WRITER) as connection:
        lease = acquire_leases(connection, ["p1"], owner="worker", ttl_seconds=60)["p1"]
    inner: list[object] = []
    worker = threading.Thread(target=lambda: inner.append(exit_pending.apply(backfill, lease=lease)))

    result = correct(exit_pending, plan, lease=lease, at=at_point("rows_written", worker.start))
    worker.join(timeout=60)

    assert result.applied == ("x7",)
    assert [getattr(answer, "refused_reason", "") for answer in inner] == ["ledger_changed"]
    assert exit_pending.history("t1")["exit_qty"] == 10


def test_a_batch_of_corrections_is_not_rolled_back(exit_pending: Book):
    correct(exit_pending, plan_of(filled(exit_pending, "x1", "10")))
    before = exit_pending.dump()
    result = rollback_batch(exit_pending.url, "C1", run_id="r", now=NOW)
    assert (result.state, result.refused_reason) == (RollbackState.REFUSED, "not_a_backfill")
    assert exit_pending.dump() == before
