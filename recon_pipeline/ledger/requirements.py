"""What the pipeline needs of the bots' tables, and what a database lacks of it: for ``recon doctor`` and the gate.

What belongs here: the requirements and their check. What does not: mending anything (``migrate`` adds what is ours;
the bots' tables are never altered).

A column is required when a decision or a written row stands on it. What is only convenient has a default in the views
of ``sql/migrations/repeatable`` and is reported as advice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import psycopg

from recon_pipeline.ledger.database import READER, WRITER, Connection, DatabaseUnavailableError, Row, connect
from recon_pipeline.ledger.migrate import pending
from recon_pipeline.ledger.reads import AUDIT_COLUMNS
from recon_pipeline.ledger.statements import statement


class Stops(IntEnum):
    """What a problem stops."""

    NOTHING = 0
    APPLY = 1
    EVERYTHING = 2


@dataclass(frozen=True)
class Problem:
    """One thing the database lacks."""

    where: str
    """``table.column``, or ``table``."""
    what: str
    remedy: str
    stops: Stops

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.where} {self.what}. {self.remedy}"


DECIMALS: Final = 9
"""Decimals of a traded quantity."""

AUDIT: Final = "reconciliation_backfill_audit"

REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "profiles": ("profile_id",),
    "orders": (
        "order_id",
        "user_id",
        "profile_id",
        "symbol",
        "type",
        "side",
        "qty",
        "price",
        "status",
        "timestamp",
        "filled_at",
        "trade_id",
        "action",
        "source",
        "created_at",
        "updated_at",
    ),
    "trading_control": ("scope", "state", "source", "since", "reason", "updated_at"),
    AUDIT: AUDIT_COLUMNS,
    "positions": (
        "profile_id",
        "trade_id",
        "symbol",
        "side",
        "qty",
        "avg_entry_price",
        "status",
        "closed_at",
        "updated_at",
    ),
    "trade_history": (
        "profile_id",
        "trade_id",
        "symbol",
        "side",
        "entry_qty",
        "exit_qty",
        "entry_price",
        "exit_price",
        "realized_pnl_usd",
        "status",
        "closed_at",
        "updated_at",
    ),
    "capital_ledger": ("profile_id", "trade_id", "reserved_usd", "updated_at"),
}

OPTIONAL: Final[dict[tuple[str, str], str]] = {
    ("profiles", "account_id"): "every profile is taken to trade on the account 'default'",
    ("profiles", "enabled"): "every profile is taken as enabled",
    ("profiles", "managed_symbols"): "every symbol is taken to be in scope",
    ("profiles", "user_id"): "owners are taken from the orders",
    ("profiles", "allocated_capital_usd"): "limits relative to the allocated capital are off",
    ("orders", "client_order_id"): "orders known only by their client id are not recognised",
    ("orders", "filled_qty"): "partially filled orders count with their ordered quantity",
    ("orders", "sub_tag"): "attribution tags are neither read nor written",
    ("orders", "quantity"): "qty alone is read and written",
}

UNIQUE: Final[dict[str, tuple[str, ...]]] = {
    "orders": ("order_id",),
    "trading_control": ("scope",),
    "positions": ("profile_id", "trade_id"),
    "trade_history": ("profile_id", "trade_id"),
    "capital_ledger": ("profile_id", "trade_id"),
}

# Type categories of pg_type: D time, E enum, N number, S text, U user-defined (uuid), B boolean.
_KINDS: Final[dict[str, str]] = {
    "qty": "NS",
    "quantity": "NS",
    "filled_qty": "NS",
    "price": "NS",
    "timestamp": "NDS",
    "filled_at": "NDS",
    "created_at": "NDS",
    "updated_at": "D",
    "since": "D",
    "closed_at": "D",
    "status": "SE",
    "side": "SE",
    "action": "SE",
    "order_id": "S",
    "avg_entry_price": "N",
    "entry_qty": "N",
    "exit_qty": "N",
    "entry_price": "N",
    "exit_price": "N",
    "realized_pnl_usd": "N",
    "reserved_usd": "N",
    "filled_price": "N",
    "dry_run": "B",
    "enabled": "B",
}
LIVE_CONDITION: Final = (
    "coalesce(lower(translate(trim({status}), '- ', '__')), '') <> ALL "
    "('{{filled,canceled,cancelled,expired,rejected,replaced,done_for_day,failed,error}}'::text[])"
)
"""The expression of ``recon.may_execute``, as the condition of an index that serves it."""
_KIND_NAMES: Final = {"N": "a number", "D": "a time", "S": "text", "E": "an enumeration", "B": "a boolean"}
_QUANTITIES: Final = (
    "qty",
    "quantity",
    "filled_qty",
    "price",
    "entry_qty",
    "exit_qty",
    "filled_price",
    "avg_entry_price",
)
_INSERTED: Final = frozenset(REQUIRED["orders"]) - {"created_at", "updated_at"} | {"quantity"}
_STOPS: Final = {"profiles": Stops.EVERYTHING, "orders": Stops.EVERYTHING, "trading_control": Stops.EVERYTHING}


def check_database(database_url: str) -> list[Problem]:
    """Return everything that is wrong with the database, what stops most first; empty means ready."""
    try:
        due = pending(database_url)
    except DatabaseUnavailableError as error:
        return [Problem("database", "can't be used", str(error), Stops.EVERYTHING)]
    except psycopg.errors.InsufficientPrivilege as error:
        remedy = "Run `recon migrate` as the owner of the schema recon."
        return [Problem("database", f"refuses to show its migrations ({error})", remedy, Stops.EVERYTHING)]
    found: list[Problem] = []
    if due:
        remedy = "Run `recon migrate`."
        found.append(Problem("database", f"has migrations to run: {', '.join(due)}", remedy, Stops.EVERYTHING))
    for role in (READER, WRITER):
        try:
            with connect(database_url, role, "recon doctor") as connection:
                if role == READER:
                    found += check_tables(connection)
        except DatabaseUnavailableError as error:
            remedy = f"As an administrator: GRANT {role} TO the login role; `recon migrate` creates the role. ({error})"
            stops = Stops.EVERYTHING if role == READER else Stops.APPLY
            found.append(Problem(f"role {role}", "can't be assumed", remedy, stops))
    return sorted(found, key=lambda problem: -problem.stops)


def check_tables(connection: Connection) -> list[Problem]:
    """Return what the bots' tables and the audit table lack, what stops most first."""
    tables = list(REQUIRED)
    columns: dict[str, dict[str, Row]] = {}
    for row in connection.execute(statement("select_columns"), {"tables": tables}):
        columns.setdefault(row["table_name"], {})[row["column_name"]] = row
    keys: dict[str, list[list[str]]] = {}
    for row in connection.execute(statement("select_unique_keys"), {"tables": tables}):
        keys.setdefault(row["table_name"], []).append(row["columns"])
    privileges = connection.execute(statement("select_privileges"), {"tables": tables}).fetchall()
    indexed = connection.execute(statement("select_profile_index")).fetchone()

    found: list[Problem] = []
    for table in tables:
        if table not in columns:
            found.append(Problem(table, "is missing", "Run `recon migrate`, which creates it.", _stops(table)))
            continue
        found += _column_problems(table, columns[table])
        wanted = set(UNIQUE.get(table, ()))
        if wanted and wanted <= columns[table].keys() and sorted(wanted) not in keys.get(table, []):
            listed = ", ".join(UNIQUE[table])
            where = f"{table}.{UNIQUE[table][0]}" if len(UNIQUE[table]) == 1 else table
            remedy = f"Add it: CREATE UNIQUE INDEX CONCURRENTLY ON public.{table} ({listed});"
            found.append(Problem(where, f"has no unique constraint on ({listed})", remedy, Stops.APPLY))
    found += _privilege_problems(privileges)
    if "profile_id" in columns.get("orders", {}) and not (indexed and indexed["indexed"]):
        text = columns["orders"]["profile_id"]["type"] in ("text", "character varying")
        what = "profile_id" if text else "(profile_id::text)"
        remedy = f"CREATE INDEX CONCURRENTLY ON public.orders ({what});"
        found.append(Problem("orders.profile_id", "has no index that a reading can use", remedy, Stops.NOTHING))
    found += _live_index_problems(connection, columns.get("orders", {}))
    return sorted(found, key=lambda problem: -problem.stops)


