"""What a run gets from outside: settings, ledger, exchange, snapshots, the clock.

Dagster concept: one resource without configuration, so that nothing of it (least of all a key) can show in the
Launchpad or in a stored run. The environment is read when a run asks, never when the definitions load. Not here: what is
done with it.
"""

import datetime as dt
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.gateway import AccountReading, FoundOrders, LookupResult, Unknown, Usage, WantedOrder
from recon_pipeline.exchange.rate_budget import RateBudgets
from recon_pipeline.ledger.database import Row
from recon_pipeline.ledger.evidence_store import EvidenceStore
from recon_pipeline.ledger.reads import PauseState, PostgresLedger
from recon_pipeline.settings import SettingError, Settings, read_settings

if TYPE_CHECKING:
    from recon_pipeline.exchange.reader import AlpacaReader

_HOUR_MS = 3_600_000


def utc_now() -> dt.datetime:
    """Return the time; a test brings its own."""
    return dt.datetime.now(dt.UTC)


class Outside:
    """Settings, ledger, exchange and clock of a run. Opens nothing until it is asked.

    :param environment: instead of the process's own; for tests and for tools that hold several at once
    """

    def __init__(
        self, environment: Mapping[str, str] | None = None, *, clock: Callable[[], dt.datetime] = utc_now
    ) -> None:
        self._environment = environment
        self._clock = clock
        self._lock = threading.Lock()
        self._budgets: RateBudgets | None = None

    def settings(self) -> Settings:
        """Read the settings.

        :raises SettingError: one can't be read, or there is no database
        """
        settings = read_settings(os.environ if self._environment is None else self._environment)
        if not settings.database_url:
            raise SettingError(
                "RECON_DATABASE_URL is not set; `make dev` sets it for the sandbox, in production you do"
            )
        return settings

    def now(self) -> dt.datetime:
        """Return the time."""
        return self._clock()

    def ledger(self, settings: Settings) -> "AttentiveLedger":
        """Return the ledger, read as ``recon_reader``."""
        return AttentiveLedger(settings.database_url, application_name="recon run")

    def exchange(self, settings: Settings, account_ids: Iterable[str], store: EvidenceStore) -> "KeyedReader":
        """Return a reader of the accounts, each with its own keys."""
        with self._lock:
            # One budget per account and process: the reading after an apply counts with the one before it.
            budgets = self._budgets = self._budgets or RateBudgets(per_minute=settings.rate_per_minute)
        return KeyedReader(settings, account_ids, store, budgets)


class AttentiveLedger(PostgresLedger):
    """The ledger, remembering what it answered: who paused, since when and why, and the rows, are shown with the plan."""

    def __init__(self, database_url: str, *, application_name: str = "recon run") -> None:
        super().__init__(database_url, application_name=application_name)
        self.pauses: dict[str, PauseState] = {}
        self._records: list[Row] = []
        self._by_profile: dict[str, list[Row]] | None = None

    def lifecycle_records(self, profile_ids: Sequence[str]) -> list[Row]:
        """Return raw rows of ``orders``: all that executed or may yet, and backfill rows of any status."""
        self._records, self._by_profile = super().lifecycle_records(profile_ids), None
        return self._records

    def records_of(self, profile_id: str) -> tuple[Row, ...]:
        """Return a profile's lifecycle rows as they were read last."""
        if self._by_profile is None:
            self._by_profile = {}
            for row in self._records:
                self._by_profile.setdefault(str(row["profile_id"]), []).append(row)
        return tuple(self._by_profile.get(profile_id, ()))

    def pause_state(self, profile_ids: Sequence[str]) -> dict[str, PauseState]:
        """Return the pause of the profiles."""
        answer = super().pause_state(profile_ids)
        self.pauses.update(answer)
        return answer


class KeyedReader:
    """Reads accounts over Alpaca. An account without keys is a failed reading that names the missing variables."""

    def __init__(
        self, settings: Settings, account_ids: Iterable[str], store: EvidenceStore, budgets: RateBudgets
    ) -> None:
        self._settings = settings
        self._budgets = budgets
        self._account_ids = sorted(set(account_ids))
        self._store = store
        self._lock = threading.Lock()
        self._reader: AlpacaReader | None = None
        self._missing: dict[str, str] = {}

    def read_account(self, account_id: str, *, since_ms: int, now_ms: int) -> AccountReading:
        """Read everything executed on the account since ``since_ms``, and its positions. Failures are values."""
        reader = self._connected()
        if account_id in self._missing:
            return AccountReading.failed(account_id, self._missing[account_id], since_ms=since_ms, now_ms=now_ms)
        return reader.read_account(account_id, since_ms=since_ms, now_ms=now_ms)

    def look_up_all(self, account_id: str, orders: Sequence[tuple[str, str]]) -> Sequence[LookupResult]:
        """Look orders up, given as (order id, client order id); the results are in the same order."""
        reader = self._connected()
        if account_id in self._missing:
            return [Unknown(self._missing[account_id], transient=False) for _ in orders]
        return reader.look_up_all(account_id, orders)

    def find_orders(self, account_id: str, orders: Sequence[WantedOrder], *, bulk_pages: int) -> FoundOrders:
        """Look for many orders: in pages, at most ``bulk_pages``, then one by one."""
        reader = self._connected()
        if account_id in self._missing:
            text = self._missing[account_id]
            return FoundOrders(tuple(Unknown(text, transient=False) for _ in orders), error=text)
        return reader.find_orders(account_id, orders, bulk_pages=bulk_pages)

    def usage_of(self, account_id: str) -> Usage:
        """Return what the account's requests have come to."""
        return self._connected().usage_of(account_id)

    def _connected(self) -> "AlpacaReader":
        with self._lock:
            self._reader = self._reader or self._connect()
            return self._reader

    def _connect(self) -> "AlpacaReader":
        from recon_pipeline.exchange.alpaca import ClientLimits
        from recon_pipeline.exchange.evidence import ReadingPolicy
        from recon_pipeline.exchange.reader import AlpacaReader

        settings = self._settings
        credentials = []
        for account_id in self._account_ids:
            try:
                keys = settings.account(account_id)
                credentials.append(AccountCredentials(keys.account_id, keys.key_id, keys.secret_key, keys.base_url))
            except (SettingError, ValueError) as error:
                self._missing[account_id] = str(error)
        return AlpacaReader(
            credentials,
            self._store,
            policy=ReadingPolicy(
                overlap_ms=settings.evidence_overlap_hours * _HOUR_MS,
                max_fill_pages=settings.evidence_max_pages,
                max_order_pages=settings.evidence_max_pages,
            ),
            limits=ClientLimits(read_seconds=settings.request_timeout_seconds),
            budgets=self._budgets,
        )
