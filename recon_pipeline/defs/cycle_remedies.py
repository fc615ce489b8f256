"""What an operator does about a reason of the cycle: one sentence each, shown beside the reason in the UI.

The runbook says the same at more length. Not here: the reasons of the exit backfill (``remedies``), and the words themselves
(``domain``).
"""

from typing import Final

from recon_pipeline.defs import remedies
from recon_pipeline.domain.corrections import Stage

SEE_RUNBOOK: Final = "See the runbook."

_SWITCH: Final[dict[Stage, str]] = {
    Stage.ORDER_PARITY: "ENABLE_RECON_ORDER_PARITY",
    Stage.ORDER_COVERAGE: "ENABLE_RECON_ORDER_COVERAGE",
    Stage.EXIT_BACKFILL: "ENABLE_RECON_EXIT_BACKFILL",
    Stage.INTEGRITY_WATCHDOG: "ENABLE_RECON_INTEGRITY_WATCHDOG",
    Stage.SUB_TAG_REPAIR: "ENABLE_RECON_SUB_TAG_REPAIR",
    Stage.POSITION_PARITY: "ENABLE_RECON_POSITION_PARITY_HEARTBEAT",
}
SKIPPED: Final[dict[str, str]] = {
    **remedies.SKIPPED,
    "evidence_incomplete": "The exchange could not be read completely, so nothing is concluded from it. The next cycle reads "
    "again; if it stays, evidence_reasons below says why.",
    "pause_required": "The backfill wants trading to be paused. Leave it, or pause_trading and launch reconcile again.",
    remedies.LEASE_HELD: "Another run works on the profile: the next cycle takes it. If it stays, operations_board names "
    "the holder.",
    "unsupported": "The table orders has no column sub_tag: add it, or set ENABLE_RECON_SUB_TAG_REPAIR=false.",
    "exchange": "The account could not be read: its keys and address (`recon doctor`), or the exchange. The next cycle reads "
    "again.",
}
FINDINGS: Final[dict[str, str]] = {**remedies.REASONS}
POSTPONED: Final[dict[str, str]] = {
    "row_changed": "A bot changed the row meanwhile: the next cycle decides it again.",
    "already_exists": "Somebody inserted the row meanwhile: the next cycle compares it.",
    "evidence_already_consumed": "Another row took the executed quantity meanwhile: the next cycle counts again.",
}


def for_skipped_stage(stage: Stage, reason: str) -> str:
    """Return what to do about a stage that was not attempted."""
    if reason == "disabled":
        return f"Switched off: {_SWITCH.get(stage, 'its setting')} is false."
    return SKIPPED.get(reason, SEE_RUNBOOK)


def for_skipped(reason: str) -> str:
    """Return what to do about a profile whose cycle was skipped."""
    return SKIPPED.get(reason, SEE_RUNBOOK)


def for_finding(reason: str) -> str:
    """Return what to do about a finding, or about a trade that is out of line; what follows a colon is its number."""
    return FINDINGS.get(reason.partition(":")[0], SEE_RUNBOOK)


def for_postponed(reason: str) -> str:
    """Return what to do about a correction that was not written."""
    return POSTPONED.get(reason, "The next cycle decides it again.")
