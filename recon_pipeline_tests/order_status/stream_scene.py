"""A stream on a real Postgres and the simulated exchange: what it is told, what it makes of it. The test holds the clock."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from recon_pipeline.domain.order_events import read_event
from recon_pipeline.domain.order_status_policy import OrderStatusPolicy
from recon_pipeline.exchange.order_stream import OrderStream, StreamLimits
from recon_pipeline.ledger.database import READER, connect
from recon_pipeline.ledger.order_events import store_event
from recon_pipeline.ledger.reads import PostgresLedger
from recon_pipeline.order_status.account_stream import AccountStream
from recon_pipeline.order_status.stream_keeper import StreamPace
from recon_pipeline.order_status.stream_ports import StreamPorts, StreamRules, nowhere
from recon_pipeline.order_status.streaming import StreamWriter
from recon_pipeline.sandbox.exchange.payloads import event_payload
from recon_pipeline.sandbox.exchange.records import Order
from recon_pipeline_tests.adapters.exchange.world import credentials
from recon_pipeline_tests.cycle.conftest import Scene

QUICK = StreamLimits(open_seconds=5, backoff_seconds=0.02, backoff_cap_seconds=0.1, refused_seconds=0.3)
PACE = StreamPace(heartbeat_seconds=0.2, again_seconds=0.02, away_cap_seconds=0.1, catch_up_again_seconds=0.1)
Frame = dict[str, Any]


@dataclass
class StreamScene(Scene):
    """Ledger, exchange and time, and the frames that the exchange has sent."""

    stream_policy: OrderStatusPolicy = field(default_factory=lambda: OrderStatusPolicy(dry_run=False))
    frames: list[Frame] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.sim.book.listeners.append(lambda event: self.frames.append(event_payload(event)))
        self.ledger = PostgresLedger(self.database_url)

    # -- what happens at the exchange and in the bots' ledger

    def place(self, trade: str = "t1", role: str = "entry", *, account: str = "A1", **more: Any) -> Order:
        """An order of 10 at the market, as a bot of p1 places it."""
        wanted = {
            "symbol": "AAPL",
            "qty": "10",
            "side": "buy" if role == "entry" else "sell",
            "type": "market",
            "time_in_force": "day",
            "client_order_id": f"bytelyst-p1-{trade}-{role}",
        }
        book = self.world.sim.book
        return book.submit(book.account(account), wanted | more)

    def limit(self, trade: str = "t1", **more: Any) -> Order:
        """An order that waits."""
        return self.place(trade, type="limit", limit_price="1", **more)

    def record(self, order: Order, trade: str = "t1", role: str = "entry", **columns: Any) -> str:
        """The row that the bot writes of it."""
        values = {
            "trade_id": trade,
            "side": order.side.upper(),
            "action": role.upper(),
            "status": "pending_new",
            "qty": order.qty,
            "client_order_id": order.client_order_id,
        }
        self.row(order.id, **(values | columns))
        return order.id

    def execute(self, order: Order, qty: str, price: str = "100") -> Order:
        """Execute a part of an order that waits, as it is now."""
        book = self.world.sim.book
        account = next(account for account in book.accounts() if account.id == order.account_id)
        with book.lock:
            now = book.clock.now_ns()
            return book.desk.execute(account, book.order(account, order.id), Decimal(qty), Decimal(price), now)

    def cancel(self, order: Order) -> None:
        book = self.world.sim.book
        book.cancel(next(account for account in book.accounts() if account.id == order.account_id), order.id)

    # -- the stream without its connection

    def told(self, *frames: Frame, account: str = "A1") -> int:
        """Store the frames as events heard now; how many were new."""
        stored = 0
        with connect(self.database_url, READER) as connection:
            for frame in frames:
                event = read_event(frame, account)
                assert event is not None
                stored += store_event(connection, event, self.now)
        return stored

    def writer(self, account: str = "A1", *, at: Callable[[str], None] = nowhere, **policy: Any) -> StreamWriter:
        rules = StreamRules(
            policy=replace(self.stream_policy, **policy),
            run_id=f"stream-{next(self.runs)}",
            now=lambda: self.now,
            new_id=lambda: f"s{next(self.ids)}",
            at=at,
        )
        return StreamWriter(account, ports=self.ports(), rules=rules)

    def ports(self) -> StreamPorts:
        return StreamPorts(self.database_url, self.ledger, self.world.reader)

    def settle(self, writer: StreamWriter | None = None, **policy: Any) -> int:
        """Handle what waits; how many events still do."""
        with connect(self.database_url, READER) as connection:
            return (writer or self.writer(**policy)).settle(connection)

    def hear(self, *frames: Frame, **policy: Any) -> list[str]:
        """Store the frames, all there are by default, and handle them: the outcomes of the account's events so far."""
        self.told(*(frames or self.frames))
        self.settle(**policy)
        return self.outcomes()

    # -- the stream with its connection

    def listen(self, account: str = "A1", *, pace: StreamPace = PACE, **policy: Any) -> AccountStream:
        keys, began = credentials(account, self.world.sim.url), time.monotonic()
        return AccountStream(
            account,
            self.writer(account, **policy),
            database_url=self.database_url,
            now=lambda: self.now + dt.timedelta(seconds=time.monotonic() - began),
            open_stream=lambda ears: OrderStream(keys, ears, limits=QUICK),
            pace=pace,
        )

    # -- what came of it

    def outcomes(self) -> list[str]:
        return [row["outcome"] for row in self.events_stored()]

    def events_stored(self) -> list[dict[str, Any]]:
        return self.sql("SELECT * FROM recon.order_events ORDER BY id")

    def details(self) -> list[str]:
        return [row["detail"] for row in self.events_stored()]

    def corrections(self) -> list[dict[str, Any]]:
        return self.sql("SELECT * FROM recon.corrections WHERE table_name = 'orders' ORDER BY id")

    def requests(self) -> list[str]:
        return self.world.requests

    def says(self, order_id: str) -> tuple[str, Decimal | None, Decimal | None]:
        """Status, executed quantity and price of a row."""
        row = self.order(order_id)
        return row["status"], row["filled_qty"], row["price"]

    def everything(self) -> list[str]:
        """The bots' tables as text."""
        tables = ("orders", "positions", "trade_history", "capital_ledger")
        row = "(to_jsonb(t) - 'updated_at' - 'created_at' - 'id')::text AS row"
        return [
            str(found["row"]) for table in tables for found in self.sql(f"SELECT {row} FROM {table} AS t ORDER BY 1")
        ]
