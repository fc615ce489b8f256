"""Which ledger row speaks of which exchange order, and whether both say the same.

What belongs here: the classes that rows and orders are compared by, matching by ids, which of several rows of one order is
kept, and the ledger as it will be after changes. What does not: what is done about a difference (``order_parity``,
``superseding``).

Rows and orders are compared by class and executed quantity, never by the spelling of a status: a canceled and an expired
order without executions are the same to the ledger, and so are two ways to say that an order waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recon_pipeline.domain.corrections import OrderChange
from recon_pipeline.domain.cycle_frames import LEDGER_ORDERS
from recon_pipeline.domain.frames import LIFECYCLE_ROWS, NO_TIME, frame_of
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.quantities import EPSILON_E9, integer_array, parse_decimal, to_e9
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.terms import FILLED_STATUSES, FINAL_UNFILLED_STATUSES, RowDefect

_CLOCK_SKEW_MS: Final = 3_600_000
"""A row whose activity is further in the future than clocks differ says nothing about now."""


class OrderClass(StrEnum):
    """What a row or an order amounts to."""

    FILLED = "filled"
    """over, with executions"""
    PARTIAL = "partial"
    """may execute more, with executions"""
    PENDING = "pending"
    """may execute, without executions so far"""
    DEAD = "dead"
    """over, without executions"""


_FILLED, _PARTIAL, _PENDING, _DEAD = range(4)
_CODES: Final = {kind: code for code, kind in enumerate(OrderClass)}
LIVE: Final = frozenset({OrderClass.PARTIAL, OrderClass.PENDING})


def class_of_status(status: str) -> OrderClass:
    """The class of a ledger row with this normalised status. A status that is not known to be over may still execute."""
    if status in FILLED_STATUSES:
        return OrderClass.FILLED if status == "filled" else OrderClass.PARTIAL
    return OrderClass.DEAD if status in FINAL_UNFILLED_STATUSES else OrderClass.PENDING


def class_of_order(fact: Any) -> OrderClass:
    """The class of an exchange order: a row of ORDER_FACTS. Executed as far as ordered, nothing more can execute."""
    if fact.executed_e9 > 0:
        over = fact.is_over or (fact.ordered_e9 > 0 and fact.executed_e9 >= fact.ordered_e9)
        return OrderClass.FILLED if over else OrderClass.PARTIAL
    return OrderClass.DEAD if fact.is_over else OrderClass.PENDING


def in_line(row: Any, fact: Any) -> bool:
    """Whether the row says what its order says: the same class, and the same executed quantity within the epsilon."""
    same = class_of_status(row.status) is class_of_order(fact)
    return same and bool(abs(row.executed_e9 - fact.executed_e9) <= EPSILON_E9)


def is_recent(moment_ms: int, now_ms: int, quiet_ms: int) -> bool:
    """Whether something moved so recently that whoever moved it may not be done."""
    return now_ms - quiet_ms < moment_ms <= now_ms + _CLOCK_SKEW_MS


def distinct_rows(ledger_orders: pd.DataFrame) -> pd.DataFrame:
    """LEDGER_ORDERS with exact duplicates dropped; rows that share an id and differ get ``conflicting_rows``."""
    repeated = ledger_orders.duplicated(["profile_id", "order_id"], keep=False).to_numpy(dtype=bool)
    if not repeated.any():
        return ledger_orders.reset_index(drop=True)
    scalars = [name for name in ledger_orders.columns if name != "record"]
    kept = pd.concat([ledger_orders[~repeated], ledger_orders[repeated].drop_duplicates(scalars)], ignore_index=True)
    still = kept.duplicated(["profile_id", "order_id"], keep=False) & (kept["order_id"] != "")
    kept.loc[still, "defect"] = RowDefect.CONFLICTING_ROWS.value
    return kept


@dataclass(frozen=True)
class Matches:
    """Rows of one account matched with its orders by id, by position in both frames."""

    order_of: NDArray[np.int64]
    """for each row the position of its order; -1 where no id of the row is an order's"""
    two_orders: NDArray[np.bool_]
    """the row's ids name different orders (or one client id names several): it can't be said which one it is"""
    differs: NDArray[np.bool_]
    """the row's class or executed quantity is not its order's"""
    shared: NDArray[np.bool_]
    """another row that is not dead has the same order"""


