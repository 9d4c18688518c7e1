"""Search, who did what, and an agent's log in the page's one stream, as the browser asks for them."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hive_core.web import log_tail
from tests.support.web_hive import Event, WebHive, read_events, running_web

STREAM = "/messages/stream"


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        await running.agent("hm1nd")
        await running.agent("alice")
        yield running


async def test_the_whole_history_is_searched_page_by_page(hive: WebHive, operator: httpx.AsyncClient) -> None:
    for number in range(1, 8):
        await operator.post("/send", data={"to": "alice", "body": f"Release {number}"})
    await operator.post("/send", data={"to": "hm1nd", "body": "the release is out"})

    async def search(**params: object) -> tuple[list[int], int | None]:
        found = (await operator.get("/api/messages/search", params=params)).json()  # type: ignore[arg-type]
        return [message["id"] for message in found["messages"]], found["looked_to"]

    assert await search(q="RELEASE", limit=3) == ([6, 7, 8], 6)
    assert await search(q="release", limit=3, before=6) == ([3, 4, 5], 3)
    assert await search(q="release", limit=3, before=3) == ([1, 2], None)
    assert await search(q="release", agent="hm1nd") == ([8], None)
    assert await search(q="absent") == ([], None)
    too_long = await operator.get("/api/messages/search", params={"q": "x" * 201})
    assert (too_long.status_code, too_long.json()["error"]["field"]) == (422, "q")


async def test_found_messages_that_do_not_fit_one_reply_are_asked_for_next(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    for _ in range(10):
        await operator.post("/send", data={"to": "alice", "body": "x" * 250_000})
    found = (await operator.get("/api/messages/search", params={"q": "xx"})).json()
    ids = [message["id"] for message in found["messages"]]
    assert ids == [3, 4, 5, 6, 7, 8, 9, 10]
    assert found["looked_to"] == 3
    rest = await operator.get("/api/messages/search", params={"q": "xx", "before": 3})
    assert [message["id"] for message in rest.json()["messages"]] == [1, 2]


async def test_two_operators_see_who_did_what(hive: WebHive, operator: httpx.AsyncClient) -> None:
    other = await hive.operator()
    position = (await other.get("/api/state")).json()["position"]
    me = (await operator.get("/api/sessions")).json()["current"]
    await operator.post("/request-spawn", data={"name": "bob"})
    events = read_events(other, STREAM, position)
    async with asyncio.timeout(60), contextlib.aclosing(events):
        told = [json.loads(event.data) async for event in _of_kind(events, "activity", 1)]
    assert [(entry["principal"], entry["action"], entry["subject"]) for entry in told] == [
        (f"operator (session {me})", "request_spawn", "bob")
    ]
    assert (await other.get("/api/state")).json()["activity"][-1] == told[0]
    older = (await other.get("/api/activity", params={"before": told[0]["id"]})).json()["activity"]
    assert older
    assert {entry["action"] for entry in older} == {"login"}


async def test_a_log_comes_in_the_pages_own_stream_and_ends_without_it(
    hive: WebHive, operator: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: asyncio.Queue[str | None] = asyncio.Queue()
    left = asyncio.Event()

    async def follow(name: str, count: int) -> AsyncIterator[str]:
        try:
            while (line := await lines.get()) is not None:
                yield line
        finally:
            left.set()

    monkeypatch.setattr(hive.actions.lifecycle.runtime, "follow", follow)
    for number in range(3):
        lines.put_nowait(f"line {number}")
    position = (await operator.get("/api/state")).json()["position"]
    async with asyncio.timeout(60):
        events = read_events(operator, f"{STREAM}?log=alice", position)
        async with contextlib.aclosing(events):
            first = json.loads((await anext(events)).data)
            assert first == {
                "agent": "alice", "first": 0, "lines": ["line 0", "line 1", "line 2"], "ended": "",
            }  # fmt: skip
            await operator.post("/send", data={"to": "alice", "body": "hello"})
            message = await anext(_of_kind(events, "message", 1))
            assert message.id is not None
            lines.put_nowait("line 3")
            news = await anext(_of_kind(events, "log", 1))
            assert news.id is None  # it has no place in the feed, which is resumed elsewhere
            assert json.loads(news.data)["first"] == 3
            lines.put_nowait(None)
            ended = json.loads((await anext(_of_kind(events, "log", 1))).data)
            assert ended["ended"] == "the log of alice has ended"
            await operator.post("/send", data={"to": "alice", "body": "still here"})
            assert await anext(_of_kind(events, "message", 1))
        left.clear()
        again = read_events(operator, f"{STREAM}?log=alice", position)
        async with contextlib.aclosing(again):
            await anext(_of_kind(again, "log", 1))
        await left.wait()  # who leaves leaves no program behind


async def test_the_log_of_nobody_does_not_cost_the_page_its_stream(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    position = (await operator.get("/api/state")).json()["position"]
    events = read_events(operator, f"{STREAM}?log=nobody", position)
    async with asyncio.timeout(60), contextlib.aclosing(events):
        ended = json.loads((await anext(_of_kind(events, "log", 1))).data)
        assert "nobody" in ended["ended"]
        await operator.post("/send", data={"to": "alice", "body": "hello"})
        assert await anext(_of_kind(events, "message", 1))


async def test_an_agent_that_prints_without_end_costs_its_oldest_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_tail, "WAITING_LINES_MAX", 5)

    async def follow() -> AsyncIterator[str]:
        for number in range(100):
            yield f"line {number}"

    class Place:
        def offer(self, event: object) -> None: ...

    tail = log_tail.LogTail("alice", follow)
    await tail.run(Place())  # type: ignore[arg-type]
    assert tail.take() == {
        "agent": "alice",
        "first": 95,
        "lines": [f"line {number}" for number in range(95, 100)],
        "ended": "the log of alice has ended",
    }
    assert tail.take()["first"] == 100


async def _of_kind(events: AsyncIterator[Event], kind: str, number: int) -> AsyncIterator[Event]:
    while number:
        event = await anext(events)
        if event.kind == kind:
            number -= 1
            yield event
