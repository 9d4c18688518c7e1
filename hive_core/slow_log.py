"""One line for each operation that took too long: what, for whom, how long, and what it was about."""

import logging
import threading
import time
from collections.abc import Callable

from hive_core.inbox import TokenBucket
from hive_core.operations import Ended, OperationKind
from hive_shared.log_fields import ids

log = logging.getLogger(__name__)

LINES_PER_MINUTE = 20.0  # of one kind; a machine that is slow is slow in everything
LINES_AT_ONCE = 10.0


class SlowLog:
    """An observer of operations. Safe to call from any thread."""

    def __init__(self, threshold_seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._threshold_seconds = threshold_seconds
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._room: dict[OperationKind, TokenBucket] = {}
        self._left_out: dict[OperationKind, int] = {}

    def __call__(self, ended: Ended) -> None:
        if ended.seconds < self._threshold_seconds:
            return
        with self._lock:
            if self._take(ended.kind):
                self._left_out[ended.kind] = self._left_out.get(ended.kind, 0) + 1
                return
            left_out = self._left_out.pop(ended.kind, 0)
        more = f" ({left_out} others like it were not told)" if left_out else ""
        work = f"{ended.kind} {ended.what}"
        told = ids(**{**ended.fields, "work": work, "seconds": f"{ended.seconds:.3f}"})
        log.warning("slow: %s took %.2f s: %s%s", work, ended.seconds, ended.outcome, more, extra=told)

    def _take(self, kind: OperationKind) -> float:
        now_seconds = self._monotonic()
        if kind not in self._room:
            self._room[kind] = TokenBucket(LINES_PER_MINUTE / 60, LINES_AT_ONCE, LINES_AT_ONCE, now_seconds)
        return self._room[kind].take(now_seconds)
