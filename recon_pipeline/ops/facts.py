"""The facts at the top of the order status page: how the pipeline does, in a word and a tone each. Pure.

What belongs here: what is good, worth a look, or bad. What does not: the lists (``board``) and the judgement of health
(``health``), which is repeated here so that the page and a load balancer never disagree.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops import wording
from recon_pipeline.ops.board import Cases, Orders
from recon_pipeline.ops.health import HealthReason, HealthRules, health
from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.snapshot import Row, Snapshot
from recon_pipeline.ops.trading import ALL, PAUSED

Tone: TypeAlias = Literal["ok", "warn", "bad", "none"]
STREAM_GONE: Final = dt.timedelta(minutes=1)
"""A stream process that gave no sign for longer is gone (``recon.order_streams.seen_at``)."""
_SAID_ABOVE: Final = frozenset({HealthReason.DATABASE_UNREADABLE.value, HealthReason.SNAPSHOT_TOO_OLD.value})


@dataclass(frozen=True)
class Banner:
    """What has to be read before anything else."""

    tone: Tone
    sign: str
    title: str
    text: str = ""
    before_since: str = ""
    """what the live length of time at the end is about"""
    since: dt.datetime | None = None
    points: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """One thing to know."""

    name: str
    tone: Tone
    value: str = ""
    value_since: dt.datetime | None = None
    """in place of the value: how long ago this was, counted on"""
    notes: tuple[str, ...] = ()
    before_since: str = ""
    since: dt.datetime | None = None
    section: str = ""
    """of the page, where there is more"""


@dataclass(frozen=True)
class StreamLine:
    """One account's stream of order events."""

    account_id: str
    state: str
    tone: Tone
    since: dt.datetime | None
    last_event_at: dt.datetime | None
    error: str


def facts_of(
    snapshot: Snapshot, orders: Orders, cases: Cases, policy: OrderStatusPolicy, now: dt.datetime, late: dt.timedelta
) -> tuple[Fact, ...]:
    """Everything to know at a glance."""
    return (
        _stale(orders, policy),
        _waiting(cases),
        _trading(snapshot),
        _cycle(snapshot, now, late),
        _sync(snapshot, orders, policy),
        _streams(snapshot, now),
    )


def health_banner(snapshot: Snapshot, now: dt.datetime, late: dt.timedelta) -> Banner | None:
    """Why ``/internal/health`` says no, apart from the database, of which the page speaks itself; None where it doesn't."""
    body, _ = health(Latest(snapshot), now, HealthRules(late=late, max_age=dt.timedelta.max))
    reasons = [reason for reason in body["reasons"] if reason["reason"] not in _SAID_ABOVE]
    if not reasons:
        return None
    points = tuple(wording.clean(reason["detail"]) for reason in reasons)
    return Banner("bad", "✕", "Reconciliation is not healthy", points=points)


def paused_rows(snapshot: Snapshot) -> tuple[Row, ...]:
    """Every pause that stands, that of all trading first: scope, source, since, reason, as text that can be shown."""
    paused = [row for row in snapshot.trading if row["state"] == PAUSED]
    paused.sort(key=lambda row: (row["scope"] != ALL, str(row["scope"])))
    return tuple(
        {
            **row,
            "scope": wording.clean(row["scope"]),
            "source": wording.clean(row["source"]),
            "reason": wording.clean(row["reason"]),
        }
        for row in paused
    )


def stream_lines(snapshot: Snapshot, now: dt.datetime) -> tuple[StreamLine, ...]:
    """Every stream; what needs a look first."""
    lines = [_stream_line(row, now) for row in snapshot.streams]
    return tuple(sorted(lines, key=lambda line: (line.tone == "ok", line.account_id)))


def _stale(orders: Orders, policy: OrderStatusPolicy) -> Fact:
    notes = []
    if orders.persistent:
        notes.append(f"{orders.persistent:,} for more than {wording.threshold(policy.alert_after_ms)}")
    if orders.waiting:
        notes.append(f"{orders.waiting:,} confirmed live")
    return Fact(
        "Stale orders",
        "warn" if orders.stale else "ok",
        f"{orders.stale:,}{'+' if orders.more else ''}",
        notes=tuple(notes),
        section="orders",
    )


