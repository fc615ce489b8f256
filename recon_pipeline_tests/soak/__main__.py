"""``make soak``: thirty days with many cycles, undisturbed and disturbed, for one seed or more; ``--help`` says more."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from recon_pipeline_tests.postgres import TestServer
from recon_pipeline_tests.soak.checker import Checker
from recon_pipeline_tests.soak.cycles import Alone
from recon_pipeline_tests.soak.disturbed import Killed, TwoAtOnce
from recon_pipeline_tests.soak.driver import Plan, world
from recon_pipeline_tests.soak.report import report
from recon_pipeline_tests.soak.verdict import judge_end

RUNNERS = {"alone": Alone, "two": TwoAtOnce, "killed": Killed}


@contextlib.contextmanager
def server() -> Iterator[TestServer]:
    memory = Path("/dev/shm")
    directory = Path(tempfile.mkdtemp(prefix="recon-soak-", dir=memory if memory.is_dir() else None))
    directory.chmod(0o755)
    made = TestServer(directory)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    options = argparse.ArgumentParser(prog="make soak ARGS=...", description=__doc__)
    options.add_argument("--seed", type=int, default=1, help="the first seed")
    options.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other")
    options.add_argument("--days", type=int, default=30)
    options.add_argument("--gap", type=float, default=2, help="hours between the moments at which the pipeline runs")
    options.add_argument(
        "--burst", type=int, default=3, help="cycles at each moment; a gap of 0 runs every five minutes"
    )
    options.add_argument("--lookback", type=float, default=72, help="hours of evidence")
    options.add_argument("--trades", type=float, default=1.2, help="trades a day and bot")
    options.add_argument("--trouble", type=float, default=0.3, help="share of the cycles with trouble at the exchange")
    options.add_argument(
        "--disturbed-days", type=int, default=5, help="days of the lives that are disturbed; 0 for none"
    )
    chosen = options.parse_args()
    failed = 0
    with server() as postgres:
        for seed in range(chosen.seed, chosen.seed + chosen.seeds):
            plan = Plan(
                seed=seed,
                days=chosen.days,
                gap_hours=chosen.gap,
                burst=chosen.burst,
                lookback_hours=chosen.lookback,
                trades_per_day=chosen.trades,
                trouble=chosen.trouble,
            )
            wrong, _ = lived(postgres, plan, "alone")
            failed += wrong
            if chosen.disturbed_days:
                # Without trouble and limits, which a second cycle meets differently: the three must end the same to the letter.
                calm = replace(plan, days=chosen.disturbed_days, trouble=0, coverage_inserts=50)
                ends = {how: lived(postgres, calm, how) for how in RUNNERS}
                failed += sum(wrong for wrong, _ in ends.values())
                if len({digest for _, digest in ends.values()}) > 1:
                    print(f"seed {seed}: the results differ: {ends}")
                    failed += 1
    return 1 if failed else 0


def lived(postgres: TestServer, plan: Plan, how: str) -> tuple[bool, str]:
    """Live a plan and print what it came to; whether something is wrong, and the result's digest."""
    began = time.perf_counter()
    url = postgres.new_database(migrated=True)
    with world(plan, url) as living:
        checker = Checker(living)
        runner = RUNNERS[how](living, checker.after_cycle)
        living.live(runner)
        verdict = judge_end(living, runner.log.names, runner.log.ever)
        print(f"--- {how}\n{report(living, checker, runner.log, verdict)}")
    postgres.drop(url)
    print(f"{time.perf_counter() - began:.0f} s", flush=True)
    return bool(checker.wrong or verdict.problems or runner.log.failures), verdict.digest


if __name__ == "__main__":
    sys.exit(main())
