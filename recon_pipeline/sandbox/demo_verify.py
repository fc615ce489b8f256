"""Compares what the pipeline wrote with the truth of a demo book.

Here: the picture of the ledger before, and the verdict after. The verdict trusts nothing that the pipeline says about
itself beyond which exchange order a row cites: quantities, sides, prices and untouched rows are read from the ledger.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from recon_pipeline.ledger.database import connect
from recon_pipeline.ledger.statements import statement
from recon_pipeline.sandbox.demo_book import DemoBook, ExchangeOrder, Truth
from recon_pipeline.sandbox.demo_load import pattern

BACKFILL = "BFILL-"
DUST = "DUST-REMAINDER-"
PRICE_STEP = Decimal("0.000000001")
Row = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class Picture:
    """The bots' rows of a book at one moment."""

    orders: dict[str, Row]
    trades: dict[Key, Row]

    @classmethod
    def of(cls, database_url: str, book: DemoBook) -> "Picture":
        """Take it."""
        with connect(database_url, application_name="recon demo") as connection:
            parameters = {"pattern": pattern(book.prefix)}
            orders = connection.execute(statement("select_demo_orders"), parameters).fetchall()
            trades = connection.execute(statement("select_demo_trades"), parameters).fetchall()
        return cls(
            {str(row["order_id"]): row for row in orders},
            {(str(row["profile_id"]), str(row["trade_id"])): row for row in trades},
        )


@dataclass(frozen=True)
class TradeVerdict:
    """What became of one trade."""

    truth: Truth
    written: Decimal
    decision: str
    reason: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What became of a book."""

    trades: list[TradeVerdict] = field(default_factory=list)
    wrong_writes: list[str] = field(default_factory=list)
    other_problems: list[str] = field(default_factory=list)

    @property
    def ghosts(self) -> list[TradeVerdict]:
        """The trades that had to be closed."""
        return [trade for trade in self.trades if trade.truth.is_ghost]

    @property
    def closed(self) -> list[TradeVerdict]:
        """The ghosts that were closed, exactly."""
        return [trade for trade in self.ghosts if not trade.problems]

    @property
    def left(self) -> list[TradeVerdict]:
        """The trades that a person has to look at."""
        return [trade for trade in self.trades if trade.truth.left_because]

    @property
    def is_true(self) -> bool:
        """Whether everything that had to happen did, and nothing else."""
        return not (self.wrong_writes or self.other_problems or any(trade.problems for trade in self.trades))


def judge(database_url: str, book: DemoBook, before: Picture) -> Verdict:
    """Compare the ledger now with the picture before and with the truth."""
    after = Picture.of(database_url, book)
    with connect(database_url, application_name="recon demo") as connection:
        parameters = {"pattern": pattern(book.prefix)}
        cited = connection.execute(statement("select_demo_written"), parameters).fetchall()
        decisions = connection.execute(statement("select_demo_decisions"), parameters).fetchall()
    citations = {str(row["backfill_order_id"]): str(row["exchange_order_id"]) for row in cited}
    decided = {(str(row["profile_id"]), str(row["trade_id"])): row for row in decisions}
    executed = {str(told.order.order_id): told for told in book.exchange}
    truths = {(truth.profile_id, truth.trade_id): truth for truth in book.truths}

    verdict = Verdict()
    verdict.wrong_writes.extend(_changed(before, after))
    written: dict[Key, dict[str, Decimal]] = {key: {} for key in truths}
    for order_id in sorted(after.orders.keys() - before.orders.keys()):
        row = after.orders[order_id]
        key = (str(row["profile_id"]), str(row["trade_id"]))
        exchange_order = citations.get(order_id, "")
        problem = _row_problem(row, truths.get(key), exchange_order, executed)
        if problem:
            verdict.wrong_writes.append(f"{order_id} ({key[0]} {key[1]}): {problem}")
        elif key in written:
            written[key][exchange_order] = written[key].get(exchange_order, Decimal(0)) + row["qty"]
    for key, truth in truths.items():
        problems = [
            f"{order_id}: {written[key].get(order_id, 0)} written, {qty} is true"
            for order_id, qty in truth.writes.items()
            if written[key].get(order_id) != qty
        ]
        problems += _trade_problems(truth, before.trades.get(key), after.trades.get(key))
        row = decided.get(key, {"decision": "", "reason": ""})
        if truth.left_because and row["reason"] != truth.left_because:
            problems.append(f"left with the reason {row['reason'] or 'none'}, not {truth.left_because}")
        total = sum(written[key].values(), Decimal(0))
        verdict.trades.append(TradeVerdict(truth, total, str(row["decision"]), str(row["reason"]), tuple(problems)))
    return verdict


def _changed(before: Picture, after: Picture) -> list[str]:
    """List rows that were there before and are not what they were."""
    return [
        f"{order_id}: a row that was there was {'changed' if order_id in after.orders else 'removed'}"
        for order_id, row in before.orders.items()
        if after.orders.get(order_id) != row
    ]


def _row_problem(row: Row, truth: Truth | None, exchange_order: str, executed: dict[str, ExchangeOrder]) -> str:
    if not str(row["order_id"]).startswith(BACKFILL):
        return "a new row that is no backfill row"
    if truth is None:
        return "a row of a trade that does not exist"
    if exchange_order not in truth.writes:
        return f"a row that cites {exchange_order or 'nothing'}, which is no evidence for this trade"
    if row["qty"] != truth.writes[exchange_order]:
        return f"quantity {row['qty']}, {truth.writes[exchange_order]} is true"
    if row["status"] != "filled" or row["action"] != "EXIT" or row["side"] == truth.entry_side:
        return f"a {row['status']} {row['action']} on the side {row['side']}"
    if not exchange_order.startswith(DUST):
        fills = executed[exchange_order].order.fills
        value = sum((fill.qty * fill.price for fill in fills), Decimal(0))
        price = value / sum((fill.qty for fill in fills), Decimal(0))
        if abs(row["price"] - price) > PRICE_STEP:
            return f"price {row['price']}, {price} is true"
    return ""


def _trade_problems(truth: Truth, before: Row | None, after: Row | None) -> list[str]:
    """Compare position, history and reserved capital: closed for a ghost, untouched for everything else."""
    if after is None or before is None:
        return ["its history row is gone"]
    if not truth.is_ghost:
        return [] if before == after else ["its position, history or capital was changed"]
    problems = []
    if after["position_status"] != "closed" or after["position_qty"]:
        problems.append(f"its position is {after['position_status']} with {after['position_qty']}")
    if after["history_status"] != "closed" or after["exit_qty"] != truth.entry_qty:
        problems.append(f"its history is {after['history_status']} with {after['exit_qty']} of {truth.entry_qty}")
    if after["reserved_usd"]:
        problems.append(f"{after['reserved_usd']} dollars are still reserved for it")
    return problems
