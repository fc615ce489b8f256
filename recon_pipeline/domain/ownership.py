"""Ownership: which profile and trade each order of the exchange belongs to, as the entry or the exit, or why that can't be said.

The explicit keys of the order count first, read as in ``attribution`` (a replacement's missing keys from what it replaced);
then the ledger's row that names the order; then the row of the order that it replaced. Whatever two of them say differently
is contradictory. What does not belong here: quantities, and what is done with an order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.attribution import KnownTrades, TradeKey, inherited_keys
from recon_pipeline.domain.cycle_frames import ORDER_FACTS, CycleInputs
from recon_pipeline.domain.evidence import deduplicate_orders
from recon_pipeline.domain.frames import Column, Schema, frame_of, rows_of
from recon_pipeline.domain.order_keys import CONTRADICTORY, Claim, How, Kind, named_profiles, read_keys
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES
from recon_pipeline.domain.terms import BUY, ENTRY, EXIT, SELL, opposite

OWNERSHIP = Schema(
    "ownership",
    (
        Column("account_id", "text", "account that placed the order"),
        Column("order_id", "text", "the exchange's order id"),
        Column("profile_id", "text", "profile that the order belongs to; see Kind where it is not owned"),
        Column("trade_id", "text", "trade that the order belongs to; empty where it is not owned"),
        Column("action", "text", "ENTRY or EXIT; empty where it can't be said, or the order is not owned"),
        Column("kind", "text", "owned, foreign, unattributed, ambiguous or contradictory"),
        Column("how", "text", "trade_id, sub_tag, client_order_id, row or replaced; empty where it is not owned"),
        Column("row_order_ids", "list", "keys of the ledger's own rows that name it by either id: sorted tuple"),
        Column("named_profiles", "list", "every profile that a key or a row may mean: sorted tuple of text"),
    ),
)

_ACTIONS: Final = {"entry": ENTRY, "exit": EXIT}


def distinct_facts(order_facts: pd.DataFrame) -> pd.DataFrame:
    """ORDER_FACTS with one row per account and order, by account, then (execution time, order id).

    Of readings that differ the one with the larger executed quantity counts; differing keys, side, symbol or price give
    the defect ``conflicting_duplicates``. Orders without an id are kept, exact duplicates dropped.
    """
    parts = [deduplicate_orders(part) for _, part in order_facts.groupby("account_id", sort=True)]
    if not parts:
        return ORDER_FACTS.empty()
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def own_orders(inputs: CycleInputs) -> pd.DataFrame:
    """The owner of every order fact, as an OWNERSHIP frame whose rows are those of ``distinct_facts``, in its order.

    The action is what the client id's marker says, else what the order's row (or the row of what it replaced) says, else
    follows from the side against the side of the trade's explicit entries (or exits). A client id with a marker may name a
    trade that the ledger does not know yet, where exactly one profile of the account fits.

    :raises ValueError: a ledger row names a profile that ``inputs.profiles`` does not hold
    """
    account_of = dict(zip(inputs.profiles["profile_id"], inputs.profiles["account_id"], strict=True))
    rows: dict[str, list[Any]] = {}
    for row in rows_of(
        inputs.ledger_orders[["profile_id", "order_id", "client_order_id", "trade_id", "side", "action"]]
    ):
        if row.profile_id not in account_of:
            raise ValueError(
                f"a ledger row names profile {row.profile_id!r}, which inputs.profiles does not hold; add it as context"
            )
        rows.setdefault(account_of[row.profile_id], []).append(row)
    members: dict[str, list[str]] = {}
    for profile, account in account_of.items():
        members.setdefault(account, []).append(profile)
    out: list[tuple[Any, ...]] = []
    for account, orders in distinct_facts(inputs.order_facts).groupby("account_id", sort=True):
        ledger = _Ledger.of(members.get(str(account), ()), rows.get(str(account), ()))
        out.extend(_own_account(orders.reset_index(drop=True), ledger))
    if not out:
        return OWNERSHIP.empty()
    return frame_of(OWNERSHIP, dict(zip(OWNERSHIP.names, zip(*out, strict=True), strict=True)))


@dataclass(frozen=True)
class _Ledger:
    """What the ledger of one account says."""

    known: KnownTrades
    rows: Mapping[str, tuple[Any, ...]]
    """rows by either of their ids"""
    entry_side: Mapping[TradeKey, str]
    """side of the trade's entries; empty text where its rows disagree"""

    @classmethod
    def of(cls, profiles: Iterable[str], rows: Iterable[Any]) -> _Ledger:
        by_key: dict[str, tuple[Any, ...]] = {}
        entries: dict[TradeKey, set[str]] = {}
        exits: dict[TradeKey, set[str]] = {}
        trades: dict[TradeKey, None] = {}
        for row in rows:
            if row.trade_id:
                trade = (row.profile_id, row.trade_id)
                trades[trade] = None
                if row.side and row.action:
                    of = entries if row.action == ENTRY else exits
                    of.setdefault(trade, set()).add(row.side)
            if row.order_id.startswith(STAND_IN_PREFIXES):
                continue
            for key in {row.order_id, row.client_order_id} - {""}:
                by_key[key] = (*by_key.get(key, ()), row)
        sides = {trade: opposite(next(iter(found))) if len(found) == 1 else "" for trade, found in exits.items()}
        sides |= {trade: next(iter(found)) if len(found) == 1 else "" for trade, found in entries.items()}
        return cls(KnownTrades.of(profiles, trades), by_key, sides)

    def naming(self, *keys: str) -> list[Any]:
        """The rows that any of the ids names, each once."""
        found = {id(row): row for key in keys if key for row in self.rows.get(key, ())}
        return list(found.values())


