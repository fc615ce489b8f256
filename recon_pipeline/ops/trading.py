"""Does trading run? The body of ``/internal/trading/status``. Pure: of a snapshot.

What belongs here: which pause holds for whom. What does not: setting one (``apply.control``), and HTTP (``app``).
"""

from __future__ import annotations

from typing import Any, Final

from recon_pipeline.ops.health import instant
from recon_pipeline.ops.snapshot import Row, Snapshot

RUNNING: Final = "RUNNING"
PAUSED: Final = "PAUSED"
ALL: Final = "all"


def trading_status(snapshot: Snapshot) -> dict[str, Any]:
    """Return the state of all trading, and under ``profiles`` what holds for each profile.

    A profile is paused if the row of all trading or its own says so. That of all is named where both do. A state that is not
    PAUSED runs, whatever it is called: so read it the pipeline's own gates.
    """
    rows = {str(row["scope"]): row for row in snapshot.trading}
    whole = rows.get(ALL)
    return {
        **_said(whole),
        "asOf": instant(snapshot.taken_at),
        "profiles": {
            str(row["profile_id"]): _holds(whole, rows.get(str(row["profile_id"])), str(row["profile_id"]))
            for row in snapshot.profiles
        },
    }


def _holds(whole: Row | None, own: Row | None, profile: str) -> dict[str, Any]:
    if own is not None and not _is_paused(whole):
        return {**_said(own), "scope": profile}
    return {**_said(whole), "scope": ALL}


def _is_paused(row: Row | None) -> bool:
    return row is not None and row["state"] == PAUSED


def _said(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {"state": RUNNING, "source": None, "since": None, "reason": None}
    return {
        "state": PAUSED if _is_paused(row) else RUNNING,
        "source": row["source"],
        "since": None if row["since"] is None else instant(row["since"]),
        "reason": row["reason"],
    }
