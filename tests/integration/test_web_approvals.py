"""A change of a configuration through the dashboard's own endpoints, over real repositories."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_core.principals import Principal
from hive_core.web import approvals
from hive_core.web.approvals import last_lines_that_fit, texts_that_fit
from hive_shared.wire import ApprovalView, AskOperator, FileDiff, RequestApplyCommit, RequestSpawn
from tests.conftest import need
from tests.support import proposing
from tests.support.web_hive import WebHive, read_events, running_web

MANAGER = Principal.manager()
NEWER = '{ pkgs, ... }:\n{\n  environment.variables.TZ = "UTC"; # née\n}\n'


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    need(shutil.which("git") is not None, "git is not installed")
    async with running_web(tmp_path) as running:
        await running.agent("hm1nd")
        await running.actions.spawn(Principal.operator(), "bob")
        yield running


async def propose(hive: WebHive, text: str = NEWER, message: str = "bob: a time zone") -> ApprovalView:
    """As the manager's harness does: commit, pack, ask."""
    sha = proposing.commit(hive.paths, "bob", text, message)
    pack = proposing.pack(hive.paths, "bob", sha)
    request = RequestApplyCommit(agent="bob", commit=sha, commit_ref="HEAD", pack=pack, note="please")
    return (await hive.actions.request_apply_commit(MANAGER, request)).approval