def match_rows(rows: pd.DataFrame, facts: pd.DataFrame) -> Matches:
    """Match the rows of one account's ledger with its orders, by either id of the row and either id of the order.

    A row that carries the ids of a replaced order without executions and of its replacement is the replacement's.
    Rows that stand in for an order match nothing.
    """
    by_id = {order_id: at for at, order_id in enumerate(facts["order_id"].tolist()) if order_id}
    by_client: dict[str, int] = {}
    for at, client_id in enumerate(facts["client_order_id"].tolist()):
        if client_id:
            by_client[client_id] = _SEVERAL if client_id in by_client else at
    order_ids, client_ids = rows["order_id"].tolist(), rows["client_order_id"].tolist()
    order_of = np.full(len(rows), -1, dtype=np.int64)
    two_orders = np.zeros(len(rows), dtype=bool)
    for index, (order_id, client_id) in enumerate(zip(order_ids, client_ids, strict=True)):
        first = by_id.get(order_id, by_client.get(order_id, -1))
        second = by_id.get(client_id, by_client.get(client_id, -1)) if client_id != order_id else -1
        if (first == -1 and second == -1) or order_id.startswith(STAND_IN_PREFIXES):
            continue
        found = second if first == -1 else first
        if first != -1 and second not in {-1, first}:
            found = _replacement(facts, first, second)
        order_of[index] = max(found, -1)
        two_orders[index] = found < 0
    return Matches(order_of, two_orders, *_compared(rows, facts, order_of))


_SEVERAL: Final = -2


def _replacement(facts: pd.DataFrame, first: int, second: int) -> int:
    """Of two orders the one that replaced the other before that executed anything; -2 where it is not so."""
    if first < 0 or second < 0:
        return _SEVERAL
    for old, new in ((first, second), (second, first)):
        before, after = facts.iloc[old], facts.iloc[new]
        linked = before["replaced_by"] == after["order_id"] or after["replaces"] == before["order_id"]
        if linked and before["is_over"] and before["executed_e9"] == 0:
            return new
    return _SEVERAL


