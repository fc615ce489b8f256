"""Rounds of the order status sync on the small worlds of the order rules: ask, plan, write back, remember.

What belongs here: playing a round. What does not: what has to come of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import pandas as pd

from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_checks import checks_after, due_orders, outcomes_after, stale_rows
from recon_pipeline.domain.order_status import (
    Checked,
    Decision,
    OrderStatusPlan,
    RowKey,
    counts_of,
    plan_order_status,
)
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline_tests.domain.order_worlds import MINUTE, NOW, X1, Raw, World, row

DAY = 24 * 60 * MINUTE
POLICY = OrderStatusPolicy()
KEY: RowKey = ("p1", X1)


def old_row(**changes: object) -> Raw:
    """The open row, placed more than a day ago."""
    return row(**{"timestamp": NOW - DAY - MINUTE, **changes})


@dataclass(frozen=True)
class Round:
    """One round: every due row is asked about; ``world.orders`` are the orders found, ``absent`` and ``unknown`` the rest."""

    world: World
    policy: OrderStatusPolicy = field(default_factory=OrderStatusPolicy)
    before: pd.DataFrame = field(default_factory=ORDER_CHECKS.empty)
    asked: frozenset[RowKey] | None = None
    """None: those that are due"""
    decided: Mapping[RowKey, Decision] = field(default_factory=dict)
    forward_only: bool = False
    postponed: Mapping[RowKey, str] = field(default_factory=dict)
    failed_profiles: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False

    @cached_property
    def stale(self) -> pd.DataFrame:
        inputs = self.world.inputs
        return stale_rows(inputs.ledger_orders, inputs.profiles, self.before, self.policy, now_ms=self.world.now_ms)

    @cached_property
    def plan(self) -> OrderStatusPlan:
        asked = self.asked
        if asked is None:
            due, _ = due_orders(self.stale, self.policy, now_ms=self.world.now_ms)
            asked = frozenset((check.profile_id, check.order_id) for check in rows_of(due))
        inputs = self.world.inputs
        return plan_order_status(
            inputs,
            self.policy,
            asked=asked,
            absent=self.world.absent & asked,
            unknown={key: why for key, why in self.world.unknown.items() if key in asked},
            now_ms=self.world.now_ms,
            ownership=own_orders(inputs),
            forward_only=self.forward_only,
            decided=self.decided,
        )

    @property
    def applied(self) -> frozenset[RowKey]:
        if self.dry_run:
            return frozenset()
        keys = {(change.profile_id, change.order_id) for change in self.plan.changes}
        return frozenset(key for key in keys if key not in self.postponed and key[0] not in self.failed_profiles)

    @cached_property
    def outcomes(self) -> dict[RowKey, Checked]:
        return outcomes_after(
            self.plan,
            applied=self.applied,
            postponed=self.postponed,
            failed_profiles=self.failed_profiles,
            dry_run=self.dry_run,
        )

    @cached_property
    def checks(self) -> pd.DataFrame:
        return checks_after(self.stale, self.plan, self.outcomes, policy=self.policy, now_ms=self.world.now_ms)

    def counts(self, profile_id: str = "p1") -> dict[str, int]:
        """The counters of a profile that are not zero."""
        return {name: count for name, count in counts_of(self.outcomes, profile_id).items() if count}

    def after(self, *, later_ms: int = 0) -> Round:
        """The round after this one was written and remembered."""
        written = [change for change in self.plan.changes if (change.profile_id, change.order_id) in self.applied]
        world = replace(self.world.with_written(written), now_ms=self.world.now_ms + later_ms)
        return replace(self, world=world, before=self.checks, asked=None, decided={})


def outcome_of(outcomes: Mapping[RowKey, Checked], key: RowKey = KEY) -> tuple[str, str, str, bool]:
    """What became of a row: outcome, the exchange's word, the detail, and whether it was denied."""
    checked = outcomes[key]
    return checked.outcome.value, checked.exchange_status, checked.detail, checked.not_found
