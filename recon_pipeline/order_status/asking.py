"""Asking the exchange about orders of the ledger, account by account, several accounts at a time.

What belongs here: who is asked, and what each answer is to the row that asked. What does not: how orders are looked for
(``exchange.bulk``), and what an answer makes of a row (``domain.order_status``).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.exchange.gateway import (
    Absent,
    Found,
    FoundOrders,
    LookupResult,
    OrderFinder,
    Unknown,
    WantedOrder,
)
from recon_pipeline.order_status.outcome import AccountAnswers
from recon_pipeline.order_status.ports import Record

_LOG = logging.getLogger(__name__)
_PARALLEL_ACCOUNTS = 8


@dataclass(frozen=True)
class Answered:
    """What the exchange said of the rows of one profile."""

    checks: tuple[Any, ...] = ()
    """rows of ORDER_CHECKS that were asked about"""
    found: tuple[Record, ...] = ()
    """the orders that it knows, as sent"""
    absent: frozenset[RowKey] = frozenset()
    """rows of which it said, for every id, that there is no such order"""
    unknown: Mapping[RowKey, str] = field(default_factory=dict)
    """rows of which it gave any other answer, and why"""
    unasked: int = 0
    """rows that were to be asked about and that the search did not come to"""

    @property
    def asked(self) -> frozenset[RowKey]:
        """The rows that were asked about."""
        return frozenset(_key(check) for check in self.checks)


@dataclass(frozen=True)
class Asked:
    """What asking came to."""

    answers: Mapping[str, Answered]
    """by profile; a profile of which nothing was asked has none"""
    accounts: Mapping[str, AccountAnswers]
    """by account that was asked"""


def ask_accounts(exchange: OrderFinder, checks: pd.DataFrame, *, bulk_pages: int) -> Asked:
    """Ask about every row of ORDER_CHECKS, each account once and several at a time."""
    by_account: dict[str, list[Any]] = {}
    for check in rows_of(checks):
        by_account.setdefault(check.account_id, []).append(check)
    if not by_account:
        return Asked({}, {})
    with ThreadPoolExecutor(min(_PARALLEL_ACCOUNTS, len(by_account)), thread_name_prefix="order status") as pool:
        searched = list(pool.map(lambda item: _search(exchange, item[0], item[1], bulk_pages), by_account.items()))
    results: dict[str, list[tuple[Any, LookupResult]]] = {}
    accounts: dict[str, AccountAnswers] = {}
    for (account_id, rows), found in zip(by_account.items(), searched, strict=True):
        for row, result in zip(rows, found.results, strict=True):
            results.setdefault(row.profile_id, []).append((row, result))
        accounts[account_id] = AccountAnswers(
            account_id=account_id,
            api_calls=found.api_calls,
            rate_remaining=found.rate_remaining,
            in_bulk=found.in_bulk,
            singly=found.singly,
            failed=sum(isinstance(result, Unknown) and result.asked for result in found.results),
            error=found.error,
        )
    return Asked({profile_id: _answered(pairs) for profile_id, pairs in results.items()}, accounts)


def _search(exchange: OrderFinder, account_id: str, rows: list[Any], bulk_pages: int) -> FoundOrders:
    wanted = [WantedOrder(row.order_id, row.client_order_id, int(row.placed_at_ms)) for row in rows]
    try:
        return exchange.find_orders(account_id, wanted, bulk_pages=bulk_pages)
    except Exception as error:  # noqa: BLE001  logged; one account must not stop the others
        _LOG.exception("the orders of account %s could not be looked for", account_id)
        text = f"account {account_id!r} could not be asked: unexpected {type(error).__name__}, see the log"
        return FoundOrders(tuple(Unknown(text) for _ in rows), error=text)


def _answered(results: Sequence[tuple[Any, LookupResult]]) -> Answered:
    """The answers about one profile's rows, by what they are."""
    asked = [(row, result) for row, result in results if not isinstance(result, Unknown) or result.asked]
    return Answered(
        checks=tuple(row for row, _ in asked),
        found=tuple(result.raw for _, result in asked if isinstance(result, Found)),
        absent=frozenset(_key(row) for row, result in asked if isinstance(result, Absent)),
        unknown={_key(row): result.error for row, result in asked if isinstance(result, Unknown)},
        unasked=len(results) - len(asked),
    )


def _key(row: Any) -> RowKey:
    return row.profile_id, row.order_id
