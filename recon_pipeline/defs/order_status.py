"""The step of the order status sync, and the job that launches it.

Dagster concept: a multi-asset whose outputs are skippable, as ``reconciliation``; each profile's materializations are yielded as
they are known, then the check over all profiles, then the failures. By hand a run asks about every stale order of its profiles
and reports all of them; on schedule it asks about those that are due, and reports the profiles that there was something to say
of. Not here: the sync (``order_status_run``), how it looks (``order_status_presentation``) and the cleanup
(``stale_order_cleanup``).
"""

from collections.abc import Iterator
from typing import Final

import dagster as dg

from recon_pipeline.defs import order_status_catalogue as names
from recon_pipeline.defs.boards import board_events
from recon_pipeline.defs.order_status_check import stale_check, stale_evaluation
from recon_pipeline.defs.order_status_presentation import metadata_of, summary
from recon_pipeline.defs.order_status_run import SyncAsk, SyncOutcome, run_order_status
from recon_pipeline.defs.reporting import SCHEDULED, TRIGGER_TAG, Event, fail_naming, location_of, refuse
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.tables import counted
from recon_pipeline.engine import Failure
from recon_pipeline.order_status.outcome import ProfileSync
from recon_pipeline.order_status.syncing import SyncScope

OP: Final = "order_status"


@dg.multi_asset(
    name=OP,
    specs=list(names.SPECS),
    check_specs=list(names.CHECKS),
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
    op_tags={"dagster/priority": "0"},
)
def order_status(context: dg.AssetExecutionContext, outside: dg.ResourceParam[Outside]) -> Iterator[Event]:
    """Ask the exchange about the stale orders of the partitions of the run; a check alone only looks at what is remembered."""
    if context.selected_asset_keys:
        if not (context.has_partition_key or context.has_partition_key_range):
            raise refuse("Choose a partition: one profile, or a range of profiles.")
        settings = outside.settings()
        policy = settings.order_status
        if not policy.enabled:
            raise refuse("The order status sync is off: set ENABLE_RECON_ORDER_STATUS_SYNC=true for the code location.")
        scheduled = context.run.tags.get(TRIGGER_TAG) == SCHEDULED
        outcome = run_order_status(
            outside,
            SyncAsk(
                profile_ids=tuple(context.partition_keys),
                run_id=context.run.run_id,
                scope=SyncScope.DUE if scheduled else SyncScope.STALE,
                dry_run=policy.dry_run,
            ),
        )
        report = _Report(context, outcome, scheduled=scheduled, dashboard_url=settings.dashboard_url)
        yield from report.events()
        yield from _checks(context, outside)
        yield from board_events(outside)
        report.finish()
        return
    yield from _checks(context, outside)


def _checks(context: dg.AssetExecutionContext, outside: Outside) -> Iterator[Event]:
    yield stale_check(outside) if context.selected_asset_check_keys else stale_evaluation(outside)


class _Report:
    """Yields a run's profiles and remembers what its end has to say."""

    def __init__(
        self, context: dg.AssetExecutionContext, outcome: SyncOutcome, *, scheduled: bool, dashboard_url: str
    ) -> None:
        self._context = context
        self._outcome = outcome
        self._scheduled = scheduled
        self._dashboard = dashboard_url
        self._location = location_of(context)
        self._selected = {key.to_user_string() for key in context.selected_asset_keys}
        self._failures: dict[str, list[Failure]] = {
            profile_id: outcome.failures(profile) for profile_id, profile in outcome.result.profiles.items()
        }

    def events(self) -> Iterator[Event]:
        """Yield what is new of every profile."""
        # In a run that fails, a partition that it planned and did not materialize is shown as failed.
        some_failed = any(self._failures.values())
        for profile_id, profile in self._outcome.result.profiles.items():
            self._say(profile_id, profile)
            if profile.failure is not None:
                continue
            news = profile_id in self._outcome.changed
            told = news or some_failed or not self._scheduled or not self._outcome.is_quiet(profile)
            for key in names.KEYS:
                if key == names.UPDATES_KEY and self._failures[profile_id]:
                    # Nothing could be asked. That its orders are stale is still true, and shown.
                    continue
                if told if key in self._selected else news:
                    metadata = metadata_of(
                        self._outcome, profile, key, dashboard_url=self._dashboard, location=self._location
                    )
                    yield dg.AssetMaterialization(dg.AssetKey(key), partition=profile_id, metadata=metadata)

    def _say(self, profile_id: str, profile: ProfileSync) -> None:
        if self._failures[profile_id]:
            self._context.log.error("%s: %s", profile_id, summary(self._outcome, profile))
        elif not self._outcome.is_quiet(profile):
            self._context.log.info("%s: %s", profile_id, summary(self._outcome, profile))

    def finish(self) -> None:
        """Say what the run cost, and fail it if something of a profile failed.

        :raises Failure: naming the profiles
        """
        result = self._outcome.result
        told = [f"{count} {name.replace('_', ' ')}" for name, count in result.counts.items() if count]
        self._context.log.info(
            "%s%s, with %s",
            "dry run: " if result.dry_run else "",
            ", ".join(told) or "nothing to ask",
            counted(result.api_calls, "call"),
        )
        fail_naming(self._failures, of=len(self._failures), skipped=0)


order_status_sync = dg.define_asset_job(
    "order_status_sync",
    selection=dg.AssetSelection.assets(*names.KEYS).without_checks()
    | dg.AssetSelection.checks(*(spec.key for spec in names.CHECKS)),
    description="**Asks the exchange about stale orders** of a profile, or a range, now: also those that the schedule would ask "
    "about later. Corrects rows of `orders` where RECON_ORDER_STATUS_DRY_RUN is false. Then read "
    f"`{names.UPDATES_KEY}`. Runbook: `{names.RUNBOOK}`.",
    tags={"recon/mode": "order_status"},
)
