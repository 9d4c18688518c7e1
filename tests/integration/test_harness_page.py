"""The page API over its real Unix socket: state, history, the live stream, and what the buttons do."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_agent import web as web_module
from hive_agent.harness import Harness
from hive_shared.events import EventKind, LiveEvent
from tests.support.fake_core import FakeCore
from tests.support.harness import container_paths, harness_config, page, running
from tests.support.scripted_backend import ScriptedBackend

STATE_FIELDS = {
    *(
        "name",
        "role",
        "label",
        "backend",
        "backend_label",
        "is_model",
        "capabilities",
        "model",
        "models",
        "badge",
        "since_ms",
    ),
    *("note", "resumes_at_ms", "unread", "turn", "last_turn", "context_tokens", "window_tokens", "login"),
    *("warm", "isolation"),
    *("operator_pronouns", "seq", "storing", "totals"),
}


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[FakeCore]:
    async with FakeCore(container_paths(tmp_path).socket) as fake:
        yield fake


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def harness(core: FakeCore, tmp_path: Path, backend: ScriptedBackend) -> AsyncIterator[Harness]:
    async with running(harness_config(tmp_path), backend) as made:
        yield made


@pytest.fixture
async def client(harness: Harness) -> AsyncIterator[httpx.AsyncClient]:
    async with page(harness) as made:
        yield made


class Stream:
    """Server-sent events, read one by one."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self, kind: str | None = None) -> dict[str, Any]:
        """The next event (of a kind): {"event", "id", "data"}; comments are passed over."""
        async with asyncio.timeout(60):
            while True:
                event = await self._one()
                if kind is None or event["event"] == kind:
                    return event

    async def _one(self) -> dict[str, Any]:
        event: dict[str, Any] = {}
        async for line in self._lines:
            if not line and "event" in event:
                return event | {"data": json.loads(event["data"])}
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
        raise EOFError


