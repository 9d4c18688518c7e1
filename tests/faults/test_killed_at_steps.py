"""The daemon killed with SIGKILL at each step of send, recv, ack, ask, spawn, destroy, and what is timed."""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from hive_core.clock import time_ms
from hive_core.doctor import Verdict
from hive_core.invariants import examine
from hive_shared import wire
from hive_shared.client import Client, call_once
from hive_shared.errors import Conflict, HiveError
from hive_shared.paths import HostPaths
from tests.conftest import PROJECT
from tests.support.hive import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

COMMIT = "hive_core.store.engine:_Writer._commit"
R = TypeVar("R", bound=wire.Model)
LIFE = "hive_core.lifecycle:Lifecycle."


class Core:
    """Daemons of one hive, one after the other, each a fork of a process that has everything imported."""

    def __init__(self, root: Path, process: subprocess.Popen[bytes]) -> None:
        self.root = root
        self.paths = HostPaths.under(root)
        self.pid = 0
        self.pids: list[int] = []
        self._process = process

    async def start(self, *, die: str | None = None, revision: str = "one", **settings: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"fork": "core", "root": str(self.root), "settings": settings, "revision": revision}
        if die is not None:
            command["die"] = die
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        self.pid = int(self._process.stdout.readline())
        self.pids.append(self.pid)
        await eventually(self.answers, "the daemon answers", every_seconds=0.02)

    async def fork_harness(self, agent: str, *, die: str | None = None) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"fork": "harness", "root": str(self.root), "agent": agent}
        if die is not None:
            command["die"] = die
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        self.pids.append(int(self._process.stdout.readline()))
        return self.pids[-1]

    async def answers(self) -> bool:
        with contextlib.suppress(HiveError):
            await self.call(wire.DaemonStatus())
            return True
        return False

    async def call(self, request: wire.Request[R]) -> R:
        return await call_once(self.paths.host_socket, request)

    def kill_all(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def arm(self) -> None:
        (self.root / "armed").touch()

    async def died(self) -> None:
        """By the step, not by anything else: it was armed, and nobody else kills it."""
        await gone(self.pid)
        (self.root / "armed").unlink()


async def gone(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        async with asyncio.timeout(60):
            while True:
                os.kill(pid, 0)
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[bytes]]:
    """One for all: what takes long is its start."""
    command = [sys.executable, "-m", "tests.faults.nursery"]
    process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


@pytest.fixture
def core(tmp_path: Path, nursery: subprocess.Popen[bytes]) -> Iterator[Core]:
    core = Core(tmp_path / "hive", nursery)
    yield core
    core.kill_all()


async def broken(core: Core) -> list[str]:
    """What the invariants say beside the daemon that runs now."""
    found = await asyncio.to_thread(examine, core.paths)
    return [f"{f.name}: {f.found}" for f in found if f.verdict is Verdict.BROKEN]


async def holds(core: Core) -> bool:
    return await broken(core) == []


async def received(core: Core, **more: object) -> list[wire.Message]:
    """What alice is given now, acked at once."""
    client = Client(core.paths.socket("alice"))

    async def connected() -> bool:  # the host socket is there first
        with contextlib.suppress(HiveError):
            await client.connect()
        return client.connected

    await eventually(connected, "alice's socket is there", every_seconds=0.02)
    try:
        messages = (await client.call(wire.Recv(max=100))).messages
        await client.call(wire.Ack(ids=[message.id for message in messages]))
        return list(messages)
    finally:
        await client.close()


@pytest.mark.parametrize(
    "point", [f"before {COMMIT}", f"after {COMMIT}", "before hive_core.broker:Broker._arrived"]
)
async def test_a_send_that_was_not_answered_is_sent_again_and_arrives_once(core: Core, point: str) -> None:
    await core.start(die=point)
    await core.call(wire.Spawn(name="alice"))
    before = (await core.call(wire.Send(to="alice", body="accepted"))).ids
    core.arm()
    request = wire.Send(to="alice", body="perhaps", key="the-same")
    with pytest.raises(HiveError):
        await core.call(request)
    await core.died()
    await core.start()
    again = (await core.call(request)).ids
    messages = await received(core)
    assert [(message.id, message.body) for message in messages] == [
        (before[0], "accepted"),
        (again[0], "perhaps"),
    ]
    assert await broken(core) == []


@pytest.mark.parametrize(
    "point", [f"before {COMMIT}", f"after {COMMIT}", "before hive_core.broker:Broker._leased"]
)
async def test_what_was_taken_and_not_acked_comes_again(core: Core, point: str) -> None:
    await core.start(die=point)
    await core.call(wire.Spawn(name="alice"))
    ids = (await core.call(wire.Send(to="alice", body="work"))).ids
    core.arm()
    with pytest.raises(HiveError):
        await call_once(core.paths.socket("alice"), wire.Recv())
    await core.died()
    await core.start()
    assert [message.id for message in await received(core)] == ids
    assert await received(core) == []
    assert await broken(core) == []


@pytest.mark.parametrize(
    ("point", "acked"),
    [(f"before {COMMIT}", False), (f"after {COMMIT}", True), ("before hive_core.broker:Broker._acked", True)],
)
async def test_an_ack_is_done_or_not_and_what_is_acked_never_comes_again(
    core: Core, point: str, acked: bool
) -> None:
    await core.start(die=point)
    await core.call(wire.Spawn(name="alice"))
    ids = (await core.call(wire.Send(to="alice", body="work"))).ids
    client = Client(core.paths.socket("alice"))
    await client.connect()
    await client.call(wire.Recv())
    core.arm()
    with pytest.raises(HiveError):
        await client.call(wire.Ack(ids=ids))
    await client.close()
    await core.died()
    await core.start()
    assert [message.id for message in await received(core)] == ([] if acked else ids)
    assert await received(core) == []
    assert await broken(core) == []


@pytest.mark.parametrize(
    "point",
    [
        f"after {LIFE}_directories",
        f"after {LIFE}_repositories",
        "after hive_core.registry:Registry.add",
        f"after {LIFE}_start",
        "before hive_core.approvals:Approvals.deployed",
    ],
)
async def test_a_spawn_is_finished_by_the_next_start(core: Core, point: str) -> None:
    await core.start(die=point)
    core.arm()
    with pytest.raises(HiveError):
        await core.call(wire.Spawn(name="alice"))
    await core.died()
    await core.start()

    async def stands() -> bool:
        agents = (await core.call(wire.ListAgents())).agents
        return any(a.name == "alice" and a.state is wire.AgentState.RUNNING for a in agents)

    await eventually(stands, "alice runs", every_seconds=0.05)
    await core.call(wire.Send(to="alice", body="hello"))
    assert [message.body for message in await received(core)] == ["hello"]
    await eventually(lambda: holds(core), "the invariants hold", every_seconds=0.1)


@pytest.mark.parametrize(
    "point",
    [
        "after tests.faults.absent_runtime:AbsentRuntime.destroy",
        "after hive_core.registry:Registry.set_kept",
        "before hive_core.surfaces.sockets:AgentSockets.close",
    ],
)
async def test_a_destroy_is_done_or_can_be_asked_for_again_and_keeps_the_state(
    core: Core, point: str
) -> None:
    await core.start(die=point)
    await core.call(wire.Spawn(name="alice"))
    (core.paths.state("alice") / "notes.md").write_text("dear")
    await core.call(wire.Send(to="alice", body="waits"))
    core.arm()
    with pytest.raises(HiveError):
        await core.call(wire.Destroy(name="alice"))
    await core.died()
    await core.start()
    agents = (await core.call(wire.ListAgents())).agents
    if any(agent.name == "alice" for agent in agents):
        await core.call(wire.Destroy(name="alice"))
    assert (core.paths.state("alice") / "notes.md").read_text() == "dear"
    await core.call(wire.Spawn(name="alice"))
    assert [message.body for message in await received(core)] == ["waits"]
    assert (core.paths.state("alice") / "notes.md").read_text() == "dear"
    await eventually(lambda: holds(core), "the invariants hold", every_seconds=0.1)


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        (f"before {COMMIT}", False),
        (f"after {COMMIT}", True),
        ("before hive_core.broker:Broker._arrived", True),
    ],
)
async def test_a_question_and_an_answer_are_there_whole_and_once(core: Core, point: str, kept: bool) -> None:
    await core.start(die=point)
    for name in ("alice", "bob"):
        await core.call(wire.Spawn(name=name))
    alice, bob = (core.paths.socket(name) for name in ("alice", "bob"))

    async def listens(socket: Path) -> bool:  # what the one before left is there as well
        with contextlib.suppress(HiveError):
            await call_once(socket, wire.Status())
            return True
        return False

    async def dies_of(socket: Path, request: wire.Request[R]) -> None:
        await eventually(lambda: listens(socket), "it is listened to", every_seconds=0.02)
        core.arm()
        with pytest.raises(HiveError):
            await call_once(socket, request)
        await core.died()
        await core.start(die=point)
        await eventually(lambda: listens(socket), "it is listened to again", every_seconds=0.02)

    ask = wire.Ask(to="alice", question="go on?", key="the-same")
    await dies_of(bob, ask)
    assert len((await core.call(wire.Questions(all=True))).questions) == kept
    asked = await call_once(bob, ask)
    (message,) = await received(core)
    assert (message.id, message.asks) == (asked.message_id, asked.question_id)

    answer = wire.AnswerAsk(question_id=asked.question_id, answer="yes")
    await dies_of(alice, answer)
    assert len((await core.call(wire.Questions(all=True))).questions) == (not kept)
    with pytest.raises(Conflict) if kept else contextlib.nullcontext():
        await call_once(alice, answer)
    everything = (await core.call(wire.Messages())).messages
    assert [each.body for each in everything if each.answers == asked.question_id] == ["yes"]

    again = await call_once(bob, wire.Ask(to="alice", question="and now?"))
    take_back = wire.CancelLooseEnd(kind="question", loose_end_id=again.question_id)
    await dies_of(bob, take_back)
    assert len((await core.call(wire.Questions(all=True))).questions) == (not kept)
    with pytest.raises(Conflict) if kept else contextlib.nullcontext():
        await call_once(bob, take_back)
    notices = [each for each in (await core.call(wire.Messages())).messages if "ask_closed" in each.body]
    assert [(each.to, each.in_reply_to) for each in notices] == [("alice", again.message_id)]
    assert await broken(core) == []


