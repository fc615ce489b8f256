"""The assets of the simulated exchange: what can be traded, under which names and ids, from which first price."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal

_NAMESPACE = uuid.UUID("7c6f2a51-0d0e-4c39-9c2e-0a6d3a1f5b10")
# Ids of the paper API where they are known; the others are derived from the symbol.
_KNOWN_IDS = {
    "AAPL": "b0b6dd9d-8b9b-48a9-ba46-b9d54906e415",
    "BTC/USD": "276e2673-764b-4ab6-a611-caf665ca6340",
    "BTCUSD": "64bbff51-59d6-4b3c-9351-13ad85e3c752",
}


def normal_symbol(symbol: str) -> str:
    """One text for BTC/USD and BTCUSD: without the slash, in capitals."""
    return symbol.replace("/", "").upper()


def asset_id(symbol: str) -> str:
    """The id that goes with this spelling: BTC/USD on an order and BTCUSD on a position have two."""
    return _KNOWN_IDS.get(symbol) or str(uuid.uuid5(_NAMESPACE, symbol))


@dataclass(frozen=True, slots=True)
class Asset:
    """One asset. Crypto symbols carry a slash."""

    symbol: str
    name: str
    exchange: str
    price: Decimal
    fractionable: bool = True
    shortable: bool = True
    marginable: bool = True
    tradable: bool = True

    @property
    def is_crypto(self) -> bool:
        """Crypto pairs: fees in coins, no short sales, gtc and ioc only."""
        return "/" in self.symbol

    @property
    def asset_class(self) -> str:
        """Alpaca's name of the class."""
        return "crypto" if self.is_crypto else "us_equity"

    @property
    def position_symbol(self) -> str:
        """How positions and fees spell it."""
        return normal_symbol(self.symbol)


def equity(symbol: str, price: str | Decimal = "100", *, name: str = "", fractionable: bool = True) -> Asset:
    """A US equity on NASDAQ."""
    return Asset(symbol, name or f"{symbol} Common Stock", "NASDAQ", Decimal(price), fractionable=fractionable)


def crypto(symbol: str, price: str | Decimal = "100", *, name: str = "") -> Asset:
    """A crypto pair, symbol with its slash."""
    title = name or symbol.replace("/", " / ")
    return Asset(symbol, title, "CRYPTO", Decimal(price), shortable=False, marginable=False)


def default_assets() -> list[Asset]:
    """What the exchange lists when nobody says otherwise."""
    return [
        equity("AAPL", "271.5", name="Apple Inc. Common Stock"),
        equity("AMZN", "228.4", name="Amazon.com, Inc. Common Stock"),
        equity("GOOGL", "305.2", name="Alphabet Inc. Class A Common Stock"),
        equity("META", "640.1", name="Meta Platforms, Inc. Class A Common Stock"),
        equity("MSFT", "498.7", name="Microsoft Corporation Common Stock"),
        equity("NVDA", "188.3", name="NVIDIA Corporation Common Stock"),
        equity("TSLA", "402.6", name="Tesla, Inc. Common Stock"),
        equity("AMD", "231.9", name="Advanced Micro Devices, Inc. Common Stock"),
        equity("F", "12.85", name="Ford Motor Company Common Stock"),
        equity("GME", "22.4", name="GameStop Corporation Common Stock"),
        equity("IWM", "238.2", name="iShares Russell 2000 ETF"),
        equity("QQQ", "605.3", name="Invesco QQQ Trust"),
        equity("SPY", "672.4", name="SPDR S&P 500 ETF Trust"),
        equity("BRK.A", "745000", name="Berkshire Hathaway Inc. Class A", fractionable=False),
        crypto("BTC/USD", "96500"),
        crypto("ETH/USD", "3180"),
        crypto("SOL/USD", "142.5"),
        crypto("LTC/USD", "98.4"),
        crypto("AVAX/USD", "15.6"),
        crypto("LINK/USD", "13.9"),
        crypto("UNI/USD", "7.3"),
        crypto("DOGE/USD", "0.1612"),
        crypto("SHIB/USD", "0.00000912"),
        crypto("PEPE/USD", "0.00000493"),
    ]


class AssetList:
    """All assets, found by any of their names or ids."""

    def __init__(self) -> None:
        self._by_symbol: dict[str, Asset] = {}
        self._index: dict[str, Asset] = {}
        for asset in default_assets():
            self.add(asset)

    def add(self, asset: Asset) -> Asset:
        """List an asset, or replace it."""
        self._by_symbol[asset.symbol] = asset
        for name in (asset.symbol, asset.position_symbol, asset_id(asset.symbol), asset_id(asset.position_symbol)):
            self._index[name] = asset
        return asset

    def find(self, name: str) -> Asset | None:
        """By symbol (BTC/USD and BTCUSD alike) or id."""
        return self._index.get(name) or self._index.get(name.upper())

    def find_or_list(self, symbol: str) -> Asset:
        """As `find`; an unknown symbol becomes a listed asset (for injected history)."""
        return self.find(symbol) or self.add(crypto(symbol) if "/" in symbol else equity(symbol))

    def all(self) -> list[Asset]:
        """Every asset, by symbol."""
        return [self._by_symbol[symbol] for symbol in sorted(self._by_symbol)]
