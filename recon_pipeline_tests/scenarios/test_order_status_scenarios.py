"""Every incident in ``order_status/`` ends as it says, run by run, and the source's sync or cleanup does something else.

A file holds a `title` (the rule as a sentence), what the `source_does`, a snapshot (``cycle_world.Snapshot.of``) and what to
`expect` of the first run: `asked` (in order), `changes` and `findings` in full length, `outcomes`, `details` and `counts` as
subsets, `stale` (what then carries the sign), `open` (what the ledger then leaves open, by trade). `rounds` are what happened
since, each a run of the sync, an `event` of the stream, or a `cycle` with the expectations of a cycle. Writing is on unless
`settings` say otherwise. A run an interval behind the last one must change nothing more, and no order may be booked for more
than it executed, unless the file says that the ledger was `ledger_ahead` from the start.

`source` names the `rule` of ``source_order_status`` (`sync` or `cleanup`) and the calls that it makes; they must differ from
what we write in the first run, unless the file says that the source `agrees` there. A rule that the source lacks says
`not_stated` and why.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from recon_pipeline.settings import read_order_status_policy
from recon_pipeline_tests.scenarios import source_order_status
from recon_pipeline_tests.scenarios.cycle_world import Snapshot, play
from recon_pipeline_tests.scenarios.order_status_world import Desk, sync
from recon_pipeline_tests.scenarios.test_cycle_scenarios import SCENARIOS as CYCLES
from recon_pipeline_tests.scenarios.test_cycle_scenarios import represents_no_more_than_was_executed
from recon_pipeline_tests.scenarios.test_scenarios import SCENARIOS as BOOKS
from recon_pipeline_tests.scenarios.test_scenarios import assert_has, matches

SCENARIOS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "order_status").glob("*.json"))
}
STATED = [name for name, scenario in SCENARIOS.items() if "rule" in scenario["source"]]
IN_FULL = ("asked", "changes", "findings", "stale")
SUBSETS = ("outcomes", "details", "counts")
OF_A_CYCLE = ("changes", "findings", "counts", "proposed", "look_ups")


@cache
def played(name: str) -> tuple[Desk, list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]]:
    """The desk behind the last round; of every round the step, what it did, and what it left open."""
    scenario = SCENARIOS[name]
    settings = {"RECON_ORDER_STATUS_DRY_RUN": False, **scenario.get("settings", {})}
    cycle_settings = {key: value for key, value in settings.items() if "ORDER_STATUS" not in key}
    desk = Desk(Snapshot.of({**scenario, "settings": cycle_settings}), read_order_status_policy(settings))
    out = []
    for number, step in enumerate((scenario, *scenario.get("rounds", ()))):
        if number:
            desk.snapshot.change({"after_minutes": 5, **step})
        did = play(desk.snapshot).as_json() if step.get("cycle") else sync(desk, step)
        opened = {trade: str(quantity) for trade, quantity in desk.snapshot.open_quantities().items()}
        out.append((step, did, opened))
    return desk, out


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_run_does_what_the_scenario_says(name: str) -> None:
    scenario = SCENARIOS[name]
    desk, rounds = copy.deepcopy(played(name))
    for step, did, opened in rounds:
        expected = step["expect"]
        parts = OF_A_CYCLE if step.get("cycle") else (*IN_FULL, *SUBSETS, "left_over")
        assert set(expected) <= {*parts, "open"}, "the scenario expects something that nobody looks at"
        for part in set(parts) & {*expected, "changes", "findings"}:
            # Of a cycle only what is named counts: the rest is what ``cycles/`` is about.
            if part in expected or not step.get("cycle"):
                assert_has(expected.get(part, []), did[part])
        assert_has(expected.get("open", {}), opened)
    if not scenario.get("ledger_ahead"):
        represents_no_more_than_was_executed(desk.snapshot)
    last = scenario.get("rounds", [scenario])[-1]
    if not last.get("cycle"):
        desk.snapshot.change({"after_minutes": 5, "look_ups": last.get("look_ups", scenario.get("look_ups", {}))})
        again = sync(desk, {})
        assert desk.policy.dry_run or again["changes"] == [], "a run behind the last one goes on changing"


@pytest.mark.parametrize("name", STATED)
def test_the_sources_rule_does_what_the_scenario_says_and_not_what_we_do(name: str) -> None:
    scenario = SCENARIOS[name]
    snapshot, source = Snapshot.of({**scenario, "settings": {}}), scenario["source"]
    now = datetime.fromtimestamp(snapshot.now_ms / 1000, UTC)
    rule = {"sync": source_order_status.sync, "cleanup": source_order_status.cleanup}[source["rule"]]
    calls = [asdict(call) for call in rule(snapshot.rows, snapshot.look_ups, now)]
    assert_has(source["calls"], calls)
    ours = [
        # The source writes a status and nothing else: an executed quantity that we write is a difference.
        {
            "order_id": change["order_id"],
            "status": change["values"]["status"],
            **({"executed": change["values"]["executed"]} if "executed" in change["values"] else {}),
        }
        for change in played(name)[1][0][1]["changes"]
    ]
    same = matches(calls, ours) and matches(ours, calls)
    assert same == bool(source.get("agrees")), json.dumps({"source": calls, "ours": ours}, indent=1)


def test_every_scenario_says_what_the_source_does_or_why_that_is_not_stated() -> None:
    for name, scenario in SCENARIOS.items():
        assert name.startswith("status_"), name
        assert scenario["source_does"], name
        assert bool(scenario["source"].get("rule")) != bool(scenario["source"].get("not_stated")), name


def test_titles_are_sentences_and_all_different() -> None:
    titles = [scenario["title"] for scenario in (*SCENARIOS.values(), *CYCLES.values(), *BOOKS.values())]
    assert all(title[0].isupper() and title.endswith(".") for title in titles)
    assert len(set(titles)) == len(titles)
