"""What an operator does about a word of the order status sync and of the stream: one sentence each, shown beside it.

The runbook says the same at more length. Not here: the findings that the sync shares with order parity (``cycle_remedies``), and
the words themselves (``domain.order_status``).
"""

from typing import Final

from recon_pipeline.apply.outcomes import Postponed
from recon_pipeline.defs import cycle_remedies
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.order_answers import CheckOutcome, CheckReason
from recon_pipeline.domain.order_events import StreamState

GONE: Final = "gone"
"""A stream whose process gave no sign of life for a minute: what nobody is left to say."""

OUTCOMES: Final[dict[CheckOutcome, str]] = {
    CheckOutcome.NOT_CHECKED: "not asked about yet: the next run asks, those never asked about first.",
    CheckOutcome.LIVE: "nothing: the exchange holds it as live, so it waits rightly.",
    CheckOutcome.IN_LINE: "nothing: the order is over, and the row says so.",
    CheckOutcome.DIFFERS: "to be written, and only shown in a dry run: RECON_ORDER_STATUS_DRY_RUN=false lets the sync write it.",
    CheckOutcome.UPDATED: "nothing: the row was corrected.",
    CheckOutcome.MISSING: "the exchange does not know it. Order parity cancels it after several cycles that say the same; "
    "after RECON_ORDER_UNKNOWN_AFTER_HOURS it is marked unknown.",
    CheckOutcome.MARKED_UNKNOWN: "the exchange does not know it, and it blocks its trade until you decide. Wrong account or id? "
    "Correct the row. Never placed? Cancel it with stale_order_cleanup (cancel_unknown).",
    CheckOutcome.HELD: "found, and something speaks against writing it.",
    CheckOutcome.OUTDATED: "nothing: the ledger knows more than the answer did. The next run asks again.",
    CheckOutcome.POSTPONED: "nothing yet: its row or its evidence changed meanwhile, the next run decides anew.",
    CheckOutcome.FAILED: "no answer that counts, so nothing is concluded. It is asked about again, later each time; if it stays, "
    "see the account's keys and the exchange's status page.",
}
REASONS: Final[dict[str, str]] = {
    CheckReason.QUIET: "The row moved a moment ago, and its bot may be writing the same.",
    CheckReason.DOUBLED: "Another row of the same order is kept, and is corrected first.",
    CheckReason.ROW_IS_OVER: "The row is over, and its order lives and executed more: order parity decides.",
    CheckReason.STAND_IN_ELSEWHERE: "A backfill row represents executions of the order: order parity decides.",
    CheckReason.PLACED_AT_UNKNOWN: "The row does not say when it was placed, so it never is old enough to become unknown: set "
    "its created_at, or correct its status.",
    CheckReason.OTHER_ORDER: "The exchange answered with another order than the row names: correct the row's ids.",
    CheckReason.EVIDENCE_INCOMPLETE: "The account could not be worked on: the next run asks again.",
}
"""Of the words that a check's detail may be, those that no finding and no postponed correction has."""
STREAM_STATES: Final[dict[str, str]] = {
    StreamState.LISTENING: "",
    StreamState.CONNECTING: "It is connecting. If it stays, see the error and the network.",
    StreamState.DOWN: "It was refused or lost, and tries again by itself: the error says why.",
    StreamState.STOPPED: "Its process was ended: start `recon stream` again. Until then the sync and the cycle do its work.",
    GONE: "Its process gives no sign of life: see whether `recon stream` runs. Until then the sync and the cycle do its work.",
}


def for_outcome(word: str, detail: str = "") -> str:
    """Return what to do about the outcome of a check.

    :param detail: its detail: where that is a word, it says why the row was left, and what to do about that is added
    """
    try:
        said = OUTCOMES[CheckOutcome(word)]
    except ValueError:
        return cycle_remedies.SEE_RUNBOOK
    return " ".join(filter(None, [said, _for_detail(detail)]))


def _for_detail(detail: str) -> str:
    word = detail.partition(":")[0]
    if word in REASONS:
        return REASONS[word]
    if word in cycle_remedies.FINDINGS[Stage.ORDER_STATUS]:
        return for_finding(word)
    known = word in list(Postponed) or word in cycle_remedies.POSTPONED_SYNC
    return cycle_remedies.for_postponed(word) if known else ""


def for_stream(state: str) -> str:
    """Return what to do about a stream in that state."""
    return STREAM_STATES.get(state, cycle_remedies.SEE_RUNBOOK)


def for_finding(reason: str) -> str:
    """Return what to do about a finding: the sync corrects by the rules of order parity, and its words are the same."""
    return cycle_remedies.for_finding(Stage.ORDER_STATUS, reason)
