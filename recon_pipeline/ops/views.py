"""The small table of what the endpoints say: renderers with the settings that they need.

What belongs here: the wiring. What does not: any rendering.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from recon_pipeline.ops import metrics, page
from recon_pipeline.ops.access import page_policy
from recon_pipeline.ops.app import Views
from recon_pipeline.ops.health import HealthRules, health
from recon_pipeline.ops.latest import Latest
from recon_pipeline.ops.snapshot import Snapshot
from recon_pipeline.ops.trading import trading_status
from recon_pipeline.settings import Settings


def standard_views(settings: Settings) -> Views:
    """Return what ``recon serve`` says."""
    max_age = dt.timedelta(seconds=settings.serve.max_age_seconds)
    rules = HealthRules(late=dt.timedelta(minutes=settings.late_minutes), max_age=max_age)

    def shown(latest: Latest, query: Mapping[str, str], now: dt.datetime) -> str:
        return page.render(
            latest.snapshot,
            query,
            now=now,
            policy=settings.order_status,
            late_minutes=settings.late_minutes,
            dashboard_url=settings.dashboard_url,
            trouble=latest.error,
        )

    def measured(latest: Latest, now: dt.datetime) -> bytes:
        if latest.snapshot is None:
            raise ValueError("there is nothing to measure before the first reading")
        return metrics.render(
            latest.snapshot,
            policy=settings.order_status,
            now=now,
            failing_since=latest.failing_since,
            max_profiles=settings.serve.metrics_max_profiles,
        )

    def said(snapshot: Snapshot, _: dt.datetime) -> Mapping[str, object]:
        return trading_status(snapshot)

    return Views(
        health=lambda latest, now: health(latest, now, rules),
        trading=said,
        metrics=measured,
        page=shown,
        page_parameters=page.PARAMETERS,
        page_policy=page_policy(style=page.STYLE, script=page.SCRIPT),
        max_age=max_age,
    )
