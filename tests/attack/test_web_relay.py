"""Attacks by a harness on the operator who looks at its page (SECURITY 2, 4, 9, 10 and 11).

The harness is whatever listens on `page.sock`; every byte of it is hostile. Where a rule can be taken
out, the attack is tried both ways.
"""

import asyncio
import json
import os
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from hive_core.web import relay
from hive_shared import sockets
from tests.support.web_hive import (
    RawHarness,
    WebHive,
    event_stream,
    http_answer,
    read_events,
    running_web,
)

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
STATE = "/agents/alice/api/state"
STREAM = "/agents/alice/events/stream"

Serve = Callable[..., Awaitable[RawHarness]]


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("alice")
        yield running


@pytest.fixture
async def serve(hive: WebHive, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Listen on alice's page.sock. The test and core are one process, which core would rightly refuse."""
    monkeypatch.setattr(sockets, "peer_process", lambda peer: 0)
    harnesses: list[RawHarness] = []

    async def listen(answer: bytes, *, linger: bool = False) -> RawHarness:
        path = hive.paths.page_socket("alice")
        path.unlink(missing_ok=True)
        harnesses.append(await RawHarness(answer, linger=linger).listen(path))
        return harnesses[-1]

    yield listen
    for harness in harnesses:
        await harness.close()


# --- what the harness learns ---


async def test_the_harness_never_sees_anything_of_the_operators_session(
    operator: httpx.AsyncClient, serve: Serve
) -> None:
    harness = await serve(http_answer(b"{}"))
    operator.headers["authorization"] = "Basic c2VjcmV0"
    operator.headers["user-agent"] = "Operators-Browser"
    operator.headers["x-forwarded-for"] = "192.0.2.7"
    await operator.get(f"{STATE}?secret=query")
    await operator.get("/agents/alice/events/history?limit=10&secret=query")
    await operator.get(STREAM, headers={"last-event-id": "7"})
    for path in ("api/cancel", "api/compact", "api/new-session", "login/start", "login/cancel"):
        await operator.post(f"/agents/alice/{path}", data={"secret": "field"})
    await operator.post("/agents/alice/api/model", data={"model": "opus", "secret": "field"})
    await operator.post("/agents/alice/login/code", data={"code": "pasted", "secret": "field"})
    heard = b"".join(harness.heard).lower()
    assert len(harness.heard) == 10
    hidden = [operator.headers["x-hive-key"], *operator.cookies.values(), "cookie", "x-hive-key"]
    hidden += ["authorization", "c2vjcmv0", "operators-browser", "192.0.2.7", "origin", "secret", "127.0.0.1"]
    assert [text for text in hidden if text.lower().encode() in heard] == []
    assert b"post /api/model http/1.1" in heard
    assert b"model=opus" in heard


async def test_only_the_listed_paths_reach_the_harness(operator: httpx.AsyncClient, serve: Serve) -> None:
    harness = await serve(http_answer(b"{}"))
    for path in ("/", "/api/secret", "/events/stream/x", "/../api/state", "/api/state/", "/%2e%2e/x", "//x"):
        await operator.get(f"/agents/alice{path}x")
    for path in ("/api/state", "/api/anything", "/login/other", "/api/cancel/x"):
        await operator.post(f"/agents/alice{path}", data={})
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        await operator.request(method, STATE)
    assert harness.heard == []


async def test_headers_cannot_be_smuggled_through_fields(operator: httpx.AsyncClient, serve: Serve) -> None:
    harness = await serve(http_answer(b"{}"))
    smuggled = "x\r\nHost: evil\r\n\r\nPOST /login/cancel HTTP/1.1\r\n"
    model = await operator.post("/agents/alice/api/model", data={"model": smuggled})
    code = await operator.post("/agents/alice/login/code", data={"code": smuggled})
    await operator.get(STREAM, headers={"last-event-id": "7 8"})
    assert model.status_code == 422
    assert code.status_code == 200
    assert len(harness.heard) == 2
    assert harness.heard[0].count(b"\r\n\r\n") == 1
    assert b"code=x%0D%0AHost%3A" in harness.heard[0]
    assert b"last-event-id" not in harness.heard[1]


# --- what the browser gets ---


@IN_FORCE
async def test_no_header_of_the_harness_reaches_the_browser(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    hostile = {
        "set-cookie": "hive_session_7000=planted; Path=/",
        "content-type": "text/html",
        "content-security-policy": "default-src *",
        "access-control-allow-origin": "*",
        "clear-site-data": '"cookies"',
        "location": "http://evil.example/",
        "link": "<http://evil.example/x.js>; rel=preload",
        "x-evil": "1",
    }
    await serve(http_answer(b'{"ok":1}', headers=hostile))
    if not in_force:
        monkeypatch.setattr("hive_core.web.agent_pages.json_bytes", _with_headers(hostile))
    reply = await operator.get(STATE)
    assert reply.json() == {"ok": 1}
    assert ("x-evil" in reply.headers) is not in_force
    assert (reply.headers.get("set-cookie") is None) is in_force
    if in_force:
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert not {"location", "link", "clear-site-data", "access-control-allow-origin"} & set(reply.headers)
        assert "default-src *" not in reply.headers["content-security-policy"]


def _with_headers(headers: dict[str, str]) -> Callable[[bytes, int], object]:
    from starlette.responses import Response

    return lambda body, status: Response(body, status, headers)


@IN_FORCE
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "401 Unauthorized"])
async def test_the_harness_cannot_send_the_browser_elsewhere_or_log_it_out(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, status: str, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(relay, "PASSED_STATUS", range(100, 600))
    await serve(http_answer(b"{}", status=status, headers={"location": "http://evil.example/"}))
    reply = await operator.get(STATE)
    assert reply.status_code == (502 if in_force else int(status[:3]))
    assert "location" not in reply.headers
    if in_force:
        assert reply.json()["error"]["code"] == "unhealthy"


GARBAGE = {
    "html": http_answer(b"<script>alert(1)</script>", headers={"content-type": "text/html"}),
    "not an object": http_answer(b"[1]"),
    "cut short": http_answer(b'{"a":1')[:-1],
    "shorter than it says": http_answer(b"{}", headers={"content-length": "99"}),
    "two values": http_answer(b"{} {}"),
    "not a number": http_answer(b'{"a":NaN}'),
    "not utf-8": http_answer(b'{"a":"\xff"}'),
    "utf-16": http_answer('{"a":1}'.encode("utf-16")),
    "deep": http_answer(b'{"a":' + b"[" * 100_000),
    "compressed": http_answer(zlib.compress(b"{}"), headers={"content-encoding": "deflate"}),
    "empty": http_answer(b""),
    "nothing at all": b"",
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "http/0.9": b"{}",
    "endless head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,
    "a line of zeros": b"\x00" * 5000,
    "two lengths": http_answer(b"{}", headers={"Content-Length": "1"}),
    "a bad chunk": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}",
    "informational without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_becomes_one_clear_error(
    operator: httpx.AsyncClient, serve: Serve, answer: bytes
) -> None:
    await serve(answer)
    reply = await operator.get(STATE)
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "unhealthy"
    assert len(reply.content) < 1000
    assert (await operator.get("/api/state")).status_code == 200


