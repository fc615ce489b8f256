"""The demo book: its truth agrees with what ledger and exchange say, and the verdict notices every wrong write."""

import contextlib
import dataclasses
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
import requests
from click.testing import CliRunner

from recon_pipeline.apply import apply_plan, record_plan, set_trading_state
from recon_pipeline.cli import main
from recon_pipeline.engine import plan_shard, read_shard
from recon_pipeline.exchange.reader import AlpacaReader
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.sandbox.demo_book import DemoBook
from recon_pipeline.sandbox.demo_load import credentials
from recon_pipeline.sandbox.demo_trades import demo_book
from recon_pipeline.sandbox.demo_verify import Picture, judge
from recon_pipeline.sandbox.postgres import EmbeddedPostgres
from recon_pipeline.sandbox.stage import SandboxError, Stage, running_stage
from recon_pipeline.settings import read_settings

KINDS = {
    "missed exit",
    "several partial exits",
    "canceled after a partial fill",
    "through a replaced order",
    "crypto fee remainder",
    "dust",
    "pending blocker",
    "position still open",
    "foreign tag",
    "contradictory hints",
    "two equal quantities",
    "fill larger than the trade",
    "older than the look-back",
    "previously reverted batch",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def stage(home: Path) -> Iterator[Stage]:
    with running_stage(home, "demo", fresh=True) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def gone_afterwards(home: Path) -> Iterator[None]:
    yield
    EmbeddedPostgres(home / "postgres").delete()


def book_of(prefix: str = "demo") -> DemoBook:
    return demo_book(prefix, datetime(2026, 11, 20, 12, tzinfo=UTC))


def run_exit_backfill(stage: Stage) -> None:
    """Read, plan, record and apply as the jobs do, on real parts."""
    book, url = stage.books["demo"], stage.database_url
    policy = read_settings(stage.environment()).exit_backfill
    now = datetime.now(UTC)
    set_trading_state(url, "all", "PAUSED", "test", "exit backfill", now)
    reader = AlpacaReader([credentials(name, stage.exchange.url) for name in book.account_ids], EvidenceStore(url))
    with PostgresLedger(url) as ledger:
        reading = read_shard(
            [profile.profile_id for profile in book.profiles],
            ledger=ledger,
            exchange=reader,
            policy=policy,
            now_ms=int(now.timestamp() * 1000),
            new_batch_id=lambda: f"RECON-BFILL-{uuid.uuid4()}",
        )
    planned = plan_shard(reading, policy)
    assert planned.failures == {}
    for plan in planned.plans.values():
        record_plan(url, plan, run_id="dry-run")
        if not plan.proposals.empty:
            apply_plan(url, plan, run_id="apply", now=now, owner="test", expected_digest=plan.digest)


def change(stage: Stage, statement: str) -> None:
    with psycopg.connect(stage.database_url) as connection:
        assert connection.execute(statement).rowcount == 1


def test_every_kind_of_trade_is_in_the_book_on_three_accounts_and_twelve_profiles() -> None:
    book = book_of()
    stories = " / ".join(truth.story for truth in book.truths)
    assert sorted(kind for kind in KINDS if kind not in stories) == []
    assert len(book.account_ids) == 3
    assert len(book.profiles) >= 12
    assert {"/" in truth.symbol for truth in book.truths} == {True, False}
    assert {truth.entry_side for truth in book.truths} == {"buy", "sell"}


def test_what_has_to_be_written_never_exceeds_what_is_open_or_what_was_executed() -> None:
    book = book_of()
    executed = {told.order.order_id: sum((f.qty for f in told.order.fills), Decimal(0)) for told in book.exchange}
    for truth in book.truths:
        assert sum(truth.writes.values(), Decimal(0)) <= truth.open_qty, truth.story
        for order_id, qty in truth.writes.items():
            assert order_id.startswith("DUST-REMAINDER-") or qty <= executed[order_id], truth.story
        if truth.is_ghost:
            assert sum(truth.writes.values(), Decimal(0)) == truth.open_qty, truth.story


def test_the_same_anchor_gives_the_same_book_and_another_prefix_shares_no_name_with_it() -> None:
    assert book_of() == book_of()
    one, two = book_of("demo"), book_of("dev")
    for names in (
        lambda book: {profile.profile_id for profile in book.profiles},
        lambda book: set(book.account_ids),
        lambda book: {row.order_id for row in book.ledger},
        lambda book: {told.order.client_order_id for told in book.exchange},
    ):
        assert names(one) & names(two) == set()


def test_the_exchange_holds_exactly_what_the_stories_say(stage: Stage) -> None:
    held = {}
    for account_id in stage.books["demo"].account_ids:
        keys = credentials(account_id, stage.exchange.url)
        headers = {"APCA-API-KEY-ID": keys.key_id, "APCA-API-SECRET-KEY": keys.secret_key}
        answer = requests.get(f"{stage.exchange.url}/v2/positions", headers=headers, timeout=10).json()
        held[account_id] = {row["symbol"]: Decimal(row["qty"]) for row in answer}
    assert held == {
        "demo-crypto": {},
        "demo-equity": {"F": Decimal("0.0005")},
        "demo-mixed": {"AMD": Decimal(15)},
    }


def test_the_pipeline_closes_every_ghost_and_leaves_the_rest_with_its_reason(stage: Stage) -> None:
    book = stage.books["demo"]
    before = Picture.of(stage.database_url, book)
    nothing_done = judge(stage.database_url, book, before)
    assert (len(nothing_done.closed), len(nothing_done.ghosts), nothing_done.is_true) == (0, 8, False)
    run_exit_backfill(stage)
    verdict = judge(stage.database_url, book, before)
    assert verdict.wrong_writes == []
    assert [(trade.truth.story, trade.problems) for trade in verdict.trades if trade.problems] == []
    assert len(verdict.closed) == len(verdict.ghosts) == 8
    assert {trade.truth.trade_id: trade.reason for trade in verdict.left} == {
        "sol-301": "missing_fill_evidence_for_large_remainder",
        "sol-302": "missing_fill_evidence_for_large_remainder",
        "ltc-401": "missing_fill_evidence_for_large_remainder",
        "avax-501": "missing_fill_evidence_for_large_remainder",
        "nvda-1001": "pending_order_blocker",
        "amd-1101": "exchange_not_flat:15",
        "meta-1201": "missing_fill_evidence_for_large_remainder",
        "amzn-1501": "previously_reverted",
    }
    assert verdict.is_true


BOGUS = (
    "INSERT INTO orders (order_id, profile_id, trade_id, symbol, side, action, qty, price, status) "
    "VALUES ('{}', 'demo-amd-hold', 'amd-1101', 'AMD', 'sell', 'EXIT', 15, 230, 'filled')"
)


@pytest.mark.parametrize(
    ("wrong", "noticed"),
    [
        ("UPDATE orders SET qty = qty + 1 WHERE trade_id = 'aapl-601'", "was changed"),
        ("DELETE FROM orders WHERE trade_id = 'aapl-601'", "was removed"),
        (
            BOGUS.format("BFILL-x"),
            "no evidence for this trade",
        ),
        (
            BOGUS.format("other"),
            "no backfill row",
        ),
    ],
)
def test_a_wrong_write_is_noticed(stage: Stage, wrong: str, noticed: str) -> None:
    book = stage.books["demo"]
    before = Picture.of(stage.database_url, book)
    change(stage, wrong)
    verdict = judge(stage.database_url, book, before)
    assert [noticed in text for text in verdict.wrong_writes] == [True]
    assert not verdict.is_true


def test_a_second_start_goes_on_with_the_same_book_and_ledger(home: Path) -> None:
    with running_stage(home, "demo", fresh=True) as first:
        anchor, orders = first.books["demo"].anchor, Picture.of(first.database_url, first.books["demo"]).orders
        port = first.exchange.port
    with running_stage(home, "demo") as second:
        assert second.books["demo"].anchor == anchor
        assert Picture.of(second.database_url, second.books["demo"]).orders == orders
        assert second.exchange.port == port
        assert len(second.exchange.book.accounts()) == 3


def test_a_book_that_was_loaded_halfway_is_completed(home: Path) -> None:
    with running_stage(home, "demo", fresh=True) as first:
        expected = {account.number: account.holdings() for account in first.exchange.book.accounts()}
    (home / "exchange.json").unlink()  # as if killed before the exchange was told
    with running_stage(home, "demo") as second:
        assert {account.number: account.holdings() for account in second.exchange.book.accounts()} == expected


def test_a_home_in_use_is_refused_with_the_way_out(stage: Stage) -> None:
    with pytest.raises(SandboxError, match=r"is in use by process \d+.*--home"), running_stage(stage.home, "demo"):
        pass


def test_the_environment_file_is_private_and_complete(stage: Stage) -> None:
    file = stage.home / "env"
    assert file.stat().st_mode & 0o777 == 0o600
    names = {line.removeprefix("export ").partition("=")[0] for line in file.read_text().splitlines()}
    assert names == set(stage.environment())
    settings = read_settings(stage.environment())
    assert settings.account("demo-crypto").base_url == stage.exchange.url
    assert settings.exit_backfill.enabled
    assert settings.exit_backfill_dry_run
    assert settings.require_review


def test_nothing_of_a_production_gets_into_the_sandbox(stage: Stage) -> None:
    production = {
        "PATH": "/bin",
        "RECON_DATABASE_URL": "postgresql://production/bots",
        "RECON_ACCOUNT_MAIN_SECRET_KEY": "secret",
        "APCA_API_SECRET_KEY": "secret",
        "DAGSTER_HOME": "/production",
        "RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH": "true",
    }
    trying = stage.process_environment(production, rules=True)
    assert trying == {**stage.environment(), "PATH": "/bin", "RECON_EXIT_BACKFILL_ALLOW_HEURISTIC_MATCH": "true"}
    assert stage.process_environment(production, rules=False) == {**stage.environment(), "PATH": "/bin"}


def demo(home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recon_pipeline.cli", "demo", "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "RECON_EXIT_BACKFILL_PROFILE_ALLOWLIST": "somebody-else"},
    )


