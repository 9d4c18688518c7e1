"""The interface of a container runtime (SPEC section 7)."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from hive_core.config import AgentLimits
from hive_shared.errors import HiveError


class BuildFailed(HiveError):
    """The configuration could not be built."""


# What building a configuration gave: JSON that only the runtime which built it understands.
System = Mapping[str, Any]


@dataclass(frozen=True)
class Bind:
    """A directory or file of the host, as a container sees it."""

    source: Path
    target: Path
    writable: bool = False


@dataclass(frozen=True)
class ContainerSpec:
    """Everything that one agent's container is made from."""

    agent: str
    container: str
    command: Sequence[str]
    environment: Mapping[str, str]
    binds: Sequence[Bind]
    workdir: Path
    limits: AgentLimits = field(default_factory=AgentLimits)
    system: System = field(default_factory=dict)


class Condition(StrEnum):
    """What a runtime knows of a container."""

    UP = "up"
    DOWN = "down"
    GONE = "gone"  # it was never created, or destroyed


@dataclass(frozen=True)
class ContainerStatus:
    agent: str
    condition: Condition
    pid: int | None = None


@dataclass(frozen=True)
class StatusChange:
    """A container went up or down. `asked` if somebody had asked for that; else it crashed."""

    agent: str
    condition: Condition
    asked: bool
    pid: int | None = None
    note: str = ""
    ran_seconds: float = 0.0


class ContainerRuntime(Protocol):
    """One kind of container. Calls for the same agent never overlap: `Lifecycle` sees to that.

    Every call raises `HiveError` for what the machine refuses. `create`, `stop` and `destroy` are
    idempotent, so that a step which may have been done before can simply be done again.
    """

    name: str  # "local"

    @property
    def isolated(self) -> bool:
        """Whether a container sees its binds and nothing else of the host."""

    @property
    def isolation(self) -> str:
        """The same in a word for people: "bubblewrap", or "not isolated"."""

    @property
    def limits(self) -> str:
        """What of the limits is enforced here, in words."""

    @property
    def owner(self) -> int | None:
        """User and group whom a container's own directories have to belong to; None: core's own."""

    def revision(self) -> str:
        """What containers built now are built from; another one than recorded means `needs update`."""

    async def build(self, agent: str, tree: Path, log: Callable[[str], None]) -> System:
        """Build the configuration in `tree` (`agent.nix` and what it imports); the container is not touched.

        Calls `log` with each line, from any thread. Raises `BuildFailed` with the last lines.
        """

    async def create(self, spec: ContainerSpec) -> bool:
        """Make the container, or replace what it is made from; it takes effect at the next start.

        True if it runs, and was started from something else: only a restart makes it what it shall be.
        """

    async def start(self, agent: str) -> None:
        """Start it; returns when its first process runs. Starting what runs changes nothing."""

    async def stop(self, agent: str) -> None:
        """Ask it to end, wait the grace time, then kill it; returns when no process is left."""

    async def destroy(self, agent: str) -> None:
        """Stop it and forget it. Its directories stay."""

    def list(self) -> Sequence[str]:
        """The agents that have a container here."""

    def status(self, agent: str) -> ContainerStatus: ...

    async def logs(self, agent: str, lines: int) -> Sequence[str]:
        """The last lines of its console, safe to print."""

    def follow(self, agent: str, lines: int) -> AsyncIterator[str]:
        """The last `lines`, then every new one, without end."""

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        """Call `callback` on the loop at every change; returns what ends that."""

    async def attach(self, agent: str, binds: Sequence[Bind]) -> bool:
        """Show more directories to a running container; False if that takes a restart here."""

    async def close(self) -> None:
        """End what does not outlive core: on the local runtime every container, on NixOS none."""

    def kill_all(self) -> None:
        """End everything at once, without waiting: the operator asked twice."""
