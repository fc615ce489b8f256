"""The part of the board of operations about single orders: stale ones, the sync that asks about them, the streams.

Not here: the board itself (``boards``), and the orders of one profile (``order_status_presentation``).
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

import dagster as dg
import pandas as pd

from recon_pipeline.defs import order_status_remedies
from recon_pipeline.defs import order_status_tables as own
from recon_pipeline.defs.presentation import Metadata
from recon_pipeline.defs.tables import counted, table
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.order_checks import stale_checks
from recon_pipeline.domain.order_events import StreamState
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.boards import last_order_sync, stream_board
from recon_pipeline.ledger.database import Connection, Row
from recon_pipeline.ledger.order_checks import read_checks

SHOWN: Final = 100
GONE_AFTER: Final = dt.timedelta(minutes=1)
"""A stream's process gives a sign of life more often than this."""
_COUNTS: Final = ("checked", "updated", "not_found", "failed", "still_live", "left_over", "api_calls")


def order_entries(connection: Connection, policy: OrderStatusPolicy, now: dt.datetime) -> tuple[Metadata, Metadata]:
    """Return what the board shows of single orders: the sentences, which are read first, then tables and numbers."""
    checks = read_checks(connection, None)
    at_ms = int(now.timestamp() * 1000)
    stale = stale_checks(checks, policy, now_ms=at_ms)
    sync = last_order_sync(connection)
    streams = stream_board(connection)
    states = {str(row["account_id"]): stream_state(row, now) for row in streams}
    sentences: Metadata = {
        "order_status": _sentence(stale, at_ms),
        "order_status_sync": sync_sentence(sync, checks, policy, now),
        "streams": _streams_sentence(states),
    }
    entries: Metadata = {}
    if len(stale):
        entries["stale_orders"] = _stale_table(stale, at_ms)
    if streams:
        entries["order_streams"] = _streams_table(streams, states, now)
    return sentences, {
        **entries,
        "stale_order_count": len(stale),
        "oldest_stale_minutes": own.oldest_ms(stale, at_ms) // 60_000,
        "streams_listening": sum(1 for state in states.values() if state == StreamState.LISTENING.value),
        "streams_not_listening": sum(1 for state in states.values() if state != StreamState.LISTENING.value),
    }


def stream_state(row: Row, now: dt.datetime) -> str:
    """Return the state of an account's stream; GONE where its process gave no sign of life for a minute."""
    state = str(row["state"])
    alive = now - row["seen_at"] <= GONE_AFTER or state == StreamState.STOPPED.value
    return state if alive else order_status_remedies.GONE


def sync_sentence(sync: Row | None, checks: pd.DataFrame, policy: OrderStatusPolicy, now: dt.datetime) -> str:
    """Return when the sync ran last and what came of it; that it is late where orders wait for it for too long."""
    if not policy.enabled:
        return "Off: ENABLE_RECON_ORDER_STATUS_SYNC is false."
    waiting = [row.next_check_ms for row in rows_of(checks) if row.next_check_ms != NO_TIME]
    overdue_ms = int(now.timestamp() * 1000) - min(waiting) if waiting else 0
    late = ""
    if overdue_ms > policy.confirmed_for_ms:
        late = (
            f"LATE: an order waits to be asked about for {own.age_text(overdue_ms)}; see that order_status_sync_schedule is on "
            "and its runs end. "
        )
    if sync is None:
        return f"{late}It never ran; order_status_sync_schedule launches it when an order is stale."
    counts = ", ".join(f"{sync[name]:,} {name.replace('_', ' ')}" for name in _COUNTS if sync[name])
    mode = "dry run" if sync["dry_run"] else "writes"
    error = f"; {sync['error']}" if sync["error"] else ""
    ago = own.age_text(int((now - sync["ended_at"]).total_seconds() * 1000))
    return f"{late}Last run {ago} ago ({mode}): {counts or 'nothing to ask'}{error}."


def _sentence(stale: pd.DataFrame, at_ms: int) -> str:
    if not len(stale):
        return "No order is stale."
    profiles = len(set(stale["profile_id"]))
    oldest = own.age_text(own.oldest_ms(stale, at_ms))
    return f"⚠ {counted(len(stale), 'stale order')} of {counted(profiles, 'profile')}, the oldest {oldest} old."


def _stale_table(stale: pd.DataFrame, at_ms: int) -> dg.TableMetadataValue:
    """Return one line per profile with stale orders, the most of them first."""
    rows: list[tuple[object, ...]] = []
    by_profile = {str(profile): frame for profile, frame in stale.groupby("profile_id", sort=True)}
    for profile, frame in sorted(by_profile.items(), key=lambda pair: (-len(pair[1]), pair[0])):
        words = frame["outcome"].value_counts()
        said = ", ".join(f"{count} {word}" for word, count in sorted(words.items()))
        rows.append((f"⚠ {profile}", len(frame), own.age_text(own.oldest_ms(frame, at_ms)), said))
    columns = (
        ("profile", ""),
        ("orders", "stale ones"),
        ("oldest", "its age"),
        ("last_answers", "what asking about them came to; stale_orders of the profile says more"),
    )
    return table(columns, rows, cap=SHOWN)


def _streams_sentence(states: Mapping[str, str]) -> str:
    if not states:
        return (
            "No account is listened to. `recon stream` does; without it the sync and the cycle bring the same, later."
        )
    listening = sum(1 for state in states.values() if state == StreamState.LISTENING.value)
    if listening == len(states):
        return f"All {counted(listening, 'account')} listened to." if listening > 1 else "1 account listened to."
    others: dict[str, int] = {}
    for state in states.values():
        if state != StreamState.LISTENING.value:
            others[state] = others.get(state, 0) + 1
    said = ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
    return f"{listening} of {counted(len(states), 'account')} listened to; {said}."


def _streams_table(streams: Sequence[Row], states: Mapping[str, str], now: dt.datetime) -> dg.TableMetadataValue:
    def ago(then: dt.datetime | None) -> str:
        return f"{own.age_text(int((now - then).total_seconds() * 1000))} ago" if then is not None else "never"

    def rank(row: Row) -> tuple[bool, str]:
        return states[str(row["account_id"])] == StreamState.LISTENING.value, str(row["account_id"])

    rows = []
    for row in sorted(streams, key=rank):
        state = states[str(row["account_id"])]
        gone = state == order_status_remedies.GONE
        rows.append(
            (
                row["account_id"],
                f"{state}, {'last sign of life' if gone else 'since'} {ago(row['seen_at'] if gone else row['since'])}",
                ago(row["last_event_at"]),
                row["connections"],
                " ".join(filter(None, [str(row["error"] or ""), order_status_remedies.for_stream(state)])),
            )
        )
    columns = (
        ("account", ""),
        ("state", "and since when"),
        ("last_event", "an order of the account that moved"),
        ("connections", "since the process began"),
        ("note", "the last error, and what to do"),
    )
    return table(columns, rows, cap=SHOWN)