def _own_account(orders: pd.DataFrame, ledger: _Ledger) -> list[tuple[Any, ...]]:
    orders = _linked(orders)
    keys = inherited_keys(orders)
    names = ("account_id", "order_id", "client_order_id", "replaces", "side")
    accounts, order_ids, client_ids, replaces, sides = (orders[name].tolist() for name in names)
    at = {order_id: index for index, order_id in enumerate(order_ids) if order_id}
    out: list[tuple[Any, ...]] = []
    for index, (order_id, client_id) in enumerate(zip(order_ids, client_ids, strict=True)):
        rows = ledger.naming(order_id, client_id)
        before = _rows_before(index, replaces, client_ids, at, ledger) if replaces[index] else []
        claim = read_keys(keys[0][index], keys[1][index], keys[2][index], ledger.known)
        for how, naming in ((How.ROW, rows), (How.REPLACED, before)):
            claim = _with_rows(claim, naming, how)
        named = {claim.profile_id} - {""}
        if claim.kind in {Kind.AMBIGUOUS, Kind.CONTRADICTORY}:
            named = {row.profile_id for row in (*rows, *before)}
            named.update(named_profiles(keys[0][index], keys[1][index], keys[2][index], ledger.known))
        action = _action(claim, sides[index], [*rows, *before], ledger) if claim.kind == Kind.OWNED else ""
        out.append(
            (
                accounts[index],
                order_id,
                claim.profile_id,
                claim.trade_id,
                action,
                str(claim.kind),
                str(claim.how),
                tuple(sorted({row.order_id for row in rows})),
                tuple(sorted(named)),
            )
        )
    return out


def _linked(orders: pd.DataFrame) -> pd.DataFrame:
    """The orders with ``replaces`` filled in where only the replaced order tells."""
    successor = {new: old for old, new in zip(orders["order_id"], orders["replaced_by"], strict=True) if old and new}
    if not successor:
        return orders
    linked = [
        stated or successor.get(order_id, "")
        for order_id, stated in zip(orders["order_id"], orders["replaces"], strict=True)
    ]
    return orders.assign(replaces=pd.Series(linked, index=orders.index, dtype=object))


def _rows_before(
    index: int, replaces: list[str], client_ids: list[str], at: Mapping[str, int], ledger: _Ledger
) -> list[Any]:
    """The ledger's rows of the orders that this one replaced, directly or through others."""
    found: list[Any] = []
    seen = {index}
    replaced = replaces[index]
    while replaced:
        ancestor = at.get(replaced, -1)
        if ancestor in seen:
            break
        found.extend(ledger.naming(replaced, client_ids[ancestor] if ancestor >= 0 else ""))
        if ancestor < 0:
            break
        seen.add(ancestor)
        replaced = replaces[ancestor]
    return found


def _with_rows(claim: Claim, rows: list[Any], how: How) -> Claim:
    """The claim with what ledger rows that name the order say."""
    if not rows or claim.kind == Kind.CONTRADICTORY:
        return claim
    profiles = {row.profile_id for row in rows}
    trades = {row.trade_id for row in rows} - {""}
    if claim.kind == Kind.FOREIGN or len(profiles) > 1 or len(trades) > 1:
        return CONTRADICTORY
    profile, trade = next(iter(profiles)), next(iter(trades), "")
    if claim.kind == Kind.OWNED:
        same = profile == claim.profile_id and trade in {"", claim.trade_id}
        return claim if same else CONTRADICTORY
    if claim.kind == Kind.AMBIGUOUS:
        fits = (profile, trade) in claim.candidates or (profile, "") in claim.candidates
        if not fits and (trade or profile not in {owner for owner, _ in claim.candidates}):
            return CONTRADICTORY
        return Claim(Kind.OWNED, profile, trade, how=how) if trade else claim
    if claim.profile_id not in {"", profile} or (claim.names_trade and trade):
        return CONTRADICTORY
    if not trade:
        return claim._replace(profile_id=profile)
    return Claim(Kind.OWNED, profile, trade, how=how)


def _action(claim: Claim, side: str, rows: list[Any], ledger: _Ledger) -> str:
    if claim.role:
        return _ACTIONS[claim.role]
    stated = {row.action for row in rows} - {""}
    if stated:
        return next(iter(stated)) if len(stated) == 1 else ""
    entered = ledger.entry_side.get((claim.profile_id, claim.trade_id), "")
    if not entered or side not in {BUY, SELL}:
        return ""
    return ENTRY if side == entered else EXIT
