"""/metrics: what a snapshot comes to, as Prometheus reads it. Pure.

What belongs here: where each value comes from, and what is added up where there are too many series. What does not: names and
meanings (``metric_families``), counting (``ledger.totals``), HTTP (``app``).
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from recon_pipeline.domain.order_checks import confirmed_live
from recon_pipeline.domain.order_matching import OrderClass, class_of_status
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.totals import TotalName
from recon_pipeline.ops.metric_families import FAMILIES, OTHER
from recon_pipeline.ops.snapshot import Row, Snapshot

STREAM_GONE: Final = dt.timedelta(minutes=1)
"""A stream whose heartbeat is older is gone, whatever it said last."""
UNKNOWN_STATUS: Final = "unknown"

_PROFILE_TOTALS: Final = {
    TotalName.MISMATCH: "reconciliation_mismatch_total",
    TotalName.MISSING_FROM_EXCHANGE: "reconciliation_missing_from_exchange_total",
    TotalName.MISSING_IN_DB: "reconciliation_missing_in_db_total",
    TotalName.CYCLES: "recon_profile_cycles_total",
    TotalName.FAILED_CYCLES: "recon_profile_cycle_failures_total",
    TotalName.CORRECTIONS: "recon_corrections_total",
}
_SUMMED_TOTALS: Final = {
    TotalName.ORDER_STATUS_RUNS: "recon_order_status_runs_total",
    TotalName.ORDER_STATUS_CHECKED: "recon_order_status_checked_total",
    TotalName.ORDER_STATUS_UPDATED: "recon_order_status_updated_total",
    TotalName.ORDER_STATUS_NOT_FOUND: "recon_order_status_not_found_total",
    TotalName.ORDER_STATUS_FAILED: "recon_order_status_failed_total",
}
_CALLS: Final = {TotalName.CYCLE_API_CALLS: "cycle", TotalName.ORDER_STATUS_API_CALLS: "order_status"}
_CYCLE_GAUGES: Final = {
    "no_go_trades": "recon_no_go_trades",
    "money_at_risk_usd": "recon_money_at_risk_usd",
    "parity_mismatch_trades": "recon_parity_mismatch_trades",
    "parity_quarantined_trades": "recon_parity_quarantined_trades",
    "parity_total_mismatch_notional_usd": "recon_parity_mismatch_usd",
}

_Together = Callable[[float, float], float]


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
    :param max_profiles: so many profiles, and accounts, have series of their own: those of the table ``profiles`` first, by
        their ids, so that a series stays what it is; the rest is put together as ``_other``
    """
    sheet = _Sheet()
    elsewhere = (*snapshot.cycles, *snapshot.totals, *snapshot.order_checks, *snapshot.waiting, *snapshot.watchdogs)
    profiles = _Limited(_ids(snapshot.profiles, "profile_id"), _ids(elsewhere, "profile_id"), most=max_profiles)
    elsewhere = (*snapshot.streams, *snapshot.totals)
    accounts = _Limited(_ids(snapshot.accounts, "account_id"), _ids(elsewhere, "account_id"), most=max_profiles)
    _totals(sheet, snapshot, profiles, accounts)
    _cycles(sheet, snapshot, profiles)
    _trading(sheet, snapshot, profiles)
    _orders(sheet, snapshot, profiles, policy, now)
    _exchange(sheet, snapshot, accounts)
    _streams(sheet, snapshot, accounts, now)
    _service(sheet, snapshot, failing_since, profiles)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(sheet)
    return generate_latest(registry)


class _Sheet(Collector):
    """The samples of one rendering, by metric and labels. What falls on one set of labels is put together."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[str, ...], float]] = {family.name: {} for family in FAMILIES}
        self._summaries: dict[str, tuple[float, float]] = {}

    def put(self, name: str, value: Any, *labels: str, together: _Together = float.__add__) -> None:
        """Add a value; None is no value."""
        if value is None:
            return
        values = self._values[name]
        number = value.timestamp() if isinstance(value, dt.datetime) else float(value)
        values[labels] = together(values[labels], number) if labels in values else number

    def put_summary(self, name: str, count: float, total: float) -> None:
        self._summaries[name] = (count, total)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, also one without a sample: its name and meaning are there from the start."""
        for family in FAMILIES:
            counter = family.kind == "counter"
            metric = Metric(family.name.removesuffix("_total") if counter else family.name, family.meaning, family.kind)
            if family.kind == "summary":
                count, total = self._summaries[family.name]
                metric.samples = [
                    Sample(f"{family.name}_count", {}, count),
                    Sample(f"{family.name}_sum", {}, total),
                ]
            else:
                metric.samples = [
                    Sample(family.name, dict(zip(family.labels, labels, strict=True)), value)
                    for labels, value in self._values[family.name].items()
                ]
            yield metric


