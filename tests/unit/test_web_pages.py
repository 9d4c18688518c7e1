"""Static files, and agents' pages in front of a harness that behaves."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from hive_core.principals import Principal
from hive_core.web.static import Assets, assets_directory
from hive_shared import sockets
from hive_shared.wire import AgentState, AskPermission
from tests.support.web_hive import WebHive, read_events, running_web, write_assets


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        await running.agent("alice")
        yield running


# --- files ---


@pytest.mark.parametrize(
    ("path", "title"),
    [("/", "dashboard"), ("/login", "login"), ("/agents/alice/", "agent"), ("/agents/x/", "agent")],
)
async def test_shells_are_the_same_for_everybody(hive: WebHive, path: str, title: str) -> None:
    """They hold no data: a stranger does not even learn which agents there are."""
    reply = await hive.stranger().get(path)
    assert reply.status_code == 200
    assert f"<title>{title}</title>" in reply.text
    assert reply.headers["content-type"] == "text/html; charset=utf-8"


async def test_an_agents_page_ends_with_a_slash(hive: WebHive) -> None:
    reply = await hive.stranger().get("/agents/alice")
    assert (reply.status_code, reply.headers["location"]) == (308, "/agents/alice/")


async def test_files_have_their_type_and_are_asked_for_again_only_when_changed(hive: WebHive) -> None:
    browser = hive.stranger()
    first = await browser.get("/static/js/app.js")
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    same = await browser.get("/static/js/app.js", headers={"if-none-match": etag})
    assert (same.status_code, same.content) == (304, b"")
    (hive.paths.state_root.parents[1] / "assets" / "js" / "app.js").write_text("export const changed = 1;\n")
    changed = await browser.get("/static/js/app.js", headers={"if-none-match": etag})
    assert (changed.status_code, changed.text) == (200, "export const changed = 1;\n")
    assert changed.headers["etag"] != etag


LONG = "export const words = 'the same again';\n" * 100


@pytest.mark.parametrize(
    ("offered", "packed"),
    [("gzip, br", True), ("br;q=1.0, GZIP ;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.00", False),
     ("br", False), ("", False), ("xgzip", False)],
)  # fmt: skip
async def test_files_come_compressed_to_those_who_take_them_so(
    hive: WebHive, offered: str, packed: bool
) -> None:
    (hive.paths.state_root.parents[1] / "assets" / "js" / "app.js").write_text(LONG)
    ask = {"accept-encoding": offered}
    async with hive.stranger().stream("GET", "/static/js/app.js", headers=ask) as reply:
        sent = b"".join([piece async for piece in reply.aiter_raw()])
    assert (gzip.decompress(sent) if packed else sent).decode() == LONG
    assert reply.headers.get("content-encoding") == ("gzip" if packed else None)
    assert (reply.headers["vary"], int(reply.headers["content-length"])) == ("accept-encoding", len(sent))
    known = {**ask, "if-none-match": reply.headers["etag"]}
    assert (await hive.stranger().get("/static/js/app.js", headers=known)).status_code == 304
    other = {**known, "accept-encoding": "" if packed else "gzip"}
    assert (await hive.stranger().get("/static/js/app.js", headers=other)).status_code == 200


async def test_head_is_get_without_the_body(hive: WebHive) -> None:
    for path in ("/", "/static/hive.css"):
        reply = await hive.stranger().head(path)
        assert reply.status_code == 200
        assert int(reply.headers["content-length"]) > 0
        assert reply.content == b""


def test_a_file_that_vanished_is_still_served_from_memory(tmp_path: Path) -> None:
    assets = Assets(write_assets(tmp_path))
    (tmp_path / "hive.css").unlink()
    found = assets.get("hive.css")
    assert found is not None
    assert found.body == b"body {}\n"


def test_files_of_unknown_kinds_are_not_served(tmp_path: Path) -> None:
    write_assets(tmp_path)
    (tmp_path / "notes.py").write_text("print()")
    (tmp_path / "README").write_text("x")
    assets = Assets(tmp_path)
    assert assets.get("notes.py") is None
    assert assets.get("README") is None


def test_the_checkouts_own_assets_are_found() -> None:
    assert (assets_directory() / "dashboard.html").is_file()


# --- a harness that behaves ---


class GoodHarness:
    """The page API of a harness, as uvicorn serves it on the agent's socket."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.resumed_from: str | None = None
        self.events = asyncio.Event()
        routes = [
            Route("/api/state", self._state),
            Route("/events/history", self._history),
            Route("/events/stream", self._stream),
            Route("/{rest:path}", self._change, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), lifespan="off", log_config=None, access_log=False)
        self._server = uvicorn.Server(config)

    async def start(self, path: Path) -> None:
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        config.uds = str(path)
        await self._server.startup()

    async def stop(self) -> None:
        self.events.set()
        await self._server.shutdown()

    async def _state(self, request: Request) -> Response:
        return JSONResponse({"name": "alice", "badge": "idle"})

    async def _history(self, request: Request) -> Response:
        self.asked.append(("GET", request.url.path, dict(request.query_params)))
        return JSONResponse({"events": [{"seq": 1}], "seq": 1, "big": "x" * 3_000_000})

    async def _change(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.asked.append(("POST", request.url.path, form))
        if request.url.path == "/api/compact":
            return JSONResponse({"error": {"code": "conflict", "message": "a turn is running"}}, 409)
        return JSONResponse({"ok": True, "note": "done"})

    async def _stream(self, request: Request) -> Response:
        self.resumed_from = request.headers.get("last-event-id")

        async def frames() -> AsyncIterator[str]:
            yield 'event: state\ndata: {"badge":"idle"}\n\n'
            yield 'id: 8\nevent: live\ndata: {"seq":8,"text":"\\ud83d"}\n\n: ping\n\n'
            await self.events.wait()
            yield f"id: 9\nevent: live\ndata: {json.dumps({'seq': 9, 'text': 'x' * 600_000})}\n\n"

        return StreamingResponse(frames(), media_type="text/event-stream")


@pytest.fixture
async def harness(hive: WebHive, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GoodHarness]:
    monkeypatch.setattr(sockets, "peer_process", lambda peer: 0)  # it is this process, for once
    good = GoodHarness()
    await good.start(hive.paths.page_socket("alice"))
    yield good
    await good.stop()


async def test_the_state_and_the_history_are_relayed(hive: WebHive, harness: GoodHarness) -> None:
    operator = await hive.operator()
    assert (await operator.get("/agents/alice/api/state")).json() == {"name": "alice", "badge": "idle"}
    history = (await operator.get("/agents/alice/events/history", params={"limit": 5, "before": 7})).json()
    assert (history["seq"], len(history["big"])) == (1, 3_000_000)
    await operator.get("/agents/alice/events/history")
    assert harness.asked == [
        ("GET", "/events/history", {"limit": "5", "before": "7"}),
        ("GET", "/events/history", {"limit": "2000"}),
    ]
    for wrong in ({"limit": 2001}, {"limit": "x"}, {"before": -1}):
        assert (await operator.get("/agents/alice/events/history", params=wrong)).status_code == 422


async def test_changes_are_relayed_with_their_fields_and_audited_without(
    hive: WebHive, harness: GoodHarness
) -> None:
    operator = await hive.operator()
    for path in ("api/cancel", "api/new-session", "login/start", "login/cancel"):
        reply = await operator.post(f"/agents/alice/{path}")
        assert reply.json() == {"ok": True, "note": "done"}
    await operator.post("/agents/alice/api/model", data={"model": "claude-opus-4[1m]"})
    await operator.post("/agents/alice/login/code", data={"code": "top&secret=code#state"})
    assert harness.asked[-2:] == [
        ("POST", "/api/model", {"model": "claude-opus-4[1m]"}),
        ("POST", "/login/code", {"code": "top&secret=code#state"}),
    ]
    assert len(await hive.audited("page login/code")) == 1
    entries = await hive.actions.audit.recent(100)
    assert not [entry for entry in entries if "secret=code" in entry.model_dump_json()]


async def test_a_refusal_of_the_harness_reaches_the_operator(hive: WebHive, harness: GoodHarness) -> None:
    reply = await (await hive.operator()).post("/agents/alice/api/compact")
    assert (reply.status_code, reply.json()["error"]["message"]) == (409, "a turn is running")


async def test_the_live_stream_is_relayed_and_resumes(hive: WebHive, harness: GoodHarness) -> None:
    operator = await hive.operator()
    everything = read_events(operator, "/agents/alice/events/stream", "7")
    events = (event async for event in everything if event.kind != "permissions")
    async with asyncio.timeout(60):
        by_core, state, first = await anext(events), await anext(events), await anext(events)
        hive.actions.roster.set_state("alice", AgentState.CRASHED, note="killed")
        crashed = await anext(events)
        harness.events.set()
        rest = [event async for event in events]
    assert harness.resumed_from == "7"
    assert [(event.kind, event.id) for event in (by_core, crashed)] == [("agent", None)] * 2
    told = [json.loads(event.data) for event in (by_core, crashed)]
    assert [(view["status"], view["status_note"]) for view in told] == [
        ("offline", "no harness is connected"),
        ("crashed", "killed"),
    ]
    assert (state.kind, state.id, state.data) == ("state", None, '{"badge":"idle"}')
    assert (first.kind, first.id) == ("live", "8")
    assert json.loads(first.data)["text"] == "\ud83d"  # half a character, as cut texts have it
    assert [(event.id, len(event.data) > 600_000) for event in rest] == [("9", True)]


async def test_what_waits_for_a_permission_is_told_on_its_agents_page(
    hive: WebHive, harness: GoodHarness
) -> None:
    await hive.agent("bob")
    operator = await hive.operator()
    permissions = hive.actions.permission_requests

    def asking(number: int) -> AskPermission:
        key = {"key": f"{number:064x}", "session": "a" * 32, "message_id": number}
        return AskPermission(**key, tool="Bash", input='{"command": "make"}', cwd="/state")

    first = await permissions.ask(Principal.agent("alice"), asking(1))
    await permissions.ask(Principal.agent("bob"), asking(2))
    given = (await operator.get("/agents/alice/api/permissions")).json()
    assert [view["id"] for view in given["requests"]] == [first.id]
    everything = read_events(operator, "/agents/alice/events/stream")
    told = (json.loads(event.data)["requests"] async for event in everything if event.kind == "permissions")
    async with asyncio.timeout(60):
        assert await anext(told) == given["requests"]
        second = await permissions.ask(Principal.agent("alice"), asking(3))
        assert [view["id"] for view in await anext(told)] == [first.id, second.id]
        reply = await operator.post(f"/answer-permission/{first.id}", data={"scope": "once"})
        assert reply.status_code == 200
        assert [view["id"] for view in await anext(told)] == [second.id]
        harness.events.set()
        assert [requests async for requests in told] == []


async def test_a_tombstone_has_no_page(hive: WebHive, harness: GoodHarness) -> None:
    await hive.actions.registry.set_kept("alice", True)
    operator = await hive.operator()
    reply = await operator.get("/agents/alice/api/state")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_agent")
