"""The runbook of stale orders knows every word of the sync, the stream and the service; its queries run as they are pasted."""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from operator import attrgetter
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import yaml

from recon_pipeline.defs import cycle_remedies, order_status_catalogue, order_status_remedies, stale_order_cleanup
from recon_pipeline.defs.order_status_presentation import metadata_of
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.order_answers import CheckOutcome, CheckReason
from recon_pipeline.domain.order_events import CycleReason, EventOutcome, StreamState
from recon_pipeline.domain.order_objections import OrderReason
from recon_pipeline.domain.order_status import COUNTERS
from recon_pipeline.domain.terms import UNKNOWN_STATUS
from recon_pipeline.ops.health import HealthReason
from recon_pipeline.order_status import syncing
from recon_pipeline.settings import read_settings
from recon_pipeline_tests.defs.syncs import FILLED, checks, outcome, profile
from recon_pipeline_tests.runbooks import anchors, assert_leads_somewhere, links, pasted

ROOT = Path(__file__).parents[1]
RUNBOOK = ROOT / order_status_catalogue.RUNBOOK
TEXT = RUNBOOK.read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`\n]+)`", TEXT))
WORDS = {word for code in CODE for word in re.split(r"[:,\s]", code)}
DIVERGENCE = (RUNBOOK.parent / "divergence.md").read_text(encoding="utf-8")
SETTINGS: dict[str, tuple[str, str]] = {
    "ENABLE_RECON_ORDER_STATUS_SYNC": ("order_status.enabled", "true"),
    "RECON_ORDER_STATUS_DRY_RUN": ("order_status.dry_run", "true"),
    "RECON_ORDER_STATUS_INTERVAL_MINUTES": ("order_status.interval_ms", "60000"),
    "RECON_ORDER_STALE_MINUTES": ("order_status.stale_ms", "60000"),
    "RECON_ORDER_STATUS_BATCH_SIZE": ("order_status.batch_size", "1"),
    "RECON_ORDER_STATUS_BULK_PAGES": ("order_status.bulk_pages", "1"),
    "RECON_ORDER_UNKNOWN_AFTER_HOURS": ("order_status.unknown_after_ms", "3600000"),
    "RECON_ORDER_QUIET_PERIOD_SECONDS": ("order_status.quiet_ms", "1000"),
    "RECON_ORDER_STATUS_RETRY_CAP_MINUTES": ("order_status.retry_cap_ms", "60000"),
    "RECON_STALE_ORDER_ALERT_MINUTES": ("order_status.alert_after_ms", "60000"),
    "RECON_STALE_ORDER_ALERT_THROTTLE_MS": ("order_status.alert_throttle_ms", "1"),
    "RECON_SERVE_HOST": ("serve.host", ""),
    "RECON_SERVE_PORT": ("serve.port", "1"),
    "RECON_SERVE_TOKEN": ("serve.token", "none"),
    "RECON_SERVE_HOSTS": ("serve.hosts", "none"),
    "RECON_SERVE_REFRESH_SECONDS": ("serve.refresh_seconds", "1"),
    "RECON_SERVE_MAX_AGE_SECONDS": ("serve.max_age_seconds", "1"),
    "RECON_HEALTH_LATE_MINUTES": ("late_minutes", "1"),
    "RECON_METRICS_MAX_PROFILES": ("serve.metrics_max_profiles", "1"),
}
"""Name: where its value is in the settings, and how many of the program's units are one of the setting's."""
ALERTS = (ROOT / "deploy" / "monitoring" / "prometheus_rules.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "words",
    [CheckOutcome, CheckReason, EventOutcome, CycleReason, StreamState, HealthReason],
    ids=lambda words: words.__name__,
)
def test_every_word_of_the_sync_the_stream_and_the_service_is_explained(words: type[StrEnum]) -> None:
    assert {word.value for word in words} - WORDS == set()


def test_every_word_that_the_ui_has_a_remedy_for_is_explained() -> None:
    shown = {*order_status_remedies.OUTCOMES, *order_status_remedies.REASONS, *order_status_remedies.STREAM_STATES}
    own = {OrderReason.MARKED_UNKNOWN, OrderReason.NOT_MARKED_UNKNOWN, syncing.LEASE_HELD, syncing.NOT_LIVE}
    assert {str(word) for word in shown | own} - WORDS == set()
    of_parity = {str(word) for word in cycle_remedies.FINDINGS[Stage.ORDER_STATUS]}
    assert {word for word in of_parity if f"`{word}`" not in DIVERGENCE + TEXT} == set()


def test_every_asset_check_and_rule_of_the_sync_occurs() -> None:
    names = {*order_status_catalogue.KEYS, *(check.name for check in order_status_catalogue.CHECKS)}
    assert {name for name in names if name not in TEXT} == set()
    assert {"order_unknown_for_a_day", "person_decided"} <= WORDS


