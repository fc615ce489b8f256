"""What holds of every round of the order status sync, whatever ledger and exchange look like (DESIGN 10: 1, 3, 4, 5, 6, 8)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.corrections import Handler
from recon_pipeline.domain.frames import rows_of
from recon_pipeline.domain.order_matching import LIVE, class_of_status
from recon_pipeline.domain.order_readings import ledger_orders_frame
from recon_pipeline.domain.order_status import COUNTERS, CheckOutcome, OrderStatusPlan
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.quantities import EPSILON_E9, decimal_text, parse_decimal
from recon_pipeline.domain.readings import lifecycle_rows_frame
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES
from recon_pipeline.domain.symbols import symbol_token
from recon_pipeline.domain.terms import normalise_side
from recon_pipeline_tests.domain.order_book_makers import PROFILES, Made, shuffled
from recon_pipeline_tests.domain.order_status_worlds import Round
from recon_pipeline_tests.domain.order_worlds import MINUTE, Raw, World
from recon_pipeline_tests.domain.test_order_invariants import (
    WORLDS,
    executed_of,
    represented,
    world_of,
    written,
)

OLD = OrderStatusPolicy(unknown_after_ms=30 * MINUTE)
"""The rows of the worlds are an hour old: a denied one is old enough to become unknown."""


def found_by(world: World, orders: list[Raw]) -> list[Raw]:
    """The orders that single look-ups of the asked rows would find."""
    ids = {key for raw in world.rows for key in (raw["order_id"], raw["client_order_id"]) if key and is_open(raw)}
    return [raw for raw in orders if {raw["id"], raw["client_order_id"]} & ids]


def is_open(raw: Raw) -> bool:
    (row,) = rows_of(ledger_orders_frame([raw]))
    return class_of_status(row.status) in LIVE and not row.order_id.startswith(STAND_IN_PREFIXES)


@lru_cache(maxsize=WORLDS)
def rounds(seed: int) -> Round:
    """A round that asks about every open row of a world: what is found, what is denied, and no answer about the rest."""
    _, world = world_of(seed)
    asked = frozenset((raw["profile_id"], raw["order_id"]) for raw in world.rows if is_open(raw))
    found = found_by(world, list(world.orders))
    ids = {key for raw in found for key in (raw["id"], raw["client_order_id"])}
    silent = {
        (raw["profile_id"], raw["order_id"]): "HTTP 503"
        for raw in world.rows
        if is_open(raw) and not ids & {raw["order_id"], raw["client_order_id"]}
    }
    unknown = {key: why for key, why in silent.items() if key not in world.absent}
    return Round(replace(world, orders=found, unknown=unknown), OLD, asked=asked)


def each_round(check: Callable[[Made, Round, Random], None]) -> Callable[[], None]:
    """Run a property on a round of every world."""

    @settings(max_examples=WORLDS)
    @given(st.integers(0, WORLDS - 1))
    def test(seed: int) -> None:
        check(world_of(seed)[0], rounds(seed), Random(seed))

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


def cut(played: Round) -> Round:
    """The same round, planned from the rows that the sync reads: those asked about, of their trades, and naming the orders."""
    asked = played.asked or frozenset()
    ids = {key for raw in played.world.orders for key in (raw["id"], raw["client_order_id"])}
    ids |= {raw["backfill_order_id"] for raw in played.world.consumption}
    trades = {
        (raw["profile_id"], raw["trade_id"])
        for raw in played.world.rows
        if (raw["profile_id"], raw["order_id"]) in asked
    }
    rows = [
        raw
        for raw in played.world.rows
        if (raw["profile_id"], raw["trade_id"]) in trades
        or ids & {raw["order_id"], raw["client_order_id"]}
        or str(raw["order_id"]).startswith(STAND_IN_PREFIXES)
    ]
    return replace(played, world=replace(played.world, rows=rows))


@each_round
def test_what_is_written_is_what_order_parity_writes_of_the_same_facts(made: Made, played: Round, rnd: Random) -> None:
    parity = replace(played.world, absent=frozenset(), unknown={}).plan().changes
    ours = [change for change in played.plan.changes if change.cause["rule"] != "order_unknown_for_a_day"]
    assert set(written(ours)) <= set(written(parity))
    left = set(written(parity)) - set(written(ours))
    beyond = {change.order_id for change in parity if change.cause.get("matched_by") == "trade_id" or change.inserts}
    left_to_it = {"order_known_by_trade", "backfill_superseded"}
    beyond |= {change.order_id for change in parity if change.cause["rule"] in left_to_it}
    assert {order_id for _, order_id, _, _ in left} <= beyond


@each_round
def test_the_rows_around_the_asked_ones_are_enough(made: Made, played: Round, rnd: Random) -> None:
    assert written(cut(played).plan.changes) == written(played.plan.changes)
    assert cut(played).outcomes == played.outcomes


@each_round
def test_no_order_is_represented_by_more_than_it_executed_unless_it_was_before(
    made: Made, played: Round, rnd: Random
) -> None:
    for told in (played, replace(played, forward_only=True)):
        before, after = represented(told.world), represented(told.after().world)
        for order_id, units in after.items():
            assert units <= max(executed_of(made.orders[order_id]) + EPSILON_E9, before[order_id]), order_id


@each_round
def test_what_is_written_is_what_the_cited_order_executed_and_crosses_nothing(
    made: Made, played: Round, rnd: Random
) -> None:
    rows = {(raw["profile_id"], raw["order_id"]): raw for raw in played.world.rows}
    for change in played.plan.changes:
        assert not change.inserts
        executed = change.values.get("executed")
        if executed is None:
            assert (change.exchange_order_id, change.values.get("filled_at"), change.represents_e9) == ("", None, 0)
        else:
            raw = made.orders[change.exchange_order_id]
            assert executed == decimal_text(parse_decimal(raw["filled_qty"]))  # type: ignore[arg-type]
            assert change.represents_e9 == executed_of(raw)
            assert change.values.get("price") in {None, raw["filled_avg_price"]}
            assert change.values.get("filled_at") in {None, raw["filled_at"]}
        cited = str(change.cause.get("exchange_order_id") or "")
        if cited and change.handler is not Handler.SUPERSEDE:
            raw, row = made.orders[cited], rows[change.profile_id, change.order_id]
            profile_id, trade_id, action = made.owner[cited]
            assert (change.profile_id, row["trade_id"] or trade_id) == (profile_id, trade_id)
            assert row["side"] is None or normalise_side(row["side"]) == normalise_side(raw["side"])
            assert symbol_token(row["symbol"]) == symbol_token(raw["symbol"])
            assert row["action"] in {None, action}


@each_round
def test_order_and_repetition_of_the_inputs_decide_nothing(made: Made, played: Round, rnd: Random) -> None:
    def outcome(played: Round) -> tuple[object, ...]:
        plan: OrderStatusPlan = played.plan
        findings = Counter((f.profile_id, f.reason, f.order_id, f.exchange_order_id) for f in plan.findings)
        digests = {name: plan.for_profile(name, "b").digest for name, _ in PROFILES}
        return digests, findings, plan.counts, plan.outcomes, plan.executed_e9, played.checks.to_dict("list")

    assert outcome(replace(played, world=replace(played.world, **shuffled(played.world, rnd)))) == outcome(played)


@each_round
def test_planning_again_after_the_write_writes_nothing(made: Made, played: Round, rnd: Random) -> None:
    after = replace(played.after(), asked=played.asked)
    assert written(after.plan.changes) == []


@each_round
def test_answers_that_did_not_come_write_less(made: Made, played: Round, rnd: Random) -> None:
    lost = {key for key in played.plan.asked if rnd.random() < 0.5}
    rows = [raw for raw in played.world.rows if (raw["profile_id"], raw["order_id"]) in played.plan.asked - lost]
    ids = {key for raw in rows for key in (raw["order_id"], raw["client_order_id"]) if key}
    heard = replace(
        played.world,
        orders=[raw for raw in played.world.orders if {raw["id"], raw["client_order_id"]} & ids],
        absent=played.world.absent - lost,
        unknown={**played.world.unknown, **dict.fromkeys(lost, "HTTP 503")},
    )
    plan = replace(played, world=heard).plan
    assert set(written(plan.changes)) <= set(written(played.plan.changes))
    assert all(plan.outcomes[key].outcome is CheckOutcome.FAILED for key in lost & set(plan.outcomes))


@each_round
def test_an_event_reduces_nothing_and_sets_nothing_back(made: Made, played: Round, rnd: Random) -> None:
    """Events are older than the ledger: each order as it may have been before."""
    world = made.world
    events = [earlier(raw, rnd) for raw in world.orders]
    asked = frozenset((raw["profile_id"], raw["order_id"]) for raw in world.rows)
    told = replace(played, asked=asked, forward_only=True, world=replace(world, orders=events, absent=frozenset()))
    rows = lifecycle_rows_frame(world.rows)
    said = {(row.profile_id, row.order_id): row for row in rows_of(rows)}
    for change in told.plan.changes:
        if change.handler is Handler.SUPERSEDE:
            continue
        row = said[change.profile_id, change.order_id]
        over = class_of_status(row.status) not in LIVE
        assert not (over and class_of_status(change.values["status"] or "") in LIVE)
        assert change.represents_e9 >= (row.qty_e9 if row.status in {"filled", "partially_filled"} else 0) - EPSILON_E9
    later = told.after().world
    unreadable = {row.order_id for row in rows_of(ledger_orders_frame(later.rows)) if row.defect}
    # Such a row would not be written: ``apply`` reads it first.
    cited = {c.exchange_order_id for c in told.plan.changes if c.order_id in unreadable}
    before, after = represented(world), represented(later)
    for order_id in set(after) - cited:
        units = after[order_id]
        # More than an order executed was never true of it: a doubled row may go.
        assert units >= min(before[order_id], executed_of(made.orders[order_id])) - EPSILON_E9, order_id


@each_round
def test_every_asked_row_has_one_outcome_and_the_counters_add_up(made: Made, played: Round, rnd: Random) -> None:
    assert set(played.outcomes) == played.plan.asked
    ends = set(COUNTERS) - {"checked", "not_found", "left_over"}
    quiet = {CheckOutcome.MISSING, CheckOutcome.IN_LINE, CheckOutcome.OUTDATED}
    for profile_id, _ in PROFILES:
        counts = played.counts(profile_id)
        own = [checked for key, checked in played.outcomes.items() if key[0] == profile_id]
        uncounted = sum(checked.outcome in quiet for checked in own)
        assert sum(counts.get(name, 0) for name in ends) + uncounted == counts.get("checked", 0) == len(own)


def test_the_worlds_have_everything_that_the_properties_are_about() -> None:
    played = [rounds(seed) for seed in range(WORLDS)]
    outcomes = Counter(checked.outcome for each in played for checked in each.outcomes.values())
    handlers = Counter(change.handler for each in played for change in each.plan.changes)
    assert {
        CheckOutcome.LIVE,
        CheckOutcome.UPDATED,
        CheckOutcome.MARKED_UNKNOWN,
        CheckOutcome.HELD,
        CheckOutcome.FAILED,
    } <= set(outcomes)
    assert set(handlers) == {
        Handler.ENTRY_FILL,
        Handler.EXIT_FILL,
        Handler.CANCEL,
        Handler.STATUS,
        Handler.SUPERSEDE,
    }


def earlier(raw: Raw, rnd: Random) -> Raw:
    """An order as an earlier event had it: alive, with less or as much executed; or as it is."""
    if rnd.random() < 0.4 or raw["filled_qty"] == "0":
        return (
            raw
            if rnd.random() < 0.7
            else {**raw, "status": "new", "filled_qty": "0", "filled_avg_price": None, "filled_at": None}
        )
    return {**raw, "status": "partially_filled", "filled_qty": rnd.choice(["0.05", raw["filled_qty"]])}