def make_due(core: Core) -> None:
    """What is to come at some time is to come now; what comes every year has come twice since."""
    now_ms = time_ms()
    with contextlib.closing(sqlite3.connect(core.paths.database, timeout=60)) as database, database:
        database.execute("update reminder set due_at_ms = ?", (now_ms,))
        database.execute("update schedule set next_at_ms = ?", (now_ms - 2 * 366 * 86_400_000,))


@pytest.mark.parametrize("point", ["after hive_core.{what}", "before hive_core.broker:Broker._arrived"])
@pytest.mark.parametrize("what", ["reminders:Reminders._deliver", "schedules:Schedules._settle"])
async def test_what_comes_at_a_time_comes_once_though_the_daemon_dies_of_it(
    core: Core, what: str, point: str
) -> None:
    await core.start(die=point.format(what=what))
    await core.call(wire.Spawn(name="alice"))
    later = wire.Remind(body="look", after_seconds=86_400)
    if what.startswith("reminders"):
        await eventually(lambda: core.paths.socket("alice").exists(), "alice's socket is there")
        await call_once(core.paths.socket("alice"), later)
    else:
        await core.call(wire.AddSchedule(name="alice", cron="0 0 1 1 *", body="look"))
    make_due(core)
    core.arm()
    with contextlib.suppress(HiveError):  # it looks at its times anew, and dies
        if what.startswith("reminders"):
            await call_once(core.paths.socket("alice"), later)
        else:
            await core.call(wire.AddSchedule(name="alice", cron="0 0 1 1 *", body="look"))
    await core.died()
    await core.start()

    async def nothing_is_due() -> bool:
        reminders = (await core.call(wire.Reminders())).reminders
        schedules = (await core.call(wire.Schedules())).schedules
        times = [each.due_at_ms for each in reminders] + [each.next_runs_ms[0] for each in schedules]
        return all(at_ms > time_ms() for at_ms in times)

    await eventually(nothing_is_due, "what was due was dealt with", every_seconds=0.02)
    everything = (await core.call(wire.Messages())).messages
    (message,) = [each for each in everything if each.to == "alice"]
    if what.startswith("schedules"):
        assert message.body.endswith("2 runs were missed before] look")
    assert [each.id for each in await received(core)] == [message.id]
    assert await broken(core) == []


async def test_a_message_whose_harness_is_killed_again_and_again_is_set_aside(core: Core) -> None:
    """The real harness, with one message in hand each time it dies; then it works on the next."""
    await core.start(crashes_per_message=3)
    await core.call(wire.Spawn(name="alice"))
    poison = (await core.call(wire.Send(to="alice", body="wait 60"))).ids[0]
    await core.call(wire.Send(to="alice", body="remember the next"))
    for _ in range(3):
        pid = await core.fork_harness("alice")

        async def works() -> bool:
            agents = (await core.call(wire.ListAgents())).agents
            return any(a.name == "alice" and a.report.badge is wire.Badge.THINKING for a in agents)

        await eventually(works, "alice works", every_seconds=0.02)
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
    await core.fork_harness("alice")
    notes = core.paths.state("alice") / "notes.md"
    await eventually(lambda: notes.exists() and "the next" in notes.read_text(), "the next is worked on")
    (asked,) = (await core.call(wire.Questions())).questions
    assert f"message {poison}" in asked.question
    await core.call(wire.Answer(question_id=asked.id, answer=f"take message {poison} out of the inbox"))
    assert await broken(core) == []
