"""Core and harnesses are killed with SIGKILL at random moments, over and over (SPEC section 5).

Nothing that was accepted is lost: every message the daemon said yes to is worked on in the end, and its work
is there. Nothing that was acked comes back: no turn begins for a message after its ack was committed.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hive_shared import wire
from hive_shared.client import call_once
from hive_shared.errors import HiveError
from hive_shared.paths import HostPaths
from tests.conftest import PROJECT
from tests.support.hive import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = 200
AGENTS = ("alice", "bob")
LONGEST_LIFE_SECONDS = 0.3
KILLED_WHILE_STARTING = 0.25  # of the rounds; in the others the daemon first answers once


class Nursery:
    """Forks daemons and harnesses of one hive, and kills them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths = HostPaths.under(root)
        self.pids: dict[str, int] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Nursery":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.nursery",
            cwd=PROJECT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

    async def start(self, who: str) -> None:
        """`core`, or the harness of an agent."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        kind = "core" if who == "core" else "harness"
        command = {"fork": kind, "root": str(self.root), "agent": who}
        process.stdin.write(json.dumps(command).encode() + b"\n")
        self.pids[who] = int(await process.stdout.readline())

    def kill(self, who: str) -> None:
        """Fails if it is gone already: a process that ended by itself is a bug, not a round."""
        os.kill(self.pids[who], signal.SIGKILL)

    async def gone(self, who: str) -> None:
        """Wait until the kernel has let go of its files, sockets and locks."""
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(self.pids[who], 0)
                await asyncio.sleep(0.002)


class Ledger:
    """What was accepted, and what may never be seen again."""

    def __init__(self, paths: HostPaths) -> None:
        self.paths = paths
        self.accepted: dict[int, tuple[str, str]] = {}  # message id → (agent, its token)
        self.final: dict[str, list[tuple[set[int], int]]] = {name: [] for name in AGENTS}

    def acked(self) -> set[int]:
        with contextlib.closing(sqlite3.connect(f"file:{self.paths.database}?mode=ro", uri=True)) as database:
            return {
                row[0] for row in database.execute("SELECT id FROM message WHERE acked_at_ms IS NOT NULL")
            }

    def turns(self, agent: str) -> list[tuple[int, int]]:
        """(seq, message id) of every turn that began."""
        path = self.paths.state(agent) / "hyperhive-events.sqlite"
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            try:
                rows = database.execute("SELECT seq, data FROM event WHERE kind = 'turn_start'").fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return []  # killed before its first event
                raise
        return [(seq, json.loads(data)["message_id"]) for seq, data in rows]

    def remember_what_is_final(self) -> None:
        """Acks are read before turns: every turn seen later of one of them began after its ack."""
        acked = self.acked()
        for agent in AGENTS:
            last_seq = max((seq for seq, _ in self.turns(agent)), default=0)
            self.final[agent].append((acked, last_seq))

    def came_back(self) -> list[tuple[str, int]]:
        """(agent, message id) of every turn that began after its message had been acked."""
        return [
            (agent, message_id)
            for agent in AGENTS
            for acked, last_seq in self.final[agent]
            for seq, message_id in self.turns(agent)
            if seq > last_seq and message_id in acked
        ]

    def work_missing(self) -> list[str]:
        notes = {agent: (self.paths.state(agent) / "notes.md").read_text() for agent in AGENTS}
        return [token for agent, token in self.accepted.values() if token not in notes[agent]]


@pytest.fixture
async def nursery(tmp_path: Path) -> AsyncIterator[Nursery]:
    async with Nursery(tmp_path / "hive") as nursery:
        yield nursery


async def send_until_told_to_stop(ledger: Ledger, rng: random.Random, stop: asyncio.Event) -> None:
    """Send one message after another; what is not answered is sent again under the same key."""
    number = 0
    while not stop.is_set():
        number += 1
        agent, token = rng.choice(AGENTS), f"token-{number:06}-"
        request = wire.Send(to=agent, body=f"remember {token}", key=f"kill-test-{number:06}")
        while True:
            try:
                sent = await call_once(ledger.paths.host_socket, request)
                break
            except HiveError:
                await asyncio.sleep(0.02)
        ledger.accepted[sent.ids[0]] = (agent, token)
        await asyncio.sleep(rng.random() * 0.04)


@pytest.mark.parametrize("seed", [20261121])
async def test_nothing_accepted_is_lost_and_nothing_acked_comes_back(nursery: Nursery, seed: int) -> None:
    rng = random.Random(seed)
    ledger, stop = Ledger(nursery.paths), asyncio.Event()
    await nursery.start("core")
    await eventually(lambda: reachable(nursery), "the daemon answers")
    for agent in AGENTS:
        await call_once(nursery.paths.host_socket, wire.Spawn(name=agent))
        await nursery.start(agent)
    sending = asyncio.create_task(send_until_told_to_stop(ledger, rng, stop))

    for _ in range(ROUNDS):
        if rng.random() > KILLED_WHILE_STARTING:
            await eventually(lambda: reachable(nursery), "the daemon answers again", every_seconds=0.01)
        await asyncio.sleep(rng.random() * LONGEST_LIFE_SECONDS)
        victims = rng.choice((["core"], ["alice"], ["bob"], ["core", "alice"], ["core", *AGENTS]))
        for victim in victims:
            nursery.kill(victim)
        ledger.remember_what_is_final()
        for victim in victims:
            await nursery.gone(victim)
            await nursery.start(victim)

    stop.set()
    async with asyncio.timeout(120):
        await sending
    await eventually(lambda: set(ledger.accepted) <= ledger.acked(), "every accepted message is acked")
    assert len(ledger.accepted) > ROUNDS, "the daemon was hardly ever there to accept anything"
    assert ledger.work_missing() == []
    assert ledger.came_back() == []


async def reachable(nursery: Nursery) -> bool:
    with contextlib.suppress(HiveError):
        await call_once(nursery.paths.host_socket, wire.DaemonStatus())
        return True
    return False
