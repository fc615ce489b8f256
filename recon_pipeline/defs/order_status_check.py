"""The asset check of the order status sync: whether any order of any profile is stale.

Judged from what is remembered of all profiles, not from what one run was about: a shard without stale orders must not hide
another's. Not here: its description (``order_status_catalogue``). It stops nothing.
"""

import datetime as dt
from typing import Any, Final

import dagster as dg
import pandas as pd

from recon_pipeline.defs import order_status_catalogue as names
from recon_pipeline.defs import order_status_tables as own
from recon_pipeline.defs.order_status_run import milliseconds, read_remembered
from recon_pipeline.defs.resources import Outside
from recon_pipeline.defs.tables import counted
from recon_pipeline.domain.order_checks import stale_checks
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.domain.terms import UNKNOWN_STATUS

SHOWN: Final = 50


def stale_check(outside: Outside) -> dg.AssetCheckResult:
    """Judge what is remembered of all profiles.

    :raises SettingError: a setting can't be read
    :raises DatabaseUnavailableError: the database can't be read
    """
    settings = outside.settings()
    return judge(read_remembered(settings.database_url), settings.order_status, outside.now())


def stale_evaluation(outside: Outside) -> dg.AssetCheckEvaluation:
    """Judge the same, as an event of a run that has not selected the check.

    The UI takes the check that was planned last for the latest one. A run that plans none is the latest when it evaluates, so
    that of several shards at once the last one to end is shown, and not one that ended before another's materializations.

    :raises SettingError: a setting can't be read
    :raises DatabaseUnavailableError: the database can't be read
    """
    result = stale_check(outside)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(names.STALE_KEY),
        check_name=names.NO_ORDER_IS_STALE,
        passed=result.passed,
        severity=result.severity,
        description=result.description,
        metadata=result.metadata or {},
    )


def judge(checks: pd.DataFrame, policy: OrderStatusPolicy, at: dt.datetime) -> dg.AssetCheckResult:
    """Return the evaluation of ``no_order_is_stale``.

    :param checks: ORDER_CHECKS of all profiles
    """
    at_ms = milliseconds(at)
    stale = stale_checks(checks, policy, now_ms=at_ms)
    profiles = sorted(set(stale["profile_id"]))
    entries: dict[str, Any] = {
        "violations": len(stale),
        "profiles_with_stale_orders": len(profiles),
        "oldest_stale_minutes": own.oldest_ms(stale, at_ms) // 60_000,
        "stale_for_long": own.older_than(stale, policy.alert_after_ms, at_ms),
        "unknown": int((stale["status"] == UNKNOWN_STATUS).sum()),
        "confirmed_live": len(checks) - len(stale),
        "judged_at": own.instant_of(at),
    }
    if len(stale):
        entries |= {
            "answers": own.answers_table(stale),
            "stale_orders": own.orders_table(stale, policy, at_ms, with_profile=True, cap=SHOWN),
        }
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(names.STALE_KEY),
        check_name=names.NO_ORDER_IS_STALE,
        passed=not len(stale),
        severity=dg.AssetCheckSeverity.WARN,
        description=_sentence(stale, profiles, at_ms, len(checks) - len(stale)),
        metadata=entries,
    )


def _sentence(stale: pd.DataFrame, profiles: list[str], at_ms: int, confirmed: int) -> str:
    waits = f" {counted(confirmed, 'older order')} confirmed live by the exchange." if confirmed else ""
    if not len(stale):
        return f"No order is stale.{waits}"
    orders = f"{counted(len(stale), 'stale order')} of {counted(len(profiles), 'profile')}"
    return f"⚠ {orders}, the oldest {own.age_text(own.oldest_ms(stale, at_ms))} old.{waits}"
