"""Decisions: what becomes of each open trade once evidence is allocated.

Covered quantity becomes proposals unless its id or the position gate holds it back; a small, cheap remainder of a flat
symbol becomes dust; every other remainder stays open with exactly one reason. What does not belong here: which evidence a
trade gets (``attribution``, ``allocation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.account_state import AccountState, Allocated, Outcome
from recon_pipeline.domain.allocation import sum_by
from recon_pipeline.domain.dust import fee_allowance_e9, is_affordable
from recon_pipeline.domain.frames import EVIDENCE, TRADES, frame_of
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.proposing import ExistingIds, Proposals, cite, joined, proposal_frame, propose_dust
from recon_pipeline.domain.quantities import EPSILON_E9, to_e9
from recon_pipeline.domain.remainders import Explained, explain, notional
from recon_pipeline.domain.terms import SELL, NoEvidence, PositionGate, Reason

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def decide(
    state: AccountState,
    orders: pd.DataFrame,
    represented: NDArray[Any],
    allocated: Allocated,
    rows: pd.DataFrame,
    over_exits: pd.DataFrame,
    policy: ExitBackfillPolicy,
) -> Outcome:
    """The outcome of one account from its allocation.

    :param orders: deduplicated EXCHANGE_ORDERS, oldest first
    :param rows: deduplicated LIFECYCLE_ROWS of the account, for the ids that exist
    """
    slices = state.slices
    size = len(slices)
    own = np.asarray(state.own & state.managed, dtype=bool)
    ids = ExistingIds(rows, state.existing_order_ids)
    cited = cite(state, orders, allocated, ids, policy)
    last_used = np.full(size, -1, dtype=np.int64)
    last_used[cited.trade] = cited.source
    price = slices["entry_price"].to_numpy(dtype=object).copy()
    highest_exit = slices["highest_exit_price"].to_numpy()
    used = np.flatnonzero(last_used >= 0)
    price[used] = orders["price"].to_numpy()[last_used[used]]

    opened = slices["open_e9"].to_numpy()
    uncovered = opened - sum_by(cited.trade, cited.quantity, size)
    refused = np.isin(cited.reason.astype(str), [Reason.ID_COLLISION.value, Reason.PREVIOUSLY_REVERTED.value])
    spoiled = np.zeros(size, dtype=bool)
    spoiled[cited.trade[refused]] = True
    held_qty = [state.positions.quantity(token) for token in slices["symbol_token"]]
    abs_e9 = to_e9(policy.dust_abs_qty, floor=True)
    flat = np.array([quantity is not None and abs(quantity) <= abs_e9 for quantity in held_qty], dtype=bool)

    judged = own & ~state.pending & ~state.defective
    open_rest = np.asarray(uncovered > EPSILON_E9, dtype=bool)
    small = np.asarray(uncovered <= state.dust, dtype=bool) & open_rest
    fee = np.asarray(uncovered <= fee_allowance_e9(slices, policy), dtype=bool)
    no_price = np.zeros(size, dtype=bool)
    affordable = np.zeros(size, dtype=bool)
    for index in np.flatnonzero(small & judged):
        if price[index] is None:
            no_price[index] = True
            continue
        # What was too expensive at its execution's price is not cheaper once that execution is recorded as an exit.
        recorded = highest_exit[index] if last_used[index] < 0 else None
        worth = price[index] if recorded is None else max(price[index], recorded)
        affordable[index] = fee[index] or is_affordable(int(uncovered[index]), worth, policy)
    # A trade of which nothing was ever closed is no remainder, however small it is.
    part_closed = np.asarray(slices["exit_e9"].to_numpy() > 0, dtype=bool) | (last_used >= 0)
    dust_sized = small & (affordable | no_price) & part_closed
    is_dust = judged & dust_sized & flat & ~no_price & ~spoiled
    dust = propose_dust(state, orders, is_dust, uncovered, last_used, price, ids, policy)
    proposed = joined(cited, dust)

    held = _held_back(state, proposed, held_qty, flat, policy)
    keep = (proposed.reason == "") & ~held[proposed.trade]
    evidence_rows = keep & (proposed.source >= 0)
    allocated_e9 = sum_by(proposed.trade[evidence_rows], proposed.quantity[evidence_rows], size)
    dust_rows = keep & (proposed.source < 0)
    dust_e9 = sum_by(proposed.trade[dust_rows], proposed.quantity[dust_rows], size)
    remaining = opened - allocated_e9 - dust_e9

    decisions, reasons, outcomes = explain(
        Explained(
            state=state,
            orders=orders,
            proposed=proposed,
            own=own,
            held=held,
            held_qty=held_qty,
            flat=flat,
            no_price=no_price & small & judged & part_closed,
            dust_sized=dust_sized,
            spoiled=spoiled,
            dust_trades=frozenset(int(index) for index in dust.trade),
            uncovered=uncovered,
            remaining=remaining,
            price=price,
            used=sum_by(cited.trade, np.ones(len(cited.trade), dtype=np.int64), size),
            unmatched=int(np.count_nonzero((allocated.reasons != "") & (orders["defect"].to_numpy() == ""))),
        ),
        policy,
    )
    trades = frame_of(
        TRADES,
        {
            "profile_id": slices["profile_id"],
            "trade_id": slices["trade_id"],
            "symbol": slices["symbol"],
            "open_e9": opened,
            "allocated_e9": allocated_e9,
            "dust_e9": dust_e9,
            "remaining_e9": remaining,
            "notional_usd": [notional(p, q) for p, q in zip(price.tolist(), remaining.tolist(), strict=True)],
            "outcome": outcomes,
            "reason": reasons,
        },
    )
    return Outcome(
        slices=slices[own].reset_index(drop=True),
        trades=trades[own].reset_index(drop=True),
        proposals=proposal_frame(state, orders, proposed, keep, allocated, price, last_used),
        decisions=decisions,
        evidence=_evidence_frame(state, orders, represented, allocated, proposed, keep, held),
        over_exits=over_exits.reset_index(drop=True),
        unmanaged=slices[state.own & ~state.managed].reset_index(drop=True),
    )


def _held_back(
    state: AccountState,
    proposed: Proposals,
    held_qty: Sequence[int | None],
    flat: Bools,
    policy: ExitBackfillPolicy,
) -> Bools:
    """Which trades' proposals the position gate holds back."""
    held = np.zeros(len(state.slices), dtype=bool)
    if policy.position_gate is PositionGate.EVIDENCE:
        return held
    live = proposed.reason == ""
    touched = np.zeros(len(held), dtype=bool)
    touched[proposed.trade[live]] = True
    held = touched & ~flat
    if policy.position_gate is PositionGate.FLAT or not held.any():
        return held
    # Parity: after the plan the ledger's signed quantity, of every profile of the account, is what the exchange holds.
    # What an undecidable trade holds is not known; one without a symbol may hold any.
    sign = np.where(state.exit_side == SELL, 1, -1)
    closing = sum_by(proposed.trade[live], proposed.quantity[live], len(held))
    left = state.slices["open_e9"].to_numpy() - closing
    fees = np.where(np.asarray(left > EPSILON_E9, dtype=bool), fee_allowance_e9(state.slices, policy), 0)
    tokens = state.slices["symbol_token"].tolist()
    codes = {token: code for code, token in enumerate(dict.fromkeys(tokens))}
    of_symbol = np.array([codes[token] for token in tokens], dtype=np.int64)
    undecidable = np.zeros(len(codes), dtype=bool)
    undecidable[of_symbol[state.defective]] = True
    if "" in codes and undecidable[codes[""]]:
        return held
    closed = sum_by(of_symbol, sign * closing, len(codes)).tolist()
    fee = sum_by(of_symbol, fees, len(codes)).tolist()
    position = dict(zip(tokens, held_qty, strict=True))
    abs_e9 = to_e9(policy.dust_abs_qty, floor=True)
    explained = np.zeros(len(codes), dtype=bool)
    for token, code in codes.items():
        quantity = position[token]
        if quantity is not None and not undecidable[code]:
            projected = state.projected.get(token, 0) - closed[code]
            explained[code] = abs(projected - quantity) <= max(abs_e9, fee[code])
    return held & ~explained[of_symbol]


