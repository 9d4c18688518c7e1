"""What is to last for a time lasts that time, though the wall clock is set meanwhile.

Times are stored as the wall clock's, which outlive a restart. When the clock is set while the daemon runs,
the times of what is open are set with it. What was stored while the clock was ahead, and is met when it is
not (a restart lies between), lasts from now on as long as it was to last then.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, func, select, update

from hive_core.clock import Clock, steady_beside
from hive_core.store import Store

log = logging.getLogger(__name__)

JUMP_MIN_MS: Final = 2000  # less is read between two clocks, or corrected by little and little


class JumpDetector:
    """Tells by how much the wall clock was set, until that is heeded."""

    def __init__(self, clock: Clock, steady: Clock | None = None) -> None:
        """`steady` never jumps."""
        self._clock = clock
        self._steady = steady or steady_beside(clock)
        self._ahead_ms = clock() - self._steady()

    def look(self) -> tuple[int, int]:
        """What time it is, and by how much that was set, without what was heeded; 0 for what is no jump."""
        now_ms = self._clock()
        jumped_ms = now_ms - self._steady() - self._ahead_ms
        return now_ms, jumped_ms if abs(jumped_ms) >= JUMP_MIN_MS else 0

    def heeded(self, by_ms: int) -> None:
        self._ahead_ms += by_ms


@dataclass(frozen=True)
class Lasting:
    """Rows that are open from one column's time to another's; without the second they have no end."""

    table: Table
    is_open: ColumnElement[bool]
    since: str
    until: str

    @property
    def ending(self) -> ColumnElement[bool]:
        return self.is_open & self.table.c[self.until].is_not(None)

    def moved(self, by_ms: Any) -> dict[str, ColumnElement[Any]]:
        return {name: self.table.c[name] + by_ms for name in (self.since, self.until)}


class Adjusted:
    """Keeps the times of one kind of row right. `adjust` must be called soon after each row was stored."""

    def __init__(
        self,
        store: Store,
        lasting: Lasting,
        clock: Clock,
        steady: Clock | None = None,
        changed: Callable[[list[int]], Awaitable[None]] | None = None,
        ahead_min_ms: int = JUMP_MIN_MS,
    ) -> None:
        """`changed` is told the ids of rows whose times are others now. What was stored by a clock that was
        `ahead_min_ms` ahead, or more, is set right.
        """
        self._store = store
        self._rows = lasting
        self._jumps = JumpDetector(clock, steady)
        self._changed = changed
        self._ahead_min_ms = ahead_min_ms
        self._known_id = 0  # rows up to this one were stored before the last look

    async def adjust(self) -> int:
        """Look at the clocks; the time that all times are right by.

        Raises `Unavailable`; then the next call does what this one should have done.
        """
        now_ms, jumped_ms = self._jumps.look()
        last_id, newest_ms = await self._store.read(self._look)
        if jumped_ms or (newest_ms or 0) >= now_ms + self._ahead_min_ms:
            moved = await self._store.write(lambda connection: self._move(connection, jumped_ms, now_ms))
            log.warning(
                "the clock was set by %+.0f s: %d times of %s are set with it",
                jumped_ms / 1000, len(moved), self._rows.table.name,
            )  # fmt: skip
            if self._changed is not None:
                await self._changed(moved)
        self._jumps.heeded(jumped_ms)
        self._known_id = last_id or 0
        return now_ms

    def _look(self, connection: Connection) -> tuple[int | None, int | None]:
        table = self._rows.table
        query = select(func.max(table.c.id), func.max(table.c[self._rows.since])).where(self._rows.ending)
        last_id, newest_ms = connection.execute(query).one()
        return last_id, newest_ms

    def _move(self, connection: Connection, jumped_ms: int, now_ms: int) -> list[int]:
        table, since = self._rows.table, self._rows.table.c[self._rows.since]
        before = select(table.c.id, since).where(self._rows.ending)
        old = {row[0]: row[1] for row in connection.execute(before)}
        if jumped_ms:
            known = self._rows.ending & (table.c.id <= self._known_id)
            connection.execute(update(table).where(known).values(self._rows.moved(jumped_ms)))
        ahead = self._rows.ending & (since >= now_ms + self._ahead_min_ms)
        connection.execute(update(table).where(ahead).values(self._rows.moved(now_ms - since)))
        return [row[0] for row in connection.execute(before) if old[row[0]] != row[1]]
