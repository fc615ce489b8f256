"""The runbook's queries, run by the pipeline: the same text an operator pastes from ``sql/exit_backfill_runbook.sql``.

What belongs here: one method per query. What does not: judging the answers (asset checks, the runbook's reader).
"""

from __future__ import annotations

from typing import NamedTuple

from recon_pipeline.ledger.database import READER, Row
from recon_pipeline.ledger.session import Session


class LedgerFingerprint(NamedTuple):
    """What a profile's orders were at one moment; equal before and after a dry run."""

    order_rows: int
    backfill_rows: int
    fingerprint: str


class ExitBackfillRunbook(Session):
    """Reads only."""

    def __init__(self, database_url: str, *, application_name: str = "recon runbook") -> None:
        super().__init__(database_url, READER, application_name)

    def affected_trades(self, profile_id: str) -> list[Row]:
        """Return trades whose entries and exits differ (step 1)."""
        return self.rows("detect_affected_trades", {"profile_id": profile_id})

    def newest_decisions(self, profile_id: str) -> list[Row]:
        """Return the newest 200 audit rows (step 5)."""
        return self.rows("verify_dry_run", {"profile_id": profile_id})

    def fingerprint(self, profile_id: str) -> LedgerFingerprint:
        """Return what the profile's orders are now, to compare before and after a dry run (step 5)."""
        return LedgerFingerprint(**self.rows("dry_run_left_orders_unchanged", {"profile_id": profile_id})[0])

    def go_no_go(self, batch_id: str) -> Row:
        """Return whether the batch may be applied, with what speaks against it (step 6)."""
        return self.rows("go_no_go", {"batch_id": batch_id})[0]

    def backfill_rows(self, profile_id: str) -> list[Row]:
        """Return the backfill rows in the ledger, with what they consumed (step 7)."""
        return self.rows("validate_inserted_rows", {"profile_id": profile_id})

    def still_open(self, profile_id: str) -> list[Row]:
        """Return trades that are open in the ledger (step 8)."""
        return self.rows("open_lifecycle_after", {"profile_id": profile_id})

    def decision_counts(self, profile_id: str) -> list[Row]:
        """Return audit rows counted by decision and reason (step 8)."""
        return self.rows("decision_counts", {"profile_id": profile_id})

    def preview_rollback(self, batch_id: str) -> list[Row]:
        """Return what a rollback of the batch would do, row by row (step 9)."""
        return self.rows("preview_rollback", {"batch_id": batch_id})
