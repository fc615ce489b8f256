"""A ledger in a real database and an exchange in memory: what the tests of the apply plan from and apply to."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pandas as pd
import psycopg
from psycopg.rows import dict_row

from recon_pipeline.apply import ApplyResult, RollbackResult, apply_plan, rollback_batch, set_trading_state
from recon_pipeline.domain.exit_backfill import plan_exit_backfill
from recon_pipeline.domain.frames import POSITIONS, PROFILES
from recon_pipeline.domain.plan import ExitBackfillInputs, ProfilePlan
from recon_pipeline.domain.policy import ExitBackfillPolicy
from recon_pipeline.domain.readings import consumption_frame, exchange_orders_frame, lifecycle_rows_frame
from recon_pipeline.ledger.reads import PostgresLedger

NOW = dt.datetime(2026, 3, 2, 12, 0, tzinfo=dt.UTC)
NOW_MS = int(NOW.timestamp() * 1000)
LEDGER_TABLES = ("orders", "positions", "trade_history", "capital_ledger")
BOT_TABLES = (*LEDGER_TABLES, "profiles", "trading_control")
VOLATILE = ("id", "created_at", "updated_at")


class Book:
    """One database and the exchange accounts around it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.exchange: dict[str, list[dict[str, Any]]] = {}
        self._minute = 0
        set_trading_state(url, "all", "PAUSED", "test", "repair", NOW)

    # -- the database

    def rows(self, query: str, *parameters: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            return connection.execute(query.encode(), parameters or None).fetchall()

    def run(self, query: str, *parameters: Any) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(query.encode(), parameters or None)

    def dump(self, tables: Sequence[str] = LEDGER_TABLES, *, without: Sequence[str] = VOLATILE) -> dict[str, list[str]]:
        """Every row of the tables as sorted JSON text, exact."""
        out: dict[str, list[str]] = {}
        for table in tables:
            name = table if "." in table else f"public.{table}"
            rows = self.rows(f"SELECT (to_jsonb(t) - %s::text[])::text AS row FROM {name} AS t", list(without))
            out[table] = sorted(row["row"] for row in rows)
        return out

    def audit(self, batch_id: str) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM reconciliation_backfill_audit WHERE batch_id = %s ORDER BY id", batch_id)

    def decisions(self, batch_id: str) -> list[str]:
        return [row["decision"] for row in self.audit(batch_id)]

    def batch(self, batch_id: str) -> dict[str, Any]:
        return self.rows("SELECT * FROM recon.batches WHERE batch_id = %s", batch_id)[0]

    def events(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM recon.events ORDER BY id")

    def order(self, order_id: str) -> dict[str, Any]:
        return self.rows("SELECT * FROM orders WHERE order_id = %s", order_id)[0]

    def backfill_rows(self, profile_id: str = "p1") -> list[dict[str, Any]]:
        return self.rows(
            "SELECT * FROM orders WHERE order_id LIKE 'BFILL-%%' AND profile_id = %s ORDER BY filled_at, order_id",
            profile_id,
        )

    def position(self, trade_id: str, profile_id: str = "p1") -> dict[str, Any]:
        return self._one("positions", trade_id, profile_id)

    def history(self, trade_id: str, profile_id: str = "p1") -> dict[str, Any]:
        return self._one("trade_history", trade_id, profile_id)

    def capital(self, trade_id: str, profile_id: str = "p1") -> dict[str, Any]:
        return self._one("capital_ledger", trade_id, profile_id)

    def _one(self, table: str, trade_id: str, profile_id: str) -> dict[str, Any]:
        return self.rows(f"SELECT * FROM {table} WHERE trade_id = %s AND profile_id = %s", trade_id, profile_id)[0]

    # -- what happened before

    def profile(self, profile_id: str, account_id: str = "a1") -> None:
        self.run("INSERT INTO profiles (profile_id, user_id, account_id) VALUES (%s, 'u1', %s)", profile_id, account_id)

    def record(
        self,
        order_id: str,
        trade_id: str | None,
        side: str,
        qty: str,
        *,
        price: str = "100",
        action: str | None = None,
        status: str = "filled",
        profile_id: str = "p1",
        symbol: str = "AAPL",
        client_order_id: str | None = None,
    ) -> None:
        """A lifecycle row as a bot writes it."""
        at = self._time()
        self.run(
            """INSERT INTO orders (order_id, client_order_id, user_id, profile_id, symbol, type, side, qty, quantity, price,
                 status, "timestamp", filled_at, trade_id, action, source)
               VALUES (%s, %s, 'u1', %s, %s, 'market', %s, %s, %s, %s, %s, %s, %s, %s, %s, 'BOT')""",
            order_id,
            client_order_id,
            profile_id,
            symbol,
            side,
            qty,
            qty,
            price,
            status,
            int(at.timestamp() * 1000),
            at,
            trade_id,
            action,
        )

    def trade(
        self,
        trade_id: str,
        qty: str,
        *,
        price: str = "100",
        side: str = "BUY",
        profile_id: str = "p1",
        symbol: str = "AAPL",
    ) -> None:
        """An entered trade in all books of its bot."""
        self.record(
            f"entry-{profile_id}-{trade_id}",
            trade_id,
            side,
            qty,
            price=price,
            action="ENTRY",
            profile_id=profile_id,
            symbol=symbol,
        )
        held = f"-{qty}" if side == "SELL" else qty
        self.run(
            "INSERT INTO positions (profile_id, trade_id, symbol, side, qty, avg_entry_price, status, opened_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, 'open', %s)",
            profile_id,
            trade_id,
            symbol,
            side,
            held,
            price,
            NOW,
        )
        self.run(
            "INSERT INTO trade_history (profile_id, trade_id, symbol, side, entry_qty, exit_qty, entry_price, fees_usd,"
            " status, opened_at) VALUES (%s, %s, %s, %s, %s, 0, %s, 0.25, 'open', %s)",
            profile_id,
            trade_id,
            symbol,
            side,
            qty,
            price,
            NOW,
        )
        self.run(
            "INSERT INTO capital_ledger (profile_id, trade_id, reserved_usd) VALUES (%s, %s, %s::numeric * %s::numeric)",
            profile_id,
            trade_id,
            qty,
            price,
        )

    def executed(
        self,
        order_id: str,
        trade_id: str,
        qty: str,
        *,
        price: str = "110",
        side: str = "sell",
        profile_id: str = "p1",
        account_id: str = "a1",
        symbol: str = "AAPL",
        suffix: str = "-exit",
    ) -> None:
        """An order that the exchange executed, attributed by its client order id."""
        at = self._time()
        self.exchange.setdefault(account_id, []).append(
            {
                "id": order_id,
                "client_order_id": f"bytelyst-{profile_id}-{trade_id}{suffix}",
                "symbol": symbol,
                "side": side,
                "status": "filled",
                "filled_qty": qty,
                "filled_avg_price": price,
                "filled_at": at.isoformat(),
            }
        )

    def _time(self) -> dt.datetime:
        self._minute += 1
        return NOW - dt.timedelta(hours=10) + dt.timedelta(minutes=self._minute)

    # -- the pipeline

    def plans(
        self, profile_ids: Iterable[str] = ("p1",), *, batch: str = "B1", reapply: bool = False
    ) -> dict[str, ProfilePlan]:
        """Plan the profiles together, as one run does; their batches are <batch>-<profile>."""
        chosen = list(profile_ids)
        with PostgresLedger(self.url) as ledger:
            siblings = ledger.account_siblings(chosen)
            ids = [row["profile_id"] for row in siblings]
            accounts = sorted({row["account_id"] for row in siblings})
            records = ledger.lifecycle_records(ids)
            consumed = ledger.consumption(accounts)
        profiles = pd.DataFrame(
            [
                {
                    "profile_id": row["profile_id"],
                    "user_id": row["user_id"],
                    "account_id": row["account_id"],
                    "selected": row["profile_id"] in chosen,
                    "paused": True,
                    "audit_available": True,
                    "evidence_defect": "",
                    "managed_symbols": None,
                    "batch_id": f"{batch}-{row['profile_id']}",
                }
                for row in siblings
            ],
            columns=PROFILES.names,
        )
        orders = [exchange_orders_frame(self.exchange.get(account, []), account_id=account) for account in accounts]
        inputs = ExitBackfillInputs(
            profiles=profiles,
            lifecycle_rows=lifecycle_rows_frame(records),
            exchange_orders=pd.concat(orders, ignore_index=True),
            positions=POSITIONS.empty(),
            consumption=consumption_frame(consumed),
        )
        policy = ExitBackfillPolicy(enabled=True, reapply_reverted=reapply)
        plan = plan_exit_backfill(inputs, policy, now_ms=NOW_MS)
        return {profile: plan.for_profile(profile) for profile in chosen}

    def plan(self, profile_id: str = "p1", *, batch: str = "B1", reapply: bool = False) -> ProfilePlan:
        return self.plans([profile_id], batch=batch, reapply=reapply)[profile_id]

    def apply(self, plan: ProfilePlan, **more: Any) -> ApplyResult:
        arguments: dict[str, Any] = {
            "run_id": "run-1",
            "owner": "worker-1",
            "now": NOW,
            "expected_digest": plan.digest,
        }
        return apply_plan(self.url, plan, **(arguments | more))

    def rollback(self, batch_id: str, **more: Any) -> RollbackResult:
        arguments: dict[str, Any] = {"run_id": "run-2", "owner": "worker-2", "now": NOW + dt.timedelta(hours=1)}
        return rollback_batch(self.url, batch_id, **(arguments | more))


def at_point(point: str, action: Callable[[], object]) -> Callable[[str], None]:
    """A hook that acts once, at one fault point."""
    done: list[str] = []

    def hook(reached: str) -> None:
        if reached == point and not done:
            done.append(reached)
            action()

    return hook
