"""The schedules: the cycle, and the dry run of the exit backfill, every five minutes, all profiles, shard by shard.

Dagster concept: a schedule that emits one run per shard, a contiguous range of partitions. Both are stopped until an operator
starts them, and select one asset each, so that a quiet profile costs one event a run. The dry run selects no check and never
applies; the cycle selects its report and the report's checks, and writes what its settings allow. Not here: what a run does
(``reconciliation``), and the schedule of the order status sync, which launches only what is due (``order_status_automation``).
"""

from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import cycle_catalogue as cycle
from recon_pipeline.defs.exit_backfill import exit_backfill_dry_run
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.reconciliation import reconcile
from recon_pipeline.defs.reporting import SCHEDULED, TRIGGER_TAG
from recon_pipeline.defs.resources import Outside
from recon_pipeline.settings import SettingError

RANGE_START: Final = "dagster/asset_partition_range_start"
RANGE_END: Final = "dagster/asset_partition_range_end"
SHARD_TAG: Final = "recon/shard"
CRON: Final = "*/5 * * * *"
UNFINISHED: Final = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def shards(keys: Sequence[str], size: int) -> Iterator[tuple[str, str]]:
    """Yield the first and the last key of each shard, in the order of the partitions."""
    for begin in range(0, len(keys), size):
        shard = keys[begin : begin + size]
        yield shard[0], shard[-1]


def is_still_running(instance: dg.DagsterInstance, job_name: str, shard: str) -> bool:
    """Whether an earlier run of the shard has not ended."""
    unfinished = dg.RunsFilter(job_name=job_name, tags={SHARD_TAG: shard}, statuses=list(UNFINISHED))
    return bool(instance.get_run_records(unfinished, limit=1))


def _requests(
    context: dg.ScheduleEvaluationContext,
    outside: Outside,
    job_name: str,
    asset: str,
    checks: Sequence[dg.AssetCheckKey],
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run per shard that does not work on an earlier one."""
    try:
        size = outside.settings().shard_size
    except SettingError as error:
        yield dg.SkipReason(str(error))
        return
    keys = context.instance.get_dynamic_partitions(PROFILES)
    if not keys:
        yield dg.SkipReason(
            "There are no profiles: the sensor profiles_to_partitions adds them from the table profiles."
        )
        return
    tick = context.scheduled_execution_time.isoformat()
    waiting = []
    for number, (first, last) in enumerate(shards(keys, size)):
        shard = str(number)
        if is_still_running(context.instance, job_name, shard):
            waiting.append(shard)
            continue
        yield dg.RunRequest(
            run_key=f"{tick}:{shard}",
            asset_selection=[dg.AssetKey(asset)],
            asset_check_keys=list(checks),
            tags={TRIGGER_TAG: SCHEDULED, SHARD_TAG: shard, RANGE_START: first, RANGE_END: last},
        )
    if waiting and len(waiting) == len(list(shards(keys, size))):
        yield dg.SkipReason(f"The last run still works, shard {', '.join(waiting)}.")


@dg.schedule(
    name="exit_backfill_dry_run_every_five_minutes",
    cron_schedule=CRON,
    job=exit_backfill_dry_run,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Plans every profile every five minutes and writes nothing but audit rows of plans that changed. One run per "
    "shard of RECON_SHARD_SIZE profiles; a shard whose last run still works is left out. Not needed where "
    "reconcile_every_five_minutes runs, which plans too.",
)
def dry_run_schedule(
    context: dg.ScheduleEvaluationContext, outside: dg.ResourceParam[Outside]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Emit one run per shard."""
    yield from _requests(context, outside, exit_backfill_dry_run.name, cat.PROPOSED_KEY, [])


@dg.schedule(
    name="reconcile_every_five_minutes",
    cron_schedule=CRON,
    job=reconcile,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="**The cycle**: reconciles every profile every five minutes. Each step writes the bots' tables only where its "
    "own ..._DRY_RUN setting is false. One run per shard of RECON_SHARD_SIZE profiles; a shard whose last run still works is "
    "left out. Stopped until you start it.",
)
def reconcile_schedule(
    context: dg.ScheduleEvaluationContext, outside: dg.ResourceParam[Outside]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Emit one run per shard."""
    yield from _requests(context, outside, reconcile.name, cycle.REPORT_KEY, [check.key for check in cycle.CHECKS])
