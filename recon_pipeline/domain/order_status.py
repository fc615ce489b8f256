"""The order status sync: what the exchange's answers about single orders make of the rows that asked, and of nothing else.

What belongs here: the plan of one round of answers. What does not: which orders are asked and what is remembered of them
(``order_checks``), the rules by which a row is corrected (``order_parity``, whose functions are used), reading and writing.

A row whose order is found becomes what order parity would make of it. Nothing is discovered and no absence is confirmed here:
whoever asks for single orders has not read the rest. An order that the exchange denies is ``missing`` while it is young; once
it is older than ``unknown_after_ms`` its row becomes ``unknown``, a status that keeps blocking its trade until a person decides.
Any answer that did not come changes nothing (004 marks rows ``unknown`` without asking, and on errors).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import pandas as pd

from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.stage_plan import StagePlan


class CheckOutcome(StrEnum):
    """What asking about one row came to."""

    NOT_CHECKED = "not_checked"
    LIVE = "live"
    """the exchange says that the order waits or executes, and the row says so too"""
    IN_LINE = "in_line"
    """the order is over, and the row says so already: nothing is stale"""
    DIFFERS = "differs"
    """the row has to change, and was not changed: a dry run, or a plan that was not written yet"""
    UPDATED = "updated"
    MISSING = "missing"
    """the exchange does not know the order, which is younger than the age at which it becomes unknown"""
    MARKED_UNKNOWN = "marked_unknown"
    """the exchange does not know the order, and the row says ``unknown``: a person decides"""
    HELD = "held"
    """something speaks against the change; the detail is the finding's word"""
    OUTDATED = "outdated"
    """forward only: an answer under which the order lives says less than the ledger does; the ledger stands"""
    POSTPONED = "postponed"
    """the row moved just now, or changed before it was written; the next run decides"""
    FAILED = "failed"
    """the exchange did not say whether it knows the order, or the profile could not be worked on"""


COUNTERS: Final = (
    "checked",
    "updated",
    "not_found",
    "failed",
    "still_live",
    "differs",
    "postponed",
    "marked_unknown",
    "held",
    "left_over",
)
"""Of a profile and of a run. ``not_found`` counts every denial, whatever became of it; ``left_over`` the caller knows."""


@dataclass(frozen=True)
class Checked:
    """What became of one row that was asked about."""

    outcome: CheckOutcome
    exchange_status: str = ""
    """the exchange's word, where it gave one"""
    detail: str = ""
    """why, for a person"""
    not_found: bool = False
    """the exchange said, for every id of the row, that it knows no such order"""


@dataclass(frozen=True)
class Decision:
    """A person's decision that an order marked ``unknown`` is given up.

    :raises ValueError: nobody decided, or without a reason
    """

    decided_by: str
    reason: str

    def __post_init__(self) -> None:
        """Refuse a decision that nobody could answer for."""
        if not self.decided_by.strip() or not self.reason.strip():
            raise ValueError("a decision about an unknown order needs the name of who decides, and a reason")


@dataclass(frozen=True)
class OrderStatusPlan(StagePlan):
    """What the answers make of the rows. ``counts`` are those before anything is written: see ``outcomes_after``."""

    outcomes: Mapping[RowKey, Checked] = field(default_factory=dict)
    """of every asked row of a selected profile that the inputs hold; a row with a change is DIFFERS until it is written"""


def plan_order_status(
    inputs: CycleInputs,
    policy: OrderStatusPolicy,
    *,
    asked: frozenset[RowKey],
    absent: frozenset[RowKey],
    unknown: Mapping[RowKey, str],
    now_ms: int,
    ownership: pd.DataFrame,
    forward_only: bool = False,
    decided: Mapping[RowKey, Decision] | None = None,
) -> OrderStatusPlan:
    """What the answers make of the rows of every selected profile, and of the rows that stand beside them.

    :param inputs: ``order_facts`` are the orders found and no others; ``ledger_orders`` the asked rows, every row of their
        trades, and whatever row names one of the orders found or stands in for it; ``consumption`` as in a cycle
    :param asked: (profile id, key of the row) of every row that was asked about
    :param absent: those of which the exchange said, for every id, that it knows no such order
    :param unknown: those of which it gave any other answer, and which
    :param ownership: OWNERSHIP of the same ``inputs`` (``own_orders``)
    :param forward_only: the facts may be older than the ledger (events of a stream): no executed quantity shrinks, and no
        row that is over is set back to live
    :param decided: rows that a person gives up: canceled where they say ``unknown``, executed nothing, and are still denied
    :raises ValueError: a row is both absent and not answered, or has an answer and was not asked
    """
    raise NotImplementedError
