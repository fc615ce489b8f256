"""Dashboard and alert rules stand on metrics and labels that the code exports, and Prometheus' own tool finds them right."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.totals import TotalName
from recon_pipeline.ops.metric_families import FAMILIES
from recon_pipeline.ops.metrics import render
from recon_pipeline.ops.snapshot import Snapshot
from recon_pipeline_tests.ops.snapshots import NOW, account, ago, cycle, snapshot
from recon_pipeline_tests.ops.test_metrics import check, stream, total

ROOT = Path(__file__).resolve().parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "prometheus_rules.yml"
RULES_TEST = MONITORING / "prometheus_rules_test.yml"
DASHBOARD = MONITORING / "grafana_dashboard.json"

OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"}}
EVERYWHERE = {"job", "instance"}
"""Labels that Prometheus gives every series that it scrapes."""


def busy() -> Snapshot:
    """A snapshot in which every metric has a sample."""
    by_profile = list(TotalName)[:6]
    totals = [total(name, 5, "p1") for name in by_profile]
    totals += [total(name, 5, "p1") for name in TotalName if name.startswith("order_status_") and "api" not in name]
    totals += [total(name, 5, account_id="a1") for name in TotalName if name.endswith(("api_calls", "stream_events"))]
    totals += [total(TotalName.CYCLE_RUNS, 4), total(TotalName.CYCLE_RUN_SECONDS, 100)]
    bad = cycle("p1", money_at_risk_usd=Decimal(7), no_go_trades=1, parity_total_mismatch_notional_usd=Decimal(3))
    return snapshot(
        cycles=(bad, cycle("p2")),
        accounts=(account("a1"),),
        totals=tuple(totals),
        runs=({"began_at": ago(seconds=9), "ended_at": NOW},),
        sync={"began_at": ago(seconds=9), "ended_at": NOW, "left_over": 3},
        streams=(stream("a1"),),
        order_checks=(check("o1"),),
        waiting=({"profile_id": "p1"},),
        watchdogs=({"profile_id": "p1", "paused_by_watchdog": True},),
        pending_batches=({"updated_at": ago(minutes=3)},),
    )


@pytest.fixture(scope="module")
def text() -> str:
    return render(busy(), policy=OrderStatusPolicy(), now=NOW).decode()


@pytest.fixture(scope="module")
def exported(text: str) -> dict[str, set[str]]:
    """The labels of every exported sample."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found | OF_PROMETHEUS


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and where it stands."""

    where: str
    expr: str
    legend: str = ""

    @property
    def bare(self) -> str:
        """The expression without texts and ranges."""
        return re.sub(r'"(\\.|[^"\\])*"', '""', re.sub(r"\[[^\]]*\]", "", self.expr))

    @property
    def grouped_by(self) -> set[str]:
        clauses = re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", self.bare)
        return {label.strip() for clause in clauses for label in clause.split(",")} - {""}

    @property
    def metrics(self) -> list[tuple[str, set[str]]]:
        """Every metric, with the labels that its selector asks for."""
        rest = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", self.bare)
        found = []
        for match in re.finditer(r"(?<![\w.:])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(\s*\()?", rest):
            name, selector, call = match.groups()
            if call or name in {"and", "or", "unless", "offset", "bool"}:
                continue
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or ""))))
        return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panel_queries() -> list[Query]:
    return [
        Query(panel["title"], target["expr"], target["legendFormat"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def all_queries() -> list[Query]:
    board = dashboard()
    found = [Query(rule["alert"], rule["expr"]) for rule in rules()] + panel_queries()
    found += [Query(note["name"], note["expr"]) for note in board["annotations"]["list"]]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()
            found.append(Query(variable["name"], f"count by ({label}) ({metric})"))
    return found


def promtool(*arguments: object, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_parser_of_this_test_sees_metrics_labels_and_groups() -> None:
    query = Query(
        "", 'max by (a) (x{b="y or z", c!~"d"}[5m]) > 1e3 and on (e, f) rate(g:h_total[1m] offset 5m) or time() - i'
    )
    assert query.metrics == [("x", {"b", "c"}), ("g:h_total", set()), ("i", set())]
    assert query.grouped_by == {"a", "e", "f"}


def test_every_metric_has_a_sample_somewhere_and_so_the_other_tests_see_it(exported: dict[str, set[str]]) -> None:
    missing = []
    for family in FAMILIES:
        names = {f"{family.name}_count", f"{family.name}_sum"} if family.kind == "summary" else {family.name}
        missing += [name for name in names if exported.get(name) != set(family.labels)]
    assert missing == []


@pytest.mark.parametrize("query", all_queries(), ids=lambda query: query.where)
def test_every_metric_and_label_that_is_asked_for_is_exported(query: Query, exported: dict[str, set[str]]) -> None:
    assert query.metrics
    for name, labels in query.metrics:
        assert name in exported, f"{name} is not exported"
        assert labels <= exported[name] | EVERYWHERE, f"{name} has no label {labels - exported[name]}"
    having = set.union(*(exported[name] for name, _ in query.metrics)) | EVERYWHERE
    assert query.grouped_by <= having
    assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= having


def test_every_metric_is_shown_or_alerted_on() -> None:
    used = {name.removesuffix("_count").removesuffix("_sum") for query in all_queries() for name, _ in query.metrics}
    assert {family.name for family in FAMILIES} - used == set()


def test_an_alert_says_how_bad_it_is_what_is_wrong_and_what_to_do() -> None:
    headings = {}
    for runbook in ("order_status", "divergence"):
        path = f"docs/runbooks/{runbook}.md"
        lines = (ROOT / path).read_text().splitlines()
        titles = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
        headings[path] = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    for rule in rules():
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}, rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        notes = rule["annotations"]
        assert 20 <= len(notes["summary"]) <= 80, rule["alert"]
        assert notes["description"].endswith("."), rule["alert"]
        path, _, heading = notes["runbook_url"].partition("#")
        assert heading in headings[path], f"{rule['alert']} links to {notes['runbook_url']}, which is not there"


def test_alerts_are_few_and_each_is_tested_to_come_and_to_stay_away() -> None:
    assert len(rules()) <= 15
    cases = [
        case for test in yaml.safe_load(RULES_TEST.read_text())["tests"] for case in test.get("alert_rule_test", ())
    ]
    for rule in rules():
        own = [case["exp_alerts"] for case in cases if case["alertname"] == rule["alert"]]
        assert any(own), f"{rule['alert']} is never seen to come"
        assert not all(own), f"{rule['alert']} is never seen to stay away"


def test_the_dashboard_is_one_that_grafana_can_lay_out() -> None:
    board = dashboard()
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"]), panel["title"]
    assert len({panel["title"] for panel in panels}) == len(panels)


@pytest.mark.promtool
def test_promtool_finds_nothing_wrong_with_the_metrics(text: str) -> None:
    assert promtool("check", "metrics", stdin=text) == ""


@pytest.mark.promtool
def test_promtool_finds_the_rules_right() -> None:
    assert f"SUCCESS: {len(rules())} rules found" in promtool("check", "rules", RULES)


@pytest.mark.promtool
def test_every_alert_comes_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", RULES_TEST)


@pytest.mark.promtool
def test_every_panel_shows_something_of_a_busy_pipeline(text: str, tmp_path: Path) -> None:
    """The exported text itself, scraped for half an hour, answers every query of the dashboard."""
    series = [{"series": 'up{job="recon", instance="a:8080"}', "values": "1x40"}]
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {**sample.labels, "job": "recon", "instance": "a:8080"}
            inside = ", ".join(f'{name}="{value}"' for name, value in labels.items())
            # The tool's time begins at 0: instants are moved there. Counters grow, so that a rate is one.
            instant = sample.name.endswith("_timestamp_seconds")
            value = sample.value - NOW.timestamp() + 1_500 if instant else sample.value
            grows = "+1" if sample.name.endswith(("_total", "_count", "_sum")) else ""
            series.append({"series": f"{sample.name}{{{inside}}}", "values": f"{value:.0f}{grows}x40"})
    queries = [re.sub(r"\$(profile|account)\b", ".*", query.expr) for query in panel_queries()]
    assert len(queries) > 50
    cases = [
        {"expr": f"count({expr}) > bool 0", "eval_time": "30m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for expr in queries
    ]
    test = {"interval": "1m", "input_series": series, "promql_expr_test": cases}
    path = tmp_path / "panels.json"  # JSON is YAML
    path.write_text(json.dumps({"evaluation_interval": "1m", "rule_files": [], "tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", path)
