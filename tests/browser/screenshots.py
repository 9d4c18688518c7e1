"""Photographs every page and state, on a desktop and a phone: `make screenshots`, then open the index.

Two hives stand before the camera: the stand-in with its busy day, whose clock stands still so that every run
gives the same pictures, and a real daemon in which agents rehearse. `--docs` also renews those in docs/.
"""

import argparse
import asyncio
import html
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, ViewportSize, async_playwright

from hive_shared import wire
from tests.browser import demo_hive, mock_hive, screenshots_real
from tests.browser.mock_hive import COOKIE, KEY
from tests.browser.screenshots_png import small
from tests.browser.screenshots_scenes import SCENES, Scene
from tests.support.hive import Hive, running_hive

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
SIZES: dict[str, ViewportSize] = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}
LOOKS = (("desktop", "dark"), ("phone", "dark"), ("desktop", "light"))
NOW_MS = 1_782_900_000_000  # what the stand-in and its pages take for now
PORT = 8377
WAIT_MS = 20_000  # a guard against hanging
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--font-render-hinting=none",
]
# Of the real daemon: name (`whole` if more than a screen), path, and what is there when the page is.
REAL = (
    ("real-dashboard-whole", "/", "#approval-list [data-key]"),
    ("real-agent", "/agents/alice/", "#rows .row"),
    ("real-stats", "/stats", "#stats-charts svg"),
    ("real-stats-whole", "/stats", "#stats-charts svg"),
    ("real-agent-stats-whole", "/agents/alice/stats", "#stats-charts svg"),
)
# Which of the pictures are in the documentation, and under which name.
IN_DOCS = {
    "dashboard.png": "dashboard-desktop-dark",
    "approval.png": "approval-diff-desktop-dark",
    "agent.png": "agent-desktop-dark",
    "stats.png": "real-stats-desktop-dark",
    "phone.png": "dashboard-phone-dark",
}


@dataclass
class Album:
    """Where the pictures go, and what they show."""

    place: Path
    only: str = ""
    pictures: list[tuple[str, str]] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)  # those of pages that scroll sideways
    failed: list[str] = field(default_factory=list)

    def wants(self, name: str) -> bool:
        return self.only in name

    async def take(self, page: Page, name: str, says: str, *, whole: bool = False) -> None:
        """One picture of the page as it is."""
        await page.screenshot(
            path=self.place / f"{name}.png", full_page=whole, animations="disabled", caret="hide"
        )
        self.pictures.append((name, says))
        if await page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            self.wide.append(name)

    def index(self) -> Path:
        """A page to leaf through them."""
        figures = "\n".join(
            f'<figure><a href="{name}.png"><img loading="lazy" src="{name}.png" alt=""></a>'
            f"<figcaption><b>{html.escape(name)}</b> {html.escape(says)}</figcaption></figure>"
            for name, says in sorted(self.pictures)
        )
        style = (
            "body{font:14px sans-serif;background:#222;color:#ddd;columns:22em}figure{margin:0 0 1.5em;"
            "break-inside:avoid}img{width:100%;max-height:60vh;object-fit:cover;object-position:top}"
        )
        file = self.place / "index.html"
        file.write_text(
            f"<!doctype html><meta charset=utf-8><title>Pages</title><style>{style}</style>{figures}\n"
        )
        return file


def options(size: str, theme: str) -> dict[str, Any]:
    """Of a browser window; nothing moves in it, and its clock and language do not depend on the machine."""
    return {
        "viewport": SIZES[size],
        "color_scheme": theme,
        "reduced_motion": "reduce",
        "locale": "en-GB",
        "timezone_id": "UTC",
        "has_touch": size == "phone",
    }


