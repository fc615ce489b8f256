"""What waits for a person, in ``recon.waiting_cases``: saved by each cycle.

What belongs here: replacing a profile's cases. What does not: what makes a case (``domain.waiting``), and reading them to show
them (``ops.reading``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from recon_pipeline.domain.corrections import Stage
from recon_pipeline.domain.frames import NO_TIME
from recon_pipeline.domain.waiting import WaitingCase
from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.leases import Lease, check_lease
from recon_pipeline.ledger.statements import statement


@dataclass(frozen=True)
class ProfileCases:
    """What waits in one profile, as far as its cycle could tell."""

    lease: Lease
    """of the profile"""
    decided: frozenset[Stage]
    """the stages whose cases are replaced; those of every other stage stay as they are"""
    cases: tuple[WaitingCase, ...]
    """of stages that were decided"""


def save_waiting_cases(
    connection: Connection, profiles: Sequence[ProfileCases], *, run_id: str, seen_ms: int
) -> frozenset[str]:
    """Replace the cases of the profiles in one transaction; return the profiles that were left alone: their lease is lost.

    A case that was there keeps when it was seen first.

    :param seen_ms: the instant of the cycle
    :raises ValueError: a case of another profile than its lease's, or of a stage that was not decided
    """
    for profile in profiles:
        for case in profile.cases:
            if case.profile_id != profile.lease.profile_id or case.stage not in profile.decided:
                raise ValueError(f"case {case.case_key!r} of {case.profile_id} is not what its cycle decided")
    with connection.transaction():
        held = [profile for profile in profiles if check_lease(connection, profile.lease)]
        decided = [
            {"profile_id": profile.lease.profile_id, "stage": stage.value}
            for profile in held
            for stage in sorted(profile.decided)
        ]
        rows = [_record(case, seen_ms) for profile in held for case in profile.cases]
        connection.execute(
            statement("save_waiting_cases"),
            {"decided": Jsonb(decided), "rows": Jsonb(rows), "run_id": run_id, "seen_ms": seen_ms},
        )
    return frozenset(profile.lease.profile_id for profile in profiles) - {p.lease.profile_id for p in held}


def _record(case: WaitingCase, seen_ms: int) -> Mapping[str, object]:
    return {
        "profile_id": case.profile_id,
        "case_key": case.case_key,
        "account_id": case.account_id,
        "stage": case.stage.value,
        "reason": case.reason,
        "root_cause": case.root_cause,
        "trade_id": case.trade_id,
        "order_id": case.order_id,
        "symbol": case.symbol,
        "notional_usd": case.notional_usd,
        "first_seen_ms": seen_ms if case.first_seen_ms == NO_TIME else case.first_seen_ms,
        "detail": {**case.detail, **({"exchange_order_id": case.exchange_order_id} if case.exchange_order_id else {})},
    }
