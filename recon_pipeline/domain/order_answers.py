"""Answers about single orders: the words for what they came to, and what one answer says of one row.

What belongs here: judging the rows of one account. What does not: the plan of many (``order_status``), and what is remembered
of the answers (``order_checks``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import pandas as pd

from recon_pipeline.domain.account_orders import AccountOrders
from recon_pipeline.domain.corrections import Finding, OrderChange
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.order_changes import given_up, marked_unknown
from recon_pipeline.domain.order_draft import OrderDraft
from recon_pipeline.domain.order_matching import (
    LIVE,
    class_of_order,
    class_of_status,
    in_line,
    is_recent,
    keep_first,
    match_rows,
)
from recon_pipeline.domain.order_objections import Objection, OrderReason, says_executed
from recon_pipeline.domain.order_parity import RowKey, is_due
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9, parse_decimal
from recon_pipeline.domain.stand_ins import stand_ins_of
from recon_pipeline.domain.terms import UNKNOWN_STATUS, RowDefect


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


class CheckReason(StrEnum):
    """Why a row was left as it is, where no finding of order parity says so: words of ``Checked.detail``."""

    QUIET = "quiet"
    """the row moved within the quiet period: its bot may be writing what the exchange says"""
    DOUBLED = "row_doubled"
    """another row of the same order is kept, and has to say first what this one says"""
    ROW_IS_OVER = "row_is_over"
    """forward only: more was executed of an order that lives, and its row is over"""
    STAND_IN_ELSEWHERE = "stand_in_elsewhere"
    """a backfill row that was not read represents executions of the order: order parity decides"""
    PLACED_AT_UNKNOWN = "placed_at_unknown"
    """the row does not say when it was placed: it is never old enough to become unknown"""
    OTHER_ORDER = "other_order"
    """the exchange's answer names no order that the row names"""
    EVIDENCE_INCOMPLETE = "evidence_incomplete"
    """the account could not be worked on"""


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
class Answers:
    """What was asked, and what came back that is no order."""

    asked: frozenset[RowKey]
    absent: frozenset[RowKey]
    unknown: Mapping[RowKey, str]
    decided: Mapping[RowKey, Decision]


def set_aside(account: AccountOrders, consumption: pd.DataFrame, *, forward_only: bool) -> dict[int, Checked]:
    """The orders, by position, of which nothing is made, and what that leaves of rows that are not in line with them."""
    aside: dict[int, Checked] = {}
    present = set(account.rows["order_id"])
    elsewhere = {row.exchange_order_id for row in rows_of(consumption) if row.backfill_order_id not in present}
    stand_ins = stand_ins_of(account.facts, account.rows, consumption) if forward_only else {}
    rows_by_order = account.rows_by_order(set(range(len(account.fact_list))))
    for position, fact in enumerate(account.fact_list):
        rows = rows_by_order.get(position, [])
        if fact.order_id in elsewhere:
            aside[position] = Checked(
                CheckOutcome.POSTPONED, str(fact.status), detail=CheckReason.STAND_IN_ELSEWHERE.value
            )
        elif forward_only and class_of_order(fact) in LIVE:
            entry = stand_ins.get(fact.order_id)
            older = _older(rows, fact, represented_e9=0 if entry is None else entry.represented_e9)
            if older is not None:
                aside[position] = older
    return aside


def _older(rows: list[Any], fact: Any, *, represented_e9: int) -> Checked | None:
    """What becomes of an answer under which the order lives, where the ledger knows more or the row is over.

    Only such an answer can be older than the ledger: what is over stays as it was.
    """
    speaking = keep_first(rows, fact.order_id)
    booked = max((int(row.executed_e9) for row in speaking), default=0) + represented_e9
    over = bool(speaking) and class_of_status(speaking[0].status) not in LIVE
    if booked - fact.executed_e9 > EPSILON_E9 or (over and fact.executed_e9 - booked <= EPSILON_E9):
        return Checked(CheckOutcome.OUTDATED, str(fact.status))
    return Checked(CheckOutcome.HELD, str(fact.status), CheckReason.ROW_IS_OVER.value) if over else None


def without(account: AccountOrders, aside: Mapping[int, Checked]) -> AccountOrders:
    """The account without the orders that are set aside."""
    if not aside:
        return account
    facts = account.facts.drop(index=list(aside)).reset_index(drop=True)
    return replace(account, facts=facts, matches=match_rows(account.rows, facts))


