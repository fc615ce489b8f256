"""The board of operations: where every profile stands, what the watchdogs remember, and who holds which lease.

Dagster concept: an asset without partitions, materialized by hand at any time and by every cycle at its end. It only reads.
Not here: the views (``ledger.boards``), and the single profile (``cycle_presentation``).
"""

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import dagster as dg
import psycopg

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import cycle_catalogue as names
from recon_pipeline.defs.presentation import Metadata
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.tables import cents, counted, dollars, table
from recon_pipeline.ledger.boards import cycle_board, lease_board, watchdog_board
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, Row, connect
from recon_pipeline.settings import SettingError

_LOG = logging.getLogger(__name__)
SHOWN: Final = 100
LATE_MINUTES: Final = 15
"""Three cycles of the schedule: a profile that had none for so long is not being reconciled."""
EVERY_PROFILE_LATELY: Final = "every_profile_had_a_cycle_lately"

_IN_LINE, _NEVER, _LATE = "in line", "never reconciled", "late"
_COLUMNS: Final = (
    ("profile", ""),
    ("state", "of its latest cycle"),
    ("for_a_person", "trades and orders that no cycle can resolve"),
    ("usd_out_of_line", "position parity"),
    ("usd_at_risk", "open trades that nothing proves"),
    ("differs", "orders that differ, missing at the exchange, missing in the ledger"),
    ("trades_out_of_line", "of them quarantined"),
    ("no_go", "trades"),
    ("last_cycle", "how long ago"),
    ("last_in_line", "how long ago"),
    ("paused", "by whom"),
)


def board(outside: Outside) -> tuple[Metadata, dg.AssetCheckEvaluation]:
    """Return the board as metadata, and whether every profile had a cycle lately.

    :raises SettingError: a setting can't be read
    :raises DatabaseUnavailableError: the database can't be read
    """
    settings, now = outside.settings(), outside.now()
    with outside.ledger(settings) as ledger:
        profiles = [str(row["profile_id"]) for row in ledger.profiles()]
    with connect(settings.database_url, READER, "recon board") as connection:
        cycles = {str(row["profile_id"]): row for row in cycle_board(connection)}
        watchdogs = watchdog_board(connection)
        leases = lease_board(connection)
    states = {profile: _state(cycles.get(profile), now) for profile in profiles}
    wrong = [profile for profile in profiles if states[profile] != _IN_LINE]
    known = [cycles[profile] for profile in profiles if profile in cycles]
    held = [row for row in leases if row["held"]]
    pauses = [row for row in known if row["paused"]]
    metadata: Metadata = {
        "outcome": _sentence(profiles, states, known),
        "profiles": _profiles_table(profiles, states, cycles, now),
        "watchdogs": _watchdogs_table(watchdogs, now),
        "leases": _leases_table(leases, now),
        "profiles_known": len(profiles),
        "profiles_in_line": len(profiles) - len(wrong),
        "profiles_not_in_line": len(wrong),
        "profiles_late": sum(1 for state in states.values() if state.startswith((_NEVER, _LATE))),
        "profiles_paused": len(pauses),
        "paused_by_watchdog": sum(1 for row in watchdogs if row["paused_by_watchdog"]),
        "waiting_for_person": sum(int(row["waiting_for_person"] or 0) for row in known),
        "money_out_of_line_usd": _total(known, "parity_total_mismatch_notional_usd"),
        "money_at_risk_usd": _total(known, "money_at_risk_usd"),
        "leases_held": len(held),
        "contentions_ever": sum(int(row["contentions"] or 0) for row in leases),
        "read_at": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
        "runbook": dg.MetadataValue.path(names.RUNBOOK),
    }
    return metadata, _evaluation(states)


def board_events(outside: Outside) -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    """Yield the board as events of another asset's step; a board that can't be read fails no cycle."""
    try:
        metadata, evaluation = board(outside)
    except (psycopg.Error, DatabaseUnavailableError, SettingError) as error:
        _LOG.warning("the board could not be read: %s", error)
        return
    yield dg.AssetMaterialization(dg.AssetKey(names.BOARD_KEY), metadata=metadata)
    yield evaluation


