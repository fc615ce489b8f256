"""A stream over its real connection: what is heard is written, what was missed is asked for, one process listens."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.order_events import try_listening
from recon_pipeline.order_status.account_stream import AccountStream
from recon_pipeline.order_status.stream_keeper import AlreadyListeningError, StreamPace
from recon_pipeline_tests.adapters.exchange.test_order_stream import wait_until
from recon_pipeline_tests.adapters.exchange.world import world
from recon_pipeline_tests.order_status.stream_scene import StreamScene


@pytest.fixture
def stage(database_url: str) -> Iterator[StreamScene]:
    with world("A1", "A2") as exchange:
        exchange.sim.book.set_price("AAPL", Decimal(100))
        made = StreamScene(database_url, exchange)
        made.profile()
        yield made
        made.ledger.close()


@contextmanager
def running(stream: AccountStream) -> Iterator[list[BaseException]]:
    """The stream in a thread of its own; what it ended with."""
    ended: list[BaseException] = []

    def run() -> None:
        try:
            stream.run()
        except BaseException as error:  # noqa: BLE001
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        stream.stop()
        thread.join(15)
        assert not thread.is_alive()


def state(stage: StreamScene) -> dict[str, Any]:
    rows = stage.sql("SELECT * FROM recon.order_streams WHERE account_id = 'A1'")
    return rows[0] if rows else {"state": "", "connections": 0}


def listens(stage: StreamScene, connections: int = 1) -> None:
    wait_until(lambda: (state(stage)["state"], state(stage)["connections"]) == ("listening", connections))


def caught_up(stage: StreamScene, stream: AccountStream) -> None:
    """It listens, and has asked for what it had missed."""
    listens(stage)
    wait_until(lambda: not stream._missed._attempts_left)


def test_a_fill_is_in_the_ledger_a_moment_after_it_happened(stage: StreamScene):
    stream = stage.listen()
    with running(stream) as ended:
        caught_up(stage, stream)
        order = stage.limit()
        key = stage.record(order)
        stage.execute(order, "10")
        wait_until(lambda: stage.says(key) == ("filled", 10, 100))
        wait_until(lambda: stage.outcomes()[1:] == ["written"])
        wait_until(lambda: state(stage)["last_event_at"] is not None)
    assert ended == []
    assert (state(stage)["state"], state(stage)["error"]) == ("stopped", "")


def test_an_exchange_that_says_everything_three_times_is_believed_once(stage: StreamScene):
    stage.world.sim.stream.copies = 3
    with running(stage.listen()):
        listens(stage)
        key = stage.record(stage.place())
        wait_until(lambda: stage.says(key)[0] == "filled")
        stage.world.sim.stream.replay(stage.world.sim.book.account("A1").id, 2)
    assert len(stage.outcomes()) == 2
    assert len(stage.corrections()) == 1


def test_what_happened_while_nobody_listened_is_asked_for(stage: StreamScene):
    filled, live = stage.place("t1"), stage.limit("t2")
    keys = stage.record(filled, "t1"), stage.record(live, "t2")
    with running(stage.listen()):
        wait_until(lambda: stage.says(keys[0]) == ("filled", 10, 100))
    assert stage.outcomes() == [], "nothing of it was told"
    assert stage.says(keys[1])[0] == "pending_new"


def test_a_cut_connection_misses_nothing(stage: StreamScene):
    order = stage.limit()
    key = stage.record(order)
    with running(stage.listen()):
        listens(stage)
        stage.world.sim.stream.disconnect()
        stage.execute(order, "10")
        wait_until(lambda: stage.says(key)[0] == "filled")
        listens(stage, connections=2)


def test_a_frame_that_can_t_be_read_makes_it_ask(stage: StreamScene):
    stream = stage.listen()
    with running(stream):
        caught_up(stage, stream)
        key = stage.record(stage.place())
        wait_until(lambda: stage.says(key)[0] == "filled")
        stage.sql("UPDATE orders SET status = 'pending_new', filled_qty = NULL")
        stream.hear_noise("a frame that is no JSON")
        wait_until(lambda: stage.says(key)[0] == "filled")


def test_while_the_database_is_away_what_is_heard_is_kept(stage: StreamScene):
    name = psycopg.conninfo.conninfo_to_dict(stage.database_url)["dbname"]
    order = stage.limit()
    key = stage.record(order)
    elsewhere = stage.database_url.replace(f"/{name}?", "/postgres?")
    with running(stage.listen()) as ended, psycopg.connect(elsewhere, autocommit=True) as admin:
        listens(stage)
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false'.encode())
        admin.execute(b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        for _ in range(3):
            stage.execute(order, "3")
        admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true'.encode())
        stage.ledger.close()
        wait_until(lambda: stage.says(key)[:2] == ("partially_filled", 9))
        wait_until(lambda: len(stage.outcomes()) == 3)
        wait_until(lambda: "waiting" not in stage.outcomes())
        wait_until(lambda: state(stage)["state"] == "listening")
    assert ended == []


def test_a_second_process_is_refused_while_the_first_one_lives_and_may_listen_after_it(stage: StreamScene):
    with running(stage.listen()):
        listens(stage)
        with pytest.raises(AlreadyListeningError, match="another process listens to account A1"):
            stage.listen().run()
        assert state(stage)["state"] == "listening"
    with running(stage.listen()) as ended:
        listens(stage, connections=2)
    assert ended == []


def test_a_holder_that_says_nothing_any_more_is_passed_over(stage: StreamScene):
    with connect(stage.database_url, READER) as hung:
        assert try_listening(hung, "A1")
        with running(stage.listen(pace=StreamPace(heartbeat_seconds=0.1, again_seconds=0.02))) as ended:
            listens(stage)
    assert ended == []


def test_refused_keys_are_seen_by_whoever_looks(stage: StreamScene):
    stage.world.sim.book.account("A1").settings.revoked = True
    with running(stage.listen()):
        wait_until(lambda: state(stage)["state"] == "down")
        assert state(stage)["error"] == "the exchange refused the keys"


def test_a_defect_ends_the_stream_and_is_noted(stage: StreamScene, monkeypatch):
    def broken(*_: Any) -> int:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("recon_pipeline.order_status.streaming.StreamWriter.settle", broken)
    with running(stage.listen()) as ended:
        wait_until(lambda: ended)
    assert [type(error) for error in ended] == [ZeroDivisionError]
    assert (state(stage)["state"], state(stage)["error"]) == ("down", "the process ended: ZeroDivisionError: a defect")
