"""The browsers that are logged in: listed, and logged out one by one or all at once."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.principals import Principal
from hive_core.web import sessions
from hive_shared.errors import NotFound
from tests.support.web_hive import DAY_MS, WebHive, read_events, running_web

HOST = Principal.operator("host socket")


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        yield running


async def test_the_sessions_are_listed_with_what_is_known_of_them(hive: WebHive) -> None:
    first, second = await hive.operator("Firefox"), await hive.operator("Chromium")
    hive.clock.now_ms += 1000
    listed = (await first.get("/api/sessions")).json()
    assert [each["client"] for each in listed["sessions"]] == ["Firefox", "Chromium"]  # the last used first
    mine, other = listed["sessions"]
    assert listed["current"] == mine["id"]
    assert mine["created_at_ms"] == hive.clock.now_ms - 1000
    assert mine["last_seen_ms"] == hive.clock.now_ms
    assert mine["ends_at_ms"] == hive.clock.now_ms + 7 * DAY_MS
    assert other["last_seen_ms"] == hive.clock.now_ms - 1000
    assert (await second.get("/api/sessions")).json()["current"] == other["id"]


async def test_the_list_holds_no_secret(hive: WebHive) -> None:
    operator = await hive.operator()
    shown = (await operator.get("/api/sessions")).text
    [stored] = hive.web.sessions._by_cookie.values()
    for secret in (*operator.cookies.values(), operator.headers["x-hive-key"], stored.cookie_sha256):
        assert secret not in shown


async def test_one_browser_is_logged_out_and_the_others_stay(hive: WebHive) -> None:
    mine, other = await hive.operator("mine"), await hive.operator("other")
    gone = (await other.get("/api/sessions")).json()["current"]
    reply = await mine.post(f"/end-session/{gone}")
    assert reply.json() == {"ok": True, "sessions": 1}
    assert (await other.get("/api/state")).status_code == 401
    assert (await mine.get("/api/state")).status_code == 200
    [line] = await hive.audited("end_session")
    assert line.endswith(": ok")
    assert "session " in line


async def test_the_streams_of_a_browser_that_is_logged_out_end(hive: WebHive) -> None:
    mine, other = await hive.operator(), await hive.operator()
    gone = (await other.get("/api/sessions")).json()["current"]
    position = hive.actions.feed.position()
    hive.actions.publish_status()
    seen = []
    async for event in read_events(other, "/messages/stream", position):
        seen.append(event.kind)
        await mine.post(f"/end-session/{gone}")
    assert seen == ["hive"]
    assert len(hive.web.streams) == 0


async def test_the_terminal_lists_and_ends_sessions_too(hive: WebHive) -> None:
    operator = await hive.operator("Firefox")
    [listed] = hive.actions.sessions(HOST).sessions
    assert (await hive.actions.end_session(HOST, listed.id)).sessions == 1
    assert (await operator.get("/api/state")).status_code == 401
    assert await hive.audited("end_session") == ["operator (host socket): ok"]


@pytest.mark.parametrize("given", ["00000000", "x", "%2e%2e", "a" * 64])
async def test_a_session_that_is_not_there_is_told(hive: WebHive, given: str) -> None:
    operator = await hive.operator()
    reply = await operator.post(f"/end-session/{given}")
    assert reply.status_code == 404
    assert (await operator.get("/api/state")).status_code == 200


async def test_a_session_that_is_over_cannot_be_ended_again(hive: WebHive) -> None:
    await hive.operator()
    [session] = hive.web.session_views()
    hive.clock.now_ms += 7 * DAY_MS
    assert hive.web.session_views() == []
    with pytest.raises(NotFound):
        await hive.actions.end_session(HOST, session.id)
    assert await hive.audited("end_session") == ["operator (host socket): refused: not_found"]


async def test_the_page_logs_out_every_browser_and_voids_unused_codes(hive: WebHive) -> None:
    mine, other = await hive.operator(), await hive.operator()
    code = (await hive.web.login_url()).code
    assert (await mine.post("/logout-all")).json() == {"ok": True, "sessions": 2}
    for browser in (mine, other):
        assert (await browser.get("/api/state")).status_code == 401
    assert (await hive.stranger().post("/login", data={"code": code})).status_code == 403
    assert len(await hive.audited("logout_all")) == 1


async def test_a_session_that_gives_way_to_a_newer_one_is_in_the_audit(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    for number in range(3):
        hive.clock.now_ms += 1
        await hive.operator(str(number))
    assert [view.client for view in hive.web.session_views()] == ["2", "1"]
    assert await hive.audited("logout") == ["system (web): ok"]
