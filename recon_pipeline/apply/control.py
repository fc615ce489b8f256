"""Pause and resume: the writer of ``trading_control``. An apply holds the rows, so a resume waits for it to end."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.statements import statement

PATIENCE_MS: Final = 60_000
"""How long to wait for applies that hold the row: the largest take seconds."""
STATES: Final = frozenset({"RUNNING", "PAUSED"})


@dataclass(frozen=True)
class TradingState:
    """The row of one scope after it was set, and the state it had before (empty: it had no row)."""

    scope: str
    state: str
    source: str
    since: dt.datetime
    reason: str
    previous: str

    @property
    def changed(self) -> bool:
        """Whether the state is another one than before."""
        return self.state != self.previous


def set_trading_state(
    database_url: str, scope: str, state: str, source: str, reason: str, now: dt.datetime
) -> TradingState:
    """Pause or resume trading of a profile, or of all (scope ``all``).

    ``since`` stays where the state does not change. A profile stays paused as long as either its own row or that of all
    says so: resuming one of the two is not resuming the other.

    :raises ValueError: a state that bots would not understand, no scope, no source, or a time without a zone
    """
    if state not in STATES:
        raise ValueError(f"trading is RUNNING or PAUSED, not {state!r}")
    if not scope or not source:
        raise ValueError("pausing and resuming needs a scope ('all' or a profile id) and a source (who says so)")
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    with (
        connect(database_url, WRITER, "recon trading control", lock_timeout_ms=PATIENCE_MS) as connection,
        connection.transaction(),
    ):
        before = connection.execute(statement("lock_trading_state"), {"scope": scope}).fetchone()
        row = connection.execute(
            statement("set_trading_state"),
            {"scope": scope, "state": state, "source": source, "reason": reason, "at": now},
        ).fetchone()
    if row is None:
        raise RuntimeError(f"trading_control did not return the row of {scope!r}")
    return TradingState(
        scope=row["scope"],
        state=row["state"],
        source=row["source"],
        since=row["since"],
        reason=row["reason"] or "",
        previous=before["state"] if before else "",
    )
