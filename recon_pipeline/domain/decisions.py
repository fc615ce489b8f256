"""Decisions: what becomes of each open trade once evidence is allocated.

Covered quantity becomes proposals unless its id or the position gate holds it back; a small, cheap remainder of a flat
symbol becomes dust; every other remainder stays open with exactly one reason. What does not belong here: which evidence a
trade gets (``attribution``, ``allocation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.allocation import sum_by
from recon_pipeline.domain.attribution import Attribution
from recon_pipeline.domain.dust import fee_allowance_e9, is_affordable
from recon_pipeline.domain.frames import DECISIONS, EVIDENCE, NO_TIME, PROPOSALS, TRADES, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import BACKFILL_PREFIX, DUST_PREFIX, backfill_order_id
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.positions import AccountPositions
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9, exact_arithmetic, integer_array, to_e9
from recon_pipeline.domain.terms import (
    BUY,
    FILLED_STATUSES,
    SELL,
    Decision,
    MatchMethod,
    NoEvidence,
    PositionGate,
    Reason,
)

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_ID_DECISIONS: Final = {
    NoEvidence.ALREADY_EXISTS.value: Decision.SKIP_EXISTING.value,
    NoEvidence.ID_COLLISION.value: Decision.NO_GO.value,
    NoEvidence.PREVIOUSLY_REVERTED.value: Decision.NO_GO.value,
}


_NO_MONEY: Final = Decimal(0)


@dataclass(frozen=True)
class AccountState:
    """The open trades of one account and what surrounds them; arrays are aligned with ``slices``."""

    slices: pd.DataFrame
    own: Bools
    """the profile is selected and attempted"""
    managed: Bools
    defective: Bools
    pending: Bools
    positions: AccountPositions
    projected: dict[str, int]
    """signed quantity that the ledger holds per symbol token, before the plan"""
    dust: NDArray[Any]
    """largest remainder that can be dust"""
    existing_order_ids: frozenset[str]

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The slices as plain lists by column, for the loops over single trades."""
        return {name: self.slices[name].tolist() for name in self.slices.columns}

    @cached_property
    def exit_side(self) -> NDArray[Any]:
        """The side that closes each trade; empty where the entry side is not known."""
        entry = self.slices["entry_side"].to_numpy()
        return np.where(entry == BUY, SELL, np.where(entry == SELL, BUY, ""))


@dataclass(frozen=True)
class Allocated:
    """The allocation of one account; arrays are aligned with its orders, oldest first."""

    trade: Ints
    """position of the order's trade in the slices, -1 for none"""
    taken: NDArray[Any]
    method: NDArray[Any]
    reasons: NDArray[Any]
    """why nothing was taken; empty where something was"""
    attributions: Sequence[Attribution]


@dataclass(frozen=True)
class Outcome:
    """The plan of one account, in frames as in ``plan.ExitBackfillPlan``."""

    slices: pd.DataFrame
    trades: pd.DataFrame
    proposals: pd.DataFrame
    decisions: pd.DataFrame
    evidence: pd.DataFrame
    over_exits: pd.DataFrame
    unmanaged: pd.DataFrame


@dataclass
class _Proposals:
    """Proposed rows as columns; ``trade`` and ``source`` are positions of the slice and of the order (-1 for dust)."""

    trade: Ints
    source: Ints
    quantity: NDArray[Any]
    order_id: list[str]
    reason: NDArray[Any]
    """empty: propose; otherwise why its id speaks against it"""
    reapply: Bools


