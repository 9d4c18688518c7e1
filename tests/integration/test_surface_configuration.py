"""Configuration by git over the real sockets of a real daemon: submit, look, decide, follow, go back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import BadRequest, Conflict, HiveError
from hive_shared.names import MANAGER
from hive_shared.wire import ApprovalStatus
from tests.support import proposing
from tests.support.hive import Hive, eventually, running_hive

GOOD = '{ ... }: { environment.variables.GREETING = "hello"; }\n'
BAD = "{ ... }: { environment.variables.GREETING = ; }\n"


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path_factory.mktemp("configuration") / "hive") as running:
        await running.spawn("alice")
        # A harness that starts removes packs that an earlier one left.
        await eventually(lambda: running.is_idle(MANAGER), "the manager is idle")
        yield running


async def submitted(hive: Hive, text: str) -> wire.ApprovalView:
    sha = proposing.commit(hive.paths, "alice", text)
    request = wire.RequestApplyCommit(
        agent="alice", commit=sha, pack=proposing.pack(hive.paths, "alice", sha)
    )
    return (await call_once(hive.paths.socket(MANAGER), request)).approval


async def streamed(hive: Hive, request: wire.Request) -> list[wire.Model]:  # type: ignore[type-arg]
    async with hive.client() as client, asyncio.timeout(60):
        return [item async for item in client.follow(request)]


async def test_from_submit_to_running_and_back(hive: Hive) -> None:
    before = proposing.main_of(hive.paths, "alice")
    approval = await submitted(hive, GOOD)
    *files, summary = await streamed(hive, wire.Diff(approval_id=approval.id))
    assert isinstance(summary, wire.DiffSummary)
    assert summary.base_commit == before
    assert [file.path for file in files if isinstance(file, wire.FileDiff)] == ["agent.nix"]
    with pytest.raises(BadRequest):
        await hive.call(wire.Approve(approval_id=approval.id))

    following = asyncio.create_task(streamed(hive, wire.BuildLog(approval_id=approval.id, follow=True)))
    done = (await hive.call(wire.Approve(approval_id=approval.id, commit=approval.commit))).approval
    assert done.status is ApprovalStatus.DEPLOYED, done.outcome
    lines = [item.line for item in await following if isinstance(item, wire.LogLine)]
    assert lines[-1].startswith("--- deployed")
    assert (await hive.call(wire.BuildLog(approval_id=approval.id))).lines == lines
    await eventually(lambda: hive.is_idle("alice"), "alice is idle")
    view = await hive.agent("alice")
    assert view is not None
    assert view.commit == approval.commit
    assert b"GREETING=hello" in Path(f"/proc/{view.pid}/environ").read_bytes()

    with pytest.raises(HiveError):
        await hive.call(wire.Rollback(name="alice", approval_id=approval.id))
    back = (await hive.call(wire.Rollback(name="alice"))).approval
    assert (back.status, back.rollback, back.commit) == (ApprovalStatus.DEPLOYED, True, before)
    ran = (await hive.call(wire.History(name="alice"))).deployments
    assert [entry.commit for entry in ran] == [before, approval.commit, before]
    assert [entry.running for entry in ran] == [True, False, False]


async def test_what_cannot_be_built_says_where(hive: Hive) -> None:
    running = proposing.main_of(hive.paths, "alice")
    approval = await submitted(hive, BAD)
    done = (await hive.call(wire.Approve(approval_id=approval.id, commit=approval.commit))).approval
    assert done.status is ApprovalStatus.FAILED
    assert "agent.nix:1" in done.outcome
    assert proposing.main_of(hive.paths, "alice") == running


async def test_the_operator_takes_a_question_off_the_page(hive: Hive) -> None:
    asked = await call_once(hive.paths.socket("alice"), wire.AskOperator(question="which?"))
    await hive.call(wire.CancelQuestion(question_id=asked.question_id))
    assert (await hive.call(wire.Questions())).questions == []
    with pytest.raises(Conflict):
        await hive.call(wire.Answer(question_id=asked.question_id, answer="that"))


async def test_an_agent_is_spawned_with_its_first_configuration(hive: Hive) -> None:
    socket = hive.paths.socket(MANAGER)
    made = await call_once(socket, wire.PrepareSpawn(name="bob"))
    assert made.path.endswith("/bob/config")
    sha = proposing.commit(hive.paths, "bob", GOOD)
    request = wire.RequestSpawn(name="bob", commit=sha, pack=proposing.pack(hive.paths, "bob", sha))
    asked = (await call_once(socket, request)).approval
    done = (await hive.call(wire.Approve(approval_id=asked.id, commit=sha))).approval
    assert done.status is ApprovalStatus.DEPLOYED, done.outcome
    view = await hive.agent("bob")
    assert view is not None
    assert view.commit == sha


async def test_the_operator_has_no_container_to_hand_over_a_pack_from(hive: Hive) -> None:
    sha = "0" * 40
    with pytest.raises(HiveError):
        await hive.call(wire.RequestSpawn(name="carol", commit=sha, pack=f"submit-{'0' * 32}.pack"))
