"""The words of the demo book: profiles, ledger rows, exchange orders, and the truth about every trade.

Here: the value types and the builder that writes one trade as a bot and an exchange would have seen it. Which trades
there are is in :mod:`recon_pipeline.sandbox.demo_trades`; putting a book into a database and an exchange is in
:mod:`recon_pipeline.sandbox.demo_load`; comparing an outcome with the truth is in
:mod:`recon_pipeline.sandbox.demo_verify`.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from recon_pipeline.domain.tags import tag_token
from recon_pipeline.sandbox.exchange.history import HistoricFill, HistoricOrder

_ORDER_IDS = uuid.UUID("6f0f2f0e-1f0b-5d0f-9a53-6d1f8f1b7c11")


@dataclass(frozen=True)
class Profile:
    """One bot with one strategy on one account."""

    profile_id: str
    user_id: str
    account_id: str
    name: str
    capital_usd: Decimal


@dataclass(frozen=True)
class LedgerOrder:
    """One row of the bots' table `orders`."""

    order_id: str
    client_order_id: str
    profile_id: str
    trade_id: str
    symbol: str
    side: str
    action: str
    qty: Decimal
    filled_qty: Decimal
    price: Decimal
    status: str
    at: datetime
    sub_tag: str
    source: str = "bot"


@dataclass(frozen=True)
class Truth:
    """What is true of one trade, and what the pipeline has to do about it."""

    profile_id: str
    trade_id: str
    symbol: str
    story: str
    entry_qty: Decimal
    entry_side: str
    recorded_exit: Decimal
    writes: dict[str, Decimal]
    """Quantity to be written by exchange order id; a dust row under `DUST-REMAINDER-<trade>`."""
    left_because: str = ""
    """The reason with which the trade is left for a person; empty if it is a ghost to be closed."""

    @property
    def is_ghost(self) -> bool:
        """Whether the pipeline has to close it."""
        return not self.left_because and bool(self.writes)

    @property
    def open_qty(self) -> Decimal:
        """What the ledger shows as open before anything is written."""
        return self.entry_qty - self.recorded_exit


@dataclass(frozen=True)
class RevertedBatch:
    """A batch that was applied and rolled back before: the row it wrote is canceled."""

    batch_id: str
    row: LedgerOrder
    exchange_order_id: str
    exchange_client_order_id: str


@dataclass(frozen=True)
class ExchangeOrder:
    """One order as the exchange executed it."""

    account_id: str
    begins_at: datetime
    order: HistoricOrder


@dataclass
class DemoBook:
    """Everything: what the ledger says, what the exchange says, and what is true."""

    prefix: str
    anchor: datetime
    profiles: list[Profile] = field(default_factory=list)
    ledger: list[LedgerOrder] = field(default_factory=list)
    exchange: list[ExchangeOrder] = field(default_factory=list)
    truths: list[Truth] = field(default_factory=list)
    reverted: list[RevertedBatch] = field(default_factory=list)

    @property
    def account_ids(self) -> list[str]:
        """The accounts, in order of appearance."""
        return list(dict.fromkeys(profile.account_id for profile in self.profiles))

    def profile(self, name: str, account: str, title: str, capital_usd: int) -> "ProfileWriter":
        """Add a profile; trades are written through what is returned."""
        added = Profile(
            f"{self.prefix}-{name}", f"{self.prefix}-user", f"{self.prefix}-{account}", title, Decimal(capital_usd)
        )
        self.profiles.append(added)
        return ProfileWriter(self, added)


@dataclass(frozen=True)
class ProfileWriter:
    """Writes trades of one profile into a book."""

    book: DemoBook
    profile: Profile

    def trade(
        self, trade_id: str, symbol: str, entry_side: str, qty: str, price: str, *, hours: float
    ) -> "TradeWriter":
        """Open a trade: an entry, executed in full, that both sides know."""
        trade = TradeWriter(self.book, self.profile, trade_id, symbol, entry_side, Decimal(qty), Decimal(price))
        trade.order(entry_side, "ENTRY", [(qty, price)], hours=hours, suffix="entry")
        return trade


