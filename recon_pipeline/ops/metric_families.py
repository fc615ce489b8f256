"""The metrics by name: kind, labels and meaning of each. What ``docs``, dashboard and alert rules may stand on.

What belongs here: the table. What does not: where a value comes from (``metrics``).

Names and units are Prometheus' conventions: base units, ``_total`` on counters alone, instants as seconds since 1970 so that an
age is ``time() - x``. The three counters that begin with ``reconciliation_`` have the names of the source's runbook. ``profile``
is a profile or ``_other``, ``account`` an account or ``_other``: see ``metrics.render``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

OTHER: Final = "_other"
"""label of everything beyond the limit of series, added up"""

PROFILE: Final = ("profile",)
ACCOUNT: Final = ("account",)


@dataclass(frozen=True)
class Family:
    """One metric."""

    name: str
    """as it is exported; a summary has ``_count`` and ``_sum``"""
    kind: Literal["counter", "gauge", "summary"]
    meaning: str
    labels: tuple[str, ...] = ()


FAMILIES: Final = (
    # the counters of the source
    Family(
        "reconciliation_mismatch_total", "counter", "Orders that differed from the exchange, cycle by cycle.", PROFILE
    ),
    Family(
        "reconciliation_missing_from_exchange_total",
        "counter",
        "Open orders of the ledger that the exchange did not know, cycle by cycle.",
        PROFILE,
    ),
    Family(
        "reconciliation_missing_in_db_total",
        "counter",
        "Orders of the exchange that the ledger still lacked, cycle by cycle.",
        PROFILE,
    ),
    # cycles
    Family("recon_profile_cycles_total", "counter", "Cycles of the profile, failed ones included.", PROFILE),
    Family(
        "recon_profile_cycle_failures_total",
        "counter",
        "Cycles of the profile that failed, or a step of them.",
        PROFILE,
    ),
    Family("recon_corrections_total", "counter", "Rows of orders that cycles wrote.", PROFILE),
    Family("recon_profile_enabled", "gauge", "1 where the profile is enabled.", PROFILE),
    Family(
        "recon_profile_last_cycle_timestamp_seconds",
        "gauge",
        "When the profile's last cycle began that had its lease; of _other the oldest.",
        PROFILE,
    ),
    Family(
        "recon_profile_last_clean_cycle_timestamp_seconds",
        "gauge",
        "When the last cycle began that found nothing out of line; of _other the oldest.",
        PROFILE,
    ),
    Family(
        "recon_profile_cycle_failed", "gauge", "1 where the profile's last cycle failed; of _other how many.", PROFILE
    ),
    Family(
        "recon_cycle_duration_seconds", "summary", "Runs of the cycle that came to their end, and how long they took."
    ),
    Family("recon_cycle_last_duration_seconds", "gauge", "How long the last run of the cycle took."),
    Family("recon_cycle_last_end_timestamp_seconds", "gauge", "When the last run of the cycle came to its end."),
    Family("recon_lease_contentions_total", "counter", "How often a cycle found a profile's lease taken."),
    Family("recon_pending_batches", "gauge", "Batches that were announced and have no outcome yet."),
    Family(
        "recon_pending_batch_oldest_timestamp_seconds",
        "gauge",
        "Since when the oldest of them waits; absent without one.",
    ),
    # what is out of line
    Family("recon_no_go_trades", "gauge", "Trades that the exit backfill can't prove, in the last cycle.", PROFILE),
    Family(
        "recon_money_at_risk_usd",
        "gauge",
        "What these trades are worth at their last known price, in US dollars.",
        PROFILE,
    ),
    Family("recon_parity_mismatch_trades", "gauge", "Trades out of line with the exchange's position.", PROFILE),
    Family("recon_parity_quarantined_trades", "gauge", "Of them, those that are never closed automatically.", PROFILE),
    Family("recon_parity_mismatch_usd", "gauge", "What the trades out of line are worth, in US dollars.", PROFILE),
    Family("recon_waiting_cases", "gauge", "Things that wait for a person.", PROFILE),
    # trading
    Family(
        "recon_trading_paused",
        "gauge",
        "1 where trading is paused, of all or of the profile; of _other how many.",
        PROFILE,
    ),
    Family("recon_watchdog_paused", "gauge", "1 where a watchdog's own pause stands; of _other how many.", PROFILE),
    # orders
    Family(
        "recon_stale_orders",
        "gauge",
        "Orders that may still execute, older than the threshold, and not confirmed by the exchange lately.",
        ("profile", "status"),
    ),
    Family(
        "recon_persistent_stale_orders", "gauge", "Of them, those that are old enough that people are told.", PROFILE
    ),
    Family(
        "recon_oldest_stale_order_timestamp_seconds",
        "gauge",
        "When the oldest stale order was placed; absent without one.",
    ),
    Family("recon_order_checks_overdue", "gauge", "Orders that should have been asked about two intervals ago."),
    Family("recon_order_status_enabled", "gauge", "1 where the order status sync is switched on."),
    Family("recon_order_status_runs_total", "counter", "Runs of the order status sync that came to their end."),
    Family("recon_order_status_checked_total", "counter", "Orders that the sync asked about."),
    Family("recon_order_status_updated_total", "counter", "Orders whose row the sync corrected."),
    Family("recon_order_status_not_found_total", "counter", "Orders that the exchange did not know."),
    Family(
        "recon_order_status_failed_total", "counter", "Orders of which the exchange did not say whether it knows them."
    ),
    Family("recon_order_status_last_run_timestamp_seconds", "gauge", "When the sync's last run came to its end."),
    Family("recon_order_status_last_run_duration_seconds", "gauge", "How long that run took."),
    Family("recon_order_status_left_over", "gauge", "Due orders that it did not come to: its batch was full."),
    # exchange
    Family(
        "recon_exchange_api_calls_total",
        "counter",
        "Requests to the exchange, repeated ones included.",
        ("account", "purpose"),
    ),
    Family("recon_exchange_rate_limit", "gauge", "Requests a minute that the exchange grants the account.", ACCOUNT),
    Family(
        "recon_exchange_rate_remaining",
        "gauge",
        "What the exchange last reported as left of the minute; of _other the least.",
        ACCOUNT,
    ),
    Family(
        "recon_evidence_complete",
        "gauge",
        "1 where the last reading was complete, of accounts of enabled profiles; of _other the least.",
        ACCOUNT,
    ),
    Family(
        "recon_evidence_covered_until_timestamp_seconds",
        "gauge",
        "Until when everything executed is known, of accounts of enabled profiles; of _other the oldest.",
        ACCOUNT,
    ),
    Family("recon_stream_up", "gauge", "1 where a process listens to the account's order events now.", ACCOUNT),
    Family("recon_stream_wanted", "gauge", "0 where it was stopped in order; of _other the most.", ACCOUNT),
    Family("recon_stream_connections_total", "counter", "Connections of the stream, the first one included.", ACCOUNT),
    Family("recon_stream_events_total", "counter", "Events of the stream, each once.", ACCOUNT),
    # the service itself
    Family("recon_undelivered_alerts", "gauge", "Events that wait for their delivery for longer than a minute."),
    Family("recon_snapshot_timestamp_seconds", "gauge", "When what is shown here was read."),
    Family("recon_snapshot_duration_seconds", "gauge", "How long that reading took."),
    Family("recon_snapshot_failing", "gauge", "1 where the last attempt to read the database failed."),
    Family("recon_profiles_in_other", "gauge", "Profiles that have no series of their own."),
    Family("recon_build_info", "gauge", "1, with the version of the program.", ("version",)),
)
