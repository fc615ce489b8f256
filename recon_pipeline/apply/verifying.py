"""Verification of a batch from the database alone: what is open, what is used, and whether it adds up.

Reads as ``recon_reader``. What does not belong here: planning again (that is a run of its own) and the UI's checks,
which show what is answered here.
"""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from recon_pipeline.apply.gates import OVER_STATUSES, represented_now
from recon_pipeline.apply.outcomes import BatchVerification, Check
from recon_pipeline.apply.records import KIND, tuples
from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.plan import DUST_PREFIX
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9, parse_decimal, to_e9
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.domain.slices import build_slices, deduplicate_rows
from recon_pipeline.domain.terms import FILLED_STATUSES, normalise_status
from recon_pipeline.ledger.batches import read_batch
from recon_pipeline.ledger.database import READER, Connection, Row, connect
from recon_pipeline.ledger.statements import statement

NO_FILL_TWICE: Final = "no fill is used twice"
CONSERVATION: Final = "conservation holds"
NO_OVER_EXIT: Final = "no trade is over-exited"
_TRADES: Final = ["profile_id", "trade_id", "symbol", "entry_e9", "exit_e9", "open_e9"]
_ORDERS: Final = ["account_id", "order_id", "executed_e9", "represented_e9", "consumed_e9", "excess_e9"]
_SHOWN: Final = 5


def verify_batch(database_url: str, batch_id: str) -> BatchVerification:
    """Read back what the batch left, in whatever state it is.

    :raises KeyError: there is no such batch
    :raises ValueError: the batch is no exit backfill; what a correction wrote is in ``recon.corrections``
    """
    with connect(database_url, READER, "recon verification") as connection, connection.transaction():
        batch = read_batch(connection, batch_id)
        if batch is None:
            raise KeyError(f"there is no batch {batch_id}")
        if batch["kind"] != KIND:
            raise ValueError(f"batch {batch_id} is of {batch['kind']}: only batches of the exit backfill are verified")
        proposals: list[dict[str, Any]] = batch["plan"]["proposals"]
        trades = _trades(connection, batch["profile_id"], sorted({row["trade_id"] for row in proposals}))
        orders, untold = _orders(connection, batch)
        asked = {"order_ids": sorted(row["order_id"] for row in proposals)}
        records = connection.execute(statement("select_orders_by_id"), asked).fetchall()
        consumed = connection.execute(statement("select_consumption_of_backfill_rows"), asked).fetchall()
    checks = (
        _no_fill_twice(orders),
        _conservation(orders, untold, proposals, records, consumed),
        _no_over_exit(trades),
    )
    return BatchVerification(batch_id, batch["profile_id"], trades, orders, checks)


def _trades(connection: Connection, profile_id: str, trade_ids: list[str]) -> pd.DataFrame:
    records = connection.execute(
        statement("select_rows_of_trades"),
        {"profile_id": profile_id, "trade_ids": trade_ids, "over_statuses": OVER_STATUSES},
    ).fetchall()
    wanted = set(trade_ids)
    rows = deduplicate_rows(lifecycle_rows_frame(row for row in records if row["trade_id"] in wanted))
    return build_slices(rows, crypto_tokens=frozenset())[_TRADES]