def _live_index_problems(connection: Connection, columns: dict[str, Row]) -> Iterator[Problem]:
    """Say which index finds the orders that may still execute. A status that is no text has none that could."""
    status = columns.get("status")
    if status is None or status["category"] != "S" or not {"profile_id", "order_id"} <= columns.keys():
        return
    row = connection.execute(statement("select_live_index")).fetchone()
    if row is None or row["indexed"]:
        return
    keys = [name if columns[name]["type"] == "text" else f"({name}::text)" for name in ("profile_id", "order_id")]
    text = "status" if status["type"] == "text" else "status::text"
    remedy = (
        f"CREATE INDEX CONCURRENTLY ON public.orders ({', '.join(keys)}) WHERE {LIVE_CONDITION.format(status=text)};"
    )
    yield Problem("orders.status", "has no index for orders that may still execute", remedy, Stops.NOTHING)


def _stops(table: str) -> Stops:
    return _STOPS.get(table, Stops.APPLY)


def _column_problems(table: str, columns: dict[str, Row]) -> Iterator[Problem]:
    for name in REQUIRED[table]:
        if name not in columns:
            remedy = f"Add it (ALTER TABLE public.{table} ADD COLUMN ...), then run `recon migrate`."
            yield Problem(f"{table}.{name}", "is missing", remedy, _stops(table))
    for (of_table, name), meaning in OPTIONAL.items():
        if of_table == table and name not in columns:
            yield Problem(f"{table}.{name}", "is missing", f"Nothing has to be done; {meaning}.", Stops.NOTHING)
    for name, column in columns.items():
        known = name in REQUIRED[table] or (table, name) in OPTIONAL
        if known:
            yield from _type_problems(table, name, column)
        if table == "orders" and name not in _INSERTED and column["not_null"] and not column["has_default"]:
            remedy = "Give it a default, or drop NOT NULL: a backfill row has no value for it."
            yield Problem(f"{table}.{name}", "is NOT NULL without a default", remedy, Stops.APPLY)


