"""The only reader of the environment: every setting by its name, typed, validated, each default the safe choice.

What does not belong here: reading at import time, and any default that would hide a mistyped value: a setting that is
there and can't be read is an error that names it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from recon_pipeline.alerting.destination import AlertSettings
from recon_pipeline.domain.cycle_policy import (
    CyclePolicy,
    OrderCoveragePolicy,
    OrderParityPolicy,
    PositionParityPolicy,
    SubTagRepairPolicy,
    WatchdogPolicy,
)
from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.instants import parse_instant
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.quantities import EXACT, parse_decimal
from recon_pipeline.domain.terms import PositionGate

PAPER_URL: Final = "https://paper-api.alpaca.markets"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_MOST_DECIMALS: Final = 18
_SMALLEST: Final = Decimal(1).scaleb(-_MOST_DECIMALS)
_MOST_DUST: Final = Decimal(1_000_000)
_MS_PER_HOUR: Final = 3_600_000
_MS_PER_MINUTE: Final = 60_000


class SettingError(ValueError):
    """A setting can't be read; the message names it, what it is and what it must be, never a secret's value."""


class _Reader:
    """Typed look-ups in a mapping of settings: environment text or JSON values."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def raw(self, name: str) -> object:
        value = self._values.get(name)
        return None if isinstance(value, str) and not value.strip() else value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        text = str(value).strip().lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise SettingError(f"{name} is {value!r}; give true or false")

    def number(
        self, name: str, *, default: Decimal, least: Decimal = Decimal(0), most: Decimal | None = None
    ) -> Decimal:
        value = self.raw(name)
        if value is None:
            return default
        number = parse_decimal(value)
        if number is None or number < least or (most is not None and number > most):
            limit = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise SettingError(f"{name} is {value!r}; give a number {limit}")
        if number != number.quantize(_SMALLEST, context=EXACT):
            raise SettingError(f"{name} is {value!r}; give at most {_MOST_DECIMALS} decimals")
        return number

    def integer(self, name: str, *, default: int, least: int = 0, most: int | None = None) -> int:
        number = self.number(
            name, default=Decimal(default), least=Decimal(least), most=None if most is None else Decimal(most)
        )
        if number != int(number):
            raise SettingError(f"{name} is {number}; give a whole number")
        return int(number)

    def milliseconds(self, name: str, *, default: int, unit_ms: int, most: int = 10**9) -> int:
        """A duration that the setting gives in units of ``unit_ms`` and the program keeps in milliseconds."""
        value = self.number(name, default=Decimal(default) / unit_ms, most=Decimal(most))
        return int(value * unit_ms)

    def instant(self, name: str) -> int:
        value = self.raw(name)
        if value is None:
            return NO_TIME
        moment = parse_instant(value)
        if moment is None:
            raise SettingError(f"{name} is {value!r}; give an instant such as 2026-01-31T00:00:00Z")
        return moment

    def choice(self, name: str, *, default: str, choices: tuple[str, ...]) -> str:
        text = self.text(name, default=default)
        known = {choice.lower(): choice for choice in choices}
        if text.lower() not in known:
            raise SettingError(f"{name} is {text!r}; give one of {', '.join(choices)}")
        return known[text.lower()]

    def words(self, name: str) -> tuple[str, ...] | None:
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, str):
            return tuple(word for part in value.split(",") if (word := part.strip()))
        if isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value):
            return tuple(word.strip() for word in value if word.strip())
        raise SettingError(f"{name} is {value!r}; give a list of texts, or one text with commas")

    def text(self, name: str, *, default: str = "") -> str:
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise SettingError(f"{name} is {value!r}; give a text")
        return value.strip()


