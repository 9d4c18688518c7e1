"""What every test shares: the event loop, and how a missing tool is told."""

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    import httpx

    from tests.support.web_hive import WebHive

# No test is timed: a busy machine is not a fault of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure() -> None:
    """Ctrl-C means the same to what tests start, also where the suite itself runs with it ignored (`&`)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def operator(hive: "WebHive") -> "httpx.AsyncClient":
    """Somebody who is logged in to the dashboard of the module's own `hive`."""
    return await hive.operator()


def need(condition: object, reason: str) -> None:
    """Skip with `reason` on a user's machine; in CI (`HIVE_REQUIRE_ALL=1`) a missing tool is a failure."""
    if condition:
        return
    if os.environ.get("HIVE_REQUIRE_ALL") == "1":
        pytest.fail(f"HIVE_REQUIRE_ALL is set, but {reason}", pytrace=False)
    pytest.skip(reason)


def find_claude() -> Path | None:
    """The Claude Code CLI: `HIVE_CLAUDE`, the project's own (`make claude`), or the one on PATH."""
    named = os.environ.get("HIVE_CLAUDE")
    local = PROJECT / ".claude-cli" / "claude"
    for candidate in (named, str(local), shutil.which("claude")):
        if candidate and Path(candidate).exists():
            return Path(candidate).resolve()
    return None


@pytest.fixture(scope="session")
def claude_cli() -> Path:
    path = find_claude()
    need(path, "the Claude Code CLI is not installed; run `make claude`")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def codex_cli() -> Path:
    path = PROJECT / ".codex-cli" / "codex"
    need(path.exists(), "the Codex CLI is not installed; run `make codex`")
    return path


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """What `make js` installed: typescript, axe-core, linkedom. Node itself is on PATH then, too."""
    path = PROJECT / "tests" / "js" / "node_modules"
    need(shutil.which("node"), "Node is not installed; install the package `nodejs`")
    need(
        (path / ".installed").exists(), "the checks of the pages' JavaScript are not installed; run `make js`"
    )
    return path


@pytest.fixture(scope="session")
def whole_chromium() -> str:
    """The browser that has notifications: its headless shell has none."""
    path = os.environ.get("HIVE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    need(path, "no Chromium found; install the package `chromium` or set HIVE_CHROMIUM")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def chromium() -> str:
    # The headless shell is the same engine without a window, and takes half the time of it.
    known = ("chromium-headless-shell", "chromium", "google-chrome")
    path = os.environ.get("HIVE_CHROMIUM") or next(filter(None, map(shutil.which, known)), None)
    need(path, "no Chromium found; install the package `chromium` or set HIVE_CHROMIUM")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def bubblewrap() -> str:
    path = shutil.which("bwrap")
    need(path, "bubblewrap is not installed; install the package `bubblewrap`")
    assert path is not None
    return path
