"""What a ledger row says of the truth: which order it stands for, and how much of it. Read by both halves of the judgement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from hashlib import md5
from typing import Any

from recon_pipeline_tests.soak.truth import ZERO, Fact, Trade, Truth

BACKFILL, SYNTHETIC, DUST = "BFILL-", "PARITY-", "DUST-REMAINDER-"
COUNTING = frozenset({"filled", "partially_filled"})
Row = Mapping[str, Any]


def number(value: object) -> Decimal:
    return ZERO if value is None else Decimal(str(value))


def executed_of(row: Row) -> Decimal:
    """What a row says was executed: the shared rule of bots and pipeline."""
    if row["status"] == "filled":
        return number(row["qty"] if row["qty"] is not None else row["quantity"])
    return number(row["filled_qty"]) if row["status"] == "partially_filled" else ZERO


def moment_ms(value: object) -> int | None:
    """Milliseconds of an instant as a driver or JSON spells it."""
    if value is None:
        return None
    told = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return round(told.timestamp() * 1000)


def iso(at_ms: int) -> str:
    """ISO 8601 with milliseconds and Z, as ids are made of (spelt out here)."""
    seconds, rest = divmod(at_ms, 1000)
    return f"{datetime.utcfromtimestamp(seconds):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def backfill_id(trade: Trade, cited: str, at_ms: int) -> str:
    profile_id, trade_id = trade.key
    return BACKFILL + md5(f"{profile_id}:{trade_id}:{cited}:{iso(at_ms)}".encode()).hexdigest()


@dataclass(frozen=True)
class Version:
    """An order as it was at some moment."""

    executed: Decimal
    price: Decimal | None
    executed_ms: int | None
    status: str


class RowReader:
    """Says what rows stand for, from the truth alone."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def trade(self, row: Row) -> Trade | None:
        return self.truth.trades.get((str(row["profile_id"]), str(row["trade_id"])))

    def order(self, row: Row) -> Fact | None:
        """The exchange order that a row stands for; None for dust, synthetic exits and orders that never were."""
        trade, order_id = self.trade(row), str(row["order_id"])
        if trade is None or order_id.startswith(SYNTHETIC):
            return None
        if order_id.startswith(BACKFILL):
            for fact in self.truth.of_trade(trade):
                if any(
                    version.executed_ms is not None
                    and backfill_id(trade, fact.order_id, version.executed_ms) == order_id
                    for version in self.versions(fact)
                ):
                    return fact
            return None
        return self.truth.named(trade.profile, order_id) or self.truth.named(
            trade.profile, str(row["client_order_id"] or "")
        )

    def is_dust(self, row: Row) -> bool:
        trade = self.trade(row)
        if trade is None:
            return False
        cited = f"{DUST}{trade.trade_id}"
        return str(row["order_id"]) == backfill_id(trade, cited, moment_ms(row["filled_at"]) or 0)

    def versions(self, fact: Fact) -> list[Version]:
        """Every state that the order has been in."""
        account = self.truth.book.account(fact.intent.trade.profile.account_id)
        with self.truth.book.lock:
            told = [order for _, _, order in account._versions[fact.order_id]]
        return [
            Version(
                order.filled_qty,
                order.average_price,
                None if order.filled_ns is None else order.filled_ns // 1_000_000,
                order.status,
            )
            for order in told
        ]