def _compared(
    rows: pd.DataFrame, facts: pd.DataFrame, order_of: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where a matched row differs from its order, and where another row of the same order is not dead."""
    differs, shared = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    matched = order_of >= 0
    if not matched.any():
        return differs, shared
    at = order_of[matched]
    executed, ordered = facts["executed_e9"].to_numpy(), facts["ordered_e9"].to_numpy()
    over = facts["is_over"].to_numpy(dtype=bool)
    some = np.asarray(executed > 0, dtype=bool)
    over = over | (some & np.asarray((ordered > 0) & (executed >= ordered), dtype=bool))
    wanted = np.where(some, np.where(over, _FILLED, _PARTIAL), np.where(over, _DEAD, _PENDING))[at]
    codes, statuses = pd.factorize(rows["status"].to_numpy()[matched])
    classes = np.array([_CODES[class_of_status(status)] for status in statuses], dtype=np.int64)[codes]
    apart = abs(rows["executed_e9"].to_numpy()[matched] - executed[at]) > EPSILON_E9
    differs[matched] = (classes != wanted) | np.asarray(apart, dtype=bool)
    alive = classes != _DEAD
    count = np.bincount(at[alive], minlength=len(facts))
    shared[matched] = count[at] - alive > 0
    return differs, shared


def rows_that_speak(rows: Iterable[Any]) -> list[Any]:
    """Of the rows of one order those that count, the one to keep first.

    A dead row beside one that is not was given up for it. Kept is the row keyed by the exchange's id, else the older one.
    """
    listed = list(rows)
    alive = [row for row in listed if class_of_status(row.status) is not OrderClass.DEAD]
    return alive or listed


def keep_first(rows: Iterable[Any], order_id: str) -> list[Any]:
    """The rows of the order in the order of keeping: keyed by the exchange's id, then the oldest, then by id."""
    far = np.iinfo(np.int64).max
    return sorted(
        rows_that_speak(rows),
        key=lambda row: (
            row.order_id != order_id,
            far if row.time_ms == NO_TIME else row.time_ms,
            row.order_id,
            row.profile_id,
        ),
    )


def contradictions(kept: Any, other: Any, fact: Any) -> list[str]:
    """What keeps two rows of one order from being the same row written twice; empty where nothing does.

    The quantities agree where each is what was ordered or what was executed, or both are the same.
    """
    found = [name for name in ("profile_id", "trade_id", "symbol_token") if getattr(kept, name) != getattr(other, name)]
    found += [
        name
        for name in ("action", "side")
        if getattr(kept, name) and getattr(other, name) and getattr(kept, name) != getattr(other, name)
    ]
    if kept.defect or other.defect:
        found.append("defect")
    known = {fact.ordered_e9, fact.executed_e9} - {0}
    if kept.ordered_e9 != other.ordered_e9 and not {kept.ordered_e9, other.ordered_e9} <= known:
        found.append("quantity")
    return found


def rows_after(ledger_orders: pd.DataFrame, changes: Iterable[OrderChange]) -> pd.DataFrame:
    """LEDGER_ORDERS as they will read once ``changes`` are written: statuses, executed quantities and new rows."""
    by_key = {(change.profile_id, change.order_id): change for change in changes}
    if not by_key:
        return ledger_orders
    after = ledger_orders.copy()
    keys = list(zip(after["profile_id"], after["order_id"], strict=True))
    touched = [at for at, key in enumerate(keys) if key in by_key and not by_key[key].inserts]
    statuses, executed, defects = (after[name].tolist() for name in ("status", "executed_e9", "defect"))
    for at in touched:
        values = by_key[keys[at]].values
        statuses[at] = values.get("status") or statuses[at]
        stated = parse_decimal(values.get("executed"))
        if statuses[at] not in FILLED_STATUSES:
            executed[at] = 0
        elif stated is not None:
            executed[at], defects[at] = to_e9(stated), ""
    after["status"] = pd.Series(statuses, index=after.index, dtype=object)
    after["defect"] = pd.Series(defects, index=after.index, dtype=object)
    after["executed_e9"] = pd.Series(integer_array(executed), index=after.index)
    new = [_inserted(change) for change in by_key.values() if change.inserts]
    if not new:
        return after
    inserted = frame_of(LEDGER_ORDERS, dict(zip(LEDGER_ORDERS.names, zip(*new, strict=True), strict=True)))
    return pd.concat([after, inserted], ignore_index=True)


def _inserted(change: OrderChange) -> tuple[Any, ...]:
    values = change.values
    status, symbol = values["status"] or "", values["symbol"] or ""
    executed = parse_decimal(values.get("filled_qty")) if status in FILLED_STATUSES else None
    ordered = parse_decimal(values.get("qty"))
    at = parse_instant(values.get("timestamp"))
    filled_at = parse_instant(values.get("filled_at"))
    known: dict[str, Any] = {
        "profile_id": change.profile_id,
        "order_id": change.order_id,
        "trade_id": change.trade_id,
        "symbol_token": symbol_token(symbol),
        "ordered_e9": 0 if ordered is None else to_e9(ordered),
        "executed_e9": 0 if executed is None else to_e9(executed),
        "price": parse_decimal(values.get("price")),
        "time_ms": NO_TIME if at is None else at,
        "created_at_ms": NO_TIME,
        "filled_at_ms": NO_TIME if filled_at is None else filled_at,
        "activity_ms": NO_TIME,
        "defect": "",
        "record": {},
    }
    return tuple(known[name] if name in known else values.get(name) or "" for name in LEDGER_ORDERS.names)


def as_lifecycle_rows(ledger_orders: pd.DataFrame) -> pd.DataFrame:
    """LEDGER_ORDERS as LIFECYCLE_ROWS, for ``slices`` and ``evidence``."""
    return ledger_orders.rename(columns={"executed_e9": "qty_e9"})[LIFECYCLE_ROWS.names].reset_index(drop=True)
