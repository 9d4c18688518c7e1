"""git where it is used: in the manager's real container, on repositories that core made, as another user."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.containers.bubblewrap import NoBubblewrap, find_sandbox
from hive_shared import wire
from tests.conftest import need
from tests.support.hive import Hive, eventually, running_hive

pytestmark = [pytest.mark.bubblewrap, pytest.mark.slow]

# As the harness gives it to the backend's programs.
SHELL = "export PATH=/usr/local/bin:/usr/bin:/bin HOME=/root GIT_CONFIG_SYSTEM=/run/hive/gitconfig; set -e; "


async def can_isolate() -> bool:
    try:
        await find_sandbox()
    except NoBubblewrap:
        return False
    return True


@pytest.fixture
async def hive(tmp_path: Path, bubblewrap: str) -> AsyncIterator[Hive]:
    need(shutil.which("git"), "git is not installed; install the package `git`")
    need(shutil.which("nsenter"), "nsenter is not installed; install the package `util-linux`")
    need(await can_isolate(), "bubblewrap does not work on this machine")
    async with running_hive(tmp_path / "hive", HIVE_ISOLATION="bubblewrap") as hive:
        await eventually(lambda: hive.is_idle("hm1nd"), "the manager is idle")
        await hive.spawn("alice")
        yield hive


async def inside(hive: Hive, name: str, script: str) -> str:
    """What a shell script prints in the agent's container, as its user; fails if the script does."""
    agent = await hive.agent(name)
    assert agent is not None
    process = await asyncio.create_subprocess_exec(
        *("nsenter", "-t", str(agent.pid), "-U", "-m", "-p", "-S", "0", "-G", "0", "--"),
        *("/bin/sh", "-c", SHELL + script),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode().strip()


async def pending(hive: Hive) -> wire.ApprovalView | None:
    return next(iter((await hive.call(wire.Pending())).approvals), None)


async def no_pack_left(hive: Hive) -> bool:
    return "submit-" not in await inside(hive, "hm1nd", "ls -a /run/hive")


async def test_the_manager_commits_submits_and_reads_what_runs(hive: Hive) -> None:
    await hive.send("hm1nd", "set variable GREETING=hello for alice because of politeness")
    approval = await eventually(lambda: pending(hive), "the manager asks for its commit")

    assert (approval.agent, approval.note, approval.message) == ("alice", "of politeness", "Set GREETING")
    head = await inside(hive, "hm1nd", "cd /agents/alice/config; git rev-parse HEAD")
    assert approval.commit == head
    # The harness removes the pack when it has the answer, a moment after the operator sees the request.
    await eventually(lambda: no_pack_left(hive), "the pack is removed")

    await inside(hive, "hm1nd", "cd /agents/alice/config; git fetch -q applied")
    running = await inside(hive, "hm1nd", "git -C /applied/alice rev-parse main")
    assert running == await inside(hive, "hm1nd", "git -C /agents/alice/config rev-parse applied/main")
    assert running == await inside(hive, "hm1nd", "git -C /agents/alice/config rev-parse HEAD~1")
    await inside(hive, "hm1nd", "git clone -q /applied/alice /tmp/fresh; test -f /tmp/fresh/agent.nix")


async def test_every_agent_can_commit_in_its_own_directory_at_once(hive: Hive) -> None:
    script = "cd /state; git init -q; git commit -q --allow-empty -m mine; git log --format='%an %D'"
    assert await inside(hive, "alice", script) == "alice HEAD -> main"
    assert await inside(hive, "alice", "ls -d /agents /applied 2>/dev/null || echo nothing") == "nothing"


async def test_a_new_agent_is_configured_before_it_is_asked_for(hive: Hive) -> None:
    await hive.send(
        "hm1nd",
        "prepare carol then draft variable A=1 for carol then spawn carol from HEAD because of tests",
    )
    approval = await eventually(lambda: pending(hive), "the manager asks for carol")

    assert (approval.agent, approval.kind, approval.note) == ("carol", wire.ApprovalKind.SPAWN, "of tests")
    assert approval.commit == await inside(hive, "hm1nd", "git -C /agents/carol/config rev-parse HEAD")
    await hive.call(wire.Approve(approval_id=approval.id, commit=approval.commit))
    await eventually(lambda: hive.is_idle("carol"), "carol is there")
    assert await inside(hive, "hm1nd", "git -C /applied/carol rev-parse main") == approval.commit
