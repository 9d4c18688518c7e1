"""Call a surface: one connection, many requests side by side, typed both ways (SPEC section 4)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, cast

from hive_shared.errors import HiveError, Unavailable, error_of
from hive_shared.jsonlines import decode, encode_fields
from hive_shared.sockets import short_address
from hive_shared.wire import LINE_MAX_BYTES, Model, Request

R = TypeVar("R", bound=Model)
Reply = dict[str, Any] | HiveError  # one line of the daemon's, or how the connection ended


class NotReachable(Unavailable):
    """No daemon answers on that socket."""


class Client:
    """A connection to one surface. Use as an async context manager, or `connect` and `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, Callable[[Reply], None]] = {}  # request → what takes its replies
        self._ids = count(1)

    async def __aenter__(self) -> "Client":
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def connected(self) -> bool:
        return self._reading is not None and not self._reading.done()

    async def connect(self) -> None:
        """Open the connection; raises `NotReachable`."""
        try:
            with short_address(self.path) as address:
                reader, self._writer = await asyncio.open_unix_connection(address, limit=LINE_MAX_BYTES)
        except OSError as error:
            raise NotReachable(f"nothing answers on {self.path}: {error.strerror or error}") from None
        self._reading = asyncio.create_task(self._read(reader), name="client-reader")

    async def close(self) -> None:
        """End the connection; leases of its messages end with it."""
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reading
        self._writer = self._reading = None

    async def wait_closed(self) -> None:
        """Return once the connection has ended, whoever ended it."""
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def call(self, request: Request[R]) -> R:
        """The result of `request`; raises the `HiveError` that the daemon answered with."""
        result: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def take(reply: Reply) -> None:
            if not result.done() and (isinstance(reply, HiveError) or "item" not in reply):
                result.set_result(reply)

        number = await self._ask(request, take)
        try:
            return cast(R, request.result.model_validate(_checked(await result)["result"]))
        finally:
            del self._waiting[number]

    async def follow(self, request: Request[Any]) -> AsyncIterator[Model]:
        """The items of `request` as they come, then its result."""
        if request.item is None:
            raise TypeError(f"{request.op} follows nothing")
        replies: asyncio.Queue[Reply] = asyncio.Queue()
        number = await self._ask(request, replies.put_nowait)
        try:
            while True:
                reply = _checked(await replies.get())
                if "item" in reply:
                    yield request.item.model_validate(reply["item"])
                else:
                    yield request.result.model_validate(reply["result"])
                    return
        finally:
            del self._waiting[number]

    async def _ask(self, request: Request[Any], take: Callable[[Reply], None]) -> int:
        """Send it; `take` gets its replies, and at last the error that the connection ends with."""
        if self._writer is None or not self.connected:
            raise NotReachable(f"the connection to {self.path} has ended")
        number = next(self._ids)
        self._waiting[number] = take
        try:
            self._writer.write(encode_fields(request, {"id": number}, exclude_none=True))
            await self._writer.drain()
        except BaseException as error:
            del self._waiting[number]
            if isinstance(error, ConnectionError):
                raise NotReachable(f"the connection to {self.path} was lost") from None
            raise
        return number

    async def _read(self, reader: asyncio.StreamReader) -> None:
        end: HiveError = NotReachable(f"the connection to {self.path} was lost")
        try:
            while line := await reader.readline():
                reply = decode(line)
                if "id" not in reply and not reply.get("ok"):
                    end = _error_in(reply)  # about the connection itself
                    break
                take = self._waiting.get(reply.get("id", 0))
                if take is not None:
                    take(reply)
        except (OSError, ValueError, HiveError) as error:
            end = NotReachable(f"the connection to {self.path} was lost: {error}")
        finally:
            for take in self._waiting.values():
                take(end)


def _checked(reply: Reply) -> dict[str, Any]:
    if isinstance(reply, HiveError):
        raise reply
    if reply.get("ok"):
        return reply
    raise _error_in(reply)


def _error_in(reply: dict[str, Any]) -> HiveError:
    error = reply.get("error") or {}
    return error_of(error.get("code", ""), error.get("message", "refused"), error.get("field"))


async def call_once(path: Path, request: Request[R]) -> R:
    """One request on a connection of its own."""
    async with Client(path) as client:
        return await client.call(request)
