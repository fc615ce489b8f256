"""The one step that makes every asset, and the job of the whole cycle.

Dagster concept: a multi-asset whose outputs are skippable. Its selection decides what a run is: with ``reconciliation_report``
the cycle, without it the exit backfill alone. Several steps would stop all profiles where one fails. Not here: what the two
kinds of run do and yield (``cycle_events``, ``exit_backfill``).
"""

from collections.abc import Iterator

import dagster as dg

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs import cycle_catalogue as cycle
from recon_pipeline.defs.cycle_events import cycle_events
from recon_pipeline.defs.exit_backfill import OP, ExitBackfillConfig, exit_backfill_events
from recon_pipeline.defs.reporting import Event, refuse
from recon_pipeline.defs.resources import Outside


@dg.multi_asset(
    name=OP,
    specs=[*cat.SPECS, *cycle.SPECS],
    check_specs=[*cat.CHECKS, *cycle.CHECKS],
    can_subset=True,
    backfill_policy=dg.BackfillPolicy.single_run(),
    op_tags={"dagster/priority": "0"},
)
def reconciliation(
    context: dg.AssetExecutionContext, config: ExitBackfillConfig, outside: dg.ResourceParam[Outside]
) -> Iterator[Event]:
    """Run the cycle, or the exit backfill alone, for the partitions of the run."""
    if not (context.has_partition_key or context.has_partition_key_range):
        raise refuse("Choose a partition: one profile, or a range of profiles.")
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    checks = {key.name for key in context.selected_asset_check_keys}
    if cycle.REPORT_KEY in selected:
        if config.expected_digest or config.expected_digests or config.reapply_reverted:
            raise refuse("A cycle takes no digest and reapplies nothing: launch exit_backfill_apply for that.")
        yield from cycle_events(context, outside)
        return
    parts = sorted(selected & set(cycle.CYCLE_KEYS)) or sorted(checks & {check.name for check in cycle.CHECKS})
    if parts:
        raise refuse(
            f"{', '.join(parts)} can't be made alone: a cycle's stages stand on each other. Launch reconcile for the "
            f"partition; it makes {cycle.REPORT_KEY} and all of them."
        )
    yield from exit_backfill_events(context, config, outside)


reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.assets(*cycle.JOB_KEYS).without_checks()
    | dg.AssetSelection.checks(*(spec.key for spec in cycle.CHECKS))
    | dg.AssetSelection.checks(*(spec.key for spec in cat.CHECKS if spec.name in cycle.BACKFILL_CHECKS)),
    description="**The whole cycle** for a profile, or a range: order parity, order coverage, exit backfill, watchdogs, sub-tag "
    "repair, position parity. Each step writes the bots' tables only where its own ..._DRY_RUN setting is false. Then read "
    f"`{cycle.REPORT_KEY}`. Runbook: `{cycle.RUNBOOK}`.",
    tags={"recon/mode": "reconcile"},
)
