"""Rebuild agents that were built from another revision of hyperhive (SPEC section 7).

Once at each start of the daemon and when the operator asks; what fails is told and stays as it is.
"""

import asyncio
import logging
from collections.abc import Sequence

from hive_core.audit import Audit
from hive_core.broker import Broker
from hive_core.lifecycle import Lifecycle
from hive_core.principals import Principal
from hive_core.registry import Registry
from hive_core.roster import Roster
from hive_shared.errors import HiveError
from hive_shared.events import HelperEvent, NeedsUpdate, Rebuilt
from hive_shared.names import MANAGER

log = logging.getLogger(__name__)


class AutoUpdate:
    """Brings stale agents up to date: the manager first, then the others, a few at a time."""

    def __init__(
        self,
        registry: Registry,
        broker: Broker,
        audit: Audit,
        roster: Roster,
        lifecycle: Lifecycle,
        *,
        enabled: bool,
        parallel: int,
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._audit = audit
        self._roster = roster
        self._lifecycle = lifecycle
        self._enabled = enabled
        self._parallel = parallel

    def stale(self) -> list[str]:
        """The agents that need an update, the manager first."""
        return [view.name for view in self._roster.views() if view.needs_update]

    async def at_start(self) -> None:
        """Once, after the agents stand again. Never raises for an agent that cannot be rebuilt."""
        stale = self.stale()
        if not stale:
            return
        if self._enabled:
            log.info("built from another revision, and rebuilt now: %s", ", ".join(stale))
            await self.rebuild(stale, Principal.system("auto-update"))
            return
        log.info("built from another revision: %s; auto_update is off", ", ".join(stale))
        for name in stale:
            await self._tell(NeedsUpdate(agent=name))

    async def rebuild(self, names: Sequence[str], who: Principal) -> dict[str, str]:
        """Rebuild those that are still stale when their turn comes; the reasons of those that failed."""
        room = asyncio.Semaphore(self._parallel)
        failures: dict[str, str] = {}

        async def one(name: str) -> None:
            async with room:
                failure = await self._rebuild(name, who)
            if failure is not None:
                failures[name] = failure

        # Whoever coordinates the others has to be there when they come back.
        await asyncio.gather(*(one(name) for name in names if name == MANAGER))
        await asyncio.gather(*(one(name) for name in names if name != MANAGER))
        return failures

    async def _rebuild(self, name: str, who: Principal) -> str | None:
        """Why it failed; None if it is up to date now, or gone."""
        if name not in self.stale():
            return None
        try:
            note = await self._lifecycle.rebuild(name)
        except (HiveError, OSError) as error:
            why = error.message if isinstance(error, HiveError) else str(error)
            log.error("%s could not be rebuilt: %s", name, why)
            await self._record(who, name, "failed", why)
            await self._tell(Rebuilt(agent=name, ok=False, note=why))
            await self._tell(NeedsUpdate(agent=name))
            return why
        await self._record(who, name, "ok", note)
        await self._tell(Rebuilt(agent=name, ok=True, note=note or None))
        return None

    async def _record(self, who: Principal, name: str, outcome: str, detail: str) -> None:
        try:
            await self._audit.record(who, "update", name, outcome, detail)
        except HiveError as error:
            log.error("the update of %s is not in the audit: %s", name, error.message)

    async def _tell(self, event: HelperEvent) -> None:
        if self._registry.get(MANAGER) is None:
            return
        try:
            await self._broker.notify(MANAGER, event.as_body())
        except HiveError as error:
            log.error("the manager could not be told: %s", error.message)
