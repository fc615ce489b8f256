"""Events of the exchange's stream of order updates as values: what one says, what makes two the same, when one is not enough.

An event carries the order as it was when it happened, in the exchange's own words. That is evidence of what was executed until
then, and of nothing later: so the stream only ever takes a row forward, and whatever one event alone can't prove needs a whole
cycle. What does not belong here: storing (``ledger.order_events``), reading rows, and what is written (``order_status``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.order_readings import OVER_STATUSES
from recon_pipeline.domain.quantities import parse_decimal
from recon_pipeline.domain.readings import text_of
from recon_pipeline.domain.terms import normalise_status

TRADE_UPDATES: Final = "trade_updates"
REPLACED: Final = "replaced"
TELLING: Final = frozenset(
    {
        "accepted",
        "accepted_for_bidding",
        "calculated",
        "canceled",
        "done_for_day",
        "expired",
        "fill",
        "held",
        "new",
        "order_cancel_rejected",
        "order_replace_rejected",
        "partial_fill",
        "pending_cancel",
        "pending_new",
        "pending_replace",
        "pending_review",
        "rejected",
        "stopped",
        "suspended",
    }
)
"""Events after which the order's own record says everything there is to know of it."""
_LONGEST_KEY: Final = 200
_SURROGATES: Final = range(0xD800, 0xE000)


class StreamState(StrEnum):
    """What a process that listens to an account is doing."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    DOWN = "down"
    """the connection was lost or refused; it is tried again"""
    STOPPED = "stopped"


class EventOutcome(StrEnum):
    """What became of an event."""

    WAITING = "waiting"
    """stored, not handled yet"""
    WRITTEN = "written"
    """a row of the ledger was made to say what it says"""
    DIFFERS = "differs"
    """it would have been written; the stream is a dry run"""
    IN_LINE = "in_line"
    """the ledger says it already, or says more"""
    NEEDS_CYCLE = "needs_cycle"
    """it can't be written by itself; its profile has to be reconciled"""
    FOREIGN = "foreign"
    """of an order that is nobody's here"""


class CycleReason(StrEnum):
    """Why an event needs a whole cycle: the beginning of its detail."""

    REPLACED = "order_replaced"
    """the order is one of a chain, whose links have to be seen together"""
    DISPUTED = "execution_disputed"
    """something was busted, corrected, or told in a word that is not known here: what was executed may have shrunk"""
    UNREADABLE = "unreadable_event"
    NO_ROW = "no_row_after_a_minute"
    OBJECTION = "objection"
    """a rule of order parity speaks against the change; the detail says which"""
    RECORDED_ELSEWHERE = "recorded_by_another_account"
    """a row of a profile on another account names the order"""
    NOT_IN_TIME = "not_written_in_a_minute"
    """the profile's lease was taken, its rows kept moving, or the exchange did not answer; the detail says which"""
    UNKNOWN_TO_EXCHANGE = "unknown_to_exchange"
    """asked again, the exchange said that it does not know the order"""
    FAILED = "failed"
    """a defect: the detail is the error"""


@dataclass(frozen=True)
class OrderEvent:
    """One event."""

    account_id: str
    event_key: str
    event: str
    order_id: str
    client_order_id: str
    happened_at_ms: int
    """when the exchange says that it happened; NO_TIME where it doesn't"""
    raw: Mapping[str, Any]
    """the event as the exchange sent it"""


def read_event(message: Mapping[str, Any], account_id: str) -> OrderEvent | None:
    """The event in a message of the stream; None where the message is of another kind. Nothing in it raises.

    The key is the execution's id with the event's name, for a bust may carry the id of what it busts. Alpaca sends an id with
    every event, and repeats itself with the same ones; an event without one is the same as another that says the same.
    """
    if message.get("stream") != TRADE_UPDATES:
        return None
    raw = _storable(message.get("data"))
    data: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {"data": raw}
    order = record_of(data)
    event = text_of(data.get("event")).lower()
    happened = parse_instant(data.get("timestamp"))
    return OrderEvent(
        account_id=account_id,
        event_key=_key(event, text_of(data.get("execution_id")), data),
        event=event,
        order_id=text_of(order.get("id")),
        client_order_id=text_of(order.get("client_order_id")),
        happened_at_ms=NO_TIME if happened is None else happened,
        raw=data,
    )


def record_of(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The order's record in an event; empty where there is none."""
    order = raw.get("order")
    return order if isinstance(order, Mapping) else {}


def disputes(event: str) -> bool:
    """Whether an event of this name may say that less was executed than was said before."""
    return event not in TELLING and event != REPLACED


def cycle_reason(event: str, order_id: str) -> CycleReason | None:
    """Why an event needs a cycle whatever the ledger says; None where the order's record decides."""
    if not event or not order_id:
        return CycleReason.UNREADABLE
    if event == REPLACED:
        return CycleReason.REPLACED
    return CycleReason.DISPUTED if disputes(event) else None


def latest_record(records: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of several records of one order the one that says most: executed most, is over, changed last.

    Executed quantity only grows and what is over stays so, whatever the order in which events arrive; busts are none of this.

    :raises ValueError: there is no record
    """
    return max(records, key=_progress)


def _progress(record: Mapping[str, Any]) -> tuple[Any, bool, int]:
    executed = parse_decimal(record.get("filled_qty"))
    changed = parse_instant(record.get("updated_at"))
    over = normalise_status(record.get("status")) in OVER_STATUSES
    return (-1 if executed is None else executed, over, NO_TIME if changed is None else changed)


def _key(event: str, execution_id: str, data: Mapping[str, Any]) -> str:
    key = f"{event}:{execution_id}" if execution_id else ""
    if key and len(key) <= _LONGEST_KEY:
        return key
    said = key or json.dumps(data, sort_keys=True, default=str)
    return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def _storable(value: object) -> object:
    """The value with every text as a database can keep it: JSON can spell characters that are none."""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return value
        return "".join("\N{REPLACEMENT CHARACTER}" if c == "\0" or ord(c) in _SURROGATES else c for c in value)
    if isinstance(value, Mapping):
        return {str(_storable(str(key))): _storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value
