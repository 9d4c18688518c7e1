"""Notice containers that end by themselves, tell the manager, start them again with backoff (SPEC section 7).

The runtime calls back when a container's process ends; nothing here asks any container how it is. One that
runs and does not answer (`heartbeats.py`) is ended here, and is then as one that has crashed.
"""

import asyncio
import logging
from dataclasses import dataclass

from hive_core.audit import Audit
from hive_core.background import TaskSet
from hive_core.broker import Broker
from hive_core.config import Settings
from hive_core.containers.base import Condition, StatusChange
from hive_core.lifecycle import Lifecycle
from hive_core.principals import Principal
from hive_core.registry import Registry
from hive_core.roster import Roster
from hive_shared.errors import HiveError
from hive_shared.events import ContainerCrashed
from hive_shared.names import MANAGER
from hive_shared.wire import AgentState

log = logging.getLogger(__name__)

# A manager that is told of every crash of an agent that crashes for ever would do nothing else.
TOLD_CRASHES = frozenset({1, 5, 25})
TOLD_EVERY_CRASHES = 100


@dataclass
class _Series:
    """Crashes of one agent without a healthy time in between."""

    crashes: int = 0


class Watch:
    """Owns the restarts that are due."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        broker: Broker,
        audit: Audit,
        roster: Roster,
        lifecycle: Lifecycle,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._broker = broker
        self._audit = audit
        self._roster = roster
        self._lifecycle = lifecycle
        self._series: dict[str, _Series] = {}
        self._restarts = TaskSet("watch")
        self._ending: dict[str, float] = {}  # agents that are ended here, and how many seconds they had run
        self._overdue: dict[str, str] = {}  # that did not end when they should, and why they should
        self._unsubscribe = lifecycle.runtime.subscribe(self._changed)

    async def close(self) -> None:
        """Start nothing any more: the daemon stops."""
        self._unsubscribe()
        await self._restarts.close()

    def failed_to_start(self, name: str) -> None:
        """It could not even be started: try again later, as after a crash."""
        self._begin_again(name, ran_seconds=0.0, note=self._roster.view(name).note)

    def stuck(self, name: str, note: str) -> None:
        """It runs and does not answer: end it, and start it again as after a crash."""
        if name not in self._ending:
            self._ending[name] = 0.0
            self._restarts.start(self._end(name, note), name=f"end-{name}")

    async def _end(self, name: str, note: str) -> None:
        self._overdue.pop(name, None)
        try:
            if await self._lifecycle.end_stuck(name):
                self._begin_again(name, ran_seconds=self._ending[name], note=note)
        except HiveError as error:
            log.error("%s does not answer and could not be ended: %s", name, error.message)
            self._overdue[name] = note
        finally:
            del self._ending[name]

    def _changed(self, change: StatusChange) -> None:
        if change.agent in self._ending and change.asked:
            self._ending[change.agent] = change.ran_seconds
            return
        note = self._overdue.pop(change.agent, None) if change.condition is Condition.DOWN else None
        if note is not None and self._roster.state(change.agent) is AgentState.RUNNING:
            self._begin_again(change.agent, ran_seconds=change.ran_seconds, note=note)  # at last
            return
        if change.condition is Condition.DOWN and not change.asked:
            self._begin_again(change.agent, ran_seconds=change.ran_seconds, note=change.note)
        elif change.condition is Condition.DOWN:
            self._series.pop(change.agent, None)
            self._roster.set_restarts(change.agent, 0)

    def _begin_again(self, name: str, *, ran_seconds: float, note: str) -> None:
        series = self._series.setdefault(name, _Series())
        if ran_seconds >= self._settings.healthy_after_seconds:
            series.crashes = 0
        series.crashes += 1
        pause_seconds = self._pause_seconds(series.crashes)
        told = f"{note}; starts again in {pause_seconds:g} s"
        log.warning("%s crashed after %.1f s: %s", name, ran_seconds, told)
        self._roster.set_state(name, AgentState.CRASHED, note=told)
        self._restarts.start(self._recover(name, series.crashes, note, pause_seconds), name=f"restart-{name}")

    async def _recover(self, name: str, crashes: int, note: str, pause_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + pause_seconds
        try:
            await self._tell(name, crashes, note)
        except HiveError as error:
            log.error("the crash of %s could not be told: %s", name, error.message)
        await asyncio.sleep(due - loop.time())
        self._roster.set_restarts(name, crashes)
        try:
            await self._lifecycle.start_again(name)
        except (HiveError, OSError) as error:
            why = error.message if isinstance(error, HiveError) else str(error)
            log.error("%s could not be started again: %s", name, why)
            self._begin_again(name, ran_seconds=0.0, note=why)

    async def _tell(self, name: str, crashes: int, note: str) -> None:
        await self._audit.record(Principal.system("watch"), "crash", name, "crashed", note)
        worth_it = crashes in TOLD_CRASHES or crashes % TOLD_EVERY_CRASHES == 0
        if worth_it and self._registry.get(MANAGER) is not None:
            times = f" (crash number {crashes} in a row)" if crashes > 1 else ""
            event = ContainerCrashed(agent=name, note=note + times)
            await self._broker.notify(MANAGER, event.as_body())

    def _pause_seconds(self, crashes: int) -> float:
        doubled = self._settings.restart_backoff_first_seconds * 2.0 ** min(crashes - 1, 20)
        return min(doubled, self._settings.restart_backoff_max_seconds)
