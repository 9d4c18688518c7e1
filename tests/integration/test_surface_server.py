"""One server and one client on real Unix sockets: order, limits, hostile peers (SPEC 4, SECURITY 10, 11)."""

import asyncio
import json
import os
import random
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_shared import wire
from hive_shared.client import Client, NotReachable, call_once
from hive_shared.errors import Forbidden, HiveError, Internal, TooManyConnections, Unavailable
from hive_shared.server import Answer, Connection, Limits, SurfaceServer
from hive_shared.sockets import connect_untrusted, listen, short_address
from hive_shared.wire import Surface

QUICK = Limits(connections=8, in_flight=4, line_seconds=0.5, write_seconds=0.5)


class Recorder:
    """A handler that shows what the server does with requests."""

    def __init__(self) -> None:
        self.released = 0
        self.cancelled = 0
        self.gate = asyncio.Event()

    async def __call__(self, request: wire.Request[Any], connection: Connection) -> Answer:
        if isinstance(request, wire.Recv):
            connection.on_close.append(self._release)
            try:
                await asyncio.wait_for(self.gate.wait(), request.wait_seconds or None)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return wire.Received(messages=[], unread=0)
        if isinstance(request, wire.Ack):
            return wire.Acked(acked=len(request.ids))
        if isinstance(request, wire.Send):
            if request.to == "crash":
                raise ZeroDivisionError
            return wire.Sent(ids=[len(request.body)])
        if isinstance(request, wire.Messages):
            return self._follow(request.limit)
        return wire.LogLines(lines=["x" * 1000] * 2000)  # more than one line may hold

    def _release(self) -> None:
        self.released += 1

    async def _follow(self, count: int) -> AsyncIterator[wire.Model]:
        for number in range(count):
            yield wire.Message(id=number + 1, sender="a", to="b", body="", sent_at_ms=0)
        yield wire.MessageList(messages=[])


class Served:
    def __init__(self, path: Path, handler: Recorder, server: SurfaceServer) -> None:
        self.path, self.handler, self.server = path, handler, server

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path), limit=2**22)

    async def still_well(self) -> None:
        async with asyncio.timeout(60):
            sent = await call_once(self.path, wire.Send(to="bob", body="12345"))
        assert sent.ids == [5]


async def serve(path: Path, surface: Surface, limits: Limits) -> AsyncIterator[Served]:
    handler = Recorder()
    server = SurfaceServer(surface, listen(path, mode=0o600), handler, limits)
    await server.start()
    yield Served(path, handler, server)
    await server.close()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Served]:
    async for served in serve(tmp_path / "mcp.sock", Surface.AGENT, QUICK):
        yield served


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Served]:
    async for served in serve(tmp_path / "host.sock", Surface.HOST, QUICK):
        yield served


async def lines_of(reader: asyncio.StreamReader, count: int) -> list[dict[str, Any]]:
    async with asyncio.timeout(60):
        return [json.loads(await reader.readline()) for _ in range(count)]


async def test_requests_without_ids_are_answered_in_order(agent: Served) -> None:
    reader, writer = await agent.raw()
    for size in (3, 1, 2):
        writer.write(json.dumps({"op": "send", "to": "b", "body": "x" * size}).encode() + b"\n")
    replies = await lines_of(reader, 3)
    assert [reply["result"]["ids"] for reply in replies] == [[3], [1], [2]]
    assert all("id" not in reply for reply in replies)
    writer.close()


async def test_a_long_poll_with_an_id_does_not_hold_up_the_next_request(agent: Served) -> None:
    reader, writer = await agent.raw()
    writer.write(b'{"op":"recv","wait_seconds":60,"id":"slow"}\n{"op":"ack","ids":[1],"id":7}\n')
    assert (await lines_of(reader, 1))[0]["id"] == 7
    agent.handler.gate.set()
    assert (await lines_of(reader, 1))[0]["id"] == "slow"
    writer.close()


