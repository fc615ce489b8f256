"""Where events go: the operator's settings of the alerts as a value.

What belongs here: the value. What does not: reading it (``settings``) and using it (``delivery``). It imports neither a driver
nor an HTTP library, because whatever reads a setting imports it.
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
    """``RECON_ALERT_MIN_SEVERITY``: what is less severe goes to the log alone"""
    timeout_seconds: float = 10.0
    """``RECON_ALERT_TIMEOUT_SECONDS``: how long one message may take"""
