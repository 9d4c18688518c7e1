"""persist-queue's SQLite queue with acknowledgements: a library, so threads of one process and no socket."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.benchmarks.peers.base import BATCH, Consumer, NotHere, Peer, Producer

LOOK_SECONDS = 0.05  # its own are 10, which would be all that is measured


class SqliteQueue(Peer):
    name = "persist-queue"
    durability = "SQLite, synchronous=FULL: fsync before it returns (in one process, without a socket)"

    async def start(self) -> None:
        try:
            import persistqueue
            from persistqueue import sqlackqueue
        except ImportError as error:
            raise NotHere(f"{error.name} is not here (make bench installs it)") from None
        # A message that is put while the consumer goes to sleep does not wake it: it looks again after this.
        sqlackqueue.TICK_FOR_WAIT = LOOK_SECONDS
        self._queue = persistqueue.SQLiteAckQueue(
            str(self.directory), multithreading=True, auto_commit=True, auto_resume=False
        )

    async def producer(self) -> Producer:
        return _Producer(self._queue)

    async def consumer(self) -> Consumer:
        return _Consumer(self._queue)

    async def stop(self) -> None:
        self._queue.close()


class _Thread:
    """Calls of one side, in a thread of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    async def run(self, call: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def end(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class _Producer(Producer):
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._thread = _Thread()

    async def send(self, body: str) -> None:
        await self._thread.run(self._queue.put, body)

    async def close(self) -> None:
        self._thread.end()


class _Consumer(Consumer):
    def __init__(self, queue: Any) -> None:
        self._queue = queue
        self._thread = _Thread()
        self._taken: list[Any] = []

    async def take(self) -> int:
        self._taken = await self._thread.run(self._take)
        return len(self._taken)

    def _take(self) -> list[Any]:
        taken = [self._queue.get(raw=True, timeout=30.0)]
        while self._queue.size and len(taken) < BATCH:
            taken.append(self._queue.get(raw=True, timeout=30.0))
        return taken

    async def ack(self) -> None:
        await self._thread.run(self._ack)

    def _ack(self) -> None:
        for item in self._taken:
            self._queue.ack(id=item["pqid"])

    async def close(self) -> None:
        self._thread.end()
