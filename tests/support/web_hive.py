"""The real web over the real store, broker and actions; only containers are left out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hive_core.actions import Actions, Parts
from hive_core.approvals import Approvals
from hive_core.audit import Audit
from hive_core.auto_update import AutoUpdate
from hive_core.broker import Broker
from hive_core.budgets import Budgets
from hive_core.builds import Builds
from hive_core.config import Settings
from hive_core.config_repo import ConfigRepo
from hive_core.containers.base import Bind, Condition, ContainerSpec, ContainerStatus, StatusChange, System
from hive_core.deploy import Deployer
from hive_core.feed import Feed
from hive_core.lifecycle import Lifecycle
from hive_core.next_turns import NextTurns
from hive_core.nix_module.risks import risk_flags
from hive_core.permissions import Permissions
from hive_core.proposals import Proposals
from hive_core.questions import Questions
from hive_core.registry import AgentRecord, Registry
from hive_core.reminders import Reminders
from hive_core.roster import Roster
from hive_core.schedules import Schedules
from hive_core.store import Store
from hive_core.usage import Usage
from hive_core.web.app import Web
from hive_shared.paths import HostPaths
from hive_shared.wire import AgentState

PATIENCE_SECONDS = 60.0
DAY_MS = 86_400_000


class NoContainers:
    """A runtime in which every container starts and stops at once, and nothing runs."""

    name = "local"
    isolated = False
    isolation = "not isolated"
    limits = "nothing"
    owner = None

    def __init__(self) -> None:
        self._up: dict[str, bool] = {}

    def revision(self) -> str:
        return "one"

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

    def list(self) -> Any:
        return sorted(self._up)

    def status(self, agent: str) -> ContainerStatus:
        if agent not in self._up:
            return ContainerStatus(agent, Condition.GONE)
        return ContainerStatus(agent, Condition.UP if self._up[agent] else Condition.DOWN)

    async def logs(self, agent: str, lines: int) -> Any:
        return [f"{agent} says line {number}" for number in range(lines)][:3]

    async def follow(self, agent: str, lines: int) -> AsyncIterator[str]:
        yield f"{agent} says nothing"

    def subscribe(self, callback: Callable[[StatusChange], None]) -> Callable[[], None]:
        return lambda: None

    async def attach(self, agent: str, binds: Sequence[Bind]) -> bool:
        return True

    async def close(self) -> None:
        self._up.clear()

    def kill_all(self) -> None:
        self._up.clear()


class NoSockets:
    """Agents' sockets that nobody opens."""

    async def open(self, record: AgentRecord) -> None: ...

    async def close(self, name: str) -> None: ...


