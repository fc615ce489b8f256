"""What each role may do is decided by the database, not by the program."""

from __future__ import annotations

import psycopg
import pytest

from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.migrate import MigrationError, migrate

BOT_TABLES = ("profiles", "orders", "positions", "trade_history", "capital_ledger", "trading_control")
AUDIT = "reconciliation_backfill_audit"


@pytest.mark.parametrize("table", BOT_TABLES)
@pytest.mark.parametrize("change", ["INSERT INTO public.{} DEFAULT VALUES", "UPDATE public.{} SET updated_at = now()"])
def test_the_reader_cannot_change_a_bot_table(database_url, table, change):
    with connect(database_url, "recon_reader") as connection:
        assert connection.execute(f"SELECT count(*) AS n FROM public.{table}").fetchone() == {"n": 0}
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"permission denied for table {table}"):
            connection.execute(change.format(table))


@pytest.mark.parametrize("role", ["recon_reader", "recon_writer"])
@pytest.mark.parametrize("table", [*BOT_TABLES, AUDIT])
@pytest.mark.parametrize("removal", ["DELETE FROM public.{}", "TRUNCATE public.{}"])
def test_nobody_can_delete(database_url, role, table, removal):
    with (
        connect(database_url, role) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"permission denied for table {table}"),
    ):
        connection.execute(removal.format(table))


def test_the_reader_cannot_say_that_an_execution_was_consumed(database_url):
    with connect(database_url, "recon_reader") as connection:
        for table in ("consumption", "corrections"):
            assert connection.execute(f"SELECT count(*) AS n FROM recon.{table}").fetchone() == {"n": 0}
            for change in (f"INSERT INTO recon.{table} DEFAULT VALUES", f"UPDATE recon.{table} SET batch_id = ''"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(change)


def test_the_writer_inserts_and_updates_orders(database_url):
    with connect(database_url, "recon_writer") as connection:
        connection.execute("INSERT INTO public.orders (order_id, profile_id) VALUES ('o', 'p')")
        changed = connection.execute("UPDATE public.orders SET status = 'canceled' RETURNING order_id").fetchall()
    assert changed == [{"order_id": "o"}]


def test_a_login_role_without_rights_of_its_own_works_through_the_roles(database_url, postgres):
    """The service may log in as a role that owns nothing and is only a member of the two."""
    with connect(database_url) as connection:
        connection.execute("CREATE ROLE service_login LOGIN NOINHERIT")
        try:
            connection.execute("GRANT recon_reader, recon_writer TO service_login")
            url = database_url.replace("postgres@", "service_login@")
            with connect(url, "recon_writer") as writer:
                writer.execute("INSERT INTO public.orders (order_id, profile_id) VALUES ('o', 'p')")
            with connect(url, "recon_reader") as reader:
                assert reader.execute("SELECT order_id FROM recon.lifecycle_orders").fetchall() == [{"order_id": "o"}]
            with connect(url) as itself, pytest.raises(psycopg.errors.InsufficientPrivilege):
                itself.execute("SELECT * FROM public.orders")
        finally:
            connection.execute("DROP OWNED BY service_login")
            connection.execute("DROP ROLE service_login")


def test_rights_that_an_owner_has_granted_need_not_be_granted_by_the_migrating_role(new_database):
    """In production the bots' tables belong to somebody else."""
    url = new_database(migrated=True)
    with connect(url) as connection:
        connection.execute("CREATE ROLE migrator LOGIN")
        try:
            connection.execute("GRANT recon_reader, recon_writer TO migrator")
            connection.execute(
                "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO migrator', current_database()); END $$"
            )
            connection.execute("GRANT CREATE ON SCHEMA public TO migrator")
            connection.execute("DROP SCHEMA recon CASCADE")
            connection.execute("ALTER TABLE public.reconciliation_backfill_audit OWNER TO migrator")
            theirs = url.replace("postgres@", "migrator@")
            assert migrate(theirs)[0] == "0001_bot_tables"
            connection.execute("REVOKE UPDATE ON public.orders FROM recon_writer")
            connection.execute("ALTER TABLE public.orders ADD COLUMN venue text")
            with pytest.raises(
                MigrationError,
                match=r"migrator may not grant rights on public\.orders(?s:.*)As its owner: GRANT SELECT ON",
            ):
                migrate(theirs)
        finally:
            connection.execute("DROP OWNED BY migrator CASCADE")
            connection.execute("DROP ROLE migrator")


def test_the_migrating_role_need_not_be_a_superuser(new_database, postgres):
    url = new_database(migrated=False)
    with connect(url) as connection:
        connection.execute("CREATE ROLE plain_owner LOGIN CREATEROLE")
        try:
            connection.execute(
                "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO plain_owner', current_database()); END $$"
            )
            connection.execute("ALTER SCHEMA public OWNER TO plain_owner")
            for role in ("recon_reader", "recon_writer"):
                if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is not None:
                    connection.execute(f"GRANT {role} TO plain_owner WITH ADMIN OPTION")
            owner = url.replace("postgres@", "plain_owner@")
            assert migrate(owner)[0] == "0001_bot_tables"
            with connect(owner, "recon_reader") as reader:
                assert reader.execute("SELECT count(*) AS n FROM recon.lifecycle_orders").fetchone() == {"n": 0}
        finally:
            connection.execute("REASSIGN OWNED BY plain_owner TO postgres")
            connection.execute("DROP OWNED BY plain_owner CASCADE")
            connection.execute("DROP ROLE plain_owner")