def _type_problems(table: str, name: str, column: Row) -> Iterator[Problem]:
    kinds = _KINDS.get(name)
    if kinds is not None and column["category"] not in kinds:
        wanted = " or ".join(_KIND_NAMES[kind] for kind in kinds)
        remedy = f"It has to be {wanted}."
        yield Problem(f"{table}.{name}", f"has the type {column['type']}", remedy, _stops(table))
    elif name in _QUANTITIES and column["type"] in ("double precision", "real"):
        remedy = "NUMERIC is exact: ALTER TABLE ... TYPE numeric when the bots allow it."
        yield Problem(f"{table}.{name}", f"has the type {column['type']}, which rounds", remedy, Stops.NOTHING)
    elif name in _QUANTITIES and column["scale"] is not None and column["scale"] < DECIMALS:
        remedy = f"{DECIMALS} decimals are traded; an apply that would round a quantity is refused: ALTER TABLE ... TYPE numeric."
        yield Problem(f"{table}.{name}", f"keeps {column['scale']} decimals", remedy, Stops.NOTHING)
    elif name in _QUANTITIES and column["type"] in ("smallint", "integer", "bigint"):
        remedy = "Fractions can't be stored: ALTER TABLE ... TYPE numeric."
        yield Problem(f"{table}.{name}", f"has the type {column['type']}", remedy, Stops.APPLY)


def _privilege_problems(rows: Sequence[Row]) -> Iterator[Problem]:
    for row in rows:
        table, role = row["table_name"], row["role_name"]
        writes = role == WRITER or table == AUDIT
        updates = role == WRITER and table != "profiles"
        wanted = {
            "SELECT": row["may_select"],
            "INSERT": row["may_insert"] or not writes,
            "UPDATE": row["may_update"] or not updates,
        }
        lacking = [privilege for privilege, granted in wanted.items() if not granted]
        if lacking:
            remedy = f"As its owner: GRANT {', '.join(lacking)} ON public.{table} TO {role}."
            stops = Stops.EVERYTHING if "SELECT" in lacking else Stops.APPLY
            yield Problem(table, f"refuses {', '.join(lacking)} to {role}", remedy, stops)
        if row["may_delete"]:
            remedy = f"Nothing is ever deleted: REVOKE DELETE, TRUNCATE ON public.{table} FROM PUBLIC, {role};"
            yield Problem(table, f"lets {role} delete rows", remedy, Stops.APPLY)
        if row["hides_rows"]:
            remedy = f"CREATE POLICY {role} ON public.{table} TO {role} USING (true) WITH CHECK (true);"
            yield Problem(table, f"has row security that may hide rows from {role}", remedy, Stops.EVERYTHING)