def test_recon_demo_closes_every_ghost_by_real_runs_that_the_instance_keeps(home: Path) -> None:
    done = demo(home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^(ghosts closed .*|wrong writes .*|left for a person \d+)$", done.stdout, re.MULTILINE) == [
        "ghosts closed 8 of 8",
        "wrong writes 0",
        "left for a person 8",
    ]
    assert "amzn-1501: previously reverted batch: an operator took it back (previously_reverted)" in done.stdout
    server = EmbeddedPostgres(home / "postgres")
    with psycopg.connect(server.start("dagster")) as connection:
        runs = connection.execute(
            "SELECT pipeline_name, status, count(*) FROM runs GROUP BY 1, 2 ORDER BY 1"
        ).fetchall()
    server.stop()
    assert runs == [
        ("exit_backfill_apply", "SUCCESS", 8),
        ("exit_backfill_dry_run", "SUCCESS", 1),
        ("pause_trading", "SUCCESS", 1),
    ]


class WithoutDagster:
    """Does what the jobs do, without them: the command's verdict and its exit status do not depend on how rows came about."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def launch_all(self, *_: object) -> None:
        run_exit_backfill(self._stage)


def test_recon_demo_fails_if_what_was_written_is_not_the_truth(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def another(prefix: str, anchor: datetime) -> DemoBook:
        book = demo_book(prefix, anchor)
        place, truth = next((n, t) for n, t in enumerate(book.truths) if t.trade_id == "aapl-601")
        book.truths[place] = dataclasses.replace(truth, writes={order: Decimal(9) for order in truth.writes})
        return book

    monkeypatch.setattr("recon_pipeline.sandbox.stage.demo_book", another)
    monkeypatch.setattr("recon_pipeline.cli.demo._dagster", lambda stage: contextlib.nullcontext(WithoutDagster(stage)))
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(main, ["demo", "--home", str(home)])
    assert done.exit_code == 1, done.output
    assert "quantity 10, 9 is true" in done.output
    assert "ghosts closed 7 of 8" in done.output
    assert "wrong writes 1" in done.output