async def json_of(client: httpx.AsyncClient, path: str) -> Any:
    reply = await client.get(path)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_change_is_seen_approved_followed_and_taken_back(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    before = proposing.main_of(hive.paths, "bob")
    proposal = await propose(hive)
    diff = await json_of(operator, f"/api/approvals/{proposal.id}/diff")
    assert diff["summary"]["base"] == "running"
    assert diff["summary"]["base_commit"] == before
    assert diff["summary"]["approval"]["commit"] == proposal.commit
    [file] = diff["files"]
    assert (file["path"], file["change"]) == ("agent.nix", "modified")
    assert '+  environment.variables.TZ = "UTC"; # née' in file["text"].splitlines()

    assert (await operator.post(f"/approve/{proposal.id}")).status_code in (409, 422)  # unseen
    approved = await operator.post(f"/approve/{proposal.id}", data={"commit": proposal.commit, "note": ""})
    assert approved.json()["approval"]["status"] == "approved"
    resolved = await hive.actions.wait_resolved(proposal.id)
    assert (resolved.status, proposing.main_of(hive.paths, "bob")) == ("deployed", proposal.commit)

    log = await json_of(operator, f"/api/approvals/{proposal.id}/log")
    assert log["first"] == 0
    assert "bob: nothing to build" in log["lines"]
    history = (await json_of(operator, "/api/agents/bob/history"))["deployments"]
    assert [(each["commit"], each["running"]) for each in history] == [
        (proposal.commit, True),
        (before, False),
    ]

    back = await operator.post("/rollback/bob", data={"approval_id": str(history[1]["approval_id"])})
    assert back.status_code == 200, back.text
    asked = back.json()["approval"]
    assert (asked["rollback"], asked["commit"], asked["status"]) == (True, before, "approved")
    await hive.actions.wait_resolved(asked["id"])
    assert proposing.main_of(hive.paths, "bob") == before


async def test_the_build_log_comes_in_the_feed_with_numbers(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    proposal = await propose(hive)
    position = hive.actions.feed.position()
    await operator.post(f"/approve/{proposal.id}", data={"commit": proposal.commit})
    await hive.actions.wait_resolved(proposal.id)
    lines: list[str] = []
    async with asyncio.timeout(60):
        async for event in read_events(operator, "/messages/stream", position):
            if event.kind != "build_log":
                continue
            data = httpx.Response(200, text=event.data).json()
            assert (data["approval_id"], data["first"]) == (proposal.id, len(lines))
            lines += data["lines"]
            if any(line.startswith("--- deployed") for line in lines):
                break
    assert lines == (await json_of(operator, f"/api/approvals/{proposal.id}/log"))["lines"]


@pytest.mark.parametrize("verb", ["approve", "deny"])
async def test_a_word_on_another_commit_than_the_one_on_the_screen_is_refused(
    hive: WebHive, operator: httpx.AsyncClient, verb: str
) -> None:
    proposal = await propose(hive)
    other = await propose(hive, NEWER + "# another\n", "bob: another")
    reply = await operator.post(f"/{verb}/{proposal.id}", data={"commit": other.commit, "note": "x"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "conflict")
    assert (await hive.actions.approvals.get(proposal.id)).status == "pending"
    reply = await operator.post(f"/{verb}/{proposal.id}", data={"commit": proposal.commit, "note": "x"})
    assert reply.status_code == 200, reply.text
    await hive.actions.wait_resolved(proposal.id)


async def test_a_denial_keeps_the_requesters_words_and_tells_the_reason(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    proposal = await propose(hive)
    reply = await operator.post(f"/deny/{proposal.id}", data={"commit": proposal.commit, "note": "not now"})
    denied = reply.json()["approval"]
    assert (denied["status"], denied["note"], denied["outcome"]) == ("denied", "please", "not now")


async def test_three_bases(hive: WebHive, operator: httpx.AsyncClient) -> None:
    first = await propose(hive)
    second = await propose(hive, NEWER + "# more\n", "bob: more")
    against = {
        base: (await json_of(operator, f"/api/approvals/{second.id}/diff?base={base}"))["summary"]
        for base in ("running", "approved", "proposed")
    }
    assert against["proposed"]["base_commit"] == first.commit
    assert (against["proposed"]["added"], against["proposed"]["deleted"]) == (1, 0)
    assert against["running"]["base_commit"] == proposing.main_of(hive.paths, "bob")
    wrong = await operator.get(f"/api/approvals/{second.id}/diff?base=HEAD")
    assert (wrong.status_code, wrong.json()["error"]["field"]) == (422, "base")


async def test_a_spawn_with_a_configuration_shows_all_of_it_as_new(
    hive: WebHive, operator: httpx.AsyncClient
) -> None:
    await hive.actions.prepare_spawn(MANAGER, "zoe")
    sha = proposing.commit(hive.paths, "zoe", NEWER, "zoe begins")
    pack = proposing.pack(hive.paths, "zoe", sha)
    asked = await hive.actions.request_spawn(
        MANAGER, "zoe", "help", RequestSpawn(name="zoe", note="help", commit=sha, pack=pack)
    )
    diff = await json_of(operator, f"/api/approvals/{asked.approval.id}/diff")
    assert diff["summary"]["base_commit"] is None
    assert [(file["path"], file["change"]) for file in diff["files"]] == [("agent.nix", "added")]
    await hive.actions.deny(Principal.operator(), asked.approval.id)


async def test_a_question_is_taken_back_by_the_operator(hive: WebHive, operator: httpx.AsyncClient) -> None:
    asked = await hive.actions.ask_operator(Principal.agent("bob"), AskOperator(question="tea?"))
    path = f"/cancel-question/{asked.question_id}"
    reply = await operator.post(path)
    assert (reply.status_code, reply.json()["question"]["closed"]) == (200, "cancelled")
    assert (await operator.post(path)).status_code == 409
    assert (await json_of(operator, "/api/state"))["questions"] == []


async def test_purge_takes_the_agent_only_with_its_name(hive: WebHive, operator: httpx.AsyncClient) -> None:
    for typed in ("", "alice", "BOB"):
        reply = await operator.post("/purge/bob", data={"confirm": typed})
        assert (reply.status_code, reply.json()["error"]["field"]) == (422, "confirm")
    state = await json_of(operator, "/api/state")
    assert "bob" in [agent["name"] for agent in state["agents"]]  # not even destroyed
    reply = await operator.post("/purge/bob", data={"confirm": "bob"})
    assert (reply.status_code, reply.json()["agent"]) == (200, None)
    assert not hive.paths.agent_dir("bob").exists()


BAD = [
    ("GET", "/api/approvals/x/diff", {}, 422, "approval_id"),
    ("GET", "/api/approvals/0/log", {}, 422, "approval_id"),
    ("GET", "/api/approvals/999/diff", {}, 404, "approval_id"),
    ("GET", "/api/approvals/999/log", {}, 404, "approval_id"),
    ("GET", "/api/agents/nobody/history", {}, 404, "name"),
    ("POST", "/rollback/nobody", {}, 404, "name"),
    ("POST", "/rollback/bob", {"approval_id": "x"}, 422, "approval_id"),
    ("POST", "/rollback/bob", {"approval_id": "-1"}, 422, "approval_id"),
    ("POST", "/cancel-question/999", {}, 404, "question_id"),
    ("POST", "/cancel-question/x", {}, 422, "question_id"),
    ("POST", "/approve/1", {"commit": "x" * 65}, 422, "commit"),
    ("POST", "/deny/1", {"commit": "x" * 65}, 422, "commit"),
]


@pytest.mark.parametrize(("method", "path", "fields", "status", "field"), BAD)
async def test_refusals_name_what_is_wrong(
    operator: httpx.AsyncClient, method: str, path: str, fields: dict[str, str], status: int, field: str
) -> None:
    reply = await operator.request(method, path, data=fields or None)
    assert (reply.status_code, reply.json()["error"].get("field")) == (status, field), reply.text


def test_a_diff_larger_than_a_reply_says_which_files_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "DIFF_MAX_BYTES", 100)
    files = [
        FileDiff(path=name, change="added", added=1, text=text)
        for name, text in (("a", "+" + "x" * 40), ("b", "+" + "\x01" * 40), ("c", "+y"))
    ]
    fitting = texts_that_fit(files)
    assert [(file.path, file.text, file.truncated, file.added) for file in fitting] == [
        ("a", "+" + "x" * 40, False, 1),
        ("b", "", True, 1),
        ("c", "+y", False, 1),
    ]


def test_the_end_of_a_long_log_is_given_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{n:04}" for n in range(1000)]
    assert last_lines_that_fit(lines) == (0, lines)
    assert last_lines_that_fit([]) == (0, [])
    monkeypatch.setattr(approvals, "LOG_MAX_LINES", 10)
    assert last_lines_that_fit(lines) == (990, lines[-10:])
    monkeypatch.setattr(approvals, "LOG_MAX_BYTES", 13)
    assert last_lines_that_fit(lines) == (998, lines[-2:])
    monkeypatch.setattr(approvals, "LOG_LINE_MAX_CHARACTERS", 2)
    assert last_lines_that_fit(["abcdef"]) == (0, ["ab"])
