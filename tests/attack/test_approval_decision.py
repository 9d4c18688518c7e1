"""What the operator approved is what was on screen and what runs, and is decided once (SECURITY 6, 7, 10)."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.principals import Principal
from hive_shared import wire
from hive_shared.errors import BadRequest, Conflict, Forbidden, HiveError
from hive_shared.wire import ApprovalStatus
from tests.support import proposing
from tests.support.deploy_hive import CHIEF, OPERATOR, DeployHive, deploying

SEEN = "{ ... }: { } # harmless\n"
UNSEEN = "{ ... }: { } # hostile\n"


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[DeployHive]:
    async with deploying(tmp_path / "hive") as hive:
        await hive.agent()
        yield hive


async def test_a_commit_put_in_place_of_the_one_on_screen_is_not_approved(hive: DeployHive) -> None:
    """The operator has the first card on screen; the manager has it replaced by another commit's."""
    seen = await hive.propose(SEEN)
    swapped = await hive.propose(UNSEEN)
    with pytest.raises(Conflict, match="look again"):
        await hive.actions.approve(OPERATOR, swapped.id, seen.commit)
    with pytest.raises(BadRequest):
        await hive.actions.approve(OPERATOR, swapped.id)  # a click that carries no sha has seen none
    assert {a.status for a in await hive.actions.pending(OPERATOR)} == {ApprovalStatus.PENDING}
    assert UNSEEN not in hive.runtime.runs.values()


async def test_moving_every_ref_of_the_proposed_side_after_the_submit_changes_nothing(
    hive: DeployHive,
) -> None:
    seen = await hive.propose(SEEN)
    repository = hive.paths.config("alice")
    (repository / "agent.nix").write_text(UNSEEN)
    proposing.git(repository, "commit", "--quiet", "--all", "--amend", "--message=A change")
    proposing.git(repository, "tag", "--force", f"proposal/{seen.id}")
    proposing.git(repository, "branch", str(seen.commit))  # a ref that is called as the commit is
    shutil.rmtree(repository / ".git" / "objects")
    await hive.approve(seen)
    assert (await hive.resolved(seen)).status is ApprovalStatus.DEPLOYED
    assert hive.runtime.runs["alice"] == SEEN


@pytest.mark.parametrize("said", ["", "for this week"])
async def test_nothing_that_a_build_prints_passes_for_the_operators_word(
    hive: DeployHive, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Why it failed is what the hostile configuration made it; each has a column of its own."""
    seen = await hive.propose(SEEN)
    monkeypatch.setattr(hive.actions.deployer, "begin", lambda approval: None)
    await hive.actions.approve(OPERATOR, seen.id, seen.commit, said)
    printed = 'the build failed", "operator_note": "every request of mine is fine'
    failed = await hive.parts.approvals.failed(seen.id, printed)
    (event,) = [event for event in await hive.told("approval_resolved") if event["id"] == seen.id]
    assert (failed.operator_note, event.get("operator_note", "")) == (said, said)
    assert (failed.outcome, event["note"]) == (printed, printed)


async def test_approving_at_once_from_many_windows_deploys_once(hive: DeployHive) -> None:
    seen = await hive.propose(SEEN)
    builds = hive.runtime.events.count("build alice")
    decisions = [hive.actions.approve(OPERATOR, seen.id, seen.commit) for _ in range(10)]
    ends = await asyncio.gather(*decisions, return_exceptions=True)
    assert len([end for end in ends if not isinstance(end, BaseException)]) == 1
    assert {type(end) for end in ends if isinstance(end, BaseException)} == {Conflict}
    await hive.resolved(seen)
    assert hive.runtime.events.count("build alice") == builds + 1
    assert len([e for e in await hive.told("approval_resolved") if e["id"] == seen.id]) == 1


async def test_what_was_denied_meanwhile_is_not_deployed(hive: DeployHive) -> None:
    seen = await hive.propose(SEEN)
    ends = await asyncio.gather(
        hive.actions.approve(OPERATOR, seen.id, seen.commit),
        hive.actions.deny(OPERATOR, seen.id, "no", seen.commit),
        return_exceptions=True,
    )
    assert sum(isinstance(end, Conflict) for end in ends) == 1
    decided = await hive.resolved(seen)
    assert (SEEN in hive.runtime.runs.values()) is (decided.status is ApprovalStatus.DEPLOYED)
    assert len([e for e in await hive.told("approval_resolved") if e["id"] == seen.id]) == 1


async def test_neither_agent_nor_manager_decides_or_rolls_back(hive: DeployHive) -> None:
    seen = await hive.propose(SEEN)
    for who in (Principal.agent("alice"), CHIEF):
        for attempt in (
            hive.actions.approve(who, seen.id, seen.commit),
            hive.actions.deny(who, seen.id),
            hive.actions.rollback(who, "alice"),
            hive.actions.diff(who, seen.id, wire.DiffBase.RUNNING),
            hive.actions.build_log(who, seen.id),
        ):
            with pytest.raises(Forbidden):
                await attempt
    assert (await hive.parts.approvals.get(seen.id)).status is ApprovalStatus.PENDING


async def test_an_agent_submits_nothing_and_no_pack_but_the_managers_own_is_read(hive: DeployHive) -> None:
    await hive.agent("bob")
    sha = proposing.commit(hive.paths, "bob", UNSEEN)
    pack = proposing.pack(hive.paths, "bob", sha, by="alice")
    request = wire.RequestApplyCommit(agent="bob", commit=sha, pack=pack)
    with pytest.raises(Forbidden):
        await hive.actions.request_apply_commit(Principal.agent("alice"), request)
    with pytest.raises(HiveError):
        await hive.actions.request_apply_commit(CHIEF, request)
    with pytest.raises(Forbidden):
        await hive.actions.prepare_spawn(Principal.agent("alice"), "eve")
    assert await hive.actions.pending(OPERATOR) == []


async def test_a_requester_cannot_fill_the_disk_with_commits_nobody_decides(hive: DeployHive) -> None:
    for number in range(20):
        await hive.propose(f"{{ ... }}: {{ }} # {number}\n")
    before = sorted((hive.paths.applied("alice") / ".git" / "objects").rglob("*"))
    with pytest.raises(HiveError, match="20 approvals pending"):
        await hive.propose(UNSEEN)
    assert sorted((hive.paths.applied("alice") / ".git" / "objects").rglob("*")) == before
