"""The assets and the check of the order status sync: what each is, its columns, what it comes from.

Dagster concept: AssetSpec and AssetCheckSpec. Not here: the step that makes them (``order_status``), how an outcome looks
(``order_status_presentation``) and what a person does about a word (``order_status_remedies``).
"""

from typing import Final

import dagster as dg

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.defs.cycle_catalogue import CORRECTIONS
from recon_pipeline.domain.frames import Schema
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS

RUNBOOK: Final = "docs/runbooks/order_status.md"
GROUP: Final = "order_status"

STALE_KEY: Final = "stale_orders"
UPDATES_KEY: Final = "order_status_updates"
NO_ORDER_IS_STALE: Final = "no_order_is_stale"

CLEANUP_JOB: Final = "stale_order_cleanup"
CLEANUP_OP: Final = "clean_up_stale_orders"


def _spec(key: str, schema: Schema, kinds: set[str], description: str, deps: tuple[str, ...] = ()) -> dg.AssetSpec:
    return cat.asset_spec(key, GROUP, schema, kinds, description, deps, domain="reconciliation", runbook=RUNBOOK)


SPECS: Final = (
    _spec(
        STALE_KEY,
        ORDER_CHECKS,
        {"postgres"},
        "Orders of the ledger that may still execute, were placed longer than RECON_ORDER_STALE_MINUTES ago, and what the "
        "exchange said of each when it was asked last. The ones without ⚠ are confirmed: the exchange holds them as live, so "
        "they wait rightly.\n\n"
        "Kept in `recon.order_checks`; brought up to date by every run of the sync that finds something new.",
    ),
    _spec(
        UPDATES_KEY,
        CORRECTIONS,
        {"alpaca", "postgres"},
        "**Writes the bots' tables** where RECON_ORDER_STATUS_DRY_RUN is false. Materializing it asks the exchange about the "
        "stale orders of the profile, at most RECON_ORDER_STATUS_BATCH_SIZE a run, and corrects what it answers for certain, "
        "by the rules of order parity: fills, growing partial fills, cancels. An order that it does not know after "
        "RECON_ORDER_UNKNOWN_AFTER_HOURS becomes `unknown`, and keeps blocking its trade until a person decides.\n\n"
        "Any other answer changes nothing and is asked for again, later each time.",
        (STALE_KEY,),
    ),
)
KEYS: Final = tuple(spec.key.to_user_string() for spec in SPECS)

CHECKS: Final = (
    dg.AssetCheckSpec(
        NO_ORDER_IS_STALE,
        asset=STALE_KEY,
        description="No order of any profile is stale: each that may still execute is younger than RECON_ORDER_STALE_MINUTES, "
        "or the exchange has confirmed lately that it is live. Looks at all profiles, whichever the run was about.",
    ),
)
