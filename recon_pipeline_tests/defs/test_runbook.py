"""The runbook knows every reason that the UI may show, every setting, check, job and query; nothing drifts."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from recon_pipeline import domain
from recon_pipeline.apply import RefusedReason
from recon_pipeline.apply.outcomes import Postponed
from recon_pipeline.definitions import defs
from recon_pipeline.defs import catalogue, cycle_catalogue, cycle_remedies, order_status_catalogue, remedies
from recon_pipeline.defs.boards import EVERY_PROFILE_LATELY
from recon_pipeline.defs.cycle_presentation import metadata_of
from recon_pipeline.domain.corrections import EventType
from recon_pipeline.domain.rollback import Refusal
from recon_pipeline.domain.terms import (
    Decision,
    MatchMethod,
    NoEvidence,
    PositionGate,
    Reason,
    RowDefect,
    SkippedReason,
)
from recon_pipeline.ledger.cycle_state import LEASE_HELD
from recon_pipeline.ledger.statements import statements
from recon_pipeline_tests.defs.cycles import cycle, outcome

CHECKOUT = Path(__file__).resolve().parents[2]
RUNBOOK = CHECKOUT / catalogue.RUNBOOK
TEXT = RUNBOOK.read_text(encoding="utf-8")
CODE = set(re.findall(r"`([^`\n]+)`", TEXT))
WORDS = {word for code in CODE for word in re.split(r"[:,\s]", code)}
DIVERGENCE = (CHECKOUT / cycle_catalogue.RUNBOOK).read_text(encoding="utf-8")
DIVERGENCE_WORDS = {word for code in re.findall(r"`([^`\n]+)`", DIVERGENCE) for word in re.split(r"[:,\s]", code)}

ORDER_STATUS = (CHECKOUT / order_status_catalogue.RUNBOOK).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "terms", [Decision, SkippedReason, Reason, RowDefect, NoEvidence, MatchMethod, PositionGate, RefusedReason, Refusal]
)
def test_every_word_that_the_pipeline_answers_with_is_explained(terms: type[StrEnum]):
    assert [term.value for term in terms if term.value not in WORDS] == []


def test_every_check_and_every_job_occurs():
    assert [check.name for check in catalogue.CHECKS if check.name not in WORDS] == []
    everywhere = TEXT + DIVERGENCE + ORDER_STATUS
    jobs = [name for name in defs.get_repository_def().job_names if not name.startswith("__")]
    assert [name for name in jobs if name not in everywhere] == []
    automation = [*defs.get_repository_def().sensor_defs, *defs.get_repository_def().schedule_defs]
    assert [found.name for found in automation if found.name not in everywhere] == []


def test_the_runbook_of_the_cycle_knows_every_check_asset_and_plotted_number_that_it_sends_people_to():
    checks = [check.name for check in cycle_catalogue.CHECKS] + [EVERY_PROFILE_LATELY]
    assert [
        name for name in (*checks, *cycle_catalogue.CYCLE_KEYS, cycle_catalogue.BOARD_KEY) if name not in DIVERGENCE
    ] == []
    shown = metadata_of(outcome(cycle()), cycle_catalogue.REPORT_KEY, dashboard_url="", location="", run_id="")
    plotted = [name for name, value in shown.items() if isinstance(value, int | float)]
    assert len(plotted) > 8
    assert [name for name in plotted if name not in DIVERGENCE_WORDS] == []


@pytest.mark.parametrize(
    "words",
    [
        *(list(words) for words in cycle_remedies.FINDINGS.values()),
        list(cycle_remedies.ROOT_CAUSES),
        list(cycle_remedies.SKIPPED),
        list(Postponed),
        list(EventType),
    ],
    ids=lambda words: str(words[0]),
)
def test_the_runbook_of_the_cycle_explains_every_word_that_the_ui_shows(words: list[str]):
    both = DIVERGENCE_WORDS | WORDS
    assert [str(word) for word in words if str(word) not in both] == []


def test_every_setting_of_the_cycle_stands_in_its_runbook_with_its_default():
    """By the fields' own documentation, which begins with the setting's name."""
    source = (CHECKOUT / "recon_pipeline" / "domain" / "cycle_policy.py").read_text(encoding="utf-8")
    settings = set(re.findall(r'"""``([A-Z_]+)``', source)) - {
        "RECON_EXIT_BACKFILL_DUST_ABS_QTY",
        "RECON_EXIT_BACKFILL_CRYPTO_FEE_BPS",
    }
    assert len(settings) > 20
    assert [name for name in sorted(settings) if name not in DIVERGENCE_WORDS] == []


def test_every_setting_of_the_exit_backfill_occurs_with_a_name_that_is_read():
    source = (CHECKOUT / "recon_pipeline" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'f"\{prefix\}([A-Z_]+)"', source)) - {"KEY_ID", "SECRET_KEY"}
    assert len(read) > 8
    assert [name for name in read if f"RECON_EXIT_BACKFILL_{name}" not in WORDS] == []
    named = {word for word in WORDS if re.fullmatch(r"RECON_[A-Z_]+[A-Z]", word) and "ACCOUNT" not in word}
    known = {name.removeprefix("RECON_EXIT_BACKFILL_") for name in named}
    assert [name for name in known if name not in source] == []


def test_every_query_exists_and_every_query_of_the_file_is_used():
    of_file = {name for name, found in statements().items() if Path(found.file).name == "exit_backfill_runbook.sql"}
    assert of_file
    assert of_file - WORDS == set()


def test_the_invariants_are_numbered_as_in_the_domain():
    numbers = re.findall(r"^(\d)\. \*\*([A-Z][a-z-]+)", TEXT, re.MULTILINE)
    in_domain = re.findall(r"^(\d)\. ([A-Z][a-z-]*)", domain.__doc__ or "", re.MULTILINE)
    assert [number for number, _ in numbers] == [number for number, _ in in_domain] == [str(n) for n in range(1, 9)]
    assert [name for _, name in numbers][:7] == [name for _, name in in_domain][:7]


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("text", [TEXT, DIVERGENCE], ids=["exit_backfill", "divergence"])
def test_links_within_the_runbook_lead_somewhere(text: str):
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", text) if link not in anchors(text)] == []
    across = re.findall(r"\]\(exit_backfill\.md#([^)]+)\)", text)
    assert [link for link in across if link not in anchors(TEXT)] == []


@pytest.mark.parametrize("reason", [*Reason, *RowDefect])
def test_the_ui_says_what_to_do_about_every_reason(reason: StrEnum):
    assert remedies.for_reason(reason.value) != "See the runbook."
    assert remedies.for_reason(f"{reason.value}:12.5") == remedies.for_reason(reason.value)


@pytest.mark.parametrize("reason", [*SkippedReason, LEASE_HELD])
def test_the_ui_says_what_to_do_about_every_skipped_profile(reason: str):
    assert remedies.for_skipped(reason) != "See the runbook."


@pytest.mark.parametrize("reason", list(RefusedReason))
def test_the_ui_says_what_to_do_about_every_refusal(reason: RefusedReason):
    assert remedies.for_refusal(reason.value) != "See the runbook."
