"""The life of agents under the real daemon: spawn, talk, stop, crash, destroy, revive, purge, restart."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.client import Client, call_once
from hive_shared.errors import Conflict, Forbidden, HiveError, InvalidName, UnknownAgent, UnknownRecipient
from hive_shared.names import MANAGER, hashed_port
from hive_shared.wire import AgentState, ApprovalStatus
from tests.support.hive import Hive, eventually, running_hive

QUICK = {
    "HIVE_AGENT_PAGE_PORTS": "false",
    "HIVE_RESTART_BACKOFF_FIRST_SECONDS": "0.3",
    "HIVE_RESTART_BACKOFF_MAX_SECONDS": "2",
}


@pytest.fixture(scope="module")
async def hive(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hive]:
    async with running_hive(tmp_path_factory.mktemp("runtime") / "hive", **QUICK) as running:
        await eventually(lambda: running.is_idle(MANAGER), "the manager is idle")
        yield running


async def state(hive: Hive, name: str) -> AgentState | None:
    view = await hive.agent(name)
    return view.state if view else None


async def is_in(hive: Hive, name: str, wanted: AgentState) -> bool:
    return await state(hive, name) is wanted


async def pid_of(hive: Hive, name: str) -> int:
    view = await hive.agent(name)
    assert view is not None
    assert view.pid is not None
    return view.pid


async def facts(hive: Hive, event: str, agent: str) -> list[dict]:  # type: ignore[type-arg]
    """The helper events of that kind that the manager was sent about an agent."""
    messages = (await hive.call(wire.Messages(limit=1000))).messages
    found = [json.loads(m.body) for m in messages if m.sender == "system" and m.to == MANAGER]
    return [fact for fact in found if fact["event"] == event and fact.get("agent") == agent]


async def test_the_manager_is_there_from_the_first_start_without_approval(hive: Hive) -> None:
    manager = await hive.agent(MANAGER)
    assert manager is not None
    assert (manager.role, manager.container, manager.port) == ("manager", "hm1nd", 8000)
    assert manager.state is AgentState.RUNNING
    assert (await hive.call(wire.Pending(all=True))).approvals == []


async def test_spawn_by_approval_then_a_message_and_its_answer(hive: Hive) -> None:
    manager = hive.paths.socket(MANAGER)
    asked = await call_once(manager, wire.RequestSpawn(name="ann", note="to try"))
    assert (asked.approval.requested_by, asked.approval.status) == (MANAGER, ApprovalStatus.PENDING)
    again = await call_once(manager, wire.RequestSpawn(name="ann"))
    assert (again.existing, again.approval.id) == (True, asked.approval.id)
    assert await hive.agent("ann") is None
    with pytest.raises(UnknownRecipient):
        await hive.send("ann", "too early")

    approved = await hive.call(wire.Approve(approval_id=asked.approval.id))
    assert approved.approval.status is ApprovalStatus.DEPLOYED
    await eventually(lambda: hive.is_idle("ann"), "ann is idle")
    await hive.send("ann", "send operator hello from ann")
    await eventually(lambda: has_message(hive, "ann", "hello from ann"), "the operator has the answer of ann")
    await eventually(lambda: facts(hive, "spawned", "ann"), "the manager is told")
    assert [fact["ok"] for fact in await facts(hive, "spawned", "ann")] == [True]
    assert [fact["status"] for fact in await facts(hive, "approval_resolved", "ann")] == ["deployed"]


async def has_message(hive: Hive, sender: str, body: str) -> bool:
    return any(m.sender == sender and body in m.body for m in await hive.messages())


async def test_what_a_spawn_makes_has_the_right_modes(hive: Hive) -> None:
    await hive.spawn("modes")
    paths = hive.paths

    def mode(path: Path) -> int:
        return path.stat().st_mode & 0o777

    private = [paths.state_root, paths.agents, paths.agent_dir("modes"), paths.config("modes")]
    private += [paths.claude("modes"), paths.state("modes"), paths.shared, paths.run_dir("modes")]
    private += [paths.run_root / "agents", paths.run_dir(MANAGER)]
    assert {str(path): mode(path) for path in private} == {str(path): 0o700 for path in private}
    assert mode(paths.socket("modes")) == 0o600
    assert mode(paths.host_socket) in (0o600, 0o660)
    assert mode(paths.port_file("modes")) == 0o600
    assert int(paths.port_file("modes").read_text()) == hashed_port("modes")
    assert (paths.config("modes") / ".git").is_dir()
    assert "modes" in (paths.config("modes") / "agent.nix").read_text()
    assert (paths.applied("modes") / "agent.nix").is_file()
    assert not list((paths.state_root / "staging").iterdir())


async def test_a_denied_spawn_makes_nothing_and_says_why_to_the_manager(hive: Hive) -> None:
    asked = await hive.call(wire.RequestSpawn(name="denied"))
    denied = await hive.call(wire.Deny(approval_id=asked.approval.id, note="not now"))
    assert (denied.approval.status, denied.approval.outcome) == (ApprovalStatus.DENIED, "not now")
    assert not hive.paths.agent_dir("denied").exists()
    assert [fact["note"] for fact in await facts(hive, "approval_resolved", "denied")] == ["not now"]
    with pytest.raises(Conflict):
        await hive.call(wire.Approve(approval_id=asked.approval.id))


async def test_names_that_exist_or_cannot_be_are_refused_at_once(hive: Hive) -> None:
    await hive.spawn("twice")
    with pytest.raises(Conflict, match="exists already"):
        await hive.call(wire.RequestSpawn(name="twice"))
    for name in (MANAGER, "operator", "UPPER", "../../x", "a--b", "toolongname"):
        with pytest.raises(InvalidName):
            await hive.call(wire.RequestSpawn(name=name))
    with pytest.raises(UnknownAgent):
        await hive.call(wire.Kill(name="nobody"))


async def test_an_approval_of_another_commit_than_was_shown_is_refused(hive: Hive) -> None:
    asked = await hive.call(wire.RequestSpawn(name="commit"))
    with pytest.raises(Conflict, match="on screen"):
        await hive.call(wire.Approve(approval_id=asked.approval.id, commit="0" * 40))
    await hive.call(wire.Deny(approval_id=asked.approval.id))


async def test_kill_keeps_the_inbox_filling_and_start_works_through_it(hive: Hive) -> None:
    await hive.spawn("sleepy")
    await hive.call(wire.Kill(name="sleepy"))
    assert await state(hive, "sleepy") is AgentState.STOPPED
    view = await hive.agent("sleepy")
    assert view is not None
    assert view.report.badge is wire.Badge.OFFLINE
    await hive.send("sleepy", "send operator awake again")
    assert (await hive.agent("sleepy")).unread == 1  # type: ignore[union-attr]
    assert len(await facts(hive, "killed", "sleepy")) == 1
    await hive.call(wire.Start(name="sleepy"))
    await eventually(lambda: has_message(hive, "sleepy", "awake again"), "sleepy answers")
    done = await hive.call(wire.Start(name="sleepy"))
    assert done.note == "it was running already"


async def test_restart_and_rebuild_give_a_new_process_and_repair_what_was_lost(hive: Hive) -> None:
    await hive.spawn("again")
    first = await pid_of(hive, "again")
    await hive.call(wire.Restart(name="again"))
    second = await pid_of(hive, "again")
    hive.paths.socket("again").unlink()
    hive.paths.port_file("again").unlink()
    await hive.call(wire.Rebuild(name="again"))
    third = await pid_of(hive, "again")
    assert len({first, second, third}) == 3
    assert int(hive.paths.port_file("again").read_text()) == hashed_port("again")
    await eventually(lambda: hive.is_idle("again"), "again is idle")
    assert len(await facts(hive, "rebuilt", "again")) == 1


async def test_a_crash_is_told_to_the_manager_and_the_agent_starts_again(hive: Hive) -> None:
    await hive.spawn("crashy")
    before = await pid_of(hive, "crashy")
    os.kill(before, signal.SIGKILL)

    async def recovered() -> bool:
        view = await hive.agent("crashy")
        return view is not None and view.state is AgentState.RUNNING and view.pid != before

    await eventually(recovered, "crashy runs again")
    view = await hive.agent("crashy")
    assert view is not None
    assert view.restarts == 1
    notes = [fact["note"] for fact in await facts(hive, "container_crashed", "crashy")]
    assert len(notes) == 1
    assert "SIGKILL" in notes[0]
    await eventually(lambda: hive.is_idle("crashy"), "crashy is idle")
    await hive.send("crashy", "send operator survived")
    await eventually(lambda: has_message(hive, "crashy", "survived"), "crashy answers")


async def test_killing_a_crashed_agent_ends_its_restarts(hive: Hive) -> None:
    await hive.spawn("doomed")
    os.kill(await pid_of(hive, "doomed"), signal.SIGKILL)
    await eventually(lambda: told_crash(hive, "doomed"), "the crash is told")
    await hive.call(wire.Kill(name="doomed"))
    await asyncio.sleep(0.6)  # longer than its pause would have been
    assert await state(hive, "doomed") is AgentState.STOPPED


async def told_crash(hive: Hive, name: str) -> bool:
    return bool(await facts(hive, "container_crashed", name))


async def test_destroy_keeps_the_state_and_a_spawn_revives_it(hive: Hive) -> None:
    await hive.spawn("phoenix")
    port = (await hive.agent("phoenix")).port  # type: ignore[union-attr]
    note = hive.paths.state("phoenix") / "memory.txt"
    note.write_text("remembered")
    await hive.call(wire.Destroy(name="phoenix"))
    assert await hive.agent("phoenix") is None
    kept = (await hive.call(wire.ListAgents(tombstones=True))).agents
    assert [a.state for a in kept if a.name == "phoenix"] == [AgentState.TOMBSTONE]
    assert not hive.paths.run_dir("phoenix").exists()
    assert await facts(hive, "destroyed", "phoenix")
    for request in (wire.Start(name="phoenix"), wire.Destroy(name="phoenix")):
        with pytest.raises(Conflict):
            await hive.call(request)
    asked = await hive.call(wire.RequestSpawn(name="phoenix"))
    assert asked.approval.revives
    await hive.call(wire.Approve(approval_id=asked.approval.id))
    assert note.read_text() == "remembered"
    assert (await hive.agent("phoenix")).port == port  # type: ignore[union-attr]
    await eventually(lambda: hive.is_idle("phoenix"), "phoenix is idle")


async def test_purge_removes_everything_and_nothing_that_links_lead_to(hive: Hive, tmp_path: Path) -> None:
    await hive.spawn("evil")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    state_dir = hive.paths.state("evil")
    (state_dir / "link").symlink_to(outside)
    (state_dir / "file").symlink_to(outside / "precious")
    os.link(outside / "precious", state_dir / "hard")
    for name in (b"-rf", b"new\nline", b"\xff\xfe", b"*", b"..."):
        (Path(os.fsdecode(os.fsencode(state_dir) + b"/" + name))).mkdir()
    deep = state_dir
    for _ in range(300):
        deep /= "d"
        deep.mkdir()
    (deep / "link").symlink_to("/")
    (state_dir / "closed").mkdir(mode=0)
    await hive.call(wire.Destroy(name="evil", purge=True))
    assert (outside / "precious").read_text() == "mine"
    for gone in (hive.paths.agent_dir("evil"), hive.paths.applied("evil"), hive.paths.log_file("evil")):
        assert not gone.exists()
    assert not list((hive.paths.state_root / "purged").iterdir())
    kept = (await hive.call(wire.ListAgents(tombstones=True))).agents
    assert "evil" not in [agent.name for agent in kept]
    with pytest.raises(UnknownRecipient):
        await hive.send("evil", "are you there?")


async def test_the_manager_cannot_be_destroyed(hive: Hive) -> None:
    for purge in (False, True):
        with pytest.raises(Conflict, match="manager"):
            await hive.call(wire.Destroy(name=MANAGER, purge=purge))
    assert await state(hive, MANAGER) is AgentState.RUNNING


async def test_a_revival_whose_state_is_gone_fails_with_a_note(hive: Hive) -> None:
    await hive.spawn("lost")
    await hive.call(wire.Destroy(name="lost"))
    asked = await hive.call(wire.RequestSpawn(name="lost"))
    hive.paths.agent_dir("lost").rename(hive.root / "moved away")
    done = await hive.call(wire.Approve(approval_id=asked.approval.id))
    assert (done.approval.status, done.approval.outcome) == (ApprovalStatus.FAILED, "agent state dir missing")
    resolved = await facts(hive, "approval_resolved", "lost")
    assert [(fact["status"], fact.get("note")) for fact in resolved] == [
        ("deployed", None),
        ("failed", "agent state dir missing"),
    ]
    assert await hive.agent("lost") is None


async def test_the_manager_finds_the_files_of_agents_that_came_after_it(hive: Hive) -> None:
    await hive.spawn("later")
    root = Path(f"/proc/{await pid_of(hive, MANAGER)}/root")
    isolation = (await hive.call(wire.DaemonStatus())).isolation
    if os.geteuid() != 0 or not isolation.startswith("bubblewrap"):
        pytest.skip("only root can show a running container more directories")
    assert sorted(p.name for p in (root / "agents/later").iterdir()) == ["config", "state"]
    (root / "agents/later/config/from-manager").write_text("hi")
    assert (hive.paths.config("later") / "from-manager").read_text() == "hi"


# --- who may do what, over real sockets ---


async def test_identity_is_the_socket_whatever_a_request_says(hive: Hive) -> None:
    await hive.spawn("liar")
    await hive.call(wire.Kill(name="liar"))
    reader, writer = await asyncio.open_unix_connection(str(hive.paths.socket("liar")))
    forged = {
        "op": "send",
        "to": "operator",
        "body": "forged",
        "sender": MANAGER,
        "from": "system",
        "agent": "ann",
    }
    writer.write(json.dumps(forged).encode() + b"\n")
    assert json.loads(await reader.readline())["ok"]
    writer.close()
    assert [m.sender for m in await hive.messages() if m.body == "forged"] == ["liar"]
    standing = await call_once(hive.paths.socket("liar"), wire.Status())
    assert (standing.me, standing.role) == ("liar", "agent")
    assert (await call_once(hive.paths.socket(MANAGER), wire.Status())).role == "manager"


@pytest.mark.parametrize("surface", [wire.Surface.AGENT, wire.Surface.MANAGER])
async def test_what_a_socket_may_not_do_is_forbidden_over_it(hive: Hive, surface: wire.Surface) -> None:
    name = MANAGER if surface is wire.Surface.MANAGER else "liar"
    if surface is wire.Surface.AGENT and await hive.agent("liar") is None:
        await hive.spawn("liar")
    own = wire.SURFACES[surface]
    others = {op for ops in wire.SURFACES.values() for op in ops} - set(own)
    async with Client(hive.paths.socket(name)):
        reader, writer = await asyncio.open_unix_connection(str(hive.paths.socket(name)))
        for op in sorted(others):
            request = {
                "op": op,
                "name": "ann",
                "approval_id": 1,
                "question_id": 1,
                "answer": "yes",
                "purge": True,
            }
            writer.write(json.dumps(request).encode() + b"\n")
            reply = json.loads(await reader.readline())
            assert reply["error"]["code"] == "forbidden", (op, reply)
        writer.close()


async def test_the_manager_cannot_follow_logs_or_stop_itself(hive: Hive) -> None:
    socket = hive.paths.socket(MANAGER)
    for request in (wire.Logs(name="ann", follow=True), wire.Kill(name=MANAGER), wire.Restart(name=MANAGER)):
        with pytest.raises(Forbidden):
            await call_once(socket, request)
    assert (await call_once(socket, wire.Logs(name=MANAGER, lines=5))).lines


# --- questions ---


async def test_an_answer_reaches_the_asker_as_a_fact_from_system(hive: Hive) -> None:
    if await hive.agent("asker") is None:
        await hive.spawn("asker")
    await hive.call(wire.Kill(name="asker"))
    socket = hive.paths.socket("asker")
    asked = await call_once(socket, wire.AskOperator(question="blue or red?", options=["blue", "red"]))
    questions = (await hive.call(wire.Questions())).questions
    assert [q.asker for q in questions if q.id == asked.question_id] == ["asker"]
    await hive.call(wire.Answer(question_id=asked.question_id, answer="blue"))
    async with Client(socket) as client:
        received = await client.call(wire.Recv(wait_seconds=5, max=10))
    answers = [json.loads(m.body) for m in received.messages if m.sender == "system"]
    assert [(a["event"], a["answer"]) for a in answers] == [("operator_answered", "blue")]
    with pytest.raises(Conflict):
        await hive.call(wire.Answer(question_id=asked.question_id, answer="red"))


async def test_an_agent_that_floods_is_put_before_the_operator_who_can_stop_it(hive: Hive) -> None:
    await hive.spawn("loud")
    async with Client(hive.paths.socket("loud")) as client:
        with pytest.raises(HiveError, match="too fast"):
            await flood(client)

    async def asked() -> wire.QuestionView | None:
        questions = (await hive.call(wire.Questions())).questions
        return next((q for q in questions if "loud" in q.question), None)

    question = await eventually(asked, "the operator is asked about loud")
    assert question.asker == "system"
    await hive.call(wire.Answer(question_id=question.id, answer="stop loud"))
    assert await state(hive, "loud") is AgentState.STOPPED


async def flood(client: Client) -> None:
    for number in range(1000):
        await client.call(wire.Send(to="operator", body=f"flood {number}"))


# --- logs and messages ---


async def test_logs_can_be_read_and_followed(hive: Hive) -> None:
    await hive.spawn("wordy")
    lines = (await hive.call(wire.Logs(name="wordy", lines=50))).lines
    assert lines[0].startswith("--- h-wordy starts")
    async with hive.client() as client, asyncio.timeout(60):
        stopping = asyncio.create_task(hive.call(wire.Kill(name="wordy")))
        async for item in client.follow(wire.Logs(name="wordy", lines=50, follow=True)):
            if isinstance(item, wire.LogLine) and item.line.startswith("--- h-wordy ended"):
                break
        await stopping


async def test_followed_messages_come_once_and_in_order(hive: Hive) -> None:
    await hive.call(wire.Messages(limit=1))
    bodies = [f"ordered {number}" for number in range(20)]
    seen: list[str] = []
    async with hive.client() as client, asyncio.timeout(60):
        for body in bodies[:10]:
            await hive.send(MANAGER, body)

        async def more() -> None:
            for body in bodies[10:]:
                await hive.send(MANAGER, body)

        sending: asyncio.Task[None] | None = None
        async for item in client.follow(wire.Messages(limit=200, follow=True)):
            sending = sending or asyncio.create_task(more())
            if isinstance(item, wire.Message) and item.body.startswith("ordered"):
                seen.append(item.body)
            if len(seen) == 20:
                break
        assert sending is not None
        await sending
    assert seen == bodies


async def test_everything_is_in_the_audit_with_who_and_outcome(hive: Hive) -> None:
    import sqlite3

    await hive.spawn("audited")
    await hive.call(wire.Restart(name="audited"))
    with pytest.raises(UnknownAgent):
        await hive.call(wire.Kill(name="absent"))
    with sqlite3.connect(f"file:{hive.paths.database}?mode=ro", uri=True) as database:
        rows = database.execute("select principal, action, subject, outcome from audit").fetchall()
    operator = "operator (host socket)"
    assert (operator, "restart", "audited", "ok") in rows
    assert (operator, "request_spawn", "audited", "ok") in rows
    assert [row for row in rows if row[1] == "approve" and row[0] == operator]
    assert [row for row in rows if row[1] == "deployed"]
    assert (operator, "kill", "absent", "refused: unknown_agent") in rows
