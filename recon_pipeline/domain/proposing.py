"""Proposed rows before and after the checks on their ids: one per order that gives something, and the dust rows.

What does not belong here: whether the position lets them through (``decisions``).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.account_state import AccountState, Allocated
from recon_pipeline.domain.frames import PROPOSALS, frame_of, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import BACKFILL_PREFIX, DUST_PREFIX, backfill_order_id
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.terms import FILLED_STATUSES, MatchMethod, NoEvidence

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass
class Proposals:
    """Proposed rows as columns; ``trade`` and ``source`` are positions of the slice and of the order (-1 for dust)."""

    trade: Ints
    source: Ints
    quantity: NDArray[Any]
    order_id: list[str]
    reason: NDArray[Any]
    """empty: propose; otherwise why its id speaks against it"""
    reapply: Bools


class ExistingIds:
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


def cite(
    state: AccountState, orders: pd.DataFrame, allocated: Allocated, ids: ExistingIds, policy: ExitBackfillPolicy
) -> Proposals:
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
    return Proposals(trade, source, quantity, order_ids, reason, reapply)


def propose_dust(
    state: AccountState,
    orders: pd.DataFrame,
    is_dust: Bools,
    uncovered: NDArray[Any],
    last_used: Ints,
    price: NDArray[Any],
    ids: ExistingIds,
    policy: ExitBackfillPolicy,
) -> Proposals:
    """One row per trade whose remainder is dust, its id hashed with ``DUST-REMAINDER-<trade>``."""
    trade = np.flatnonzero(is_dust)
    order_ids: list[str] = []
    reason: NDArray[Any] = np.full(len(trade), "", dtype=object)
    reapply = np.zeros(len(trade), dtype=bool)
    slices = state.slices
    for at, index in enumerate(trade):
        profile, trade_id = slices["profile_id"].iloc[index], slices["trade_id"].iloc[index]
        iso = iso_ms(dust_time(slices, orders, int(last_used[index]), int(index)))
        order_ids.append(backfill_order_id(profile, trade_id, DUST_PREFIX + trade_id, iso))
        reason[at], reapply[at] = ids.verdict(
            order_ids[at], int(uncovered[index]), price[index], reapply=policy.reapply_reverted
        )
    return Proposals(trade, np.full(len(trade), -1, dtype=np.int64), uncovered[trade], order_ids, reason, reapply)


def dust_time(slices: pd.DataFrame, orders: pd.DataFrame, last_used: int, index: int) -> int:
    """The time of a dust row: that of the last used execution, else of the trade's newest row."""
    if last_used >= 0:
        return int(orders["executed_at_ms"].iloc[last_used])
    return int(slices["newest_ms"].iloc[index])


def joined(first: Proposals, second: Proposals) -> Proposals:
    """The rows of both, in that order."""
    if not len(second.trade):
        return first
    return Proposals(
        np.concatenate([first.trade, second.trade]),
        np.concatenate([first.source, second.source]),
        np.concatenate([first.quantity, second.quantity]),
        first.order_id + second.order_id,
        np.concatenate([first.reason, second.reason]),
        np.concatenate([first.reapply, second.reapply]),
    )


def proposal_frame(
    state: AccountState,
    orders: pd.DataFrame,
    proposed: Proposals,
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
    return frame_of(PROPOSALS, columns)
