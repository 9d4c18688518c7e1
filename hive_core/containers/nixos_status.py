"""Which containers run, from one listing of systemd, taken again when systemd says that something happened.

One `journalctl` follows what systemd itself reports of containers. What it prints is only a reason to look:
the truth is the listing, one `systemctl show` for all containers together (decision 10). A container's life
is known by systemd's invocation id, so that its end is told once, however quickly the next life began.
"""

import asyncio
import contextlib
import json
import logging
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hive_core.background import TaskSet
from hive_core.containers.base import Condition, StatusChange
from hive_core.containers.command import CommandFailed, printing, run
from hive_core.containers.nixos_unit import container_of, unit_of
from hive_shared.errors import HiveError
from hive_shared.names import agent_of_container

log = logging.getLogger(__name__)

LISTING_SECONDS = 20.0
QUIET_SECONDS = 60.0  # a listing without any report, should one have been lost
QUIET_UNHEARD_SECONDS = 5.0  # as long as nothing can be followed
GATHER_SECONDS = 0.05  # systemd reports several things at once
SETTLE_SECONDS = 2.0  # until journalctl has found the end of the journal, at the latest
RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0

_PROPERTIES = (
    "Id", "ActiveState", "InvocationID", "MainPID", "Result", "ExecMainCode", "ExecMainStatus",
    "ActiveEnterTimestampMonotonic", "InactiveEnterTimestampMonotonic",
)  # fmt: skip
_EXITED, _KILLED, _DUMPED = 1, 2, 3  # CLD_ codes, as ExecMainCode has them (waitid(2))


@dataclass(frozen=True)
class Unit:
    """What systemd says of one container."""

    active: str  # ActiveState
    invocation: str = ""
    pid: int | None = None
    result: str = "success"
    code: int = 0
    status: int = 0
    ran_seconds: float | None = None

    @property
    def is_up(self) -> bool:
        """It has come up, and processes of it are left."""
        return self.active in {"active", "reloading", "refreshing", "deactivating"}

    @property
    def may_have_processes(self) -> bool:
        return self.active not in {"inactive", "failed"}


_GONE = Unit("inactive")


@dataclass(frozen=True)
class _Life:
    """A container that is up."""

    unit: Unit
    seen_up_seconds: float


