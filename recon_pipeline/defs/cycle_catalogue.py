"""The assets and checks of the cycle beside those of the exit backfill: what each is, its columns, what it comes from.

Dagster concept: AssetSpec and AssetCheckSpec. Not here: the assets that the exit backfill has too (``catalogue``), how the
outcome of a cycle looks (``cycle_presentation``) and is judged (``cycle_checks``).
"""

from typing import Final

import dagster as dg

from recon_pipeline.defs import catalogue as cat
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.cycle_frames import PARITY_STATES
from recon_pipeline.domain.frames import Column, Schema

RUNBOOK: Final = "docs/runbooks/divergence.md"

ORDER_PARITY_KEY: Final = cat.ORDER_PARITY_KEY
ORDER_COVERAGE_KEY: Final = cat.ORDER_COVERAGE_KEY
SUB_TAG_KEY: Final = "sub_tag_repair"
POSITION_PARITY_KEY: Final = "position_parity"
REPORT_KEY: Final = "reconciliation_report"
BOARD_KEY: Final = "operations_board"

STAGE_OF: Final[dict[str, Stage]] = {
    ORDER_PARITY_KEY: Stage.ORDER_PARITY,
    ORDER_COVERAGE_KEY: Stage.ORDER_COVERAGE,
    SUB_TAG_KEY: Stage.SUB_TAG_REPAIR,
    POSITION_PARITY_KEY: Stage.POSITION_PARITY,
}
"""The assets that show one stage of the cycle each."""

CORRECTIONS: Final = Schema(
    "corrections",
    (
        Column("profile_id", "text", "profile of the row"),
        Column("stage", "text", "stage that decided it"),
        Column("batch_id", "text", "batch of the stage, in recon.batches and recon.corrections"),
        Column("order_id", "text", "key of the row in orders"),
        Column("trade_id", "text", "trade of the row"),
        Column("handler", "text", "what kind of change it is"),
        Column("state", "text", "written, dry_run, postponed or not_written"),
        Column("reason", "text", "why it was postponed"),
        Column("before", "list", "the row as it was; none where it is new"),
        Column("after", "list", "the columns that change"),
        Column("cause", "list", "the rule, and the exchange's facts cited"),
        Column("exchange_order_id", "text", "the order that the row represents after the change"),
        Column("represents_e9", "quantity", "how much of it", "1e-9 units of the asset"),
    ),
)
FINDINGS: Final = Schema(
    "findings",
    (
        Column("profile_id", "text", "profile"),
        Column("stage", "text", "stage that found it"),
        Column("reason", "text", "what it is"),
        Column("order_id", "text", "key of the row in orders"),
        Column("trade_id", "text", "trade"),
        Column("symbol", "text", "symbol"),
        Column("exchange_order_id", "text", "the exchange's order"),
        Column("needs_person", "bool", "no later cycle can resolve it"),
        Column("detail", "list", "numbers and texts behind it"),
    ),
)
REPORT: Final = Schema(
    "reconciliation_report",
    (
        Column("profile_id", "text", "profile"),
        Column("run_id", "text", "run of the cycle"),
        Column("cycle_at_ms", "instant", "when the cycle read", "ms since 1970, UTC"),
        Column("processed", "bool", "the cycle decided something about the profile"),
        Column("clean", "bool", "in line, nothing postponed, nothing failed, everything read"),
        Column("report", "list", "the counters, by the names of recon.cycle_reports"),
    ),
)


def _spec(
    key: str, schema: Schema, description: str, deps: tuple[str, ...], kinds: set[str] | None = None
) -> dg.AssetSpec:
    return cat.asset_spec(
        key,
        "reconciliation",
        schema,
        kinds or {"postgres", "parquet"},
        description,
        deps,
        domain="reconciliation",
        runbook=RUNBOOK,
    )


