"""A container runtime whose containers are somebody else's: the fault tests fork harnesses themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from hive_core.containers.base import Bind, Condition, ContainerSpec, ContainerStatus, StatusChange, System


class AbsentRuntime:
    """Says yes to everything and starts nothing."""

    name = "absent"
    isolation = "none"
    limits = "none"
    isolated = False
    owner: int | None = None

    def __init__(self, revision: str = "one") -> None:
        self._up: dict[str, bool] = {}
        self._revision = revision

    def revision(self) -> str:
        return self._revision

    async def build(self, agent: str, tree: Path, log: Callable[[str], None]) -> System:
        log(f"{agent}: nothing to build")
        return {}

    async def create(self, spec: ContainerSpec) -> None:
        self._up.setdefault(spec.agent, False)

    async def start(self, agent: str) -> None:
        self._up[agent] = True

    async def stop(self, agent: str) -> None:
        self._up[agent] = False

    async def destroy(self, agent: str) -> None:
        self._up.pop(agent, None)

    def list(self) -> Sequence[str]:
        return list(self._up)

    def status(self, agent: str) -> ContainerStatus:
        if agent not in self._up:
            return ContainerStatus(agent, Condition.GONE)
        return ContainerStatus(agent, Condition.UP if self._up[agent] else Condition.DOWN)

    async def logs(self, agent: str, lines: int) -> Sequence[str]:
        return []

    async def follow(self, agent: str, lines: int) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        return lambda: None

    async def attach(self, agent: str, binds: Sequence[Bind]) -> bool:
        return True

    async def close(self) -> None:
        self._up.clear()

    def kill_all(self) -> None:
        self._up.clear()
