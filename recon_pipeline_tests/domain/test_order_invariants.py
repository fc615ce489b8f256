"""What holds of every plan of order parity, whatever the ledger and the exchange look like (DESIGN 10: 1, 3, 4, 5, 6, 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from random import Random

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.corrections import Handler, OrderChange
from recon_pipeline.domain.cycle_policy import OrderParityPolicy
from recon_pipeline.domain.evidence import deduplicate_orders, represented_quantities
from recon_pipeline.domain.frames import EXCHANGE_ORDERS
from recon_pipeline.domain.order_parity import OrderParityPlan
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, parse_decimal, to_e9
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.domain.slices import deduplicate_rows
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.terms import normalise_side
from recon_pipeline_tests.domain.order_book_makers import PROFILES, Made, made_world, shuffled
from recon_pipeline_tests.domain.order_worlds import Raw, World

WORLDS = max(8, settings.default.max_examples // 80)  # type: ignore[union-attr]
"""A world has two dozen trades, and is planned once for all properties."""
ONE_ANSWER = OrderParityPolicy(missing_confirmations=1)


@lru_cache(maxsize=WORLDS)
def world_of(seed: int) -> tuple[Made, World]:
    made = made_world(Random(f"orders {seed}"))
    return made, replace(made.world, policy=ONE_ANSWER)


def holds(check: Callable[[Made, World, Random], None]) -> Callable[[], None]:
    """Run a property on every world."""

    @settings(max_examples=WORLDS)
    @given(st.integers(0, WORLDS - 1))
    def test(seed: int) -> None:
        made, world = world_of(seed)
        check(made, world, Random(seed))

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def written(changes: Iterable[OrderChange]) -> list[tuple[str, str, str, tuple[tuple[str, str | None], ...]]]:
    return sorted((c.profile_id, c.order_id, c.handler.value, tuple(sorted(c.values.items()))) for c in changes)


def represented(world: World) -> dict[str, int]:
    """What the ledger represents of each order, as the exit backfill counts it."""
    out: dict[str, int] = {}
    inputs = world.inputs
    for account in ("a1", "a2"):
        members = {name for name, of in PROFILES if of == account}
        facts = inputs.order_facts[inputs.order_facts["account_id"] == account]
        orders = deduplicate_orders(facts[EXCHANGE_ORDERS.names])
        rows = deduplicate_rows(lifecycle_rows_frame(raw for raw in world.rows if raw["profile_id"] in members))
        used = inputs.consumption[inputs.consumption["account_id"] == account]
        units, _ = represented_quantities(orders, rows, used)
        out |= dict(zip(orders["order_id"], (int(unit) for unit in units), strict=True))
    return out


def executed_of(raw: Raw) -> int:
    number = parse_decimal(raw["filled_qty"])
    assert number is not None
    return to_e9(number)


@holds
def test_no_order_is_represented_by_more_than_it_executed_unless_it_was_before(
    made: Made, world: World, rnd: Random
) -> None:
    before, after = represented(world), represented(world.after())
    for order_id, units in after.items():
        limit = max(executed_of(made.orders[order_id]) + EPSILON_E9, before[order_id])
        assert units <= limit, order_id


@holds
def test_what_is_written_is_what_the_cited_order_executed_and_nothing_else(
    made: Made, world: World, rnd: Random
) -> None:
    for change in world.plan().changes:
        executed = change.values.get("executed") or change.values.get("filled_qty")
        if executed is None:
            assert change.exchange_order_id == ""
            assert change.values.get("filled_at") is None
            continue
        raw = made.orders[change.exchange_order_id]
        assert executed == decimal_text(parse_decimal(raw["filled_qty"]) or parse_decimal("0"))  # type: ignore[arg-type]
        assert change.represents_e9 == executed_of(raw)
        assert change.values.get("price") in {None, raw["filled_avg_price"]}
        assert change.values.get("filled_at") in {None, raw["filled_at"]}


@holds
def test_nothing_crosses_profile_trade_side_or_symbol(made: Made, world: World, rnd: Random) -> None:
    rows = {(raw["profile_id"], raw["order_id"]): raw for raw in world.rows}
    for change in world.plan().changes:
        cited = str(change.cause.get("exchange_order_id") or "")
        if not cited or change.handler is Handler.SUPERSEDE:
            continue
        raw = made.orders[cited]
        row = (
            {**change.values, "trade_id": change.trade_id}
            if change.inserts
            else rows[change.profile_id, change.order_id]
        )
        profile_id, trade_id, action = made.owner[cited]
        assert (change.profile_id, row["trade_id"] or trade_id) == (profile_id, trade_id)
        assert row["side"] is None or normalise_side(row["side"]) == normalise_side(raw["side"])
        assert symbol_token(str(row["symbol"])) == symbol_token(raw["symbol"])
        assert row["action"] in {None, action}
        if change.handler in {Handler.ENTRY_FILL, Handler.EXIT_FILL}:
            assert change.handler.value == f"{action.lower()}_fill"


@holds
def test_no_row_says_less_than_before_unless_another_says_it(made: Made, world: World, rnd: Random) -> None:
    rows = lifecycle_rows_frame(world.rows)
    booked = dict(zip(zip(rows["profile_id"], rows["order_id"], strict=True), rows["qty_e9"], strict=True))
    filled = rows["status"].isin(["filled", "partially_filled"])
    alive = set(zip(rows["profile_id"][filled], rows["order_id"][filled], strict=True))
    for change in world.plan().changes:
        key = (change.profile_id, change.order_id)
        if change.handler is not Handler.SUPERSEDE and key in alive:
            assert change.represents_e9 >= booked[key] - EPSILON_E9


@holds
def test_planning_again_after_the_write_proposes_nothing(made: Made, world: World, rnd: Random) -> None:
    after = world.after()
    # A row that is closed may leave another one as the only row of its trade that an order can be: a cycle later.
    late = [change for change in after.plan().changes if change.cause["rule"] != "backfill_superseded"]
    assert {change.cause["matched_by"] for change in late} <= {"trade_id"}
    assert written(after.after().plan().changes) == []


@holds
def test_order_and_repetition_of_the_inputs_decide_nothing(made: Made, world: World, rnd: Random) -> None:
    def outcome(plan: OrderParityPlan) -> tuple[object, ...]:
        findings = Counter((f.profile_id, f.reason, f.order_id, f.exchange_order_id) for f in plan.findings)
        digests = {name: plan.for_profile(name, "b").digest for name, _ in PROFILES}
        return digests, findings, plan.counts, plan.confirmations.to_dict("list"), plan.executed_e9

    assert outcome(replace(world, **shuffled(world, rnd)).plan()) == outcome(world.plan())


@holds
def test_a_reading_that_failed_writes_nothing_for_its_account_and_changes_nothing_for_the_other(
    made: Made, world: World, rnd: Random
) -> None:
    failed = [{**raw, "evidence_defect": "x" if raw["account_id"] == "a1" else ""} for raw in world.profiles]
    partial = [raw for raw in world.orders if raw["account_id"] == "a2" or rnd.random() < 0.5]
    plan = replace(world, profiles=failed, orders=partial).plan()
    assert written(plan.changes) == written(c for c in world.plan().changes if c.profile_id == "p3")
    assert set(plan.confirmations["profile_id"]) <= {"p3"}
    assert plan.skipped == {name: "evidence_incomplete" for name, account in PROFILES if account == "a1"}


@holds
def test_answers_that_did_not_come_write_less(made: Made, world: World, rnd: Random) -> None:
    silent = replace(world, absent=frozenset(), unknown=dict.fromkeys(world.absent, "HTTP 503"))
    less, more = written(silent.plan().changes), written(world.plan().changes)
    assert set(less) <= set(more)
    assert all(handler == "cancel" for _, _, handler, _ in set(more) - set(less))


@holds
def test_profiles_planned_together_are_planned_as_one_by_one(made: Made, world: World, rnd: Random) -> None:
    chosen = rnd.choice(PROFILES)[0]
    alone = replace(world, profiles=[{**raw, "selected": raw["profile_id"] == chosen} for raw in world.profiles])
    assert written(alone.plan().changes) == written(c for c in world.plan().changes if c.profile_id == chosen)
    assert alone.plan().counts == {chosen: world.plan().counts[chosen]}


def test_the_worlds_have_everything_that_the_properties_are_about() -> None:
    plans = [world_of(seed)[1].plan() for seed in range(WORLDS)]
    handlers = Counter(change.handler for plan in plans for change in plan.changes)
    reasons = Counter(finding.reason for plan in plans for finding in plan.findings)
    counters = pd.DataFrame([counts for plan in plans for counts in plan.counts.values()]).sum()
    assert set(handlers) == {
        Handler.ENTRY_FILL,
        Handler.EXIT_FILL,
        Handler.CANCEL,
        Handler.STATUS,
        Handler.DISCOVERY,
        Handler.SUPERSEDE,
    }
    assert len(reasons) >= 6
    assert set(counters[counters == 0].index) <= {
        "postponed_quiet",
        "out_of_scope",
        "awaiting_confirmation",
        "unknown_answers",
    }