async def test_every_bad_line_is_answered_and_the_connection_stays_usable(agent: Served) -> None:
    reader, writer = await agent.raw()
    bad = [
        (b"hello", "bad_json"),
        (b"[1]", "bad_json"),
        (b"\xff\xfe{}", "bad_json"),
        (b'{"op":"nonsense"}', "unknown_op"),
        (b'{"op":"approve","approval_id":1}', "forbidden"),
        (b'{"op":"send","to":"bob"}', "bad_request"),
        (b'{"op":"send","to":"crash","body":"x"}', "internal"),
        (b'{"op":"recv","max":"many"}', "bad_request"),
    ]
    for line, code in bad:
        writer.write(line + b"\n")
        (reply,) = await lines_of(reader, 1)
        assert (reply["ok"], reply["error"]["code"]) == (False, code)
        assert reply["error"]["message"]
    writer.write(b'{"op":"ack","ids":[1,2]}\n')
    assert (await lines_of(reader, 1))[0]["result"] == {"acked": 2}
    writer.close()


async def test_an_over_long_line_gets_an_error_and_ends_that_connection_only(agent: Served) -> None:
    reader, writer = await agent.raw()
    writer.write(b'{"op":"send","to":"bob","body":"' + b"x" * (3 * 2**20))
    (reply,) = await lines_of(reader, 1)
    assert reply["error"]["code"] == "line_too_long"
    assert await reader.read() == b""
    await agent.still_well()


async def test_a_line_of_exactly_the_limit_is_read(agent: Served) -> None:
    reader, writer = await agent.raw()
    start = b'{"op":"ack","ids":[5],"padding":"'
    writer.write(start + b"x" * (wire.LINE_MAX_BYTES - len(start) - 3) + b'"}\n')
    assert (await lines_of(reader, 1))[0] == {"ok": True, "result": {"acked": 1}}
    writer.close()


async def test_an_unfinished_line_cannot_hold_a_connection_for_ever(agent: Served) -> None:
    reader, writer = await agent.raw()
    writer.write(b'{"op":')
    (reply,) = await lines_of(reader, 1)
    assert reply["error"]["code"] == "timeout"
    assert await reader.read() == b""
    writer.close()


async def test_a_half_closed_peer_still_gets_its_answers_and_half_a_request_is_none(agent: Served) -> None:
    reader, writer = await agent.raw()
    writer.write(b'{"op":"ack","ids":[1]}\n{"op":"ack","ids":[1')
    writer.write_eof()
    async with asyncio.timeout(60):
        answer = await reader.read()
    assert answer.count(b"\n") == 1
    assert json.loads(answer)["result"] == {"acked": 1}


async def test_a_peer_that_goes_away_ends_its_long_poll_and_its_lease(agent: Served) -> None:
    client = Client(agent.path)
    await client.connect()
    polling = asyncio.create_task(client.call(wire.Recv(wait_seconds=100)))
    while not agent.server.connections:
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(NotReachable):
        await polling
    async with asyncio.timeout(60):
        while agent.server.connections:
            await asyncio.sleep(0.01)
    assert (agent.handler.released, agent.handler.cancelled) == (1, 1)


async def test_too_many_connections_are_refused_and_room_is_made_again(agent: Served) -> None:
    clients = [Client(agent.path) for _ in range(QUICK.connections)]
    for client in clients:
        await client.connect()
        await client.call(wire.Ack(ids=[1]))
    with pytest.raises(TooManyConnections):
        await call_once(agent.path, wire.Ack(ids=[1]))
    await clients[0].close()
    while agent.server.connections >= QUICK.connections:
        await asyncio.sleep(0.01)
    await agent.still_well()
    for client in clients[1:]:
        await client.close()


async def test_a_peer_that_never_reads_is_dropped_and_others_do_not_wait(host: Served) -> None:
    _, writer = await host.raw()
    for _ in range(20):
        writer.write(b'{"op":"messages","limit":1000,"follow":true,"id":1}\n' * 50)
    await host.still_well()
    async with asyncio.timeout(30):
        while host.server.connections:
            await asyncio.sleep(0.05)
    writer.close()