def _waiting(cases: Cases) -> Fact:
    notes = []
    if cases.count:
        notes.append(f"{wording.money(cases.notional_usd)} at risk")
    if cases.unpriced:
        notes.append(f"{cases.unpriced:,} without a known price")
    return Fact(
        "Waiting for a person",
        "warn" if cases.count else "ok",
        f"{cases.count:,}",
        notes=tuple(notes),
        section="waiting",
    )


def _trading(snapshot: Snapshot) -> Fact:
    paused = paused_rows(snapshot)
    if not paused:
        return Fact("Trading", "ok", "Running")
    first = paused[0]
    notes = [note for note in (first["reason"], f"by {first['source']}" if first["source"] else "") if note]
    if first["scope"] == ALL:
        return Fact("Trading", "warn", "Paused", notes=tuple(notes), before_since="for all,", since=first["since"])
    value = f"Paused in {wording.counted(len(paused), 'profile')}"
    return Fact("Trading", "warn", value, notes=tuple(notes[:1]) if len(paused) == 1 else ())


def _cycle(snapshot: Snapshot, now: dt.datetime, late: dt.timedelta) -> Fact:
    ends = [row["ended_at"] for row in snapshot.runs]
    ends += [row["cycle_at"] for row in snapshot.cycles if row["cycle_at"] is not None]
    if not ends:
        return Fact("Last cycle", "warn", "None yet", notes=("reconcile has not run",))
    last = max(ends)
    run = snapshot.runs[0] if snapshot.runs else None
    notes: tuple[str, ...] = ()
    tone: Tone = "bad" if now - last > late else "ok"
    if run is not None:
        failed = f", {run['failed']:,} failed" if run["failed"] else ""
        held = f", {run['contended']:,} held by another run" if run["contended"] else ""
        notes = (f"{wording.counted(run['profiles'], 'profile')}{failed}{held}",)
        tone = "bad" if run["failed"] or tone == "bad" else "ok"
    return Fact("Last cycle", tone, value_since=last, notes=notes)


def _sync(snapshot: Snapshot, orders: Orders, policy: OrderStatusPolicy) -> Fact:
    run = snapshot.sync
    notes: list[str] = []
    tone: Tone = "ok"
    if not policy.enabled:
        notes.append("switched off")
        tone = "warn"
    if orders.overdue:
        notes.append(f"{wording.counted(orders.overdue, 'check')} overdue")
        tone = "warn"
    if run is None:
        return Fact(
            "Order status sync",
            "warn" if orders.stale or tone == "warn" else "none",
            "None yet",
            notes=(*notes, "it runs where an order is due"),
        )
    if run["error"]:
        notes.append(wording.clean(run["error"]))
        tone = "bad"
    counts = (("checked", "checked"), ("updated", "updated"), ("not_found", "not found"), ("failed", "failed"))
    said = [f"{run[name]:,} {word}" for name, word in counts if run[name] or name == "checked"]
    if run["left_over"]:
        said.append(f"{run['left_over']:,} left over")
    notes.append(", ".join(said))
    if run["dry_run"]:
        notes.append("dry run: writes no order")
    return Fact("Order status sync", tone, value_since=run["ended_at"], notes=tuple(notes))


def _streams(snapshot: Snapshot, now: dt.datetime) -> Fact:
    lines = stream_lines(snapshot, now)
    if not lines:
        return Fact("Streams", "none", "Not used", notes=("the sync sees what happens",))
    listening = sum(line.tone == "ok" for line in lines)
    tone: Tone = "ok" if listening == len(lines) else "warn"
    value = f"{listening:,} of {len(lines):,} listening"
    if tone == "ok":
        value = "Listening" if listening == 1 else f"{listening:,} listening"
    last = max((line.last_event_at for line in lines if line.last_event_at is not None), default=None)
    return Fact("Streams", tone, value, before_since="last event", since=last)


def _stream_line(row: Row, now: dt.datetime) -> StreamLine:
    gone = now - row["seen_at"] > STREAM_GONE and row["state"] != "stopped"
    state = "gone without a word" if gone else wording.humanised(wording.clean(row["state"]))
    return StreamLine(
        account_id=wording.clean(row["account_id"]),
        state=state,
        tone="ok" if state == "listening" else "warn",
        since=row["seen_at"] if gone else row["since"],
        last_event_at=row["last_event_at"],
        error=wording.clean(row["error"]),
    )
