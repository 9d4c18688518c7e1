"""The pages below a prefix of a reverse proxy that speaks TLS, in Chromium, with the real web behind it."""

import asyncio
import re
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import async_playwright, expect

from hive_core.web.static import assets_directory
from tests.browser.conftest import ARGUMENTS, PATIENCE_MS
from tests.conftest import need
from tests.support.reverse_proxy import OwnProxy, Upstream, free_port, own_proxy
from tests.support.web_hive import WebHive, running_web

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

NAME = "localhost"


@pytest.fixture
async def behind_tls(tmp_path: Path) -> AsyncIterator[tuple[WebHive, OwnProxy]]:
    tls = await _certificate(tmp_path)
    port, path = free_port(), tmp_path / "web.sock"
    settings = {"allowed_hosts": [f"https://{NAME}:{port}/hive"], "listen_socket": path}
    async with running_web(tmp_path / "hive", assets_directory(), agent_page_ports=False, **settings) as hive:
        await hive.agent("alice")
        async with own_proxy(Upstream(path), port, strips=True, tls=tls) as proxy:
            yield hive, proxy


async def _certificate(directory: Path) -> ssl.SSLContext:
    openssl = shutil.which("openssl")
    need(openssl, "openssl is not installed; install the package `openssl`")
    assert openssl is not None
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    arguments = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={NAME} -keyout {key} -out {certificate}"
    quiet = asyncio.subprocess.DEVNULL
    made = await asyncio.create_subprocess_exec(openssl, *arguments.split(), stdout=quiet, stderr=quiet)
    assert await made.wait() == 0
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_everything_stays_below_the_prefix_and_the_cookie_is_the_browsers_safest(
    behind_tls: tuple[WebHive, OwnProxy], chromium: str
) -> None:
    hive, proxy = behind_tls
    base = f"https://{NAME}:{proxy.port}/hive"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        context = await browser.new_context(ignore_https_errors=True)
        context.set_default_timeout(PATIENCE_MS)
        page = await context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))

        await page.goto(f"{base}/")  # without a session: to the login, and back
        await page.wait_for_url(f"{base}/login?return=%2Fhive%2F")
        await page.get_by_label("login URL or code").fill((await hive.web.login_url()).url)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{base}/")
        await expect(page.locator("#connection")).to_have_attribute("data-kind", "live")
        hive.actions.roster.set_note("alice", "seen live")
        await expect(page.locator("#container-list")).to_contain_text("seen live")

        [cookie] = await context.cookies()
        assert cookie["name"] == f"__Secure-{hive.cookie}"
        assert (cookie["path"], cookie["secure"], cookie["httpOnly"]) == ("/hive/", True, True)
        assert await page.evaluate(
            "Object.keys(localStorage).filter(each => each.startsWith('hive.key'))"
        ) == ["hive.key /hive/"]

        await page.get_by_role("button", name="Browsers that are logged in").click()
        await expect(page.locator("#panel-status")).to_have_text("1 browser")
        await page.get_by_role("link", name="alice").first.click()
        await page.wait_for_url(f"{base}/agents/alice/")
        await expect(page.locator("#agent-name")).to_have_text("alice")
        await page.get_by_role("link", name="Back to the dashboard").click()
        await page.wait_for_url(f"{base}/")
        await page.get_by_role("button", name="Log out", exact=True).click()
        # Its event stream may have ended first, and leave for the login that comes back here.
        await page.wait_for_url(re.compile(re.escape(base) + r"/login(\?|$)"))
        assert await context.cookies() == []
        assert (
            await page.evaluate("Object.keys(localStorage).filter(each => each.startsWith('hive.key'))") == []
        )
        await browser.close()
    assert faults == []
    assert proxy.outside == []
