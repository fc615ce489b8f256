"""The exit backfill: from one snapshot of ledger and exchange to the plan that closes ghosts, and nothing else.

One account is one allocation problem: its profiles share the exchange's orders and position, so they are planned
together. The steps are gates, slices, evidence, attribution, allocation, decisions; each has its own module.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.account_slices import account_slices
from recon_pipeline.domain.account_state import AccountState, Allocated, Outcome
from recon_pipeline.domain.allocation import allocate, sum_by
from recon_pipeline.domain.attribution import Attributions, KnownTrades, attribute_orders
from recon_pipeline.domain.decisions import decide
from recon_pipeline.domain.dust import dust_threshold_e9
from recon_pipeline.domain.evidence import deduplicate_orders, evidence_defects, represented_quantities
from recon_pipeline.domain.frames import (
    DECISIONS,
    EVIDENCE,
    EXCHANGE_ORDERS,
    LIFECYCLE_ROWS,
    NO_TIME,
    POSITIONS,
    PROPOSALS,
    SLICES,
    TRADES,
    rows_of,
)
from recon_pipeline.domain.gates import skipped_profiles
from recon_pipeline.domain.matching import unique_pairs
from recon_pipeline.domain.pending import PendingOrders, find_pending
from recon_pipeline.domain.plan import ExitBackfillInputs, ExitBackfillPlan, check_conservation, proposals_digest
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.positions import AccountPositions
from recon_pipeline.domain.quantities import EPSILON_E9
from recon_pipeline.domain.slices import deduplicate_rows, in_display_order
from recon_pipeline.domain.terms import BUY, MatchMethod, NoEvidence, SkippedReason

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
_PROFILE_RESULT: Final = [
    "profile_id",
    "user_id",
    "account_id",
    "batch_id",
    "attempted",
    "skipped_reason",
    "skipped_detail",
    "open_trade_candidates",
    "digest",
]


def plan_exit_backfill(
    inputs: ExitBackfillInputs, policy: ExitBackfillPolicy, *, now_ms: int | None
) -> ExitBackfillPlan:
    """Plan the backfill of every selected profile.

    :param now_ms: the instant of the snapshot, for the look-back; None applies no look-back
    :raises ConservationError: the plan does not add up (a defect of this program)
    :raises ValueError: a ledger row names a profile that ``inputs.profiles`` does not hold, or a profile occurs twice
    """
    with _no_collections():
        return _plan(inputs, policy, now_ms)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Plan without cyclic garbage collection: millions of objects are made, none in a cycle, and looking costs a sixth."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _plan(inputs: ExitBackfillInputs, policy: ExitBackfillPolicy, now_ms: int | None) -> ExitBackfillPlan:
    members = list(rows_of(inputs.profiles))
    account_of = {member.profile_id: member.account_id for member in members}
    if len(account_of) < len(members):
        raise ValueError("inputs.profiles names a profile twice; give one row per profile")
    skipped = skipped_profiles(inputs.profiles, policy)
    since = NO_TIME if now_ms is None else now_ms - policy.lookback_ms
    attempted: dict[str, set[str]] = {}
    members_of: dict[str, list[Any]] = {}
    for member in members:
        members_of.setdefault(member.account_id, []).append(member)
        if member.selected and not skipped[member.profile_id]:
            attempted.setdefault(member.account_id, set()).add(member.profile_id)
    rows = _by_account(inputs.lifecycle_rows, "profile_id", account_of)
    pending_rows = _by_account(inputs.pending_rows, "profile_id", account_of)
    orders = _by_account(inputs.exchange_orders, "account_id", None)
    positions = _by_account(inputs.positions, "account_id", None)
    parts = [
        _plan_account(
            account_id,
            members_of[account_id],
            frozenset(chosen),
            rows=rows.get(account_id, LIFECYCLE_ROWS.empty()),
            pending_rows=pending_rows.get(account_id, LIFECYCLE_ROWS.empty()),
            orders=orders.get(account_id, EXCHANGE_ORDERS.empty()),
            positions=AccountPositions.of(
                positions.get(account_id, POSITIONS.empty()), complete=account_id not in inputs.positions_unknown
            ),
            inputs=inputs,
            policy=policy,
            since_ms=since,
        )
        for account_id, chosen in sorted(attempted.items())
    ]
    return _assemble([member for member in members if member.selected], skipped, parts)


def _by_account(frame: pd.DataFrame, key: str, account_of: Mapping[str, str] | None) -> dict[str, pd.DataFrame]:
    """The frame's rows by account, in their order; ``key`` names the account, or a profile to be looked up."""
    codes, names = pd.factorize(frame[key].to_numpy())
    if account_of is not None:
        for name in names:
            if name not in account_of:
                raise ValueError(
                    f"a ledger row names profile {name!r}, which inputs.profiles does not hold; add it as context"
                )
        accounts = [account_of[name] for name in names]
    else:
        accounts = [str(name) for name in names]
    distinct = list(dict.fromkeys(accounts))
    if len(distinct) == 1:
        return {distinct[0]: frame}
    number = {account: code for code, account in enumerate(distinct)}
    account_code = np.array([number[account] for account in accounts], dtype=np.int64)[codes]
    order = np.argsort(account_code, kind="stable")
    bounds = np.searchsorted(account_code[order], np.arange(len(distinct) + 1))
    return {account: frame.iloc[order[bounds[i] : bounds[i + 1]]] for i, account in enumerate(distinct)}


