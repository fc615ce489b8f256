"""Order parity: what the ledger holds as orders against the exchange's orders, and what has to change so that both agree.

DESIGN section 7 and 001, with defects 4, 8, 9, 25, 26 and 27 mended: fills are compared by quantity, every end of an order is
applied, every id of an order is tried, a row that the exchange does not list is looked up and confirmed before it is
canceled, and no reading that failed cancels anything. What does not belong here: executed orders that the ledger lacks
(``order_coverage``) and rows that say the same twice (``superseding``, whose changes are part of the plan).

Counters of a profile
---------------------
mismatch_count         rows whose order has another class or another executed quantity
missing_from_exchange  open rows whose order was not among the exchange's, neither read nor looked up
missing_in_db          live orders of the profile that the ledger lacks and that can't be recorded
discovered             live orders of the profile that this plan records
foreign_orders         live orders of the account that are nobody's here; only counted
awaiting_confirmation  rows that the exchange said it does not know, not yet often enough
not_asked              open rows that were left for a later cycle's look-ups
unknown_answers        rows of which the exchange did not say whether it knows them
postponed_quiet        rows and orders that moved within the quiet period
out_of_scope           rows and orders of symbols that are not managed; nothing of them is changed
superseded             rows given up for another row of the same order, or for later evidence
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from recon_pipeline.domain.account_orders import AccountOrders, accounts_of
from recon_pipeline.domain.corrections import Handler, Stage
from recon_pipeline.domain.cycle_frames import ORDER_CONFIRMATIONS, CycleInputs
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.frames import Column, Schema, frame_of, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_changes import canceled_as_absent, corrected, discovered, facts_of, superseded
from recon_pipeline.domain.order_discovery import Owners, discover, known_by_trade
from recon_pipeline.domain.order_draft import OrderDraft
from recon_pipeline.domain.order_matching import (
    LIVE,
    OrderClass,
    class_of_order,
    class_of_status,
    contradictions,
    in_line,
    is_recent,
    keep_first,
)
from recon_pipeline.domain.order_objections import (
    Objection,
    OrderReason,
    action_of,
    correction_objection,
    says_executed,
)
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text_e9
from recon_pipeline.domain.stage_plan import (
    CitedKey,
    StagePlan,
    citations,
    in_finding_order,
    owners_of,
    selected_profiles,
)
from recon_pipeline.domain.superseding import supersede
from recon_pipeline.domain.terms import UNKNOWN_STATUS

RowKey = tuple[str, str]
"""(profile id, key of the row in orders)"""
COUNTERS: Final = (
    "mismatch_count",
    "missing_from_exchange",
    "missing_in_db",
    "discovered",
    "foreign_orders",
    "awaiting_confirmation",
    "not_asked",
    "unknown_answers",
    "postponed_quiet",
    "out_of_scope",
    "superseded",
)
ORDERS_TO_LOOK_UP: Final = Schema(
    "orders_to_look_up",
    (
        Column("profile_id", "text", "profile of the row"),
        Column("account_id", "text", "account to ask"),
        Column("order_id", "text", "key of the row: the exchange's id or the client's"),
        Column("client_order_id", "text", "client order id, where the ledger keeps it"),
    ),
)


@dataclass(frozen=True)
class OrderParityPlan(StagePlan):
    """The plan of the stage, and what has to be remembered for the next cycle."""

    confirmations: pd.DataFrame = field(default_factory=ORDER_CONFIRMATIONS.empty)
    """ORDER_CONFIRMATIONS of every profile in ``counts``, whole: a row that is not among them begins again. Those of
    skipped profiles are not here and stay as they are."""


def orders_to_look_up(inputs: CycleInputs, policy: OrderParityPolicy, *, now_ms: int) -> pd.DataFrame:
    """The rows of selected profiles that may still execute and whose order the reading did not bring.

    One row per look-up (profile_id, account_id, order_id, client_order_id), account by account, the row that moved longest
    ago first, rows that wait for a person's decision (``unknown``) last: they must not keep others from being asked about.
    At most ``policy.max_lookups`` of an account, none that moved within the quiet period or is out of scope.
    """
    found: list[tuple[str, ...]] = []
    for account in accounts_of(inputs):
        listed = [
            row
            for row in (account.row(at) for at in account.unmatched)
            if account.profiles[row.profile_id].selected
            and account.manages(row.profile_id, row.symbol_token)
            and not is_recent(row.activity_ms, now_ms, policy.quiet_ms)
        ]
        listed.sort(key=lambda row: (row.status == UNKNOWN_STATUS, row.activity_ms, row.profile_id, row.order_id))
        distinct = dict.fromkeys(
            (row.profile_id, account.account_id, row.order_id, row.client_order_id) for row in listed
        )
        found.extend(list(distinct)[: policy.max_lookups])
    if not found:
        return ORDERS_TO_LOOK_UP.empty()
    return frame_of(ORDERS_TO_LOOK_UP, dict(zip(ORDERS_TO_LOOK_UP.names, zip(*found, strict=True), strict=True)))


@dataclass(frozen=True)
class _LookedUp:
    """What single look-ups said, and what earlier cycles remember of them."""

    asked: frozenset[RowKey]
    absent: frozenset[RowKey]
    unknown: Mapping[RowKey, str]
    before: Mapping[RowKey, Any]


def plan_order_parity(
    inputs: CycleInputs,
    policy: OrderParityPolicy,
    confirmations: pd.DataFrame,
    *,
    absent: frozenset[RowKey],
    unknown: Mapping[RowKey, str],
    asked: frozenset[RowKey],
    now_ms: int,
    ownership: pd.DataFrame,
) -> OrderParityPlan:
    """The plan of every selected profile. Profiles of accounts that were not read completely are skipped and frozen.

    :param inputs: with the orders that look-ups found among ``order_facts``
    :param confirmations: ORDER_CONFIRMATIONS as the last cycle left them
    :param absent: rows of which the exchange said, for every id, that it knows no such order
    :param unknown: rows of which it gave any other answer, and which
    :param asked: every row that was asked for
    :param ownership: OWNERSHIP of the same ``inputs``
    """
    members, skipped = selected_profiles(inputs.profiles)
    wanted = frozenset(member.profile_id for member in members)
    draft = OrderDraft(wanted)
    before = {(row.profile_id, row.order_id): row for row in rows_of(confirmations)}
    looked_up = _LookedUp(asked, absent, unknown, before)
    remembered: list[tuple[Any, ...]] = []
    cited: dict[CitedKey, Any] = {}
    owners_by_account = owners_by_account_of(ownership)
    accounts = list(accounts_of(inputs))
    for account in accounts:
        owners = owners_by_account.get(account.account_id, {})
        cited |= {(account.account_id, fact.order_id): fact for fact in account.fact_list}
        correct_matched(account, owners, draft, policy=policy, now_ms=now_ms)
        by_trade = known_by_trade(account, owners)
        _correct_by_trade(account, owners, by_trade, draft, policy=policy, now_ms=now_ms)
        taken = frozenset(fact.order_id for fact in by_trade.values())
        discover(account, owners, draft, taken=taken, policy=policy, now_ms=now_ms)
        remembered.extend(_confirm(account, by_trade, looked_up, draft, policy=policy, now_ms=now_ms))
    superseding = supersede(accounts, inputs.consumption, now_ms=now_ms, policy=policy, corrected=draft.changes)
    changes = [change for change in draft.changes if change.profile_id in wanted]
    order = sorted([*changes, *superseding.changes], key=lambda c: (c.profile_id, c.trade_id, c.order_id))
    for change in order:
        if change.handler is Handler.SUPERSEDE:
            draft.count(change.profile_id, "superseded")
    executed_e9, client_order_ids = citations(order, cited, inputs.profiles)
    return OrderParityPlan(
        stage=Stage.ORDER_PARITY,
        profiles=owners_of(inputs.profiles),
        counts={name: {counter: draft.counts[name, counter] for counter in COUNTERS} for name in sorted(wanted)},
        skipped=skipped,
        changes=tuple(order),
        findings=in_finding_order([*draft.findings, *superseding.findings]),
        executed_e9=executed_e9,
        client_order_ids=client_order_ids,
        confirmations=_confirmations(remembered),
    )


def owners_by_account_of(ownership: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Rows of OWNERSHIP by account and order id."""
    found: dict[str, dict[str, Any]] = {}
    for owner in rows_of(ownership):
        found.setdefault(owner.account_id, {})[owner.order_id] = owner
    return found


