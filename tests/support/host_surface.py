"""A host socket that answers what a test tells it to: the real server and framing, without a daemon."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hive_shared import wire
from hive_shared.errors import HiveError, NotAvailable
from hive_shared.server import Connection, SurfaceServer
from hive_shared.sockets import listen
from hive_shared.wire import Model, Request, Surface

POLL_SECONDS = 0.005
STATUS = wire.HiveStatus(
    version="0.1.0",
    host="local",
    pid=4711,
    started_at_ms=1,
    dashboard_url="http://127.0.0.1:7000/",
    runtime="local",
    isolation="bubblewrap",
    limits="none",
    backend="rehearsal",
    state_root="/x/lib",
    run_root="/x/run",
    agents=3,
    running=2,
    pending_approvals=1,
    open_questions=4,
    operator_unread=5,
    store="sqlite",
)


class HostSurface:
    """Runs in a thread of its own, because the command line has an event loop of its own.

    `replies` maps an operation to its answer: a result, an error, a function of the request, or a
    list to stream. In such a list a function is awaited instead of being sent.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.requests: list[Request[Any]] = []
        self.replies: dict[str, Any] = {"list": wire.AgentList(agents=[])}
        self._leaving: list[asyncio.Task[None]] = []

    def asked(self, op: str) -> list[Any]:
        """The requests of one operation, oldest first."""
        return [request for request in self.requests if request.op == op]

    async def leave(self) -> None:
        """In a stream: the daemon goes away."""
        self._leaving.append(asyncio.create_task(self._server.close()))

    async def _handle(self, request: Request[Any], _: Connection) -> Any:
        self.requests.append(request)
        reply = self.replies.get(request.op, NotAvailable(f"the test has no answer to {request.op}"))
        if callable(reply) and not isinstance(reply, Model | HiveError):
            reply = reply(request)
        if isinstance(reply, HiveError):
            raise reply
        return _stream(reply) if isinstance(reply, list) else reply

    @contextmanager
    def running(self) -> Iterator["HostSurface"]:
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        listener = listen(self.socket, mode=0o600)
        loop = asyncio.new_event_loop()
        self._server = server = SurfaceServer(Surface.HOST, listener, self._handle)
        thread = threading.Thread(target=loop.run_forever, name="host-surface")
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _stream(items: list[Any]) -> AsyncIterator[Model]:
    for item in items:
        if isinstance(item, Model):
            yield item
        else:
            await item()


def until(condition: Callable[[], bool]) -> Callable[[], Awaitable[None]]:
    """In a stream: wait until `condition` is true."""

    async def wait() -> None:
        while not condition():
            await asyncio.sleep(POLL_SECONDS)

    return wait


async def forever() -> None:
    """In a stream: nothing more, until the connection ends."""
    await asyncio.Event().wait()
