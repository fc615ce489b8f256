"""Order coverage: executed orders of the bots that the ledger lacks, as rows to insert, and a count of every order looked at.

Only orders that are over are covered; what still lives belongs to ``order_parity``. A row is inserted where the order's owner,
trade, action and execution are proven and nothing in the ledger may already be the same order. What does not belong here: whose
an order is (``ownership``) and what stands in for it (``stand_ins``).

Counters, per profile. Each indented line is one part of the line above it, and the parts add up (the tests add them):

scanned_orders                            distinct orders of the reading, without those that belong to a sibling profile
  not_filled_orders                       live, or over without having executed anything
  filled_like_orders                      over, with executed quantity or (filled, but its quantity can't be read) a claim of it
    skipped_not_bot_owned                 nothing says that it is this profile's
      skipped_not_bot_owned_legacy_in_db      the ledger has it all the same: a row names it, or a backfill row stands in
      skipped_not_bot_owned_before_baseline   it executed before the baseline
      skipped_not_bot_owned_actionable        the rest: somebody or something else traded on the account
    bot_owned_orders                      of this profile, by a key, by a ledger row or by what it replaced
      skipped_missing_order_id            it has no id that a row could be keyed by
      skipped_missing_fill_data           executed quantity, price, time, symbol or side can't be read, or readings contradict
      skipped_unmapped_trade              it names no trade, or is the exit of a trade that the ledger does not know
      skipped_unmapped_action             it can't be said whether it is an entry or an exit
      skipped_before_baseline             missing, and executed before the baseline: only counted
      skipped_quiet                       missing, and executed so recently that its bot may be about to write it
      eligible_orders                     it is in the ledger, or can be
        skipped_existing                  its own row or backfill rows for all of it are in the ledger
        missing_in_db                     it is not
          planned_rows                    a row is to be inserted
          skipped_max_insert_limit        it waits for a later cycle, because this one inserts enough
          held_back                       something in the ledger may be the same order or contradicts it: a finding says what
inserted_rows                             how many were written: 0 here, the caller knows

An order that is in the ledger counts as ``skipped_existing`` whatever else is unknown about it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.coverage_rows import CoverageLedger, missing_order_change, supersede_change
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import OrderCoveragePolicy
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.order_keys import Kind
from recon_pipeline.domain.ownership import distinct_facts
from recon_pipeline.domain.quantities import decimal_text_e9
from recon_pipeline.domain.stage_plan import StagePlan, in_finding_order, owners_of, selected_profiles
from recon_pipeline.domain.terms import ENTRY, EXIT, NoEvidence

COUNTERS: Final = (
    "scanned_orders",
    "not_filled_orders",
    "filled_like_orders",
    "bot_owned_orders",
    "eligible_orders",
    "missing_in_db",
    "planned_rows",
    "inserted_rows",
    "held_back",
    "skipped_not_bot_owned",
    "skipped_not_bot_owned_actionable",
    "skipped_not_bot_owned_legacy_in_db",
    "skipped_not_bot_owned_before_baseline",
    "skipped_unmapped_trade",
    "skipped_unmapped_action",
    "skipped_missing_fill_data",
    "skipped_missing_order_id",
    "skipped_existing",
    "skipped_max_insert_limit",
    "skipped_before_baseline",
    "skipped_quiet",
)
_PARENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "not_filled_orders": (),
    "skipped_not_bot_owned_actionable": ("skipped_not_bot_owned", "filled_like_orders"),
    "skipped_not_bot_owned_legacy_in_db": ("skipped_not_bot_owned", "filled_like_orders"),
    "skipped_not_bot_owned_before_baseline": ("skipped_not_bot_owned", "filled_like_orders"),
    "skipped_missing_order_id": ("bot_owned_orders", "filled_like_orders"),
    "skipped_missing_fill_data": ("bot_owned_orders", "filled_like_orders"),
    "skipped_unmapped_trade": ("bot_owned_orders", "filled_like_orders"),
    "skipped_unmapped_action": ("bot_owned_orders", "filled_like_orders"),
    "skipped_before_baseline": ("bot_owned_orders", "filled_like_orders"),
    "skipped_quiet": ("bot_owned_orders", "filled_like_orders"),
    "skipped_existing": ("eligible_orders", "bot_owned_orders", "filled_like_orders"),
    "skipped_max_insert_limit": ("missing_in_db", "eligible_orders", "bot_owned_orders", "filled_like_orders"),
    "held_back": ("missing_in_db", "eligible_orders", "bot_owned_orders", "filled_like_orders"),
    "planned_rows": ("missing_in_db", "eligible_orders", "bot_owned_orders", "filled_like_orders"),
}
"""The sums that each class of orders counts into, besides ``scanned_orders``."""


def plan_order_coverage(
    inputs: CycleInputs, policy: OrderCoveragePolicy, ownership: pd.DataFrame, *, now_ms: int
) -> StagePlan:
    """Plan the missing rows of every selected profile whose account was read completely.

    Inserts are ordered oldest execution first, an entry before the exits of its trade; backfill rows and synthetic exits that
    an inserted row replaces are canceled right after it.

    :param ownership: OWNERSHIP of the same inputs (``own_orders``)
    :param now_ms: the instant of the reading
    """
    members, skipped = selected_profiles(inputs.profiles)
    distinct = distinct_facts(inputs.order_facts)
    facts = list(rows_of(distinct))
    paired: dict[str, list[tuple[Any, Any]]] = {}
    for fact, owner in zip(facts, rows_of(ownership), strict=True):
        if (fact.account_id, fact.order_id) != (owner.account_id, owner.order_id):
            raise ValueError("the ownership is of another snapshot; call own_orders with the same inputs")
        paired.setdefault(fact.account_id, []).append((fact, owner))
    ledgers: dict[str, CoverageLedger] = {}
    counts: dict[str, Mapping[str, int]] = {}
    changes: list[OrderChange] = []
    findings: list[Finding] = []
    for member in sorted(members, key=lambda member: str(member.profile_id)):
        account = member.account_id
        if account not in ledgers:
            ledgers[account] = CoverageLedger.of(inputs, account, distinct[distinct["account_id"] == account])
        step = _Profile(member, policy, ledgers[account], now_ms)
        step.plan(paired.get(account, ()))
        counts[member.profile_id] = {name: step.counts[name] for name in COUNTERS}
        changes.extend(step.changes)
        findings.extend(step.findings)
    cited = {change.exchange_order_id for change in changes if change.exchange_order_id}
    return StagePlan(
        stage=Stage.ORDER_COVERAGE,
        profiles=owners_of(inputs.profiles),
        counts=counts,
        skipped=skipped,
        changes=tuple(changes),
        findings=in_finding_order(findings),
        executed_e9={(f.account_id, f.order_id): int(f.executed_e9) for f in facts if f.order_id in cited},
        client_order_ids={
            (f.account_id, f.order_id): f.client_order_id for f in facts if f.order_id in cited and f.client_order_id
        },
    )


def _filled_like(fact: Any) -> bool:
    return bool(fact.is_over) and (fact.executed_e9 > 0 or fact.defect == NoEvidence.NO_EXECUTED_QUANTITY.value)


@dataclass
class _Profile:
    """The coverage of one profile."""

    member: Any
    policy: OrderCoveragePolicy
    ledger: CoverageLedger
    now_ms: int
    counts: Counter[str] = field(default_factory=Counter)
    changes: list[OrderChange] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def plan(self, orders: Iterable[tuple[Any, Any]]) -> None:
        """Count every order and plan the rows of those that are missing."""
        profile = self.member.profile_id
        missing: list[tuple[Any, Any]] = []
        entries_known: set[str] = set()
        for fact, owner in orders:
            if owner.profile_id not in {"", profile}:
                continue
            self.counts["scanned_orders"] += 1
            if owner.profile_id == profile and owner.kind == Kind.OWNED and owner.action == ENTRY:
                entries_known.add(owner.trade_id)
            found = self._classify(fact, owner)
            if found:
                self._count(found)
            else:
                missing.append((fact, owner))
        self._insert(missing, entries_known)

    def _count(self, name: str) -> None:
        self.counts[name] += 1
        for parent in _PARENTS[name]:
            self.counts[parent] += 1

    def _classify(self, fact: Any, owner: Any) -> str:
        """The class of an order; empty for one that is missing in the ledger."""
        if not _filled_like(fact):
            return "not_filled_orders"
        in_ledger = self.ledger.holds(fact, owner)
        old = fact.executed_at_ms != NO_TIME and fact.executed_at_ms < self.policy.baseline_ms
        if not owner.profile_id:
            if in_ledger or self.ledger.stands_in(fact):
                return "skipped_not_bot_owned_legacy_in_db"
            if old:
                return "skipped_not_bot_owned_before_baseline"
            if owner.kind in {Kind.CONTRADICTORY, Kind.AMBIGUOUS} and self.member.profile_id in owner.named_profiles:
                self._find(f"{owner.kind}_owner", fact, needs_person=True)
            return "skipped_not_bot_owned_actionable"
        if not fact.order_id:
            self._find("missing_order_id", fact, owner, needs_person=True)
            return "skipped_missing_order_id"
        if in_ledger:
            return "skipped_existing"
        if fact.defect:
            self._find("missing_fill_data", fact, owner, defect=fact.defect)
            return "skipped_missing_fill_data"
        if owner.kind != Kind.OWNED:
            self._find("unmapped_trade", fact, owner, needs_person=True)
            return "skipped_unmapped_trade"
        if not owner.action:
            self._find("unmapped_action", fact, owner, needs_person=True)
            return "skipped_unmapped_action"
        if old:
            return "skipped_before_baseline"
        if self.now_ms - fact.executed_at_ms < self.policy.quiet_ms:
            return "skipped_quiet"
        return ""

    def _insert(self, missing: list[tuple[Any, Any]], entries_known: set[str]) -> None:
        profile = self.member.profile_id
        exits: dict[str, int] = {}
        for fact, owner in missing:
            if owner.action == EXIT:
                exits[owner.trade_id] = min(exits.get(owner.trade_id, fact.executed_at_ms), fact.executed_at_ms)

        def order(pair: tuple[Any, Any]) -> tuple[int, bool, str]:
            fact, owner = pair
            at = int(fact.executed_at_ms)
            # The last fill of an entry may be later than the first exit, which without its entry has no trade.
            return (
                min(at, exits.get(owner.trade_id, at)) if owner.action == ENTRY else at,
                owner.action == EXIT,
                fact.order_id,
            )

        entered: set[str] = set()
        for fact, owner in sorted(missing, key=order):
            known = self.ledger.knows(profile, owner.trade_id) or owner.trade_id in entered
            if owner.action == EXIT and not known and owner.trade_id not in entries_known:
                self._find("exit_of_unknown_trade", fact, owner, needs_person=True)
                self._count("skipped_unmapped_trade")
                continue
            doubt = self.ledger.doubt(fact, owner)
            if not doubt.reason and owner.action == EXIT and not known:
                doubt = doubt.because("entry_not_recorded_yet", needs_person=False)
            if doubt.reason:
                self._find(doubt.reason, fact, owner, needs_person=doubt.needs_person, rows=list(doubt.rows))
                self._count("held_back")
                continue
            if self.counts["planned_rows"] >= self.policy.max_inserts:
                self._count("skipped_max_insert_limit")
                continue
            self._count("planned_rows")
            if owner.action == ENTRY:
                entered.add(owner.trade_id)
            self.changes.append(missing_order_change(fact, owner, self.member, self.ledger, now_ms=self.now_ms))
            for row in self.ledger.replaced_by(fact, owner):
                self.changes.append(supersede_change(row, fact, now_ms=self.now_ms))

    def _find(self, reason: str, fact: Any, owner: Any = None, *, needs_person: bool = False, **detail: object) -> None:
        self.findings.append(
            Finding(
                profile_id=self.member.profile_id,
                stage=Stage.ORDER_COVERAGE,
                reason=reason,
                trade_id="" if owner is None else owner.trade_id,
                symbol=fact.symbol,
                exchange_order_id=fact.order_id,
                needs_person=needs_person,
                detail={
                    "client_order_id": fact.client_order_id,
                    "sub_tag": fact.sub_tag,
                    "side": fact.side,
                    "executed": decimal_text_e9(int(fact.executed_e9)),
                    **detail,
                },
            )
        )
