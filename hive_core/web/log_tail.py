"""An agent's log within the page's one event stream: its last lines, then every new one.

Lines have no position in the feed. They wait here, and the subscription gets one event that says so: however
fast an agent prints, a reader who is slow gets fewer and larger frames, and loses the oldest lines first.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final

from hive_core.feed import FeedEvent, Subscription
from hive_shared.errors import HiveError

WAITING_LINES_MAX: Final = 2000
LINE_MAX_CHARACTERS: Final = 8192
GATHERING_SECONDS: Final = 0.05  # a burst of lines becomes one frame


class LogTail:
    """What an agent printed and the page was not told of yet."""

    NEWS: Final = FeedEvent("", "log", {}, "{}")  # says that there is something to `take`

    def __init__(self, agent: str, follow: Callable[[], AsyncIterator[str]]) -> None:
        self._agent = agent
        self._follow = follow  # an agent that is gone ends the tail, and not the page's stream
        self._waiting: deque[str] = deque()
        self._first = 0  # number of the first line that waits, from where this tail began
        self._ended = ""
        self._told = False

    async def run(self, subscription: Subscription) -> None:
        """Collect lines and offer `NEWS`, until the log ends or this is cancelled."""
        self._tell_soon(subscription)  # an empty log is told of, too
        try:
            lines = self._follow()
            try:
                async for line in lines:
                    self._add(line)
                    self._tell_soon(subscription)
            finally:
                await _close(lines)
            self._ended = f"the log of {self._agent} has ended"
        except HiveError as error:
            self._ended = error.message
        self._tell_soon(subscription)

    def take(self) -> dict[str, Any]:
        """Everything that waits: `first` is the number of its first line, `ended` says why none will come."""
        lines = list(self._waiting)
        news = {"agent": self._agent, "first": self._first, "lines": lines, "ended": self._ended}
        self._waiting.clear()
        self._first += len(lines)
        self._told = False
        return news

    def _add(self, line: str) -> None:
        self._waiting.append(line[:LINE_MAX_CHARACTERS])
        if len(self._waiting) > WAITING_LINES_MAX:
            self._waiting.popleft()
            self._first += 1

    def _tell_soon(self, subscription: Subscription) -> None:
        if not self._told:
            self._told = True
            asyncio.get_running_loop().call_later(GATHERING_SECONDS, subscription.offer, self.NEWS)


async def _close(lines: AsyncIterator[str]) -> None:
    """A generator that is followed may have a program behind it, which ends with it."""
    if isinstance(lines, AsyncGenerator):
        await lines.aclose()


@contextlib.asynccontextmanager
async def following(tail: LogTail | None, subscription: Subscription) -> AsyncGenerator[None, None]:
    """Runs the tail, if there is one, as long as the block."""
    task = None if tail is None else asyncio.create_task(tail.run(subscription), name="log-tail")
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
