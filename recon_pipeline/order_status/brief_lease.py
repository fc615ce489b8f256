"""A profile's lease for a moment: taken, used for one small transaction, and given back.

What belongs here: taking and giving back. What does not: what is done under the lease, and the leases of a whole cycle.

Its owner says that it is brief, so that a cycle which finds the lease taken knows that waiting is worth while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from recon_pipeline.ledger.database import WRITER, DatabaseUnavailableError, connect, redact
from recon_pipeline.ledger.leases import Lease, acquire_leases, release_leases

_LOG = logging.getLogger(__name__)
BRIEF: Final = "brief "
"""How the owner of a lease begins that is held for a moment only."""
TERM_SECONDS: Final = 30.0
"""After this the lease of a process that was killed is free again."""
_LOOK_AGAIN_SECONDS: Final = 0.1


def is_brief(owner: str) -> bool:
    """Whether the owner of a lease holds it for a moment only."""
    return owner.startswith(BRIEF)


@contextmanager
def brief_lease(
    database_url: str, profile_id: str, *, owner: str, patience_seconds: float = 2.0
) -> Iterator[Lease | None]:
    """Hold the profile's lease until the block ends; None where somebody else holds it for longer than the patience.

    ``owner`` has to be unique to the caller: a lease is granted again to whoever holds it under the same name.

    :raises DatabaseUnavailableError: no connection
    """
    lease = _taken(database_url, profile_id, f"{BRIEF}{owner}", patience_seconds)
    try:
        yield lease
    finally:
        if lease is not None:
            _give_back(database_url, lease)


def _taken(database_url: str, profile_id: str, owner: str, patience_seconds: float) -> Lease | None:
    deadline = time.monotonic() + patience_seconds
    with connect(database_url, WRITER, "recon brief lease") as connection:
        while True:
            lease = acquire_leases(connection, [profile_id], owner=owner, ttl_seconds=TERM_SECONDS).get(profile_id)
            if lease is not None or time.monotonic() >= deadline:
                return lease
            time.sleep(_LOOK_AGAIN_SECONDS)


def _give_back(database_url: str, lease: Lease) -> None:
    """Give the lease back; where that fails it expires by itself, and what was written under it stands."""
    try:
        with connect(database_url, WRITER, "recon brief lease") as connection:
            release_leases(connection, [lease])
    except (psycopg.Error, DatabaseUnavailableError) as error:
        _LOG.warning(
            "the lease of %s could not be given back and expires: %s",
            lease.profile_id,
            redact(str(error), database_url),
        )