@IN_FORCE
async def test_what_is_not_json_is_not_passed_on(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    await serve(GARBAGE["html"])
    if not in_force:
        monkeypatch.setattr(relay, "_checked_object", lambda body: body)
    reply = await operator.get(STATE)
    assert (b"<script>" in reply.content) is not in_force


@IN_FORCE
@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
async def test_a_huge_answer_is_cut_off(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, chunked: bool, in_force: bool
) -> None:
    monkeypatch.setattr(relay, "BODY_MAX_BYTES", 100_000 if in_force else 10**9)
    body = json.dumps({"a": "x" * 300_000}).encode()
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    parts = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in _pieces(body, 10_000)) + b"0\r\n\r\n"
    await serve(head + parts if chunked else http_answer(body))
    reply = await operator.get(STATE)
    assert reply.status_code == (502 if in_force else 200)


def _pieces(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


@IN_FORCE
async def test_an_answer_that_never_ends_does_not_hold_the_browser(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    monkeypatch.setattr(relay, "ANSWER_SECONDS", 0.2 if in_force else 3600)
    await serve(http_answer(b"{", headers={"content-length": "2"}), linger=True)
    if in_force:
        assert (await operator.get(STATE)).status_code == 504
        return
    with pytest.raises(httpx.ReadTimeout):
        await operator.get(STATE, timeout=1.0)


async def test_an_answer_in_tiny_chunks_leaves_the_daemon_time_for_others(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte a chunk costs core as much as a page a chunk: such an answer is read ever more slowly."""
    monkeypatch.setattr(relay, "BURST_PIECES", 50)
    monkeypatch.setattr(relay, "PIECES_PER_SECOND", 10)
    monkeypatch.setattr(relay, "ANSWER_SECONDS", 2.0)
    harness = await serve(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 200_000, linger=True
    )
    slow = asyncio.create_task(operator.get(STATE))
    while not harness.heard:
        await asyncio.sleep(0.01)
    assert (await operator.get("/api/state")).status_code == 200
    assert not slow.done()
    assert (await slow).status_code == 504


# --- streams ---


def _live(number: int, data: object) -> bytes:
    return f"id: {number}\nevent: live\ndata: {json.dumps(data)}\n\n".encode()


async def test_of_a_stream_only_known_events_of_good_json_get_through(
    operator: httpx.AsyncClient, serve: Serve
) -> None:
    await serve(
        event_stream(
            b"retry: 1\n\n: a comment\n\n",
            _live(1, {"seq": 1}),
            b"event: evil\ndata: {}\n\n",
            b'event: agent\ndata: {"name": "alice", "status": "idle"}\n\n',  # core's to tell
            b"data: {}\n\n",
            b"id: x\nevent: state\ndata: {\ndata: }\n\n",
            b'id: 2\r\nevent: live\r\ndata: {"seq":2}\r\n\r\n',
            'event: live\nid: 3\ndata: {"text":"\u2028 event: live"}\n\n'.encode(),
            b"event: live\ndata: <script>\n\n",
            _live(9, {"never": "read"}),
        )
    )
    everything = [event async for event in read_events(operator, STREAM)]
    of_core, *events = [event for event in everything if event.kind != "permissions"]
    assert (of_core.kind, json.loads(of_core.data)["status"]) == ("agent", "offline")
    assert [(event.kind, event.id) for event in events] == [
        ("live", "1"), ("state", None), ("live", "2"), ("live", "3"),
    ]  # fmt: skip
    assert [json.loads(event.data) for event in events][3] == {"text": "\u2028 event: live"}


@IN_FORCE
async def test_a_harness_puts_no_request_for_permission_on_its_page(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    """They can be answered there: what is shown is what core will decide about, and nothing else."""
    if not in_force:
        monkeypatch.setattr(relay.EventParser, "KINDS", relay.EventParser.KINDS | {"permissions"})
    forged = b'{"requests": [{"id": 1, "tool": "Read", "input": "{}"}]}'
    await serve(event_stream(b"event: permissions\ndata: " + forged + b"\n\n", _live(1, {})))
    told = [event.data async for event in read_events(operator, STREAM) if event.kind == "permissions"]
    assert (forged.decode() in told) is not in_force


@IN_FORCE
@pytest.mark.parametrize("shape", ["one line", "many lines", "unfinished line"])
async def test_an_event_that_is_too_large_ends_the_stream(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, shape: str, in_force: bool
) -> None:
    monkeypatch.setattr(relay, "EVENT_MAX_BYTES", 50_000 if in_force else 10**9)
    large = {
        "one line": _live(1, {"a": "x" * 100_000}),
        "many lines": b"event: live\ndata: {\n" + b"data: \n" * 20_000 + b"data: }\n\n",
        "unfinished line": b"data: " + b"x" * 100_000,
    }[shape]
    await serve(event_stream(_live(0, {}), large, b"\n\n", _live(2, {"after": True})))
    got = [event.data async for event in read_events(operator, STREAM)]
    assert ('{"after": true}' in got) is not in_force


@IN_FORCE
async def test_a_flood_of_events_is_slowed_to_a_pace(
    operator: httpx.AsyncClient, serve: Serve, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    slept: list[float] = []

    async def spend(self: relay._Pace, size_bytes: int) -> None:
        before = asyncio.get_running_loop().time()
        await unpaced(self, size_bytes)
        slept.append(asyncio.get_running_loop().time() - before)

    unpaced = relay._Pace.spend
    monkeypatch.setattr(relay._Pace, "spend", spend)
    monkeypatch.setattr(relay, "BURST_BYTES", 10_000 if in_force else 10**9)
    monkeypatch.setattr(relay, "BYTES_PER_SECOND", 1_000_000)
    await serve(event_stream(*[_live(number, {"a": "x" * 1000}) for number in range(300)]))
    events = [event async for event in read_events(operator, STREAM) if event.kind == "live"]
    assert len(events) == 300  # slowed, and nothing dropped
    assert (sum(slept) > 0.2) is in_force


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(b"{}"),
        http_answer(b"{}", status="302 Found", headers={"location": "http://evil.example/"}),
        http_answer(b"<script>", headers={"content-type": "text/html"}),
        b"garbage\r\n\r\n",
    ],
    ids=["json", "redirect", "html", "garbage"],
)
async def test_what_is_no_stream_is_refused_before_one_begins(
    hive: WebHive, operator: httpx.AsyncClient, serve: Serve, answer: bytes
) -> None:
    await serve(answer)
    reply = await operator.get(STREAM)
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "unhealthy"
    assert len(hive.web.streams) == 0


# --- page.sock as a way to somewhere else (SECURITY 9 and 10) ---


def _naive_connect(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(str(path))
    peer.setblocking(False)
    return peer


@IN_FORCE
@pytest.mark.parametrize("how", ["symlink", "hard link", "linked directory"])
async def test_the_page_socket_does_not_lead_to_cores_own_sockets(
    hive: WebHive,
    operator: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    in_force: bool,
) -> None:
    """Else a page's fields would be spoken to the admin socket, by root."""
    core = await RawHarness(http_answer(b"{}")).listen(hive.paths.host_socket)
    page = hive.paths.page_socket("alice")
    if how == "symlink":
        page.symlink_to(hive.paths.host_socket)
    if how == "hard link":
        os.link(hive.paths.host_socket, page)
    if how == "linked directory":
        os.link(hive.paths.host_socket, hive.paths.run_root / page.name)
        page.parent.rmdir()
        page.parent.symlink_to(hive.paths.run_root)
    if not in_force:
        monkeypatch.setattr(relay, "connect_untrusted", _naive_connect)
    reply = await operator.get(STATE)
    await core.close()
    assert reply.status_code == (503 if in_force else 200)
    assert len(core.heard) == (0 if in_force else 1)


@pytest.mark.parametrize("what", ["file", "fifo", "directory", "nothing", "dead socket"])
async def test_a_page_socket_that_is_none_is_told_as_unavailable(
    hive: WebHive, operator: httpx.AsyncClient, what: str
) -> None:
    page = hive.paths.page_socket("alice")
    if what == "file":
        page.write_text("{}")
    if what == "fifo":
        os.mkfifo(page)
    if what == "directory":
        page.mkdir()
    if what == "dead socket":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(page))
    for reply in (
        await operator.get(STATE),
        await operator.get(STREAM),
        await operator.post("/agents/alice/api/cancel"),
    ):
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "unavailable"
        assert "alice" in reply.json()["error"]["message"]


NAMES = [
    "..%2f..%2fx",
    "%2e%2e",
    "alice%00",
    "alice%2f..%2falice",
    "ALICE",
    "operator",
    "nobody",
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_an_agent_or_an_error(operator: httpx.AsyncClient, serve: Serve, name: str) -> None:
    harness = await serve(http_answer(b"{}"))
    for path in (f"/agents/{name}/api/state", f"/api/logs/{name}"):
        assert (await operator.get(path)).status_code in (404, 422)
    for path in (f"/kill/{name}", f"/purge-tombstone/{name}", f"/agents/{name}/api/cancel"):
        reply = await operator.post(path, data={"confirm": name})
        assert reply.status_code in (404, 422)
    assert harness.heard == []
