"""What a change makes of a row of ``orders``: which columns get which text, in a table that may lack optional ones.

Rules
-----
filled            every quantity column that says something says what was executed.
partially_filled  ``filled_qty`` says what was executed and ``qty`` stays what was ordered; in a table without ``filled_qty``
                  ``qty`` says what was executed, as it is read there.
anything else     quantities stay as they are: such a row books nothing.

A value of None changes nothing: what is not known never erases what is. A row is only written where it then reads, by the
rules of ``readings``, as what the change says. What does not belong here: the comparison with the row as it was, and SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from recon_pipeline.domain.corrections import OrderChange, RowRecord
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.quantities import EXACT, parse_decimal, to_e9
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.domain.terms import FILLED_STATUSES, RowDefect, normalise_status

PARTIAL: Final = "partially_filled"
_COPIED: Final = ("status", "price", "filled_at", "sub_tag")
_QUANTITIES: Final = ("qty", "quantity")
_UPDATED: Final = frozenset({*_COPIED, "executed"})
_UNREADABLE: Final = frozenset(
    {RowDefect.QUANTITY.value, RowDefect.CONFLICTING_QUANTITIES.value, RowDefect.CONFLICTING_ROWS.value}
)


def updated_values(record: RowRecord, change: OrderChange, columns: Collection[str]) -> dict[str, str]:
    """The columns that an update sets, as text; empty where the table has none of them.

    :param record: the row as the view spells it
    :param columns: the columns that the table has
    :raises ValueError: a value that no update takes, or an executed quantity under a status that books nothing
    """
    unknown = set(change.values) - _UPDATED
    if unknown:
        raise ValueError(f"an update of {change.order_id} can't set {', '.join(sorted(unknown))}")
    out = {name: value for name in _COPIED if (value := change.values.get(name)) is not None and name in columns}
    executed = change.values.get("executed")
    if executed is None:
        return out
    units = _units(change, executed)
    status = normalise_status(out.get("status", record.get("status")))
    if status not in FILLED_STATUSES:
        if units:
            raise ValueError(f"{change.order_id}: {executed} executed under the status {status!r}, which books nothing")
        return out
    if status == PARTIAL and "filled_qty" in columns:
        out["filled_qty"] = executed
        stated = [name for name in _QUANTITIES if name in columns and record.get(name) not in (None, "")]
        if any(_less(record[name], units) for name in stated):
            out |= dict.fromkeys(stated, executed)
        return out
    out["qty"] = executed
    if "quantity" in columns and record.get("quantity") not in (None, ""):
        out["quantity"] = executed
    if "filled_qty" in columns:
        out["filled_qty"] = executed
    return out


def inserted_values(change: OrderChange, columns: Collection[str]) -> dict[str, str | None]:
    """The columns of a new row, as ``recon.insert_orders`` takes them.

    :raises ValueError: the values name another row, or a quantity that is none
    """
    values = dict(change.values)
    for name, wanted in (
        ("order_id", change.order_id),
        ("profile_id", change.profile_id),
        ("trade_id", change.trade_id),
    ):
        if values.setdefault(name, wanted) != wanted:
            raise ValueError(f"the new row {change.order_id} has {name} {values[name]!r}, the change says {wanted!r}")
    status = normalise_status(values.get("status"))
    filled = values.get("filled_qty")
    if status == PARTIAL and "filled_qty" not in columns and filled is not None:
        values["qty"] = filled
        if values.get("quantity") is not None:
            values["quantity"] = filled
    return values


def executed_units(record: Mapping[str, object]) -> int | None:
    """What a row says was executed, in units of 1e-9; 0 under a status that books nothing, None where it can't be told."""
    (row,) = rows_of(lifecycle_rows_frame([record]))
    if row.status not in FILLED_STATUSES:
        return 0
    return None if row.defect in _UNREADABLE else int(row.qty_e9)


def _units(change: OrderChange, executed: str) -> int:
    number = parse_decimal(executed)
    if number is None or number < 0 or EXACT.multiply(number, 10**9) != to_e9(number):
        raise ValueError(f"{change.order_id}: {executed!r} is no executed quantity of at most nine decimals")
    return to_e9(number)


def _less(stated: str | None, units: int) -> bool:
    """Whether a quantity that was ordered is less than what was executed, or is no number."""
    number = parse_decimal(stated)
    return number is None or to_e9(number) < units