def read_exit_backfill_policy(values: Mapping[str, object]) -> ExitBackfillPolicy:
    """The rules of the exit backfill from settings by their environment names; JSON values and text are both read.

    :raises SettingError: a value that is there can't be read; NaN, negative numbers and unknown gates are such values
    """
    read = _Reader(values)
    prefix = "RECON_EXIT_BACKFILL_"
    standard = ExitBackfillPolicy()
    gate_text = read.text(f"{prefix}POSITION_GATE", default=standard.position_gate.value).lower()
    try:
        gate = PositionGate(gate_text)
    except ValueError:
        gates = ", ".join(gate.value for gate in PositionGate)
        raise SettingError(f"{prefix}POSITION_GATE is {gate_text!r}; give one of {gates}") from None
    grace = read.number(f"{prefix}FILL_AFTER_TRADE_GRACE_MINUTES", default=Decimal(5), most=Decimal(10_080))
    lookback = read.number(f"{prefix}LOOKBACK_HOURS", default=Decimal(72), most=Decimal(87_600))
    return ExitBackfillPolicy(
        enabled=read.flag("ENABLE_RECON_EXIT_BACKFILL", default=standard.enabled),
        require_pause=read.flag(f"{prefix}REQUIRE_PAUSE", default=standard.require_pause),
        profile_allowlist=frozenset(read.words(f"{prefix}PROFILE_ALLOWLIST") or ()),
        require_strong_attribution=read.flag(
            f"{prefix}REQUIRE_STRONG_ATTRIBUTION", default=standard.require_strong_attribution
        ),
        allow_heuristic_match=read.flag(f"{prefix}ALLOW_HEURISTIC_MATCH", default=standard.allow_heuristic_match),
        grace_ms=int(grace * _MS_PER_MINUTE),
        lookback_ms=int(lookback * _MS_PER_HOUR),
        dust_abs_qty=read.number(f"{prefix}DUST_ABS_QTY", default=standard.dust_abs_qty, most=_MOST_DUST),
        dust_rel=read.number(f"{prefix}DUST_REL_PCT", default=standard.dust_rel, most=Decimal(1)),
        dust_max_notional_usd=read.number(f"{prefix}DUST_MAX_NOTIONAL_USD", default=standard.dust_max_notional_usd),
        crypto_fee_bps=read.number(f"{prefix}CRYPTO_FEE_BPS", default=standard.crypto_fee_bps, most=Decimal(10_000)),
        position_gate=gate,
    )


