"""Spawn, start, stop, rebuild, destroy, purge: resumable steps, one operation per agent at a time.

Every step of a spawn can be done again without harm, so what a crash interrupted is simply begun anew
at the next start. What must not happen halfway (a repository, a purge) is prepared aside and
moved into place in one rename.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hive_core.approvals import Approvals
from hive_core.broker import Broker
from hive_core.config import Settings
from hive_core.containers.base import Condition, ContainerRuntime, ContainerSpec
from hive_core.first_commit import Repository, make_repository
from hive_core.plan import agent_binds
from hive_core.registry import AgentRecord, Registry, Role
from hive_core.roster import Roster
from hive_core.untrusted import delete_tree, give_tree, tree_bytes, write_file
from hive_shared.errors import Conflict, HiveError
from hive_shared.names import MANAGER, choose_port
from hive_shared.paths import HostPaths
from hive_shared.wire import AgentState, ApprovalView

log = logging.getLogger(__name__)

API_KEY_FILE = "api-key"
API_KEY_MAX_BYTES = 4096
PRIVATE = 0o700
READABLE = 0o755


class StateMissing(HiveError):
    """agent state dir missing"""


class SocketHouse(Protocol):
    """Who listens on agents' sockets."""

    async def open(self, record: AgentRecord) -> None:
        """Listen for the agent; if its directory or socket was taken away, make it again."""

    async def close(self, name: str) -> None:
        """Stop listening and end its connections."""


# What a container is made from; the runtime's own business, given by the daemon.
Plan = Callable[[AgentRecord], ContainerSpec]


@dataclass(frozen=True)
class Places:
    """Where lifecycle puts things that are not there yet, or not any more."""

    paths: HostPaths

    @property
    def staging(self) -> Path:
        return self.paths.state_root / "staging"

    @property
    def trash(self) -> Path:
        """Purged and not yet deleted; emptied at start."""
        return self.paths.state_root / "purged"


