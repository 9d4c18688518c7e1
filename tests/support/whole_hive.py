"""The daemon with all its doors, in this process: real sockets and web, containers in which nothing runs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_core import daemon
from hive_core.actions import Actions
from hive_core.config import Settings
from hive_core.store import Store
from hive_core.web.app import Web
from hive_core.web.doors import Doors
from hive_shared import sockets
from hive_shared.names import MANAGER
from hive_shared.paths import HostPaths
from hive_shared.sockets import short_address
from hive_shared.wire import HiveStatus, LoginUrl, NotifyOutcome
from tests.support.hive import Operator
from tests.support.web_hive import NoContainers, RawHarness, event_stream, http_answer

PATIENCE_SECONDS = 60.0


class Page(RawHarness):
    """An agent's page: answers as a harness does, and keeps what it was asked with."""

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heard.append(head)
        stream = b"/events/stream" in head.partition(b"\r\n")[0]
        writer.write(event_stream(b"id: 1\nevent: note\ndata: {}\n\n") if stream else self.answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            if stream:
                await reader.read(1)


class Reporting(NoContainers):
    """Containers in which nothing runs but somebody who says to be idle, as a harness does when it is up."""

    def __init__(self, paths: HostPaths) -> None:
        super().__init__()
        self._paths = paths
        self._reporters: dict[str, asyncio.StreamWriter] = {}

    async def start(self, agent: str) -> None:
        await super().start(agent)
        with short_address(self._paths.socket(agent)) as address:
            reader, writer = await asyncio.open_unix_connection(address)
        writer.write(b'{"op": "report", "badge": "idle"}\n')
        await reader.readline()
        self._reporters[agent] = writer

    async def stop(self, agent: str) -> None:
        await super().stop(agent)
        reporter = self._reporters.pop(agent, None)
        if reporter is not None:
            reporter.close()

    async def destroy(self, agent: str) -> None:
        await self.stop(agent)
        await super().destroy(agent)

    async def close(self) -> None:
        for agent in list(self._reporters):
            await self.stop(agent)


@dataclass
class WholeHive:
    """A hive that runs, and everything that can be talked to."""

    paths: HostPaths
    web: Web
    pages: dict[str, Page] = field(default_factory=dict)
    _numbers: Any = field(default_factory=lambda: count(1))

    @property
    def sockets(self) -> dict[str, Path]:
        """By who is on the other side."""
        names = (MANAGER, "alice", "bob")
        return {"operator": self.paths.host_socket, **{name: self.paths.socket(name) for name in names}}

    async def say(self, who: str, op: str, /, **fields: Any) -> dict[str, Any]:
        """The first line that answers a request on somebody's socket."""
        with short_address(self.sockets[who]) as address:
            reader, writer = await asyncio.open_unix_connection(address, limit=2**21)
        try:
            writer.write(json.dumps({**fields, "op": op}).encode() + b"\n")
            async with asyncio.timeout(PATIENCE_SECONDS):
                return dict(json.loads(await reader.readline()))
        finally:
            writer.close()

    async def done(self, who: str, op: str, /, **fields: Any) -> Any:
        """The result of a request that succeeds."""
        reply = await self.say(who, op, **fields)
        assert reply["ok"], (who, op, reply)
        return reply["result"]

    async def operator(self) -> Operator:
        return await Operator.by_url((await self.web.login_url()).url)

    def stranger(self) -> httpx.AsyncClient:
        """Somebody who can connect, and nothing more."""
        return httpx.AsyncClient(base_url=self.web.url, timeout=PATIENCE_SECONDS)

    def fresh_name(self) -> str:
        return f"x{next(self._numbers)}"

    async def fresh_agent(self) -> str:
        name = self.fresh_name()
        await self.done("operator", "spawn", name=name)
        return name


async def _nobody_is_told() -> list[NotifyOutcome]:
    return []


@contextlib.asynccontextmanager
async def whole_hive(root: Path) -> AsyncIterator[WholeHive]:
    """Runs a hive with the manager, alice and bob."""
    paths = HostPaths.under(root)
    settings = Settings(
        state_root=paths.state_root, run_root=paths.run_root, dashboard_port=0, agent_page_ports=False,
        backend="rehearsal", send_burst=10_000,
    )  # fmt: skip
    webs: list[Web] = []
    up = asyncio.Event()

    def web_of(actions: Actions, settings: Settings, store: Store, doors: Doors) -> Web:
        actions.notify_test = _nobody_is_told
        webs.append(Web(actions, settings, store, doors))
        return webs[-1]

    def ready(status: HiveStatus, url: LoginUrl) -> None:
        up.set()

    running = asyncio.create_task(daemon.run(settings, ready, runtime=Reporting(paths), web_of=web_of))
    waiting = asyncio.create_task(up.wait())
    await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()
    hive = WholeHive(paths, webs[0])
    patch = pytest.MonkeyPatch()
    # The pages listen in this very process, which core would refuse to talk to.
    patch.setattr(sockets, "peer_process", lambda peer: 0)
    try:
        for name in ("alice", "bob"):
            await hive.done("operator", "spawn", name=name)
        for name in (MANAGER, "alice", "bob"):
            hive.pages[name] = await Page(http_answer(b"{}")).listen(paths.page_socket(name))
        yield hive
    finally:
        patch.undo()
        for page in hive.pages.values():
            await page.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