def _plan_account(
    account_id: str,
    members: Sequence[Any],
    chosen: frozenset[str],
    *,
    rows: pd.DataFrame,
    pending_rows: pd.DataFrame,
    orders: pd.DataFrame,
    positions: AccountPositions,
    inputs: ExitBackfillInputs,
    policy: ExitBackfillPolicy,
    since_ms: int,
) -> Outcome:
    rows = deduplicate_rows(rows)
    orders = deduplicate_orders(orders)
    slices = account_slices(account_id, rows, orders, members)
    known_pairs = (
        pair
        for frame in (rows, pending_rows)
        for pair in zip(frame["profile_id"].tolist(), frame["trade_id"].tolist(), strict=True)
        if pair[1]
    )
    known = KnownTrades.of([member.profile_id for member in members], known_pairs)
    pending = find_pending(rows, pending_rows, known)

    defective = (slices["defect"] != "").to_numpy(dtype=bool)
    candidate = (slices["open_e9"].to_numpy() > EPSILON_E9) | defective
    over_exits = in_display_order(slices[(slices["open_e9"].to_numpy() < -EPSILON_E9) & ~defective])
    signed = slices["open_e9"].to_numpy() * np.where(slices["entry_side"].to_numpy() == BUY, 1, -1)
    codes, tokens = pd.factorize(slices["symbol_token"].to_numpy())
    projected = dict(zip(tokens.tolist(), sum_by(codes, signed, len(tokens)).tolist(), strict=True))
    candidates = in_display_order(slices[candidate])
    if defective.any():
        candidates["open_e9"] = np.maximum(candidates["open_e9"].to_numpy(), 0)

    state = _state(candidates, chosen, pending, positions, projected, policy, inputs.existing_order_ids)
    represented, unknown = represented_quantities(orders, rows, inputs.consumption)
    executed = orders["executed_e9"].to_numpy()
    represented = np.where(unknown, executed, np.minimum(represented, executed))
    capacity = executed - represented
    defects = evidence_defects(orders, capacity, unknown, pending.order_ids, since_ms)
    attributions = attribute_orders(orders, known, require_strong=policy.require_strong_attribution)
    allocated = _allocate(state, orders, capacity, defects, attributions, policy)
    return decide(state, orders, represented, allocated, rows, over_exits, policy)


def _state(
    candidates: pd.DataFrame,
    chosen: frozenset[str],
    pending: PendingOrders,
    positions: AccountPositions,
    projected: dict[str, int],
    policy: ExitBackfillPolicy,
    existing: frozenset[str],
) -> AccountState:
    profile_ids, tokens = candidates["profile_id"].to_numpy(), candidates["symbol_token"].to_numpy()
    trade_ids = candidates["trade_id"].to_numpy()
    own = np.array([profile in chosen for profile in profile_ids], dtype=bool)
    blocked = np.array(
        [pending.blocks(p, t, s) for p, t, s in zip(profile_ids, trade_ids, tokens, strict=True)], dtype=bool
    )
    return AccountState(
        slices=candidates,
        own=own,
        managed=candidates["managed"].to_numpy(dtype=bool),
        defective=(candidates["defect"] != "").to_numpy(dtype=bool),
        pending=blocked,
        positions=positions,
        projected=projected,
        dust=dust_threshold_e9(candidates, policy),
        existing_order_ids=existing,
    )


@dataclass(frozen=True)
class _Orders:
    """The columns of the account's orders that the allocation looks at."""

    token: NDArray[Any]
    side: NDArray[Any]
    time: Ints