class _ExistingIds:
    """What the ledger says of a backfill id."""

    def __init__(self, rows: pd.DataFrame, known: frozenset[str]) -> None:
        ids = rows["order_id"].to_numpy()
        backfills = [index for index, order_id in enumerate(ids) if order_id.startswith(BACKFILL_PREFIX)]
        self._rows = {row.order_id: row for row in rows_of(rows.iloc[backfills])}
        self._known = known
        self.empty = not self._rows and not known

    def verdict(self, order_id: str, quantity: int, price: Decimal, *, reapply: bool) -> tuple[str, bool]:
        """(reason that speaks against the id or empty, whether it re-applies a canceled row)."""
        row = self._rows.get(order_id)
        if row is None:
            return (NoEvidence.ALREADY_EXISTS.value if order_id in self._known else ""), False
        agrees = not row.defect and int(row.qty_e9) == quantity and row.price == price
        if row.status == "canceled":
            if reapply:
                return ("", True) if agrees else (NoEvidence.ID_COLLISION.value, False)
            return NoEvidence.PREVIOUSLY_REVERTED.value, False
        if row.status in FILLED_STATUSES and agrees:
            return NoEvidence.ALREADY_EXISTS.value, False
        return NoEvidence.ID_COLLISION.value, False


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
    ids = _ExistingIds(rows, state.existing_order_ids)
    cited = _cite(state, orders, allocated, ids, policy)
    last_used = np.full(size, -1, dtype=np.int64)
    last_used[cited.trade] = cited.source
    price = slices["entry_price"].to_numpy(dtype=object).copy()
    used = np.flatnonzero(last_used >= 0)
    price[used] = orders["price"].to_numpy()[last_used[used]]

    opened = slices["open_e9"].to_numpy()
    uncovered = opened - sum_by(cited.trade, cited.quantity, size)
    refused = np.isin(cited.reason.astype(str), [Reason.ID_COLLISION.value, Reason.PREVIOUSLY_REVERTED.value])
    spoiled = np.zeros(size, dtype=bool)
    spoiled[cited.trade[refused]] = True
    held_qty = [state.positions.quantity(token) for token in slices["symbol_token"]]
    abs_e9 = to_e9(policy.dust_abs_qty, floor=True)
    unknown = np.array([quantity is None for quantity in held_qty], dtype=bool)
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
        else:
            affordable[index] = fee[index] or is_affordable(int(uncovered[index]), price[index], policy)
    # A trade of which nothing was ever closed is no remainder, however small it is.
    part_closed = np.asarray(slices["exit_e9"].to_numpy() > 0, dtype=bool) | (last_used >= 0)
    dust_sized = small & (affordable | no_price) & part_closed
    is_dust = judged & dust_sized & flat & ~no_price & ~spoiled
    dust = _dust(state, orders, is_dust, uncovered, last_used, price, ids, policy)
    proposed = _concat(cited, dust)

    held = _held_back(state, proposed, held_qty, flat, unknown, policy)
    keep = (proposed.reason == "") & ~held[proposed.trade]
    evidence_rows = keep & (proposed.source >= 0)
    allocated_e9 = sum_by(proposed.trade[evidence_rows], proposed.quantity[evidence_rows], size)
    dust_rows = keep & (proposed.source < 0)
    dust_e9 = sum_by(proposed.trade[dust_rows], proposed.quantity[dust_rows], size)
    remaining = opened - allocated_e9 - dust_e9

    decisions, reasons, outcomes = _explain(
        _Explained(
            state=state,
            orders=orders,
            proposed=proposed,
            own=own,
            held=held,
            held_qty=held_qty,
            flat=flat,
            unknown=unknown,
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
    trades = pd.DataFrame(
        {
            "profile_id": slices["profile_id"],
            "trade_id": slices["trade_id"],
            "symbol": slices["symbol"],
            "open_e9": opened,
            "allocated_e9": allocated_e9,
            "dust_e9": dust_e9,
            "remaining_e9": remaining,
            "notional_usd": pd.Series(
                [_notional(p, q) for p, q in zip(price.tolist(), remaining.tolist(), strict=True)], dtype=object
            ),
            "outcome": pd.Series(outcomes, dtype=object),
            "reason": pd.Series(reasons, dtype=object),
        },
        columns=TRADES.names,
    )
    return Outcome(
        slices=slices[own].reset_index(drop=True),
        trades=trades[own].reset_index(drop=True),
        proposals=_proposal_frame(state, orders, proposed, keep, allocated, price, last_used),
        decisions=decisions,
        evidence=_evidence_frame(state, orders, represented, allocated, proposed, keep, held),
        over_exits=over_exits.reset_index(drop=True),
        unmanaged=slices[state.own & ~state.managed].reset_index(drop=True),
    )


def _cite(
    state: AccountState, orders: pd.DataFrame, allocated: Allocated, ids: _ExistingIds, policy: ExitBackfillPolicy
) -> _Proposals:
    """One row per order that gives something, oldest first, with its backfill id and what speaks against it."""
    source = np.flatnonzero(np.asarray(allocated.taken > 0, dtype=bool))
    trade = allocated.trade[source]
    quantity = allocated.taken[source]
    profile = state.slices["profile_id"].to_numpy()[trade]
    trade_id = state.slices["trade_id"].to_numpy()[trade]
    moments = orders["executed_at_ms"].to_numpy(dtype=np.int64)[source].astype("datetime64[ms]")
    iso = [f"{text}Z" for text in np.datetime_as_string(moments)]
    exchange_ids = orders["order_id"].to_numpy()[source]
    keys = zip(profile, trade_id, exchange_ids, iso, strict=True)
    order_ids = [backfill_order_id(p, t, e, at) for p, t, e, at in keys]
    reason: NDArray[Any] = np.full(len(source), "", dtype=object)
    reapply = np.zeros(len(source), dtype=bool)
    if not ids.empty:
        prices = orders["price"].to_numpy()[source]
        for index, order_id in enumerate(order_ids):
            reason[index], reapply[index] = ids.verdict(
                order_id, int(quantity[index]), prices[index], reapply=policy.reapply_reverted
            )
    return _Proposals(trade, source, quantity, order_ids, reason, reapply)


def _dust(
    state: AccountState,
    orders: pd.DataFrame,
    is_dust: Bools,
    uncovered: NDArray[Any],
    last_used: Ints,
    price: NDArray[Any],
    ids: _ExistingIds,
    policy: ExitBackfillPolicy,
) -> _Proposals:
    trade = np.flatnonzero(is_dust)
    order_ids: list[str] = []
    reason: NDArray[Any] = np.full(len(trade), "", dtype=object)
    reapply = np.zeros(len(trade), dtype=bool)
    slices = state.slices
    for at, index in enumerate(trade):
        profile, trade_id = slices["profile_id"].iloc[index], slices["trade_id"].iloc[index]
        iso = iso_ms(_dust_time(slices, orders, int(last_used[index]), int(index)))
        order_ids.append(backfill_order_id(profile, trade_id, DUST_PREFIX + trade_id, iso))
        reason[at], reapply[at] = ids.verdict(
            order_ids[at], int(uncovered[index]), price[index], reapply=policy.reapply_reverted
        )
    return _Proposals(trade, np.full(len(trade), -1, dtype=np.int64), uncovered[trade], order_ids, reason, reapply)


def _dust_time(slices: pd.DataFrame, orders: pd.DataFrame, last_used: int, index: int) -> int:
    if last_used >= 0:
        return int(orders["executed_at_ms"].iloc[last_used])
    return int(slices["newest_ms"].iloc[index])


def _concat(first: _Proposals, second: _Proposals) -> _Proposals:
    if not len(second.trade):
        return first
    return _Proposals(
        np.concatenate([first.trade, second.trade]),
        np.concatenate([first.source, second.source]),
        np.concatenate([first.quantity, second.quantity]),
        first.order_id + second.order_id,
        np.concatenate([first.reason, second.reason]),
        np.concatenate([first.reapply, second.reapply]),
    )


def _held_back(
    state: AccountState,
    proposed: _Proposals,
    held_qty: Sequence[int | None],
    flat: Bools,
    unknown: Bools,
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
    sign = np.where(state.exit_side == SELL, 1, -1)
    closing = sum_by(proposed.trade[live], proposed.quantity[live], len(held))
    left = state.slices["open_e9"].to_numpy() - closing
    fees = np.where(np.asarray(left > EPSILON_E9, dtype=bool), fee_allowance_e9(state.slices, policy), 0)
    tokens = state.slices["symbol_token"].to_numpy()
    abs_e9 = to_e9(policy.dust_abs_qty, floor=True)
    undecidable = set(tokens[state.defective])
    for token in set(tokens[held & ~unknown]) - undecidable:
        of_symbol = tokens == token
        projected = state.projected.get(token, 0) - sum(int(q) for q in (sign * closing)[of_symbol])
        position = held_qty[int(np.flatnonzero(of_symbol)[0])]
        allowance = max(abs_e9, sum(int(fee) for fee in fees[of_symbol]))
        if position is not None and abs(projected - position) <= allowance:
            held &= ~of_symbol
    return held


@dataclass(frozen=True)
class _Explained:
    """Everything that a remainder's reason depends on, aligned with the slices."""

    state: AccountState
    orders: pd.DataFrame
    proposed: _Proposals
    own: Bools
    held: Bools
    held_qty: Sequence[int | None]
    flat: Bools
    unknown: Bools
    no_price: Bools
    dust_sized: Bools
    spoiled: Bools
    dust_trades: frozenset[int]
    uncovered: NDArray[Any]
    remaining: NDArray[Any]
    price: NDArray[Any]
    used: Ints
    unmatched: int


def _explain(x: _Explained, policy: ExitBackfillPolicy) -> tuple[pd.DataFrame, list[str], list[str]]:
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
        own_rows = [_id_row(x, at) for at in by_trade.get(int(index), ())]
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
    frame = pd.DataFrame(
        {
            name: values if isinstance(values, np.ndarray) else pd.Series(list(values), dtype=object)
            for name, values in data.items()
        }
    )
    return frame, reasons, outcomes


def _remainder(x: _Explained, index: int) -> tuple[str, str, int]:
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


def _notional(price: Decimal | None, quantity: int) -> Decimal | None:
    """Money of a quantity, in exact digits; None where no price is known."""
    if price is None:
        return None
    if not quantity:
        return _NO_MONEY
    with exact_arithmetic():
        return (price * quantity).scaleb(-9).normalize()


def _row(
    x: _Explained, index: int, decision: str, reason: str, quantity: int, policy: ExitBackfillPolicy
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
        _notional(x.price[index], quantity),
        "",
        "",
        "",
        None,
        NO_TIME,
        metadata,
    )


def _id_row(x: _Explained, at: int) -> tuple[object, ...]:
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
        _notional(price, quantity),
        DUST_PREFIX + trade_id if is_dust else orders["order_id"].iloc[source],
        "" if is_dust else orders["client_order_id"].iloc[source],
        proposed.order_id[at],
        price,
        _dust_time(x.state.slices, orders, last, index) if is_dust else int(orders["executed_at_ms"].iloc[source]),
        {"openQty": decimal_text_e9(int(slices["open_e9"][index]))},
    )


def _proposal_frame(
    state: AccountState,
    orders: pd.DataFrame,
    proposed: _Proposals,
    keep: Bools,
    allocated: Allocated,
    price: NDArray[Any],
    last_used: Ints,
) -> pd.DataFrame:
    """The kept proposals as a PROPOSALS frame, in the order of the trades, a trade's oldest first and its dust last."""
    at = np.flatnonzero(keep)
    if not len(at):
        return PROPOSALS.empty()
    dust_last = np.where(proposed.source[at] < 0, np.iinfo(np.int64).max, proposed.source[at])
    at = at[np.lexsort((dust_last, proposed.trade[at]))]
    trade, source = proposed.trade[at], proposed.source[at]
    is_dust = source < 0
    # Dust copies price, time and tag of the last used execution.
    cited = np.where(is_dust, last_used[trade], source)
    slices = state.slices

    def of_order(name: str, default: NDArray[Any]) -> NDArray[Any]:
        values = orders[name].to_numpy()
        return np.where(cited >= 0, values[np.maximum(cited, 0)], default) if len(values) else default

    def text(name: str) -> NDArray[Any]:
        return slices[name].to_numpy()[trade]

    dust_ids = np.array([DUST_PREFIX + trade_id for trade_id in text("trade_id")], dtype=object)
    empty: NDArray[Any] = np.full(len(at), "", dtype=object)
    columns: dict[str, Any] = {
        "profile_id": text("profile_id"),
        "user_id": text("user_id"),
        "account_id": text("account_id"),
        "trade_id": text("trade_id"),
        "symbol": text("symbol"),
        "symbol_token": text("symbol_token"),
        "side": state.exit_side[trade],
        "order_id": np.array([proposed.order_id[index] for index in at], dtype=object),
        "qty_e9": proposed.quantity[at],
        "price": np.where(is_dust, price[trade], of_order("price", price[trade])),
        "filled_at_ms": of_order("executed_at_ms", slices["newest_ms"].to_numpy()[trade]).astype(np.int64),
        "exchange_order_id": np.where(is_dust, dust_ids, of_order("order_id", empty)),
        "exchange_client_order_id": np.where(is_dust, empty, of_order("client_order_id", empty)),
        "sub_tag": of_order("sub_tag", empty),
        "matched_by": np.where(
            is_dust,
            MatchMethod.DUST.value,
            allocated.method[np.maximum(source, 0)] if len(allocated.method) else empty,
        ),
        "reapply": proposed.reapply[at],
    }
    return pd.DataFrame(
        {
            name: pd.Series(v, dtype=object) if v.dtype.kind in "OU" and name != "qty_e9" else v
            for name, v in columns.items()
        }
    )


def _evidence_frame(
    state: AccountState,
    orders: pd.DataFrame,
    represented: NDArray[Any],
    allocated: Allocated,
    proposed: _Proposals,
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
    profiles: list[str] = []
    trades: list[str] = []
    names = list(zip(state.slices["profile_id"], state.slices["trade_id"], strict=True))
    for attribution, trade in zip(allocated.attributions, allocated.trade, strict=True):
        profile, trade_id = attribution.trade or (names[trade] if trade >= 0 else (attribution.profile, ""))
        profiles.append(profile)
        trades.append(trade_id)
    columns: dict[str, Any] = {
        "account_id": orders["account_id"],
        "order_id": orders["order_id"],
        "client_order_id": orders["client_order_id"],
        "symbol": orders["symbol"],
        "side": orders["side"],
        "profile_id": pd.Series(profiles, dtype=object),
        "trade_id": pd.Series(trades, dtype=object),
        "matched_by": pd.Series(allocated.method, dtype=object),
        "executed_e9": executed,
        "represented_e9": represented,
        "allocated_e9": given,
        "excess_e9": executed - represented - given,
        "price": orders["price"],
        "executed_at_ms": orders["executed_at_ms"],
        "reason": pd.Series(reasons, dtype=object),
    }
    return pd.DataFrame(columns, columns=EVIDENCE.names)
