"""The bots' hands on the database: how they write orders and books, and a trigger that writes down who changed what.

The trigger is the checker's own witness: it sees every change of the bots' tables, whatever the pipeline says about itself.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from recon_pipeline_tests.soak.cast import Profile

BOTS = "soak bots"
WATCHED = ("orders", "positions", "trade_history", "capital_ledger", "profiles")

_WITNESS = """
CREATE SCHEMA soak;
CREATE TABLE soak.changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text NOT NULL, name text NOT NULL, op text NOT NULL,
  before jsonb, after jsonb
);
CREATE INDEX ON soak.changes (id) WHERE who <> 'soak bots';
CREATE FUNCTION soak.witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  INSERT INTO soak.changes (who, name, op, before, after)
  VALUES (current_setting('application_name'), TG_TABLE_NAME, TG_OP, CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
          CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END);
  RETURN NULL;
END $$;
"""
_UPSERT = """
INSERT INTO public.orders AS o (order_id, client_order_id, user_id, profile_id, symbol, type, side, qty, quantity, filled_qty,
  price, status, "timestamp", filled_at, trade_id, action, source, sub_tag, created_at, updated_at)
VALUES (%(order_id)s, %(client_order_id)s, %(user_id)s, %(profile_id)s, %(symbol)s, %(type)s, %(side)s, %(qty)s, %(quantity)s,
  %(filled_qty)s, %(price)s, %(status)s, %(time_ms)s, %(filled_at)s, %(trade_id)s, %(action)s, 'BOT', %(sub_tag)s, %(at)s, %(at)s)
ON CONFLICT (order_id) DO UPDATE SET status = excluded.status, qty = excluded.qty, quantity = excluded.quantity,
  filled_qty = excluded.filled_qty, price = coalesce(excluded.price, o.price), "timestamp" = excluded."timestamp",
  filled_at = coalesce(excluded.filled_at, o.filled_at), updated_at = excluded.updated_at
"""
# A bot's books are what its rows say: executed quantity by action, whoever wrote the row. Idempotent.
_BOOK = """
WITH rows AS (
  SELECT upper(action) AS action, price, status, filled_at, coalesce(qty, quantity) AS ordered,
         CASE status WHEN 'filled' THEN coalesce(qty, quantity) WHEN 'partially_filled' THEN filled_qty ELSE 0 END AS done
  FROM public.orders WHERE profile_id = %(profile_id)s AND trade_id = %(trade_id)s
), told AS (
  SELECT coalesce(sum(done) FILTER (WHERE action = 'ENTRY'), 0) AS entry_qty,
         coalesce(sum(done) FILTER (WHERE action = 'EXIT'), 0) AS exit_qty,
         round(sum(done * price) FILTER (WHERE action = 'ENTRY' AND done > 0)
               / nullif(sum(done) FILTER (WHERE action = 'ENTRY' AND done > 0), 0), 9) AS entry_price,
         round(sum(done * price) FILTER (WHERE action = 'EXIT' AND done > 0)
               / nullif(sum(done) FILTER (WHERE action = 'EXIT' AND done > 0), 0), 9) AS exit_price,
         min(filled_at) FILTER (WHERE done > 0) AS opened_at, max(filled_at) FILTER (WHERE done > 0) AS last_at,
         coalesce(sum((ordered - done) * price)
                  FILTER (WHERE action = 'ENTRY' AND status IN ('pending_new', 'new', 'partially_filled')), 0) AS waiting
  FROM rows
), now AS (
  SELECT *, entry_qty - exit_qty AS open, entry_qty > 0 AND entry_qty - exit_qty <= 0.00000001 AS closed FROM told
), position AS (
  INSERT INTO public.positions AS p
    (profile_id, trade_id, symbol, side, qty, avg_entry_price, status, opened_at, closed_at, updated_at)
  SELECT %(profile_id)s, %(trade_id)s, %(symbol)s, %(side)s, open, entry_price,
         CASE WHEN closed THEN 'closed' ELSE 'open' END, opened_at, CASE WHEN closed THEN last_at END, %(at)s
  FROM now WHERE entry_qty > 0
  ON CONFLICT (profile_id, trade_id) DO UPDATE SET qty = excluded.qty, avg_entry_price = excluded.avg_entry_price,
    status = excluded.status, closed_at = excluded.closed_at, updated_at = excluded.updated_at
), capital AS (
  INSERT INTO public.capital_ledger (profile_id, trade_id, reserved_usd, updated_at)
  SELECT %(profile_id)s, %(trade_id)s, greatest(open, 0) * coalesce(entry_price, 0) + waiting, %(at)s FROM now
  ON CONFLICT (profile_id, trade_id) DO UPDATE SET reserved_usd = excluded.reserved_usd, updated_at = excluded.updated_at
)
INSERT INTO public.trade_history (profile_id, trade_id, symbol, side, entry_qty, exit_qty, entry_price, exit_price,
  realized_pnl_usd, status, opened_at, closed_at, updated_at)
