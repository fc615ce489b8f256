"""`recon doctor` names what a database lacks, by table and column, with the remedy."""

from __future__ import annotations

import pytest

from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.migrate import migrate
from recon_pipeline.ledger.requirements import Stops, check_database, check_tables


@pytest.fixture
def owner(database_url):
    with connect(database_url) as connection:
        yield connection


def _problems(connection):
    return {problem.where: problem for problem in check_tables(connection)}


def test_a_migrated_database_lacks_nothing(database_url):
    assert check_database(database_url) == []


def test_a_database_that_was_never_migrated_says_so_first(empty_database_url):
    first = check_database(empty_database_url)[0]
    assert str(first).startswith("database has migrations to run: 0001_bot_tables, ")
    assert first.stops is Stops.EVERYTHING


@pytest.mark.parametrize(
    ("table", "column", "stops"),
    [
        ("orders", "trade_id", Stops.EVERYTHING),
        ("orders", "order_id", Stops.EVERYTHING),
        ("profiles", "profile_id", Stops.EVERYTHING),
        ("trading_control", "state", Stops.EVERYTHING),
        ("positions", "qty", Stops.APPLY),
        ("reconciliation_backfill_audit", "reverted_at", Stops.APPLY),
        ("orders", "sub_tag", Stops.NOTHING),
        ("profiles", "account_id", Stops.NOTHING),
    ],
)
def test_a_dropped_column_is_named(owner, table, column, stops):
    owner.execute(f"ALTER TABLE public.{table} DROP COLUMN {column}")
    problem = _problems(owner)[f"{table}.{column}"]
    assert str(problem).startswith(f"{table}.{column} is missing. ")
    assert problem.stops is stops


def test_a_migrated_database_without_a_required_column_migrates_reads_and_says_what_is_missing(database_url, owner):
    owner.execute("ALTER TABLE public.orders DROP COLUMN trade_id")
    assert "has migrations to run: repeatable/" in str(check_database(database_url)[0])
    migrate(database_url)
    assert [str(problem) for problem in check_database(database_url)] == [
        "orders.trade_id is missing. Add it (ALTER TABLE public.orders ADD COLUMN ...), then run `recon migrate`.",
        (
            "orders.profile_id has no index that a reading can use. "
            "CREATE INDEX CONCURRENTLY ON public.orders (profile_id);"
        ),
    ]
    assert owner.execute("SELECT count(*) AS n FROM recon.lifecycle_orders").fetchone() == {"n": 0}


@pytest.mark.parametrize(
    ("harm", "where", "says", "stops"),
    [
        ("DROP TABLE public.capital_ledger", "capital_ledger", "is missing. Run `recon migrate`", Stops.APPLY),
        (
            "ALTER TABLE public.orders DROP CONSTRAINT orders_order_id_key",
            "orders.order_id",
            "has no unique constraint on (order_id). Add it: CREATE UNIQUE INDEX CONCURRENTLY ON public.orders (order",
            Stops.APPLY,
        ),
        (
            "ALTER TABLE public.positions DROP CONSTRAINT positions_pkey",
            "positions",
            "has no unique constraint on (profile_id, trade_id)",
            Stops.APPLY,
        ),
        (
            "DROP INDEX public.orders_live_idx; ALTER TABLE public.orders ALTER COLUMN status TYPE boolean USING false",
            "orders.status",
            "has the type boolean. It has to be text or an enumeration",
            Stops.EVERYTHING,
        ),
        (
            "ALTER TABLE public.orders ALTER COLUMN qty TYPE double precision",
            "orders.qty",
            "has the type double precision, which rounds",
            Stops.NOTHING,
        ),
        ("ALTER TABLE public.orders ALTER COLUMN qty TYPE bigint", "orders.qty", "has the type bigint", Stops.APPLY),
        (
            "ALTER TABLE public.orders ALTER COLUMN qty TYPE numeric(20, 8)",
            "orders.qty",
            "keeps 8 decimals",
            Stops.NOTHING,
        ),
        (
            "ALTER TABLE public.orders ADD COLUMN venue text NOT NULL",
            "orders.venue",
            "is NOT NULL without a default",
            Stops.APPLY,
        ),
        (
            "REVOKE SELECT ON public.profiles FROM recon_reader",
            "profiles",
            "refuses SELECT to recon_",
            Stops.EVERYTHING,
        ),
        ("REVOKE UPDATE ON public.orders FROM recon_writer", "orders", "refuses UPDATE to recon_writer", Stops.APPLY),
        ("GRANT DELETE ON public.orders TO PUBLIC", "orders", "lets recon_", Stops.APPLY),
        (
            "ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY",
            "orders",
            "has row security that may hide rows from recon_",
            Stops.EVERYTHING,
        ),
        ("DROP INDEX public.orders_profile_id_trade_id_idx", "orders.profile_id", "has no index", Stops.NOTHING),
        (
            "DROP INDEX public.orders_live_idx",
            "orders.status",
            "has no index for orders that may still execute. CREATE INDEX CONCURRENTLY ON public.orders (profile_id, order",
            Stops.NOTHING,
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(owner, harm, where, says, stops):
    owner.execute(harm)
    problem = _problems(owner)[where]
    assert says in str(problem)
    assert problem.stops is stops


def test_a_policy_that_shows_every_row_ends_the_complaint_about_row_security(owner):
    owner.execute("ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY")
    owner.execute("CREATE POLICY recon ON public.orders TO recon_reader, recon_writer USING (true) WITH CHECK (true)")
    assert _problems(owner) == {}


def test_a_login_role_without_the_roles_is_a_problem_not_a_crash(database_url, owner):
    owner.execute("CREATE ROLE stranger LOGIN")
    try:
        owner.execute("GRANT USAGE ON SCHEMA recon TO stranger")
        owner.execute("GRANT SELECT ON recon.schema_migrations TO stranger")
        problems = check_database(database_url.replace("postgres@", "stranger@"))
    finally:
        owner.execute("DROP OWNED BY stranger")
        owner.execute("DROP ROLE stranger")
    assert [(problem.where, problem.stops) for problem in problems] == [
        ("role recon_reader", Stops.EVERYTHING),
        ("role recon_writer", Stops.APPLY),
    ]


def test_a_login_role_that_sees_nothing_of_the_schema_is_a_problem_too(database_url, owner):
    owner.execute("CREATE ROLE blind LOGIN")
    try:
        [problem] = check_database(database_url.replace("postgres@", "blind@"))
    finally:
        owner.execute("DROP ROLE blind")
    assert str(problem).startswith("database refuses to show its migrations (permission denied for schema recon")


def test_a_database_that_can_t_be_reached_is_a_problem_without_its_password():
    [problem] = check_database("postgresql://bot:hunter2@127.0.0.1:1/ledger")
    assert problem.stops is Stops.EVERYTHING
    assert "hunter2" not in str(problem)
