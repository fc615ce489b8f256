"""Evidence: which exchange orders can prove an exit, and how much of each is still free.

What does not belong here: which trade an order belongs to (``attribution``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.ordering import sorted_positions
from recon_pipeline.domain.plan import BACKFILL_PREFIX, DUST_PREFIX, backfill_order_id
from recon_pipeline.domain.quantities import EPSILON_E9, integer_array
from recon_pipeline.domain.terms import FILLED_STATUSES, NoEvidence, RowDefect

_KEYS = ("client_order_id", "replaces", "trade_id", "sub_tag", "symbol_token", "side")


def deduplicate_orders(orders: pd.DataFrame) -> pd.DataFrame:
    """One row per exchange order, sorted by (execution time, order id).

    Of readings that differ the one with the larger executed quantity counts; differing keys, side, symbol or price make
    the order unusable, since it can't be known which reading is right.
    """
    repeated = orders.duplicated(["order_id"], keep=False).to_numpy(dtype=bool)
    if repeated.any():
        distinct = orders[repeated].drop_duplicates()
        differ = distinct.duplicated(["order_id"], keep=False) & (distinct["order_id"] != "")
        orders = pd.concat([orders[~repeated], distinct[~differ]])
        if differ.any():
            orders = pd.concat([orders, _merged(distinct[differ])])
    texts = [orders[name].to_numpy() for name in ("order_id", "symbol", "client_order_id", "side")]
    order = sorted_positions([orders["executed_at_ms"].to_numpy()], texts)
    return orders.iloc[order].reset_index(drop=True)


def _merged(copies: pd.DataFrame) -> pd.DataFrame:
    """One row for each order of which several readings differ."""
    ordered = copies.sort_values(
        ["order_id", "executed_e9", "executed_at_ms", "status", "defect"], ascending=[True, False, True, True, True]
    )
    groups = ordered.groupby("order_id", sort=True)
    merged = groups.head(1).set_index("order_id", drop=False)
    conflict = groups["price"].nunique() > 1
    for name in _KEYS:
        stated = ordered[ordered[name] != ""].groupby("order_id", sort=True)[name]
        conflict |= (stated.nunique() > 1).reindex(conflict.index, fill_value=False)
        # A key that one reading carries and another lacks is carried.
        merged[name] = stated.min().reindex(merged.index, fill_value="").astype(object)
    merged["symbol"] = merged["symbol"].where(merged["symbol"] != "", merged["symbol_token"])
    merged["defect"] = merged["defect"].where(~conflict, NoEvidence.CONFLICTING_DUPLICATES.value)
    return merged.reset_index(drop=True)


def represented_quantities(
    orders: pd.DataFrame, rows: pd.DataFrame, consumption: pd.DataFrame
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """What the ledger already represents of each order (1e-9 units), and where that can't be told.

    Counted are filled rows that carry the order's id or client order id, and backfill rows of it: a backfill row
    represents the order whose recomputed id, with the row's trade and time, is the row's id.

    :param orders: deduplicated EXCHANGE_ORDERS of one account
    :param rows: deduplicated LIFECYCLE_ROWS of every profile of the account
    :param consumption: CONSUMPTION of live batches; says for a backfill row which order it represents
    """
    consumed = dict(
        zip(
            consumption["backfill_order_id"],
            zip(consumption["exchange_order_id"], consumption["qty_e9"], strict=True),
            strict=True,
        )
    )
    filled = np.flatnonzero(rows["status"].isin(list(FILLED_STATUSES)).to_numpy(dtype=bool))
    order_ids, client_ids = (rows[name].to_numpy()[filled].tolist() for name in ("order_id", "client_order_id"))
    quantities, defects = rows["qty_e9"].to_numpy()[filled], rows["defect"].to_numpy()[filled]
    # Most orders of most readings are in no row: only what both sides name is looked at one by one.
    keys = {*orders["order_id"].tolist(), *orders["client_order_id"].tolist()}
    shared = (
        keys.intersection(order_ids)
        | keys.intersection(client_ids)
        | keys.intersection(exchange_order_id for exchange_order_id, _ in consumed.values())
    )
    shared.discard("")
    by_key: dict[str, tuple[int, ...]] = {}
    for name in ("order_id", "client_order_id") if shared else ():
        for index, key in enumerate(orders[name].tolist()):
            if key in shared:
                by_key[key] = (*by_key.get(key, ()), index)
    represented: list[int] = [0] * len(orders)
    unknown = np.zeros(len(orders), dtype=bool)
    bad_quantity = {RowDefect.QUANTITY.value, RowDefect.CONFLICTING_QUANTITIES.value, RowDefect.CONFLICTING_ROWS.value}
    for index, (order_id, client_id) in enumerate(zip(order_ids, client_ids, strict=True)) if shared else ():
        for match in {*by_key.get(order_id, ()), *by_key.get(client_id, ())}:
            if defects[index] in bad_quantity:
                unknown[match] = True
            represented[match] += int(quantities[index])
    backfills = [
        index
        for index, order_id in enumerate(order_ids)
        if order_id.startswith(BACKFILL_PREFIX) and order_id not in consumed
    ]
    for exchange_order_id, quantity in consumed.values():
        for match in by_key.get(exchange_order_id, ()):
            represented[match] += int(quantity)
    cited = cited_orders(orders, rows.iloc[filled], backfills) if backfills else {}
    for row, match in cited.items():
        represented[match] += int(quantities[row])
        unknown[match] |= defects[row] in bad_quantity
    return integer_array(represented), unknown


def cited_orders(orders: pd.DataFrame, rows: pd.DataFrame, backfills: list[int]) -> dict[int, int]:
    """For each backfill row whose order is in the reading: row position to order position.

    :param orders: deduplicated EXCHANGE_ORDERS of one account
    :param rows: ledger rows with the columns that LIFECYCLE_ROWS and LEDGER_ORDERS share
    :param backfills: positions of the backfill rows among ``rows`` that no consumption explains
    """
    order_ids, executed_at = orders["order_id"].to_numpy(), orders["executed_at_ms"].to_numpy()
    tokens, sides = orders["symbol_token"].to_numpy(), orders["side"].to_numpy()
    by_time: dict[int, list[int]] = {}
    by_symbol: dict[tuple[str, str], list[int]] = {}
    for index, at in enumerate(executed_at):
        if order_ids[index]:
            by_time.setdefault(int(at), []).append(index)
            by_symbol.setdefault((tokens[index], sides[index]), []).append(index)
    cited: dict[int, int] = {}
    profiles, trades = rows["profile_id"].to_numpy(), rows["trade_id"].to_numpy()
    ids, row_tokens, row_sides = rows["order_id"].to_numpy(), rows["symbol_token"].to_numpy(), rows["side"].to_numpy()
    filled_at, time = rows["filled_at_ms"].to_numpy(), rows["time_ms"].to_numpy()
    for row in backfills:
        moments = sorted({int(at) for at in (filled_at[row], time[row]) if at != NO_TIME})
        spelled = [iso_ms(at) for at in moments]
        dust = DUST_PREFIX + trades[row]
        if any(backfill_order_id(profiles[row], trades[row], dust, iso) == ids[row] for iso in spelled):
            continue
        near = [index for at in moments for index in by_time.get(at, ())]
        # The order's time may have moved since (it grew, or the exchange now rounds it otherwise): the hash decides.
        others = by_symbol.get((row_tokens[row], row_sides[row]), ())
        for index in (*near, *others):
            if any(backfill_order_id(profiles[row], trades[row], order_ids[index], iso) == ids[row] for iso in spelled):
                cited[row] = index
                break
    return cited


def evidence_defects(
    orders: pd.DataFrame, capacity: NDArray[Any], unknown: NDArray[np.bool_], pending_ids: frozenset[str], since_ms: int
) -> NDArray[Any]:
    """Why each order can't be allocated whatever its attribution; empty text where it can.

    :param since_ms: start of the look-back, by execution time; NO_TIME for none
    """
    defects: NDArray[Any] = orders["defect"].to_numpy().astype(object).copy()
    represented = orders["executed_e9"].to_numpy() - capacity
    free = defects == ""

    def mark(mask: NDArray[np.bool_], reason: NoEvidence) -> None:
        nonlocal free
        defects[free & mask] = reason.value
        free &= ~mask

    if pending_ids:
        ids, client_ids = orders["order_id"].to_numpy(), orders["client_order_id"].to_numpy()
        known = [ids[i] in pending_ids or client_ids[i] in pending_ids for i in range(len(orders))]
        mark(np.array(known, dtype=bool), NoEvidence.PENDING_IN_LEDGER)
    mark(unknown, NoEvidence.REPRESENTED)
    small = np.asarray(capacity <= EPSILON_E9, dtype=bool)
    mark(small & np.asarray(represented > 0, dtype=bool), NoEvidence.REPRESENTED)
    mark(small, NoEvidence.BELOW_EPSILON)
    if since_ms != NO_TIME:
        mark(orders["executed_at_ms"].to_numpy() < since_ms, NoEvidence.OUTSIDE_LOOKBACK)
    return defects
