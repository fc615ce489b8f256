"""The rules in force for a cycle beside those of the exit backfill (``policy``): frozen values, filled by ``settings``.

Every default is the safe choice: what writes is a dry run until the operator says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.policy import ExitBackfillPolicy


@dataclass(frozen=True)
class OrderParityPolicy:
    """Ledger orders against the exchange's orders."""

    enabled: bool = True
    """``ENABLE_RECON_ORDER_PARITY``"""
    dry_run: bool = True
    """``RECON_ORDER_PARITY_DRY_RUN``"""
    missing_confirmations: int = 3
    """``RECON_ORDER_MISSING_CONFIRMATIONS``: how many cycles the exchange must say that it does not know an order"""
    quiet_ms: int = 5_000
    """``RECON_ORDER_QUIET_PERIOD_SECONDS``: a row that was touched more recently is left for the next cycle"""
    max_lookups: int = 100
    """``RECON_ORDER_LOOKUPS_PER_CYCLE``: single look-ups per account and cycle, oldest rows first"""
    confirmation_spacing_ms: int = 150_000
    """``RECON_CONFIRMATION_SPACING_SECONDS``: two readings closer together than this count as one confirmation"""


@dataclass(frozen=True)
class OrderCoveragePolicy:
    """Executed orders of the exchange that the ledger lacks."""

    enabled: bool = True
    """``ENABLE_RECON_ORDER_COVERAGE``"""
    dry_run: bool = True
    """``RECON_ORDER_COVERAGE_DRY_RUN``"""
    baseline_ms: int = NO_TIME
    """``RECON_ORDER_COVERAGE_BASELINE`` (an instant): what executed before it is only counted; NO_TIME for none"""
    max_inserts: int = 50
    """``RECON_ORDER_COVERAGE_MAX_INSERTS``: rows per profile and cycle"""
    quiet_ms: int = 5_000
    """``RECON_ORDER_QUIET_PERIOD_SECONDS``: what executed more recently is left for the next cycle; its bot may be writing it"""


@dataclass(frozen=True)
class SubTagRepairPolicy:
    """Missing sub-tags of ledger rows."""

    enabled: bool = True
    """``ENABLE_RECON_SUB_TAG_REPAIR``"""
    dry_run: bool = True
    """``RECON_SUB_TAG_REPAIR_DRY_RUN``"""
    max_rows: int = 500
    """``RECON_SUB_TAG_REPAIR_MAX_ROWS``: rows per profile and cycle, rows of open trades first"""


@dataclass(frozen=True)
class PositionParityPolicy:
    """What the ledger leaves open against what the exchange holds."""

    enabled: bool = True
    """``ENABLE_RECON_POSITION_PARITY_HEARTBEAT``"""
    dry_run: bool = True
    """``RECON_POSITION_PARITY_DRY_RUN``"""
    confirmations: int = 3
    """``RECON_POSITION_PARITY_CONFIRMATIONS``"""
    require_sub_tag: bool = True
    """``RECON_POSITION_PARITY_REQUIRE_SUBTAG_ATTRIBUTION``"""
    max_notional_ratio: Decimal = Decimal("0.5")
    """``RECON_POSITION_PARITY_MAX_NOTIONAL_PCT``: of the allocated capital; above it the watchdog pauses trading"""
    confirmation_spacing_ms: int = 150_000
    """``RECON_CONFIRMATION_SPACING_SECONDS``"""
    dust_abs_qty: Decimal = Decimal("0.001")
    """``RECON_EXIT_BACKFILL_DUST_ABS_QTY``: a position of at most this is flat"""
    crypto_fee_bps: Decimal = Decimal(25)
    """``RECON_EXIT_BACKFILL_CRYPTO_FEE_BPS``"""
    lookback_ms: int = 72 * 3600 * 1000
    """look-back of the exit backfill: what executed before it was not read"""


@dataclass(frozen=True)
class WatchdogPolicy:
    """When people are called and when trading stops and goes on by itself."""

    integrity_enabled: bool = True
    """``ENABLE_RECON_INTEGRITY_WATCHDOG``"""
    missing_in_db_threshold: int = 1
    """``RECON_INTEGRITY_WATCHDOG_MISSING_DB_THRESHOLD``"""
    no_go_threshold: int = 1
    """``RECON_INTEGRITY_WATCHDOG_NO_GO_THRESHOLD``"""
    integrity_throttle_ms: int = 600_000
    """``RECON_INTEGRITY_WATCHDOG_THROTTLE_MS``"""
    skipped_throttle_ms: int = 600_000
    """``RECONCILIATION_SLO_ALERT_THROTTLE_MS``: of the alert that a safety step was skipped, by step and reason"""
    auto_resume: bool = True
    """``ENABLE_RECON_WATCHDOG_AUTO_RESUME``"""
    min_pause_ms: int = 900_000
    """``RECON_WATCHDOG_AUTO_RESUME_MIN_PAUSE_MS``"""
    clean_cycles: int = 2
    """``RECON_WATCHDOG_AUTO_RESUME_CLEAN_CYCLES``"""
    cooldown_ms: int = 1_800_000
    """``RECON_WATCHDOG_AUTO_RESUME_COOLDOWN_MS``: between two resumes of the watchdog's"""
    confirmation_spacing_ms: int = 150_000
    """``RECON_CONFIRMATION_SPACING_SECONDS``: two clean cycles closer together than this count as one"""


@dataclass(frozen=True)
class CyclePolicy:
    """Every rule of a cycle."""

    exit_backfill: ExitBackfillPolicy = field(default_factory=ExitBackfillPolicy)
    exit_backfill_dry_run: bool = True
    """``RECON_EXIT_BACKFILL_DRY_RUN``"""
    order_parity: OrderParityPolicy = field(default_factory=OrderParityPolicy)
    order_coverage: OrderCoveragePolicy = field(default_factory=OrderCoveragePolicy)
    sub_tag_repair: SubTagRepairPolicy = field(default_factory=SubTagRepairPolicy)
    position_parity: PositionParityPolicy = field(default_factory=PositionParityPolicy)
    watchdog: WatchdogPolicy = field(default_factory=WatchdogPolicy)
