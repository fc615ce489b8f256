"""Dagster's storage with kept connections: it keeps few, survives a server that drops them, and gives them back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster_postgres.event_log import PostgresEventLogStorage
from sqlalchemy.engine import make_url

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture
def instance(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[dg.DagsterInstance, psycopg.Connection]]:
    """An instance made by the project's own dagster.yaml, and a look at the server's connections."""
    shutil.copyfile(TOP / "dagster.yaml", tmp_path / "dagster.yaml")
    url = make_url(database_url).set(drivername="postgresql+psycopg2")
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", url.render_as_string(hide_password=False))
    with (
        psycopg.connect(database_url, autocommit=True) as server,
        dg.DagsterInstance.from_config(str(tmp_path)) as made,
    ):
        yield made, server


def others(server: psycopg.Connection) -> int:
    """How many connections to the database there are beside this one."""
    row = server.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND backend_type = 'client backend'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_many_calls_share_a_few_connections_which_the_instance_gives_back(
    instance: tuple[dg.DagsterInstance, psycopg.Connection],
) -> None:
    made, server = instance
    assert isinstance(made.event_log_storage, PostgresEventLogStorage)
    assert type(made.event_log_storage).__module__ == "recon_pipeline.defs.storage"
    for number in range(20):
        made.report_runless_asset_event(dg.AssetMaterialization("noted", metadata={"number": number}))
        assert others(server) <= 6
    assert made.get_latest_materialization_event(dg.AssetKey("noted")) is not None
    assert others(server) >= 1
    made.dispose()
    deadline = 200
    while others(server) and deadline:
        deadline -= 1
        server.execute("SELECT pg_sleep(0.02)")
    assert others(server) == 0


def test_connections_that_the_server_dropped_are_opened_again_unnoticed(
    instance: tuple[dg.DagsterInstance, psycopg.Connection],
) -> None:
    made, server = instance
    made.report_runless_asset_event(dg.AssetMaterialization("noted", metadata={"number": 1}))
    dropped = server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ).fetchall()
    assert dropped
    made.report_runless_asset_event(dg.AssetMaterialization("noted", metadata={"number": 2}))
    event = made.get_latest_materialization_event(dg.AssetKey("noted"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["number"].value == 2


def test_the_storage_is_found_again_by_another_process(
    instance: tuple[dg.DagsterInstance, psycopg.Connection],
) -> None:
    made, _ = instance
    with dg.DagsterInstance.from_ref(made.get_ref()) as again:
        assert type(again.event_log_storage).__module__ == "recon_pipeline.defs.storage"
        assert os.environ["DAGSTER_POSTGRES_URL"] not in repr(made.get_ref())
