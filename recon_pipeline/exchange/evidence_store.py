"""What a reading asks of the place that keeps executions and orders between readings.

What belongs here: the protocol, and an implementation in memory for a single process (``recon`` without a database,
tests). What does not: SQL; the durable implementation is ``ledger.evidence_store``, which fits this protocol without
importing it.

Rows are mappings with the columns of ``recon.executions``, ``recon.exchange_orders`` or ``recon.watermarks``: amounts
``Decimal`` or None, instants aware datetimes or None, ``raw`` the record as the exchange sent it, in JSON.
What is kept are facts by id: keeping one twice changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

Row = Mapping[str, Any]

FINISHED_STATUSES: Final = frozenset({"filled", "canceled", "expired", "replaced", "rejected"})
"""Statuses after which nothing more is executed. ``done_for_day`` is none of them: a GTC order goes on tomorrow."""


class EvidenceStore(Protocol):
    """Keeps executions, orders, and how far they were read."""

    def watermark(self, account_id: str, stream: str) -> Row | None:
        """Return ``last_id``, ``covered_from`` and ``covered_until`` of a stream, or None."""
        ...

    def set_watermark(
        self, account_id: str, stream: str, *, last_id: str, covered_from: datetime, covered_until: datetime
    ) -> object:
        """Note how far a stream was read without a gap."""
        ...

    def upsert_executions(self, rows: list[dict[str, Any]]) -> object:
        """Keep executions."""
        ...

    def upsert_exchange_orders(self, rows: list[dict[str, Any]]) -> object:
        """Keep orders; one with less executed than is known changes nothing."""
        ...

    def executions_since(self, account_id: str, since: datetime) -> Sequence[Row]:
        """Return the executions at or after ``since``."""
        ...

    def executions_of_orders(self, account_id: str, order_ids: list[str]) -> Sequence[Row]:
        """Return all executions of the orders."""
        ...

    def exchange_orders_since(self, account_id: str, since: datetime) -> Sequence[Row]:
        """Return the orders filled, or with an execution, at or after ``since``."""
        ...

    def exchange_orders_by_id(self, account_id: str, order_ids: list[str]) -> Sequence[Row]:
        """Return the orders named, those that are known."""
        ...

    def exchange_orders_unfinished(self, account_id: str) -> Sequence[Row]:
        """Return the orders whose status is none of :data:`FINISHED_STATUSES`."""
        ...


class MemoryEvidenceStore:
    """Keeps it as long as the process lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executions: dict[tuple[str, str], Row] = {}
        self._orders: dict[tuple[str, str], Row] = {}
        self._watermarks: dict[tuple[str, str], Row] = {}

    def watermark(self, account_id: str, stream: str) -> Row | None:
        """See :meth:`EvidenceStore.watermark`."""
        with self._lock:
            return self._watermarks.get((account_id, stream))

    def set_watermark(
        self, account_id: str, stream: str, *, last_id: str, covered_from: datetime, covered_until: datetime
    ) -> object:
        """See :meth:`EvidenceStore.set_watermark`."""
        with self._lock:
            known = self._watermarks.get((account_id, stream))
            if known is not None and known["covered_from"] <= covered_until and covered_from <= known["covered_until"]:
                covered_from = min(covered_from, known["covered_from"])
                covered_until = max(covered_until, known["covered_until"])
            mark = {"last_id": last_id, "covered_from": covered_from, "covered_until": covered_until}
            self._watermarks[account_id, stream] = mark
            return mark

    def upsert_executions(self, rows: list[dict[str, Any]]) -> object:
        """See :meth:`EvidenceStore.upsert_executions`."""
        with self._lock:
            self._executions.update({(row["account_id"], row["execution_id"]): row for row in rows})
            return None

    def upsert_exchange_orders(self, rows: list[dict[str, Any]]) -> object:
        """See :meth:`EvidenceStore.upsert_exchange_orders`."""
        with self._lock:
            for row in rows:
                known = self._orders.get((row["account_id"], row["order_id"]))
                if known is None or known["filled_qty"] <= row["filled_qty"]:
                    self._orders[row["account_id"], row["order_id"]] = row
            return None

    def executions_since(self, account_id: str, since: datetime) -> Sequence[Row]:
        """See :meth:`EvidenceStore.executions_since`."""
        return [row for row in self._of(self._executions, account_id) if row["executed_at"] >= since]

    def executions_of_orders(self, account_id: str, order_ids: list[str]) -> Sequence[Row]:
        """See :meth:`EvidenceStore.executions_of_orders`."""
        return [row for row in self._of(self._executions, account_id) if row["order_id"] in set(order_ids)]

    def exchange_orders_since(self, account_id: str, since: datetime) -> Sequence[Row]:
        """See :meth:`EvidenceStore.exchange_orders_since`."""
        executed = {row["order_id"] for row in self.executions_since(account_id, since)}
        return [
            row
            for row in self._of(self._orders, account_id)
            if row["order_id"] in executed or (row["filled_at"] is not None and row["filled_at"] >= since)
        ]

    def exchange_orders_by_id(self, account_id: str, order_ids: list[str]) -> Sequence[Row]:
        """See :meth:`EvidenceStore.exchange_orders_by_id`."""
        return [row for row in self._of(self._orders, account_id) if row["order_id"] in set(order_ids)]

    def exchange_orders_unfinished(self, account_id: str) -> Sequence[Row]:
        """See :meth:`EvidenceStore.exchange_orders_unfinished`."""
        return [row for row in self._of(self._orders, account_id) if row["status"] not in FINISHED_STATUSES]

    def _of(self, rows: Mapping[tuple[str, str], Row], account_id: str) -> Collection[Row]:
        with self._lock:
            return [row for (account, _), row in rows.items() if account == account_id]
