"""PostgreSQL as a queue: LISTEN/NOTIFY to wake, FOR UPDATE SKIP LOCKED to take, over its Unix socket."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.base import BATCH, Consumer, NotHere, Peer, Producer, program, unprivileged

SCHEMA = "CREATE TABLE queue (id bigserial PRIMARY KEY, body text NOT NULL)"
SEND = "WITH sent AS (INSERT INTO queue (body) VALUES ($1)) SELECT pg_notify('queue', '')"
TAKE = f"""
DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id FOR UPDATE SKIP LOCKED LIMIT {BATCH})
RETURNING id, body
"""


class Postgres(Peer):
    name = "PostgreSQL"
    durability = "fsync and synchronous_commit on: fsync before the answer"

    async def start(self) -> None:
        try:
            import asyncpg
        except ImportError as error:
            raise NotHere(f"{error.name} is not here (make bench installs it)") from None
        self._connect = asyncpg.connect
        binaries = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)  # where Debian keeps them
        initdb, postgres = (program(each, "postgresql", beside=binaries) for each in ("initdb", "postgres"))
        user = unprivileged(self.directory, "postgres")
        data = self.directory / "data"
        making = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        subprocess.run(making, check=True, capture_output=True, user=user, cwd=self.directory)
        settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self.directory}"]
        await self._run(postgres, "-D", data, *settings, user=user, ready=self._answers)
        admin = await self._connected()
        await admin.execute(SCHEMA)
        assert await admin.fetchval("SHOW synchronous_commit") == "on"
        assert await admin.fetchval("SHOW fsync") == "on"
        await admin.close()

    def _answers(self) -> bool:
        return (self.directory / ".s.PGSQL.5432").exists() and "ready to accept" in (
            self.directory / "log"
        ).read_text()

    async def _connected(self) -> Any:
        return await self._connect(host=str(self.directory), user="postgres", database="postgres")

    async def producer(self) -> Producer:
        connection = await self._connected()
        return _Producer(connection, await connection.prepare(SEND))

    async def consumer(self) -> Consumer:
        connection = await self._connected()
        consumer = _Consumer(connection, await connection.prepare(TAKE))
        await connection.add_listener("queue", consumer.woken)
        return consumer


class _Producer(Producer):
    def __init__(self, connection: Any, send: Any) -> None:
        self._connection = connection
        self._send = send

    async def send(self, body: str) -> None:
        await self._send.fetchval(body)

    async def close(self) -> None:
        await self._connection.close()


class _Consumer(Consumer):
    """Takes and deletes in one transaction, whose commit is the acknowledgement: the least it can cost."""

    def __init__(self, connection: Any, take: Any) -> None:
        self._connection = connection
        self._take = take
        self._came = asyncio.Event()
        self._transaction: Any = None

    def woken(self, *_: object) -> None:
        self._came.set()

    async def take(self) -> int:
        while True:
            self._came.clear()
            self._transaction = self._connection.transaction()
            await self._transaction.start()
            if rows := await self._take.fetch():
                return len(rows)
            await self._transaction.rollback()
            await self._came.wait()

    async def ack(self) -> None:
        await self._transaction.commit()

    async def close(self) -> None:
        await self._connection.close()