class Units:
    """Knows of every container of ours what the last listing said, and tells what has changed."""

    def __init__(
        self,
        systemctl: str,
        journalctl: str,
        is_ours: Callable[[str], bool],
        tell: Callable[[StatusChange], None],
    ) -> None:
        self._systemctl = systemctl
        self._journalctl = journalctl
        self._is_ours = is_ours
        self._tell = tell
        self._units: Mapping[str, Unit] = {}
        self._lives: dict[str, _Life] = {}
        self._starting: set[str] = set()  # containers
        self._stopped: set[str] = set()  # invocations that we ended
        self._listed = 0
        self._alone = asyncio.Lock()
        self._wake = asyncio.Event()
        self._heard = False
        self._tasks = TaskSet("containers' status")

    async def open(self) -> None:
        """Take over what runs already, without telling it; then follow. Raises `HiveError` if it cannot."""
        self._units = await self._list()
        for container, unit in self._units.items():
            if unit.is_up and self._is_ours(container):
                self._lives[container] = _Life(unit, time.monotonic())
        self._tasks.start(self._follow(), name="follow-containers")
        self._tasks.start(self._keep_listing(), name="list-containers")

    async def close(self) -> None:
        await self._tasks.close()

    def unit(self, container: str) -> Unit:
        """What the last listing said."""
        return self._units.get(container, _GONE)

    def condition(self, container: str) -> Condition:
        return Condition.UP if container in self._lives else Condition.DOWN

    def pid(self, container: str) -> int | None:
        life = self._lives.get(container)
        return life.unit.pid if life else None

    def invocation(self, container: str) -> str:
        """Of the life that is told as up; empty if there is none."""
        life = self._lives.get(container)
        return life.unit.invocation if life else ""

    def ask_to_end(self, container: str) -> None:
        """Its present life is ended by us: no crash."""
        self._stopped |= {self.unit(container).invocation, self.invocation(container)} - {""}

    @contextlib.contextmanager
    def starting(self, container: str) -> Iterator[None]:
        """What comes up meanwhile was asked for."""
        self._starting.add(container)
        try:
            yield
        finally:
            self._starting.discard(container)

    async def refresh(self) -> None:
        """Have a listing that began after this call, and tell what it changed."""
        before = self._listed
        async with self._alone:
            if self._listed > before:
                return  # somebody else's began after our call
            self._listed += 1
            self._take(await self._list())

    # --- what happened --------------------------------------------------------

    def _take(self, units: Mapping[str, Unit]) -> None:
        self._units = units
        changes = [*self._ended(units), *self._begun(units)]
        for change in changes:
            self._tell(change)

    def _ended(self, units: Mapping[str, Unit]) -> Iterator[StatusChange]:
        for container, life in tuple(self._lives.items()):
            now = units.get(container, _GONE)
            invocation = life.unit.invocation
            if now.is_up and now.invocation == invocation:
                continue
            del self._lives[container]
            asked = invocation in self._stopped
            self._stopped.discard(invocation)
            ran_seconds = now.ran_seconds if now.invocation == invocation else None
            if ran_seconds is None:
                ran_seconds = time.monotonic() - life.seen_up_seconds
            yield StatusChange(
                _agent(container),
                Condition.DOWN,
                asked=asked,
                note="it was stopped" if asked else self._why(now, invocation),
                ran_seconds=ran_seconds,
            )

    def _why(self, now: Unit, invocation: str) -> str:
        """Systemd forgets a life when the next one begins, and one that ended well at once."""
        return how_it_ended(now) if now.invocation in (invocation, "") else "it was started again by somebody"

    def _begun(self, units: Mapping[str, Unit]) -> Iterator[StatusChange]:
        for container, unit in units.items():
            if not unit.is_up or container in self._lives or not self._is_ours(container):
                continue
            self._lives[container] = _Life(unit, time.monotonic())
            asked = container in self._starting
            yield StatusChange(_agent(container), Condition.UP, asked=asked, pid=unit.pid)

    # --- looking and listening --------------------------------------------------

    async def _list(self) -> Mapping[str, Unit]:
        command = [
            self._systemctl, "show", "--no-pager", f"--property={','.join(_PROPERTIES)}", unit_of("*"),
        ]  # fmt: skip
        finished = await run(command, timeout_seconds=LISTING_SECONDS)
        return parse_listing(finished.output)

    async def _keep_listing(self) -> None:
        while True:
            quiet_seconds = QUIET_SECONDS if self._heard else QUIET_UNHEARD_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(quiet_seconds):
                    await self._wake.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._wake.clear()
            try:
                await self.refresh()
            except HiveError as error:
                log.error("containers cannot be listed, their status is the last known: %s", error.message)
                await asyncio.sleep(RETRY_FIRST_SECONDS)

    async def _follow(self) -> None:
        pause_seconds = RETRY_FIRST_SECONDS
        while True:
            began_seconds = time.monotonic()
            try:
                await self._follow_once()
                why = "it ended"
            except CommandFailed as error:
                why = error.message
            self._heard = False
            self._wake.set()
            if time.monotonic() - began_seconds > RETRY_MAX_SECONDS:
                pause_seconds = RETRY_FIRST_SECONDS
            log.warning("the journal cannot be followed: %s; trying again in %g s", why, pause_seconds)
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RETRY_MAX_SECONDS)

    async def _follow_once(self) -> None:
        # The one line of the past says that from now on nothing is missed.
        command = [
            self._journalctl, "--follow", "--lines=1", "--quiet", "--no-pager", "--output=json",
            "--output-fields=UNIT", "_PID=1",
        ]  # fmt: skip
        loop = asyncio.get_running_loop()
        async with printing(command) as program:
            settled = loop.call_later(SETTLE_SECONDS, self._wake.set)
            last = ""
            try:
                async for last in program.lines():
                    if not self._heard or _is_about_a_container(last):
                        self._heard = True
                        self._wake.set()
            finally:
                settled.cancel()
            await program.succeeded([last])


def parse_listing(text: str) -> dict[str, Unit]:
    """The output of `systemctl show` for several units, by container."""
    units = {}
    for paragraph in text.split("\n\n"):
        found = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        container = container_of(found.get("Id", ""))
        if container is not None:
            units[container] = _unit(found)
    return units


def how_it_ended(unit: Unit) -> str:
    """For people, in one line."""
    if unit.result == "oom-kill":
        return "out of memory"
    if unit.code in (_KILLED, _DUMPED) and unit.status in set(signal.Signals):
        dumped = ", core dumped" if unit.code == _DUMPED else ""
        return f"killed by {signal.Signals(unit.status).name}{dumped}"
    if unit.code == _EXITED and unit.status:
        return f"exit code {unit.status}"
    return "it exited by itself" if unit.result == "success" else unit.result


def _unit(found: Mapping[str, str]) -> Unit:
    up_usec, down_usec = (
        _number(found.get(f"{name}EnterTimestampMonotonic")) for name in ("Active", "Inactive")
    )
    return Unit(
        active=found.get("ActiveState", ""),
        invocation=found.get("InvocationID", ""),
        pid=_number(found.get("MainPID")) or None,
        result=found.get("Result", "success"),
        code=_number(found.get("ExecMainCode")),
        status=_number(found.get("ExecMainStatus")),
        ran_seconds=(down_usec - up_usec) / 1e6 if down_usec > up_usec > 0 else None,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def _agent(container: str) -> str:
    return agent_of_container(container) or container


def _is_about_a_container(line: str) -> bool:
    try:
        unit = json.loads(line).get("UNIT", "")
    except (ValueError, AttributeError):
        return False
    return isinstance(unit, str) and container_of(unit) is not None
