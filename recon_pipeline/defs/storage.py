"""Dagster's Postgres storage with its connections kept: what ``dagster.yaml`` names.

Dagster concept: an instance storage. ``dagster_postgres`` opens a connection for every call, several for each event; keeping them
halves what a run costs, and more of what it costs the server. Not here: what is stored, and where (``dagster.yaml``).
"""

from collections.abc import Mapping
from typing import Any, Final, cast

import sqlalchemy
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import create_pg_engine, get_token_provider_from_config, pg_url_from_config

_KEPT: Final = 2
"""Connections that each of the three storages of an instance keeps; a thread more opens one for its call."""
_MOST_MORE: Final = 30
_RENEWED_AFTER_SECONDS: Final = 1_800


class _Pooled:
    """Keeps connections until the instance is disposed of. Each is tried before its use: the server may have restarted."""

    _engine: sqlalchemy.engine.Engine

    def __init__(self, postgres_url: str, should_autocreate_tables: bool, token_provider: Any) -> None:
        super().__init__(postgres_url, should_autocreate_tables, token_provider=token_provider)  # type: ignore[call-arg]
        self._engine = create_pg_engine(
            postgres_url,
            token_provider,
            isolation_level="AUTOCOMMIT",
            pool_size=_KEPT,
            max_overflow=_MOST_MORE,
            pool_pre_ping=True,
            pool_recycle=_RENEWED_AFTER_SECONDS,
        )

    def dispose(self) -> None:
        super().dispose()  # type: ignore[misc]
        self._engine.dispose()


class _Runs(_Pooled, PostgresRunStorage):
    pass


class _Events(_Pooled, PostgresEventLogStorage):
    pass


class _Schedules(_Pooled, PostgresScheduleStorage):
    pass


class PooledPostgresStorage(DagsterPostgresStorage):
    """``DagsterPostgresStorage`` over kept connections; its configuration is that of ``storage: postgres:``."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
        token_provider: Any = None,
    ) -> None:
        super().__init__(postgres_url, False, inst_data, token_provider)  # its own storages are replaced below
        self.should_autocreate_tables = should_autocreate_tables
        self._run_storage = _Runs(postgres_url, should_autocreate_tables, token_provider)
        self._event_log_storage = _Events(postgres_url, should_autocreate_tables, token_provider)
        self._schedule_storage = _Schedules(postgres_url, should_autocreate_tables, token_provider)

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PooledPostgresStorage":
        """Return the storage that ``dagster.yaml`` describes."""
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(cast("Any", config_value)),
            should_autocreate_tables=bool(config_value.get("should_autocreate_tables", True)),
            token_provider=get_token_provider_from_config(cast("Any", config_value)),
        )
