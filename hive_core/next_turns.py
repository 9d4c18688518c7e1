"""Turns that agents ask for themselves (`request_next_turn`), so that long work goes on without a message.

The note comes back as a message from the agent to itself. It is posted in the transaction that acks the turn
in which it was asked for, so that neither side can die in between, and at the end of the inbox: whoever
wrote meanwhile comes first, and an agent that always asks for another turn keeps nobody waiting for more
than one. After many such turns with no message from the operator or another agent, the operator is asked
whether it may go on; what `system` says is no such message, as an agent can cause that itself.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from hive_core.audit import Audit
from hive_core.background import TaskSet
from hive_core.broker import Broker, Following, Post
from hive_core.loop_breaker import STOP
from hive_core.principals import Principal
from hive_core.questions import Questions
from hive_core.registry import Registry
from hive_core.store import Store
from hive_core.store.schema import next_turn as table
from hive_shared.errors import HiveError, TooMany
from hive_shared.names import SYSTEM
from hive_shared.wire import AskOperator, Message, NextTurnAsked, QuestionView, RequestNextTurn

log = logging.getLogger(__name__)

BODY_PREFIX: Final = "[next turn] "
GO_ON: Final = "let it go on"
END: Final = "no further turn of its own"
KEEPER: Final = Principal.system(via="next turns")


@dataclass(frozen=True)
class NextTurn:
    """One agent's row: `note` is None while no turn is asked for."""

    agent: str
    note: str | None = None
    in_a_row: int = 0
    question_id: int | None = None


