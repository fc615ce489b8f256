"""One owner works on a profile at a time, and whoever slept past its lease is refused by its token."""

from __future__ import annotations

import datetime as dt
import threading

import psycopg
import pytest

from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.leases import Lease, acquire_leases, check_lease, release_leases, renew_leases


@pytest.fixture
def one(database_url):
    with connect(database_url, "recon_writer", lock_timeout_ms=2000) as connection:
        yield connection


@pytest.fixture
def two(database_url):
    with connect(database_url, "recon_writer", lock_timeout_ms=2000) as connection:
        yield connection


def _acquire(connection, *profile_ids, owner, ttl=60.0):
    return acquire_leases(connection, profile_ids, owner=owner, ttl_seconds=ttl)


def _expire(connection, profile_id):
    connection.execute("UPDATE recon.leases SET expires_at = clock_timestamp() WHERE profile_id = %s", [profile_id])


def test_a_held_lease_is_missing_from_the_answer_the_others_are_taken(one, two):
    assert sorted(_acquire(one, "p1", "p2", owner="run-1")) == ["p1", "p2"]
    taken = _acquire(two, "p2", "p3", "p3", owner="run-2")
    assert {lease.profile_id: (lease.owner, lease.token) for lease in taken.values()} == {"p3": ("run-2", 1)}
    assert _acquire(two, owner="run-2") == {}


def test_an_expired_lease_goes_to_the_next_owner_with_a_higher_token_and_fences_the_first(one, two):
    first = _acquire(one, "p1", owner="run-1")["p1"]
    assert check_lease(one, first)
    _expire(one, "p1")
    assert not check_lease(one, first)
    second = _acquire(two, "p1", owner="run-2")["p1"]
    assert (first.token, second.token) == (1, 2)
    assert check_lease(two, second)
    assert not check_lease(one, first)
    assert renew_leases(one, [first], ttl_seconds=60) == {}
    assert release_leases(one, [first]) == set()
    assert check_lease(two, second)


def test_taking_it_again_fences_what_the_same_owner_held_before(one):
    first = _acquire(one, "p1", owner="run-1")["p1"]
    again = _acquire(one, "p1", owner="run-1")["p1"]
    assert again.token == 2
    assert (check_lease(one, first), check_lease(one, again)) == (False, True)


def test_a_token_survives_release(one, two):
    lease = _acquire(one, "p1", owner="run-1")["p1"]
    assert release_leases(one, [lease]) == {"p1"}
    assert not check_lease(one, lease)
    assert _acquire(two, "p1", owner="run-2")["p1"].token == 2
    assert release_leases(one, []) == set()


def test_renewing_extends_even_a_lease_that_expired_unnoticed(one):
    lease = _acquire(one, "p1", owner="run-1", ttl=30)["p1"]
    _expire(one, "p1")
    renewed = renew_leases(one, [lease], ttl_seconds=600)["p1"]
    assert renewed.token == lease.token
    assert renewed.expires_at - lease.expires_at > dt.timedelta(seconds=500)
    assert check_lease(one, lease)


def test_a_checked_lease_cannot_be_taken_before_the_transaction_ends(one, two):
    lease = _acquire(one, "p1", owner="run-1", ttl=0.05)["p1"]
    renew_leases(one, [lease], ttl_seconds=60)
    with one.transaction():
        assert check_lease(one, lease)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            two.execute("UPDATE recon.leases SET expires_at = clock_timestamp()")
        assert _acquire(two, "p1", owner="run-2") == {}
    assert check_lease(one, lease)


def test_an_expired_lease_in_a_transaction_is_contended_not_waited_for(one, two):
    _acquire(one, "p1", owner="run-1")
    _expire(one, "p1")
    with one.transaction():
        one.execute("SELECT FROM recon.leases WHERE profile_id = 'p1' FOR SHARE")
        assert _acquire(two, "p1", "p2", owner="run-2").keys() == {"p2"}
    assert _acquire(two, "p1", owner="run-2").keys() == {"p1"}


def test_of_many_at_once_one_gets_each_lease(database_url):
    profiles = [f"p{n}" for n in range(40)]
    barrier = threading.Barrier(6)
    won: list[dict[str, Lease]] = []

    def run(number):
        with connect(database_url, "recon_reader") as connection:
            barrier.wait(timeout=30)
            won.append(_acquire(connection, *(profiles if number % 2 else reversed(profiles)), owner=f"run-{number}"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(won) == 6
    assert sorted(profile_id for leases in won for profile_id in leases) == sorted(profiles)
    assert {lease.token for leases in won for lease in leases.values()} == {1}


def test_a_call_for_several_owners_or_none_is_refused(one):
    leases = [Lease("p1", owner, 1, dt.datetime.now(dt.UTC)) for owner in ("a", "b")]
    with pytest.raises(ValueError, match="several owners"):
        release_leases(one, leases)
    with pytest.raises(ValueError, match="needs an owner"):
        _acquire(one, "p1", owner="")