@dg.asset(
    name=names.BOARD_KEY,
    group_name="reconciliation",
    owners=cat.OWNERS,
    kinds={"postgres"},
    tags={"domain": "reconciliation", "stage": "reconciliation"},
    metadata={"runbook": dg.MetadataValue.text(names.RUNBOOK)},
    check_specs=[
        dg.AssetCheckSpec(
            EVERY_PROFILE_LATELY,
            asset=names.BOARD_KEY,
            description=f"Every profile of the table profiles had a cycle in the last {LATE_MINUTES} minutes that was not turned "
            "away by another run's lease.",
        )
    ],
    description="**Where everything stands now**, all profiles on one page: which are out of line and since when, what waits for "
    "a person, what the watchdogs remember and have paused, who holds which lease.\n\n"
    "Every cycle brings it up to date at its end; materialize it by hand to look now. It only reads.",
)
def operations_board(outside: dg.ResourceParam[Outside]) -> Iterator[dg.MaterializeResult[None]]:
    """Read the boards."""
    metadata, evaluation = board(outside)
    result = dg.AssetCheckResult(
        asset_key=evaluation.asset_key,
        check_name=evaluation.check_name,
        passed=evaluation.passed,
        severity=evaluation.severity,
        description=evaluation.description,
        metadata=evaluation.metadata,
    )
    yield dg.MaterializeResult(metadata=metadata, check_results=[result])


def _evaluation(states: Mapping[str, str]) -> dg.AssetCheckEvaluation:
    late = [(profile, state) for profile, state in states.items() if state.startswith((_NEVER, _LATE))]
    entries: dict[str, Any] = {"violations": len(late)}
    if late:
        entries |= {
            "what_to_do": "See that the schedule reconcile_every_five_minutes is on and its runs end; a lease that stays held "
            "stands in the table leases.",
            "sample": table((("profile", ""), ("state", "")), late, cap=SHOWN),
        }
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(names.BOARD_KEY),
        check_name=EVERY_PROFILE_LATELY,
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{counted(len(late), 'profile')} of {len(states)} had no cycle in the last {LATE_MINUTES} minutes."
        if late
        else f"All {len(states)} profiles had a cycle in the last {LATE_MINUTES} minutes.",
        metadata=entries,
    )


def _state(row: Row | None, now: dt.datetime) -> str:
    if row is None or row["cycle_at"] is None:
        return _NEVER
    if now - row["cycle_at"] > dt.timedelta(minutes=LATE_MINUTES):
        return f"{_LATE}: {_ago(row['cycle_at'], now)}"
    if row["error"] or row["failed_stages"]:
        return "FAILED"
    if not row["evidence_complete"] or row["skipped_reason"]:
        return str(row["skipped_reason"] or "evidence_incomplete")
    return _IN_LINE if row["clean"] else "out of line"


def _sentence(profiles: Sequence[str], states: Mapping[str, str], known: Sequence[Row]) -> str:
    if not profiles:
        return "There are no profiles in the table profiles."
    counts: dict[str, int] = {}
    for state in states.values():
        word = _LATE if state.startswith(_LATE) else state
        counts[word] = counts.get(word, 0) + 1
    in_line = counts.pop(_IN_LINE, 0)
    parts = [f"{in_line} of {counted(len(profiles), 'profile')} in line"]
    parts += [f"{count} {state}" for state, count in sorted(counts.items())]
    if waiting := sum(int(row["waiting_for_person"] or 0) for row in known):
        parts.append(f"{counted(waiting, 'thing')} for a person")
    if money := _total(known, "parity_total_mismatch_notional_usd"):
        parts.append(f"${money:,.2f} out of line")
    return "; ".join(parts) + "."


def _total(rows: Sequence[Row], column: str) -> float:
    return float(cents(sum((row[column] for row in rows if row[column] is not None), Decimal(0))))


