"""The whole wiring of the Dagster project on one screen.

Loads in a bare interpreter, reads no environment variable and connects nowhere: the resource ``outside`` does that when a run
asks. What does not belong here: anything that is more than a name in a list.
"""

from collections.abc import Mapping

import dagster as dg

from recon_pipeline.defs.alerts import deliver_alerts, run_failures, watchdog_auto_resume
from recon_pipeline.defs.boards import operations_board
from recon_pipeline.defs.control import exit_backfill_rollback, exit_backfill_stuck_batch, pause_trading, resume_trading
from recon_pipeline.defs.exit_backfill import exit_backfill_apply, exit_backfill_dry_run
from recon_pipeline.defs.order_status import order_status, order_status_sync
from recon_pipeline.defs.order_status_automation import order_status_sync_schedule, reconcile_on_order_events
from recon_pipeline.defs.reconciliation import reconcile, reconciliation
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.schedules import dry_run_schedule, reconcile_schedule
from recon_pipeline.defs.sensors import profiles_to_partitions, stuck_batches, unattended_apply_of_stuck_batches
from recon_pipeline.defs.stale_order_cleanup import stale_order_cleanup


def build_definitions(overrides: Mapping[str, object] | None = None) -> dg.Definitions:
    """Return the project; ``overrides`` replaces resources by name."""
    return dg.Definitions(
        assets=[reconciliation, order_status, operations_board],
        jobs=[
            reconcile,
            order_status_sync,
            stale_order_cleanup,
            exit_backfill_dry_run,
            exit_backfill_apply,
            exit_backfill_rollback,
            exit_backfill_stuck_batch,
            pause_trading,
            resume_trading,
        ],
        schedules=[reconcile_schedule, order_status_sync_schedule, dry_run_schedule],
        sensors=[
            profiles_to_partitions,
            deliver_alerts,
            run_failures,
            watchdog_auto_resume,
            stuck_batches,
            unattended_apply_of_stuck_batches,
            reconcile_on_order_events,
        ],
        resources={"outside": Outside(), **(overrides or {})},
        executor=dg.in_process_executor,
    )


defs = build_definitions()
