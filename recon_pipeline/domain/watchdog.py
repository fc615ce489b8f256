"""The watchdogs of a profile: when people are called, when trading stops, and when it goes on by itself.

What belongs here: the verdicts as pure functions of counters, money and a remembered state. What does not: where the state
is kept (``ledger.cycle_state``), who pauses and resumes (``apply``), and how an event reaches anybody (``alerting``).
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

PARITY_WATCHDOG_SOURCE: Final = "recon_parity_watchdog"
"""Source of the pauses that the watchdog sets; it never resumes any other."""


@dataclass(frozen=True)
class WatchdogState:
    """What the watchdog of one profile remembers between two cycles: a row of ``recon.watchdogs``. No row: as built.

    Instants are milliseconds since 1970 UTC, None where it never happened.
    """

    profile_id: str
    triggered_ms: int | None = None
    """when the mismatch last passed the limit (column triggered_at)"""
    paused_ms: int | None = None
    """when the pause began that the watchdog itself set and that still stands (paused_at); None: none stands"""
    clean_cycles: int = 0
    """clean cycles in a row"""
    last_clean_ms: int | None = None
    """when the streak was last counted (last_clean_at)"""
    resumed_ms: int | None = None
    """when the watchdog last resumed trading by itself (resumed_at)"""
    mismatch_usd: Decimal | None = None
    """money out of line when it was last judged; None: never judged, or not known"""
    capital_usd: Decimal | None = None
    """allocated capital when it was last judged; None: not known, the watchdog can't judge"""
    reason: str = ""
    """the last verdict in a word"""
