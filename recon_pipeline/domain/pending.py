"""Pending orders of the ledger: which trades they block.

An order that the ledger does not know to be over may still fill, so its trade is not judged. A pending row that names no
trade may belong to any trade of its symbol, and without a symbol to any trade of its profile.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from recon_pipeline.domain.attribution import KnownTrades, TradeKey, attribute
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.terms import FILLED_STATUSES, FINAL_UNFILLED_STATUSES


@dataclass(frozen=True)
class PendingOrders:
    """What the pending rows of an account block, and the ids of their orders."""

    trades: frozenset[TradeKey]
    symbols: frozenset[tuple[str, str]]
    profiles: frozenset[str]
    order_ids: frozenset[str]

    def blocks(self, profile_id: str, trade_id: str, token: str) -> bool:
        """Whether a pending order keeps the trade from being judged."""
        return (
            (profile_id, trade_id) in self.trades or (profile_id, token) in self.symbols or profile_id in self.profiles
        )


def find_pending(rows: pd.DataFrame, pending_rows: pd.DataFrame, known: KnownTrades) -> PendingOrders:
    """The pending orders among LIFECYCLE_ROWS ``rows`` (by their status) and all of ``pending_rows``.

    A row without a trade id is attributed by its client order id (which some bots keep as the order id) and sub-tag.
    """
    over = rows["status"].isin([*FILLED_STATUSES, *FINAL_UNFILLED_STATUSES]).to_numpy(dtype=bool)
    trades: set[TradeKey] = set()
    symbols: set[tuple[str, str]] = set()
    profiles: set[str] = set()
    ids: set[str] = set()
    for frame in (rows[~over], pending_rows):
        for row in rows_of(frame):
            ids.update(key for key in (row.order_id, row.client_order_id) if key)
            trade = row.trade_id or _named_trade(
                row.profile_id, row.sub_tag, row.client_order_id or row.order_id, known
            )
            if trade:
                trades.add((row.profile_id, trade))
            elif row.symbol_token:
                symbols.add((row.profile_id, row.symbol_token))
            else:
                profiles.add(row.profile_id)
    return PendingOrders(frozenset(trades), frozenset(symbols), frozenset(profiles), frozenset(ids))


def _named_trade(profile_id: str, sub_tag: str, client_order_id: str, known: KnownTrades) -> str:
    found = attribute("", sub_tag, client_order_id, known, require_strong=True)
    if found.trade is None or found.trade[0] != profile_id:
        return ""
    return found.trade[1]
