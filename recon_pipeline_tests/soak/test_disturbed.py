"""Two schedulers at once, and kill -9 at any moment, change nothing in the result."""

from __future__ import annotations

import pytest

from recon_pipeline_tests.soak.cast import cast
from recon_pipeline_tests.soak.checker import Checker
from recon_pipeline_tests.soak.cycles import Alone
from recon_pipeline_tests.soak.disturbed import Killed, TwoAtOnce
from recon_pipeline_tests.soak.driver import Plan, world
from recon_pipeline_tests.soak.report import report
from recon_pipeline_tests.soak.verdict import judge_end

ONE_ACCOUNT = tuple(profile for profile in cast() if profile.account_id == "mixed")
PLAN = Plan(
    seed=23,
    days=4,
    gap_hours=15,
    coverage_inserts=50,  # a cycle that is run twice inserts twice as many: the limit would make a difference
    trades_per_day=2,
    trouble=0,
    by_hand_per_week=3,
    profiles=ONE_ACCOUNT,
)


def lived(postgres, runner_class) -> tuple:
    url = postgres.new_database(migrated=True)
    try:
        with world(PLAN, url) as made:
            checker = Checker(made)
            runner = runner_class(made, checker.after_cycle)
            made.live(runner)
            verdict = judge_end(made, runner.log.names, runner.log.ever)
            return runner, checker, verdict, report(made, checker, runner.log, verdict)
    finally:
        postgres.drop(url)


@pytest.fixture(scope="module")
def undisturbed(postgres):
    _, checker, verdict, text = lived(postgres, Alone)
    assert (checker.wrong, verdict.problems) == ([], []), text
    return verdict


def test_two_schedulers_at_once_even_where_one_loses_its_leases_end_in_the_undisturbed_ledger(postgres, undisturbed):
    runner, checker, verdict, text = lived(postgres, TwoAtOnce)
    assert checker.wrong == [], text
    assert verdict.picture == undisturbed.picture, text
    assert runner.took_over > 0
    assert runner.kept_out > 0


def test_kill_9_at_any_moment_and_the_cycle_again_end_in_the_undisturbed_ledger(postgres, undisturbed):
    runner, checker, verdict, text = lived(postgres, Killed)
    assert checker.wrong == [], text
    assert verdict.picture == undisturbed.picture, text
    assert runner.deaths >= 8
    assert runner.deaths_while_writing >= 5


def test_the_same_seed_again_gives_the_same_ledger(postgres, undisturbed):
    _, _, verdict, text = lived(postgres, Alone)
    assert verdict.picture == undisturbed.picture, text
