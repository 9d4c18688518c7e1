"""Who is to be called back: the one way in which parts of core tell each other that something has changed."""

import logging
from collections.abc import Callable
from typing import Generic, ParamSpec

log = logging.getLogger(__name__)

P = ParamSpec("P")


class Subscribers(Generic[P]):
    """Callbacks, in the order in which they came. One that fails costs neither the others nor the teller."""

    def __init__(self, of: str) -> None:
        """`of` is what they follow, as a log line would call it: "the questions"."""
        self._of = of
        self._callbacks: list[Callable[P, None]] = []

    def add(self, callback: Callable[P, None]) -> Callable[[], None]:
        """Call it from now on; returns how to end that, which may be called more than once."""
        self._callbacks.append(callback)

        def end() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return end

    def tell(self, *values: P.args, **named: P.kwargs) -> None:
        """Call them all; those that come or go meanwhile are not counted."""
        for callback in tuple(self._callbacks):
            try:
                callback(*values, **named)
            except Exception:
                log.exception("a subscriber of %s failed", self._of)
