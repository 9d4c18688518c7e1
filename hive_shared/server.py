"""Serve one surface on one Unix socket: the same code for host, manager and agents (SPEC section 4).

Nothing a peer sends can crash the daemon, block another connection, or grow its memory without
bound: lines, connections, requests in flight and unread replies are all limited.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from hive_shared.accepting import accept_all
from hive_shared.errors import (
    HiveError,
    Internal,
    LineTooLong,
    TimedOut,
    TooManyConnections,
)
from hive_shared.jsonlines import READ_BYTES, LineReader, decode, encode, encode_under
from hive_shared.pace import Pace
from hive_shared.shares import Pool, Share
from hive_shared.wire import LINE_MAX_BYTES, Model, Request, Surface, parse_request

log = logging.getLogger(__name__)

DISCARD_MAX_BYTES = 8 * LINE_MAX_BYTES
DISCARD_SECONDS = 1.0

_connection_numbers = count(1)


@dataclass(frozen=True)
class Limits:
    """What one socket grants its peers."""

    connections: int = 64
    in_flight: int = 32  # requests of one connection that carry ids
    requests_per_second: float = 10_000.0  # of all connections together, in the long run
    request_burst: float = 10_000.0
    accepts_per_second: float = 1000.0
    accept_burst: float = 1000.0
    line_seconds: float = 30.0  # from the first byte of a line to its newline
    write_seconds: float = 30.0  # for a peer to take what it asked for


# Of one agent. Its harness needs one connection and a few requests a second; what else connects is
# started by the agent itself, and has to share.
AGENT_LIMITS = Limits(
    connections=16, requests_per_second=50.0, request_burst=200.0, accepts_per_second=10.0, accept_burst=32.0
)
# What all agents together have beyond that. The harness needs one connection, and has it in any case.
AGENT_CONNECTIONS_RESERVED = 4
AGENT_CONNECTIONS_COMMON = 256
# Of lines that have begun and are longer than what each may read ahead: an agent can always send one.
LINE_BYTES_RESERVED = LINE_MAX_BYTES + 1
LINE_BYTES_COMMON = 64 * 2**20
# Lines longer than this count for several requests, the other way too: reading and writing them takes time.
BYTES_OF_A_REQUEST = 16 * 1024


@dataclass(eq=False)
class Connection:
    """One accepted connection. `on_close` callbacks run once, when it has gone."""

    surface: Surface
    number: int
    on_close: list[Callable[[], None]] = field(default_factory=list)

    @property
    def lease(self) -> str:
        """What leases of this connection are called in the store; unique while the daemon runs."""
        return f"c{self.number}"


class Crowd:
    """What the sockets of all agents draw from together: connections, and memory for long lines."""

    def __init__(self) -> None:
        self.connections = Pool(common=AGENT_CONNECTIONS_COMMON, reserve=AGENT_CONNECTIONS_RESERVED)
        self.line_bytes = Pool(common=LINE_BYTES_COMMON, reserve=LINE_BYTES_RESERVED)


Answer = Model | AsyncIterator[Model]
Handler = Callable[[Request[Any], Connection], Awaitable[Answer]]


class SurfaceServer:
    """Answers the requests of one listening socket until closed."""

    def __init__(
        self,
        surface: Surface,
        listener: socket.socket,
        handler: Handler,
        limits: Limits | None = None,
        crowd: Crowd | None = None,
    ) -> None:
        self.surface = surface
        self._listener = listener
        self._handler = handler
        self._limits = limits or Limits()
        self._share = crowd.connections.share() if crowd else None
        self._room = crowd.line_bytes.share() if crowd else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None
        self._requests = Pace(self._limits.requests_per_second, self._limits.request_burst)
        self._accepts = Pace(self._limits.accepts_per_second, self._limits.accept_burst)

    async def start(self) -> None:
        """Begin to accept; returns at once."""
        accepting = accept_all(self._listener, self._protocol, self._accepts, f"the {self.surface} socket")
        self._accepting = asyncio.create_task(accepting, name=f"{self.surface}-accept")

    async def close(self) -> None:
        """Stop accepting, end every connection, wait for their handlers. The path stays."""
        tasks = list(self._tasks)
        if self._accepting is not None:
            tasks.append(self._accepting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    @property
    def connections(self) -> int:
        return len(self._tasks)

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=READ_BYTES), self._accept)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._limits.connections or not (self._share is None or self._share.take()):
            writer.write(_refusal(None, TooManyConnections()))
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer), name=f"{self.surface}-connection")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if self._share is not None:
            self._share.give()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self.surface, next(_connection_numbers))
        channel = _Channel(writer, self._limits.write_seconds, self._requests)
        try:
            conversation = _Conversation(
                connection, channel, self._handler, self._limits, self._requests, self._room
            )
            await conversation.run(reader)
        except (ConnectionError, TimeoutError, TimedOut):
            pass  # the peer has gone, or takes nothing: there is nobody left to tell
        finally:
            for callback in connection.on_close:
                callback()
            writer.close()


class ReplyTooLong(HiveError):
    """The answer is longer than one line may be (1 MiB). Ask for less at a time."""


class _Channel:
    """The writing side: whole lines, one at a time, to a peer that must keep up."""

    def __init__(self, writer: asyncio.StreamWriter, write_seconds: float, pace: Pace) -> None:
        self._writer = writer
        self._write_seconds = write_seconds
        self._pace = pace
        self._turn = asyncio.Lock()
        self.broken = False
        writer.transport.set_write_buffer_limits(high=LINE_MAX_BYTES)

    async def put(self, request_id: Any, line: bytes) -> None:
        """Send what is said to that request; None for what is about the connection."""
        if len(line) > LINE_MAX_BYTES:
            line = _refusal(request_id, ReplyTooLong())
        self._pace.charge(len(line) / BYTES_OF_A_REQUEST)
        async with self._turn:
            if self.broken or self._writer.is_closing():
                raise ConnectionResetError
            self._writer.write(line)
            if self._writer.transport.get_write_buffer_size() > LINE_MAX_BYTES:
                await self._until_taken()

    async def _until_taken(self) -> None:
        """Wait for a peer that does not keep up."""
        try:
            async with asyncio.timeout(self._write_seconds):
                await self._writer.drain()
        except (TimeoutError, ConnectionError):
            self.broken = True
            self._writer.transport.abort()  # ends the reading side too, and so the connection
            raise ConnectionResetError from None


class _LineRoom:
    """What the line that one connection reads, or answers, holds of its socket's share."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._held = 0

    async def wait(self, units: int) -> None:
        await self._share.wait(units)
        self._held += units

    def empty(self) -> None:
        self._share.give(self._held)
        self._held = 0


