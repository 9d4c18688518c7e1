"""The harness killed with SIGKILL at each step of its turn; and the daemon upgraded while a turn runs."""

import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_shared import wire
from tests.faults.test_killed_at_steps import Core, broken, gone, holds, nursery
from tests.support.hive import eventually

__all__ = ["nursery"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HARNESS = "hive_agent.harness:Harness."
STEPS = {
    "after hive_agent.inbox:Inbox._recv": False,  # a message was taken
    f"before {HARNESS}_began": False,
    f"after {HARNESS}_began": False,
    "after hive_agent.backends.rehearsal:RehearsalBackend.run_turn": False,
    f"before {HARNESS}_ended": True,
    f"after {HARNESS}_ended": True,
    "before hive_agent.inbox:Inbox.ack": True,
    "after hive_agent.inbox:Inbox.ack": True,
}  # whether the work of the turn was done by then


@pytest.fixture
def core(tmp_path: Path, nursery: subprocess.Popen[bytes]) -> Iterator[Core]:
    core = Core(tmp_path / "hive", nursery)
    yield core
    core.kill_all()


def worked_on(core: Core, word: str) -> int:
    """How often alice did what a message asked for."""
    notes = core.paths.state("alice") / "notes.md"
    return notes.read_text().count(word) if notes.exists() else 0


def acked(core: Core) -> list[tuple[int, bool]]:
    """The messages to alice, and whether each is done with."""
    with sqlite3.connect(f"file:{core.paths.database}?mode=ro", uri=True) as database:
        rows = database.execute(
            "select id, acked_at_ms is not null from message where recipient = 'alice' order by id"
        )
        return [(row[0], bool(row[1])) for row in rows]


async def is_idle(core: Core) -> bool:
    agents = (await core.call(wire.ListAgents())).agents
    alice = next(agent for agent in agents if agent.name == "alice")
    return alice.report.badge is wire.Badge.IDLE and not alice.unread


@pytest.mark.parametrize("point", STEPS)
async def test_a_harness_killed_at_any_step_of_its_turn_is_followed_by_one_that_finishes(
    core: Core, point: str
) -> None:
    await core.start()
    await core.call(wire.Spawn(name="alice"))
    pid = await core.fork_harness("alice", die=point)
    await eventually(lambda: is_idle(core), "alice waits", every_seconds=0.02)
    core.arm()
    first = (await core.call(wire.Send(to="alice", body="remember the first"))).ids[0]
    await gone(pid)
    assert worked_on(core, "the first") == (1 if STEPS[point] else 0)
    done_with = point == "after hive_agent.inbox:Inbox.ack"
    assert acked(core) == [(first, done_with)]
    (core.root / "armed").unlink()

    second = (await core.call(wire.Send(to="alice", body="remember the second"))).ids[0]
    await core.fork_harness("alice")
    await eventually(lambda: worked_on(core, "the second"), "the next message is worked on")
    await eventually(lambda: acked(core) == [(first, True), (second, True)], "both are acked")
    times = worked_on(core, "the first")
    assert times == (2 if STEPS[point] and not done_with else 1), "at least once; never again once acked"
    assert await broken(core) == []


async def test_a_daemon_that_is_upgraded_during_a_turn_gets_its_ack_afterwards(core: Core) -> None:
    """Stopped as by systemctl, and started as another revision would be."""
    await core.start()
    await core.call(wire.Spawn(name="alice"))
    await core.fork_harness("alice")
    await eventually(lambda: is_idle(core), "alice waits", every_seconds=0.02)
    first = (await core.call(wire.Send(to="alice", body="wait 3"))).ids[0]
    second = (await core.call(wire.Send(to="alice", body="remember the second"))).ids[0]

    async def works() -> bool:
        agents = (await core.call(wire.ListAgents())).agents
        return any(a.name == "alice" and a.report.badge is wire.Badge.THINKING for a in agents)

    await eventually(works, "alice works", every_seconds=0.02)
    harness = core.pids[-1]
    os.kill(core.pid, signal.SIGTERM)
    await gone(core.pid)
    assert acked(core) == [(first, False), (second, False)]
    await core.start(revision="newer")
    await eventually(lambda: acked(core) == [(first, True), (second, True)], "both are acked")
    assert worked_on(core, "the second") == 1
    os.kill(harness, 0)  # one and the same process all the while
    turns = turns_of(core)
    assert turns == [first, second], "a turn was doubled, or lost"
    await eventually(lambda: holds(core), "the invariants hold", every_seconds=0.1)


def turns_of(core: Core) -> list[int]:
    path = core.paths.state("alice") / "hyperhive-events.sqlite"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        rows = database.execute(
            "select json_extract(data, '$.message_id') from event where kind = 'turn_start' order by seq"
        )
        return [row[0] for row in rows]
