"""Questions to the operator, and what becomes of them (SPEC sections 4 and 11).

A question is open until it is answered, cancelled, or its time has run out: whichever is committed first,
and no two of them. The asker hears of it in the same transaction.
"""

import json
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, func, insert, select, update

from hive_core.audit import Audit
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.clock_jumps import Adjusted, Lasting
from hive_core.deadlines import Deadlines
from hive_core.principals import Kind, Principal
from hive_core.store import Store
from hive_core.store.schema import question as table
from hive_shared.errors import BadRequest, Conflict, Forbidden, NotFound, TooMany
from hive_shared.events import HelperEvent, OperatorAnswered, QuestionCancelled, QuestionExpired
from hive_shared.names import SYSTEM
from hive_shared.wire import AskOperator, QuestionView

log = logging.getLogger(__name__)

OPEN_MAX: Final = 20  # of one asker
EXPIRE_MAX: Final = 100  # of one transaction
CLOCK: Final = Principal.system(via="clock")

_OPEN: Final = table.c.closed == ""
_LASTING: Final = Lasting(table, _OPEN, since="asked_at_ms", until="expires_at_ms")

Closed = Literal["answered", "cancelled", "expired"]
Subscriber = Callable[[QuestionView], None]
Effect = Callable[[Connection, Post, QuestionView], None]  # in the transaction that closes a question


class Questions:
    """Open questions and closed ones; none is ever deleted. `run` closes those whose time has run out."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        audit: Audit,
        host: str = "local",
        clock: Clock = time_ms,
        steady: Clock | None = None,
    ) -> None:
        self._store = store
        self._broker = broker
        self._audit = audit
        self._host = host
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self._deadlines = Deadlines("questions", clock)
        self._times = Adjusted(store, _LASTING, clock, steady, self._tell_times)

    async def ask(self, principal: Principal, request: AskOperator) -> QuestionView:
        """Put a question on the dashboard; raises `TooMany` when the asker has 20 open."""
        return await self._store.write(
            lambda connection: self.insert(connection, principal, request), committed=self.asked
        )

    def insert(self, connection: Connection, principal: Principal, request: AskOperator) -> QuestionView:
        """As `ask`, within the caller's transaction, who calls `asked` once that is committed."""
        _check_room(connection, principal)
        now_ms = self._clock()
        row = {
            "host": self._host,
            "asker": principal.name,
            "question": request.question,
            "options": json.dumps(request.options, ensure_ascii=False),
            "multi": request.multi,
            "asked_at_ms": now_ms,
            "expires_at_ms": _expires_at_ms(request, now_ms),
        }
        number = connection.execute(insert(table), row).lastrowid
        self._audit.insert(connection, principal, "ask_operator", f"question {number}")
        return _read(connection, number)

    def asked(self, view: QuestionView) -> None:
        """A question was committed."""
        self._deadlines.changed()
        self._tell(view)

    async def answer(
        self, number: int, text: str, principal: Principal, *, effect: Effect | None = None
    ) -> QuestionView:
        """Commit the answer together with the message that takes it to the asker, and with its `effect`.

        That message is the helper event `operator_answered` from `system`; an asker that was purged
        gets none. Raises `NotFound`, or `Conflict` when the question is closed; `BadRequest` for an answer
        to the hive itself that is none of its options, since it would do nothing.
        """

        def work(connection: Connection, post: Post) -> QuestionView:
            values = {"answer": text, "answered_at_ms": self._clock(), "answered_by": str(principal)}
            view = _close(connection, number, "answered", **values)
            if view.asker == SYSTEM and text not in view.options:
                options = ", ".join(repr(option) for option in view.options)
                raise BadRequest(
                    f"question {number} is the hive's own; answer one of {options}", field="answer"
                )
            self._notify(post, view, OperatorAnswered(id=view.id, question=view.question, answer=text))
            if effect is not None:
                effect(connection, post, view)
            self._audit.insert(connection, principal, "answer", f"question {number}")
            return view

        return await self._broker.transact(work, committed=self._tell)

    async def cancel(
        self, number: int, principal: Principal, *, effect: Effect | None = None
    ) -> QuestionView:
        """Close a question without an answer: an asker its own ones, the operator any.

        Unless it cancelled itself, the asker gets the helper event `question_cancelled`. Raises `NotFound`,
        `Forbidden`, or `Conflict` when the question is closed.
        """

        def work(connection: Connection, post: Post) -> QuestionView:
            asker = _read(connection, number).asker
            if principal.kind is not Kind.OPERATOR and principal.name != asker:
                raise Forbidden(f"question {number} is another's; only the operator can cancel it")
            view = _close(connection, number, "cancelled")
            if principal.name != asker:
                self._notify(post, view, QuestionCancelled(id=view.id, question=view.question))
            if effect is not None:
                effect(connection, post, view)
            self._audit.insert(connection, principal, "cancel_question", f"question {number}")
            return view

        return await self._broker.transact(work, committed=self._tell)

    async def run(self) -> None:
        """Close questions as their time runs out, also what ran out while nobody looked; until cancelled."""
        await self._deadlines.keep(
            lambda: self._store.read(_next_expiry_ms), self._expire_due, self._times.adjust
        )

    async def _expire_due(self, now_ms: int) -> None:
        await self._broker.transact(partial(self._expire, now_ms), committed=self._tell_all)

    def _expire(self, now_ms: int, connection: Connection, post: Post) -> list[QuestionView]:
        due = select(table.c.id).where(_OPEN, table.c.expires_at_ms <= now_ms).order_by(table.c.expires_at_ms)
        views = []
        for number in connection.execute(due.limit(EXPIRE_MAX)).scalars().all():
            view = _close(connection, number, "expired")
            self._notify(post, view, QuestionExpired(id=view.id, question=view.question))
            self._audit.insert(connection, CLOCK, "expire_question", f"question {number}")
            views.append(view)
        return views

    def _notify(self, post: Post, view: QuestionView, event: HelperEvent) -> None:
        """Tell the asker, unless it was purged or is the hive itself."""
        if self._broker.reaches(view.asker):
            post(SYSTEM, view.asker, event.as_body())

    async def get(self, number: int) -> QuestionView:
        """One question; raises `NotFound`."""
        return await self._store.read(lambda connection: _read(connection, number))

    async def open(self) -> list[QuestionView]:
        """Those that wait for an answer, oldest first."""
        query = select(table).where(_OPEN).order_by(table.c.id)
        return [_view(row) for row in await self._store.read(lambda c: c.execute(query).all())]

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every question as it is asked or closed; returns how to end that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def _tell_times(self, numbers: list[int]) -> None:
        self._tell_all([view for view in await self.open() if view.id in numbers])

    def _tell_all(self, views: list[QuestionView]) -> None:
        for view in views:
            self._tell(view)

    def _tell(self, view: QuestionView) -> None:
        for callback in list(self._subscribers):
            try:
                callback(view)
            except Exception:
                log.exception("a subscriber of the questions failed")


