"""`recon stream`: listens to the accounts' order updates and writes them as they happen, in the foreground."""

import logging
import signal
import threading
import time
from datetime import UTC, datetime
from uuid import uuid4

import click

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.exchange.alpaca import ClientLimits
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.order_stream import OrderStream
from recon_pipeline.exchange.rate_budget import RateBudgets
from recon_pipeline.exchange.reader import AlpacaReader
from recon_pipeline.ledger.database import DatabaseUnavailableError, redact
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.order_status.account_stream import AccountStream
from recon_pipeline.order_status.stream_keeper import AlreadyListeningError
from recon_pipeline.order_status.stream_ports import StreamPorts, StreamRules
from recon_pipeline.order_status.streaming import StreamWriter
from recon_pipeline.settings import SettingError, Settings, read_settings

STOP_SECONDS = 20.0
ANSWER_SECONDS = 20.0
"""All requests of one question: the heartbeat must not be late because of an exchange that is slow."""


@click.command()
@click.option("--account", "accounts", multiple=True, metavar="ID", help="Listen to this account only (repeatable).")
def stream(accounts: tuple[str, ...]) -> None:
    """Listen to the order updates of every account of the table profiles; write fills, ends and times as they happen.

    Each event is stored first and handled then: by the rules of the order status sync, forward only, under the profile's lease.
    What one event can't prove starts a reconciliation of its profile. Losing this process costs freshness, never truth: the
    order status sync and the cycle check everything. Ends with Ctrl-C or SIGTERM; exit status 1 where an account can't be
    listened to, for whoever keeps services running to start it again.

    \b
    Examples:
      . .recon/env && recon stream
      recon stream --account A1 --account A2
    """  # noqa: D301
    settings = _settings()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("websockets").setLevel(logging.WARNING)
    with (
        PostgresLedger(settings.database_url, application_name="recon stream") as ledger,
        EvidenceStore(settings.database_url, application_name="recon stream") as store,
    ):
        try:
            keys = _keys(settings, _wanted(ledger, accounts))
        except (DatabaseUnavailableError, SettingError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        reader = AlpacaReader(
            keys,
            store,
            limits=ClientLimits(read_seconds=settings.request_timeout_seconds, deadline_seconds=ANSWER_SECONDS),
            budgets=RateBudgets(per_minute=settings.rate_per_minute),
        )
        ports = StreamPorts(settings.database_url, ledger, reader)
        rules = StreamRules(
            policy=settings.order_status,
            run_id=f"stream-{uuid4()}",
            now=lambda: datetime.now(UTC),
            new_id=lambda: str(uuid4()),
            managed_symbols=settings.managed_symbols,
        )
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        _say(keys, settings.order_status)
        failures = _run([_stream(credentials, ports, rules) for credentials in keys], stopping)
    for account_id, failure in failures.items():
        click.echo(f"account {account_id}: {redact(str(failure), settings.database_url)}", err=True)
    if failures:
        raise click.exceptions.Exit(1)
    click.echo("stopped")


def _settings() -> Settings:
    try:
        settings = read_settings()
    except SettingError as error:
        raise click.ClickException(str(error)) from None
    if not settings.database_url:
        raise click.ClickException("RECON_DATABASE_URL is not set.")
    if not settings.order_status.enabled:
        raise click.ClickException(
            "ENABLE_RECON_ORDER_STATUS_SYNC is false: nothing is to be written of order updates."
        )
    return settings


def _wanted(ledger: PostgresLedger, accounts: tuple[str, ...]) -> list[str]:
    known = sorted({str(row["account_id"]) for row in ledger.profiles() if row["enabled"]})
    strangers = sorted(set(accounts) - set(known))
    if strangers:
        raise ValueError(
            f"no enabled profile has account {', '.join(strangers)}; there are: {', '.join(known) or 'none'}"
        )
    if not known:
        raise ValueError("the table profiles has no enabled profile: there is no account to listen to")
    return sorted(set(accounts)) or known


def _keys(settings: Settings, accounts: list[str]) -> list[AccountCredentials]:
    found = [settings.account(account_id) for account_id in accounts]
    return [AccountCredentials(keys.account_id, keys.key_id, keys.secret_key, keys.base_url) for keys in found]


def _say(keys: list[AccountCredentials], policy: OrderStatusPolicy) -> None:
    click.echo(f"listening to {', '.join(credentials.account_id for credentials in keys)}")
    if policy.dry_run:
        click.echo(
            "dry run: events are stored and compared, no order is written; RECON_ORDER_STATUS_DRY_RUN=false writes"
        )


def _stream(credentials: AccountCredentials, ports: StreamPorts, rules: StreamRules) -> AccountStream:
    return AccountStream(
        credentials.account_id,
        StreamWriter(credentials.account_id, ports=ports, rules=rules),
        database_url=ports.database_url,
        now=rules.now,
        open_stream=lambda ears: OrderStream(credentials, ears),
    )


def _run(streams: list[AccountStream], stopping: threading.Event) -> dict[str, Exception]:
    """Run all of them until told to stop or until one ends by itself; what each failed with, by account."""
    failures: dict[str, Exception] = {}

    def run(one: AccountStream) -> None:
        try:
            one.run()
        except (AlreadyListeningError, DatabaseUnavailableError) as error:
            failures[one.account_id] = error
        except Exception as error:
            logging.getLogger(__name__).exception("the stream of account %s ended", one.account_id)
            failures[one.account_id] = error
        finally:
            stopping.set()

    threads = [threading.Thread(target=run, args=(one,), name=one.account_id, daemon=True) for one in streams]
    for thread in threads:
        thread.start()
    while not stopping.wait(3600):
        pass
    for one in streams:
        one.stop()
    deadline = time.monotonic() + STOP_SECONDS
    for one, thread in zip(streams, threads, strict=True):
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            failures.setdefault(one.account_id, TimeoutError(f"did not stop within {STOP_SECONDS:g} s"))
    return failures
