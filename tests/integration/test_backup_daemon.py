"""A real hive under traffic: backed up, killed, restored elsewhere, and it goes on where it was."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core import invariants
from hive_core.doctor import Verdict
from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import HiveError
from hive_shared.names import MANAGER
from hive_shared.wire import ApprovalStatus
from tests.support import proposing
from tests.support.backup_hive import query
from tests.support.hive import DEFAULTS, Hive, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

GOOD = '{ ... }: { environment.variables.GREETING = "hello"; }\n'
LATER = '{ ... }: { environment.variables.GREETING = "later"; }\n'


async def hive_c0re(hive: Hive, *arguments: str) -> str:
    """A command of a process of its own; what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hive_core.cli", "--root", str(hive.root), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


@contextlib.asynccontextmanager
async def started(hive: Hive) -> AsyncIterator[Hive]:
    """Killed afterwards: an ordered end is tested elsewhere."""
    try:
        await hive.start()
        yield hive
    finally:
        await hive.kill()


async def submitted(hive: Hive, text: str) -> wire.ApprovalView:
    sha = proposing.commit(hive.paths, "alice", text)
    request = wire.RequestApplyCommit(
        agent="alice", commit=sha, pack=proposing.pack(hive.paths, "alice", sha)
    )
    return (await call_once(hive.paths.socket(MANAGER), request)).approval


async def traffic(hive: Hive, sent: list[int]) -> None:
    """Messages to two agents, as fast as they are taken."""
    for number in range(100_000):
        with contextlib.suppress(HiveError):
            sent.append(await hive.send(("alice", MANAGER)[number % 2], f"remember item {number}"))
        await asyncio.sleep(0.1)


async def test_backed_up_under_traffic_killed_and_restored(tmp_path: Path) -> None:
    first = Hive(tmp_path / "first", DEFAULTS)
    try:
        await first.start()
        await first.spawn("alice")
        await eventually(lambda: first.is_idle(MANAGER), "the manager is idle")
        await first.send("alice", "remember the harbour")
        deployed = await submitted(first, GOOD)
        done = await first.call(wire.Approve(approval_id=deployed.id, commit=deployed.commit))
        assert done.approval.status is ApprovalStatus.DEPLOYED, done.approval.outcome
        waiting = await submitted(first, LATER)
        (first.paths.shared / "plan").write_text("for all")
        notes = first.paths.state("alice")
        await eventually(
            lambda: any(b"harbour" in file.read_bytes() for file in notes.iterdir() if file.is_file()),
            "alice has noted it",
        )
        sent: list[int] = []
        sending = asyncio.create_task(traffic(first, sent))
        await eventually(lambda: len(sent) > 8, "messages flow")
        before = list(sent)
        told = json.loads(await hive_c0re(first, "backup", str(tmp_path / "file"), "--json"))
        assert told["agents"] == ["alice", MANAGER]
        sending.cancel()
        tags, main = proposing.tags_of(first.paths, "alice"), proposing.main_of(first.paths, "alice")
    finally:
        await first.kill()

    second = Hive(tmp_path / "second")
    await hive_c0re(second, "restore", str(tmp_path / "file"))
    found = await asyncio.to_thread(invariants.examine, second.paths)
    assert {finding.verdict for finding in found} == {Verdict.OK}, found
    kept = {row[0] for row in query(second.paths, "SELECT id FROM message")}
    assert set(before) <= kept
    assert (second.paths.shared / "plan").read_text() == "for all"
    assert (proposing.tags_of(second.paths, "alice"), proposing.main_of(second.paths, "alice")) == (
        tags,
        main,
    )

    async with started(second) as hive:
        for name in ("alice", MANAGER):
            await eventually(lambda name=name: hive.is_idle(name), f"{name} is idle")
        approvals = {a.id: a for a in (await hive.call(wire.Pending(all=True))).approvals}
        assert approvals[deployed.id].status is ApprovalStatus.DEPLOYED
        assert approvals[waiting.id].status is ApprovalStatus.PENDING
        await hive.send("alice", "send operator I am back")
        await hive.send("alice", "notes")
        await eventually(lambda: _said(hive, "I am back"), "the restored agent works")
        found = await asyncio.to_thread(invariants.examine, hive.paths)
        assert {finding.verdict for finding in found} == {Verdict.OK}, found
        later = await hive.call(wire.Approve(approval_id=waiting.id, commit=waiting.commit))
        assert later.approval.status is ApprovalStatus.DEPLOYED, later.approval.outcome
        fresh = await submitted(hive, GOOD.replace("hello", "again"))
        assert fresh.id > waiting.id


async def _said(hive: Hive, words: str) -> bool:
    return any(words in message.body for message in await hive.messages())
