"""Hours in which nobody is disturbed, by the clocks of a named place: summer time included."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_FORM = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})\s+(\S{1,64})")


@dataclass(frozen=True)
class QuietHours:
    """From `start` until before `end`, each day; over midnight if `end` is the earlier one."""

    start: time
    end: time
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str) -> "QuietHours":
        """`22:00-07:00 Europe/Berlin`; raises `ValueError` that says what is wrong."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise ValueError("must be two times and a time zone, such as 22:00-07:00 Europe/Berlin")
        try:
            start, end = time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))
        except ValueError:
            raise ValueError(f"{text[:80]!r}: a day has hours 0 to 23 and minutes 0 to 59") from None
        if start == end:
            raise ValueError(f"{text[:80]!r} begins and ends at the same time; leave it out for none")
        try:
            return cls(start, end, ZoneInfo(match[5]))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                f"{match[5]!r} is no time zone that this machine knows; they read like Europe/Berlin"
            ) from None

    def holds(self, at_ms: int) -> bool:
        """Whether the clocks there show a time between the two. One that is skipped in spring never comes."""
        now = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(self.zone).time()
        if self.start < self.end:
            return self.start <= now < self.end
        return now >= self.start or now < self.end
