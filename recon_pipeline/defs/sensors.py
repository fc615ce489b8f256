"""The sensors: partitions in step with the table ``profiles``, and batches that are stuck in PENDING_APPLY.

A stuck batch leads to an alert. It leads to an apply only where an operator has started the sensor for it and set
RECON_EXIT_BACKFILL_REQUIRE_REVIEW=false and RECON_EXIT_BACKFILL_DRY_RUN=false, all three. Not here: what the launched runs do
(``control``, ``exit_backfill``).
"""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.apply import find_stuck_batches
from recon_pipeline.defs.control import exit_backfill_stuck_batch
from recon_pipeline.defs.exit_backfill import exit_backfill_apply
from recon_pipeline.defs.partitions import PROFILES, can_be_a_partition, profiles_partitions
from recon_pipeline.defs.reporting import TRIGGER_TAG
from recon_pipeline.defs.resources import Outside
from recon_pipeline.ledger.database import DatabaseUnavailableError
from recon_pipeline.settings import SettingError

_SHOWN = 5


@dg.sensor(
    name="profiles_to_partitions",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Keeps the partitions in step with the table profiles: one per profile. A profile that is gone from the table "
    "loses its partition, its history stays. An empty table removes nothing.",
)
def profiles_to_partitions(
    context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]
) -> dg.SensorResult | dg.SkipReason:
    """Add and delete partitions."""
    try:
        settings = outside.settings()
        with outside.ledger(settings) as ledger:
            profiles = [str(row["profile_id"]) for row in ledger.profiles()]
    except (SettingError, DatabaseUnavailableError) as error:
        return dg.SkipReason(str(error))
    have = context.instance.get_dynamic_partitions(PROFILES)
    if not profiles:
        return dg.SkipReason(f"The table profiles is empty; the {len(have)} partitions stay.")
    usable = [profile for profile in profiles if can_be_a_partition(profile)]
    if len(usable) < len(profiles):
        context.log.warning("%s profile ids can't be partition keys and are left out", len(profiles) - len(usable))
    present, wanted = set(have), set(usable)
    added = [profile for profile in usable if profile not in present]
    gone = [key for key in have if key not in wanted]
    if not added and not gone:
        return dg.SkipReason(f"The {len(have)} partitions are in step with the table profiles.")
    context.log.info("%s partitions added, %s deleted: %s", len(added), len(gone), ", ".join((added + gone)[:_SHOWN]))
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if added:
        requests.append(profiles_partitions.build_add_request(added))
    if gone:
        requests.append(profiles_partitions.build_delete_request(gone))
    return dg.SensorResult(dynamic_partitions_requests=requests)


@dg.sensor(
    name="stuck_batches",
    job=exit_backfill_stuck_batch,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds batches that were announced (PENDING_APPLY) and have no outcome after RECON_STUCK_BATCH_SECONDS: "
    "their run ended in between. Launches exit_backfill_stuck_batch once for each, which raises an event and fails. It "
    "applies nothing.",
)
def stuck_batches(outside: dg.ResourceParam[Outside]) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Alert, once for each batch."""
    try:
        settings = outside.settings()
        stuck = find_stuck_batches(settings.database_url, older_than_seconds=settings.stuck_batch_seconds)
    except (SettingError, DatabaseUnavailableError) as error:
        yield dg.SkipReason(str(error))
        return
    for batch in stuck:
        yield dg.RunRequest(
            run_key=batch["batch_id"],
            run_config={"ops": {"verify_stuck_batch": {"config": {"batch_id": batch["batch_id"]}}}},
            tags={TRIGGER_TAG: "sensor"},
        )
    if not stuck:
        yield dg.SkipReason("No batch is stuck.")


@dg.sensor(
    name="unattended_apply_of_stuck_batches",
    job=exit_backfill_apply,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="**Applies without a person.** Launches exit_backfill_apply for the profile of a stuck batch, which completes or "
    "closes it. Stopped by default, and does nothing unless RECON_EXIT_BACKFILL_REQUIRE_REVIEW and "
    "RECON_EXIT_BACKFILL_DRY_RUN are both false.",
)
def unattended_apply_of_stuck_batches(
    context: dg.SensorEvaluationContext, outside: dg.ResourceParam[Outside]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Complete stuck batches where the operator allows applies that nobody reviewed."""
    try:
        settings = outside.settings()
        if settings.require_review or settings.exit_backfill_dry_run:
            yield dg.SkipReason(
                "Applies want a person: RECON_EXIT_BACKFILL_REQUIRE_REVIEW or RECON_EXIT_BACKFILL_DRY_RUN is true."
            )
            return
        stuck = find_stuck_batches(settings.database_url, older_than_seconds=settings.stuck_batch_seconds)
    except (SettingError, DatabaseUnavailableError) as error:
        yield dg.SkipReason(str(error))
        return
    partitions = set(context.instance.get_dynamic_partitions(PROFILES))
    ready = [batch for batch in stuck if batch["profile_id"] in partitions]
    for batch in ready:
        yield dg.RunRequest(
            run_key=f"{batch['batch_id']}:apply", partition_key=batch["profile_id"], tags={TRIGGER_TAG: "sensor"}
        )
    if not ready:
        yield dg.SkipReason("No batch is stuck.")
