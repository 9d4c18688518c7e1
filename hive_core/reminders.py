"""Messages to oneself at a later time (SPEC section 4, `remind`)."""

from functools import partial
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from hive_core.audit import Audit
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.deadlines import Deadlines
from hive_core.principals import Principal
from hive_core.store import Store
from hive_core.store.schema import reminder as table
from hive_shared.errors import TooMany
from hive_shared.wire import Remind, ReminderSet

PENDING_MAX: Final = 50  # of one agent
BODY_PREFIX: Final = "[reminder] "
DELIVER_MAX: Final = 100  # of one transaction


class Reminders:
    """Pending reminders. `run` delivers each exactly once, also across restarts of the daemon."""

    def __init__(self, store: Store, audit: Audit, host: str = "local", clock: Clock = time_ms) -> None:
        self._store = store
        self._audit = audit
        self._host = host
        self._clock = clock
        self._deadlines = Deadlines("reminders", clock)

    async def set(self, principal: Principal, request: Remind) -> ReminderSet:
        """Remind `principal` at the time in `request`; a time that has passed means now.

        Raises `TooMany` when 50 of its reminders are pending.
        """
        now_ms = self._clock()
        due_at_ms = _due_at_ms(request, now_ms)
        row = {
            "host": self._host,
            "agent": principal.name,
            "body": request.body,
            "due_at_ms": due_at_ms,
            "set_at_ms": now_ms,
        }

        def work(connection: Connection) -> int:
            _check_room(connection, principal)
            number = int(connection.execute(insert(table), row).lastrowid)
            self._audit.insert(
                connection, principal, "remind", f"reminder {number}", "ok", f"due {due_at_ms}"
            )
            return number

        number = await self._store.write(work, committed=lambda _: self._deadlines.changed())
        return ReminderSet(reminder_id=number, due_at_ms=due_at_ms)

    async def run(self, broker: Broker) -> None:
        """Deliver each when it is due; until cancelled."""
        await self._deadlines.keep(
            lambda: self._store.read(_next_due_ms),
            lambda now_ms: broker.transact(partial(self._deliver, broker, now_ms)),
        )

    def _deliver(self, broker: Broker, now_ms: int, connection: Connection, post: Post) -> None:
        due = select(table).where(table.c.due_at_ms <= now_ms).order_by(table.c.due_at_ms, table.c.id)
        for row in connection.execute(due.limit(DELIVER_MAX)).all():
            connection.execute(delete(table).where(table.c.id == row.id))
            if not broker.reaches(row.agent):
                continue  # purged since: there is nobody left to remind
            number = post(row.agent, row.agent, BODY_PREFIX + row.body)
            principal = Principal.agent(row.agent, via=f"reminder {row.id}")
            self._audit.insert(connection, principal, "send", row.agent, "ok", f"message {number}")


def _next_due_ms(connection: Connection) -> int | None:
    earliest: int | None = connection.execute(select(func.min(table.c.due_at_ms))).scalar()
    return earliest


def _due_at_ms(request: Remind, now_ms: int) -> int:
    if request.at is not None:
        return int(request.at * 1000)
    return now_ms + int((request.after_seconds or 0.0) * 1000)


def _check_room(connection: Connection, principal: Principal) -> None:
    mine = select(func.count()).select_from(table).where(table.c.agent == principal.name)
    if connection.execute(mine).scalar_one() >= PENDING_MAX:
        raise TooMany(f"{principal.name} has {PENDING_MAX} reminders pending, which is the limit")
