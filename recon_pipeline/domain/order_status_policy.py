"""The rules in force for the order status sync and the stream: frozen values, filled by ``settings``.

Every default is the safe choice: the sync is a dry run until the operator says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS


@dataclass(frozen=True)
class OrderStatusPolicy:
    """When an order of the ledger is stale, how often the exchange is asked about it, and what is done with the answer."""

    enabled: bool = True
    """``ENABLE_RECON_ORDER_STATUS_SYNC``"""
    dry_run: bool = True
    """``RECON_ORDER_STATUS_DRY_RUN``: of the scheduled sync and of the stream"""
    interval_ms: int = 5 * _MINUTE_MS
    """``RECON_ORDER_STATUS_INTERVAL_MINUTES``: between two runs of the schedule, whole minutes"""
    stale_ms: int = 5 * _MINUTE_MS
    """``RECON_ORDER_STALE_MINUTES``: an order that may still execute and is older is asked about"""
    batch_size: int = 100
    """``RECON_ORDER_STATUS_BATCH_SIZE``: orders a run, those that were never asked about first, then the oldest"""
    bulk_pages: int = 4
    """``RECON_ORDER_STATUS_BULK_PAGES``: pages of orders read of an account before single orders are asked for; 0 for none"""
    unknown_after_ms: int = 24 * _HOUR_MS
    """``RECON_ORDER_UNKNOWN_AFTER_HOURS``: an order that is older and that the exchange does not know becomes ``unknown``"""
    quiet_ms: int = 5_000
    """``RECON_ORDER_QUIET_PERIOD_SECONDS``: a row that was touched more recently is left for the next run"""
    retry_cap_ms: int = _HOUR_MS
    """``RECON_ORDER_STATUS_RETRY_CAP_MINUTES``: an order whose answer failed is asked for again after one, two, four ...
    intervals, at most after this"""
    alert_after_ms: int = _HOUR_MS
    """``RECON_STALE_ORDER_ALERT_MINUTES``: an order that is stale for longer is told to people"""
    alert_throttle_ms: int = _HOUR_MS
    """``RECON_STALE_ORDER_ALERT_THROTTLE_MS``: of that alert, by profile"""

    @property
    def confirmed_for_ms(self) -> int:
        """How long an order that the exchange called live is not stale: two intervals, so that one lost run is no alarm."""
        return 2 * self.interval_ms + _MINUTE_MS
