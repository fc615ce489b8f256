"""Watchdogs: every threshold, throttle and flag of the orchestrator and of the divergence runbook, by its name."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from recon_pipeline.domain.corrections import EventType, Severity, Stage
from recon_pipeline.domain.cycle_policy import PositionParityPolicy, WatchdogPolicy
from recon_pipeline.domain.watchdog import (
    PARITY_WATCHDOG_SOURCE,
    ParityVerdict,
    Pause,
    ResumeDecision,
    SafetyStep,
    WatchdogReason,
    WatchdogState,
    count_clean,
    decide_resume,
    failed_profile_event,
    judge_integrity,
    judge_parity,
    paused_event,
    resumed,
    resumed_event,
    skipped_step_event,
)

NOW = 1_772_449_200_000
MINUTE = 60_000
CYCLE = 5 * MINUTE
POLICY = WatchdogPolicy()
PARITY = PositionParityPolicy()
FRESH = WatchdogState("p1")
OWN_PAUSE = Pause("p1", PARITY_WATCHDOG_SOURCE, NOW)


# --- the integrity watchdog ----------------------------------------------------------------------------------------------


def integrity(missing: int, no_go: int, policy: WatchdogPolicy = POLICY) -> bool:
    return judge_integrity("p1", "u1", missing_in_db=missing, no_go_trades=no_go, policy=policy).triggered


def test_enable_recon_integrity_watchdog_is_on_and_can_be_turned_off() -> None:
    assert POLICY.integrity_enabled
    verdict = judge_integrity(
        "p1", "u1", missing_in_db=9, no_go_trades=9, policy=replace(POLICY, integrity_enabled=False)
    )
    assert (verdict.triggered, verdict.event) == (False, None)


@pytest.mark.parametrize(
    ("threshold", "missing", "triggered"), [(1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True)]
)
def test_recon_integrity_watchdog_missing_db_threshold(threshold: int, missing: int, triggered: bool) -> None:
    assert POLICY.missing_in_db_threshold == 1
    assert integrity(missing, 0, replace(POLICY, missing_in_db_threshold=threshold)) is triggered


@pytest.mark.parametrize(
    ("threshold", "no_go", "triggered"), [(1, 0, False), (1, 1, True), (3, 2, False), (3, 3, True)]
)
def test_recon_integrity_watchdog_no_go_threshold(threshold: int, no_go: int, triggered: bool) -> None:
    assert POLICY.no_go_threshold == 1
    assert integrity(0, no_go, replace(POLICY, no_go_threshold=threshold)) is triggered


@pytest.mark.parametrize("threshold", [0, -5])
def test_a_threshold_below_one_is_one(threshold: int) -> None:
    policy = replace(POLICY, missing_in_db_threshold=threshold, no_go_threshold=threshold)
    assert not integrity(0, 0, policy)
    assert integrity(1, 0, policy)
    assert integrity(0, 1, policy)


def test_the_event_of_the_integrity_watchdog_is_the_sources_with_recon_integrity_watchdog_throttle_ms() -> None:
    policy = replace(POLICY, no_go_threshold=2)
    event = judge_integrity("p1", "u1", missing_in_db=3, no_go_trades=2, policy=policy, account_id="a1").event
    assert event is not None
    assert (event.type, event.severity) == (EventType.RECONCILIATION_DEGRADED, Severity.ERROR)
    assert event.message == (
        "Reconciliation integrity watchdog triggered for p1: missing_in_db=3 (threshold=1), no_go=2 (threshold=2)."
    )
    assert (event.profile_id, event.user_id, event.account_id) == ("p1", "u1", "a1")
    assert (event.scope, event.throttle_ms) == ("p1:integrity_watchdog", 600_000)


# --- skipped steps and failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "reason", "severity", "message"),
    [
        (SafetyStep.COVERAGE, "disabled", "ERROR", "Order coverage reconciliation skipped (disabled) for profile p1."),
        (SafetyStep.COVERAGE, "evidence_incomplete", "WARN", None),
        (SafetyStep.BACKFILL, "disabled", "ERROR", "EXIT backfill reconciliation skipped (disabled) for profile p1."),
        (SafetyStep.BACKFILL, "pause_required", "WARN", None),
        (SafetyStep.BACKFILL, "audit_table_missing", "WARN", None),
    ],
)
def test_a_skipped_safety_step_is_alerted_once_per_reason_in_reconciliation_slo_alert_throttle_ms(
    step: SafetyStep, reason: str, severity: str, message: str | None
) -> None:
    event = skipped_step_event("p1", "u1", step, reason, POLICY)
    assert (event.type, event.severity) == (EventType.RECONCILIATION_DEGRADED, severity)
    assert (event.scope, event.throttle_ms) == (f"p1:{step.value}:{reason}", 600_000)
    assert message is None or event.message == message
    assert reason in event.message


def test_a_throttle_below_zero_is_none() -> None:
    policy = replace(POLICY, skipped_throttle_ms=-1, integrity_throttle_ms=-1)
    assert skipped_step_event("p1", "u1", SafetyStep.COVERAGE, "disabled", policy).throttle_ms == 0
    event = judge_integrity("p1", "u1", missing_in_db=1, no_go_trades=0, policy=policy).event
    assert event is not None
    assert event.throttle_ms == 0


def test_a_failed_profile_is_alerted_as_often_as_reconciliation_slo_alert_throttle_ms_lets_it() -> None:
    event = failed_profile_event("p1", "u1", "the account refuses", POLICY, account_id="a1", failed_steps=["reading"])
    assert event.message == "Reconciliation failed for profile p1: the account refuses"
    assert (event.type, event.severity) == (EventType.RECONCILIATION_DEGRADED, Severity.ERROR)
    assert (event.scope, event.throttle_ms) == ("p1:failed", 600_000)
    every_time = failed_profile_event("p1", "u1", "again", replace(POLICY, skipped_throttle_ms=0))
    assert every_time.throttle_ms == 0


# --- the parity watchdog -------------------------------------------------------------------------------------------------


def parity(
    mismatch: str, capital: str | None = "10000", *, state: WatchdogState = FRESH, **arguments: Any
) -> ParityVerdict:
    given = {"unpriced_trades": 0, "pauses": (), "policy": PARITY, "watchdog": POLICY, "now_ms": NOW}
    return judge_parity(
        state,
        mismatch_usd=Decimal(mismatch),
        capital_usd=None if capital is None else Decimal(capital),
        user_id="u1",
        account_id="a1",
        **(given | arguments),
    )


@pytest.mark.parametrize(
    ("ratio", "mismatch", "triggered"),
    [
        ("0.5", "5000", False),
        ("0.5", "5000.01", True),
        ("0.1", "1000.01", True),
        ("1", "9999", False),
        ("0", "0", False),
        ("0", "0.01", True),
    ],
)
def test_recon_position_parity_max_notional_pct_of_the_allocated_capital_pauses_above_it(
    ratio: str, mismatch: str, triggered: bool
) -> None:
    assert PARITY.max_notional_ratio == Decimal("0.5")
    verdict = parity(mismatch, policy=replace(PARITY, max_notional_ratio=Decimal(ratio)))
    assert (verdict.triggered, verdict.pause) == (triggered, triggered)


def test_a_triggered_watchdog_pauses_says_why_and_starts_its_streak_anew() -> None:
    state = replace(FRESH, clean_cycles=7, last_clean_ms=NOW - CYCLE, resumed_ms=NOW - 5 * CYCLE)
    verdict = parity("6000", state=state)
    assert verdict.reason is WatchdogReason.TRIGGERED
    assert verdict.pause_reason == "6000 USD out of line, more than 0.5 of the allocated 10000 USD"
    assert verdict.state == WatchdogState(
        "p1",
        triggered_ms=NOW,
        paused_ms=NOW,
        clean_cycles=0,
        last_clean_ms=None,
        resumed_ms=NOW - 5 * CYCLE,
        mismatch_usd=Decimal(6000),
        capital_usd=Decimal(10_000),
        reason="notional_over_limit",
    )
    (event,) = verdict.events
    assert (event.type, event.severity) == (EventType.RECONCILIATION_DEGRADED, Severity.ERROR)
    assert (event.scope, event.throttle_ms) == ("p1:parity_watchdog", 600_000)
    assert event.details["mismatch_usd"] == "6000"
    assert (event.profile_id, event.user_id, event.account_id) == ("p1", "u1", "a1")


@pytest.mark.parametrize("capital", ["0", "-5"])
def test_no_allocated_capital_allows_nothing_out_of_line(capital: str) -> None:
    assert parity("0.01", capital).triggered
    assert not parity("0", capital).triggered


def test_its_own_standing_pause_is_kept_as_it_is() -> None:
    since = NOW - 3 * CYCLE
    verdict = parity("6000", pauses=[replace(OWN_PAUSE, since_ms=since)], state=replace(FRESH, paused_ms=since))
    assert (verdict.triggered, verdict.pause, verdict.state.paused_ms) == (True, False, since)


def test_a_pause_that_somebody_else_set_is_never_taken_over() -> None:
    verdict = parity("6000", pauses=[Pause("p1", "operator", NOW - CYCLE)])
    assert (verdict.triggered, verdict.pause, verdict.state.paused_ms) == (True, False, None)


def test_a_pause_of_all_trading_does_not_stand_in_for_the_profiles_own() -> None:
    assert parity("6000", pauses=[Pause("all", "operator", NOW - CYCLE)]).pause


def test_a_pause_of_its_own_that_a_crash_made_it_forget_is_recognised_by_its_source() -> None:
    verdict = parity("0", pauses=[replace(OWN_PAUSE, since_ms=NOW - CYCLE)])
    assert verdict.state.paused_ms == NOW - CYCLE


def test_a_pause_that_a_person_lifted_is_not_remembered_as_its_own() -> None:
    assert parity("10", state=replace(FRESH, paused_ms=NOW - CYCLE)).state.paused_ms is None


@pytest.mark.parametrize(
    ("mismatch", "capital", "unpriced", "reason"),
    [
        ("0", "10000", 0, "in_line"),
        ("0", None, 0, "in_line"),
        ("10", "10000", 0, "within_limit"),
        ("10", None, 0, "capital_unknown"),
        ("0", None, 1, "capital_unknown"),
        ("10", "10000", 1, "price_unknown"),
    ],
)
def test_what_is_not_known_is_a_finding_and_no_pause(
    mismatch: str, capital: str | None, unpriced: int, reason: str
) -> None:
    verdict = parity(mismatch, capital, unpriced_trades=unpriced)
    assert (verdict.reason, verdict.triggered, verdict.pause) == (reason, False, False)
    assert verdict.state.reason == reason
    assert verdict.state.capital_usd == (None if capital is None else Decimal(capital))
    if reason.endswith("unknown"):
        (finding,), (event,) = verdict.findings, verdict.events
        assert (finding.reason, finding.stage) == (f"watchdog_{reason}", Stage.POSITION_PARITY)
        assert finding.needs_person
        assert (event.severity, event.scope) == (Severity.WARN, f"p1:parity_watchdog:{reason}")
        assert event.throttle_ms == 600_000
    else:
        assert (verdict.findings, verdict.events) == ((), ())


def test_known_money_over_the_limit_triggers_whatever_is_not_priced() -> None:
    assert parity("6000", unpriced_trades=3).triggered


def test_a_verdict_that_does_not_trigger_leaves_the_streak_alone() -> None:
    state = replace(FRESH, clean_cycles=1, last_clean_ms=NOW - CYCLE, triggered_ms=NOW - 9 * CYCLE)
    after = parity("10", state=state).state
    assert (after.clean_cycles, after.last_clean_ms, after.triggered_ms) == (1, NOW - CYCLE, NOW - 9 * CYCLE)


# --- the clean streak ----------------------------------------------------------------------------------------------------


def test_clean_cycles_are_counted_with_their_spacing_and_reset_by_one_that_is_not() -> None:
    state = count_clean(FRESH, clean=True, policy=POLICY, now_ms=NOW)
    assert (state.clean_cycles, state.last_clean_ms) == (1, NOW)
    for too_soon in (NOW, NOW + 149_999, NOW - CYCLE):
        assert count_clean(state, clean=True, policy=POLICY, now_ms=too_soon) == state
    state = count_clean(state, clean=True, policy=POLICY, now_ms=NOW + 150_000)
    assert (state.clean_cycles, state.last_clean_ms) == (2, NOW + 150_000)
    state = count_clean(state, clean=False, policy=POLICY, now_ms=NOW + CYCLE)
    assert (state.clean_cycles, state.last_clean_ms) == (0, None)


def test_a_cycle_that_could_not_tell_leaves_the_streak_as_it_was() -> None:
    state = replace(FRESH, clean_cycles=1, last_clean_ms=NOW)
    assert count_clean(state, clean=None, policy=POLICY, now_ms=NOW + CYCLE) == state


# --- auto-resume ---------------------------------------------------------------------------------------------------------

CLEAN = replace(FRESH, paused_ms=NOW, clean_cycles=2, last_clean_ms=NOW + 15 * MINUTE)
LATER = NOW + 16 * MINUTE


def resume(
    state: WatchdogState = CLEAN,
    pauses: tuple[Pause, ...] = (OWN_PAUSE,),
    policy: WatchdogPolicy = POLICY,
    now: int = LATER,
) -> ResumeDecision:
    return decide_resume(state, pauses, policy, now)


def test_its_own_pause_is_lifted_after_the_delay_the_streak_and_the_cooldown() -> None:
    assert resume() == ResumeDecision(resume=True, reason=WatchdogReason.RESUMED)


def test_enable_recon_watchdog_auto_resume_is_on_and_can_be_turned_off() -> None:
    assert POLICY.auto_resume
    assert resume(policy=replace(POLICY, auto_resume=False)).reason == "auto_resume_disabled"


@pytest.mark.parametrize(
    ("pauses", "reason"),
    [
        ((), "not_paused"),
        ((Pause("p1", "operator", NOW),), "paused_by_other"),
        ((Pause("p1", "", NOW),), "paused_by_other"),
        ((Pause("all", "operator", NOW),), "paused_by_other"),
        ((Pause("all", PARITY_WATCHDOG_SOURCE, NOW),), "paused_by_other"),
        ((OWN_PAUSE, Pause("all", "operator", NOW - CYCLE)), "paused_by_other"),
        ((replace(OWN_PAUSE, scope="p2"),), "paused_by_other"),
    ],
)
def test_only_its_own_pause_is_lifted_and_not_while_another_holds(pauses: tuple[Pause, ...], reason: str) -> None:
    decision = resume(pauses=pauses)
    assert (decision.resume, decision.reason) == (False, reason)


def test_recon_watchdog_auto_resume_min_pause_ms_counts_from_the_row() -> None:
    assert POLICY.min_pause_ms == 900_000
    early = replace(CLEAN, last_clean_ms=NOW + 14 * MINUTE)
    assert resume(early, now=NOW + 899_999) == ResumeDecision(
        resume=False, reason=WatchdogReason.MIN_PAUSE, not_before_ms=NOW + 900_000
    )
    assert resume(early, now=NOW + 900_000).resume


@pytest.mark.parametrize(("required", "counted", "resumes"), [(2, 1, False), (2, 2, True), (3, 2, False), (0, 0, True)])
def test_recon_watchdog_auto_resume_clean_cycles(required: int, counted: int, resumes: bool) -> None:
    assert POLICY.clean_cycles == 2
    state = replace(CLEAN, clean_cycles=counted, last_clean_ms=CLEAN.last_clean_ms if counted else None)
    decision = resume(state, policy=replace(POLICY, clean_cycles=required))
    assert decision.resume is resumes
    assert resumes or decision.reason == "not_clean_long_enough"


def test_a_streak_from_before_the_pause_does_not_count() -> None:
    assert resume(replace(CLEAN, last_clean_ms=NOW - 1)).reason == "not_clean_long_enough"


def test_a_streak_that_nothing_confirmed_for_three_cycles_says_nothing_of_now() -> None:
    assert resume(now=NOW + 30 * MINUTE).resume
    assert resume(now=NOW + 30 * MINUTE + 1).reason == "clean_streak_is_stale"
    patient = replace(POLICY, min_pause_ms=60 * MINUTE)
    assert resume(now=NOW + 61 * MINUTE, policy=patient).resume


def test_recon_watchdog_auto_resume_cooldown_ms_lies_between_two_resumes() -> None:
    assert POLICY.cooldown_ms == 1_800_000
    state = replace(CLEAN, resumed_ms=LATER - 1_799_999)
    assert resume(state) == ResumeDecision(
        resume=False, reason=WatchdogReason.COOLDOWN, not_before_ms=LATER - 1_799_999 + 1_800_000
    )
    assert resume(replace(CLEAN, resumed_ms=LATER - 1_800_000)).resume


def test_after_a_resume_the_cooldown_runs_and_the_streak_begins_anew() -> None:
    after = resumed(CLEAN, LATER)
    assert (after.resumed_ms, after.paused_ms, after.clean_cycles, after.last_clean_ms) == (LATER, None, 0, None)
    assert after.reason == "resumed"


def test_the_events_of_pause_and_resume_name_the_source() -> None:
    paused = paused_event("p1", "u1", "too much", account_id="a1")
    assert (paused.type, paused.severity) == (EventType.TRADING_PAUSED, Severity.ERROR)
    assert paused.details["source"] == PARITY_WATCHDOG_SOURCE == "recon_parity_watchdog"
    again = resumed_event("p1", "u1", 2)
    assert (again.type, again.severity) == (EventType.TRADING_RESUMED, Severity.INFO)
    assert "2 clean cycles" in again.message


def test_from_mismatch_to_resume_the_whole_way() -> None:
    verdict = parity("6000")
    assert verdict.pause
    state, pauses, now = verdict.state, (OWN_PAUSE,), NOW
    decisions = []
    for _ in range(4):
        now += CYCLE
        state = parity("0", state=state, pauses=pauses, now_ms=now).state
        state = count_clean(state, clean=True, policy=POLICY, now_ms=now)
        decisions.append(decide_resume(state, pauses, POLICY, now).reason.value)
    assert decisions == ["min_pause", "min_pause", "resumed", "resumed"]
