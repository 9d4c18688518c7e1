"""One MCP session, held against the revisions of the protocol and the SDK's own types."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp_types import jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from hive_agent import mcp_server
from hive_agent.mcp_limits import CALLS_MAX, LINE_MAX_BYTES
from hive_agent.tools import TOOLS


class Peer:
    """The client's end of a session, by hand; and the calls that arrived at the tools."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.go_on = asyncio.Event()
        self.cancelled = 0

    async def tool(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        self.calls.append((name, arguments))
        if name == "recv":
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return f"{name} done", name == "kill"

    def write(self, *messages: Any) -> None:
        for message in messages:
            line = message if isinstance(message, bytes) else json.dumps(message).encode()
            self.writer.write(line + b"\n")

    async def answer(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            line = await self.reader.readline()
        jsonrpc_message_adapter.validate_json(line, by_name=False)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ask(self, method: str, number: Any = 1, **params: Any) -> dict[str, Any]:
        self.write({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        return await self.answer()

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(60):
            while len(self.calls) < calls:
                await asyncio.sleep(0.001)


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    async with connected(tmp_path / "s") as made:
        yield made


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Peer]:
    sessions: list[asyncio.Task[None]] = []
    peers: list[Peer] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        sessions.append(task)
        await mcp_server.serve(TOOLS, lambda name, given: peers[0].tool(name, given), reader, writer)

    server = await asyncio.start_unix_server(accept, path, limit=LINE_MAX_BYTES)
    peers.append(Peer(*await asyncio.open_unix_connection(path, limit=LINE_MAX_BYTES)))
    try:
        yield peers[0]
    finally:
        peers[0].writer.close()
        server.close()
        async with asyncio.timeout(60):
            await asyncio.gather(*sessions)


def test_the_revisions_are_those_that_the_sdk_shakes_hands_on() -> None:
    assert mcp_server.REVISIONS == HANDSHAKE_PROTOCOL_VERSIONS


@pytest.mark.parametrize("wanted", [*HANDSHAKE_PROTOCOL_VERSIONS, "2199-01-01", None, 7])
async def test_the_revision_is_the_clients_or_our_newest(peer: Peer, wanted: Any) -> None:
    answer = await peer.ask("initialize", protocolVersion=wanted, capabilities={}, clientInfo={})
    told = types.InitializeResult.model_validate(answer["result"])
    assert told.protocol_version == (wanted if wanted in HANDSHAKE_PROTOCOL_VERSIONS else "2025-11-25")
    assert told.server_info.name == "hyperhive"
    assert told.capabilities.tools is not None
    assert told.capabilities.resources is None


async def test_the_tools_are_what_the_sdk_takes_for_tools(peer: Peer) -> None:
    listed = types.ListToolsResult.model_validate((await peer.ask("tools/list"))["result"])
    assert [tool.name for tool in listed.tools] == [tool.name for tool in TOOLS]
    by_name = {tool.name: tool for tool in listed.tools}
    assert by_name["send"].input_schema["required"] == ["to", "body"]
    hints = by_name["whoami"].annotations
    assert hints is not None
    assert (hints.read_only_hint, hints.open_world_hint) == (True, False)


async def test_a_call_and_a_failure_are_answered(peer: Peer) -> None:
    answer = await peer.ask("tools/call", "a", name="send", arguments={"to": "bob"})
    told = types.CallToolResult.model_validate(answer["result"])
    assert (answer["id"], told.is_error, told.content) == (
        "a",
        False,
        [types.TextContent(type="text", text="send done")],
    )
    assert (await peer.ask("tools/call", name="kill"))["result"]["isError"] is True
    assert peer.calls == [("send", {"to": "bob"}), ("kill", {})]
    assert (await peer.ask("ping"))["result"] == {}


async def test_a_long_call_holds_nobody_up_and_can_be_taken_back(peer: Peer) -> None:
    peer.write({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "recv"}})
    await peer.until(calls=1)
    assert (await peer.ask("ping", 2))["id"] == 2
    for about in ({"requestId": 99}, {"requestId": []}, {}, {"requestId": 1}):
        peer.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": about})
    async with asyncio.timeout(60):
        while not peer.cancelled:
            await asyncio.sleep(0.001)
    answer = await peer.ask("tools/call", 1, name="send")  # its id is free again, and it got no answer
    assert answer["result"]["content"][0]["text"] == "send done"


BAD: list[tuple[Any, int, Any]] = [
    (b"garbage", mcp_server.PARSE_ERROR, None),
    (b"\xff\xfe", mcp_server.PARSE_ERROR, None),
    (b"[" * 100_000, mcp_server.PARSE_ERROR, None),
    (b'{"jsonrpc":"2.0","id":' + b"9" * 5000 + b',"method":"ping"}', mcp_server.PARSE_ERROR, None),
    ([], mcp_server.INVALID_REQUEST, None),
    ({}, mcp_server.INVALID_REQUEST, None),
    ({"jsonrpc": "1.0", "id": 3, "method": "ping"}, mcp_server.INVALID_REQUEST, 3),
    ({"jsonrpc": "2.0", "id": 3}, mcp_server.INVALID_REQUEST, 3),
    ({"jsonrpc": "2.0", "id": 3, "method": 5}, mcp_server.INVALID_REQUEST, 3),
    ({"jsonrpc": "2.0", "id": None, "method": "ping"}, mcp_server.INVALID_REQUEST, None),
    ({"jsonrpc": "2.0", "id": True, "method": "ping"}, mcp_server.INVALID_REQUEST, None),
    ({"jsonrpc": "2.0", "id": 3, "method": "ping", "params": []}, mcp_server.INVALID_PARAMS, 3),
    ({"jsonrpc": "2.0", "id": 3, "method": "server/discover"}, mcp_server.METHOD_NOT_FOUND, 3),
    ({"jsonrpc": "2.0", "id": 3, "method": "tools/call"}, mcp_server.INVALID_PARAMS, 3),
    (
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "send", "arguments": []}},
        mcp_server.INVALID_PARAMS,
        3,
    ),
]


