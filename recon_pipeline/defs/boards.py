"""The board of operations: where every profile stands, what the watchdogs remember, stale orders, and who holds which lease.

Dagster concept: an asset without partitions, materialized by hand at any time and by every cycle at its end. It only reads.
Not here: the views (``ledger.boards``), single orders (``order_board``), and the single profile (``cycle_presentation``).
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
from recon_pipeline.defs.order_board import order_entries
from recon_pipeline.defs.presentation import Metadata
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.tables import cents, counted, dollars, table
from recon_pipeline.domain.watchdog import WatchdogReason
from recon_pipeline.ledger.boards import cycle_board, lease_board, watchdog_board
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, Row, connect
from recon_pipeline.settings import SettingError

_LOG = logging.getLogger(__name__)
SHOWN: Final = 100
LATE_MINUTES: Final = 15
"""Three cycles of the schedule: a profile that had none for so long is not being reconciled."""
EVERY_PROFILE_LATELY: Final = "every_profile_had_a_cycle_lately"

_IN_LINE, _NEVER, _LATE = "in line", "never reconciled", "late"
_QUIET: Final = frozenset({"", WatchdogReason.IN_LINE.value, WatchdogReason.WITHIN_LIMIT.value})
_COLUMNS: Final = (
    ("profile", ""),
    ("state", "of its latest cycle"),
    ("person", "trades and orders that no cycle can resolve"),
    ("usd", "out of line with the positions, US dollars"),
    ("what", "what its latest cycle found"),
    ("in_line", "when it was in line last"),
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
        order_sentences, orders = order_entries(connection, settings.order_status, now)
    states = {profile: _state(cycles.get(profile), now) for profile in profiles}
    wrong = [profile for profile in profiles if states[profile] != _IN_LINE]
    known = [cycles[profile] for profile in profiles if profile in cycles]
    held = [row for row in leases if row["held"]]
    pauses = [row for row in known if row["paused"]]
    metadata: Metadata = {
        "outcome": _sentence(profiles, states, known),
        **order_sentences,
        "profiles": _profiles_table(profiles, states, cycles, now),
        **orders,
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
    "a person, which orders are stale, whether sync and streams work, what the watchdogs remember and have paused, who holds "
    "which lease.\n\n"
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
                _found(row),
                _ago(row["last_clean_at"], now) if row["last_clean_at"] else "never",
            )
        )
    return table(_COLUMNS, rows, cap=SHOWN)


def _found(row: Row) -> str:
    """What the profile's latest cycle found, in words."""
    quarantined = f" ({row['parity_quarantined_trades']} quarantined)" if row["parity_quarantined_trades"] else ""
    risk = f" (${dollars(row['money_at_risk_usd'])})" if row["money_at_risk_usd"] else ""
    counts = (
        (row["mismatch_count"], "order differs", "orders differ", ""),
        (row["missing_from_exchange"], "missing at the exchange", "missing at the exchange", ""),
        (row["missing_in_db"], "missing in the ledger", "missing in the ledger", ""),
        (row["parity_mismatch_trades"], "trade out of line", "trades out of line", quarantined),
        (row["no_go_trades"], "no-go trade", "no-go trades", risk),
        (row["data_defects"], "unusable row", "unusable rows", ""),
        (row["corrections"], "corrected", "corrected", ""),
    )
    parts = [f"{count} {one if count == 1 else many}{more}" for count, one, many, more in counts if count]
    if row["paused"]:
        parts.append(f"paused by {row['pause_source'] or 'unknown'}")
    if row["error"]:
        parts.append(str(row["error"]))
    return ", ".join(parts)


def _watchdogs_table(rows: Sequence[Row], now: dt.datetime) -> dg.TableMetadataValue:
    """Return the watchdogs that have something to say; those that are quiet are counted."""
    columns = (
        ("profile", ""),
        ("verdict", "its last"),
        ("out_of_line", "of the allocated capital, when it judged"),
        ("clean_cycles", "in a row"),
        ("paused", "by the watchdog, since when; or when it last resumed"),
        ("trading", "what the bots read"),
    )
    loud = [
        row for row in rows if row["paused_by_watchdog"] or row["reason"] not in _QUIET or row["trading"] == "PAUSED"
    ]
    loud.sort(key=lambda row: (not row["paused_by_watchdog"], -(row["mismatch_usd"] or Decimal(0))))
    shown = [
        (row["profile_id"], row["reason"], _share(row), row["clean_cycles"], _pause(row, now), _trading(row))
        for row in loud
    ]
    if quiet := len(rows) - len(loud):
        shown.append((f"{counted(quiet, 'other')}", "quiet", "", "", "", "RUNNING"))
    return table(columns, shown, cap=SHOWN)


def _share(row: Row) -> str:
    capital = "unknown" if row["capital_usd"] is None else f"${dollars(row['capital_usd'])}"
    ratio = "" if row["mismatch_ratio"] is None else f" ({row['mismatch_ratio']:.0%})"
    return f"${dollars(row['mismatch_usd'] or Decimal(0))} of {capital}{ratio}"


def _pause(row: Row, now: dt.datetime) -> str:
    if row["paused_by_watchdog"]:
        return _ago(row["paused_at"], now)
    return f"resumed {_ago(row['resumed_at'], now)}" if row["resumed_at"] else "no"


def _trading(row: Row) -> str:
    state = str(row["trading"] or "RUNNING")
    return f"{state} by {row['trading_source']}: {row['trading_reason']}" if state == "PAUSED" else state


def _leases_table(rows: Sequence[Row], now: dt.datetime) -> dg.TableMetadataValue:
    """Return the leases that are held or were contended; those that are free are counted."""
    columns = (
        ("profile", ""),
        ("lease", "who holds it, and until when"),
        ("contentions", "how often a cycle found it taken, and when last by whom"),
    )
    told = [row for row in rows if row["held"] or row["contentions"]]
    shown = [
        (
            row["profile_id"],
            f"held by {row['owner']}, {row['seconds_left']} s left" if row["held"] else "free",
            f"{row['contentions']}, last {_ago(row['last_contended_at'], now)} with {row['last_contended_with']}"
            if row["contentions"]
            else "",
        )
        for row in sorted(told, key=lambda row: (not row["held"], row["profile_id"]))
    ]
    if free := len(rows) - len(told):
        shown.append((counted(free, "other"), "free", ""))
    return table(columns, shown, cap=SHOWN)


def _ago(then: dt.datetime, now: dt.datetime) -> str:
    seconds = max(0, int((now - then).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _money(value: Decimal | None) -> str:
    return dollars(value) if value else ""
