"""What surrounds a trade that is out of line: orders that may still fill, executions that nothing represents, its sub-tags.

What belongs here: look-ups in the cycle's frames, by account, symbol and trade. What does not: what follows from them
(``position_parity``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import pandas as pd

from recon_pipeline.domain.attribution import KnownTrades, TradeKey
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.quantities import EPSILON_E9
from recon_pipeline.domain.root_causes import FreeExecution
from recon_pipeline.domain.stand_ins import SYNTHETIC_PREFIX
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.tags import parse_sub_tag, tag_token
from recon_pipeline.domain.terms import ENTRY, EXIT, FILLED_STATUSES, FINAL_UNFILLED_STATUSES

PARITY_PREFIX: Final = SYNTHETIC_PREFIX
"""Ids of synthetic exits. They are never looked up at the exchange."""
_FILLED: Final = "filled"
_NOBODY: Final = "unattributed"

SymbolKey = tuple[str, str]
"""(account id, symbol token)"""


@dataclass(frozen=True)
class LiveOrders:
    """What orders that are not known to be over keep from being judged, in the ledger or at the exchange."""

    symbols: frozenset[SymbolKey]
    trades: frozenset[TradeKey]
    accounts: frozenset[str]
    """an order whose symbol (or, in the ledger, also whose trade) can't be read may be of any"""

    @classmethod
    def of(cls, ledger_orders: pd.DataFrame, order_facts: pd.DataFrame, account_of: Mapping[str, str]) -> LiveOrders:
        """From LEDGER_ORDERS and ORDER_FACTS. A partially filled row is live; an order that one reading calls over is over."""
        symbols: set[SymbolKey] = set()
        trades: set[TradeKey] = set()
        accounts: set[str] = set()
        over = ledger_orders["status"].isin([_FILLED, *FINAL_UNFILLED_STATUSES]).to_numpy(dtype=bool)
        for row in rows_of(ledger_orders.loc[~over, ["profile_id", "trade_id", "symbol_token"]]):
            if row.trade_id:
                trades.add((row.profile_id, row.trade_id))
            if row.symbol_token:
                symbols.add((account_of[row.profile_id], row.symbol_token))
            elif not row.trade_id:
                accounts.add(account_of[row.profile_id])
        done = order_facts["is_over"].to_numpy(dtype=bool)
        live = order_facts.loc[~done, ["account_id", "order_id", "symbol_token"]]
        if len(live):
            ended = order_facts.loc[done & order_facts["order_id"].isin(list(live["order_id"])).to_numpy(dtype=bool)]
            known_over = set(zip(ended["account_id"], ended["order_id"], strict=True))
            for row in rows_of(live):
                if (row.account_id, row.order_id) in known_over:
                    continue
                if row.symbol_token:
                    symbols.add((row.account_id, row.symbol_token))
                else:
                    accounts.add(row.account_id)
        return cls(frozenset(symbols), frozenset(trades), frozenset(accounts))

    def block(self, account_id: str, token: str, trade: TradeKey) -> bool:
        """Whether an order may still change the trade or its symbol on the account."""
        return (account_id, token) in self.symbols or trade in self.trades or account_id in self.accounts


def free_executions(evidence: pd.DataFrame, ownership: pd.DataFrame) -> dict[SymbolKey, list[FreeExecution]]:
    """What is executed and not represented, by symbol of an account, oldest first.

    What a plan allocates is still free: nothing of it is in the ledger yet. An order that OWNERSHIP does not hold is
    nobody's.
    """
    free = evidence["executed_e9"].to_numpy() - evidence["represented_e9"].to_numpy()
    kept = evidence[np.asarray(free > EPSILON_E9, dtype=bool)]
    if kept.empty:
        return {}
    named = ownership[ownership["order_id"].isin(list(kept["order_id"]))]
    owners = {(row.account_id, row.order_id): row for row in rows_of(named)}
    found: dict[SymbolKey, list[FreeExecution]] = {}
    for row in rows_of(kept.sort_values(["executed_at_ms", "order_id"])):
        owner = owners.get((row.account_id, row.order_id))
        found.setdefault((row.account_id, symbol_token(row.symbol)), []).append(
            FreeExecution(
                order_id=row.order_id,
                kind=_NOBODY if owner is None else str(owner.kind),
                profile_id="" if owner is None else owner.profile_id,
                trade_id="" if owner is None else owner.trade_id,
                side=row.side,
                free_e9=int(row.executed_e9 - row.represented_e9),
                executed_at_ms=int(row.executed_at_ms),
                named_profiles=() if owner is None else tuple(owner.named_profiles),
            )
        )
    return found


