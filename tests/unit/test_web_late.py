"""The web is loaded last: its ports are taken first, and who asks for it meanwhile waits or is told."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from hive_core.config import Settings
from hive_core.web.app import Web as RealWeb
from hive_core.web.doors import Doors
from hive_core.web.late import Dashboard, LateWeb
from hive_shared.errors import Conflict, Unavailable
from hive_shared.wire import LoginUrl, MakeLoginUrl, SessionView
from tests.support.hive import Hive
from tests.support.web_hive import running_web

LOGIN = LoginUrl(url="http://127.0.0.1:7000/login#code", code="code", expires_at_ms=1)
VIEW = SessionView(id="1", client="a browser", created_at_ms=1, last_seen_ms=1, ends_at_ms=2)


class Web:
    """What `LateWeb` passes on to."""

    def __init__(self) -> None:
        self.started = self.closed = 0

    async def start(self) -> None:
        self.started += 1

    async def close(self) -> None:
        self.closed += 1

    async def login_url(self) -> LoginUrl:
        return LOGIN

    def session_views(self) -> list[SessionView]:
        return [VIEW]

    async def end_session(self, session_id: str) -> None:
        assert session_id == "1"

    async def logout_all(self) -> int:
        return 3

    def stream_counts(self) -> tuple[int, int]:
        return 2, 1


async def test_who_asks_for_a_login_before_it_is_there_waits_for_it() -> None:
    go, web = asyncio.Event(), Web()

    async def load() -> Dashboard:
        await go.wait()
        return web

    late = LateWeb(load)
    starting = asyncio.create_task(late.start())
    asking = [asyncio.create_task(late.login_url()) for _ in range(2)]
    await asyncio.sleep(0)
    asking[0].cancel()  # who gives up takes nothing from the others
    with pytest.raises(Unavailable, match="ask again in a moment"):
        late.session_views()
    assert late.stream_counts() == (0, 0)
    assert not asking[1].done()
    go.set()
    await starting
    assert await asking[1] == LOGIN
    assert late.session_views() == [VIEW]
    assert (await late.logout_all(), late.stream_counts()) == (3, (2, 1))
    await late.end_session("1")
    await late.close()
    assert (web.started, web.closed) == (1, 1)


async def test_one_that_never_came_to_be_is_closed_as_well() -> None:
    async def load() -> Dashboard:
        raise OSError("no such module")

    late = LateWeb(load)
    with pytest.raises(OSError, match="no such module"):
        await late.start()
    await late.close()


async def test_a_browser_that_comes_while_it_is_loaded_is_answered_then(tmp_path: Path) -> None:
    async with running_web(tmp_path) as hive:
        settings = hive.settings.model_copy(update={"dashboard_port": 0})
        doors = Doors.open(settings)
        async with httpx.AsyncClient(base_url=doors.url, timeout=60.0) as browser:
            asking = asyncio.create_task(browser.get("/login"))
            done, _ = await asyncio.wait({asking}, timeout=0.2)
            assert not done  # it is in the queue
            web = RealWeb(hive.actions, settings, hive.store, doors)
            await web.start()
            try:
                assert (await asking).status_code == 200
            finally:
                await web.close()


def test_a_port_that_is_taken_is_told_by_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(state_root=tmp_path, run_root=tmp_path, dashboard_port=other.getsockname()[1])
        with pytest.raises(Conflict, match="HIVE_DASHBOARD_PORT"):
            Doors.open(settings)


def test_given_up_doors_are_free_for_others(tmp_path: Path) -> None:
    settings = Settings(state_root=tmp_path, run_root=tmp_path, dashboard_port=0)
    doors = Doors.open(settings)
    doors.close()
    doors.close()
    again = Doors.open(settings.model_copy(update={"dashboard_port": doors.port}))
    assert again.url == doors.url
    again.close()


def test_what_the_daemon_loads_before_it_answers_has_no_web_in_it() -> None:
    """Nor what only another kind of machine needs."""
    late = ("fastapi", "starlette", "uvicorn", "jinja2", "hive_core.containers.nixos", "hive_core.plan_nixos")
    looking = f"import sys, hive_core.daemon; print([name for name in {late!r} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


async def test_the_first_login_of_a_daemon_that_only_just_answers_is_good(tmp_path: Path) -> None:
    hive = Hive(tmp_path)
    await hive.start()  # its host socket answers; the web may be loading
    try:
        url = (await hive.call(MakeLoginUrl())).url
        async with httpx.AsyncClient(timeout=60.0) as browser:
            assert (await browser.get(url.partition("#")[0])).status_code == 200
    finally:
        await hive.stop()
