"""Stale orders and what became of them as tables that an operator reads: few columns, what is worst first.

Not here: which table belongs to which asset (``order_status_presentation``).
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

import dagster as dg
import pandas as pd

from recon_pipeline.cycle.outcome import StageOutcome
from recon_pipeline.defs import order_status_remedies
from recon_pipeline.defs.tables import instant_text, table
from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.frames import NO_TIME, rows_of
from recon_pipeline.domain.order_checks import age_ms, is_stale, sign_of
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.order_status.outcome import AccountAnswers, ProfileSync

_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def age_text(ms: int) -> str:
    """Return a time span in its two largest units, ``2 h 5 min``."""
    seconds = max(0, ms // 1000)
    parts = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) if parts else f"{seconds} s"


def oldest_ms(checks: pd.DataFrame, at_ms: int) -> int:
    """Return the age of the oldest order; 0 where there is none."""
    return max((age_ms(row, now_ms=at_ms) for row in rows_of(checks)), default=0)


def older_than(checks: pd.DataFrame, ms: int, at_ms: int) -> int:
    """Return how many of the orders are at least so old."""
    return sum(1 for row in rows_of(checks) if age_ms(row, now_ms=at_ms) >= ms)


def worst_first(checks: pd.DataFrame, policy: OrderStatusPolicy, at_ms: int) -> list[Any]:
    """Return the rows, stale ones first, then the oldest order first."""
    return sorted(
        rows_of(checks),
        key=lambda row: (not is_stale(row, policy, now_ms=at_ms), -age_ms(row, now_ms=at_ms), row.order_id),
    )


def orders_table(
    checks: pd.DataFrame, policy: OrderStatusPolicy, at_ms: int, *, with_profile: bool = False, cap: int = 50
) -> dg.TableMetadataValue:
    """Return the orders, the stale ones with their sign first, each with the last answer; ``answers_table`` says what to do."""
    rows: list[tuple[object, ...]] = []
    for row in worst_first(checks, policy, at_ms):
        cells = (
            f"{sign_of(row, policy, now_ms=at_ms)} {_order(row)}".strip(),
            _age(row, at_ms),
            f"{row.status}; {row.exchange_status} at the exchange" if row.exchange_status else row.status,
            _answer(row),
            _asked(row, at_ms),
        )
        rows.append((row.profile_id, *cells) if with_profile else cells)
    columns: tuple[tuple[str, str], ...] = (
        ("order", "⚠ where it is stale; trade, side and symbol, row in orders"),
        ("age", "since it was placed; at least, where its row does not say when"),
        ("status", "in the ledger; what the exchange calls it"),
        ("last_answer", "what asking about it came to"),
        ("asked", "when last, and when again (UTC)"),
    )
    return table((("profile", ""), *columns) if with_profile else columns, rows, cap=cap)


def answers_table(checks: pd.DataFrame) -> dg.TableMetadataValue:
    """Return how many orders have each answer, and what a person does about it; the most frequent first."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows_of(checks):
        key = (str(row.outcome), order_status_remedies.for_outcome(row.outcome, row.detail))
        counts[key] = counts.get(key, 0) + 1
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    columns = (("answer", ""), ("orders", "how many"), ("what_to_do", "what it means, and the next step for a person"))
    return table(columns, [(answer, count, remedy) for (answer, remedy), count in ranked])


def _age(row: Any, at_ms: int) -> str:
    text = age_text(age_ms(row, now_ms=at_ms))
    # A line break within an age makes it hard to compare.
    return (f"at least {text}" if row.placed_at_ms == NO_TIME else text).replace(" ", _NO_BREAK)


def _order(row: Any) -> str:
    parts = [f"trade {row.trade_id}" if row.trade_id else "", f"{row.side} {row.symbol}".strip(), f"row {row.order_id}"]
    return ", ".join(filter(None, parts))


def _answer(row: Any) -> str:
    detail = f": {row.detail}" if row.detail else ""
    return f"{row.outcome}{detail}, {row.failures} times in a row" if row.failures > 1 else f"{row.outcome}{detail}"


def _asked(row: Any, at_ms: int) -> str:
    last = "not yet" if row.checked_at_ms == NO_TIME else _clock(int(row.checked_at_ms), at_ms)
    if row.next_check_ms == NO_TIME:
        return last
    again = "at the next run" if row.next_check_ms <= at_ms else _clock(int(row.next_check_ms), at_ms)
    return f"{last}, again {again}"


def _clock(ms: int, at_ms: int) -> str:
    """Return the time of day, with its date where that is another one."""
    text = instant_text(ms)
    return text[11:16] if text[:10] == instant_text(at_ms)[:10] else text[:16].replace(" ", _NO_BREAK)


def accounts_table(accounts: Sequence[AccountAnswers]) -> dg.TableMetadataValue:
    """Return what asking each account has cost and brought."""
    rows = [
        (
            account.account_id,
            account.api_calls,
            "unknown" if account.rate_remaining is None else account.rate_remaining,
            f"{account.in_bulk} by pages, {account.singly} one by one, {account.failed} without an answer",
            account.error,
        )
        for account in accounts
    ]
    columns = (
        ("account", ""),
        ("calls", "requests to the exchange"),
        ("left", "of its minute, as the exchange says"),
        ("orders", "how they were answered"),
        ("error", "why nothing could be asked at all"),
    )
    return table(columns, rows)


def as_stage(profile: ProfileSync, *, dry_run: bool) -> StageOutcome:
    """Return a profile's part of the sync as the cycle's tables take it."""
    return StageOutcome(
        Stage.ORDER_STATUS,
        attempted=True,
        dry_run=dry_run,
        changes=profile.changes,
        applied=profile.applied,
        postponed=profile.postponed,
        findings=profile.findings,
        batch_id=profile.batch_id,
        failure=profile.failure,
        counts=profile.counts,
    )


def instant_of(at: dt.datetime) -> str:
    """Return an instant as people write it, in UTC."""
    return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