@dataclass
class HandClock:
    """A wall clock that tests turn by hand."""

    now_ms: int = 1_760_000_000_000

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class WebHive:
    """The parts, and browsers for them."""

    settings: Settings
    store: Store
    actions: Actions
    web: Web
    clock: HandClock
    browsers: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def paths(self) -> HostPaths:
        return self.settings.paths

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.web.port}"

    @property
    def cookie(self) -> str:
        """What the session's cookie is called where no proxy stands before the hive."""
        return f"hive_session_{self.web.port}"

    def stranger(self, **headers: str) -> httpx.AsyncClient:
        """A browser of our origin that is not logged in."""
        client = httpx.AsyncClient(
            base_url=self.base, headers={"origin": self.base, **headers}, timeout=PATIENCE_SECONDS
        )
        self.browsers.append(client)
        return client

    async def operator(self, user_agent: str = "") -> httpx.AsyncClient:
        """A browser that logged in: it holds the cookie and sends the key."""
        client = self.stranger(**({"user-agent": user_agent} if user_agent else {}))
        reply = await client.post("/login", data={"code": (await self.web.login_url()).code})
        assert reply.status_code == 200, reply.text
        client.headers["x-hive-key"] = reply.json()["key"]
        await self._told_of_it()
        return client

    async def _told_of_it(self) -> None:
        """The login is told to dashboards a moment after it was answered: not amid what a test looks at."""
        activity = self.actions._activity
        [login] = await activity.recent(1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while activity._told < login.id:
                await asyncio.sleep(0.002)

    async def agent(self, name: str, port: int = 0) -> AgentRecord:
        """An agent that is there and running, as far as core knows."""
        record = await self.actions.registry.add(name, "manager" if name == "hm1nd" else "agent", port)
        self.paths.run_dir(name).mkdir(parents=True, exist_ok=True)
        self.actions.roster.set_state(name, AgentState.RUNNING)
        return record

    async def audited(self, action: str) -> list[str]:
        entries = await self.actions.audit.recent(1000)
        return [f"{entry.principal}: {entry.outcome}" for entry in entries if entry.action == action]


@contextlib.asynccontextmanager
async def running_web(tmp_path: Path, assets: Path | None = None, **settings: Any) -> AsyncIterator[WebHive]:
    """A started web on a free port."""
    hive = await _build(tmp_path, assets or write_assets(tmp_path / "assets"), settings)
    try:
        await hive.web.start()
        yield hive
    finally:
        for browser in hive.browsers:
            await browser.aclose()
        await hive.web.close()
        await hive.actions.close()
        hive.actions.roster.close()
        await hive.store.close()


async def _build(tmp_path: Path, assets: Path, given: Mapping[str, Any]) -> WebHive:
    places = HostPaths.under(tmp_path / "h")
    defaults = {"state_root": places.state_root, "run_root": places.run_root, "dashboard_port": 0}
    settings = Settings(**{**defaults, **given})
    store = await Store.open(settings.paths.database)
    feed, audit = Feed(), Audit(store)
    registry = Registry(store)
    await registry.load()
    budgets = Budgets(store, audit)
    broker = Broker(store, registry, audit, budget=budgets)
    budgets.on_stop = broker.hold
    await broker.open()
    roster = Roster(
        registry, feed, settings.paths, unread=broker.unread, isolation="not isolated", rules=broker.rules
    )
    approvals = Approvals(store, broker, audit)
    runtime, config, paths = NoContainers(), ConfigRepo(settings.paths), settings.paths
    builds = Builds(paths, runtime, config, feed, parallel=2, timeout_seconds=60)
    lifecycle = Lifecycle(
        settings, registry, broker, approvals, roster, runtime, NoSockets(), _plan(tmp_path), config, builds,
        come_up_seconds=0.0,  # there is no harness that would report
    )  # fmt: skip
    await lifecycle.prepare()
    proposals = Proposals(paths, registry, approvals, config, risk_flags)
    deployer = Deployer(paths, registry, approvals, proposals, lifecycle, builds, lambda name: None)
    updates = AutoUpdate(registry, broker, audit, roster, lifecycle, enabled=False, parallel=1)
    questions = Questions(store, broker, audit)
    parts = Parts(
        registry=registry,
        broker=broker,
        approvals=approvals,
        questions=questions,
        reminders=Reminders(store, audit),
        audit=audit,
        feed=feed,
        roster=roster,
        lifecycle=lifecycle,
        proposals=proposals,
        builds=builds,
        deployer=deployer,
        updates=updates,
        operator_pronouns="they/them",
        describe=_describe,
        usage=Usage(store),
        permissions=Permissions(store, audit),
        budgets=budgets,
        next_turns=NextTurns(store, broker, registry, questions, audit),
        schedules=Schedules(store, broker, audit),
    )
    actions = Actions(parts)
    await actions.open()
    clock = HandClock()
    web = Web(actions, settings, store, assets=assets, clock=clock)
    actions.login_desk = web
    return WebHive(settings, store, actions, web, clock)


def _plan(tmp_path: Path) -> Callable[[AgentRecord], ContainerSpec]:
    def plan(record: AgentRecord) -> ContainerSpec:
        return ContainerSpec(record.name, f"h-{record.name}", ["true"], {}, [], tmp_path)

    return plan


def _describe() -> dict[str, Any]:
    texts = ("dashboard_url", "limits", "backend", "state_root", "run_root", "store")
    numbers = {"pid": 1, "started_at_ms": 0}
    named = {"version": "0", "host": "local", "runtime": "local", "isolation": "not isolated"}
    return {**dict.fromkeys(texts, ""), **numbers, **named}


def write_assets(directory: Path) -> Path:
    """The least that a front end can be."""
    (directory / "js").mkdir(parents=True, exist_ok=True)
    for page in ("dashboard", "login", "agent", "stats", "agent_stats"):
        (directory / f"{page}.html").write_text(f"<!doctype html><title>{page}</title>")
    (directory / "js" / "app.js").write_text("export {};\n")
    (directory / "hive.css").write_text("body {}\n")
    return directory


class RawHarness:
    """Something hostile on page.sock: answers all with the same bytes, and records what it gets."""

    def __init__(self, answer: bytes, *, linger: bool = False) -> None:
        self.answer = answer
        self.linger = linger
        self.heard: list[bytes] = []
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[Any]] = set()

    async def listen(self, path: Path) -> "RawHarness":
        self._server = await asyncio.start_unix_server(self._talk, path)
        return self

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talks.add(task)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()
            self._talks.discard(task)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heard.append(head + await reader.read(_content_length(head)))
        with contextlib.suppress(ConnectionError):
            writer.write(self.answer)
            await writer.drain()
            if self.linger:
                await reader.read(1)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._talks):
            task.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def http_answer(body: bytes, *, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """An HTTP/1.1 answer as a harness sends it."""
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


def event_stream(*frames: bytes) -> bytes:
    """The beginning of an event stream that goes on until the connection ends."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(frames)


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    kind: str
    data: str
    id: str | None


async def read_events(
    client: httpx.AsyncClient, path: str, last_event_id: str | None = None
) -> AsyncIterator[Event]:
    """The events of a stream as a browser reads them."""
    headers = {} if last_event_id is None else {"last-event-id": last_event_id}
    async with client.stream("GET", path, headers=headers, timeout=PATIENCE_SECONDS) as reply:
        assert reply.status_code == 200, (await reply.aread()).decode()
        fields: dict[str, str] = {}
        async for line in _lines(reply):
            if not line:
                if "data" in fields:
                    yield Event(fields.get("event", "message"), fields["data"], fields.get("id"))
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value


async def _lines(reply: httpx.Response) -> AsyncIterator[str]:
    """Lines as browsers count them; httpx also breaks at U+2028, which JSON may hold."""
    rest = b""
    async for piece in reply.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode()


async def raw_request(port: int, data: bytes) -> bytes:
    """Send bytes as they are, and everything that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read(-1)
    finally:
        writer.close()
