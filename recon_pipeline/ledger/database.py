"""How the pipeline connects to its database: role, time zone, time limits, exact numbers, errors without secrets.

What belongs here: making a connection. What does not: any statement (``sql/*.sql``) and any URL (callers bring it).

Connections are in autocommit mode: one statement is one transaction, and whatever needs more says ``with
connection.transaction():``. Rows are dictionaries. Numbers in JSON are read as ``Decimal``.
"""

from __future__ import annotations

import datetime as dt
import json
import operator
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any, Final, Literal, SupportsIndex, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.types.json import set_json_dumps, set_json_loads

Role: TypeAlias = Literal["recon_reader", "recon_writer"]
Row: TypeAlias = dict[str, Any]
Connection: TypeAlias = psycopg.Connection[Row]

READER: Final[Role] = "recon_reader"
WRITER: Final[Role] = "recon_writer"


class DatabaseUnavailableError(Exception):
    """No usable connection; the text names server, database and user, never the password."""


def connect(
    database_url: str,
    role: Role | None = None,
    application_name: str = "recon",
    *,
    statement_timeout_ms: int = 120_000,
    lock_timeout_ms: int = 10_000,
    connect_timeout_s: int = 10,
) -> Connection:
    """Open a connection that acts as ``role`` (None: as the login role itself, which only migrations need)."""
    options = [
        "-c timezone=UTC",
        f"-c statement_timeout={statement_timeout_ms}",
        f"-c lock_timeout={lock_timeout_ms}",
        "-c idle_in_transaction_session_timeout=300000",
        "-c client_encoding=UTF8",
    ]
    if role is not None:
        options.append(f"-c role={role}")
    failure: str
    try:
        connection = psycopg.connect(
            database_url,
            autocommit=True,
            row_factory=dict_row,
            application_name=application_name,
            options=" ".join(options),
            connect_timeout=connect_timeout_s,
        )
    except psycopg.Error as error:
        failure = redact(str(error), database_url).strip()
    else:
        set_json_loads(partial(json.loads, parse_float=Decimal), connection)
        set_json_dumps(partial(json.dumps, default=_json_value, allow_nan=False), connection)
        return _in_role(connection, role, database_url)
    hint = ""
    if role is not None and f'permission denied to set role "{role}"' in failure:
        hint = f"; an administrator has to GRANT {role} to the login role"
    elif role is not None and f'"{role}"' in failure:
        hint = "; run `recon migrate` first, which creates the roles"
    # Raised outside the handler: the driver's own message may quote the URL, and must not follow as a context.
    raise DatabaseUnavailableError(f"can't connect to {describe(database_url)}: {failure}{hint}")


def _in_role(connection: Connection, role: Role | None, database_url: str) -> Connection:
    """Return the connection if it acts as the role: a pooler that drops start-up options must not hand out more."""
    if role is None:
        return connection
    row = connection.execute(b"SELECT current_user AS name").fetchone()
    if row is not None and row["name"] == role:
        return connection
    connection.close()
    raise DatabaseUnavailableError(
        f"the session on {describe(database_url)} acts as {row['name'] if row else 'nobody'!r}, not as {role}: "
        "a pooler in between dropped the start-up option; connect to the server directly or in session mode"
    )


def describe(database_url: str) -> str:
    """Return server, database and user of a URL, for messages."""
    try:
        parts = conninfo_to_dict(database_url)
    except psycopg.Error:
        return "the database URL (which can't be parsed)"
    host = parts.get("host") or parts.get("hostaddr") or "localhost"
    port = f":{parts['port']}" if parts.get("port") else ""
    user = f" as {parts['user']}" if parts.get("user") else ""
    return f"database {parts.get('dbname') or parts.get('user') or '(default)'} on {host}{port}{user}"


def redact(text: str, database_url: str) -> str:
    """Return the text without anything secret of the URL. Of a URL that can't be parsed nothing can be told apart."""
    try:
        parts = conninfo_to_dict(database_url)
    except psycopg.Error:
        return "the URL is malformed (its text is withheld, it may hold a password)"
    for secret in [database_url, *sorted(_secret_parts(parts), key=len, reverse=True)]:
        text = text.replace(secret, "***")
    return text


def secrets_of(database_url: str) -> list[str]:
    """Return what must not be told of a URL: all of it, and the secrets in it, for whoever redacts more than one."""
    try:
        return [database_url, *_secret_parts(conninfo_to_dict(database_url))]
    except psycopg.Error:
        return [database_url]


def _secret_parts(parts: Mapping[str, Any]) -> list[str]:
    return [str(parts[key]) for key in ("password", "sslpassword", "passfile", "sslkey") if parts.get(key)]


def _json_value(value: object) -> str | int:
    """Return exact decimals and instants as JSON strings, numpy's integers as numbers."""
    if isinstance(value, SupportsIndex):
        return operator.index(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise TypeError("an instant without a time zone can't be stored")
        return value.astimezone(dt.UTC).isoformat()
    raise TypeError(f"{type(value).__name__} can't be stored as JSON")