async def test_following_streams_items_then_the_result(host: Served) -> None:
    async with Client(host.path) as client:
        seen = [item async for item in client.follow(wire.Messages(limit=3))]
    assert [type(item) for item in seen] == [wire.Message] * 3 + [wire.MessageList]


async def test_a_reply_longer_than_a_line_becomes_a_clear_refusal(host: Served) -> None:
    with pytest.raises(HiveError, match="Ask for less"):
        await call_once(host.path, wire.Logs(name="alice", lines=2000))


async def test_a_failing_handler_is_an_internal_error_without_its_details(agent: Served) -> None:
    with pytest.raises(Internal) as error:
        await call_once(agent.path, wire.Send(to="crash", body="x"))
    assert "division" not in error.value.message.lower()
    await agent.still_well()


async def test_the_client_raises_the_error_of_the_daemon(agent: Served) -> None:
    with pytest.raises(Forbidden):
        await call_once(agent.path, wire.Approve(approval_id=1))


async def test_nobody_there_is_not_reachable(tmp_path: Path) -> None:
    with pytest.raises(NotReachable, match=r"nobody\.sock"):
        await call_once(tmp_path / "nobody.sock", wire.Status())


async def test_a_socket_has_its_final_mode_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "mcp.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    before = os.umask(0)
    try:
        listener = listen(path, mode=0o660)
    finally:
        os.umask(before)
    found = path.lstat()
    assert (stat.S_ISSOCK(found.st_mode), stat.S_IMODE(found.st_mode)) == (True, 0o660)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mcp.sock"]
    listener.close()


async def test_paths_longer_than_an_address_still_work(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async for served in serve(deep / "mcp.sock", Surface.AGENT, QUICK):
        await served.still_well()


async def test_a_link_where_the_agents_socket_should_be_is_not_followed(tmp_path: Path) -> None:
    target = listen(tmp_path / "host.sock", mode=0o600)
    (tmp_path / "page.sock").symlink_to(tmp_path / "host.sock")
    with pytest.raises(Unavailable):
        connect_untrusted(tmp_path / "page.sock")
    target.close()


async def test_a_hard_link_to_ones_own_socket_is_refused(tmp_path: Path) -> None:
    target = listen(tmp_path / "host.sock", mode=0o600)
    os.link(tmp_path / "host.sock", tmp_path / "page.sock")
    with short_address(tmp_path / "page.sock") as address, socket.socket(socket.AF_UNIX) as naive:
        naive.connect(address)  # what would happen without the guard
    with pytest.raises(Unavailable, match="back to this daemon"):
        connect_untrusted(tmp_path / "page.sock")
    target.close()


def test_no_file_but_a_socket_is_connected_to(tmp_path: Path) -> None:
    (tmp_path / "page.sock").write_text("not a socket")
    with pytest.raises(Unavailable, match="not a socket"):
        connect_untrusted(tmp_path / "page.sock")


GARBAGE = [b"{", b"}", b'"', b"\\", b"\x00", b"\n", b"\r\n", b"\xff", b'{"op":"', b"[[[[", b"null\n"]
PIECES = [*GARBAGE, b'{"op":"recv","wait_seconds":1e400}\n', b'{"op":"ack","ids":[1]}\n', b"x" * 5000]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_a_thousand_hostile_connections_leave_the_server_well(agent: Served, seed: int) -> None:
    rng = random.Random(seed)

    async def attack() -> None:
        try:
            _, writer = await agent.raw()
            for _ in range(rng.randrange(20)):
                writer.write(rng.choice(PIECES))
            how = rng.randrange(4)
            if how == 0:
                writer.transport.abort()
            elif how == 1:
                writer.write_eof()
            elif how == 2:
                await asyncio.sleep(rng.random() / 50)
            writer.close()
        except (ConnectionError, OSError, RuntimeError):
            return

    for _ in range(25):
        await asyncio.gather(*(attack() for _ in range(10)))
    async with asyncio.timeout(60):
        while agent.server.connections:
            await asyncio.sleep(0.05)
    await agent.still_well()
