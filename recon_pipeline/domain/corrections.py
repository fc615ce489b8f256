"""What a cycle wants to change in the ledger's orders, and what it found and left alone: the border to ``apply``.

What belongs here: changes, plans of changes, findings and events as values, and the digest of a plan. What does not: how they
come about (``order_parity``, ``order_coverage``, ``superseding``, ``sub_tag_repair``, ``position_parity``) and how they are
written (``recon_pipeline.apply``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

RowRecord = Mapping[str, str | None]
"""A row of ``orders`` as the view ``recon.lifecycle_orders`` spells it: column to text."""

COMPARED: Final = (
    "profile_id",
    "order_id",
    "client_order_id",
    "trade_id",
    "symbol",
    "side",
    "action",
    "status",
    "qty",
    "quantity",
    "filled_qty",
    "price",
    "sub_tag",
)
"""Columns that must still read as they did when a change was decided: the compare of compare-and-set."""


class Stage(StrEnum):
    """The steps of a cycle, in their order, and what writes beside it. What writes uses its own as the kind of its batches."""

    READING = "reading"
    ORDER_PARITY = "order_parity"
    ORDER_COVERAGE = "order_coverage"
    EXIT_BACKFILL = "exit_backfill"
    INTEGRITY_WATCHDOG = "integrity_watchdog"
    SUB_TAG_REPAIR = "sub_tag_repair"
    POSITION_PARITY = "position_parity"
    REPORT = "report"
    ORDER_STATUS = "order_status"
    """the order status sync and the stream of order events: no step of the cycle"""


class Handler(StrEnum):
    """What kind of change it is."""

    ENTRY_FILL = "entry_fill"
    """executed quantity of an entry order grows"""
    EXIT_FILL = "exit_fill"
    """executed quantity of an exit order grows"""
    CANCEL = "cancel"
    """the order is over and executed nothing (more)"""
    STATUS = "status"
    """the order's status changes and its executed quantity does not"""
    DISCOVERY = "discovery"
    """a live order of the profile that the ledger lacks; nothing of it has executed yet"""
    SUPERSEDE = "supersede"
    """a row that stood in for an order, or doubles one, is canceled because the order's own row is there"""
    SUB_TAG = "sub_tag"
    """a missing sub-tag is filled in"""
    SYNTHETIC_EXIT = "synthetic_exit"
    """a trade that the exchange is proven not to hold any more is closed without an execution to cite"""


@dataclass(frozen=True)
class OrderChange:
    """One row of ``orders`` to insert or to update.

    ``values`` are columns by name. Quantities and prices are plain decimal text, instants ISO text in milliseconds with
    ``Z``. For an update they are any of ``status``, ``executed``, ``price``, ``filled_at``, ``sub_tag``: ``executed`` is what
    the row says was executed from now on, and ``apply`` knows which of the table's quantity columns say so. For an insert they
    are the columns of ``recon.insert_orders`` (``timestamp`` in milliseconds as text).
    """

    profile_id: str
    trade_id: str
    order_id: str
    """key of the row in ``orders``"""
    handler: Handler
    values: Mapping[str, str | None]
    expected: RowRecord | None
    """the row as it was when this was decided (the columns COMPARED); None inserts"""
    cause: Mapping[str, object]
    """``rule`` (a word), and the exchange's facts cited, as JSON values: exchange_order_id, exchange_status, executed,
    average_price, filled_at, read_at, ... It is what the outbox and an on-call engineer read."""
    exchange_order_id: str = ""
    """the order that the row represents after the change; empty where it represents none"""
    represents_e9: int = 0
    """how much of that order's executed quantity the row represents after the change"""

    @property
    def inserts(self) -> bool:
        """Whether the row is new."""
        return self.expected is None


@dataclass(frozen=True)
class CorrectionPlan:
    """The changes of one stage for one profile: applied in one transaction, or not at all where it is a dry run."""

    profile_id: str
    user_id: str
    account_id: str
    stage: Stage
    batch_id: str
    changes: tuple[OrderChange, ...]
    executed_e9: Mapping[str, int] = field(default_factory=dict)
    """executed quantity of every cited exchange order, by order id: no row may represent more"""
    client_order_ids: Mapping[str, str] = field(default_factory=dict)
    """client order id of every cited exchange order that has one, by order id"""

    @property
    def digest(self) -> str:
        """SHA-256 over what would be written and cited, independent of order, batch and clock."""
        return changes_digest(self.changes)


@dataclass(frozen=True)
class Finding:
    """Something that a stage found and did not change, or could not: what an operator reads."""

    profile_id: str
    stage: Stage
    reason: str
    """a word from the stage's own vocabulary"""
    order_id: str = ""
    trade_id: str = ""
    symbol: str = ""
    exchange_order_id: str = ""
    needs_person: bool = False
    """no later cycle can resolve it by itself"""
    detail: Mapping[str, object] = field(default_factory=dict)
    """numbers and texts behind it, as JSON values"""


class Severity(StrEnum):
    """How loud an event is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class EventType(StrEnum):
    """What an event is about. The first two are the source's."""

    SYSTEM_ERROR = "SYSTEM_ERROR"
    RECONCILIATION_DEGRADED = "RECONCILIATION_DEGRADED"
    APPLY_FAILED = "apply_failed"
    TRADING_PAUSED = "TRADING_PAUSED"
    TRADING_RESUMED = "TRADING_RESUMED"


@dataclass(frozen=True)
class Event:
    """An event to raise, at most once in ``throttle_ms`` for its ``scope``."""

    type: EventType
    severity: Severity
    message: str
    profile_id: str = ""
    user_id: str = ""
    account_id: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    scope: str = ""
    """what the throttle counts, e.g. ``p1:coverage:disabled``; empty is never throttled"""
    throttle_ms: int = 0


def changes_digest(changes: Iterable[OrderChange]) -> str:
    """SHA-256 over the changes: rows, values, what they were, and the cited orders; not the instant of the reading."""
    rows = sorted(
        json.dumps(
            [
                change.profile_id,
                change.trade_id,
                change.order_id,
                change.handler.value,
                dict(change.values),
                None if change.expected is None else dict(change.expected),
                change.exchange_order_id,
                change.represents_e9,
            ],
            sort_keys=True,
        )
        for change in changes
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
