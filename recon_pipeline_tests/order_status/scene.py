"""The order status sync on a real Postgres and the simulated exchange over HTTP, with a clock that the test holds."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.order_checks import due_profiles
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.order_status.outcome import SyncResult
from recon_pipeline.order_status.ports import SyncPorts
from recon_pipeline.order_status.syncing import sync_order_status
from recon_pipeline.sandbox.exchange import HistoricFill, HistoricOrder
from recon_pipeline_tests.adapters.exchange.world import NOW, order_id
from recon_pipeline_tests.cycle.conftest import Scene


def hours_ago(hours: float) -> dt.datetime:
    return NOW - dt.timedelta(hours=hours)


@dataclass
class SyncScene(Scene):
    """Ledger, exchange and time, and runs of the sync."""

    sync_policy: OrderStatusPolicy = field(default_factory=lambda: OrderStatusPolicy(dry_run=False))

    def stuck(
        self,
        n: int,
        *,
        executed: str = "",
        status: str | None = None,
        qty: str = "10",
        hours: float = 1,
        profile_id: str = "p1",
        account: str = "A1",
        known: bool = True,
        **columns: object,
    ) -> str:
        """An exit order that the ledger has as pending since then; the exchange knows it, and has executed as much of it.

        Its trade has an entry of the same quantity that both know.
        """
        then, trade = hours_ago(hours), f"t{n}"
        at = {"created_at": then, "updated_at": then, "timestamp": int(then.timestamp() * 1000)}
        common = {"profile_id": profile_id, "trade_id": trade, "qty": Decimal(qty), **at}
        self.row(f"entry-{n}", side="BUY", action="ENTRY", price=Decimal(90), filled_at=then, **common)
        exit_row = {"side": "SELL", "action": "EXIT", "status": "pending_new", **common, **columns}
        self.row(order_id(n), **exit_row)
        if known:
            fills = (HistoricFill(Decimal(executed), Decimal(100), then + dt.timedelta(seconds=2)),) if executed else ()
            order = HistoricOrder(
                "AAPL",
                "sell",
                Decimal(qty),
                submitted_at=then,
                fills=fills,
                status=status,
                order_id=order_id(n),
                client_order_id=f"bytelyst-{profile_id}-{trade}-exit",
            )
            self.world.inject(order, account=account)
        return order_id(n)

    def sync(self, *profiles: str, policy: OrderStatusPolicy | None = None, **more: Any) -> SyncResult:
        """One run over the profiles."""
        chosen = policy or self.sync_policy
        run_id = more.pop("run_id", None) or f"sync-{next(self.runs)}"
        reader = more.pop("exchange", None) or self.world.reader
        with PostgresLedger(self.database_url) as ledger:
            return sync_order_status(
                profiles or ("p1",),
                ports=SyncPorts(self.database_url, ledger, reader),
                policy=chosen,
                run_id=run_id,
                now=lambda: self.now,
                new_id=lambda: f"{run_id}-{next(self.ids)}",
                **({"dry_run": chosen.dry_run} | more),
            )

    def due(self) -> list[str]:
        with connect(self.database_url, READER) as connection:
            return due_profiles(connection, self.sync_policy, self.now)

    def checks(self) -> dict[str, dict[str, Any]]:
        return {row["order_id"]: row for row in self.sql("SELECT * FROM recon.order_checks")}

    def totals(self) -> dict[str, Decimal]:
        rows = self.sql("SELECT name, sum(value) AS value FROM recon.totals GROUP BY name")
        return {row["name"]: row["value"] for row in rows}