def _profiles_table(
    profiles: Sequence[str], states: Mapping[str, str], cycles: Mapping[str, Row], now: dt.datetime
) -> dg.TableMetadataValue:
    def rank(profile: str) -> tuple[object, ...]:
        row = cycles.get(profile, {})
        money = row.get("parity_total_mismatch_notional_usd") or Decimal(0)
        return (states[profile] == _IN_LINE, -int(row.get("waiting_for_person") or 0), -money, profile)

    rows: list[tuple[object, ...]] = []
    for profile in sorted(profiles, key=rank):
        row = cycles.get(profile)
        if row is None or row["cycle_at"] is None:
            rows.append((profile, states[profile], *[""] * (len(_COLUMNS) - 2)))
            continue
        rows.append(
            (
                profile,
                states[profile],
                row["waiting_for_person"] or "",
                _money(row["parity_total_mismatch_notional_usd"]),
                _money(row["money_at_risk_usd"]),
                _slashed(row["mismatch_count"], row["missing_from_exchange"], row["missing_in_db"]),
                _of(row["parity_mismatch_trades"], row["parity_quarantined_trades"], "quarantined"),
                row["no_go_trades"] or "",
                _ago(row["cycle_at"], now),
                _ago(row["last_clean_at"], now) if row["last_clean_at"] else "never",
                row["pause_source"] if row["paused"] else "",
            )
        )
    return table(_COLUMNS, rows, cap=SHOWN)


def _watchdogs_table(rows: Sequence[Row], now: dt.datetime) -> dg.TableMetadataValue:
    columns = (
        ("profile", ""),
        ("paused_by_watchdog", "since"),
        ("verdict", "its last, in a word"),
        ("usd_out_of_line", "when it judged"),
        ("capital_usd", "unknown: it can't judge"),
        ("ratio", "of the capital"),
        ("clean_cycles", "in a row"),
        ("resumed", "by itself, last"),
        ("trading", "what the bots read"),
    )
    ordered = sorted(rows, key=lambda row: (not row["paused_by_watchdog"], -(row["mismatch_usd"] or Decimal(0))))
    shown = [
        (
            row["profile_id"],
            _ago(row["paused_at"], now) if row["paused_by_watchdog"] else "no",
            row["reason"],
            _money(row["mismatch_usd"]),
            "unknown" if row["capital_usd"] is None else dollars(row["capital_usd"]),
            "" if row["mismatch_ratio"] is None else row["mismatch_ratio"],
            row["clean_cycles"],
            _ago(row["resumed_at"], now) if row["resumed_at"] else "",
            _trading(row),
        )
        for row in ordered
    ]
    return table(columns, shown, cap=SHOWN)


def _trading(row: Row) -> str:
    state = str(row["trading"] or "RUNNING")
    return f"{state} by {row['trading_source']}: {row['trading_reason']}" if state == "PAUSED" else state


def _leases_table(rows: Sequence[Row], now: dt.datetime) -> dg.TableMetadataValue:
    columns = (
        ("profile", ""),
        ("held", "now"),
        ("owner", "run that has it, or let it expire"),
        ("seconds_left", "until it ends by itself"),
        ("contentions", "cycles that found it taken, ever"),
        ("last_contention", "how long ago, with whom"),
    )
    told = [row for row in rows if row["held"] or row["contentions"]]
    ordered = sorted(told, key=lambda row: (not row["held"], row["profile_id"]))
    shown = [
        (
            row["profile_id"],
            "held" if row["held"] else "free",
            row["owner"],
            row["seconds_left"],
            row["contentions"] or "",
            f"{_ago(row['last_contended_at'], now)}, {row['last_contended_with']}" if row["last_contended_at"] else "",
        )
        for row in ordered
    ]
    return table(columns, shown, cap=SHOWN)


def _ago(then: dt.datetime, now: dt.datetime) -> str:
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _money(value: Decimal | None) -> str:
    return dollars(value) if value else ""


def _slashed(*values: int | None) -> str:
    return " / ".join(str(value or 0) for value in values) if any(values) else ""


def _of(count: int | None, part: int | None, word: str) -> str:
    if not count:
        return ""
    return f"{count} ({part} {word})" if part else str(count)
