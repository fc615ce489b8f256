"""Leases are kept while a run works, and a lease that somebody else took is not taken for one's own any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from recon_pipeline.defs.lease_keeper import holding_leases
from recon_pipeline.ledger.database import WRITER, connect
from recon_pipeline.ledger.leases import acquire_leases, check_lease
from recon_pipeline.order_status.brief_lease import brief_lease

TERM = 0.9


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, "nothing happened within 20 seconds"
        time.sleep(0.02)


def test_a_run_that_works_longer_than_its_lease_lasts_keeps_it_by_renewing(database_url: str) -> None:
    with (
        connect(database_url, WRITER) as other,
        holding_leases(database_url, ["p1"], owner="slow", ttl_seconds=TERM) as held,
    ):
        first = held.of("p1")
        assert first is not None
        # Two terms later the lease that was taken would have expired.
        _until(
            lambda: (
                (now := held.of("p1")) is not None and (now.expires_at - first.expires_at).total_seconds() > 2 * TERM
            )
        )
        assert acquire_leases(other, ["p1"], owner="other", ttl_seconds=60) == {}
        kept = held.of("p1")
        assert kept is not None
        assert kept.token == first.token
        with other.transaction():
            assert check_lease(other, kept)
    with connect(database_url, WRITER) as other:
        assert set(acquire_leases(other, ["p1"], owner="other", ttl_seconds=60)) == {"p1"}


def test_a_lease_that_was_taken_over_is_lost_to_the_run_that_slept(database_url: str) -> None:
    with (
        connect(database_url, WRITER) as other,
        holding_leases(database_url, ["p1", "p2"], owner="slow", ttl_seconds=TERM) as held,
    ):
        other.execute("UPDATE recon.leases SET owner = 'other', token = token + 1 WHERE profile_id = 'p1'")
        _until(lambda: held.of("p1") is None)
        assert held.of("p2") is not None
    rows = other_rows(database_url)
    assert rows["p1"] == "other", "a lease that is somebody else's was given back"
    assert rows["p2"] == ""


def test_a_lease_that_the_order_status_sync_holds_for_a_moment_is_waited_for(database_url: str) -> None:
    taken, give_back = threading.Event(), threading.Event()

    def hold() -> None:
        with brief_lease(database_url, "p1", owner="order status run-1") as lease:
            assert lease is not None
            taken.set()
            give_back.wait(20)

    sync = threading.Thread(target=hold)
    sync.start()
    assert taken.wait(20)
    threading.Timer(0.3, give_back.set).start()
    with holding_leases(database_url, ["p1", "p2"], owner="cycle", ttl_seconds=60, patience_seconds=20) as held:
        assert give_back.is_set()
        assert {lease.profile_id for lease in held.all()} == {"p1", "p2"}
    sync.join()


def test_a_brief_lease_that_stays_held_and_a_lease_of_another_run_are_not_waited_for_for_long(
    database_url: str,
) -> None:
    with (
        connect(database_url, WRITER) as other,
        brief_lease(database_url, "p1", owner="a stream that hangs"),
    ):
        acquire_leases(other, ["p2"], owner="another cycle", ttl_seconds=60)
        began = time.monotonic()
        with holding_leases(database_url, ["p2", "p3"], owner="cycle", ttl_seconds=60) as held:
            assert {lease.profile_id for lease in held.all()} == {"p3"}
        assert time.monotonic() - began < 2, "a cycle was waited for"
        with holding_leases(database_url, ["p1", "p3"], owner="cycle", ttl_seconds=60, patience_seconds=0.3) as held:
            assert {lease.profile_id for lease in held.all()} == {"p3"}


def other_rows(database_url: str) -> dict[str, str]:
    with connect(database_url, WRITER) as connection:
        return {
            row["profile_id"]: row["owner"] for row in connection.execute("SELECT profile_id, owner FROM recon.leases")
        }
