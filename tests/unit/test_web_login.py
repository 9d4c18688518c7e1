"""Logging in and out, and how long a session lasts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.store import Store
from hive_core.web import auth, sessions
from hive_core.web.auth import LoginCodes
from hive_core.web.sessions import Sessions
from hive_shared.errors import Unavailable
from tests.support.web_hive import DAY_MS, HandClock, WebHive, running_web


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path, agent_page_ports=False) as running:
        yield running


async def test_the_login_url_carries_its_code_where_no_server_sees_it(hive: WebHive) -> None:
    login = await hive.web.login_url()
    assert login.url == f"http://127.0.0.1:{hive.web.port}/login#{login.code}"
    assert login.expires_at_ms == hive.clock.now_ms + 10 * 60_000


async def test_a_login_answers_with_key_and_cookie(hive: WebHive) -> None:
    browser = hive.stranger()
    reply = await browser.post("/login", data={"code": (await hive.web.login_url()).code})
    assert reply.json()["expires_at_ms"] == hive.clock.now_ms + 30 * DAY_MS
    assert reply.headers["cache-control"] == "no-store"
    browser.headers["x-hive-key"] = reply.json()["key"]
    assert (await browser.get("/api/state")).status_code == 200


async def test_a_code_may_be_typed_by_hand(hive: WebHive) -> None:
    for spoilt in (
        str.upper,
        lambda code: code.replace("-", " "),
        lambda code: f"  {code.replace('-', '')}\n",
    ):
        code = (await hive.web.login_url()).code
        assert (await hive.stranger().post("/login", data={"code": spoilt(code)})).status_code == 200


async def test_logging_out_ends_the_session_and_takes_the_cookie(hive: WebHive) -> None:
    operator = await hive.operator()
    reply = await operator.post("/logout")
    assert reply.json() == {"ok": True}
    assert "max-age=0" in reply.headers["set-cookie"].lower()
    assert hive.cookie not in operator.cookies
    assert hive.web.session_views() == []
    assert len(await hive.audited("logout")) == 1


async def test_logging_everybody_out_voids_unused_codes_too(hive: WebHive) -> None:
    first, second = await hive.operator(), await hive.operator()
    code = (await hive.web.login_url()).code
    assert await hive.web.logout_all() == 2
    assert (await first.get("/api/state")).status_code == 401
    assert (await second.get("/api/state")).status_code == 401
    assert (await hive.stranger().post("/login", data={"code": code})).status_code == 403


async def test_a_session_ends_when_it_is_not_used_for_a_week(hive: WebHive) -> None:
    operator = await hive.operator()
    for _ in range(3):
        hive.clock.now_ms += 6 * DAY_MS
        assert (await operator.get("/api/state")).status_code == 200
    hive.clock.now_ms += 7 * DAY_MS
    assert (await operator.get("/api/state")).status_code == 401


async def test_a_session_ends_after_thirty_days_whatever_its_use(hive: WebHive) -> None:
    operator = await hive.operator()
    for _ in range(29):
        hive.clock.now_ms += DAY_MS
        assert (await operator.get("/api/state")).status_code == 200
    hive.clock.now_ms += DAY_MS
    assert (await operator.get("/api/state")).status_code == 401


async def test_a_session_outlives_the_daemon(tmp_path: Path) -> None:
    async with running_web(tmp_path, agent_page_ports=False) as hive:
        operator = await hive.operator()
        cookie = {"cookie": f"{hive.cookie}={operator.cookies[hive.cookie]}"}
        key, port = operator.headers["x-hive-key"], hive.web.port
    async with running_web(tmp_path, agent_page_ports=False, dashboard_port=port) as hive:
        again = hive.stranger(**cookie, **{"x-hive-key": key})
        assert (await again.get("/api/state")).status_code == 200
        assert hive.web.session_views()[0].client.startswith("python-httpx")


async def test_what_was_over_or_logged_out_does_not_come_back_with_a_restart(tmp_path: Path) -> None:
    clock = HandClock()
    store = await Store.open(tmp_path / "db.sqlite")
    before = Sessions(store, "local", clock)
    old = await before.create("old")
    clock.now_ms += 6 * DAY_MS
    good, left = await before.create("good"), await before.create("left")
    await before.end(left.session)
    clock.now_ms += 2 * DAY_MS
    after = Sessions(store, "local", clock)
    await after.load()
    assert [view.client for view in after.views()] == ["good"]
    assert after.find([old.cookie], old.key) is None
    assert after.find([good.cookie], good.key) is not None
    elsewhere = Sessions(store, "other-host", clock)
    await elsewhere.load()
    assert elsewhere.views() == []
    await store.close()


async def test_last_use_is_stored_now_and_then_and_not_for_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    store = await Store.open(tmp_path / "db.sqlite")
    held = Sessions(store, "local", clock)
    session = (await held.create("browser")).session
    writes = []
    unspied = held._store_seen
    monkeypatch.setattr(held, "_store_seen", lambda *given: (writes.append(given), unspied(*given)))
    for _ in range(600):
        clock.now_ms += 1000
        await held.touch(session)
    assert len(writes) == 2
    await store.close()


async def test_a_store_that_cannot_be_written_costs_no_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    store = await Store.open(tmp_path / "db.sqlite")
    held = Sessions(store, "local", clock)
    new = await held.create("browser")
    await store.close()
    clock.now_ms += sessions.SEEN_EVERY_MS
    await held.touch(new.session)
    assert held.find([new.cookie], new.key) is not None
    assert "last use not stored" in caplog.text
    with pytest.raises(Unavailable):
        await held.end_all()
    assert held.find([new.cookie], new.key) is None  # gone from this daemon at least


async def test_the_oldest_session_gives_way_when_there_are_too_many(tmp_path: Path) -> None:
    clock = HandClock()
    store = await Store.open(tmp_path / "db.sqlite")
    held = Sessions(store, "local", clock)
    ended: list[str] = []
    held.on_end.append(ended.append)
    first = await held.create("first")
    for number in range(sessions.SESSIONS_MAX):
        clock.now_ms += 1
        await held.create(str(number))
    assert len(held.views()) == sessions.SESSIONS_MAX
    assert ended == [first.session.id]
    await store.close()


def test_a_code_has_enough_chance_in_it() -> None:
    assert len(auth.CODE_ALPHABET) ** auth.SECRET_CHARACTERS > 2**96
    assert len(set(auth.CODE_ALPHABET)) == len(auth.CODE_ALPHABET)


def test_codes_in_waiting_are_bounded_and_the_newest_work() -> None:
    codes = LoginCodes(lambda: 0)
    issued = [codes.issue()[0] for _ in range(auth.CODES_MAX + 1)]
    assert [codes.redeem(code) for code in issued] == [False] + [True] * auth.CODES_MAX


def test_nothing_that_is_no_code_is_one() -> None:
    codes = LoginCodes(lambda: 0)
    code, _ = codes.issue()
    for text in ("", "-", code[:-1], code + "a", code[:6], "\ud800", "é" * 25, "x" * 10_000):
        assert not codes.redeem(text)
