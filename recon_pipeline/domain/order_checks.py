"""What is remembered of stale orders: which rows are stale, which are asked about next, what answers leave, who is told.

What belongs here: ORDER_CHECKS in, ORDER_CHECKS out. What does not: what an answer makes of a row (``order_status``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pandas as pd

from recon_pipeline.domain.corrections import Event, EventType, OrderChange, Severity
from recon_pipeline.domain.frames import NO_TIME, frame_of, rows_of
from recon_pipeline.domain.instants import iso_ms
from recon_pipeline.domain.order_answers import Checked, CheckOutcome, placed_at_ms
from recon_pipeline.domain.order_matching import LIVE, class_of_status
from recon_pipeline.domain.order_parity import RowKey
from recon_pipeline.domain.order_status import OrderStatusPlan
from recon_pipeline.domain.order_status_frames import ORDER_CHECKS
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.stand_ins import STAND_IN_PREFIXES
from recon_pipeline.domain.terms import UNKNOWN_STATUS

SIGN: Final = "⚠"
_NAMED_ORDERS: Final = 20
"""So many orders an event names; it counts the rest."""
_EARLY_MS: Final = 30_000
"""A check is due this much early, so that a schedule that ticks a little sooner than last time does not skip it."""


def stale_rows(
    ledger_orders: pd.DataFrame,
    profiles: pd.DataFrame,
    before: pd.DataFrame,
    policy: OrderStatusPolicy,
    *,
    now_ms: int,
) -> pd.DataFrame:
    """ORDER_CHECKS of every row of selected profiles that may execute and is older than the threshold, with what is remembered.

    A row that does not say when it was placed counts as older. Sorted by profile and key.

    :param ledger_orders: LEDGER_ORDERS
    :param profiles: PROFILES
    :param before: ORDER_CHECKS as they are remembered; rows that are not stale any more are forgotten
    """
    chosen = profiles[profiles["selected"].to_numpy(dtype=bool)]
    account_of = dict(zip(chosen["profile_id"], chosen["account_id"], strict=True))
    known = {(check.profile_id, check.order_id): check for check in rows_of(before)}
    found: dict[RowKey, tuple[Any, ...]] = {}
    for row in rows_of(ledger_orders):
        key, placed_ms = (row.profile_id, row.order_id), placed_at_ms(row)
        if (
            row.profile_id not in account_of
            or not row.order_id
            or row.order_id.startswith(STAND_IN_PREFIXES)
            or class_of_status(row.status) not in LIVE
            or (placed_ms != NO_TIME and now_ms - placed_ms <= policy.stale_ms)
        ):
            continue
        about = (*key, account_of[row.profile_id], row.client_order_id, row.trade_id, row.symbol, row.side, row.status)
        made = (*about, placed_ms, *_memory(known.get(key), row.status, now_ms))
        found[key] = min(found.get(key, made), made)
    return _frame(found.values())


def _memory(check: Any | None, status: str, now_ms: int) -> tuple[Any, ...]:
    """What is remembered of a row. One that says something else since is asked about now."""
    if check is None:
        return (CheckOutcome.NOT_CHECKED.value, "", "", 0, now_ms, NO_TIME, now_ms)
    *remembered, next_ms = (getattr(check, name) for name in _REMEMBERED)
    return (*remembered, next_ms if check.status == status else min(next_ms, now_ms))


_REMEMBERED: Final = (
    "outcome",
    "exchange_status",
    "detail",
    "failures",
    "first_seen_ms",
    "checked_at_ms",
    "next_check_ms",
)


def due_orders(
    stale: pd.DataFrame, policy: OrderStatusPolicy, *, now_ms: int, limit: int | None = None
) -> tuple[pd.DataFrame, int]:
    """The checks to ask about now, in that order; and how many due ones are left over.

    Never checked ones first, the oldest order first; then those that were asked about longest ago. So orders that wait
    rightly for days don't keep others from being asked about.

    :param limit: at most so many; None for ``policy.batch_size``
    :raises ValueError: a limit that asks about nothing
    """
    most = policy.batch_size if limit is None else limit
    if most < 1:
        raise ValueError(f"a run asks about at least one order, not {most}")
    due = sorted(
        (check for check in rows_of(stale) if check.next_check_ms <= now_ms),
        # NO_TIME is the smallest: never checked, and of those the ones without a time, come first.
        key=lambda check: (check.checked_at_ms, check.placed_at_ms, check.profile_id, check.order_id),
    )
    return _frame(due[:most], by_key=False), max(0, len(due) - most)


def outcomes_after(
    plan: OrderStatusPlan,
    *,
    applied: frozenset[RowKey],
    postponed: Mapping[RowKey, str],
    failed_profiles: Mapping[str, str],
    dry_run: bool,
) -> dict[RowKey, Checked]:
    """What became of every asked row once the plan was written, or was not.

    :param applied: rows that were written
    :param postponed: rows whose change was not written, and the word why
    :param failed_profiles: profiles that could not be planned or written (lease taken, database), and why
    :raises ValueError: a dry run that wrote something
    """
    if dry_run and applied:
        raise ValueError(f"a dry run wrote {sorted(applied)}")
    changes = _by_key(plan.changes)
    out = {
        key: Checked(CheckOutcome.FAILED, detail=failed_profiles[key[0]])
        for key in sorted(plan.asked)
        if key[0] in failed_profiles
    }
    for key, checked in plan.outcomes.items():
        if key not in changes:
            out[key] = checked
        elif key in applied:
            marked = changes[key].values["status"] == UNKNOWN_STATUS
            outcome = CheckOutcome.MARKED_UNKNOWN if marked else CheckOutcome.UPDATED
            out[key] = Checked(outcome, checked.exchange_status, checked.detail, checked.not_found)
        else:
            why = postponed.get(key) or failed_profiles.get(key[0])
            outcome = CheckOutcome.DIFFERS if why is None else CheckOutcome.POSTPONED
            out[key] = Checked(outcome, checked.exchange_status, why or checked.detail, checked.not_found)
    return out


def checks_after(
    before: pd.DataFrame,
    plan: OrderStatusPlan,
    outcomes: Mapping[RowKey, Checked],
    *,
    policy: OrderStatusPolicy,
    now_ms: int,
) -> pd.DataFrame:
    """ORDER_CHECKS to remember: ``before`` (as ``stale_rows`` gave them) with what the answers leave.

    Rows that are over or gone are not among them, rows that were not asked about stay as they are. An answer that did not
    come soon after the exchange called the order live leaves that standing: one lost answer is no alarm.

    :param outcomes: of ``outcomes_after``
    """
    changes = _by_key(plan.changes)
    kept: list[tuple[Any, ...]] = []
    for check in rows_of(before):
        key = (check.profile_id, check.order_id)
        if key not in plan.asked:
            kept.append(tuple(check))
            continue
        checked = outcomes.get(key)
        if checked is None or checked.outcome in _OVER:
            continue
        written = {CheckOutcome.UPDATED, CheckOutcome.MARKED_UNKNOWN}
        if checked.outcome in written and key in changes:
            check = check._replace(status=changes[key].values["status"])  # noqa: PLW2901
        if class_of_status(check.status) in LIVE:
            kept.append(tuple(_remembered(check, checked, policy, now_ms)))
    return _frame(kept)


_OVER: Final = frozenset({CheckOutcome.IN_LINE, CheckOutcome.OUTDATED})


def _remembered(check: Any, checked: Checked, policy: OrderStatusPolicy, now_ms: int) -> Any:
    """The check with an answer, or with the lack of one."""
    if checked.outcome is CheckOutcome.FAILED:
        failures = int(check.failures) + 1
        # Doubling is bounded before it is counted: no power of two outgrows the cap.
        delay = min(policy.interval_ms * 2 ** min(failures - 1, 20), policy.retry_cap_ms)
        missed = check._replace(failures=failures, detail=checked.detail, next_check_ms=_next(now_ms, delay, policy))
        if confirmed_live(check.outcome, check.checked_at_ms, policy, now_ms=now_ms):
            return missed
        return missed._replace(outcome=checked.outcome.value, checked_at_ms=now_ms)
    # What a person has to decide about is asked about now and then; nothing changes by itself.
    waits = checked.outcome is CheckOutcome.MARKED_UNKNOWN
    outcome = CheckOutcome.LIVE if checked.outcome is CheckOutcome.UPDATED else checked.outcome
    return check._replace(
        outcome=outcome.value,
        exchange_status=checked.exchange_status,
        detail=checked.detail,
        failures=0,
        checked_at_ms=now_ms,
        next_check_ms=_next(now_ms, policy.retry_cap_ms if waits else policy.interval_ms, policy),
    )


def _next(now_ms: int, delay_ms: int, policy: OrderStatusPolicy) -> int:
    return now_ms + delay_ms - min(_EARLY_MS, policy.interval_ms // 10)


def confirmed_live(outcome: str, checked_at_ms: int, policy: OrderStatusPolicy, *, now_ms: int) -> bool:
    """Whether the exchange has called the order live so recently that it waits rightly."""
    return outcome == CheckOutcome.LIVE.value and now_ms - checked_at_ms <= policy.confirmed_for_ms


def is_stale(check: Any, policy: OrderStatusPolicy, *, now_ms: int) -> bool:
    """Whether the order of a row of ORDER_CHECKS is stale: older than the threshold and not confirmed live."""
    old = check.placed_at_ms == NO_TIME or now_ms - check.placed_at_ms > policy.stale_ms
    return old and not confirmed_live(check.outcome, check.checked_at_ms, policy, now_ms=now_ms)


def stale_checks(checks: pd.DataFrame, policy: OrderStatusPolicy, *, now_ms: int) -> pd.DataFrame:
    """The rows of ORDER_CHECKS that are stale, the oldest order first."""
    stale = [check for check in rows_of(checks) if is_stale(check, policy, now_ms=now_ms)]
    stale.sort(key=lambda check: (-age_ms(check, now_ms=now_ms), check.profile_id, check.order_id))
    return _frame(stale, by_key=False)


def age_ms(check: Any, *, now_ms: int) -> int:
    """How long ago the order was placed; where its row doesn't say, how long it has been seen stale."""
    return int(now_ms - (check.first_seen_ms if check.placed_at_ms == NO_TIME else check.placed_at_ms))


