"""Ours: the broker over a Unix socket, in a process of its own, with the daemon's server and client."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from hive_core.broker import Broker
from hive_shared.client import Client
from hive_shared.server import Connection, SurfaceServer
from hive_shared.sockets import listen
from hive_shared.wire import Ack, Model, Recv, Request, Send, Surface
from tests.benchmarks.peers.base import BATCH, Consumer, Peer, Producer
from tests.support.core_parts import ALICE, running

PROJECT = Path(__file__).resolve().parents[3]


class Hive(Peer):
    name = "hyperhive"
    durability = "SQLite, WAL, synchronous=FULL: fsync before the answer"

    async def start(self) -> None:
        ready = (self.directory / "bob.sock").exists
        await self._run(sys.executable, "-m", __name__, self.directory, ready=ready, within=PROJECT)

    async def producer(self) -> Producer:
        return _Producer(await self._client("alice"))

    async def consumer(self) -> Consumer:
        return _Consumer(await self._client("bob"))

    async def _client(self, name: str) -> Client:
        client = Client(self.directory / f"{name}.sock")
        await client.connect()
        return client


class _Producer(Producer):
    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, body: str) -> None:
        await self._client.call(Send(to="bob", body=body))

    async def close(self) -> None:
        await self._client.close()


class _Consumer(Consumer):
    def __init__(self, client: Client) -> None:
        self._client = client
        self._taken: list[int] = []

    async def take(self) -> int:
        while True:
            received = await self._client.call(Recv(wait_seconds=30, max=BATCH))
            if received.messages:
                self._taken = [message.id for message in received.messages]
                return len(self._taken)

    async def ack(self) -> None:
        await self._client.call(Ack(ids=self._taken))

    async def close(self) -> None:
        await self._client.close()


async def _serve(directory: Path) -> None:
    async with running(directory / "b.sqlite") as parts:
        for name in ("alice", "bob"):
            socket = listen(directory / f"{name}.sock", mode=0o600)
            await SurfaceServer(Surface.AGENT, socket, _answers(parts.broker, name)).start()
        await asyncio.Event().wait()


def _answers(broker: Broker, name: str) -> Callable[[Request[Any], Connection], Awaitable[Model]]:
    async def answer(request: Request[Any], connection: Connection) -> Model:
        match request:
            case Send():
                return await broker.send(ALICE, request)
            case Recv():
                return await broker.recv(name, request, connection.lease)
            case Ack():
                return await broker.ack(name, request.ids)
        raise AssertionError(request.op)

    return answer


if __name__ == "__main__":  # the server's process; its argument is where the database and the sockets go
    uvloop.run(_serve(Path(sys.argv[1])))