def test_every_number_that_the_ui_plots_is_explained() -> None:
    made = outcome(profile(counts=dict.fromkeys(COUNTERS, 1), checks=checks({}), changes=(FILLED,)))
    for key in order_status_catalogue.KEYS:
        shown = metadata_of(made, made.result.profiles["p1"], key, dashboard_url="http://ui")
        plotted = {name for name, value in shown.items() if isinstance(value, int) and not isinstance(value, bool)}
        assert len(plotted) > 5
        assert plotted - WORDS == set()


def test_every_field_of_the_policy_and_of_the_service_has_its_setting_here() -> None:
    names = set()
    for source in ("domain/order_status_policy.py", "settings.py"):
        text = (ROOT / "recon_pipeline" / source).read_text(encoding="utf-8")
        names |= set(re.findall(r'"""``((?:ENABLE_)?RECON_[A-Z_]+)``', text))
    assert {name for name in names if re.search("ORDER_STATUS|STALE|UNKNOWN|QUIET|SERVE|METRICS|HEALTH", name)} == set(
        SETTINGS
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_of_a_setting_is_that_of_the_code(name: str) -> None:
    rows = [line.split("|") for line in TEXT.splitlines() if re.match(r"\| `(ENABLE_)?RECON", line)]
    said = {
        one: value.strip()
        for row in rows
        for one, value in zip(re.findall(r"`(\w+)`", row[1]), row[2].split(","), strict=True)
    }
    where, unit = SETTINGS[name]
    default = attrgetter(where)(read_settings({}))
    if unit in {"", "none", "true"}:
        assert said[name] == (unit if unit == "none" and not default else str(default)).replace("True", "true")
    else:
        assert Decimal(said[name]) * Decimal(unit) == Decimal(str(default))


@pytest.mark.parametrize("name", [name for name in SETTINGS if name.startswith("RECON_") and "HOST" not in name])
def test_a_setting_is_read_by_its_name(name: str) -> None:
    where, unit = SETTINGS[name]
    text = {"none": "secret", "true": "false"}.get(unit, "7")
    read = attrgetter(where)(read_settings({name: text}))
    assert read != attrgetter(where)(read_settings({}))
    if unit.isdigit():
        assert read == 7 * int(unit)


def test_every_alert_rule_is_named_and_those_that_lead_here_have_a_heading() -> None:
    rules = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(rules) > 8
    assert set(rules) - WORDS - set(re.findall(r"^### (\w+)$", TEXT, re.MULTILINE)) == set()
    for anchor in re.findall(r"runbook_url: docs/runbooks/order_status\.md#(\S+)", ALERTS):
        assert anchor in anchors(TEXT)


def test_links_lead_somewhere() -> None:
    found = links(TEXT)
    assert len(found) > 30
    for file, anchor in found:
        assert_leads_somewhere(RUNBOOK, file, anchor)


def test_every_query_runs_as_it_is_pasted(database_url: str) -> None:
    queries = pasted(TEXT)
    assert len(queries) > 7
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE recon_reader")
        for query in queries:
            assert query.startswith("SELECT"), query
            connection.execute(query)


def test_the_index_that_a_deployment_makes_is_the_one_that_finds_live_orders(database_url: str) -> None:
    deploy = (RUNBOOK.parent / "deploy.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(.*?)```", deploy, flags=re.DOTALL)
    with psycopg.connect(database_url, autocommit=True) as connection:
        made = "SELECT indexdef FROM pg_indexes WHERE indexname = 'orders_live_idx'"
        before = connection.execute(made).fetchone()
        connection.execute("DROP INDEX public.orders_live_idx")
        connection.execute(block.strip().removesuffix(";"))
        assert connection.execute(made).fetchone() == before


def test_the_configuration_of_the_cleanup_is_one_that_the_job_takes() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    config = yaml.safe_load(block)
    assert dg.validate_run_config(stale_order_cleanup.stale_order_cleanup, config)
    given = config["ops"]["clean_up_stale_orders"]["config"]
    assert {"confirm", "expected_digest", "limit"} - WORDS == set()
    assert stale_order_cleanup.CleanupConfig(**given).confirm is False


def test_the_outbox_names_what_the_sync_writes() -> None:
    outbox = (ROOT / "docs" / "outbox.md").read_text(encoding="utf-8")
    (kinds,) = re.findall(r"^\| `kind` \|(.*)\|$", outbox, re.MULTILINE)
    assert f"`{Stage.ORDER_STATUS}`" in kinds
    assert f"`{UNKNOWN_STATUS}`" in outbox
