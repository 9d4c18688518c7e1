"""Calendar days of a place, in Unix milliseconds: those on which its clocks change have 23 or 25 hours."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

HOST_ZONE = Path("/etc/localtime")  # a link into the database of time zones, wherever that is kept


@dataclass(frozen=True)
class Day:
    """From its midnight up to, and without, the next one."""

    start_ms: int
    end_ms: int

    def has(self, at_ms: int) -> bool:
        return self.start_ms <= at_ms < self.end_ms


def zone_named(name: str) -> ZoneInfo:
    """Raises `ValueError` for a name that the IANA database does not have."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # it is none, is a directory, or leads out of the database
        raise ValueError(f"there is no time zone {name[:40]!r}; write one such as Europe/Berlin") from None


def zone_of_host(link: Path = HOST_ZONE) -> ZoneInfo:
    """That of this machine; UTC where it has none, or one without a name."""
    try:
        return zone_named(str(link.readlink()).partition("zoneinfo/")[2])
    except (OSError, ValueError):
        return ZoneInfo("UTC")


class Days:
    """The days of one time zone of the IANA database."""

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._last = Day(0, 0)

    def of(self, at_ms: int) -> Day:
        """The day that a moment is in."""
        if not self._last.has(at_ms):
            local = datetime.fromtimestamp(at_ms / 1000, self.zone).date()
            self._last = Day(_midnight_ms(self.zone, local), _midnight_ms(self.zone, local + timedelta(1)))
        return self._last

    def told(self, at_ms: int) -> str:
        """A moment as the clocks there show it, such as `00:00 Europe/Berlin`."""
        return f"{datetime.fromtimestamp(at_ms / 1000, self.zone):%H:%M} {self.zone.key}"


@lru_cache(maxsize=64)
def _midnight_ms(zone: ZoneInfo, day: date) -> int:
    """The first moment of a day: where clocks are set forward at midnight, that is 01:00 (PEP 495)."""
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)
