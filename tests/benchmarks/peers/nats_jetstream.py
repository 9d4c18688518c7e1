"""NATS JetStream: a work-queue stream in files, a durable push consumer."""

import asyncio
import json
import socket
from typing import Any

from tests.benchmarks.peers.base import BATCH, Consumer, NotHere, Peer, Producer, program


class NatsJetStream(Peer):
    name = "NATS JetStream"
    durability = "file storage; before 2.10 it cannot fsync each message (every 2 minutes): weaker"

    async def start(self) -> None:
        try:
            import nats
        except ImportError as error:
            raise NotHere(f"{error.name} is not here (make bench installs it)") from None
        self._nats = nats
        self._port = _free_port()
        settings = {
            "listen": f"127.0.0.1:{self._port}",
            "jetstream": {"store_dir": str(self.directory / "store")},
        }
        config = self.directory / "nats.conf"
        config.write_text(json.dumps(settings))
        await self._run(
            program("nats-server", "nats-server"), "-c", config, ready=lambda: _listens(self._port)
        )
        admin = await self._connect()
        stream = await admin.jetstream().add_stream(
            name="queue", subjects=["queue"], retention="workqueue", storage="file"
        )
        assert stream.config.storage == "file"
        await admin.close()

    async def _connect(self) -> Any:
        return await self._nats.connect(f"nats://127.0.0.1:{self._port}")

    async def producer(self) -> Producer:
        return _Producer(await self._connect())

    async def consumer(self) -> Consumer:
        connection = await self._connect()
        subscription = await connection.jetstream().subscribe("queue", durable="worker", manual_ack=True)
        return _Consumer(connection, subscription)


class _Producer(Producer):
    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._stream = connection.jetstream()

    async def send(self, body: str) -> None:
        await self._stream.publish("queue", body.encode())

    async def close(self) -> None:
        await self._connection.close()


class _Consumer(Consumer):
    def __init__(self, connection: Any, subscription: Any) -> None:
        self._connection = connection
        self._subscription = subscription
        self._taken: list[Any] = []

    async def take(self) -> int:
        self._taken = [await self._subscription.next_msg(timeout=None)]
        while self._subscription.pending_msgs and len(self._taken) < BATCH:
            self._taken.append(await self._subscription.next_msg(timeout=None))
        return len(self._taken)

    async def ack(self) -> None:
        await asyncio.gather(*(message.ack_sync() for message in self._taken))

    async def close(self) -> None:
        await self._connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
