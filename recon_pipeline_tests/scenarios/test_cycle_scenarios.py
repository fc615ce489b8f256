"""Every incident in ``cycles/`` ends as it says, cycle by cycle, and the source's rule does something else.

A file holds a `title` (the rule as a sentence), what the `source_does`, what it is about (`defect`: a number, or `medium`, or
`rule`), the snapshot (``cycle_world.Snapshot.of``) and what to `expect`: `changes`, `findings` and `look_ups` in full length,
`counts`, `skipped`, `proposed`, `watchdog` and `postponed` as subsets, `open` (what the ledger then leaves open, by trade).
`cycles` are the cycles after the first, each with what happened since and what to expect. Writing is on unless `settings` say
otherwise. A quiet cycle behind the last one must change nothing more, unless the file says `goes_on`. No order may be booked
for more than it executed, unless the ledger is `ledger_ahead` from the start.

`source` names the rule of ``source_cycle`` (`orders`, `coverage` or `heartbeat`) and the calls that it makes; they must
differ from our changes in the first cycle, unless the file says that the source `agrees`. Where no rule of the source is
known it says `not_stated` and why. A defect that shows only while writing names its test instead (`shown_by`).
"""

from __future__ import annotations

import ast
import copy
import json
from dataclasses import asdict
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline.settings import SettingError, read_cycle_policy
from recon_pipeline_tests.scenarios import source_cycle
from recon_pipeline_tests.scenarios.cycle_world import ORDER, Snapshot, play
from recon_pipeline_tests.scenarios.test_scenarios import SCENARIOS as BOOKS
from recon_pipeline_tests.scenarios.test_scenarios import assert_has, matches

ROOT = Path(__file__).parents[2]
SCENARIOS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "cycles").glob("*.json"))
}
PLAYED = [name for name, scenario in SCENARIOS.items() if "expect" in scenario]
STATED = [name for name in PLAYED if "rule" in SCENARIOS[name]["source"]]
SHOWN_ELSEWHERE = [name for name, scenario in SCENARIOS.items() if "shown_by" in scenario]
REFUSED = [name for name, scenario in SCENARIOS.items() if "error" in scenario]
IN_FULL = ("changes", "findings", "look_ups")
SUBSETS = ("counts", "skipped", "proposed", "watchdog", "postponed")
STAGE_OF = {"orders": "order_parity", "coverage": "order_coverage", "heartbeat": "position_parity"}
DEFECTS = {4, 6, 7, 15, 16, 24, 25, 26, 27, 28, 29, 30}
"""Those that the cycle around the exit backfill has, or has as well."""
MEDIUM = {
    "quantity columns that differ",
    "a profile's name within another's",
    "numbered exits",
    "entry ids as exits",
    "a missing time is now",
    "a setting that is no number",
    "a symbol that leaves the scope",
    "floats",
    "one exception skips the safety steps",
    "unknown after 24 hours",
}


@cache
def played(name: str) -> tuple[Snapshot, list[tuple[dict[str, Any], dict[str, Any], dict[str, Decimal]]]]:
    """The snapshot behind the last cycle; of every cycle what to expect, what it did, and what it left open."""
    scenario = SCENARIOS[name]
    snapshot, out = Snapshot.of(scenario), []
    for number, step in enumerate((scenario, *scenario.get("cycles", ()))):
        if number:
            snapshot.change({"after_minutes": 5, **step})
        out.append((step["expect"], play(snapshot).as_json(), snapshot.open_quantities()))
    return snapshot, out


@pytest.mark.parametrize("name", PLAYED)
def test_a_cycle_does_what_the_scenario_says(name: str) -> None:
    scenario = SCENARIOS[name]
    snapshot, cycles = copy.deepcopy(played(name))
    for expected, did, left_open in cycles:
        assert set(expected) <= {*IN_FULL, *SUBSETS, "open"}, "the scenario expects something that nobody looks at"
        for part in IN_FULL:
            assert_has(expected.get(part, []), did[part])
        for part in SUBSETS:
            assert_has(expected.get(part, {}), did[part])
        assert_has(expected.get("open", {}), {trade: str(quantity) for trade, quantity in left_open.items()})
    if not scenario.get("ledger_ahead"):
        represents_no_more_than_was_executed(snapshot)
    if not scenario.get("goes_on"):
        last = scenario.get("cycles", [scenario])[-1]
        snapshot.change(
            {"after_minutes": 5, "look_ups": last.get("look_ups", {}), "incomplete": last.get("incomplete", {})}
        )
        assert play(snapshot).as_json()["changes"] == [], "a cycle behind the last one goes on changing"


