"""Two agents that keep answering each other are paused, and the operator is asked (SPEC section 5).

What is decided about a pair is a row of the table `loop`, written in the same transaction as the question
that asks or the answer that settles it; the broker's rules follow once that is committed, and are made again
from the table when the daemon starts. A pair is in one of three states: *paused* until the operator answers,
kept *apart* until a time, or *silenced*, which is free to go on and not looked at until a time.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic as monotonic_seconds
from typing import Final, Literal

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from hive_core.audit import Audit
from hive_core.background import TaskSet
from hive_core.broker import Broker, Post
from hive_core.clock import Clock, time_ms
from hive_core.deadlines import Deadlines
from hive_core.exchanges import Exchanges, LoopLimits, Pair
from hive_core.principals import Principal
from hive_core.questions import Questions
from hive_core.registry import Registry
from hive_core.store.schema import loop as table
from hive_core.store.schema import question
from hive_shared.errors import HiveError, TooMany
from hive_shared.events import HelperEvent, LoopEnded, LoopPaused
from hive_shared.names import MANAGER, SYSTEM
from hive_shared.wire import AskOperator, Message, QuestionView

log = logging.getLogger(__name__)

DAY_MS: Final = 86_400_000
RESUME: Final = "resume"
SILENCE: Final = "resume, and do not ask again for a day"
APART: Final = "keep them apart for a day"
STOP: Final = "stop "  # and the agent's name
BREAKER: Final = Principal.system(via="loop breaker")

State = Literal["paused", "apart", "silenced"]


@dataclass(frozen=True)
class Loop:
    """What holds for one pair. `question_id` is that of the open question, if it could be asked."""

    pair: Pair
    state: State
    since_ms: int
    until_ms: int | None = None
    question_id: int | None = None

    @property
    def holds(self) -> bool:
        """Whether messages between the two are refused."""
        return self.state != "silenced"


class LoopBreaker:
    """Watches what the broker commits. `run` ends what was set for a time."""

    def __init__(
        self,
        broker: Broker,
        registry: Registry,
        questions: Questions,
        audit: Audit,
        limits: LoopLimits,
        *,
        changed: Callable[[str], None] = lambda name: None,
        clock: Clock = time_ms,
        monotonic: Callable[[], float] = monotonic_seconds,
    ) -> None:
        """`changed` is told the names of agents whose rules are others now."""
        self._broker = broker
        self._registry = registry
        self._questions = questions
        self._audit = audit
        self._limits = limits
        self._changed = changed
        self._clock = clock
        self._monotonic = monotonic
        self._exchanges = Exchanges(limits)
        self._loops: dict[Pair, Loop] = {}
        # By question: what follows from its answer, from within the transaction until it is committed.
        self._settled: dict[int, Loop | None] = {}
        self._deadlines = Deadlines("pauses of agents", clock)
        self._work = TaskSet("loop breaker")

    async def open(self) -> None:
        """Take up what held before, and watch from now on. Call before any door opens."""
        for loop in await self._broker.transact(lambda connection, _: _stored(connection)):
            self._holds(loop)
        self._broker.subscribe(self._seen)
        self._questions.subscribe(self._question_changed)
        self._work.start(self._deadlines.keep(self._earliest_ms, self._end_due), name="pauses")
        self._ask_what_waits()

    async def close(self) -> None:
        """What is under way was committed or was not; the next start goes on from there."""
        await self._work.close()

    def asked_about(self, question_id: int) -> Loop | None:
        """The pair that this open question is about."""
        return next((loop for loop in self._loops.values() if loop.question_id == question_id), None)

    def settle(
        self, loop: Loop, who: Principal, connection: Connection, post: Post, asked: QuestionView
    ) -> None:
        """What follows from the operator's answer, in the transaction that closes the question.

        A question that is taken off without an answer keeps the two apart: nobody let them go on. That an
        agent shall not run any more is stored here; its container is still to be stopped.
        """
        answer = asked.answer or APART
        following = self._following(loop, answer)
        stopped = stopped_by(answer)
        if stopped is not None:
            self._registry.store_wanted(connection, stopped, "stopped")
        self._store_ending(connection, post, loop, following, answer, who)
        self._settled[asked.id] = following

    async def forget(self, name: str) -> None:
        """An agent was purged: what held for it holds for no later agent of that name."""
        for loop in [loop for pair, loop in self._loops.items() if name in pair]:
            if loop.question_id is None:
                await self._broker.transact(partial(_delete_of, loop.pair))
                self._follows(loop, None)
            else:
                await self._questions.cancel(loop.question_id, BREAKER, effect=partial(self._drop, loop))

    def _drop(self, loop: Loop, connection: Connection, _: Post, asked: QuestionView) -> None:
        _delete(connection, loop.pair)
        self._settled[asked.id] = None

    # --- pausing ---

    def _seen(self, message: Message) -> None:
        pair = self._exchanges.note(message, self._monotonic())
        if pair is None:
            return
        self._exchanges.forget(pair)
        if pair in self._loops:  # silenced, or what was on its way when they were paused
            return
        loop = Loop(pair, "paused", self._clock())
        self._holds(loop)  # at once; what is stored follows
        self._work.start(self._pause(loop), name=f"pause-{'-'.join(pair)}")

    async def _pause(self, loop: Loop) -> None:
        one, other = loop.pair
        log.warning("%s and %s keep answering each other: messages between them are paused", one, other)

        def work(connection: Connection, post: Post) -> tuple[Loop, QuestionView | None]:
            asked = self._insert_question(connection, loop)
            stored = _with_question(loop, asked)
            _put(connection, self._registry.host, stored)
            self._audit.insert(connection, BREAKER, "pause", f"{one} and {other}", "ok", self._measure())
            self._tell(post, LoopPaused(agents=list(loop.pair), note=self._measure()))
            return stored, asked

        try:
            await self._broker.transact(work, committed=self._stored_pause)
        except HiveError as error:
            # Nothing is stored, so nobody was asked: they go on, and the next forty messages try again.
            log.error("%s and %s could not be paused: %s", one, other, error.message)
            self._follows(loop, None)

    def _stored_pause(self, stored: tuple[Loop, QuestionView | None]) -> None:
        loop, asked = stored
        self._holds(loop)
        if asked is not None:
            self._questions.asked(asked)

    def _insert_question(self, connection: Connection, loop: Loop) -> QuestionView | None:
        """Ask; None while the hive has too many questions open: this one is asked when another is closed."""
        one, other = loop.pair
        request = AskOperator(
            question=f"{one} and {other} keep answering each other: {self._measure()}. "
            "Messages between them are refused until you decide. What shall happen?",
            options=[RESUME, SILENCE, APART, STOP + one, STOP + other],
        )
        try:
            return self._questions.insert(connection, BREAKER, request)
        except TooMany:
            return None

    def _measure(self) -> str:
        minutes = self._limits.window_seconds / 60
        return (
            f"{self._limits.messages} messages or more within {minutes:g} minutes "
            "without a word from the operator"
        )

    def _question_changed(self, question: QuestionView) -> None:
        if question.asker != SYSTEM or not question.closed:
            return
        loop = self.asked_about(question.id)
        if loop is not None:
            self._follows(loop, self._settled.pop(question.id, None))
        self._ask_what_waits()

    def _ask_what_waits(self) -> None:
        for loop in self._loops.values():
            if loop.state == "paused" and loop.question_id is None:
                self._work.start(self._ask_again(loop), name=f"ask-{'-'.join(loop.pair)}")

    async def _ask_again(self, loop: Loop) -> None:
        def work(connection: Connection, _: Post) -> tuple[Loop, QuestionView | None]:
            held = _find(connection, loop.pair)
            if held is None or held.state != "paused" or held.question_id is not None:
                return held or loop, None
            asked = self._insert_question(connection, loop)
            stored = _with_question(loop, asked)
            _put(connection, self._registry.host, stored)
            return stored, asked

        try:
            await self._broker.transact(work, committed=self._stored_pause)
        except HiveError as error:
            log.error("the operator could not be asked about %s and %s: %s", *loop.pair, error.message)

    # --- ending ---

    def _following(self, loop: Loop, answer: str) -> Loop | None:
        """What holds for the pair after that answer; None for nothing."""
        now_ms = self._clock()
        if answer == SILENCE:
            return Loop(loop.pair, "silenced", now_ms, until_ms=now_ms + DAY_MS)
        if answer == APART:
            return Loop(loop.pair, "apart", now_ms, until_ms=now_ms + DAY_MS)
        return None

    def _store_ending(
        self,
        connection: Connection,
        post: Post,
        loop: Loop,
        following: Loop | None,
        note: str,
        who: Principal,
    ) -> None:
        _delete(connection, loop.pair)
        if following is not None:
            _put(connection, self._registry.host, following)
        self._audit.insert(connection, who, "end_pause", " and ".join(loop.pair), "ok", note)
        self._tell(post, LoopEnded(agents=list(loop.pair), note=note))

    async def _earliest_ms(self) -> int | None:
        now_ms = self._clock()
        for pair, loop in self._loops.items():
            if loop.until_ms is not None and loop.since_ms > now_ms:  # by a clock that was ahead
                lasts_ms = loop.until_ms - loop.since_ms
                self._loops[pair] = replace(loop, since_ms=now_ms, until_ms=now_ms + lasts_ms)
        return min(
            (loop.until_ms for loop in self._loops.values() if loop.until_ms is not None), default=None
        )

    async def _end_due(self, now_ms: int) -> None:
        for loop in list(self._loops.values()):
            if loop.until_ms is not None and loop.until_ms <= now_ms:
                await self._broker.transact(partial(self._end_in_time, loop))
                self._follows(loop, None)

    def _end_in_time(self, loop: Loop, connection: Connection, post: Post) -> None:
        if loop.holds:
            self._store_ending(connection, post, loop, None, "the day is over; they may go on", BREAKER)
        else:
            _delete(connection, loop.pair)

    def _tell(self, post: Post, event: HelperEvent) -> None:
        if self._broker.reaches(MANAGER):
            post(SYSTEM, MANAGER, event.as_body())

    # --- what holds now ---

    def _holds(self, loop: Loop) -> None:
        self._loops[loop.pair] = loop
        rules = self._broker.rules
        (rules.pause if loop.holds else rules.resume)(*loop.pair)
        self._deadlines.changed()
        for name in loop.pair:
            self._changed(name)

    def _follows(self, loop: Loop, following: Loop | None) -> None:
        """Committed: `following` holds in the place of `loop`."""
        if following is not None:
            self._holds(following)
            return
        self._loops.pop(loop.pair, None)
        self._exchanges.forget(loop.pair)
        self._broker.rules.resume(*loop.pair)
        for name in loop.pair:
            self._changed(name)


def stopped_by(answer: str) -> str | None:
    """Which agent an answer to a question of the hive stops."""
    return answer.removeprefix(STOP) if answer.startswith(STOP) else None


def _with_question(loop: Loop, asked: QuestionView | None) -> Loop:
    return Loop(loop.pair, loop.state, loop.since_ms, loop.until_ms, None if asked is None else asked.id)


_OPEN: Final = (
    select(table.c.one, table.c.other, table.c.state, table.c.since_ms, table.c.until_ms, question.c.id)
    # Whatever became of a question that is closed, a pair that is paused has to be asked about.
    .outerjoin(question, (table.c.question_id == question.c.id) & (question.c.closed == ""))
)


def _stored(connection: Connection) -> list[Loop]:
    return [Loop((row[0], row[1]), *row[2:]) for row in connection.execute(_OPEN).all()]


def _find(connection: Connection, pair: Pair) -> Loop | None:
    row = connection.execute(_OPEN.where(*_is(pair))).one_or_none()
    return None if row is None else Loop((row[0], row[1]), *row[2:])


def _put(connection: Connection, host: str, loop: Loop) -> None:
    _delete(connection, loop.pair)
    values = {"state": loop.state, "since_ms": loop.since_ms, "until_ms": loop.until_ms}
    connection.execute(
        insert(table),
        {"one": loop.pair[0], "other": loop.pair[1], "host": host, "question_id": loop.question_id, **values},
    )


def _delete_of(pair: Pair, connection: Connection, _: Post) -> None:
    _delete(connection, pair)


def _delete(connection: Connection, pair: Pair) -> None:
    connection.execute(delete(table).where(*_is(pair)))


def _is(pair: Pair) -> tuple[ColumnElement[bool], ...]:
    return table.c.one == pair[0], table.c.other == pair[1]