SELECT %(profile_id)s, %(trade_id)s, %(symbol)s, %(side)s, entry_qty, exit_qty, entry_price, exit_price,
       CASE WHEN exit_qty > 0 THEN exit_qty * (exit_price - entry_price) * CASE %(side)s WHEN 'buy' THEN 1 ELSE -1 END END,
       CASE WHEN closed THEN 'closed' ELSE 'open' END, opened_at, CASE WHEN closed THEN last_at END, %(at)s
FROM now WHERE entry_qty > 0
ON CONFLICT (profile_id, trade_id) DO UPDATE SET entry_qty = excluded.entry_qty, exit_qty = excluded.exit_qty,
  entry_price = excluded.entry_price, exit_price = excluded.exit_price, realized_pnl_usd = excluded.realized_pnl_usd,
  status = excluded.status, closed_at = excluded.closed_at, updated_at = excluded.updated_at
"""


@dataclass(frozen=True)
class BotRow:
    """One row of ``orders`` as a bot writes it."""

    order_id: str
    client_order_id: str
    user_id: str
    profile_id: str
    trade_id: str
    symbol: str
    type: str
    side: str
    action: str
    status: str
    qty: Decimal
    filled_qty: Decimal
    price: Decimal | None
    time_ms: int
    filled_at: datetime | None
    sub_tag: str | None
    quantity: Decimal | None = None
    """None where it is ``qty``"""


class BotLedger:
    """One connection that all bots share, as their database client."""

    def __init__(self, database_url: str) -> None:
        self.connection = psycopg.connect(
            database_url, autocommit=True, row_factory=dict_row, application_name=BOTS, options="-c timezone=UTC"
        )
        self._seen = 0

    def close(self) -> None:
        self.connection.close()

    def install(self, profiles: list[Profile], at: datetime) -> None:
        """Set the witness up and write the profiles down."""
        self.connection.execute(_WITNESS)
        for name in WATCHED:
            self.connection.execute(
                f"CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON public.{name} "
                "FOR EACH ROW EXECUTE FUNCTION soak.witness()"
            )
        for profile in profiles:
            self.connection.execute(
                "INSERT INTO public.profiles (profile_id, user_id, account_id, name, allocated_capital_usd, created_at) "
                "VALUES (%s, %s, %s, %s, %s, %s)",
                (profile.profile_id, profile.user_id, profile.account_id, profile.profile_id, profile.capital_usd, at),
            )

    def write(self, row: BotRow, *, entry_side: str, at: datetime, books: bool = True) -> None:
        """Upsert an order's row and, in the same transaction, the trade's books."""
        values = asdict(row) | {"quantity": row.quantity or row.qty, "at": at}
        with self.connection.transaction():
            self.connection.execute(_UPSERT, values)
            if books:
                self._book(row, entry_side, at)

    def write_books_only(self, row: BotRow, *, entry_side: str, at: datetime) -> None:
        """The books know of the order, its row is lost: as where a bot dies between its two writes."""
        if self.rows("SELECT 1 FROM public.orders WHERE order_id = %s", row.order_id):
            return
        with self.connection.transaction():
            self.connection.execute(_UPSERT, asdict(row) | {"quantity": row.quantity or row.qty, "at": at})
            self._book(row, entry_side, at)
            self.connection.execute("DELETE FROM public.orders WHERE order_id = %s", (row.order_id,))

    def _book(self, row: BotRow, entry_side: str, at: datetime) -> None:
        told = {
            "profile_id": row.profile_id,
            "trade_id": row.trade_id,
            "symbol": row.symbol,
            "side": entry_side,
            "at": at,
        }
        self.connection.execute(_BOOK, told)

    def new_changes(self) -> list[dict[str, Any]]:
        """What others than the bots changed since the last call, in order."""
        rows = self.connection.execute(
            "SELECT id, name, op, before, after FROM soak.changes WHERE id > %s AND who <> 'soak bots' ORDER BY id",
            (self._seen,),
        ).fetchall()
        if rows:
            self._seen = rows[-1]["id"]
        return rows

    def rows(self, query: str, *parameters: object) -> list[dict[str, Any]]:
        return self.connection.execute(query, parameters or None).fetchall()
