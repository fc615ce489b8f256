"""The runbook of the cycle knows every word that the cycle answers with, and its queries run as they are pasted."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import psycopg
import pytest

from recon_pipeline.apply.outcomes import Postponed
from recon_pipeline.defs import cycle_catalogue, cycle_remedies
from recon_pipeline.domain import order_coverage, order_parity
from recon_pipeline.domain.corrections import EventType, Handler
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.root_causes import RootCause
from recon_pipeline.domain.synthetic_exits import ParityReason
from recon_pipeline.domain.terms import RowDefect, SkippedReason
from recon_pipeline.domain.watchdog import PARITY_WATCHDOG_SOURCE, WatchdogReason
from recon_pipeline_tests.runbooks import assert_leads_somewhere, links, pasted
from recon_pipeline_tests.test_cycle_settings import SETTINGS

ROOT = Path(__file__).parents[1]
RUNBOOK = ROOT / "docs" / "runbooks" / "divergence.md"
TEXT = RUNBOOK.read_text(encoding="utf-8")
WORDS = set(re.findall(r"`([^`\n]+)`", TEXT))
VOCABULARIES: tuple[type[StrEnum], ...] = (
    OrderReason,
    ParityReason,
    RowDefect,
    RootCause,
    WatchdogReason,
    SkippedReason,
    Postponed,
    Handler,
    EventType,
)
PACKAGES = [ROOT / "recon_pipeline" / name for name in ("domain", "cycle", "apply")]
SOURCES = "\n".join(path.read_text(encoding="utf-8") for folder in PACKAGES for path in sorted(folder.glob("*.py")))


def spelled_in_the_code() -> set[str]:
    """Words that no enumeration holds: reasons of findings and doubts, rules of causes."""
    found = set(re.findall(r'(?:Doubt|_find)\(\s*"(\w+)"', SOURCES))
    found |= set(re.findall(r'because\("(\w+)"', SOURCES))
    found |= set(re.findall(r'"?rule"?(?:=|: )"(\w+)"', SOURCES))
    found |= set(re.findall(r'handler, rule = [\w.()]+, "(\w+)"', SOURCES))
    return found


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda vocabulary: vocabulary.__name__)
def test_every_word_of_the_cycle_is_explained(vocabulary: type[StrEnum]) -> None:
    assert {word.value for word in vocabulary} - {""} - WORDS == set()


def test_every_reason_that_the_ui_has_a_remedy_for_is_explained() -> None:
    known = {str(word) for words in cycle_remedies.FINDINGS.values() for word in words}
    known |= {str(word) for words in (cycle_remedies.ROOT_CAUSES, cycle_remedies.SKIPPED) for word in words} - {""}
    # Said of a whole run or by a stage of another runbook, or under the word of its finding.
    elsewhere = {"unsupported", "exchange"}
    assert known - WORDS - elsewhere == set()


def test_every_reason_and_rule_that_is_spelled_in_the_code_is_explained() -> None:
    spelled = spelled_in_the_code()
    assert {"exit_of_unknown_trade", "entry_not_recorded_yet", "order_is_over", "row_doubled"} <= spelled
    assert spelled - WORDS == set()


def test_every_setting_check_and_asset_of_the_cycle_occurs() -> None:
    assert set(SETTINGS) - WORDS == set()
    assert {check.name for check in cycle_catalogue.CHECKS} - WORDS == set()
    assert set(cycle_catalogue.CYCLE_KEYS) - WORDS == set()
    assert PARITY_WATCHDOG_SOURCE in WORDS


def test_the_defaults_of_the_settings_are_those_of_the_code() -> None:
    rows = [line for line in TEXT.splitlines() if re.match(r"\| `(ENABLE_)?RECON", line)]
    said = {name: row.split("|")[2].strip() for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    for name, (path, default, _, _) in SETTINGS.items():
        if isinstance(default, bool):
            assert said[name] == str(default).lower()
        elif name.endswith("_SECONDS"):
            assert float(said[name]) * 1000 == default
        elif path.endswith("baseline_ms"):
            assert said[name] == "none"
        else:
            assert said[name] == str(default)


def test_every_counter_of_orders_occurs() -> None:
    partition = TEXT.split("partition what was scanned", 1)[1].split("###", 1)[0]
    named = set(re.findall(r"`(\w+)`", partition)) | {
        "skipped_not_bot_owned" + rest for rest in re.findall(r"`\.\.\.(_\w+)`", partition)
    }
    assert set(order_coverage.COUNTERS) - {"scanned_orders", "inserted_rows"} <= named
    assert {"missing_from_exchange", "missing_in_db", "not_asked", "unknown_answers"} <= set(
        order_parity.COUNTERS
    ) & WORDS


def test_links_lead_somewhere() -> None:
    for file, anchor in links(TEXT):
        assert_leads_somewhere(RUNBOOK, file, anchor)


def test_every_query_runs_as_it_is_pasted(database_url: str) -> None:
    queries = pasted(TEXT)
    assert len(queries) > 8
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE recon_reader")
        for query in queries:
            assert query.startswith("SELECT"), query
            connection.execute(query)
