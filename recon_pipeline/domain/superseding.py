"""Superseding: rows that say what another row says too are given up, so that nothing executed is booked twice.

Three kinds. Backfill rows of an order whose own row (with them) says more than was executed; a row that names an order which
another row of the same profile and trade names by its other id; synthetic exits of a trade that later evidence over-exits.
Nothing is deleted: the row is canceled, and the evidence that took its place is its cause. What does not belong here: what a
row says of its own order (``order_parity``).

Which rows go
-------------
backfill rows   one whose quantity is exactly what is too much, else the newest first until the rest fits
doubled rows    the one not keyed by the exchange's id, else the newer one
synthetic exits the newest first while more was exited than entered
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from recon_pipeline.domain.account_orders import AccountOrders, accounts_of
from recon_pipeline.domain.corrections import Finding, OrderChange
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_changes import facts_of, superseded
from recon_pipeline.domain.order_draft import OrderDraft
from recon_pipeline.domain.order_matching import (
    OrderClass,
    as_lifecycle_rows,
    class_of_status,
    contradictions,
    is_recent,
    keep_first,
    match_rows,
    rows_after,
)
from recon_pipeline.domain.order_objections import Objection, OrderReason, order_objection
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9
from recon_pipeline.domain.slices import build_slices
from recon_pipeline.domain.stage_plan import in_finding_order
from recon_pipeline.domain.stand_ins import SYNTHETIC_PREFIX, StandIns, newest_first, stand_ins_of
from recon_pipeline.domain.terms import FILLED_STATUSES


@dataclass(frozen=True)
class SupersedingPlan:
    """The rows of selected profiles to give up, and what could not be given up though it should."""

    changes: tuple[OrderChange, ...]
    findings: tuple[Finding, ...]


def plan_superseding(
    inputs: CycleInputs, *, now_ms: int, policy: OrderParityPolicy, corrected: Sequence[OrderChange] = ()
) -> SupersedingPlan:
    """The rows that selected profiles have to give up, in the order of their ids.

    :param corrected: changes that will be written with these, of any profile: what the rows say then is what counts
    """
    return supersede(accounts_of(inputs), inputs.consumption, now_ms=now_ms, policy=policy, corrected=corrected)


def supersede(
    accounts: Iterable[AccountOrders],
    consumption: pd.DataFrame,
    *,
    now_ms: int,
    policy: OrderParityPolicy,
    corrected: Sequence[OrderChange],
) -> SupersedingPlan:
    """What ``plan_superseding`` says, of accounts that were cut already."""
    changes: list[OrderChange] = []
    findings: list[Finding] = []
    for account in accounts:
        wanted = frozenset(account.wanted)
        own = [change for change in corrected if change.profile_id in account.profiles]
        after = _after(account, own)
        draft = OrderDraft(wanted)
        given_up = _doubled(after, draft, policy=policy, now_ms=now_ms)
        given_up |= _backfills(after, consumption, given_up, draft)
        _synthetic(after, given_up, draft)
        changes += [change for change in draft.changes if change.profile_id in wanted]
        findings += draft.findings
    changes.sort(key=lambda change: (change.profile_id, change.trade_id, change.order_id))
    return SupersedingPlan(tuple(changes), in_finding_order(findings))


def _after(account: AccountOrders, changes: Sequence[OrderChange]) -> AccountOrders:
    """The account as its ledger will read once the changes are written."""
    if not changes:
        return account
    rows = rows_after(account.rows, changes)
    return AccountOrders(account.account_id, account.profiles, rows, account.facts, match_rows(rows, account.facts))


def _key(row: Any) -> tuple[str, str]:
    return row.profile_id, row.order_id


def _doubled(
    account: AccountOrders, draft: OrderDraft, *, policy: OrderParityPolicy, now_ms: int
) -> set[tuple[str, str]]:
    """Give up rows that say of an order what the row that is kept says of it."""
    given_up: set[tuple[str, str]] = set()
    matches = account.matches
    doubled = {int(at) for at in matches.order_of[matches.shared & (matches.order_of >= 0)]}
    for position, rows in sorted(account.rows_by_order(doubled).items()):
        fact = account.fact_list[position]
        kept, *others = keep_first(rows, fact.order_id)
        conflicts = sorted({name for other in others for name in contradictions(kept, other, fact)})
        for row in (kept, *others) if conflicts else ():
            objection = Objection(OrderReason.CONFLICTING_DUPLICATES, detail={"differ_in": conflicts})
            draft.about_row(row, objection, fact, rows=sorted(other.order_id for other in (kept, *others)))
        for other in () if conflicts else others:
            recent = any(is_recent(row.activity_ms, now_ms, policy.quiet_ms) for row in (kept, other))
            # What is kept must say it first: else what the other booked would be lost.
            if recent or other.executed_e9 - kept.executed_e9 > EPSILON_E9:
                continue
            given_up.add(_key(other))
            draft.changes.append(superseded(other, rule="row_doubled", cause={**facts_of(fact), "kept": kept.order_id}))
    _doubled_without_order(account, draft)
    return given_up


def _doubled_without_order(account: AccountOrders, draft: OrderDraft) -> None:
    """Say of rows that name each other, and whose order was not read, that they may be one order booked twice."""
    clients = account.rows["client_order_id"].to_numpy()
    named = (clients != "") & (clients != account.rows["order_id"].to_numpy()) & (account.matches.order_of < 0)
    if not named.any():
        return
    others: dict[tuple[str, str], Any] = {}
    for at in np.flatnonzero(account.rows["order_id"].isin(list(clients[named])).to_numpy(dtype=bool)).tolist():
        others[_key(account.row(at))] = account.row(at)
    for at in np.flatnonzero(named).tolist() if others else ():
        row = account.row(at)
        other = others.get((row.profile_id, row.client_order_id))
        if other is None or OrderClass.DEAD in {class_of_status(row.status), class_of_status(other.status)}:
            continue
        draft.about_row(other, Objection(OrderReason.DUPLICATES_WITHOUT_ORDER), rows=[row.order_id, other.order_id])


def _backfills(
    account: AccountOrders, consumption: pd.DataFrame, given_up: set[tuple[str, str]], draft: OrderDraft
) -> set[tuple[str, str]]:
    """Give up backfill rows of orders of which the ledger represents more than was executed."""
    consumed = consumption[consumption["account_id"] == account.account_id]
    stand_ins = stand_ins_of(account.facts, account.rows, consumed)
    if not stand_ins:
        return set()
    at = {fact.order_id: position for position, fact in enumerate(account.fact_list)}
    own = account.rows_by_order({at[order_id] for order_id in stand_ins})
    quantities = {row.backfill_order_id: int(row.qty_e9) for row in rows_of(consumed)}
    out: set[tuple[str, str]] = set()
    for order_id, entry in sorted(stand_ins.items()):
        fact = account.fact_list[at[order_id]]
        rows = [row for row in own.get(at[order_id], ()) if _key(row) not in given_up]
        booked = sum(int(row.executed_e9) for row in rows)
        excess = booked + entry.represented_e9 - int(fact.executed_e9)
        if excess <= EPSILON_E9 or entry.unknown or order_objection(fact) is not None:
            continue
        for row in _too_much(entry, excess, quantities):
            excess -= quantities.get(row.order_id, int(row.executed_e9))
            out.add(_key(row))
            cause = {
                **facts_of(fact),
                "own_rows": sorted(other.order_id for other in rows),
                "own_rows_executed": decimal_text_e9(booked),
            }
            draft.changes.append(superseded(row, rule="backfill_superseded", cause=cause))
        if excess > EPSILON_E9 and booked - fact.executed_e9 <= EPSILON_E9:
            for row in rows[:1]:
                draft.about_row(
                    row, Objection(OrderReason.OVER_REPRESENTED, detail={"by": decimal_text_e9(excess)}), fact
                )
    return out


def _too_much(entry: StandIns, excess: int, quantities: Mapping[str, int]) -> list[Any]:
    """The backfill rows to give up: one that is exactly what is too much, else the newest until the rest fits."""
    for row in entry.rows:
        if abs(quantities.get(row.order_id, int(row.executed_e9)) - excess) <= EPSILON_E9:
            return [row]
    chosen: list[Any] = []
    for row in entry.rows:
        if excess > EPSILON_E9:
            chosen.append(row)
            excess -= quantities.get(row.order_id, int(row.executed_e9))
    return chosen


def _synthetic(account: AccountOrders, given_up: set[tuple[str, str]], draft: OrderDraft) -> None:
    """Give up synthetic exits of trades that exited more than they entered."""
    ids, statuses = account.rows["order_id"], account.rows["status"]
    filled = statuses.isin(list(FILLED_STATUSES)).to_numpy(dtype=bool)
    synthetic = filled & ids.str.startswith(SYNTHETIC_PREFIX).to_numpy(dtype=bool)
    if not synthetic.any():
        return
    trades: dict[tuple[str, str], list[Any]] = {}
    for at in np.flatnonzero(synthetic).tolist():
        row = account.row(at)
        trades.setdefault((row.profile_id, row.trade_id), []).append(row)
    names = (account.rows[name].to_numpy() for name in ("profile_id", "trade_id", "order_id"))
    kept = [
        (profile, trade) in trades and (profile, key) not in given_up
        for profile, trade, key in zip(*names, strict=True)
    ]
    slices = build_slices(as_lifecycle_rows(account.rows[np.array(kept, dtype=bool)]), crypto_tokens=frozenset())
    for trade in rows_of(slices):
        over = -int(trade.open_e9)
        if trade.defect:
            continue
        for row in sorted(trades[trade.profile_id, trade.trade_id], key=newest_first):
            if over <= EPSILON_E9:
                break
            cause: dict[str, object] = {
                "entered": decimal_text_e9(trade.entry_e9),
                "exited": decimal_text_e9(trade.exit_e9),
            }
            draft.changes.append(superseded(row, rule="synthetic_exit_superseded", cause=cause))
            over -= int(row.executed_e9)
