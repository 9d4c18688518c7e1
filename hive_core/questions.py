"""Questions to the operator and between agents, and what becomes of them (SPEC sections 4 and 11).

A question is open until it is answered, cancelled, its time has run out, or the agent that was asked is gone:
whichever is committed first, and no two of them. The asker hears of it in the same transaction. An agent
hears of its question by a message of the asker, and answers with one of its own; each is held to what a
`send` is held to, so that asking is no way around the rules. What closes without an answer is told by the
hive, in a field that no answer has. An agent whose answer nobody waits for any more is told as well; where
the asker brought that about, it counts as one more message of the asker's.
"""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Connection, Row, func, insert, or_, select, update

from hive_core.audit import Audit
from hive_core.broker import Broker, Post, check_in_reply_to
from hive_core.clock import Clock, time_ms
from hive_core.clock_jumps import Adjusted, Lasting
from hive_core.deadlines import Deadlines
from hive_core.principals import Kind, Principal
from hive_core.store import Store, messages
from hive_core.store.prepared import Prepared
from hive_core.store.schema import question as table
from hive_core.subscribers import Subscribers
from hive_shared.errors import BadRequest, Conflict, Forbidden, NotFound, TooMany
from hive_shared.events import (
    AskClosed,
    HelperEvent,
    OperatorAnswered,
    QuestionCancelled,
    QuestionExpired,
    QuestionGone,
)
from hive_shared.names import OPERATOR, SYSTEM
from hive_shared.wire import Ask, AskOperator, QuestionView

OPEN_MAX: Final = 20  # of one asker, to the operator; and as many to agents
EXPIRE_MAX: Final = 100  # of one transaction
CLOCK: Final = Principal.system(via="clock")
LIFECYCLE: Final = Principal.system(via="lifecycle")

_OPEN: Final = table.c.closed == ""
_TO_OPERATOR: Final = table.c.answerer == OPERATOR
_OPEN_TO_OPERATOR: Final = Prepared(select(table).where(_OPEN, _TO_OPERATOR).order_by(table.c.id))
_OPEN_BETWEEN: Final = Prepared(select(table).where(_OPEN, ~_TO_OPERATOR).order_by(table.c.id))
_LASTING: Final = Lasting(table, _OPEN, since="asked_at_ms", until="expires_at_ms")

