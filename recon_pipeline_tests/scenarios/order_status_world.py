"""A round of the order status sync played on a snapshot written down as JSON, and events of the stream: no database, no exchange.

What belongs here: asking what a run would ask, planning, writing back as ``apply`` would, remembering, and what came of it as
JSON values. What does not: any expectation, and any rule. Snapshots are those of ``cycle_world``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from recon_pipeline.domain.cycle_frames import ORDER_FACTS
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_checks import checks_after, due_orders, outcomes_after, stale_checks, stale_rows
from recon_pipeline.domain.order_readings import order_facts_frame
from recon_pipeline.domain.order_status import Decision, OrderStatusPlan, RowKey, counts_of, plan_order_status
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline_tests.scenarios.cycle_world import ORDER, Snapshot

Raw = dict[str, Any]


@dataclass
class Desk:
    """What the sync works on, and what it remembers."""

    snapshot: Snapshot
    policy: OrderStatusPolicy
    checks: pd.DataFrame = field(default_factory=ORDER_CHECKS.empty)


def sync(desk: Desk, step: Raw) -> Raw:
    """One run: due rows are asked about as ``look_ups`` answers, and all that came of it.

    A step with ``event`` is an event of the stream instead: forward only, about the rows that name its order, and nothing is
    remembered of it.
    """
    snapshot, policy = desk.snapshot, desk.policy
    empty = snapshot.inputs(ORDER_FACTS.empty())
    event = step.get("event")
    stale = stale_rows(empty.ledger_orders, empty.profiles, desk.checks, policy, now_ms=snapshot.now_ms)
    if event is None:
        chosen, left_over = due_orders(stale, policy, now_ms=snapshot.now_ms)
        if "decided" in step:
            chosen, left_over = stale[stale["order_id"].isin(list(step["decided"]))], 0
        keys = [(check.profile_id, check.order_id) for check in rows_of(chosen)]
        answers = {key: snapshot.look_ups[key[1]] for key in keys}
    else:
        ids = {event["id"], event.get("client_order_id")} - {None}
        keys = [
            (row.profile_id, row.order_id)
            for row in rows_of(empty.ledger_orders)
            if ids & {row.order_id, row.client_order_id}
        ]
        answers, left_over = dict.fromkeys(keys, event), 0
    plan = _planned(desk, answers, step)
    writes = not policy.dry_run
    postponed = snapshot.write(plan.changes) if writes else {}
    kept = {(change.profile_id, change.order_id): postponed.get(change.order_id) for change in plan.changes}
    outcomes = outcomes_after(
        plan,
        applied=frozenset(key for key, why in kept.items() if why is None and writes),
        postponed={key: why for key, why in kept.items() if why is not None},
        failed_profiles={},
        dry_run=policy.dry_run,
    )
    if event is None:
        desk.checks = checks_after(stale, plan, outcomes, policy=policy, now_ms=snapshot.now_ms)
    snapshot.changed()
    return {
        "asked": [order_id for _, order_id in keys],
        "left_over": left_over,
        "changes": _changes(plan),
        "findings": _findings(plan),
        "outcomes": {order_id: checked.outcome.value for (_, order_id), checked in outcomes.items()},
        "details": {order_id: checked.detail for (_, order_id), checked in outcomes.items()},
        "counts": counts_of(outcomes, snapshot.profiles[0]["profile_id"], left_over=left_over),
        "stale": stale_checks(desk.checks, policy, now_ms=snapshot.now_ms)["order_id"].tolist(),
    }


def _planned(desk: Desk, answers: dict[RowKey, Any], step: Raw) -> OrderStatusPlan:
    snapshot = desk.snapshot
    found = [{**ORDER, **answer} for answer in answers.values() if isinstance(answer, dict)]
    facts = order_facts_frame(found, account_id=snapshot.profiles[0]["account_id"]) if found else ORDER_FACTS.empty()
    inputs = replace(snapshot.inputs(ORDER_FACTS.empty()), order_facts=facts)
    decided = {key: Decision(**step["decided"][key[1]]) for key in answers if key[1] in step.get("decided", {})}
    return plan_order_status(
        inputs,
        desk.policy,
        asked=frozenset(answers),
        absent=frozenset(key for key, answer in answers.items() if answer == "absent"),
        unknown={key: "timeout" for key, answer in answers.items() if answer == "unknown"},
        now_ms=snapshot.now_ms,
        ownership=own_orders(inputs),
        forward_only="event" in step,
        decided=decided,
    )


def _changes(plan: OrderStatusPlan) -> list[Raw]:
    return [
        {
            "order_id": change.order_id,
            "trade_id": change.trade_id,
            "handler": change.handler.value,
            "values": dict(change.values),
            "cause": dict(change.cause),
            "represents": decimal_text_e9(change.represents_e9),
        }
        for change in plan.changes
    ]


def _findings(plan: OrderStatusPlan) -> list[Raw]:
    return [
        {
            "reason": found.reason,
            "order_id": found.order_id,
            "needs_person": found.needs_person,
            "detail": dict(found.detail),
        }
        for found in plan.findings
    ]
