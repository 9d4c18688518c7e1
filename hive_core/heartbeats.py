"""Notices harnesses that run and do not answer: stopped, swapped out, or with an event loop that is blocked.

A harness that is up reports again every few seconds; nothing is asked of any container. How long its turn
runs plays no part: the harness reports while the model thinks. Who is silent is shown as offline and told to
the manager once; who stays so is ended and started again, as after a crash (`watch.py`).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from hive_core.audit import Audit
from hive_core.broker import Broker
from hive_core.config import Settings
from hive_core.principals import Principal
from hive_core.registry import Registry
from hive_core.roster import Roster
from hive_shared.errors import HiveError
from hive_shared.events import HarnessSilent
from hive_shared.names import MANAGER

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
BEATS_UNTIL_SILENT: Final = 4  # that are missed

Stuck = Callable[[str, str], None]


class Heartbeats:
    """Looks at what the roster has heard. `stuck` is told of who was silent for too long, with a note."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        broker: Broker,
        audit: Audit,
        roster: Roster,
        stuck: Stuck,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._silent_seconds = settings.silent_after_seconds
        self._stuck_seconds = settings.stuck_after_seconds
        self._calm_seconds = settings.healthy_after_seconds
        self._registry = registry
        self._broker = broker
        self._audit = audit
        self._roster = roster
        self._stuck = stuck
        self._monotonic = monotonic
        self._silent: dict[str, int] = {}  # agent → the connection by which it was heard last
        self._tried: dict[str, float] = {}  # when it was called stuck last
        self._told: dict[str, float] = {}  # when it was silent last, of those that the manager was told of

    @property
    def beat_seconds(self) -> float:
        """How often a harness has to report."""
        return self._silent_seconds / BEATS_UNTIL_SILENT

    async def run(self) -> None:
        """Look until cancelled. Time that core itself stood still is nobody's silence."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            late_seconds = loop.time() - due
            if late_seconds > LOOK_SECONDS:
                self._roster.forgive(late_seconds)
                await asyncio.sleep(LOOK_SECONDS)  # what was sent meanwhile is read first
            await self.look()

    async def look(self) -> None:
        """Take note of who is silent now, and of who is not any more."""
        self._roster.look(self._silent_seconds)
        silent, now = self._roster.silent(), self._monotonic()
        before, self._silent = self._silent, {name: number for name, (number, _) in silent.items()}
        for name in before.keys() - silent.keys():
            self._tried.pop(name, None)
            log.info("the harness of %s is not silent any more", name)
        for name, (number, seconds) in silent.items():
            if before.get(name) != number:
                await self._noticed(name, seconds, now)
            if name in self._told:
                self._told[name] = now
            if self._is_stuck(name, seconds, now):
                self._tried[name] = now
                self._stuck(name, f"its harness did not answer for {seconds:.0f} s, and was ended")

    def _is_stuck(self, name: str, seconds: float, now: float) -> bool:
        if not 0 < self._stuck_seconds <= seconds:
            return False
        tried = self._tried.get(name)
        return tried is None or now - tried >= self._stuck_seconds

    async def _noticed(self, name: str, seconds: float, now: float) -> None:
        note = f"its harness runs and has not answered for {seconds:.0f} s"
        log.warning("%s: %s", name, note)
        try:
            await self._audit.record(Principal.system("watch"), "silent", name, "offline", note)
            if self._is_news(name, now):
                self._told[name] = now
                await self._broker.notify(
                    MANAGER, HarnessSilent(agent=name, note=self._told_note(note)).as_body()
                )
        except HiveError as error:
            log.error("the silence of %s could not be told: %s", name, error.message)

    def _is_news(self, name: str, now: float) -> bool:
        """Not of the manager itself, which could not read it; and not again until it was well for a while."""
        last = self._told.get(name)
        calm = last is None or now - last >= self._calm_seconds
        return calm and name != MANAGER and self._registry.get(MANAGER) is not None

    def _told_note(self, note: str) -> str:
        if not self._stuck_seconds:
            return f"{note}; it is not restarted by itself"
        return f"{note}; after {self._stuck_seconds:g} s it is restarted by itself"
