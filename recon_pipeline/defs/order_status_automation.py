"""The schedule of the order status sync, and the sensor that starts a reconciliation when the stream's events need one.

Dagster concept: a schedule and a sensor that ask the database first, so that a quiet system launches nothing. Both are stopped
until an operator starts them. Not here: what the launched runs do (``order_status``, ``reconciliation``), and the stream itself.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Final

import dagster as dg

from recon_pipeline.defs import order_status_catalogue as names
from recon_pipeline.defs.failed_runs import profiles_of
from recon_pipeline.defs.order_status import order_status_sync
from recon_pipeline.defs.partitions import PROFILES
from recon_pipeline.defs.reconciliation import reconcile
from recon_pipeline.defs.reporting import SCHEDULED, TRIGGER_TAG
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.schedules import (
    RANGE_END,
    RANGE_START,
    SHARD_TAG,
    UNFINISHED,
    is_still_running,
    shards,
)
from recon_pipeline.defs.tables import counted
from recon_pipeline.ledger.database import READER, DatabaseUnavailableError, connect
from recon_pipeline.ledger.order_checks import due_profiles
from recon_pipeline.ledger.order_events import profiles_to_reconcile
from recon_pipeline.settings import SettingError

_MINUTE: Final = 60
_AFTER_THE_CYCLE: Final = 2
"""Minutes: the cycle takes the leases of its profiles every five minutes on the dot, and would be waited for."""
_AGAIN_SECONDS: Final = 300
"""An event that a cycle was started for, and that none has looked at, starts another one after so long: a cycle's interval."""
_SHOWN: Final = 5


@dg.schedule(
    name="order_status_sync_schedule",
    cron_schedule="* * * * *",
    job=order_status_sync,
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="**The order status sync**: asks the exchange about stale orders every RECON_ORDER_STATUS_INTERVAL_MINUTES, "
    "and corrects them where RECON_ORDER_STATUS_DRY_RUN is false. It ticks every minute and launches a run only when the "
    "interval is over (two minutes after the cycle), for the shards in which something is due: where no order is stale nothing "
    "is launched. Stopped until you start it.",
)
def order_status_sync_schedule(
    context: dg.ScheduleEvaluationContext, outside: dg.ResourceParam[Outside]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Emit one run per shard in which something is due."""
    tick = context.scheduled_execution_time
    try:
        settings = outside.settings()
        policy = settings.order_status
        if not policy.enabled:
            yield dg.SkipReason("The order status sync is off: ENABLE_RECON_ORDER_STATUS_SYNC is false.")
            return
        if wait := _minutes_to_wait(tick, policy.interval_ms // 60_000):
            yield dg.SkipReason(f"The next run is due in {wait} min, by RECON_ORDER_STATUS_INTERVAL_MINUTES.")
            return
        with connect(settings.database_url, READER, "recon order status schedule") as connection:
            due = set(due_profiles(connection, policy, outside.now()))
    except (SettingError, DatabaseUnavailableError) as error:
        yield dg.SkipReason(str(error))
        return
    keys = list(context.instance.get_dynamic_partitions(PROFILES))
    waiting, launched = [], 0
    for number, (first, last) in enumerate(shards(keys, settings.shard_size)):
        shard = keys[keys.index(first) : keys.index(last) + 1]
        wanted = [profile for profile in shard if profile in due]
        if not wanted:
            continue
        if is_still_running(context.instance, order_status_sync.name, str(number)):
            waiting.append(str(number))
            continue
        launched += 1
        # Ranges are contiguous: from the first profile that is due to the last one.
        yield dg.RunRequest(
            run_key=f"{tick.isoformat()}:{number}",
            asset_selection=[dg.AssetKey(names.UPDATES_KEY)],
            # The run evaluates the check without planning it: see order_status_check.
            asset_check_keys=[],
            tags={
                TRIGGER_TAG: SCHEDULED,
                SHARD_TAG: str(number),
                RANGE_START: wanted[0],
                RANGE_END: wanted[-1],
            },
        )
    if launched:
        return
    if waiting:
        yield dg.SkipReason(f"The last run still works, shard {', '.join(waiting)}.")
    elif due - set(keys):
        yield dg.SkipReason(_without_partition(sorted(due - set(keys))))
    else:
        yield dg.SkipReason("No order is due: none is stale, or the exchange was asked lately.")


def _minutes_to_wait(tick: dt.datetime, interval: int) -> int:
    """Return how many minutes are left of the interval; intervals are counted from 1970, so that all schedulers agree."""
    begins = _AFTER_THE_CYCLE if interval > _AFTER_THE_CYCLE else 0
    return (begins - int(tick.timestamp()) // _MINUTE) % interval


def _without_partition(profiles: Sequence[str]) -> str:
    shown = ", ".join(profiles[:_SHOWN])
    return (
        f"{counted(len(profiles), 'profile')} with due orders have no partition yet ({shown}): the sensor "
        "profiles_to_partitions adds them."
    )


@dg.sensor(
    name="reconcile_on_order_events",
    job=reconcile,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Starts a cycle for the profiles of which `recon stream` has seen an event that only a cycle can judge: an order "
    "without a row, a replacement, a bust or correction of a fill, something that speaks against writing it. What the cycle "
    "writes is what its settings allow. Without this sensor the next scheduled cycle judges the same. Stopped by default.",
)
def reconcile_on_order_events(
    context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Launch one cycle per contiguous range of profiles whose events no cycle has looked at since."""
    try:
        settings = outside.settings()
        with connect(settings.database_url, READER, "recon order events") as connection:
            rows = {str(row["profile_id"]): row for row in profiles_to_reconcile(connection)}
    except (SettingError, DatabaseUnavailableError) as error:
        yield dg.SkipReason(str(error))
        return
    if not rows:
        yield dg.SkipReason("No event needs a cycle.")
        return
    working = _being_reconciled(context.instance)
    keys = list(context.instance.get_dynamic_partitions(PROFILES))
    wanted = [profile for profile in keys if profile in rows and profile not in working]
    if not wanted:
        waiting = ", ".join(sorted(set(rows) & working)[:_SHOWN])
        yield dg.SkipReason(
            f"A cycle works on it: {waiting}." if waiting else _without_partition(sorted(set(rows) - set(keys)))
        )
        return
    # Contention or a failure may have kept a cycle from looking: then the same events start another, and not every tick.
    slot = int(outside.now().timestamp()) // _AGAIN_SECONDS
    for block in _contiguous(wanted, keys):
        newest = max(int(rows[profile]["newest_id"]) for profile in block)
        yield dg.RunRequest(
            run_key=f"{block[0]}:{block[-1]}:{newest}:{slot}",
            tags={
                TRIGGER_TAG: "sensor",
                RANGE_START: block[0],
                RANGE_END: block[-1],
            },
        )


def _being_reconciled(instance: dg.DagsterInstance) -> set[str]:
    """Return the profiles of the cycles that have not ended: the next tick sees whether they have looked at the events."""
    records = instance.get_run_records(dg.RunsFilter(job_name=reconcile.name, statuses=list(UNFINISHED)))
    return {profile for record in records for profile in profiles_of(instance, record.dagster_run)}


def _contiguous(wanted: Sequence[str], keys: Sequence[str]) -> Iterator[list[str]]:
    """Yield the wanted keys in blocks without a gap, in the order of the partitions."""
    places = {key: place for place, key in enumerate(keys)}
    block: list[str] = []
    for key in wanted:
        if block and places[key] != places[block[-1]] + 1:
            yield block
            block = []
        block.append(key)
    if block:
        yield block
