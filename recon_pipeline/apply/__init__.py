"""The only writer of the bots' tables: plans and corrections applied, rolled back and verified; trading paused and resumed.

What belongs here: transactions, and the gates that are checked inside them. What does not: deciding what to write
(``domain``), reading the ledger for a plan (``ledger``), settings and Dagster.

Modules: ``outcomes`` (what an apply, a rollback, a verification answer), ``records`` (a plan as a document),
``dry_run``, ``applying``, ``gates`` (what the applying transaction checks), ``books`` (positions, trade history,
capital), ``rolling_back``, ``verifying``, ``control``; for the corrections of a cycle ``corrections``, ``correction_gates``,
``correction_rows``, ``correction_books``.

Guarantees
----------
1. A refusal is a value with a reason and writes nothing to the bots' tables; a caller's mistake raises.
2. PENDING_APPLY is committed before anything else; everything that changes the ledger is one transaction behind it.
3. APPLIED is said of what the database inserted, never of what was meant to be.
4. No executed quantity is used twice, whoever applies at the same time: it is counted under the account's lock.
5. A crash at any moment leaves either nothing or everything; running the same work again ends in the same ledger.
6. A rollback changes only rows that are as the batch left them, and says of every other one why it stays.
"""

from recon_pipeline.apply.applying import apply_plan, find_stuck_batches
from recon_pipeline.apply.control import TradingState, set_trading_state
from recon_pipeline.apply.corrections import apply_corrections
from recon_pipeline.apply.dry_run import record_plan
from recon_pipeline.apply.outcomes import (
    POSTPONEMENTS,
    ApplyResult,
    ApplyState,
    BatchVerification,
    Check,
    CorrectionResult,
    Postponed,
    RecordedPlan,
    RefusedReason,
    RollbackResult,
    RollbackState,
)
from recon_pipeline.apply.rolling_back import preview_rollback, rollback_batch
from recon_pipeline.apply.verifying import verify_batch

__all__ = [
    "POSTPONEMENTS",
    "ApplyResult",
    "ApplyState",
    "BatchVerification",
    "Check",
    "CorrectionResult",
    "Postponed",
    "RecordedPlan",
    "RefusedReason",
    "RollbackResult",
    "RollbackState",
    "TradingState",
    "apply_corrections",
    "apply_plan",
    "find_stuck_batches",
    "preview_rollback",
    "record_plan",
    "rollback_batch",
    "set_trading_state",
    "verify_batch",
]
