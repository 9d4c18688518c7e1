"""JSON lines with limits: one object a line, at most 1 MiB (SPEC section 4)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

from pydantic_core import PydanticSerializationError

from hive_shared.errors import BadJson, LineTooLong, TimedOut
from hive_shared.wire import LINE_MAX_BYTES, Model

# What a connection may hold of a line that is not finished, without asking for room.
READ_AHEAD_BYTES = 64 * 1024
READ_BYTES = 32 * 1024  # at a time; a StreamReader whose limit is that holds twice as much besides
NESTING_MAX = 64
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


class Room(Protocol):
    """Memory that is shared: `wait` returns when there is so much of it for us."""

    async def wait(self, units: int) -> None: ...


def encode(value: Mapping[str, Any]) -> bytes:
    """One line. Text that cannot be UTF-8 (lone surrogates) is escaped, never refused."""
    return _ENCODER.encode(value).encode("utf-8", "backslashreplace") + b"\n"


def encode_fields(value: Model, more: Mapping[str, Any], *, exclude_none: bool = False) -> bytes:
    """One line of a model's fields with `more` of them, which win. As `encode`, in a tenth of its time."""
    try:
        fields = value.model_dump_json(exclude_none=exclude_none)
    except PydanticSerializationError:  # text that cannot be UTF-8
        return encode({**value.model_dump(mode="json", exclude_none=exclude_none), **more})
    if not more:
        return f"{fields}\n".encode()
    comma = "," if len(fields) > len("{}") else ""
    return f"{fields[:-1]}{comma}{_ENCODER.encode(more)[1:]}\n".encode()


def encode_under(name: str, value: Model, head: Mapping[str, Any]) -> bytes:
    """One line of `head`, and of a model as its field `name`."""
    try:
        field = value.model_dump_json()
    except PydanticSerializationError:
        return encode({**head, name: value.model_dump(mode="json")})
    return f'{_ENCODER.encode(head)[:-1]},"{name}":{field}}}\n'.encode()


def decode(line: bytes) -> dict[str, Any]:
    """The object on a line; `BadJson` says where it stops being one."""
    try:
        value = json.loads(line)
    except UnicodeDecodeError as error:
        raise BadJson(f"byte {error.start} of the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise BadJson(f"not JSON at character {error.pos}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise BadJson("nested too deeply, or a number too long to read") from None
    if not isinstance(value, dict):
        raise BadJson('a line must be one JSON object, such as {"op": "status"}')
    return value


class LineReader:
    """The lines of a peer that may send anything, one at a time.

    Waiting for a line to begin takes as long as it takes; once begun, it must be finished within
    `finish_within_seconds`, or a peer could hold a connection with one byte. Of a line that is longer than
    `READ_AHEAD_BYTES`, everything waits for `room`, in bytes, which the caller gives back.
    """

    def __init__(
        self, reader: asyncio.StreamReader, *, finish_within_seconds: float, room: Room | None = None
    ) -> None:
        self._reader = reader
        self._finish_within_seconds = finish_within_seconds
        self._room = room
        self._buffer = bytearray()
        self._looked_at = 0  # of the buffer: no line ends there

    async def next(self) -> bytes | None:
        """The next line without its newline, or None at the end of the stream.

        Raises `LineTooLong` or `TimedOut`; the connection is of no more use after either. A last line without
        a newline is dropped: half a request is no request.
        """
        # Mostly a line comes as a whole, so that no clock has to be set for its end.
        if not self._buffer and not await self._read():
            return None
        line = self._taken()
        if line is not None:
            return line
        try:
            async with asyncio.timeout(self._finish_within_seconds):
                return await self._finished()
        except TimeoutError:
            seconds = self._finish_within_seconds
            raise TimedOut(f"the line was not finished within {seconds:g} seconds") from None

    async def _finished(self) -> bytes | None:
        """The line that has begun."""
        roomy = READ_AHEAD_BYTES
        while True:
            if self._room is not None and len(self._buffer) > roomy:
                await self._room.wait(len(self._buffer) + READ_BYTES - roomy)
                roomy = len(self._buffer) + READ_BYTES
            if not await self._read():
                return None
            line = self._taken()
            if line is not None:
                return line

    async def _read(self) -> bool:
        chunk = await self._reader.read(READ_BYTES)
        self._buffer += chunk
        return bool(chunk)

    def _taken(self) -> bytes | None:
        """A line that is there as a whole."""
        end = self._buffer.find(b"\n", self._looked_at)
        if max(end, len(self._buffer) if end < 0 else 0) > LINE_MAX_BYTES:
            raise LineTooLong
        if end < 0:
            self._looked_at = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._looked_at = 0
        return line
