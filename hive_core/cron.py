"""When a schedule's runs are: cron's five fields in a time zone.

A time of day that a clock change leaves out is made up for right after it, one that comes twice counts once;
where the hour field begins with `*`, runs follow the hours as they pass. Both as Debian's cron has it, except
that there a `*` of the minutes makes an hour count twice, too.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from hive_shared.errors import BadRequest

EXAMPLE: Final = "minute, hour, day of the month, month and day of the week, such as 0 9 * * mon-fri"
FIELDS: Final = 5
SHOWN_CHARACTERS: Final = 40  # of a wrong text, in an error
_SOME_MOMENT: Final = datetime(2026, 1, 1)  # what a text means does not depend on it


class Cron:
    """A text such as `0 9 * * mon-fri` in a time zone. Raises `BadRequest` that names the wrong one."""

    def __init__(self, text: str, timezone: str) -> None:
        self._zone = _zone(timezone)
        fields = text.split()
        if len(fields) != FIELDS:
            found = f"{text[:SHOWN_CHARACTERS]!r} has {len(fields)} fields instead of {FIELDS}"
            raise BadRequest(f"field cron: {found}: {EXAMPLE}", field="cron")
        minute, hour = fields[:2]
        if minute.startswith("*") and not hour.startswith("*"):
            fields[0] = f"0-59{minute[1:]}"  # else these hours would run twice, or not at all
        self._fields = " ".join(fields)
        try:
            self.means = CronSim(text, _SOME_MOMENT).explain()
        except CronSimError as error:
            raise BadRequest(
                f"field cron: {str(error).lower()} in {text[:SHOWN_CHARACTERS]!r}: write {EXAMPLE}",
                field="cron",
            ) from None

    def after(self, at_ms: int) -> Iterator[int]:
        """Every run later than `at_ms`, in Unix milliseconds; ends where none comes within 50 years."""
        last_ms = at_ms
        for moment in CronSim(self._fields, datetime.fromtimestamp(at_ms / 1000, self._zone)):
            run_ms = int(moment.timestamp() * 1000)
            if run_ms > last_ms:  # several that a gap moved to its end are one
                last_ms = run_ms
                yield run_ms

    def next(self, at_ms: int) -> int | None:
        """The first run later than `at_ms`."""
        return next(self.after(at_ms), None)

    def missed(self, first_ms: int, now_ms: int, maximum: int) -> tuple[int, int]:
        """How many runs there are from `first_ms`, itself one, until now; and when the last of them was.

        Counts up to `maximum`; then the last is the last that was counted.
        """
        count, last_ms = 1, first_ms
        for run_ms in islice(self.after(first_ms), maximum - 1):
            if run_ms > now_ms:
                break
            count, last_ms = count + 1, run_ms
        return count, last_ms

    def local(self, at_ms: int) -> str:
        """A time as people of that zone write it: `2026-11-23 09:00`."""
        return f"{datetime.fromtimestamp(at_ms / 1000, self._zone):%Y-%m-%d %H:%M}"


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (
        OSError,
        ValueError,
        KeyError,
    ):  # of a name that is none, is a directory, or leads out of the database
        pass
    near = sorted(zone for zone in available_timezones() if zone.lower().endswith(f"/{name.lower()}"))
    hint = f"do you mean {near[0]}?" if near else "write one such as Europe/Berlin, or UTC"
    raise BadRequest(
        f"field timezone: there is no time zone {name[:SHOWN_CHARACTERS]!r}; {hint}", field="timezone"
    )