class _Limited:
    """Ids of which so many have a label of their own; all others are ``_other``."""

    def __init__(self, known: set[str], more: set[str], *, most: int) -> None:
        everything = [*sorted(known), *sorted(more - known - {""})]
        self._own = {name: name for name in everything[:most]}
        self.beyond = len(everything) - len(self._own)

    def __call__(self, name: object) -> str:
        """Return the label of an id."""
        return self._own.get(str(name), OTHER)


def _ids(rows: Iterable[Row], column: str) -> set[str]:
    return {str(row[column]) for row in rows}


def _totals(sheet: _Sheet, snapshot: Snapshot, profiles: _Limited, accounts: _Limited) -> None:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in snapshot.totals:
        found[str(row["name"])].append(row)
    # A counter that appears with its first increase would hide it: rate() knows no value before.
    for row in snapshot.profiles:
        for metric in _PROFILE_TOTALS.values():
            sheet.put(metric, 0, profiles(row["profile_id"]))
    for name, metric in _PROFILE_TOTALS.items():
        for row in found[name]:
            sheet.put(metric, row["value"], profiles(row["profile_id"]))
    for row in snapshot.accounts:
        for purpose in _CALLS.values():
            sheet.put("recon_exchange_api_calls_total", 0, accounts(row["account_id"]), purpose)
    for name, purpose in _CALLS.items():
        for row in found[name]:
            sheet.put("recon_exchange_api_calls_total", row["value"], accounts(row["account_id"]), purpose)
    for row in (*snapshot.streams, *found[TotalName.STREAM_EVENTS]):
        sheet.put("recon_stream_events_total", row.get("value", 0), accounts(row["account_id"]))
    for name, metric in _SUMMED_TOTALS.items():
        sheet.put(metric, sum(row["value"] for row in found[name]))
    sheet.put("recon_lease_contentions_total", snapshot.contentions)
    sheet.put_summary(
        "recon_cycle_duration_seconds",
        float(sum(row["value"] for row in found[TotalName.CYCLE_RUNS])),
        float(sum(row["value"] for row in found[TotalName.CYCLE_RUN_SECONDS])),
    )


def _cycles(sheet: _Sheet, snapshot: Snapshot, profiles: _Limited) -> None:
    for row in snapshot.profiles:
        sheet.put("recon_profile_enabled", bool(row["enabled"]), profiles(row["profile_id"]))
        sheet.put("recon_waiting_cases", 0, profiles(row["profile_id"]))
    for row in snapshot.cycles:
        profile = profiles(row["profile_id"])
        sheet.put("recon_profile_last_cycle_timestamp_seconds", row["cycle_at"], profile, together=min)
        sheet.put("recon_profile_last_clean_cycle_timestamp_seconds", row["last_clean_at"], profile, together=min)
        if row["cycle_at"] is not None:
            sheet.put("recon_profile_cycle_failed", bool(row["error"] or row["failed_stages"]), profile)
        for column, metric in _CYCLE_GAUGES.items():
            sheet.put(metric, row[column], profile)
    for row in snapshot.waiting:
        sheet.put("recon_waiting_cases", 1, profiles(row["profile_id"]))
    if snapshot.runs:
        last = max(snapshot.runs, key=lambda row: row["ended_at"])
        sheet.put("recon_cycle_last_duration_seconds", (last["ended_at"] - last["began_at"]).total_seconds())
        sheet.put("recon_cycle_last_end_timestamp_seconds", last["ended_at"])
    sheet.put("recon_pending_batches", len(snapshot.pending_batches))
    for row in snapshot.pending_batches:
        sheet.put("recon_pending_batch_oldest_timestamp_seconds", row["updated_at"], together=min)


def _trading(sheet: _Sheet, snapshot: Snapshot, profiles: _Limited) -> None:
    paused = {str(row["scope"]) for row in snapshot.trading if row["state"] == "PAUSED"}
    for row in snapshot.profiles:
        holds = not paused.isdisjoint({"all", str(row["profile_id"])})
        sheet.put("recon_trading_paused", holds, profiles(row["profile_id"]))
    for row in snapshot.watchdogs:
        sheet.put("recon_watchdog_paused", bool(row["paused_by_watchdog"]), profiles(row["profile_id"]))


