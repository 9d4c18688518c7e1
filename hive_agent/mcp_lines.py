"""MCP over newline-delimited JSON on a Unix stream: the transport of tools.sock, for both ends.

The SDK has it for stdio only. It is the same framing, so a relay of bytes joins the two.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from hive_agent.mcp_limits import LINE_MAX_BYTES as LINE_MAX_BYTES

log = logging.getLogger(__name__)

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]


@asynccontextmanager
async def message_streams(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """The two streams that an MCP session wants, over one connection; closes it at the end."""
    arriving, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    reading = asyncio.create_task(_read(reader, arriving), name="mcp-reader")
    writing = asyncio.create_task(_write(writer, leaving), name="mcp-writer")
    try:
        yield incoming, outgoing
    finally:
        outgoing.close()
        incoming.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await asyncio.wait({writing})  # the last answers
        for task in (reading, writing):
            task.cancel()
        await asyncio.gather(reading, writing, return_exceptions=True)
        writer.close()


async def _read(
    reader: asyncio.StreamReader, arriving: MemoryObjectSendStream[SessionMessage | Exception]
) -> None:
    async with arriving:
        try:
            while line := await reader.readline():
                await arriving.send(_message(line))
        except ValueError:
            log.warning("mcp: a line of more than %d bytes; closing the connection", LINE_MAX_BYTES)
        except (ConnectionError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            return  # one of the ends has gone


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        return error


async def _write(writer: asyncio.StreamWriter, leaving: MemoryObjectReceiveStream[SessionMessage]) -> None:
    async with leaving:
        try:
            async for each in leaving:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                writer.write(text.encode() + b"\n")
                await writer.drain()
        except ConnectionError:
            return
