"""Calling hours: is it open now, and when does it open next."""

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import lru_cache
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
        """The open hours around `at`, or the next ones: [opens, closes). Never longer than one day."""
        opening = self.next_opening(at)
        local = opening.astimezone(_zone(self.timezone))
        opens, closes = (datetime.combine(local.date(), t, tzinfo=local.tzinfo) for t in (self.opens, self.closes))
        return opens.astimezone(at.tzinfo), closes.astimezone(at.tzinfo)

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
