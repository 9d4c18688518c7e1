"""A rate that many share: whoever is too fast waits, and holds up nobody else (SECURITY 11)."""

import asyncio
import time
from collections.abc import Callable


class Pace:
    """So many turns a second, and `burst` at once after a quiet time; each in the order they were asked for.

    Between two turns the event loop gets to everybody else, however many of them could be had at once.
    """

    def __init__(
        self, per_second: float, burst: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._turn_seconds = 1 / per_second
        self._burst_seconds = burst / per_second
        self._monotonic = monotonic
        self._free_at = 0.0  # when all turns that were taken are paid for
        self._queue = asyncio.Lock()

    async def turn(self, cost: float = 1.0) -> None:
        """Wait for a turn that counts for `cost` of them."""
        async with self._queue:
            self.charge(cost)
            # Never less than to the next round of the event loop.
            await asyncio.sleep(max(0.0, self._free_at - self._burst_seconds - self._monotonic()))

    def charge(self, cost: float) -> None:
        """Take turns after the fact: the next one waits for them too."""
        self._free_at = max(self._free_at, self._monotonic()) + cost * self._turn_seconds
