"""Containers of NixOS: `nixos-container` makes them, systemd runs them, the journal has what they print.

They are systemd's and not core's: they go on when core ends, and the next core takes them over. Only what
this hive has made is ever touched; what else the host runs, also under such a name, is left alone (SPEC 7).
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hive_core.background import TaskSet
from hive_core.config import AgentLimits
from hive_core.containers.base import Bind, Condition, ContainerSpec, ContainerStatus, StatusChange, System
from hive_core.containers.command import CommandFailed, TookTooLong, attempt, begin, run
from hive_core.containers.nixos_conf import (
    CREATED,
    MARK,
    Conf,
    Confs,
    check_path,
    network_values,
    nspawn_flags,
)
from hive_core.containers.nixos_journal import Journal
from hive_core.containers.nixos_program import NixosContainer
from hive_core.containers.nixos_status import Units
from hive_core.containers.nixos_system import NixosSystem, Render, Systems
from hive_core.containers.nixos_unit import (
    drop_in_text,
    limits_in_words,
    remove_drop_in,
    unit_of,
    write_drop_in,
)
from hive_core.subscribers import Subscribers
from hive_core.untrusted import write_file
from hive_shared.errors import BadRequest, HiveError, NotFound
from hive_shared.names import agent_of_container, check_existing_name, container_name
from hive_shared.paths import HostPaths

log = logging.getLogger(__name__)

START_SECONDS = 180.0  # NixOS gives a container one minute to come up, by default
STOP_BEYOND_GRACE_SECONDS = 60.0
SYSTEMCTL_SECONDS = 60.0

# What decides how a container is run; a running one does not notice that they changed.
_RUN_KEYS = (
    "PRIVATE_NETWORK", "HOST_ADDRESS", "LOCAL_ADDRESS", "HOST_ADDRESS6", "LOCAL_ADDRESS6", "HOST_BRIDGE",
    "PRIVATE_USERS", "EXTRA_NSPAWN_FLAGS",
)  # fmt: skip


class StartFailed(HiveError):
    """The container did not start"""


@dataclass(frozen=True)
class Places:
    """Where NixOS keeps what belongs to containers."""

    containers: Path = Path("/etc/nixos-containers")  # confs; `/etc/containers` before stateVersion 22.05
    units: Path = Path("/run/systemd/system")  # for drop-ins: `/etc/systemd/system` is in the store
    profiles: Path = Path("/nix/var/nix/profiles/per-container")


@dataclass(frozen=True)
class Programs:
    """What is run, by name or by path."""

    nixos_container: str = "nixos-container"
    nix: str = "nix"
    systemctl: str = "systemctl"
    journalctl: str = "journalctl"

    def missing(self) -> list[str]:
        return [
            name
            for name in (self.nixos_container, self.nix, self.systemctl, self.journalctl)
            if shutil.which(name) is None
        ]


@dataclass(frozen=True)
class Options:
    """How containers are made here."""

    private_users: bool = True  # root inside is nobody outside; binds are idmapped
    private_network: bool = False  # a network of its own, to the world by NAT
    system_call_filter: bool = True  # a few more refused than nspawn itself does
    limits: AgentLimits = field(
        default_factory=AgentLimits
    )  # what `limits` says in words; each container has its own
    stop_grace_seconds: float = 10.0
    build_timeout_seconds: float = 1800.0
    parallel: int = 2  # calls of nix and nixos-container at once

    @property
    def isolation(self) -> str:
        """What keeps agents apart, in words."""
        words = ["systemd-nspawn"]
        if self.private_users:
            words.append("private users")
        else:
            words.append("its root is the host's")
        if self.private_network:
            words.append("private network")
        return ", ".join(words)


class NixosRuntime:
    """The `ContainerRuntime` of hosts with NixOS."""

    name = "nixos"
    isolated = True
    owner = None  # root inside is root outside, or is mapped to it on every bind

    def __init__(
        self,
        paths: HostPaths,
        render: Render,
        revision: str,
        *,
        options: Options | None = None,
        places: Places | None = None,
        programs: Programs | None = None,
    ) -> None:
        self._options = options or Options()
        self._places = places or Places()
        self._programs = programs or Programs()
        self._revision = revision
        self._own = paths.state_root / "nixos"  # what was built, and what each container was started with
        flakes = self._own / "flakes"
        self._confs = Confs(self._places.containers, paths.state_root, flakes)
        self._program = NixosContainer(
            self._programs.nixos_container,
            self._own / "work",
            parallel=self._options.parallel,
            timeout_seconds=self._options.build_timeout_seconds,
        )
        self._systems = Systems(
            flakes,
            self._programs.nix,
            render,
            self._program,
            timeout_seconds=self._options.build_timeout_seconds,
        )
        self._journal = Journal(self._programs.journalctl)
        self._subscribers = Subscribers[[StatusChange]]("the runtime")
        self._units = Units(
            self._programs.systemctl,
            self._programs.journalctl,
            is_ours=self._is_ours,
            tell=self._subscribers.tell,
        )
        self._alone: dict[str, asyncio.Lock] = {}
        self._reloading = asyncio.Lock()
        self._reloaded: set[str] = set()  # containers whose drop-in systemd has surely read
        self._cleanups = TaskSet("containers")

    async def open(self) -> "NixosRuntime":
        """Take over the containers that run; raises `HiveError` if this is no host for them."""
        if missing := self._programs.missing():
            raise HiveError(
                f"runtime nixos: {', '.join(missing)} not found; this host cannot run NixOS containers: "
                "enable services.hive-c0re on NixOS, or use the local runtime"
            )
        for path in (self._own, self._places.containers):
            check_path(path)
        self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._program.prepare()
        await self._units.open()
        return self

    @property
    def isolation(self) -> str:
        return self._options.isolation

    @property
    def limits(self) -> str:
        return limits_in_words(self._options.limits)

    def revision(self) -> str:
        return self._revision

    # --- the interface --------------------------------------------------------

    async def build(self, agent: str, tree: Path, log: Callable[[str], None]) -> System:
        check_existing_name(agent)
        return (await self._systems.build(agent, tree, log)).model_dump()

    async def create(self, spec: ContainerSpec) -> bool:
        check_existing_name(spec.agent)
        container = container_name(spec.agent)
        if spec.container != container:
            raise BadRequest(f"the container of {spec.agent} is {container}, and not {spec.container}")
        system = NixosSystem.of(spec.agent, spec.system)
        self._systems.ready(spec.agent, system)
        flags = self._flags(spec)
        async with self._one(container):
            await self._install(container, system)
            self._write_conf(container, system, flags)
            await self._limit(container, spec.limits)
            return self._is_outdated(container)

    async def start(self, agent: str) -> None:
        container = container_name(agent)
        async with self._one(container):
            conf = self._confs.read(container)
            if conf is None:
                raise NotFound(f"agent {agent} has no container here")
            await self._units.refresh()
            if self._units.condition(container) is Condition.UP:
                return
            await self._start(container)
            self._note_started(container, conf)

    async def stop(self, agent: str) -> None:
        container = container_name(agent)
        async with self._one(container):
            if self._confs.has(container):
                await self._stop(container)

    async def destroy(self, agent: str) -> None:
        container = container_name(agent)
        async with self._one(container):
            if self._confs.has(container):
                await self._stop(container)
                await self._program.destroy(container)
                # A unit that had failed stays in the listing until it is forgotten.
                await attempt(
                    [self._programs.systemctl, "reset-failed", unit_of(container)],
                    timeout_seconds=SYSTEMCTL_SECONDS,
                )
                remove_drop_in(self._places.units, container)
            if not self._confs.exists(container):
                await asyncio.to_thread(self._systems.forget, agent)
                self._started_file(container).unlink(missing_ok=True)

    def list(self) -> Sequence[str]:
        found = []
        for path in self._places.containers.glob("*.conf"):
            agent = agent_of_container(path.stem)
            if agent is not None and self._confs.has(path.stem):
                found.append(agent)
        return sorted(found)

    def status(self, agent: str) -> ContainerStatus:
        container = container_name(agent)
        if not self._confs.has(container):
            return ContainerStatus(agent, Condition.GONE)
        return ContainerStatus(agent, self._units.condition(container), self._units.pid(container))

    async def logs(self, agent: str, lines: int) -> Sequence[str]:
        container = container_name(agent)
        since = self._created(container)
        return [] if since is None else await self._journal.last(container, lines, since=since)

    async def follow(self, agent: str, lines: int) -> AsyncIterator[str]:
        container = container_name(agent)
        # Not since its making: it may be made only now, or again.
        since = self._created(container) or str(int(time.time()))
        async with contextlib.aclosing(self._journal.follow(container, lines, since=since)) as following:
            async for line in following:
                yield line

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        return self._subscribers.add(callback)

    async def attach(self, agent: str, binds: Sequence[Bind]) -> bool:
        """Never: what is bound is decided when a container starts."""
        return False

    async def close(self) -> None:
        """End what core runs for them. The containers go on, and the next core takes them over."""
        await self._units.close()
        await self._cleanups.close()

    def kill_all(self) -> None:
        """Send every container of ours a SIGKILL, by systemd, which then does not start them again."""
        units = [unit_of(container_name(agent)) for agent in self.list()]
        if units:
            begin([self._programs.systemctl, "kill", "--signal=SIGKILL", *units])

    # --- making ---------------------------------------------------------------

    async def _install(self, container: str, system: NixosSystem) -> None:
        """The container exists, and its profile is that system."""
        if self._confs.read(container) is None:
            await self._make(container, system)
        elif self._installed(container) != system.path:
            profile = self._places.profiles / container
            _make_readable(profile)  # a `create` that was killed made none
            await self._program.update(container, system.flake)
        installed = self._installed(container)
        if installed != system.path:
            raise HiveError(
                f"container {container} was to get {system.path}, and nixos-container installed "
                f"{installed or 'nothing'}; rebuild it"
            )

    async def _make(self, container: str, system: NixosSystem) -> None:
        try:
            await self._program.create(container, system.flake)
        except BaseException:
            # It writes the conf before it builds, and leaves it behind: then the next call fails too.
            if self._confs.has(container):
                await self._surely(self._take_back(container), name=f"take-back-{container}")
            raise

    async def _take_back(self, container: str) -> None:
        try:
            await self._program.destroy(container)
        except CommandFailed as error:
            log.error("container %s is half made and could not be removed: %s", container, error.message)

    def _installed(self, container: str) -> str | None:
        """The system in the container's profile, which leads there by one link or two."""
        profile = self._places.profiles / container / "system"
        return os.path.realpath(profile) if profile.is_symlink() else None

    def _flags(self, spec: ContainerSpec) -> str:
        """The binds; raises `HiveError` if one of them cannot be."""
        for bind in spec.binds:
            _check_source(bind.source)
        flags = nspawn_flags(
            spec.binds,
            private_users=self._options.private_users,
            system_call_filter=self._options.system_call_filter,
        )
        return " ".join(flags)

    def _write_conf(self, container: str, system: NixosSystem, flags: str) -> None:
        """Our values in the conf of a container that exists; nothing is written if they are there."""
        conf = self._confs.read(container)
        if conf is None:
            raise HiveError(f"container {container} was removed while it was made; try again")
        values = {
            **network_values(conf, self._confs, private=self._options.private_network),
            "PRIVATE_USERS": "pick" if self._options.private_users else "",
            "AUTO_START": "0",
            "FLAKE": system.flake,
            "EXTRA_NSPAWN_FLAGS": flags,
            MARK: str(self._confs.owner),
            CREATED: conf.value(CREATED) or str(int(time.time())),
        }
        changed = conf.replaced(values)
        if changed != conf:
            self._confs.write(container, changed)

    async def _limit(self, container: str, limits: AgentLimits) -> None:
        """The drop-in is there and systemd has read it."""
        text = drop_in_text(limits, stop_grace_seconds=self._options.stop_grace_seconds)
        async with self._reloading:
            if write_drop_in(self._places.units, container, text):
                self._reloaded.discard(container)
            if container in self._reloaded:
                return
            # A core that was killed may have written it, and not told systemd.
            if await self._is_unread(container):
                await self._systemctl("daemon-reload")
            self._reloaded.add(container)

    async def _is_unread(self, container: str) -> bool:
        shown = await self._systemctl("show", "--property=NeedDaemonReload", unit_of(container))
        return "NeedDaemonReload=no" not in shown

    def _is_outdated(self, container: str) -> bool:
        """Whether it runs, and was started with other binds or another network than it has now."""
        conf = self._confs.read(container)
        if conf is None or self._units.condition(container) is not Condition.UP:
            return False
        try:
            return self._started_file(container).read_text() != _run_digest(conf)
        except FileNotFoundError:
            return True  # started by somebody else, with who knows what

    # --- running --------------------------------------------------------------

    async def _start(self, container: str) -> None:
        with self._units.starting(container):
            try:
                await self._systemctl("start", unit_of(container), timeout_seconds=START_SECONDS)
                await self._units.refresh()
            except BaseException as error:
                # Nothing of it is left running, also if whoever wanted it has gone.
                await self._surely(self._end(container), name=f"end-{container}")
                if not isinstance(error, CommandFailed):
                    raise
                why = await self._journal.why(container)
                raise StartFailed(f"container {container} did not start: {error.message}: {why}") from None
        if self._units.condition(container) is not Condition.UP:
            why = await self._journal.why(container)
            raise StartFailed(f"container {container} ended as soon as it had started: {why}")

    async def _stop(self, container: str) -> None:
        await self._units.refresh()
        if not self._units.unit(container).may_have_processes:
            return
        self._units.ask_to_end(container)
        try:
            patience_seconds = self._options.stop_grace_seconds + STOP_BEYOND_GRACE_SECONDS
            await self._systemctl("stop", unit_of(container), timeout_seconds=patience_seconds)
        except TookTooLong:
            await self._systemctl("kill", "--signal=SIGKILL", unit_of(container))
            raise
        finally:
            await self._units.refresh()

    async def _end(self, container: str) -> None:
        try:
            await self._stop(container)
        except HiveError as error:
            log.error("container %s could not be stopped: %s", container, error.message)

    async def _systemctl(self, *arguments: str, timeout_seconds: float = SYSTEMCTL_SECONDS) -> str:
        command = [self._programs.systemctl, *arguments]
        return (await run(command, timeout_seconds=timeout_seconds)).output

    async def _surely(self, work: Coroutine[None, None, None], *, name: str) -> None:
        """Do `work` to its end, also if we are cancelled meanwhile."""
        task = self._cleanups.start(work, name=name)
        if task is not None:
            await asyncio.shield(task)

    # --- what is known ----------------------------------------------------------

    def _one(self, container: str) -> asyncio.Lock:
        return self._alone.setdefault(container, asyncio.Lock())

    def _is_ours(self, container: str) -> bool:
        return agent_of_container(container) is not None and self._confs.has(container)

    def _created(self, container: str) -> str | None:
        """Since when it is ours, in Unix seconds; None if it is not."""
        if not self._confs.has(container):
            return None
        conf = self._confs.read(container) or Conf()
        since = conf.value(CREATED) or ""
        return since if since.isdigit() else str(int(time.time()))

    def _started_file(self, container: str) -> Path:
        return self._own / f"{container}.started"

    def _note_started(self, container: str, conf: Conf) -> None:
        path = self._started_file(container)
        write_file(path.parent, path.name, _run_digest(conf).encode())


def _make_readable(directory: Path) -> None:
    """As nixos-container makes it, whatever our own umask is."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        directory.chmod(0o755)


def _run_digest(conf: Conf) -> str:
    """What a container is started with, short."""
    return hashlib.sha256(repr([conf.value(key) for key in _RUN_KEYS]).encode()).hexdigest()


def _check_source(path: Path) -> None:
    """systemd-nspawn follows links and tells of a missing directory only in the container's log."""
    if path.is_symlink():
        raise BadRequest(f"path {path} cannot be given to a container: it is a link")
    if not path.exists():
        raise HiveError(f"path {path} is to be given to a container, and is not there")
