"""What a cycle remembers for the next one, whichever process runs it, and what it reported.

What belongs here: reading and saving counts of confirmations, states of position parity, watchdogs, reports and contention,
for many profiles at once. What does not: what they mean (``domain.order_parity``, ``domain.position_parity``,
``domain.watchdog``) and leases themselves (``leases``).

State is saved under the profile's lease, which is checked and held in the same transaction: a run that lost its lease changes
nothing. Only the pipeline's own tables are written.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Final

import pandas as pd
from psycopg.types.json import Jsonb

from recon_pipeline.domain.cycle_frames import ORDER_CONFIRMATIONS, PARITY_STATES
from recon_pipeline.domain.frames import Schema, frame_of, rows_of
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9, integer_array, to_e9
from recon_pipeline.domain.watchdog import Pause, WatchdogState
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.leases import Lease, check_lease
from recon_pipeline.ledger.session import json_rows
from recon_pipeline.ledger.statements import statement
from recon_pipeline.ledger.totals import Addition, add_totals

LEASE_HELD: Final = "lease_held"
"""``skipped_reason`` of a report that says nothing about its profile: another run holds the lease. ``sql/cycle_state.sql``
and the boards spell it too."""

_NOT_CONTENT: Final = frozenset({"run_id", "cycle_at_ms"})
_NEVER_OLD_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""
_E9_COLUMNS: Final = {"open_e9": "open_qty", "position_e9": "position_qty"}


@dataclass(frozen=True)
class CycleState:
    """What the last cycle left, for the profiles that were asked for."""

    confirmations: pd.DataFrame
    """ORDER_CONFIRMATIONS, ordered by profile and order id"""
    parity: pd.DataFrame
    """PARITY_STATES, ordered by profile and trade id"""
    watchdogs: dict[str, WatchdogState]
    """by profile; a profile that was never judged has the state as built"""


@dataclass(frozen=True)
class Contention:
    """How often a cycle found a profile's lease taken, and the last time of it."""

    profile_id: str
    contentions: int
    last_at: dt.datetime
    last_holder: str


def read_cycle_state(connection: Connection, profile_ids: Sequence[str]) -> CycleState:
    """Return what is remembered of the profiles. Exact: what was saved is what is read."""
    asked = {"profile_ids": list(profile_ids)}
    confirmations = connection.execute(statement("select_order_confirmations"), asked).fetchall()
    parity = [_parity_row(row) for row in connection.execute(statement("select_parity_states"), asked)]
    watchdogs = {profile_id: WatchdogState(profile_id) for profile_id in profile_ids}
    watchdogs |= {
        row["profile_id"]: WatchdogState(**row) for row in connection.execute(statement("select_watchdogs"), asked)
    }
    return CycleState(_frame(ORDER_CONFIRMATIONS, confirmations), _frame(PARITY_STATES, parity), watchdogs)


def save_cycle_state(
    connection: Connection,
    lease: Lease,
    *,
    confirmations: pd.DataFrame | None,
    parity: pd.DataFrame | None,
    watchdog: WatchdogState | None,
) -> bool:
    """Save the whole new state of the lease's profile, in one transaction; return False, and save nothing, without the lease.

    The frames hold every row that counts from now on: one that is absent is in line again and forgotten. None leaves what is
    there as it is, which is what a frozen profile wants (its exchange could not be read).

    :raises ValueError: a row or a watchdog of another profile than the lease's
    """
    profile_id = lease.profile_id
    foreign = {
        name
        for frame in (confirmations, parity)
        if frame is not None
        for name in frame["profile_id"]
        if name != profile_id
    }
    if watchdog is not None and watchdog.profile_id != profile_id:
        foreign.add(watchdog.profile_id)
    if foreign:
        raise ValueError(f"the lease of {profile_id} does not cover the state of {', '.join(sorted(foreign))}")
    with connection.transaction():
        if not check_lease(connection, lease):
            return False
        if confirmations is not None:
            rows = [_plain(ORDER_CONFIRMATIONS, row) for row in rows_of(confirmations[ORDER_CONFIRMATIONS.names])]
            connection.execute(statement("save_order_confirmations"), {"profile_id": profile_id, "rows": Jsonb(rows)})
        if parity is not None:
            rows = [_plain(PARITY_STATES, row) for row in rows_of(parity[PARITY_STATES.names])]
            connection.execute(statement("save_parity_states"), {"profile_id": profile_id, "rows": Jsonb(rows)})
        if watchdog is not None:
            connection.execute(statement("save_watchdog"), asdict(watchdog))
    return True


def standing_pauses(connection: Connection) -> list[Pause]:
    """Return every row of ``trading_control`` that says PAUSED, by scope: what stands, not what holds for one profile.

    A pause that does not say since when counts as never old enough.
    """
    rows = connection.execute(statement("select_standing_pauses"))
    return [
        Pause(row["scope"], row["source"] or "", _NEVER_OLD_MS if row["since_ms"] is None else row["since_ms"])
        for row in rows
    ]