class _Conversation:
    """Requests of one connection: in order, or side by side where they carry ids."""

    def __init__(
        self,
        connection: Connection,
        channel: _Channel,
        handler: Handler,
        limits: Limits,
        pace: Pace,
        room: Share | None,
    ) -> None:
        self._connection = connection
        self._channel = channel
        self._handler = handler
        self._limits = limits
        self._pace = pace
        self._room = None if room is None else _LineRoom(room)
        self._slots = asyncio.Semaphore(limits.in_flight)

    async def run(self, reader: asyncio.StreamReader) -> None:
        # Handlers of a connection that ended are cancelled: nobody waits for a long poll any more.
        in_flight: set[asyncio.Task[None]] = set()
        try:
            async for line in self._lines(reader):
                task = await self._begin(line)
                if task is not None:
                    in_flight.add(task)
                    task.add_done_callback(in_flight.discard)
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)
            self._forget_line()

    def _forget_line(self) -> None:
        if self._room is not None:
            self._room.empty()

    async def _lines(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        lines = LineReader(reader, finish_within_seconds=self._limits.line_seconds, room=self._room)
        while True:
            self._forget_line()
            try:
                line = await lines.next()
            except (LineTooLong, TimedOut) as error:
                await self._channel.put(None, _refusal(None, error))
                await _discard(reader)
                return
            if line is None:
                return
            await self._pace.turn(1 + len(line) / BYTES_OF_A_REQUEST)  # empty lines cost time as well
            if line.strip():
                yield line

    async def _begin(self, line: bytes) -> "asyncio.Task[None] | None":
        """Answer a request without id here; start one with an id and return its task."""
        request_id: Any = None
        try:
            fields = decode(line)
            request_id = _echoable(fields.get("id"))
            request = parse_request(self._connection.surface, fields)
        except HiveError as error:
            await self._channel.put(request_id, _refusal(request_id, error))
            return None
        await self._slots.acquire()
        answering = asyncio.create_task(self._answer(request), name=f"op-{request.op}")
        answering.add_done_callback(lambda _: self._slots.release())
        if request.id is not None:
            return answering
        try:
            await answering
        except asyncio.CancelledError:
            answering.cancel()
            raise
        return None

    async def _answer(self, request: Request[Any]) -> None:
        try:
            answer = await self._handler(request, self._connection)
            if isinstance(answer, Model):
                reply = _reply(request.id, "result", answer)
            else:
                reply = await self._stream(request, answer)
        except HiveError as error:
            reply = _refusal(request.id, error)
        except ConnectionError:
            return  # the peer went away in the middle of a stream
        except Exception:
            log.exception("op %s on the %s socket failed", request.op, self._connection.surface)
            reply = _refusal(request.id, Internal())
        with contextlib.suppress(ConnectionError):
            await self._channel.put(request.id, reply)

    async def _stream(self, request: Request[Any], items: AsyncIterator[Model]) -> bytes:
        """Send every item but the last as `item`; the last one is the result."""
        last: Model | None = None
        async for item in items:
            if isinstance(item, request.result):
                last = item
                continue
            await self._channel.put(request.id, _reply(request.id, "item", item))
        return _reply(request.id, "result", last or request.result.model_construct())


async def _discard(reader: asyncio.StreamReader) -> None:
    """Read on for a moment: closing with unread input would destroy the refusal on its way out."""
    left_bytes = DISCARD_MAX_BYTES
    with contextlib.suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while left_bytes > 0 and (chunk := await reader.read(2**16)):
                left_bytes -= len(chunk)


def _echoable(request_id: Any) -> Any:
    return request_id if isinstance(request_id, str | int) and not isinstance(request_id, bool) else None


def _reply(request_id: Any, kind: str, value: Model) -> bytes:
    return encode_under(kind, value, {"ok": True} if request_id is None else {"id": request_id, "ok": True})


def _refusal(request_id: Any, error: HiveError) -> bytes:
    body = {"code": str(error.code), "message": error.message}
    if error.field:
        body["field"] = error.field
    reply = {"ok": False, "error": body}
    return encode(reply if request_id is None else {"id": request_id, **reply})
