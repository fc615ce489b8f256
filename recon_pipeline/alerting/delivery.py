"""Delivers events that nobody has been told of yet, at least once each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AlertSettings:
    """Where alerts go. The address of a webhook is a secret: whoever knows it can post."""

    webhook_url: str = field(default="", repr=False)
    """``RECON_ALERT_WEBHOOK_URL``; empty: events go to the log alone"""
    webhook_format: str = "slack"
    """``RECON_ALERT_WEBHOOK_FORMAT``: slack or json"""
    min_severity: str = "WARN"
    """``RECON_ALERT_MIN_SEVERITY``: INFO, WARN or ERROR; what is below goes to the log alone"""
    timeout_seconds: float = 10.0
    """``RECON_ALERT_TIMEOUT_SECONDS``"""