@asynccontextmanager
async def stream(client: httpx.AsyncClient, last: str | None = None) -> AsyncIterator[Stream]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with client.stream("GET", "/events/stream", headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


def publish(harness: Harness, *texts: str) -> None:
    for text in texts:
        harness.history.publish(EventKind.NOTE, {"text": text})


async def test_the_state_has_every_field_of_the_contract(client: httpx.AsyncClient) -> None:
    state = (await client.get("/api/state")).json()

    assert set(state) == STATE_FIELDS
    assert (state["name"], state["role"], state["backend"], state["badge"]) == (
        "alice",
        "agent",
        "scripted",
        "idle",
    )
    assert state["login"] == {"needed": False, "stage": "none", "url": None, "message": ""}
    assert state["model"] in state["models"]
    assert state["storing"] is True


async def test_the_state_shows_the_running_and_the_last_turn(
    core: FakeCore, client: httpx.AsyncClient, backend: ScriptedBackend
) -> None:
    backend.hold()
    await core.put("job", sender="bob")
    await core.until(backend.running.is_set)
    state = (await client.get("/api/state")).json()
    assert (state["badge"], state["turn"]["from"], state["turn"]["message_id"]) == ("thinking", "bob", 1)

    backend.release.set()
    await core.until(lambda: core.acked)
    state = (await client.get("/api/state")).json()
    assert state["turn"] is None
    assert (state["last_turn"]["message_id"], state["last_turn"]["outcome"]) == (1, "ok")


async def test_history_is_oldest_first_with_the_newest_number(
    harness: Harness, client: httpx.AsyncClient
) -> None:
    publish(harness, "a", "b", "c")

    whole = (await client.get("/events/history")).json()
    assert [event["data"]["text"] for event in whole["events"]] == ["a", "b", "c"]
    assert whole["seq"] == whole["events"][-1]["seq"] == 3
    for event in whole["events"]:
        LiveEvent.model_validate(event)
    older = (await client.get("/events/history?limit=1&before=3")).json()
    assert [event["data"]["text"] for event in older["events"]] == ["b"]


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "before=1.5", "limit=" + "9" * 30, "limit=²"])
async def test_a_bad_number_is_refused_by_name(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/events/history?{query}")

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == query.split("=")[0]


async def test_snapshot_and_stream_join_without_gap_or_double(
    harness: Harness, client: httpx.AsyncClient
) -> None:
    publish(harness, "1", "2")
    seq = (await client.get("/events/history")).json()["seq"]
    publish(harness, "3")  # between the snapshot and the stream

    async with stream(client, str(seq)) as live:
        first = await live.next("live")
        publish(harness, "4")
        second = await live.next("live")
    assert [first["data"]["data"]["text"], second["data"]["data"]["text"]] == ["3", "4"]
    assert [first["id"], second["id"]] == ["3", "4"]


async def test_a_dropped_connection_resumes_where_it_was(harness: Harness, client: httpx.AsyncClient) -> None:
    publish(harness, *"abc")
    async with stream(client, "0") as live:
        last = (await live.next("live"))["id"]
    publish(harness, "d")
    async with stream(client, last) as live:
        seen = [(await live.next("live"))["data"]["data"]["text"] for _ in range(3)]
    assert seen == ["b", "c", "d"]


async def test_a_stream_resumes_across_a_restart_of_the_harness(core: FakeCore, tmp_path: Path) -> None:
    async with running(harness_config(tmp_path), ScriptedBackend()) as first:
        publish(first, "a", "b")
    async with running(harness_config(tmp_path), ScriptedBackend()) as second, page(second) as client:
        publish(second, "c")
        async with stream(client, "1") as live:
            seen = [(await live.next("live"))["data"]["data"]["text"] for _ in range(2)]
    assert seen == ["b", "c"]


@pytest.mark.parametrize("last", ["99", "x", "-1", "9" * 40])
async def test_a_position_that_cannot_be_resumed_is_told(
    harness: Harness, client: httpx.AsyncClient, last: str
) -> None:
    publish(harness, "a")

    async with stream(client, last) as live:
        assert (await live.next())["event"] == "reset"
        publish(harness, "b")
        assert (await live.next("live"))["data"]["data"]["text"] == "b"


async def test_a_stream_begins_with_the_state_and_tells_every_change(
    core: FakeCore, client: httpx.AsyncClient, backend: ScriptedBackend
) -> None:
    backend.hold()
    async with stream(client) as live:
        first = await live.next()
        assert (first["event"], first["data"]["badge"]) == ("state", "idle")
        assert "id" not in first
        await core.put("job")
        assert (await live.next("state"))["data"]["badge"] == "thinking"
        assert (await live.next("live"))["data"]["kind"] == "turn_start"
        backend.release.set()
        while (await live.next("state"))["data"]["badge"] != "idle":
            pass


async def test_a_quiet_stream_is_pinged(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "PING_SECONDS", 0.05)
    async with client.stream("GET", "/events/stream") as response, asyncio.timeout(60):
        async for line in response.aiter_lines():
            if line.startswith(":"):
                break
        else:
            pytest.fail("no ping")


async def test_streams_that_end_leave_no_subscriber(
    harness: Harness, client: httpx.AsyncClient, core: FakeCore
) -> None:
    for _ in range(3):
        async with stream(client) as live:
            await live.next("state")
    await core.until(lambda: not harness.history._subscribers)


async def test_stopping_the_harness_ends_open_streams(core: FakeCore, tmp_path: Path) -> None:
    async with running(harness_config(tmp_path), ScriptedBackend()) as harness:
        client = page(harness)
        opened = stream(client)
        live = await opened.__aenter__()
        await live.next("state")
    with pytest.raises((EOFError, httpx.HTTPError)):
        await live.next("an event that never comes")
    await client.aclose()


async def test_cancel_stops_the_turn_and_without_one_is_a_conflict(
    core: FakeCore, client: httpx.AsyncClient, backend: ScriptedBackend
) -> None:
    answer = await client.post("/api/cancel")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")

    backend.hold()
    await core.put("job")
    await core.until(backend.running.is_set)
    answer = await client.post("/api/cancel")
    assert answer.json()["ok"] is True
    await core.until(lambda: core.acked == [1])


async def test_compact_new_session_and_model(
    client: httpx.AsyncClient, core: FakeCore, backend: ScriptedBackend
) -> None:
    assert (await client.post("/api/compact")).json()["ok"] is True
    await core.until(lambda: backend.compactions == 1 and not backend.running.is_set())
    await core.until(lambda: core.reports and core.reports[-1].badge == "idle")
    assert (await client.post("/api/new-session")).json()["ok"] is True
    assert backend.sessions == 1
    assert (await client.post("/api/model", data={"model": "opus"})).json()["ok"] is True
    assert (await client.get("/api/state")).json()["model"] == "opus"


@pytest.mark.parametrize("model", ["", "--dangerously-skip-permissions", "a b"])
async def test_a_bad_model_is_refused(
    client: httpx.AsyncClient, backend: ScriptedBackend, model: str
) -> None:
    answer = await client.post("/api/model", data={"model": model})

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "model"
    assert backend.models == ["sonnet"]


async def test_a_backend_without_login_says_so(client: httpx.AsyncClient) -> None:
    answer = await client.post("/login/start")

    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == "this backend needs no login"
    assert (await client.post("/login/code")).json()["error"]["field"] == "code"
    assert (await client.post("/login/cancel")).json()["ok"] is True


async def test_large_and_odd_forms_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/model", content=b"model=" + b"x" * 100_000)).status_code == 413
    assert (await client.post("/api/model", content=b"\xff\xfe")).status_code == 422
    assert (
        await client.post("/api/model", content="&".join(f"f{n}=1" for n in range(100)))
    ).status_code == 422


async def test_unknown_paths_and_methods_answer_in_json(client: httpx.AsyncClient) -> None:
    for answer in (await client.get("/"), await client.get("/api/cancel"), await client.post("/api/state")):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "not_found"


async def test_stats_are_summed(core: FakeCore, client: httpx.AsyncClient) -> None:
    await core.put("job")
    await core.until(lambda: core.acked)

    assert set((await client.get("/api/stats?hours=1")).json()) >= {"turns", "ok", "models", "cost_usd"}


async def test_the_harness_opens_no_tcp_port(harness: Harness, client: httpx.AsyncClient) -> None:
    await client.get("/api/state")
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    listening = {row[9] for row in rows if row[3] == "0A"}  # inodes
    ours = {
        target.removeprefix("socket:[").rstrip("]")
        for descriptor in Path("/proc/self/fd").iterdir()
        if (target := _link(descriptor)).startswith("socket:[")
    }
    assert not ours & listening


def _link(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:
        return ""
