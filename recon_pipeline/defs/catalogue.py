"""Every asset and every check of the exit backfill: what it is, whose it is, its columns, what it comes from.

Dagster concept: AssetSpec and AssetCheckSpec. What an operator reads before anything has run. Not here: the assets of the
cycle (``cycle_catalogue``), how any of them is made (``reconciliation``) and judged (``checks``).
"""

from typing import Final

import dagster as dg

from recon_pipeline.defs.partitions import profiles_partitions
from recon_pipeline.domain.frames import (
    EVIDENCE,
    EXCHANGE_ORDERS,
    LIFECYCLE_ROWS,
    POSITIONS,
    PROPOSALS,
    SLICES,
    Column,
    Schema,
)

OWNERS: Final = ("team:trading-operations",)
RUNBOOK: Final = "docs/runbooks/exit_backfill.md"

AUDIT_ROWS: Final = Schema(
    "backfill_audit_records",
    (
        Column("batch_id", "text", "RECON-BFILL-<uuid> of the plan"),
        Column("profile_id", "text", "profile of the trade"),
        Column("symbol", "text", "as the ledger spells it"),
        Column("trade_id", "text", "the trade"),
        Column("exchange_order_id", "text", "the cited order, or DUST-REMAINDER-<trade>"),
        Column("exchange_client_order_id", "text", "its client id"),
        Column("backfill_order_id", "text", "the backfill row, BFILL-<md5>"),
        Column("filled_qty", "decimal", "quantity of the backfill row", "units of the asset"),
        Column("filled_price", "price", "price of the backfill row", "quote currency per unit"),
        Column("filled_at", "instant", "execution time"),
        Column("dry_run", "bool", "written by a dry run"),
        Column(
            "decision",
            "text",
            "DRY_RUN, PENDING_APPLY, APPLIED, SKIP_EXISTING, SKIP_PENDING_ORDER, SKIP_ACTIVE_POSITION, NO_GO",
        ),
        Column("reason", "text", "why"),
        Column("metadata", "list", "numbers behind the decision"),
    ),
)
APPLIED: Final = Schema(
    "applied_backfill_rows", (*PROPOSALS.columns, Column("outcome", "text", "inserted, reapplied or already_exists"))
)

_TYPES: Final = {
    "text": "text",
    "quantity": "integer",
    "decimal": "decimal",
    "price": "decimal",
    "money": "decimal",
    "instant": "timestamp",
    "bool": "boolean",
    "count": "integer",
    "list": "json",
}


def table_schema(schema: Schema) -> dg.TableSchema:
    """Return the columns as Dagster shows them, the unit in each description."""
    return dg.TableSchema(
        columns=[dg.TableColumn(column.name, _TYPES[column.type], _described(column)) for column in schema.columns]
    )


def _described(column: Column) -> str:
    """Return a column's description as Markdown, in which an angle bracket would begin a tag."""
    text = f"{column.description} ({column.unit})" if column.unit else column.description
    return text.replace("<", "&lt;")


def asset_spec(
    key: str,
    group: str,
    schema: Schema,
    kinds: set[str],
    description: str,
    deps: tuple[str, ...] = (),
    *,
    domain: str = "exit-backfill",
    runbook: str = RUNBOOK,
) -> dg.AssetSpec:
    """Return the spec of an asset of the one step: skippable, a partition per profile."""
    return dg.AssetSpec(
        key,
        deps=deps,
        description=description,
        group_name=group,
        owners=OWNERS,
        kinds=kinds,
        skippable=True,
        partitions_def=profiles_partitions,
        tags={"domain": domain, "stage": group},
        metadata={"dagster/column_schema": table_schema(schema), "runbook": dg.MetadataValue.text(runbook)},
    )


EXCHANGE_ORDERS_KEY: Final = "exchange_orders"
EVIDENCE_KEY: Final = "exchange_fill_evidence"
POSITIONS_KEY: Final = "exchange_positions"
LIFECYCLE_KEY: Final = "lifecycle_rows"
SLICES_KEY: Final = "open_trade_slices"
PROPOSED_KEY: Final = "proposed_backfill_rows"
AUDIT_KEY: Final = "backfill_audit_records"
APPLIED_KEY: Final = "applied_backfill_rows"
ORDER_PARITY_KEY: Final = "order_parity"
ORDER_COVERAGE_KEY: Final = "order_coverage"