def deny(
    account: AccountOrders,
    answers: Answers,
    draft: OrderDraft,
    *,
    policy: OrderStatusPolicy,
    parity: OrderParityPolicy,
    now_ms: int,
) -> Iterator[tuple[RowKey, Checked]]:
    """What the exchange's denials make of the rows; yields what became of those that get no change and no finding."""
    for at in account.unmatched:
        row = account.row(at)
        key = (row.profile_id, row.order_id)
        if key not in answers.absent or row.profile_id not in draft.wanted:
            continue
        if not is_due(account, row, draft, policy=parity, now_ms=now_ms):
            continue
        decision = answers.decided.get(key)
        objection = _denial_objection(row, decision)
        placed_ms = placed_at_ms(row)
        if objection is not None:
            draft.about_row(row, objection)
        elif decision is not None:
            draft.changes.append(given_up(row, decided_by=decision.decided_by, reason=decision.reason))
        elif row.status == UNKNOWN_STATUS:
            draft.about_row(row, Objection(OrderReason.MARKED_UNKNOWN))
            yield key, Checked(CheckOutcome.MARKED_UNKNOWN, not_found=True)
        elif placed_ms == NO_TIME:
            yield key, Checked(CheckOutcome.MISSING, detail=CheckReason.PLACED_AT_UNKNOWN.value, not_found=True)
        elif now_ms - placed_ms < policy.unknown_after_ms:
            yield key, Checked(CheckOutcome.MISSING, not_found=True)
        else:
            draft.changes.append(marked_unknown(row, placed_at_ms=placed_ms, now_ms=now_ms))


def _denial_objection(row: Any, decision: Decision | None) -> Objection | None:
    """Why a row that the exchange denies is not given up, or not marked; None where it is."""
    if row.defect == RowDefect.CONFLICTING_ROWS.value:
        return Objection(OrderReason.UNREADABLE_ROW, detail={"defect": row.defect})
    if decision is not None and (row.status != UNKNOWN_STATUS or _names_a_fill(row)):
        return Objection(
            OrderReason.NOT_MARKED_UNKNOWN,
            detail={
                "status": row.status,
                "filled_qty": row.record.get("filled_qty"),
                "decided_by": decision.decided_by,
            },
        )
    if says_executed(row):
        return Objection(OrderReason.EXECUTED_BUT_UNKNOWN, detail={"executed": decimal_text_e9(row.executed_e9)})
    return None


def _names_a_fill(row: Any) -> bool:
    """Whether the row's executed quantity says something, although its status books nothing."""
    said = row.record.get("filled_qty")
    number = parse_decimal(said)
    return number != 0 if number is not None else said not in (None, "")


def outcomes_of(
    account: AccountOrders,
    answers: Answers,
    changes: list[OrderChange],
    findings: list[Finding],
    aside: Mapping[int, Checked],
    denied: Mapping[RowKey, Checked],
    *,
    policy: OrderStatusPolicy,
    now_ms: int,
) -> dict[RowKey, Checked]:
    """What became of the asked rows of one account."""
    changed = {(change.profile_id, change.order_id): change for change in changes}
    held = {(finding.profile_id, finding.order_id): finding.reason for finding in reversed(findings)}
    out: dict[RowKey, Checked] = {}
    keys = zip(account.rows["profile_id"].tolist(), account.rows["order_id"].tolist(), strict=True)
    for at, key in enumerate(keys):
        if key not in answers.asked or not account.profiles[key[0]].selected:
            continue
        row, position = account.row(at), int(account.matches.order_of[at])
        fact = account.fact_list[position] if position >= 0 else None
        said, not_found = ("" if fact is None else str(fact.status)), fact is None and key in answers.absent
        if key in answers.unknown:
            out[key] = Checked(CheckOutcome.FAILED, detail=answers.unknown[key])
        elif key in changed:
            out[key] = Checked(CheckOutcome.DIFFERS, said, _spoken(changed[key]), not_found)
        elif key in denied:
            out[key] = denied[key]
        elif key in held:
            out[key] = Checked(CheckOutcome.HELD, said, held[key], not_found)
        elif not_found and class_of_status(row.status) not in LIVE:
            out[key] = Checked(CheckOutcome.IN_LINE, not_found=True)
        elif not_found:
            out[key] = Checked(CheckOutcome.POSTPONED, detail=CheckReason.QUIET.value, not_found=True)
        elif fact is None:
            out[key] = Checked(CheckOutcome.FAILED, detail=CheckReason.OTHER_ORDER.value)
        elif in_line(row, fact):
            out[key] = Checked(CheckOutcome.LIVE if class_of_order(fact) in LIVE else CheckOutcome.IN_LINE, said)
        elif position in aside:
            out[key] = aside[position]
        else:
            recent = is_recent(row.activity_ms, now_ms, policy.quiet_ms)
            reason = CheckReason.QUIET if recent else CheckReason.DOUBLED
            out[key] = Checked(CheckOutcome.POSTPONED, said, reason.value)
    return out


def _spoken(change: OrderChange) -> str:
    """The change as a person reads it."""
    return f"{change.cause['status_was']} to {change.values['status']}: {change.cause['rule']}"


def placed_at_ms(row: Any) -> int:
    """When the order of a row of LEDGER_ORDERS was placed: ``created_at``, else ``timestamp``, else NO_TIME."""
    return int(row.time_ms if row.created_at_ms == NO_TIME else row.created_at_ms)
