"""The watchdogs of a profile: when people are called, when trading stops, and when it goes on by itself.

What belongs here: the verdicts as pure functions of counters, money and a remembered state. What does not: where the state
is kept (``ledger.cycle_state``), who pauses and resumes (``apply``), and how an event reaches anybody (``alerting``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Final

from recon_pipeline.domain.corrections import Event, EventType, Finding, Severity, Stage
from recon_pipeline.domain.cycle_policy import PositionParityPolicy, WatchdogPolicy
from recon_pipeline.domain.quantities import EXACT, decimal_text

PARITY_WATCHDOG_SOURCE: Final = "recon_parity_watchdog"
"""Source of the pauses that the watchdog sets; it never resumes any other."""

_DISABLED: Final = "disabled"
_STREAK_IS_FRESH_MS: Final = 900_000
"""Three cycles: a streak that was last counted longer ago says nothing of now (nothing could be read since)."""


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


class SafetyStep(StrEnum):
    """Steps whose absence is worth an alert, as the source names them in its scopes."""

    COVERAGE = "coverage"
    BACKFILL = "backfill"


_STEP_TEXT: Final = {
    SafetyStep.COVERAGE: "Order coverage reconciliation",
    SafetyStep.BACKFILL: "EXIT backfill reconciliation",
}


class WatchdogReason(StrEnum):
    """The parity watchdog's verdicts and the reasons why trading is (not) resumed."""

    IN_LINE = "in_line"
    WITHIN_LIMIT = "within_limit"
    TRIGGERED = "notional_over_limit"
    CAPITAL_UNKNOWN = "capital_unknown"
    PRICE_UNKNOWN = "price_unknown"
    # of a resume
    RESUMED = "resumed"
    DISABLED = "auto_resume_disabled"
    NOT_PAUSED = "not_paused"
    PAUSED_BY_OTHER = "paused_by_other"
    MIN_PAUSE = "min_pause"
    NOT_CLEAN = "not_clean_long_enough"
    STREAK_STALE = "clean_streak_is_stale"
    COOLDOWN = "cooldown"


@dataclass(frozen=True)
class Pause:
    """A row of ``trading_control`` in the state PAUSED that holds for a profile: its own, or that of all trading."""

    scope: str
    """the profile's id, or ``all``"""
    source: str
    since_ms: int


@dataclass(frozen=True)
class IntegrityVerdict:
    """Whether the counters of a cycle are beyond the thresholds, and the event to raise (its throttle decides if)."""

    triggered: bool
    event: Event | None = None


