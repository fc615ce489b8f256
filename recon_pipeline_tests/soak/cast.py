"""Who trades: accounts, profiles, symbols, and when the world begins. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

START = datetime(2031, 1, 6, 14, 30, tzinfo=UTC)
"""Later than any real clock: what the database stamps itself is never younger than what bots did."""
DAY_MS = 86_400_000
HOUR_MS = 3_600_000
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Market:
    """A symbol as one profile trades it: on which side it enters, and the quantity of a typical entry."""

    symbol: str
    side: str
    qty: Decimal

    @property
    def crypto(self) -> bool:
        return "/" in self.symbol


@dataclass(frozen=True)
class Profile:
    """One bot with one strategy on one account."""

    profile_id: str
    account_id: str
    markets: tuple[Market, ...]
    capital_usd: Decimal
    user_id: str = "soak-user"


def _markets(*told: str) -> tuple[Market, ...]:
    return tuple(Market(symbol, side, Decimal(qty)) for symbol, side, qty in (text.split() for text in told))


def cast() -> list[Profile]:
    """Twelve profiles on three accounts. Some share a symbol with a sibling; one's id begins with another's."""
    told = {
        "crypto": {
            "btc": _markets("BTC/USD buy 0.25", "LTC/USD buy 20"),
            "btc-trend": _markets("BTC/USD buy 0.4", "ETH/USD buy 3"),
            "alts": _markets("SOL/USD buy 30", "AVAX/USD buy 120", "LINK/USD buy 150"),
            "memes": _markets("DOGE/USD buy 9000", "UNI/USD buy 400", "ETH/USD buy 2"),
        },
        "equity": {
            "momentum": _markets("AAPL buy 20", "MSFT buy 10"),
            "momentum-2": _markets("AAPL buy 12", "NVDA buy 30"),
            "short": _markets("TSLA sell 15", "F sell 400"),
            "fractions": _markets("F buy 0", "SPY buy 7.25", "QQQ buy 3.5"),
        },
        "mixed": {
            "pair": _markets("META buy 8", "GOOGL sell 12"),
            "hold": _markets("AMD buy 40", "IWM buy 25"),
            "swing": _markets("AMD buy 15", "AMZN buy 18"),
            "coins": _markets("SOL/USD buy 25", "BTC/USD buy 0.1"),
        },
    }
    return [
        Profile(name, account, tuple(market for market in markets if market.qty), Decimal(60_000))
        for account, profiles in told.items()
        for name, markets in profiles.items()
    ]


def sub_tag(profile_id: str, trade_id: str) -> str:
    """The sub-tag of a trade, by the bots' convention (spelt out here: the truth does not ask the pipeline)."""
    return f"bytelyst:{profile_id.replace('-', '')}:{trade_id.replace('-', '')}"


def client_id(profile_id: str, trade_id: str, role: str) -> str:
    """The client order id of a trade's order."""
    return f"bytelyst-{profile_id}-{trade_id}-{role}"


def moment(at_ms: int) -> datetime:
    """The instant of a count of milliseconds."""
    return datetime.fromtimestamp(at_ms / 1000, UTC)


def ms_of(at_ns: int) -> int:
    """Nanoseconds cut to milliseconds."""
    return at_ns // 1_000_000
