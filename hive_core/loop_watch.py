"""Notices when the event loop stands still, and says where: a thread of its own looks at it from outside.

Everything in the daemon shares one loop. A call in it that takes seconds holds up every agent and every
page, and nothing that runs in the loop can tell; the stack that is standing there can.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

BEATS_PER_THRESHOLD: Final = 4
BEAT_MAX_SECONDS: Final = 1.0
FRAMES_SHOWN: Final = 12  # the innermost


class LoopWatch:
    """Watches the loop that `run` is called in. `lag` is told how many seconds late each beat came."""

    def __init__(
        self,
        threshold_seconds: float,
        lag: Callable[[float], None],
        blocked: Callable[[], None] = lambda: None,
    ) -> None:
        self._threshold_seconds = threshold_seconds
        self._lag = lag
        self._blocked = blocked
        self._beat_seconds = min(
            BEAT_MAX_SECONDS,
            threshold_seconds / BEATS_PER_THRESHOLD if threshold_seconds else BEAT_MAX_SECONDS,
        )
        self._last_beat = 0.0
        self._ended = threading.Event()

    async def run(self) -> None:
        """Beat until cancelled. The thread ends with this."""
        self._last_beat = time.monotonic()
        watcher = None
        if self._threshold_seconds:
            looked_at = threading.get_ident()
            watcher = threading.Thread(target=self._watch, args=(looked_at,), name="loop-watch", daemon=True)
            watcher.start()
        try:
            while True:
                due = time.monotonic() + self._beat_seconds
                await asyncio.sleep(self._beat_seconds)
                self._last_beat = time.monotonic()
                self._lag(max(0.0, self._last_beat - due))
        finally:
            self._ended.set()
            if watcher is not None:
                watcher.join()

    def _watch(self, looked_at: int) -> None:
        """In the thread: one report for each time that the loop stands still, and one when it goes on."""
        since = 0.0  # the beat after which it stood still, as reported
        while not self._ended.wait(self._beat_seconds):
            last_beat = self._last_beat
            still_seconds = time.monotonic() - last_beat - self._beat_seconds
            if since and last_beat != since:
                log.warning("the event loop goes on after about %.1f s", last_beat - since)
                since = 0.0
            if not since and still_seconds > self._threshold_seconds:
                since = last_beat
                self._blocked()
                log.error("the event loop stands still at:%s", _stack_of(looked_at))


def _stack_of(thread: int) -> str:
    """The calls that a thread is in, the innermost last, without values: those may be secret."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return " a thread that has ended"
    stack = traceback.extract_stack(frame)[-FRAMES_SHOWN:]
    return "".join(f" > {place.filename}:{place.lineno} {place.name}" for place in stack)
