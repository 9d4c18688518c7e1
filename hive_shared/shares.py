"""Something that many draw from and nobody can use up: a reserve for each, and fair shares of the rest.

Each socket has limits of its own, but fifty that are at theirs are fifty times as much (SECURITY 11). Of what
is common, nobody may hold more than is still free. So one alone gets half, n who want all at a time get
1/(n + 1) each, and who comes when all of it is gone has the reserve. It is how switches share the memory for
packets among their ports (Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet
switches").
"""

import asyncio


class Pool:
    """`common` units for all together, and `reserve` for each share besides."""

    def __init__(self, *, common: int, reserve: int) -> None:
        self.common = common
        self.reserve = reserve
        self.taken = 0  # of what is common
        self._freed: asyncio.Event | None = None  # while somebody waits

    def share(self) -> "Share":
        return Share(self)

    async def until_freed(self) -> None:
        """Return when somebody has given something back."""
        if self._freed is None:
            self._freed = asyncio.Event()
        await self._freed.wait()

    def note_freed(self) -> None:
        if self._freed is not None:
            self._freed.set()
            self._freed = None


class Share:
    """What one of them holds."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.held = 0

    def take(self, units: int = 1) -> bool:
        """Take them, if they are ours or there is enough left for others after that."""
        wanted = max(0, self.held + units - self._pool.reserve)
        more = wanted - self._beyond_reserve
        if more and wanted > self._pool.common - self._pool.taken - more:
            return False
        self._pool.taken += more
        self.held += units
        return True

    async def wait(self, units: int) -> None:
        """Take them as soon as that is possible."""
        while not self.take(units):
            await self._pool.until_freed()

    def give(self, units: int = 1) -> None:
        """Give back what was taken."""
        before = self._beyond_reserve
        self.held -= units
        self._pool.taken -= before - self._beyond_reserve
        self._pool.note_freed()

    @property
    def _beyond_reserve(self) -> int:
        return max(0, self.held - self._pool.reserve)
