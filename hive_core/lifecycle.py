"""Spawn, start, stop, rebuild, destroy, purge: resumable steps, one operation per agent at a time.

Every step of a spawn can be done again without harm, so what a crash interrupted is simply begun anew
at the next start. What must not happen halfway (a repository, a purge) is prepared aside and
moved into place in one rename. What an agent runs is built before anything of it is touched.
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
from typing import Any, Protocol, TypeVar, cast

from hive_core.approvals import Approvals
from hive_core.background import TaskSet
from hive_core.broker import Broker
from hive_core.builds import BuildLog, Builds
from hive_core.config import Settings
from hive_core.config_repo import ConfigRepo
from hive_core.containers.base import Condition, ContainerRuntime, ContainerSpec, StatusChange
from hive_core.operations import OperationKind, operation
from hive_core.plan import agent_binds
from hive_core.prepared import (
    PREPARED_MAX,
    is_marked,
    is_prepared,
    mark_prepared,
    prepared_agents,
    unmark_prepared,
)
from hive_core.registry import AgentRecord, Registry, Role
from hive_core.roster import Roster
from hive_core.target import Target, Targets
from hive_core.untrusted import delete_tree, give_tree, tree_bytes, write_file
from hive_shared.errors import Conflict, HiveError, TooMany, Unavailable
from hive_shared.names import MANAGER, choose_port
from hive_shared.paths import ContainerPaths, HostPaths
from hive_shared.wire import AgentState, ApprovalView

log = logging.getLogger(__name__)
T = TypeVar("T")

API_KEY_FILE = "api-key"
API_KEY_MAX_BYTES = 4096
COME_UP_SECONDS = 20.0  # for a harness to report in after a change; one that only is slow is believed
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


@dataclass(frozen=True)
class _Operation:
    """What was asked last of an agent: another one who asks for the same waits for this one."""

    what: str
    done: "asyncio.Future[Any]"


@dataclass(frozen=True)
class _Birth:
    """What an agent is made with: a commit, or the one its branch is at; where its build is logged."""

    commit: str | None
    build_log: BuildLog
    work: str
    step: Callable[..., Awaitable[None]]


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
        config: ConfigRepo,
        builds: Builds,
        *,
        come_up_seconds: float = COME_UP_SECONDS,
    ) -> None:
        self.runtime = runtime
        self._come_up_seconds = come_up_seconds
        self.targets = Targets(settings.paths, config)
        self._settings = settings
        self._paths = self.paths = settings.paths
        self._places = Places(settings.paths)
        self._registry = registry
        self._broker = broker
        self._approvals = approvals
        self._roster = roster
        self._sockets = sockets
        self._plan = plan
        self._config = config
        self._builds = builds
        self._locks: dict[str, asyncio.Lock] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._latest: dict[str, _Operation] = {}
        self._work = TaskSet("lifecycle")

    async def close(self) -> None:
        """End what is under way; every step of it can be done again."""
        await self._work.close()

    # --- at start -----------------------------------------------------------

    async def prepare(self) -> None:
        """The directories of the hive itself, and the end of purges that were interrupted."""
        paths, owner = self._paths, self.runtime.owner
        for directory in (paths.agents, paths.logs, self._places.staging, self._places.trash):
            _directory(directory)
        _directory(paths.applied_root, mode=READABLE)  # by the manager; what is above is not
        _directory(paths.shared, owner=owner)
        self._builds.prepare()
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
        async with self.alone(MANAGER):
            if self._registry.get(MANAGER) is not None:
                return
            log.info("creating the manager %s", MANAGER)
            birth = _Birth(None, BuildLog(), _rebuild_work(MANAGER), _no_step)
            try:
                await self._make(MANAGER, "manager", birth)
            finally:
                self._builds.forget(birth.work)

    async def restore(self, name: str) -> None:
        """After a start of the daemon: everything of the agent stands again; it runs if it should."""
        async with self.alone(name):
            record = self._registry.get(name)
            if record is None or record.kept:
                return  # its spawn was taken back
            status = self.runtime.status(record.name)
            up = status.condition is Condition.UP  # it outlived the daemon before us, or somebody was quicker
            state = AgentState.RUNNING if up else AgentState.STOPPED
            self._roster.set_state(record.name, state, pid=status.pid)
            await self._show_commit(record.name)
            outdated = await self._reconcile(record)
            if up and (outdated or record.wanted != "running"):
                await self._stop(record.name)
            if record.wanted == "running" and (outdated or not up):
                await self._start(record.name)

    # --- operations ---------------------------------------------------------

    async def prepare_spawn(self, name: str) -> str:
        """Directories, port and repositories of an agent to come; where the manager finds the proposed one.

        Raises `Conflict` if there is such an agent, `TooMany` if 20 others are prepared and not spawned.
        """
        async with self.alone(name):
            record = self._registry.get(name)
            if record is not None and not record.kept:
                raise Conflict(f"agent {name} exists already; change its own configuration")
            if record is None and not is_prepared(self._paths, self._registry, name):
                await self._prepare(name)
            elif not self._paths.state(name).is_dir():
                raise StateMissing(f"agent {name}: {self._paths.state(name)} is missing; purge what is left")
            else:
                mark_prepared(self._paths, name)
                await self._repositories(name)
            await self._show_to_manager(name)
        seen = ContainerPaths().agents / name / "config"
        return str(seen if self.runtime.isolated else self._paths.config(name))

    async def _prepare(self, name: str) -> None:
        prepared = prepared_agents(self._paths, self._registry)
        if len(prepared) >= PREPARED_MAX:
            raise TooMany(
                f"{PREPARED_MAX} agents are prepared and not spawned, which is the limit "
                f"({', '.join(prepared[:5])}, …); spawn some of them, or have the operator purge them"
            )
        # The mark comes first: what a crash leaves half made is found, completed, or purged.
        port = self._port(name)
        _directory(self._paths.agent_dir(name))
        mark_prepared(self._paths, name)
        await self._directories(name, port)
        await self._repositories(name)

    async def spawn(self, approval: ApprovalView, build_log: BuildLog) -> str:
        """Create what was approved, or go on where a crash interrupted it; returns a note.

        Raises `HiveError` or `OSError` when it cannot be; then nothing of it is left, except for
        the state of an agent that was to be revived or had been prepared.
        """
        name = approval.agent
        work = str(approval.id)

        async def step(what: str, replaces: str | None = None) -> None:
            await self._approvals.set_building(approval.id, what, replaces=replaces)

        async with self.alone(name):
            record = self._registry.get(name)
            if record is not None and not record.kept and not approval.step:
                raise Conflict(f"agent {name} exists already")
            keep = approval.revives or is_marked(self._paths, name)
            found = self._paths.agent_dir(name).is_dir()
            begun_with_state = approval.step not in ("", "port", "directories")
            if not found and (approval.revives or approval.commit is not None or begun_with_state):
                raise StateMissing
            keep = keep or (found and not approval.step)
            try:
                await self._make(name, "agent", _Birth(approval.commit, build_log, work, step))
            except Exception:
                await self._take_back(name, work, keep=keep, revives=approval.revives)
                raise
            return "revived with its state" if approval.revives else ""

    async def start(self, name: str) -> str:
        return await self._once(name, "start", lambda: self._start_stopped(name))

    async def _start_stopped(self, name: str) -> str:
        async with self.alone(name):
            record = self._live(name)
            await self._registry.set_wanted(name, "running")
            if self.runtime.status(name).condition is Condition.UP:
                return "it was running already"
            await self._reconcile(record)
            await self._start(name)
            return ""

    async def stop(self, name: str) -> str:
        """Stop it, and keep it stopped also when the daemon restarts; its inbox keeps filling."""
        return await self._once(name, "stop", lambda: self._stop_wanted(name))

    async def _stop_wanted(self, name: str) -> str:
        async with self.alone(name):
            self._live(name)
            await self._registry.set_wanted(name, "stopped")
            was = self.runtime.status(name).condition
            await self._stop(name)
            return "" if was is Condition.UP else "it was stopped already"

    async def restart(self, name: str) -> str:
        return await self._once(name, "restart", lambda: self._restart(name))

    async def _restart(self, name: str) -> str:
        async with self.alone(name):
            record = self._live(name)
            await self._registry.set_wanted(name, "running")
            await self._stop(name)
            await self._reconcile(record)
            await self._start(name)
            return ""

    async def rebuild(self, name: str) -> str:
        """Build what runs again, make everything else right again, restart: the one verb that repairs all."""
        return await self._once(name, "rebuild", lambda: self._rebuild(name))

    async def _rebuild(self, name: str) -> str:
        build_log, work = BuildLog(), _rebuild_work(name)
        async with self.turn(name):
            try:
                made = await self._repair(name)
                present = await self.targets.present(name)
                target = await self.built(name, present.commit, build_log, work)
                async with self.alone(name):
                    note = await self._run_rebuilt(name, target)
                    if made:
                        await self._show_to_manager(name)
                return note
            finally:
                self._as_it_is(name, AgentState.REBUILDING)
                self._builds.forget(work)

    async def _repair(self, name: str) -> bool:
        """What a build needs, and what else may have been lost; whether the proposed repository was."""
        async with self.alone(name):
            record = self._live(name)
            self._roster.set_rebuilding(name)
            await self._directories(name, record.port)
            return await self._repositories(name)

    async def _run_rebuilt(self, name: str, target: Target) -> str:
        """Run it; if it cannot even be started, run again what was there before."""
        self._live(name)
        before = await self.targets.present(name)
        if before.commit != target.commit:
            raise Conflict(f"agent {name} runs another commit than when its rebuild began; rebuild again")
        try:
            note = await self.run(name, target)
        except (HiveError, OSError):
            if before.system is not None and before.system != target.system:
                with contextlib.suppress(HiveError, OSError):
                    await self.run(name, before)
            raise
        return f"rebuilt; {note}" if note else ""

    async def built(self, name: str, commit: str, build_log: BuildLog, work: str) -> Target:
        """What `commit` is built to now; no container is touched."""
        revision = self.runtime.revision()
        system = await self._builds.build(name, commit, build_log, work)
        return Target(commit, system, revision)

    async def run(self, name: str, target: Target) -> str:
        """Put `target` in place and restart the container if it shall run; the caller holds `alone`."""
        record = self._live(name)
        await self.targets.put_in_place(name, target)
        self._roster.set_state(name, AgentState.REBUILDING)
        with operation(OperationKind.CONTAINER, "stop", agent=name):
            await self.runtime.stop(name)
        self._roster.set_target(name, target.commit, needs_update=self.is_stale(target.revision))
        await self._reconcile(record)
        if record.wanted != "running":
            self._roster.set_state(name, AgentState.STOPPED)
            return "it stays stopped"
        await self._come_up(name)
        return ""

    async def _come_up(self, name: str) -> None:
        """Start it and wait until its harness reports in; raises `HiveError` if it ends before.

        A configuration can be built and started and still leave nothing that works.
        """
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def changed(change: StatusChange) -> None:
            if change.agent == name and change.condition is Condition.DOWN and not ended.done():
                ended.set_result(change.note)

        unsubscribe = self.runtime.subscribe(changed)
        reported = self._roster.next_report(name)
        try:
            await self._start(name)
            either: set[asyncio.Future[Any]] = {ended, reported}
            await asyncio.wait(either, timeout=self._come_up_seconds, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise HiveError(f"its harness ended before it was ready: {ended.result()}")
        finally:
            unsubscribe()
            reported.cancel()
            ended.cancel()

    def is_stale(self, revision: str) -> bool:
        """Whether something built from `revision` should be built again; never, where that is not known."""
        current = self.runtime.revision()
        return bool(current) and revision != current

    async def start_again(self, name: str) -> None:
        """After a crash: start it, if nobody has stopped or destroyed it meanwhile."""
        async with self.alone(name):
            record = self._registry.get(name)
            if record is None or record.kept or record.wanted != "running":
                return
            if self.runtime.status(name).condition is not Condition.UP:
                await self._reconcile(record)
                await self._start(name)

    async def end_stuck(self, name: str) -> bool:
        """End a container whose harness does not answer; False if it does by now, or nobody wants it to run.

        It counts as having ended by itself: what it had in hand may be why, see `Broker.release`.
        """
        async with self.alone(name):
            record = self._registry.get(name)
            if record is None or record.kept or record.wanted != "running":
                return False
            if name not in self._roster.silent() or self.runtime.status(name).condition is not Condition.UP:
                return False
            with operation(OperationKind.CONTAINER, "stop", agent=name):
                await self.runtime.stop(name)
            return True

    async def destroy(self, name: str) -> str:
        """Remove the container; the state stays as a tombstone."""
        return await self._once(name, "destroy", lambda: self._destroy(name))

    async def _destroy(self, name: str) -> str:
        async with self.alone(name):
            self._live(name)
            await self._registry.set_wanted(name, "stopped")
            self._roster.set_state(name, AgentState.DESTROYING)
            try:
                with operation(OperationKind.CONTAINER, "destroy", agent=name):
                    await self.runtime.destroy(name)
                await self._registry.set_kept(name, True)
            except (HiveError, OSError):
                self._as_it_is(name, AgentState.DESTROYING)
                raise
            await self._sockets.close(name)
            await asyncio.to_thread(delete_tree, self._paths.run_dir(name))
            with contextlib.suppress(FileNotFoundError):  # wiped under it: nothing is kept, and it can go
                os.utime(self._paths.agent_dir(name))  # the age of the tombstone
            self._roster.forget(name)
            await self._measure(name)
            return f"its state is kept under {self._paths.agent_dir(name)}"

    async def purge(self, name: str) -> list[str]:
        """Remove a tombstone, or a prepared agent, and everything it left; returns what could not be."""
        return await self._once(name, "purge", lambda: self._purge(name))

    async def _purge(self, name: str) -> list[str]:
        async with self.alone(name):
            prepared = is_prepared(self._paths, self._registry, name)
            if not prepared and not self._registry.require(name).kept:
                raise Conflict(f"agent {name} was revived just now; destroy it first")
            self._discard(name)
            await self._forget(name)
            return await self._empty_trash()

    # --- steps --------------------------------------------------------------

    async def _make(self, name: str, role: Role, birth: _Birth) -> None:
        """Every step of a spawn, in order; each may have been done before."""
        step = birth.step
        self._roster.set_state(name, AgentState.CREATING)
        await step("port")
        port = self._port(name)
        await step("directories")
        await self._directories(name, port)
        await step("repositories")
        await self._repositories(name)
        await step("build")
        before = await self.targets.present(name)
        target = await self.built(name, birth.commit or before.commit, birth.build_log, birth.work)
        if not self._builds.kept(birth.work, "replaced"):
            self._builds.keep(birth.work, "replaced", before.as_json())
        await step("switch", before.commit)
        await self.targets.put_in_place(name, target)
        await step("registration")
        record = await self._register(name, role, port)
        await step("socket")
        await self._sockets.open(record)
        await step("container")
        with operation(OperationKind.CONTAINER, "create", agent=name):
            await self.runtime.create(self._plan(record))
        await step("start")
        await self._start(name)
        unmark_prepared(self._paths, name)
        self._roster.set_target(name, target.commit, needs_update=False)
        self._roster.publish_tombstones()
        await self._show_to_manager(name)

    async def _register(self, name: str, role: Role, port: int) -> AgentRecord:
        record = self._registry.get(name)
        if record is None:
            return await self._registry.add(name, role, port)
        await self._registry.set_wanted(name, "running")
        return await self._registry.set_kept(name, False)

    async def _show_commit(self, name: str) -> None:
        """A damaged repository is told, and no reason not to run what is in place."""
        try:
            present = await self.targets.present(name)
        except (HiveError, OSError) as error:
            log.error("%s: its configuration cannot be read: %s", name, error)
            return
        self._roster.set_target(name, present.commit, needs_update=self.is_stale(present.revision))

    def _as_it_is(self, name: str, was: AgentState) -> None:
        """That has ended, perhaps before the container was touched: show again what that does."""
        record = self._registry.get(name)
        if record is None or record.kept or self._roster.state(name) is not was:
            return
        status = self.runtime.status(name)
        up = status.condition is Condition.UP
        self._roster.set_state(name, AgentState.RUNNING if up else AgentState.STOPPED, pid=status.pid)

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
        taken = {record.port for record in records if record.name != name}
        for other in prepared_agents(self._paths, self._registry):
            port = self._recorded_port(other) if other != name else None
            taken |= {port} if port is not None else set()
        return taken

    async def _directories(self, name: str, port: int) -> None:
        _directory(self._paths.agent_dir(name))
        if not self._paths.port_file(name).exists():
            write_file(self._paths.agent_dir(name), self._paths.port_file(name).name, f"{port}\n".encode())
        for directory in (self._paths.config(name), self._paths.claude(name), self._paths.state(name)):
            _directory(directory, owner=self.runtime.owner)

    async def _repositories(self, name: str) -> bool:
        """The repositories that are missing; whether the proposed one had to be made."""
        await self._config.create(name)
        return await self._config.create_proposed(name, self.runtime.owner)

    async def _reconcile(self, record: AgentRecord) -> bool:
        """Before a start: what it needs exists, whatever happened to it meanwhile.

        True if it runs already, and only a restart makes it what it shall be.
        """
        if not self._paths.state(record.name).is_dir():
            raise StateMissing(
                f"agent {record.name}: {self._paths.state(record.name)} is missing; restore it from a "
                f"backup, or `rebuild {record.name}` to begin with an empty one"
            )
        await asyncio.to_thread(self._give_to_owner, record.name)
        await self._sockets.open(record)
        with operation(OperationKind.CONTAINER, "create", agent=record.name):
            return await self.runtime.create(self._plan(record))

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
            with operation(OperationKind.CONTAINER, "start", agent=name):
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
        with operation(OperationKind.CONTAINER, "stop", agent=name):
            await self.runtime.stop(name)
        self._roster.set_state(name, AgentState.STOPPED)

    def _copy_api_key(self, name: str) -> None:
        """The harness finds the key among its own files; it is in no argument and no environment."""
        if self._settings.api_key_file is not None:
            key = read_api_key(self._settings.api_key_file)
            write_file(self._paths.claude(name), API_KEY_FILE, key, owner=self.runtime.owner)

    async def _take_back(self, name: str, work: str, *, keep: bool, revives: bool) -> None:
        """A spawn failed: a fresh agent leaves nothing, one to be revived becomes a tombstone again.

        What had been prepared stays prepared, for another try.
        """
        with operation(OperationKind.CONTAINER, "destroy", agent=name):
            await self.runtime.destroy(name)
        await self._sockets.close(name)
        await asyncio.to_thread(delete_tree, self._paths.run_dir(name))
        if keep:
            await self._put_back(name, work)
            if not revives and is_marked(self._paths, name):
                await self._forget(name)
            elif self._registry.get(name) is not None:
                await self._registry.set_kept(name, True)
            self._roster.forget(name)
            self._roster.publish_tombstones()
            return
        self._discard(name)
        await self._forget(name)
        await self._empty_trash()

    async def _put_back(self, name: str, work: str) -> None:
        replaced = self._builds.kept(work, "replaced")
        if replaced is None:
            return
        try:
            await self.targets.put_in_place(name, Target.from_json(replaced))
        except (HiveError, OSError) as error:
            log.error("%s: what it ran before could not be put back: %s", name, error)

    def _discard(self, name: str) -> None:
        """Move everything of an agent out of the way at once; what was moved is deleted afterwards."""
        lot = self._places.trash / f"{name}-{secrets.token_hex(6)}"
        _directory(lot)
        logs = self._paths.log_file(name)
        for place in (
            self._paths.agent_dir(name), self._paths.applied(name), self._paths.revision_file(name),
            self._paths.system_file(name), logs, logs.with_name(f"{logs.name}.1"), self._paths.run_dir(name),
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
    async def alone(self, name: str) -> AsyncIterator[None]:
        """One operation on an agent's container at a time, in the order they were asked for."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """One deploy or rebuild of an agent at a time, builds included; `alone` is taken within it."""
        async with self._turns.setdefault(name, asyncio.Lock()):
            yield

    async def _once(self, name: str, what: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns. Who asks for what was asked for last, and is not done, waits for that one.

        The work goes on if whoever asked for it leaves.
        """
        latest = self._latest.get(name)
        if latest is None or latest.what != what or latest.done.done():
            latest = self._latest[name] = _Operation(what, asyncio.get_running_loop().create_future())
            if self._work.start(_settle(work, latest.done), name=f"{what}-{name}") is None:
                latest.done.cancel()
                raise Unavailable(f"{what} {name}: hive-c0re is stopping")
        return cast(T, await asyncio.shield(latest.done))


async def _settle(work: Callable[[], Awaitable[Any]], done: "asyncio.Future[Any]") -> None:
    """Do the work, and give its result or error to everyone who waits for it, if anyone still does."""
    try:
        result = await work()
    except asyncio.CancelledError:
        done.set_exception(Unavailable("hive-c0re stopped before this was done"))
        done.exception()
        raise
    except Exception as error:  # noqa: BLE001 - whoever waits gets it
        done.set_exception(error)
        done.exception()
    else:
        done.set_result(result)


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
    except OSError as error:  # of a descriptor, it does not say which directory that is
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(holder)


def _move(place: Path, lot: Path) -> None:
    os.rename(place, lot / f"{secrets.token_hex(4)}-{place.name}"[:200])


def _rebuild_work(name: str) -> str:
    """Where a rebuild builds: beside the approvals' numbers."""
    return f"rebuild-{name}"


async def _no_step(*_: Any) -> None:
    """The manager's first deploy has no approval to keep count in."""
