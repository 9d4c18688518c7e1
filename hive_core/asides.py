"""Messages with which agents end again and again: set aside by the broker, decided by the operator.

Which messages are set aside is stored with them; which question is about which message, in the options of
the question. So there is nothing else to keep, and nothing that could say otherwise.
"""

import logging
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from hive_core.audit import Audit
from hive_core.background import TaskSet
from hive_core.broker import Broker, Post
from hive_core.principals import Principal
from hive_core.questions import Questions
from hive_core.store import messages
from hive_shared.errors import HiveError
from hive_shared.events import MessageSetAside
from hive_shared.names import MANAGER, SYSTEM
from hive_shared.wire import AskOperator, QuestionView

log = logging.getLogger(__name__)

KEEPER: Final = Principal.system(via="inbox")
_AGAIN: Final = ("deliver message ", " again")
_OUT: Final = ("take message ", " out of the inbox")


@dataclass(frozen=True)
class Aside:
    """A message that is delivered to nobody until the operator has decided."""

    recipient: str
    number: int

    @property
    def again(self) -> str:
        """The answer that delivers it."""
        return _AGAIN[0] + str(self.number) + _AGAIN[1]

    @property
    def out(self) -> str:
        """The answer that is done with it."""
        return _OUT[0] + str(self.number) + _OUT[1]


@dataclass(frozen=True)
class _Settled:
    """What follows from an answer, once it is committed."""

    recipient: str
    number: int
    again: bool


class Asides:
    """Asks about each message that is set aside, and carries out the answer."""

    def __init__(self, broker: Broker, questions: Questions, audit: Audit) -> None:
        self._broker = broker
        self._questions = questions
        self._audit = audit
        self._asked: dict[int, Aside] = {}  # by question
        self._unasked: set[Aside] = set()  # the hive has too many questions open, or could not store it
        self._settled: dict[int, _Settled] = {}  # by question, until its answer is committed
        self._work = TaskSet("asides")

    async def open(self) -> None:
        """Ask about what is set aside and not asked about: the daemon was killed in between, or before."""
        about = {_number_of(question): question.id for question in await self._questions.open()}
        for aside in (Aside(recipient, number) for recipient, number in self._broker.aside()):
            if aside.number in about:
                self._asked[about[aside.number]] = aside
            else:
                self._unasked.add(aside)
        self._broker.subscribe_aside(self._set_aside)
        self._questions.subscribe(self._question_changed)
        self._ask_what_waits()

    async def close(self) -> None:
        """What is under way was committed or was not; the next start goes on from there."""
        await self._work.close()

    def asked_about(self, question_id: int) -> Aside | None:
        """The message that this open question is about."""
        return self._asked.get(question_id)

    def settle(
        self, aside: Aside, who: Principal, connection: Connection, post: Post, asked: QuestionView
    ) -> None:
        """What follows from the operator's answer, in the transaction that closes the question.

        A question that is taken off without an answer changes nothing: the next start asks again.
        """
        self._settled.pop(asked.id, None)  # of a try that could not be committed
        if asked.answer not in (aside.again, aside.out):
            return
        again = asked.answer == aside.again
        recipient = self._broker.settle_aside(connection, aside.number, again=again)
        if recipient is not None:
            action = "requeue" if again else "take_out"
            self._audit.insert(connection, who, action, recipient, "ok", f"message {aside.number}")
            self._settled[asked.id] = _Settled(recipient, aside.number, again)

    async def forget(self, name: str) -> None:
        """An agent was purged, and its inbox with it: nothing is left to decide."""
        self._unasked = {aside for aside in self._unasked if aside.recipient != name}
        for number in [number for number, aside in self._asked.items() if aside.recipient == name]:
            await self._questions.cancel(number, KEEPER)

    # --- asking ---

    def _set_aside(self, recipient: str, number: int) -> None:
        self._unasked.add(Aside(recipient, number))
        self._ask_what_waits()

    def _ask_what_waits(self) -> None:
        for aside in sorted(self._unasked, key=lambda aside: aside.number):
            self._unasked.discard(aside)
            self._work.start(self._ask(aside), name=f"aside-{aside.number}")

    async def _ask(self, aside: Aside) -> None:
        """The question, the fact for the manager and the audit entry, all or none."""

        def work(connection: Connection, post: Post) -> QuestionView:
            parties = messages.parties(connection, aside.number)
            sender = "nobody" if parties is None else parties[0]
            ended = f"{aside.recipient} ended by itself again and again while it worked on message"
            request = AskOperator(
                question=f"{ended} {aside.number}, from {sender}. The message is set aside, and "
                f"{aside.recipient} goes on with the next. What shall become of it?",
                options=[aside.again, aside.out],
            )
            asked = self._questions.insert(connection, KEEPER, request)
            self._audit.insert(
                connection, KEEPER, "set_aside", aside.recipient, "ok", f"message {aside.number}"
            )
            if self._broker.reaches(MANAGER):
                note = f"it is from {sender}; the operator is asked in question {asked.id}"
                event = MessageSetAside(agent=aside.recipient, message_id=aside.number, note=note)
                post(SYSTEM, MANAGER, event.as_body())
            return asked

        def committed(asked: QuestionView) -> None:
            self._asked[asked.id] = aside
            self._questions.asked(asked)

        try:
            await self._broker.transact(work, committed=committed)
        except HiveError as error:
            # It stays set aside; the next question that is closed, or the next start, tries again.
            log.error("the operator could not be asked about message %d: %s", aside.number, error.message)
            self._unasked.add(aside)

    def _question_changed(self, question: QuestionView) -> None:
        if not question.closed:
            return
        self._asked.pop(question.id, None)
        settled = self._settled.pop(question.id, None)
        if settled is not None:
            self._broker.settled_aside(settled.recipient, settled.number, again=settled.again)
        if question.asker == SYSTEM:
            self._ask_what_waits()


def _number_of(question: QuestionView) -> int | None:
    """Which message a question is about; None for any other question."""
    if question.asker != SYSTEM:
        return None
    for option in question.options:
        number = option.removeprefix(_AGAIN[0]).removesuffix(_AGAIN[1])
        if number.isdecimal() and option == Aside("", int(number)).again:
            return int(number)
    return None
