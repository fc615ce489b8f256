"""Puts a demo book where it belongs: the ledger rows into the bots' tables, the history into the simulated exchange.

Here: loading, and whether a book is loaded. Not here: what is in it, and anything that judges an outcome.
"""

import hashlib
from dataclasses import asdict
from decimal import Decimal

from psycopg.types.json import Jsonb

from recon_pipeline.exchange.credentials import AccountCredentials
from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.statements import statement
from recon_pipeline.sandbox.demo_book import DemoBook, LedgerOrder
from recon_pipeline.sandbox.exchange import AccountSettings, ExchangeBook

REQUESTS_PER_MINUTE = 1000
CLOSED_BELOW = Decimal("0.00000001")


def is_loaded(database_url: str, prefix: str) -> bool:
    """Whether the database holds profiles of the book with this prefix."""
    with connect(database_url, application_name="recon sandbox") as connection:
        row = connection.execute(statement("count_profiles"), {"pattern": pattern(prefix)}).fetchone()
    return row is not None and int(row["profiles"]) > 0


def pattern(prefix: str) -> str:
    """Spell the LIKE pattern of a book's profile ids."""
    return f"{prefix}-%"


def load_ledger(database_url: str, book: DemoBook) -> None:
    """Write the bots' rows, all or none."""
    users = {profile.profile_id: profile.user_id for profile in book.profiles}
    accounts = {profile.profile_id: profile.account_id for profile in book.profiles}
    rows = [*book.ledger, *(batch.row for batch in book.reverted)]
    with connect(database_url, application_name="recon sandbox") as connection, connection.transaction():
        connection.execute(
            statement("insert_demo_profiles"), {"rows": Jsonb([asdict(profile) for profile in book.profiles])}
        )
        connection.execute(
            statement("insert_demo_orders"),
            {"rows": Jsonb([{**asdict(row), "user_id": users[row.profile_id]} for row in rows])},
        )
        connection.execute(statement("insert_demo_trades"), {"rows": Jsonb(_trades(book))})
        for batch in book.reverted:
            connection.execute(
                statement("insert_demo_reverted_batch"),
                {
                    "batch_id": batch.batch_id,
                    "profile_id": batch.row.profile_id,
                    "account_id": accounts[batch.row.profile_id],
                    "symbol": batch.row.symbol,
                    "trade_id": batch.row.trade_id,
                    "exchange_order_id": batch.exchange_order_id,
                    "exchange_client_order_id": batch.exchange_client_order_id,
                    "backfill_order_id": batch.row.order_id,
                    "qty": batch.row.qty,
                    "price": batch.row.price,
                    "at": batch.row.at,
                },
            )


def _trades(book: DemoBook) -> list[dict[str, object]]:
    trades: list[dict[str, object]] = []
    for truth in book.truths:
        rows = [
            row
            for row in book.ledger
            if (row.profile_id, row.trade_id) == (truth.profile_id, truth.trade_id) and row.status == "filled"
        ]
        exits = [row for row in rows if row.action == "EXIT"]
        closed = truth.open_qty <= CLOSED_BELOW
        trades.append(
            {
                "profile_id": truth.profile_id,
                "trade_id": truth.trade_id,
                "symbol": truth.symbol,
                "side": truth.entry_side,
                "entry_qty": truth.entry_qty,
                "exit_qty": truth.recorded_exit,
                "entry_price": _average([row for row in rows if row.action == "ENTRY"]),
                "exit_price": _average(exits),
                "opened_at": min(row.at for row in rows),
                "closed_at": max(row.at for row in exits) if closed else None,
            }
        )
    return trades


def _average(rows: list[LedgerOrder]) -> Decimal | None:
    total = sum((row.filled_qty for row in rows), Decimal(0))
    value = sum((row.filled_qty * row.price for row in rows), Decimal(0))
    return (value / total).quantize(Decimal("0.000000001")) if total else None


def load_exchange(exchange: ExchangeBook, book: DemoBook) -> None:
    """Open the book's accounts on the exchange and tell it what happened there; what it knows already is left alone."""
    settings = AccountSettings(cash=Decimal(1_000_000), requests_per_minute=REQUESTS_PER_MINUTE)
    known = {account.number for account in exchange.accounts()}
    for account_id in book.account_ids:
        if account_id not in known:
            keys = credentials(account_id, "http://unused")
            exchange.add_account(account_id, key_id=keys.key_id, secret_key=keys.secret_key, settings=settings)
    for told in sorted(book.exchange, key=lambda told: told.begins_at):
        if exchange.account(told.account_id).order_by_client_id(str(told.order.client_order_id)) is None:
            exchange.inject(told.account_id, [told.order])


def credentials(account_id: str, base_url: str) -> AccountCredentials:
    """Return the keys of a simulated account: made from its name, worth nothing anywhere else."""
    digest = hashlib.sha256(f"simulated account {account_id}".encode()).hexdigest()
    return AccountCredentials(
        account_id=account_id, key_id=f"PK{digest[:18].upper()}", secret_key=digest[18:58], base_url=base_url
    )
