"""Messages that were done with long ago are deleted, and none before its time because of a clock.

What a wall clock calls old may be minutes old: somebody set it ahead, or it had stopped when the message was
acked. So one look only notes what is old, and a second one deletes that, two days later by the wall clock,
and by the steady one too, as far as one life of the daemon saw both. A clock that is wrong for a day and is
set right again has noted something that is to come, which counts for nothing. Nor is any message deleted that
came after one which was sent within the retention: whatever a clock said then, it is younger. What remains is
a clock that goes wrong by days twice, with a restart of the daemon in between.

Nothing else is deleted by age: of figures, requests to use tools and logs the oldest go when there are too
many, and approvals, questions and the audit stay.
"""

import logging
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from hive_core.clock import Clock, steady_beside, time_ms
from hive_core.store import Store
from hive_core.store.schema import message
from hive_core.store.schema import vacuum_look as table

log = logging.getLogger(__name__)

DAY_MS: Final = 86_400_000
BETWEEN_LOOKS_MS: Final = 2 * DAY_MS
CHUNK_ROWS: Final = 500  # of one transaction, so that sends get their turn in between

_Look = Row[tuple[Any, ...]]


class Retention:
    """Call `vacuum` every hour: after `days`, and two to four more, a message that was acked is gone."""

    def __init__(
        self,
        store: Store,
        days: float,
        host: str = "local",
        clock: Clock = time_ms,
        steady: Clock | None = None,
    ) -> None:
        self._store = store
        self._retention_ms = int(days * DAY_MS)
        self._host = host
        self._clock = clock
        self._steady = steady or steady_beside(clock)
        self._looked_steady_ms: int | None = None  # none while the last look was another daemon's

    async def vacuum(self) -> int:
        """Delete what the last look noted, if that is long enough ago; how many messages."""
        look, now_ms = await self._store.read(self._last), self._clock()
        if look is not None and look.looked_at_ms > now_ms:
            log.warning("the clock was set back: which messages are old is looked at anew")
            look = None
        if look is None:
            await self._note(now_ms)
            return 0
        waited_ms = now_ms - look.looked_at_ms
        if self._looked_steady_ms is not None:
            waited_ms = min(waited_ms, self._steady() - self._looked_steady_ms)
        if waited_ms < BETWEEN_LOOKS_MS:
            return 0
        count = await self._delete(look.before_ms, now_ms)
        await self._note(now_ms)
        return count

    def _last(self, connection: Connection) -> _Look | None:
        return connection.execute(select(table).where(table.c.host == self._host)).one_or_none()

    async def _note(self, now_ms: int) -> None:
        noted = {"looked_at_ms": now_ms, "before_ms": now_ms - self._retention_ms}
        row = insert(table).values(host=self._host, **noted)
        await self._store.write(
            lambda connection: (
                connection.execute(row.on_conflict_do_update(index_elements=["host"], set_=noted)).rowcount
            ),
            durable=False,
        )
        self._looked_steady_ms = self._steady()

    async def _delete(self, before_ms: int, now_ms: int) -> int:
        since_ms = now_ms - self._retention_ms
        first_young = await self._store.read(lambda connection: _first_sent(connection, since_ms, now_ms))
        total = 0
        while True:
            count = await self._store.write(
                lambda connection: _delete_some(connection, before_ms, first_young), durable=False
            )
            total += count
            if count < CHUNK_ROWS:
                return total


def _first_sent(connection: Connection, since_ms: int, until_ms: int) -> int:
    """The first message sent then, or the one to come."""
    sent = select(message.c.id).where(message.c.sent_at_ms.between(since_ms, until_ms))
    first: int | None = connection.execute(sent.order_by(message.c.id).limit(1)).scalar()
    if first is None:
        first = connection.execute(select(func.coalesce(func.max(message.c.id), 0) + 1)).scalar_one()
    return first


def _delete_some(connection: Connection, before_ms: int, first_young: int) -> int:
    old = select(message.c.id).where(message.c.acked_at_ms < before_ms, message.c.id < first_young)
    return connection.execute(delete(message).where(message.c.id.in_(old.limit(CHUNK_ROWS)))).rowcount
