"""The command line and the real daemon, with rehearsal: what an operator does in a terminal."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hive_shared.wire import Badge
from tests.support.hive import DEFAULTS, PATIENCE_SECONDS, Hive, eventually, running_hive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
async def hive(tmp_path: Path) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path / "hive") as running:
        await eventually(lambda: running.agent("hm1nd"), "there is a manager")
        yield running


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("HIVE_")}
    return {**own, **DEFAULTS}


async def start(root: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hive_core.cli",
        "--root",
        str(root),
        *arguments,
        env=environment(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def run(root: Path, *arguments: str, stdin: str = "") -> Ended:
    process = await start(root, *arguments)
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate(stdin.encode())
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def run_json(root: Path, *arguments: str) -> Any:
    ended = await run(root, *arguments, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


async def test_an_agent_from_its_birth_to_its_end(hive: Hive) -> None:
    root = hive.root
    born = await run(root, "spawn", "alice")
    assert (born.code, "alice: " in born.out) == (0, True), born.err
    agents = (await run_json(root, "list"))["agents"]
    assert [agent["name"] for agent in agents] == ["hm1nd", "alice"]

    assert (await run(root, "send", "alice", "send operator hello")).code == 0
    await eventually(lambda: said(root, "hello"), "alice's message is in the inbox")
    assert (await run(root, "logs", "alice")).code == 0

    stopped = await run(root, "kill", "alice")
    assert (stopped.code, stopped.out.startswith("alice: stopped")) == (0, True), stopped.err
    assert (await run(root, "start", "alice")).code == 0
    assert (await run(root, "restart", "alice")).code == 0
    assert (await run(root, "rebuild", "alice")).code == 0

    assert (await run(root, "destroy", "alice", stdin="no\n")).code == 1
    assert (await run(root, "destroy", "alice", "--yes")).code == 0
    kept = (await run_json(root, "list", "--all"))["agents"]
    assert {agent["name"]: agent["state"] for agent in kept}["alice"] == "tombstone"
    revived = await run(root, "revive", "alice")
    assert revived.code == 0, revived.err
    purged = await run(root, "destroy", "alice", "--purge", stdin="alice\n")
    assert (purged.code, purged.out.startswith("alice: ")) == (0, True), purged.err
    assert [agent["name"] for agent in (await run_json(root, "list", "--all"))["agents"]] == ["hm1nd"]


async def test_notes_are_read_and_a_conversation_begins_anew_from_the_terminal(hive: Hive) -> None:
    root = hive.root
    assert (await run(root, "notes", "hm1nd")).out == ""
    state = hive.root / "lib" / "agents" / "hm1nd" / "state"
    await hive.send("hm1nd", "remember the key is under the mat")
    await eventually((state / "notes.md").exists, "it is written down")
    await eventually(lambda: hive.is_idle("hm1nd"), "the turn is over")
    (state / "shadow.md").symlink_to("/etc/passwd")
    listed = await run_json(root, "notes", "hm1nd")
    assert ([note["path"] for note in listed["notes"]], listed["left_out"]) == (["notes.md"], 1)
    assert (await run(root, "notes", "hm1nd", "notes.md")).out.strip() == "- the key is under the mat"
    refused = await run(root, "notes", "hm1nd", "shadow.md")
    assert (refused.code, "it is a link" in refused.err) == (1, True), refused.err

    begun = await run(root, "new-session", "hm1nd")
    assert (begun.code, "begins a new conversation" in begun.out) == (0, True), begun.err
    await hive.send("hm1nd", "wait 60")
    await eventually(lambda: thinks(hive, "hm1nd"), "a turn runs")
    busy = await run(root, "new-session", "hm1nd")
    assert (busy.code, "a turn is running" in busy.err) == (1, True), busy.err
    assert (await run(root, "kill", "hm1nd")).code == 0
    away = await run(root, "new-session", "hm1nd")
    assert (away.code, "is the agent running?" in away.err) == (1, True), away.err
    assert (await run(root, "notes", "hm1nd", "notes.md")).code == 0, "notes are read without their agent"


async def thinks(hive: Hive, name: str) -> bool:
    agent = await hive.agent(name)
    return agent is not None and agent.report.badge is Badge.THINKING


async def said(root: Path, text: str) -> bool:
    messages = (await run_json(root, "inbox"))["messages"]
    return any(text in message["body"] for message in messages)


async def test_approvals_from_the_terminal(hive: Hive) -> None:
    root = hive.root
    asked = (await run_json(root, "request-spawn", "bob", "--note", "to help"))["approval"]
    assert [approval["id"] for approval in (await run_json(root, "pending"))["approvals"]] == [asked["id"]]
    approved = await run(root, "approve", str(asked["id"]), "--note", "for this week")
    assert (approved.code, "deployed" in approved.out) == (0, True), approved.err
    assert "for this week" in (await run(root, "pending", "--all")).out
    told = (await run_json(root, "messages", "--limit", "50"))["messages"]
    assert any('"operator_note":"for this week"' in message["body"] for message in told)
    again = await run(root, "approve", str(asked["id"]))
    assert (again.code, len(again.err.splitlines())) == (1, 1)

    other = (await run_json(root, "request-spawn", "carol"))["approval"]
    denied = await run_json(root, "deny", str(other["id"]), "--note", "not now")
    assert denied["approval"]["status"] == "denied"
    assert [approval["status"] for approval in (await run_json(root, "pending", "--all"))["approvals"]] == [
        "denied",
        "deployed",
    ]


async def test_a_question_is_answered_from_the_terminal(hive: Hive) -> None:
    root = hive.root
    await hive.spawn("alice")
    await run(root, "send", "alice", "ask the operator whether tea is ready")
    await eventually(lambda: open_questions(root), "alice's question is open")
    (question,) = await open_questions(root)
    assert question["asker"] == "alice"
    assert (await run(root, "answer", str(question["id"]), "yes,", "it is")).code == 0
    assert await open_questions(root) == []
    flow = (await run_json(root, "messages"))["messages"]
    assert any(message["to"] == "alice" and "yes, it is" in message["body"] for message in flow)


async def open_questions(root: Path) -> list[Any]:
    questions: list[Any] = (await run_json(root, "questions"))["questions"]
    return questions


async def heard(following: asyncio.subprocess.Process, body: str) -> None:
    """Read what it prints until a message has that body."""
    assert following.stdout is not None
    while json.loads(await following.stdout.readline())["body"] != body:
        pass


async def test_messages_are_followed_as_they_come(hive: Hive) -> None:
    following = await start(hive.root, "messages", "--follow", "--limit", "0", "--json")
    reading = asyncio.create_task(heard(following, "are you there?"))
    try:
        # Following begins at some moment after the start, perhaps with an answer: say it until it is heard.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not reading.done():
                await hive.send("hm1nd", "are you there?")
                await asyncio.wait({reading}, timeout=0.5)
        await reading
        following.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await following.wait() == 130
    finally:
        reading.cancel()
        if following.returncode is None:
            following.kill()


async def test_refusals_of_the_daemon_are_one_line_and_exit_code_1(hive: Hive) -> None:
    for arguments in (
        ["send", "nobody", "hello"],
        ["spawn", "Not-A-Name"],
        ["kill", "nobody"],
        ["approve", "99"],
        ["answer", "99", "yes"],
        ["logs", "nobody"],
        ["logs", "nobody", "--follow"],
        ["destroy", "hm1nd", "--yes"],
    ):
        ended = await run(hive.root, *arguments)
        assert (ended.code, len(ended.err.splitlines())) == (1, 1), (arguments, ended)


async def test_the_printed_login_url_logs_in_once_and_logout_all_ends_the_session(hive: Hive) -> None:
    url = (await run(hive.root, "url")).out.strip()
    base, code = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/login#(\S+)", url).groups()  # type: ignore[union-attr]
    async with httpx.AsyncClient(base_url=base, headers={"Origin": base}, timeout=PATIENCE_SECONDS) as http:
        logged_in = await http.post("/login", data={"code": code})
        http.headers["X-Hive-Key"] = logged_in.json()["key"]
        assert (await http.get("/api/state")).status_code == 200
        assert (await http.post("/login", data={"code": code})).status_code >= 400
        assert "1 sessions" in (await run(hive.root, "logout-all")).out
        assert (await http.get("/api/state")).status_code == 401


async def test_one_browser_is_found_in_the_list_and_logged_out(hive: Hive) -> None:
    url = (await run(hive.root, "url")).out.strip()
    base, _, code = url.partition("/login#")
    told = [(b"Origin", base.encode()), (b"User-Agent", b"Firefox \x9b31m")]
    async with httpx.AsyncClient(base_url=base, headers=told, timeout=PATIENCE_SECONDS) as http:
        http.headers["X-Hive-Key"] = (await http.post("/login", data={"code": code})).json()["key"]
        [session] = (await run_json(hive.root, "sessions"))["sessions"]
        assert session["client"].startswith("Firefox")
        listed = await run(hive.root, "sessions")
        assert session["id"] in listed.out
        assert "\x9b" not in listed.out
        assert (await run(hive.root, "logout", session["id"])).code == 0
        assert (await http.get("/api/state")).status_code == 401
        again = await run(hive.root, "logout", session["id"])
        assert (again.code, len(again.err.splitlines())) == (1, 1)
        assert "hive-c0re sessions" in again.err


async def test_doctor_and_status_see_the_running_daemon(hive: Hive) -> None:
    status = await run_json(hive.root, "status")
    assert status["backend"] == "rehearsal"
    checks = {check["name"]: check for check in (await run_json(hive.root, "doctor"))["checks"]}
    assert checks["daemon"]["verdict"] == "ok"
    assert str(status["pid"]) in checks["daemon"]["found"]


async def test_serve_tells_what_the_operator_needs_and_ends_cleanly(tmp_path: Path) -> None:
    root = tmp_path / "hive"
    serving = await start(root, "serve", "--backend", "rehearsal", "--port", "0")
    assert serving.stdout is not None
    shown = ""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while "Stop" not in shown:
                line = await serving.stdout.readline()
                assert line, (await serving.communicate())[1].decode()
                shown += line.decode()
        assert re.search(r"Log in +http://127\.0\.0\.1:\d+/login#\S+\n", shown)
        assert f"hive-c0re --root {root} url" in shown
        assert "not a model" in shown
        assert re.search(r"Isolation .*(the network is shared|NOT ISOLATED)", shown)

        second = await run(root, "serve")
        assert (second.code, second.out) == (1, "")
        assert second.err.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in second.err

        serving.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_SECONDS):
            _, errors = await serving.communicate()
        assert (serving.returncode, b"Traceback" in errors) == (0, False), errors.decode()
    finally:
        if serving.returncode is None:
            serving.kill()
            await serving.wait()
    assert (await run(root, "list")).code == 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--port", "0", "--backend", "gpt"], "--backend"), (["--log-level", "loud"], "--log-level")],
)
async def test_a_bad_setting_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    ended = await run(tmp_path, "serve", *arguments)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert named in ended.err


async def test_a_root_that_cannot_be_written_is_one_line_and_exit_code_1() -> None:
    ended = await run(Path("/proc/hive"), "serve")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines()[-1].startswith("error: ")
    assert "/proc/hive" in ended.err
    assert "Traceback" not in ended.err


async def test_a_change_is_looked_at_approved_and_taken_back_from_the_terminal(hive: Hive) -> None:
    root = hive.root
    await hive.spawn("alice")
    await run(root, "send", "hm1nd", "set variable GREETING=hello for alice because she greets")
    asked = (await eventually(lambda: waiting(root), "the manager has asked"))[0]
    number, commit = str(asked["id"]), asked["commit"]
    shown = await run(root, "diff", number)
    assert (shown.code, commit in shown.out, "she greets" in shown.out) == (0, True, True)
    assert '+  environment.variables.GREETING = "hello";' in shown.out
    stat = await run_json(root, "diff", number, "--base", "approved", "--stat")
    assert [file["path"] for file in stat["files"]] == ["agent.nix"]

    unseen = await run(root, "approve", number)
    assert (unseen.code, "--commit SHA" in unseen.err) == (2, True)
    approved = await run(root, "approve", number, "--commit", commit[:10])
    assert (
        approved.code,
        f"approval {number} (change alice to {commit[:10]}): deployed" in approved.out,
    ) == (
        0,
        True,
    ), approved.err
    assert "  │ --- built" in approved.err.splitlines()
    assert (await run_json(root, "build-log", number))["lines"] == (
        await run(root, "build-log", number, "--follow")
    ).out.splitlines()

    ran = (await run_json(root, "history", "alice"))["deployments"]
    assert [(entry["commit"] == commit, entry["running"]) for entry in ran] == [(True, True), (False, False)]
    back = await run(root, "rollback", "alice")
    assert (back.code, f"rollback alice to {ran[1]['commit'][:10]}): deployed" in back.out) == (0, True), (
        back.err
    )
    assert (await hive.agent("alice")).commit == ran[1]["commit"]  # type: ignore[union-attr]


async def test_a_build_that_fails_is_told_with_its_log_and_exit_code_1(hive: Hive) -> None:
    root = hive.root
    await hive.spawn("alice")
    before = (await hive.agent("alice")).commit  # type: ignore[union-attr]
    await run(root, "send", "hm1nd", "break alice because we rehearse")
    asked = (await eventually(lambda: waiting(root), "the manager has asked"))[0]
    assert "agent.nix:" in (await run(root, "diff", str(asked["id"]))).out
    failed = await run(root, "approve", str(asked["id"]), "--commit", asked["commit"])
    assert failed.code == 1
    assert "  │ --- building" in failed.err
    assert f"error: approval {asked['id']} failed: " in failed.err.splitlines()[-1]
    assert (await hive.agent("alice")).commit == before  # type: ignore[union-attr]
    denied = await run(root, "deny", str(asked["id"]))
    assert (denied.code, len(denied.err.splitlines())) == (1, 1)


async def waiting(root: Path) -> list[Any]:
    approvals: list[Any] = (await run_json(root, "pending"))["approvals"]
    return approvals
