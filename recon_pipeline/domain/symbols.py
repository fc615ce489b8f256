"""Symbols are compared by token: upper case letters and digits, so that ``BTC/USD`` and ``BTCUSD`` are one symbol.

The exchange spells one symbol both ways (orders with the slash, positions without), and its asset ids differ too.
"""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=65_536)
def symbol_token(symbol: str) -> str:
    """The comparable form of a symbol; ``''`` where nothing is left."""
    return "".join(character for character in symbol.upper() if character.isalnum())


def has_pair_separator(symbol: str) -> bool:
    """A slash marks a crypto pair."""
    return "/" in symbol
