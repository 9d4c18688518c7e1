"""Acting on stored times as they come: also after a restart, a clock that jumped, or a full disk."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from hive_core.clock import Clock
from hive_shared.errors import HiveError

log = logging.getLogger(__name__)

LOOK_AT_CLOCK_SECONDS: Final = 30.0  # the wall clock may jump, or the host may have slept
RETRY_SECONDS: Final = 5.0  # after the store could not be read or written


class Deadlines:
    """Times in the store, of one kind. `what` names them in the log."""

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Another time was stored, perhaps an earlier one than that which is waited for."""
        self._changed.set()

    async def keep(
        self,
        earliest_ms: Callable[[], Awaitable[int | None]],
        settle: Callable[[int], Awaitable[object]],
        adjust: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        """Call `settle` with the present time whenever the earliest stored time has come; until cancelled.

        `settle` must take what is due out of what `earliest_ms` tells, and need not do all at once. `adjust`
        sets times right before they are looked at, and tells the present time that they are right by.
        """
        told = ""
        while True:
            self._changed.clear()
            try:
                sleep_seconds = await self._settle_due(earliest_ms, settle, adjust)
                told = ""
            except HiveError as error:
                if error.message != told:  # the store repeats it while it lasts
                    log.warning("%s wait: %s", self._what, error)
                sleep_seconds, told = RETRY_SECONDS, error.message
            try:
                async with asyncio.timeout(sleep_seconds):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _settle_due(
        self,
        earliest_ms: Callable[[], Awaitable[int | None]],
        settle: Callable[[int], Awaitable[object]],
        adjust: Callable[[], Awaitable[int]] | None,
    ) -> float | None:
        """How many seconds to sleep once nothing is due; None for until something is stored."""
        while True:
            now_ms = self._clock() if adjust is None else await adjust()
            next_ms = await earliest_ms()
            if next_ms is None:
                return None
            if next_ms > now_ms:
                return min((next_ms - now_ms) / 1000, LOOK_AT_CLOCK_SECONDS)
            await settle(now_ms)
