"""What an operator does about a reason of the cycle: one sentence each, shown beside the reason in the UI.

The runbook says the same at more length. Not here: the reasons of the exit backfill (``remedies``), and the words themselves
(``domain``).
"""

from typing import Final

from recon_pipeline.apply.outcomes import POSTPONEMENTS, Postponed
from recon_pipeline.defs import remedies
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.coverage_rows import RECORDED_ELSEWHERE
from recon_pipeline.domain.data_health import OVER_EXIT, WITHOUT_ID, WITHOUT_STATUS, WITHOUT_TRADE
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.position_parity import POSITION_WITHOUT_TRADE
from recon_pipeline.domain.root_causes import RootCause
from recon_pipeline.domain.synthetic_exits import ParityReason
from recon_pipeline.domain.terms import Reason
from recon_pipeline.domain.watchdog import WatchdogReason
from recon_pipeline.ledger.cycle_state import LEASE_HELD
from recon_pipeline.order_status.syncing import NOT_LIVE
from recon_pipeline.order_status.writing import CHANGED_SINCE_PREVIEW

SEE_RUNBOOK: Final = "See the runbook."

_SWITCH: Final[dict[Stage, str]] = {
    Stage.ORDER_PARITY: "ENABLE_RECON_ORDER_PARITY",
    Stage.ORDER_STATUS: "ENABLE_RECON_ORDER_STATUS_SYNC",
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
    "exchange_position_unknown": "The positions could not be read: the next cycle reads again.",
    "unsupported_column": "The table orders has no column sub_tag: add it, or set ENABLE_RECON_SUB_TAG_REPAIR=false.",
    LEASE_HELD: "Another run works on the profile: the next cycle takes it. If it stays, operations_board names "
    "the holder.",
}
_PARITY: Final[dict[str, str]] = {
    ParityReason.OVER_EXIT: "Its exits are more than its entries: find the exit that is recorded twice, or the entry "
    "that is missing.",
    ParityReason.UNMANAGED: "The symbol is out of scope, so no cycle closes it. Close the trade by hand, or manage "
    "the symbol again.",
    ParityReason.MIXED_SIDES: "Open trades on both sides of the symbol: compare each with the exchange's fills, close "
    "the ghost by hand.",
    ParityReason.UNDECIDABLE: "Another trade of the symbol has unusable rows: correct those first.",
    ParityReason.CONTRADICTORY: "A row carries a sub-tag of another profile or trade: find out whose order it is, "
    "correct the row.",
    ParityReason.UNATTRIBUTED: "Its entries carry no sub-tag of the profile: let sub_tag_repair run, or see at the "
    "exchange whose they are.",
    ParityReason.NOT_FLAT: "The account still holds some of the symbol. Compare ledger and exchange: a part was closed, or "
    "somebody else trades the symbol on this account.",
    ParityReason.PENDING: "An order of the trade or the symbol may still fill: the cycle waits for it.",
    ParityReason.EVIDENCE_WAITING: "The exit backfill has evidence for it: see proposed_backfill_rows; apply it, or "
    "see what blocks it.",
    ParityReason.UNBOOKED: "An order of it executed what nothing represents: order_coverage or the exit backfill "
    "books it first.",
    ParityReason.UNCLEAR: "An execution on its exit side names the profile but not one trade: decide whose it is (order_coverage "
    "shows its keys), and correct the trade.",
    ParityReason.NO_PRICE: "No entry price is known: close it by hand.",
    ParityReason.PREVIOUSLY_REVERTED: "Its synthetic exit was canceled: by later evidence, or by hand. Close it by "
    "hand if it is gone.",
    ParityReason.ALREADY_EXISTS: "Its synthetic exit is there: the next cycle sees it.",
    ParityReason.AWAITING: "Nothing yet: it is closed once the same mismatch was confirmed often enough.",
    ParityReason.CLOSES: "Nothing: this cycle closes it; in a dry run, RECON_POSITION_PARITY_DRY_RUN=false would.",
    POSITION_WITHOUT_TRADE: "The account holds what no trade explains: opened by hand or by another program, or its "
    "entry is lost.",
    f"watchdog_{WatchdogReason.CAPITAL_UNKNOWN}": "The watchdog can't judge: set the profile's allocated capital in "
    "the table profiles.",
    f"watchdog_{WatchdogReason.PRICE_UNKNOWN}": "The watchdog can't judge: an open trade has no entry price. "
    "Correct its entry rows.",
    Reason.POSITION_UNKNOWN: "The position could not be read: the next cycle reads again.",
}
_ORDERS: Final[dict[str, str]] = {
    OrderReason.LEDGER_AHEAD: "The row says more than the exchange executed; rows are never reduced. Compare both, "
    "correct the row by hand.",
    OrderReason.CONFLICTING_DUPLICATES: "Several rows name one order and differ: decide which is right, cancel the others.",
    OrderReason.CONFLICTING_SIDE: "Row and order have different sides: one of them is not this order. Correct the "
    "row's id or side.",
    OrderReason.CONFLICTING_SYMBOL: "Row and order have different symbols: correct the row's id or symbol.",
    OrderReason.CONFLICTING_ACTION: "The row says entry and the order's keys say exit, or the reverse: correct the row.",
    OrderReason.CONFLICTING_OWNER: "The order's keys name another profile or trade than its row: find out whose it is.",
    OrderReason.TWO_ORDERS: "The row's two ids are two different orders: decide which it is, correct the other id.",
    OrderReason.UNREADABLE_ROW: "The row can't be read: correct its quantities.",
    OrderReason.UNUSABLE_ORDER: "The exchange's record can't be used; the detail says why. Look the order up at the "
    "exchange.",
    OrderReason.NO_TRADE: "The row names no trade: add its trade_id.",
    OrderReason.NO_ACTION: "Nobody knows whether it enters or leaves: set the row's action.",
    OrderReason.NO_TIME: "The exchange gives no time for it: look it up there.",
    OrderReason.OUT_OF_SCOPE: "Its symbol is not managed: manage the symbol, or leave it.",
    OrderReason.EXECUTED_BUT_UNKNOWN: "The ledger says it executed, the exchange does not know it: wrong account or "
    "wrong id. Look it up.",
    OrderReason.MARKED_UNKNOWN: "The exchange has not known this order for so long that its row says unknown, and it blocks its "
    "trade. Decide: correct the row's id, or cancel it with stale_order_cleanup (cancel_unknown).",
    OrderReason.NOT_MARKED_UNKNOWN: "Nothing was decided: the row does not say unknown, or it says that something executed. "
    "Read the row again.",
    OrderReason.UNMAPPED_TRADE: "A live order of the profile names no trade: record it by hand, or cancel it at the "
    "exchange.",
    OrderReason.AMBIGUOUS: "Several profiles or trades fit the order's keys: decide whose it is, record it by hand.",
    OrderReason.CONTRADICTORY: "The order's keys contradict each other: decide whose it is, record it by hand.",
    OrderReason.DUPLICATES_WITHOUT_ORDER: "Two rows name one order that was not read: look it up, cancel the wrong row.",
    OrderReason.OVER_REPRESENTED: "Rows of one order say more than it executed: find the row that is not its, cancel it.",
    RECORDED_ELSEWHERE: "A profile of another account has recorded this account's order: move or correct that row.",
}
_COVERAGE: Final[dict[str, str]] = {
    "contradictory_owner": "The order's keys name different profiles or trades, this one among them: decide whose it is, record "
    "it by hand.",
    "ambiguous_owner": "The order's keys fit several profiles or trades, this one among them: decide whose it is, record it by "
    "hand.",
    "missing_order_id": "The exchange sent an order without id: look at the account's orders.",
    "missing_fill_data": "Quantity, price or time of its execution are missing: the next cycle reads again; if it "
    "stays, look it up.",
    "unmapped_trade": "It is the profile's, and names no trade: record it by hand under its trade.",
    "unmapped_action": "It is the trade's, and nobody knows whether it enters or leaves: record it by hand.",
    "exit_of_unknown_trade": "An exit whose trade the ledger does not know: record the entry first.",
    "entry_not_recorded_yet": "Nothing: its entry is recorded first.",
    "consumed_without_row": "A backfill says it used this order, and its row is gone: compare recon.consumption with orders.",
    "unreadable_backfill_row": "A backfill row of this order can't be read: correct the row.",
    "represented_by_another_row": "Part of it is represented by another row: compare both, record the rest by hand.",
    "represented_by_another_trade": "A row of another trade represents it: decide which trade it is.",
    "conflicting_symbols": "Its rows name another symbol: correct them.",
    "conflicting_sides": "Its rows have another side: correct them.",
    "maybe_recorded_under_another_id": "A row without its id has the same quantity and time: decide whether it is this "
    "order; if so, add the id to the row.",
    "open_row_may_be_this_order": "An open row of the trade may be this order: the cycle waits for order parity.",
}
_TAGS: Final[dict[str, str]] = {
    "unsupported_column": "The table orders has no column sub_tag: add it, or set ENABLE_RECON_SUB_TAG_REPAIR=false.",
    "contradictory_sub_tag": "The order's keys and its row name different owners: decide whose it is, set the tag by hand.",
}
_READING: Final[dict[str, str]] = {
    OVER_EXIT: "More was exited than entered: find the exit that is recorded twice, or the entry that is missing.",
    WITHOUT_ID: "A row has no order id: add it, or cancel the row.",
    WITHOUT_TRADE: "A row names no trade: add its trade_id.",
    WITHOUT_STATUS: "A row has no status: set it.",
    RECORDED_ELSEWHERE: _ORDERS[RECORDED_ELSEWHERE],
}
FINDINGS: Final[dict[Stage, dict[str, str]]] = {
    Stage.READING: _READING,
    Stage.ORDER_PARITY: _ORDERS,
    Stage.ORDER_COVERAGE: _COVERAGE,
    Stage.SUB_TAG_REPAIR: _TAGS,
    Stage.POSITION_PARITY: _PARITY,
    Stage.INTEGRITY_WATCHDOG: _PARITY,
    Stage.ORDER_STATUS: _ORDERS,
}
"""By stage: one word may want something else of a person in another stage. Beside them all: those of the exit backfill."""