@pytest.mark.parametrize(("message", "code", "number"), BAD)
async def test_what_cannot_be_answered_is_refused_and_the_session_goes_on(
    peer: Peer, message: Any, code: int, number: Any
) -> None:
    peer.write(message)
    refused = await peer.answer()
    assert (refused["error"]["code"], refused["id"]) == (code, number)
    assert (await peer.ask("ping", 4))["id"] == 4
    assert peer.calls == []


async def test_notifications_and_answers_to_nothing_get_no_answer(peer: Peer) -> None:
    peer.write({"jsonrpc": "2.0", "method": "notifications/initialized"})
    peer.write({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "send"}})
    peer.write({"jsonrpc": "2.0", "id": 8, "result": {}})
    assert (await peer.ask("ping", 9))["id"] == 9
    assert peer.calls == []


async def test_calls_at_once_are_bounded_and_each_id_is_used_once(peer: Peer) -> None:
    call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "recv"}}
    for number in range(CALLS_MAX):
        peer.write({**call, "id": number})
    await peer.until(calls=CALLS_MAX)
    twice = await peer.ask("tools/call", 0, name="recv")
    assert "not answered yet" in twice["error"]["message"]
    more = await peer.ask("tools/call", 1000, name="send")
    assert (more["id"], "under way" in more["error"]["message"]) == (1000, True)
    peer.go_on.set()
    answered = {(await peer.answer())["id"] for _ in range(CALLS_MAX)}
    assert answered == set(range(CALLS_MAX))


async def test_what_was_asked_before_the_end_of_input_is_answered(peer: Peer) -> None:
    """The relay ends so: a CLI has closed its end and reads the last answers."""
    peer.write({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "recv"}})
    await peer.until(calls=1)
    peer.writer.write_eof()
    peer.go_on.set()
    assert (await peer.answer())["id"] == 1
    assert await peer.reader.read() == b""


async def test_a_client_that_goes_away_takes_its_calls_along(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "LINGER_SECONDS", 0.01)
    peer.write({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "recv"}})
    await peer.until(calls=1)
    peer.writer.close()
    async with asyncio.timeout(60):
        while not peer.cancelled:
            await asyncio.sleep(0.001)
