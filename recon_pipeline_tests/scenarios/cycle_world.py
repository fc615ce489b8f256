"""A cycle played on a snapshot written down as JSON: the domain's functions in the order of ``cycle.account``, no database.

What belongs here: spelling the snapshot, writing what was decided back into it as ``apply`` would, and what came of it as JSON
values. What does not: any expectation, and any rule. Rows and exchange orders get the defaults ROW and ORDER.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar, cast

import pandas as pd

from recon_pipeline.domain.account_slices import slices_of_accounts
from recon_pipeline.domain.audit import order_records
from recon_pipeline.domain.corrections import Finding, OrderChange, Stage
from recon_pipeline.domain.cycle_frames import ORDER_CONFIRMATIONS, ORDER_FACTS, PARITY_STATES, CycleInputs
from recon_pipeline.domain.cycle_policy import CyclePolicy
from recon_pipeline.domain.data_health import data_findings
from recon_pipeline.domain.exit_backfill import plan_exit_backfill
from recon_pipeline.domain.frames import EVIDENCE, EXCHANGE_ORDERS, POSITIONS, PROFILES, frame_of, rows_of
from recon_pipeline.domain.free_evidence import free_evidence
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.order_coverage import plan_order_coverage
from recon_pipeline.domain.order_parity import orders_to_look_up, plan_order_parity
from recon_pipeline.domain.order_readings import ledger_orders_frame, order_facts_frame
from recon_pipeline.domain.ownership import own_orders
from recon_pipeline.domain.plan import DUST_PREFIX, ExitBackfillInputs
from recon_pipeline.domain.position_parity import plan_position_parity
from recon_pipeline.domain.quantities import decimal_text, decimal_text_e9, from_e9
from recon_pipeline.domain.readings import (
    consumption_frame,
    lifecycle_rows_frame,
    positions_frame,
)
from recon_pipeline.domain.sub_tag_repair import plan_sub_tag_repair
from recon_pipeline.domain.watchdog import Pause, WatchdogState, judge_integrity, judge_parity
from recon_pipeline.settings import read_cycle_policy
from recon_pipeline_tests.domain.order_worlds import COLUMNS, World

Raw = dict[str, Any]
Made = TypeVar("Made")
MINUTE = 60_000
ROW: Raw = {"profile_id": "p1", "user_id": "u1", "client_order_id": None, "trade_id": "t1", "symbol": "AAPL"}
ROW |= {"side": "buy", "action": "ENTRY", "status": "filled", "qty": "10", "quantity": None, "filled_qty": None}
ROW |= {"price": None, "timestamp": "2026-03-02T10:00:00.000Z", "created_at": None, "updated_at": None}
ROW |= {"filled_at": None, "sub_tag": None, "source": "BOT"}
ORDER: Raw = {"client_order_id": None, "symbol": "AAPL", "asset_class": "us_equity", "side": "buy", "type": "limit"}
ORDER |= {"status": "new", "qty": "10", "filled_qty": "0", "filled_avg_price": None, "filled_at": None}
ORDER |= {"limit_price": "101", "created_at": "2026-03-02T10:00:00.000Z", "replaces": None, "replaced_by": None}
PROFILE: Raw = {"user_id": "u1", "account_id": "a1", "selected": True, "paused": True, "audit_available": True}
PROFILE |= {"evidence_defect": "", "managed_symbols": None, "batch_id": "b1", "capital": "100000"}
WRITES = {f"RECON_{step}_DRY_RUN": False for step in ("ORDER_PARITY", "ORDER_COVERAGE", "EXIT_BACKFILL")}
WRITES |= {f"RECON_{step}_DRY_RUN": False for step in ("SUB_TAG_REPAIR", "POSITION_PARITY")}
WRITES |= {"ENABLE_RECON_SUB_TAG_REPAIR": False}
"""Tags are repaired where a scenario is about them: nearly every row here lacks one."""


@dataclass
class Snapshot:
    """Ledger, exchange and what is remembered of earlier cycles."""

    now_ms: int
    policy: CyclePolicy
    profiles: list[Raw]
    rows: list[Raw]
    exchange_orders: list[Raw]
    positions: Mapping[str, Any] | None
    look_ups: Mapping[str, Any]
    """by the key of a ledger row: "absent", "unknown", or the order that was found"""
    consumption: list[Raw]
    sub_tag_supported: bool = True
    confirmations: pd.DataFrame = field(default_factory=ORDER_CONFIRMATIONS.empty)
    parity: pd.DataFrame = field(default_factory=PARITY_STATES.empty)
    pauses: dict[str, list[Pause]] = field(default_factory=dict)
    watchdogs: dict[str, WatchdogState] = field(default_factory=dict)
    _frames: dict[Any, Any] = field(default_factory=dict)
    """frames worked out since something last changed"""

    @classmethod
    def of(cls, scenario: Raw) -> Snapshot:
        """The snapshot before the first cycle."""
        snapshot = cls(
            now_ms=_instant(scenario.get("now", "2026-03-02T12:00:00.000Z")),
            policy=read_cycle_policy({**WRITES, **scenario.get("settings", {})}),
            profiles=[{**PROFILE, **profile} for profile in scenario.get("profiles", [{"profile_id": "p1"}])],
            rows=[],
            exchange_orders=[],
            positions={},
            look_ups={},
            consumption=[dict(record) for record in scenario.get("consumption", [])],
            sub_tag_supported=scenario.get("sub_tag_supported", True),
        )
        snapshot.change(scenario)
        return snapshot

    def change(self, step: Raw) -> None:
        """What happened since: rows and orders are added or replaced, everything else is as it says now."""
        self.changed()
        self.now_ms += round(step.get("after_minutes", 0) * MINUTE)
        for raw in step.get("rows", []):
            row = {**ROW, **raw}
            self.rows = [old for old in self.rows if _key(old) != _key(row)] + [row]
        for raw in step.get("exchange_orders", []):
            order = {**ORDER, **raw}
            self.exchange_orders = [old for old in self.exchange_orders if old["id"] != order["id"]] + [order]
        if "positions" in step:
            self.positions = step["positions"]
        self.look_ups = step.get("look_ups", {})
        incomplete = step.get("incomplete", {})
        for profile in self.profiles:
            profile["evidence_defect"] = incomplete.get(profile["account_id"], "")

    def changed(self) -> None:
        """Forget the frames: something is not as it was."""
        self._frames.clear()

    # -- the frames of one reading

    def facts(self, more: Iterable[tuple[str, Raw]] = ()) -> pd.DataFrame:
        """ORDER_FACTS of every account."""
        listed = [(order.get("account_id", "a1"), order) for order in self.exchange_orders]
        by_account: dict[str, list[Raw]] = {profile["account_id"]: [] for profile in self.profiles}
        for account, order in (*listed, *more):
            by_account[account].append(order)
        frames = [order_facts_frame(orders, account_id=account) for account, orders in by_account.items() if orders]
        return pd.concat(frames, ignore_index=True) if frames else ORDER_FACTS.empty()

    def inputs(self, facts: pd.DataFrame) -> CycleInputs:
        """The snapshot of the stages of the cycle."""
        return self._once("inputs", lambda: self._inputs(facts))

    def _inputs(self, facts: pd.DataFrame) -> CycleInputs:
        accounts = {profile["account_id"] for profile in self.profiles}
        return CycleInputs(
            profiles=frame_of(
                PROFILES, {name: [profile[name] for profile in self.profiles] for name in PROFILES.names}
            ),
            ledger_orders=ledger_orders_frame(self.rows),
            order_facts=facts,
            positions=positions_frame(self.positions, account_id="a1") if self.positions else POSITIONS.empty(),
            consumption=consumption_frame(self.consumption),
            positions_unknown=frozenset(accounts) if self.positions is None else frozenset(),
            capital_usd={p["profile_id"]: p["capital"] and Decimal(p["capital"]) for p in self.profiles},
        )

    def ownership(self, facts: pd.DataFrame) -> pd.DataFrame:
        """Whose each order is."""
        return self._once("ownership", lambda: own_orders(self.inputs(facts)))

    def backfill_inputs(self, facts: pd.DataFrame) -> ExitBackfillInputs:
        """The snapshot of the exit backfill."""
        inputs = self.inputs(facts)
        return ExitBackfillInputs(
            profiles=inputs.profiles,
            lifecycle_rows=self._once("lifecycle", lambda: lifecycle_rows_frame(self.rows)),
            exchange_orders=facts[EXCHANGE_ORDERS.names],
            positions=inputs.positions,
            consumption=inputs.consumption,
            positions_unknown=inputs.positions_unknown,
        )

    def slices(self, facts: pd.DataFrame) -> pd.DataFrame:
        """Every trade, open or not."""
        return self._once("slices", lambda: slices_of_accounts(self.backfill_inputs(facts)))

    def open_quantities(self) -> dict[str, Decimal]:
        """What the ledger leaves open, signed, of every trade that has filled rows; by trade, not by profile."""
        return {
            row.trade_id: from_e9(int(row.open_e9)) * (1 if row.entry_side == "BUY" else -1)
            for row in rows_of(self.slices(self.facts()))
        }

    def _once(self, name: str, work_out: Callable[[], Made]) -> Made:
        if name not in self._frames:
            self._frames[name] = work_out()
        return cast("Made", self._frames[name])

    # -- writing

    def write(self, changes: Sequence[OrderChange]) -> dict[str, str]:
        """Write the changes; return those that were postponed because the ledger is not what they expect."""
        if not changes:
            return {}
        self.changed()
        postponed = {}
        kept = []
        rows = {_key(row): row for row in self.rows}
        for change in changes:
            row = rows.get((change.profile_id, change.order_id))
            if change.inserts and row is not None:
                postponed[change.order_id] = "already_exists"
            elif not change.inserts and not _as_expected(row, change):
                postponed[change.order_id] = "row_changed"
            else:
                kept.append(change)
        after = World(rows=self.rows, consumption=self.consumption).with_written(kept)
        self.rows, self.consumption = [dict(row) for row in after.rows], [dict(raw) for raw in after.consumption]
        return postponed


def _as_expected(row: Raw | None, change: OrderChange) -> bool:
    return row is not None and all(
        (None if row.get(name) is None else str(row[name])) == value for name, value in (change.expected or {}).items()
    )


@dataclass
class Cycle:
    """What one cycle did."""

    changes: list[tuple[Stage, OrderChange]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """stage to counters of the first profile; of another one under ``<stage>:<profile>``"""
    skipped: dict[str, str] = field(default_factory=dict)
    postponed: dict[str, str] = field(default_factory=dict)
    look_ups: list[str] = field(default_factory=list)
    proposed: dict[str, str] = field(default_factory=dict)
    """backfill quantity by trade"""
    watchdog: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> Raw:
        """Everything that a scenario may expect, as JSON values."""
        return {
            "changes": [
                {
                    "stage": stage.value,
                    "profile_id": change.profile_id,
                    "trade_id": change.trade_id,
                    "order_id": change.order_id,
                    "handler": change.handler.value,
                    "inserts": change.inserts,
                    "values": dict(change.values),
                    "cause": copy.deepcopy(dict(change.cause)),
                    "exchange_order_id": change.exchange_order_id,
                    "represents": decimal_text_e9(change.represents_e9),
                }
                for stage, change in self.changes
            ],
            "findings": [
                {
                    "stage": found.stage.value,
                    "profile_id": found.profile_id,
                    "reason": found.reason,
                    "order_id": found.order_id,
                    "trade_id": found.trade_id,
                    "symbol": found.symbol,
                    "exchange_order_id": found.exchange_order_id,
                    "needs_person": found.needs_person,
                    "detail": dict(found.detail),
                }
                for found in self.findings
            ],
            "counts": self.counts,
            "skipped": self.skipped,
            "postponed": self.postponed,
            "look_ups": self.look_ups,
            "proposed": self.proposed,
            "watchdog": self.watchdog,
        }


def play(snapshot: Snapshot) -> Cycle:
    """One cycle, step by step as ``cycle.account`` does it; the snapshot is then what the next one finds."""
    cycle, policy = Cycle(), snapshot.policy
    facts = _look_up(snapshot, cycle)
    _order_parity(snapshot, cycle, facts)
    if policy.order_coverage.enabled:
        inputs = snapshot.inputs(facts)
        coverage = plan_order_coverage(inputs, policy.order_coverage, snapshot.ownership(facts), now_ms=snapshot.now_ms)
        _carry_out(snapshot, cycle, coverage, dry_run=policy.order_coverage.dry_run)
    waiting = _exit_backfill(snapshot, cycle)
    _integrity(snapshot, cycle)
    if policy.sub_tag_repair.enabled:
        repair = plan_sub_tag_repair(
            snapshot.inputs(facts), policy.sub_tag_repair, supported=snapshot.sub_tag_supported
        )
        _carry_out(snapshot, cycle, repair, dry_run=policy.sub_tag_repair.dry_run)
    _position_parity(snapshot, cycle, facts, waiting)
    cycle.findings += data_findings(snapshot.inputs(facts), snapshot.slices(facts))
    return cycle


def _look_up(snapshot: Snapshot, cycle: Cycle) -> pd.DataFrame:
    facts = snapshot.facts()
    wanted = orders_to_look_up(snapshot.inputs(facts), snapshot.policy.order_parity, now_ms=snapshot.now_ms)
    cycle.look_ups = wanted["order_id"].tolist()
    unanswered = set(cycle.look_ups) - set(snapshot.look_ups)
    assert not unanswered, f"the scenario does not say what the exchange answers about {sorted(unanswered)}"
    found = [
        (row.account_id, {**ORDER, **answer})
        for row in rows_of(wanted)
        if isinstance(answer := snapshot.look_ups[row.order_id], dict)
    ]
    if found:
        snapshot.changed()
    return snapshot.facts(found)


def _order_parity(snapshot: Snapshot, cycle: Cycle, facts: pd.DataFrame) -> None:
    inputs = snapshot.inputs(facts)
    asked = [row for row in rows_of(inputs.ledger_orders) if row.order_id in cycle.look_ups]
    answers = {(row.profile_id, row.order_id): snapshot.look_ups[row.order_id] for row in asked}
    plan = plan_order_parity(
        inputs,
        snapshot.policy.order_parity,
        snapshot.confirmations,
        absent=frozenset(key for key, answer in answers.items() if answer == "absent"),
        unknown={key: "timeout" for key, answer in answers.items() if answer == "unknown"},
        asked=frozenset(answers),
        now_ms=snapshot.now_ms,
        ownership=snapshot.ownership(facts),
    )
    frozen = snapshot.confirmations[snapshot.confirmations["profile_id"].isin(list(plan.skipped))]
    snapshot.confirmations = pd.concat([plan.confirmations, frozen], ignore_index=True)
    _carry_out(snapshot, cycle, plan, dry_run=snapshot.policy.order_parity.dry_run)


def _exit_backfill(snapshot: Snapshot, cycle: Cycle) -> frozenset[tuple[str, str]]:
    """Plan, apply where the settings let it, and return the trades that wait for it."""
    chosen = [profile["profile_id"] for profile in snapshot.profiles if profile["selected"]]
    if not snapshot.policy.exit_backfill.enabled:
        cycle.skipped |= {_label(snapshot, Stage.EXIT_BACKFILL, profile): "disabled" for profile in chosen}
        return frozenset()
    planned = plan_exit_backfill(
        snapshot.backfill_inputs(snapshot.facts()), snapshot.policy.exit_backfill, now_ms=snapshot.now_ms
    )
    waiting: set[tuple[str, str]] = set()
    for profile in chosen:
        plan = planned.for_profile(profile)
        if not plan.attempted:
            cycle.skipped[_label(snapshot, Stage.EXIT_BACKFILL, profile)] = plan.skipped_reason
        cycle.counts[_label(snapshot, Stage.EXIT_BACKFILL, profile)] = {"no_go_trades": plan.no_go_trades}
        dry_run, trades = snapshot.policy.exit_backfill_dry_run, plan.trades
        waits = trades["outcome"] == "skipped"
        if dry_run:
            waits |= (trades["outcome"] == "proposed") | (trades["allocated_e9"] > 0)
        waiting |= {(profile, trade) for trade in trades["trade_id"][waits]}
        for row, record in zip(rows_of(plan.proposals), order_records(plan), strict=True):
            total = Decimal(cycle.proposed.get(row.trade_id, "0")) + record["qty"]
            cycle.proposed[row.trade_id] = decimal_text(total)
            if dry_run:
                continue
            snapshot.changed()
            spelled = {name: value if value is None else str(value) for name, value in record.items()}
            snapshot.rows.append({**ROW, **spelled, "timestamp": int(record["timestamp"])})
            if not row.exchange_order_id.startswith(DUST_PREFIX):
                consumed = {"backfill_order_id": row.order_id, "exchange_order_id": row.exchange_order_id}
                snapshot.consumption.append({"account_id": plan.account_id, **consumed, "qty": str(record["qty"])})
    return frozenset(waiting)


def _integrity(snapshot: Snapshot, cycle: Cycle) -> None:
    for profile in [profile["profile_id"] for profile in snapshot.profiles if profile["selected"]]:
        orders, coverage, backfill = (
            cycle.counts.get(_label(snapshot, stage, profile), {})
            for stage in (Stage.ORDER_PARITY, Stage.ORDER_COVERAGE, Stage.EXIT_BACKFILL)
        )
        uncovered = coverage.get("missing_in_db", 0) - coverage.get("inserted_rows", 0)
        verdict = judge_integrity(
            profile,
            "u1",
            missing_in_db=orders.get("missing_in_db", 0) + max(0, uncovered),
            no_go_trades=backfill.get("no_go_trades", 0),
            policy=snapshot.policy.watchdog,
        )
        cycle.watchdog[_label(snapshot, Stage.INTEGRITY_WATCHDOG, profile)] = verdict.triggered


def _position_parity(
    snapshot: Snapshot, cycle: Cycle, facts: pd.DataFrame, waiting: frozenset[tuple[str, str]]
) -> None:
    inputs, ownership, policy = snapshot.inputs(facts), snapshot.ownership(facts), snapshot.policy.position_parity
    plan = plan_position_parity(
        inputs,
        snapshot.slices(facts),
        policy,
        snapshot.parity,
        waiting=waiting,
        ownership=ownership,
        evidence=_free_evidence(snapshot, inputs, ownership),
        now_ms=snapshot.now_ms,
    )
    snapshot.parity = plan.states
    cycle.findings += [*plan.findings, *plan.account_findings]
    cycle.changes += [(Stage.POSITION_PARITY, change) for change in plan.changes]
    for profile, reason in plan.skipped.items():
        cycle.skipped[_label(snapshot, Stage.POSITION_PARITY, profile)] = reason
    if not policy.dry_run:
        cycle.postponed |= snapshot.write(plan.changes)
    for profile, counted in plan.profiles.items():
        label = _label(snapshot, Stage.POSITION_PARITY, profile)
        money = {"total_mismatch_notional_usd": decimal_text(counted.total_mismatch_notional_usd)}
        cycle.counts[label] = {**counted.counts, **money}
        verdict = judge_parity(
            snapshot.watchdogs.get(profile, WatchdogState(profile)),
            mismatch_usd=counted.total_mismatch_notional_usd,
            unpriced_trades=counted.unpriced_trades,
            capital_usd=inputs.capital_usd[profile],
            pauses=snapshot.pauses.get(profile, []),
            policy=policy,
            watchdog=snapshot.policy.watchdog,
            now_ms=snapshot.now_ms,
        )
        snapshot.watchdogs[profile] = verdict.state
        cycle.findings += verdict.findings
        cycle.watchdog[label] = {"reason": verdict.reason.value, "pause": verdict.pause}


def _free_evidence(snapshot: Snapshot, inputs: CycleInputs, ownership: pd.DataFrame) -> pd.DataFrame:
    parts = []
    for account, members in inputs.profiles.groupby("account_id"):
        own = [row for row in snapshot.rows if row["profile_id"] in set(members["profile_id"])]
        facts = inputs.order_facts[inputs.order_facts["account_id"] == account]
        consumed = inputs.consumption[inputs.consumption["account_id"] == account]
        parts.append(free_evidence(facts, lifecycle_rows_frame(own), consumed, ownership))
    full = [part for part in parts if len(part)]
    return pd.concat(full, ignore_index=True) if full else EVIDENCE.empty()


def _carry_out(snapshot: Snapshot, cycle: Cycle, plan: Any, *, dry_run: bool) -> None:
    cycle.findings += plan.findings
    cycle.changes += [(plan.stage, change) for change in plan.changes]
    postponed = {} if dry_run else snapshot.write(plan.changes)
    cycle.postponed |= postponed
    for profile, reason in plan.skipped.items():
        cycle.skipped[_label(snapshot, plan.stage, profile)] = reason
    for profile, counted in plan.counts.items():
        written = [c for c in plan.changes if c.profile_id == profile and c.order_id not in postponed and not dry_run]
        counts = dict(counted)
        if "inserted_rows" in counts:
            counts["inserted_rows"] = sum(change.inserts for change in written)
        cycle.counts[_label(snapshot, plan.stage, profile)] = counts


def _label(snapshot: Snapshot, stage: Stage, profile: str) -> str:
    return stage.value if profile == snapshot.profiles[0]["profile_id"] else f"{stage.value}:{profile}"


def _key(row: Raw) -> tuple[str, str]:
    return row["profile_id"], row["order_id"]


def _instant(spelled: str) -> int:
    instant = parse_instant(spelled)
    assert instant is not None, spelled
    return instant


__all__ = ["COLUMNS", "MINUTE", "Cycle", "Snapshot", "play"]
