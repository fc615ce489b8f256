"""Reads accounts, each once per run, and looks single orders up: what the engine is handed.

What belongs here: which account is read with which keys, by whom, how often, and that one account's failure stays its
own. What does not: how an account is read (``evidence``) and how a request is sent (``alpaca``).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from recon_pipeline.exchange.alpaca import AlpacaClient, ClientLimits
from recon_pipeline.exchange.bulk import OrderSearch
from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.exchange.evidence import Reading, ReadingPolicy
from recon_pipeline.exchange.evidence_store import EvidenceStore
from recon_pipeline.exchange.gateway import (
    AccountMismatchError,
    AccountReading,
    CredentialsError,
    ExchangeError,
    ExchangeReader,
    FoundOrders,
    LookupResult,
    Unknown,
    Usage,
    WantedOrder,
)
from recon_pipeline.exchange.lookups import look_up
from recon_pipeline.exchange.rate_budget import RateBudgets, Timing

_LOG = logging.getLogger(__name__)


class AlpacaReader:
    """Reads Alpaca accounts. Thread safe; accounts may be read at the same time, each reading has its own client."""

    def __init__(
        self,
        credentials: Iterable[AccountCredentials],
        store: EvidenceStore,
        *,
        policy: ReadingPolicy | None = None,
        limits: ClientLimits | None = None,
        budgets: RateBudgets | None = None,
        timing: Timing | None = None,
    ) -> None:
        listed = list(credentials)
        self._credentials = {item.account_id: item for item in listed}
        if len(self._credentials) != len(listed):
            raise ValueError("an account has more than one set of keys")
        self._keys_used = Counter((item.base_url, item.key_id) for item in listed)
        self._store = store
        self._policy = policy or ReadingPolicy()
        self._limits = limits or ClientLimits()
        self._timing = timing or Timing()
        self._budgets = budgets or RateBudgets(timing=self._timing)
        self._lock = threading.Lock()
        self._claimed: dict[str, str] = {}
        self._requests: Counter[str] = Counter()

    def read_account(self, account_id: str, *, since_ms: int, now_ms: int) -> AccountReading:
        """Read everything executed on the account since ``since_ms``, and its positions. Failures are values."""
        try:
            client = self._client(account_id)
        except ExchangeError as error:
            return AccountReading.failed(account_id, str(error), since_ms=since_ms, now_ms=now_ms)
        with client:
            reading = Reading(
                client,
                self._store,
                self._policy,
                account_id=account_id,
                since_ms=since_ms,
                now_ms=now_ms,
                claim=lambda exchange_account: self._claim(account_id, exchange_account),
            )
            return reading.run()

    def look_up(self, account_id: str, *, order_id: str, client_order_id: str = "") -> LookupResult:
        """Look one order up by its id, then by its client id."""
        return self.look_up_all(account_id, [(order_id, client_order_id)])[0]

    def look_up_all(self, account_id: str, orders: Sequence[tuple[str, str]]) -> list[LookupResult]:
        """Look orders up, given as (order id, client order id), with one client; the results are in the same order.

        The order id is the ledger's: the exchange's or the client's. An order is absent only where the exchange says so
        for each of its ids.
        """
        try:
            client = self._client(account_id)
        except ExchangeError as error:
            return [Unknown(str(error), transient=error.transient) for _ in orders]
        with client:
            return [look_up(client, order_id.strip(), client_id.strip()) for order_id, client_id in orders]

    def find_orders(self, account_id: str, orders: Sequence[WantedOrder], *, bulk_pages: int) -> FoundOrders:
        """Look for the orders with one client: in pages, at most ``bulk_pages``, then one by one. Failures are values."""
        try:
            client = self._client(account_id)
        except ExchangeError as error:
            return FoundOrders(tuple(Unknown(str(error), transient=error.transient) for _ in orders), error=str(error))
        with client:
            return OrderSearch(client, orders, bulk_pages=bulk_pages).run()

    def usage_of(self, account_id: str) -> Usage:
        """Return what the finished readings and look-ups of the account have cost, and what is left of its minute."""
        budget = self._budgets.of(account_id)
        with self._lock:
            return Usage(self._requests[account_id], budget.limit, budget.remaining)

    def check(self, account_id: str) -> str:
        """Return why the account can't be reached with its keys; empty where it can. One request; nothing is kept."""
        try:
            with self._client(account_id) as client:
                self._claim(account_id, str(client.account()["id"]))
        except ExchangeError as error:
            return str(error)
        return ""

    def _client(self, account_id: str) -> AlpacaClient:
        credentials = self._credentials.get(account_id)
        if credentials is None:
            raise CredentialsError(f"there are no keys for account {account_id!r}")
        if self._keys_used[credentials.base_url, credentials.key_id] > 1:
            raise AccountMismatchError(f"account {account_id!r} shares its keys with another account")
        budget = self._budgets.of(account_id)
        return AlpacaClient(
            credentials,
            budget=budget,
            limits=self._limits,
            timing=self._timing,
            spent=partial(self._spend, account_id),
        )

    def _spend(self, account_id: str, calls: int) -> None:
        with self._lock:
            self._requests[account_id] += calls

    def _claim(self, account_id: str, exchange_account: str) -> None:
        """Refuse to read one exchange account under two names: its executions would be used twice."""
        with self._lock:
            owner = self._claimed.setdefault(exchange_account, account_id)
        if owner != account_id:
            raise AccountMismatchError(f"accounts {owner!r} and {account_id!r} are the same exchange account")


class SharedReadings:
    """The readings of one run: each account is read once, whoever asks and however many profiles share it."""

    def __init__(self, reader: ExchangeReader, *, since_ms: int, now_ms: int, parallel: int = 4) -> None:
        self._reader = reader
        self._since_ms = since_ms
        self._now_ms = now_ms
        self._parallel = parallel
        self._lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._readings: dict[str, AccountReading] = {}

    def of(self, account_id: str) -> AccountReading:
        """Return the account's reading, reading it if nobody has yet."""
        with self._lock:
            lock = self._locks.setdefault(account_id, threading.Lock())
        with lock:
            if account_id not in self._readings:
                self._readings[account_id] = self._read(account_id)
            return self._readings[account_id]

    def read_all(self, account_ids: Iterable[str]) -> dict[str, AccountReading]:
        """Return the readings of the accounts, several read at a time."""
        wanted = sorted(set(account_ids))
        if not wanted:
            return {}
        with ThreadPoolExecutor(max_workers=min(self._parallel, len(wanted)), thread_name_prefix="account") as pool:
            return dict(zip(wanted, pool.map(self.of, wanted), strict=True))

    def _read(self, account_id: str) -> AccountReading:
        try:
            return self._reader.read_account(account_id, since_ms=self._since_ms, now_ms=self._now_ms)
        except Exception as error:  # noqa: BLE001 - logged; one account must not stop the others
            _LOG.exception("account %s could not be read", account_id)
            text = f"account {account_id!r} could not be read: unexpected {type(error).__name__}, see the log"
            return AccountReading.failed(account_id, text, since_ms=self._since_ms, now_ms=self._now_ms)
