"""Container runtimes under test, each with what it needs, behind one face.

What a container runs is a shell script. On the local runtime that is its command; on the NixOS one it is part
of the system, which is built first.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hive_core.config import AgentLimits
from hive_core.containers.base import Bind, Condition, ContainerRuntime, ContainerSpec, StatusChange, System
from hive_core.containers.bubblewrap import NoBubblewrap, find_sandbox
from hive_core.containers.cgroups import find_limiter
from hive_core.containers.local import LocalRuntime
from hive_core.containers.nixos import NixosRuntime, Options
from hive_shared.names import container_name
from hive_shared.paths import HostPaths
from tests.conftest import need
from tests.support.nixos_stand_in import NixosHost

WAIT_SECONDS = 60.0  # guards against hanging
GRACE_SECONDS = 30.0


@dataclass
class Bench:
    """A runtime, what it told, and a directory that its containers can write."""

    runtime: ContainerRuntime
    root: Path
    host: NixosHost | None = None
    changes: list[StatusChange] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def paths(self) -> HostPaths:
        return HostPaths.under(self.root / "hive")

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def inside(self) -> Path:
        return Path("/scratch") if self.runtime.isolated else self.scratch

    def note(self, change: StatusChange) -> None:
        self.changes.append(change)
        self.changed.set()

    def tree(self, files: dict[str, str]) -> Path:
        """An exported configuration."""
        place = self.root / f"tree-{len(list(self.root.iterdir()))}"
        place.mkdir()
        for name, text in {"agent.nix": "{ }\n", **files}.items():
            (place / name).write_text(text)
        return place

    async def build(self, files: dict[str, str], name: str = "alice") -> System:
        return await self.runtime.build(name, self.tree(files), lambda _: None)

    async def spec(
        self, script: str, name: str = "alice", limits: AgentLimits | None = None
    ) -> ContainerSpec:
        script = f"cd {self.inside}\n{script}\n"
        system: System = {} if self.host is None else await self.build({"payload.sh": script}, name)
        return ContainerSpec(
            agent=name,
            container=container_name(name),
            command=["/bin/sh", "-c", script],
            environment={},
            binds=[Bind(self.scratch, Path("/scratch"), writable=True)],
            workdir=Path("/"),
            limits=limits or AgentLimits(),
            system=system,
        )

    async def run(self, script: str, name: str = "alice") -> None:
        await self.runtime.create(await self.spec(script, name))
        await self.runtime.start(name)

    async def told(self, condition: Condition, name: str = "alice") -> StatusChange:
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                for change in self.changes:
                    if change.condition is condition and change.agent == name:
                        return change
                self.changed.clear()
                await self.changed.wait()

    async def wrote(self, name: str, text: str = "") -> None:
        """A container wrote that file, or that into it."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not ((self.scratch / name).exists() and text in (self.scratch / name).read_text()):
                await asyncio.sleep(0.02)

    async def log_has(self, text: str, name: str = "alice") -> list[str]:
        async with asyncio.timeout(WAIT_SECONDS):
            async for line in self.runtime.follow(name, 1000):
                if text in line:
                    return list(await self.runtime.logs(name, 1000))
        raise AssertionError

    async def close(self) -> None:
        await self.runtime.close()
        if self.host is not None:
            await self.host.shut_down()


async def _local(bench_root: Path, isolated: bool) -> Bench:
    paths = HostPaths.under(bench_root / "hive")
    paths.logs.mkdir(parents=True)
    try:
        sandbox = await find_sandbox() if isolated else None
    except NoBubblewrap as error:
        need(False, error.message)
        raise
    limiter = find_limiter(paths.state_root, AgentLimits())
    runtime = LocalRuntime(paths, sandbox, limiter, stop_grace_seconds=GRACE_SECONDS)
    return Bench(runtime, bench_root)


async def nixos(bench_root: Path, options: Options | None = None, host: NixosHost | None = None) -> Bench:
    """A `NixosRuntime` on a host of its own, or on one that is there."""
    host = host or await NixosHost(bench_root / "host").boot()
    runtime = nixos_runtime(host, bench_root, options)
    return Bench(await runtime.open(), bench_root, host)


def nixos_runtime(host: NixosHost, bench_root: Path, options: Options | None = None) -> NixosRuntime:
    return NixosRuntime(
        HostPaths.under(bench_root / "hive"),
        lambda agent: {"flake.nix": f"# {agent}: default, container\n"},
        "revision one",
        options=options or Options(stop_grace_seconds=GRACE_SECONDS),
        places=host.places,
        programs=host.programs,
    )


RUNTIMES: dict[str, Callable[[Path], Awaitable[Bench]]] = {
    "bubblewrap": lambda root: _local(root, isolated=True),
    "plain": lambda root: _local(root, isolated=False),
    "nixos": nixos,
    "nixos, private users and network": lambda root: nixos(
        root, Options(private_users=True, private_network=True, stop_grace_seconds=GRACE_SECONDS)
    ),
}


async def open_bench(kind: str, root: Path) -> Bench:
    """The bench of that kind, subscribed; the caller closes it."""
    (root / "scratch").mkdir()
    made = await RUNTIMES[kind](root)
    if made.runtime.owner is not None:
        os.chown(made.scratch, made.runtime.owner, made.runtime.owner)
    made.runtime.subscribe(made.note)
    return made


def processes_with(marker: str) -> list[int]:
    """Processes of this machine that have `marker` in their arguments or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if marker.encode() in text:
                found.append(int(entry.name))
    return found


async def none_left(marker: str) -> None:
    """Returns once no process has the marker: what was killed needs a moment to vanish."""
    async with asyncio.timeout(WAIT_SECONDS):
        while processes_with(marker):
            await asyncio.sleep(0.02)


def with_binds(spec: ContainerSpec, *binds: Bind) -> ContainerSpec:
    return replace(spec, binds=[*spec.binds, *binds])
