"""What the pipeline reads of the ledger: profiles, lifecycle rows, consumption, the pause.

What belongs here: one statement per table, for any number of profiles, and raw rows as they come. What does not:
parsing them (``domain.readings``), deciding anything, and writing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from recon_pipeline.domain.terms import FINAL_UNFILLED_STATUSES
from recon_pipeline.domain.watchdog import Pause
from recon_pipeline.ledger.database import READER, Row
from recon_pipeline.ledger.session import Session

ALL_TRADING: Final = "all"
"""The scope of ``trading_control`` that holds for every profile."""

AUDIT_COLUMNS: Final = (
    "batch_id",
    "profile_id",
    "symbol",
    "trade_id",
    "exchange_order_id",
    "exchange_client_order_id",
    "backfill_order_id",
    "filled_qty",
    "filled_price",
    "filled_at",
    "dry_run",
    "decision",
    "reason",
    "metadata",
    "created_at",
    "applied_at",
    "reverted_at",
)


class PauseState(NamedTuple):
    """Whether a profile's trading is paused, and who said so."""

    paused: bool
    source: str
    since: dt.datetime | None
    reason: str


RUNNING: Final = PauseState(paused=False, source="", since=None, reason="")


class PostgresLedger(Session):
    """Reads the ledger as ``recon_reader``. Safe to share between threads."""

    def __init__(self, database_url: str, *, application_name: str = "recon ledger") -> None:
        super().__init__(database_url, READER, application_name)

    def profiles(self, profile_ids: Sequence[str] | None = None) -> list[Row]:
        """Return the profiles (None: all): profile_id, user_id, account_id, enabled, symbols, allocated capital."""
        ids = None if profile_ids is None else list(profile_ids)
        return self.rows("select_profiles", {"profile_ids": ids})

    def account_siblings(self, profile_ids: Sequence[str]) -> list[Row]:
        """Return every profile on the accounts of the given ones, they themselves included."""
        return self.rows("select_account_siblings", {"profile_ids": list(profile_ids)})

    def lifecycle_records(self, profile_ids: Sequence[str]) -> list[Row]:
        """Return raw rows of ``orders``: all that executed or may yet, and backfill rows of any status."""
        return self.rows(
            "select_lifecycle_rows",
            {"profile_ids": list(profile_ids), "unfilled_statuses": [*sorted(FINAL_UNFILLED_STATUSES), "cancelled"]},
        )

    def orders_by_id(self, order_ids: Iterable[str]) -> list[Row]:
        """Return the rows of ``orders`` among the ids, whatever their profile and status."""
        return self.rows("select_orders_by_id", {"order_ids": list(order_ids)})

    def rows_naming_orders(self, exchange_ids: Iterable[str]) -> list[Row]:
        """Return the rows of ``orders`` that carry one of the ids as order id or client order id, whatever else they say."""
        return self.rows("select_rows_naming_orders", {"exchange_ids": sorted(set(exchange_ids) - {""})})

    def sub_tag_supported(self) -> bool:
        """Return whether ``orders`` has a column for sub-tags."""
        return bool(self.rows("select_sub_tag_supported")[0]["supported"])

    def existing_order_ids(self, order_ids: Iterable[str]) -> set[str]:
        """Return the ids that ``orders`` has."""
        return {row["order_id"] for row in self.orders_by_id(order_ids)}

    def consumption(self, account_ids: Sequence[str]) -> list[Row]:
        """Return what live backfill rows have consumed of the accounts' executions."""
        return self.rows("select_consumption", {"account_ids": list(account_ids)})

    def pause_state(self, profile_ids: Sequence[str]) -> dict[str, PauseState]:
        """Return whether all or own trading is paused, by profile. No row, or an unknown state, is not paused."""
        rows = {
            row["scope"]: PauseState(
                paused=str(row["state"]).strip().upper() == "PAUSED",
                source=row["source"] or "",
                since=row["since"],
                reason=row["reason"] or "",
            )
            for row in self.rows("select_trading_control", {"profile_ids": list(profile_ids)})
        }
        everywhere = rows.pop(ALL_TRADING, RUNNING)
        return {
            profile_id: everywhere if everywhere.paused else rows.get(profile_id, everywhere)
            for profile_id in profile_ids
        }

    def pause_rows(self, profile_ids: Sequence[str]) -> dict[str, list[Pause]]:
        """Return the pauses that hold for each profile: its own and that of all trading; none where trading runs."""
        paused = [
            Pause(row["scope"], row["source"] or "", int(row["since"].timestamp() * 1000))
            for row in self.rows("select_trading_control", {"profile_ids": list(profile_ids)})
            if str(row["state"]).strip().upper() == "PAUSED"
        ]
        return {
            profile: [pause for pause in paused if pause.scope in {profile, ALL_TRADING}] for profile in profile_ids
        }

    def audit_available(self) -> bool:
        """Return whether the audit table is there with its columns and takes rows."""
        return bool(self.rows("select_audit_available", {"columns": list(AUDIT_COLUMNS)})[0]["available"])
