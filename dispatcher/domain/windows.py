"""Calling hours: is it open now, and when does it open next."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import lru_cache
from itertools import product
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Window:
    """Hours in which a campaign may ring, in one time zone. `closes` itself is closed."""

    timezone: str
    days: frozenset[int]
    """0 is Monday."""
    opens: time
    closes: time

    def is_open(self, at: datetime) -> bool:
        """May a call start at this instant?"""
        local = at.astimezone(_zone(self.timezone))
        return local.weekday() in self.days and self.opens <= local.time() < self.closes

    def span(self, at: datetime) -> tuple[datetime, datetime]:
        """When it is open throughout, around `at`: [from, until), at most an hour ahead; empty when it is closed."""
        if not self.is_open(at):
            return at, at
        begin = at - _CLOCKS_DIFFER if self.is_open(at - _CLOCKS_DIFFER) else at
        return begin, min([at + _SPAN, *self._closings(at)])

    def _closings(self, at: datetime) -> Iterator[datetime]:
        """When it may close within the next hour: at its hour, or where a change of clocks skips it."""
        local = at.astimezone(_zone(self.timezone))
        for days, fold in product((0, 1), (0, 1)):
            day = local.date() + timedelta(days=days)
            for hour in (self.closes, time.min):
                closing = datetime.combine(day, hour.replace(fold=fold), tzinfo=_zone(self.timezone))
                if (closing := closing.astimezone(at.tzinfo)) > at and not self.is_open(closing):
                    yield closing
        quarter = at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
        for n in range(1, 6):  # clocks change at a quarter of an hour
            if (later := quarter + n * timedelta(minutes=15)) > at and not self.is_open(later):
                yield later

    def next_opening(self, at: datetime) -> datetime:
        """The first instant from `at` on when it is open, in the zone of `at`.

        Looks around the opening hour too, because a change of clocks can skip it.
        """
        if self.is_open(at):
            return at
        local = at.astimezone(_zone(self.timezone))
        for days in range(9):
            date = local.date() + timedelta(days=days)
            opening = datetime.combine(date, self.opens, tzinfo=_zone(self.timezone)).astimezone(at.tzinfo)
            for minutes in range(-180, 181, 15):
                candidate = opening + timedelta(minutes=minutes)
                if candidate > at and self.is_open(candidate):
                    return candidate
        raise ValueError("a window that opens on no day")


_SPAN = timedelta(hours=1)
_CLOCKS_DIFFER = timedelta(seconds=5)
"""So much earlier may the database's clock be than `at`."""


@lru_cache(maxsize=256)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def read_days(text: str) -> frozenset[int]:
    """Weekdays from 'mon-fri', 'sat,sun', 'mon-wed,fri'. Raises ValueError."""
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        try:
            a, b = DAYS.index(first[:3]), DAYS.index((last or first)[:3])
        except ValueError:
            raise ValueError(f"'{part}' is no weekday; write for example mon-fri or sat,sun") from None
        days |= {(a + i) % 7 for i in range((b - a) % 7 + 1)}
    return frozenset(days)
