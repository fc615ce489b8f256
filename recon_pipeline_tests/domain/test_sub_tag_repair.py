"""Missing sub-tags: what proves one, what does not, and that nothing but the tag is written."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from recon_pipeline.domain.corrections import Handler, OrderChange, changes_digest
from recon_pipeline.domain.cycle_frames import CycleInputs
from recon_pipeline.domain.cycle_policy import SubTagRepairPolicy
from recon_pipeline.domain.stage_plan import StagePlan
from recon_pipeline.domain.sub_tag_repair import COUNTERS, plan_sub_tag_repair
from recon_pipeline_tests.domain.book_makers import MINUTE, START_MS, backfill_id
from recon_pipeline_tests.domain.coverage_makers import SENT_MS, Record, fact, inputs_of, profile, row

TAG = "bytelyst:p1:t1"


def plan(inputs: CycleInputs, policy: SubTagRepairPolicy | None = None) -> StagePlan:
    planned = plan_sub_tag_repair(inputs, policy or SubTagRepairPolicy(), supported=True)
    for counts in planned.counts.values():
        assert set(counts) == set(COUNTERS)
        parts = ("repairable", "unproven", "ambiguous", "contradictory", "postponed")
        assert counts["scanned"] == sum(counts[part] for part in parts), dict(counts)
    return planned


def counted(planned: StagePlan, profile_id: str = "p1") -> dict[str, int]:
    return {name: count for name, count in planned.counts[profile_id].items() if count}


def repaired(planned: StagePlan) -> dict[str, tuple[Any, Any]]:
    return {change.order_id: (change.values["sub_tag"], change.cause["rule"]) for change in planned.changes}


def test_a_missing_tag_is_copied_from_the_rows_order_and_nothing_else_is_written() -> None:
    recorded = row(order_id="x1")
    (change,) = plan(inputs_of([recorded], [fact(side="buy", sub_tag="Bytelyst:P1:t1", client_order_id="c1")])).changes
    assert change == OrderChange(
        profile_id="p1",
        trade_id="t1",
        order_id="x1",
        handler=Handler.SUB_TAG,
        values={"sub_tag": "Bytelyst:P1:t1"},
        expected=change.expected,
        cause={
            "rule": "exchange_tag",
            "sub_tag": "Bytelyst:P1:t1",
            "exchange_order_id": "x1",
            "client_order_id": "",
        },
        exchange_order_id="",
        represents_e9=0,
    )
    assert change.expected is not None
    assert (change.expected["order_id"], change.expected["sub_tag"], change.expected["qty"]) == ("x1", None, "10")


@pytest.mark.parametrize(
    ("rows", "facts", "tag", "rule"),
    [
        ([row(order_id="x1")], [fact(sub_tag="bytelyst:p1")], "bytelyst:p1", "exchange_tag"),
        ([row(order_id="c1")], [fact(client_order_id="c1", sub_tag=TAG)], TAG, "exchange_tag"),
        ([row(client_order_id="c1")], [fact(client_order_id="c1", sub_tag=TAG)], TAG, "exchange_tag"),
        ([row(order_id="x1", trade_id=None)], [fact(sub_tag="bytelyst:p1")], "bytelyst:p1", "exchange_tag"),
        ([row(client_order_id="bytelyst-p1-t1-entry")], [], TAG, "client_order_id"),
        ([row(order_id="bytelyst-p1-t1-entry")], [], TAG, "client_order_id"),
        ([row(order_id="x1")], [fact(client_order_id="bytelyst-p1-t1-entry")], TAG, "client_order_id"),
        ([row(order_id="x1")], [fact(client_order_id="bytelyst-p1-t1", sub_tag="junk")], TAG, "client_order_id"),
        ([row(trade_id="T-1")], [fact(id="e1", client_order_id="bytelyst-p1-T-1-entry")], TAG, "client_order_id"),
        ([row(), row(order_id="e2", sub_tag=TAG)], [], TAG, "trade_rows"),
        ([row(status="pending_new"), row(order_id="e2", sub_tag=TAG)], [], TAG, "trade_rows"),
        ([row(), row(order_id="e2", sub_tag=TAG, status="canceled")], [], TAG, "trade_rows"),
    ],
)
def test_a_tag_is_proven_by_the_order_the_client_id_or_the_trade(
    rows: list[Record], facts: list[Record], tag: str, rule: str
) -> None:
    assert repaired(plan(inputs_of(rows, facts))) == {rows[0]["order_id"]: (tag, rule)}


def test_the_pipelines_own_rows_are_left_alone_so_that_they_can_be_rolled_back() -> None:
    booked = row(order_id=backfill_id("p1", "t1", "x1", SENT_MS), side="sell", action="EXIT")
    synthetic = row(order_id="PARITY-1", side="sell", action="EXIT")
    planned = plan(inputs_of([row(sub_tag=TAG), booked, synthetic], [fact(sub_tag="bytelyst:p1:t9")]))
    assert repaired(planned) == {}
    assert counted(planned) == {}


@pytest.mark.parametrize(
    "rows",
    [
        [row()],
        [row(), row(order_id="e2", sub_tag="bytelyst:p1")],
        [row(), row(order_id="e2", sub_tag="junk")],
        [row(), row(order_id="e2", sub_tag="bytelyst:p1:t2", trade_id="t2")],
        [row(trade_id=None, client_order_id="by-hand")],
    ],
)
def test_what_nothing_proves_is_left_as_it_is(rows: list[Record]) -> None:
    planned = plan(inputs_of(rows))
    assert (planned.changes, planned.findings, counted(planned)) == ((), (), {"scanned": 1, "unproven": 1})


@pytest.mark.parametrize(
    "rows", [[row(sub_tag=TAG)], [row(sub_tag="junk")], [row(status="canceled")], [row(order_id=None)]]
)
def test_rows_that_have_a_tag_or_count_for_nothing_are_not_looked_at(rows: list[Record]) -> None:
    assert counted(plan(inputs_of(rows, [fact(id="e1", sub_tag="bytelyst:p1:t1")]))) == {}


@pytest.mark.parametrize(
    ("rows", "facts"),
    [
        ([row(order_id="x1")], [fact(sub_tag="bytelyst:p9:t1")]),
        ([row(order_id="x1")], [fact(sub_tag="bytelyst:p2")]),
        ([row(order_id="x1")], [fact(sub_tag="bytelyst:p1:t9")]),
        ([row(order_id="x1"), row(order_id="e2", trade_id="t2", sub_tag="x")], [fact(sub_tag="bytelyst:p1:t2")]),
        ([row(order_id="x1")], [fact(sub_tag=TAG, client_order_id="bytelyst-p2-t1-entry")]),
        ([row(client_order_id="bytelyst-p1-t9-entry")], []),
        ([row(client_order_id="bytelyst-p9-t1-entry")], []),
        ([row(client_order_id="bytelyst-p1-t1-entry", order_id="bytelyst-p1-t1-exit")], []),
        ([row(), row(order_id="e2", sub_tag="bytelyst:p1:t2")], []),
        ([row(), row(order_id="e2", sub_tag="bytelyst:p2:t1")], []),
    ],
)
def test_a_key_that_names_another_profile_or_trade_is_for_a_person(rows: list[Record], facts: list[Record]) -> None:
    planned = plan(inputs_of(rows, facts, profiles=["p1", "p2"]))
    assert planned.changes == ()
    assert counted(planned) == {"scanned": 1, "contradictory": 1}
    (finding,) = planned.findings
    assert (finding.reason, finding.order_id, finding.trade_id, finding.needs_person) == (
        "contradictory_sub_tag",
        rows[0]["order_id"],
        "t1",
        True,
    )


@pytest.mark.parametrize(
    ("rows", "facts", "profiles"),
    [
        # Two trades, or two profiles, with one token.
        ([row(order_id="x1"), row(order_id="e2", trade_id="t-1", sub_tag="x")], [fact(sub_tag=TAG)], ["p1"]),
        ([row(client_order_id="bytelyst-p1-t1-entry"), row(order_id="e2", trade_id="T1", sub_tag="x")], [], ["p1"]),
        ([row(), row(order_id="e2", sub_tag=TAG), row(order_id="e3", trade_id="t.1", sub_tag="x")], [], ["p1"]),
        ([row(order_id="x1")], [fact(sub_tag="bytelyst:p1")], ["p1", "p-1"]),
        ([row(client_order_id="bytelyst-p1-t1-entry")], [], ["p1", "P.1"]),
        # Two orders of the exchange that the row may be.
        ([row(order_id="x1", client_order_id="c2")], [fact(sub_tag=TAG), fact(id="x2", client_order_id="c2")], ["p1"]),
        # A token of two trades beside a client id that names one of them.
        (
            [row(order_id="x1"), row(order_id="e2", trade_id="t-1", sub_tag="x")],
            [fact(sub_tag=TAG, client_order_id="bytelyst-p1-t1-entry")],
            ["p1"],
        ),
    ],
)
def test_a_token_that_stands_for_two_proves_nothing(
    rows: list[Record], facts: list[Record], profiles: list[str]
) -> None:
    planned = plan(inputs_of(rows, facts, profiles=profiles))
    assert (planned.changes, counted(planned)) == ((), {"scanned": 1, "ambiguous": 1})


def test_rows_of_open_trades_come_first_then_the_newest() -> None:
    tagged = [
        row(order_id=f"tag-{trade}", trade_id=trade, sub_tag=f"bytelyst:p1:{trade}", qty="1") for trade in ("t1", "t2")
    ]
    rows = [
        *tagged,
        row(order_id="closed", trade_id="t2", timestamp=START_MS + 9 * MINUTE, qty="1"),
        row(order_id="exit", trade_id="t2", side="sell", action="EXIT", qty="2", sub_tag="bytelyst:p1:t2"),
        row(order_id="old", timestamp=START_MS),
        row(order_id="new", timestamp=START_MS + MINUTE),
    ]
    planned = plan(inputs_of(rows), SubTagRepairPolicy(max_rows=2))
    assert [change.order_id for change in planned.changes] == ["new", "old"]
    assert counted(planned) == {"scanned": 3, "repairable": 2, "postponed": 1}
    everything = plan(inputs_of(rows))
    assert [change.order_id for change in everything.changes] == ["new", "old", "closed"]


def test_without_the_column_every_profile_says_unsupported_and_nothing_is_planned() -> None:
    inputs = inputs_of([row(client_order_id="bytelyst-p1-t1-entry")], profiles=["p1", "p2"])
    planned = plan_sub_tag_repair(inputs, SubTagRepairPolicy(), supported=False)
    assert planned.changes == ()
    assert [(f.profile_id, f.reason, f.needs_person) for f in planned.findings] == [
        ("p1", "unsupported_column", False),
        ("p2", "unsupported_column", False),
    ]
    assert counted(planned) == {"unsupported": 1}


def test_an_incomplete_reading_repairs_nothing() -> None:
    inputs = inputs_of(
        [row(client_order_id="bytelyst-p1-t1-entry")], profiles=[profile("p1", evidence_defect="a page failed"), "p2"]
    )
    planned = plan(inputs)
    assert (planned.changes, planned.skipped, list(planned.counts)) == ((), {"p1": "evidence_incomplete"}, ["p2"])


def test_a_profile_that_is_only_context_is_not_repaired() -> None:
    inputs = inputs_of([row(client_order_id="bytelyst-p1-t1-entry")], profiles=[profile("p1", selected=False), "p2"])
    assert (plan(inputs).changes, list(plan(inputs).counts)) == ((), ["p2"])


def test_the_order_of_rows_decides_nothing_and_a_repaired_row_needs_nothing_more() -> None:
    rows = [
        row(client_order_id="bytelyst-p1-t1-entry"),
        row(order_id="e2"),
        row(order_id="x1", trade_id="t2", profile_id="p2"),
        row(order_id="tagged", sub_tag=TAG),
    ]
    facts = [fact(sub_tag="bytelyst:p2:t2")]
    planned = plan(inputs_of(rows, facts, profiles=["p1", "p2"]))
    assert len(planned.changes) == 3
    for seed in range(4):
        shuffled = list(rows) * 2
        Random(seed).shuffle(shuffled)
        again = plan(inputs_of(shuffled, facts * 2, profiles=["p2", "p1"]))
        assert changes_digest(again.changes) == changes_digest(planned.changes)
        assert again.counts == planned.counts
    tags = {change.order_id: change.values["sub_tag"] for change in planned.changes}
    mended = [{**made, "sub_tag": tags.get(made["order_id"], made.get("sub_tag"))} for made in rows]
    assert plan(inputs_of(mended, facts, profiles=["p1", "p2"])).changes == ()