def read_cycle_policy(values: Mapping[str, object]) -> CyclePolicy:
    """The rules of the cycle from settings by their environment names.

    :raises SettingError: a value that is there can't be read
    """
    read = _Reader(values)
    backfill = read_exit_backfill_policy(values)
    orders, coverage, tags = OrderParityPolicy(), OrderCoveragePolicy(), SubTagRepairPolicy()
    positions, watchdog = PositionParityPolicy(), WatchdogPolicy()
    spacing = read.milliseconds(
        "RECON_CONFIRMATION_SPACING_SECONDS", default=orders.confirmation_spacing_ms, unit_ms=1_000
    )
    quiet = read.milliseconds("RECON_ORDER_QUIET_PERIOD_SECONDS", default=orders.quiet_ms, unit_ms=1_000)
    resume = "RECON_WATCHDOG_AUTO_RESUME_"
    return CyclePolicy(
        exit_backfill=backfill,
        exit_backfill_dry_run=read.flag("RECON_EXIT_BACKFILL_DRY_RUN", default=True),
        order_parity=OrderParityPolicy(
            enabled=read.flag("ENABLE_RECON_ORDER_PARITY", default=orders.enabled),
            dry_run=read.flag("RECON_ORDER_PARITY_DRY_RUN", default=orders.dry_run),
            missing_confirmations=read.integer(
                "RECON_ORDER_MISSING_CONFIRMATIONS", default=orders.missing_confirmations, least=1
            ),
            quiet_ms=quiet,
            max_lookups=read.integer("RECON_ORDER_LOOKUPS_PER_CYCLE", default=orders.max_lookups, least=0),
            confirmation_spacing_ms=spacing,
        ),
        order_coverage=OrderCoveragePolicy(
            enabled=read.flag("ENABLE_RECON_ORDER_COVERAGE", default=coverage.enabled),
            dry_run=read.flag("RECON_ORDER_COVERAGE_DRY_RUN", default=coverage.dry_run),
            baseline_ms=read.instant("RECON_ORDER_COVERAGE_BASELINE"),
            max_inserts=read.integer("RECON_ORDER_COVERAGE_MAX_INSERTS", default=coverage.max_inserts),
            quiet_ms=quiet,
        ),
        sub_tag_repair=SubTagRepairPolicy(
            enabled=read.flag("ENABLE_RECON_SUB_TAG_REPAIR", default=tags.enabled),
            dry_run=read.flag("RECON_SUB_TAG_REPAIR_DRY_RUN", default=tags.dry_run),
            max_rows=read.integer("RECON_SUB_TAG_REPAIR_MAX_ROWS", default=tags.max_rows),
        ),
        position_parity=PositionParityPolicy(
            enabled=read.flag("ENABLE_RECON_POSITION_PARITY_HEARTBEAT", default=positions.enabled),
            dry_run=read.flag("RECON_POSITION_PARITY_DRY_RUN", default=positions.dry_run),
            confirmations=read.integer("RECON_POSITION_PARITY_CONFIRMATIONS", default=positions.confirmations, least=1),
            require_sub_tag=read.flag(
                "RECON_POSITION_PARITY_REQUIRE_SUBTAG_ATTRIBUTION", default=positions.require_sub_tag
            ),
            max_notional_ratio=read.number(
                "RECON_POSITION_PARITY_MAX_NOTIONAL_PCT", default=positions.max_notional_ratio
            ),
            confirmation_spacing_ms=spacing,
            dust_abs_qty=backfill.dust_abs_qty,
            crypto_fee_bps=backfill.crypto_fee_bps,
            lookback_ms=backfill.lookback_ms,
        ),
        watchdog=WatchdogPolicy(
            integrity_enabled=read.flag("ENABLE_RECON_INTEGRITY_WATCHDOG", default=watchdog.integrity_enabled),
            missing_in_db_threshold=read.integer(
                "RECON_INTEGRITY_WATCHDOG_MISSING_DB_THRESHOLD", default=watchdog.missing_in_db_threshold, least=1
            ),
            no_go_threshold=read.integer(
                "RECON_INTEGRITY_WATCHDOG_NO_GO_THRESHOLD", default=watchdog.no_go_threshold, least=1
            ),
            integrity_throttle_ms=read.integer(
                "RECON_INTEGRITY_WATCHDOG_THROTTLE_MS", default=watchdog.integrity_throttle_ms
            ),
            skipped_throttle_ms=read.integer(
                "RECONCILIATION_SLO_ALERT_THROTTLE_MS", default=watchdog.skipped_throttle_ms
            ),
            auto_resume=read.flag("ENABLE_RECON_WATCHDOG_AUTO_RESUME", default=watchdog.auto_resume),
            min_pause_ms=read.integer(f"{resume}MIN_PAUSE_MS", default=watchdog.min_pause_ms),
            clean_cycles=read.integer(f"{resume}CLEAN_CYCLES", default=watchdog.clean_cycles, least=1),
            cooldown_ms=read.integer(f"{resume}COOLDOWN_MS", default=watchdog.cooldown_ms),
            confirmation_spacing_ms=spacing,
        ),
    )


def read_order_status_policy(values: Mapping[str, object]) -> OrderStatusPolicy:
    """The rules of the order status sync from settings by their environment names.

    :raises SettingError: a value that is there can't be read
    """
    read = _Reader(values)
    standard = OrderStatusPolicy()
    minutes = {"unit_ms": _MS_PER_MINUTE, "most": 1_000_000}
    return OrderStatusPolicy(
        enabled=read.flag("ENABLE_RECON_ORDER_STATUS_SYNC", default=standard.enabled),
        dry_run=read.flag("RECON_ORDER_STATUS_DRY_RUN", default=standard.dry_run),
        interval_ms=read.integer(
            "RECON_ORDER_STATUS_INTERVAL_MINUTES", default=standard.interval_ms // _MS_PER_MINUTE, least=1, most=1_440
        )
        * _MS_PER_MINUTE,
        stale_ms=read.milliseconds("RECON_ORDER_STALE_MINUTES", default=standard.stale_ms, **minutes),
        batch_size=read.integer("RECON_ORDER_STATUS_BATCH_SIZE", default=standard.batch_size, least=1, most=10_000),
        bulk_pages=read.integer("RECON_ORDER_STATUS_BULK_PAGES", default=standard.bulk_pages, most=100),
        unknown_after_ms=read.milliseconds(
            "RECON_ORDER_UNKNOWN_AFTER_HOURS", default=standard.unknown_after_ms, unit_ms=_MS_PER_HOUR, most=87_600
        ),
        quiet_ms=read.milliseconds("RECON_ORDER_QUIET_PERIOD_SECONDS", default=standard.quiet_ms, unit_ms=1_000),
        retry_cap_ms=read.milliseconds(
            "RECON_ORDER_STATUS_RETRY_CAP_MINUTES", default=standard.retry_cap_ms, **minutes
        ),
        alert_after_ms=read.milliseconds("RECON_STALE_ORDER_ALERT_MINUTES", default=standard.alert_after_ms, **minutes),
        alert_throttle_ms=read.integer("RECON_STALE_ORDER_ALERT_THROTTLE_MS", default=standard.alert_throttle_ms),
    )


