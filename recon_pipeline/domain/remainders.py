"""Why something stays open: one decision with its reason for every remainder and for every id that speaks against a row.

What does not belong here: what is proposed (``proposing``) and what the position gate holds back (``decisions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.account_state import AccountState
from recon_pipeline.domain.frames import DECISIONS, NO_TIME, frame_of
from recon_pipeline.domain.plan import DUST_PREFIX
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.proposing import Proposals, dust_time
from recon_pipeline.domain.quantities import EPSILON_E9, EXACT, decimal_text_e9, integer_array
from recon_pipeline.domain.terms import Decision, NoEvidence, Reason

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ID_DECISIONS: Final = {
    NoEvidence.ALREADY_EXISTS.value: Decision.SKIP_EXISTING.value,
    NoEvidence.ID_COLLISION.value: Decision.NO_GO.value,
    NoEvidence.PREVIOUSLY_REVERTED.value: Decision.NO_GO.value,
}


_NO_MONEY: Final = Decimal(0)


@dataclass(frozen=True)
class Explained:
    """Everything that a remainder's reason depends on, aligned with the slices."""

    state: AccountState
    orders: pd.DataFrame
    proposed: Proposals
    own: Bools
    held: Bools
    held_qty: Sequence[int | None]
    flat: Bools
    no_price: Bools
    dust_sized: Bools
    spoiled: Bools
    dust_trades: frozenset[int]
    uncovered: NDArray[Any]
    remaining: NDArray[Any]
    price: NDArray[Any]
    used: Ints
    unmatched: int


def explain(x: Explained, policy: ExitBackfillPolicy) -> tuple[pd.DataFrame, list[str], list[str]]:
    """The decisions that propose nothing, and per slice the reason of its remainder and its outcome."""
    slices = x.state.slices
    size = len(slices)
    reasons = [""] * size
    closes_something = np.zeros(size, dtype=bool)
    closes_something[x.proposed.trade[(x.proposed.reason == "") & ~x.held[x.proposed.trade]]] = True
    outcomes = np.where(np.asarray(x.remaining <= EPSILON_E9, dtype=bool), "covered", "proposed").tolist()
    by_trade: dict[int, list[int]] = {}
    for index in np.flatnonzero(x.proposed.reason != ""):
        by_trade.setdefault(int(x.proposed.trade[index]), []).append(int(index))
    open_or_bad = np.asarray(x.remaining > EPSILON_E9, dtype=bool) | x.state.defective | x.state.pending | x.held
    rows: list[tuple[object, ...]] = []
    for index in np.flatnonzero(x.own & open_or_bad):
        # A trade that is held back has one row, about all of it.
        own_rows = [] if x.held[index] else [_id_row(x, at) for at in by_trade.get(int(index), ())]
        decision, reason, quantity = _remainder(x, int(index))
        if decision:
            own_rows.append(_row(x, int(index), decision, reason, quantity, policy))
        reasons[index] = reason or str(own_rows[0][4])
        if not closes_something[index]:
            any_no_go = any(row[3] == Decision.NO_GO.value for row in own_rows)
            outcomes[index] = "no_go" if any_no_go else "skipped"
        rows.extend(own_rows)
    if not rows:
        return DECISIONS.empty(), reasons, outcomes
    data: dict[str, Any] = dict(zip(DECISIONS.names, zip(*rows, strict=True), strict=True))
    data["qty_e9"] = integer_array(list(data["qty_e9"]))
    data["filled_at_ms"] = np.array(data["filled_at_ms"], dtype=np.int64)
    return frame_of(DECISIONS, data), reasons, outcomes


