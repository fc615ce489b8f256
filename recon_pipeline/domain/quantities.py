"""Exact quantities and prices: text and numbers in, integers of 1e-9 units and ``Decimal`` out.

A float is read as the shortest decimal that names it (what a JSON document said), never as its binary expansion.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, InvalidOperation
from typing import Final

import numpy as np
from numpy.typing import NDArray

E9: Final = 1_000_000_000
_E9: Final = Decimal(E9)
EPSILON_E9: Final = 10
"""The open-quantity epsilon, 1e-8, as in the source system."""
_INT64_SAFE: Final = 2**62
_MAX_DIGITS: Final = 60
"""No asset has quantities of sixty digits; such a text is a defect, not a number to allocate memory for."""
_DECIMAL_CHARACTERS: Final = frozenset("0123456789+-.eE")


def parse_decimal(raw: object) -> Decimal | None:
    """The exact decimal that ``raw`` names, or None where it names none.

    Text, ints, floats and Decimals are read; booleans, NaN, infinities and anything else are not numbers.
    """
    if isinstance(raw, Decimal):
        value = raw
    elif isinstance(raw, bool):
        return None
    elif isinstance(raw, int):
        value = Decimal(raw) if abs(raw) < 10**_MAX_DIGITS else Decimal("NaN")
    elif isinstance(raw, float):
        value = Decimal(repr(raw))
    elif isinstance(raw, str):
        text = raw.strip()
        if not text or len(text) > _MAX_DIGITS or not _DECIMAL_CHARACTERS.issuperset(text):
            return None
        try:
            value = Decimal(text)
        except InvalidOperation:
            return None
    else:
        return None
    if not value.is_finite() or (value and not -_MAX_DIGITS < value.adjusted() < _MAX_DIGITS):
        return None
    return value


EXACT: Final = Context(prec=4 * _MAX_DIGITS)
"""Decimal arithmetic with room for every digit that :func:`parse_decimal` lets in."""


def to_e9(value: Decimal, *, floor: bool = False) -> int:
    """``value`` in units of 1e-9.

    Alpaca trades nine decimals. More of them come from bots that computed in floats: ledger quantities are rounded to
    the nearest unit; executed quantities (``floor``) are cut towards zero, so that no plan takes more than was executed.
    """
    scaled = EXACT.multiply(value, _E9)
    whole = int(scaled)
    if floor or whole == scaled:
        return whole
    return int(scaled.to_integral_value(context=EXACT))


def from_e9(units: int) -> Decimal:
    """The quantity of ``units`` as a Decimal without trailing zeros and without an exponent."""
    return Decimal(decimal_text_e9(units))


def decimal_text_e9(units: int) -> str:
    """The quantity of ``units`` as exact plain decimal text: ``10``, ``0.5``, ``-0.000000001``."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(int(units)), E9)
    return f"{sign}{whole}.{part:09d}".rstrip("0").rstrip(".") if part else f"{sign}{whole}"


def decimal_text(value: Decimal) -> str:
    """``value`` as exact plain decimal text without trailing zeros or exponent."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text


def integer_array(values: Iterable[int]) -> NDArray[np.int64] | NDArray[np.object_]:
    """Integers as int64 where every running total fits, else as Python ints (slower, never wrong)."""
    listed = values if isinstance(values, list) else list(values)
    if not listed:
        return np.zeros(0, dtype=np.int64)
    if isinstance(listed[0], np.ndarray):
        raise TypeError("integer_array takes integers, not arrays")
    total = sum(map(abs, listed))
    if total < _INT64_SAFE:
        return np.array(listed, dtype=np.int64)
    out = np.empty(len(listed), dtype=object)
    out[:] = [int(value) for value in listed]
    return out