def _read_alerts(read: _Reader) -> AlertSettings:
    return AlertSettings(
        webhook_url=read.text("RECON_ALERT_WEBHOOK_URL"),
        webhook_format=read.choice("RECON_ALERT_WEBHOOK_FORMAT", default="slack", choices=("slack", "json")),
        min_severity=read.choice("RECON_ALERT_MIN_SEVERITY", default="WARN", choices=("INFO", "WARN", "ERROR")),
        timeout_seconds=float(
            read.number("RECON_ALERT_TIMEOUT_SECONDS", default=Decimal(10), least=Decimal("0.1"), most=Decimal(50))
        ),
    )


@dataclass(frozen=True)
class ServeSettings:
    """Of ``recon serve``."""

    host: str = "127.0.0.1"
    """``RECON_SERVE_HOST``"""
    port: int = 8080
    """``RECON_SERVE_PORT``"""
    token: str = field(default="", repr=False)
    """``RECON_SERVE_TOKEN``: what a request has to present; required where the address is not this machine's own"""
    hosts: tuple[str, ...] = ()
    """``RECON_SERVE_HOSTS``: further names that the Host header may have where there is no token, such as a proxy's"""
    refresh_seconds: float = 5.0
    """``RECON_SERVE_REFRESH_SECONDS``: between two readings of the database"""
    max_age_seconds: float = 60.0
    """``RECON_SERVE_MAX_AGE_SECONDS``: an older reading makes the health bad, and /metrics unavailable"""
    metrics_max_profiles: int = 1_000
    """``RECON_METRICS_MAX_PROFILES``: profiles with series of their own"""


def _read_serve(read: _Reader) -> ServeSettings:
    standard = ServeSettings()
    return ServeSettings(
        host=read.text("RECON_SERVE_HOST", default=standard.host),
        port=read.integer("RECON_SERVE_PORT", default=standard.port, least=1, most=65_535),
        token=read.text("RECON_SERVE_TOKEN"),
        hosts=read.words("RECON_SERVE_HOSTS") or (),
        refresh_seconds=float(
            read.number("RECON_SERVE_REFRESH_SECONDS", default=Decimal(5), least=Decimal("0.2"), most=Decimal(3600))
        ),
        max_age_seconds=float(
            read.number("RECON_SERVE_MAX_AGE_SECONDS", default=Decimal(60), least=Decimal(1), most=Decimal(86_400))
        ),
        metrics_max_profiles=read.integer("RECON_METRICS_MAX_PROFILES", default=standard.metrics_max_profiles),
    )


@dataclass(frozen=True)
class AccountKeys:
    """The keys of one exchange account. The secret never shows in ``repr``."""

    account_id: str
    key_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    base_url: str


