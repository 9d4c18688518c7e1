"""What is photographed: every page and state of the pages, each with what to do before it shows."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Page, expect

from hive_core.waiting.sources import permission_entry
from hive_shared.wire import PermissionView
from tests.browser import mock_hive
from tests.browser.demo_hive import busy_hive
from tests.browser.mock_hive import MockHive, harness_state

Act = Callable[[Page], Awaitable[object]]
DIALOG = "dialog[open]"


async def nothing(page: Page) -> None:
    """The page as it opens."""


def press(selector: str, shows: str = "") -> Act:
    """Press the first of `selector`, and wait until `shows` is there."""

    async def act(page: Page) -> None:
        await page.locator(selector).first.click()
        if shows:
            await page.locator(shows).first.wait_for()

    return act


def look(selector: str) -> Act:
    """Scroll to the first of `selector`."""

    async def act(page: Page) -> None:
        await page.locator(selector).first.evaluate("each => each.scrollIntoView({block: 'start'})")

    return act


def both(*acts: Act) -> Act:
    async def act(page: Page) -> None:
        for each in acts:
            await each(page)

    return act


def key(keys: str, shows: str) -> Act:
    async def act(page: Page) -> None:
        for each in keys.split():
            await page.keyboard.press(each)
        await page.locator(shows).first.wait_for()

    return act


def write(selector: str, text: str) -> Act:
    async def act(page: Page) -> None:
        await page.locator(selector).first.fill(text)

    return act


def says(selector: str, text: str) -> Act:
    async def act(page: Page) -> None:
        await expect(page.locator(selector).first).to_contain_text(text)

    return act


async def find_in_tail(page: Page) -> None:
    await page.locator("#find-open").click()
    await page.locator("#find-text").fill("parser")
    await expect(page.locator("#find-count")).not_to_be_empty()


async def open_folds(page: Page) -> None:
    await page.evaluate("document.querySelectorAll('#rows details').forEach((each) => each.open = true)")


def busy() -> MockHive:
    """The busy day, and the queue of what waits in it."""
    hive = busy_hive()
    hive.waiting = [
        _waits("approval", 13, "hm1nd", "change alice", "agent: ripgrep, the forge's MCP server", ["alice"]),
        _waits("question", 3, "hm1nd", "hm1nd asks", "Which release should alice's notes cover?", ["hm1nd"]),
        _waits("question", 4, "carol", "carol asks", "May I delete /shared/scratch?", ["carol"]),
        *(permission_entry(PermissionView(**each)).model_dump(mode="json") for each in hive.permissions),
        _waits("approval", 12, "hm1nd", "spawn grace", "A reviewer for alice's patches.", []),
        _waits("login", "bob", "bob", "bob needs a login", "", ["bob"]),
    ]
    return hive


def _waits(kind: str, id: int | str, who: str, summary: str, said: str, blocked: list[str]) -> dict[str, Any]:
    return {
        "kind": kind,
        "id": str(id),
        "who": who,
        "summary": summary,
        "said": said,
        "since_ms": mock_hive.now_ms() - 4 * 60_000,
        "blocked": blocked,
        "otherwise": "waits for ever",
        "link": f"agents/{id}/" if kind == "login" else f"#{kind}-{id}",
    }


def limited() -> MockHive:
    """The busy day; carol's harness says itself that it waits."""
    hive = busy()
    more = {"note": "5-hour limit", "resumes_at_ms": mock_hive.now_ms() + 47 * 60_000, "unread": 3}
    hive.harnesses["carol"].state = harness_state("carol", badge="rate_limited", **more)
    return hive


def refusing(hive: MockHive) -> MockHive:
    """A hive whose daemon restarts: everything is refused."""
    for path in ("/api/state", "/api/events"):
        hive.refusals[path] = (503, {"code": "starting", "message": "hive-c0re is starting"})
    return hive


@dataclass(frozen=True)
class Scene:
    """One picture. `whole`: of the whole page, not of what one screen shows."""

    name: str
    says: str
    path: str = "/"
    act: Act = nothing
    ready: str = "#container-list [data-key]"
    hive: Callable[[], MockHive] = busy
    whole: bool = False
    logged_in: bool = True


ROW = '#container-list [data-key="{}"]'
APPROVAL = '#approval-list [data-key="13"]'
TAIL = "#rows .row"

SCENES = [
    Scene("dashboard", "the dashboard on a busy day"),
    Scene("dashboard-whole", "the same, from top to bottom", whole=True),
    Scene("dashboard-empty", "the first visit to a new hive", hive=MockHive, whole=True),
    Scene("dashboard-not-up", "the daemon restarts", hive=lambda: refusing(busy()), ready="#connection"),
    Scene("questions", "questions with radio buttons, checkboxes and free text", act=look("#questions")),
    Scene("permission", "a tool call that waits", act=look("#permission-list > li")),
    Scene("inbox", "the operator's inbox", act=look("#inbox")),
    Scene("approval", "a change that waits for approval", act=look(APPROVAL)),
    Scene("approval-diff", "its diff", act=look(f"{APPROVAL} .flags")),
    Scene("approval-building", "a build with its log", act=look('#approval-list [data-key="11"]')),
    Scene("decided", "what was decided", act=both(press("#resolved > summary"), look("#resolved"))),
    Scene("flow", "the message flow", act=look("#flow")),
    Scene("search", "search through all messages", act=both(write("#flow-search", "notes"), look("#flow"))),
    Scene("kept-state", "tombstones, with size and age", act=look("#tombstones")),
    Scene("activity", "who did what", act=look("#activity")),
    Scene("panel-log", "an agent's log", act=press('[data-action="logs"]', "#panel:not([hidden])")),
    Scene(
        "panel-history",
        "what an agent ran before",
        act=press(
            f'{ROW.format("alice")} [data-action="history"]', "#panel-history .card, #panel-history li"
        ),
    ),
    Scene(
        "confirm",
        "a change that cannot be taken back",
        act=press('#tombstone-list [data-key="mallory"] button.danger', DIALOG),
    ),
    Scene(
        "sessions",
        "browsers that are logged in",
        act=press('[data-action="sessions"]', "#panel:not([hidden])"),
    ),
    Scene("keys", "the keys", act=key("?", DIALOG)),
    Scene("login", "the login", "/login", ready="main", logged_in=False),
    Scene("agent", "an agent at work", "/agents/alice/", ready=TAIL),
    Scene("agent-open", "the same with everything unfolded", "/agents/alice/", open_folds, TAIL, whole=True),
    Scene("agent-find", "search in the tail", "/agents/alice/", find_in_tail, TAIL),
    Scene(
        "agent-commands",
        "slash commands",
        "/agents/alice/",
        both(write("#prompt-text", "/"), says("#suggestions", "/help")),
        TAIL,
    ),
    Scene("agent-login", "an agent that needs a login", "/agents/bob/", ready="#agent-login:not([hidden])"),
    Scene(
        "agent-limited", "an agent that waits for its limit", "/agents/carol/", ready="#prompt", hive=limited
    ),
    Scene("agent-new", "an agent that did nothing yet", "/agents/carol/", ready="#empty:not([hidden])"),
    Scene("agent-asks", "an agent that asks to use a tool", "/agents/hm1nd/", ready="#permission-list > li"),
    Scene("agent-stopped", "an agent that does not run", "/agents/frank/", ready="#asleep:not([hidden])"),
    Scene("agent-crashed", "an agent that crashed", "/agents/erin/", ready="#asleep:not([hidden])"),
    Scene("agent-gone", "an agent that does not exist", "/agents/nobody/", ready="#gone:not([hidden])"),
]