@dataclass(frozen=True)
class ParityVerdict:
    """What the parity watchdog concludes from the money out of line of one profile."""

    triggered: bool
    pause: bool
    """trading of the profile is to be paused, with the source PARITY_WATCHDOG_SOURCE and ``pause_reason``"""
    reason: WatchdogReason
    state: WatchdogState
    pause_reason: str = ""
    events: tuple[Event, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class ResumeDecision:
    """Whether the watchdog lifts its pause, or why not."""

    resume: bool
    reason: WatchdogReason
    not_before_ms: int | None = None
    """where only time is missing: when that will have passed"""


def judge_integrity(
    profile_id: str,
    user_id: str,
    *,
    missing_in_db: int,
    no_go_trades: int,
    policy: WatchdogPolicy,
    account_id: str = "",
) -> IntegrityVerdict:
    """Trigger at either threshold (at least 1 each); a throttled event is still a triggered watchdog. As in 001."""
    missing_threshold = max(1, policy.missing_in_db_threshold)
    no_go_threshold = max(1, policy.no_go_threshold)
    if not policy.integrity_enabled or (missing_in_db < missing_threshold and no_go_trades < no_go_threshold):
        return IntegrityVerdict(triggered=False)
    event = Event(
        EventType.RECONCILIATION_DEGRADED,
        Severity.ERROR,
        f"Reconciliation integrity watchdog triggered for {profile_id}: missing_in_db={missing_in_db}"
        f" (threshold={missing_threshold}), no_go={no_go_trades} (threshold={no_go_threshold}).",
        profile_id=profile_id,
        user_id=user_id,
        account_id=account_id,
        details={"missing_in_db": missing_in_db, "no_go_trades": no_go_trades},
        scope=f"{profile_id}:integrity_watchdog",
        throttle_ms=max(0, policy.integrity_throttle_ms),
    )
    return IntegrityVerdict(triggered=True, event=event)


def skipped_step_event(
    profile_id: str, user_id: str, step: SafetyStep, reason: str, policy: WatchdogPolicy, *, account_id: str = ""
) -> Event:
    """The alert that a safety step was not attempted: ERROR where somebody disabled it, else WARN. As in 001."""
    return Event(
        EventType.RECONCILIATION_DEGRADED,
        Severity.ERROR if reason == _DISABLED else Severity.WARN,
        f"{_STEP_TEXT[step]} skipped ({reason}) for profile {profile_id}.",
        profile_id=profile_id,
        user_id=user_id,
        account_id=account_id,
        details={"step": step.value, "reason": reason},
        scope=f"{profile_id}:{step.value}:{reason}",
        throttle_ms=max(0, policy.skipped_throttle_ms),
    )


def audit_table_missing_event(profile_id: str, user_id: str, policy: WatchdogPolicy, *, account_id: str = "") -> Event:
    """The alert that the exit backfill can't write its audit, beside the one that it was skipped. As in 000."""
    return Event(
        EventType.SYSTEM_ERROR,
        Severity.ERROR,
        f"Reconciliation EXIT backfill aborted: audit table missing for profile {profile_id}",
        profile_id=profile_id,
        user_id=user_id,
        account_id=account_id,
        scope=f"{profile_id}:audit_table_missing",
        throttle_ms=max(0, policy.skipped_throttle_ms),
    )


def failed_profile_event(
    profile_id: str,
    user_id: str,
    message: str,
    policy: WatchdogPolicy,
    *,
    account_id: str = "",
    failed_steps: Iterable[str] = (),
) -> Event:
    """The alert that a profile's cycle, or a step of it, failed. As in 001, but throttled like a skipped step.

    The source raised it every time: an exchange that is away for an hour would be twelve alerts for each profile. With
    RECONCILIATION_SLO_ALERT_THROTTLE_MS=0 it still is.
    """
    return Event(
        EventType.RECONCILIATION_DEGRADED,
        Severity.ERROR,
        f"Reconciliation failed for profile {profile_id}: {message}",
        profile_id=profile_id,
        user_id=user_id,
        account_id=account_id,
        details={"stages": list(failed_steps)},
        scope=f"{profile_id}:failed",
        throttle_ms=max(0, policy.skipped_throttle_ms),
    )


def judge_parity(
    state: WatchdogState,
    *,
    mismatch_usd: Decimal,
    unpriced_trades: int,
    capital_usd: Decimal | None,
    pauses: Iterable[Pause],
    policy: PositionParityPolicy,
    watchdog: WatchdogPolicy,
    now_ms: int,
    user_id: str = "",
    account_id: str = "",
) -> ParityVerdict:
    """Pause where the money out of line is more than its share of the allocated capital.

    Only called for a profile whose position parity was decided: what is not known triggers nothing and clears nothing.
    A pause that somebody else set on the profile is never taken over, else the watchdog could lift it. A pause of its own
    that the state does not know (a crash came between) is recognised by its source.

    :param mismatch_usd: money out of line of the trades whose price is known
    :param capital_usd: allocated capital; None: not known, and nothing can be judged
    :param pauses: what of ``trading_control`` holds for the profile now
    """
    on_profile = [pause for pause in pauses if pause.scope == state.profile_id]
    own = next((pause for pause in on_profile if pause.source == PARITY_WATCHDOG_SOURCE), None)
    seen = replace(
        state,
        mismatch_usd=mismatch_usd,
        capital_usd=capital_usd,
        paused_ms=None if own is None else own.since_ms,
    )
    amounts: dict[str, object] = {
        "mismatch_usd": decimal_text(mismatch_usd),
        "capital_usd": None if capital_usd is None else decimal_text(capital_usd),
        "max_notional_ratio": decimal_text(policy.max_notional_ratio),
        "unpriced_trades": unpriced_trades,
    }
    if capital_usd is not None and mismatch_usd > EXACT.multiply(
        policy.max_notional_ratio, max(capital_usd, Decimal(0))
    ):
        text = (
            f"{decimal_text(mismatch_usd)} USD out of line, more than {decimal_text(policy.max_notional_ratio)} of the"
            f" allocated {decimal_text(capital_usd)} USD"
        )
        event = Event(
            EventType.RECONCILIATION_DEGRADED,
            Severity.ERROR,
            f"Position parity watchdog triggered for {state.profile_id}: {text}.",
            profile_id=state.profile_id,
            user_id=user_id,
            account_id=account_id,
            details=amounts,
            scope=f"{state.profile_id}:parity_watchdog",
            throttle_ms=max(0, watchdog.integrity_throttle_ms),
        )
        pause = not on_profile
        after = replace(
            seen,
            triggered_ms=now_ms,
            paused_ms=now_ms if pause else seen.paused_ms,
            clean_cycles=0,
            last_clean_ms=None,
            reason=WatchdogReason.TRIGGERED.value,
        )
        return ParityVerdict(
            triggered=True,
            pause=pause,
            reason=WatchdogReason.TRIGGERED,
            state=after,
            pause_reason=text if pause else "",
            events=(event,),
        )
    reason = _not_triggered(mismatch_usd, unpriced_trades, capital_usd)
    seen = replace(seen, reason=reason.value)
    if reason in {WatchdogReason.IN_LINE, WatchdogReason.WITHIN_LIMIT}:
        return ParityVerdict(triggered=False, pause=False, reason=reason, state=seen)
    finding = Finding(
        state.profile_id, Stage.POSITION_PARITY, f"watchdog_{reason.value}", needs_person=True, detail=amounts
    )
    event = Event(
        EventType.RECONCILIATION_DEGRADED,
        Severity.WARN,
        f"Position parity watchdog can't judge {state.profile_id} ({reason.value}):"
        f" {decimal_text(mismatch_usd)} USD out of line, {unpriced_trades} trades without a price.",
        profile_id=state.profile_id,
        user_id=user_id,
        account_id=account_id,
        details=amounts,
        scope=f"{state.profile_id}:parity_watchdog:{reason.value}",
        throttle_ms=max(0, watchdog.skipped_throttle_ms),
    )
    return ParityVerdict(triggered=False, pause=False, reason=reason, state=seen, events=(event,), findings=(finding,))


def _not_triggered(mismatch_usd: Decimal, unpriced_trades: int, capital_usd: Decimal | None) -> WatchdogReason:
    if not mismatch_usd and not unpriced_trades:
        return WatchdogReason.IN_LINE
    if capital_usd is None:
        return WatchdogReason.CAPITAL_UNKNOWN
    return WatchdogReason.PRICE_UNKNOWN if unpriced_trades else WatchdogReason.WITHIN_LIMIT


def count_clean(state: WatchdogState, *, clean: bool | None, policy: WatchdogPolicy, now_ms: int) -> WatchdogState:
    """The state with this cycle in its streak.

    :param clean: None where the cycle could not tell (nothing was read): the streak stands as it was
    """
    if clean is None:
        return state
    if not clean:
        return replace(state, clean_cycles=0, last_clean_ms=None)
    last = state.last_clean_ms
    if last is not None and (now_ms <= last or now_ms - last < policy.confirmation_spacing_ms):
        return state
    return replace(state, clean_cycles=state.clean_cycles + 1, last_clean_ms=now_ms)


def decide_resume(state: WatchdogState, pauses: Iterable[Pause], policy: WatchdogPolicy, now_ms: int) -> ResumeDecision:
    """Whether the watchdog may lift the pause of the state's profile now.

    Only its own pause, recognised by its source; not while somebody else's pause holds; after the minimum pause, as long as
    the row says; with the clean streak counted since that pause and up to now; and not within the cooldown of its last
    resume.

    :param pauses: what of ``trading_control`` holds for the profile now, the row of all trading included
    """
    if not policy.auto_resume:
        return ResumeDecision(resume=False, reason=WatchdogReason.DISABLED)
    standing = list(pauses)
    if not standing:
        return ResumeDecision(resume=False, reason=WatchdogReason.NOT_PAUSED)
    if any(pause.source != PARITY_WATCHDOG_SOURCE or pause.scope != state.profile_id for pause in standing):
        return ResumeDecision(resume=False, reason=WatchdogReason.PAUSED_BY_OTHER)
    since = max(pause.since_ms for pause in standing)
    if now_ms - since < policy.min_pause_ms:
        return ResumeDecision(False, WatchdogReason.MIN_PAUSE, since + policy.min_pause_ms)
    last = state.last_clean_ms
    if state.clean_cycles < policy.clean_cycles or (policy.clean_cycles > 0 and (last is None or last < since)):
        return ResumeDecision(resume=False, reason=WatchdogReason.NOT_CLEAN)
    if last is not None and now_ms - last > max(policy.min_pause_ms, _STREAK_IS_FRESH_MS):
        return ResumeDecision(resume=False, reason=WatchdogReason.STREAK_STALE)
    if state.resumed_ms is not None and now_ms - state.resumed_ms < policy.cooldown_ms:
        return ResumeDecision(False, WatchdogReason.COOLDOWN, state.resumed_ms + policy.cooldown_ms)
    return ResumeDecision(resume=True, reason=WatchdogReason.RESUMED)


def resumed(state: WatchdogState, now_ms: int) -> WatchdogState:
    """The state after the watchdog lifted its pause: the cooldown runs, the streak begins anew."""
    return replace(
        state,
        paused_ms=None,
        resumed_ms=now_ms,
        clean_cycles=0,
        last_clean_ms=None,
        reason=WatchdogReason.RESUMED.value,
    )


def paused_event(profile_id: str, user_id: str, pause_reason: str, *, account_id: str = "") -> Event:
    """The event to raise once the watchdog's pause was written."""
    return Event(
        EventType.TRADING_PAUSED,
        Severity.ERROR,
        f"Trading of {profile_id} paused by the position parity watchdog: {pause_reason}.",
        profile_id=profile_id,
        user_id=user_id,
        account_id=account_id,
        details={"source": PARITY_WATCHDOG_SOURCE},
    )


def resumed_event(profile_id: str, user_id: str, clean_cycles: int, *, account_id: str = "") -> Event:
    """The event to raise once the watchdog's pause was lifted."""
    return Event(
        EventType.TRADING_RESUMED,
        Severity.INFO,
        f"Trading of {profile_id} resumed by the position parity watchdog after {clean_cycles} clean cycles.",
        profile_id=profile_id,
        user_id=user_id,
        account_id=account_id,
        details={"source": PARITY_WATCHDOG_SOURCE, "clean_cycles": clean_cycles},
    )
