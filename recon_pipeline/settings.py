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