def _allocate(
    state: AccountState,
    orders: pd.DataFrame,
    capacity: NDArray[Any],
    defects: NDArray[Any],
    attributions: Attributions,
    policy: ExitBackfillPolicy,
) -> Allocated:
    """Give evidence to trades: every strong order together, oldest first, then the heuristics."""
    slices = state.slices
    view = _Orders(
        orders["symbol_token"].to_numpy(), orders["side"].to_numpy(), orders["executed_at_ms"].to_numpy(dtype=np.int64)
    )
    at: dict[str, dict[str, int]] = {}
    for index, (profile, trade_id) in enumerate(
        zip(slices["profile_id"].tolist(), slices["trade_id"].tolist(), strict=True)
    ):
        at.setdefault(profile, {})[trade_id] = index
    none: dict[str, int] = {}
    pairs = zip(attributions.profile.tolist(), attributions.trade.tolist(), strict=True)
    trade = np.array([at.get(profile, none).get(trade_id, -1) for profile, trade_id in pairs], dtype=np.int64)
    named = attributions.trade != ""
    reasons = np.where(defects != "", defects, attributions.reason)
    method = attributions.method.copy()
    _explain_strong(state, view, trade, named, reasons, policy)

    taken = capacity * 0
    open_left = slices["open_e9"].to_numpy().copy()
    strong = np.flatnonzero(named & (reasons == ""))
    if len(strong):
        given = allocate(trade[strong], capacity[strong], open_left)
        taken[strong] = given
        reasons[strong[np.asarray(given == 0, dtype=bool)]] = NoEvidence.TRADE_COVERED.value
        open_left = open_left - sum_by(trade[strong], given, len(slices))
    free = attributions.heuristic & (defects == "")
    if policy.allow_heuristic_match and free.any() and len(slices):
        limits = attributions.profile
        _allocate_heuristics(state, view, capacity, free, limits, trade, method, reasons, taken, open_left, policy)
    return Allocated(trade=trade, taken=taken, method=method, reasons=reasons, attributions=attributions)


def _explain_strong(
    state: AccountState, view: _Orders, trade: Ints, named: Bools, reasons: NDArray[Any], policy: ExitBackfillPolicy
) -> None:
    """Say of each attributed order why its trade can't take it, where it can't."""
    slices = state.slices
    reasons[named & (trade < 0) & (reasons == "")] = NoEvidence.TRADE_NOT_OPEN.value
    index = np.flatnonzero(named & (trade >= 0) & (reasons == ""))
    if not len(index):
        return
    of = trade[index]
    exit_side = state.exit_side[of]
    earliest = slices["first_entry_ms"].to_numpy()[of] - policy.grace_ms
    checks = (
        (state.defective[of], NoEvidence.TRADE_NOT_DECIDABLE),
        (~state.managed[of], NoEvidence.TRADE_UNMANAGED),
        (~state.own[of], NoEvidence.PROFILE_SKIPPED),
        (state.pending[of], NoEvidence.PENDING_BLOCKER),
        (view.token[index] != slices["symbol_token"].to_numpy()[of], NoEvidence.WRONG_SYMBOL),
        (view.side[index] != exit_side, NoEvidence.WRONG_SIDE),
        (view.time[index] < earliest, NoEvidence.TOO_OLD),
    )
    for condition, reason in reversed(checks):
        reasons[index[np.asarray(condition, dtype=bool)]] = reason.value


