"""What time it is, in the one unit that is stored: Unix milliseconds."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def time_ms() -> int:
    """The wall clock in Unix milliseconds. It may jump; never measure durations with it."""
    return time.time_ns() // 1_000_000


def steady_ms() -> int:
    """Milliseconds since some moment, those in which the host slept included. It never jumps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def steady_beside(clock: Clock) -> Clock:
    """The clock that never jumps, for what has this wall clock; one not of this host is taken as such."""
    return steady_ms if clock is time_ms else clock
