"""Delivery of events to people: what is due is logged, posted and marked, at least once and never twice.

What belongs here: the two steps of a delivery. What does not: the text of a message (``messages``), the
posting of it (``webhook``), and when an event is raised.

1. New events are logged. Those that are severe enough are given a message, once and for good; the others are settled.
2. Each message that is due is posted while its rows are locked, and marked in the same transaction. One that is refused is tried
   again later, twice as late each time.

A crash between post and mark leaves the message due: it is posted again with the same events under the same key
(``Idempotency-Key``, and in the body), which is how a receiver knows it. Several deliveries at once share the work.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from recon_pipeline.alerting.destination import AlertSettings
from recon_pipeline.alerting.messages import EventRow, grouped, is_at_least, log_line, message_of
from recon_pipeline.alerting.redaction import Redactor, secrets_of_url
from recon_pipeline.alerting.webhook import Refused, post
from recon_pipeline.ledger.database import READER, Connection, connect, secrets_of
from recon_pipeline.ledger.statements import statement

EVENTS_AT_ONCE: Final = 1_000
FIRST_DELAY_SECONDS: Final = 30.0
LONGEST_DELAY_SECONDS: Final = 600.0
_LEVELS: Final = {"INFO": logging.INFO, "WARN": logging.WARNING}


@dataclass(frozen=True)
class Delivery:
    """What one delivery did."""

    logged: int
    """new events"""
    messages: int
    """messages that the webhook took"""
    events: int
    """events in them"""
    failed: int
    """messages that it did not take"""
    waiting: int
    """messages that are still due, now or later"""
    error: str = ""
    """what the last attempt met; never with a secret in it"""


def deliver_events(
    database_url: str,
    settings: AlertSettings,
    *,
    log: logging.Logger,
    secrets: Iterable[str] = (),
    dashboard_url: str = "",
    budget_seconds: float = 40.0,
    clock: Callable[[], float] = time.monotonic,
) -> Delivery:
    """Deliver what is due; begin no message once the budget is spent. Nothing is lost where this ends early.

    :param log: gets each event once, at the level of its severity
    :param secrets: what must not be told beside the URLs of webhook and database: the exchange's keys
    :raises DatabaseUnavailableError: the events can't be read
    """
    redact = Redactor([*secrets, *secrets_of_url(settings.webhook_url), *secrets_of(database_url)])
    until = clock() + budget_seconds
    messages = events = failed = after = 0
    error = ""
    with connect(database_url, READER, "recon alerts") as connection:
        logged = _take_in(connection, settings, log, redact)
        while settings.webhook_url and clock() < until:
            with connection.transaction():
                claimed = connection.execute(statement("claim_message"), {"after": after}).fetchone()
                if claimed is None:
                    break
                after = claimed["message_id"]
                told, refusal = _post(connection, after, settings, redact, dashboard_url)
            if refusal is None:
                messages, events = messages + 1, events + told
                continue
            failed, error = failed + 1, refusal.error
            log.warning("message recon-events-%s is not delivered: %s", after, error)
            if refusal.concerns_all:
                break
        waiting = connection.execute(statement("select_waiting_messages")).fetchone()
    return Delivery(logged, messages, events, failed, waiting["messages"] if waiting else 0, error)


def _take_in(connection: Connection, settings: AlertSettings, log: logging.Logger, redact: Redactor) -> int:
    """Log the new events and decide which message tells each; return how many they are."""
    with connection.transaction():
        rows: list[EventRow] = list(
            connection.execute(statement("claim_new_events"), {"row_limit": EVENTS_AT_ONCE}).fetchall()
        )
        loud = [row for row in rows if settings.webhook_url and is_at_least(row["severity"], settings.min_severity)]
        message_ids = {row["id"]: group[0]["id"] for group in grouped(loud) for row in group}
        quiet = [row["id"] for row in rows if row["id"] not in message_ids]
        for row in rows:
            log.log(_LEVELS.get(row["severity"], logging.ERROR), "%s", log_line(row, redact))
        connection.execute(statement("settle_events"), {"ids": quiet})
        connection.execute(
            statement("assign_messages"), {"ids": list(message_ids), "message_ids": list(message_ids.values())}
        )
    return len(rows)


def _post(
    connection: Connection, message_id: int, settings: AlertSettings, redact: Redactor, dashboard_url: str
) -> tuple[int, Refused | None]:
    """Post a message whose first event is locked, and mark it; return its number of events and why it was refused."""
    rows = connection.execute(statement("select_message"), {"message_id": message_id}).fetchall()
    message = message_of(
        rows, message_id=message_id, form=settings.webhook_format, redact=redact, dashboard_url=dashboard_url
    )
    answer = post(settings.webhook_url, message, timeout_seconds=settings.timeout_seconds, redact=redact)
    if not isinstance(answer, Refused):
        connection.execute(statement("finish_message"), {"message_id": message_id})
        return len(rows), None
    delay = max(retry_delay_seconds(rows[0]["attempts"]), answer.retry_after_seconds)
    connection.execute(
        statement("postpone_message"), {"message_id": message_id, "error": answer.error, "seconds": delay}
    )
    return len(rows), answer


def retry_delay_seconds(attempts: int) -> float:
    """Return how long to wait after an attempt that failed, when so many had failed before it: twice as long each time."""
    return float(min(FIRST_DELAY_SECONDS * 2 ** min(attempts, 20), LONGEST_DELAY_SECONDS))