def sign_of(check: Any, policy: OrderStatusPolicy, *, now_ms: int) -> str:
    """The sign that people see beside an order: ``⚠`` where it is stale, else empty."""
    return SIGN if is_stale(check, policy, now_ms=now_ms) else ""


def persistent_events(
    checks: pd.DataFrame, users: Mapping[str, str], policy: OrderStatusPolicy, *, now_ms: int
) -> list[Event]:
    """One event for each profile with orders that are stale for longer than ``alert_after_ms``, by profile.

    It names the oldest orders, and counts all.

    :param users: user by profile; a profile that is not among them has none
    """
    told: dict[str, list[Any]] = {}
    for check in rows_of(stale_checks(checks, policy, now_ms=now_ms)):
        if age_ms(check, now_ms=now_ms) >= policy.alert_after_ms:
            told.setdefault(check.profile_id, []).append(check)
    return [_event(profile_id, told[profile_id], users, policy, now_ms) for profile_id in sorted(told)]


def _event(
    profile_id: str, stale: list[Any], users: Mapping[str, str], policy: OrderStatusPolicy, now_ms: int
) -> Event:
    oldest = max(age_ms(check, now_ms=now_ms) for check in stale)
    orders = "1 order is" if len(stale) == 1 else f"{len(stale)} orders are"
    return Event(
        type=EventType.RECONCILIATION_DEGRADED,
        severity=Severity.WARN,
        message=(
            f"{orders} stale for longer than {policy.alert_after_ms // 60_000} minutes, "
            f"the oldest for {oldest // 60_000} minutes"
        ),
        profile_id=profile_id,
        user_id=users.get(profile_id, ""),
        account_id=stale[0].account_id,
        details={
            "count": len(stale),
            "oldest_minutes": oldest // 60_000,
            "orders": [
                {
                    "order_id": check.order_id,
                    "trade_id": check.trade_id,
                    "symbol": check.symbol,
                    "status": check.status,
                    "placed_at": None if check.placed_at_ms == NO_TIME else iso_ms(check.placed_at_ms),
                    "outcome": check.outcome,
                    "detail": check.detail,
                }
                for check in stale[:_NAMED_ORDERS]
            ],
        },
        scope=f"{profile_id}:stale_orders",
        throttle_ms=policy.alert_throttle_ms,
    )


def _by_key(changes: Iterable[OrderChange]) -> dict[RowKey, OrderChange]:
    return {(change.profile_id, change.order_id): change for change in changes}


def _frame(checks: Iterable[tuple[Any, ...]], *, by_key: bool = True) -> pd.DataFrame:
    """ORDER_CHECKS of the rows, by profile and key unless their order is to stay."""
    listed = [tuple(check) for check in checks]
    if not listed:
        return ORDER_CHECKS.empty()
    if by_key:
        listed.sort(key=lambda check: check[:2])
    return frame_of(ORDER_CHECKS, dict(zip(ORDER_CHECKS.names, zip(*listed, strict=True), strict=True)))
