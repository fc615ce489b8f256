"""Exact amounts: Decimals in, decimal strings out, and the places that Alpaca keeps. Nothing here knows an order."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, InvalidOperation

ZERO = Decimal(0)
QUANTITY_PLACES = 9
QUANTITY_STEP = Decimal("0.000000001")
CENT = Decimal("0.01")


def parse_amount(value: object) -> Decimal:
    """A finite Decimal out of text or a JSON number; ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"not a number: {value!r}")  # noqa: TRY004 (a JSON value of the wrong kind is a wrong value)
    try:
        amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except InvalidOperation as error:
        raise ValueError(f"not a number: {value!r}") from error
    if not amount.is_finite():
        raise ValueError(f"not a finite number: {value!r}")
    return amount


def amount_text(value: Decimal) -> str:
    """Plain notation without trailing zeros; zero is '0'."""
    return format(value.normalize(), "f") if value else "0"


def optional_text(value: Decimal | None) -> str | None:
    """`amount_text`, with None kept."""
    return None if value is None else amount_text(value)


def cents(value: Decimal) -> str:
    """Money as Alpaca's accounts show it: whole cents, without trailing zeros."""
    return amount_text(value.quantize(CENT, ROUND_HALF_UP))


def quantity_down(value: Decimal) -> Decimal:
    """A quantity cut to nine places."""
    return value.quantize(QUANTITY_STEP, ROUND_DOWN)


def rounded_quantity(value: Decimal) -> Decimal:
    """A quantity or average price rounded to nine places."""
    return value.quantize(QUANTITY_STEP, ROUND_HALF_EVEN)


def decimal_places(value: Decimal) -> int:
    """How many places after the point the value really has."""
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
