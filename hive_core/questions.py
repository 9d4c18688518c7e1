"""Questions to the operator, and the answers that go back (SPEC sections 4 and 11)."""

import json
import logging
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, Row, func, insert, select, update

from hive_core.audit import Audit
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.principals import Principal
from hive_core.store import Store
from hive_core.store.schema import question as table
from hive_shared.errors import Conflict, NotFound, TooMany
from hive_shared.events import OperatorAnswered
from hive_shared.names import SYSTEM
from hive_shared.wire import AskOperator, QuestionView

log = logging.getLogger(__name__)

OPEN_MAX: Final = 20  # of one asker

_OPEN: Final = table.c.closed == ""

Subscriber = Callable[[QuestionView], None]


class Questions:
    """Open questions and answered ones; none is ever deleted."""

    def __init__(
        self, store: Store, broker: Broker, audit: Audit, host: str = "local", clock: Clock = time_ms
    ) -> None:
        self._store = store
        self._broker = broker
        self._audit = audit
        self._host = host
        self._clock = clock
        self._subscribers: list[Subscriber] = []

    async def ask(self, principal: Principal, request: AskOperator) -> QuestionView:
        """Put a question on the dashboard; raises `TooMany` when the asker has 20 open."""
        row = {
            "host": self._host,
            "asker": principal.name,
            "question": request.question,
            "options": json.dumps(request.options, ensure_ascii=False),
            "multi": request.multi,
            "asked_at_ms": self._clock(),
        }

        def work(connection: Connection) -> QuestionView:
            _check_room(connection, principal)
            number = connection.execute(insert(table), row).lastrowid
            self._audit.insert(connection, principal, "ask_operator", f"question {number}")
            return _read(connection, number)

        return await self._store.write(work, committed=self._tell)

    async def answer(self, number: int, text: str, principal: Principal) -> QuestionView:
        """Commit the answer together with the message that takes it to the asker.

        That message is the helper event `operator_answered` from `system`; an asker that was purged
        gets none. Raises `NotFound`, or `Conflict` when it was answered before.
        """

        def work(connection: Connection, post: Post) -> QuestionView:
            values = {
                "answer": text,
                "answered_at_ms": self._clock(),
                "answered_by": str(principal),
                "closed": "answered",
            }
            change = update(table).where(table.c.id == number, _OPEN).values(values)
            answered = connection.execute(change).rowcount
            view = _read(connection, number)
            if not answered:
                raise Conflict(
                    f"question {number} was answered by {view.answered_by} already", field="question_id"
                )
            if self._broker.reaches(view.asker):
                post(SYSTEM, view.asker, _answered(view).as_body())
            self._audit.insert(connection, principal, "answer", f"question {number}")
            return view

        return await self._broker.transact(work, committed=self._tell)

    async def get(self, number: int) -> QuestionView:
        """One question; raises `NotFound`."""
        return await self._store.read(lambda connection: _read(connection, number))

    async def open(self) -> list[QuestionView]:
        """Those without an answer, oldest first."""
        query = select(table).where(_OPEN).order_by(table.c.id)
        return [_view(row) for row in await self._store.read(lambda c: c.execute(query).all())]

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every question as it is asked or answered; returns how to end that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def _tell(self, view: QuestionView) -> None:
        for callback in list(self._subscribers):
            try:
                callback(view)
            except Exception:
                log.exception("a subscriber of the questions failed")


def _answered(view: QuestionView) -> OperatorAnswered:
    return OperatorAnswered(id=view.id, question=view.question, answer=view.answer or "")


def _check_room(connection: Connection, principal: Principal) -> None:
    mine = select(func.count()).select_from(table).where(table.c.asker == principal.name, _OPEN)
    if connection.execute(mine).scalar_one() >= OPEN_MAX:
        raise TooMany(
            f"{principal.name} has {OPEN_MAX} questions open, which is the limit; "
            "wait until the operator has answered some"
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
    )
