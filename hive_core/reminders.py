"""Messages to oneself at a later time (SPEC section 4, `remind`).

Times are kept as the wall clock's: a clock that is set forward makes them due at once, one that is set back
makes them wait. One that was set while the clock was a day or more ahead comes as long from now as it was to
come then. Each comes once: it is deleted in the transaction that makes it a message.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, true

from hive_core.audit import Audit
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.clock_jumps import Adjusted, Lasting
from hive_core.deadlines import Deadlines
from hive_core.principals import Kind, Principal
from hive_core.store import Store
from hive_core.store.prepared import Prepared
from hive_core.store.schema import reminder as table
from hive_core.subscribers import Subscribers
from hive_shared.errors import NotFound, TooMany
from hive_shared.wire import Remind, ReminderSet, ReminderView

PENDING_MAX: Final = 50  # of one agent
DAY_MS: Final = 86_400_000
BODY_PREFIX: Final = "[reminder] "
DELIVER_MAX: Final = 100  # of one transaction
SHOWN_CHARACTERS: Final = 500  # of a body that may have 256 KiB

_LASTING: Final = Lasting(table, true(), since="set_at_ms", until="due_at_ms")
_SHOWN: Final = (
    table.c.id,
    table.c.agent,
    func.substr(table.c.body, 1, SHOWN_CHARACTERS + 1).label("body"),
    table.c.due_at_ms,
    table.c.set_at_ms,
)
_IN_ORDER: Final = select(*_SHOWN).order_by(table.c.due_at_ms, table.c.id)
_PENDING: Final = Prepared(_IN_ORDER)
_PENDING_OF: Final = Prepared(_IN_ORDER.where(table.c.agent == bindparam("agent")))
Closed = Literal["", "delivered", "cancelled", "dropped"]
Subscriber = Callable[[ReminderView], None]


class Reminders:
    """Pending reminders. `run` delivers each exactly once, also across restarts of the daemon."""

    def __init__(self, store: Store, audit: Audit, host: str = "local", clock: Clock = time_ms) -> None:
        self._store = store
        self._audit = audit
        self._host = host
        self._clock = clock
        self._deadlines = Deadlines("reminders", clock)
        # Its own clock as the steady one: a time that was named is the wall clock's, and moves with nothing.
        self._times = Adjusted(store, _LASTING, clock, steady=clock, ahead_min_ms=DAY_MS)
        self._subscribers = Subscribers[[ReminderView]]("the reminders")

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

        def work(connection: Connection) -> ReminderView:
            _check_room(connection, principal)
            number = int(connection.execute(insert(table), row).lastrowid)
            self._audit.insert(
                connection, principal, "remind", f"reminder {number}", "ok", f"due {due_at_ms}"
            )
            return _read(connection, number)

        def committed(view: ReminderView) -> None:
            self._deadlines.changed()
            self._tell([view])

        view = await self._store.write(work, committed=committed)
        return ReminderSet(reminder_id=view.id, due_at_ms=due_at_ms)

    async def of(self, agent: str) -> list[ReminderView]:
        """The pending ones of an agent, those due first before."""
        return [_view(row) for row in await self._store.read(partial(_PENDING_OF.rows, agent=agent))]

    async def pending(self) -> list[ReminderView]:
        """Those of all agents, those due first before."""
        return [_view(row) for row in await self._store.read(_PENDING.rows)]

    async def cancel(self, principal: Principal, number: int) -> ReminderView:
        """Take a pending one back: an agent its own ones, the operator any.

        Raises `NotFound` for one that was delivered, and for another's: whether that exists is not told.
        """

        def work(connection: Connection) -> ReminderView:
            view = _read(connection, number, principal)
            connection.execute(delete(table).where(table.c.id == number))
            self._audit.insert(
                connection, principal, "cancel_reminder", f"reminder {number}", detail=f"of {view.agent}"
            )
            return _closed(view, "cancelled")

        return await self._store.write(work, committed=lambda view: self._tell([view]))

    async def forget(self, agent: str) -> None:
        """An agent was purged: a namesake begins without its reminders."""

        def work(connection: Connection) -> list[ReminderView]:
            views = [_view(row) for row in _PENDING_OF.rows(connection, agent=agent)]
            connection.execute(delete(table).where(table.c.agent == agent))
            return [_closed(view, "dropped") for view in views]

        await self._store.write(work, committed=self._tell)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every reminder as it is set, delivered or cancelled; returns how to end that."""
        return self._subscribers.add(callback)

    async def run(self, broker: Broker) -> None:
        """Deliver each when it is due; until cancelled."""
        await self._deadlines.keep(
            lambda: self._store.read(_next_due_ms),
            lambda now_ms: broker.transact(partial(self._deliver, broker, now_ms), committed=self._tell),
            self._times.adjust,
        )

    def _deliver(self, broker: Broker, now_ms: int, connection: Connection, post: Post) -> list[ReminderView]:
        due = select(table).where(table.c.due_at_ms <= now_ms).order_by(table.c.due_at_ms, table.c.id)
        views = []
        for row in connection.execute(due.limit(DELIVER_MAX)).all():
            connection.execute(delete(table).where(table.c.id == row.id))
            if not broker.reaches(row.agent):
                views.append(_closed(_view(row), "dropped"))
                continue  # purged since: there is nobody left to remind
            number = post(row.agent, row.agent, BODY_PREFIX + row.body)
            principal = Principal.agent(row.agent, via=f"reminder {row.id}")
            self._audit.insert(connection, principal, "send", row.agent, "ok", f"message {number}")
            views.append(_closed(_view(row), "delivered"))
        return views

    def _tell(self, views: list[ReminderView]) -> None:
        for view in views:
            self._subscribers.tell(view)


def _read(connection: Connection, number: int, principal: Principal | None = None) -> ReminderView:
    query = select(*_SHOWN).where(table.c.id == number)
    if principal is not None and principal.kind is not Kind.OPERATOR:
        query = query.where(table.c.agent == principal.name)
    row = connection.execute(query).one_or_none()
    if row is None:
        whose = "" if principal is None or principal.kind is Kind.OPERATOR else f" for {principal.name}"
        raise NotFound(f"reminder {number} is not pending{whose}", field="reminder_id")
    return _view(row)


def _view(row: Row[*tuple[Any, ...]]) -> ReminderView:
    return ReminderView(
        id=row.id,
        agent=row.agent,
        body=row.body[:SHOWN_CHARACTERS],
        truncated=len(row.body) > SHOWN_CHARACTERS,
        due_at_ms=row.due_at_ms,
        set_at_ms=row.set_at_ms,
    )


def _closed(view: ReminderView, how: Closed) -> ReminderView:
    return view.model_copy(update={"closed": how})


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