def _orders(connection: Connection, batch: Row) -> tuple[pd.DataFrame, list[str]]:
    """The cited orders with what is represented of them, and those of which that can't be told."""
    account_id = batch["account_id"]
    cited = {row["exchange_order_id"] for row in batch["plan"]["proposals"]}
    evidence = [row for row in batch["plan"]["evidence"] if row["order_id"] in cited]
    if not evidence:
        return pd.DataFrame(columns=_ORDERS), []
    ids = [row["order_id"] for row in evidence]
    asked = {"account_id": account_id, "order_ids": ids}
    stored = {
        row["order_id"]: _units(row["filled_qty"])
        for row in connection.execute(statement("select_exchange_orders_by_id"), asked).fetchall()
    }
    frame = pd.DataFrame(
        {
            "order_id": pd.Series(ids, dtype=object),
            "client_order_id": pd.Series([row["client_order_id"] for row in evidence], dtype=object),
            "symbol": pd.Series([row["symbol"] for row in evidence], dtype=object),
            "side": pd.Series([row["side"] for row in evidence], dtype=object),
            # An order that was still open may have executed more since; never less.
            "executed_e9": pd.Series(
                [max(_units(row["executed"]), stored.get(row["order_id"], 0)) for row in evidence], dtype=object
            ),
            "executed_at_ms": [_ms(row["executed_at"]) for row in evidence],
        }
    )
    represented, unknown = represented_now(connection, account_id, frame)
    live = connection.execute(
        statement("select_consumption_of_exchange_orders"),
        {"account_id": account_id, "exchange_order_ids": sorted(ids)},
    ).fetchall()
    consumed: dict[str, int] = {}
    for row in live:
        consumed[row["exchange_order_id"]] = consumed.get(row["exchange_order_id"], 0) + _units(row["qty"])
    frame["account_id"] = account_id
    frame["represented_e9"] = pd.Series(represented, dtype=object)
    frame["consumed_e9"] = pd.Series([consumed.get(order_id, 0) for order_id in ids], dtype=object)
    frame["excess_e9"] = frame["executed_e9"] - frame["represented_e9"]
    return frame[_ORDERS], [order_id for order_id, flag in zip(ids, unknown, strict=True) if flag]


def _no_fill_twice(orders: pd.DataFrame) -> Check:
    wrong = [
        f"order {row.order_id}: executed {decimal_text_e9(row.executed_e9)}, used {decimal_text_e9(row.represented_e9)}"
        for row in tuples(orders)
        if row.represented_e9 > row.executed_e9
    ]
    return _check(NO_FILL_TWICE, wrong, f"{len(orders)} exchange orders are used within what they executed")


def _conservation(
    orders: pd.DataFrame, untold: list[str], proposals: list[dict[str, Any]], records: list[Row], consumed: list[Row]
) -> Check:
    """Executed = represented + excess, and every live row of the batch is covered by exactly what it consumed."""
    wrong = [f"order {order_id}: what is represented can't be told" for order_id in untold]
    wrong += [
        f"order {row.order_id}: consumed {decimal_text_e9(row.consumed_e9)} of {decimal_text_e9(row.executed_e9)} executed"
        for row in tuples(orders)
        if row.consumed_e9 > row.executed_e9 or row.excess_e9 < 0
    ]
    rows = {row["order_id"]: row for row in records}
    by_row: dict[str, int] = {}
    for row in consumed:
        by_row[row["backfill_order_id"]] = by_row.get(row["backfill_order_id"], 0) + _units(row["qty"])
    for proposal in proposals:
        if proposal["exchange_order_id"].startswith(DUST_PREFIX):
            continue
        record = rows.get(proposal["order_id"])
        is_live = record is not None and normalise_status(record["status"]) in FILLED_STATUSES
        written = _units(record["qty"] if record and record["qty"] is not None else "0") if is_live else 0
        used = by_row.get(proposal["order_id"], 0)
        if written != used:
            wrong.append(
                f"row {proposal['order_id']}: written {decimal_text_e9(written)}, consumed {decimal_text_e9(used)}"
            )
    return _check(CONSERVATION, wrong, f"{len(orders)} exchange orders and {len(proposals)} rows add up")


def _no_over_exit(trades: pd.DataFrame) -> Check:
    wrong = [
        f"trade {row.trade_id}: entered {decimal_text_e9(row.entry_e9)}, left {decimal_text_e9(row.exit_e9)}"
        for row in tuples(trades)
        if row.open_e9 < -EPSILON_E9
    ]
    return _check(NO_OVER_EXIT, wrong, f"{len(trades)} trades leave no more than they entered")


def _check(name: str, wrong: list[str], holds: str) -> Check:
    if not wrong:
        return Check(name, passed=True, detail=holds)
    more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return Check(name, passed=False, detail="; ".join(wrong[:_SHOWN]) + more)


def _units(raw: object) -> int:
    number = parse_decimal(raw)
    return 0 if number is None else to_e9(number)


def _ms(raw: object) -> int:
    moment = parse_instant(raw)
    return NO_TIME if moment is None else moment
