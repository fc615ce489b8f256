"""Pause and resume: the writer of ``trading_control``. An apply holds the rows, so a resume waits for it to end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from recon_pipeline.ledger.database import WRITER, Connection, Row, connect
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
    database_url: str,
    scope: str,
    state: str,
    source: str,
    reason: str,
    now: dt.datetime,
    *,
    only_if: Callable[[str, str], bool] | None = None,
) -> TradingState:
    """Pause or resume trading of a profile, or of all (scope ``all``).

    ``since`` stays where the state does not change. A profile stays paused as long as either its own row or that of all
    says so: resuming one of the two is not resuming the other.

    :param only_if: asked with state and source of the row as it is now, under its lock; where it says no, nothing is changed.
        A machine that pauses or resumes gives one, so that it never takes a person's pause for its own.
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
        if only_if is not None:
            # Without a row there would be nothing to hold while it is decided.
            connection.execute(statement("ensure_trading_state"), {"scope": scope, "source": source, "at": now})
        before = connection.execute(statement("lock_trading_state"), {"scope": scope}).fetchone()
        if before is not None and only_if is not None and not only_if(before["state"], before["source"] or ""):
            return _answer(before, before["state"])
        row = connection.execute(
            statement("set_trading_state"),
            {"scope": scope, "state": state, "source": source, "reason": reason, "at": now},
        ).fetchone()
    return _after(scope, row, before)


def lift_own_pause(
    connection: Connection, scope: str, *, source: str, reason: str, now: dt.datetime
) -> TradingState | None:
    """Resume trading of a profile if the pause that stands there is still this source's own; None where it is not.

    Part of the caller's transaction, whose role is the writer: the row is locked first, so a person who pauses at the same
    moment either comes before and is respected, or after and pauses again.

    :raises ValueError: a time without a zone
    """
    if now.tzinfo is None:
        raise ValueError("now needs a time zone")
    before = connection.execute(statement("lock_trading_state"), {"scope": scope}).fetchone()
    if before is None or str(before["state"]).strip().upper() != "PAUSED" or before["source"] != source:
        return None
    row = connection.execute(
        statement("set_trading_state"),
        {"scope": scope, "state": "RUNNING", "source": source, "reason": reason, "at": now},
    ).fetchone()
    return _after(scope, row, before)


def _after(scope: str, row: Row | None, before: Row | None) -> TradingState:
    if row is None:
        raise RuntimeError(f"trading_control did not return the row of {scope!r}")
    return _answer(row, before["state"] if before else "")


def _answer(row: Row, previous: str) -> TradingState:
    return TradingState(
        scope=row["scope"],
        state=row["state"],
        source=row["source"] or "",
        since=row["since"],
        reason=row["reason"] or "",
        previous=previous,
    )
