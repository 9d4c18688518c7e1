"""Containers as child processes of core: in bubblewrap where that works, else not isolated (SPEC section 7).

Nobody polls: a child's end wakes the task that waits for it. No process outlives its container. In bubblewrap
the kernel sees to that, since the process namespace ends with its first process, and that one dies with core.
Without, `launch.py` stays as the ancestor of everything that the harness starts, and kills what is left.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from hive_core.config import AgentLimits, Settings
from hive_core.containers.base import Bind, Condition, ContainerSpec, ContainerStatus, StatusChange, System
from hive_core.containers.bubblewrap import (
    PATH_INSIDE,
    NoBubblewrap,
    Order,
    Sandbox,
    Surroundings,
    close_order,
    find_sandbox,
    launcher_command,
    make_order,
    memory_file,
)
from hive_core.containers.cgroups import Limiter, find_limiter
from hive_core.containers.code import revision as code_revision
from hive_core.containers.command import CommandFailed
from hive_core.containers.command import run as run_program
from hive_core.containers.console import Console
from hive_core.containers.local_build import Machine, build_apart
from hive_core.subscribers import Subscribers
from hive_shared.errors import HiveError, NotFound
from hive_shared.log_fields import about_nothing
from hive_shared.paths import HostPaths

log = logging.getLogger(__name__)

ATTACH = Path(__file__).with_name("attach.py")
ATTACH_SECONDS = 10.0
START_SECONDS = 30.0
INFO_MAX_BYTES = 4096
HARNESS_LOOKS = 400
HARNESS_LOOK_SECONDS = 0.005
KILL_SECONDS = 10.0
DRAIN_SECONDS = 2.0
NOT_ISOLATED = "not isolated"
SHELL_SIGNAL_BASE = 128  # how bubblewrap and shells say that a signal ended a program


class StartFailed(HiveError):
    """The container did not start"""


@dataclass(eq=False)
class _Run:
    """One life of a container, from its start to when its last process has gone."""

    process: asyncio.subprocess.Process
    spec: ContainerSpec
    lifeline: int | None
    began_seconds: float = field(default_factory=time.monotonic)
    first_pid: int | None = None  # of the sandbox's process namespace, or the keeper
    harness_pid: int | None = None  # in the host's numbers; the keeper, where there is one
    up: bool = False
    asked: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None


@dataclass(eq=False)
class _Box:
    spec: ContainerSpec
    run: _Run | None = None


class LocalRuntime:
    """The `ContainerRuntime` of machines without NixOS."""

    name = "local"

    def __init__(
        self,
        paths: HostPaths,
        sandbox: Sandbox | None,
        limiter: Limiter,
        *,
        stop_grace_seconds: float = 10.0,
        log_max_bytes: int = 4 * 2**20,
        agent_limits: AgentLimits | None = None,
        find_claude: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._paths = paths
        self._sandbox = sandbox
        self._limiter = limiter
        self._grace_seconds = stop_grace_seconds
        self._log_max_bytes = log_max_bytes
        self._agent_limits = agent_limits or AgentLimits()
        self._find_claude = find_claude
        self._boxes: dict[str, _Box] = {}
        self._consoles: dict[str, Console] = {}
        self._subscribers = Subscribers[[StatusChange]]("the runtime")

    @classmethod
    async def open(cls, settings: Settings) -> "LocalRuntime":
        """Find out what this machine can do; raises `NoBubblewrap` where isolation was demanded."""
        limiter = await asyncio.to_thread(find_limiter, settings.state_root, settings.limits)
        return cls(
            settings.paths,
            await _find_isolation(settings),
            limiter,
            stop_grace_seconds=settings.stop_grace_seconds,
            log_max_bytes=settings.log_max_bytes,
            agent_limits=settings.limits,
            find_claude=settings.find_claude,
        )

    @property
    def isolation(self) -> str:
        return self._sandbox.words if self._sandbox else NOT_ISOLATED

    @property
    def isolated(self) -> bool:
        return self._sandbox is not None

    @property
    def limits(self) -> str:
        return self._limiter.words

    @property
    def owner(self) -> int | None:
        return self._sandbox.user if self._sandbox else None

    # --- the interface ------------------------------------------------------

    def revision(self) -> str:
        return self._revision

    @cached_property
    def _revision(self) -> str:
        return code_revision()  # our code does not change while it runs

    async def build(self, agent: str, tree: Path, log: Callable[[str], None]) -> System:
        machine = Machine(
            search_path=PATH_INSIDE if self.isolated else os.environ.get("PATH", PATH_INSIDE),
            limits=self._agent_limits,
            has_claude=self._find_claude() is not None,
        )
        return (await build_apart(tree, log, machine)).as_system()

    async def create(self, spec: ContainerSpec) -> bool:
        box = self._boxes.setdefault(spec.agent, _Box(spec))
        box.spec = spec
        return box.run is not None and box.run.spec != spec

    async def start(self, agent: str) -> None:
        box = self._box(agent)
        if box.run is not None:
            return
        self._console(agent).note(f"{box.spec.container} starts, {self.isolation}")
        run = await self._launch(box)
        box.run = run
        run.task = asyncio.create_task(
            self._supervise(box, run), name=f"container-{agent}", context=about_nothing()
        )

        try:
            await self._wait_until_up(box, run)
        except BaseException:
            await self._kill(run)
            raise
        self._subscribers.tell(StatusChange(agent, Condition.UP, asked=True, pid=self.status(agent).pid))

    async def stop(self, agent: str) -> None:
        box = self._boxes.get(agent)
        run = box.run if box else None
        if run is None:
            return
        run.asked = True
        if self._ask_to_end(run):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._grace_seconds):
                    await run.ended.wait()
        await self._kill(run)

    async def destroy(self, agent: str) -> None:
        await self.stop(agent)
        if self._boxes.pop(agent, None) is not None:
            console = self._consoles.pop(agent)
            console.note("the container is destroyed")
            console.close()

    def list(self) -> Sequence[str]:
        return sorted(self._boxes)

    def status(self, agent: str) -> ContainerStatus:
        box = self._boxes.get(agent)
        if box is None:
            return ContainerStatus(agent, Condition.GONE)
        if box.run is None or not box.run.up:
            return ContainerStatus(agent, Condition.DOWN)
        return ContainerStatus(agent, Condition.UP, box.run.harness_pid)

    async def logs(self, agent: str, lines: int) -> Sequence[str]:
        return self._console(agent).tail(lines)

    def follow(self, agent: str, lines: int) -> AsyncIterator[str]:
        return self._console(agent).follow(lines)

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        return self._subscribers.add(callback)

    async def attach(self, agent: str, binds: Sequence[Bind]) -> bool:
        box = self._boxes.get(agent)
        run = box.run if box else None
        if self._sandbox is None or run is None or run.first_pid is None:
            return True  # it sees the host's own directories, or gets them when it starts
        if self._sandbox.user is None:
            return False  # entering its namespaces takes root
        return await _attach(self._sandbox.user, run.first_pid, binds)

    async def close(self) -> None:
        await asyncio.gather(*(self.stop(agent) for agent in self._boxes))
        for console in self._consoles.values():
            console.close()
        await asyncio.to_thread(self._limiter.close)

    def kill_all(self) -> None:
        for box in self._boxes.values():
            if box.run is not None:
                _kill_now(box.run)

    # --- starting -----------------------------------------------------------

    async def _launch(self, box: _Box) -> _Run:
        spec = box.spec
        around = Surroundings(
            join=await asyncio.to_thread(self._limiter.prepare, spec.container, spec.limits),
            rlimits=tuple(self._limiter.rlimits(spec.limits).items()),
        )
        # In the sandbox, bubblewrap writes to it who the first process is; without one, our end of it is
        # what tells the keeper that core lives.
        reading, writing = os.pipe2(os.O_CLOEXEC)
        if self._sandbox is not None:
            ours, theirs = reading, writing
            order = make_order(self._sandbox, spec, around, info=theirs)
        else:
            theirs, ours = reading, writing
            order = _plain_order(spec, around, lifeline=theirs)
        try:
            process = await asyncio.create_subprocess_exec(
                *launcher_command(order),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": PATH_INSIDE},
                cwd="/",
                pass_fds=(*order.descriptors, theirs),
                start_new_session=True,
            )
        except OSError as error:
            os.close(ours)
            raise StartFailed(f"container {spec.container}: {error.strerror}") from None
        finally:
            close_order(order)
            os.close(theirs)
        return _Run(process, spec, lifeline=ours)

    async def _wait_until_up(self, box: _Box, run: _Run) -> None:
        if self._sandbox is None:
            run.first_pid = run.process.pid
        else:
            run.first_pid = await self._first_pid(run)
        if run.first_pid is not None:
            await self._find_harness(run)
        if run.harness_pid is None or run.ended.is_set():
            await self._kill(run)
            last = " | ".join(self._console(box.spec.agent).tail(3))
            raise StartFailed(f"container {box.spec.container} did not start: {last}")
        run.up = True

    async def _find_harness(self, run: _Run) -> None:
        """The sandbox stands; its first process makes the harness in the next milliseconds, or ends."""
        if self._sandbox is None:
            run.harness_pid = run.process.pid
            return
        for _ in range(HARNESS_LOOKS):
            run.harness_pid = _harness_pid(run)
            if run.harness_pid is not None or run.ended.is_set():
                return
            await asyncio.sleep(HARNESS_LOOK_SECONDS)

    async def _first_pid(self, run: _Run) -> int | None:
        """What bubblewrap says of the process it made, or None if it ended without a word."""
        descriptor, run.lifeline = run.lifeline, None
        if descriptor is None:
            return None
        text = b""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                while b"}" not in text and (part := await reader.read(INFO_MAX_BYTES)):
                    text += part  # bubblewrap writes it in pieces
        except TimeoutError:
            return None
        finally:
            transport.close()
        try:
            return int(json.loads(text)["child-pid"])
        except (ValueError, KeyError, TypeError):
            return None

    # --- running ------------------------------------------------------------

    async def _supervise(self, box: _Box, run: _Run) -> None:
        """One life, to its end: then nothing of it is left, and everyone is told."""
        console = self._console(box.spec.agent)
        pump = asyncio.create_task(_pump(console, run.process), name=f"console-{box.spec.agent}")
        try:
            code = await run.process.wait()
        finally:
            _kill_now(run)
        # What still holds the console's pipe is dying; what it wrote before is worth a moment.
        await asyncio.wait([pump], timeout=DRAIN_SECONDS)
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
        note = _how_it_ended(code)
        if await asyncio.to_thread(self._limiter.out_of_memory, box.spec.container):
            note += f"; out of memory (limit {box.spec.limits.memory_max_bytes / 2**30:g} GiB)"
        await asyncio.to_thread(self._limiter.remove, box.spec.container)
        console.note(f"{box.spec.container} ended: {note}")
        box.run = None
        run.ended.set()
        if run.up:
            ran_seconds = time.monotonic() - run.began_seconds
            change = StatusChange(
                box.spec.agent, Condition.DOWN, asked=run.asked, note=note, ran_seconds=ran_seconds
            )
            self._subscribers.tell(change)

    def _ask_to_end(self, run: _Run) -> bool:
        """SIGTERM to the harness itself: bubblewrap would not pass it on. False if there is nobody to ask."""
        # Looked up again: a process id that is remembered may be somebody else's by now.
        pid = run.process.pid if self._sandbox is None else _harness_pid(run)
        return pid is not None and _signal(pid, signal.SIGTERM)

    async def _kill(self, run: _Run) -> None:
        """End it for sure; returns when it has."""
        run.asked = True
        _kill_now(run)
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await run.ended.wait()
        except TimeoutError:
            raise HiveError(
                f"process {run.process.pid} does not end although it was killed; the kernel holds it"
            ) from None

    def _console(self, agent: str) -> Console:
        """The console of an agent, also of one that has no container just now."""
        console = self._consoles.get(agent)
        if console is None:
            console = self._consoles[agent] = Console(self._paths.log_file(agent), self._log_max_bytes)
        return console

    def _box(self, agent: str) -> _Box:
        box = self._boxes.get(agent)
        if box is None:
            raise NotFound(f"agent {agent} has no container here")
        return box


async def _find_isolation(settings: Settings) -> Sandbox | None:
    if settings.isolation == "none":
        log.warning("isolation is off: agents run as plain processes with the rights of this daemon")
        return None
    try:
        return await find_sandbox(system_call_filter=settings.system_call_filter)
    except NoBubblewrap as error:
        if settings.isolation == "bubblewrap":
            raise
        log.warning("%s; agents run NOT ISOLATED, with the rights of this daemon", error.message)
        return None


def _plain_order(spec: ContainerSpec, around: Surroundings, lifeline: int) -> Order:
    order = {
        "join": [str(procs) for procs in around.join],
        "rlimits": dict(around.rlimits),
        "mounts": [],
        "user": None,
        "apart": False,
        "parent": os.getpid(),
        "lifeline": lifeline,
        "command": list(spec.command),
        "environment": {
            "PATH": os.environ.get("PATH", PATH_INSIDE),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **spec.environment,
        },
        "directory": str(spec.workdir),
    }
    return Order((memory_file("order", json.dumps(order).encode()),))


async def _attach(user: int, pid: int, binds: Sequence[Bind]) -> bool:
    pairs = [[str(bind.source), str(bind.target)] for bind in binds]
    order = json.dumps({"pid": pid, "user": user, "binds": pairs}).encode()
    descriptor = memory_file("attach", order)
    try:
        command = [sys.executable, "-I", "-S", str(ATTACH), str(descriptor)]
        await run_program(command, timeout_seconds=ATTACH_SECONDS, pass_fds=[descriptor])
    except CommandFailed as error:
        log.debug("attaching to process %d: %s", pid, error.message)
        return False
    finally:
        os.close(descriptor)
    return True


async def _pump(console: Console, process: asyncio.subprocess.Process) -> None:
    if process.stdout is not None:
        await console.pump(process.stdout)


def _kill_now(run: _Run) -> None:
    """Everything, without waiting: the namespace's first process, the keeper by its lifeline, the group."""
    if run.first_pid is not None and run.lifeline is None and run.process.returncode is None:
        _signal(run.first_pid, signal.SIGKILL)
    if run.lifeline is not None:
        os.close(run.lifeline)  # the keeper kills what it keeps, then ends; it must not be killed before
        run.lifeline = None
        return
    if run.process.returncode is None and run.first_pid != run.process.pid:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.process.pid, signal.SIGKILL)


def _harness_pid(run: _Run) -> int | None:
    """The one child of the namespace's first process at its start: the harness, in the host's numbers."""
    if run.first_pid is None or run.process.returncode is not None:
        return None
    try:
        children = Path(f"/proc/{run.first_pid}/task/{run.first_pid}/children").read_text().split()
    except OSError:
        children = _children_of(run.first_pid)
    return int(children[0]) if children else None


def _children_of(parent: int) -> list[str]:
    """The slow way, for kernels that do not list children."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if entry.name.isdigit() and int(fields[1]) == parent:
                found.append(entry.name)
    return sorted(found, key=int)


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _how_it_ended(code: int) -> str:
    number = -code if code < 0 else code - SHELL_SIGNAL_BASE
    if code == 0:
        return "it exited by itself"
    if 0 < number < signal.NSIG:
        return (
            f"killed by {signal.Signals(number).name}"
            if number in set(signal.Signals)
            else f"signal {number}"
        )
    return f"exit code {code}"