def correct_matched(
    account: AccountOrders, owners: Owners, draft: OrderDraft, *, policy: OrderParityPolicy, now_ms: int
) -> None:
    """Make the rows that an id matches with an order say what the order says; of several rows of one order, one.

    Changes, findings and counters go to ``draft``.
    """
    matches = account.matches
    for at in np.flatnonzero(matches.two_orders).tolist():
        row = account.row(at)
        if class_of_status(row.status) in LIVE:
            draft.count(row.profile_id, "mismatch_count")
            draft.about_row(row, Objection(OrderReason.TWO_ORDERS))
    suspects = {int(at) for at in matches.order_of[(matches.differs | matches.shared) & (matches.order_of >= 0)]}
    for position, rows in sorted(account.rows_by_order(suspects).items()):
        fact = account.fact_list[position]
        kept, *others = keep_first(rows, fact.order_id)
        if any(contradictions(kept, other, fact) for other in others):
            # ``superseding`` says so of each of them.
            for row in (kept, *others):
                draft.count(row.profile_id, "mismatch_count")
            continue
        # Of an order that executed nothing and is over no row is kept open; of any other the rest is given up for one.
        for row in (kept, *others) if class_of_order(fact) is OrderClass.DEAD else (kept,):
            if not in_line(row, fact) and is_due(account, row, draft, policy=policy, now_ms=now_ms):
                draft.count(row.profile_id, "mismatch_count")
                _correct(row, fact, owners.get(fact.order_id), draft)


