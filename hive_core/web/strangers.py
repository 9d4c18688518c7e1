"""Requests of browsers that are not logged in wait for their turn, and cost others little (SECURITY 11).

Anyone on this machine can ask, agents included, and all of them come from the same address: there is no
telling the operator who logs in from those who only make work. So all share one rate. Turns go by halves to
who has waited longest, so that everybody comes to one, and to who came last, so that a crowd that waits
already does not hold up the one who comes now.
"""

import asyncio
from collections import deque
from typing import Final

PER_SECOND: Final = 100.0
BURST: Final = 100.0  # a page and all its files, some times over
WAITING_MAX: Final = 256  # as many as there may be connections


class GivenUp(Exception):
    """Too many came after this one; its connection may have gone long ago."""


class Strangers:
    """Who waits, and how soon the next may go on."""

    def __init__(self, per_second: float = PER_SECOND, burst: float = BURST) -> None:
        self._per_second = per_second
        self._burst = burst
        self._tokens = burst
        self._at = 0.0  # of the event loop's clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._bell: asyncio.TimerHandle | None = None
        self._oldest_next = True

    async def turn(self) -> None:
        """Return when it is this one's turn; raises `GivenUp`."""
        self._grow()
        if self._tokens >= 1 and not self._waiting:
            self._tokens -= 1
            return
        if len(self._waiting) >= WAITING_MAX:
            self._give_up(self._waiting.popleft())
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._set_bell()
        await waiter

    def _grow(self) -> None:
        now = asyncio.get_running_loop().time()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now

    def _set_bell(self) -> None:
        if self._bell is None and self._waiting:
            delay_seconds = max(0.0, 1 - self._tokens) / self._per_second
            self._bell = asyncio.get_running_loop().call_later(delay_seconds, self._ring)

    def _ring(self) -> None:
        self._bell = None
        self._grow()
        while self._tokens >= 1 and self._waiting:
            waiter = self._waiting.popleft() if self._oldest_next else self._waiting.pop()
            self._oldest_next = not self._oldest_next
            if not waiter.done():  # else it was cancelled
                waiter.set_result(None)
                self._tokens -= 1
        self._set_bell()

    def _give_up(self, waiter: "asyncio.Future[None]") -> None:
        if not waiter.done():
            waiter.set_exception(GivenUp())
