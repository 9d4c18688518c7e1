"""Attacks with too much of something, and with paths (SECURITY 11; static files).

Each rule that can be taken out is tried both ways: in force the attack fails, taken out it succeeds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hive_core.web import gate, listener, sse, static
from hive_core.web.listener import AgentPortProtocol, BoundedProtocol
from tests.support.web_hive import WebHive, raw_request, running_web, write_assets

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("alice")
        yield running


# --- bodies ---


@IN_FORCE
@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_that_is_too_large_is_refused(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, declared: bool, in_force: bool
) -> None:
    monkeypatch.setattr(gate, "BODY_MAX_BYTES", 10_000 if in_force else 10**9)
    operator = await hive.operator()
    body = b"to=alice&body=" + b"x" * 50_000

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    form = {"content-type": gate.FORM_TYPE}
    reply = await operator.post("/send", content=body if declared else chunks(), headers=form)
    assert reply.status_code == (413 if in_force else 200)
    assert (await operator.get("/api/state")).status_code == 200


async def test_the_largest_message_fits_however_it_is_encoded(hive: WebHive) -> None:
    operator = await hive.operator()
    reply = await operator.post("/send", data={"to": "alice", "body": "é" * (128 * 1024)})
    assert reply.status_code == 200
    larger = await operator.post("/send", data={"to": "alice", "body": "é" * (128 * 1024) + "x"})
    assert larger.status_code == 413
    assert "/shared" in larger.json()["error"]["message"]


@IN_FORCE
async def test_who_is_not_logged_in_cannot_make_core_read_a_large_body(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(gate, "LOGIN_BODY_MAX_BYTES", 10**9)
    code = (await hive.web.login_url()).code
    reply = await hive.stranger().post("/login", data={"code": code, "padding": "x" * 20_000})
    assert reply.status_code == (413 if in_force else 200)


@IN_FORCE
async def test_a_body_that_trickles_in_is_given_up(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(gate, "BODY_SECONDS", 0.1 if in_force else 3600)
    head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\nOrigin: {hive.base}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", hive.web.port)
    writer.write(f"{head}Content-Length: 10\r\n\r\ncode".encode())
    try:
        async with asyncio.timeout(30 if in_force else 1):
            answer = await reader.readline()
    except TimeoutError:
        answer = b""
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408") is in_force


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", "text/xml"]
)
async def test_only_forms_are_taken(hive: WebHive, kind: str) -> None:
    operator = await hive.operator()
    reply = await operator.post("/send", content=b"to=alice&body=x", headers={"content-type": kind})
    assert reply.status_code == 415


@pytest.mark.parametrize(
    "length", ["-1", "+1", "1_0", "0x10", "1e3", "99999999999999999999999999", "9" * 5000, "1, 1", ""]
)
async def test_a_strange_content_length_is_an_error_and_no_crash(hive: WebHive, length: str) -> None:
    head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\nOrigin: {hive.base}\r\n"
    request = f"{head}Content-Length: {length}\r\nConnection: close\r\n\r\n".encode()
    reply = await raw_request(hive.web.port, request)
    assert reply.split(b" ", 2)[1] in (b"400", b"413", b"422")


# --- connections ---


async def _idle(port: int, number: int) -> list[asyncio.StreamWriter]:
    return [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(number)]


def _held(hive: WebHive) -> int:
    assert hive.web._server is not None
    return len(hive.web._server._server.server_state.connections)


@IN_FORCE
async def test_idle_connections_of_strangers_are_bounded_and_lock_nobody_out(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(BoundedProtocol, "connections_max", 8)
    if not in_force:
        monkeypatch.setattr(BoundedProtocol, "_make_room", lambda self: None)
    operator = await hive.operator()
    stream = asyncio.create_task(operator.get("/messages/stream"))
    await _until(lambda: len(hive.web.streams) == 1)
    flood = await _idle(hive.web.port, 50)
    assert (await operator.get("/api/state")).status_code == 200
    assert (_held(hive) <= 9) is in_force
    assert len(hive.web.streams) == 1  # who has a session keeps the connection
    for writer in flood:
        writer.close()
    stream.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await stream


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


@IN_FORCE
async def test_headers_without_end_are_cut_off(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(listener, "HEAD_MAX_BYTES", 10**9)
    reader, writer = await asyncio.open_connection("127.0.0.1", hive.web.port)
    writer.write(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\n".encode())
    answer = b""
    for number in range(100):
        with contextlib.suppress(ConnectionError):
            writer.write(f"x-{number}: {'y' * 1000}\r\n".encode())
            await writer.drain()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30 if in_force else 0.5):
            answer = await reader.readline()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400") is in_force


@IN_FORCE
async def test_headers_that_trickle_in_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(listener, "HEAD_SECONDS", 0.1 if in_force else 3600)
    async with running_web(tmp_path) as hive:
        reader, writer = await asyncio.open_connection("127.0.0.1", hive.web.port)
        writer.write(b"GET / HT")
        ended = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30 if in_force else 0.5):
                ended = await _ends(reader)
        writer.close()
        assert ended is in_force


async def _ends(reader: asyncio.StreamReader) -> bool:
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


async def test_a_connection_is_used_again_for_the_next_request(hive: WebHive) -> None:
    """The limit on headers counts for each request, not for the life of a connection."""
    host = f"Host: 127.0.0.1:{hive.web.port}\r\n"
    padding = "x: " + "y" * 20_000
    requests = f"GET /login HTTP/1.1\r\n{host}{padding}\r\n\r\n" * 4
    last = f"GET /login HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    reply = await raw_request(hive.web.port, (requests + last).encode())
    assert reply.count(b"HTTP/1.1 200 OK") == 5


async def test_an_agents_port_holds_few_connections(hive: WebHive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AgentPortProtocol, "connections_max", 4)
    await _until(lambda: "alice" in hive.web.ports.open_ports())
    port = hive.web.ports.open_ports()["alice"]
    flood = await _idle(port, 30)
    server = hive.web.ports._servers["alice"]._server
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 307
    assert len(server.server_state.connections) <= 5
    for writer in flood:
        writer.close()


# --- streams ---


@IN_FORCE
async def test_streams_of_one_browser_and_of_all_are_bounded(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if in_force:
        hive.web.streams._most, hive.web.streams._most_per_session = 5, 3
    first, second = await hive.operator(), await hive.operator()
    held = contextlib.AsyncExitStack()

    async def statuses(browser: httpx.AsyncClient) -> list[int]:
        streams = [browser.stream("GET", "/messages/stream") for _ in range(4)]
        return [(await held.enter_async_context(stream)).status_code for stream in streams]

    async with held:
        expected = ([200, 200, 200, 429], [200, 200, 503, 503]) if in_force else ([200] * 4, [200] * 4)
        assert (await statuses(first), await statuses(second)) == expected
    await _until(lambda: len(hive.web.streams) == 0)
    assert hive.actions.feed.subscribers <= 1  # the watcher of agents' ports


@IN_FORCE
async def test_a_reader_that_stalls_is_dropped(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(sse, "SEND_SECONDS", 0.2 if in_force else 3600)
    operator = await hive.operator()
    position = hive.actions.feed.position()
    cookie = f"{hive.cookie}={operator.cookies[hive.cookie]}"
    head = (
        f"GET /messages/stream HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\nCookie: {cookie}\r\n"
        f"X-Hive-Key: {operator.headers['x-hive-key']}\r\nLast-Event-ID: {position}\r\n\r\n"
    )
    # The reader takes 64 KiB at most by itself, and never asks for more.
    _, writer = await asyncio.open_connection("127.0.0.1", hive.web.port, limit=1024)
    writer.write(head.encode())
    await _until(lambda: len(hive.web.streams) == 1)
    for number in range(60):
        hive.actions.feed.publish("message", {"id": number, "body": "x" * 250_000})
        await asyncio.sleep(0)
    dropped = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30 if in_force else 1):
            while not dropped:
                await asyncio.sleep(0.02)
                dropped = len(hive.web.streams) == 0
    assert dropped is in_force
    assert (await operator.get("/login")).status_code == 200
    writer.transport.abort()


# --- files ---

OUTSIDE = [
    "/static/../secret.txt",
    "/static/..%2fsecret.txt",
    "/static/%2e%2e/secret.txt",
    "/static/js/../../secret.txt",
    "/static/js/%2e%2e%2f%2e%2e%2fsecret.txt",
    "/static/{absolute}",
    "/static/link.txt",
    "/static/linked/secret.txt",
]


@IN_FORCE
async def test_only_files_of_the_assets_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    assets = write_assets(tmp_path / "assets")
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    (assets / "link.txt").symlink_to(secret)
    (assets / "linked").symlink_to(tmp_path)
    (assets / ".hidden.txt").write_text("the secret")
    if not in_force:
        monkeypatch.setattr(static.Assets, "get", _naive)
    async with running_web(tmp_path, assets) as hive:
        leaked = []
        for path in [*OUTSIDE, "/static/.hidden.txt"]:
            path = path.format(absolute=str(secret))
            head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\nConnection: close\r\n\r\n"
            reply = await raw_request(hive.web.port, head.encode())
            leaked += [path] if b"the secret" in reply else []
        assert (leaked == []) is in_force


def _naive(self: static.Assets, name: str) -> static.Asset:
    body = (self.directory / name).read_bytes()
    return static.Asset(body, "text/plain", "x", 0)


async def test_an_upgrade_is_no_way_around_the_gate(hive: WebHive) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    head = f"GET /api/state HTTP/1.1\r\nHost: 127.0.0.1:{hive.web.port}\r\n{upgrade}\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", hive.web.port)
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    writer.close()
