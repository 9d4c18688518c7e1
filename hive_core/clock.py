"""What time it is, in the one unit that is stored: Unix milliseconds."""

import time
from collections.abc import Callable

Clock = Callable[[], int]


def time_ms() -> int:
    """The wall clock in Unix milliseconds. It may jump; never measure durations with it."""
    return time.time_ns() // 1_000_000
