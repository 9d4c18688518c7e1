"""A disk on which each commit takes long: senders wait, nothing is lost, and nobody else is held up."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hive_core import operations
from hive_core.operations import Operations
from hive_core.slow_log import SlowLog
from hive_shared.wire import Recv, Send
from tests.support.core_parts import ALICE, Parts, before_commits, running

pytestmark = pytest.mark.timeout(120)

SENDERS = 40
SLOW_SECONDS = 0.05


class Disk:
    """Stands between transactions and their commit, in the writer's thread: see `before_commits`."""

    def __init__(self) -> None:
        self.commits = 0
        self.asked = threading.Event()  # a commit has begun to wait
        self._goes = threading.Event()
        self._goes.set()
        self._seconds = 0.0

    def __call__(self) -> None:
        self.commits += 1
        self.asked.set()
        self._goes.wait()
        if self._seconds:
            threading.Event().wait(self._seconds)

    def hang(self) -> None:
        self.asked.clear()
        self._goes.clear()

    def go_on(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._goes.set()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    with before_commits(disk):
        yield disk


@pytest.fixture
def slow_log() -> Iterator[None]:
    """As the daemon's, before the store is opened."""
    observed = Operations()
    observed.observers.append(SlowLog(SLOW_SECONDS))
    token = operations.observe(observed)
    yield
    operations.unobserve(token)


async def begin_a_commit(disk: Disk, parts: Parts) -> "asyncio.Task[int]":
    disk.hang()
    first = asyncio.create_task(parts.send("bob", "first"))
    assert await asyncio.to_thread(disk.asked.wait, 60)
    return first


async def test_while_a_commit_hangs_the_loop_and_readers_go_on_and_senders_wait(
    tmp_path: Path, disk: Disk
) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        known = await parts.send("bob", "known")
        first = await begin_a_commit(disk, parts)
        sends = [asyncio.create_task(parts.send("bob", str(number))) for number in range(SENDERS)]
        for _ in range(100):  # as often as it likes: nothing of this needs the disk
            await asyncio.sleep(0)
            assert [message.id for message in await parts.broker.recent(10)] == [known]
        assert not any(send.done() for send in (first, *sends)), "it was answered before it was stored"
        disk.commits = 0
        disk.go_on()
        ids = await asyncio.gather(first, *sends)
        assert disk.commits == 1, "who waited shares the next commit"
        assert [message.id for message in await parts.take("bob")] == [known, *sorted(ids)]


async def test_on_a_slow_disk_nothing_is_lost_or_doubled_and_the_log_says_what_is_slow(
    tmp_path: Path, disk: Disk, slow_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        disk.go_on(SLOW_SECONDS)
        caplog.set_level(logging.WARNING)
        got: list[int] = []

        async def work_on_them() -> None:
            while len(got) < SENDERS:
                request = Recv(max=5, wait_seconds=60)
                ids = [message.id for message in (await parts.broker.recv("bob", request, "c1")).messages]
                got.extend(ids)
                await parts.broker.ack("bob", ids)

        working = asyncio.create_task(work_on_them())
        async with asyncio.timeout(100):
            ids = await asyncio.gather(*(parts.send("bob", str(number)) for number in range(SENDERS)))
            await working
        assert got == sorted(ids)
        assert await parts.take("bob") == []
    told = [record.getMessage() for record in caplog.records if "slow: commit" in record.getMessage()]
    assert told


async def test_who_gives_up_on_a_slow_disk_and_sends_again_with_the_key_sends_once(
    tmp_path: Path, disk: Disk
) -> None:
    async with running(tmp_path / "b.sqlite") as parts:
        disk.hang()
        request = Send(to="bob", body="once", key="the-same")
        first = asyncio.create_task(parts.broker.send(ALICE, request))
        assert await asyncio.to_thread(disk.asked.wait, 60)
        first.cancel()  # its connection ended; the commit is under way all the same
        await asyncio.gather(first, return_exceptions=True)
        again = asyncio.create_task(parts.broker.send(ALICE, request))
        disk.go_on()
        ids = (await again).ids
        assert [message.id for message in await parts.take("bob")] == ids
        assert await parts.take("bob") == []
