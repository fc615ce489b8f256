"""The sessions of the US equity market: trading days, holidays by rule, early closes, the next open and close."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache

from recon_pipeline.sandbox.exchange.clock import NEW_YORK, to_datetime, to_ns

GTC_DAYS = 90


@dataclass(frozen=True, slots=True)
class Session:
    """One trading day in New York's local time."""

    day: date
    opens: datetime
    closes: datetime


def _nth_weekday(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _last_monday_of_may(year: int) -> date:
    last = date(year, 5, 31)
    return last - timedelta(days=last.weekday())


def _good_friday(year: int) -> date:
    """Two days before Easter, by the anonymous Gregorian computus."""
    golden = year % 19
    century, of_century = divmod(year, 100)
    leaps, century_rest = divmod(century, 4)
    correction = (century - (century + 8) // 25 + 1) // 3
    moon = (19 * golden + century - leaps - correction + 15) % 30
    year_leaps, year_rest = divmod(of_century, 4)
    weekday = (32 + 2 * century_rest + 2 * year_leaps - moon - year_rest) % 7
    shift = (golden + 11 * moon + 22 * weekday) // 451
    month, day = divmod(moon + weekday - 7 * shift + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)


def _observed(day: date) -> date:
    if day.weekday() == 5:
        return day - timedelta(days=1)
    return day + timedelta(days=1) if day.weekday() == 6 else day


@lru_cache(maxsize=64)
def holidays(year: int) -> frozenset[date]:
    """Full-day closures by rule (extraordinary closures are not known)."""
    new_year = date(year, 1, 1)
    days = {
        _nth_weekday(year, 1, 0, 3),
        _nth_weekday(year, 2, 0, 3),
        _good_friday(year),
        _last_monday_of_may(year),
        _observed(date(year, 6, 19)),
        _observed(date(year, 7, 4)),
        _nth_weekday(year, 9, 0, 1),
        _nth_weekday(year, 11, 3, 4),
        _observed(date(year, 12, 25)),
    }
    if new_year.weekday() != 5:
        days.add(_observed(new_year))
    return frozenset(days)


def _closes_early(day: date) -> bool:
    after_thanksgiving = _nth_weekday(day.year, 11, 3, 4) + timedelta(days=1)
    return day == after_thanksgiving or (day.month, day.day) in {(7, 3), (12, 24)}


def session_on(day: date) -> Session | None:
    """The session of a day, None if the market stays closed."""
    if day.weekday() >= 5 or day in holidays(day.year):
        return None
    close = time(13) if _closes_early(day) else time(16)
    return Session(
        day,
        datetime.combine(day, time(9, 30), NEW_YORK),
        datetime.combine(day, close, NEW_YORK),
    )


def sessions_between(first: date, last: date) -> list[Session]:
    """All sessions of the days from first to last, both included."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [session for session in map(session_on, days) if session is not None]


def is_open(at_ns: int) -> bool:
    """Whether the core session runs."""
    local = to_datetime(at_ns).astimezone(NEW_YORK)
    session = session_on(local.date())
    return session is not None and session.opens <= local < session.closes


def next_open(at_ns: int) -> datetime:
    """The first open after the instant."""
    return _first(at_ns, opening=True)


def next_close(at_ns: int) -> datetime:
    """The first close after the instant."""
    return _first(at_ns, opening=False)


def _first(at_ns: int, *, opening: bool) -> datetime:
    local = to_datetime(at_ns).astimezone(NEW_YORK)
    day = local.date()
    while True:
        session = session_on(day)
        if session is not None:
            moment = session.opens if opening else session.closes
            if moment > local:
                return moment
        day += timedelta(days=1)


def expiry_ns(time_in_force: str, at_ns: int) -> int:
    """When an order placed now runs out: DAY at the next close, everything else at the close 90 days later."""
    if time_in_force == "day":
        return to_ns(next_close(at_ns))
    later = to_datetime(at_ns).astimezone(NEW_YORK).date() + timedelta(days=GTC_DAYS)
    return to_ns(datetime.combine(later, time(16), NEW_YORK))
