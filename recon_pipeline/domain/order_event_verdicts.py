"""What becomes of the waiting events of an order: written, in line, for a whole cycle, nobody's, or tried again.

What belongs here: judging one order's events from what is known of its owner, its rows and the plan of its answer. What does
not: reading events (``order_events``), the plan itself (``order_status``), storing and writing.

An event waits for a minute: for its bot's row, for rows to come to rest, for a lease. Then it needs a cycle. Nothing waits for
longer, and nothing is given up: a cycle reads the account whole and decides what one event could not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.order_answers import Checked, CheckOutcome
from recon_pipeline.domain.order_events import CycleReason, EventOutcome, cycle_reason, latest_record, record_of
from recon_pipeline.domain.order_keys import Kind

WAIT_MS: Final = 60_000
"""How long an event is tried again."""
FRESH_MS: Final = 10_000
"""An event that is older when it is handled says what was; the exchange is asked what is before anything is written by it."""


@dataclass(frozen=True)
class WaitingEvent:
    """A stored event that nobody has handled."""

    id: int
    event: str
    order_id: str
    received_ms: int
    happened_ms: int
    """NO_TIME where the event does not say"""
    raw: Mapping[str, Any]

    def age_ms(self, now_ms: int) -> int:
        """How old what it says is: since it happened, at least since it came."""
        since = self.received_ms if self.happened_ms == NO_TIME else min(self.received_ms, self.happened_ms)
        return now_ms - since


@dataclass(frozen=True)
class ToldOrder:
    """An order, and the waiting events of it."""

    order_id: str
    events: tuple[WaitingEvent, ...]
    record: Mapping[str, Any]
    """the order as the event that says most has it"""
    reason: CycleReason | None = None
    """why its events need a cycle, whatever the ledger says"""

    def is_fresh(self, now_ms: int) -> bool:
        """Whether the order can hardly have changed since the newest of its events."""
        return any(event.age_ms(now_ms) <= FRESH_MS for event in self.events)


def told_orders(events: Iterable[WaitingEvent], *, disputed: Collection[str]) -> list[ToldOrder]:
    """The orders that the events are of, as they came. An event that names no order is alone.

    :param disputed: orders of which any event, also one handled before, may have taken something back
    """
    by_order: dict[str, list[WaitingEvent]] = {}
    for event in events:
        by_order.setdefault(event.order_id or f"event {event.id}", []).append(event)
    return [_told(found, disputed) for found in by_order.values()]


def _told(events: Sequence[WaitingEvent], disputed: Collection[str]) -> ToldOrder:
    order_id = events[0].order_id
    reasons = [why for event in events if (why := cycle_reason(event.event, order_id)) is not None]
    reason = CycleReason.DISPUTED if order_id in disputed else next(iter(reasons), None)
    return ToldOrder(order_id, tuple(events), latest_record(record_of(event.raw) for event in events), reason)


@dataclass(frozen=True)
class Verdict:
    """What becomes of an order's events."""

    outcome: EventOutcome
    """WAITING: try again"""
    profile_id: str = ""
    reason: CycleReason | None = None
    """why it needs a cycle, or will after a minute; None where it is nobody's then"""
    detail: str = ""

    def of(self, event: WaitingEvent, now_ms: int) -> Verdict:
        """The verdict for one event: one that has waited long enough waits no more."""
        if self.outcome is not EventOutcome.WAITING or now_ms - event.received_ms < WAIT_MS:
            return self
        return replace(self, outcome=EventOutcome.FOREIGN if self.reason is None else EventOutcome.NEEDS_CYCLE)

    @property
    def text(self) -> str:
        """The reason and its detail, for a person."""
        return ": ".join(part for part in (self.reason.value if self.reason else "", self.detail) if part)


def wait(reason: CycleReason | None, detail: str = "", profile_id: str = "") -> Verdict:
    """Try again; after a minute a cycle, or (without a reason) nobody's."""
    return Verdict(EventOutcome.WAITING, profile_id, reason, detail)


