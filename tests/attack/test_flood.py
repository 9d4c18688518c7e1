"""Attacks by sheer quantity on what all share: event loop, memory, each other's turns (SECURITY 11, 12).

Each rule is tried both ways: in force the attack fails, taken out it succeeds. Nothing is timed; how long
a well-behaved agent waits meanwhile is what tests/benchmarks/bench_fairness.py measures.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.broker import BrokerLimits
from hive_core.exchanges import LoopLimits
from hive_core.loop_breaker import LoopBreaker
from hive_core.send_rules import SendRules
from hive_core.web import gate, listener
from hive_core.web.strangers import Strangers
from hive_shared import server as surface
from hive_shared import wire
from hive_shared.client import Client
from hive_shared.errors import HiveError, Paused
from hive_shared.jsonlines import LineReader
from hive_shared.pace import Pace
from hive_shared.server import (
    AGENT_CONNECTIONS_COMMON,
    AGENT_CONNECTIONS_RESERVED,
    AGENT_LIMITS,
    Connection,
    Crowd,
    Limits,
    SurfaceServer,
)
from hive_shared.sockets import listen
from hive_shared.wire import Ack, Send, Surface
from tests.benchmarks import bench_fairness as crowd
from tests.support.core_parts import ALICE, BOB, running
from tests.support.hive import running_hive
from tests.support.web_hive import WebHive, raw_request, running_web

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
GUARD_SECONDS = 60.0


# --- two agents that keep each other busy ---------------------------------------


@IN_FORCE
async def test_a_ping_pong_below_the_rate_limit_is_broken(tmp_path: Path, in_force: bool) -> None:
    """At one message every two seconds no limit is ever reached; without the breaker it goes on for ever."""
    limits = BrokerLimits(sends_per_minute=120, send_burst=60)
    async with running(tmp_path / "b.sqlite", limits=limits) as parts:
        breaker = LoopBreaker(
            parts.broker, parts.registry, parts.questions, parts.audit,
            LoopLimits() if in_force else LoopLimits(messages=0),
            clock=parts.clock, monotonic=parts.clock.monotonic,
        )  # fmt: skip
        await breaker.open()
        exchanged = 0
        with contextlib.suppress(Paused):
            while exchanged < 300:
                sender, to = ((ALICE, "bob"), (BOB, "alice"))[exchanged % 2]
                await parts.broker.send(sender, Send(to=to, body="and you?"))
                exchanged += 1
                parts.clock.pass_seconds(2)
        assert exchanged == (LoopLimits().messages if in_force else 300)
        await breaker.close()


@IN_FORCE
@pytest.mark.parametrize("to", ["carol", "*"])
async def test_an_agent_reaches_nobody_it_may_not_write_to(tmp_path: Path, to: str, in_force: bool) -> None:
    async with running(tmp_path / "b.sqlite", agents=("alice", "bob", "carol")) as parts:
        if in_force:
            parts.broker.rules = SendRules({"alice": ["bob"]})
        with contextlib.suppress(HiveError):
            await parts.broker.send(ALICE, Send(to=to, body="psst"))
        assert bool(await parts.take("carol")) is not in_force


# --- one agent's socket ---------------------------------------------------------


async def _answer(request: wire.Request[Any], connection: Connection) -> wire.Model:
    return wire.Acked(acked=0)


@contextlib.asynccontextmanager
async def served(path: Path, limits: Limits = AGENT_LIMITS) -> AsyncIterator[SurfaceServer]:
    server = SurfaceServer(Surface.AGENT, listen(path, mode=0o600), _answer, limits)
    await server.start()
    yield server
    await server.close()


@IN_FORCE
@pytest.mark.parametrize(
    "line", [b"\n", b"{]\n", b'{"op":"status","id":1}\n'], ids=["empty", "garbage", "ask"]
)
async def test_who_sends_many_lines_at_once_lets_others_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes, in_force: bool
) -> None:
    """All of a buffer is there at once: reading on until it is empty would keep everybody else waiting."""
    if not in_force:
        monkeypatch.setattr(Pace, "turn", _no_turn)
    read = 0
    real_next = LineReader.next

    async def counted(lines: LineReader) -> bytes | None:
        nonlocal read
        got = await real_next(lines)
        read += 1
        return got

    calm_path = tmp_path / "calm.sock"
    async with served(tmp_path / "loud.sock"), served(calm_path):  # noqa: SIM117 - it listens first
        async with Client(calm_path) as calm:
            await calm.call(Ack(ids=[]))
            _, loud = await asyncio.open_unix_connection(tmp_path / "loud.sock")
            monkeypatch.setattr(LineReader, "next", counted)
            loud.write(line * 3000)
            await loud.drain()
            while not read:
                await asyncio.sleep(0)
            for _ in range(3):
                await calm.call(Ack(ids=[]))
            # The calm one's own three lines are among them. The limit on requests in flight, which holds
            # without the guard too, does not see empty lines and garbage.
            assert (read < 300) is (in_force or b"status" in line)
            loud.close()


async def _no_turn(self: Pace, cost: float = 1.0) -> None:
    return


@IN_FORCE
async def test_one_agent_gets_a_bounded_number_of_requests_at_once(tmp_path: Path, in_force: bool) -> None:
    limits = AGENT_LIMITS if in_force else Limits()
    async with served(tmp_path / "loud.sock", limits):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "loud.sock")
        writer.write(b'{"op":"status"}\n' * 1000)
        answered = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0 if in_force else GUARD_SECONDS):
                while answered < 1000:
                    await reader.readline()
                    answered += 1
        assert (answered == 1000) is not in_force
        writer.close()


async def test_large_lines_count_for_many() -> None:
    """A line of a megabyte takes as long to read as many small ones."""
    now = [0.0]
    pace = Pace(AGENT_LIMITS.requests_per_second, AGENT_LIMITS.request_burst, lambda: now[0])
    pace.charge(1 + wire.LINE_MAX_BYTES / surface.BYTES_OF_A_REQUEST)
    assert pace._free_at > 60 / AGENT_LIMITS.requests_per_second


@IN_FORCE
async def test_connections_of_one_agent_are_few(tmp_path: Path, in_force: bool) -> None:
    limits = AGENT_LIMITS if in_force else Limits(connections=10**6)
    loud, calm_path = tmp_path / "loud.sock", tmp_path / "calm.sock"
    async with served(loud, limits) as server, served(calm_path):  # noqa: SIM117 - they listen first
        async with contextlib.AsyncExitStack() as held:
            for _ in range(100):
                _, writer = await asyncio.open_unix_connection(loud)
                held.callback(writer.close)
            async with Client(calm_path) as calm:
                await calm.call(Ack(ids=[]))
            if not in_force:
                async with asyncio.timeout(GUARD_SECONDS):
                    while server.connections < 100:
                        await asyncio.sleep(0.01)
            assert (server.connections <= AGENT_LIMITS.connections) is in_force


# --- all agents' sockets together -----------------------------------------------


@contextlib.asynccontextmanager
async def sockets_of(root: Path, many: int, crowd: Crowd | None) -> AsyncIterator[list[SurfaceServer]]:
    async with contextlib.AsyncExitStack() as open_ones:
        servers = []
        for number in range(many):
            listener = listen(root / f"{number}.sock", mode=0o600)
            servers.append(SurfaceServer(Surface.AGENT, listener, _answer, AGENT_LIMITS, crowd))
            await servers[-1].start()
            open_ones.push_async_callback(servers[-1].close)
        yield servers


@IN_FORCE
async def test_fifty_agents_that_take_all_connections_leave_some_for_each_other(
    tmp_path: Path, in_force: bool
) -> None:
    together = Crowd() if in_force else None
    async with sockets_of(tmp_path, 51, together) as servers, contextlib.AsyncExitStack() as held:
        refused = 0
        for number in range(50):
            for _ in range(AGENT_LIMITS.connections):
                reader, writer = await asyncio.open_unix_connection(tmp_path / f"{number}.sock")
                held.callback(writer.close)
                writer.write(b'{"op":"status"}\n')
                refused += b"too_many_connections" in await reader.readline()
        taken = sum(server.connections for server in servers)
        assert taken + refused == 50 * AGENT_LIMITS.connections
        assert (taken <= 50 * AGENT_CONNECTIONS_RESERVED + AGENT_CONNECTIONS_COMMON) is in_force
        # The last of them comes when all the others hold what they got, and has its own.
        async with contextlib.AsyncExitStack() as clients:
            for _ in range(AGENT_CONNECTIONS_RESERVED):
                late = await clients.enter_async_context(Client(tmp_path / "50.sock"))
                await late.call(Ack(ids=[]))
        assert min(server.connections for server in servers[:50]) >= AGENT_CONNECTIONS_RESERVED


@IN_FORCE
async def test_lines_that_never_end_fill_bounded_memory_and_leave_room_for_a_long_one(
    tmp_path: Path, in_force: bool
) -> None:
    common = 4 * 2**20
    together = Crowd() if in_force else None
    if together is not None:
        together.line_bytes.common = common
    begun = b"x" * (wire.LINE_MAX_BYTES - 10)
    async with sockets_of(tmp_path, 7, together), contextlib.AsyncExitStack() as held:
        writers = []
        for number in range(6):
            for _ in range(8):
                _, writer = await asyncio.open_unix_connection(tmp_path / f"{number}.sock")
                held.callback(writer.transport.abort)
                writer.write(begun)
                writers.append(writer)
        left = -1
        while (now := sum(writer.transport.get_write_buffer_size() for writer in writers)) != left:
            left = now
            await asyncio.sleep(0.2)
        if together is None:
            assert left == 0  # core has all of it
        else:
            assert left > 0
            assert together.line_bytes.taken <= common
            assert together.line_bytes.taken > common // 2
        async with Client(tmp_path / "6.sock") as calm:
            await calm.call(Ack(ids=[]))
            reader, writer = await asyncio.open_unix_connection(tmp_path / "6.sock")
            padding = b" " * (wire.LINE_MAX_BYTES - 100)
            writer.write(b'{"op":"ack","ids":[1],' + padding + b'"id":7}\n')
            async with asyncio.timeout(GUARD_SECONDS):
                assert b'"ok":true' in await reader.readline()
            writer.close()
    if together is not None:
        assert (together.connections.taken, together.line_bytes.taken) == (0, 0)


# --- the dashboard's port -------------------------------------------------------


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as web:
        yield web


@IN_FORCE
async def test_requests_sent_far_ahead_are_cut_off(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    """A buffer holds thousands of requests, and the parser would take them all before anybody else's turn."""
    if not in_force:
        monkeypatch.setattr(listener, "PIPELINED_MAX", 10**9)
        monkeypatch.setattr(Strangers, "turn", _no_wait)
    request = f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\n\r\n"
    last = f"GET /login HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\nConnection: close\r\n\r\n"
    reply = await raw_request(hive.web.port, (request * 200 + last).encode())
    answered = reply.count(b"HTTP/1.1 200 OK")
    assert (answered <= listener.PIPELINED_MAX + 1) if in_force else answered == 201