def _correct(row: Any, fact: Any, owner: Any | None, draft: OrderDraft) -> None:
    """Make one row say what its order says, or say why not."""
    objection = correction_objection(row, fact, owner)
    if objection is not None:
        draft.about_row(row, objection, fact)
        return
    by = "order_id" if row.order_id == fact.order_id else "client_order_id"
    draft.changes.append(corrected(row, fact, action=action_of(row, owner), matched_by=by))


def is_due(account: AccountOrders, row: Any, draft: OrderDraft, *, policy: OrderParityPolicy, now_ms: int) -> bool:
    """Whether the row may be touched now at all."""
    if is_recent(row.activity_ms, now_ms, policy.quiet_ms):
        draft.count(row.profile_id, "postponed_quiet")
        return False
    if not account.manages(row.profile_id, row.symbol_token):
        draft.count(row.profile_id, "out_of_scope")
        draft.about_row(row, Objection(OrderReason.OUT_OF_SCOPE, needs_person=False))
        return False
    return True


def _correct_by_trade(
    account: AccountOrders,
    owners: Owners,
    by_trade: Mapping[int, Any],
    draft: OrderDraft,
    *,
    policy: OrderParityPolicy,
    now_ms: int,
) -> None:
    """Correct open rows whose order is known by its trade alone.

    Such a row carries no id that the order has: what it booked could not be told from the order's own row later. So what
    was executed is booked by a row keyed by the exchange's id, and the open row is given up for it in the same plan.
    """
    for at, fact in sorted(by_trade.items()):
        row, owner = account.row(at), owners[fact.order_id]
        executed = fact.executed_e9 > EPSILON_E9
        if (in_line(row, fact) and not executed) or not is_due(account, row, draft, policy=policy, now_ms=now_ms):
            continue
        draft.count(row.profile_id, "mismatch_count")
        objection = correction_objection(row, fact, owner)
        action = action_of(row, owner)
        if objection is None and executed and not action:
            objection = Objection(OrderReason.NO_ACTION)
        if objection is not None:
            draft.about_row(row, objection, fact)
        elif executed:
            cause = {**facts_of(fact), "matched_by": "trade_id"}
            draft.changes.append(superseded(row, rule="order_known_by_trade", cause=cause))
            user_id = row.user_id or account.profiles[row.profile_id].user_id
            trade = (row.profile_id, row.trade_id)
            draft.changes.append(discovered(fact, owner=trade, user_id=user_id, action=action, how="trade_id"))
        else:
            draft.changes.append(corrected(row, fact, action=action, matched_by="trade_id"))


def _confirm(
    account: AccountOrders,
    by_trade: Mapping[int, Any],
    looked_up: _LookedUp,
    draft: OrderDraft,
    *,
    policy: OrderParityPolicy,
    now_ms: int,
) -> Iterator[tuple[Any, ...]]:
    """Count the exchange's answers that it does not know an order; cancel the row when there are enough.

    A row that says ``unknown`` is never canceled here: a person decides, and is told as long as the exchange denies the order.
    Yields what is remembered: ORDER_CONFIRMATIONS of the rows that are still missing. A row that was not asked for, or got
    any other answer, keeps its count.
    """
    for at in account.unmatched:
        row = account.row(at)
        key = (row.profile_id, row.order_id)
        if at in by_trade or row.profile_id not in draft.wanted:
            continue
        known = looked_up.before.get(key)
        count, first, last = (0, now_ms, now_ms) if known is None else tuple(known)[2:5]
        if is_due(account, row, draft, policy=policy, now_ms=now_ms):
            draft.count(row.profile_id, "missing_from_exchange")
            if key in looked_up.absent:
                if known is None or now_ms - last >= policy.confirmation_spacing_ms:
                    count, last = count + 1, now_ms
                if row.status != UNKNOWN_STATUS:
                    _decide_absent(
                        row, draft, count=int(count), first_ms=int(first), needed=policy.missing_confirmations
                    )
            else:
                draft.count(row.profile_id, "unknown_answers" if key in looked_up.asked else "not_asked")
            if row.status == UNKNOWN_STATUS and count:
                # Said while it lasts, whether this cycle came to ask or not.
                about = {"confirmations": int(count), "first_missing_at": iso_ms(int(first))}
                draft.about_row(row, Objection(OrderReason.MARKED_UNKNOWN), **about)
        if count:
            yield (*key, int(count), int(first), int(last))


def _decide_absent(row: Any, draft: OrderDraft, *, count: int, first_ms: int, needed: int) -> None:
    if count < needed:
        draft.count(row.profile_id, "awaiting_confirmation")
    elif says_executed(row):
        executed = decimal_text_e9(row.executed_e9)
        draft.about_row(row, Objection(OrderReason.EXECUTED_BUT_UNKNOWN), executed=executed, confirmations=count)
    else:
        draft.changes.append(canceled_as_absent(row, confirmations=count, first_missing_ms=first_ms))


def _confirmations(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    listed = sorted(set(rows))
    if not listed:
        return ORDER_CONFIRMATIONS.empty()
    columns = dict(zip(ORDER_CONFIRMATIONS.names, zip(*listed, strict=True), strict=True))
    return frame_of(ORDER_CONFIRMATIONS, columns)
