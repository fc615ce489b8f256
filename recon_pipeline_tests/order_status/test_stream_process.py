"""Streams that are killed at any moment lose nothing and write nothing twice; `recon stream` as the operator runs it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from click.testing import CliRunner, Result

from recon_pipeline.cli.stream import stream
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline_tests.adapters.apply.book import at_point
from recon_pipeline_tests.adapters.exchange.test_order_stream import wait_until
from recon_pipeline_tests.adapters.exchange.world import world
from recon_pipeline_tests.order_status.stream_scene import StreamScene
from recon_pipeline_tests.order_status.test_account_stream import listens, running

POINTS = ("events_read", "planned", "gates_held", "rows_written", "batch_applied", "committed_corrections", "written")
"""Of handling an event and of writing it; behind ``batch_applied`` everything is committed."""


@pytest.fixture
def stage(database_url: str) -> Iterator[StreamScene]:
    with world("A1") as exchange:
        exchange.sim.book.set_price("AAPL", Decimal(100))
        made = StreamScene(database_url, exchange)
        made.profile()
        yield made
        made.ledger.close()


def killed_while_it_handles(stage: StreamScene, point: str) -> None:
    def handle() -> None:
        stage.ledger = PostgresLedger(stage.database_url)  # connections are nothing to share with a parent
        stage.settle(stage.writer(at=at_point(point, lambda: os.kill(os.getpid(), signal.SIGKILL))))

    worker = multiprocessing.get_context("fork").Process(target=handle)
    worker.start()
    worker.join(timeout=60)
    assert worker.exitcode == -signal.SIGKILL, f"the process did not reach {point}"


def test_kill_9_between_an_event_and_its_write_loses_nothing_and_writes_nothing_twice(stage: StreamScene):
    keys = {}
    for number, point in enumerate(POINTS):
        trade = f"t{number}"
        order = stage.place(trade)
        keys[point] = stage.record(order, trade)
        stage.told(*stage.frames)
        killed_while_it_handles(stage, point)
        done = point in {"committed_corrections", "written"}
        assert stage.says(keys[point])[0] == ("filled" if done else "pending_new"), point
        last = stage.outcomes()[-1]
        assert last == ("written" if done else "waiting"), f"{point}: the outcome is there with what was written"

        stage.sql("UPDATE recon.leases SET expires_at = now() - interval '1 second'")
        assert stage.settle() == 0
        assert stage.says(keys[point]) == ("filled", 10, 100)
        assert stage.outcomes()[-2:] == ["written", "written"], point
    assert [row["row_key"]["order_id"] for row in stage.corrections()] == list(keys.values())
    positions = stage.sql("SELECT trade_id FROM positions ORDER BY trade_id")
    assert [row["trade_id"] for row in positions] == [f"t{number}" for number in range(len(POINTS))]


def environment(stage: StreamScene) -> dict[str, str]:
    return {
        "RECON_DATABASE_URL": stage.database_url,
        "RECON_ACCOUNT_A1_KEY_ID": "PKA1",
        "RECON_ACCOUNT_A1_SECRET_KEY": "secret-of-A1",
        "RECON_ACCOUNT_A1_BASE_URL": stage.world.sim.url,
        "RECON_ORDER_STATUS_DRY_RUN": "false",
    }


def test_recon_stream_writes_a_fill_says_what_it_does_and_ends_with_sigterm(stage: StreamScene):
    process = subprocess.Popen(
        [sys.executable, "-m", "recon_pipeline.cli", "stream"],
        env={**os.environ, **environment(stage)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        state = "SELECT state FROM recon.order_streams WHERE account_id = 'A1'"
        wait_until(lambda: [row["state"] for row in stage.sql(state)] == ["listening"], 40)
        order = stage.limit()
        key = stage.record(order)
        stage.execute(order, "10")
        wait_until(lambda: stage.says(key) == ("filled", 10, 100))
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert said.startswith("listening to A1\n")
    assert said.endswith("stopped\n")
    assert "secret-of-A1" not in said
    assert [row["state"] for row in stage.sql(state)] == ["stopped"]


@pytest.fixture
def recon_stream(stage: StreamScene, monkeypatch) -> Iterator[Callable[..., Result]]:
    """The command in this process, which gets its own signal handlers back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    for name, value in environment(stage).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, **settings: str) -> Result:
        return CliRunner().invoke(stream, arguments, env=settings, catch_exceptions=False)

    yield run
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("arguments", "settings", "says"),
    [
        ((), {"RECON_ACCOUNT_A1_KEY_ID": "", "RECON_ACCOUNT_A1_SECRET_KEY": ""}, "account 'A1' has no keys"),
        (("--account", "A7"), {}, "no enabled profile has account A7; there are: A1"),
        ((), {"ENABLE_RECON_ORDER_STATUS_SYNC": "false"}, "ENABLE_RECON_ORDER_STATUS_SYNC is false"),
        ((), {"RECON_DATABASE_URL": "postgresql://u:hidden@127.0.0.1:9/x"}, "can't connect to database x"),
    ],
)
def test_recon_stream_says_why_it_can_t_listen(recon_stream, arguments, settings, says):
    done = recon_stream(*arguments, **settings)
    assert done.exit_code == 1
    assert says in done.output
    assert "hidden" not in done.output


def test_a_second_recon_stream_for_an_account_ends_with_status_1(stage: StreamScene, recon_stream):
    with running(stage.listen()):
        listens(stage)
        done = recon_stream("--account", "A1")
        assert done.exit_code == 1
        assert "account A1: another process listens to account A1" in done.output
        assert listens(stage) is None, "the first one goes on"


def test_a_dry_run_is_announced(stage: StreamScene, recon_stream):
    with running(stage.listen()):
        listens(stage)
        assert "dry run: " in recon_stream(RECON_ORDER_STATUS_DRY_RUN="true").output
        assert "dry run: " not in recon_stream().output
