"""What the exchange said, kept in Postgres: executions, orders, and how far each stream has been read.

What belongs here: storing and reading evidence. What does not: asking the exchange, parsing its answers, and deciding
whether a reading is complete (``exchange``, which declares the protocol that this class satisfies).

Rows are dictionaries in the columns of ``recon.executions`` and ``recon.exchange_orders``: quantities and prices as
Decimal or text, instants as aware datetimes or ISO text, the exchange's own answer in ``raw``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recon_pipeline.ledger.database import READER, Row
from recon_pipeline.ledger.session import Session, json_rows


class Upserted(NamedTuple):
    """What an upsert did; rows that were stored already, as they are, count in neither."""

    inserted: int
    changed: int


class EvidenceStore(Session):
    """Evidence of all accounts. Safe to share between threads."""

    def __init__(self, database_url: str, *, application_name: str = "recon evidence") -> None:
        super().__init__(database_url, READER, application_name)

    def upsert_executions(self, rows: Sequence[Mapping[str, Any]]) -> Upserted:
        """Store executions; one that the exchange now reports differently is updated and counted as changed."""
        return self._upsert("upsert_executions", rows)

    def upsert_exchange_orders(self, rows: Sequence[Mapping[str, Any]]) -> Upserted:
        """Store orders; a reading that is older or has less executed quantity than the stored one changes nothing."""
        return self._upsert("upsert_exchange_orders", rows)

    def watermark(self, account_id: str, stream: str) -> Row | None:
        """Return how far the stream has been read: last_id, covered_from, covered_until, or None."""
        rows = self.rows("select_watermark", {"account_id": account_id, "stream": stream})
        return rows[0] if rows else None

    def set_watermark(
        self,
        account_id: str,
        stream: str,
        *,
        last_id: str | None,
        covered_from: dt.datetime,
        covered_until: dt.datetime,
    ) -> Row:
        """Claim that the stream was read without a gap over the window; returns the claim that now stands."""
        if covered_until < covered_from:
            raise ValueError(f"the window of {stream} ends before it begins: {covered_from} to {covered_until}")
        return self.rows(
            "set_watermark",
            {
                "account_id": account_id,
                "stream": stream,
                "last_id": last_id,
                "covered_from": covered_from,
                "covered_until": covered_until,
            },
        )[0]

    def executions_since(self, account_id: str, since: dt.datetime) -> list[Row]:
        """Return executions at or after the instant, oldest first."""
        return self.rows("select_executions_since", {"account_id": account_id, "since": since})

    def executions_of_orders(self, account_id: str, order_ids: Sequence[str]) -> list[Row]:
        """Return every stored execution of the orders, oldest first."""
        return self.rows("select_executions_of_orders", {"account_id": account_id, "order_ids": list(order_ids)})

    def exchange_orders_since(self, account_id: str, since: dt.datetime) -> list[Row]:
        """Return orders filled at or after the instant, and those with an execution since."""
        return self.rows("select_exchange_orders_since", {"account_id": account_id, "since": since})

    def exchange_orders_by_id(self, account_id: str, order_ids: Sequence[str]) -> list[Row]:
        """Return the stored orders among the ids."""
        return self.rows("select_exchange_orders_by_id", {"account_id": account_id, "order_ids": list(order_ids)})

    def exchange_orders_unfinished(self, account_id: str) -> list[Row]:
        """Return the stored orders that may still execute, as far as they were last read."""
        return self.rows("select_exchange_orders_unfinished", {"account_id": account_id})

    def _upsert(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Upserted:
        inserted = changed = 0
        for chunk in json_rows(rows):
            outcome = self.rows(name, {"rows": chunk})
            new = sum(1 for row in outcome if row["inserted"])
            inserted += new
            changed += len(outcome) - new
        return Upserted(inserted, changed)
