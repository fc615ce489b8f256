"""What waits for a person: which findings, decisions and trades make a case, and in which order they stand."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from recon_pipeline.domain.corrections import Finding, Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.frames import DECISIONS, EVIDENCE, NO_TIME, SLICES, TRADES, Schema, frame_of
from recon_pipeline.domain.plan import ProfilePlan
from recon_pipeline.domain.waiting import WaitingCase, waiting_cases

E9 = 1_000_000_000
DEFAULTS = {
    "text": "",
    "quantity": 0,
    "count": 0,
    "instant": NO_TIME,
    "bool": False,
    "money": None,
    "price": None,
    "list": None,
}


def frame(schema: Schema, *rows: dict[str, Any]) -> pd.DataFrame:
    """Rows of a schema, each column as empty as its type allows unless told."""
    if not rows:
        return schema.empty()
    return frame_of(schema, {c.name: [row.get(c.name, DEFAULTS[c.type]) for row in rows] for c in schema.columns})


def no_go(
    trade: str, reason: str = "missing_fill_evidence", qty: int = 1, worth: str | None = "100", **told: Any
) -> dict[str, Any]:
    return {
        "profile_id": "p1",
        "trade_id": trade,
        "symbol": "AAPL",
        "decision": "NO_GO",
        "reason": reason,
        "qty_e9": qty * E9,
        "notional_usd": None if worth is None else Decimal(worth),
        "metadata": {},
        **told,
    }


def plan(*decisions: dict[str, Any], trades: tuple[dict[str, Any], ...] = ()) -> ProfilePlan:
    return ProfilePlan(
        profile_id="p1",
        user_id="u1",
        account_id="A1",
        batch_id="b1",
        attempted=True,
        skipped_reason="",
        skipped_detail="",
        digest="",
        open_trade_candidates=0,
        slices=SLICES.empty(),
        trades=frame(TRADES, *trades),
        proposals=frame(DECISIONS),
        decisions=frame(DECISIONS, *decisions),
        evidence=EVIDENCE.empty(),
        over_exits=SLICES.empty(),
        unmanaged=SLICES.empty(),
    )


def state(trade: str, worth: str | None = "100", *, quarantined: bool = False, **told: Any) -> dict[str, Any]:
    return {
        "profile_id": "p1",
        "trade_id": trade,
        "symbol": "AAPL",
        "confirmations": 1,
        "first_seen_ms": 5_000,
        "open_e9": E9,
        "notional_usd": None if worth is None else Decimal(worth),
        "quarantined": quarantined,
        "reason": "unattributed",
        **told,
    }


def finding(reason: str = "ledger_ahead_of_exchange", stage: Stage = Stage.ORDER_PARITY, **told: Any) -> Finding:
    return Finding("p1", stage, reason, **{"needs_person": True, **told})


def cases(
    *findings: Finding, plan: ProfilePlan | None = None, parity: tuple[dict[str, Any], ...] = ()
) -> tuple[WaitingCase, ...]:
    return waiting_cases("p1", "A1", findings=findings, plan=plan, parity=frame(PARITY_STATES, *parity))


def test_where_nothing_waits_there_is_no_case() -> None:
    assert cases() == ()
    assert cases(finding(needs_person=False), plan=plan(), parity=(state("t1"),)) == ()


def test_a_finding_that_needs_a_person_is_a_case_of_its_order() -> None:
    found = finding(order_id="o1", trade_id="t1", symbol="AAPL", exchange_order_id="x1", detail={"rows": ["o1"]})
    [case] = cases(found)
    assert (case.profile_id, case.account_id, case.stage) == ("p1", "A1", Stage.ORDER_PARITY)
    assert (case.trade_id, case.order_id, case.exchange_order_id, case.symbol) == ("t1", "o1", "x1", "AAPL")
    assert case.reason == "ledger_ahead_of_exchange"
    assert case.detail == {"rows": ["o1"]}
    assert case.notional_usd is None
    assert case.first_seen_ms == NO_TIME


def test_the_decisions_of_a_trade_are_one_case_a_reason_with_their_money_together() -> None:
    found = cases(
        plan=plan(
            no_go("t1", "id_collision", 2, "200", backfill_order_id="BFILL-1", exchange_order_id="x1"),
            no_go("t1", "id_collision", 1, "90.5", backfill_order_id="BFILL-2", exchange_order_id="x2"),
            no_go("t1", "missing_fill_evidence", 5, "500"),
            no_go("t2", "no_price", 1, None),
            no_go("t3", decision="SKIP_PENDING_ORDER"),
        )
    )
    assert [(case.trade_id, case.reason) for case in found] == [
        ("t1", "id_collision"),
        ("t1", "missing_fill_evidence"),
        ("t2", "no_price"),
    ]
    collision, missing, unpriced = found
    assert collision.detail == {
        "quantity": "3",
        "backfill_order_ids": ["BFILL-1", "BFILL-2"],
        "exchange_order_ids": ["x1", "x2"],
        "batch_id": "b1",
    }
    assert {collision.notional_usd, missing.notional_usd} == {Decimal(500)}
    assert unpriced.notional_usd is None


def test_a_quarantined_trade_waits_though_it_is_not_confirmed_yet() -> None:
    [case] = cases(parity=(state("t1", "70", quarantined=True, root_cause="split", first_seen_ms=7_000),))
    assert (case.stage, case.reason, case.root_cause) == (Stage.POSITION_PARITY, "unattributed", "split")
    assert (case.notional_usd, case.first_seen_ms) == (Decimal(70), 7_000)
    assert case.detail == {"confirmations": 1, "open": "1", "position": "0"}


def test_a_quarantined_trade_and_its_finding_are_one_case() -> None:
    said = finding(
        "unattributed",
        Stage.POSITION_PARITY,
        trade_id="t1",
        symbol="AAPL",
        detail={"root_cause": "manual_close", "confirmations": 3, "open": "1", "position": "0", "difference": "-1"},
    )
    [case] = cases(said, parity=(state("t1", quarantined=True),))
    assert case.root_cause == "manual_close"
    assert case.detail["difference"] == "-1"
    assert case.first_seen_ms == 5_000


def test_every_case_of_a_trade_has_the_most_that_anybody_knows_of_its_money() -> None:
    trades = ({"trade_id": "t1", "notional_usd": Decimal(300)}, {"trade_id": "t2", "notional_usd": None})
    found = cases(
        finding(trade_id="t1", order_id="o1"),
        finding(trade_id="t2", order_id="o2"),
        finding(trade_id="t3", order_id="o3"),
        plan=plan(no_go("t1", worth="250"), trades=trades),
        parity=(state("t1", "120", quarantined=True), state("t2", "40")),
    )
    assert {(case.trade_id, case.notional_usd) for case in found} == {
        ("t1", Decimal(300)),
        ("t2", Decimal(40)),
        ("t3", None),
    }


def test_most_money_comes_first_and_unknown_money_last() -> None:
    found = cases(
        finding(order_id="o9"),
        plan=plan(no_go("small", worth="1"), no_go("large", worth="900"), no_go("unknown", worth=None)),
        parity=(state("middle", "50", quarantined=True),),
    )
    assert [case.trade_id or case.order_id for case in found] == ["large", "middle", "small", "unknown", "o9"]


def test_a_case_is_recognised_again_though_the_number_in_its_reason_moved() -> None:
    one, other = (
        WaitingCase("p1", "A1", Stage.EXIT_BACKFILL, "exchange_not_flat:3", trade_id="t1"),
        "exchange_not_flat:4",
    )
    assert one.case_key == replace(one, reason=other).case_key
    assert one.case_key != replace(one, trade_id="t2").case_key
    assert one.case_key != replace(one, stage=Stage.POSITION_PARITY).case_key


def test_a_finding_about_a_symbol_is_recognised_by_it_and_one_about_a_trade_is_not() -> None:
    of_symbol = WaitingCase("p1", "A1", Stage.POSITION_PARITY, "position_without_trade", symbol="TSLA")
    assert of_symbol.case_key != replace(of_symbol, symbol="AMD").case_key
    of_trade = replace(of_symbol, trade_id="t1", symbol="BTC/USD")
    assert of_trade.case_key == replace(of_trade, symbol="BTCUSD").case_key


def test_a_finding_without_a_profile_is_filed_under_the_profile_of_the_cycle() -> None:
    found = Finding("", Stage.POSITION_PARITY, "position_without_trade", symbol="TSLA", needs_person=True)
    [case] = cases(found)
    assert (case.profile_id, case.account_id, case.symbol) == ("p1", "A1", "TSLA")


def test_an_endless_id_still_makes_a_key_that_an_index_takes() -> None:
    one = WaitingCase("p1", "A1", Stage.ORDER_PARITY, "no_trade", order_id="x" * 5_000)
    assert len(one.case_key) < 500
    assert one.case_key != replace(one, order_id="x" * 5_001).case_key


@settings(max_examples=50)
@given(st.randoms(use_true_random=False))
def test_the_order_of_what_was_found_decides_nothing(random: Random) -> None:
    findings = [finding(order_id=f"o{n % 3}", trade_id=f"t{n % 2}", detail={"n": n % 4}) for n in range(8)]
    decisions = [no_go(f"t{n}", worth=str(10 * (n % 3))) for n in range(4)]
    states = [state(f"t{n}", "25", quarantined=n % 2 == 0) for n in range(4)]
    expected = cases(*findings, plan=plan(*decisions), parity=tuple(states))
    for listed in (findings, decisions, states):
        random.shuffle(listed)
    assert cases(*findings, plan=plan(*decisions), parity=tuple(states)) == expected
