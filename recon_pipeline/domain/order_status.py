"""The order status sync: what the exchange's answers about single orders make of the rows that asked, and of nothing else.

What belongs here: the plan of one round of answers; its words are those of ``order_answers``. What does not: which orders are
asked and what is remembered of them (``order_checks``), the rules by which a row is corrected (``order_parity``, whose
functions are used), reading and writing.

A row whose order is found becomes what order parity would make of it. Nothing is discovered and no absence is confirmed here:
whoever asks for single orders has not read the rest. An order that the exchange denies is ``missing`` while it is young; once
it is older than ``unknown_after_ms`` its row becomes ``unknown``, a status that keeps blocking its trade until a person decides.
Any answer that did not come changes nothing (004 marks rows ``unknown`` without asking, and on errors).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.account_orders import accounts_of
from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.order_answers import (
    Answers,
    Checked,
    CheckOutcome,
    CheckReason,
    Decision,
    deny,
    outcomes_of,
    set_aside,
    without,
)
from recon_pipeline.domain.order_draft import OrderDraft
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.order_parity import RowKey, correct_matched, owners_by_account_of
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.quantities import parse_decimal
from recon_pipeline.domain.stage_plan import (
    CitedKey,
    StagePlan,
    citations,
    in_finding_order,
    owners_of,
    selected_profiles,
)
from recon_pipeline.domain.stand_ins import SYNTHETIC_PREFIX
from recon_pipeline.domain.superseding import supersede

__all__ = [
    "COUNTERS",
    "CheckOutcome",
    "CheckReason",
    "Checked",
    "Decision",
    "OrderStatusPlan",
    "RowKey",
    "counts_of",
    "plan_order_status",
]
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
class OrderStatusPlan(StagePlan):
    """What the answers make of the rows. ``counts`` are those before anything is written: see ``outcomes_after``."""

    asked: frozenset[RowKey] = frozenset()
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
    _check_answers(asked, absent, unknown)
    members, skipped = selected_profiles(inputs.profiles)
    wanted = frozenset(member.profile_id for member in members)
    parity = OrderParityPolicy(quiet_ms=policy.quiet_ms)
    owners_by_account = owners_by_account_of(ownership)
    answers = Answers(asked, absent, unknown, decided or {})
    cited: dict[CitedKey, Any] = {}
    changes: list[OrderChange] = []
    findings: list[Finding] = []
    outcomes: dict[RowKey, Checked] = {}
    for whole in accounts_of(inputs):
        owners = owners_by_account.get(whole.account_id, {})
        consumption = inputs.consumption[inputs.consumption["account_id"] == whole.account_id]
        cited |= {(whole.account_id, fact.order_id): fact for fact in whole.fact_list}
        draft = OrderDraft(wanted)
        aside = set_aside(whole, consumption, forward_only=forward_only)
        account = without(whole, aside)
        correct_matched(account, owners, draft, policy=parity, now_ms=now_ms)
        denied = dict(deny(whole, answers, draft, policy=policy, parity=parity, now_ms=now_ms))
        superseding = supersede([account], consumption, now_ms=now_ms, policy=parity, corrected=draft.changes)
        mine = [change for change in draft.changes if change.profile_id in wanted]
        trades = {(change.profile_id, change.trade_id) for change in mine}
        mine += [change for change in superseding.changes if _belongs(change, trades)]
        found = [*draft.findings, *(f for f in superseding.findings if _concerns(f, answers))]
        changes += mine
        findings += found
        outcomes |= outcomes_of(whole, answers, mine, found, aside, denied, policy=policy, now_ms=now_ms)
    ordered = sorted(changes, key=lambda change: (change.profile_id, change.trade_id, change.order_id))
    executed_e9, client_order_ids = citations(ordered, cited, inputs.profiles)
    outcomes |= {
        key: Checked(CheckOutcome.FAILED, detail=CheckReason.EVIDENCE_INCOMPLETE.value)
        for key in sorted(asked)
        if key[0] in skipped
    }
    return OrderStatusPlan(
        stage=Stage.ORDER_STATUS,
        profiles=owners_of(inputs.profiles),
        counts={name: counts_of(outcomes, name) for name in sorted(wanted)},
        skipped=skipped,
        changes=tuple(ordered),
        findings=in_finding_order(replace(finding, stage=Stage.ORDER_STATUS) for finding in findings),
        executed_e9=executed_e9,
        client_order_ids=client_order_ids,
        asked=asked,
        outcomes=dict(sorted(outcomes.items())),
    )


def counts_of(outcomes: Mapping[RowKey, Checked], profile_id: str, *, left_over: int = 0) -> dict[str, int]:
    """COUNTERS of one profile."""
    own = [checked for (profile, _), checked in outcomes.items() if profile == profile_id]
    told = Counter(checked.outcome for checked in own)
    return {
        "checked": len(own),
        "updated": told[CheckOutcome.UPDATED],
        "not_found": sum(checked.not_found for checked in own),
        "failed": told[CheckOutcome.FAILED],
        "still_live": told[CheckOutcome.LIVE],
        "differs": told[CheckOutcome.DIFFERS],
        "postponed": told[CheckOutcome.POSTPONED],
        "marked_unknown": told[CheckOutcome.MARKED_UNKNOWN],
        "held": told[CheckOutcome.HELD],
        "left_over": left_over,
    }


def _check_answers(asked: frozenset[RowKey], absent: frozenset[RowKey], unknown: Mapping[RowKey, str]) -> None:
    both = absent & set(unknown)
    if both:
        raise ValueError(f"rows are both denied and not answered: {sorted(both)}")
    strangers = (absent | set(unknown)) - asked
    if strangers:
        raise ValueError(f"rows were answered that nobody asked about: {sorted(strangers)}")


def _belongs(change: OrderChange, trades: set[tuple[str, str]]) -> bool:
    """Whether a row to give up is the answers' doing; the rest is left to a cycle, which has read everything.

    A synthetic exit is given up where its trade changes, a backfill row where the order's own rows say all that was executed.
    """
    if change.order_id.startswith(SYNTHETIC_PREFIX):
        return (change.profile_id, change.trade_id) in trades
    booked, executed = (parse_decimal(change.cause.get(name)) for name in ("own_rows_executed", "executed"))
    return booked is None or executed is None or booked >= executed


def _concerns(finding: Finding, answers: Answers) -> bool:
    """Whether the finding is about what was asked: of most orders of a trade nobody asked, so nothing is missing of them."""
    without_order = finding.reason == OrderReason.DUPLICATES_WITHOUT_ORDER.value
    return not without_order or (finding.profile_id, finding.order_id) in answers.absent