POSTPONED_SYNC: Final[dict[str, str]] = {
    LEASE_HELD: "Another run works on the profile: the next run of the sync asks about its orders again.",
    NOT_LIVE: "The row is over by now, or gone: there is nothing to decide any more.",
    CHANGED_SINCE_PREVIEW: "The row or its order is not what the preview showed: preview again.",
}
"""Of the order status sync, beside those that every correction has."""

ROOT_CAUSES: Final[dict[str, str]] = {
    RootCause.MISSED_EXECUTION: "an execution that the ledger has not booked",
    RootCause.MANUAL_CLOSE: "closed by hand",
    RootCause.FOREIGN_PROFILE: "traded by somebody else",
    RootCause.CRYPTO_FEE: "the exchange's fee, taken in the coin",
    RootCause.SPLIT: "a split or another corporate action",
    RootCause.OUTSIDE_LOOKBACK: "older than the look-back",
}


def for_skipped_stage(stage: Stage, reason: str) -> str:
    """Return what to do about a stage that was not attempted."""
    if reason == "disabled":
        return f"Switched off: {_SWITCH.get(stage, 'its setting')} is false."
    return SKIPPED.get(reason, SEE_RUNBOOK)


def for_skipped(reason: str) -> str:
    """Return what to do about a profile whose cycle was skipped."""
    return SKIPPED.get(reason, SEE_RUNBOOK)


def for_finding(stage: Stage, reason: str) -> str:
    """Return what to do about a finding, or about a trade that is out of line; what follows a colon is its number."""
    word = reason.partition(":")[0]
    return FINDINGS.get(stage, {}).get(word) or remedies.REASONS.get(word, SEE_RUNBOOK)


def for_postponed(reason: str) -> str:
    """Return why a correction was not written, and what happens next."""
    if reason in POSTPONED_SYNC:
        return POSTPONED_SYNC[reason]
    try:
        return f"{POSTPONEMENTS[Postponed(reason)].capitalize()}. The next cycle decides it again."
    except ValueError:
        return f"{remedies.for_refusal(reason).capitalize()}."


def root_cause(word: str) -> str:
    """Return a root cause as people say it; empty where the facts say nothing."""
    return ROOT_CAUSES.get(word, word)
