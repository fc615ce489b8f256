"""Whose an exchange order is: keys, ledger rows, what it replaced; and when that can't be said."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

import pytest

from recon_pipeline.domain.attribution import KnownTrades, attribute
from recon_pipeline.domain.order_keys import Kind, read_keys
from recon_pipeline.domain.ownership import OWNERSHIP, distinct_facts, own_orders
from recon_pipeline.domain.terms import NoEvidence
from recon_pipeline_tests.domain.book_makers import backfill_id
from recon_pipeline_tests.domain.coverage_makers import SENT_MS, Record, fact, inputs_of, owner_of, profile, row

P1_T1 = ("owned", "p1", "t1")


def said(found: Any) -> tuple[str, str, str]:
    return (found.kind, found.profile_id, found.trade_id)


@pytest.mark.parametrize(
    ("keys", "how"),
    [
        ({"trade_id": "t1"}, "trade_id"),
        ({"sub_tag": "bytelyst:p1:t1"}, "sub_tag"),
        ({"client_order_id": "bytelyst-p1-t1"}, "client_order_id"),
        ({"client_order_id": "bytelyst-p1-t1-exit-2"}, "client_order_id"),
        ({"client_order_id": "bytelyst-p1-t1-exit", "sub_tag": "bytelyst:p1"}, "client_order_id"),
        ({"client_order_id": "bytelyst-p1-t1-exit", "sub_tag": "bytelyst:p1:t1"}, "sub_tag"),
        ({"client_order_id": "bytelyst-p1-t1-exit", "trade_id": "t1"}, "trade_id"),
    ],
)
def test_an_order_belongs_to_the_trade_that_its_keys_name(keys: Record, how: str) -> None:
    found = owner_of(inputs_of([row()], [fact(**keys)]))
    assert (*said(found), found.action, found.how) == (*P1_T1, "EXIT", how)


def test_an_entry_id_names_its_trade_as_the_entry() -> None:
    found = owner_of(inputs_of([row()], [fact(client_order_id="bytelyst-p1-t1-entry", side="buy")]))
    assert (*said(found), found.action) == (*P1_T1, "ENTRY")


@pytest.mark.parametrize(("marker", "action"), [("entry", "ENTRY"), ("exit", "EXIT"), ("exit-3", "EXIT")])
def test_a_marked_client_id_may_name_a_trade_before_the_ledger_knows_it(marker: str, action: str) -> None:
    found = owner_of(inputs_of([], [fact(client_order_id=f"bytelyst-p1-t9-{marker}")]))
    assert (*said(found), found.action, found.how) == ("owned", "p1", "t9", action, "client_order_id")


def test_an_unmarked_client_id_of_an_unknown_trade_names_the_profile_alone() -> None:
    found = owner_of(inputs_of([], [fact(client_order_id="bytelyst-p1-t9")]))
    assert (*said(found), found.action) == ("unattributed", "p1", "", "")


def test_two_profiles_that_fit_a_new_trade_make_it_ambiguous_and_the_tag_decides() -> None:
    keys = {"client_order_id": "bytelyst-p1-b-t9-entry"}
    both = ["p1", "p1-b"]
    found = owner_of(inputs_of([], [fact(**keys)], profiles=both))
    assert (*said(found), found.named_profiles) == ("ambiguous", "", "", ("p1", "p1-b"))
    assert said(owner_of(inputs_of([], [fact(**keys, sub_tag="bytelyst:p1b")], profiles=both))) == (
        "owned",
        "p1-b",
        "t9",
    )
    assert said(owner_of(inputs_of([], [fact(**keys, sub_tag="bytelyst:p1")], profiles=both))) == (
        "owned",
        "p1",
        "b-t9",
    )


def test_a_known_trade_wins_over_a_trade_that_nobody_knows() -> None:
    found = owner_of(
        inputs_of(
            [row(trade_id="b-t1")],
            [fact(client_order_id="bytelyst-p1-b-t1-entry", side="buy")],
            profiles=["p1", "p1-b"],
        )
    )
    assert said(found) == ("owned", "p1", "b-t1")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ({"client_order_id": "bytelyst-p9-t1-exit"}, "foreign"),
        ({"sub_tag": "bytelyst:p9:t1"}, "foreign"),
        ({"sub_tag": "bytelyst:p9", "client_order_id": "bytelyst-p1-t1-exit"}, "foreign"),
        ({}, "unattributed"),
        ({"client_order_id": "by-hand"}, "unattributed"),
        ({"sub_tag": "somebody"}, "unattributed"),
        ({"trade_id": "t9"}, "unattributed"),
        ({"trade_id": "t2", "client_order_id": "bytelyst-p1-t1-exit"}, "contradictory"),
        ({"trade_id": "t9", "client_order_id": "bytelyst-p1-t1-exit"}, "contradictory"),
        ({"trade_id": "t1", "client_order_id": "bytelyst-p1-t9-exit"}, "contradictory"),
        ({"trade_id": "t1", "client_order_id": "bytelyst-p9-t1-exit"}, "contradictory"),
        ({"sub_tag": "bytelyst:p1:t2", "client_order_id": "bytelyst-p1-t1-exit"}, "contradictory"),
        ({"sub_tag": "bytelyst:p2", "client_order_id": "bytelyst-p1-t1-exit"}, "contradictory"),
        ({"sub_tag": "bytelyst:p1:t9", "client_order_id": "bytelyst-p1-t8-exit"}, "contradictory"),
        ({"sub_tag": "bytelyst:p1:dup1"}, "ambiguous"),
        ({"trade_id": "shared"}, "ambiguous"),
    ],
)
def test_what_does_not_name_one_trade_is_nobodys(keys: Record, kind: str) -> None:
    rows = [
        row(),
        row(order_id="e2", trade_id="t2"),
        row(order_id="e3", trade_id="dup-1"),
        row(order_id="e4", trade_id="dup1"),
    ]
    rows += [row(order_id="e5", trade_id="shared"), row(order_id="e6", trade_id="shared", profile_id="p2")]
    found = owner_of(inputs_of(rows, [fact(**keys)], profiles=["p1", "p2"]))
    assert (*said(found), found.action, found.how) == (kind, "", "", "", "")


@pytest.mark.parametrize(
    "changes", [{"order_id": "x1"}, {"order_id": "c1"}, {"client_order_id": "c1"}, {"client_order_id": "x1"}]
)
def test_a_ledger_row_that_names_the_order_by_either_id_says_whose_it_is(changes: Record) -> None:
    recorded = row(**{"order_id": "r1", "side": "sell", "action": "EXIT", **changes})
    found = owner_of(inputs_of([row(), recorded], [fact(client_order_id="c1")]))
    assert (*said(found), found.action, found.how) == (*P1_T1, "EXIT", "row")
    assert found.row_order_ids == (recorded["order_id"],)


def test_a_key_outranks_the_row_that_agrees_with_it() -> None:
    found = owner_of(inputs_of([row(), row(order_id="x1", side="sell", action="EXIT")], [fact(trade_id="t1")]))
    assert (*said(found), found.how, found.row_order_ids) == (*P1_T1, "trade_id", ("x1",))


@pytest.mark.parametrize(
    "keys",
    [
        {"trade_id": "t2"},
        {"client_order_id": "bytelyst-p1-t2-exit"},
        {"client_order_id": "bytelyst-p1-t9-exit"},
        {"client_order_id": "bytelyst-p9-t1-exit"},
        {"sub_tag": "bytelyst:p9:t1"},
        {"sub_tag": "bytelyst:p2"},
        {"trade_id": "t9"},
    ],
)
def test_a_row_and_a_key_that_disagree_are_contradictory(keys: Record) -> None:
    rows = [row(), row(order_id="e2", trade_id="t2"), row(order_id="x1", side="sell", action="EXIT")]
    found = owner_of(inputs_of(rows, [fact(**keys)], profiles=["p1", "p2"]))
    assert said(found) == ("contradictory", "", "")
    assert "p1" in found.named_profiles
    assert found.row_order_ids == ("x1",)


def test_two_rows_that_give_an_order_to_two_trades_are_contradictory() -> None:
    rows = [row(order_id="x1"), row(order_id="c1", trade_id="t2")]
    assert owner_of(inputs_of(rows, [fact(client_order_id="c1")])).kind == "contradictory"
    others = [row(order_id="x1"), row(order_id="c1", profile_id="p2")]
    found = owner_of(inputs_of(others, [fact(client_order_id="c1")], profiles=["p1", "p2"]))
    assert (found.kind, found.named_profiles) == ("contradictory", ("p1", "p2"))


def test_a_row_decides_between_the_trades_that_an_ambiguous_key_names() -> None:
    rows = [row(order_id="e5", trade_id="shared"), row(order_id="x1", trade_id="shared", profile_id="p2")]
    found = owner_of(inputs_of(rows, [fact(trade_id="shared")], profiles=["p1", "p2"]))
    assert (*said(found), found.how) == ("owned", "p2", "shared", "row")


def test_a_row_outside_the_trades_that_an_ambiguous_key_names_is_contradictory() -> None:
    rows = [
        row(trade_id="shared"),
        row(order_id="e2", trade_id="shared", profile_id="p2"),
        row(order_id="x1", trade_id="t3"),
    ]
    assert owner_of(inputs_of(rows, [fact(trade_id="shared")], profiles=["p1", "p2"])).kind == "contradictory"


def test_a_row_without_a_trade_names_the_profile_alone() -> None:
    found = owner_of(inputs_of([row(order_id="x1", trade_id=None)], [fact()]))
    assert (*said(found), found.row_order_ids) == ("unattributed", "p1", "", ("x1",))


def test_rows_that_stand_in_for_an_order_do_not_name_it() -> None:
    booked = backfill_id("p1", "t1", "x1", SENT_MS)
    rows = [row(), row(order_id=booked, client_order_id="x1"), row(order_id="PARITY-1", client_order_id="x1")]
    found = owner_of(inputs_of(rows, [fact()]))
    assert (found.kind, found.row_order_ids) == ("unattributed", ())


def test_a_replacement_belongs_to_the_row_of_what_it_replaced() -> None:
    rows = [row(), row(order_id="x0", side="sell", action="EXIT", status="replaced")]
    chain = [fact(id="x0", status="replaced", filled_qty="0", filled_at=None), fact(id="x1", replaces="x0")]
    found = owner_of(inputs_of(rows, chain))
    assert (*said(found), found.action, found.how, found.row_order_ids) == (*P1_T1, "EXIT", "replaced", ())


def test_a_replacement_is_found_through_orders_that_nobody_recorded() -> None:
    rows = [row(), row(order_id="c0", side="sell", action="EXIT", status="replaced")]
    chain = [fact(id="x0", client_order_id="c0", replaced_by="xm"), fact(id="xm", replaced_by="x1"), fact(id="x1")]
    found = owner_of(inputs_of(rows, chain))
    assert (*said(found), found.how) == (*P1_T1, "replaced")


def test_a_replacement_whose_predecessor_is_not_in_the_reading_is_found_by_its_id() -> None:
    found = owner_of(inputs_of([row(), row(order_id="x0", side="sell", action="EXIT")], [fact(replaces="x0")]))
    assert (*said(found), found.how) == (*P1_T1, "replaced")


def test_a_replacement_inherits_the_keys_of_what_it_replaced() -> None:
    chain = [fact(id="x0", client_order_id="bytelyst-p1-t1-exit"), fact(id="x1", client_order_id="new", replaces="x0")]
    found = owner_of(inputs_of([row()], chain))
    assert (*said(found), found.action, found.how) == (*P1_T1, "EXIT", "client_order_id")


def test_a_replacement_of_another_trades_order_is_contradictory() -> None:
    rows = [row(), row(order_id="x0", trade_id="t2", side="sell", action="EXIT")]
    assert owner_of(inputs_of(rows, [fact(replaces="x0", trade_id="t1")])).kind == "contradictory"


def test_orders_that_replace_each_other_in_a_circle_end_nowhere() -> None:
    circle = [fact(id="x0", replaces="x1"), fact(id="x1", replaces="x0")]
    assert owner_of(inputs_of([row()], circle)).kind == "unattributed"


@pytest.mark.parametrize(
    ("rows", "side", "action"),
    [
        ([row()], "sell", "EXIT"),
        ([row()], "buy", "ENTRY"),
        ([row(side="sell")], "buy", "EXIT"),
        ([row(side="sell")], "sell", "ENTRY"),
        ([row(action="EXIT", side="buy")], "buy", "EXIT"),
        ([row(action="EXIT", side="buy")], "sell", "ENTRY"),
        ([row(status="pending_new")], "sell", "EXIT"),
        ([row(action=None)], "sell", ""),
        ([row(), row(order_id="e2", side="sell")], "sell", ""),
        ([row()], "hold", ""),
    ],
)
def test_the_action_follows_from_the_side_of_the_trades_explicit_rows(
    rows: list[Record], side: str, action: str
) -> None:
    found = owner_of(inputs_of(rows, [fact(trade_id="t1", side=side)]))
    assert (*said(found), found.action) == (*P1_T1, action)


def test_a_sell_is_not_an_exit_by_itself() -> None:
    found = owner_of(inputs_of([row(side="sell")], [fact(client_order_id="bytelyst-p1-t1")]))
    assert found.action == "ENTRY"


def test_the_orders_own_row_says_its_action_where_the_trades_side_is_unknown() -> None:
    rows = [row(action=None), row(order_id="x1", action="EXIT", side="sell", trade_id="t1")]
    assert owner_of(inputs_of(rows, [fact()])).action == "EXIT"


def test_every_order_has_one_owner_on_its_own_account() -> None:
    rows = [row(), row(order_id="e2", profile_id="p2", trade_id="t1")]
    inputs = inputs_of(
        rows,
        [fact(trade_id="t1")],
        profiles=["p1", profile("p2", account_id="a2")],
        more=[("a2", [fact(trade_id="t1")])],
    )
    owned = own_orders(inputs)
    assert owned[["account_id", "profile_id", "trade_id"]].to_numpy().tolist() == [
        ["a1", "p1", "t1"],
        ["a2", "p2", "t1"],
    ]


def test_of_two_readings_of_an_order_the_larger_execution_counts() -> None:
    inputs = inputs_of([row()], [fact(status="partially_filled", filled_qty="3"), fact(), fact(id="x2")])
    facts = distinct_facts(inputs.order_facts)
    assert facts["order_id"].tolist() == ["x1", "x2"]
    assert (facts["executed_e9"].tolist()[0], facts["is_over"].tolist()[0]) == (4 * 10**9, True)
    assert own_orders(inputs)["order_id"].tolist() == ["x1", "x2"]


def test_the_order_of_rows_and_orders_decides_nothing() -> None:
    rows = [row(), row(order_id="x1", side="sell", action="EXIT"), row(order_id="e2", trade_id="t2", profile_id="p2")]
    facts = [fact(), fact(id="x2", trade_id="t2"), fact(id="x3", client_order_id="bytelyst-p1-t9-entry", replaces="x2")]
    expected = own_orders(inputs_of(rows, facts, profiles=["p1", "p2"])).to_dict("records")
    for seed in range(5):
        shuffled = (list(rows) * 2, list(facts) * 2)
        for listed in shuffled:
            Random(seed).shuffle(listed)
        assert own_orders(inputs_of(*shuffled, profiles=["p2", "p1"])).to_dict("records") == expected


def test_nothing_read_gives_an_empty_frame() -> None:
    assert own_orders(inputs_of([row()], [])).columns.tolist() == OWNERSHIP.names


def test_a_row_of_a_profile_that_was_not_given_is_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="profile 'p7'"):
        own_orders(inputs_of([row(profile_id="p7")], [fact()]))


KNOWN = KnownTrades.of(
    ["p1", "p1-b", "p2"],
    [
        ("p1", "t1"),
        ("p1", "t2"),
        ("p1", "b-t1"),
        ("p1-b", "t1"),
        ("p2", "t1"),
        ("p2", "t7"),
        ("p2", "t-7"),
        ("p1", "t3-exit"),
    ],
)
_KIND_OF = {
    NoEvidence.FOREIGN_SUB_TAG: {Kind.FOREIGN},
    NoEvidence.ENTRY_ORDER: {Kind.OWNED},
    NoEvidence.AMBIGUOUS: {Kind.AMBIGUOUS},
    NoEvidence.UNATTRIBUTED: {Kind.UNATTRIBUTED},
    NoEvidence.MALFORMED_SUB_TAG: {Kind.UNATTRIBUTED},
    NoEvidence.FOREIGN_CLIENT_ORDER_ID: {Kind.FOREIGN},
    # A marked client id may name what attribution calls unknown.
    NoEvidence.UNKNOWN_TRADE: {Kind.UNATTRIBUTED, Kind.OWNED, Kind.AMBIGUOUS, Kind.CONTRADICTORY},
    # Two keys that agree on a profile's new trade, or that are both nobody's here, contradict nothing.
    NoEvidence.CONTRADICTORY: {Kind.CONTRADICTORY, Kind.FOREIGN, Kind.OWNED},
}


def test_keys_mean_the_same_as_for_an_exits_evidence() -> None:
    trades = ["", "t1", "t2", "t7", "b-t1", "t9", "t3-exit"]
    tags = [
        "",
        "junk",
        "bytelyst:p1",
        "bytelyst:p1:t1",
        "bytelyst:p2:t7",
        "bytelyst:p9",
        "bytelyst:p1b:t1",
        "bytelyst:p1:t9",
    ]
    names = ["t1", "t2-exit", "t1-entry", "b-t1", "b-t1-entry", "t3-exit", "t9", "t9-entry"]
    clients = ["", "by-hand", *(f"bytelyst-{who}-{name}" for who in ("p1", "p2", "p9") for name in names)]
    compared = 0
    for keys in product(trades, tags, clients):
        before = attribute(*keys, KNOWN, require_strong=True)
        now = read_keys(*keys, KNOWN)
        if before.trade is not None and before.method is not None:
            assert (now.kind, now.profile_id, now.trade_id, str(now.how)) == (
                Kind.OWNED,
                *before.trade,
                before.method.value,
            ), keys
        else:
            assert before.reason is not None
            assert now.kind in _KIND_OF[before.reason], (keys, before.reason, now)
            if before.reason is NoEvidence.ENTRY_ORDER:
                assert now.role == "entry", keys
            if now.kind is Kind.OWNED and before.reason is NoEvidence.CONTRADICTORY:
                # Only where the sub-tag chose the profile of a new trade between several readings of the client id.
                assert keys[1] == "bytelyst:p1b:t1" or now.trade_id not in KNOWN.by_trade, keys
        compared += 1
    assert compared == len(trades) * len(tags) * len(clients)