def save_reports(
    connection: Connection,
    reports: Iterable[Mapping[str, Any]],
    *,
    contents: Mapping[str, str] | None = None,
    counted: Mapping[str, Sequence[Addition]] | None = None,
) -> dict[str, bool]:
    """Save the reports of one run; return by profile whether the content differs from the profile's last report.

    A report is a mapping of the fields of ``cycle.outcome.ReconciliationReport`` (``dataclasses.asdict``). Run and time are no
    content. ``contents`` adds to it by profile what the counters don't show (digests of plans): two cycles that corrected one
    row each differ. A report that found the lease taken is kept, never counts as changed, and is never compared with.
    ``counted`` is by profile what its report adds to the totals: in the same transaction, and only where the run has not
    reported the profile before.
    """
    more = contents or {}
    rows = [
        {
            "profile_id": report["profile_id"],
            "run_id": report["run_id"],
            "cycle_at_ms": int(report["cycle_at_ms"]),
            "processed": bool(report["processed"]),
            "clean": bool(report["clean"]),
            "content": report_content(report, more.get(report["profile_id"], "")),
            "report": {name: _json_value(value) for name, value in report.items()},
        }
        for report in reports
    ]
    changed: dict[str, bool] = {}
    additions: list[Addition] = []
    with connection.transaction():
        for chunk in json_rows(rows):
            found = connection.execute(statement("save_cycle_reports"), {"rows": chunk})
            for row in found:
                changed[row["profile_id"]] = row["changed"]
                if row["first"] and counted is not None:
                    additions += counted.get(row["profile_id"], ())
        add_totals(connection, additions)
    return changed


def report_content(report: Mapping[str, Any], more: str = "") -> str:
    """Return the SHA-256 of what a report says, without its run and its time."""
    said = {name: _json_value(value) for name, value in report.items() if name not in _NOT_CONTENT}
    return hashlib.sha256(f"{json.dumps(said, sort_keys=True)}\n{more}".encode()).hexdigest()


def latest_reports(connection: Connection, profile_ids: Sequence[str]) -> dict[str, Row]:
    """Return the newest report of each profile that decided anything: run_id, cycle_at, processed, clean, content, report."""
    rows = connection.execute(statement("select_latest_reports"), {"profile_ids": list(profile_ids)})
    return {row["profile_id"]: row for row in rows}


def lease_holders(connection: Connection, profile_ids: Sequence[str]) -> dict[str, Lease]:
    """Return the leases of the profiles that are in force now, whoever holds them."""
    rows = connection.execute(statement("select_lease_holders"), {"profile_ids": list(profile_ids)})
    return {row["profile_id"]: Lease(**row) for row in rows}


def note_contention(connection: Connection, profile_id: str, holder: str) -> int:
    """Count that a cycle found the profile's lease taken by ``holder``; return how often that has happened."""
    row = connection.execute(statement("note_contention"), {"profile_id": profile_id, "holder": holder}).fetchone()
    if row is None:
        raise RuntimeError(f"the contention of {profile_id} was not counted")
    return int(row["contentions"])


def contentions(connection: Connection, profile_ids: Sequence[str]) -> dict[str, Contention]:
    """Return the contention of those profiles that ever had any."""
    rows = connection.execute(statement("select_contentions"), {"profile_ids": list(profile_ids)})
    return {row["profile_id"]: Contention(**row) for row in rows}


def _frame(schema: Schema, rows: Sequence[Row]) -> pd.DataFrame:
    if not rows:
        return schema.empty()
    columns: dict[str, Any] = {}
    for column in schema.columns:
        values = [row[column.name] for row in rows]
        columns[column.name] = integer_array(values) if column.type in {"quantity", "count", "instant"} else values
    return frame_of(schema, columns)


def _parity_row(row: Row) -> Row:
    return row | {units: to_e9(row[quantity]) for units, quantity in _E9_COLUMNS.items()}


def _plain(schema: Schema, row: Any) -> dict[str, object]:
    """Return a row of a frame as JSON values: quantities and money as exact text."""
    plain: dict[str, object] = {}
    for column in schema.columns:
        value = getattr(row, column.name)
        if column.type == "quantity":
            plain[_E9_COLUMNS[column.name]] = decimal_text_e9(value)
        elif column.type in {"count", "instant"}:
            plain[column.name] = int(value)
        elif column.type == "bool":
            plain[column.name] = bool(value)
        else:
            plain[column.name] = _json_value(value)
    return plain


def _json_value(value: object) -> object:
    """Return the value as JSON has it; money is text without trailing zeros, so that 1.50 and 1.5 are one content."""
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Mapping):
        return {str(name): _json_value(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    return value
