"""What the operator has sent to agents at set times ("every weekday at 9:00, write a summary").

A run is a message from the operator. It and the time of the next run are committed together, so that none
comes twice, whatever ends the daemon in between. Runs that were missed while it was down are one; while the
agent has the message of an earlier run, further ones are counted instead of sent.

Times are the wall clock's. One that is set forward makes what it passed one run. One that is set back repeats
nothing; by more than a day, it was wrong before, and what comes next is found anew.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, or_, select, update

from hive_core.audit import Audit
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.cron import Cron
from hive_core.deadlines import Deadlines
from hive_core.principals import Principal
from hive_core.store import Store
from hive_core.store.prepared import Prepared
from hive_core.store.schema import message as messages
from hive_core.store.schema import schedule as table
from hive_core.subscribers import Subscribers
from hive_shared.errors import BadRequest, Conflict, NotFound, TooMany
from hive_shared.names import OPERATOR
from hive_shared.wire import AddSchedule, SchedulePause, SchedulePreview, ScheduleView

log = logging.getLogger(__name__)

SCHEDULES_MAX: Final = 100  # of a hive
SETTLE_MAX: Final = 5  # of one transaction: others wait for it
MISSED_COUNTED_MAX: Final = 100  # of one stretch: counting takes time
NEXT_SHOWN: Final = 3
LATE_MS: Final = 60_000  # from then on a message says when it was due
SET_BACK_MS: Final = 86_400_000
CLOCK: Final = Principal.system(via="clock")

_ALL: Final = Prepared(select(table).order_by(table.c.agent, table.c.id))

Subscriber = Callable[[ScheduleView], None]


class Schedules:
    """The operator's schedules. `run` sends what is due."""

    def __init__(
        self, store: Store, broker: Broker, audit: Audit, host: str = "local", clock: Clock = time_ms
    ) -> None:
        self._store = store
        self._broker = broker
        self._audit = audit
        self._host = host
        self._clock = clock
        self._deadlines = Deadlines("schedules", clock)
        self._subscribers = Subscribers[[ScheduleView]]("the schedules")

    async def open(self) -> None:
        """Pause those whose agent was purged as the daemon ended. Call once, before `run`."""
        agents = await self._store.read(lambda c: c.execute(select(table.c.agent).distinct()).scalars().all())
        for agent in agents:
            if not self._broker.reaches(agent):
                await self.forget(agent)

    # --- the operator ---

    async def add(self, principal: Principal, request: AddSchedule) -> ScheduleView:
        """A schedule from now on. Raises `BadRequest` that names the field, or `TooMany`."""
        now_ms = self._clock()
        next_ms = await asyncio.to_thread(_first_run, request.cron, request.timezone, now_ms)
        row = {
            "host": self._host,
            "agent": request.name,
            "cron": " ".join(request.cron.split()),
            "timezone": request.timezone,
            "body": request.body,
            "made_at_ms": now_ms,
            "made_by": str(principal),
            "next_at_ms": next_ms,
        }

        def work(connection: Connection) -> ScheduleView:
            if connection.execute(select(func.count()).select_from(table)).scalar_one() >= SCHEDULES_MAX:
                raise TooMany(f"there are {SCHEDULES_MAX} schedules, which is the limit; remove one first")
            number = connection.execute(insert(table), row).lastrowid
            self._note(connection, principal, "add_schedule", number, f"{request.name}: {row['cron']}")
            return _read(connection, number)

        return await self._change(work)

    async def remove(self, principal: Principal, number: int) -> ScheduleView:
        """Raises `NotFound`."""

        def work(connection: Connection) -> ScheduleView:
            view = _read(connection, number)
            connection.execute(delete(table).where(table.c.id == number))
            self._note(connection, principal, "remove_schedule", number, f"{view.agent}: {view.cron}")
            return view.model_copy(update={"removed": True, "next_runs_ms": []})

        return await self._change(work)

    async def pause(self, principal: Principal, number: int) -> ScheduleView:
        """Nothing is sent, nor counted as missed, until it is resumed. Raises `NotFound`."""

        def work(connection: Connection) -> ScheduleView:
            _row(connection, number)
            _set(connection, number, paused=SchedulePause.OPERATOR, next_at_ms=None)
            self._note(connection, principal, "pause_schedule", number)
            return _read(connection, number)

        return await self._change(work)

    async def resume(self, principal: Principal, number: int) -> ScheduleView:
        """Go on with the next run from now. Raises `NotFound`, `Conflict` without an agent, `BadRequest`."""

        def work(connection: Connection) -> ScheduleView:
            row = _row(connection, number)
            if not row.paused:
                return _view(row)
            self._require_agent(row)
            next_ms = _first_run(row.cron, row.timezone, self._clock())
            _set(connection, number, paused="", next_at_ms=next_ms)
            self._note(connection, principal, "resume_schedule", number)
            return _read(connection, number)

        return await self._change(work)

    async def run_now(self, principal: Principal, number: int) -> ScheduleView:
        """Send its message at once, whatever the agent has; its times stay. Raises `NotFound`, `Conflict`."""

        def work(connection: Connection, post: Post) -> ScheduleView:
            row = _row(connection, number)
            self._require_agent(row)
            self._note(connection, principal, "run_schedule", number)
            self._send(connection, post, row, ["run by hand", *_told_missed(row.missed)])
            return _read(connection, number)

        return await self._broker.transact(work, committed=self._subscribers.tell)

    async def all(self) -> list[ScheduleView]:
        """Every one, by agent."""
        return await self._store.read(lambda c: [_view(row) for row in _ALL.rows(c)])

    async def preview(self, cron: str, timezone: str) -> SchedulePreview:
        """What a schedule would mean. Raises `BadRequest` that names the field."""

        def found() -> SchedulePreview:
            when = Cron(cron, timezone)
            return SchedulePreview(
                means=when.means, next_runs_ms=list(islice(when.after(self._clock()), NEXT_SHOWN))
            )

        return await asyncio.to_thread(found)

    async def forget(self, agent: str) -> None:
        """An agent was purged: its schedules stay, paused, and say so."""

        def work(connection: Connection) -> list[ScheduleView]:
            mine = select(table.c.id).where(table.c.agent == agent, table.c.paused != SchedulePause.PURGED)
            numbers = connection.execute(mine).scalars().all()
            return [self._stop(connection, number, SchedulePause.PURGED) for number in numbers]

        await self._store.write(work, committed=self._tell_all)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every schedule as it is changed; returns how to end that."""
        return self._subscribers.add(callback)

    # --- the clock ---

    async def run(self) -> None:
        """Send what is due; until cancelled."""
        await self._deadlines.keep(
            lambda: self._store.read(self._earliest_ms),
            lambda now_ms: self._broker.transact(partial(self._settle, now_ms), committed=self._tell_all),
        )

    def _earliest_ms(self, connection: Connection) -> int | None:
        if connection.execute(select(table.c.id).where(self._ahead(self._clock())).limit(1)).first():
            return 0
        mine = select(func.min(table.c.next_at_ms)).where(table.c.host == self._host)
        earliest: int | None = connection.execute(mine).scalar()
        return earliest

    def _ahead(self, now_ms: int) -> ColumnElement[bool]:
        """Which were planned by a clock that was far ahead of this one: they would wait until it is there."""
        limit_ms = now_ms + SET_BACK_MS
        then = or_(table.c.made_at_ms > limit_ms, table.c.last_at_ms > limit_ms)
        return and_(table.c.host == self._host, table.c.next_at_ms.is_not(None), then)

    def _settle(self, now_ms: int, connection: Connection, post: Post) -> list[ScheduleView]:
        views = []
        for row in connection.execute(select(table).where(self._ahead(now_ms)).limit(SETTLE_MAX)).all():
            views.append(self._guarded(connection, row, lambda row: self._replan(connection, row, now_ms)))
        mine = and_(table.c.host == self._host, table.c.next_at_ms <= now_ms)
        due = select(table).where(mine).order_by(table.c.next_at_ms, table.c.id).limit(SETTLE_MAX)
        for row in connection.execute(due).all():
            views.append(self._guarded(connection, row, lambda row: self._due(connection, post, row, now_ms)))
        return views

    def _guarded(
        self, connection: Connection, row: Row[*tuple[Any, ...]], work: Callable[[Any], None]
    ) -> ScheduleView:
        """One that makes no sense any more (a time zone that is gone) must not hold up the others."""
        try:
            work(row)
        except BadRequest as error:
            log.warning("schedule %d is paused: %s", row.id, error.message)
            return self._stop(connection, row.id, SchedulePause.BROKEN)
        return _read(connection, row.id)

    def _replan(self, connection: Connection, row: Row[*tuple[Any, ...]], now_ms: int) -> None:
        last_ms = None if row.last_at_ms is None else min(row.last_at_ms, now_ms)
        next_ms = Cron(row.cron, row.timezone).next(now_ms)
        made_ms = min(row.made_at_ms, now_ms)
        _set(connection, row.id, made_at_ms=made_ms, last_at_ms=last_ms, next_at_ms=next_ms)
        self._note(connection, CLOCK, "replan_schedule", row.id, "the clock was set back")
        if next_ms is None:
            self._stop(connection, row.id, SchedulePause.OVER)

    def _due(self, connection: Connection, post: Post, row: Row[*tuple[Any, ...]], now_ms: int) -> None:
        if not self._broker.reaches(row.agent):
            self._stop(connection, row.id, SchedulePause.PURGED)
            return
        when = Cron(row.cron, row.timezone)
        runs, due_ms = when.missed(row.next_at_ms, now_ms, MISSED_COUNTED_MAX)
        next_ms = when.next(now_ms)
        if _waits(connection, row.last_message_id):
            skipped = {"last_at_ms": now_ms, "last_outcome": "skipped", "missed": row.missed + runs}
            _set(connection, row.id, next_at_ms=next_ms, **skipped)
            self._note(connection, CLOCK, "skip_schedule", row.id, f"message {row.last_message_id} waits")
        else:
            late = now_ms - due_ms > LATE_MS and runs < MISSED_COUNTED_MAX
            heads = [f"due {when.local(due_ms)} {row.timezone}"] if late else []
            self._send(connection, post, row, [*heads, *_told_missed(row.missed + runs - 1)])
            _set(connection, row.id, next_at_ms=next_ms)
        if next_ms is None:
            self._stop(connection, row.id, SchedulePause.OVER)

    def _send(self, connection: Connection, post: Post, row: Row[*tuple[Any, ...]], told: list[str]) -> None:
        number = post(OPERATOR, row.agent, f"[{', '.join([f'schedule {row.id}', *told])}] {row.body}")
        sender = Principal.operator(via=f"schedule {row.id}")
        self._audit.insert(connection, sender, "send", row.agent, "ok", f"message {number}")
        sent = {"last_outcome": "sent", "last_message_id": number, "missed": 0}
        _set(connection, row.id, last_at_ms=self._clock(), **sent)

    def _stop(self, connection: Connection, number: int, why: SchedulePause) -> ScheduleView:
        _set(connection, number, paused=why, next_at_ms=None)
        self._note(connection, CLOCK, "pause_schedule", number, str(why))
        return _read(connection, number)

    # --- inside ---

    def _require_agent(self, row: Row[*tuple[Any, ...]]) -> None:
        if not self._broker.reaches(row.agent):
            raise Conflict(
                f"schedule {row.id}: agent {row.agent} does not exist any more; remove the schedule, or "
                f"spawn {row.agent} anew",
                field="schedule_id",
            )

    def _note(
        self, connection: Connection, principal: Principal, action: str, number: int, detail: str = ""
    ) -> None:
        self._audit.insert(connection, principal, action, f"schedule {number}", detail=detail)

    async def _change(self, work: Callable[[Connection], ScheduleView]) -> ScheduleView:
        def committed(view: ScheduleView) -> None:
            self._deadlines.changed()
            self._subscribers.tell(view)

        return await self._store.write(work, committed=committed)

    def _tell_all(self, views: list[ScheduleView]) -> None:
        for view in views:
            self._subscribers.tell(view)


def _first_run(cron: str, timezone: str, now_ms: int) -> int:
    next_ms = Cron(cron, timezone).next(now_ms)
    if next_ms is None:
        raise BadRequest(f"field cron: {cron[:40]!r} never comes: no day is such a day", field="cron")
    return next_ms


def _told_missed(runs: int) -> list[str]:
    if not runs:
        return []
    least = "at least " if runs >= MISSED_COUNTED_MAX - 1 else ""
    return [f"{least}{runs} run{'s were' if runs > 1 else ' was'} missed before"]


def _waits(connection: Connection, number: int | None) -> bool:
    """Whether the agent has a message that it is not done with."""
    unacked = select(messages.c.id).where(messages.c.id == number, messages.c.acked_at_ms.is_(None))
    return number is not None and connection.execute(unacked).first() is not None


def _set(connection: Connection, number: int, **values: Any) -> None:
    connection.execute(update(table).where(table.c.id == number).values(**values))


def _row(connection: Connection, number: int) -> Row[*tuple[Any, ...]]:
    row = connection.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(
            f"schedule {number} does not exist; `hive-c0re schedules list` shows those there are",
            field="schedule_id",
        )
    return row


def _read(connection: Connection, number: int) -> ScheduleView:
    return _view(_row(connection, number))


def _view(row: Row[*tuple[Any, ...]]) -> ScheduleView:
    means = ""
    next_runs: list[int] = []
    with contextlib.suppress(BadRequest):  # it will be paused as broken when it is due; till then it is shown
        means, next_runs = _times(row.cron, row.timezone, row.next_at_ms)
    shown = {"means": means, "next_runs_ms": next_runs}
    return ScheduleView.model_validate({**row._mapping, **shown})


@lru_cache(maxsize=2 * SCHEDULES_MAX)
def _times(cron: str, timezone: str, next_at_ms: int | None) -> tuple[str, list[int]]:
    """What it means, and its next runs. Every page that is opened asks for those of all."""
    when = Cron(cron, timezone)
    if next_at_ms is None:
        return when.means, []
    return when.means, [next_at_ms, *islice(when.after(next_at_ms), NEXT_SHOWN - 1)]