SPECS: Final = (
    asset_spec(
        EXCHANGE_ORDERS_KEY,
        "exchange",
        EXCHANGE_ORDERS,
        {"alpaca", "parquet"},
        "Orders of the profile's exchange account, as the exchange reports them: every order with an execution in the "
        "look-back, every order that is not finished, and both ends of every replacement.\n\n"
        "One reading per account and run, shared by all its profiles. The metadata say whether the reading is complete.",
    ),
    asset_spec(
        EVIDENCE_KEY,
        "exchange",
        EVIDENCE,
        {"alpaca", "parquet"},
        "Executed quantity of each exchange order and where it went: represented in the ledger already, allocated by this "
        "plan, or excess, with the reason where nothing was allocated.\n\n"
        "executed = represented + allocated + excess, checked for every order of every plan.",
        (EXCHANGE_ORDERS_KEY,),
    ),
    asset_spec(
        POSITIONS_KEY,
        "exchange",
        POSITIONS,
        {"alpaca", "parquet"},
        "What the exchange account holds, read before and after the executions; both readings must agree.\n\n"
        "A symbol absent from a complete reading is flat. A position that could not be read is unknown, never flat.",
    ),
    asset_spec(
        LIFECYCLE_KEY,
        "ledger",
        LIFECYCLE_ROWS,
        {"postgres", "parquet"},
        "Rows of the bots' table `orders` that executed or may yet execute, and backfill rows of any status.\n\n"
        "Read after the exchange, so that what a bot recorded meanwhile counts as recorded; in a cycle, after the corrections "
        "of order parity and order coverage.",
        (ORDER_PARITY_KEY, ORDER_COVERAGE_KEY),
    ),
    asset_spec(
        SLICES_KEY,
        "exit_backfill",
        SLICES,
        {"pandas", "parquet"},
        "Trades that the ledger shows as open: entered, left and open quantity, entry side, entry price and times.\n\n"
        "Over-exited trades and trades outside the managed symbols are reported in the metadata, never hidden.",
        (LIFECYCLE_KEY,),
    ),
    asset_spec(
        PROPOSED_KEY,
        "exit_backfill",
        PROPOSALS,
        {"pandas", "parquet"},
        "**The plan.** Compensating EXIT rows, each citing the exchange order that proves it, and for every other open trade "
        "the reason why nothing is proposed.\n\n"
        "Read `decisions` and `reasons` first; `digest` is what `exit_backfill_apply` asks for. A plan that is not applied "
        "changes nothing.",
        (SLICES_KEY, EVIDENCE_KEY, POSITIONS_KEY),
    ),
    asset_spec(
        AUDIT_KEY,
        "exit_backfill",
        AUDIT_ROWS,
        {"postgres"},
        "Rows written to `reconciliation_backfill_audit`: what was decided for every trade and why. In a dry run the only "
        "thing that is written; in an apply they are committed before anything else.",
        (PROPOSED_KEY,),
    ),
    asset_spec(
        APPLIED_KEY,
        "exit_backfill",
        APPLIED,
        {"postgres"},
        "**Writes the bots' tables.** The backfill rows that an apply inserted, with the books it brought up to date, in one "
        "transaction behind the lease, the pause, the reviewed digest and the evidence, all checked again.\n\n"
        "Materializing this asset is an apply: it wants the digest of the plan that was read, and refuses without one. "
        "`exit_backfill_rollback` with the batch id takes it back.",
        (AUDIT_KEY,),
    ),
)
DRY_RUN_KEYS: Final = tuple(spec.key.to_user_string() for spec in SPECS if spec.key != dg.AssetKey(APPLIED_KEY))

EVIDENCE_IS_COMPLETE: Final = "evidence_is_complete"
NO_FILL_IS_USED_TWICE: Final = "no_fill_is_used_twice"
CONSERVATION_HOLDS: Final = "conservation_holds"
LEDGER_UNCHANGED: Final = "dry_run_left_the_ledger_unchanged"
PLANNING_AGAIN: Final = "planning_again_proposes_nothing"
NO_OVER_EXIT: Final = "no_trade_is_over_exited"
TRADING_IS_PAUSED: Final = "trading_is_paused"
NO_UNEXPECTED_SYMBOL: Final = "no_symbol_is_unexpectedly_open"

CHECKS: Final = (
    dg.AssetCheckSpec(
        EVIDENCE_IS_COMPLETE,
        asset=EVIDENCE_KEY,
        description="Everything that the exchange executed in the look-back was read: no page is missing, no page failed, both "
        "position readings agree, and the executions add up to each order's filled quantity.",
    ),
    dg.AssetCheckSpec(
        NO_FILL_IS_USED_TWICE,
        asset=EVIDENCE_KEY,
        description="No exchange order gives more than it executed, counting the ledger's own rows, live backfill rows and this "
        "plan (invariant 1).",
    ),
    dg.AssetCheckSpec(
        NO_UNEXPECTED_SYMBOL,
        asset=POSITIONS_KEY,
        description="Every symbol that the exchange account holds is explained by trades that are open in the ledger after the "
        "plan. A warning: positions opened by hand or by another program look like this.",
    ),
    dg.AssetCheckSpec(
        NO_OVER_EXIT,
        asset=SLICES_KEY,
        description="No trade has left more than it entered: no exit is recorded twice and no entry is missing.",
    ),
    dg.AssetCheckSpec(
        TRADING_IS_PAUSED,
        asset=PROPOSED_KEY,
        description="The bots of the profile are paused, so that nothing changes between the plan that is read and its apply.",
    ),
    dg.AssetCheckSpec(
        CONSERVATION_HOLDS,
        asset=PROPOSED_KEY,
        description="Per exchange order executed = represented + allocated + excess; per trade open = allocated + dust + "
        "remaining (invariants 1 and 2).",
    ),
    dg.AssetCheckSpec(
        LEDGER_UNCHANGED,
        asset=AUDIT_KEY,
        description="The profile's rows in orders, positions, trade_history and capital_ledger are the same before and after "
        "the dry run.",
    ),
    dg.AssetCheckSpec(
        PLANNING_AGAIN,
        asset=APPLIED_KEY,
        description="After the apply, reading everything and planning again proposes nothing (invariant 6), and the batch "
        "verifies in the database.",
    ),
)