def _orders(sheet: _Sheet, snapshot: Snapshot, profiles: _Limited, policy: OrderStatusPolicy, now: dt.datetime) -> None:
    overdue = now - 2 * _interval(policy.interval_ms)
    told = now - _interval(policy.alert_after_ms)
    late = 0
    for row in (*snapshot.order_checks, *snapshot.unchecked):
        stale, profile = _is_stale(row, policy, now), profiles(row["profile_id"])
        placed = row["placed_at"] or row.get("first_seen_at")
        sheet.put("recon_stale_orders", stale, profile, _status_class(str(row["status"])))
        sheet.put("recon_persistent_stale_orders", stale and placed is not None and placed <= told, profile)
        if stale:
            sheet.put("recon_oldest_stale_order_timestamp_seconds", placed, together=min)
        due = row.get("next_check_at") or (placed and placed + _interval(policy.stale_ms))
        late += due is not None and due < overdue
    sheet.put("recon_order_checks_overdue", late)
    sheet.put("recon_order_status_enabled", policy.enabled)
    if snapshot.sync is not None:
        sync = snapshot.sync
        sheet.put("recon_order_status_last_run_timestamp_seconds", sync["ended_at"])
        seconds = (sync["ended_at"] - sync["began_at"]).total_seconds()
        sheet.put("recon_order_status_last_run_duration_seconds", seconds)
        sheet.put("recon_order_status_left_over", sync["left_over"])


def _exchange(sheet: _Sheet, snapshot: Snapshot, accounts: _Limited) -> None:
    used = {str(row["account_id"]) for row in snapshot.profiles if row["enabled"]}
    for row in snapshot.accounts:
        account = accounts(row["account_id"])
        sheet.put("recon_exchange_rate_limit", row["rate_limit"], account, together=min)
        sheet.put("recon_exchange_rate_remaining", row["rate_remaining"], account, together=min)
        if str(row["account_id"]) in used:
            sheet.put("recon_evidence_complete", row["complete"], account, together=min)
            covered = row["covered_until"]
            sheet.put("recon_evidence_covered_until_timestamp_seconds", covered, account, together=min)


def _streams(sheet: _Sheet, snapshot: Snapshot, accounts: _Limited, now: dt.datetime) -> None:
    for row in snapshot.streams:
        account = accounts(row["account_id"])
        up = row["state"] == "listening" and now - row["seen_at"] <= STREAM_GONE
        sheet.put("recon_stream_up", up, account, together=min)
        sheet.put("recon_stream_wanted", row["state"] != "stopped", account, together=max)
        sheet.put("recon_stream_connections_total", row["connections"], account)


def _service(sheet: _Sheet, snapshot: Snapshot, failing_since: dt.datetime | None, profiles: _Limited) -> None:
    sheet.put("recon_undelivered_alerts", snapshot.undelivered_events)
    sheet.put("recon_snapshot_timestamp_seconds", snapshot.taken_at)
    sheet.put("recon_snapshot_duration_seconds", snapshot.seconds)
    sheet.put("recon_snapshot_failing", failing_since is not None)
    sheet.put("recon_profiles_in_other", profiles.beyond)
    sheet.put("recon_build_info", 1, version("recon-pipeline"))


def _is_stale(row: Mapping[str, Any], policy: OrderStatusPolicy, now: dt.datetime) -> bool:
    """Whether the order of a row is not confirmed by the exchange lately; one that was never looked at is not."""
    checked_at = row.get("checked_at")
    if checked_at is None:
        return True
    return not confirmed_live(str(row["outcome"]), _ms(checked_at), policy, now_ms=_ms(now))


def _status_class(status: str) -> str:
    """Return ``unknown``, ``partial`` or ``pending``: what the ledger says of an order that may still execute."""
    if status == UNKNOWN_STATUS:
        return UNKNOWN_STATUS
    return OrderClass.PARTIAL.value if class_of_status(status) == OrderClass.PARTIAL else OrderClass.PENDING.value


def _interval(ms: int) -> dt.timedelta:
    return dt.timedelta(milliseconds=ms)


def _ms(instant: dt.datetime) -> int:
    return int(instant.timestamp() * 1000)