async def _no_wait(self: Strangers) -> None:
    return


@IN_FORCE
async def test_strangers_wait_for_each_other_and_the_operator_for_none_of_them(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    operator = await hive.operator()
    if in_force:
        slow = Strangers(per_second=0.0001, burst=1)
        monkeypatch.setattr(_gate_of(hive), "_strangers", slow)
    crowd = [asyncio.create_task(hive.stranger().get("/api/state")) for _ in range(20)]
    async with asyncio.timeout(GUARD_SECONDS):
        while in_force and len(slow._waiting) < 19:
            await asyncio.sleep(0.01)
        for _ in range(5):
            assert (await operator.get("/api/state")).status_code == 200
            assert (await operator.get("/login")).status_code == 200
        if not in_force:
            await asyncio.wait(crowd)
    assert sum(task.done() for task in crowd) == (1 if in_force else 20)
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


def _gate_of(hive: WebHive) -> gate.Gate:
    assert hive.web._server is not None
    app: Any = hive.web._server._config.app
    while not isinstance(app, gate.Gate):
        app = app.app if hasattr(app, "app") else app._app
    return app


async def test_of_many_strangers_the_newest_has_a_turn_as_well_as_the_oldest() -> None:
    strangers = Strangers(per_second=1000, burst=1)
    strangers._tokens = -20.0  # so that the first is served when all of them wait, also on a slow machine
    strangers._at = asyncio.get_running_loop().time()
    order: list[int] = []

    async def wait(number: int) -> None:
        await strangers.turn()
        order.append(number)

    async with asyncio.TaskGroup() as waiting:
        for number in range(6):
            waiting.create_task(wait(number))
    assert order == [0, 5, 1, 4, 2, 3]


# --- all at once ----------------------------------------------------------------

ALL_OF_IT = list(crowd.ATTACKS)
MEMORY_MAX_MIB = 400


async def test_a_well_behaved_agent_is_served_while_a_crowd_does_its_worst(tmp_path: Path) -> None:
    """200 connections, a sender without pause, 10,000 waiting messages, 100 unread streams, strangers."""
    async with running_hive(tmp_path / "h") as hive:
        pid = (await hive.call(wire.DaemonStatus())).pid
        for name in ("alice", "bob", "mallory", "carol"):
            await hive.call(wire.Spawn(name=name))
        for name in ("alice", "bob", "mallory", "carol"):
            await hive.call(wire.Kill(name=name))
        await crowd.fill(hive, "carol", crowd.PENDING)
        async with asyncio.timeout(GUARD_SECONDS), crowd.under(hive, ALL_OF_IT):
            async with Client(hive.paths.socket("alice")) as alice, Client(hive.paths.socket("bob")) as bob:
                for number in range(20):
                    sent = await alice.call(Send(to="bob", body=f"{number}"))
                    received = await bob.call(wire.Recv(wait_seconds=30))
                    assert [message.id for message in received.messages] == sent.ids
                    await bob.call(Ack(ids=sent.ids))
            assert (await hive.call(wire.DaemonStatus())).pid == pid
        assert peak_mib(pid) < MEMORY_MAX_MIB
        assert "Traceback" not in hive.log()


def peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