def _remainder(x: Explained, index: int) -> tuple[str, str, int]:
    """(decision, reason, quantity) of what one trade leaves open; an empty decision where its id rows say it all."""
    state = x.state
    opened = int(state.columns["open_e9"][index])
    if state.defective[index]:
        return Decision.NO_GO.value, str(state.columns["defect"][index]), opened
    if state.pending[index]:
        return Decision.SKIP_PENDING_ORDER.value, Reason.PENDING_ORDER_BLOCKER.value, opened
    position = x.held_qty[index]
    if x.held[index]:
        if position is None:
            return Decision.NO_GO.value, Reason.POSITION_UNKNOWN.value, int(x.remaining[index])
        return Decision.SKIP_ACTIVE_POSITION.value, _not_flat(position), int(x.remaining[index])
    quantity = int(x.uncovered[index])
    if quantity <= EPSILON_E9:
        return "", "", 0
    if index in x.dust_trades or (x.spoiled[index] and x.dust_sized[index]):
        # The remainder's fate is that of the row whose id speaks against it.
        return "", "", 0
    if position is None:
        return Decision.NO_GO.value, Reason.POSITION_UNKNOWN.value, quantity
    if not x.flat[index] and x.used[index] == 0:
        return Decision.SKIP_ACTIVE_POSITION.value, _not_flat(position), quantity
    if not x.flat[index] and x.dust_sized[index]:
        return Decision.SKIP_ACTIVE_POSITION.value, Reason.DUST_BLOCKED_NOT_FLAT.value, quantity
    if x.no_price[index]:
        return Decision.NO_GO.value, Reason.NO_PRICE.value, quantity
    return Decision.NO_GO.value, Reason.MISSING_EVIDENCE.value, quantity


def _not_flat(position: int) -> str:
    return f"{Reason.EXCHANGE_NOT_FLAT.value}:{decimal_text_e9(abs(position))}"


def notional(price: Decimal | None, quantity: int) -> Decimal | None:
    """Money of a quantity, in exact digits; None where no price is known."""
    if price is None:
        return None
    if not quantity:
        return _NO_MONEY
    return EXACT.multiply(price, quantity).scaleb(-9, context=EXACT).normalize(context=EXACT)


def _row(
    x: Explained, index: int, decision: str, reason: str, quantity: int, policy: ExitBackfillPolicy
) -> tuple[object, ...]:
    """A decision about a whole trade, with the numbers behind it under the names of the source system."""
    slices = x.state.columns
    position = x.held_qty[index]
    metadata: dict[str, object] = {
        "openQty": decimal_text_e9(int(slices["open_e9"][index])),
        "evidenceRows": int(x.used[index]),
        "evidenceRowsUsed": int(x.used[index]),
        "remaining": decimal_text_e9(quantity),
        "dustThreshold": decimal_text_e9(int(x.state.dust[index])),
        "unmatchedEvidenceCount": x.unmatched,
        "exchangeOpenQty": None if position is None else decimal_text_e9(position),
        "symbolIsFlat": None if position is None else bool(x.flat[index]),
        "requireStrongAttribution": policy.require_strong_attribution,
        "allowHeuristicMatch": policy.allow_heuristic_match,
        "fillAfterTradeGraceMs": policy.grace_ms,
        "actionInferred": bool(slices["action_inferred"][index]),
    }
    return (
        slices["profile_id"][index],
        slices["trade_id"][index],
        slices["symbol"][index],
        decision,
        reason,
        quantity,
        notional(x.price[index], quantity),
        "",
        "",
        "",
        None,
        NO_TIME,
        metadata,
    )


def _id_row(x: Explained, at: int) -> tuple[object, ...]:
    """A decision about one backfill id that the ledger already holds."""
    proposed = x.proposed
    index, source = int(proposed.trade[at]), int(proposed.source[at])
    slices, orders = x.state.columns, x.orders
    trade_id = slices["trade_id"][index]
    quantity = int(proposed.quantity[at])
    is_dust = source < 0
    price = x.price[index] if is_dust else orders["price"].iloc[source]
    last = int(proposed.source[(proposed.trade == index) & (proposed.source >= 0)].max(initial=-1))
    reason = str(proposed.reason[at])
    return (
        slices["profile_id"][index],
        trade_id,
        slices["symbol"][index],
        _ID_DECISIONS[reason],
        reason,
        quantity,
        notional(price, quantity),
        DUST_PREFIX + trade_id if is_dust else orders["order_id"].iloc[source],
        "" if is_dust else orders["client_order_id"].iloc[source],
        proposed.order_id[at],
        price,
        dust_time(x.state.slices, orders, last, index) if is_dust else int(orders["executed_at_ms"].iloc[source]),
        {"openQty": decimal_text_e9(int(slices["open_e9"][index]))},
    )
