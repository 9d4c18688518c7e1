"""The log lines about writes that the database refuses: told at once, then counted.

A disk that is full or read-only refuses every write there is, and each agent tries again every two seconds.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 60.0  # between two lines about the same


class Refusals:
    """Of one database; used by its writing thread alone."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._told_at: dict[str, float] = {}  # what was told → when
        self._untold = 0
        self.lasting = False  # as far as the log knows

    def refused(self, why: str, writes: int) -> None:
        """So many writes were refused just now, for that reason."""
        self._untold += writes
        if self._may_tell(why):
            log.warning("%s (%d writes refused)", why, self._untold)
            self._untold = 0
            self.lasting = True

    def stored(self) -> None:
        """Something was committed, after what was told."""
        self.lasting = False
        since = f"; {self._untold} more writes were refused meanwhile" if self._untold else ""
        log.warning("the database %s can be written again%s", self._path, since)
        self._untold = 0

    def _may_tell(self, what: str) -> bool:
        now = self._monotonic()
        last = self._told_at.get(what)
        if last is not None and now - last < AGAIN_SECONDS:
            return False
        self._told_at = {told: at for told, at in self._told_at.items() if now - at < AGAIN_SECONDS}
        self._told_at[what] = now
        return True
