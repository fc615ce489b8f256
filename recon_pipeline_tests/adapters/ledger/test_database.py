"""A connection acts as its role, reads exact numbers, and its errors keep secrets."""

from __future__ import annotations

import datetime as dt
import traceback
from decimal import Decimal

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from recon_pipeline.ledger.database import DatabaseUnavailableError, connect, describe

SECRET = "hunter2-very-secret"


@pytest.mark.parametrize("role", ["recon_reader", "recon_writer"])
def test_a_session_acts_as_its_role_in_utc_with_limits(database_url, role):
    with connect(database_url, role, "recon test", statement_timeout_ms=1234, lock_timeout_ms=567) as connection:
        row = connection.execute(
            "SELECT current_user AS role, current_setting('timezone') AS zone, current_setting('statement_timeout') AS "
            "statement, current_setting('lock_timeout') AS lock, current_setting('application_name') AS name"
        ).fetchone()
    assert row == {"role": role, "zone": "UTC", "statement": "1234ms", "lock": "567ms", "name": "recon test"}


def test_a_statement_that_takes_too_long_is_cut_off(database_url):
    with (
        connect(database_url, "recon_reader", statement_timeout_ms=50) as connection,
        pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"),
    ):
        connection.execute("SELECT pg_sleep(30)")


def test_numbers_in_json_are_exact_both_ways(database_url):
    written = {
        "qty": Decimal("0.100000000000000000001"),
        "n": np.int64(7),
        "at": dt.datetime(2024, 1, 2, tzinfo=dt.UTC),
    }
    with connect(database_url) as connection:
        read = connection.execute("SELECT %s AS j", [Jsonb(written)]).fetchone()
        number = connection.execute("SELECT '{\"x\": 0.1}'::jsonb AS j").fetchone()
        with pytest.raises(TypeError, match="without a time zone"):
            connection.execute("SELECT %s", [Jsonb(dt.datetime(2024, 1, 2))])
        with pytest.raises(ValueError, match="Out of range float"):
            connection.execute("SELECT %s", [Jsonb(float("nan"))])
    assert read == {"j": {"qty": "0.100000000000000000001", "n": 7, "at": "2024-01-02T00:00:00+00:00"}}
    assert number == {"j": {"x": Decimal("0.1")}}


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://bot:{SECRET}@127.0.0.1:1/ledger",
        f"postgresql://bot:{SECRET}@localhost:notaport/ledger",
        f"postgresql:/bot:{SECRET}@localhost/ledger",
        f"postgresql://bot@127.0.0.1:1/ledger?password={SECRET}",
        f"host=127.0.0.1 port=1 user=bot password='{SECRET}'",
        f"postgresql://bot:{SECRET}@127.0.0.1:1/ledger?no_such_option=1",
    ],
)
def test_a_password_never_reaches_a_message(url):
    with pytest.raises(DatabaseUnavailableError) as caught:
        connect(url, "recon_reader", connect_timeout_s=2)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith("can't connect to ")
    assert SECRET not in describe(url)


def test_a_login_role_that_may_not_act_as_the_role_learns_who_has_to_grant_it(database_url):
    with connect(database_url) as connection:
        connection.execute("CREATE ROLE outsider LOGIN")
        try:
            url = database_url.replace("postgres@", "outsider@", 1)
            with pytest.raises(
                DatabaseUnavailableError, match="an administrator has to GRANT recon_writer to the login"
            ):
                connect(url, "recon_writer")
        finally:
            connection.execute("DROP ROLE outsider")


def test_a_server_without_the_roles_names_the_remedy(empty_database_url):
    with pytest.raises(DatabaseUnavailableError, match="run `recon migrate` first"):
        connect(empty_database_url, "recon_nobody")


def test_a_session_in_another_role_than_asked_for_is_refused(database_url, monkeypatch):
    """A pooler may drop the start-up options; then the session would have the login role's rights."""
    real = psycopg.connect
    monkeypatch.setattr(
        psycopg, "connect", lambda url, **options: real(url, **{**options, "options": "-c timezone=UTC"})
    )
    with pytest.raises(DatabaseUnavailableError, match="acts as 'postgres', not as recon_reader: a pooler"):
        connect(database_url, "recon_reader")
