"""Synthetic exits: the row that closes a trade which the exchange does not hold, and why a trade is (not yet) given one.

What does not belong here: whether a trade is out of line and how often that was confirmed (``position_parity``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from recon_pipeline.domain.corrections import Handler, OrderChange
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.parity_facts import PARITY_PREFIX
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9
from recon_pipeline.domain.terms import EXIT, RowDefect, opposite


class ParityReason(StrEnum):
    """Why a trade that is out of line is not closed (yet), in the order in which the first that holds is given.

    Before them all: the slice's own defect (``terms.RowDefect``).
    """

    OVER_EXIT = "over_exit"
    """its exits are more than its entries: rows are wrong, nothing is open"""
    UNMANAGED = "trade_out_of_scope"
    MIXED_SIDES = "mixed_sides"
    """open trades on both sides of the symbol: the sum can't say whose ghost it is"""
    UNDECIDABLE = "undecidable_trade_in_symbol"
    """another trade of the symbol has a defect: the sum can't be trusted"""
    CONTRADICTORY = "contradictory_attribution"
    """a row carries a sub-tag of another profile or trade"""
    UNATTRIBUTED = "unattributed"
    """not all that was entered carries a sub-tag of the profile"""
    NOT_FLAT = "exchange_not_flat"
    PENDING = "pending_order"
    """an order of the trade or the symbol may still fill, in the ledger or at the exchange"""
    EVIDENCE_WAITING = "evidence_waiting"
    """the exit backfill proposes, holds back or blocks evidence for it"""
    UNBOOKED = "unbooked_execution"
    """an order of the trade executed quantity that nothing in the ledger represents: that is booked first"""
    UNCLEAR = "unclear_execution"
    """an execution on its exit side names its profile, and not which trade: a person says whose it is"""
    NO_PRICE = "no_price"
    PREVIOUSLY_REVERTED = "previously_reverted"
    """its synthetic exit is there, canceled"""
    ALREADY_EXISTS = "already_exists"
    """its synthetic exit is there: the slices are older than the ledger"""
    AWAITING = "awaiting_confirmation"
    CLOSES = "synthetic_exit"
    """nothing speaks against it: this cycle closes it, unless it is a dry run"""


QUARANTINED: Final = frozenset(
    {
        ParityReason.MIXED_SIDES.value,
        ParityReason.UNDECIDABLE.value,
        ParityReason.CONTRADICTORY.value,
        ParityReason.UNATTRIBUTED.value,
        ParityReason.UNCLEAR.value,
        *(defect.value for defect in RowDefect),
    }
)
"""Whose ghost it is, or what it holds, is not proven: set aside, whatever the confirmations."""
BLOCKING: Final = frozenset(
    {ParityReason.PENDING.value, ParityReason.EVIDENCE_WAITING.value, ParityReason.UNBOOKED.value}
)
"""Something is under way that may explain it: a cycle under one of them confirms nothing."""
RESOLVES_ITSELF: Final = BLOCKING | {
    ParityReason.AWAITING.value,
    ParityReason.CLOSES.value,
    ParityReason.ALREADY_EXISTS.value,
}
"""A later cycle may act on it; any other reason needs a person once it is confirmed."""


def synthetic_order_id(profile_id: str, trade_id: str, entry_e9: int, exit_e9: int, newest_ms: int) -> str:
    """``PARITY-<md5(profile:trade:entry:exit:newest row ms)>``, the quantities as plain decimal text.

    The same state of a trade has the same id, whoever closes it; a trade that is opened again has another.
    """
    text = f"{profile_id}:{trade_id}:{decimal_text_e9(entry_e9)}:{decimal_text_e9(exit_e9)}:{int(newest_ms)}"
    return PARITY_PREFIX + hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def order_id_of(trade: Any) -> str:
    """The id of the synthetic exit of a SLICES row."""
    return synthetic_order_id(
        trade.profile_id, trade.trade_id, int(trade.entry_e9), int(trade.exit_e9), int(trade.newest_ms)
    )


def synthetic_exit(trade: Any, *, filled_at_ms: int, sub_tag: str, cause: Mapping[str, object]) -> OrderChange:
    """The insert that closes all that a SLICES row leaves open, at its entries' average price.

    There is no execution to take price and time from: the price that realises nothing is the one that invents nothing, and
    the time is the first at which the exchange was seen not to hold it.

    :param trade: a row of SLICES, open, with an entry side and an entry price
    """
    quantity = decimal_text_e9(int(trade.open_e9))
    return OrderChange(
        profile_id=trade.profile_id,
        trade_id=trade.trade_id,
        order_id=order_id_of(trade),
        handler=Handler.SYNTHETIC_EXIT,
        values={
            "user_id": trade.user_id,
            "profile_id": trade.profile_id,
            "order_id": order_id_of(trade),
            "trade_id": trade.trade_id,
            "symbol": trade.symbol,
            "type": "market",
            "side": opposite(trade.entry_side),
            "action": EXIT,
            "qty": quantity,
            "quantity": quantity,
            "filled_qty": quantity,
            "price": decimal_text(trade.entry_price),
            "status": "filled",
            "timestamp": str(int(filled_at_ms)),
            "filled_at": iso_ms(filled_at_ms),
            "source": "RECON",
            "sub_tag": sub_tag or None,
        },
        expected=None,
        cause={"rule": "synthetic_exit", "synthetic": True, **cause},
    )