def _allocate_heuristics(
    state: AccountState,
    view: _Orders,
    capacity: NDArray[Any],
    free: Bools,
    limits: NDArray[Any],
    trade: Ints,
    method: NDArray[Any],
    reasons: NDArray[Any],
    taken: NDArray[Any],
    open_left: NDArray[Any],
    policy: ExitBackfillPolicy,
) -> None:
    """Match orders without a hint by unique quantity, then by being the only open trade of their symbol.

    Every open trade of the account counts as a candidate, also those that can't take anything: an order that may belong to
    a pending trade or to another profile is not proven for this one. A symbol with an undecidable trade is left alone.
    """
    slices = state.slices
    tokens = slices["symbol_token"].to_numpy()
    codes = {token: code for code, token in enumerate(dict.fromkeys(tokens))}
    trade_token = np.array([codes[token] for token in tokens], dtype=np.int64)
    order_token = np.array([codes.get(token, -1) for token in view.token], dtype=np.int64).reshape(-1)
    undecidable = np.zeros(len(codes), dtype=bool)
    undecidable[trade_token[state.defective]] = True
    if "" in tokens[state.defective]:
        undecidable[:] = True
    usable = free & (order_token >= 0)
    reasons[free & ~usable] = NoEvidence.NO_OPEN_TRADE.value
    usable &= ~undecidable[np.maximum(order_token, 0)]
    reasons[free & (order_token >= 0)] = NoEvidence.NO_UNIQUE_MATCH.value

    profile = slices["profile_id"].to_numpy()
    takes = state.own & state.managed & ~state.pending & ~state.defective
    exit_is_buy = (state.exit_side == BUY).astype(np.int64)
    after = slices["newest_ms"].to_numpy(dtype=np.int64) - policy.grace_ms

    def assign(order: Ints, target: Ints, how: MatchMethod) -> None:
        fits = takes[target] & ((limits[order] == "") | (limits[order] == profile[target]))
        order, target = order[fits], target[fits]
        if not len(order):
            return
        given = allocate(target, capacity[order], open_left)
        used = np.asarray(given > 0, dtype=bool)
        taken[order], trade[order[used]], method[order[used]] = given, target[used], how.value
        reasons[order] = np.where(used, "", NoEvidence.TRADE_COVERED.value)
        np.subtract.at(open_left, target, given)

    needy = np.flatnonzero((open_left > EPSILON_E9) & ~undecidable[trade_token])
    offered = np.flatnonzero(usable)
    if len(needy) and len(offered):
        threshold = dust_threshold_e9(slices.iloc[needy], policy, quantity=open_left[needy], fee=False)
        pair = unique_pairs(
            trade_group=trade_token[needy] * 2 + exit_is_buy[needy],
            trade_low=open_left[needy] - threshold,
            trade_high=open_left[needy] + threshold,
            trade_after=after[needy],
            order_group=order_token[offered] * 2 + (view.side[offered] == BUY),
            order_quantity=capacity[offered],
            order_time=view.time[offered],
        )
        found = pair >= 0
        assign(offered[found], needy[pair[found]], MatchMethod.QTY_UNIQUE)

    count = np.bincount(trade_token, minlength=len(codes))
    only = np.full(len(codes), -1, dtype=np.int64)
    only[trade_token] = np.arange(len(slices))
    rest = np.flatnonzero(usable & np.asarray(taken == 0, dtype=bool))
    rest = rest[count[order_token[rest]] == 1]
    target = only[order_token[rest]]
    late = (view.side[rest] == state.exit_side[target]) & (view.time[rest] >= after[target])
    assign(rest[late], target[late], MatchMethod.SINGLE_OPEN_TRADE)


def _assemble(selected: Sequence[Any], skipped: Mapping[str, str], parts: Sequence[Outcome]) -> ExitBackfillPlan:
    def joined(frames: list[pd.DataFrame], empty: pd.DataFrame) -> pd.DataFrame:
        full = [frame for frame in frames if len(frame)]
        if not full:
            return empty
        return full[0] if len(full) == 1 else pd.concat(full, ignore_index=True)

    proposals = joined([part.proposals for part in parts], PROPOSALS.empty())
    trades = joined([part.trades for part in parts], TRADES.empty())
    evidence = joined([part.evidence for part in parts], EVIDENCE.empty())
    check_conservation(trades, evidence)
    candidates = Counter(trades["profile_id"].tolist())
    if len(selected) == 1:
        digests = {selected[0].profile_id: proposals_digest(proposals)}
    else:
        digests = {str(profile): proposals_digest(own) for profile, own in proposals.groupby("profile_id")}
    nothing = proposals_digest(PROPOSALS.empty())
    incomplete = SkippedReason.EVIDENCE_INCOMPLETE.value
    result = [
        (
            member.profile_id,
            member.user_id,
            member.account_id,
            member.batch_id,
            not skipped[member.profile_id],
            skipped[member.profile_id],
            member.evidence_defect if skipped[member.profile_id] == incomplete else "",
            candidates[member.profile_id],
            digests.get(member.profile_id, nothing),
        )
        for member in selected
    ]
    return ExitBackfillPlan(
        profiles=pd.DataFrame(result, columns=_PROFILE_RESULT, dtype=object),
        slices=joined([part.slices for part in parts], SLICES.empty()),
        trades=trades,
        proposals=proposals,
        decisions=joined([part.decisions for part in parts], DECISIONS.empty()),
        evidence=evidence,
        over_exits=joined([part.over_exits for part in parts], SLICES.empty()),
        unmanaged=joined([part.unmanaged for part in parts], SLICES.empty()),
    )
