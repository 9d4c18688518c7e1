"""JSON lines with limits: one object a line, at most 1 MiB (SPEC section 4)."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Protocol

from hive_shared.errors import BadJson, LineTooLong, TimedOut
from hive_shared.wire import LINE_MAX_BYTES

# A StreamReader pauses its transport at twice the limit, so this bounds memory per connection.
READ_LIMIT_BYTES = LINE_MAX_BYTES
NESTING_MAX = 64


class Room(Protocol):
    """Memory that is shared: `wait` returns when there is so much of it for us."""

    async def wait(self, units: int) -> None: ...


def encode(value: Mapping[str, Any]) -> bytes:
    """One line. Text that cannot be UTF-8 (lone surrogates) is escaped, never refused."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


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


async def read_line(
    reader: asyncio.StreamReader, *, finish_within_seconds: float, room: Room | None = None
) -> bytes | None:
    """The next line without its newline, or None at the end of the stream.

    Waiting for a line to begin takes as long as it takes; once begun, it must be finished within
    `finish_within_seconds`, or a peer could hold a connection with one byte. Raises `LineTooLong`
    or `TimedOut`; the connection is of no more use after either. A last line without a newline
    is dropped: half a request is no request.

    What is longer than the reader's limit waits for `room`, in bytes, which the caller gives back; without
    one the reader's limit has to be that of lines.
    """
    first = await reader.read(1)
    if not first:
        return None
    if first == b"\n":
        return b""
    try:
        async with asyncio.timeout(finish_within_seconds):
            rest = await _rest_of_line(reader, room)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise LineTooLong from None
    except TimeoutError:
        raise TimedOut(f"the line was not finished within {finish_within_seconds:g} seconds") from None
    if len(rest) > LINE_MAX_BYTES:
        raise LineTooLong
    return first + rest[:-1]


async def _rest_of_line(reader: asyncio.StreamReader, room: Room | None) -> bytes:
    parts: list[bytes] = []
    length = 0
    while True:
        try:
            return b"".join([*parts, await reader.readuntil(b"\n")])
        except asyncio.LimitOverrunError as overrun:
            length += overrun.consumed
            if room is None or length > LINE_MAX_BYTES:
                raise
            await room.wait(overrun.consumed)
            parts.append(await reader.readexactly(overrun.consumed))
