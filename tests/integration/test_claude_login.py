"""Logging Claude Code in.

`claude auth login` needs the network for its last step, so a stand-in plays it here, with the texts, streams
and exit codes of the real one (`tests/support/fake_claude.py`). What the real one does offline is
tested with the real one, below.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_agent.backends.login_claude import ClaudeLogin
from hive_shared.errors import BadRequest, Conflict
from tests.support.claude import AgentFiles, fake_claude
from tests.support.fake_claude import LOGIN_URL


@pytest.fixture
def files(tmp_path: Path) -> AgentFiles:
    made = AgentFiles(tmp_path / "alice")
    made.write()
    return made


@pytest.fixture
async def login(tmp_path: Path, files: AgentFiles) -> AsyncIterator[ClaudeLogin]:
    made = ClaudeLogin(files.config(fake_claude(tmp_path, "login"), {}))
    yield made
    await made.cancel()


def stage(login: ClaudeLogin) -> str:
    return str(login.state()["stage"])


async def test_a_login_goes_from_url_over_code_to_credentials(login: ClaudeLogin) -> None:
    assert login.state() == {"needed": True, "stage": "none", "url": None, "message": ""}
    await login.start()
    assert (stage(login), login.state()["url"]) == ("awaiting_code", LOGIN_URL)
    await login.code(" good#state\n")
    assert login.state() == {"needed": False, "stage": "done", "url": None, "message": "logged in"}


async def test_half_a_code_may_be_corrected(login: ClaudeLogin) -> None:
    await login.start()
    await login.code("half")
    assert (stage(login), login.state()["url"]) == ("awaiting_code", LOGIN_URL)
    assert "Invalid code" in login.state()["message"]
    await login.code("good#state")
    assert stage(login) == "done"


async def test_a_refused_code_fails_the_login_and_another_may_begin(login: ClaudeLogin) -> None:
    await login.start()
    await login.code("bad#state")
    assert stage(login) == "failed"
    assert "Login failed: Request failed with status code 400" in login.state()["message"]
    assert login.needed()
    with pytest.raises(Conflict, match="start the login first"):
        await login.code("good#state")
    await login.start()
    assert stage(login) == "awaiting_code"


async def test_a_login_can_be_cancelled_at_any_time(login: ClaudeLogin) -> None:
    await login.cancel()
    starting = asyncio.create_task(login.start())
    await asyncio.sleep(0)
    await login.cancel()
    await starting
    assert stage(login) == "none"
    await login.start()
    await login.cancel()
    assert (stage(login), login.state()["url"]) == ("none", None)
    with pytest.raises(Conflict):
        await login.code("good#state")


@pytest.mark.parametrize("code", ["", "  ", "two words", "line\nbreak", "ünïcode", "x" * 5000, "\x1b[2J"])
async def test_what_cannot_be_a_code_never_reaches_the_cli(login: ClaudeLogin, code: str) -> None:
    await login.start()
    with pytest.raises(BadRequest):
        await login.code(code)
    assert stage(login) == "awaiting_code"


async def test_a_cli_that_is_not_there_fails_the_login(tmp_path: Path, files: AgentFiles) -> None:
    login = ClaudeLogin(files.config(tmp_path / "nowhere", {}))
    await login.start()
    assert stage(login) == "failed"
    assert "cannot start" in login.state()["message"]


HOUR_MS = 3_600_000
TOKENS = {"accessToken": "sk-ant-oat01-a", "refreshToken": "sk-ant-ort01-b", "expiresAt": 1}


@pytest.mark.parametrize(
    ("credentials", "needed"),
    [
        ({"claudeAiOauth": TOKENS}, False),
        ({"claudeAiOauth": {"accessToken": "a", "expiresAt": time.time() * 1000 + HOUR_MS}}, False),
        ({"claudeAiOauth": {"accessToken": "a", "expiresAt": time.time() * 1000 - HOUR_MS}}, True),
        ({"claudeAiOauth": {**TOKENS, "accessToken": ""}}, True),
        ({"claudeAiOauth": {"accessToken": "a", "expiresAt": "soon"}}, True),
        ({"claudeAiOauth": []}, True),
        ([1], True),
        ({}, True),
    ],
)
def test_credentials_count_while_they_can_be_used(files: AgentFiles, credentials: Any, needed: bool) -> None:
    (files.paths.claude / ".credentials.json").write_text(json.dumps(credentials))
    assert ClaudeLogin(files.config(Path("claude"), {})).needed() is needed


def test_an_api_key_makes_a_login_needless(files: AgentFiles) -> None:
    key = files.paths.claude / "api-key"
    login = ClaudeLogin(files.config(Path("claude"), {}))
    for text, needed in (
        ("", True),
        ("\n", True),
        ("two words", True),
        ("x" * 5000, True),
        ("sk-key\n", False),
    ):
        key.write_text(text)
        assert login.needed() is needed, text[:20]
    assert not ClaudeLogin(files.config(Path("claude"), {"ANTHROPIC_AUTH_TOKEN": "token"})).needed()


def test_links_and_devices_are_no_credentials(files: AgentFiles, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-key")
    login = ClaudeLogin(files.config(Path("claude"), {}))
    for target in (tmp_path / "key", Path("/dev/zero"), tmp_path):
        link = files.paths.claude / "api-key"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        assert login.needed()


@pytest.mark.claude
async def test_the_real_cli_gives_a_url_refuses_half_a_code_and_is_cancelled(
    claude_cli: Path, files: AgentFiles
) -> None:
    login = ClaudeLogin(files.config(claude_cli, {}))
    await login.start()
    assert stage(login) == "awaiting_code", login.state()
    assert login.state()["url"].startswith("https://claude.com/")
    assert "code_challenge=" in login.state()["url"]
    assert "state=" in login.state()["url"]
    await login.code("half-a-code")
    assert stage(login) == "awaiting_code"
    assert "Invalid code" in login.state()["message"]
    await login.cancel()
    assert stage(login) == "none"
