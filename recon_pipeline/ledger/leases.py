"""Leases: who may work on a profile now. A row per profile with owner, expiry and a fencing token that only grows.

What belongs here: taking, renewing, releasing and checking leases. What does not: when to renew, and what to do
without one.

Whoever writes checks its lease inside the writing transaction: the check holds the row until the commit, so nobody
can take the lease over in between, and a holder that slept past its expiry is refused by its token. Contention is a
value (the profile is missing from what ``acquire`` returns), never an exception.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recon_pipeline.ledger.database import Connection
from recon_pipeline.ledger.statements import statement


@dataclass(frozen=True)
class Lease:
    """A lease as it was when it was taken or renewed."""

    profile_id: str
    owner: str
    token: int
    expires_at: dt.datetime


def acquire_leases(
    connection: Connection, profile_ids: Sequence[str], *, owner: str, ttl_seconds: float
) -> dict[str, Lease]:
    """Take the leases that are free, expired, or this owner's (with a new token); the others are missing."""
    if not owner:
        raise ValueError("a lease needs an owner")
    rows = connection.execute(
        statement("acquire_leases"), {"profile_ids": list(profile_ids), "owner": owner, "ttl_seconds": ttl_seconds}
    )
    return {row["profile_id"]: Lease(**row) for row in rows}


def renew_leases(connection: Connection, leases: Iterable[Lease], *, ttl_seconds: float) -> dict[str, Lease]:
    """Extend leases of one owner; one that somebody else has taken since is missing from the answer."""
    held = list(leases)
    if not held:
        return {}
    rows = connection.execute(statement("renew_leases"), {**_held(held), "ttl_seconds": ttl_seconds})
    return {row["profile_id"]: Lease(**row) for row in rows}


def release_leases(connection: Connection, leases: Iterable[Lease]) -> set[str]:
    """Give up leases of one owner; return the profiles that were still its own."""
    held = list(leases)
    if not held:
        return set()
    return {row["profile_id"] for row in connection.execute(statement("release_leases"), _held(held))}


def check_lease(connection: Connection, lease: Lease) -> bool:
    """Return whether the lease is in force and hold it so until the surrounding transaction ends."""
    row = connection.execute(
        statement("check_lease"), {"profile_id": lease.profile_id, "owner": lease.owner, "token": lease.token}
    ).fetchone()
    return row is not None


def _held(leases: Sequence[Lease]) -> dict[str, object]:
    owners = {lease.owner for lease in leases}
    if len(owners) != 1:
        raise ValueError(f"leases of several owners in one call: {', '.join(sorted(owners))}")
    return {
        "profile_ids": [lease.profile_id for lease in leases],
        "tokens": [lease.token for lease in leases],
        "owner": owners.pop(),
    }