@dataclass(frozen=True)
class Settings:
    """Everything that the operator may set, read once by what starts a process."""

    exit_backfill: ExitBackfillPolicy
    cycle: CyclePolicy
    """the rules of the five-minute cycle; its ``exit_backfill`` is the same as above"""
    alerts: AlertSettings
    order_status: OrderStatusPolicy
    """the rules of the order status sync and of the stream"""
    serve: ServeSettings
    late_minutes: int
    """``RECON_HEALTH_LATE_MINUTES``: a profile without a cycle for longer makes the health bad"""
    exit_backfill_dry_run: bool
    """``RECON_EXIT_BACKFILL_DRY_RUN``: the scheduled cycle only proposes"""
    require_review: bool
    """``RECON_EXIT_BACKFILL_REQUIRE_REVIEW``: an apply wants the digest of the plan that was read"""
    managed_symbols: tuple[str, ...] | None
    """``RECON_MANAGED_SYMBOLS``: symbols in scope; absent means all"""
    database_url: str = field(repr=False)
    """``RECON_DATABASE_URL``"""
    snapshot_url: str
    """``RECON_SNAPSHOT_URL``: a directory, or any fsspec URL"""
    dashboard_url: str
    """``RECON_DAGSTER_URL``: the address of the Dagster UI, for links"""
    request_timeout_seconds: float
    rate_per_minute: int
    evidence_overlap_hours: int
    evidence_max_pages: int
    shard_size: int
    lease_seconds: int
    stuck_batch_seconds: int
    """a batch that is PENDING_APPLY for longer has no run behind it"""
    _environment: Mapping[str, str] = field(repr=False)

    def account(self, account_id: str) -> AccountKeys:
        """The keys of an account: ``RECON_ACCOUNT_<ID>_KEY_ID``, ``_SECRET_KEY``, ``_BASE_URL``, else ``APCA_API_...``.

        ``<ID>`` is the account id in upper case with everything outside A-Z0-9 as ``_``. Only an account without any
        variable of its own uses the shared ones.

        :raises SettingError: no keys for the account; the message names the variables
        """
        prefix = "RECON_ACCOUNT_" + "".join(c if c.isalnum() and c.isascii() else "_" for c in account_id.upper()) + "_"
        own = any(self._environment.get(prefix + name) for name in ("KEY_ID", "SECRET_KEY"))
        key_name, secret_name = (
            (prefix + "KEY_ID", prefix + "SECRET_KEY") if own else ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY")
        )
        key_id, secret = self._environment.get(key_name, "").strip(), self._environment.get(secret_name, "").strip()
        if not key_id or not secret:
            missing = key_name if not key_id else secret_name
            raise SettingError(
                f"account {account_id!r} has no keys: {missing} is not set; set {prefix}KEY_ID and {prefix}SECRET_KEY"
            )
        shared_url = self._environment.get("APCA_API_BASE_URL", "").strip() or PAPER_URL
        return AccountKeys(
            account_id, key_id, secret, self._environment.get(prefix + "BASE_URL", "").strip() or shared_url
        )


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process, from ``os.environ`` unless another mapping is given.

    :raises SettingError: a variable that is set can't be read
    """
    values = dict(os.environ if environment is None else environment)
    read = _Reader(values)
    return Settings(
        exit_backfill=read_exit_backfill_policy(values),
        cycle=read_cycle_policy(values),
        alerts=_read_alerts(read),
        order_status=read_order_status_policy(values),
        serve=_read_serve(read),
        late_minutes=read.integer("RECON_HEALTH_LATE_MINUTES", default=15, least=1),
        exit_backfill_dry_run=read.flag("RECON_EXIT_BACKFILL_DRY_RUN", default=True),
        require_review=read.flag("RECON_EXIT_BACKFILL_REQUIRE_REVIEW", default=True),
        managed_symbols=read.words("RECON_MANAGED_SYMBOLS"),
        database_url=read.text("RECON_DATABASE_URL"),
        snapshot_url=read.text("RECON_SNAPSHOT_URL", default=str(Path(".recon", "snapshots").absolute())),
        dashboard_url=read.text("RECON_DAGSTER_URL", default="http://127.0.0.1:3000").rstrip("/"),
        request_timeout_seconds=float(
            read.number("RECON_EXCHANGE_TIMEOUT_SECONDS", default=Decimal(10), least=Decimal("0.1"))
        ),
        rate_per_minute=read.integer("RECON_EXCHANGE_RATE_PER_MINUTE", default=200, least=1),
        evidence_overlap_hours=read.integer("RECON_EVIDENCE_OVERLAP_HOURS", default=72, least=1),
        evidence_max_pages=read.integer("RECON_EVIDENCE_MAX_PAGES", default=1000, least=1),
        shard_size=read.integer("RECON_SHARD_SIZE", default=200, least=1),
        lease_seconds=read.integer("RECON_LEASE_SECONDS", default=60, least=5),
        stuck_batch_seconds=read.integer("RECON_STUCK_BATCH_SECONDS", default=300, least=10),
        _environment=values,
    )