Closed = Literal["answered", "cancelled", "expired", "gone"]
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
        self._subscribers = Subscribers[[QuestionView]]("the questions")
        self._deadlines = Deadlines("questions", clock)
        self._times = Adjusted(store, _LASTING, clock, steady, self._tell_times)

    async def ask(self, principal: Principal, request: AskOperator) -> QuestionView:
        """Put a question on the dashboard; raises `TooMany` when the asker has 20 open."""
        return await self._store.write(
            lambda connection: self.insert(connection, principal, request), committed=self.asked
        )

    def insert(self, connection: Connection, principal: Principal, request: AskOperator) -> QuestionView:
        """As `ask`, within the caller's transaction, who calls `asked` once that is committed."""
        number = self._insert(connection, principal, request, OPERATOR)
        self._audit.insert(connection, principal, "ask_operator", f"question {number}")
        return _read(connection, number)

    async def ask_agent(self, principal: Principal, request: Ask) -> QuestionView:
        """Put a question to an agent, in a message of the asker that counts as one that it sends.

        A `key` that the asker used before answers with the question of then. Raises what `Broker.send`
        raises, `Forbidden` also when the other may not answer; `Conflict` when that was destroyed, `TooMany`
        when the asker has 20 open.
        """
        earlier = await self._store.read(lambda connection: _of_key(connection, principal, request.key))
        if earlier is not None:
            return earlier
        self._check_answerable(principal.name, request.to)
        self._broker.admit(principal, request.to)

        def work(connection: Connection, post: Post) -> QuestionView:
            before = _of_key(connection, principal, request.key)
            if before is not None:
                return before
            check_in_reply_to(connection, principal, request.in_reply_to)
            number = self._insert(connection, principal, request, request.to)
            message = post(
                principal.name,
                request.to,
                _read(connection, number).question + _choices(request),
                in_reply_to=request.in_reply_to,
                key=request.key,
                asks=number,
            )
            connection.execute(update(table).where(table.c.id == number).values(message_id=message))
            told = f"question {number}, message {message}"
            self._audit.insert(connection, principal, "ask", request.to, "ok", told)
            return _read(connection, number)

        return await self._broker.transact(work, committed=self.asked)

    def _check_answerable(self, asker: str, answerer: str) -> None:
        """Whoever asks must be able to get an answer; that it may ask at all is looked at elsewhere."""
        if self._broker.reaches(answerer) and not self._broker.lives(answerer):
            raise Conflict(f"{answerer} was destroyed: nobody is there to answer", field="to")
        refusal = self._broker.rules.refusal(answerer, asker)
        if isinstance(refusal, Forbidden):
            raise Forbidden(f"{answerer} could not answer: {refusal.message}", field="to")

    def _insert(
        self, connection: Connection, principal: Principal, request: AskOperator | Ask, answerer: str
    ) -> int:
        _check_room(connection, principal, answerer)
        now_ms = self._clock()
        row = {
            "host": self._host,
            "asker": principal.name,
            "question": request.question,
            "options": json.dumps(request.options, ensure_ascii=False),
            "multi": request.multi,
            "asked_at_ms": now_ms,
            "expires_at_ms": _expires_at_ms(request.ttl_seconds, now_ms),
            "answerer": answerer,
        }
        return int(connection.execute(insert(table), row).lastrowid)

    def asked(self, view: QuestionView) -> None:
        """A question was committed."""
        self._deadlines.changed()
        self._subscribers.tell(view)

    async def answer(
        self, number: int, text: str, principal: Principal, *, effect: Effect | None = None
    ) -> QuestionView:
        """Commit the answer together with the message that takes it to the asker, and with its `effect`.

        An agent answers what it was asked, by a message of its own that counts as one that it sends; the
        operator any question, by the helper event `operator_answered` from `system`. An asker that was
        purged gets none. Raises `NotFound`, or `Conflict` when the question is closed; `BadRequest` for an
        answer to the hive itself that is none of its options, since it would do nothing. For an agent
        `Forbidden`, whether or not there is a question of that number, and what `Broker.send` raises.
        """
        by_agent = principal.kind is not Kind.OPERATOR
        if by_agent:
            await self._admit_answer(number, principal)

        def work(connection: Connection, post: Post) -> QuestionView:
            values = {"answer": text, "answered_at_ms": self._clock(), "answered_by": str(principal)}
            view = _close(connection, number, "answered", **values)
            if view.asker == SYSTEM and text not in view.options:
                options = ", ".join(repr(option) for option in view.options)
                raise BadRequest(
                    f"question {number} is the hive's own; answer one of {options}", field="answer"
                )
            if not by_agent:
                self._notify(
                    post,
                    view,
                    OperatorAnswered(id=view.id, question=view.question, asked=_asked(view), answer=text),
                )
                self._tell_asked(post, view, "the operator answered it")
            elif self._broker.reaches(view.asker):
                post(principal.name, view.asker, text, in_reply_to=view.message_id, answers=view.id)
            if effect is not None:
                effect(connection, post, view)
            action = "answer_ask" if by_agent else "answer"
            self._audit.insert(connection, principal, action, f"question {number}")
            return view

        return await self._broker.transact(work, committed=self._subscribers.tell)

    async def _admit_answer(self, number: int, principal: Principal) -> None:
        asked = await self._store.read(lambda connection: _find(connection, number))
        if asked is None or asked.answerer != principal.name:
            raise Forbidden(
                f"no question {number} was put to {principal.name}; only who was asked can answer one. "
                "`loose_ends` lists what waits for your answer",
                field="question_id",
            )
        if asked.closed:
            raise _closed_before(asked)
        self._broker.admit(principal, asked.asker)

    async def cancel(
        self, number: int, principal: Principal, *, effect: Effect | None = None
    ) -> QuestionView:
        """Close a question without an answer: an asker its own ones, the operator any.

        Unless it cancelled itself, the asker gets the helper event `question_cancelled`; an agent that was
        asked gets `ask_closed`. Raises `NotFound`, `Forbidden`, or `Conflict` when the question is closed.
        """

        def work(connection: Connection, post: Post) -> QuestionView:
            asker = _read(connection, number).asker
            if principal.kind is not Kind.OPERATOR and principal.name != asker:
                raise Forbidden(f"question {number} is another's; only the operator can cancel it")
            view = _close(connection, number, "cancelled")
            if principal.name != asker:
                event = QuestionCancelled(
                    id=view.id,
                    question=view.question,
                    asked=_asked(view),
                    no_answer=f"[no answer: cancelled by {principal.name}]",
                )
                self._notify(post, view, event)
            who = "the operator" if principal.kind is Kind.OPERATOR else asker
            self._tell_asked(post, view, f"{who} took it back")
            if effect is not None:
                effect(connection, post, view)
            by_agent = _asked(view) is not None and principal.kind is not Kind.OPERATOR
            action = "cancel_ask" if by_agent else "cancel_question"
            self._audit.insert(connection, principal, action, f"question {number}")
            return view

        def committed(view: QuestionView) -> None:
            if principal.kind is not Kind.OPERATOR:
                self._charge(view)
            self._subscribers.tell(view)

        return await self._broker.transact(work, committed=committed)

    async def run(self) -> None:
        """Close questions as their time runs out, also what ran out while nobody looked; until cancelled."""
        await self._deadlines.keep(
            lambda: self._store.read(_next_expiry_ms), self._expire_due, self._times.adjust
        )

    async def _expire_due(self, now_ms: int) -> None:
        await self._broker.transact(partial(self._expire, now_ms), committed=self._expired)

    def _expired(self, views: list[QuestionView]) -> None:
        for view in views:
            self._charge(view)
        self._tell_all(views)

    def _expire(self, now_ms: int, connection: Connection, post: Post) -> list[QuestionView]:
        due = select(table.c.id).where(_OPEN, table.c.expires_at_ms <= now_ms).order_by(table.c.expires_at_ms)
        views = []
        for number in connection.execute(due.limit(EXPIRE_MAX)).scalars().all():
            view = _close(connection, number, "expired")
            waited_seconds = ((view.expires_at_ms or now_ms) - view.asked_at_ms) / 1000
            event = QuestionExpired(
                id=view.id,
                question=view.question,
                asked=_asked(view),
                no_answer=f"[no answer: expired after {waited_seconds:g} s]",
            )
            self._notify(post, view, event)
            self._tell_asked(post, view, f"the time that {view.asker} gave it ran out")
            action = "expire_question" if _asked(view) is None else "expire_ask"
            self._audit.insert(connection, CLOCK, action, f"question {number}")
            views.append(view)
        return views

    def _notify(self, post: Post, view: QuestionView, event: HelperEvent) -> None:
        """Tell the asker, unless it was purged or is the hive itself."""
        if self._broker.reaches(view.asker):
            post(SYSTEM, view.asker, event.as_body(), in_reply_to=view.message_id, answers=view.id)

    def _tell_asked(self, post: Post, view: QuestionView, why: str) -> None:
        """Tell an agent that nobody waits for its answer any more, unless it was destroyed.

        The operator sees that on the page. With `in_reply_to` the thread of the question tells it as well;
        `answers` is for who asked.
        """
        if view.answerer == OPERATOR or not self._broker.lives(view.answerer):
            return
        note = (
            f"question {view.id} of {view.asker} no longer waits for your answer: {why}. "
            "There is nothing to answer and nothing to do"
        )
        event = AskClosed(id=view.id, asker=view.asker, note=note)
        post(SYSTEM, view.answerer, event.as_body(), in_reply_to=view.message_id)

    def _charge(self, view: QuestionView) -> None:
        """The asker made the hive write to whoever it asked: that counts as a message of its own.

        Else one that asks and takes back, or lets expire at once, would write twice as fast as it may.
        """
        if view.answerer != OPERATOR:
            self._broker.charge(view.asker)

    async def close_gone(self) -> list[QuestionView]:
        """Close the questions of agents that cannot be answered any more; call when an agent has gone.

        The asker hears that the agent it asked was destroyed. One that was purged itself hears nothing, and
        a later agent of its name gets no answer to what it did not ask; whom it had asked is told.
        """
        return await self._broker.transact(self._close_gone, committed=self._tell_all)

    def _close_gone(self, connection: Connection, post: Post) -> list[QuestionView]:
        views = []
        for view in _views(connection, _OPEN, ~_TO_OPERATOR):
            if not self._broker.reaches(view.asker):
                closed = _close(connection, view.id, "cancelled")
                self._tell_asked(post, closed, f"{view.asker} is gone for good")
                action = "cancel_ask"
            elif not self._broker.lives(view.answerer):
                closed = _close(connection, view.id, "gone")
                event = QuestionGone(
                    id=view.id,
                    question=view.question,
                    asked=view.answerer,
                    no_answer=f"[no answer: {view.answerer} was destroyed]",
                )
                self._notify(post, closed, event)
                action = "end_ask"
            else:
                continue
            self._audit.insert(connection, LIFECYCLE, action, f"question {view.id}")
            views.append(closed)
        return views

    async def get(self, number: int) -> QuestionView:
        """One question; raises `NotFound`."""
        return await self._store.read(lambda connection: _read(connection, number))

    async def open(self) -> list[QuestionView]:
        """Those that wait for the operator's answer, oldest first."""
        return [_view(row) for row in await self._store.read(_OPEN_TO_OPERATOR.rows)]

    async def between_agents(self) -> list[QuestionView]:
        """Those that wait for an agent's answer, oldest first."""
        return [_view(row) for row in await self._store.read(_OPEN_BETWEEN.rows)]

    async def of(self, name: str) -> tuple[list[QuestionView], list[QuestionView]]:
        """What an agent has asked, and what it was asked, as far as that is open; oldest first."""
        either = or_(table.c.asker == name, table.c.answerer == name)
        views = await self._store.read(lambda connection: _views(connection, _OPEN, either))
        return [view for view in views if view.asker == name], [v for v in views if v.answerer == name]

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every question as it is asked or closed; returns how to end that."""
        return self._subscribers.add(callback)

    async def _tell_times(self, numbers: list[int]) -> None:
        views = [*await self.open(), *await self.between_agents()]
        self._tell_all([view for view in views if view.id in numbers])

    def _tell_all(self, views: list[QuestionView]) -> None:
        for view in views:
            self._subscribers.tell(view)


def _close(connection: Connection, number: int, how: Closed, **values: Any) -> QuestionView:
    """Close an open question, once; raises `NotFound`, or `Conflict` that says how it was closed before."""
    change = update(table).where(table.c.id == number, _OPEN).values(closed=how, **values)
    closed = connection.execute(change).rowcount
    view = _read(connection, number)
    if not closed:
        raise _closed_before(view)
    return view


def _closed_before(view: QuestionView) -> Conflict:
    return Conflict(f"question {view.id} {_how_closed(view)}", field="question_id")


def _how_closed(view: QuestionView) -> str:
    match view.closed:
        case "answered":
            return f"was answered by {view.answered_by} already"
        case "expired":
            return f"has expired: {view.asker} set it a time that ran out. Write to {view.asker} instead"
        case "gone":
            return f"was closed when {view.answerer} was destroyed. Write to {view.asker} instead"
    return "was cancelled already"


def _asked(view: QuestionView) -> str | None:
    """Who was asked, where that is to be told: an agent."""
    return None if view.answerer == OPERATOR else view.answerer


def _choices(request: Ask) -> str:
    """What a message says below the question."""
    lines = [f"- {option}" for option in request.options]
    if lines:
        lines.insert(0, "Any of these:" if request.multi else "One of these:")
    if request.ttl_seconds is not None:
        lines.append(f"The answer is of use for {request.ttl_seconds:g} seconds.")
    return "\n\n" + "\n".join(lines) if lines else ""


def _expires_at_ms(ttl_seconds: float | None, now_ms: int) -> int | None:
    return None if ttl_seconds is None else now_ms + int(ttl_seconds * 1000)


def _next_expiry_ms(connection: Connection) -> int | None:
    earliest: int | None = connection.execute(select(func.min(table.c.expires_at_ms)).where(_OPEN)).scalar()
    return earliest


def _check_room(connection: Connection, principal: Principal, answerer: str) -> None:
    same = _TO_OPERATOR if answerer == OPERATOR else ~_TO_OPERATOR
    mine = select(func.count()).select_from(table).where(table.c.asker == principal.name, _OPEN, same)
    if connection.execute(mine).scalar_one() >= OPEN_MAX:
        who = "the operator has" if answerer == OPERATOR else "other agents have"
        to = "" if answerer == OPERATOR else " to other agents"
        raise TooMany(
            f"{principal.name} has {OPEN_MAX} questions{to} open, which is the limit; "
            f"wait until {who} answered some, or cancel what no longer matters"
        )


def _of_key(connection: Connection, principal: Principal, key: str | None) -> QuestionView | None:
    """The question that this asker put under that key before; raises `Conflict` if that was a message's."""
    sent = [] if key is None else messages.ids_of_key(connection, principal.name, key)
    if not sent:
        return None
    asked = _views(connection, table.c.message_id.in_(sent))
    if not asked:
        raise Conflict(f"the key of this question was used for message {sent[0]}", field="key")
    return asked[0]


def _views(connection: Connection, *conditions: ColumnElement[bool]) -> list[QuestionView]:
    """Oldest first."""
    return [
        _view(row) for row in connection.execute(select(table).where(*conditions).order_by(table.c.id)).all()
    ]


def _find(connection: Connection, number: int) -> QuestionView | None:
    row = connection.execute(select(table).where(table.c.id == number)).one_or_none()
    return None if row is None else _view(row)


def _read(connection: Connection, number: int) -> QuestionView:
    view = _find(connection, number)
    if view is None:
        raise NotFound(f"question {number} does not exist", field="question_id")
    return view


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