class Tagged(StrEnum):
    """What the sub-tags of a trade's rows say of its attribution."""

    PROVEN = "proven"
    """every row that entered it carries a tag of its profile, and none names another profile or trade"""
    MISSING = "unattributed"
    CONTRADICTORY = "contradictory_attribution"


@dataclass(frozen=True)
class TradeTags:
    """The sub-tags of the filled rows of some trades."""

    verdicts: Mapping[TradeKey, Tagged]
    tags: Mapping[TradeKey, str]
    """the one tag that all tagged entry rows of the trade carry"""

    @classmethod
    def of(
        cls,
        ledger_orders: pd.DataFrame,
        entries: Mapping[TradeKey, tuple[str, int]],
        account_of: Mapping[str, str],
    ) -> TradeTags:
        """From LEDGER_ORDERS, for the trades given with their entry side and entry quantity (1e-9 units).

        Rows that carry no tag, an unreadable one, or one that several profiles of the account share, prove nothing: the
        tagged entries must add up to all that the slice entered. Exits need no tag: what they prove is booked already.
        """
        if not entries:
            return cls({}, {})
        known = _known(ledger_orders, account_of)
        rows = ledger_orders[ledger_orders["status"].isin(list(FILLED_STATUSES))]
        proven: dict[TradeKey, int] = dict.fromkeys(entries, 0)
        spelled: dict[TradeKey, set[str]] = {trade: set() for trade in entries}
        bad: set[TradeKey] = set()
        names = ["profile_id", "trade_id", "order_id", "side", "action", "executed_e9", "sub_tag"]
        seen: set[tuple[str, str]] = set()
        for row in rows_of(rows[names]):
            trade = (row.profile_id, row.trade_id)
            if trade not in entries or not row.sub_tag or (row.profile_id, row.order_id) in seen:
                continue
            seen.add((row.profile_id, row.order_id))
            verdict = _verdict(row.sub_tag, trade, known[account_of[row.profile_id]])
            if verdict is Tagged.CONTRADICTORY:
                bad.add(trade)
            elif verdict is Tagged.PROVEN and (row.action or _action(row.side, entries[trade][0])) == ENTRY:
                proven[trade] += int(row.executed_e9)
                spelled[trade].add(row.sub_tag)
        verdicts = {
            trade: Tagged.CONTRADICTORY
            if trade in bad
            else Tagged.PROVEN
            if proven[trade] >= entered > 0
            else Tagged.MISSING
            for trade, (_, entered) in entries.items()
        }
        return cls(verdicts, {trade: next(iter(found)) for trade, found in spelled.items() if len(found) == 1})


def _action(side: str, entry_side: str) -> str:
    return ENTRY if side == entry_side else EXIT


def _known(ledger_orders: pd.DataFrame, account_of: Mapping[str, str]) -> dict[str, KnownTrades]:
    pairs: dict[str, set[TradeKey]] = {account: set() for account in account_of.values()}
    for profile, trade in zip(ledger_orders["profile_id"], ledger_orders["trade_id"], strict=True):
        if trade:
            pairs[account_of[profile]].add((profile, trade))
    members: dict[str, list[str]] = {}
    for profile, account in account_of.items():
        members.setdefault(account, []).append(profile)
    return {account: KnownTrades.of(members[account], sorted(found)) for account, found in pairs.items()}


def _verdict(sub_tag: str, trade: TradeKey, known: KnownTrades) -> Tagged:
    """What one tag says of the trade whose row carries it."""
    tag = parse_sub_tag(sub_tag)
    if tag is None:
        return Tagged.MISSING
    profile_id, trade_id = trade
    if tag.profile_token != tag_token(profile_id) or (tag.trade_token and tag.trade_token != tag_token(trade_id)):
        return Tagged.CONTRADICTORY
    ambiguous = len(known.with_token(tag.profile_token)) > 1
    if tag.trade_token:
        ambiguous |= len(known.tagged(profile_id, tag.trade_token)) > 1
    return Tagged.MISSING if ambiguous else Tagged.PROVEN


def existing_synthetic(ledger_orders: pd.DataFrame) -> dict[str, str]:
    """Status of every synthetic exit that the ledger holds, by its id."""
    rows: Iterable[tuple[str, str]] = zip(ledger_orders["order_id"], ledger_orders["status"], strict=True)
    return {order_id: status for order_id, status in rows if order_id.startswith(PARITY_PREFIX)}
