"""Attacks on the approval of changes through the web (SECURITY 1, 2, 7 and 11).

Each rule that can be taken out is tried both ways: in force the attack fails, taken out it succeeds.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hive_core.web import approvals, gate
from hive_shared.wire import ApprovalView, DiffBase, DiffSummary, FileDiff
from tests.support.web_hive import WebHive, running_web

IN_FORCE = pytest.mark.parametrize("in_force", [True, False], ids=["in-force", "taken-out"])
READING = ["/api/approvals/1/diff", "/api/approvals/1/log", "/api/agents/alice/history"]
CHANGES = ["/approve/1", "/deny/1", "/rollback/alice", "/cancel-question/1", "/purge/alice"]


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[WebHive]:
    async with running_web(tmp_path) as running:
        await running.agent("alice")
        running.paths.agent_dir("alice").mkdir(parents=True)
        yield running


def _unlocked(monkeypatch: pytest.MonkeyPatch, in_force: bool) -> None:
    if not in_force:
        monkeypatch.setattr(gate, "is_public", lambda method, path: True)


@IN_FORCE
@pytest.mark.parametrize("path", READING + CHANGES)
async def test_without_a_session_nothing_of_an_approval_is_reached(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, path: str, in_force: bool
) -> None:
    """Also taken out of the gate, a route asks for the operator itself: what is let through is not enough."""
    _unlocked(monkeypatch, in_force)
    agent = hive.stranger()  # on the host's network, as every container
    method = "GET" if path in READING else "POST"
    reply = await agent.request(method, path, data={"confirm": "alice"} if method == "POST" else None)
    assert reply.status_code == 401
    assert "alice" in [record.name for record in hive.actions.registry.live()]


@IN_FORCE
@pytest.mark.parametrize("path", CHANGES)
async def test_no_page_of_another_origin_decides(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, path: str, in_force: bool
) -> None:
    if not in_force:
        monkeypatch.setattr(gate.Gate, "_check_origin", lambda self, ours, headers: None)
        monkeypatch.setattr(gate.Gate, "_check_fetch_site", lambda self, headers: None)
    victim = await hive.operator()
    origin = {"origin": "http://127.0.0.1:8100"}
    reply = await victim.post(path, data={"confirm": "alice", "note": "x"}, headers=origin)
    assert (reply.status_code == 403) is in_force
    gone = path == "/purge/alice" and not in_force
    assert (hive.actions.registry.get("alice") is None) is gone


@IN_FORCE
async def test_a_bomb_of_a_diff_does_not_reach_the_browser(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    """Control characters grow sixfold in JSON: what git bounded is bounded once more, as it is sent."""
    if not in_force:
        monkeypatch.setattr(approvals, "DIFF_MAX_BYTES", 10**12)
    view = ApprovalView.model_validate(
        {"id": 1, "kind": "apply_commit", "agent": "alice", "status": "pending", "requested_by": "hm1nd",
         "requested_at_ms": 0, "commit": "a" * 40}
    )  # fmt: skip
    files = [FileDiff(path=f"f{n}", change="added", added=1, text="+" + "\x01" * 500_000) for n in range(8)]
    summary = DiffSummary(approval=view, base=DiffBase.RUNNING, base_commit=None, files=8, added=8, deleted=0)

    async def diff(*_: Any) -> tuple[DiffSummary, list[FileDiff]]:
        return summary, files

    monkeypatch.setattr(hive.actions, "diff", diff)
    reply = await (await hive.operator()).get("/api/approvals/1/diff")
    assert (len(reply.content) < 5_000_000) is in_force
    cut = [file["path"] for file in reply.json()["files"] if file["truncated"]]
    assert cut == ([f"f{n}" for n in range(1, 8)] if in_force else [])


@IN_FORCE
async def test_a_build_that_prints_without_end_does_not_fill_the_browser(
    hive: WebHive, monkeypatch: pytest.MonkeyPatch, in_force: bool
) -> None:
    if not in_force:
        for limit in ("LOG_MAX_BYTES", "LOG_MAX_LINES", "LOG_LINE_MAX_CHARACTERS"):
            monkeypatch.setattr(approvals, limit, 10**12)

    async def build_log(*_: Any) -> list[str]:
        return ["\x01" * 4000] * 1000 + [f"line {n}" for n in range(10)]

    monkeypatch.setattr(hive.actions, "build_log", build_log)
    reply = await (await hive.operator()).get("/api/approvals/1/log")
    assert (len(reply.content) < 1_200_000) is in_force
    assert reply.json()["lines"][-1] == "line 9"
    assert (reply.json()["first"] == 0) is not in_force
