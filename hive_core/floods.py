"""An agent that sends faster than it may is put before the operator (SPEC section 5, loop breaker).

What is asked is kept with the questions; how fast an agent may send for the time being is in memory, and a
daemon that starts again holds everybody to the settings.
"""

import asyncio
from typing import Final

from hive_core.background import TaskSet
from hive_core.broker import Broker
from hive_core.loop_breaker import BREAKER, STOP
from hive_core.questions import Questions
from hive_shared.errors import HiveError
from hive_shared.names import SYSTEM
from hive_shared.wire import AskOperator, QuestionView

ASKED_AGAIN_SECONDS: Final = 600.0  # after the question about an agent was closed
HELD_SECONDS: Final = 86_400.0  # not asked again so long, once the operator said to hold it
EASED_SECONDS: Final = 3600.0
EASED_FACTOR: Final = 10.0  # never without any limit: the host has to live
LET_GO: Final = "let it send ten times as much for an hour"
HOLD: Final = "hold it to the limit"


class Floods:
    """Asks about senders that overdraw their rate, once each, and carries out the answer."""

    def __init__(self, broker: Broker, questions: Questions) -> None:
        self._broker = broker
        self._questions = questions
        self._quiet_until: dict[str, float] = {}  # of the loop's clock; while a question is open, for ever
        self._work = TaskSet("floods")

    async def open(self) -> None:
        """Ask from now on. Questions that are still open from before are not asked again."""
        for question in await self._questions.open():
            sender = flooder(question)
            if sender is not None:
                self._quiet_until[sender] = float("inf")
        self._broker.subscribe_overload(self._overloaded)
        self._questions.subscribe(self._question_changed)

    async def close(self) -> None:
        await self._work.close()

    def _overloaded(self, sender: str, to: str) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._quiet_until.get(sender, now):
            return
        self._quiet_until[sender] = float("inf")
        self._work.start(self._ask(sender, to), name=f"flood-{sender}")

    async def _ask(self, sender: str, to: str) -> None:
        request = AskOperator(
            question=f"{sender} sends more messages than the limit allows, last to {to}. "
            "Its sends are refused until it slows down. Should it go on?",
            options=[LET_GO, HOLD, STOP + sender],
        )
        try:
            await self._questions.ask(BREAKER, request)
        except HiveError:  # too many are open already: the operator has enough to see
            self._quiet_until[sender] = asyncio.get_running_loop().time() + ASKED_AGAIN_SECONDS

    def _question_changed(self, question: QuestionView) -> None:
        sender = flooder(question)
        if sender is None or not question.closed:
            return
        if question.answer == LET_GO:
            self._broker.ease(sender, EASED_FACTOR, EASED_SECONDS)
        quiet_seconds = HELD_SECONDS if question.answer == HOLD else ASKED_AGAIN_SECONDS
        self._quiet_until[sender] = asyncio.get_running_loop().time() + quiet_seconds


def flooder(question: QuestionView) -> str | None:
    """Which agent a question about a flood is about; None for any other question."""
    if question.asker != SYSTEM or LET_GO not in question.options:
        return None
    return next((option.removeprefix(STOP) for option in question.options if option.startswith(STOP)), None)
