"""Time and ids of the simulated exchange: nanoseconds since the epoch, a clock that tests can hold, Alpaca's texts."""

from __future__ import annotations

import random
import time
import uuid
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

SECOND_NS = 1_000_000_000
NEW_YORK = ZoneInfo("America/New_York")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SimClock:
    """The exchange's clock: real time, or a held time that moves only by `advance`."""

    def __init__(self, held_at: datetime | int | None = None) -> None:
        self._held_ns: int | None = None if held_at is None else to_ns(held_at)
        self._offset_ns = 0

    @property
    def held(self) -> bool:
        """Whether the clock stands still until somebody moves it."""
        return self._held_ns is not None

    def now_ns(self) -> int:
        """Nanoseconds since the epoch."""
        return self._held_ns if self._held_ns is not None else time.time_ns() + self._offset_ns

    def advance(self, seconds: float | timedelta) -> None:
        """Move forward; a running clock keeps running from there."""
        step = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        step_ns = (step // timedelta(microseconds=1)) * 1_000
        if step_ns < 0:
            raise ValueError("the exchange's clock does not go back")
        if self._held_ns is None:
            self._offset_ns += step_ns
        else:
            self._held_ns += step_ns

    def hold(self, at: datetime | int | None = None) -> None:
        """Stand still at the given time (now, if none is given)."""
        self._held_ns = self.now_ns() if at is None else to_ns(at)

    def dump(self) -> dict[str, int | None]:
        """What a restart needs."""
        return {"held_ns": self._held_ns, "offset_ns": self._offset_ns}

    def load(self, state: dict[str, int | None]) -> None:
        """Take over what `dump` gave."""
        self._held_ns = state["held_ns"]
        self._offset_ns = state["offset_ns"] or 0


class IdSource:
    """Random UUIDs; the same ones again for the same seed."""

    def __init__(self, seed: int | None = None) -> None:
        self._random: random.Random = random.SystemRandom() if seed is None else random.Random(seed)  # noqa: S311
        self._seeded = seed is not None

    def new(self) -> str:
        """The next id."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def dump(self) -> object:
        """The generator's state if it is seeded, else None."""
        return self._random.getstate() if self._seeded else None

    def load(self, state: object) -> None:
        """Continue where `dump` left."""
        if isinstance(state, list | tuple):
            version, internal, gauss = state
            self._random = random.Random()  # noqa: S311
            self._random.setstate((version, tuple(internal), gauss))
            self._seeded = True


def to_ns(value: datetime | int) -> int:
    """Nanoseconds of an aware datetime; an int is taken as nanoseconds already."""
    if isinstance(value, int):
        return value
    if value.tzinfo is None:
        raise ValueError("a time needs its zone")
    return ((value - _EPOCH) // timedelta(microseconds=1)) * 1_000


def parse_time(text: str) -> int:
    """RFC 3339 (any number of fractional digits) or a bare date, as nanoseconds; ValueError for anything else."""
    cleaned = text.strip().replace(" ", "+") if "T" in text else text.strip()
    if len(cleaned) == len("2026-01-01"):
        return to_ns(datetime.combine(date.fromisoformat(cleaned), datetime.min.time(), UTC))
    head, dot, tail = cleaned.partition(".")
    fraction = ""
    if dot:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        fraction, zone = tail[:digits], tail[digits:]
        head += zone
    moment = datetime.fromisoformat(head)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return to_ns(moment) + int((fraction + "000000000")[:9])


def to_datetime(at_ns: int) -> datetime:
    """The instant as a datetime (microseconds, cut)."""
    return _EPOCH + timedelta(microseconds=at_ns // 1_000)


def nano_text(at_ns: int) -> str:
    """RFC 3339 with nanoseconds, trailing zeros dropped, as Go writes it."""
    seconds, fraction = divmod(at_ns, SECOND_NS)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{fraction:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def optional_nano_text(at_ns: int | None) -> str | None:
    """`nano_text`, with None kept."""
    return None if at_ns is None else nano_text(at_ns)


def micro_text(at_ns: int) -> str:
    """The same instant rounded (not cut) to microseconds: how activities spell an order's filled_at."""
    return nano_text((at_ns + 500) // 1_000 * 1_000)


def activity_id(at_ns: int, reference: str) -> str:
    """`YYYYMMDDHHMMSSmmm::uuid`, the first part in New York's local time."""
    local = to_datetime(at_ns).astimezone(NEW_YORK)
    return f"{local:%Y%m%d%H%M%S}{local.microsecond // 1000:03d}::{reference}"


def day_of(at_ns: int) -> str:
    """The UTC day."""
    return to_datetime(at_ns).date().isoformat()


def next_midnight(at_ns: int) -> int:
    """The end of the UTC day: when crypto fees are posted."""
    day = to_datetime(at_ns).date() + timedelta(days=1)
    return to_ns(datetime.combine(day, datetime.min.time(), UTC))
