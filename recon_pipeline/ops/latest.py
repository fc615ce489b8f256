"""What the endpoints answer from: the last snapshot, and whether reading it again went wrong.

What belongs here: the value that the thread that reads (``keeper``) hands to what answers. What does not: both of these.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from recon_pipeline.ops.snapshot import Snapshot


@dataclass(frozen=True)
class Latest:
    """The outcome of the last attempt to read."""

    snapshot: Snapshot | None = None
    """the last one that could be read; None: none yet"""
    error: str = ""
    """why the last attempt failed, without secrets; empty: it did not"""
    failing_since: dt.datetime | None = None
    """when the first of the attempts failed that have all failed since"""
