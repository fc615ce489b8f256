"""A world to run the real assets in: a real Postgres, the simulated exchange over HTTP, the demo book, a Dagster instance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from recon_pipeline.apply import set_trading_state
from recon_pipeline.definitions import build_definitions
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.resources import Outside
from recon_pipeline.ledger.database import connect
from recon_pipeline.sandbox.demo_book import DemoBook
from recon_pipeline.sandbox.demo_load import credentials, load_exchange, load_ledger
from recon_pipeline.sandbox.demo_trades import demo_book
from recon_pipeline.sandbox.exchange import SimulatedExchange, running_exchange

PREFIX = "t"


@dataclasses.dataclass
class World:
    """Everything a run needs, and what it left."""

    database_url: str
    exchange: SimulatedExchange
    book: DemoBook
    environment: dict[str, str]
    snapshots: Path
    instance: dg.DagsterInstance
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions({"outside": Outside(self.environment, clock=self.clock)})

    @property
    def profiles(self) -> list[str]:
        return [profile.profile_id for profile in self.book.profiles]

    def rows(self, query: str, **parameters: object) -> list[dict[str, Any]]:
        with connect(self.database_url) as connection:
            return connection.execute(query.encode(), parameters).fetchall()

    def backfill_rows(self, profile: str | None = None, status: str = "filled") -> list[dict[str, Any]]:
        """The backfill rows in orders that count, without the demo book's own canceled one."""
        return self.rows(
            "SELECT * FROM public.orders WHERE order_id LIKE 'BFILL-%%' AND status = %(status)s "
            "AND (%(profile)s::text IS NULL OR profile_id = %(profile)s::text) ORDER BY profile_id, trade_id, qty DESC",
            status=status,
            profile=profile,
        )

    def everything(self) -> dict[str, list[dict[str, Any]]]:
        """The bots' tables, to compare before and after; when a row was touched is not compared."""
        tables = {
            "orders": "order_id",
            "positions": "trade_id",
            "trade_history": "trade_id",
            "capital_ledger": "trade_id",
        }
        return {
            table: [
                row["row"]
                for row in self.rows(
                    f"SELECT to_jsonb(t) - 'updated_at' AS row FROM public.{table} AS t ORDER BY {key}"
                )
            ]
            for table, key in tables.items()
        }

    def pause(self, scope: str = "all", state: str = "PAUSED") -> None:
        set_trading_state(self.database_url, scope, state, "test", "test", datetime.now(UTC))

    def run(
        self,
        job: str,
        partition: str | None = None,
        *,
        partitions: tuple[str, str] | None = None,
        config: Mapping[str, object] | None = None,
        op: str = "reconciliation",
        tags: Mapping[str, str] | None = None,
        assets: list[str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Run a job as the UI does, without raising."""
        more = dict(tags or {})
        if partitions is not None:
            more |= {
                "dagster/asset_partition_range_start": partitions[0],
                "dagster/asset_partition_range_end": partitions[1],
            }
        return self.definitions.resolve_job_def(job).execute_in_process(
            run_config={"ops": {op: {"config": dict(config)}}} if config is not None else {},
            instance=self.instance,
            partition_key=partition,
            tags=more,
            raise_on_error=False,
            asset_selection=[dg.AssetKey(key) for key in assets] if assets else None,
        )

    def metadata(self, result: dg.ExecuteInProcessResult, asset: str, partition: str | None) -> dict[str, Any]:
        """The metadata of one asset's materialization in one partition, tables as lists of rows."""
        [found] = [
            event.materialization
            for event in result.get_asset_materialization_events()
            if event.asset_key == dg.AssetKey(asset) and event.partition == partition
        ]
        return {name: plain(value) for name, value in found.metadata.items()}

    def checks(self, result: dg.ExecuteInProcessResult, partition: str | None = None) -> dict[str, Any]:
        """The evaluations of a run, of one partition or (None) of the run as a whole, by check."""
        return {
            evaluation.check_name: evaluation
            for evaluation in result.get_asset_check_evaluations()
            if evaluation.partition == partition
        }


def plain(value: Any) -> Any:
    if isinstance(value, dg.TableMetadataValue):
        return [dict(record.data) for record in value.records]
    return value.value


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """A real instance of this test's own: the storage is SQLite's, in memory."""
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


@pytest.fixture
def world(database_url: str, tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[World]:
    """The demo book, loaded; every profile is a partition; the backfill is enabled, trading runs."""
    anchor = datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=5)
    book = demo_book(PREFIX, anchor)
    load_ledger(database_url, book)
    with running_exchange() as exchange:
        load_exchange(exchange.book, book)
        environment = {
            "RECON_DATABASE_URL": database_url,
            "RECON_SNAPSHOT_URL": str(tmp_path / "snapshots"),
            "RECON_EXCHANGE_RATE_PER_MINUTE": "1000",
            "ENABLE_RECON_EXIT_BACKFILL": "true",
        }
        for account_id in book.account_ids:
            keys = credentials(account_id, exchange.url)
            name = "RECON_ACCOUNT_" + account_id.upper().replace("-", "_")
            environment[f"{name}_KEY_ID"] = keys.key_id
            environment[f"{name}_SECRET_KEY"] = keys.secret_key
            environment[f"{name}_BASE_URL"] = keys.base_url
        world = World(database_url, exchange, book, environment, tmp_path / "snapshots", instance)
        instance.add_dynamic_partitions(PROFILES, world.profiles)
        yield world
