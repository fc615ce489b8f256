"""What the exchange executed and the ledger does not represent, whoever it belongs to: what explains a position out of line.

Unlike the evidence of an exit backfill it is known for every account that was read, also where no backfill was attempted.
What does not belong here: giving it to trades (``exit_backfill``, ``order_coverage``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from recon_pipeline.domain.evidence import deduplicate_orders, represented_quantities
from recon_pipeline.domain.frames import EVIDENCE, EXCHANGE_ORDERS, frame_of
from recon_pipeline.domain.slices import deduplicate_rows


def free_evidence(
    order_facts: pd.DataFrame, lifecycle_rows: pd.DataFrame, consumption: pd.DataFrame, ownership: pd.DataFrame
) -> pd.DataFrame:
    """One EVIDENCE row per exchange order of one account with executed quantity, nothing allocated, the rest as excess.

    :param order_facts: ORDER_FACTS of one account
    :param lifecycle_rows: LIFECYCLE_ROWS of every profile of the account
    :param consumption: CONSUMPTION of live batches
    :param ownership: OWNERSHIP of the same orders
    """
    orders = deduplicate_orders(order_facts[EXCHANGE_ORDERS.names])
    orders = orders[np.asarray(orders["executed_e9"] > 0, dtype=bool)].reset_index(drop=True)
    if orders.empty:
        return EVIDENCE.empty()
    represented, unknown = represented_quantities(orders, deduplicate_rows(lifecycle_rows), consumption)
    executed = orders["executed_e9"].to_numpy()
    represented = np.where(unknown, executed, np.minimum(represented, executed))
    owners = {row.order_id: row for row in ownership.itertuples(index=False)}

    def owned(name: str) -> list[Any]:
        return [getattr(owners[order_id], name) if order_id in owners else "" for order_id in orders["order_id"]]

    columns: dict[str, Any] = {
        name: orders[name]
        for name in ("account_id", "order_id", "client_order_id", "symbol", "side", "price", "executed_at_ms")
    }
    columns |= {
        "profile_id": owned("profile_id"),
        "trade_id": owned("trade_id"),
        "matched_by": owned("how"),
        "executed_e9": executed,
        "represented_e9": represented,
        "allocated_e9": executed * 0,
        "excess_e9": executed - represented,
        "reason": [str(kind) for kind in owned("kind")],
    }
    return frame_of(EVIDENCE, columns)