def represents_no_more_than_was_executed(snapshot: Snapshot) -> None:
    """Own rows and backfill rows of an exchange order say no more than it executed."""
    found = [answer for answer in snapshot.look_ups.values() if isinstance(answer, dict)]
    for order in ({**ORDER, **order} for order in (*snapshot.exchange_orders, *found)):
        ids = {order["id"], order["client_order_id"]} - {None}
        own = [row for row in snapshot.rows if {row["order_id"], row["client_order_id"]} & ids]
        filled = {row["order_id"]: row for row in snapshot.rows if row["status"] in ("filled", "partially_filled")}
        booked = [Decimal(row["filled_qty"] or row["qty"]) for row in own if row["order_id"] in filled]
        booked += [
            Decimal(raw["qty"])
            for raw in snapshot.consumption
            if raw["exchange_order_id"] == order["id"] and raw["backfill_order_id"] in filled
        ]
        said = sum(booked, Decimal(0))
        assert said <= Decimal(order["filled_qty"]), f"{order['id']} is booked for {said}"


@pytest.mark.parametrize("name", STATED)
def test_the_sources_rule_does_what_the_scenario_says_and_not_what_we_do(name: str) -> None:
    scenario = SCENARIOS[name]
    source = scenario["source"]
    calls = [asdict(call) for call in calls_of_the_source(scenario)]
    assert_has(source["calls"], calls)
    ours = [
        {
            "order_id": "" if source["rule"] == "heartbeat" else change["order_id"],
            "call": {"discovery": "log", "synthetic_exit": "exit_fill"}.get(change["handler"], change["handler"]),
            "status": change["values"]["status"],
            "action": change["values"].get("action"),
            "trade_id": change["trade_id"],
            "quantity": change["values"].get("executed") or change["values"].get("filled_qty") or "0",
        }
        for change in played(name)[1][0][1]["changes"]
        if change["stage"] == STAGE_OF[source["rule"]] and "status" in change["values"]
    ]
    for change, call in zip(ours, calls, strict=False):
        # An update leaves the row's action and trade alone; a call that names none would only be less.
        change["action"] = change["action"] or call["action"]
    same = len(ours) == len(calls) and all(matches(call, change) for call, change in zip(calls, ours, strict=True))
    assert same == bool(source.get("agrees")), json.dumps({"source": calls, "ours": ours}, indent=1)


def calls_of_the_source(scenario: dict[str, Any]) -> list[source_cycle.Call]:
    """What the source would do for the profile that the scenario is about, in its first cycle."""
    snapshot, source = Snapshot.of(scenario), scenario["source"]
    profile = source.get("profile", "p1")
    (member,) = [found for found in snapshot.profiles if found["profile_id"] == profile]
    if source["rule"] == "orders":
        shown = [
            order
            for order in snapshot.exchange_orders
            if order.get("account_id", "a1") == member["account_id"]
            and (order["status"] in source_cycle.LISTED_STATES or order["id"] in source.get("listed", ()))
        ]
        unread = bool(member["evidence_defect"])
        return source_cycle.orders(snapshot.rows, None if unread else shown, profile, member["managed_symbols"])
    if source["rule"] == "coverage":
        return source_cycle.coverage(snapshot.rows, snapshot.exchange_orders, profile)
    opened = snapshot.open_quantities()
    symbols = {row["trade_id"]: row["symbol"] for row in snapshot.rows if row["profile_id"] == profile}
    own = {trade: quantity for trade, quantity in opened.items() if trade in symbols}
    return source_cycle.heartbeat(own, symbols, snapshot.positions or {})


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_of_the_cycle_that_can_not_be_read_is_named(name: str) -> None:
    scenario = SCENARIOS[name]
    with pytest.raises(SettingError, match=scenario["error"]):
        read_cycle_policy(scenario["settings"])


@pytest.mark.parametrize("number", sorted(DEFECTS))
def test_every_defect_of_the_source_that_concerns_the_cycle_has_a_scenario(number: int) -> None:
    assert [name for name, scenario in SCENARIOS.items() if scenario.get("defect") == number]


@pytest.mark.parametrize("medium", sorted(MEDIUM))
def test_every_medium_defect_that_concerns_the_cycle_has_a_scenario(medium: str) -> None:
    assert [name for name, scenario in SCENARIOS.items() if scenario.get("medium") == medium]


@pytest.mark.parametrize("name", SHOWN_ELSEWHERE)
def test_what_no_snapshot_can_show_has_its_own_test(name: str) -> None:
    for node in SCENARIOS[name]["shown_by"]:
        path, _, function = node.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        names = {part.name for part in ast.walk(tree) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in names, f"{path} has no {function}"


def test_a_scenario_is_played_refused_or_shown_elsewhere() -> None:
    assert sorted([*PLAYED, *REFUSED, *SHOWN_ELSEWHERE]) == sorted(SCENARIOS)
    for name, scenario in SCENARIOS.items():
        assert ("defect" in scenario) + ("medium" in scenario) + ("rule" in scenario) == 1, name


def test_titles_are_sentences_and_all_different() -> None:
    titles = [scenario["title"] for scenario in (*SCENARIOS.values(), *BOOKS.values())]
    assert all(title[0].isupper() and title.endswith(".") for title in titles)
    assert len(set(titles)) == len(titles)
