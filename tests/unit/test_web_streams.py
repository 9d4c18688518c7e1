"""The live stream of the dashboard: nothing lost, nothing double, and ended in time."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from hive_core.feed import Feed
from hive_core.principals import Principal
from hive_core.web import sse
from hive_shared.wire import Send
from tests.support.web_hive import DAY_MS, Event, WebHive, read_events, running_web

STREAM = "/messages/stream"


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        await running.agent("alice")
        yield running


async def _take(events: AsyncIterator[Event], number: int) -> list[Event]:
    taken = []
    async with asyncio.timeout(60):
        while len(taken) < number:
            taken.append(await anext(events))
    return taken


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_client_that_drops_and_resumes_misses_nothing_and_sees_nothing_twice(hive: WebHive) -> None:
    """Messages flow all the while; the client is cut off after every few events."""
    operator = await hive.operator()
    seen: list[int] = []
    position = (await operator.get("/api/state")).json()["position"]

    async def talk() -> None:
        for number in range(60):
            await hive.actions.send(Principal.operator(), Send(to="alice", body=str(number)))

    talking = asyncio.create_task(talk())
    async with asyncio.timeout(60):
        while len(seen) < 60:
            async with contextlib.aclosing(read_events(operator, STREAM, position)) as events:
                for _ in range(3):
                    event = await anext(events)
                    position = event.id or position
                    if event.kind == "message":
                        seen.append(int(json.loads(event.data)["body"]))
                    if len(seen) == 60:
                        break
    await talking
    assert seen == list(range(60))


async def test_what_happens_between_snapshot_and_stream_is_in_the_stream(hive: WebHive) -> None:
    operator = await hive.operator()
    position = (await operator.get("/api/state")).json()["position"]
    await hive.actions.send(Principal.operator(), Send(to="alice", body="between"))
    async with contextlib.aclosing(read_events(operator, STREAM, position)) as events, asyncio.timeout(60):
        first = await anext(event async for event in events if event.kind == "message")
    assert json.loads(first.data)["body"] == "between"


@pytest.mark.parametrize("position", [None, "", "other-3", "nonsense", "-", "{epoch}-999999", "{epoch}--1"])
async def test_a_client_that_cannot_resume_is_told_to_begin_anew(hive: WebHive, position: str | None) -> None:
    operator = await hive.operator()
    feed = hive.actions.feed
    given = None if position is None else position.format(epoch=feed.epoch)
    async with contextlib.aclosing(read_events(operator, STREAM, given)) as events:
        [first] = await _take(events, 1)
        assert (first.kind, first.id) == ("reset", feed.position())
        feed.publish("hive", {"after": "reset"})
        [second] = await _take(events, 1)
        assert (second.kind, second.data) == ("hive", '{"after":"reset"}')


async def test_a_client_that_was_away_longer_than_the_feed_remembers_begins_anew(hive: WebHive) -> None:
    hive.actions.feed = Feed(kept_events=5)
    operator = await hive.operator()
    position = hive.actions.feed.position()
    for number in range(6):
        hive.actions.feed.publish("hive", {"number": number})
    async with contextlib.aclosing(read_events(operator, STREAM, position)) as events:
        [first] = await _take(events, 1)
    assert first.kind == "reset"


async def test_a_quiet_stream_is_kept_awake(hive: WebHive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    operator = await hive.operator()
    heard = b""
    async with operator.stream("GET", STREAM) as reply, asyncio.timeout(60):
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        async for piece in reply.aiter_bytes():
            heard += piece
            if heard.count(b": ping\n\n") >= 3:
                break


async def test_logging_out_ends_the_streams_of_that_browser_alone(hive: WebHive) -> None:
    leaving, staying = await hive.operator(), await hive.operator()
    position = hive.actions.feed.position()
    gone = asyncio.create_task(_all(read_events(leaving, STREAM, position)))
    there = asyncio.create_task(_all(read_events(staying, STREAM, position)))
    await _until(lambda: len(hive.web.streams) == 2)
    assert (await leaving.post("/logout")).status_code == 200
    assert await asyncio.wait_for(gone, 60) == []
    assert len(hive.web.streams) == 1
    assert (await leaving.get("/api/state")).status_code == 401
    await hive.web.logout_all()
    assert await asyncio.wait_for(there, 60) == []


async def _all(events: AsyncIterator[Event]) -> list[Event]:
    """Until the end; without who logged in when, which is told a moment later."""
    return [event async for event in events if event.kind != "activity"]


async def test_a_session_that_ends_by_the_clock_ends_its_streams(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "PING_SECONDS", 0.02)
    operator = await hive.operator()
    events = asyncio.create_task(_all(read_events(operator, STREAM, hive.actions.feed.position())))
    await _until(lambda: len(hive.web.streams) == 1)
    for _ in range(5):  # an open page is use: it outlives the idle time, day after day
        hive.clock.now_ms += 5 * DAY_MS
        await asyncio.sleep(0.1)
    assert not events.done()
    hive.clock.now_ms += 6 * DAY_MS  # and not the absolute one
    assert await asyncio.wait_for(events, 60) == []


async def test_closing_the_web_ends_open_streams_in_order(hive: WebHive) -> None:
    operator = await hive.operator()
    events = asyncio.create_task(_all(read_events(operator, STREAM, hive.actions.feed.position())))
    await _until(lambda: len(hive.web.streams) == 1)
    await asyncio.wait_for(hive.web.close(), 60)
    assert await asyncio.wait_for(events, 60) == []  # a clean end, not a broken connection
    await hive.web.close()


async def test_a_stream_that_the_browser_left_takes_no_place(hive: WebHive) -> None:
    operator = await hive.operator()
    for _ in range(5):
        async with operator.stream("GET", STREAM) as reply:
            assert reply.status_code == 200
    await _until(lambda: len(hive.web.streams) == 0)
    assert hive.actions.feed.subscribers == 0


async def test_two_browsers_see_the_same_events(hive: WebHive) -> None:
    browsers: list[httpx.AsyncClient] = [await hive.operator() for _ in range(2)]
    position = hive.actions.feed.position()
    streams = [read_events(browser, STREAM, position) for browser in browsers]
    hive.actions.feed.publish("hive", {"number": 1})
    hive.actions.feed.publish("tombstones", {"agents": []})
    taken = [await _take(stream, 2) for stream in streams]
    for stream in streams:
        await stream.aclose()
    assert taken[0] == taken[1]
    assert [event.kind for event in taken[0]] == ["hive", "tombstones"]


def test_line_breaks_in_data_cannot_end_an_event() -> None:
    assert sse.frame("x", "a\nb\r\nc\rd\u2028e", "7") == (
        "id: 7\nevent: x\ndata: a\ndata: b\ndata: c\ndata: d\u2028e\n\n".encode()
    )
