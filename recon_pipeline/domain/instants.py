"""Instants as integer milliseconds since 1970 UTC: cut, never rounded.

The exchange reports nanoseconds, and the same fill once with nine and once with six (rounded) digits; the source system
keys its rows by milliseconds. Cutting is what keeps a key stable where it can be.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from recon_pipeline.domain.quantities import parse_decimal

_ISO: Final = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?\s*(Z|z|UTC|[+-]\d{2}:?\d{2}|[+-]\d{2})?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_BELOW: Final = Decimal(1_000_000_000_000)
"""A plain number up to here is read as seconds, above as milliseconds (the source's rule)."""
_LATEST_MS: Final = 253_402_300_799_999
_MILLISECOND: Final = timedelta(milliseconds=1)
_MINUTE_OF_NANOSECONDS: Final = 3


def parse_instant(raw: object) -> int | None:
    """Milliseconds since 1970 UTC, or None where ``raw`` names no instant.

    Read are ISO 8601 text (a text without an offset is UTC), aware datetimes, and positive numbers or their text:
    seconds up to 1e12, milliseconds above. Sub-millisecond digits are cut.
    """
    if isinstance(raw, datetime):
        if raw.tzinfo is None:
            return None
        return _positive((raw - _EPOCH) // _MILLISECOND)
    if isinstance(raw, str):
        text = raw.strip()
        match = _ISO.fullmatch(text)
        if match:
            return _iso_ms(match)
        number = parse_decimal(text)
    else:
        number = parse_decimal(raw)
    if number is None or number <= 0:
        return None
    ms = int(number * 1000) if number <= _SECONDS_BELOW else int(number)
    return ms if 0 < ms <= _LATEST_MS else None


def _iso_ms(match: re.Match[str]) -> int | None:
    year, month, day, hour, minute, second, fraction, offset = match.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError:
        return None
    ms = (moment - _EPOCH) // _MILLISECOND
    if fraction:
        ms += int((fraction + "00")[:3])
    if offset and offset not in {"Z", "z", "UTC"}:
        digits = offset[1:].replace(":", "")
        minutes = int(digits[:2]) * 60 + int(digits[2:] or 0)
        ms -= (minutes if offset[0] == "+" else -minutes) * 60_000
    return _positive(ms)


def _positive(ms: int) -> int | None:
    return ms if 0 < ms <= _LATEST_MS else None


def iso_ms(ms: int) -> str:
    """ISO 8601 in UTC with exactly three decimals and ``Z``: the spelling that BFILL ids hash."""
    moment = _EPOCH + timedelta(milliseconds=int(ms))
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(ms) % 1000:03d}Z"
