"""Redis Streams with a consumer group: XADD, XREADGROUP, XACK and XDEL, over its Unix socket."""

from typing import Any

from tests.benchmarks.peers.base import BATCH, Consumer, NotHere, Peer, Producer, program

STREAM, GROUP = "queue", "workers"


class RedisStreams(Peer):
    name = "Redis Streams"
    durability = "appendonly, appendfsync always: fsync before the answer"

    async def start(self) -> None:
        try:
            import hiredis  # noqa: F401 - the parser in C that makes its client fast
            import redis.asyncio
        except ImportError as error:
            raise NotHere(f"{error.name} is not here (make bench installs it)") from None
        self._client = redis.asyncio.Redis
        self._socket = self.directory / "redis.sock"
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self.directory),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        arguments = [part for key, value in settings.items() for part in (f"--{key}", value)]
        await self._run(program("redis-server", "redis-server"), *arguments, ready=self._socket.exists)
        await self._connect().xgroup_create(STREAM, GROUP, mkstream=True)

    def _connect(self) -> Any:
        return self._client(unix_socket_path=str(self._socket), socket_timeout=None)

    async def producer(self) -> Producer:
        return _Producer(self._connect())

    async def consumer(self) -> Consumer:
        return _Consumer(self._connect())


class _Producer(Producer):
    def __init__(self, client: Any) -> None:
        self._client = client

    async def send(self, body: str) -> None:
        await self._client.xadd(STREAM, {"body": body})

    async def close(self) -> None:
        await self._client.aclose()


class _Consumer(Consumer):
    def __init__(self, client: Any) -> None:
        self._client = client
        self._taken: list[bytes] = []

    async def take(self) -> int:
        while True:
            answer = await self._client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=BATCH, block=30_000)
            if answer:
                batches = answer.values() if isinstance(answer, dict) else [each[1] for each in answer]
                entries = [entry for batch in batches for entry in batch]
                if entries and isinstance(entries[0], list):
                    entries = entries[0]
                self._taken = [entry[0] for entry in entries]
                return len(self._taken)

    async def ack(self) -> None:
        async with self._client.pipeline(transaction=True) as both:
            both.xack(STREAM, GROUP, *self._taken)
            both.xdel(STREAM, *self._taken)
            await both.execute()

    async def close(self) -> None:
        await self._client.aclose()