async def shoot_scene(browser: Browser, album: Album, scene: Scene) -> None:
    """One scene in each size and theme, each with a hive of its own: none shows what another left."""
    for size, theme in LOOKS:
        name = f"{scene.name}-{size}-{theme}"
        if not album.wants(name):
            continue
        hive = scene.hive()
        hive.start(PORT)
        context = await window(browser, size, theme, hive.url if scene.logged_in else "")
        try:
            page = await context.new_page()
            await page.clock.set_fixed_time(NOW_MS / 1000)
            await page.goto(f"{hive.url}{scene.path}")
            await page.locator(scene.ready).first.wait_for()
            await scene.act(page)
            await page.evaluate("document.fonts.ready")
            await page.wait_for_timeout(300)  # what comes over the stream is there, and notices are put up
            await album.take(page, name, scene.says, whole=scene.whole)
        except Exception as error:
            album.failed.append(f"{name}: {str(error).splitlines()[0]}")
        finally:
            await context.close()
            hive.stop()


async def window(browser: Browser, size: str, theme: str, stand_in: str = "") -> BrowserContext:
    """A browser window of that size and theme, logged in to the stand-in hive if there is one."""
    how = options(size, theme)
    if stand_in:
        storage = {"origin": stand_in, "localStorage": [{"name": "hive.key", "value": KEY}]}
        how |= {"storage_state": {"cookies": [], "origins": [storage]}}
    context = await browser.new_context(**how)
    context.set_default_timeout(WAIT_MS)
    await context.add_init_script(f"localStorage.setItem('hive.theme', '{theme}')")
    if stand_in:
        await context.add_cookies([{"name": "hive_session", "value": COOKIE, "url": stand_in}])
    return context


async def shoot_real(browser: Browser, album: Album, hive: Hive) -> None:
    """The pages with a real daemon behind them."""
    await screenshots_real.seed(hive)
    for size, theme in LOOKS:
        url = (await hive.call(wire.MakeLoginUrl())).url
        context = await window(browser, size, theme)
        page = await context.new_page()
        await page.goto(url)
        await page.wait_for_url(re.compile(r"/$"))
        base = url.split("/login")[0]
        for name, path, ready in REAL:
            named = f"{name}-{size}-{theme}"
            if not album.wants(named):
                continue
            await page.goto(f"{base}{path}")
            try:
                await page.locator(ready).first.wait_for()
                await page.wait_for_timeout(300)
                await album.take(page, named, "with a real daemon", whole=name.endswith("-whole"))
            except Exception as error:
                album.failed.append(f"{named}: {str(error).splitlines()[0]}")
        await context.close()


async def shoot(place: Path, chromium: str, only: str) -> Album:
    album = Album(place, only)
    # Both modules read the clock by a name of their own.
    mock_hive.now_ms = demo_hive.now_ms = lambda: NOW_MS
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        for scene in SCENES:
            await shoot_scene(browser, album, scene)
        if any(album.wants(f"{name}-{size}-{theme}") for name, _, _ in REAL for size, theme in LOOKS):
            try:
                with tempfile.TemporaryDirectory() as root:
                    async with running_hive(Path(root) / "hive") as hive:
                        await shoot_real(browser, album, hive)
            except Exception as error:  # the pictures of the stand-in are worth having without it
                album.failed.append(f"the real daemon: {str(error).splitlines()[-1]}")
        await browser.close()
    return album


def renew_docs(album: Album) -> None:
    for name, picture in IN_DOCS.items():
        source = album.place / f"{picture}.png"
        if source.exists():
            (DOCS / name).write_bytes(small(source.read_bytes()))


def main() -> int:
    """0 if every picture was taken and no page scrolls sideways."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--out", type=Path, default=PROJECT / "build" / "screenshots")
    arguments.add_argument("--docs", action="store_true", help="renew the pictures in docs/ as well")
    arguments.add_argument("--only", default="", help="only pictures whose name holds this")
    asked = arguments.parse_args()
    chromium = os.environ.get("HIVE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        print("no Chromium found; install the package `chromium` or set HIVE_CHROMIUM", file=sys.stderr)
        return 2
    asked.out.mkdir(parents=True, exist_ok=True)
    album = asyncio.run(shoot(asked.out, chromium, asked.only))
    if asked.docs:
        renew_docs(album)
    print(f"{len(album.pictures)} pictures: {album.index()}")
    for name in album.wide:
        print(f"scrolls sideways: {name}")
    for failure in album.failed:
        print(f"not taken: {failure}")
    return 1 if album.failed or album.wide else 0


if __name__ == "__main__":
    sys.exit(main())
