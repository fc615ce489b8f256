"""The rules in force for a plan: one frozen value, filled by ``settings`` from the operator's environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from recon_pipeline.domain.terms import PositionGate


@dataclass(frozen=True)
class ExitBackfillPolicy:
    """Settings of the exit backfill. Every default is the safe choice, and that of the rollout checklist.

    Quantities are in units of the asset, ratios are plain (0.002 is 0.2 %), money is US dollars.
    """

    enabled: bool = False
    require_pause: bool = True
    profile_allowlist: frozenset[str] = field(default_factory=frozenset)
    """Profiles that may be attempted; empty allows all."""
    require_strong_attribution: bool = True
    allow_heuristic_match: bool = False
    grace_ms: int = 5 * 60 * 1000
    """How long before the trade an execution may lie (clocks differ). 0 is 0."""
    lookback_ms: int = 72 * 3600 * 1000
    """Executions older than this before ``now`` are no evidence."""
    dust_abs_qty: Decimal = Decimal("0.001")
    dust_rel: Decimal = Decimal("0.002")
    dust_max_notional_usd: Decimal = Decimal("1.00")
    crypto_fee_bps: Decimal = Decimal(25)
    """Crypto fees are taken from the received coin: this share of the entry may be missing from the exits."""
    position_gate: PositionGate = PositionGate.FLAT_OR_PARITY
    reapply_reverted: bool = False
    """Propose again what a rollback canceled. Only ever set for one run, by the person who asks for it."""
