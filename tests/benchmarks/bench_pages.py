"""What the pages weigh, how soon one can work with them, and what an hour of events leaves in memory.

    python tests/benchmarks/bench_pages.py [--rounds 5] [--agents 3] [--events 7200] [--chromium PATH]

Visits are to a real daemon on loopback, with rehearsal agents, in Chromium with an empty cache and with a
warm one: bytes and requests as they came over the line, when the first text was painted, and when the page
could be worked with (its stream is live and its rows are there). The peer in the same run is the login page,
which loads one small module. The hour is 7,200 events, two a second, sent as fast as the page takes them to
a dashboard and to an agent's page of the tests' stand-in hive; memory is the heap after a collection.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, CDPSession, Page, async_playwright
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.browser, run as a script

from hive_shared import wire
from tests.benchmarks.bench_tail import fill
from tests.browser.mock_hive import COOKIE, KEY, MockHive
from tests.support.hive import Hive, eventually, running_hive

READY = {
    "dashboard": "() => document.querySelector('#connection')?.dataset.kind === 'live'"
    " && document.querySelector('#container-list [data-key]') !== null",
    "agent page": "() => document.querySelector('#connection')?.dataset.kind === 'live'"
    " && document.querySelector('#rows .row') !== null",
    "login": "() => document.querySelector('#code')?.disabled === false",
}
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
NOW = "() => performance.now()"
Figures = dict[str, float]


class Line:
    """What comes over the line for one page: requests, and bytes with their headers, as sent."""

    def __init__(self, session: CDPSession) -> None:
        self.requests = 0
        self.bytes = 0.0
        session.on("Network.responseReceived", self._began)
        session.on("Network.loadingFinished", self._ended)

    def _began(self, event: Any) -> None:
        self.requests += not event["response"].get("fromDiskCache", False)

    def _ended(self, event: Any) -> None:
        self.bytes += event["encodedDataLength"]


async def visit(page: Page, url: str, kind: str) -> Figures:
    session = await page.context.new_cdp_session(page)
    await session.send("Network.enable")
    line = Line(session)
    await page.goto(url)
    await page.wait_for_function(READY[kind], polling="raf")
    ready = await page.evaluate(NOW)
    painted = await page.evaluate(PAINTED)
    await session.detach()
    return {"kib": line.bytes / 1024, "requests": line.requests, "painted_ms": painted, "ready_ms": ready}


async def visits(hive: Hive, browser: Browser, rounds: int) -> dict[str, Figures]:
    """Medians of each page, first with an empty cache and then with what that visit left in it."""
    taken: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        context = await browser.new_context()
        page = await context.new_page()
        login = (await hive.call(wire.MakeLoginUrl())).url
        base = login.partition("/login")[0]
        taken.setdefault("login, cold", []).append(await visit(page, f"{base}/login", "login"))
        await page.goto(login)
        await page.wait_for_function(READY["dashboard"])
        state = await context.storage_state()
        await context.close()
        for kind, path in (("dashboard", "/"), ("agent page", "/agents/alice/")):
            context = await browser.new_context(storage_state=state)
            page = await context.new_page()
            for cache in ("cold", "warm"):
                taken.setdefault(f"{kind}, {cache}", []).append(await visit(page, base + path, kind))
            await context.close()
    return {
        name: {key: statistics.median(each[key] for each in figures) for key in figures[0]}
        for name, figures in taken.items()
    }


async def real_visits(browser: Browser, agents: int, rounds: int) -> dict[str, Figures]:
    with tempfile.TemporaryDirectory() as directory:
        async with running_hive(Path(directory) / "hive") as hive:
            names = ["alice", *(f"agent-{number}" for number in range(1, agents))]
            await hive.spawn(*names)
            await hive.send("alice", "reply hello")
            await eventually(lambda: hive.is_idle("alice"), "alice is done")
            return await visits(hive, browser, rounds)


# --- an hour ---------------------------------------------------------------------------------------


async def heap_mib(page: Page) -> float:
    session = await page.context.new_cdp_session(page)
    await session.send("Performance.enable")
    await session.send("HeapProfiler.collectGarbage")
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    await session.detach()
    return next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize") / 2**20


def say_much(hive: MockHive, first: int, amount: int) -> None:
    for number in range(first, first + amount):
        hive.say(number + 1, "alice", "bob", f"what there is to say, for the {number}th time")


async def hour(browser: Browser, kind: str, events: int) -> Figures:
    hive = MockHive()
    url = await asyncio.to_thread(hive.start)
    state: Any = {
        "cookies": [],
        "origins": [{"origin": url, "localStorage": [{"name": "hive.key", "value": KEY}]}],
    }
    context = await browser.new_context(base_url=url, storage_state=state)
    await context.add_cookies([{"name": "hive_session", "value": COOKIE, "url": url}])
    page = await context.new_page()
    await page.goto("/" if kind == "dashboard" else "/agents/hm1nd/")
    await page.wait_for_selector("#connection[data-kind=live]")
    before = await heap_mib(page)
    for first in range(0, events, 100):
        if kind == "dashboard":
            await asyncio.to_thread(say_much, hive, first, 100)
        else:
            await asyncio.to_thread(hive.do, partial(fill, hive, 100))
        await page.evaluate("() => new Promise(requestAnimationFrame)")
    last = "the last of all"
    if kind == "dashboard":
        await asyncio.to_thread(hive.say, events + 1, "alice", "bob", last)
    else:
        await asyncio.to_thread(hive.live, "hm1nd", "note", {"text": last})
    await page.get_by_text(last).first.wait_for(timeout=600_000)
    after = await heap_mib(page)
    nodes = await page.evaluate("() => document.querySelectorAll('*').length")
    await context.close()
    await asyncio.to_thread(hive.stop)
    return {"events": events, "heap_before_mib": before, "heap_after_mib": after, "elements": nodes}


async def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chosen.chromium, args=["--no-sandbox"])
        told = {
            "visits": await real_visits(browser, chosen.agents, chosen.rounds),
            "hour": {kind: await hour(browser, kind, chosen.events) for kind in ("dashboard", "agent page")},
        }
        await browser.close()
    return told


def main() -> None:
    options = argparse.ArgumentParser(description="What the pages weigh, and how soon they can be used.")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--agents", type=int, default=3)
    options.add_argument("--events", type=int, default=7200)
    options.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    told = asyncio.run(measure(options.parse_args()))
    for part, columns in told.items():
        names = list(next(iter(columns.values())))
        table = Table("", *(name.replace("_", " ") for name in names), title=part)
        for name, figures in columns.items():
            table.add_row(name, *(f"{figures[key]:,.1f}" for key in names))
        Console(stderr=True).print(table)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