class Lifecycle:
    """What happens to agents as wholes. Callers have checked authority already."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        broker: Broker,
        approvals: Approvals,
        roster: Roster,
        runtime: ContainerRuntime,
        sockets: SocketHouse,
        plan: Plan,
    ) -> None:
        self.runtime = runtime
        self._settings = settings
        self._paths = settings.paths
        self._places = Places(settings.paths)
        self._registry = registry
        self._broker = broker
        self._approvals = approvals
        self._roster = roster
        self._sockets = sockets
        self._plan = plan
        self._locks: dict[str, asyncio.Lock] = {}

    # --- at start -----------------------------------------------------------

    async def prepare(self) -> None:
        """The directories of the hive itself, and the end of purges that were interrupted."""
        paths, owner = self._paths, self.runtime.owner
        for directory in (paths.agents, paths.logs, self._places.staging, self._places.trash):
            _directory(directory)
        _directory(paths.applied_root, mode=READABLE)  # by the manager; what is above is not
        _directory(paths.shared, owner=owner)
        await self._finish_purges()

    async def _finish_purges(self) -> None:
        """What was moved away to be deleted is deleted; whose state that was, is forgotten."""
        begun = {lot.name.rpartition("-")[0] for lot in self._places.trash.iterdir()}
        for record in self._registry.tombstones():
            if record.name in begun and not self._paths.agent_dir(record.name).exists():
                log.warning("the purge of %s was interrupted; finishing it", record.name)
                await self._forget(record.name)
        await self._empty_trash()

    async def make_sockets(self) -> None:
        """Every live agent can be connected to, also while it is stopped."""
        for record in self._registry.live():
            if record.host != self._registry.host:
                continue
            try:
                await self._sockets.open(record)
            except (HiveError, OSError) as error:
                log.error("%s cannot be connected to: %s", record.name, error)

    async def measure_tombstones(self) -> None:
        for record in self._registry.tombstones():
            await self._measure(record.name)

    async def ensure_manager(self) -> None:
        """A hive has a manager; its own first deploy needs no approval (SPEC section 6)."""
        async with self._alone(MANAGER):
            if self._registry.get(MANAGER) is not None:
                return
            log.info("creating the manager %s", MANAGER)
            await self._make(MANAGER, "manager", _no_step)

    async def restore(self, record: AgentRecord) -> None:
        """After a start of the daemon: everything of the agent stands again; it runs if it should."""
        async with self._alone(record.name):
            if self.runtime.status(record.name).condition is Condition.UP:
                return  # somebody was quicker
            self._roster.set_state(record.name, AgentState.STOPPED)
            await self._reconcile(record)
            if record.wanted == "running":
                await self._start(record.name)

    # --- operations ---------------------------------------------------------

    async def spawn(self, approval: ApprovalView) -> str:
        """Create what was approved, or go on where a crash interrupted it; returns a note.

        Raises `HiveError` or `OSError` when it cannot be; then nothing of it is left, except for
        the state of an agent that was to be revived.
        """
        name = approval.agent

        async def step(what: str) -> None:
            await self._approvals.set_building(approval.id, what)

        async with self._alone(name):
            record = self._registry.get(name)
            if record is not None and not record.kept and not approval.step:
                raise Conflict(f"agent {name} exists already")
            found = self._paths.agent_dir(name).is_dir()
            begun_with_state = approval.step not in ("", "port", "directories")
            if not found and (approval.revives or begun_with_state):
                raise StateMissing
            keep = approval.revives or (found and not approval.step)
            try:
                await self._make(name, "agent", step)
            except (HiveError, OSError):
                await self._take_back(name, keep=keep)
                raise
            return "revived with its state" if approval.revives else ""

    async def start(self, name: str) -> str:
        async with self._alone(name):
            record = self._live(name)
            await self._registry.set_wanted(name, "running")
            if self.runtime.status(name).condition is Condition.UP:
                return "it was running already"
            await self._reconcile(record)
            await self._start(name)
            return ""

    async def stop(self, name: str) -> str:
        """Stop it, and keep it stopped also when the daemon restarts; its inbox keeps filling."""
        async with self._alone(name):
            self._live(name)
            await self._registry.set_wanted(name, "stopped")
            was = self.runtime.status(name).condition
            await self._stop(name)
            return "" if was is Condition.UP else "it was stopped already"

    async def restart(self, name: str) -> str:
        async with self._alone(name):
            record = self._live(name)
            await self._registry.set_wanted(name, "running")
            await self._stop(name)
            await self._reconcile(record)
            await self._start(name)
            return ""

    async def rebuild(self, name: str) -> str:
        """Stop, make everything right again, start if it should run: the one verb that repairs all."""
        async with self._alone(name):
            record = self._live(name)
            self._roster.set_state(name, AgentState.REBUILDING)
            await self.runtime.stop(name)
            await self._directories(name, record.port)
            made = await self._repositories(name)
            await self._reconcile(record)
            if made:
                await self._show_to_manager(name)
            if record.wanted != "running":
                self._roster.set_state(name, AgentState.STOPPED)
                return "rebuilt; it stays stopped"
            await self._start(name)
            return ""

    async def start_again(self, name: str) -> None:
        """After a crash: start it, if nobody has stopped or destroyed it meanwhile."""
        async with self._alone(name):
            record = self._registry.get(name)
            if record is None or record.kept or record.wanted != "running":
                return
            if self.runtime.status(name).condition is not Condition.UP:
                await self._reconcile(record)
                await self._start(name)

    async def destroy(self, name: str) -> str:
        """Remove the container; the state stays as a tombstone."""
        async with self._alone(name):
            self._live(name)
            self._roster.set_state(name, AgentState.DESTROYING)
            await self._registry.set_wanted(name, "stopped")
            await self.runtime.destroy(name)
            await self._registry.set_kept(name, True)
            await self._sockets.close(name)
            await asyncio.to_thread(delete_tree, self._paths.run_dir(name))
            os.utime(self._paths.agent_dir(name))  # the age of the tombstone
            self._roster.forget(name)
            await self._measure(name)
            return f"its state is kept under {self._paths.agent_dir(name)}"

    async def purge(self, name: str) -> list[str]:
        """Remove a tombstone and everything it left; returns what could not be deleted."""
        async with self._alone(name):
            if not self._registry.require(name).kept:
                raise Conflict(f"agent {name} was revived just now; destroy it first")
            self._discard(name)
            await self._forget(name)
            return await self._empty_trash()

    # --- steps --------------------------------------------------------------

    async def _make(self, name: str, role: Role, step: Callable[[str], Awaitable[None]]) -> None:
        """Every step of a spawn, in order; each may have been done before."""
        self._roster.set_state(name, AgentState.CREATING)
        await step("port")
        port = self._port(name)
        await step("directories")
        await self._directories(name, port)
        await step("repositories")
        await self._repositories(name)
        await step("registration")
        record = await self._register(name, role, port)
        await step("socket")
        await self._sockets.open(record)
        await step("container")
        await self.runtime.create(self._plan(record))
        await step("start")
        await self._start(name)
        self._roster.publish_tombstones()
        await self._show_to_manager(name)

    async def _register(self, name: str, role: Role, port: int) -> AgentRecord:
        record = self._registry.get(name)
        if record is None:
            return await self._registry.add(name, role, port)
        await self._registry.set_wanted(name, "running")
        return await self._registry.set_kept(name, False)

    def _port(self, name: str) -> int:
        known = self._registry.get(name)
        recorded = self._recorded_port(name)
        return choose_port(
            name,
            recorded=recorded if recorded is not None or known is None else known.port,
            legacy=recorded is None and self._paths.applied(name).is_dir(),
            taken=self._taken_ports(name),
        )

    def _recorded_port(self, name: str) -> int | None:
        try:
            text = self._paths.port_file(name).read_text("ascii").strip()
        except FileNotFoundError:
            return None
        if not text.isdigit() or not 0 < int(text[:9]) < 65536:
            raise HiveError(f"{self._paths.port_file(name)} holds no port number; remove it, then rebuild")
        return int(text)

    def _taken_ports(self, name: str) -> set[int]:
        records = (*self._registry.live(), *self._registry.tombstones())
        return {record.port for record in records if record.name != name}

    async def _directories(self, name: str, port: int) -> None:
        _directory(self._paths.agent_dir(name))
        if not self._paths.port_file(name).exists():
            write_file(self._paths.agent_dir(name), self._paths.port_file(name).name, f"{port}\n".encode())
        for directory in (self._paths.config(name), self._paths.claude(name), self._paths.state(name)):
            _directory(directory, owner=self.runtime.owner)

    async def _repositories(self, name: str) -> bool:
        """The repositories that are missing; whether the proposed one had to be made."""
        staging = self._places.staging
        proposed = Repository(self._paths.config(name), PRIVATE, self.runtime.owner)
        applied = Repository(self._paths.applied(name), READABLE, None)
        await make_repository(applied, name, staging / f"{name}-applied")
        return await make_repository(proposed, name, staging / f"{name}-config")

    async def _reconcile(self, record: AgentRecord) -> None:
        """Before a start: what it needs exists, whatever happened to it meanwhile."""
        if not self._paths.state(record.name).is_dir():
            raise StateMissing(
                f"agent {record.name}: {self._paths.state(record.name)} is missing; restore it from a "
                f"backup, or `rebuild {record.name}` to begin with an empty one"
            )
        await asyncio.to_thread(self._give_to_owner, record.name)
        await self._sockets.open(record)
        await self.runtime.create(self._plan(record))

    def _give_to_owner(self, name: str) -> None:
        """A hive that was run with another isolation before: its agents' files change their user."""
        owner = self.runtime.owner
        for place in (self._paths.config(name), self._paths.claude(name), self._paths.state(name)):
            if owner is None or not place.is_dir() or os.lstat(place).st_uid == owner:
                continue
            try:
                give_tree(place, owner)
            except RecursionError:
                raise HiveError(f"{place} is nested too deeply to be given to user {owner}") from None

    async def _start(self, name: str) -> None:
        self._roster.set_state(name, AgentState.STARTING)
        try:
            self._copy_api_key(name)
            await self.runtime.start(name)
        except (HiveError, OSError) as error:
            note = error.message if isinstance(error, HiveError) else str(error)
            self._roster.set_state(name, AgentState.CRASHED, note=note)
            raise
        status = self.runtime.status(name)
        if status.condition is Condition.UP:  # else it crashed already, and the watch has told so
            self._roster.set_state(name, AgentState.RUNNING, pid=status.pid)

    async def _stop(self, name: str) -> None:
        if self.runtime.status(name).condition is Condition.UP:
            self._roster.set_state(name, AgentState.STOPPING)
        await self.runtime.stop(name)
        self._roster.set_state(name, AgentState.STOPPED)

    def _copy_api_key(self, name: str) -> None:
        """The harness finds the key among its own files; it is in no argument and no environment."""
        if self._settings.api_key_file is not None:
            key = read_api_key(self._settings.api_key_file)
            write_file(self._paths.claude(name), API_KEY_FILE, key, owner=self.runtime.owner)

    async def _take_back(self, name: str, *, keep: bool) -> None:
        """A spawn failed: a fresh agent leaves nothing, one to be revived becomes a tombstone again."""
        await self.runtime.destroy(name)
        await self._sockets.close(name)
        await asyncio.to_thread(delete_tree, self._paths.run_dir(name))
        if keep:
            if self._registry.get(name) is not None:
                await self._registry.set_kept(name, True)
            self._roster.forget(name)
            self._roster.publish_tombstones()
            return
        self._discard(name)
        await self._forget(name)
        await self._empty_trash()

    def _discard(self, name: str) -> None:
        """Move everything of an agent out of the way at once; what was moved is deleted afterwards."""
        lot = self._places.trash / f"{name}-{secrets.token_hex(6)}"
        _directory(lot)
        logs = self._paths.log_file(name)
        for place in (
            self._paths.agent_dir(name), self._paths.applied(name), self._paths.revision_file(name),
            logs, logs.with_name(f"{logs.name}.1"), self._paths.run_dir(name),
        ):  # fmt: skip
            with contextlib.suppress(FileNotFoundError):
                _move(place, lot)

    async def _forget(self, name: str) -> None:
        if self._registry.get(name) is not None:
            await self._broker.purge(name)
            await self._registry.forget(name)
        self._roster.forget(name)
        self._roster.publish_tombstones()

    async def _empty_trash(self) -> list[str]:
        left: list[str] = []
        for lot in sorted(self._places.trash.iterdir()):
            left += await asyncio.to_thread(delete_tree, lot)
        for what in left:
            log.warning("not deleted: %s", what)
        return left

    async def _measure(self, name: str) -> None:
        place = self._paths.agent_dir(name)
        size = await asyncio.to_thread(tree_bytes, place)
        since_ms = int(os.lstat(place).st_mtime * 1000) if size is not None else None
        self._roster.set_tombstone(name, size, since_ms)

    async def _show_to_manager(self, name: str) -> None:
        """The manager works on every agent's repository and state, also of one that came after it."""
        if name == MANAGER or self._registry.get(MANAGER) is None:
            return
        if not await self.runtime.attach(MANAGER, agent_binds(self._paths, name)):
            log.info("the manager sees the files of %s after its next restart", name)

    def _live(self, name: str) -> AgentRecord:
        record = self._registry.require(name)
        if record.kept:
            raise Conflict(f"agent {name} is a tombstone; revive it first (spawn {name})")
        return record

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """One operation per agent at a time, in the order they were asked for."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield


def read_api_key(path: Path) -> bytes:
    """The operator's API key; raises `HiveError` if others could read it too, never with its content."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(API_KEY_MAX_BYTES + 1).strip()
    except OSError as error:
        raise HiveError(f"api_key_file {path}: {error.strerror}") from None
    if mode & 0o077:
        raise HiveError(f"api_key_file {path}: others can read it; chmod 600 {path}")
    if not key or len(key) > API_KEY_MAX_BYTES or b"\n" in key:
        raise HiveError(f"api_key_file {path}: must hold one line, the key")
    return key + b"\n"


def _directory(path: Path, mode: int = PRIVATE, owner: int | None = None) -> None:
    """A directory with that mode and owner; raises `OSError` if there is something else."""
    path.mkdir(mode=mode, parents=True, exist_ok=True)
    holder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchmod(holder, mode)
        if owner is not None:
            os.fchown(holder, owner, owner)
    finally:
        os.close(holder)


def _move(place: Path, lot: Path) -> None:
    os.rename(place, lot / f"{secrets.token_hex(4)}-{place.name}"[:200])


async def _no_step(_: str) -> None:
    """The manager's first deploy has no approval to keep count in."""
