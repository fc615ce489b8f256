"""A real receiver, and a database with events in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import pytest

from recon_pipeline.domain.corrections import Event, EventType, Severity
from recon_pipeline.ledger.database import Connection, connect
from recon_pipeline.ledger.events import raise_events
from recon_pipeline_tests.alerting.receiver import Receiver, receiving

NOW = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture
def reader(database_url: str) -> Iterator[Connection]:
    with connect(database_url, "recon_reader") as connection:
        yield connection


@pytest.fixture
def tell(reader: Connection) -> Callable[..., list[int]]:
    """Raise events: messages, all of one type and severity."""

    def raised(
        *messages: str,
        type: EventType = EventType.RECONCILIATION_DEGRADED,  # noqa: A002
        severity: Severity = Severity.WARN,
        **more: object,
    ) -> list[int]:
        events = [Event(type, severity, message, profile_id="p1", **more) for message in messages]  # type: ignore[arg-type]
        return raise_events(reader, events, run_id="run-1", now=NOW)

    return raised
