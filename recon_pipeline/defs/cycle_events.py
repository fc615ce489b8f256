"""A run of the cycle as Dagster's events: each profile's as its cycle ends, then the checks, the board, and the failures.

Dagster concept: the events of a multi-asset step. Selected assets are reported for every profile; the others only for profiles
whose content changed, so that a quiet profile of a scheduled cycle costs one event. Not here: the step (``reconciliation``), the
cycle (``cycle_run``), and how it looks (``cycle_presentation``).
"""

from collections.abc import Iterable, Iterator
from typing import Final

import dagster as dg

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import checks as backfill_checks
from recon_pipeline.defs import cycle_catalogue as names
from recon_pipeline.defs import cycle_checks
from recon_pipeline.defs.boards import board_events
from recon_pipeline.defs.checks import Verdict
from recon_pipeline.defs.cycle_presentation import as_backfill, metadata_of, summary
from recon_pipeline.defs.cycle_run import CycleOutcome, run_shard_cycle
from recon_pipeline.defs.reporting import SCHEDULED, TRIGGER_TAG, Event, evaluations, fail_naming, location_of
from recon_pipeline.defs.resources import Outside
from recon_pipeline.engine import Failure

_ORDER: Final = (*names.READING_KEYS, *names.BACKFILL_KEYS, cat.APPLIED_KEY, *names.CYCLE_KEYS)


def cycle_events(context: dg.AssetExecutionContext, outside: Outside) -> Iterator[Event]:
    """Run the cycle for the partitions of the run.

    Yielded, never ``context.log_event``: what is logged is kept back until the next yield, and lost if the step fails.

    :raises Failure: at the end, naming the profiles of which something failed
    """
    report = _Report(context, outside)
    for outcome in run_shard_cycle(outside, context.partition_keys, run_id=context.run.run_id):
        yield from report.events(outcome)
    yield from report.checks()
    yield from board_events(outside)
    report.finish()


class _Report:
    """Yields outcomes as they come and remembers what the run's end has to say."""

    def __init__(self, context: dg.AssetExecutionContext, outside: Outside) -> None:
        self._context = context
        self._selected = {key.to_user_string() for key in context.selected_asset_keys}
        self._scheduled = context.run.tags.get(TRIGGER_TAG) == SCHEDULED
        self._dashboard = outside.settings().dashboard_url
        self._location = location_of(context)
        self._verdicts: dict[str, dict[str, Verdict]] = {}
        self._changed: set[str] = set()
        self._failures: dict[str, list[Failure]] = {}
        self._skipped = 0

    def events(self, outcome: CycleOutcome) -> Iterator[Event]:
        """Yield what is new of a profile."""
        cycle, profile = outcome.cycle, outcome.profile_id
        self._failures[profile] = outcome.failures
        self._skipped += bool(cycle.report.skipped_reason)
        if cycle.changed:
            self._changed.add(profile)
        for key in _ORDER:
            # What was applied stands in its asset's history, whoever applied it, and never where nothing was.
            wanted = key in self._selected or cycle.changed or key == cat.APPLIED_KEY
            if not wanted:
                continue
            metadata = metadata_of(
                outcome, key, dashboard_url=self._dashboard, location=self._location, run_id=self._context.run.run_id
            )
            if metadata is not None:
                yield dg.AssetMaterialization(dg.AssetKey(key), partition=profile, metadata=metadata)
        for name, verdict in self._judged(outcome):
            self._verdicts.setdefault(name, {})[profile] = verdict
        log = self._context.log.error if self._failures[profile] else self._context.log.info
        if cycle.changed or not cycle.report.clean or not self._scheduled:
            log("%s: %s", profile, summary(cycle))

    def _judged(self, outcome: CycleOutcome) -> Iterable[tuple[str, Verdict]]:
        shown = as_backfill(outcome, self._context.run.run_id)
        for check in self._context.selected_asset_check_keys:
            if check.asset_key == dg.AssetKey(names.REPORT_KEY):
                verdict = cycle_checks.judge(check.name, outcome)
            else:
                verdict = backfill_checks.judge(check.name, shown)
            if verdict is not None:
                yield check.name, verdict

    def checks(self) -> Iterator[Event]:
        """Yield every selected check: by hand of every profile; then, and on schedule only, of the run as a whole.

        The UI shows a partition's evaluation rather than that of the run. By hand the last one is one that does not hold; on
        schedule the profiles that changed would hide those that did not.
        """
        yield from evaluations(
            self._context.selected_asset_check_keys,
            self._verdicts,
            partitions=() if self._scheduled else None,
        )

    def finish(self) -> None:
        """Fail the run if something of a profile did.

        :raises Failure: naming the profiles
        """
        failed = sum(1 for found in self._failures.values() if found)
        self._context.log.info(
            "%s profiles: %s failed, %s skipped, %s changed",
            len(self._failures),
            failed,
            self._skipped,
            len(self._changed),
        )
        fail_naming(self._failures, of=len(self._failures), skipped=self._skipped)