SPECS: Final = (
    _spec(
        ORDER_PARITY_KEY,
        CORRECTIONS,
        "**Writes the bots' tables** where RECON_ORDER_PARITY_DRY_RUN is false. Rows of `orders` that the ledger holds as open "
        "against the exchange's orders: fills, growing partial fills, cancels, rejections, live orders that the ledger lacks, "
        "and stand-ins whose own row has arrived.\n\n"
        "An order that the exchange says it does not know is canceled only after several cycles that say the same.",
        (cat.EXCHANGE_ORDERS_KEY,),
    ),
    _spec(
        ORDER_COVERAGE_KEY,
        CORRECTIONS,
        "**Writes the bots' tables** where RECON_ORDER_COVERAGE_DRY_RUN is false. Executed orders of the exchange that belong "
        "to the profile and that the ledger lacks, inserted under the exchange's id; its counters partition everything that "
        "was scanned.",
        (cat.EXCHANGE_ORDERS_KEY, ORDER_PARITY_KEY),
    ),
    _spec(
        SUB_TAG_KEY,
        CORRECTIONS,
        "**Writes the bots' tables** where RECON_SUB_TAG_REPAIR_DRY_RUN is false. Missing sub-tags filled in from what the "
        "exchange recorded or the trade proves. Never a quantity.",
        (cat.LIFECYCLE_KEY,),
    ),
    _spec(
        POSITION_PARITY_KEY,
        PARITY_STATES,
        "**Writes the bots' tables** where RECON_POSITION_PARITY_DRY_RUN is false. Trades that the ledger leaves open against "
        "what the account holds: how often in a row they were out of line, why they are not closed, and the synthetic exits "
        "of those that are proven flat.",
        (cat.SLICES_KEY, cat.POSITIONS_KEY, cat.PROPOSED_KEY, SUB_TAG_KEY),
    ),
    _spec(
        REPORT_KEY,
        REPORT,
        "**The cycle.** Materializing it runs order parity, order coverage, exit backfill, integrity watchdog, sub-tag repair "
        "and position parity for the profile, each as its own settings say, and reports what was out of line, what was "
        "corrected and why, and what waits for a person.\n\n"
        "The schedule selects this asset alone; the others are reported for profiles whose content changed. Read `outcome`, "
        "then `needs_a_person`, then `corrections`; `last_cycles` says since when. The `operations_board` shows all profiles.",
        (
            ORDER_PARITY_KEY,
            ORDER_COVERAGE_KEY,
            cat.PROPOSED_KEY,
            SUB_TAG_KEY,
            POSITION_PARITY_KEY,
        ),
    ),
)

CYCLE_KEYS: Final = tuple(spec.key.to_user_string() for spec in SPECS)
BACKFILL_KEYS: Final = (cat.SLICES_KEY, cat.PROPOSED_KEY, cat.AUDIT_KEY)
"""Assets of the exit backfill that a cycle shows from its plan."""
READING_KEYS: Final = (cat.EXCHANGE_ORDERS_KEY, cat.POSITIONS_KEY, cat.EVIDENCE_KEY, cat.LIFECYCLE_KEY)
"""Assets of the readings that a cycle stands on."""
JOB_KEYS: Final = (*READING_KEYS, *BACKFILL_KEYS, *CYCLE_KEYS)
"""What the job ``reconcile`` selects. Backfill rows are shown where a cycle applied some, without being selected."""

LEDGER_IS_IN_LINE: Final = "ledger_is_in_line"
NOBODY_IS_NEEDED: Final = "no_trade_waits_for_a_person"
NOTHING_POSTPONED: Final = "no_correction_is_postponed"
EVERY_STAGE_RAN: Final = "every_stage_ran"
WATCHDOG_IS_QUIET: Final = "watchdog_is_quiet"
LEASE_IS_FREE: Final = "lease_is_free"
ROWS_ARE_USABLE: Final = "every_ledger_row_is_usable"

_CHECKED: Final[dict[str, str]] = {
    LEDGER_IS_IN_LINE: "After the cycle no order differs between ledger and exchange, none is missing on either side, and what "
    "the ledger leaves open is what the account holds. It does not hold where the exchange could not be read completely: "
    "unknown is not in line.",
    NOBODY_IS_NEEDED: "Everything that is out of line can be resolved by a later cycle. Where it does not hold, the sample "
    "names what a person has to decide, and how.",
    NOTHING_POSTPONED: "Every correction that the cycle decided was written, or is a dry run. A postponed one found its row or "
    "its evidence changed meanwhile; the next cycle decides it again.",
    EVERY_STAGE_RAN: "No step of the cycle failed, and none was skipped but by the operator's own settings (switched off, not on "
    "the allow list, waiting for a pause). A step that does not run finds nothing.",
    WATCHDOG_IS_QUIET: "Neither watchdog is triggered, and trading is not paused by one.",
    LEASE_IS_FREE: "No other run held the profile's lease when the cycle began.",
    ROWS_ARE_USABLE: "Every row of the profile in orders has a readable quantity, side, symbol and time, and no trade has left "
    "more than it entered.",
}
CHECKS: Final = tuple(dg.AssetCheckSpec(name, asset=REPORT_KEY, description=text) for name, text in _CHECKED.items())
BACKFILL_CHECKS: Final = (cat.EVIDENCE_IS_COMPLETE,)
"""Checks of the exit backfill that a cycle evaluates too; the others want a plan, which it has only while trading is paused."""
