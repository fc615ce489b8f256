"""Says what a soak came to, for people."""

from __future__ import annotations

from collections import Counter

from recon_pipeline_tests.soak.checker import Checker
from recon_pipeline_tests.soak.cycles import Log
from recon_pipeline_tests.soak.driver import World
from recon_pipeline_tests.soak.verdict import Verdict

SHOWN = 25


def report(world: World, checker: Checker, log: Log, verdict: Verdict) -> str:
    """A page: what happened, what was written, what is left, what is wrong."""
    facts = list(world.truth.facts())
    statuses = Counter(fact.status for fact in facts)
    seconds = sorted(log.seconds)
    lines = [
        f"seed {world.plan.seed}: {world.plan.days} days, {len(world.profiles)} profiles",
        f"the exchange: {verdict.trades} trades, {len(facts)} orders ({_counted(statuses)}), {len(world.by_hand)} closed by hand",
        f"the pipeline wrote: {_counted(checker.written) or 'nothing'}",
        # Disturbed cycles are not measured: they are judged by the ledger alone.
        *(_cycles(log, seconds) if seconds else ["cycles: disturbed, not measured"]),
        f"left and named: {len(verdict.named)}",
        *(f"  {told.profile_id}/{told.trade_id}: {told.what}: {', '.join(told.names)}" for told in verdict.named),
        *_listed("WRONG WRITES", checker.wrong),
        *_listed("PROBLEMS", verdict.problems),
        *_listed("FAILURES OF STEPS", log.failures),
        f"digest {verdict.digest}",
    ]
    return "\n".join(lines)


def _cycles(log: Log, seconds: list[float]) -> list[str]:
    return [
        f"cycles: {len(seconds)}, {sum(seconds) / len(seconds):.2f} s each, {seconds[-1]:.2f} s the longest",
        f"API calls: {sum(log.calls) / max(1, len(log.calls)):.0f} a cycle, {max(log.calls, default=0)} the most",
        f"profiles whose reading was incomplete: {log.incomplete}",
    ]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


def _listed(title: str, told: list[str]) -> list[str]:
    if not told:
        return []
    more = [f"  and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    return [f"{title}: {len(told)}", *(f"  {line}" for line in told[:SHOWN]), *more]
