"""The short form of the soak: thirty simulated days, and the result is the truth."""

from __future__ import annotations

import dataclasses

import pytest

from recon_pipeline.sandbox.exchange import FaultKind
from recon_pipeline_tests.soak.checker import Checker
from recon_pipeline_tests.soak.cycles import Alone, Log
from recon_pipeline_tests.soak.driver import Plan, world
from recon_pipeline_tests.soak.report import report
from recon_pipeline_tests.soak.verdict import Verdict, judge_end

MONTH = Plan(seed=7, gap_hours=48, trouble=0.7)


@dataclasses.dataclass
class Life:
    """What became of a life."""

    checker: Checker
    log: Log
    verdict: Verdict
    text: str


def lived(plan: Plan, database_url: str) -> Life:
    with world(plan, database_url) as made:
        checker = Checker(made)
        runner = Alone(made, checker.after_cycle)
        made.live(runner)
        verdict = judge_end(made, runner.log.names, runner.log.ever)
        return Life(checker, runner.log, verdict, report(made, checker, runner.log, verdict))


@pytest.fixture(scope="module")
def month(postgres) -> Life:
    url = postgres.new_database(migrated=True)
    try:
        yield lived(MONTH, url)
    finally:
        postgres.drop(url)


def test_a_month_of_mishaps_ends_with_a_ledger_that_equals_the_truth_wherever_evidence_exists(month: Life):
    assert month.verdict.problems == [], month.text
    assert month.verdict.trades > 150
    assert month.verdict.orders > 400


def test_nothing_that_the_pipeline_writes_in_a_month_is_wrong_when_it_is_written(month: Life):
    assert month.checker.wrong == [], month.text
    assert sum(month.checker.written.values()) > 100, "a pipeline that writes nothing proves nothing"


def test_every_difference_that_is_left_after_a_month_is_named(month: Life):
    assert all(told.names for told in month.verdict.named), month.text


def test_no_step_of_a_cycle_fails_whatever_the_exchange_does(month: Life):
    assert month.log.failures == [], month.text
    assert month.log.struck == set(FaultKind), "the exchange did not fail in every way that it can"
    assert month.log.incomplete > 0