def _evidence_frame(
    state: AccountState,
    orders: pd.DataFrame,
    represented: NDArray[Any],
    allocated: Allocated,
    proposed: Proposals,
    keep: Bools,
    held: Bools,
) -> pd.DataFrame:
    """Per order of the account what was executed, represented, allocated and left, and why nothing was allocated."""
    given = allocated.taken * 0
    kept = keep & (proposed.source >= 0)
    given[proposed.source[kept]] = proposed.quantity[kept]
    reasons = allocated.reasons.copy()
    for at in np.flatnonzero(~keep & (proposed.source >= 0)):
        reason = proposed.reason[at] or (NoEvidence.HELD_BACK.value if held[proposed.trade[at]] else "")
        reasons[proposed.source[at]] = reason
    executed = orders["executed_e9"].to_numpy()
    # A heuristic match is not in the keys: its trade is that of the allocation.
    found, of = allocated.attributions, allocated.trade
    matched = (found.trade == "") & (of >= 0)
    profiles, trades = found.profile, found.trade
    if matched.any():
        profiles = np.where(matched, state.slices["profile_id"].to_numpy()[of], profiles)
        trades = np.where(matched, state.slices["trade_id"].to_numpy()[of], trades)
    columns: dict[str, Any] = {
        "account_id": orders["account_id"],
        "order_id": orders["order_id"],
        "client_order_id": orders["client_order_id"],
        "symbol": orders["symbol"],
        "side": orders["side"],
        "profile_id": profiles,
        "trade_id": trades,
        "matched_by": allocated.method,
        "executed_e9": executed,
        "represented_e9": represented,
        "allocated_e9": given,
        "excess_e9": executed - represented - given,
        "price": orders["price"],
        "executed_at_ms": orders["executed_at_ms"],
        "reason": reasons,
    }
    return frame_of(EVIDENCE, columns)
