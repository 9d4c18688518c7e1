"""Deploys: what was approved runs, or what ran before; real git and store, containers that obey."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_core.approvals import Approvals
from hive_core.principals import Principal
from hive_shared import wire
from hive_shared.errors import BadRequest, Conflict, Forbidden, HiveError
from hive_shared.wire import AgentState, ApprovalStatus, DiffBase
from tests.support import proposing
from tests.support.deploy_hive import CHIEF, OPERATOR, DeployHive, ObedientRuntime, deploying

FIRST = "{ ... }: { } # first\n"
SECOND = "{ ... }: { } # second\n"
HANGS = "{ ... }: { } # HANGS\n"
BROKEN = "{ ... }: { } # BROKEN\n"
DEAD = "{ ... }: { } # DEAD\n"
DIES = "{ ... }: { } # DIES\n"
EVERY_TAG = {"proposal", "approved", "deployed"}


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[DeployHive]:
    async with deploying(tmp_path / "hive") as hive:
        yield hive


async def until_builds(hive: DeployHive, agent: str = "alice") -> None:
    async with asyncio.timeout(60):
        while not hive.runtime.building[agent]:
            await asyncio.sleep(0.005)


# --- the whole way ---


async def test_an_approved_commit_is_built_and_runs(hive: DeployHive) -> None:
    before = await hive.agent()
    approval = await hive.propose(FIRST)
    assert (approval.note, approval.commit_ref, approval.message.strip()) == ("please", "HEAD", "A change")
    assert approval.author == "Manager <hm1nd@localhost>"
    assert approval.bases.running == before
    assert hive.tags(approval) == {"proposal"}
    assert hive.main() == before

    await hive.approve(approval)
    done = await hive.resolved(approval)
    assert (done.status, done.outcome, done.step) == (ApprovalStatus.DEPLOYED, "", "")
    assert hive.main() == approval.commit
    assert hive.runtime.runs["alice"] == FIRST
    assert (hive.paths.applied("alice") / "agent.nix").read_text() == FIRST
    assert hive.tags(approval) == EVERY_TAG
    assert hive.roster.view("alice").commit == approval.commit
    assert hive.roster.view("alice").state is AgentState.RUNNING
    assert [(e["status"], e["commit"]) for e in await hive.told("approval_resolved")][-1] == (
        "deployed",
        approval.commit,
    )
    assert not list(hive.paths.builds.glob("*/"))


async def test_a_failed_build_touches_nothing_and_tells_why(hive: DeployHive) -> None:
    await hive.agent()
    good = await hive.deploy(FIRST)
    starts = hive.runtime.events.count("start alice")
    bad = await hive.deploy(BROKEN)
    assert (bad.status, bad.outcome) == (ApprovalStatus.FAILED, "agent.nix:1: that is broken")
    assert hive.main() == good.commit
    assert hive.runtime.runs["alice"] == FIRST
    assert hive.runtime.events.count("start alice") == starts
    assert hive.tags(bad) == {"proposal", "approved", "failed"}
    told = (await hive.told("approval_resolved"))[-1]
    assert told["status"] == "failed"
    assert told["note"].splitlines()[0] == bad.outcome
    assert told["note"].splitlines()[-1] == "line 39"
    log = await hive.actions.build_log(OPERATOR, bad.id)
    assert [line for line in log if line.startswith("line")] == [f"line {number}" for number in range(40)]
    assert hive.paths.build_log(bad.id).is_file()


async def test_what_cannot_be_started_is_taken_back(hive: DeployHive) -> None:
    await hive.agent()
    good = await hive.deploy(FIRST)
    dead = await hive.deploy(DEAD)
    assert dead.status is ApprovalStatus.FAILED
    assert "it is dead" in dead.outcome
    assert (hive.main(), hive.runtime.runs["alice"]) == (good.commit, FIRST)
    assert (hive.paths.applied("alice") / "agent.nix").read_text() == FIRST
    assert hive.tags(dead) == {"proposal", "approved", "failed"}
    assert hive.roster.view("alice").commit == good.commit


async def test_what_starts_and_ends_before_it_is_ready_is_taken_back(hive: DeployHive) -> None:
    await hive.agent()
    good = await hive.deploy(FIRST)
    dies = await hive.deploy(DIES)
    assert dies.status is ApprovalStatus.FAILED
    assert "its harness ended before it was ready: exit code 1" in dies.outcome
    assert "alice: its last words" in await hive.actions.build_log(OPERATOR, dies.id)
    assert (hive.main(), hive.runtime.runs["alice"]) == (good.commit, FIRST)
    assert hive.tags(dies) == {"proposal", "approved", "failed"}


async def test_an_agent_that_is_stopped_stays_stopped_and_starts_with_what_was_deployed(
    hive: DeployHive,
) -> None:
    await hive.agent()
    await hive.actions.kill(OPERATOR, "alice")
    done = await hive.deploy(FIRST)
    assert (done.status, done.outcome) == (ApprovalStatus.DEPLOYED, "it stays stopped")
    assert "alice" not in hive.runtime.runs
    await hive.actions.start(OPERATOR, "alice")
    assert hive.runtime.runs["alice"] == FIRST


async def test_the_manager_configures_itself_too(hive: DeployHive) -> None:
    done = await hive.deploy(FIRST, "hm1nd")
    assert done.status is ApprovalStatus.DEPLOYED
    assert hive.runtime.runs["hm1nd"] == FIRST


async def test_a_build_that_takes_too_long_fails(tmp_path: Path) -> None:
    async with deploying(tmp_path / "hive", build_timeout_seconds=0.2) as hive:
        first = await hive.agent()
        done = await hive.deploy(HANGS)
        assert done.status is ApprovalStatus.FAILED
        assert "build_timeout_seconds" in done.outcome
        assert hive.main() == first


# --- what was approved is what was seen ---


async def test_approving_a_commit_needs_that_very_sha(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(FIRST)
    other = proposing.commit(hive.paths, "alice", SECOND)
    for wrong in (other, (approval.commit or "")[:12], ""):
        with pytest.raises(Conflict, match="look again") as refused:
            await hive.actions.approve(OPERATOR, approval.id, wrong)
        assert refused.value.field == "commit"
    with pytest.raises(BadRequest, match=str(approval.commit)) as unseen:
        await hive.actions.approve(OPERATOR, approval.id)
    assert unseen.value.field == "commit"
    with pytest.raises(Conflict):
        await hive.actions.deny(OPERATOR, approval.id, "no", other)
    assert (await hive.parts.approvals.get(approval.id)).status is ApprovalStatus.PENDING
    denied = await hive.actions.deny(OPERATOR, approval.id, "no\nreally")
    assert denied.outcome == "no\nreally"
    assert hive.tags(approval) == {"proposal", "denied"}
    note = proposing.git(
        hive.paths.applied("alice"), "tag", "--list", "--format=%(contents)", f"denied/{denied.id}"
    )
    assert note.decode().strip() == "no\nreally"
    assert (await hive.told("approval_resolved"))[-1]["note"] == "no\nreally"


async def test_what_is_said_with_the_yes_is_kept_with_the_commit_and_told_the_manager(
    hive: DeployHive,
) -> None:
    await hive.agent()
    approval = await hive.propose(FIRST)
    await hive.actions.approve(OPERATOR, approval.id, approval.commit, "until friday\n<b>")
    done = await hive.resolved(approval)
    assert (done.status, done.operator_note, done.outcome) == ("deployed", "until friday\n<b>", "")
    ran = (await hive.actions.history(OPERATOR, "alice")).deployments
    assert [each.operator_note for each in ran] == ["until friday\n<b>", ""]
    kept = proposing.git(
        hive.paths.applied("alice"), "tag", "--list", "--format=%(contents)", f"approved/{done.id}"
    )
    assert kept.decode().strip() == "until friday\n<b>"
    event = (await hive.told("approval_resolved"))[-1]
    assert (event["status"], event["operator_note"], event.get("note")) == (
        "deployed",
        "until friday\n<b>",
        None,
    )


async def test_of_many_approvals_at_once_exactly_one_wins(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(FIRST)
    tries = [hive.actions.approve(OPERATOR, approval.id, approval.commit) for _ in range(8)]
    ends = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(end, Conflict) for end in ends) == 7
    await hive.resolved(approval)
    assert len([e for e in await hive.told("approval_resolved") if e["id"] == approval.id]) == 1
    assert hive.runtime.events.count("build alice") == 2  # its spawn, and this


async def test_whatever_becomes_of_the_proposed_side_the_pinned_commit_is_deployed(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(FIRST)
    shutil.rmtree(hive.paths.config("alice"))
    await hive.approve(approval)
    assert (await hive.resolved(approval)).status is ApprovalStatus.DEPLOYED
    assert hive.runtime.runs["alice"] == FIRST


async def test_asking_for_the_same_commit_again_answers_with_what_there_is(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(FIRST)
    again = await hive.submit(approval.commit or "")
    assert (again.existing, again.approval.id) == (True, approval.id)
    await hive.approve(approval)
    await hive.resolved(approval)
    with pytest.raises(Conflict, match="already"):
        await hive.submit(approval.commit or "")


async def test_what_does_not_build_on_what_runs_is_flagged(hive: DeployHive) -> None:
    first = await hive.agent()
    await hive.deploy(FIRST)
    proposing.git(hive.paths.config("alice"), "reset", "--quiet", "--hard", first)
    aside = await hive.propose(SECOND)
    assert [flag.rule for flag in aside.flags] == ["not-a-descendant"]
    onward = await hive.deploy(SECOND + "# more\n")
    assert onward.status is ApprovalStatus.DEPLOYED


async def test_a_commit_that_breaks_a_rule_is_refused_with_path_and_rule_and_audited(
    hive: DeployHive,
) -> None:
    await hive.agent()
    (hive.paths.config("alice") / "flake.nix").write_text("{ }")
    proposing.git(hive.paths.config("alice"), "add", "flake.nix")
    with pytest.raises(BadRequest, match=r"flake\.nix"):
        await hive.propose(FIRST)
    assert await hive.actions.pending(OPERATOR) == []
    entry = (await hive.parts.audit.recent(1))[0]
    assert (entry.action, entry.subject) == ("request_apply_commit", "alice")
    assert entry.outcome.startswith("refused")
    assert "flake.nix" in entry.detail


async def test_an_agent_cannot_submit_and_the_operator_has_no_container_to_do_it_from(
    hive: DeployHive,
) -> None:
    await hive.agent()
    sha = proposing.commit(hive.paths, "alice", FIRST)
    pack = proposing.pack(hive.paths, "alice", sha, by="alice")
    request = wire.RequestApplyCommit(agent="alice", commit=sha, pack=pack)
    for who in (Principal.agent("alice"), OPERATOR):
        with pytest.raises(Forbidden):
            await hive.actions.request_apply_commit(who, request)
    with pytest.raises(HiveError):  # the pack is not in the manager's own directory
        await hive.actions.request_apply_commit(CHIEF, request)
    assert await hive.actions.pending(OPERATOR) == []


# --- one after the other, side by side ---


async def test_two_approvals_for_one_agent_run_in_the_order_they_were_approved(hive: DeployHive) -> None:
    await hive.agent()
    earlier = await hive.propose(HANGS)
    later = await hive.propose(SECOND)
    await hive.approve(later)
    await hive.approve(earlier)
    await hive.resolved(later)
    await until_builds(hive)
    assert hive.main() == later.commit
    hive.runtime.gate.set()
    await hive.resolved(earlier)
    assert hive.main() == earlier.commit
    assert hive.runtime.runs["alice"] == HANGS


async def test_different_agents_build_side_by_side_and_no_more_than_two(hive: DeployHive) -> None:
    names = ("alice", "bob", "carol")
    for name in names:
        await hive.agent(name)
    hive.runtime.most_at_once = 0
    approvals = [await hive.propose(HANGS, name) for name in names]
    for approval in approvals:
        await hive.approve(approval)
    await until_builds(hive, "alice")
    await until_builds(hive, "bob")
    assert not hive.runtime.building["carol"]
    hive.runtime.gate.set()
    assert {(await hive.resolved(a)).status for a in approvals} == {ApprovalStatus.DEPLOYED}
    assert hive.runtime.most_at_once == 2


@pytest.mark.parametrize("purge", [False, True])
async def test_an_agent_destroyed_while_its_commit_is_built_stays_destroyed(
    hive: DeployHive, purge: bool
) -> None:
    await hive.agent()
    approval = await hive.propose(HANGS)
    await hive.approve(approval)
    await until_builds(hive)
    await hive.actions.destroy(OPERATOR, "alice", purge)
    hive.runtime.gate.set()
    done = await hive.resolved(approval)
    assert (done.status, "destroyed" in done.outcome) == (ApprovalStatus.FAILED, True)
    assert "alice" not in hive.runtime.list()
    assert hive.paths.agent_dir("alice").exists() is not purge


async def test_an_agent_can_be_stopped_while_its_commit_is_built(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(HANGS)
    await hive.approve(approval)
    await until_builds(hive)
    await hive.actions.kill(OPERATOR, "alice")
    hive.runtime.gate.set()
    assert (await hive.resolved(approval)).outcome == "it stays stopped"


async def test_a_second_identical_operation_joins_the_first(hive: DeployHive) -> None:
    await hive.agent()
    starts = hive.runtime.events.count("start alice")
    await asyncio.gather(*(hive.actions.restart(OPERATOR, "alice") for _ in range(5)))
    assert hive.runtime.events.count("start alice") == starts + 1
    await asyncio.gather(
        hive.actions.restart(OPERATOR, "alice"),
        hive.actions.kill(OPERATOR, "alice"),
        hive.actions.restart(OPERATOR, "alice"),
    )
    assert hive.roster.view("alice").state is AgentState.RUNNING


async def test_an_operation_goes_on_when_whoever_asked_for_it_leaves(hive: DeployHive) -> None:
    await hive.agent()
    await hive.deploy(FIRST)
    asking = asyncio.create_task(hive.actions.rebuild(OPERATOR, "alice"))
    await asyncio.sleep(0)
    asking.cancel()
    assert (await hive.actions.rebuild(OPERATOR, "alice")).agent is not None
    assert hive.runtime.runs["alice"] == FIRST


# --- logs ---


async def test_a_build_log_can_be_followed_until_the_approval_is_resolved(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(BROKEN)

    async def follow() -> list[str]:
        return [line async for line in hive.actions.follow_build_log(OPERATOR, approval.id)]

    following = asyncio.create_task(follow())
    await hive.approve(approval)
    await hive.resolved(approval)
    lines = await following
    assert [line for line in lines if line.startswith("line")] == [f"line {number}" for number in range(40)]
    assert lines[-1].startswith("--- failed")
    assert await follow() == lines  # from the disk
    assert await hive.actions.build_log(OPERATOR, approval.id) == lines
    fed = [event.data for event in hive.feed.since(f"{hive.feed.epoch}-0") or [] if event.kind == "build_log"]
    mine = [data for data in fed if data["approval_id"] == approval.id]
    assert [line for data in mine for line in data["lines"]] == lines


async def test_following_the_log_of_what_is_denied_ends(hive: DeployHive) -> None:
    await hive.agent()
    approval = await hive.propose(FIRST)

    async def follow() -> list[str]:
        return [line async for line in hive.actions.follow_build_log(OPERATOR, approval.id)]

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    await hive.actions.deny(OPERATOR, approval.id)
    async with asyncio.timeout(60):
        assert await following == []


# --- diff, history, rollback ---


async def test_a_commit_is_compared_with_what_runs_was_approved_and_was_proposed(hive: DeployHive) -> None:
    template = await hive.agent()
    first = await hive.deploy(FIRST)
    denied = await hive.propose(SECOND)
    await hive.actions.deny(OPERATOR, denied.id)
    broken = await hive.deploy(BROKEN)
    now = await hive.propose(SECOND + "# more\n")
    expected = {DiffBase.RUNNING: first, DiffBase.APPROVED: broken, DiffBase.PROPOSED: broken}
    for base, approval in expected.items():
        summary, files = await hive.actions.diff(OPERATOR, now.id, base)
        assert summary.base_commit == approval.commit
        assert [file.path for file in files] == ["agent.nix"]
        assert (summary.files, summary.added) == (1, sum(file.added for file in files))
    then, _ = await hive.actions.diff(OPERATOR, first.id, DiffBase.RUNNING)
    assert then.base_commit == template


async def test_bases_of_what_waits_are_those_of_now(hive: DeployHive) -> None:
    await hive.agent()
    waiting = await hive.propose(FIRST)
    deployed = await hive.deploy(SECOND)
    shown = {approval.id: approval for approval in await hive.actions.pending(OPERATOR)}
    assert shown[waiting.id].bases.running == deployed.commit
    assert shown[waiting.id].bases.approved == deployed.commit


async def test_history_and_rollback(hive: DeployHive) -> None:
    template = await hive.agent()
    first, second = await hive.deploy(FIRST), await hive.deploy(SECOND)
    await hive.deploy(BROKEN)
    history = (await hive.actions.history(OPERATOR, "alice")).deployments
    assert [entry.commit for entry in history] == [second.commit, first.commit, template]
    assert [entry.running for entry in history] == [True, False, False]

    for expected in (first.commit, template):
        asked = await hive.actions.rollback(OPERATOR, "alice")
        done = await hive.resolved(asked.approval)
        assert (done.status, done.rollback, done.commit) == (ApprovalStatus.DEPLOYED, True, expected)
        assert hive.main() == expected
    with pytest.raises(Conflict, match="nothing to go back to"):
        await hive.actions.rollback(OPERATOR, "alice")
    asked = await hive.actions.rollback(OPERATOR, "alice", second.id)
    assert (await hive.resolved(asked.approval)).status is ApprovalStatus.DEPLOYED
    assert hive.runtime.runs["alice"] == SECOND
    with pytest.raises(Conflict, match="already"):
        await hive.actions.rollback(OPERATOR, "alice", second.id)
    assert len((await hive.actions.history(OPERATOR, "alice")).deployments) == 6


async def test_rollback_only_goes_to_what_that_agent_ran(hive: DeployHive) -> None:
    await hive.agent()
    await hive.agent("bob")
    bobs = await hive.deploy(FIRST, "bob")
    failed = await hive.deploy(BROKEN)
    for number in (bobs.id, failed.id):
        with pytest.raises(Conflict, match="nothing that agent alice ran"):
            await hive.actions.rollback(OPERATOR, "alice", number)


# --- rebuild ---


async def test_rebuild_builds_what_runs_again(hive: DeployHive) -> None:
    await hive.agent()
    done = await hive.deploy(FIRST)
    hive.runtime.built_from = "two"
    assert (await hive.actions.rebuild(OPERATOR, "alice")).note == ""
    assert (hive.main(), hive.runtime.runs["alice"]) == (done.commit, FIRST)
    assert hive.paths.revision_file("alice").read_text().strip() == "two"


# --- spawn with a configuration ---


async def prepared(hive: DeployHive, text: str, name: str = "carol") -> wire.ApprovalAsked:
    made = await hive.actions.prepare_spawn(CHIEF, name)
    assert made.path == str(hive.paths.config(name))
    sha = proposing.commit(hive.paths, name, text)
    request = wire.RequestSpawn(name=name, commit=sha, pack=proposing.pack(hive.paths, name, sha), note="new")
    return await hive.actions.request_spawn(CHIEF, name, "new", request)


async def test_a_spawn_begins_with_the_configuration_that_was_approved_with_it(hive: DeployHive) -> None:
    asked = await prepared(hive, FIRST)
    assert hive.parts.registry.get("carol") is None
    summary, files = await hive.actions.diff(OPERATOR, asked.approval.id, DiffBase.RUNNING)
    assert (summary.base_commit, [file.change for file in files]) == (None, ["added"])
    with pytest.raises(BadRequest):
        await hive.actions.approve(OPERATOR, asked.approval.id)
    await hive.approve(asked.approval)
    done = await hive.resolved(asked.approval)
    assert done.status is ApprovalStatus.DEPLOYED, done.outcome
    assert (hive.runtime.runs["carol"], hive.main("carol")) == (FIRST, asked.approval.commit)
    assert hive.tags(done) == EVERY_TAG
    assert [event["ok"] for event in await hive.told("spawned")] == [True]


@pytest.mark.parametrize("text", [BROKEN, DEAD])
async def test_a_spawn_that_fails_leaves_what_was_prepared(hive: DeployHive, text: str) -> None:
    asked = await prepared(hive, text)
    template = hive.main("carol")
    await hive.approve(asked.approval)
    assert (await hive.resolved(asked.approval)).status is ApprovalStatus.FAILED
    assert hive.parts.registry.get("carol") is None
    assert hive.main("carol") == template
    again = await prepared(hive, FIRST)
    await hive.approve(again.approval)
    assert (await hive.resolved(again.approval)).status is ApprovalStatus.DEPLOYED


async def test_what_is_prepared_takes_its_port_can_be_purged_and_is_bounded(hive: DeployHive) -> None:
    await hive.actions.prepare_spawn(CHIEF, "carol")
    port = int(hive.paths.port_file("carol").read_text())
    await hive.actions.prepare_spawn(CHIEF, "carol")
    with pytest.raises(Forbidden):
        await hive.actions.prepare_spawn(Principal.agent("alice"), "dave")
    asked = await prepared(hive, FIRST)
    await hive.actions.purge(OPERATOR, "carol")
    assert not hive.paths.agent_dir("carol").exists()
    assert not hive.paths.applied("carol").exists()
    gone = await hive.parts.approvals.get(asked.approval.id)
    assert (gone.status, gone.outcome) == (ApprovalStatus.FAILED, "agent state dir missing")
    await hive.actions.prepare_spawn(CHIEF, "carol")
    assert int(hive.paths.port_file("carol").read_text()) == port
    for number in range(19):
        await hive.actions.prepare_spawn(CHIEF, f"p{number}")
    ports = {int(hive.paths.port_file(f"p{number}").read_text()) for number in range(19)}
    assert len(ports | {port}) == 20
    with pytest.raises(HiveError, match="prepared and not spawned"):
        await hive.actions.prepare_spawn(CHIEF, "one-more")


async def test_a_revived_agent_runs_what_it_last_ran(hive: DeployHive) -> None:
    await hive.agent()
    done = await hive.deploy(FIRST)
    await hive.actions.destroy(OPERATOR, "alice")
    await hive.actions.spawn(OPERATOR, "alice")
    assert (hive.main(), hive.runtime.runs["alice"]) == (done.commit, FIRST)


# --- the world changes ---


async def test_state_that_is_wiped_under_what_waits_ends_it(hive: DeployHive) -> None:
    await hive.agent()
    listed, approved = await hive.propose(FIRST), await hive.propose(SECOND)
    hive.paths.state("alice").rmdir()
    done = await hive.actions.approve(OPERATOR, approved.id, approved.commit)
    assert (done.status, done.outcome) == (ApprovalStatus.FAILED, "agent state dir missing")
    assert await hive.actions.pending(OPERATOR) == []
    assert (await hive.parts.approvals.get(listed.id)).outcome == "agent state dir missing"


# --- a daemon that ends in the middle, and its next life ---


@pytest.mark.parametrize("text", [FIRST, DEAD])
@pytest.mark.parametrize("step", ["build", "switch", "back", "end"])
async def test_a_deploy_cut_off_at_any_step_is_finished_by_the_next_life(
    tmp_path: Path, step: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "hive"
    async with deploying(root) as hive:
        template = await hive.agent()
        approval = await hive.propose(text)
        reached = asyncio.Event()
        real, real_end = Approvals.set_building, Approvals._ended

        async def set_building(self: Approvals, number: int, what: str, **more: str) -> wire.ApprovalView:
            view = await real(self, number, what, **more)
            if what == step:
                reached.set()
                await asyncio.Event().wait()
            return view

        async def cut(*_: object) -> None:
            reached.set()
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(Approvals, "set_building", set_building)
            if step == "end" or (step, text) == ("back", FIRST):
                patch.setattr(Approvals, "deployed", cut)
                patch.setattr(Approvals, "failed", cut)
            await hive.approve(approval)
            async with asyncio.timeout(60):
                await reached.wait()
            await hive.actions.close()
        assert real_end is Approvals._ended

    async with deploying(root) as again:
        done = await again.resolved(approval)
        runs = approval.commit if text == FIRST else template
        assert done.status is (ApprovalStatus.DEPLOYED if text == FIRST else ApprovalStatus.FAILED), (
            done.outcome
        )
        assert again.main() == runs
        assert (again.runtime.runs["alice"] == text) is (text == FIRST)
        ended = "deployed" if text == FIRST else "failed"
        assert again.tags(approval) == {"proposal", "approved", ended}
        assert len([e for e in await again.told("approval_resolved") if e["id"] == approval.id]) == 1
        assert not list(again.paths.builds.glob("*/"))


async def test_tags_that_a_crash_kept_from_being_made_are_made_at_the_next_start(tmp_path: Path) -> None:
    root = tmp_path / "hive"
    async with deploying(root) as hive:
        await hive.agent()
        done, waiting = await hive.deploy(FIRST), await hive.propose(SECOND)
        lost = await hive.propose(SECOND + "# lost\n")
        for approval in (done, waiting, lost):
            for tag in hive.tags(approval):
                proposing.git(hive.paths.applied("alice"), "tag", "--delete", f"{tag}/{approval.id}")
        repository = hive.paths.applied("alice")
        proposing.git(repository, "update-ref", "-d", f"refs/hive/imported/{lost.commit}")
        proposing.git(repository, "reflog", "expire", "--expire=now", "--all")
        proposing.git(repository, "-c", "gc.cruftPacks=false", "repack", "-a", "-d", "--quiet")
        proposing.git(repository, "prune", "--expire=now")
    async with deploying(root) as again:
        assert again.tags(done) == EVERY_TAG
        assert again.tags(waiting) == {"proposal"}
        gone = await again.parts.approvals.get(lost.id)
        assert (gone.status, gone.outcome) == (ApprovalStatus.FAILED, "the pinned commit is gone")


async def test_of_two_interrupted_deploys_the_one_approved_last_runs_in_the_end(tmp_path: Path) -> None:
    root = tmp_path / "hive"
    async with deploying(root) as hive:
        await hive.agent()
        earlier, later = await hive.propose(FIRST), await hive.propose(HANGS)
        await hive.approve(later)
        await until_builds(hive)
        hive.parts.clock.pass_seconds(1)
        await hive.approve(earlier)
        await hive.actions.close()
    runtime = ObedientRuntime()
    runtime.gate.set()
    async with deploying(root, runtime=runtime) as again:
        await again.resolved(later)
        await again.resolved(earlier)
        assert again.main() == earlier.commit


# --- updates ---


async def test_agents_of_another_revision_are_rebuilt_at_start_the_manager_first(tmp_path: Path) -> None:
    root = tmp_path / "hive"
    async with deploying(root) as hive:
        for name in ("alice", "bob"):
            await hive.agent(name)
    runtime = ObedientRuntime()
    runtime.built_from = "two"
    runtime.gate.set()
    async with deploying(root, runtime=runtime) as again:
        builds = [event for event in runtime.events if event.startswith("build")]
        assert builds[0] == "build hm1nd"
        assert sorted(builds) == ["build alice", "build bob", "build hm1nd"]
        assert not [view.name for view in again.roster.views() if view.needs_update]
        assert sorted(event["agent"] for event in await again.told("rebuilt")) == ["alice", "bob", "hm1nd"]
    async with deploying(root, runtime=runtime) as third:
        assert len([event for event in runtime.events if event.startswith("build")]) == 3
        assert third.updates.stale() == []


async def test_an_update_that_fails_is_told_once_and_the_agent_runs_on(tmp_path: Path) -> None:
    root = tmp_path / "hive"
    async with deploying(root) as hive:
        await hive.agent()
        done = await hive.deploy(FIRST)
    runtime = ObedientRuntime()
    runtime.built_from = "two"

    async def build(agent: str, *more: object) -> dict[str, str]:
        if agent == "alice":
            raise HiveError("the compiler is gone")
        return {"text": ""}

    runtime.build = build  # type: ignore[assignment]
    async with deploying(root, runtime=runtime) as again:
        view = again.roster.view("alice")
        assert (view.needs_update, view.state, view.commit) == (True, AgentState.RUNNING, done.commit)
        assert runtime.runs["alice"] == FIRST
        assert [e["agent"] for e in await again.told("needs_update")] == ["alice"]
        audited = [(e.action, e.outcome) for e in await again.parts.audit.recent(20) if e.subject == "alice"]
        assert ("update", "failed") in audited
        with pytest.raises(HiveError, match="the compiler is gone"):
            await again.actions.update_all(OPERATOR)


async def test_without_auto_update_nothing_is_rebuilt_until_the_operator_asks(tmp_path: Path) -> None:
    root = tmp_path / "hive"
    async with deploying(root) as hive:
        await hive.agent()
    runtime = ObedientRuntime()
    runtime.built_from = "two"
    async with deploying(root, runtime=runtime, auto_update=False) as again:
        assert "build alice" not in runtime.events
        assert again.roster.view("alice").needs_update
        updated = (await again.actions.update_all(OPERATOR)).agents
        assert sorted((view.name, view.needs_update) for view in updated) == [
            ("alice", False),
            ("hm1nd", False),
        ]