def _close(connection: Connection, number: int, how: Closed, **values: Any) -> QuestionView:
    """Close an open question, once; raises `NotFound`, or `Conflict` that says how it was closed before."""
    change = update(table).where(table.c.id == number, _OPEN).values(closed=how, **values)
    closed = connection.execute(change).rowcount
    view = _read(connection, number)
    if not closed:
        raise Conflict(f"question {number} {_how_closed(view)}", field="question_id")
    return view


def _how_closed(view: QuestionView) -> str:
    match view.closed:
        case "answered":
            return f"was answered by {view.answered_by} already"
        case "expired":
            return f"has expired: {view.asker} set it a time that ran out. Write to {view.asker} instead"
    return "was cancelled already"


def _expires_at_ms(request: AskOperator, now_ms: int) -> int | None:
    return None if request.ttl_seconds is None else now_ms + int(request.ttl_seconds * 1000)


def _next_expiry_ms(connection: Connection) -> int | None:
    earliest: int | None = connection.execute(select(func.min(table.c.expires_at_ms)).where(_OPEN)).scalar()
    return earliest


def _check_room(connection: Connection, principal: Principal) -> None:
    mine = select(func.count()).select_from(table).where(table.c.asker == principal.name, _OPEN)
    if connection.execute(mine).scalar_one() >= OPEN_MAX:
        raise TooMany(
            f"{principal.name} has {OPEN_MAX} questions open, which is the limit; "
            "wait until the operator has answered some, or cancel what no longer matters"
        )


def _read(connection: Connection, number: int) -> QuestionView:
    row = connection.execute(select(table).where(table.c.id == number)).one_or_none()
    if row is None:
        raise NotFound(f"question {number} does not exist", field="question_id")
    return _view(row)


def _view(row: Row[*tuple[Any, ...]]) -> QuestionView:
    return QuestionView(
        id=row.id,
        asker=row.asker,
        question=row.question,
        options=json.loads(row.options),
        multi=row.multi,
        asked_at_ms=row.asked_at_ms,
        answer=row.answer,
        answered_at_ms=row.answered_at_ms,
        answered_by=row.answered_by,
        expires_at_ms=row.expires_at_ms,
        closed=row.closed,
        answerer=row.answerer,
        message_id=row.message_id,
    )