def needs_cycle(reason: CycleReason, detail: str = "", profile_id: str = "") -> Verdict:
    """A cycle has to decide."""
    return Verdict(EventOutcome.NEEDS_CYCLE, profile_id, reason, detail)


def verdict_before_planning(
    told: ToldOrder, owner: Any | None, rows: Sequence[Mapping[str, Any]], *, elsewhere: bool
) -> Verdict | None:
    """What becomes of the events without looking at what the rows say; None where that decides.

    :param owner: row of OWNERSHIP of the order; None where its record names no order
    :param rows: the ledger's rows, of profiles of the account, that name the order
    :param elsewhere: whether a row of a profile on another account does
    """
    if owner is None:
        return needs_cycle(told.reason or CycleReason.UNREADABLE)
    profile = _profile(owner, rows)
    if elsewhere:
        return needs_cycle(CycleReason.RECORDED_ELSEWHERE, profile_id=profile)
    if not rows and owner.kind == Kind.FOREIGN.value:
        return Verdict(EventOutcome.FOREIGN, detail="its keys name another bot's profile")
    if not rows and owner.kind == Kind.UNATTRIBUTED.value and not profile:
        return wait(None, "no row names it, and no key of it names a profile")
    if told.reason is not None:
        events = sorted({event.event for event in told.events})
        return needs_cycle(told.reason, ", ".join(events), profile)
    if not rows:
        return wait(CycleReason.NO_ROW, "no row of the ledger names the order", profile)
    if len({row["profile_id"] for row in rows}) > 1:
        return needs_cycle(CycleReason.OBJECTION, "rows of several profiles name the order")
    replaces = str(told.record.get("replaces") or "")
    if replaces and all(row["order_id"] != told.order_id for row in rows):
        return needs_cycle(CycleReason.REPLACED, f"it replaced {replaces}", profile)
    return None


def _profile(owner: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """The one profile that the order can be of; empty where there are several or none."""
    named = {str(row["profile_id"]) for row in rows} or {owner.profile_id, *owner.named_profiles} - {""}
    return next(iter(named)) if len(named) == 1 else ""


def verdict_of_rows(
    checked: Mapping[str, Checked | None],
    *,
    profile_id: str,
    applied: Collection[str],
    not_written: Mapping[str, str],
    dry_run: bool,
) -> Verdict:
    """What becomes of the events, given what was made of each row that names the order.

    :param checked: by key of the row; None where the plan did not come to it
    :param applied: keys of the rows that were written
    :param not_written: why a row that differs was not written, by key
    """
    verdicts = [
        _of_row(key, found, profile_id, written=key in applied, why=not_written.get(key, ""), dry_run=dry_run)
        for key, found in sorted(checked.items())
    ]
    return min(verdicts, key=lambda verdict: _WORST_FIRST.index(verdict.outcome))


_WORST_FIRST: Final = (
    EventOutcome.NEEDS_CYCLE,
    EventOutcome.WAITING,
    EventOutcome.DIFFERS,
    EventOutcome.WRITTEN,
    EventOutcome.IN_LINE,
)
_SAYS_IT: Final = frozenset({CheckOutcome.LIVE, CheckOutcome.IN_LINE, CheckOutcome.OUTDATED})


def _of_row(key: str, found: Checked | None, profile_id: str, *, written: bool, why: str, dry_run: bool) -> Verdict:
    if written:
        return Verdict(EventOutcome.WRITTEN, profile_id)
    if found is None:
        return wait(CycleReason.NOT_IN_TIME, f"row {key} was not decided", profile_id)
    if found.outcome in _SAYS_IT:
        return Verdict(EventOutcome.IN_LINE, profile_id)
    if found.outcome is CheckOutcome.HELD:
        return needs_cycle(CycleReason.OBJECTION, found.detail, profile_id)
    if found.outcome is CheckOutcome.DIFFERS and dry_run:
        return Verdict(EventOutcome.DIFFERS, profile_id, detail="a dry run writes nothing")
    return wait(CycleReason.NOT_IN_TIME, why or found.detail or found.outcome.value, profile_id)
