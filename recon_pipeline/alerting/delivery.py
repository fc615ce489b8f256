"""Delivery of events to people: what is due is claimed, posted, logged and marked, at least once and never twice.

What belongs here: the settings of the delivery and its loop. What does not: the text of a message (``messages``), the
posting of it (``webhook``), and when an event is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AlertSettings:
    """Where events go and which of them."""

    webhook_url: str = field(default="", repr=False)
    """``RECON_ALERT_WEBHOOK_URL``, a secret; empty: events go to the log alone"""
    webhook_format: str = "slack"
    """``RECON_ALERT_WEBHOOK_FORMAT``: slack, or json"""
    min_severity: str = "WARN"
    """``RECON_ALERT_MIN_SEVERITY``: what is less severe is kept in ``recon.events`` and told nobody"""
    timeout_seconds: float = 10.0
    """``RECON_ALERT_TIMEOUT_SECONDS``: how long one message may take"""