class NextTurns:
    """Who asked for another turn. `most` is how many in a row need no question; 0: any number."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        registry: Registry,
        questions: Questions,
        audit: Audit,
        most: int = 50,
    ) -> None:
        self._store = store
        self._broker = broker
        self._registry = registry
        self._questions = questions
        self._audit = audit
        self._most = most
        self._rows: dict[str, NextTurn] = {}
        self._settled: dict[int, NextTurn] = {}  # by question, until its answer is committed
        self._work = TaskSet("next turns")

    async def open(self) -> None:
        """Read what is asked for, and post what no ack will: call before any door opens."""
        rows = await self._store.read(lambda connection: connection.execute(select(table)).all())
        self._rows = {row.agent: NextTurn(row.agent, row.note, row.in_a_row, row.question_id) for row in rows}
        open_questions = {question.id for question in await self._questions.open()}
        for row in list(self._rows.values()):
            if row.question_id is not None and row.question_id not in open_questions:
                row = self._rows[row.agent] = replace(row, question_id=None)
            # What is unread then is the turn that was cut short, or will be acked before the note is due.
            if row.note is not None and not self._broker.unread(row.agent):
                await self._submit(row.agent, partial(self._post_due, row.agent))
        self._broker.at_turn_end = self._at_turn_end
        self._broker.subscribe(self._heard)
        self._questions.subscribe(self._question_changed)

    async def close(self) -> None:
        await self._work.close()

    # --- agents -------------------------------------------------------------

    async def ask(self, who: Principal, request: RequestNextTurn) -> NextTurnAsked:
        """Keep the note until the present turn is acked, or post it if there is no such turn."""
        agent = who.name
        busy = self._broker.depth(agent)[1] > 0

        def work(connection: Connection, post: Post) -> NextTurn:
            row = replace(_read(connection, agent), note=request.note)
            self._audit.insert(connection, who, "request_next_turn", agent)
            row = row if busy else self._posted(connection, post, row)
            self._put(connection, row)
            return row

        row = await self._submit(agent, work)
        pending = row.note is not None
        return NextTurnAsked(in_a_row=row.in_a_row + pending, most=self._most)

    async def forget(self, agent: str) -> None:
        """An agent was purged: a namesake asked for nothing."""
        row = self._rows.pop(agent, None)

        def work(connection: Connection) -> None:
            connection.execute(delete(table).where(table.c.agent == agent))

        await self._store.write(work)
        if row is not None and row.question_id is not None:
            await self._questions.cancel(row.question_id, KEEPER)

    # --- the operator -------------------------------------------------------

    def asked_about(self, question_id: int) -> str | None:
        """The agent that this open question is about."""
        found = (row.agent for row in self._rows.values() if row.question_id == question_id)
        return next(found, None)

    def settle(
        self, agent: str, who: Principal, connection: Connection, post: Post, asked: QuestionView
    ) -> None:
        """What follows from the answer, in the transaction that closes the question.

        A question that is taken off without an answer ends it as well: the next message wakes the agent.
        """
        row = replace(_read(connection, agent), in_a_row=0, question_id=None)
        row = self._posted(connection, post, row) if asked.answer == GO_ON else replace(row, note=None)
        if asked.answer == STOP + agent:
            self._registry.store_wanted(connection, agent, "stopped")
        self._put(connection, row)
        detail = asked.answer or "cancelled"
        self._audit.insert(connection, who, "answer_next_turn", agent, detail=detail)
        self._settled[asked.id] = row

    # --- inside -------------------------------------------------------------

    def _at_turn_end(self, agent: str) -> Following | None:
        """What the broker commits together with the ack of the turn that asked for another one."""
        row = self._rows.get(agent)
        if row is None or row.note is None:
            return None
        return Following(partial(self._post_due, agent), partial(self._holds, agent))

    def _post_due(self, agent: str, connection: Connection, post: Post) -> NextTurn:
        row = self._posted(connection, post, _read(connection, agent))
        self._put(connection, row)
        return row

    def _posted(self, connection: Connection, post: Post, row: NextTurn) -> NextTurn:
        """The note as a message; or a question, where there were too many in a row."""
        if row.note is None or row.question_id is not None or not self._broker.reaches(row.agent):
            return row
        if self._most and row.in_a_row >= self._most:
            return replace(row, question_id=self._insert_question(connection, row.agent))
        number = post(row.agent, row.agent, BODY_PREFIX + row.note)
        principal = Principal.agent(row.agent, via="next turn")
        self._audit.insert(connection, principal, "send", row.agent, "ok", f"message {number}")
        return replace(row, note=None, in_a_row=row.in_a_row + 1)

    def _insert_question(self, connection: Connection, agent: str) -> int | None:
        """Ask; None while the hive has too many questions open: asked when another one is closed."""
        request = AskOperator(
            question=f"{agent} has had {self._most} turns in a row that it asked for itself, without a "
            "message from you or another agent, and asks for one more. Messages still wake it. "
            "May it go on?",
            options=[GO_ON, END, STOP + agent],
        )
        try:
            return self._questions.insert(connection, KEEPER, request).id
        except TooMany:
            return None

    async def _submit(self, agent: str, work: Callable[[Connection, Post], NextTurn]) -> NextTurn:
        return await self._broker.transact(work, committed=partial(self._holds, agent))

    def _put(self, connection: Connection, row: NextTurn) -> None:
        values = {**vars(row), "host": self._registry.host}
        changed = {name: value for name, value in values.items() if name != "agent"}
        connection.execute(
            insert(table).values(values).on_conflict_do_update(index_elements=["agent"], set_=changed)
        )

    def _holds(self, agent: str, row: NextTurn) -> None:
        """Committed."""
        before = self._rows.get(agent)
        self._rows[agent] = row
        if row.question_id is not None and (before is None or before.question_id != row.question_id):
            self._work.start(self._tell_question(row.question_id), name=f"next-turn-{agent}")

    async def _tell_question(self, number: int) -> None:
        self._questions.asked(await self._questions.get(number))

    def _heard(self, message: Message) -> None:
        """Somebody else wrote to it: its turns are in a row no longer."""
        row = self._rows.get(message.to)
        if row is None or not row.in_a_row or message.sender in (message.to, SYSTEM):
            return
        self._rows[message.to] = replace(row, in_a_row=0)
        self._work.start(self._begin_anew(row), name=f"next-turn-{row.agent}")

    async def _begin_anew(self, row: NextTurn) -> None:
        def work(connection: Connection, _: Post) -> NextTurn:
            anew = replace(_read(connection, row.agent), in_a_row=0, question_id=None)
            self._put(connection, anew)
            return anew

        try:
            await self._submit(row.agent, work)
            if row.question_id is not None:  # what was asked is settled: the note comes after this message
                await self._questions.cancel(row.question_id, KEEPER)
        except HiveError as error:  # then the operator is asked earlier than need be
            log.warning("the turns of %s: %s", row.agent, error.message)

    def _question_changed(self, question: QuestionView) -> None:
        if question.asker != SYSTEM or not question.closed:
            return
        settled = self._settled.pop(question.id, None)
        if settled is not None:
            self._holds(settled.agent, settled)
        for row in list(self._rows.values()):  # those that could not be asked about before
            if row.note is not None and row.question_id is None and row.in_a_row >= self._most > 0:
                self._work.start(
                    self._submit(row.agent, partial(self._post_due, row.agent)), name=f"next-turn-{row.agent}"
                )


def _read(connection: Connection, agent: str) -> NextTurn:
    row = connection.execute(select(table).where(table.c.agent == agent)).one_or_none()
    return NextTurn(agent) if row is None else NextTurn(agent, row.note, row.in_a_row, row.question_id)
