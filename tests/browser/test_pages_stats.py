"""The stats pages in Chromium with the real daemon behind them: charts, tables, exports, live."""

import asyncio
import csv
import io
import json
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize, async_playwright, expect

from hive_shared import wire
from hive_shared.client import Client
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
WAIT_MS = 30_000  # a guard against hanging
HOUR_MS = 3_600_000
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hive]:
    """A hive with the manager, alice who worked for two days, and bob who did nothing."""
    async with running_hive(tmp_path_factory.mktemp("stats") / "hive") as running:
        await running.spawn("alice", "bob")
        await told(running, "alice", work_of_two_days())
        yield running


@pytest.fixture(scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield opened
        await opened.close()


def turn(key: int, hours_ago: float = 0.0, **fields: object) -> wire.TurnUsage:
    usual: dict[str, object] = {
        "key": f"{key:016x}", "ended_at_ms": int(time.time() * 1000 - hours_ago * HOUR_MS), "outcome": "ok",
        "model": "sonnet", "duration_ms": 41_200 + key % 100 * 900, "input_tokens": 1_900,
        "output_tokens": 2_350, "cache_read_tokens": 212_000, "cache_creation_tokens": 8_800,
        "cost_usd": 0.1834,
        "tools": {"Bash": 4, "Read": 6, "mcp__hyperhive__send": 2},
    }  # fmt: skip
    return wire.TurnUsage.model_validate({**usual, **fields})


def work_of_two_days() -> list[wire.TurnUsage]:
    """Something in most of 47 hours, some of it by another model, some of it failed."""
    turns = []
    for hours in range(47):
        for number in range((hours * 7) % 5):
            key = 1000 * (hours + 1) + number
            more = {
                "tools": {"Edit": number + 1, "Grep": 3, "Bash": hours % 4 + 1},
                "duration_ms": 9_000 + key,
            }
            is_bad = {"outcome": "failed"} if key % 6 == 0 else {}
            other = {"model": "opus", "cost_usd": 0.9} if hours % 9 == 0 else {}
            turns.append(turn(key, hours + 0.2, **{**more, **is_bad, **other}))
    return turns


async def told(hive: Hive, agent: str, turns: list[wire.TurnUsage]) -> None:
    """As the agent's harness tells it, over the agent's own socket."""
    async with Client(hive.paths.socket(agent)) as client:
        for first in range(0, len(turns), wire.TURNS_PER_REPORT):
            await client.call(wire.ReportTurns(turns=turns[first : first + wire.TURNS_PER_REPORT]))


class Watched:
    """A logged-in page; whatever it says on its console is a fault."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    async def fits(self, name: str, size: ViewportSize) -> None:
        """No sideways scrolling; with HIVE_SCREENSHOTS, a picture."""
        await self.page.set_viewport_size(size)
        wide = await self.page.evaluate("document.documentElement.scrollWidth > innerWidth")
        assert not wide, f"{name} scrolls sideways at {size['width']} px"
        if directory := os.environ.get("HIVE_SCREENSHOTS"):
            await asyncio.sleep(0.5)
            await self.page.screenshot(path=Path(directory) / f"{name}-{size['width']}.png", full_page=True)


@pytest.fixture
async def watched(hive: Hive, browser: Browser) -> AsyncIterator[Watched]:
    url = (await hive.call(wire.MakeLoginUrl())).url
    context = await browser.new_context(
        viewport=DESKTOP, color_scheme="dark", accept_downloads=True, timezone_id="Asia/Kolkata"
    )
    context.set_default_timeout(WAIT_MS)
    opened = Watched(await context.new_page())
    await opened.page.goto(url)
    await opened.page.wait_for_url(re.compile(r"/$"))
    yield opened
    assert opened.errors == []
    await context.close()


def origin(page: Page) -> str:
    return "/".join(page.url.split("/")[:3])


async def test_the_hives_figures_are_one_link_from_the_dashboard(watched: Watched) -> None:
    page = watched.page
    await page.get_by_role("link", name="Stats of the hive").click()
    await page.wait_for_url(re.compile("/stats$"))
    await expect(page.locator("#stats-agents-table")).to_contain_text("alice")
    await expect(page.locator("#stats-agents-table")).to_contain_text("hm1nd")
    await expect(page.locator(".tile").filter(has_text="tokens, cache read")).to_contain_text(
        re.compile(r"\dM")
    )
    await expect(page.locator("figure.chart")).to_have_count(10)
    await expect(page.locator("figure.chart .chip.ok")).to_have_count(2)  # messages and approvals
    await expect(page.locator("figure.chart .chip.warn")).to_have_count(8)
    await expect(page.locator('[data-chart="turns"] rect.tone-bad').first).to_be_visible()
    await watched.fits("hive-24h", DESKTOP)
    await page.get_by_role("radio", name="7 d").check()
    await expect(page).to_have_url(re.compile("range=7d"))
    await expect(page.locator('[data-chart="turns"] .column')).to_have_count(169)
    await watched.fits("hive-7d", PHONE)
    await page.set_viewport_size(DESKTOP)
    await page.get_by_role("radio", name="30 d").check()
    await expect(page.locator('[data-chart="turns"] .column')).to_have_count(31)
    await expect(page.locator('[data-chart="turns"] figcaption')).to_contain_text("by day")


async def test_every_chart_says_what_it_shows_and_has_its_figures_as_a_table(watched: Watched) -> None:
    page = watched.page
    await page.goto(f"{origin(page)}/agents/alice/stats?range=7d")
    for figure in await page.locator("figure.chart").all():
        image = figure.get_by_role("img")
        title = await figure.locator("h3").inner_text()
        described = await image.evaluate("each => each.querySelector('desc').textContent")
        assert await image.evaluate("each => each.querySelector('title').textContent") == title
        assert len(described) > 20
        named_by = (await image.get_attribute("aria-labelledby") or "").split()
        assert [await page.locator(f"#{each}").count() for each in named_by] == [1, 1]
    turns = page.locator('[data-chart="turns"]')
    await turns.get_by_text("as a table").click()
    rows = turns.locator("tbody tr")
    drawn = await turns.locator(".column:has(rect)").count()
    assert await rows.count() == drawn > 20
    cells = await rows.evaluate_all(
        "all => all.map((row) => [...row.querySelectorAll('td')].map((cell) => Number(cell.textContent)))"
    )
    assert sum(map(sum, cells)) == len(work_of_two_days())
    assert sum(bad for _, bad in cells) == sum(each.outcome == "failed" for each in work_of_two_days())
    await watched.fits("agent-7d", DESKTOP)
    await watched.fits("agent-7d", PHONE)


async def test_a_bar_is_read_by_pointing_at_it(watched: Watched) -> None:
    page = watched.page
    await page.goto(f"{origin(page)}/agents/alice/stats?range=24h")
    chart = page.locator('[data-chart="tools"]')
    await chart.scroll_into_view_if_needed()
    box = await chart.locator(".plot").bounding_box()
    filled = await chart.locator(".column").evaluate_all(
        "all => all.findIndex((each) => each.children.length > 0)"
    )
    count = await chart.locator(".column").count()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] * (filled + 0.5) / count, box["y"] + 20)
    await expect(chart.locator(".readout")).to_contain_text(re.compile(r"\d\d:\d\d: .*(Bash|Grep|Edit) \d"))
    await expect(chart.locator(".column.pointed")).to_have_count(1)


async def test_a_turn_that_ends_shows_by_itself_and_leaves_open_tables_open(
    hive: Hive, watched: Watched
) -> None:
    page = watched.page
    await page.goto(f"{origin(page)}/agents/bob/stats")
    await expect(page.locator("#stats-empty")).to_contain_text(
        "appear here when bob has worked on a first message"
    )
    await watched.fits("agent-empty", PHONE)
    await expect(page.locator("#connection")).to_contain_text("live")
    await hive.send("bob", "hello")  # a rehearsal turn, which the harness tells of
    await expect(page.locator("#stats-empty")).to_be_hidden()
    turns = page.locator('[data-chart="turns"]')
    await expect(turns).to_be_visible()
    await turns.get_by_text("as a table").click()
    before = int(await page.locator(".tile-value").first.inner_text())
    await told(hive, "bob", [turn(7_000_001, model='=HYPERLINK("http://x")<img src=x onerror=alert(1)>')])
    await expect(page.locator(".tile-value").first).to_have_text(str(before + 1))
    await expect(turns.locator("tbody tr").first).to_be_visible()
    await expect(page.locator("#stats-models-table")).to_contain_text("<img src=x onerror=alert(1)>")


async def test_exports_are_saved_under_a_name_and_read_back(hive: Hive, watched: Watched) -> None:
    page = watched.page
    await told(hive, "bob", [turn(7_000_002, model="=1+1", tools={"@SUM(A1)": 2})])
    await page.goto(f"{origin(page)}/agents/bob/stats?range=24h")
    files: dict[str, bytes] = {}
    for words in ("Turns as CSV", "Turns as JSON", "Tools as CSV"):
        async with page.expect_download() as saving:
            await page.get_by_role("button", name=words).click()
        download = await saving.value
        name = download.suggested_filename
        assert re.fullmatch(r"bob-24h-\d{8}-(turns\.csv|turns\.json|tools\.csv)", name)
        files[words] = Path(await download.path()).read_bytes()
    rows = list(csv.DictReader(io.StringIO(files["Turns as CSV"].decode(), newline="")))
    assert "'=1+1" in [row["model"] for row in rows]
    turns = json.loads(files["Turns as JSON"])
    assert len(turns["turns"]) == len(rows)
    assert turns["agent"] == "bob"
    assert turns["tools"]["@SUM(A1)"] == 2  # JSON is no spreadsheet
    assert b"'@SUM(A1),2\r\n" in files["Tools as CSV"]


async def test_a_destroyed_agents_figures_stay_and_a_purged_ones_go(hive: Hive, watched: Watched) -> None:
    page = watched.page
    await hive.spawn("carol")
    await told(hive, "carol", [turn(1), turn(2)])
    await hive.call(wire.Destroy(name="carol"))
    await page.goto(f"{origin(page)}/stats")
    await expect(page.locator('#stats-agents-table [data-key="carol"]')).to_contain_text("† destroyed")
    await page.locator('#stats-agents-table [data-key="carol"] a').click()
    await expect(page.locator(".tile-value").first).to_have_text("2")
    await hive.call(wire.Destroy(name="carol", purge=True))
    database = sqlite3.connect(hive.paths.database)
    left = database.execute("SELECT count(*) FROM turn WHERE agent = 'carol'").fetchone()
    database.close()
    assert left == (0,)


async def test_the_terminal_and_the_page_have_the_same_figures(hive: Hive) -> None:
    report = await hive.call(wire.Stats(agent="alice", since_seconds=7 * 86_400.0))
    assert report.totals.turns == len(work_of_two_days())
    operator = await hive.login()
    same = (await operator.get("/api/agents/alice/stats?range=7d"))["report"]
    await operator.close()
    assert wire.UsageSums.model_validate(same["totals"]) == report.totals
    await eventually(lambda: hive.is_idle("bob"), "bob is idle")
