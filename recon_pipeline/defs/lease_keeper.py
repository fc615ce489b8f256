"""Holds the leases of a run's profiles: taken at its beginning, renewed by a thread while it works, given back at its end.

Not here: what a lease is (``ledger.leases``), and what is done under one; whoever writes checks the lease again inside the
writing transaction, so a renewal that failed costs an apply, never a wrong write.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from recon_pipeline.ledger.cycle_state import lease_holders
from recon_pipeline.ledger.database import WRITER, Connection, DatabaseUnavailableError, connect
from recon_pipeline.ledger.leases import Lease, acquire_leases, release_leases, renew_leases
from recon_pipeline.order_status.brief_lease import is_brief

_LOG = logging.getLogger(__name__)
_RENEWALS_PER_TERM = 3
_LOOK_AGAIN_SECONDS = 0.1
PATIENCE_SECONDS = 5.0
"""How long a run waits for a lease that the order status sync or the stream holds for a moment."""


class HeldLeases:
    """The leases that are held now, by profile."""

    def __init__(self, leases: dict[str, Lease]) -> None:
        self._leases = leases
        self._lock = threading.Lock()

    def of(self, profile_id: str) -> Lease | None:
        """Return the profile's lease; None where another run has it."""
        with self._lock:
            return self._leases.get(profile_id)

    def all(self) -> list[Lease]:
        """Return every lease that is held."""
        with self._lock:
            return list(self._leases.values())

    def replace(self, leases: dict[str, Lease]) -> None:
        """Take over what a renewal left."""
        with self._lock:
            self._leases = leases


@contextmanager
def holding_leases(
    database_url: str,
    profile_ids: Sequence[str],
    *,
    owner: str,
    ttl_seconds: float,
    patience_seconds: float = PATIENCE_SECONDS,
) -> Iterator[HeldLeases]:
    """Hold the leases that are free; the profiles that another run works on have none.

    :param patience_seconds: how long to wait for leases that are held briefly; never for those of another run, which works on
        the profile for a while
    """
    with connect(database_url, WRITER, "recon leases") as connection:
        held = HeldLeases(_acquired(connection, profile_ids, owner, ttl_seconds, patience_seconds))
    done = threading.Event()
    keeper = threading.Thread(
        target=_renew, args=(database_url, held, ttl_seconds, done), name="recon leases", daemon=True
    )
    keeper.start()
    try:
        yield held
    finally:
        done.set()
        keeper.join()
        try:
            with connect(database_url, WRITER, "recon leases") as connection:
                release_leases(connection, held.all())
        except (psycopg.Error, DatabaseUnavailableError) as error:
            _LOG.warning("leases could not be given back and expire by themselves: %s", error)


def _acquired(
    connection: Connection, profile_ids: Sequence[str], owner: str, ttl_seconds: float, patience_seconds: float
) -> dict[str, Lease]:
    deadline = time.monotonic() + patience_seconds
    leases = acquire_leases(connection, profile_ids, owner=owner, ttl_seconds=ttl_seconds)
    waiting = _held_briefly(connection, [profile for profile in profile_ids if profile not in leases])
    if not waiting:
        return leases
    while waiting and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN_SECONDS)
        leases |= acquire_leases(connection, waiting, owner=owner, ttl_seconds=ttl_seconds)
        waiting = _held_briefly(connection, [profile for profile in waiting if profile not in leases])
    if waiting:
        _LOG.warning("%s leases stay held by the order status sync or the stream: %s", len(waiting), waiting[:5])
    # Those that were taken first begin their term anew, like the others.
    return renew_leases(connection, leases.values(), ttl_seconds=ttl_seconds)


def _held_briefly(connection: Connection, profile_ids: Sequence[str]) -> list[str]:
    """Return the profiles whose holder gives the lease back in a moment; a lease that has just become free is one too."""
    if not profile_ids:
        return []
    holders = lease_holders(connection, profile_ids)
    return [profile for profile in profile_ids if (holder := holders.get(profile)) is None or is_brief(holder.owner)]


def _renew(database_url: str, held: HeldLeases, ttl_seconds: float, done: threading.Event) -> None:
    while not done.wait(ttl_seconds / _RENEWALS_PER_TERM):
        try:
            with connect(database_url, WRITER, "recon leases") as connection:
                held.replace(renew_leases(connection, held.all(), ttl_seconds=ttl_seconds))
        except (psycopg.Error, DatabaseUnavailableError) as error:
            _LOG.warning("leases could not be renewed: %s", error)
