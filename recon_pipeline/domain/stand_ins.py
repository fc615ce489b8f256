"""Rows that stand in for something: which order of the exchange each backfill row represents, and which rows cite none.

A backfill row represents the order that its batch's consumption names, else the one whose recomputed id is the row's id
(DESIGN 11.1). A row that closes dust and a synthetic exit represent no execution. What does not belong here: what is done
with them (``superseding``, ``order_coverage``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from recon_pipeline.domain.evidence import cited_orders
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.plan import BACKFILL_PREFIX, DUST_PREFIX, backfill_order_id
from recon_pipeline.domain.terms import FILLED_STATUSES

SYNTHETIC_PREFIX: Final = "PARITY-"
"""Of the synthetic exits of position parity."""
STAND_IN_PREFIXES: Final = (BACKFILL_PREFIX, SYNTHETIC_PREFIX)
"""Keys of rows that are no order's own row: they are never looked up at the exchange."""


@dataclass
class StandIns:
    """What represents one exchange order beside its own rows."""

    rows: list[Any]
    """filled backfill rows of it, rows of LEDGER_ORDERS, newest first"""
    represented_e9: int = 0
    """what they and the consumption of live batches say of it (1e-9 units)"""
    unknown: bool = False
    """a row's quantity can't be read, or rows with one id differ: what is represented can't be told"""
    orphaned: bool = False
    """a live batch has consumed of the order, and its row is not in the ledger any more"""


def stand_ins_of(orders: pd.DataFrame, rows: pd.DataFrame, consumption: pd.DataFrame) -> Mapping[str, StandIns]:
    """What represents each order beside its own rows, by order id; an order that nothing stands in for has no entry.

    :param orders: ORDER_FACTS of one account, each order once
    :param rows: LEDGER_ORDERS of the account's profiles
    :param consumption: CONSUMPTION of live batches
    """
    rows = distinct_rows(rows)
    filled = rows["status"].isin(list(FILLED_STATUSES)).to_numpy(dtype=bool)
    is_backfill = np.array([order_id.startswith(BACKFILL_PREFIX) for order_id in rows["order_id"]], dtype=bool)
    # Consumption may name rows under any key: what a batch once booked of an order without its id is known by it alone.
    consumed = {row.backfill_order_id: (row.exchange_order_id, int(row.qty_e9)) for row in rows_of(consumption)}
    explained = np.array([order_id in consumed for order_id in rows["order_id"]], dtype=bool)
    mine = rows[filled & (is_backfill | explained)].reset_index(drop=True)
    found: dict[str, StandIns] = {}
    in_reading = set(orders["order_id"]) - {""}
    live = set(mine["order_id"])
    for key, (exchange_order_id, quantity) in consumed.items():
        if exchange_order_id in in_reading:
            entry = found.setdefault(exchange_order_id, StandIns([]))
            entry.represented_e9 += quantity
            entry.orphaned |= key not in live
    order_ids = orders["order_id"].tolist()
    candidates = [index for index, key in enumerate(mine["order_id"]) if key not in consumed]
    by_hash = {row: order_ids[match] for row, match in cited_orders(orders, mine, candidates).items()}
    conflicting = mine.duplicated(["profile_id", "order_id"], keep=False).tolist()
    for index, row in enumerate(rows_of(mine)):
        cites = consumed[row.order_id][0] if row.order_id in consumed else by_hash.get(index, "")
        if cites not in in_reading:
            continue
        entry = found.setdefault(cites, StandIns([]))
        if row.order_id.startswith(BACKFILL_PREFIX):
            entry.rows.append(row)
        entry.unknown |= bool(row.defect) or conflicting[index]
        if row.order_id not in consumed:
            entry.represented_e9 += int(row.executed_e9)
    for entry in found.values():
        entry.rows.sort(key=newest_first)
    return found


def distinct_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """LEDGER_ORDERS without exact duplicates."""
    if len(rows) < 2:
        return rows
    repeated = rows.duplicated([name for name in rows.columns if name != "record"])
    return rows[~repeated] if repeated.any() else rows


def newest_first(row: Any) -> tuple[int, str]:
    """Sort key of ledger rows: the newest first, then by id."""
    return (-int(row.time_ms), row.order_id)


def cites_nothing(row: Any) -> bool:
    """Whether a row of LEDGER_ORDERS closes something without an execution: a synthetic exit, or dust."""
    if row.order_id.startswith(SYNTHETIC_PREFIX):
        return True
    if not row.order_id.startswith(BACKFILL_PREFIX):
        return False
    dust = DUST_PREFIX + row.trade_id
    moments = {int(at) for at in (row.filled_at_ms, row.time_ms) if at != NO_TIME}
    return any(backfill_order_id(row.profile_id, row.trade_id, dust, iso_ms(at)) == row.order_id for at in moments)
