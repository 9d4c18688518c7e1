"""A whole hive for tests: the real daemon as a child process, under a directory of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from hive_shared import wire
from hive_shared.client import Client, call_once
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths

R = TypeVar("R", bound=wire.Model)

PATIENCE_SECONDS = 90.0  # a guard against hanging, not a measure
DEFAULTS = {"HIVE_DASHBOARD_PORT": "0", "HIVE_AGENT_PAGE_PORTS": "false", "HIVE_BACKEND": "rehearsal"}


async def eventually(condition: Callable[[], Any], what: str, *, every_seconds: float = 0.1) -> Any:
    """The first true value of `condition` (plain or async); fails with `what` if there never is one."""
    last: Any = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                last = condition()
                if asyncio.iscoroutine(last):
                    last = await last
                if last:
                    return last
                await asyncio.sleep(every_seconds)
    raise AssertionError(f"this never came true: {what}; last seen: {last!r}")


@dataclass
class Hive:
    """One running daemon. `environment` is added to what it is started with."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    command: Sequence[str] = ()  # what is run; by default `hive-c0re --root … serve`
    process: asyncio.subprocess.Process | None = None

    @property
    def paths(self) -> HostPaths:
        return HostPaths.under(self.root)

    @property
    def log_path(self) -> Path:
        return self.root.with_suffix(".log")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    async def start(self, *, look_seconds: float = 0.1) -> None:
        """Start the daemon and wait until its host socket answers, looking so often."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}
        environment = {**own, **DEFAULTS, **self.environment}
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(self.command or self._serve()),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        what = "the daemon answers on its host socket"
        await eventually(self._answers, what, every_seconds=look_seconds)

    def _serve(self) -> Sequence[str]:
        return (sys.executable, "-m", "hive_core.cli", "--root", str(self.root), "serve")

    async def _answers(self) -> bool:
        if self.process is not None and self.process.returncode is not None:
            raise AssertionError(f"the daemon ended with {self.process.returncode}:\n{self.log()}")
        try:
            await self.call(wire.DaemonStatus())
        except HiveError:
            return False
        return True

    async def stop(self) -> int:
        """End the daemon as Ctrl-C would; returns its exit code."""
        return await self._end(signal.SIGINT)

    async def kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.returncode is None:
            self.process.send_signal(how)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.process.wait()

    async def call(self, request: wire.Request[R]) -> R:
        """One request to the host socket."""
        return await call_once(self.paths.host_socket, request)

    def client(self) -> Client:
        return Client(self.paths.host_socket)

    async def agent(self, name: str) -> wire.AgentView | None:
        agents = (await self.call(wire.ListAgents())).agents
        return next((agent for agent in agents if agent.name == name), None)

    async def is_idle(self, name: str) -> bool:
        """The agent's harness runs and has nothing to do."""
        agent = await self.agent(name)
        return agent is not None and agent.report.badge is wire.Badge.IDLE

    async def spawn(self, *names: str) -> None:
        for name in names:
            await self.call(wire.Spawn(name=name))
        for name in names:
            await eventually(lambda name=name: self.is_idle(name), f"{name} is idle")

    async def send(self, to: str, body: str) -> int:
        return (await self.call(wire.Send(to=to, body=body))).ids[0]

    async def messages(self, limit: int = 500) -> list[wire.Message]:
        return (await self.call(wire.Inbox(limit=limit))).messages

    async def login(self) -> "Operator":
        """A logged-in operator, by the one-time URL."""
        url = (await self.call(wire.MakeLoginUrl())).url
        return await Operator.by_url(url)


class Operator:
    """The operator's browser, without the browser: cookie, key and origin as the pages send them."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.http = httpx.AsyncClient(base_url=base, timeout=PATIENCE_SECONDS)

    @classmethod
    async def by_url(cls, url: str) -> "Operator":
        parts = urlsplit(url)
        operator = cls(f"{parts.scheme}://{parts.netloc}")
        operator.http.headers["Origin"] = operator.base
        reply = await operator.http.post("/login", data={"code": parts.fragment})
        reply.raise_for_status()
        operator.http.headers["X-Hive-Key"] = reply.json()["key"]
        return operator

    async def get(self, path: str) -> Any:
        reply = await self.http.get(path)
        reply.raise_for_status()
        return reply.json()

    async def post(self, path: str, **fields: str) -> Any:
        reply = await self.http.post(path, data=fields)
        assert reply.status_code == 200, f"{path}: {reply.status_code} {reply.text}"
        return reply.json()

    async def events(
        self, path: str, last_event_id: str | None = None
    ) -> AsyncIterator[tuple[str, str, Any]]:
        """(id, event, data) of a live stream."""
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        async with self.http.stream("GET", path, headers=headers, timeout=None) as reply:
            reply.raise_for_status()
            fields: dict[str, str] = {}
            async for line in reply.aiter_lines():
                if line and not line.startswith(":"):
                    name, _, value = line.partition(":")
                    fields[name] = value.removeprefix(" ")
                elif fields:
                    data = json.loads(fields.get("data", "null"))
                    yield fields.get("id", ""), fields.get("event", ""), data
                    fields = {}

    async def close(self) -> None:
        await self.http.aclose()


@contextlib.asynccontextmanager
async def running_hive(root: Path, **environment: str) -> AsyncIterator[Hive]:
    """A started hive that is stopped afterwards, in order; its log is printed if the test fails."""
    hive = Hive(root, environment)
    try:
        await hive.start()
        yield hive
        assert await hive.stop() == 0, hive.log()
    except BaseException:
        print(hive.log())
        raise
    finally:
        await hive.kill()