@dataclass
class TradeWriter:
    """Writes the orders of one trade, as the exchange executed them and as the bot recorded them."""

    book: DemoBook
    profile: Profile
    trade_id: str
    symbol: str
    entry_side: str
    entry_qty: Decimal
    entry_price: Decimal

    @property
    def exit_side(self) -> str:
        """The side that closes it."""
        return "sell" if self.entry_side == "buy" else "buy"

    def client_id(self, suffix: str) -> str:
        """Spell a client order id as the bots do."""
        return f"bytelyst-{self.profile.profile_id}-{self.trade_id}-{suffix}"

    @property
    def tag(self) -> str:
        """The sub-tag of the trade."""
        return f"bytelyst:{tag_token(self.profile.profile_id)}:{tag_token(self.trade_id)}"

    def order(
        self,
        side: str,
        action: str,
        fills: Sequence[tuple[str, str]],
        *,
        hours: float,
        suffix: str,
        qty: str | None = None,
        status: str = "filled",
        ledger_status: str | None = "filled",
        client_id: str | None = None,
        sub_tag: str | None = None,
        replaces: str | None = None,
    ) -> str:
        """Write one order, `hours` before the anchor, its fills a minute apart; return the exchange's id.

        `ledger_status` None is the row that the bot lost.
        """
        begin = self.book.anchor - timedelta(hours=hours)
        client = client_id or self.client_id(suffix)
        order_id = str(uuid.uuid5(_ORDER_IDS, f"{self.profile.account_id}:{client}:{self.book.anchor.isoformat()}"))
        told = tuple(
            HistoricFill(Decimal(filled), Decimal(price), begin + timedelta(minutes=1 + number))
            for number, (filled, price) in enumerate(fills)
        )
        executed = sum((fill.qty for fill in told), Decimal(0))
        ordered = Decimal(qty) if qty else executed
        self.book.exchange.append(
            ExchangeOrder(
                self.profile.account_id,
                begin,
                HistoricOrder(
                    symbol=self.symbol,
                    side=side,
                    qty=ordered,
                    submitted_at=begin,
                    fills=told,
                    status=status,
                    type="limit" if qty else "market",
                    limit_price=Decimal(fills[0][1]) if qty else None,
                    order_id=order_id,
                    client_order_id=client,
                    subtag=self.tag if sub_tag is None else sub_tag or None,
                    replaces=replaces,
                    ended_at=begin + timedelta(minutes=len(told) + 2) if status in {"canceled", "replaced"} else None,
                ),
            )
        )
        if ledger_status is not None:
            done = ledger_status == "filled"
            at = begin + timedelta(minutes=len(told)) if done else begin
            self.book.ledger.append(
                LedgerOrder(
                    order_id=order_id,
                    client_order_id=client,
                    profile_id=self.profile.profile_id,
                    trade_id=self.trade_id,
                    symbol=self.symbol,
                    side=side,
                    action=action,
                    qty=executed if done else ordered,
                    filled_qty=executed if done else Decimal(0),
                    price=_average(told),
                    status=ledger_status,
                    at=at,
                    sub_tag=self.tag,
                )
            )
        return order_id

    def exit(self, fills: Sequence[tuple[str, str]], *, hours: float, suffix: str = "exit", **more: Any) -> str:
        """Write an exit order that both sides know."""
        return self.order(self.exit_side, "EXIT", fills, hours=hours, suffix=suffix, **more)

    def lost_exit(self, fills: Sequence[tuple[str, str]], *, hours: float, suffix: str = "exit", **more: Any) -> str:
        """Write an exit order that only the exchange knows."""
        return self.exit(fills, hours=hours, suffix=suffix, **{"ledger_status": None, **more})

    def truth(
        self, story: str, *, writes: dict[str, str] | None = None, dust: str = "", left_because: str = ""
    ) -> None:
        """State what is true of the trade."""
        expected = {order_id: Decimal(qty) for order_id, qty in (writes or {}).items()}
        if dust:
            expected[f"DUST-REMAINDER-{self.trade_id}"] = Decimal(dust)
        recorded = sum(
            (
                row.filled_qty
                for row in self.book.ledger
                if (row.profile_id, row.trade_id, row.action) == (self.profile.profile_id, self.trade_id, "EXIT")
                and row.status == "filled"
            ),
            Decimal(0),
        )
        self.book.truths.append(
            Truth(
                profile_id=self.profile.profile_id,
                trade_id=self.trade_id,
                symbol=self.symbol,
                story=story,
                entry_qty=self.entry_qty,
                entry_side=self.entry_side,
                recorded_exit=recorded,
                writes=expected,
                left_because=left_because,
            )
        )


def _average(fills: Sequence[HistoricFill]) -> Decimal:
    total = sum((fill.qty for fill in fills), Decimal(0))
    value = sum((fill.qty * fill.price for fill in fills), Decimal(0))
    return (value / total).quantize(Decimal("0.000000001")) if total else Decimal(0)
