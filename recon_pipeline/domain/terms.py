"""The closed vocabularies: decisions, reasons, sides, actions, statuses, and how raw spellings become them.

What does not belong here: anything that looks at more than one value.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Decision(StrEnum):
    """What an audit row says became of a trade or of one proposed row."""

    DRY_RUN = "DRY_RUN"
    PENDING_APPLY = "PENDING_APPLY"
    APPLIED = "APPLIED"
    SKIP_EXISTING = "SKIP_EXISTING"
    SKIP_PENDING_ORDER = "SKIP_PENDING_ORDER"
    SKIP_ACTIVE_POSITION = "SKIP_ACTIVE_POSITION"
    NO_GO = "NO_GO"


class SkippedReason(StrEnum):
    """Why a profile was not attempted at all, in the order of the gates."""

    DISABLED = "disabled"
    PROFILE_NOT_ALLOWLISTED = "profile_not_allowlisted"
    PAUSE_REQUIRED = "pause_required"
    AUDIT_TABLE_MISSING = "audit_table_missing"
    EVIDENCE_INCOMPLETE = "evidence_incomplete"


class Reason(StrEnum):
    """Why a decision was taken. ``exchange_not_flat`` is followed by ``:<quantity>``."""

    ELIGIBLE = "eligible"
    INSERTED = "inserted"
    ALREADY_EXISTS = "already_exists"
    ID_COLLISION = "id_collision"
    PREVIOUSLY_REVERTED = "previously_reverted"
    PENDING_ORDER_BLOCKER = "pending_order_blocker"
    EXCHANGE_NOT_FLAT = "exchange_not_flat"
    DUST_BLOCKED_NOT_FLAT = "dust_remainder_blocked_exchange_not_flat"
    MISSING_EVIDENCE = "missing_fill_evidence_for_large_remainder"
    POSITION_UNKNOWN = "exchange_position_unknown"
    NO_PRICE = "no_price"


class RowDefect(StrEnum):
    """Why a ledger row can't be used; the trade it belongs to is NO_GO with this reason."""

    CONFLICTING_QUANTITIES = "conflicting_quantities"
    QUANTITY = "row_without_quantity"
    SIDE = "row_without_side"
    SYMBOL = "row_without_symbol"
    TIME = "row_without_time"
    CONFLICTING_ROWS = "conflicting_rows"
    CONFLICTING_SYMBOLS = "conflicting_symbols"
    CONFLICTING_ENTRY_SIDES = "conflicting_entry_sides"
    UNKNOWN_ENTRY_SIDE = "unknown_entry_side"
    EXIT_ON_ENTRY_SIDE = "exit_on_entry_side"


class NoEvidence(StrEnum):
    """Why nothing of an exchange order was allocated."""

    NOTHING_EXECUTED = "nothing_executed"
    NO_EXECUTED_QUANTITY = "no_executed_quantity"
    NO_ORDER_ID = "no_order_id"
    NO_SYMBOL = "no_symbol"
    NO_SIDE = "no_side"
    NO_EXECUTION_TIME = "no_execution_time"
    NO_EXECUTION_PRICE = "no_execution_price"
    NOT_AN_ORDER = "not_an_order"
    CONFLICTING_DUPLICATES = "conflicting_duplicates"
    OUTSIDE_LOOKBACK = "outside_lookback"
    REPRESENTED = "already_represented"
    BELOW_EPSILON = "below_epsilon"
    PENDING_IN_LEDGER = "pending_in_ledger"
    ENTRY_ORDER = "entry_order"
    FOREIGN_SUB_TAG = "foreign_sub_tag"
    CONTRADICTORY = "contradictory_attribution"
    AMBIGUOUS = "ambiguous_attribution"
    UNKNOWN_TRADE = "unknown_trade"
    FOREIGN_CLIENT_ORDER_ID = "foreign_client_order_id"
    UNATTRIBUTED = "unattributed"
    MALFORMED_SUB_TAG = "malformed_sub_tag"
    NO_OPEN_TRADE = "no_open_trade"
    TRADE_NOT_OPEN = "trade_not_open"
    TRADE_NOT_DECIDABLE = "trade_not_decidable"
    TRADE_UNMANAGED = "trade_out_of_scope"
    PENDING_BLOCKER = "pending_order_blocker"
    WRONG_SYMBOL = "symbol_of_another_trade"
    WRONG_SIDE = "not_the_exit_side"
    TOO_OLD = "before_trade"
    TRADE_COVERED = "trade_already_covered"
    NO_UNIQUE_MATCH = "no_unique_match"
    PROFILE_SKIPPED = "profile_skipped"
    HELD_BACK = "held_back"
    ALREADY_EXISTS = "already_exists"
    ID_COLLISION = "id_collision"
    PREVIOUSLY_REVERTED = "previously_reverted"


class MatchMethod(StrEnum):
    """How an exchange order was attributed to a trade, strongest first."""

    TRADE_ID = "trade_id"
    SUB_TAG = "sub_tag"
    CLIENT_ORDER_ID = "client_order_id"
    QTY_UNIQUE = "qty_unique"
    SINGLE_OPEN_TRADE = "single_open_trade"
    DUST = "dust"


class PositionGate(StrEnum):
    """``RECON_EXIT_BACKFILL_POSITION_GATE``: what the exchange position must say before evidence is proposed."""

    FLAT = "flat"
    FLAT_OR_PARITY = "flat_or_parity"
    EVIDENCE = "evidence"


BUY: Final = "BUY"
SELL: Final = "SELL"
ENTRY: Final = "ENTRY"
EXIT: Final = "EXIT"

_SIDES: Final = {"buy": BUY, "long": BUY, "sell": SELL, "short": SELL}
_ACTIONS: Final = {
    "entry": ENTRY,
    "open": ENTRY,
    "buy_to_open": ENTRY,
    "sell_to_open": ENTRY,
    "exit": EXIT,
    "close": EXIT,
    "buy_to_close": EXIT,
    "sell_to_close": EXIT,
}
FILLED_STATUSES: Final = frozenset({"filled", "partially_filled"})
"""Statuses of the ledger whose quantity counts."""
UNKNOWN_STATUS: Final = "unknown"
"""Status of a row whose order the exchange has denied for so long that a person has to decide. It may still execute."""
FINAL_UNFILLED_STATUSES: Final = frozenset(
    {"canceled", "expired", "rejected", "replaced", "done_for_day", "failed", "error"}
)
"""Statuses of the ledger under which an order is over and books nothing. Any other status blocks its trade."""


def opposite(side: str) -> str:
    """The side that closes a position opened by ``side``."""
    return SELL if side == BUY else BUY


def normalise_side(raw: object) -> str:
    """BUY or SELL from buy, long, sell, short in any case; anything else is ``''``: an unknown side is not a buy."""
    return _SIDES.get(raw.strip().lower(), "") if isinstance(raw, str) else ""


def normalise_action(raw: object) -> str:
    """ENTRY or EXIT; ``''`` where the text names no action, which is then inferred from the side."""
    return _ACTIONS.get(raw.strip().lower().replace("-", "_").replace(" ", "_"), "") if isinstance(raw, str) else ""


def normalise_status(raw: object) -> str:
    """Lower case, ``-`` and space as ``_``, ``cancelled`` as ``canceled``; ``''`` where there is none."""
    if not isinstance(raw, str):
        return ""
    status = raw.strip().lower().replace("-", "_").replace(" ", "_")
    return "canceled" if status == "cancelled" else status
